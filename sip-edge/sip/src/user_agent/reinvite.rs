//! re-INVITE of ours: a new offer of the TU, or a refresh of the session, with the glare of both
//! sides doing so at once (RFC 3261 §14.1).

use super::leg::State;
use super::uac;
use super::{Event, LegId, Output, UserAgent};
use crate::body;
use crate::envelope::Envelope;
use crate::message::Response;
use crate::method::Method;
use crate::peer::Peer;
use crate::transaction::{Key, OurRequest, TxId};
use bytes::Bytes;
use std::time::{Duration, Instant};

/// Attempts at one re-INVITE: against glare, or challenges, or while another one runs.
const MAX_ATTEMPTS: u8 = 40;

/// A re-INVITE of ours that has no final response yet.
#[derive(Clone, Debug)]
pub(super) struct OurReinvite {
    offer: Bytes,
    /// The TU does not know of it.
    is_refresh: bool,
    /// What the TU wants offered after the refresh that is under way.
    next: Option<Bytes>,
    /// `None` while it waits for its turn.
    pub(super) tx: Option<TxId>,
    /// When it is tried again.
    pub(super) at: Option<Instant>,
    attempts: u8,
}

impl OurReinvite {
    fn new(offer: Bytes, is_refresh: bool) -> Self {
        Self { offer, is_refresh, next: None, tx: None, at: None, attempts: 0 }
    }
}

impl UserAgent {
    /// Offers `sdp` in a dialog that stands; what comes of it is told as `Reanswered` or
    /// `ReinviteFailed`. A second one before that replaces the first if it is still waiting, and is
    /// refused otherwise. False if it is refused, or the leg does not stand.
    pub fn reinvite(&mut self, now: Instant, id: LegId, sdp: Bytes) -> bool {
        let Some(leg) = self.legs.get_mut(&id).filter(|leg| leg.state == State::Confirmed) else {
            return false;
        };
        match &mut leg.ours {
            Some(ours) if ours.tx.is_some() && ours.is_refresh => {
                ours.next = Some(sdp);
                true
            }
            Some(ours) if ours.tx.is_some() => false,
            _ => {
                leg.ours = Some(Box::new(OurReinvite::new(sdp, false)));
                self.send_reinvite(now, id);
                true
            }
        }
    }

