//! Port pairs: RTP even, RTCP odd (RFC 3550 §11), not given out again for a while after use.

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

/// An even RTP port; RTCP is the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortPair(u16);

impl PortPair {
    /// The pair that a port belongs to.
    pub fn of(port: u16) -> Self {
        Self(port & !1)
    }
    pub fn rtp(self) -> u16 {
        self.0
    }
    pub fn rtcp(self) -> u16 {
        self.0 + 1
    }
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PortError {
    #[error("ports {first}-{last} hold no pair of an even RTP port and the odd one above it")]
    NoPair { first: u16, last: u16 },
    #[error("all {pairs} port pairs are in use or in quarantine")]
    Exhausted { pairs: usize },
}

/// Free pairs in the order in which they may be used: the longest unused first.
#[derive(Debug)]
pub(crate) struct PortPool {
    free: VecDeque<PortPair>,
    quarantine: VecDeque<(Instant, PortPair)>,
    quarantine_time: Duration,
    pairs: usize,
}

impl PortPool {
    /// All pairs within `ports`; the first one given out is number `start`, modulo their count.
    ///
    /// # Errors
    /// [`PortError::NoPair`] if the range is too small.
    pub(crate) fn new(
        ports: RangeInclusive<u16>,
        quarantine_time: Duration,
        start: usize,
    ) -> Result<Self, PortError> {
        let (first, last) = (*ports.start(), *ports.end());
        let mut free: VecDeque<_> = (first..last).filter(|it| it % 2 == 0).map(PortPair).collect();
        let pairs = free.len();
        match pairs {
            0 => return Err(PortError::NoPair { first, last }),
            pairs => free.rotate_left(start % pairs),
        }
        Ok(Self { free, quarantine: VecDeque::new(), quarantine_time, pairs })
    }

    /// # Errors
    /// [`PortError::Exhausted`] if none is free and out of quarantine.
    pub(crate) fn take(&mut self, now: Instant) -> Result<PortPair, PortError> {
        while let Some((_, pair)) = self.quarantine.pop_front_if(|(until, _)| *until <= now) {
            self.free.push_back(pair);
        }
        self.free.pop_front().ok_or(PortError::Exhausted { pairs: self.pairs })
    }

    /// Takes the pair whose RTP port this is; none if it is not free.
    pub(crate) fn reserve(&mut self, rtp_port: u16) -> Option<PortPair> {
        let nth = self.free.iter().position(|it| it.rtp() == rtp_port)?;
        self.free.remove(nth)
    }

    /// Takes a pair back; packets of its last user may still arrive for a while.
    pub(crate) fn give_back(&mut self, now: Instant, pair: PortPair) {
        self.quarantine.push_back((now + self.quarantine_time, pair));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_rests_before_it_is_given_out_again() {
        let now = Instant::now();
        let mut pool = PortPool::new(19_999..=20_004, Duration::from_secs(5), 1).unwrap();
        let taken = [pool.take(now).unwrap(), pool.take(now).unwrap()];
        assert_eq!(taken.map(PortPair::rtp), [20_002, 20_000], "20004 has no odd port above it");
        let exhausted = PortError::Exhausted { pairs: 2 };
        assert_eq!(pool.take(now).unwrap_err(), exhausted);
        pool.give_back(now, taken[0]);
        assert_eq!(pool.take(now + Duration::from_millis(4_999)).unwrap_err(), exhausted);
        assert_eq!(pool.take(now + Duration::from_secs(5)), Ok(taken[0]));
    }

    #[test]
    fn a_range_without_a_pair_is_refused() {
        let error = PortPool::new(20_001..=20_002, Duration::ZERO, 0).unwrap_err();
        assert_eq!(
            error.to_string(),
            "ports 20001-20002 hold no pair of an even RTP port and the odd one above it"
        );
    }

    #[test]
    fn the_highest_port_is_a_pair_too() {
        let mut pool = PortPool::new(65_534..=65_535, Duration::ZERO, 9).unwrap();
        assert_eq!(pool.take(Instant::now()).map(PortPair::rtcp), Ok(65_535));
    }
}
