//! One lane of an agenda: how many of its tasks are begun, how fast, and which wait for another
//! attempt.
//!
//! A task is begun from its claim to its answer. Lanes have nothing in common, so that one which is
//! slow or dead delays no other.

use crate::step::{Attempt, Claim, Ticket};
use crate::task::TaskId;
use crate::{Tick, Wheel};

/// Claims in one batch; while so many are collected, no other task of the lane is begun.
pub const CLAIMS_PER_BATCH: usize = 1_000;
/// Batches of claims of one lane that wait for the store: what it takes at once, and as much again, so
/// that it need not wait for us in between.
const CLAIM_BATCHES_MAX: usize = 18;
/// Tasks of one lane that wait for another attempt; while there are so many, whoever brings about
/// effects there is away, and tasks stay PENDING, where they can be cancelled.
const BACKED_OFF_MAX: usize = 4_096;
/// How much of the pace may be taken at once, in ms.
const BURST_MS: u64 = 10;
const NS_PER_MS: u64 = 1_000_000;
const NS_PER_S: u64 = 1_000_000_000;

/// What one lane can take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneLimits {
    /// Tasks between claim and answer at a time, 1 or more. Repeated attempts use half of it at most.
    pub begun_max: usize,
    /// Tasks and repeated attempts begun per second, 1 or more; `None`: as they come due.
    pub begun_per_s_max: Option<u32>,
}

pub(crate) struct LaneState {
    limits: LaneLimits,
    pace: Option<Pace>,
    /// Tasks between claim and answer, repeated attempts included.
    pub(crate) begun: usize,
    /// Those of them that were tried before.
    pub(crate) retrying: usize,
    /// Batches that wait for the store.
    pub(crate) claim_batches: usize,
    /// To go out with the next batch.
    pub(crate) claims: Vec<Claim>,
    /// To go out with the next batch.
    pub(crate) attempts: Vec<Attempt>,
    /// Tasks that wait for another attempt; one that is dropped stays until its time.
    pub(crate) retries: Wheel<(TaskId, Ticket)>,
    /// How many of `retries` still wait.
    pub(crate) backed_off: usize,
}

impl LaneState {
    pub(crate) fn new(limits: LaneLimits) -> Self {
        let LaneLimits { begun_max, begun_per_s_max } = limits;
        assert!(begun_max > 0 && begun_per_s_max != Some(0), "{limits:?} begins nothing");
        Self {
            limits,
            pace: begun_per_s_max.map(Pace::new),
            begun: 0,
            retrying: 0,
            claim_batches: 0,
            claims: Vec::new(),
            attempts: Vec::new(),
            retries: Wheel::new(0, u32::MAX - 1),
            backed_off: 0,
        }
    }

    /// Whether another task may be claimed, as far as numbers go.
    pub(crate) fn has_room(&self) -> bool {
        self.begun < self.limits.begun_max
            && self.claims.len() < CLAIMS_PER_BATCH
            && self.claim_batches < CLAIM_BATCHES_MAX
            && self.backed_off < BACKED_OFF_MAX
    }

    /// Whether a task may be tried again, as far as numbers go.
    pub(crate) fn has_room_to_retry(&self) -> bool {
        self.begun < self.limits.begun_max && self.retrying < self.limits.begun_max.div_ceil(2)
    }

    /// When the pace allows another one; 0 for at once.
    pub(crate) fn ready_at(&self) -> Tick {
        self.pace.as_ref().map_or(0, Pace::ready_at)
    }

    /// One is begun at `now`.
    pub(crate) fn begin(&mut self, now: Tick) {
        self.begun += 1;
        if let Some(pace) = &mut self.pace {
            pace.take(now);
        }
    }
}

/// So many per second, and at most as many at once as [`BURST_MS`] gives (GCRA).
struct Pace {
    interval_ns: u64,
    /// When the next one would be due if all came evenly, in ns of the ticks' clock.
    next_ns: u128,
}

impl Pace {
    fn new(per_s_max: u32) -> Self {
        Self { interval_ns: NS_PER_S / u64::from(per_s_max), next_ns: 0 }
    }

    fn ready_at(&self) -> Tick {
        let earliest_ns = self.next_ns.saturating_sub(u128::from(BURST_MS * NS_PER_MS));
        Tick::try_from(earliest_ns.div_ceil(u128::from(NS_PER_MS))).unwrap_or(Tick::MAX)
    }

    fn take(&mut self, now: Tick) {
        let now_ns = u128::from(now) * u128::from(NS_PER_MS);
        self.next_ns = self.next_ns.max(now_ns) + u128::from(self.interval_ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many are begun from `from` on, for a second, if they wait in any number.
    fn begun(pace: &mut Pace, from: Tick) -> u32 {
        let mut count = 0;
        for now in from..from + 1_000 {
            while pace.ready_at() <= now {
                pace.take(now);
                count += 1;
            }
        }
        count
    }

    #[test]
    fn a_pace_is_kept_over_a_second_and_only_its_burst_goes_at_once() {
        for per_s in [1, 3, 100, 2_000, 1_000_000] {
            let mut pace = Pace::new(per_s);
            let burst = per_s / 100 + 1;
            let first = begun(&mut pace, 10_000);
            assert!((per_s..=per_s + burst).contains(&first), "{first} at {per_s}/s");
            let second = begun(&mut pace, 11_000);
            assert!((per_s - 1..=per_s + 1).contains(&second), "{second} at {per_s}/s");
            assert!(begun(&mut pace, 60_000) <= per_s + burst, "idle time was saved up");
        }
    }
}
