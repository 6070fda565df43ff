//! Callers whose end nobody told us: asked about when they have been silent for long.
//!
//! Who enters and is never confirmed (sip-edge died in between), and who was here before a restart,
//! would else block the line for ever.

use super::{Output, Queues};
use crate::caller::UnixMs;
use crate::{CallId, CallerState, Place};

/// How long a caller may be entering before sip-edge is asked about the call, in ms.
pub const ENTER_MS: UnixMs = 60_000;
/// How often sip-edge is asked about a call that waits, in ms.
pub const VERIFY_MS: UnixMs = 60_000;
/// When to ask again if there was no answer, in ms.
pub const CHECK_AGAIN_MS: UnixMs = 5_000;

/// What sip-edge says of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Not answered yet.
    Early,
    /// Answered, and not elsewhere.
    Waiting,
    /// Ended, unknown, connected to somebody, or running something else.
    Gone,
    /// sip-edge did not say.
    Unknown,
}

impl Queues {
    /// When to call `handle_timeout`.
    pub fn poll_timeout(&self) -> Option<UnixMs> {
        self.checks.first().map(|(at, _)| *at)
    }

    pub fn handle_timeout(&mut self, now: UnixMs) {
        while let Some(&(at, place)) = self.checks.first() {
            if at > now {
                return;
            }
            let caller = &self.callers[&place];
            if caller.assignment().is_none() {
                // The answer sets the next one: a slow sip-edge must not be asked twice at a time.
                self.outputs.push_back(Output::Check(caller.call_id.clone()));
                self.clear_check(place);
            } else {
                // Of who is given to an agent, the ringing will tell.
                self.set_check(place, now + CHECK_AGAIN_MS);
            }
        }
    }

    /// The answer to [`Output::Check`].
    pub fn handle_checked(&mut self, now: UnixMs, call_id: &CallId, found: Found) {
        let Some(&place) = self.places.get(call_id) else { return };
        match (&self.callers[&place].state, found) {
            (CallerState::Leaving(_), _) | (_, Found::Unknown) => {
                self.set_check(place, now + CHECK_AGAIN_MS);
            }
            (CallerState::Entering | CallerState::InQueue, Found::Gone) => {
                drop(self.depart(place, "call was gone before"));
            }
            (CallerState::Entering, Found::Waiting) => self.confirm(now, place),
            (CallerState::Entering, Found::Early) => self.set_check(place, now + ENTER_MS),
            (CallerState::InQueue, Found::Waiting | Found::Early) => {
                self.set_check(place, now + VERIFY_MS);
            }
        }
    }

    pub(super) fn set_check(&mut self, place: Place, at: UnixMs) {
        self.clear_check(place);
        self.checks.insert((at, place));
        self.check_at.insert(place, at);
    }

    pub(super) fn clear_check(&mut self, place: Place) {
        if let Some(at) = self.check_at.remove(&place) {
            self.checks.remove(&(at, place));
        }
    }
}
