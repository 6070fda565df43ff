//! Telling the others what has happened to callers.

use super::{Event, EventKind, Output, Queues};
use crate::caller::UnixMs;
use crate::{Assignment, Caller, Place};

impl Queues {
    pub(super) fn publish(
        &mut self,
        now: UnixMs,
        kind: EventKind,
        place: Place,
        assignment: Option<&Assignment>,
        reason: &str,
    ) {
        let caller = self.callers[&place].clone();
        let position = self.queues[&caller.queue].line.position(place);
        self.push_event(now, kind, caller, position, assignment, reason);
    }

    /// Of a caller who is in no line any more.
    pub(super) fn publish_gone(
        &mut self,
        now: UnixMs,
        kind: EventKind,
        caller: &Caller,
        reason: &str,
    ) {
        self.push_event(now, kind, caller.clone(), 0, caller.assignment(), reason);
    }

    fn push_event(
        &mut self,
        at: UnixMs,
        kind: EventKind,
        caller: Caller,
        position: u32,
        assignment: Option<&Assignment>,
        reason: &str,
    ) {
        let queue = self.queues.get(&caller.queue);
        self.outputs.push_back(Output::Publish(Event {
            at,
            kind,
            queue: queue.map(|it| it.settings.name().to_owned()).unwrap_or_default(),
            position,
            in_queue: queue.map(|it| it.line.count().in_queue).unwrap_or_default(),
            assignment: assignment.cloned(),
            reason: reason.to_owned(),
            caller,
        }));
    }
}
