//! Leg B: an attempt to reach somebody while leg A goes on hearing what it hears, and the leg that
//! talks with A when it succeeds. Several may be rung at the same time, with one offer: who answers
//! first becomes leg B, the others are hung up.

use crate::call::{Call, Purpose};
use crate::cause::COMPLETED_ELSEWHERE;
use crate::end::Ending;
use crate::leg::{Leg, LegState};
use crate::output::{CallState, EndedBy, Event, RingOutcome, RingResult};
use crate::step::Step;
use crate::{
    Action, Answer, Cause, LegEnd, LegNumber, LegSignal, MediaCommand, Now, Refusal, RequestNumber,
    Side, SipOrder,
};
use bytes::Bytes;
use std::time::{Duration, Instant};

#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    pub(crate) leg: Leg,
    /// Further legs that ring at the same time.
    pub(crate) rivals: Vec<Leg>,
    /// The queue's assignment that it is for; `None` for a `dial` of the plan.
    pub(crate) assignment_id: Option<String>,
    /// Those who wait for the outcome.
    pub(crate) requests: Vec<RequestNumber>,
    /// `None` once the target has answered.
    pub(crate) ring_until: Option<Instant>,
    /// The leg is another call's, until it is connected here.
    pub(crate) is_borrowed: bool,
    /// Who asked for that.
    pub(crate) bridge: Option<RequestNumber>,
}

impl Call {
    pub(crate) fn begin_attempt(
        &mut self,
        now: Now,
        target: String,
        also: Vec<String>,
        ring: Duration,
        assignment: Option<(String, RequestNumber)>,
    ) -> LegNumber {
        let number = self.next_leg_number();
        let rivals =
            also.into_iter().map(|it| Leg::outbound(self.next_leg_number(), Side::B, it)).collect();
        let (assignment_id, request) = assignment.unzip();
        self.b = Some(Attempt {
            leg: Leg::outbound(number, Side::B, target),
            rivals,
            assignment_id,
            requests: request.into_iter().collect(),
            ring_until: Some(now.instant + ring),
            is_borrowed: false,
            bridge: None,
        });
        self.offer(now, number, Side::B, None);
        number
    }

    /// media-relay has made the offer of leg B: it is that of those who ring beside it, too.
    pub(crate) fn invite_rivals(&mut self, sdp: &Bytes) {
        let Some(attempt) = &mut self.b else { return };
        let mut invited = Vec::new();
        for leg in &mut attempt.rivals {
            leg.state = LegState::Calling { rang: false, early_sdp: None };
            invited.push((leg.number, leg.remote_uri.clone()));
        }
        for (number, target) in invited {
            self.sip(number, SipOrder::Invite { target, sdp: sdp.clone(), headers: Vec::new() });
        }
    }

    pub(crate) fn is_rival(&self, number: LegNumber) -> bool {
        self.b.as_ref().is_some_and(|it| it.rivals.iter().any(|leg| leg.number == number))
    }

    /// What a leg says that rings beside leg B. If it answers, it takes leg B's place.
    pub(crate) fn handle_rival(&mut self, now: Now, number: LegNumber, signal: LegSignal) {
        let Some(attempt) = &mut self.b else { return };
        let Some(at) = attempt.rivals.iter().position(|leg| leg.number == number) else { return };
        match signal {
            LegSignal::Ringing { .. } => {
                if let LegState::Calling { rang, .. } = &mut attempt.rivals[at].state {
                    *rang = true;
                }
                let none_rang = matches!(attempt.leg.state, LegState::Calling { rang: false, .. });
                if none_rang {
                    std::mem::swap(&mut attempt.leg, &mut attempt.rivals[at]);
                    if let LegState::Calling { rang, .. } = &mut attempt.leg.state {
                        *rang = false; // As the first one of them it is told of.
                    }
                    self.handle_b(now, signal);
                }
            }
            LegSignal::Answered { .. } => {
                std::mem::swap(&mut attempt.leg, &mut attempt.rivals[at]);
                self.handle_b(now, signal);
            }
            LegSignal::Ended(_) => drop(attempt.rivals.remove(at)),
            _ => (), // It has no media of its own.
        }
    }

