//! Requests of ours and what comes back: INVITE, CANCEL, ACK (RFC 3261 §8.1, §9.1, §13.2).

use super::leg::{Leg, State};
use super::{End, Event, Hangup, InviteError, LegId, OutboundInvite, Output, UserAgent};
use crate::compose::{self, Composer};
use crate::dialog::Dialog;
use crate::envelope::Envelope;
use crate::header::Name;
use crate::message::{Message, Response};
use crate::method::Method;
use crate::param;
use crate::peer::{Peer, Transport};
use crate::transaction::{Key, OurRequest, TxId};
use crate::uri::{self, SipUri};
use crate::{body, via};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Instant;

/// A larger request goes by TCP, if nobody has said UDP: the path's MTU is not known (RFC 3261
/// §18.1.1).
const MAX_UDP_REQUEST_BYTES: usize = 1_300;

impl UserAgent {
    /// Sends an INVITE; what becomes of it comes as events of the returned leg.
    ///
    /// # Errors
    /// A URI or header that cannot stand in a message, or too many dialogs.
    pub fn invite(&mut self, now: Instant, invite: OutboundInvite) -> Result<LegId, InviteError> {
        check(&invite)?;
        if self.legs.len() >= self.config.max_dialogs {
            return Err(InviteError::Full { max: self.config.max_dialogs });
        }
        let branch = self.tokens.branch();
        let mut invite = invite;
        let mut bytes = self.compose_invite(&invite, &branch);
        let is_large = bytes.len() > MAX_UDP_REQUEST_BYTES && invite.tcp_if_large;
        if let Some(peer) = self.by_tcp(invite.peer).filter(|_| is_large) {
            invite.peer = peer;
            bytes = self.compose_invite(&invite, &branch);
        }
        let peer = invite.peer;
        let Some(dialog) = our_dialog(&bytes, peer) else {
            return Err(InviteError::Uri { field: "target", got: invite.target });
        };
        let id = self.next_leg_id();
        let key = Key::client(&branch, "INVITE");
        let method = Method::Invite;
        let request = OurRequest { key, method, peer, bytes, leg: Some(id) };
        let tx = self.transactions.open_client(now, request, &mut self.outputs);
        let credentials = invite.credentials.map(Arc::new);
        let local_sdp = Bytes::copy_from_slice(&invite.sdp);
        let leg = Leg::new(id, State::Calling { tx }, dialog);
        self.insert(Leg { credentials, local_sdp, ..leg });
        Ok(id)
    }

    /// The same address by TCP; `None` if it is no UDP peer, or we have no TCP.
    fn by_tcp(&self, peer: Peer) -> Option<Peer> {
        let tcp = Peer { transport: Transport::Tcp, ..peer };
        let tcp = self.config.advertised.towards(tcp, peer.listener);
        tcp.filter(|_| peer.transport == Transport::Udp)
    }

    fn compose_invite(&mut self, invite: &OutboundInvite, branch: &str) -> Bytes {
        let display = invite.from_display.as_ref().map(|name| param::quote(name) + " ");
        let from = format!(
            "{}<{}>;tag={}",
            display.unwrap_or_default(),
            invite.from_uri,
            self.tokens.tag()
        );
        let via = via::of_request(invite.peer, &self.config.advertised, branch);
        let mut request = Composer::request("INVITE", &invite.target);
        request.header("Via", via).header("Max-Forwards", invite.max_forwards);
        request.header("From", from).header("To", format_args!("<{}>", invite.target));
        request.header("Call-ID", self.tokens.call_id()).header("CSeq", "1 INVITE");
        request.header("Contact", self.contact(invite.peer)).allow().supported();
        request.header("Accept", body::ACCEPT);
        if let Some(interval) = self.wish().interval {
            request.header("Session-Expires", interval.as_secs());
            request.header("Min-SE", self.config.min_session_interval.as_secs());
        }
        request.header("User-Agent", &self.config.user_agent);
        for (name, value) in &invite.headers {
            request.header(name, value);
        }
        request.sdp(&invite.sdp)
    }