    pub(super) fn refresh_by_reinvite(&mut self, now: Instant, id: LegId) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        if leg.ours.is_none() {
            leg.ours = Some(Box::new(OurReinvite::new(leg.local_sdp.clone(), true)));
            self.send_reinvite(now, id);
        } // Else the other one is a refresh as well.
    }

    /// Sends what waits for its turn; later, if an INVITE of theirs is under way.
    pub(super) fn send_reinvite(&mut self, now: Instant, id: LegId) {
        let branch = self.tokens.branch();
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let is_busy = leg.pending.is_some() || leg.unacked.is_some();
        let Some(ours) = leg.ours.as_deref_mut().filter(|_| leg.state == State::Confirmed) else {
            return;
        };
        ours.attempts += 1;
        if ours.attempts > MAX_ATTEMPTS {
            return self.reinvite_failed(now, id, 491);
        }
        if is_busy {
            ours.at = Some(now + self.timing.t2);
            return self.reschedule(id);
        }
        let offer = ours.offer.clone();
        let cseq = leg.dialog.next_cseq();
        let (mut invite, peer) =
            leg.dialog.request("INVITE", cseq, &branch, &self.config.advertised);
        invite.header("Contact", self.contact(peer)).allow().supported();
        invite.header("Accept", body::ACCEPT);
        self.ask_for_session(id, &mut invite);
        invite.header("User-Agent", &self.config.user_agent);
        let bytes = invite.sdp(&offer);
        self.open_reinvite(now, id, &branch, peer, bytes);
    }

    pub(super) fn open_reinvite(
        &mut self,
        now: Instant,
        id: LegId,
        branch: &str,
        peer: Peer,
        bytes: Bytes,
    ) {
        let key = Key::client(branch, "INVITE");
        let request = OurRequest { key, method: Method::Invite, peer, bytes, leg: Some(id) };
        let tx = self.transactions.open_client(now, request, &mut self.outputs);
        if let Some(ours) = self.legs.get_mut(&id).and_then(|leg| leg.ours.as_deref_mut()) {
            (ours.tx, ours.at) = (Some(tx), None);
        }
        self.reschedule(id);
    }

    /// The leg whose re-INVITE of ours this transaction is.
    pub(super) fn is_reinvite(&self, id: Option<LegId>, tx: TxId) -> bool {
        let leg = id.and_then(|id| self.legs.get(&id));
        leg.and_then(|leg| leg.ours.as_ref()).is_some_and(|ours| ours.tx == Some(tx))
    }

    /// Any 2xx to a re-INVITE of ours; false if it is one to a first INVITE. One whose leg has ended
    /// meanwhile is acknowledged all the same.
    pub(super) fn receive_reinvite_2xx(
        &mut self,
        now: Instant,
        tx: TxId,
        id: Option<LegId>,
        response: &Response,
        envelope: &Envelope<'_>,
    ) -> bool {
        let Some((invite, invite_peer)) = self.transactions.request(tx) else { return false };
        let Some(of_invite) = uac::our_dialog(&invite, invite_peer) else { return false };
        if of_invite.remote_tag.is_none() {
            return false;
        }
        let is_current = self.is_reinvite(id, tx);
        let leg = id.and_then(|id| self.legs.get_mut(&id));
        let mut dialog = leg.map_or(&of_invite, |leg| &leg.dialog).clone();
        dialog.refresh_target(&response.headers);
        let branch = self.tokens.branch();
        let (mut ack, peer) =
            dialog.request("ACK", envelope.cseq, &branch, &self.config.advertised);
        ack.header("User-Agent", &self.config.user_agent);
        let ack = ack.empty();
        let to_tag = envelope.to.tag().unwrap_or_default();
        if self.transactions.keep_ack(tx, to_tag, peer, ack.clone()).is_ok() {
            self.outputs.push_back(Output::Send { peer, bytes: ack });
        }
        if let Some(id) = id.filter(|_| is_current) {
            if let Some(leg) = self.legs.get_mut(&id) {
                let before = std::mem::replace(&mut leg.dialog, dialog);
                self.tell_of_move(id, before.remote_target());
            }
            let sdp = body::sdp(&response.headers, &response.body).unwrap_or_default();
            self.reinvite_answered(now, id, response, sdp);
        }
        true
    }

    fn reinvite_answered(
        &mut self,
        now: Instant,
        id: LegId,
        response: &Response,
        sdp: Option<Bytes>,
    ) {
        self.agree_as_uac(now, id, &response.headers);
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let Some(ours) = leg.ours.take() else { return };
        leg.local_sdp = ours.offer;
        self.reschedule(id);
        if !ours.is_refresh {
            self.tell(Event::Reanswered { leg: id, sdp });
        }
        if let Some(next) = ours.next {
            self.reinvite(now, id, next);
        }
    }

    /// A final response from 300 up to a re-INVITE of ours.
    pub(super) fn reinvite_refused(&mut self, now: Instant, id: LegId, response: &Response) {
        let status = response.status;
        let wait = self.glare_wait(id);
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let Some(ours) = leg.ours.as_deref_mut() else { return };
        ours.tx = None;
        match status {
            _ if leg.state != State::Confirmed => leg.ours = None,
            491 => {
                ours.at = Some(now + wait);
                self.reschedule(id);
            }
            422 => {
                self.refresh_refused(now, id, response);
                self.send_reinvite(now, id);
            }
            408 | 481 => self.peer_is_gone(now, id),
            _ => {
                if leg.is_refreshing {
                    self.refresh_refused(now, id, response);
                }
                self.reinvite_failed(now, id, status);
            }
        }
    }

    fn reinvite_failed(&mut self, now: Instant, id: LegId, status: u16) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let Some(ours) = leg.ours.take() else { return };
        self.reschedule(id);
        if !ours.is_refresh {
            self.tell(Event::ReinviteFailed { leg: id, status });
        }
        if let Some(next) = ours.next {
            self.reinvite(now, id, next);
        }
    }

    /// The turn of a re-INVITE that waited.
    pub(super) fn reinvite_is_due(&mut self, now: Instant, id: LegId) {
        if let Some(ours) = self.legs.get_mut(&id).and_then(|leg| leg.ours.as_deref_mut()) {
            ours.at = None;
            self.send_reinvite(now, id);
        }
    }

    /// 2.1 to 4 s for who made the Call-ID, 0 to 2 s for the other, in steps of 10 ms (§14.1).
    fn glare_wait(&mut self, id: LegId) -> Duration {
        let is_owner = self.legs.get(&id).is_some_and(|leg| leg.is_outbound);
        let ms = match is_owner {
            true => 2_100 + self.tokens.number() % 191 * 10,
            false => self.tokens.number() % 201 * 10,
        };
        Duration::from_millis(ms)
    }
}
