//! What waits for rows to be written: effects, a reply, and how to take it back.

use super::{Failure, Retrieved};
use crate::store::Change;
use queue::{Address, AssignmentId, CallId, Output};
use tokio::sync::oneshot;

/// The consequences of one request.
#[derive(Default)]
pub(super) struct Step {
    pub(super) effects: Vec<Output>,
    /// For the log, in the same transaction as the rows.
    pub(super) changes: Vec<Change>,
    pub(super) undo: Option<Undo>,
    pub(super) reply: Option<Reply>,
    /// It changed rows, or has changes for the log.
    pub(super) has_rows: bool,
}

/// Sends the prepared reply, or the failure if there is one.
pub(super) type Reply = Box<dyn FnOnce(Option<Failure>) + Send>;

/// What must not be if it is not on disk.
pub(super) enum Undo {
    Join(CallId),
    Reserve(AssignmentId),
}

impl Step {
    pub(super) fn is_empty(&self) -> bool {
        self.effects.is_empty()
            && self.changes.is_empty()
            && self.undo.is_none()
            && self.reply.is_none()
    }
}

/// A reply that sends `value` on `to`.
pub(super) fn reply<T: Send + 'static>(
    to: oneshot::Sender<Result<T, Failure>>,
    value: Result<T, Failure>,
) -> Option<Reply> {
    Some(Box::new(move |failure| {
        let value = failure.map_or(value, Err);
        let _ = to.send(value); // Who asked may have gone.
    }))
}

/// An operator who waits for an assignment to be decided.
pub(super) struct Waiter {
    pub(super) queue: String,
    pub(super) address: Address,
    pub(super) ring_ms: u32,
    /// How many more callers to try, if this one has gone long ago.
    pub(super) tries_left: u32,
    pub(super) reply: oneshot::Sender<Result<Retrieved, Failure>>,
}

impl Waiter {
    pub(super) fn refuse(self, failure: Failure) {
        let _ = self.reply.send(Err(failure)); // Who asked may have gone.
    }
}
