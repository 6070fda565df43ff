//! The newest changes of the log as they were committed, for who reads at its end, as NATS's outbox and
//! most watches do: they need not ask the database for what this process has just written.

use super::{Change, Logged};
use std::collections::VecDeque;

/// Far more than come while a reader is away for a moment; at some 300 bytes each, 0.3 MiB.
const CHANGES_MAX: usize = 1_024;

/// Changes without gaps between their revisions.
#[derive(Debug, Default)]
pub(super) struct Recent(VecDeque<Logged>);

impl Recent {
    /// These were committed, and `last` is the revision of the last of them. What was before is
    /// forgotten if others have written in between.
    pub(super) fn note(&mut self, changes: &[Change], last: i64) {
        let count = i64::try_from(changes.len()).unwrap_or(i64::MAX);
        let before = last.saturating_sub(count);
        if self.0.back().is_some_and(|newest| newest.revision != before) {
            self.0.clear();
        }
        let events = changes.iter().map(|it| it.event.clone());
        self.0
            .extend((before + 1..).zip(events).map(|(revision, event)| Logged { revision, event }));
        self.0.drain(..self.0.len().saturating_sub(CHANGES_MAX));
    }

    /// Up to `limit` changes after a revision, in order; `None` if the next one is not here.
    pub(super) fn after(&self, revision: i64, limit: u32) -> Option<Vec<Logged>> {
        let first = self.0.front()?.revision;
        let skipped = usize::try_from(revision.checked_add(1)?.checked_sub(first)?).ok()?;
        let found: Vec<Logged> =
            self.0.iter().skip(skipped).take(limit as usize).cloned().collect();
        (!found.is_empty()).then_some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(count: usize) -> Vec<Change> {
        vec![Change { at_unix_ms: 1, event: vec![7] }; count]
    }

    fn revisions(recent: &Recent, after: i64, limit: u32) -> Option<Vec<i64>> {
        let found = recent.after(after, limit)?;
        Some(found.iter().map(|it| it.revision).collect())
    }

    #[test]
    fn it_has_what_comes_next_or_says_that_it_has_not() {
        let mut recent = Recent::default();
        assert_eq!(revisions(&recent, 0, 9), None);
        recent.note(&changes(2), 12);
        recent.note(&changes(0), 12);
        recent.note(&changes(2), 14);
        assert_eq!(revisions(&recent, 9, 9), None);
        assert_eq!(revisions(&recent, 10, 9), Some(vec![11, 12, 13, 14]));
        assert_eq!(revisions(&recent, 11, 2), Some(vec![12, 13]));
        assert_eq!(revisions(&recent, 14, 9), None);
        assert_eq!(revisions(&recent, i64::MAX, 9), None);
    }

    #[test]
    fn what_others_have_written_leaves_no_gap() {
        let mut recent = Recent::default();
        recent.note(&changes(2), 2);
        recent.note(&changes(1), 9);
        assert_eq!(revisions(&recent, 1, 9), None);
        assert_eq!(revisions(&recent, 8, 9), Some(vec![9]));
    }

    #[test]
    fn only_the_newest_are_kept() {
        let mut recent = Recent::default();
        let count = CHANGES_MAX + 5;
        recent.note(&changes(count), count as i64);
        assert_eq!(recent.0.len(), CHANGES_MAX);
        assert_eq!(revisions(&recent, 4, 1), None);
        assert_eq!(revisions(&recent, 5, 1), Some(vec![6]));
    }
}
