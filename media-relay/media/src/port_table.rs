//! Which side has which port pair: looked up for each datagram.

use crate::port_pool::PortPair;
use crate::session::SideKey;
use std::ops::RangeInclusive;

#[derive(Debug)]
pub(crate) struct PortTable {
    /// The number of the first pair; a pair's number is half its RTP port.
    first: usize,
    sides: Vec<Option<SideKey>>,
    used: usize,
}

impl PortTable {
    /// For all pairs within `ports`.
    pub(crate) fn new(ports: &RangeInclusive<u16>) -> Self {
        let (first, last) = (usize::from(*ports.start() / 2), usize::from(*ports.end() / 2));
        Self { first, sides: vec![None; (last + 1).saturating_sub(first)], used: 0 }
    }

    pub(crate) fn get(&self, pair: &PortPair) -> Option<&SideKey> {
        self.sides.get(self.place(*pair)?)?.as_ref()
    }

    /// # Panics
    /// If the pair is not within the ports.
    pub(crate) fn insert(&mut self, pair: PortPair, key: SideKey) {
        let place = self.place(pair).expect("a pair of the range");
        let before = self.sides[place].replace(key);
        self.used += usize::from(before.is_none());
    }

    pub(crate) fn remove(&mut self, pair: &PortPair) {
        let side = self.place(*pair).and_then(|it| self.sides.get_mut(it));
        let before = side.and_then(Option::take);
        self.used -= usize::from(before.is_some());
    }

    /// Pairs that have a side.
    pub(crate) fn len(&self) -> usize {
        self.used
    }

    fn place(&self, pair: PortPair) -> Option<usize> {
        usize::from(pair.rtp() / 2).checked_sub(self.first)
    }
}
