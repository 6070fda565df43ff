//! How fast a queue moves, and what that means for somebody at a position.
//!
//! What is counted is the time between two callers who reached an agent while somebody waited. From
//! the recent ones follows what a position has before it; how long somebody has waited already does
//! not, so that waiting alone never makes the expected wait longer.

use crate::UnixMs;
use std::collections::VecDeque;

/// Gaps that are remembered.
const GAPS_MAX: usize = 100;
/// Fewer say nothing.
pub const GAPS_MIN: usize = 5;
/// Older ones say nothing either, in ms: half an hour.
pub const GAP_AGE_MS: UnixMs = 1_800_000;
/// Of the standard normal distribution.
const QUANTILE_90: f64 = 1.2816;

/// How long somebody may still have to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// In half of the cases it is no longer.
    pub median_ms: u64,
    /// In nine of ten.
    pub p90_ms: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// When each ended, and how long it was.
    gaps: VecDeque<(UnixMs, u64)>,
    /// Since when the present one lasts; `None` while nobody waits.
    since: Option<UnixMs>,
}

impl Pace {
    /// Somebody waits.
    pub(crate) fn begin(&mut self, now: UnixMs) {
        self.since.get_or_insert(now);
    }

    /// Somebody reached an agent.
    pub(crate) fn advance(&mut self, now: UnixMs) {
        if let Some(since) = self.since.replace(now) {
            if self.gaps.len() == GAPS_MAX {
                self.gaps.pop_front();
            }
            self.gaps.push_back((now, u64::try_from(now.saturating_sub(since)).unwrap_or(0)));
        }
    }

    /// Nobody waits any more.
    pub(crate) fn end(&mut self) {
        self.since = None;
    }

    /// For a caller at `position`, from 1; `None` if too little is known.
    pub(crate) fn expected(&self, now: UnixMs, position: u32) -> Option<Expected> {
        let recent = self.gaps.iter().filter(|(at, _)| now.saturating_sub(*at) <= GAP_AGE_MS);
        let mut gaps: Vec<u64> = recent.map(|(_, gap_ms)| *gap_ms).collect();
        if position == 0 || gaps.len() < GAPS_MIN {
            return None;
        }
        gaps.sort_unstable();
        if position == 1 {
            let at = |tenths: usize| gaps[(gaps.len() * tenths / 10).min(gaps.len() - 1)];
            return Some(Expected { median_ms: at(5), p90_ms: at(9) });
        }
        // A sum of many such gaps is distributed normally.
        let (count, position) = (gaps.len() as f64, f64::from(position));
        let mean = gaps.iter().sum::<u64>() as f64 / count;
        let variance = gaps.iter().map(|gap| (*gap as f64 - mean).powi(2)).sum::<f64>() / count;
        let median = position * mean;
        let p90 = median + QUANTILE_90 * (position * variance).sqrt();
        Some(Expected { median_ms: median.round() as u64, p90_ms: p90.round() as u64 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Somebody waits from 0 on, and every gap ends with a caller who reaches an agent.
    fn paced(gaps_ms: &[i64]) -> (Pace, UnixMs) {
        let mut pace = Pace::default();
        pace.begin(0);
        let mut now = 0;
        for gap_ms in gaps_ms {
            now += gap_ms;
            pace.advance(now);
        }
        (pace, now)
    }

    #[test]
    fn too_little_or_too_old_is_unknown() {
        let (pace, now) = paced(&[10; GAPS_MIN - 1]);
        assert_eq!(pace.expected(now, 1), None);
        let (pace, now) = paced(&[10; GAPS_MIN]);
        assert!(pace.expected(now, 1).is_some());
        assert_eq!(pace.expected(now, 0), None, "of who is not in line");
        assert!(pace.expected(now - 40 + GAP_AGE_MS, 1).is_some());
        assert_eq!(pace.expected(now - 39 + GAP_AGE_MS, 1), None);
    }

    #[test]
    fn expectation_is_of_the_gaps_before_a_position() {
        let (pace, now) = paced(&[10, 20, 30, 40, 50, 60, 70, 80, 90, 100]);
        assert_eq!(pace.expected(now, 1), Some(Expected { median_ms: 60, p90_ms: 100 }));
        assert_eq!(pace.expected(now, 4), Some(Expected { median_ms: 220, p90_ms: 294 }));
    }

    #[test]
    fn waiting_alone_does_not_make_it_longer() {
        let (pace, now) = paced(&[10, 20, 30, 40, 50]);
        for position in [1, 2, 10] {
            let first = pace.expected(now, position);
            assert_eq!(pace.expected(now + 600_000, position), first);
        }
    }

    #[test]
    fn time_in_which_nobody_waits_is_no_gap() {
        let (mut pace, now) = paced(&[10; GAPS_MIN]);
        pace.end();
        pace.begin(now + 1_000_000);
        pace.advance(now + 1_000_010);
        let expected = Expected { median_ms: 10, p90_ms: 10 };
        assert_eq!(pace.expected(now + 1_000_010, 1), Some(expected));
    }
}
