//! A leg that takes the place of another one: a transfer by REFER, a pickup by Replaces, a leg of
//! another call (RFC 3515, RFC 3891, RFC 5589).
//!
//! The new leg is negotiated on the media side of the old one, which goes on until the new one is
//! confirmed; then the old one is hung up. Until then everything can go back to what it was.

use crate::attempt::Attempt;
use crate::call::{Call, Purpose};
use crate::end::Ending;
use crate::leg::{Leg, LegState, Reinvite};
use crate::output::{CallState, EndedBy, Event};
use crate::{
    Answer, Cause, LegNumber, LegSignal, Now, QueueCommand, Refusal, RequestNumber, Side, SipOrder,
};
use bytes::Bytes;
use std::time::{Duration, Instant};

/// How long a leg that takes a place may take to be confirmed.
pub const REPLACE_MAX: Duration = Duration::from_secs(30);

/// Where the new leg comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    /// We call it, because the one in its place asked for that; further headers of the INVITE.
    Referred { headers: Vec<(String, String)> },
    /// It called us to take the place.
    Invited,
    /// It is a leg of another call, until it is ours.
    Borrowed,
}

#[derive(Clone, Debug)]
pub(crate) struct Replacement {
    pub(crate) leg: Leg,
    source: Source,
    /// Whose place it takes.
    place: LegNumber,
    /// What the old leg is hung up with.
    cause: Cause,
    pub(crate) until: Instant,
    request: Option<RequestNumber>,
}

impl Call {
    /// The confirmed leg that talks with leg `number`, and its remote URI.
    pub fn peer_of(&self, number: LegNumber) -> Option<(LegNumber, String)> {
        let b = self.b.as_ref().map(|attempt| &attempt.leg)?;
        let is_connected = self.state == CallState::Connected;
        let peer = if number == self.a.number { b } else { &self.a };
        let is_one = number == self.a.number || number == b.number;
        let stands = is_connected && is_one && peer.is_confirmed();
        stands.then(|| (peer.number, peer.remote_uri.clone()))
    }

    /// The confirmed leg of a side.
    pub fn leg_at(&self, side: Side) -> Option<(LegNumber, String)> {
        let b = self.b.as_ref().map(|attempt| &attempt.leg);
        let leg = [Some(&self.a), b].into_iter().flatten().find(|leg| leg.side == side)?;
        let stands = leg.is_confirmed() && self.state != CallState::Ended;
        stands.then(|| (leg.number, leg.remote_uri.clone()))
    }

    /// Gives the place of leg `place` to a leg that has called us for it; its number. Without `sdp` it
    /// wants our offer.
    ///
    /// # Errors
    /// There is no such place, or another leg is on its way to one.
    pub fn replace(
        &mut self,
        now: Now,
        place: LegNumber,
        remote_uri: String,
        sdp: Option<Bytes>,
    ) -> Result<LegNumber, Refusal> {
        let late = sdp.is_none();
        let replaced = (Source::Invited, Cause::PickedOff, None);
        let number = self.begin_replacing(now, place, remote_uri, replaced)?;
        self.leg_mut(number).late_offer = late;
        let side = self.leg(number).side;
        self.offer(now, number, side, sdp);
        Ok(number)
    }

    /// Takes a leg of another call in: into the place of leg `place`, or beside a leg A that is
    /// alone. The shell is told by `SipOrder::Take` when it is ours; a hangup before that gives it
    /// back. Its number here.
    ///
    /// # Errors
    /// There is no such place, or something else rings or is on its way.
    pub fn borrow_leg(
        &mut self,
        now: Now,
        place: Option<LegNumber>,
        remote_uri: String,
        cause: Cause,
        request: Option<RequestNumber>,
    ) -> Result<LegNumber, Refusal> {
        if let Some(place) = place {
            let replaced = (Source::Borrowed, cause, request);
            let number = self.begin_replacing(now, place, remote_uri, replaced)?;
            let side = self.leg(number).side;
            self.offer(now, number, side, None);
            return Ok(number);
        }
        self.admit_beside()?;
        let number = self.begin_attempt(now, remote_uri, Vec::new(), REPLACE_MAX, None);
        if let Some(attempt) = &mut self.b {
            (attempt.is_borrowed, attempt.bridge) = (true, request);
        }
        Ok(number)
    }