    pub(super) fn receive_response(&mut self, now: Instant, source: Peer, response: &Response) {
        let Ok(envelope) = Envelope::of_response(response) else {
            return self.discard("malformed_response");
        };
        if !self.config.advertised.is_ours(&envelope.via.sent_by) {
            return self.discard("foreign_via"); // RFC 3261 §18.1.2
        }
        let key = Key::client(envelope.via.branch().unwrap_or_default(), envelope.cseq_method);
        let Some(tx) = self.transactions.find(&key) else {
            return self.discard("stray_response");
        };
        // The transaction may be over after this, and what it asked is needed to ask again.
        let request = self.transactions.request(tx);
        let tx = self.transactions.receive_response(now, &key, response, &mut self.outputs);
        let Some((tx, leg)) = tx else { return }; // A retransmission, absorbed.
        if self.prove_or_lengthen(now, leg, request, response) {
            return;
        }
        if response.status / 100 == 2
            && let Some(leg) = leg.and_then(|id| self.legs.get_mut(&id))
        {
            leg.challenges = 0; // It believed us: some challenge each request.
        }
        match (envelope.cseq_method, leg) {
            ("INVITE", _) => {
                self.receive_invite_response(now, tx, leg, source, response, &envelope)
            }
            ("REGISTER", Some(id)) => self.receive_register_response(now, id, tx, response),
            ("BYE", Some(leg)) if response.status >= 200 => {
                self.end(leg, End::HungUp { bye_status: Some(response.status) });
            }
            ("UPDATE", Some(leg)) if response.status >= 200 => {
                self.update_answered(now, leg, response);
            }
            ("REFER", Some(leg)) if response.status >= 200 => self.refer_answered(leg, response),
            ("NOTIFY", Some(leg)) => self.notify_answered(leg, response.status),
            _ => (), // 1xx, any of CANCEL and PRACK: the INVITE's own response decides.
        }
    }

    fn receive_invite_response(
        &mut self,
        now: Instant,
        tx: TxId,
        leg: Option<LegId>,
        source: Peer,
        response: &Response,
        envelope: &Envelope<'_>,
    ) {
        if let Some(id) = leg.filter(|_| self.is_reinvite(leg, tx) && response.status >= 300) {
            return self.reinvite_refused(now, id, response);
        }
        let leg = leg.and_then(|leg| self.legs.get(&leg));
        let state = leg.map(|leg| (leg.id, leg.state.clone()));
        match (state, response.status) {
            (_, 200..=299) => self.receive_2xx(now, tx, source, response, envelope),
            // A person may let a first INVITE ring; a dialog that stands has no reason to wait long.
            (_, 100..=199) if self.is_in_dialog(tx) => {
                self.transactions.limit(now, tx, &mut self.outputs);
            }
            (Some((id, State::Calling { .. } | State::Proceeding { .. })), 100..=199) => {
                self.proceed(now, tx, id, source, response, envelope);
            }
            (Some((id, State::CancelWaiting { reason, .. })), 100..=199) => {
                self.cancel(now, tx, Some(id), reason);
            }
            (None, 100..=199) => self.cancel(now, tx, None, None),
            (Some((id, State::Calling { .. } | State::Proceeding { .. })), _) => {
                self.end(id, rejected(response));
            }
            (Some((id, State::CancelWaiting { .. } | State::Cancelling { .. })), 300..=699) => {
                self.end(id, End::HungUp { bye_status: None });
            }
            _ => (), // Of a branch that lost the race, or of a leg that is over.
        }
    }

    /// Whether a transaction is that of a re-INVITE.
    fn is_in_dialog(&self, tx: TxId) -> bool {
        let request = self.transactions.request(tx);
        let dialog = request.and_then(|(invite, peer)| our_dialog(&invite, peer));
        dialog.is_some_and(|dialog| dialog.remote_tag.is_some())
    }

