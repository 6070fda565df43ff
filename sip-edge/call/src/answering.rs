//! How legs come to be answered and stay negotiated: leg A's way from its INVITE to its ACK, and
//! the re-INVITEs of both legs (RFC 3261 §13 and §14, RFC 3264).

use crate::call::{Call, Purpose, failure_of};
use crate::end::Ending;
use crate::leg::{LegState, Reinvite};
use crate::output::{
    CallState, EndedBy, Event, INCOMPATIBLE_MEDIA_FORMAT, INCOMPATIBLE_NETWORK_ADDRESS_FORMATS,
    Warning,
};
use crate::step::Step;
use crate::{
    Action, Answer, Cause, CommandNumber, Failure, FailureKind, LegEnd, LegNumber, LegSignal,
    MediaCommand, Now, Refusal, Reply, SchedulerCommand, SipOrder,
};
use bytes::Bytes;

/// When a caller who is refused for a passing reason may try again.
pub(crate) const RETRY_AFTER_S: u32 = 5;

impl Call {
    /// What leg A says of its own life; re-INVITEs and digits are handled before.
    pub(crate) fn handle_a(&mut self, now: Now, signal: LegSignal) {
        match (&self.a.state, signal) {
            (LegState::AwaitingAck, LegSignal::Acknowledged { sdp }) => {
                match (self.a.late_offer, sdp) {
                    (false, _) => self.confirm_a(now),
                    (true, Some(sdp)) => self.negotiate(now, self.a.number, sdp),
                    (true, None) => self.finish(now, Cause::ProtocolError, EndedBy::Edge),
                }
            }
            (LegState::Calling { rang, early_sdp }, LegSignal::Ringing { sdp }) => {
                let (first, early_sdp) = (!rang, sdp.or(early_sdp.clone()));
                self.a.state = LegState::Calling { rang: true, early_sdp };
                if first {
                    self.event(Event::Ringing { assignment_id: None });
                }
            }
            (LegState::Calling { early_sdp, .. }, LegSignal::Answered { sdp }) => {
                match sdp.or(early_sdp.clone()) {
                    Some(sdp) => self.negotiate(now, self.a.number, sdp),
                    None => self.finish(now, Cause::IncompatibleDestination, EndedBy::Edge),
                }
            }
            (_, LegSignal::Ended(end)) => {
                self.a.state = LegState::Terminated;
                let by = if self.originated { EndedBy::Callee } else { EndedBy::Caller };
                self.finish_with(now, Ending::of_leg(end, by));
            }
            _ => (), // Repeats, and what a leg says after its state has moved on.
        }
    }

    /// Hands the remote's answer to our offer to media-relay.
    pub(crate) fn negotiate(&mut self, now: Now, number: LegNumber, sdp: Bytes) {
        let leg = self.leg_mut(number);
        leg.state = LegState::Negotiating;
        let side = leg.side;
        let command = self.media(MediaCommand::Answer { side, sdp });
        self.expect(now, command, Purpose::Answer(number));
    }

    /// media-relay has made the first offer or answer of a leg.
    pub(crate) fn handle_offered(&mut self, now: Now, number: LegNumber, sdp: Bytes) {
        if self.is_replacement(number) {
            return self.handle_replacement_offered(sdp);
        }
        if number == self.a.number && !self.originated {
            self.a.state = LegState::Offered { sdp };
            self.note_music();
            return self.seek_answer(now);
        }
        let is_borrowed =
            self.b.as_ref().is_some_and(|it| it.leg.number == number && it.is_borrowed);
        let leg = self.leg_mut(number);
        leg.state = LegState::Calling { rang: false, early_sdp: None };
        let target = leg.remote_uri.clone();
        let order = match is_borrowed {
            true => SipOrder::Reinvite { sdp: sdp.clone() },
            false => SipOrder::Invite { target, sdp: sdp.clone(), headers: Vec::new() },
        };
        self.sip(number, order);
        if number != self.a.number {
            self.invite_rivals(&sdp);
        }
        if number == self.a.number && self.return_at_once {
            self.answer_originate();
        }
    }

