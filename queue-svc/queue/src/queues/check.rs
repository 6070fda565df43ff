//! Calls whose end nobody told us: asked about when they have been silent for long.
//!
//! Who enters and is never confirmed (sip-edge died in between), and who was here before a restart,
//! would else block the line for ever.

use super::{Output, Queues};
use crate::caller::UnixMs;
use crate::timers::Timer;
use crate::{CallId, CallerState, Departure, Place};

/// How long a caller may be entering before sip-edge is asked about the call, in ms.
pub const ENTER_MS: UnixMs = 60_000;
/// How often sip-edge is asked about a call that waits or keeps an agent busy, in ms.
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
    /// Its legs talk.
    Connected,
    /// Ended, unknown, or running something else.
    Gone,
    /// sip-edge did not say.
    Unknown,
}

impl Queues {
    pub(super) fn ask_about(&mut self, now: UnixMs, place: Place) {
        let caller = &self.callers[&place];
        if caller.assignment().is_none() {
            // The answer sets the next one: a slow sip-edge must not be asked twice at a time.
            self.outputs.push_back(Output::Check(caller.call_id.clone()));
        } else {
            // Of who is given to an agent, the ringing will tell.
            self.timers.set(Timer::Check(place), now + CHECK_AGAIN_MS);
        }
    }

    /// The answer to [`Output::Check`].
    pub fn handle_checked(&mut self, now: UnixMs, call_id: &CallId, found: Found) {
        self.check_engaged(now, call_id, found);
        if let Some(&place) = self.places.get(call_id) {
            self.check_caller(now, place, found);
        }
        self.settle(now);
    }

    fn check_caller(&mut self, now: UnixMs, place: Place, found: Found) {
        let next_ms = match (&self.callers[&place].state, found) {
            (CallerState::Leaving(_), _) | (_, Found::Unknown) => CHECK_AGAIN_MS,
            (CallerState::Entering | CallerState::InQueue, Found::Gone | Found::Connected) => {
                self.depart(now, place, Departure::HungUp, "call was gone before");
                return;
            }
            (CallerState::Entering, Found::Waiting) => return self.confirm(now, place),
            (CallerState::Entering, Found::Early) => ENTER_MS,
            (CallerState::InQueue, Found::Waiting | Found::Early) => VERIFY_MS,
        };
        self.timers.set(Timer::Check(place), now + next_ms);
    }
}