    fn proceed(
        &mut self,
        now: Instant,
        tx: TxId,
        id: LegId,
        source: Peer,
        response: &Response,
        envelope: &Envelope<'_>,
    ) {
        if let Some(leg) = self.legs.get_mut(&id) {
            leg.state = State::Proceeding { tx };
            leg.dialog.peer = source;
        }
        let is_news = self.receive_early(now, tx, id, source, response, envelope);
        if is_news && (180..=189).contains(&response.status) {
            let sdp = body::sdp(&response.headers, &response.body).unwrap_or_default();
            self.tell(Event::Ringing { leg: id, status: response.status, sdp });
        }
    }

    /// Every 2xx is acknowledged; the first makes the dialog, each other one is ended again
    /// (RFC 3261 §13.2.2.4), as is one that crossed our CANCEL (§9.1).
    fn receive_2xx(
        &mut self,
        now: Instant,
        tx: TxId,
        source: Peer,
        response: &Response,
        envelope: &Envelope<'_>,
    ) {
        let to_tag = envelope.to.tag().unwrap_or_default();
        if let Some((peer, bytes)) = self.transactions.ack(tx, to_tag) {
            return self.outputs.push_back(Output::Send { peer, bytes });
        }
        let leg = self.transactions.leg(tx);
        if self.receive_reinvite_2xx(now, tx, leg, response, envelope) {
            return;
        }
        let early = leg.and_then(|leg| self.legs.get_mut(&leg)).and_then(|leg| {
            let at =
                leg.early.iter().position(|it| it.dialog.remote_tag.as_deref() == Some(to_tag));
            at.map(|at| leg.early.swap_remove(at).dialog)
        });
        let Some((invite, invite_peer)) = self.transactions.request(tx) else { return };
        let Some(mut dialog) = early.or_else(|| our_dialog(&invite, invite_peer)) else { return };
        dialog.confirm(response, envelope, source);
        let branch = self.tokens.branch();
        let (mut ack, peer) =
            dialog.request("ACK", envelope.cseq, &branch, &self.config.advertised);
        ack.header("User-Agent", &self.config.user_agent);
        let ack = ack.empty();
        if self.transactions.keep_ack(tx, to_tag, peer, ack.clone()).is_err() {
            return self.discard("too_many_forks");
        }
        self.outputs.push_back(Output::Send { peer, bytes: ack });
        let leg = self.transactions.leg(tx).and_then(|leg| self.legs.get_mut(&leg));
        match leg.map(|leg| (leg.id, leg.state.clone())) {
            Some((id, State::Calling { .. } | State::Proceeding { .. })) => {
                let sdp = body::sdp(&response.headers, &response.body).unwrap_or_default();
                self.confirm(id, dialog, State::Confirmed);
                self.agree_as_uac(now, id, &response.headers);
                self.tell(Event::Answered { leg: id, sdp });
            }
            Some((id, State::CancelWaiting { reason, .. } | State::Cancelling { reason })) => {
                self.send_bye(now, &mut dialog, reason.as_deref(), Some(id));
                self.confirm(id, dialog, State::Closing { reason });
            }
            _ => self.send_bye(now, &mut dialog, None, None),
        }
    }

    fn confirm(&mut self, id: LegId, dialog: Dialog, state: State) {
        if let Some(leg) = self.legs.get_mut(&id) {
            leg.dialog = dialog;
            leg.state = state;
            leg.early = Vec::new();
        }
        self.reschedule(id);
    }

    /// Ends the leg by what its state asks for: BYE, CANCEL or a final response. Idempotent.
    pub fn hangup(&mut self, now: Instant, leg: LegId, hangup: Hangup) {
        let Some(held) = self.legs.get_mut(&leg) else { return };
        let reason = hangup.reason.clone().filter(|reason| param::is_value(reason));
        match held.state.clone() {
            State::Invited => {
                let status = hangup.unanswered_status;
                let status = if (300..=699).contains(&status) { status } else { 480 };
                self.finish_pending(now, leg, status, |response| {
                    if let Some(reason) = reason {
                        response.header("Reason", reason);
                    }
                });
                self.end(leg, End::HungUp { bye_status: None });
            }
            State::Calling { tx } => held.state = State::CancelWaiting { tx, reason },
            State::Proceeding { tx } => self.cancel(now, tx, Some(leg), reason),
            State::Confirmed if held.unacked.as_ref().is_some_and(|it| it.is_initial) => {
                held.hangup.get_or_insert(hangup);
            }
            State::Confirmed => self.close(now, leg, reason),
            State::CancelWaiting { .. } | State::Cancelling { .. } | State::Closing { .. } => (),
        }
    }