    /// Whether leg A can be given somebody to talk with.
    fn admit_beside(&self) -> Result<(), Refusal> {
        match (self.end, self.state, &self.b) {
            (Some((cause, _)), ..) => Err(Refusal::Ended { cause }),
            (_, CallState::Early, _) => Err(Refusal::NotAnsweredYet),
            (_, CallState::Connected, _) => Err(Refusal::Connected),
            (.., Some(_)) => Err(Refusal::Rings),
            _ => Ok(()),
        }
    }

    fn begin_replacing(
        &mut self,
        now: Now,
        place: LegNumber,
        remote_uri: String,
        (source, cause, request): (Source, Cause, Option<RequestNumber>),
    ) -> Result<LegNumber, Refusal> {
        if let Some((cause, _)) = self.end {
            return Err(Refusal::Ended { cause });
        }
        let is_b = self.b.as_ref().is_some_and(|it| it.leg.number == place);
        let is_there = (place == self.a.number || is_b) && self.leg(place).is_confirmed();
        if !is_there || (is_b && self.state != CallState::Connected) {
            return Err(Refusal::NotAnsweredYet);
        }
        if self.replacement.is_some() {
            return Err(Refusal::Rings);
        }
        let number = self.next_leg_number();
        let leg = Leg::outbound(number, self.leg(place).side, remote_uri);
        let until = now.instant + REPLACE_MAX;
        self.replacement = Some(Replacement { leg, source, place, cause, until, request });
        Ok(number)
    }

    /// A leg asks for somebody else to be called in its place.
    pub(crate) fn handle_referred(
        &mut self,
        now: Now,
        number: LegNumber,
        target: String,
        headers: Vec<(String, String)>,
    ) {
        let is_talking = self.peer_of(number).is_some();
        let replaced = (Source::Referred { headers }, Cause::BlindTransfer, None);
        // Who is alone with us has nobody to hand over.
        let begun = match is_talking {
            true => self.begin_replacing(now, number, target, replaced).ok(),
            false => None,
        };
        match begun {
            Some(new) => {
                self.sip(number, SipOrder::AcceptRefer);
                let side = self.leg(new).side;
                self.offer(now, new, side, None);
            }
            None => self.sip(number, SipOrder::RejectRefer { status: 603 }),
        }
    }

    pub(crate) fn is_replacement(&self, number: LegNumber) -> bool {
        self.replacement.as_ref().is_some_and(|it| it.leg.number == number)
    }

    /// media-relay has made our offer, or the answer, for the new leg.
    pub(crate) fn handle_replacement_offered(&mut self, sdp: Bytes) {
        let Some(replacement) = &mut self.replacement else { return };
        let number = replacement.leg.number;
        let calling = LegState::Calling { rang: false, early_sdp: None };
        let (state, order) = match &replacement.source {
            Source::Referred { headers } => {
                let target = replacement.leg.remote_uri.clone();
                (calling, SipOrder::Invite { target, sdp, headers: headers.clone() })
            }
            Source::Invited => (LegState::AwaitingAck, SipOrder::Answer { sdp }),
            Source::Borrowed => (calling, SipOrder::Reinvite { sdp }),
        };
        replacement.leg.state = state;
        self.sip(number, order);
    }

    /// What the new leg says of its own life.
    pub(crate) fn handle_replacement(&mut self, now: Now, signal: LegSignal) {
        let Some(replacement) = &mut self.replacement else { return };
        let (number, late) = (replacement.leg.number, replacement.leg.late_offer);
        match (&replacement.leg.state, signal) {
            (LegState::Calling { rang, early_sdp }, LegSignal::Ringing { sdp }) => {
                let (first, early_sdp) = (!rang, sdp.or(early_sdp.clone()));
                replacement.leg.state = LegState::Calling { rang: true, early_sdp };
                if first {
                    self.tell_referrer(180);
                }
            }
            (LegState::Calling { early_sdp, .. }, LegSignal::Answered { sdp }) => {
                match sdp.or(early_sdp.clone()) {
                    Some(sdp) => self.negotiate(now, number, sdp),
                    None => self.fail_replacement(now, Cause::IncompatibleDestination, Some(488)),
                }
            }
            (LegState::AwaitingAck, LegSignal::Acknowledged { sdp }) => match (late, sdp) {
                (false, _) => self.confirm_replacement(),
                (true, Some(sdp)) => self.negotiate(now, number, sdp),
                (true, None) => self.fail_replacement(now, Cause::ProtocolError, None),
            },
            (_, LegSignal::Ended(end)) => {
                replacement.leg.state = LegState::Terminated;
                let ending = Ending::of_leg(end, EndedBy::Callee);
                self.fail_replacement(now, ending.cause, ending.status);
            }
            _ => (), // Repeats, and what it says after its state has moved on.
        }
    }

