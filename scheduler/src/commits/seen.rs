//! What the log of this process, and its metrics, say about the changes of tasks.

use crate::metrics;
use crate::store::Task;
use std::collections::BTreeMap;
use tracing::{Level, debug, enabled, info, warn};
use wheel::{Effect, State, TaskId};

/// A change that is to be told of once it is committed.
pub(super) struct Seen {
    id: TaskId,
    state: State,
    publishes: bool,
    late_ms: i64,
    /// Only of what is worth a line.
    call_id: String,
    result: String,
}

impl Seen {
    pub(super) fn new(task: &Task) -> Self {
        let publishes = matches!(*task.effect, Effect::Publish { .. });
        let worth = task.state.has_ended() && !publishes
            || task.state == State::Failed
            || enabled!(Level::DEBUG);
        let text = |text: &String| if worth { text.clone() } else { String::new() };
        Self {
            id: task.id,
            state: task.state,
            publishes,
            late_ms: task.late_ms,
            call_id: text(&task.call_id),
            result: text(&task.result),
        }
    }

    /// Tells of all of them.
    pub(super) fn tell(all: &[Self]) {
        let mut counts = BTreeMap::new();
        for seen in all {
            seen.log();
            *counts.entry(seen.state).or_default() += 1;
        }
        counts.into_iter().for_each(|(state, count)| metrics::changed(state, count));
    }

    fn log(&self) {
        let Self { id, state, publishes, late_ms, call_id, result } = self;
        match state {
            State::Failed => warn!(task_id = %id, %call_id, ?state, late_ms, "task: {result}"),
            State::Fired | State::Expired if !publishes => {
                info!(task_id = %id, %call_id, ?state, late_ms, "task: {result}");
            }
            State::Cancelled if !publishes => {
                info!(task_id = %id, %call_id, ?state, by = result, "task");
            }
            _ => debug!(task_id = %id, %call_id, ?state, "task"),
        }
    }
}
