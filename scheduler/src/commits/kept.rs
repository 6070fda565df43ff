//! Tasks that are firing, as this process has written them: their settlement follows within moments,
//! and need not read them again.
//!
//! That is right for as long as nobody else writes to their shards, so under one fencing token; and
//! only of what is known to be committed.

use crate::store::{Held, Task};
use std::collections::HashMap;
use wheel::TaskId;

/// Tasks that are kept; the others are read again. A herd has about so many under way.
const TASKS_MAX: usize = 131_072;

#[derive(Default)]
pub(super) struct Kept {
    tasks: HashMap<TaskId, (Held, Task)>,
    /// The shards of the tasks.
    held: Vec<Held>,
}

impl Kept {
    /// Forgets what is in shards that are not held any more, under these tokens.
    pub(super) fn retain(&mut self, held: &[Held]) {
        if self.held != held {
            self.tasks.retain(|_, (of, _)| held.contains(of));
            self.held = held.to_vec();
        }
    }

    /// The task, if it is kept. It is not, from now on.
    pub(super) fn take(&mut self, id: TaskId) -> Option<Task> {
        self.tasks.remove(&id).map(|(_, task)| task)
    }

    /// These are as they were committed, or as they were read.
    pub(super) fn keep(&mut self, firing: impl IntoIterator<Item = (Held, Task)>) {
        for (held, task) in firing {
            if self.tasks.len() < TASKS_MAX || self.tasks.contains_key(&task.id) {
                self.tasks.insert(task.id, (held, task));
            }
        }
    }

    /// What is on disk is not known.
    pub(super) fn clear(&mut self) {
        self.tasks.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commits::tests::sample;

    #[test]
    fn what_another_owner_may_have_changed_is_read_again() {
        let (kept_under, other) = (Held { shard: 3, fence: 7 }, Held { shard: 4, fence: 1 });
        let task = sample(1, "call");
        let id = task.id;
        let mut kept = Kept::default();
        let fill = |kept: &mut Kept| {
            kept.retain(&[kept_under, other]);
            kept.keep([(kept_under, task.clone())]);
        };
        fill(&mut kept);
        kept.retain(&[kept_under]);
        assert_eq!(kept.take(id), Some(task.clone()));
        assert_eq!(kept.take(id), None, "it is with who took it");
        for now in [vec![other], vec![Held { fence: 8, ..kept_under }, other]] {
            fill(&mut kept);
            kept.retain(&now);
            assert_eq!(kept.take(id), None, "{now:?}");
        }
        fill(&mut kept);
        kept.clear();
        assert_eq!(kept.take(id), None);
    }
}
