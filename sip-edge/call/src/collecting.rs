//! Collecting digits: a prompt that the first digit stops, silences that end it, a branch.

use crate::call::{Call, Purpose, failure_of};
use crate::output::CollectOutcome;
use crate::step::{Origin, Step};
use crate::{
    Answer, Collect, Failure, MediaCommand, Now, Refusal, Reply, RequestNumber, Side, shared,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// How much later than expected a prompt may end before it counts as ended.
const PROMPT_GRACE: Duration = Duration::from_secs(2);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Collecting {
    #[serde(with = "shared")]
    collect: Arc<Collect>,
    origin: Origin,
    #[serde(skip)]
    pub(crate) request: Option<RequestNumber>,
    prompt: Prompt,
    digits: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Prompt {
    Starting,
    Playing { play_id: String },
    Over,
}

impl Collecting {
    fn wants_pin(&self) -> bool {
        matches!(self.origin, Origin::Pin { .. })
    }

    pub(crate) fn plays(&self, play_id: &str) -> bool {
        matches!(&self.prompt, Prompt::Playing { play_id: it } if it == play_id)
    }
}

impl Call {
    pub(crate) fn collect(
        &mut self,
        now: Now,
        collect: Arc<Collect>,
        origin: Origin,
        request: Option<RequestNumber>,
    ) {
        let file = collect.prompt.clone();
        let timeout = collect.timeout;
        let prompt = if file.is_some() { Prompt::Starting } else { Prompt::Over };
        let digits = String::new();
        self.enter(Step::Collecting(Collecting { collect, origin, request, prompt, digits }));
        match file {
            Some(file) => {
                let number = self.media(MediaCommand::Play { side: Side::A, file, looping: false });
                self.expect(now, number, Purpose::Prompt);
            }
            None => self.step_until = Some(now.instant + timeout),
        }
    }

    /// The prompt plays, or cannot be played. A plan collects all the same: who knows the menu can
    /// go on, and who does not is served by the timeout.
    pub(crate) fn handle_prompt(&mut self, now: Now, reply: Result<Reply, Failure>) {
        let Step::Collecting(collecting) = &mut self.step else { return };
        match reply {
            _ if collecting.prompt == Prompt::Over => (), // A digit was faster; it is stopped.
            Ok(Reply::Playing { play_id, duration }) => {
                collecting.prompt = Prompt::Playing { play_id: play_id.clone() };
                self.step_until = Some(now.instant + duration + PROMPT_GRACE);
                if self.finished_early.take() == Some(play_id) {
                    self.finish_prompt(now);
                }
            }
            reply => match collecting.request.take() {
                Some(request) => {
                    let (service, failure) = ("media-relay", failure_of(reply));
                    self.answer_request(request, Err(Refusal::Failed { service, failure }));
                    self.enter(Step::Parked);
                }
                None => self.finish_prompt(now),
            },
        }
    }

    /// Goes on in another process: a prompt that may not have begun is begun again.
    pub(crate) fn resume_collecting(&mut self, now: Now, collecting: &Collecting) {
        if collecting.prompt == Prompt::Starting
            && let Some(file) = collecting.collect.prompt.clone()
        {
            let number = self.media(MediaCommand::Play { side: Side::A, file, looping: false });
            self.expect(now, number, Purpose::Prompt);
        }
    }

    /// The time for the first digit begins.
    pub(crate) fn finish_prompt(&mut self, now: Now) {
        if let Step::Collecting(collecting) = &mut self.step {
            collecting.prompt = Prompt::Over;
            self.step_until = Some(now.instant + collecting.collect.timeout);
        }
    }

    pub(crate) fn collect_digit(&mut self, now: Now, digit: char) {
        let Step::Collecting(collecting) = &mut self.step else { return };
        let is_terminator = collecting.collect.terminators.contains(digit);
        if is_terminator && collecting.wants_pin() && collecting.digits.is_empty() {
            return; // It ended the attempt before.
        }
        let plays = std::mem::replace(&mut collecting.prompt, Prompt::Over) != Prompt::Over;
        let outcome = if is_terminator {
            Some(CollectOutcome::Terminated)
        } else {
            collecting.digits.push(digit);
            let complete = collecting.digits.len() >= collecting.collect.max_digits;
            complete.then_some(CollectOutcome::Complete)
        };
        self.step_until = Some(now.instant + collecting.collect.digit_timeout);
        if plays {
            self.media(MediaCommand::Stop { side: Side::A, leave_conference: false });
        }
        if let Some(outcome) = outcome {
            self.finish_collecting(now, outcome);
        }
    }

    pub(crate) fn handle_collect_timeout(&mut self, now: Now) {
        match &self.step {
            Step::Collecting(collecting) if collecting.prompt != Prompt::Over => {
                self.finish_prompt(now); // Its end was not told.
            }
            _ => self.finish_collecting(now, CollectOutcome::TimedOut),
        }
    }

    fn finish_collecting(&mut self, now: Now, outcome: CollectOutcome) {
        let Step::Collecting(collecting) = std::mem::replace(&mut self.step, Step::Idle) else {
            return;
        };
        let Collecting { collect, origin, request, digits, .. } = collecting;
        let branch = collect.on.get(&digits).or(collect.otherwise.as_ref());
        if let Some(request) = request {
            let digits = digits.clone();
            self.answer_request(request, Ok(Answer::Collected { outcome, digits }));
        }
        match (origin, branch) {
            (Origin::Pin { attempt }, _) => self.judge_pin(now, &digits, attempt),
            (Origin::Plan, Some(plan)) => self.run_plan(now, plan.clone()),
            _ => self.go_on(now, origin),
        }
    }
}
