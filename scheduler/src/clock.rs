//! Time: the wall clock for what is stored and sent, a steady one for what is armed.
//!
//! A tick of the steady clock is a millisecond; it read the same as the wall clock when the process
//! began, and never steps. Each task is mapped from one to the other once: when it is asked for, or
//! when a process that starts reads it. A step of the wall clock therefore moves no task that is
//! armed; one with an absolute time then fires when the wall clock, had it not been stepped, would
//! have shown that time. What is not armed goes by the stored Unix time: after a restart, in a shard
//! that has changed hands, beyond `--horizon` until it comes near, and where a task is paused or
//! extended.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use wheel::Tick;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    began: Instant,
    began_unix_us: i64,
}

/// One moment on both clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    unix_us: i64,
    steady_us: i64,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { began: Instant::now(), began_unix_us: unix_us() }
    }

    /// The tick that has begun last.
    pub(crate) fn now(&self) -> Tick {
        to_tick(self.steady_us().div_euclid(1_000))
    }

    pub(crate) fn moment(&self) -> Moment {
        Moment { unix_us: unix_us(), steady_us: self.steady_us() }
    }

    /// When `tick` begins; a past one is now.
    pub(crate) fn instant(&self, tick: Tick) -> Instant {
        let after_us =
            i64::try_from(tick).unwrap_or(i64::MAX).saturating_mul(1_000) - self.began_unix_us;
        let after = Duration::from_micros(u64::try_from(after_us).unwrap_or(0));
        self.began.checked_add(after).unwrap_or(self.began + FAR)
    }

    fn steady_us(&self) -> i64 {
        let since = i64::try_from(self.began.elapsed().as_micros()).unwrap_or(i64::MAX);
        self.began_unix_us.saturating_add(since)
    }
}

/// A century: what an [`Instant`] can hold on every platform.
const FAR: Duration = Duration::from_secs(100 * 365 * 86_400);

impl Moment {
    /// Unix ms, rounded down.
    pub(crate) fn unix_ms(&self) -> i64 {
        self.unix_us.div_euclid(1_000)
    }

    /// So many ms from now, 0 or more: in Unix ms and on the steady clock, both rounded up, so that
    /// the time asked for has passed on each.
    pub(crate) fn after(&self, after_ms: i64) -> (i64, Tick) {
        let ms = |us: i64| ceil_ms(us).saturating_add(after_ms);
        (ms(self.unix_us), to_tick(ms(self.steady_us)))
    }

    /// The tick at which the wall clock, if it is not stepped, shows this time or a later one.
    pub(crate) fn at(&self, unix_ms: i64) -> Tick {
        let ahead_us = unix_ms.saturating_mul(1_000).saturating_sub(self.unix_us);
        to_tick(ceil_ms(self.steady_us.saturating_add(ahead_us)))
    }
}

fn ceil_ms(us: i64) -> i64 {
    us.saturating_add(999).div_euclid(1_000)
}

/// What is before 1970 is due as if it were then.
fn to_tick(ms: i64) -> Tick {
    Tick::try_from(ms).unwrap_or(0)
}

fn unix_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON_US: i64 = 1_700_000_000_000_000;
    const HOUR_US: i64 = 3_600_000_000;

    #[test]
    fn a_relative_time_is_the_same_steady_tick_however_the_wall_clock_was_stepped() {
        for step_us in [-HOUR_US, 0, HOUR_US] {
            let moment = Moment { unix_us: NOON_US + step_us, steady_us: NOON_US };
            let (unix_ms, tick) = moment.after(5_000);
            assert_eq!(tick, 1_700_000_005_000);
            assert_eq!(unix_ms, (NOON_US + step_us) / 1_000 + 5_000);
            assert_eq!(moment.at(unix_ms), tick);
        }
    }

    #[test]
    fn no_part_of_a_millisecond_makes_a_task_early() {
        for part_us in [0, 1, 500, 999] {
            let moment = Moment { unix_us: NOON_US + part_us, steady_us: NOON_US + part_us };
            let asked_us = NOON_US + part_us + 7_000;
            let (unix_ms, tick) = moment.after(7);
            assert!(unix_ms * 1_000 >= asked_us && tick as i64 * 1_000 >= asked_us);
            assert_eq!(moment.at(1_700_000_000_007), 1_700_000_000_007);
        }
    }

    #[test]
    fn a_tick_is_an_instant_and_back() {
        let clock = Clock::start();
        let tick = clock.now();
        assert!(clock.instant(tick) <= Instant::now());
        assert!(clock.instant(tick + 1_000) >= clock.began);
        assert_eq!(clock.instant(0), clock.began);
        assert!(clock.instant(Tick::MAX) > clock.began);
    }

    #[test]
    fn absurd_times_are_far_away_not_a_panic() {
        let moment = Moment { unix_us: NOON_US, steady_us: NOON_US };
        assert_eq!(moment.at(i64::MIN), 0);
        assert!(moment.at(i64::MAX) > 1_700_000_000_000);
        assert!(moment.after(i64::MAX).0 == i64::MAX);
    }
}
