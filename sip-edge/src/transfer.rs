//! Legs that change their place: REFER of phones, pickups by Replaces, and legs that go from one
//! call into another (RFC 3515, RFC 3891, RFC 5589).

use crate::calls::{CallId, Slot};
use crate::edge::{Edge, now};
use crate::requests::{Answered, Unmet};
use bytes::Bytes;
use call::{Cause, Input, LegEnd, LegNumber, LegSignal, Refusal, Side};
use sip::{Invited, LegId, Referred};
use std::time::Instant;
use tokio::sync::oneshot;
use tracing::info;

/// A leg on its way from its call into another one.
pub(crate) struct Borrowed {
    /// The call that wants it, and its number there.
    by: (CallId, LegNumber),
    /// The leg whose REFER began it, which hears what becomes of it.
    referrer: Option<LegId>,
}

/// Which legs of two calls are to talk.
#[derive(Clone, Debug)]
pub(crate) struct Bridge {
    pub(crate) call_id: String,
    pub(crate) side: Side,
    pub(crate) other_call_id: String,
    pub(crate) other_side: Side,
}

impl Edge {
    /// A phone asks for somebody else to be called in its place. If that is a phone that it talks to
    /// by another call of ours, both calls become one.
    pub(crate) fn handle_referred(&mut self, leg: LegId, refer: Referred) {
        let Some((id, number)) = self.legs.get(&leg).cloned() else {
            return self.user_agent.reject_refer(Instant::now(), leg, 481);
        };
        if let Some(other) = refer.replaced {
            if self.transfer_attended(leg, (id, number), other).is_none() {
                self.user_agent.reject_refer(Instant::now(), leg, 603);
            }
            return;
        }
        let replaces = refer.to.replaces.map(|it| ("Replaces".to_owned(), it.header()));
        let referred_by = refer.referred_by.map(|it| ("Referred-By".to_owned(), it));
        let headers = replaces.into_iter().chain(referred_by).collect();
        let signal = LegSignal::Referred { target: refer.to.uri, headers };
        self.feed(&id, Input::Leg { leg: number, signal });
    }

    /// Who talks with the referrer takes the place that the referrer has in the other call.
    fn transfer_attended(
        &mut self,
        referrer: LegId,
        (id, number): (CallId, LegNumber),
        other: LegId,
    ) -> Option<()> {
        let (wanting, place) = self.legs.get(&other).cloned()?;
        let (peer, remote_uri) = self.calls.get(&id)?.call.peer_of(number)?;
        let lent = self.lendable(&id, peer).filter(|_| wanting != id)?;
        let entry = self.calls.get_mut(&wanting)?;
        let cause = Cause::AttendedTransfer;
        let borrowed = entry.call.borrow_leg(now(), Some(place), remote_uri, cause, None).ok()?;
        info!(call_id = %wanting, other_call_id = %id, "attended transfer");
        self.user_agent.accept_refer(Instant::now(), referrer);
        self.lend(lent, (wanting, borrowed), Some(referrer));
        Some(())
    }

    /// The user agent's leg, if it is one and no other call wants it already.
    fn lendable(&self, id: &CallId, number: LegNumber) -> Option<LegId> {
        match self.calls.get(id)?.legs.get(&number)? {
            Slot::Live(leg) if !self.borrowed.contains_key(leg) => Some(*leg),
            _ => None,
        }
    }

    fn lend(&mut self, leg: LegId, by: (CallId, LegNumber), referrer: Option<LegId>) {
        if let Some(entry) = self.calls.get_mut(&by.0) {
            entry.legs.insert(by.1, Slot::Borrowed(leg));
        }
        self.mark(by.0.clone());
        self.borrowed.insert(leg, Borrowed { by, referrer });
    }