    /// media-relay has taken the remote's answer to our first offer.
    pub(crate) fn handle_negotiated(&mut self, now: Now, number: LegNumber) {
        if self.is_replacement(number) {
            self.confirm_replacement();
        } else if number == self.a.number {
            self.confirm_a(now);
        } else {
            self.leg_mut(number).state = LegState::Confirmed;
            self.join_legs(now);
        }
    }

    /// media-relay has refused the first offer or answer of a leg.
    pub(crate) fn handle_media_refused(&mut self, now: Now, leg: LegNumber, failure: Failure) {
        let cause = cause_of(&failure);
        if self.is_replacement(leg) {
            return self.fail_replacement(now, cause, None);
        }
        if leg != self.a.number {
            let ending = Ending::new(cause, EndedBy::Edge);
            return self.fail_attempt(now, crate::RingOutcome::Unreachable, ending);
        }
        let refusal = match failure.kind {
            FailureKind::NoCodec => not_acceptable(INCOMPATIBLE_MEDIA_FORMAT),
            FailureKind::NoAddressFamily => not_acceptable(INCOMPATIBLE_NETWORK_ADDRESS_FORMATS),
            FailureKind::Invalid => {
                SipOrder::Reject { status: 400, warning: None, retry_after_s: None }
            }
            _ => busy_now(),
        };
        self.refuse(now, "media-relay", failure, cause, refusal);
    }

    /// Ends the call because another service has failed: with `refusal` if leg A's INVITE is still
    /// pending.
    pub(crate) fn refuse(
        &mut self,
        now: Now,
        service: &'static str,
        failure: Failure,
        cause: Cause,
        refusal: SipOrder,
    ) {
        for request in std::mem::take(&mut self.originate_requests) {
            let failure = failure.clone();
            self.answer_request(request, Err(Refusal::Failed { service, failure }));
        }
        let ending = Ending::new(cause, EndedBy::Edge);
        self.finish_with(now, Ending { refusal: Some(refusal), ..ending });
    }

    /// Moves leg A towards its 200, as far as the running step wants it.
    pub(crate) fn seek_answer(&mut self, now: Now) {
        self.advance_entering(now);
        if !self.wants_answer() {
            return;
        }
        match &self.a.state {
            LegState::Invited { sdp } => {
                let sdp = sdp.clone();
                self.offer(now, self.a.number, crate::Side::A, sdp);
            }
            LegState::Offered { sdp } => {
                let sdp = sdp.clone();
                self.a.state = LegState::AwaitingAck;
                self.sip(self.a.number, SipOrder::Answer { sdp });
            }
            _ => (), // On its way.
        }
    }

    fn wants_answer(&self) -> bool {
        match &self.step {
            Step::AwaitingAnswer => true,
            Step::Entering(entering) => entering.wants_answer(self.a.late_offer),
            Step::Dialing => self.b.as_ref().is_some_and(|b| b.leg.is_confirmed()),
            _ => false,
        }
    }

    /// Leg A is answered and acknowledged, and its media is negotiated.
    fn confirm_a(&mut self, now: Now) {
        self.a.state = LegState::Confirmed;
        self.state = CallState::Answered;
        self.answered_unix_ms = Some(now.unix_ms);
        self.ring_until = None;
        self.event(Event::Answered);
        match (&self.step, self.action.clone()) {
            (Step::Idle, None) => self.run_next(now),
            (Step::AwaitingAnswer, Some(action)) => self.begin(now, action),
            (Step::Entering(_), _) => self.advance_entering(now),
            (Step::Dialing, _) => self.join_legs(now),
            _ => (), // The step goes on by itself.
        }
    }

