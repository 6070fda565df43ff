//! Tasks as they are on disk, of which something will soon be written: those that are firing, and
//! those that are soon due. They need not be read again.
//!
//! That is right for as long as nobody else writes to their shards, so under one fencing token; and
//! only of what is known to be committed. Whoever is to change a task takes it out; it comes back
//! with the commit.

use crate::store::{Held, Task};
use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use wheel::{IdHasher, TaskId};

/// Tasks that are kept; the others are read again. A herd of 300,000 has its place.
const TASKS_MAX: usize = 393_216;
/// What they may take, as [`super::size`] and [`TASK_BYTES`] count it.
const BYTES_MAX: usize = 256 << 20;
/// What a task takes beside its long words, about.
const TASK_BYTES: usize = 512;

#[derive(Default)]
pub(super) struct Kept {
    tasks: HashMap<TaskId, (Held, Box<Task>), BuildHasherDefault<IdHasher>>,
    /// The shards of the tasks.
    held: Vec<Held>,
    bytes: usize,
}

impl Kept {
    /// Forgets what is in shards that are not held any more, under these tokens.
    pub(super) fn retain(&mut self, held: &[Held]) {
        if self.held != held {
            self.tasks.retain(|_, (of, _)| held.contains(of));
            self.bytes = self.tasks.values().map(|(_, task)| bytes(task)).sum();
            self.held = held.to_vec();
        }
    }

    /// Whether the shard is held under this very token, as far as is known.
    pub(super) fn holds(&self, held: Held) -> bool {
        self.held.contains(&held)
    }

    /// Whether there is room for so many more, of no great length.
    pub(super) fn has_room(&self, tasks: usize) -> bool {
        self.tasks.len() + tasks <= TASKS_MAX && self.bytes + tasks * TASK_BYTES <= BYTES_MAX
    }

    /// The task, if it is kept. It is not, from now on.
    pub(super) fn take(&mut self, id: TaskId) -> Option<Box<Task>> {
        let (_, task) = self.tasks.remove(&id)?;
        self.bytes -= bytes(&task);
        if self.tasks.is_empty() {
            self.tasks = HashMap::default(); // A herd's room is not needed every day.
        }
        Some(task)
    }

    /// These are as they were committed, or as they were read.
    pub(super) fn keep(&mut self, tasks: impl IntoIterator<Item = (Held, Box<Task>)>) {
        for (held, task) in tasks {
            let bytes = bytes(&task);
            if !self.has_room(1) || self.bytes + bytes > BYTES_MAX {
                drop(self.take(task.id)); // What is replaced makes room.
            }
            if self.has_room(1) && self.bytes + bytes <= BYTES_MAX {
                self.bytes += bytes;
                let replaced = self.tasks.insert(task.id, (held, task));
                self.bytes -= replaced.map_or(0, |(_, task)| self::bytes(&task));
            }
        }
    }

    /// What is on disk is not known.
    pub(super) fn clear(&mut self) {
        (self.tasks, self.bytes) = (HashMap::default(), 0);
    }
}

fn bytes(task: &Task) -> usize {
    TASK_BYTES + super::size(task)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commits::tests::sample;
    use wheel::Effect;

    #[test]
    fn what_another_owner_may_have_changed_is_read_again() {
        let (kept_under, other) = (Held { shard: 3, fence: 7 }, Held { shard: 4, fence: 1 });
        let task = Box::new(sample(1, "call"));
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
            assert_eq!(kept.bytes, 0);
        }
        fill(&mut kept);
        kept.clear();
        assert_eq!(kept.take(id), None);
    }

    #[test]
    fn long_tasks_are_kept_only_as_far_as_there_is_memory() {
        let held = Held { shard: 1, fence: 1 };
        let mut kept = Kept::default();
        kept.retain(&[held]);
        let long = |id| {
            let effect = Effect::Publish { subject: String::new(), payload: vec![0; 40 << 20] };
            Box::new(Task { effect: effect.into(), ..sample(id, "call") })
        };
        kept.keep((0..8).map(|id| (held, long(id))));
        assert_eq!(kept.tasks.len(), 6);
        assert!(kept.has_room(1));
        kept.keep([(held, long(0)), (held, long(0))]);
        assert_eq!(kept.tasks.len(), 6, "one that is replaced makes room for itself");
        (0..8).for_each(|id| drop(kept.take(TaskId(id))));
        assert_eq!(kept.bytes, 0);
    }
}
