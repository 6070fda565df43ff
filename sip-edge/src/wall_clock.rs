//! Moments of the steady clock as Unix time, in their order: by two readings of both clocks, moments
//! close to each other could change places.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// By how much the clocks may differ from what they did before the wall clock counts as set anew.
const SET_ANEW: Duration = Duration::from_millis(100);

/// What the wall clock showed at a moment of the steady one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WallClock {
    at: Instant,
    unix_us: i64,
}

impl WallClock {
    pub(crate) fn read() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { at: Instant::now(), unix_us: micros(since_epoch) }
    }

    /// `moment` in Unix µs, by this reading.
    pub(crate) fn unix_us(&self, moment: Instant) -> i64 {
        match moment.checked_duration_since(self.at) {
            Some(later) => self.unix_us + micros(later),
            None => self.unix_us - micros(self.at - moment),
        }
    }

    /// This reading, or `newer` if the wall clock was set in between.
    pub(crate) fn or(self, newer: Self) -> Self {
        let error_us = self.unix_us(newer.at).abs_diff(newer.unix_us);
        if Duration::from_micros(error_us) > SET_ANEW { newer } else { self }
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_keep_their_order_until_the_wall_clock_is_set() {
        let at = Instant::now();
        let clock = WallClock { at, unix_us: 5_000_000 };
        let [early, late] = [1, 2].map(|ms| at + Duration::from_millis(ms));
        assert_eq!((clock.unix_us(early), clock.unix_us(late)), (5_001_000, 5_002_000));
        assert_eq!(WallClock { at: late, unix_us: 0 }.unix_us(early), -1_000);

        let slow = WallClock { at: late, unix_us: 5_002_000 - 100_000 };
        assert_eq!(clock.or(slow).unix_us(late), 5_002_000, "a slow reading");
        let set = WallClock { at: late, unix_us: 9_000_000 };
        assert_eq!(clock.or(set).unix_us(late), 9_000_000);
    }
}
