//! Several shards: what is done to a group of tasks, it is done to in each of them.

use std::fmt;
use wheel::SHARDS;

/// Shards, each once; cheap to copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ShardSet(u16);

impl ShardSet {
    pub(crate) const ALL: Self = Self(u16::MAX);

    pub(crate) fn of(shards: impl IntoIterator<Item = u8>) -> Self {
        shards.into_iter().fold(Self::default(), |mut set, shard| {
            set.insert(shard);
            set
        })
    }

    /// # Panics
    /// If there is no such shard.
    pub(crate) fn insert(&mut self, shard: u8) {
        assert!(shard < SHARDS, "there is no shard {shard}");
        self.0 |= 1 << shard;
    }

    pub(crate) fn contains(self, shard: u8) -> bool {
        shard < SHARDS && self.0 & 1 << shard != 0
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// In their order.
    pub(crate) fn iter(self) -> impl Iterator<Item = u8> {
        (0..SHARDS).filter(move |shard| self.contains(*shard))
    }

    /// What [`fmt::Display`] wrote; `None` for anything else.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut set = Self::default();
        for shard in text.split(',') {
            set.insert(shard.parse().ok().filter(|shard| *shard < SHARDS)?);
        }
        Some(set)
    }
}

/// `0,3,15`.
impl fmt::Display for ShardSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, shard) in self.iter().enumerate() {
            let comma = if nth > 0 { "," } else { "" };
            write!(f, "{comma}{shard}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_reads_as_it_was_written_and_nothing_else_is_one() {
        for set in [ShardSet::ALL, ShardSet::of([0]), ShardSet::of([15, 3, 0, 3])] {
            assert_eq!(ShardSet::parse(&set.to_string()), Some(set));
        }
        assert_eq!(ShardSet::of([15, 3, 0, 3]).to_string(), "0,3,15");
        for bad in ["", ",", "16", "-1", "0,", "256", "1 2", "x"] {
            assert_eq!(ShardSet::parse(bad), None, "{bad}");
        }
    }
}