    /// The new leg is in the old one's place.
    pub(crate) fn confirm_replacement(&mut self) {
        let Some(mut replacement) = self.replacement.take() else { return };
        let place = replacement.place;
        replacement.leg.state = LegState::Confirmed;
        let new = replacement.leg.number;
        if replacement.source == Source::Borrowed {
            self.sip(new, SipOrder::Take);
        }
        let old = std::mem::replace(self.leg_mut(place), replacement.leg);
        if old.state != LegState::Terminated {
            if matches!(replacement.source, Source::Referred { .. }) {
                self.sip(place, SipOrder::NotifyRefer { status: 200 });
            }
            let cause = replacement.cause;
            self.release((place, old.side), &old.state, cause.reason(), cause);
        }
        self.forget_negotiations(place);
        self.event(Event::Replaced);
        if let Some(request) = replacement.request {
            let call = Box::new(self.view());
            self.answer_request(request, Ok(Answer::Bridged(call)));
        }
    }

    /// The new leg does not come: the old one goes on, or its end is the call's.
    pub(crate) fn fail_replacement(&mut self, now: Now, cause: Cause, status: Option<u16>) {
        let Some(replacement) = self.drop_replacement(cause, status) else { return };
        if self.leg(replacement.place).state == LegState::Terminated {
            self.finish(now, cause, EndedBy::Edge);
        }
    }

    /// Ends the new leg and tells those who wait for it.
    pub(crate) fn drop_replacement(
        &mut self,
        cause: Cause,
        status: Option<u16>,
    ) -> Option<Replacement> {
        self.tell_referrer(status.filter(|it| *it >= 300).unwrap_or(480));
        let replacement = self.replacement.take()?;
        let number = replacement.leg.number;
        self.forget_negotiations(number);
        let is_over = replacement.leg.state == LegState::Terminated;
        let is_unsent = replacement.leg.state == LegState::Offering
            && matches!(replacement.source, Source::Referred { .. });
        if !is_over && !is_unsent {
            let leg = &replacement.leg;
            let was = if replacement.source == Source::Borrowed {
                &LegState::Offering
            } else {
                &leg.state
            };
            self.release((number, leg.side), was, cause.reason(), cause);
        }
        if let Some(request) = replacement.request {
            self.answer_request(request, Err(Refusal::NotAnswered { cause, status }));
        }
        Some(replacement)
    }

    fn tell_referrer(&mut self, status: u16) {
        let Some(replacement) = &self.replacement else { return };
        let place = replacement.place;
        let is_referred = matches!(replacement.source, Source::Referred { .. });
        if is_referred && self.leg(place).state != LegState::Terminated {
            self.sip(place, SipOrder::NotifyRefer { status });
        }
    }

    pub(crate) fn has_replacement_of(&self, place: LegNumber) -> bool {
        self.replacement.as_ref().is_some_and(|it| it.place == place)
    }

    /// A leg whose place is about to be taken has gone already; true if that is what happened.
    pub(crate) fn leave_place(&mut self, number: LegNumber) -> bool {
        let is_place = self.has_replacement_of(number);
        if is_place {
            self.forget_negotiations(number);
            let leg = self.leg_mut(number);
            (leg.state, leg.reinvite) = (LegState::Terminated, Reinvite::None);
        }
        is_place
    }

    /// A leg of ours is another call's now: this one is over, without a BYE to that leg.
    pub(crate) fn handle_taken(&mut self, now: Now, number: LegNumber, cause: Cause) {
        if number == self.a.number || self.b.as_ref().is_some_and(|it| it.leg.number == number) {
            self.leg_mut(number).state = LegState::Terminated;
            self.finish(now, cause, EndedBy::Edge);
        }
    }

    /// The borrowed leg beside leg A is connected: it is ours.
    pub(crate) fn take_borrowed(&mut self, attempt: &mut Attempt) {
        if !std::mem::take(&mut attempt.is_borrowed) {
            return;
        }
        self.sip(attempt.leg.number, SipOrder::Take);
        if self.queue.is_some() {
            self.queue_svc(QueueCommand::Leave { cause: Cause::PickedOff });
        }
    }

    fn forget_negotiations(&mut self, number: LegNumber) {
        self.pending.retain(|pending| {
            use Purpose::*;
            let of = |it: &LegNumber| *it == number;
            !matches!(&pending.purpose,
                Offer(it) | Answer(it) | Reoffer(it) | Reanswer(it) if of(it))
        });
    }
}
