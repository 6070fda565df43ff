//! Sessions that were deleted before they were made: an offer that its client has given up must not
//! make one that nobody deletes any more.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long an offer may be overtaken by the deletion of its session.
const KEPT_FOR: Duration = Duration::from_secs(60);
/// Tombstones at most; the oldest go first.
const KEPT_MAX: usize = 4_096;

#[derive(Debug, Default)]
pub(crate) struct Tombstones {
    ids: HashSet<Arc<str>>,
    order: VecDeque<(Instant, Arc<str>)>,
}

impl Tombstones {
    /// Remembers that the session must not be made any more.
    pub(crate) fn bury(&mut self, now: Instant, session_id: &str) {
        self.forget(now);
        if self.ids.contains(session_id) {
            return;
        }
        if self.order.len() == KEPT_MAX {
            self.pop();
        }
        let id: Arc<str> = session_id.into();
        self.ids.insert(id.clone());
        self.order.push_back((now + KEPT_FOR, id));
    }

    pub(crate) fn has(&self, session_id: &str) -> bool {
        self.ids.contains(session_id)
    }

    /// Forgets those whose time is over.
    pub(crate) fn forget(&mut self, now: Instant) {
        while self.order.front().is_some_and(|(until, _)| *until <= now) {
            self.pop();
        }
    }

    fn pop(&mut self) {
        if let Some((_, id)) = self.order.pop_front() {
            self.ids.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_remembers_for_a_while_and_not_without_bound() {
        let now = Instant::now();
        let mut tombstones = Tombstones::default();
        tombstones.bury(now, "a");
        tombstones.bury(now, "a");
        tombstones.forget(now + KEPT_FOR - Duration::from_millis(1));
        assert!(tombstones.has("a"));
        tombstones.forget(now + KEPT_FOR);
        assert!(!tombstones.has("a"));
        for n in 0..=KEPT_MAX {
            tombstones.bury(now, &n.to_string());
        }
        assert!(!tombstones.has("0") && tombstones.has("1"));
        assert_eq!((tombstones.ids.len(), tombstones.order.len()), (KEPT_MAX, KEPT_MAX));
    }
}