    /// Lets the legs of two calls talk; the answer comes when they do.
    pub(crate) fn bridge(
        &mut self,
        bridge: &Bridge,
        reply: oneshot::Sender<Result<Answered, Unmet>>,
    ) {
        let ids = (self.calls.id_of(&bridge.call_id), self.calls.id_of(&bridge.other_call_id));
        let (Some(id), Some(other)) = ids else {
            return drop(reply.send(Err(Unmet::NoSuchCall)));
        };
        let kept = self.calls.get(&id).and_then(|entry| entry.call.leg_at(bridge.side));
        let lent = self.calls.get(&other).and_then(|entry| entry.call.leg_at(bridge.other_side));
        let lent = lent.filter(|_| id != other);
        let leg = lent.as_ref().and_then(|(number, _)| self.lendable(&other, *number));
        let (Some((kept, _)), Some((_, remote_uri)), Some(leg)) = (kept, lent, leg) else {
            return drop(reply.send(Err(Unmet::Refused(Refusal::NotAnsweredYet))));
        };
        let request = self.admit(reply);
        let Some(entry) = self.calls.get_mut(&id) else { return };
        let place = entry.call.peer_of(kept).map(|(number, _)| number);
        let cause = Cause::Bowout;
        match entry.call.borrow_leg(now(), place, remote_uri, cause, Some(request)) {
            Ok(number) => self.lend(leg, (id, number), None),
            Err(refusal) => self.answer_waiting(&id, request, Err(refusal)),
        }
    }

    /// An INVITE wants the place of a leg of ours.
    pub(crate) fn pick_up(&mut self, leg: LegId, place: LegId, invite: Invited) {
        let Some((id, place)) = self.legs.get(&place).cloned() else {
            return self.refuse_invite(leg, 481, "replaces");
        };
        let Some(entry) = self.calls.get_mut(&id) else { return };
        match entry.call.replace(now(), place, invite.from_uri, invite.sdp) {
            Ok(number) => {
                info!(call_id = %id, sip_call_id = invite.call_id, "a leg wants another's place");
                entry.legs.insert(number, Slot::Live(leg));
                entry.name_leg(number, invite.call_id);
                self.legs.insert(leg, (id.clone(), number));
                self.mark(id);
            }
            Err(_) => self.refuse_invite(leg, 603, "replaces"),
        }
    }

    /// Offers in the dialog of a leg that the call has borrowed.
    pub(crate) fn offer_borrowed(&mut self, leg: LegId, sdp: Bytes) {
        if !self.user_agent.reinvite(Instant::now(), leg, sdp) {
            self.tell_borrower(leg, LegSignal::Ended(rejected(491)));
        }
    }

    /// Tells the call that wants a leg, if one does. Once it hears an end, it does not want it any
    /// more, and the leg stays where it was.
    pub(crate) fn tell_borrower(&mut self, leg: LegId, signal: LegSignal) {
        let Some(Borrowed { by: (id, number), .. }) = self.borrowed.get(&leg) else { return };
        let (id, number) = (id.clone(), *number);
        if let LegSignal::Ended(end) = &signal {
            let status = if let LegEnd::Rejected { status, .. } = end { *status } else { 480 };
            self.give_back(leg, status);
        }
        self.feed(&id, Input::Leg { leg: number, signal });
    }

    /// The call does not want the leg any more.
    pub(crate) fn give_back(&mut self, leg: LegId, status: u16) {
        let Some(Borrowed { by: (id, number), referrer }) = self.borrowed.remove(&leg) else {
            return;
        };
        if let Some(entry) = self.calls.get_mut(&id) {
            entry.legs.remove(&number);
        }
        if let Some(referrer) = referrer {
            self.user_agent.notify_refer(Instant::now(), referrer, status);
        }
    }

    /// The leg is the borrower's now; the call that had it is over.
    pub(crate) fn take(&mut self, leg: LegId) {
        let Some(Borrowed { by: (id, number), referrer }) = self.borrowed.remove(&leg) else {
            return;
        };
        let sip_call_id = self.user_agent.call_id(leg).unwrap_or_default().to_owned();
        if let Some(entry) = self.calls.get_mut(&id) {
            entry.legs.insert(number, Slot::Live(leg));
            entry.name_leg(number, sip_call_id);
        }
        if let Some(referrer) = referrer {
            self.user_agent.notify_refer(Instant::now(), referrer, 200);
        }
        let Some((old, old_number)) = self.legs.insert(leg, (id, number)) else { return };
        if let Some(entry) = self.calls.get_mut(&old) {
            entry.legs.remove(&old_number);
        }
        let cause = Cause::AttendedTransfer;
        self.feed(&old, Input::LegTaken { leg: old_number, cause });
    }
}

pub(crate) fn rejected(status: u16) -> LegEnd {
    LegEnd::Rejected { status, reason: None }
}