    /// Sends CANCEL, once, of an INVITE that has a provisional response; of `leg`, unless that is
    /// over.
    pub(super) fn cancel(
        &mut self,
        now: Instant,
        tx: TxId,
        leg: Option<LegId>,
        reason: Option<String>,
    ) {
        if !self.transactions.limit(now, tx, &mut self.outputs) {
            return;
        }
        let Some((invite, peer)) = self.transactions.request(tx) else { return };
        let cancel = compose::cancel(&invite, reason.as_deref());
        let branch = branch_of(&invite);
        let (Some(cancel), Some(branch)) = (cancel, branch) else { return };
        let key = Key::client(&branch, "CANCEL");
        let method = Method::Cancel;
        let request = OurRequest { key, method, peer, bytes: cancel, leg };
        self.transactions.open_client(now, request, &mut self.outputs);
        if let Some(leg) = leg.and_then(|leg| self.legs.get_mut(&leg)) {
            leg.state = State::Cancelling { reason };
        }
    }

    /// Sends BYE; its outcome ends `leg`, if there is one.
    pub(super) fn send_bye(
        &mut self,
        now: Instant,
        dialog: &mut Dialog,
        reason: Option<&str>,
        leg: Option<LegId>,
    ) {
        let branch = self.tokens.branch();
        let cseq = dialog.next_cseq();
        let (mut bye, peer) = dialog.request("BYE", cseq, &branch, &self.config.advertised);
        bye.header("User-Agent", &self.config.user_agent);
        if let Some(reason) = reason {
            bye.header("Reason", reason);
        }
        let key = Key::client(&branch, "BYE");
        let method = Method::Bye;
        let request = OurRequest { key, method, peer, bytes: bye.empty(), leg };
        self.transactions.open_client(now, request, &mut self.outputs);
    }
}

fn check(invite: &OutboundInvite) -> Result<(), InviteError> {
    for (field, got) in [("target", &invite.target), ("from_uri", &invite.from_uri)] {
        if !uri::is_uri(got) || SipUri::parse(got).is_err() {
            return Err(InviteError::Uri { field, got: got.clone() });
        }
    }
    let valid = |name: &str, value: &str| {
        param::is_token(name) && param::is_value(value) && Name::of(name.as_bytes()).is_free()
    };
    match invite.headers.iter().find(|(name, value)| !valid(name, value)) {
        Some((name, value)) => {
            Err(InviteError::Header { name: name.clone(), value: value.clone() })
        }
        None => Ok(()),
    }
}

/// The dialog that an INVITE of ours may make, out of its bytes.
pub(super) fn our_dialog(invite: &Bytes, peer: Peer) -> Option<Dialog> {
    let Ok(Message::Request(request)) = Message::parse(invite.clone()) else { return None };
    let envelope = Envelope::of_request(&request).ok()?;
    Some(Dialog::of_our_invite(&request, &envelope, peer))
}

fn branch_of(invite: &Bytes) -> Option<String> {
    let Ok(Message::Request(request)) = Message::parse(invite.clone()) else { return None };
    let via = request.headers.get(Name::Via).and_then(via::Via::parse)?;
    via.branch().map(str::to_owned)
}

fn rejected(response: &Response) -> End {
    let retry_after = response.headers.get(Name::RetryAfter);
    let digits = |text: &str| {
        let end = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
        text[..end].parse().ok()
    };
    End::Rejected {
        status: response.status,
        phrase: response.phrase(),
        reason: response.headers.get(Name::Reason).map(str::to_owned),
        retry_after_s: retry_after.and_then(digits),
    }
}