    /// Answers the Originate that made the call, once all that it waits for is there.
    pub(crate) fn answer_originate(&mut self) {
        self.has_originated = true;
        for request in std::mem::take(&mut self.originate_requests) {
            let call = Box::new(self.view());
            self.answer_request(request, Ok(Answer::Originated(call)));
        }
    }

    /// The Originate is answered when the first action begins that is no `schedule`.
    pub(crate) fn answer_originate_before(&mut self, action: &Action) {
        if !matches!(action, Action::Schedule { .. }) {
            self.answer_originate();
        }
    }

    pub(crate) fn handle_reinvite(&mut self, now: Now, number: LegNumber, sdp: Option<Bytes>) {
        let leg = self.leg_mut(number);
        match (&leg.state, leg.reinvite) {
            (LegState::Confirmed, Reinvite::None) => (),
            (LegState::Confirmed | LegState::AwaitingAck | LegState::Negotiating, _) => {
                let retry_after_s = None;
                let order = SipOrder::Reject { status: 491, warning: None, retry_after_s };
                return self.sip(number, order);
            }
            _ => return, // No dialog that could be changed: a refusal would hit the first INVITE.
        }
        leg.reinvite = Reinvite::Offering { late: sdp.is_none() };
        let side = leg.side;
        let command = self.media(MediaCommand::Offer { side, sdp, music: None });
        self.expect(now, command, Purpose::Reoffer(number));
    }

    /// media-relay has answered the re-INVITE's offer, or made one for it.
    pub(crate) fn answer_reinvite(&mut self, number: LegNumber, sdp: Bytes, held: bool) {
        let leg = self.leg_mut(number);
        let late = leg.reinvite == Reinvite::Offering { late: true };
        leg.reinvite = Reinvite::AwaitingAck { late };
        self.sip(number, SipOrder::Answer { sdp });
        if !late {
            self.hold(number, held);
        }
    }

    /// The leg lives on as it was (RFC 3261 §14.2).
    pub(crate) fn refuse_reinvite(&mut self, number: LegNumber, failure: &Failure) {
        self.leg_mut(number).reinvite = Reinvite::None;
        let order = match failure.kind {
            FailureKind::NoCodec => not_acceptable(INCOMPATIBLE_MEDIA_FORMAT),
            FailureKind::NoAddressFamily => not_acceptable(INCOMPATIBLE_NETWORK_ADDRESS_FORMATS),
            FailureKind::Invalid => {
                SipOrder::Reject { status: 400, warning: None, retry_after_s: None }
            }
            _ => {
                let retry_after_s = Some(RETRY_AFTER_S);
                SipOrder::Reject { status: 500, warning: None, retry_after_s }
            }
        };
        self.sip(number, order);
    }

    pub(crate) fn handle_reinvite_ack(&mut self, now: Now, number: LegNumber, sdp: Option<Bytes>) {
        let leg = self.leg_mut(number);
        match (leg.reinvite, sdp) {
            (Reinvite::AwaitingAck { late: true }, Some(sdp)) => {
                leg.reinvite = Reinvite::Negotiating;
                let side = leg.side;
                let command = self.media(MediaCommand::Answer { side, sdp });
                self.expect(now, command, Purpose::Reanswer(number));
            }
            // Without the answer that we wait for, the session stays as it was.
            (Reinvite::AwaitingAck { .. }, _) => leg.reinvite = Reinvite::None,
            _ => (), // A repeated ACK.
        }
    }

    /// The answer in the ACK of a re-INVITE has been taken, or not; the leg lives on.
    pub(crate) fn finish_reinvite(&mut self, number: LegNumber, reply: Result<Reply, Failure>) {
        self.leg_mut(number).reinvite = Reinvite::None;
        if let Ok(Reply::Negotiated { held }) = reply {
            self.hold(number, held);
        }
    }

    fn hold(&mut self, number: LegNumber, held: bool) {
        let leg = self.leg_mut(number);
        if leg.held != held {
            leg.held = held;
            self.event(if held { Event::Held } else { Event::Resumed });
        }
    }

