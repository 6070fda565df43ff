//! Requests inside a dialog, and its end (RFC 3261 §12.2.2, §13.3.1.4, §14.2, §15).

use super::leg::{Incoming, State, Unacked};
use super::uas::reason;
use super::{End, Event, LegId, UserAgent};
use crate::body;
use crate::envelope::Envelope;
use crate::header::Name;
use crate::message::Request;
use crate::method::Method;
use crate::param;
use crate::peer::Peer;
use bytes::Bytes;
use std::time::Instant;

impl UserAgent {
    pub(super) fn receive_in_dialog(
        &mut self,
        now: Instant,
        incoming: Incoming,
        envelope: &Envelope<'_>,
        local_tag: &str,
    ) {
        let leg = self.by_tag.get(local_tag).and_then(|leg| self.legs.get_mut(leg));
        let Some(leg) = leg.filter(|leg| leg.dialog.matches(envelope)) else {
            return self.refuse(now, &incoming, 481);
        };
        let dialog = leg.dialog_mut(envelope.from.tag());
        if let Err(out_of_order) = dialog.admit(envelope.cseq) {
            return self.refuse_because(now, &incoming, 500, out_of_order);
        }
        dialog.peer = incoming.source;
        let id = leg.id;
        match incoming.request.method {
            Method::Bye => self.receive_bye(now, id, &incoming),
            _ if matches!(leg.state, State::Closing { .. }) => self.refuse(now, &incoming, 481),
            Method::Invite => self.receive_reinvite(now, id, incoming),
            Method::Info => self.receive_info(now, id, &incoming),
            Method::Prack => self.receive_prack(now, id, &incoming),
            Method::Update => self.receive_update(now, id, incoming),
            Method::Refer => self.receive_refer(now, id, incoming),
            Method::Notify => self.receive_notify(now, id, &incoming),
            _ => self.answer_options(now, &incoming),
        }
    }

    /// BYE that crosses ours or our CANCEL is answered too, but the leg ends with the response to
    /// ours. One of a callee who has not answered, or whose 200 is overtaken, ends the leg; what
    /// still comes of the INVITE is cancelled or ended then.
    fn receive_bye(&mut self, now: Instant, id: LegId, bye: &Incoming) {
        let response = self.compose(bye, 200, None);
        self.send(now, bye, 200, response.empty());
        self.finish_pending(now, id, 487, |_| ());
        self.reject_refer(now, id, 487);
        let end = End::Bye { reason: reason(&bye.request) };
        match self.legs.get(&id).map(|leg| leg.state.clone()) {
            Some(State::Proceeding { tx }) => {
                self.cancel(now, tx, None, None);
                self.end(id, end);
            }
            Some(State::Invited | State::Calling { .. } | State::Confirmed) => self.end(id, end),
            _ => (),
        }
    }

    fn receive_info(&mut self, now: Instant, id: LegId, info: &Incoming) {
        if self.refuse_extensions(now, info) {
            return;
        }
        let response = self.compose(info, 200, None);
        self.send(now, info, 200, response.empty());
        let content_type = info.request.headers.get(Name::ContentType).unwrap_or_default();
        let (content_type, body) = (content_type.to_owned(), info.request.body.clone());
        self.tell(Event::Info { leg: id, content_type, body });
    }

