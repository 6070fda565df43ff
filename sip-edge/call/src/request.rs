//! What API clients ask of a call. Every request is answered exactly once.

use crate::call::Call;
use crate::end::Ending;
use crate::leg::LegState;
use crate::output::{CallState, EndedBy, RingOutcome, RingResult};
use crate::step::{Origin, Playing, Step};
use crate::{Action, Answer, Ask, Cause, MediaCommand, Now, Plan, Refusal, RequestNumber, Side};
use std::sync::Arc;
use std::time::Duration;

/// How many requests may wait for the same thing: an attempt, or the answer of an Originate.
pub const REQUESTS_MAX: usize = 16;

impl Call {
    pub(crate) fn handle_request(&mut self, now: Now, request: RequestNumber, ask: Ask) {
        let refused = match ask {
            Ask::Hangup { cause, task_id } => {
                self.hang_up_by_request(now, request, cause, task_id);
                Ok(())
            }
            Ask::Ring { assignment_id, target, ring } => {
                self.ring_agent(now, request, assignment_id, target, ring)
            }
            Ask::StopRinging { assignment_id } => {
                let stopped = self.stop_ringing(now, &assignment_id);
                self.answer_request(request, Ok(Answer::StoppedRinging { stopped }));
                Ok(())
            }
            Ask::Originate => self.join_originate(request),
            Ask::Play { file, wait } => self.admit_to_parked(true).map(|()| {
                self.abandon_step(None);
                self.play(now, file, Origin::Api, Some(request), wait);
            }),
            Ask::Collect(collect) => self.admit_to_parked(true).map(|()| {
                self.abandon_step(None);
                self.collect(now, Arc::new(collect), Origin::Api, Some(request));
            }),
            Ask::RunPlan(plan) => self.replace_plan(now, request, plan),
        };
        if let Err(refusal) = refused {
            self.answer_request(request, Err(refusal));
        }
    }

    fn hang_up_by_request(
        &mut self,
        now: Now,
        request: RequestNumber,
        cause: Cause,
        task_id: Option<String>,
    ) {
        let already_ended = self.has_ended();
        let by = if task_id.is_some() { EndedBy::Task } else { EndedBy::Api };
        if !already_ended {
            self.ended_by_task = task_id;
        }
        self.finish(now, cause, by);
        let call = Box::new(self.view());
        self.answer_request(request, Ok(Answer::HungUp { already_ended, call }));
    }

    fn ring_agent(
        &mut self,
        now: Now,
        request: RequestNumber,
        assignment_id: String,
        target: String,
        ring: Duration,
    ) -> Result<(), Refusal> {
        if let Some((_, result)) = self.last_ring.as_ref().filter(|(id, _)| *id == assignment_id) {
            let result = *result;
            self.answer_request(request, Ok(Answer::Ring(result)));
            return Ok(());
        }
        if let Some((cause, _)) = self.end {
            let outcome = RingOutcome::CallerGone;
            let result = RingResult { outcome, status: None, cause: Some(cause) };
            self.answer_request(request, Ok(Answer::Ring(result)));
            return Ok(());
        }
        match &mut self.b {
            Some(attempt) if attempt.assignment_id.as_deref() == Some(&assignment_id) => {
                admit(&mut attempt.requests, request)
            }
            _ if self.state == CallState::Connected => Err(Refusal::Connected),
            Some(_) => Err(Refusal::Rings),
            None if self.state == CallState::Early => Err(Refusal::NotAnsweredYet),
            None => {
                self.begin_attempt(now, target, ring, Some((assignment_id, request)));
                Ok(())
            }
        }
    }

    /// Whether there was something to stop: a target that has answered is not rung any more.
    fn stop_ringing(&mut self, now: Now, assignment_id: &str) -> bool {
        let rings = self.b.as_ref().is_some_and(|attempt| {
            attempt.assignment_id.as_deref() == Some(assignment_id)
                && matches!(attempt.leg.state, LegState::Offering | LegState::Calling { .. })
        });
        if rings {
            let ending = Ending::new(Cause::OriginatorCancel, EndedBy::Api);
            self.fail_attempt(now, RingOutcome::Stopped, ending);
        }
        rings
    }

    fn join_originate(&mut self, request: RequestNumber) -> Result<(), Refusal> {
        match self.end {
            _ if self.has_originated => {
                let call = Box::new(self.view());
                self.answer_request(request, Ok(Answer::Originated(call)));
                Ok(())
            }
            None => admit(&mut self.originate_requests, request),
            Some((cause, _)) if self.answered_unix_ms.is_some() => Err(Refusal::Ended { cause }),
            Some((cause, _)) => Err(Refusal::NotAnswered { cause, status: None }),
        }
    }

    /// Only a parked call takes orders step by step; a prompt that plays for an order before gives
    /// way if `over_play`.
    fn admit_to_parked(&self, over_play: bool) -> Result<(), Refusal> {
        if let Some((cause, _)) = self.end {
            return Err(Refusal::Ended { cause });
        }
        match (&self.step, self.state) {
            (_, CallState::Connected) => Err(Refusal::Connected),
            (_, CallState::Early) => Err(Refusal::NotAnsweredYet),
            (Step::Parked, _) => Ok(()),
            (Step::Playing(Playing { origin: Origin::Api, .. }), _) if over_play => Ok(()),
            _ => Err(Refusal::Busy { action: self.busy_with() }),
        }
    }

    fn replace_plan(
        &mut self,
        now: Now,
        request: RequestNumber,
        plan: Plan,
    ) -> Result<(), Refusal> {
        match (self.end, self.state) {
            (Some((cause, _)), _) => return Err(Refusal::Ended { cause }),
            (None, CallState::Early) => return Err(Refusal::NotAnsweredYet),
            (None, CallState::Connected) => return Err(Refusal::Connected),
            (None, _) => (),
        }
        self.answer_originate();
        self.abandon_step(None);
        self.enter(Step::Idle); // So that the end of an attempt of the old plan changes nothing.
        self.drop_attempt(now, RingOutcome::Stopped, Cause::OriginatorCancel, None);
        self.leave_queue();
        self.conference.clear();
        self.media(MediaCommand::Stop { side: Side::A, leave_conference: true });
        self.run_plan(now, plan);
        let call = Box::new(self.view());
        self.answer_request(request, Ok(Answer::PlanRuns(call)));
        Ok(())
    }

    /// Name of the running action, for refusals.
    pub fn action(&self) -> Option<&Action> {
        self.action.as_ref()
    }
}

fn admit(waiting: &mut Vec<RequestNumber>, request: RequestNumber) -> Result<(), Refusal> {
    if waiting.len() >= REQUESTS_MAX {
        return Err(Refusal::TooMany { max: REQUESTS_MAX });
    }
    waiting.push(request);
    Ok(())
}
