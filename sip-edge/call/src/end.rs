//! The end of a call: everything that it holds is given back, and everyone who waits is told.

use crate::call::{Call, Purpose};
use crate::leg::{Leg, LegState};
use crate::output::{CallState, EndedBy, Event, RingOutcome, RingResult};
use crate::step::Step;
use crate::{
    Cause, LegNumber, MediaCommand, Now, Plan, QueueCommand, Refusal, SchedulerCommand, Side,
    SipOrder,
};

/// Hangups whose outcome is awaited at most; of older ones nothing is told.
const RELEASED_MAX: usize = 16;

pub(crate) struct Ending {
    pub(crate) cause: Cause,
    pub(crate) by: EndedBy,
    /// The `Reason` that one leg gave, for the other.
    pub(crate) reason: Option<String>,
    /// How a pending INVITE of leg A is refused, if not with the cause's own status.
    pub(crate) refusal: Option<SipOrder>,
    /// The final response that ended it.
    pub(crate) status: Option<u16>,
}

impl Ending {
    pub(crate) fn new(cause: Cause, by: EndedBy) -> Self {
        Self { cause, by, reason: None, refusal: None, status: None }
    }
}

impl Call {
    pub(crate) fn finish(&mut self, now: Now, cause: Cause, by: EndedBy) {
        self.finish_with(now, Ending::new(cause, by));
    }

    /// Ends the call, from any state, once: legs first, because people wait for that.
    pub(crate) fn finish_with(&mut self, now: Now, ending: Ending) {
        if self.state == CallState::Ended {
            return;
        }
        let cause = ending.cause;
        self.drop_replacement(cause, None);
        self.end_legs(&ending);
        if self.has_media {
            self.media(MediaCommand::Delete { side: None });
        }
        if self.queue.take().is_some() {
            self.queue_svc(QueueCommand::Leave { cause });
        }
        let schedules = |purpose: &Purpose| matches!(purpose, Purpose::Schedule { .. });
        if self.may_have_task || self.pending.iter().any(|pending| schedules(&pending.purpose)) {
            self.scheduler(SchedulerCommand::CancelAll);
        }
        self.state = CallState::Ended;
        self.ended_unix_ms = Some(now.unix_ms);
        self.end = Some((cause, ending.by));
        self.action = None;
        self.conference.clear();
        self.event(Event::Ended);
        self.abandon_step(Some(cause));
        self.abandon_overlays(Some(cause));
        self.tell_waiting(cause, ending.status);
        self.pending.clear();
        self.ring_until = None;
        self.enter(Step::Idle);
        self.plan = Plan::new([]);
    }

    fn end_legs(&mut self, ending: &Ending) {
        let pending_invite = !self.originated
            && matches!(
                self.a.state,
                LegState::Invited { .. } | LegState::Offering | LegState::Offered { .. }
            );
        let a = std::mem::replace(&mut self.a.state, LegState::Terminated);
        match (&ending.refusal, a) {
            (_, LegState::Terminated) => (),
            (_, LegState::Offering) if self.originated => (), // Nothing was sent yet.
            (Some(refusal), _) if pending_invite => self.sip(self.a.number, refusal.clone()),
            (_, was) => self.hang_up((self.a.number, self.a.side), &was, ending),
        }
        self.hang_up_rivals(ending.cause);
        if let Some(attempt) = &mut self.b {
            let leg = (attempt.leg.number, attempt.leg.side);
            attempt.ring_until = None;
            match std::mem::replace(&mut attempt.leg.state, LegState::Terminated) {
                LegState::Terminated => (),
                LegState::Offering if !attempt.is_borrowed => (), // Nothing was sent yet.
                was => self.hang_up(leg, &was, ending),
            }
        }
    }

    /// Whether the leg is one that the call still has.
    pub(crate) fn is_present(&self, number: LegNumber) -> bool {
        let has = |leg: &Leg| leg.number == number && leg.state != LegState::Terminated;
        has(&self.a)
            || self.b.as_ref().is_some_and(|attempt| has(&attempt.leg))
            || self.is_rival(number)
            || self.is_replacement(number)
    }

    /// A leg that we hung up on has answered, or nobody has for long enough.
    pub(crate) fn handle_released(&mut self, number: LegNumber, status: Option<u16>) {
        if let Some(at) = self.released.iter().position(|(leg, _)| *leg == number) {
            let (_, side) = self.released.swap_remove(at);
            self.event(Event::Released { side, status });
        }
    }

    fn hang_up(&mut self, (number, side): (LegNumber, Side), was: &LegState, ending: &Ending) {
        let reason = ending.reason.clone().unwrap_or_else(|| ending.cause.reason());
        self.release((number, side), was, reason, ending.cause);
    }

    /// Ends a leg at SIP. What comes of a BYE is told when it has come.
    pub(crate) fn release(
        &mut self,
        (number, side): (LegNumber, Side),
        was: &LegState,
        reason: String,
        cause: Cause,
    ) {
        let unanswered_status = cause.status();
        self.sip(number, SipOrder::Hangup { reason, unanswered_status });
        if matches!(was, LegState::AwaitingAck | LegState::Negotiating | LegState::Confirmed) {
            self.released.truncate(RELEASED_MAX - 1);
            self.released.insert(0, (number, side));
        }
    }

    /// Answers the requests that waited for something that will not happen any more.
    fn tell_waiting(&mut self, cause: Cause, status: Option<u16>) {
        for request in std::mem::take(&mut self.originate_requests) {
            let refusal = match self.answered_unix_ms {
                None => Refusal::NotAnswered { cause, status },
                Some(_) => Refusal::Ended { cause },
            };
            self.answer_request(request, Err(refusal));
        }
        if let Some(mut attempt) = self.b.take() {
            if !attempt.requests.is_empty() || attempt.bridge.is_some() {
                let outcome = RingOutcome::CallerGone;
                self.report_ring(
                    &attempt,
                    RingResult { outcome, status: None, cause: Some(cause) },
                );
                (attempt.requests, attempt.bridge) = (Vec::new(), None);
            }
            self.b = Some(attempt);
        }
    }
}