    fn receive_reinvite(&mut self, now: Instant, id: LegId, incoming: Incoming) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        if leg.pending.is_some() {
            return self.refuse_for_a_while(now, &incoming);
        }
        let is_ours = leg.ours.as_ref().is_some_and(|ours| ours.tx.is_some());
        if leg.state != State::Confirmed || leg.unacked.is_some() || is_ours {
            return self.refuse(now, &incoming, 491); // RFC 5407 §3.1.4, RFC 3261 §14.2
        }
        if self.refuse_extensions(now, &incoming) || self.refuse_interval(now, &incoming) {
            return;
        }
        let Ok(sdp) = body::sdp(&incoming.request.headers, &incoming.request.body) else {
            return self.refuse(now, &incoming, 415);
        };
        self.transactions.set_leg(incoming.tx, id);
        let trying = self.compose(&incoming, 100, None).empty();
        self.send(now, &incoming, 100, trying);
        if let Some(leg) = self.legs.get_mut(&id) {
            leg.dialog.refresh_target(&incoming.request.headers);
            leg.pending = Some(incoming);
        }
        self.tell(Event::Reinvited { leg: id, sdp });
    }

    /// 500 with a Retry-After of 0 to 10 seconds (RFC 3261 §14.2).
    pub(super) fn refuse_for_a_while(&mut self, now: Instant, incoming: &Incoming) {
        let mut response = self.compose(incoming, 500, None);
        response.header("Retry-After", self.tokens.number() % 11);
        self.send(now, incoming, 500, response.empty());
    }

    /// Our 200 is out: the leg stands, and repeats it until its ACK.
    pub(super) fn await_ack(
        &mut self,
        now: Instant,
        id: LegId,
        incoming: &Incoming,
        response: Bytes,
    ) {
        let Ok(envelope) = Envelope::of_request(&incoming.request) else { return };
        let Some(leg) = self.legs.get_mut(&id) else { return };
        leg.unacked = Some(Unacked {
            cseq: envelope.cseq,
            peer: envelope.via.response_peer(incoming.source),
            response,
            is_initial: leg.state == State::Invited,
            interval: self.timing.t1,
            repeat_at: now + self.timing.t1,
            give_up_at: now + self.timing.timeout(),
        });
        leg.pending = None;
        leg.refresh_at = None;
        leg.state = State::Confirmed;
        self.reschedule(id);
    }

    pub(super) fn receive_ack(
        &mut self,
        now: Instant,
        source: Peer,
        ack: &Request,
        envelope: &Envelope<'_>,
    ) {
        let leg = envelope.to.tag().and_then(|tag| self.by_tag.get(tag));
        let leg = leg.and_then(|leg| self.legs.get_mut(leg));
        let Some(leg) = leg.filter(|leg| leg.dialog.matches(envelope)) else {
            return self.discard("stray_ack");
        };
        let Some(unacked) = leg.unacked.take_if(|unacked| unacked.cseq == envelope.cseq) else {
            return self.discard("repeated_ack");
        };
        leg.dialog.peer = source;
        let (id, hangup) = (leg.id, leg.hangup.take());
        self.reschedule(id);
        let sdp = body::sdp(&ack.headers, &ack.body).unwrap_or_default();
        self.tell(Event::Acknowledged { leg: id, sdp });
        if let Some(hangup) = hangup.filter(|_| unacked.is_initial) {
            self.close(now, id, hangup.reason.filter(|reason| param::is_value(reason)));
        }
    }

    /// Nobody acknowledged our 2xx for 64·T1 (RFC 3261 §13.3.1.4, §14.2).
    pub(super) fn never_acknowledged(&mut self, now: Instant, id: LegId) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        leg.unacked = None;
        if let Some(hangup) = leg.hangup.take() {
            return self.close(now, id, hangup.reason);
        }
        self.peer_is_gone(now, id);
    }

    /// Sends BYE in a confirmed dialog; a re-INVITE that waits is answered 487 first.
    pub(super) fn close(&mut self, now: Instant, id: LegId, reason: Option<String>) {
        self.finish_pending(now, id, 487, |_| ());
        self.reject_refer(now, id, 603);
        let Some(leg) = self.legs.get_mut(&id) else { return };
        (leg.unacked, leg.ours, leg.session) = (None, None, None);
        self.send_leg_bye(now, id, reason);
        self.reschedule(id);
    }

    /// The connection broke under our BYE: it goes another way, if there is one. False if there is
    /// none, and nothing more to do.
    pub(super) fn close_another_way(&mut self, now: Instant, id: LegId, broken: Peer) -> bool {
        let Some(leg) = self.legs.get(&id) else { return false };
        let State::Closing { reason } = leg.state.clone() else { return false };
        let other = self.turn_from(id, broken);
        if other {
            self.send_leg_bye(now, id, reason);
        }
        other
    }

    /// The connection `broken` is no way to the peer any more. Whether there is another: the address
    /// in the route set or Contact, or where its device has registered since.
    pub(super) fn turn_from(&mut self, id: LegId, broken: Peer) -> bool {
        let Some(leg) = self.legs.get_mut(&id) else { return false };
        if leg.dialog.abandon(broken) {
            return true;
        }
        let device = leg.dialog.remote_device();
        let contact = device.and_then(|(user, id)| self.registrar.lookup_instance(&user, id));
        contact.is_some_and(|contact| leg.dialog.follow(contact))
    }

    fn send_leg_bye(&mut self, now: Instant, id: LegId, reason: Option<String>) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let mut dialog = leg.dialog.clone();
        self.send_bye(now, &mut dialog, reason.as_deref(), Some(id));
        if let Some(leg) = self.legs.get_mut(&id) {
            leg.dialog = dialog;
            leg.state = State::Closing { reason };
        }
    }
}
