//! What API clients ask of a call. Every request is answered exactly once.

use crate::call::Call;
use crate::end::Ending;
use crate::leg::LegState;
use crate::output::{CallState, EndedBy, RingOutcome, RingResult};
use crate::step::{Origin, Playing, Step};
use crate::{
    Action, Answer, Ask, Cause, Destination, Legs, MediaCommand, Now, Occurrence, Plan, Refusal,
    RequestNumber, Side,
};
use std::sync::Arc;
use std::time::Duration;

/// How many requests may wait for the same thing: an attempt, or the answer of an Originate.
pub const REQUESTS_MAX: usize = 16;
/// How long the target of a transfer may ring.
const TRANSFER_RING: Duration = Duration::from_secs(30);

impl Call {
    pub(crate) fn handle_request(&mut self, now: Now, request: RequestNumber, ask: Ask) {
        let refused = match ask {
            Ask::Hangup { cause, legs: Legs::B, task } => {
                self.hang_up_b_by_request(now, request, cause, task)
            }
            Ask::Hangup { cause, legs: Legs::A | Legs::Both, task } => {
                self.hang_up_by_request(now, request, cause, task);
                Ok(())
            }
            Ask::Transfer { to, task } => self.transfer(now, request, to, task),
            Ask::Ring { assignment_id, target, also, ring } => {
                self.ring_agent(now, request, assignment_id, (target, also), ring)
            }
            Ask::StopRinging { assignment_id } => {
                let stopped = self.stop_ringing(now, &assignment_id);
                self.answer_request(request, Ok(Answer::StoppedRinging { stopped }));
                Ok(())
            }
            Ask::Originate => self.join_originate(request),
            Ask::Play { file, legs, task, wait } => {
                self.play_by_request(now, request, (file, legs, wait), task)
            }
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
        task: Option<Occurrence>,
    ) {
        let already_ended = self.has_ended();
        let by = asked_by(task.as_ref());
        if !already_ended {
            self.ended_by_task = task.map(|task| task.task_id);
        }
        self.finish(now, cause, by);
        let call = Box::new(self.view());
        self.answer_request(request, Ok(Answer::HungUp { already_ended, call }));
    }

    /// Ends leg B alone: leg A goes on with its plan after the action that connected it, or as after
    /// any attempt that has failed.
    fn hang_up_b_by_request(
        &mut self,
        now: Now,
        request: RequestNumber,
        cause: Cause,
        task: Option<Occurrence>,
    ) -> Result<(), Refusal> {
        let by = asked_by(task.as_ref());
        let done = self.has_done(task.as_ref());
        let already_ended = self.has_ended() && !done;
        match (self.state, &self.b) {
            _ if done || already_ended => (),
            (_, None) => return Err(Refusal::NoLegB),
            (CallState::Connected, Some(_)) => {
                self.record(task);
                self.abandon_overlays(None);
                self.part(cause);
                self.run_next(now);
            }
            (_, Some(_)) => {
                self.ended_by_task = task.as_ref().map(|task| task.task_id.clone());
                self.record(task);
                self.fail_attempt(now, RingOutcome::Stopped, Ending::new(cause, by));
                if !self.has_ended() {
                    self.ended_by_task = None; // It goes on with something else.
                }
            }
        }
        let call = Box::new(self.view());
        self.answer_request(request, Ok(Answer::HungUp { already_ended, call }));
        Ok(())
    }

    fn transfer(
        &mut self,
        now: Now,
        request: RequestNumber,
        to: Destination,
        task: Option<Occurrence>,
    ) -> Result<(), Refusal> {
        if !self.has_done(task.as_ref()) {
            match (self.end, self.state) {
                (Some(_), _) if task.is_some() => {
                    self.tell_too_late(request);
                    return Ok(());
                }
                (Some((cause, _)), _) => return Err(Refusal::Ended { cause }),
                (None, CallState::Early) => return Err(Refusal::NotAnsweredYet),
                (None, _) => (),
            }
            self.record(task);
            match to {
                Destination::GoOn => self.go_on_from_queue(now),
                Destination::Queue { name, music } => self.move_to_queue(now, name, music),
                Destination::Plan(plan) => self.transfer_to(now, plan),
                Destination::Target(target) => {
                    let dial = Action::Dial { target, ring: TRANSFER_RING, otherwise: None };
                    self.transfer_to(now, Plan::new([dial]));
                }
            }
        }
        let call = Box::new(self.view());
        self.answer_request(request, Ok(Answer::Transferred(call)));
        Ok(())
    }

    fn transfer_to(&mut self, now: Now, plan: Plan) {
        if self.state == CallState::Connected {
            self.part(Cause::BlindTransfer);
        }
        self.start_over(now, plan, Cause::BlindTransfer);
    }

    /// A parked call plays for the API as a step of its own; everything else is played over what
    /// the call does.
    fn play_by_request(
        &mut self,
        now: Now,
        request: RequestNumber,
        (file, legs, wait): (String, Legs, bool),
        task: Option<Occurrence>,
    ) -> Result<(), Refusal> {
        if self.has_done(task.as_ref()) {
            self.answer_request(request, Ok(Answer::Playing { duration: Duration::ZERO }));
            return Ok(());
        }
        if self.has_ended() && task.is_some() {
            self.tell_too_late(request);
            return Ok(());
        }
        if task.is_none() && legs != Legs::B && self.admit_to_parked(true).is_ok() {
            self.abandon_step(None);
            self.play(now, file, Origin::Api, Some(request), wait);
            return Ok(());
        }
        self.play_over(now, &file, legs, task, (request, wait))
    }

    fn has_done(&self, task: Option<&Occurrence>) -> bool {
        task.is_some_and(|task| self.effects.include(task))
    }

    fn record(&mut self, task: Option<Occurrence>) {
        if let Some(task) = task {
            self.effects.record(task);
        }
    }

    fn tell_too_late(&mut self, request: RequestNumber) {
        let call = Box::new(self.view());
        self.answer_request(request, Ok(Answer::TooLate(call)));
    }

    fn ring_agent(
        &mut self,
        now: Now,
        request: RequestNumber,
        assignment_id: String,
        (target, also): (String, Vec<String>),
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
                self.begin_attempt(now, target, also, ring, Some((assignment_id, request)));
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
        self.start_over(now, plan, Cause::OriginatorCancel);
        let call = Box::new(self.view());
        self.answer_request(request, Ok(Answer::PlanRuns(call)));
        Ok(())
    }

    /// Runs another plan in place of all that leg A does; `cause` ends a leg B that still rings.
    pub(crate) fn start_over(&mut self, now: Now, plan: Plan, cause: Cause) {
        self.stop_all(now, cause);
        self.run_plan(now, plan);
    }

    /// Ends all that leg A does, so that something else can begin.
    pub(crate) fn stop_all(&mut self, now: Now, cause: Cause) {
        self.answer_originate();
        self.abandon_step(None);
        self.abandon_overlays(None);
        self.enter(Step::Idle); // So that the end of an attempt of the old plan changes nothing.
        self.leave_queue(); // First, so that nobody else is rung for a caller who goes.
        self.drop_attempt(now, RingOutcome::Stopped, cause, None);
        self.conference.clear();
        if self.has_media {
            self.media(MediaCommand::Stop { side: Side::A, leave_conference: true });
        }
    }

    /// Name of the running action, for refusals.
    pub fn action(&self) -> Option<&Action> {
        self.action.as_ref()
    }
}

fn asked_by(task: Option<&Occurrence>) -> EndedBy {
    if task.is_some() { EndedBy::Task } else { EndedBy::Api }
}

fn admit(waiting: &mut Vec<RequestNumber>, request: RequestNumber) -> Result<(), Refusal> {
    if waiting.len() >= REQUESTS_MAX {
        return Err(Refusal::TooMany { max: REQUESTS_MAX });
    }
    waiting.push(request);
    Ok(())
}