    /// Those who ring beside leg B need not any more.
    pub(crate) fn hang_up_rivals(&mut self, cause: Cause) {
        let rivals = self.b.as_mut().map(|attempt| std::mem::take(&mut attempt.rivals));
        for leg in rivals.unwrap_or_default() {
            if !matches!(leg.state, LegState::Offering | LegState::Terminated) {
                let reason = match cause {
                    Cause::LoseRace => COMPLETED_ELSEWHERE.to_owned(),
                    cause => cause.reason(),
                };
                let unanswered_status = cause.status();
                self.sip(leg.number, SipOrder::Hangup { reason, unanswered_status });
            }
        }
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
                let sdp = sdp.or(early_sdp.clone());
                self.hang_up_rivals(Cause::LoseRace);
                match sdp {
                    Some(sdp) => self.negotiate(now, number, sdp),
                    None => {
                        let cause = Cause::IncompatibleDestination;
                        let ending = Ending::new(cause, EndedBy::Callee);
                        self.fail_attempt(now, RingOutcome::Unreachable, ending);
                    }
                }
            }
            (LegState::Calling { .. }, LegSignal::Ended(_)) if !attempt.rivals.is_empty() => {
                attempt.leg = attempt.rivals.remove(0); // Somebody else may still answer.
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
            self.event(Event::Parted);
        }
    }

    /// Ends leg B at SIP and at media-relay.
    fn release_b(&mut self, cause: Cause) -> Option<Attempt> {
        let number = self.b.as_ref()?.leg.number;
        if self.has_replacement_of(number) {
            self.drop_replacement(cause, None);
        }
        self.hang_up_rivals(cause);
        let attempt = self.b.take()?;
        self.pending.retain(|pending| {
            use Purpose::*;
            let of = |it: &LegNumber| *it == number;
            !matches!(&pending.purpose,
                Offer(it) | Answer(it) | Reoffer(it) | Reanswer(it) | Connect(it) if of(it))
        });
        let is_unsent = attempt.leg.state == LegState::Offering && !attempt.is_borrowed;
        if !is_unsent && attempt.leg.state != LegState::Terminated {
            self.release((number, Side::B), &attempt.leg.state, cause.reason(), cause);
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
        if let Some(request) = attempt.bridge {
            let answer = match (result.outcome, result.cause) {
                (RingOutcome::Connected, _) => Ok(Answer::Bridged(Box::new(self.view()))),
                (_, cause) => {
                    let cause = cause.unwrap_or(Cause::NormalUnspecified);
                    Err(Refusal::NotAnswered { cause, status: result.status })
                }
            };
            self.answer_request(request, answer);
        }
    }

    /// Connects the legs when both are confirmed; answers leg A first if it waits for that.
    pub(crate) fn join_legs(&mut self, now: Now) {
        match &self.b {
            Some(attempt) if attempt.leg.is_confirmed() && self.a.is_confirmed() => {
                let number = attempt.leg.number;
                // Nobody is taken out of a queue by a phone that answers and is dead.
                let when_heard = attempt.assignment_id.is_some();
                let command = self.media(MediaCommand::Connect { when_heard });
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
        self.take_borrowed(&mut attempt);
        self.queue = None; // queue-svc commits when it reads our answer.
        self.conference.clear();
        self.state = CallState::Connected;
        let result = RingResult { outcome: RingOutcome::Connected, status: Some(200), cause: None };
        let assignment_id = attempt.assignment_id.clone();
        self.b = Some(attempt.clone());
        self.report_ring(&attempt, result);
        (attempt.requests, attempt.bridge) = (Vec::new(), None);
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
