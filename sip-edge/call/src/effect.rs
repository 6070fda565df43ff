//! What tasks do to a call: each occurrence of a task once, however often it is asked for.
//!
//! The scheduler asks again when it did not hear our answer. A call therefore remembers, also after
//! its end, which occurrence of which task it has performed last.

use crate::{Plan, octets};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Tasks that a call remembers; the one that was performed longest ago is forgotten first. More than
/// a scheduler lets a call have at a time by default.
pub const EFFECTS_MAX: usize = 128;

/// One time that a task of the scheduler is due.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Occurrence {
    pub task_id: String,
    /// Rises from one time to the next.
    pub number: u32,
}

/// Which legs of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Legs {
    Both,
    A,
    /// The one that talks with leg A, or rings for it.
    B,
}

/// Where leg A is sent to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Somebody who is dialled.
    Target(String),
    Plan(Plan),
    /// Out of the queue in which it waits, on with its own plan.
    GoOn,
    /// Into another queue, in which queue-svc has put it already.
    Queue {
        name: String,
        music: String,
    },
}

/// What a task is to do to the call when it is due; sip-edge is asked for it then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Later {
    Hangup {
        cause: crate::Cause,
        legs: Legs,
    },
    TransferToTarget(String),
    /// The plan as its shell encodes it, checked.
    TransferToPlan(#[serde(with = "octets")] Bytes),
    Play {
        file: String,
        legs: Legs,
    },
    Publish {
        subject: String,
        #[serde(with = "octets")]
        payload: Bytes,
    },
}

/// The last occurrence of each task that was performed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Effects(VecDeque<Occurrence>);

impl Effects {
    /// Whether this occurrence, or a later one of the same task, has been performed.
    pub(crate) fn include(&self, occurrence: &Occurrence) -> bool {
        let same = |it: &&Occurrence| it.task_id == occurrence.task_id;
        self.0.iter().find(same).is_some_and(|it| it.number >= occurrence.number)
    }

    pub(crate) fn record(&mut self, occurrence: Occurrence) {
        self.0.retain(|it| it.task_id != occurrence.task_id);
        if self.0.len() == EFFECTS_MAX {
            self.0.pop_front();
        }
        self.0.push_back(occurrence);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn occurrence(task: usize, number: u32) -> Occurrence {
        Occurrence { task_id: format!("t{task}"), number }
    }

    #[test]
    fn an_occurrence_before_the_last_one_is_not_performed_again() {
        let mut effects = Effects::default();
        effects.record(occurrence(1, 2));
        assert!(effects.include(&occurrence(1, 1)) && effects.include(&occurrence(1, 2)));
        assert!(!effects.include(&occurrence(1, 3)) && !effects.include(&occurrence(2, 1)));
    }

    #[test]
    fn the_task_that_was_performed_longest_ago_is_forgotten_first() {
        let mut effects = Effects::default();
        (0..EFFECTS_MAX).for_each(|task| effects.record(occurrence(task, 1)));
        effects.record(occurrence(0, 2));
        effects.record(occurrence(EFFECTS_MAX, 1));
        assert!(effects.include(&occurrence(0, 2)) && !effects.include(&occurrence(1, 1)));
        assert_eq!(effects.0.len(), EFFECTS_MAX);
    }
}