    /// The last word on an attempt to connect: a failure, whatever the reply was. It may have been
    /// done all the same.
    pub(crate) fn handle_silent_agent(&mut self, now: Now) {
        let ending = Ending::new(Cause::MediaTimeout, EndedBy::Edge);
        self.fail_attempt(now, crate::RingOutcome::Unreachable, ending);
    }

    pub(crate) fn handle_connect_failed(&mut self, now: Now, failure: &Failure) {
        let ending = Ending::new(cause_of(failure), EndedBy::Edge);
        self.fail_attempt(now, crate::RingOutcome::Unreachable, ending);
        self.restore_hearing(now);
    }

    /// The task is on disk, or cannot be put there.
    pub(crate) fn handle_scheduled(
        &mut self,
        now: Now,
        number: CommandNumber,
        name: String,
        reply: Result<Reply, Failure>,
    ) {
        let runs = self.step == Step::Scheduling(number);
        if reply.as_ref().is_err_and(|failure| failure.kind == FailureKind::Unavailable) {
            self.may_have_task = true;
        }
        match reply {
            Ok(Reply::Scheduled { task_id }) => {
                if let Some(at) = self.tasks.iter().position(|(other, _)| *other == name) {
                    let (_, task_id) = self.tasks.remove(at); // A name stands for the newest task.
                    self.scheduler(SchedulerCommand::Cancel { task_id });
                }
                self.tasks.push((name, task_id));
                if runs {
                    self.run_next(now);
                }
            }
            // A call whose limit is not armed must not go on.
            reply if runs => {
                let failure = failure_of(reply);
                self.refuse(now, "scheduler", failure, Cause::NormalTemporaryFailure, busy_now());
            }
            _ => (), // Another plan runs already.
        }
    }
}

/// 488: nothing that was offered can be done.
fn not_acceptable(warning: Warning) -> SipOrder {
    SipOrder::Reject { status: 488, warning: Some(warning), retry_after_s: None }
}

/// 503: it may well work in a moment.
pub(crate) fn busy_now() -> SipOrder {
    SipOrder::Reject { status: 503, warning: None, retry_after_s: Some(RETRY_AFTER_S) }
}

/// The hangup cause for what another service could not do.
pub(crate) fn cause_of(failure: &Failure) -> Cause {
    match failure.kind {
        FailureKind::NoCodec | FailureKind::NoAddressFamily => Cause::IncompatibleDestination,
        FailureKind::Invalid => Cause::ProtocolError,
        FailureKind::NotFound | FailureKind::Unavailable => Cause::NormalTemporaryFailure,
        FailureKind::Full => Cause::SwitchCongestion,
        FailureKind::Denied => Cause::CallRejected,
    }
}

impl Ending {
    /// The end of the call that the end of one of its legs makes.
    pub(crate) fn of_leg(end: LegEnd, remote: EndedBy) -> Self {
        let said = |reason: &Option<String>| reason.as_deref().and_then(Cause::from_reason);
        match end {
            LegEnd::Bye { reason } => {
                let cause = said(&reason).unwrap_or(Cause::NormalClearing);
                Self { reason, ..Self::new(cause, remote) }
            }
            LegEnd::Cancelled { reason } => {
                Self { reason, ..Self::new(Cause::OriginatorCancel, remote) }
            }
            LegEnd::Rejected { status, reason } => {
                let cause = said(&reason).unwrap_or(Cause::from_status(status));
                Self { status: Some(status), ..Self::new(cause, remote) }
            }
            LegEnd::Unresolved { cause } => Self::new(cause, EndedBy::Edge),
            LegEnd::TimedOut => Self::new(Cause::RecoveryOnTimerExpire, EndedBy::Edge),
            LegEnd::TransportFailed => Self::new(Cause::NetworkOutOfOrder, EndedBy::Edge),
            LegEnd::HungUp { .. } => Self::new(Cause::NormalClearing, EndedBy::Edge),
        }
    }
}
