//! All deadlines in one ordered set; each key is in it at most once.

use std::collections::BTreeSet;
use std::time::Instant;

#[derive(Debug)]
pub(crate) struct Timers<K>(BTreeSet<(Instant, K)>);

impl<K: Ord + Clone> Default for Timers<K> {
    fn default() -> Self {
        Self(BTreeSet::new())
    }
}

impl<K: Ord + Clone> Timers<K> {
    /// Moves `key` from where it is `armed` to `at`, and notes that in `armed`.
    pub(crate) fn arm(&mut self, key: &K, armed: &mut Option<Instant>, at: Option<Instant>) {
        if *armed == at {
            return;
        }
        if let Some(before) = armed.take() {
            self.0.remove(&(before, key.clone()));
        }
        if let Some(at) = at {
            self.0.insert((at, key.clone()));
        }
        *armed = at;
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.0.first().map(|(at, _)| *at)
    }

    /// Takes out the earliest key that is due; its owner must forget that it was armed.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<K> {
        self.next().filter(|at| *at <= now)?;
        self.0.pop_first().map(|(_, key)| key)
    }
}
