//! Time: the wall clock for what is stored and sent, a steady one for what is armed.
//!
//! A tick of the steady clock is a millisecond; it read the same as the wall clock when the process
//! began, and never steps. A task with a relative time has its tick stored beside its Unix time
//! ([`Pinned`]), so that no step of the wall clock moves it, armed or not, paused or extended, as long
//! as the process lives that wrote it. Another process cannot know that clock and goes by the Unix
//! time: after a restart, and in a shard that has changed hands.
//!
//! A task with an absolute time is mapped to the steady clock once, when it is asked for or comes
//! within `--horizon`: one that is armed fires when the wall clock, had it not been stepped since,
//! would have shown that time.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use uuid::Uuid;
use wheel::Tick;

/// Cheap to copy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    began: Instant,
    began_unix_us: i64,
    mark: i64,
    /// How far the wall clock was ahead of the steady one at most. Of the process, like the clock.
    ahead_max_us: &'static AtomicI64,
}

/// When a relative task is due on the steady clock of the process that wrote it, as it is stored;
/// 0 if it goes by the wall clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pinned(pub(crate) i64);

/// Bits of a [`Pinned`] that are the tick: until the year 2527. Those above are the process's mark.
const TICK_BITS: u32 = 44;

/// One moment on both clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    unix_us: i64,
    steady_us: i64,
    mark: i64,
    /// As [`Clock`] has it.
    ahead_max_us: i64,
}

impl Clock {
    pub(crate) fn start() -> Self {
        let bits = Uuid::now_v7().as_u128() as i64;
        let mark = (bits & (i64::MAX >> TICK_BITS)).max(1);
        let ahead_max_us = Box::leak(Box::new(AtomicI64::new(0)));
        Self { began: Instant::now(), began_unix_us: unix_us(), mark, ahead_max_us }
    }

    /// The tick that has begun last.
    pub(crate) fn now(&self) -> Tick {
        to_tick(self.steady_us().div_euclid(1_000))
    }

    pub(crate) fn moment(&self) -> Moment {
        let (unix_us, steady_us) = (unix_us(), self.steady_us());
        let ahead_us = unix_us.saturating_sub(steady_us);
        let before = self.ahead_max_us.fetch_max(ahead_us, Ordering::Relaxed);
        Moment { unix_us, steady_us, mark: self.mark, ahead_max_us: before.max(ahead_us) }
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

    /// So many ms from now as [`Moment::after`], and as it is stored.
    pub(crate) fn pinned_after(&self, after_ms: i64) -> (i64, Tick, Pinned) {
        let (unix_ms, tick) = self.after(after_ms);
        (unix_ms, tick, self.pin(tick))
    }

    /// The tick at which a task is due that was stored with these times.
    pub(crate) fn due(&self, fires_at_unix_ms: i64, pinned: Pinned) -> Tick {
        match pinned.0 >> TICK_BITS == self.mark {
            true => (pinned.0 & ((1 << TICK_BITS) - 1)).unsigned_abs(),
            false => self.at(fires_at_unix_ms),
        }
    }

    /// So much later than it is due by [`Moment::due`]: when it is then due, and as that is stored.
    pub(crate) fn later(
        &self,
        fires_at_unix_ms: i64,
        pinned: Pinned,
        by_ms: i64,
    ) -> (Tick, Pinned) {
        let due = self.due(fires_at_unix_ms, pinned).saturating_add_signed(by_ms);
        (due, if pinned == Pinned::default() { pinned } else { self.pin(due) })
    }

    /// How long it is until then, in ms; below 0 if that is past.
    pub(crate) fn until_ms(&self, due: Tick) -> i64 {
        let now_ms = self.steady_us.div_euclid(1_000);
        i64::try_from(due).unwrap_or(i64::MAX).saturating_sub(now_ms)
    }

    /// Whoever has read what is stored with a Unix time below this has read all that is due within
    /// so many ms, and it never goes back: what was stored while the wall clock was far ahead counts.
    pub(crate) fn horizon_end_unix_ms(&self, horizon_ms: i64) -> i64 {
        let end_us = self.steady_us.saturating_add(self.ahead_max_us);
        ceil_ms(end_us).saturating_add(horizon_ms)
    }

    fn pin(&self, due: Tick) -> Pinned {
        let tick = i64::try_from(due).ok().filter(|tick| *tick < 1 << TICK_BITS);
        tick.map_or(Pinned::default(), |tick| Pinned(self.mark << TICK_BITS | tick))
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

    fn moment(unix_us: i64, steady_us: i64) -> Moment {
        Moment { unix_us, steady_us, mark: 7, ahead_max_us: (unix_us - steady_us).max(0) }
    }

    #[test]
    fn a_step_moves_no_stored_relative_time_and_every_absolute_one() {
        let (fires_at, tick, pinned) = moment(NOON_US, NOON_US).pinned_after(7_200_000);
        for step_us in [-HOUR_US, HOUR_US] {
            let stepped = moment(NOON_US + step_us + 1_000_000, NOON_US + 1_000_000);
            assert_eq!(stepped.due(fires_at, pinned), tick);
            assert_eq!(stepped.until_ms(tick), 7_199_000);
            let (later, again) = stepped.later(fires_at, pinned, 500);
            assert_eq!((later, stepped.due(fires_at + 500, again)), (tick + 500, tick + 500));
            let wall = stepped.due(fires_at, Pinned::default());
            assert_eq!(wall as i64, tick as i64 - step_us / 1_000);
            // Another process does not know that clock.
            let other = Moment { mark: 8, ..stepped };
            assert_eq!(other.due(fires_at, pinned), wall);
            assert_eq!(other.due(fires_at, other.later(fires_at, pinned, 0).1), wall);
        }
    }

    #[test]
    fn what_was_stored_before_a_step_back_is_read_in_time() {
        let clock = Clock::start();
        let (before, horizon_ms) = (clock.moment(), 3_600_000);
        let ahead = clock.began_unix_us + HOUR_US;
        clock.ahead_max_us.fetch_max(HOUR_US, Ordering::Relaxed); // It had stepped an hour ahead.
        let after = clock.moment();
        let end = after.horizon_end_unix_ms(horizon_ms);
        assert!(end >= ahead / 1_000 + horizon_ms && end > before.horizon_end_unix_ms(horizon_ms));
        assert!(clock.moment().horizon_end_unix_ms(horizon_ms) >= end);
    }

    #[test]
    fn a_relative_time_is_the_same_steady_tick_however_the_wall_clock_was_stepped() {
        for step_us in [-HOUR_US, 0, HOUR_US] {
            let moment = moment(NOON_US + step_us, NOON_US);
            let (unix_ms, tick) = moment.after(5_000);
            assert_eq!(tick, 1_700_000_005_000);
            assert_eq!(unix_ms, (NOON_US + step_us) / 1_000 + 5_000);
            assert_eq!(moment.at(unix_ms), tick);
        }
    }

    #[test]
    fn no_part_of_a_millisecond_makes_a_task_early() {
        for part_us in [0, 1, 500, 999] {
            let moment = moment(NOON_US + part_us, NOON_US + part_us);
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
        let moment = moment(NOON_US, NOON_US);
        assert_eq!(moment.at(i64::MIN), 0);
        assert!(moment.at(i64::MAX) > 1_700_000_000_000);
        assert!(moment.after(i64::MAX).0 == i64::MAX);
    }
}
