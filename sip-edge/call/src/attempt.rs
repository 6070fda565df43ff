//! Leg B: an attempt to reach somebody while leg A goes on hearing what it hears, and the leg that
//! talks with A when it succeeds.

use crate::call::{Call, Purpose};
use crate::end::Ending;
use crate::leg::{Leg, LegState};
use crate::output::{CallState, EndedBy, Event, RingOutcome, RingResult};
use crate::step::Step;
use crate::{
    Action, Answer, Cause, LegEnd, LegNumber, LegSignal, MediaCommand, Now, RequestNumber, Side,
    SipOrder,
};
use std::time::{Duration, Instant};

#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    pub(crate) leg: Leg,
    /// The queue's assignment that it is for; `None` for a `dial` of the plan.
    pub(crate) assignment_id: Option<String>,
    /// Those who wait for the outcome.
    pub(crate) requests: Vec<RequestNumber>,
    /// `None` once the target has answered.
    pub(crate) ring_until: Option<Instant>,
}

impl Call {
    pub(crate) fn begin_attempt(
        &mut self,
        now: Now,
        target: String,
        ring: Duration,
        assignment: Option<(String, RequestNumber)>,
    ) {
        let number = LegNumber(self.next_leg);
        self.next_leg += 1;
        let (assignment_id, request) = assignment.unzip();
        self.b = Some(Attempt {
            leg: Leg::outbound(number, Side::B, target),
            assignment_id,
            requests: request.into_iter().collect(),
            ring_until: Some(now.instant + ring),
        });
        self.offer(now, number, Side::B, None);
    }

    /// What leg B says of its own life.
    pub(crate) fn handle_b(&mut self, now: Now, signal: LegSignal) {
        let Some(attempt) = &mut self.b else { return };
        let number = attempt.leg.number;
        match (&attempt.leg.state, signal) {
            (LegState::Calling { rang, early_sdp }, LegSignal::Ringing { sdp }) => {
                let (first, early_sdp) = (!rang, sdp.or(early_sdp.clone()));
                attempt.leg.state = LegState::Calling { rang: true, early_sdp };
                let assignment_id = attempt.assignment_id.clone();
                if first {
                    self.event(Event::Ringing { assignment_id });
                }
                if first && self.state == CallState::Early {
                    self.sip(self.a.number, SipOrder::Ring { status: 180 });
                }
            }
            (LegState::Calling { early_sdp, .. }, LegSignal::Answered { sdp }) => {
                attempt.ring_until = None;
                match sdp.or(early_sdp.clone()) {
                    Some(sdp) => self.negotiate(now, number, sdp),
                    None => {
                        let cause = Cause::IncompatibleDestination;
                        let ending = Ending::new(cause, EndedBy::Callee);
                        self.fail_attempt(now, RingOutcome::Unreachable, ending);
                    }
                }
            }
            (_, LegSignal::Ended(end)) => {
                attempt.leg.state = LegState::Terminated;
                if self.state == CallState::Connected {
                    self.finish_with(now, Ending::of_leg(end, EndedBy::Callee));
                } else {
                    self.handle_attempt_ended(now, end);
                }
            }
            _ => (), // Repeats, and what a leg says after its state has moved on.
        }
    }

    fn handle_attempt_ended(&mut self, now: Now, end: LegEnd) {
        let outcome = match &end {
            LegEnd::Rejected { status, .. } => outcome_of(*status),
            LegEnd::Bye { .. } | LegEnd::Cancelled { .. } => RingOutcome::Declined,
            _ => RingOutcome::Unreachable,
        };
        self.fail_attempt(now, outcome, Ending::of_leg(end, EndedBy::Callee));
    }

    pub(crate) fn handle_ring_timeout(&mut self, now: Now) {
        let ending = Ending::new(Cause::NoAnswer, EndedBy::Edge);
        self.fail_attempt(now, RingOutcome::NoAnswer, ending);
    }

