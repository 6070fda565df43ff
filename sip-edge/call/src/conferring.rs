//! Conferences: the PIN that admits, joining, and being sent out.

use crate::answering::{busy_now, cause_of};
use crate::call::{Call, Purpose};
use crate::output::{EndedBy, Event};
use crate::step::{Origin, Step};
use crate::{
    Action, Cause, Collect, Conference, Failure, FailureKind, MediaCommand, Now, Reply, Side,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How often a caller may dial the PIN.
pub const PIN_ATTEMPTS_MAX: u32 = 3;
/// Silence before its first digit, from the end of the prompt.
const PIN_TIMEOUT: Duration = Duration::from_secs(10);
/// Silence between its digits.
const PIN_DIGIT_TIMEOUT: Duration = Duration::from_secs(5);
/// Ends a PIN early; some people press it after all that they dial.
const PIN_TERMINATOR: &str = "#";

impl Call {
    /// Begins the action: asks for the PIN if there is one.
    pub(crate) fn confer(&mut self, now: Now, conference: Arc<Conference>) {
        match conference.pin.is_empty() {
            true => self.join(now, conference),
            false => self.ask_for_pin(now, &conference, 1),
        }
    }

    fn ask_for_pin(&mut self, now: Now, conference: &Conference, attempt: u32) {
        let collect = Collect {
            prompt: conference.pin_prompt.clone(),
            max_digits: conference.pin.len(),
            timeout: PIN_TIMEOUT,
            digit_timeout: PIN_DIGIT_TIMEOUT,
            terminators: PIN_TERMINATOR.to_owned(),
            on: BTreeMap::new(),
            otherwise: None,
        };
        self.collect(now, Arc::new(collect), Origin::Pin { attempt }, None);
    }

    /// The caller has dialled, or has not: lets it in, asks again, or hangs up.
    pub(crate) fn judge_pin(&mut self, now: Now, digits: &str, attempt: u32) {
        let Some(Action::Conference(conference)) = self.action.clone() else { return };
        if digits == conference.pin {
            self.join(now, conference);
        } else if attempt < PIN_ATTEMPTS_MAX {
            self.ask_for_pin(now, &conference, attempt + 1);
        } else {
            self.finish(now, Cause::CallRejected, EndedBy::Plan);
        }
    }

    pub(crate) fn join(&mut self, now: Now, conference: Arc<Conference>) {
        self.enter(Step::Joining(conference.clone()));
        let number = self.media(MediaCommand::Join { side: Side::A, conference });
        self.expect(now, number, Purpose::Join);
    }

    pub(crate) fn handle_joined(&mut self, now: Now, reply: Result<Reply, Failure>) {
        let Step::Joining(conference) = &self.step else { return };
        let conference = conference.clone();
        match reply {
            Ok(_) => {
                self.conference = conference.name.clone();
                self.enter(Step::Conferring(conference));
                self.event(Event::Action);
            }
            // A plan is not stopped by a file that cannot be played.
            Err(Failure { kind: FailureKind::Invalid | FailureKind::NotFound, .. })
                if !conference.music.is_empty() =>
            {
                let silent = Conference { music: String::new(), ..(*conference).clone() };
                self.join(now, Arc::new(silent));
            }
            Err(failure) => {
                let cause = match failure.kind {
                    FailureKind::Full => Cause::UserBusy,
                    _ => cause_of(&failure),
                };
                self.refuse(now, "media-relay", failure, cause, busy_now());
            }
        }
    }

    /// Somebody has sent leg A out of the conference: the plan goes on.
    pub(crate) fn handle_kicked(&mut self, now: Now, conference: &str) {
        if matches!(&self.step, Step::Conferring(it) if it.name == conference) {
            self.conference.clear();
            self.run_next(now);
        }
    }
}
