//! Timers of the transactions (RFC 3261 §17 and Table 4, RFC 6026 §8.4).

use std::time::{Duration, Instant};

/// The durations that all timers are made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timing {
    pub(crate) t1: Duration,
    pub(crate) t2: Duration,
    pub(crate) t4: Duration,
}

impl Timing {
    /// 64·T1: Timers B, F, H, J, L, M, and D by UDP.
    pub(crate) fn timeout(&self) -> Duration {
        64 * self.t1
    }

    /// How long a transaction lingers for retransmissions: not at all by a reliable transport.
    pub(crate) fn linger(&self, reliable: bool, unreliable: Duration) -> Duration {
        if reliable { Duration::ZERO } else { unreliable }
    }
}

/// One deadline per timer of a transaction; `T` is an enum of at most three.
#[derive(Debug)]
pub(crate) struct Timers<T>([Option<(Instant, T)>; 3]);

impl<T: Copy + PartialEq> Timers<T> {
    pub(crate) fn new() -> Self {
        Self([None; 3])
    }

    pub(crate) fn set(&mut self, timer: T, at: Instant) {
        let slot = self.0.iter().position(|slot| slot.is_some_and(|(_, it)| it == timer));
        let slot = slot.or_else(|| self.0.iter().position(Option::is_none));
        self.0[slot.expect("a transaction has three timers at most")] = Some((at, timer));
    }

    pub(crate) fn clear(&mut self) {
        self.0 = [None; 3];
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.0.iter().flatten().map(|(at, _)| *at).min()
    }

    /// The earliest timer that is due.
    pub(crate) fn take_expired(&mut self, now: Instant) -> Option<T> {
        let earliest = self.0.iter_mut().filter(|slot| slot.is_some_and(|(at, _)| at <= now));
        earliest.min_by_key(|slot| slot.map(|(at, _)| at))?.take().map(|(_, timer)| timer)
    }
}