    /// Ends the attempt; leg A goes on as if it had not been, or with the plan's `otherwise`, or
    /// ends like the attempt.
    pub(crate) fn fail_attempt(&mut self, now: Now, outcome: RingOutcome, ending: Ending) {
        let (cause, status) = (ending.cause, ending.status);
        let Some(attempt) = self.drop_attempt(now, outcome, cause, status) else { return };
        if attempt.assignment_id.is_some() || self.step != Step::Dialing {
            return;
        }
        match self.action.clone() {
            Some(Action::Dial { otherwise: Some(plan), .. }) => self.run_plan(now, plan),
            _ => self.finish_with(now, ending),
        }
    }

    /// Ends the attempt at SIP and at media-relay, and tells those who wait for it.
    pub(crate) fn drop_attempt(
        &mut self,
        now: Now,
        outcome: RingOutcome,
        cause: Cause,
        status: Option<u16>,
    ) -> Option<Attempt> {
        let number = self.b.as_ref()?.leg.number;
        let connecting = self.pending.iter().any(|it| it.purpose == Purpose::Connect(number));
        let attempt = self.release_b(cause)?;
        let assignment_id = attempt.assignment_id.clone();
        self.event(Event::RingFailed { assignment_id, cause });
        let result = RingResult { outcome, status, cause: Some(cause) };
        self.report_ring(&attempt, result);
        if connecting {
            self.restore_hearing(now);
        }
        Some(attempt)
    }

    /// Ends leg B alone while it talks with leg A, which then hears nothing until it is told to.
    pub(crate) fn part(&mut self, cause: Cause) {
        if self.release_b(cause).is_some() {
            self.state = CallState::Answered;
        }
    }

    /// Ends leg B at SIP and at media-relay.
    fn release_b(&mut self, cause: Cause) -> Option<Attempt> {
        let attempt = self.b.take()?;
        let number = attempt.leg.number;
        self.pending.retain(|pending| {
            use Purpose::*;
            let of = |it: &LegNumber| *it == number;
            !matches!(&pending.purpose,
                Offer(it) | Answer(it) | Reoffer(it) | Reanswer(it) | Connect(it) if of(it))
        });
        if !matches!(attempt.leg.state, LegState::Offering | LegState::Terminated) {
            let reason = cause.reason();
            let unanswered_status = cause.status();
            self.sip(number, SipOrder::Hangup { reason, unanswered_status });
        }
        self.media(MediaCommand::Delete { side: Some(Side::B) });
        Some(attempt)
    }

    pub(crate) fn report_ring(&mut self, attempt: &Attempt, result: RingResult) {
        if let Some(id) = &attempt.assignment_id {
            self.last_ring = Some((id.clone(), result));
        }
        for &request in &attempt.requests {
            self.answer_request(request, Ok(Answer::Ring(result)));
        }
    }

    /// Connects the legs when both are confirmed; answers leg A first if it waits for that.
    pub(crate) fn join_legs(&mut self, now: Now) {
        match &self.b {
            Some(attempt) if attempt.leg.is_confirmed() && self.a.is_confirmed() => {
                let number = attempt.leg.number;
                let command = self.media(MediaCommand::Connect);
                self.expect(now, command, Purpose::Connect(number));
            }
            Some(_) => self.seek_answer(now),
            None => (), // Leg A was faster: the target still rings, or has gone.
        }
    }

    /// media-relay has connected both sides: whatever the action did is over. What follows in the plan
    /// is kept for a leg A that loses its leg B to a task.
    pub(crate) fn handle_connected(&mut self) {
        let Some(mut attempt) = self.b.take() else { return };
        self.answer_originate();
        self.abandon_step(None);
        self.abandon_overlays(None);
        self.enter(Step::Idle);
        self.action = None;
        self.queue = None; // queue-svc commits when it reads our answer.
        self.conference.clear();
        self.state = CallState::Connected;
        let result = RingResult { outcome: RingOutcome::Connected, status: Some(200), cause: None };
        let assignment_id = attempt.assignment_id.clone();
        self.report_ring(&attempt, result);
        attempt.requests.clear();
        self.b = Some(attempt);
        self.event(Event::Connected { assignment_id });
    }
}

/// What a final response of the agent's phone means to the queue.
fn outcome_of(status: u16) -> RingOutcome {
    match status {
        486 | 600 => RingOutcome::Busy,
        403 | 603 | 607 | 608 => RingOutcome::Declined,
        408 | 480 | 487 => RingOutcome::NoAnswer,
        _ => RingOutcome::Unreachable,
    }
}
