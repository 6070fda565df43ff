//! Who is due next: one deadline per key, the earliest first.

use std::collections::BTreeSet;
use std::time::Instant;

/// An ordered index over the deadlines that the keys' owners keep.
#[derive(Debug)]
pub(crate) struct Deadlines<K>(BTreeSet<(Instant, K)>);

impl<K: Ord + Copy> Deadlines<K> {
    pub(crate) fn new() -> Self {
        Self(BTreeSet::new())
    }

    /// `key` was due at `old`, and is now at `new`.
    pub(crate) fn shift(&mut self, key: K, old: Option<Instant>, new: Option<Instant>) {
        if old == new {
            return;
        }
        if let Some(old) = old {
            self.0.remove(&(old, key));
        }
        if let Some(new) = new {
            self.0.insert((new, key));
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.0.first().map(|(at, _)| *at)
    }

    /// A key that is due; it stays in the index until it is shifted.
    pub(crate) fn due(&self, now: Instant) -> Option<K> {
        self.0.first().filter(|(at, _)| *at <= now).map(|(_, key)| *key)
    }
}
