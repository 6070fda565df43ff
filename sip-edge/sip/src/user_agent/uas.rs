//! Requests to us: which transaction and dialog they belong to, and new calls (RFC 3261 §8.2, §13.3).

use super::leg::{Incoming, Leg, State};
use super::refer;
use super::reliable::Reliability;
use super::{End, Event, Invited, LegId, MAX_FORWARDS, Rejection, Suspicion, UserAgent};
use crate::body;
use crate::compose::{self, Composer};
use crate::dialog::{Dialog, MAX_ROUTES};
use crate::digest::Proof;
use crate::envelope::{Defect, Envelope};
use crate::header::{Headers, Name};
use crate::message::Request;
use crate::method::{Method, OPTIONS};
use crate::name_addr::NameAddr;
use crate::param;
use crate::peer::{Peer, Transport};
use crate::replaces::Replaces;
use crate::transaction::{Key, Match, TheirRequest};
use crate::via::Via;
use bytes::Bytes;
use std::fmt::Display;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

/// How often a provisional response is repeated, so that proxies keep waiting (§13.3.1.1).
pub(super) const REFRESH_PROVISIONAL: Duration = Duration::from_secs(60);

impl UserAgent {
    pub(super) fn receive_request(
        &mut self,
        now: Instant,
        wall_unix_s: u64,
        source: Peer,
        request: Request,
    ) {
        let held = request.clone(); // Shares the bytes; the envelope borrows from this one.
        let envelope = match Envelope::of_request(&held) {
            Ok(envelope) => envelope,
            Err(defect) => return self.refuse_defect(source, &request, defect),
        };
        let key = Key::server(&request, &envelope);
        let method = request.method;
        match self.transactions.receive_request(now, &key, method, &mut self.outputs) {
            Match::Absorbed => return,
            Match::New | Match::PassedUp if method == Method::Ack => {
                return self.receive_ack(now, source, &request, &envelope);
            }
            Match::New | Match::PassedUp => (),
        }
        if let Some(alias) = envelope.via.alias(source) {
            self.outputs.push_back(super::Output::Alias { peer: source, alias });
        }
        let peer = envelope.via.response_peer(source);
        let mut registering = String::new();
        if method == Method::Register {
            match self.registering_user(wall_unix_s, source, peer, &request) {
                Some(user) => registering = user,
                None => return,
            }
        }
        let is_merged = method != Method::Cancel && self.transactions.is_merged(&envelope);
        let (is_known, bytes) = (self.is_known(&request, &envelope), request.len());
        let theirs = TheirRequest { key, method, envelope: &envelope, peer, is_known, bytes };
        let Ok(tx) = self.transactions.open_server(theirs) else {
            return self.refuse_for_want_of_room(source, peer, &request);
        };
        let incoming = Incoming { tx, request, source };
        if is_merged {
            return self.refuse(now, &incoming, 482);
        }
        match (method, envelope.to.tag()) {
            (Method::Cancel, _) => self.receive_cancel(now, &incoming, &envelope),
            (Method::Register, _) => {
                self.receive_register(now, wall_unix_s, &incoming, &envelope, registering);
            }
            (Method::Invite, None) => self.receive_invite(now, wall_unix_s, incoming, &envelope),
            (Method::Options, None) if self.draining => self.answer_that_we_drain(now, &incoming),
            (Method::Options, None) => self.answer_options(now, &incoming),
            (Method::Unknown, _) => self.refuse(now, &incoming, 501),
            (Method::Foreign, _) => self.refuse(now, &incoming, 405),
            (_, Some(tag)) => self.receive_in_dialog(now, incoming, &envelope, tag),
            (Method::Refer, None) => {
                self.refuse_because(now, &incoming, 403, "REFER Is Taken Inside a Dialog Only");
            }
            _ => self.refuse(now, &incoming, 481),
        }
    }

    /// Whether a request belongs to a leg or INVITE that we have.
    fn is_known(&self, request: &Request, envelope: &Envelope<'_>) -> bool {
        let invite = || self.transactions.find(&Key::cancelled(request, envelope));
        match envelope.to.tag() {
            Some(tag) => self.by_tag.contains_key(tag),
            None => request.method == Method::Cancel && invite().is_some(),
        }
    }

    fn refuse_for_want_of_room(&mut self, source: Peer, peer: Peer, request: &Request) {
        self.discard("transactions_full");
        let retry_after_s = self.config.retry_after_s;
        self.respond_stateless(source, peer, request, 503, "Overloaded", |response| {
            response.header("Retry-After", retry_after_s);
        });
    }

    /// A request that is no proper one is answered without a transaction; to its source, if its
    /// Via says no better.
    fn refuse_defect(&mut self, source: Peer, request: &Request, defect: Defect) {
        self.judge(source, Suspicion::Malformed);
        self.discard("malformed_request");
        if request.headers.count(Name::Via) == 0 {
            return;
        }
        let via = request.headers.get(Name::Via).and_then(Via::parse);
        let peer = via.map_or(source, |via| via.response_peer(source));
        let (status, phrase) = (defect.status(), defect.to_string());
        self.respond_stateless(source, peer, request, status, &phrase, |_| ());
    }

    /// The same request gets the same To tag each time (RFC 3261 §8.2.7).
    pub(super) fn respond_stateless(
        &mut self,
        source: Peer,
        peer: Peer,
        request: &Request,
        status: u16,
        phrase: &str,
        add: impl FnOnce(&mut Composer),
    ) {
        if request.method == Method::Ack {
            return;
        }
        let mut hasher = DefaultHasher::new();
        let (via, call_id) = (request.headers.get(Name::Via), request.headers.get(Name::CallId));
        (via, call_id, self.stateless_salt).hash(&mut hasher);
        let tag = format!("{:016x}", hasher.finish());
        let mut response = Composer::respond(request, source.addr, status, phrase, Some(&tag));
        response.header("Server", &self.config.user_agent);
        add(&mut response);
        let bytes = response.empty();
        self.outputs.push_back(super::Output::Send { peer, bytes });
    }

    fn receive_cancel(&mut self, now: Instant, cancel: &Incoming, envelope: &Envelope<'_>) {
        let invite = self.transactions.find(&Key::cancelled(&cancel.request, envelope));
        let Some(invite) = invite else { return self.refuse(now, cancel, 481) };
        let leg = self.transactions.leg(invite).and_then(|leg| self.legs.get(&leg));
        let tag = leg.map(|leg| leg.dialog.local_tag.clone());
        // One that is answered finally is not pending: the CANCEL has no effect (RFC 3261 §9.2).
        let leg = leg.filter(|leg| leg.pending.as_ref().is_some_and(|it| it.tx == invite));
        let leg = leg.map(|leg| (leg.id, leg.state.clone()));
        let tag = tag.unwrap_or_else(|| self.tokens.tag());
        let response = self.compose(cancel, 200, Some(&tag));
        self.send(now, cancel, 200, response.empty());
        if let Some((id, state)) = leg {
            self.finish_pending(now, id, 487, |_| ());
            if state == State::Invited {
                self.end(id, End::Cancelled { reason: reason(&cancel.request) });
            }
        }
    }

    fn receive_invite(
        &mut self,
        now: Instant,
        wall_unix_s: u64,
        incoming: Incoming,
        envelope: &Envelope<'_>,
    ) {
        let request = &incoming.request;
        let hops = request.headers.get(Name::MaxForwards).and_then(|text| text.parse().ok());
        let max_forwards = hops.unwrap_or(MAX_FORWARDS);
        let routes = request.headers.all(Name::RecordRoute);
        if max_forwards == 0 {
            return self.refuse(now, &incoming, 483);
        }
        if routes.flat_map(|text| param::split(text, b',')).count() > MAX_ROUTES {
            let why = format!("Over {MAX_ROUTES} Record-Route Values");
            return self.refuse_because(now, &incoming, 400, why);
        }
        if self.refuse_extensions(now, &incoming) {
            return;
        }
        let Ok(sdp) = body::sdp(&request.headers, &request.body) else {
            return self.refuse(now, &incoming, 415);
        };
        if !body::is_sdp_accepted(&request.headers) {
            return self.refuse(now, &incoming, 406);
        }
        if self.legs.len() >= self.config.max_dialogs {
            return self.refuse(now, &incoming, 503);
        }
        if self.refuse_interval(now, &incoming) {
            return;
        }
        let request = &incoming.request;
        let replaces = match refer::replaces(&request.headers).and_then(|it| self.replaced(it)) {
            Ok(replaces) => replaces,
            Err(status) => return self.refuse(now, &incoming, status),
        };
        let values = request.headers.all(Name::Authorization);
        let proof = self.authenticator.verify(wall_unix_s, "INVITE", values);
        match proof {
            Proof::Valid(_) => self.judge(incoming.source, Suspicion::Proven),
            Proof::Wrong => self.judge(incoming.source, Suspicion::WrongProof),
            Proof::Absent | Proof::Stale => (),
        }
        let id = self.next_leg_id();
        let invite = invited(&incoming, envelope, sdp, max_forwards, &proof);
        let invite = Invited { replaces, ..invite };
        let tag = self.tokens.tag();
        let peer = incoming.source;
        let dialog = Dialog::of_invite(&incoming.request, envelope, tag, peer);
        self.transactions.set_leg(incoming.tx, id);
        let trying = self.compose(&incoming, 100, None).empty();
        self.send(now, &incoming, 100, trying);
        let is_stale = proof == Proof::Stale;
        let leg = Leg { pending: Some(incoming), is_stale, ..Leg::new(id, State::Invited, dialog) };
        self.insert(leg);
        self.tell(Event::Invited { leg: id, invite: Box::new(invite) });
    }

    /// The leg that an INVITE with Replaces is about; `Err` is the status that refuses it (RFC 3891
    /// §3): there is no such leg, or it is early and not ours to give, or confirmed and not to be.
    fn replaced(&self, replaces: Option<Replaces>) -> Result<Option<LegId>, u16> {
        let Some(replaces) = replaces else { return Ok(None) };
        let leg = self.leg_of(&replaces).and_then(|leg| self.legs.get(&leg)).ok_or(481_u16)?;
        match leg.state {
            State::Confirmed if replaces.early_only => Err(486),
            State::Confirmed => Ok(Some(leg.id)),
            State::Calling { .. } | State::Proceeding { .. } => Ok(Some(leg.id)),
            State::Invited => Err(481),
            State::CancelWaiting { .. } | State::Cancelling { .. } | State::Closing { .. } => {
                Err(603)
            }
        }
    }

    /// Whether the request wants an extension that we do not have (RFC 3261 §8.2.2.3).
    pub(super) fn refuse_extensions(&mut self, now: Instant, incoming: &Incoming) -> bool {
        let options = incoming.request.headers.all(Name::Require);
        let options = options.flat_map(|text| param::split(text, b',')).map(str::trim);
        let is_known = |option: &&str| OPTIONS.iter().any(|it| it.eq_ignore_ascii_case(option));
        let unknown: Vec<_> = options.filter(|it| !it.is_empty() && !is_known(it)).collect();
        let wanted = !unknown.is_empty();
        if wanted {
            let unknown = unknown.join(", ");
            let tag = self.tokens.tag();
            let mut response = self.compose(incoming, 420, Some(&tag));
            response.header("Unsupported", unknown);
            self.send(now, incoming, 420, response.empty());
        }
        wanted
    }

    /// From now on OPTIONS outside of dialogs is answered as INVITE would be (RFC 3261 §11.2), so that
    /// proxies send new calls elsewhere. What there is goes on.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    fn answer_that_we_drain(&mut self, now: Instant, incoming: &Incoming) {
        let tag = self.tokens.tag();
        let mut response = self.compose(incoming, 503, Some(&tag));
        response.header("Retry-After", self.config.retry_after_s);
        self.send(now, incoming, 503, response.empty());
    }

    pub(super) fn answer_options(&mut self, now: Instant, incoming: &Incoming) {
        if self.refuse_extensions(now, incoming) {
            return;
        }
        let tag = self.tokens.tag();
        let mut response = self.compose(incoming, 200, Some(&tag));
        response.allow().header("Accept", body::ACCEPT).supported();
        self.send(now, incoming, 200, response.empty());
    }

    /// Sends 180 or 183 to the pending INVITE; another status counts as 180.
    pub fn ring(&mut self, now: Instant, leg: LegId, status: u16, sdp: Option<Bytes>) {
        let status = if (101..=199).contains(&status) { status } else { 180 };
        let Some((incoming, tag)) = self.pending(leg) else { return };
        if incoming.request.method != Method::Invite {
            return; // An UPDATE is answered at once, or not at all.
        }
        let has_offer = !incoming.request.body.is_empty();
        // Without an offer there is nothing that a provisional response could answer.
        let sdp = sdp.filter(|_| has_offer);
        let headers = &incoming.request.headers;
        let reliability = Reliability::of(headers, has_offer, sdp.is_some());
        let contact = self.contact(incoming.source);
        let mut response = self.compose(&incoming, status, Some(&tag));
        record_route(&mut response, &incoming.request);
        response.header("Contact", contact).allow().supported();
        match reliability {
            Reliability::Plain => (),
            Reliability::Impossible => return,
            Reliability::Reliable => {
                if !self.number_reliably(leg, status, sdp.as_ref(), &mut response) {
                    return;
                }
            }
        }
        let has_sdp = sdp.is_some();
        let response = match sdp {
            Some(sdp) => response.sdp(&sdp),
            None => response.empty(),
        };
        self.send(now, &incoming, status, response.clone());
        if reliability == Reliability::Reliable {
            self.await_prack(now, leg, &incoming, response, has_sdp);
        }
        if let Some(leg) = self.legs.get_mut(&leg) {
            leg.refresh_at = Some(now + REFRESH_PROVISIONAL);
        }
        self.reschedule(leg);
    }

    /// Sends 200 to the pending INVITE or re-INVITE, and repeats it until its ACK comes. Nothing
    /// happens if none is pending, as after a CANCEL that crossed this order. A 200 waits until a
    /// reliable provisional response with the answer is acknowledged (RFC 3262 §3).
    pub fn answer(&mut self, now: Instant, leg: LegId, sdp: Bytes) {
        let Some((incoming, tag)) = self.pending(leg) else { return };
        if incoming.request.method == Method::Update {
            return self.answer_update(now, leg, &incoming, &sdp);
        }
        if self.defer_answer(leg, &sdp) {
            return;
        }
        let contact = self.contact(incoming.source);
        let mut response = self.compose(&incoming, 200, Some(&tag));
        record_route(&mut response, &incoming.request);
        response.header("Contact", contact).allow().supported();
        self.agree_as_uas(now, leg, &incoming.request.headers, &mut response);
        let response = response.sdp(&sdp);
        if let Some(leg) = self.legs.get_mut(&leg) {
            leg.local_sdp = sdp;
        }
        self.send(now, &incoming, 200, response.clone());
        self.await_ack(now, leg, &incoming, response);
    }

    /// Refuses the pending INVITE (the leg ends) or re-INVITE (the leg lives).
    pub fn reject(&mut self, now: Instant, leg: LegId, rejection: Rejection) {
        if self.pending(leg).is_none() {
            return;
        }
        let status = Some(rejection.status).filter(|it| (300..=699).contains(it)).unwrap_or(500);
        self.finish_pending(now, leg, status, |response| {
            let valid = |(name, value): &&(String, String)| {
                param::is_token(name)
                    && param::is_value(value)
                    && Name::of(name.as_bytes()).is_free()
            };
            for (name, value) in rejection.headers.iter().filter(valid) {
                response.header(name, value);
            }
        });
        if self.legs.get(&leg).is_some_and(|leg| leg.state == State::Invited) {
            self.end(leg, End::HungUp { bye_status: None });
        }
    }

    /// Sends 401 to the pending INVITE and ends the leg; the caller comes again with Authorization.
    pub fn challenge(&mut self, now: Instant, wall_unix_s: u64, leg: LegId) {
        let Some(is_stale) = self.legs.get(&leg).map(|leg| leg.is_stale) else { return };
        if self.legs[&leg].state != State::Invited {
            return;
        }
        if let Some(source) = self.legs[&leg].pending.as_ref().map(|it| it.source)
            && !is_stale
        {
            self.judge(source, Suspicion::Unproven);
        }
        let challenges = self.authenticator.challenge(wall_unix_s, is_stale);
        self.finish_pending(now, leg, 401, |response| {
            for challenge in &challenges {
                response.header("WWW-Authenticate", challenge);
            }
        });
        self.end(leg, End::HungUp { bye_status: None });
    }

    /// Sends a final response from 300 up to the pending INVITE or re-INVITE.
    pub(super) fn finish_pending(
        &mut self,
        now: Instant,
        leg: LegId,
        status: u16,
        add: impl FnOnce(&mut Composer),
    ) {
        let Some(leg) = self.legs.get_mut(&leg) else { return };
        let Some(incoming) = leg.pending.take() else { return };
        leg.refresh_at = None;
        leg.unpracked = None;
        let (id, tag) = (leg.id, leg.dialog.local_tag.clone());
        let mut response = self.compose(&incoming, status, Some(&tag));
        add(&mut response);
        self.send(now, &incoming, status, response.empty());
        self.reschedule(id);
    }

    fn pending(&self, leg: LegId) -> Option<(Incoming, String)> {
        let leg = self.legs.get(&leg)?;
        Some((leg.pending.clone()?, leg.dialog.local_tag.clone()))
    }

    /// A final response with what its status calls for (RFC 3261 §21).
    pub(super) fn refuse(&mut self, now: Instant, incoming: &Incoming, status: u16) {
        let tag = self.tokens.tag();
        let mut response = self.compose(incoming, status, Some(&tag));
        match status {
            405 | 501 => response.allow(),
            406 => response.header("Accept", body::ACCEPT),
            415 => response.header("Accept", body::ACCEPT).header("Accept-Encoding", "identity"),
            503 => response.header("Retry-After", self.config.retry_after_s),
            _ => &mut response,
        };
        self.send(now, incoming, status, response.empty());
    }

    /// A final response that says why in a Warning.
    pub(super) fn refuse_because(
        &mut self,
        now: Instant,
        incoming: &Incoming,
        status: u16,
        why: impl Display,
    ) {
        let tag = self.tokens.tag();
        let mut response = self.compose(incoming, status, Some(&tag));
        response.warning(why);
        self.send(now, incoming, status, response.empty());
    }

    /// The response up to what is particular to it.
    pub(super) fn compose(&self, to: &Incoming, status: u16, tag: Option<&str>) -> Composer {
        let phrase = compose::phrase(status);
        let mut response = Composer::respond(&to.request, to.source.addr, status, phrase, tag);
        response.header("Server", &self.config.user_agent);
        response
    }

    pub(super) fn send(&mut self, now: Instant, to: &Incoming, status: u16, response: Bytes) {
        self.transactions.respond(now, to.tx, status, response, &mut self.outputs);
    }

    /// The value of our Contact, for `peer`.
    pub(super) fn contact(&self, peer: Peer) -> String {
        let transport = match peer.transport {
            Transport::Udp => "",
            Transport::Tcp => ";transport=tcp",
            Transport::Tls => ";transport=tls",
        };
        format!("<sip:{}{transport}>", self.config.advertised.at(peer))
    }
}

fn invited(
    incoming: &Incoming,
    envelope: &Envelope<'_>,
    sdp: Option<Bytes>,
    max_forwards: u8,
    proof: &Proof,
) -> Invited {
    let headers = &incoming.request.headers;
    let contact = headers.get(Name::Contact).and_then(|text| NameAddr::list(text).next());
    Invited {
        source: incoming.source,
        request_uri: incoming.request.uri().to_owned(),
        from: headers.get(Name::From).unwrap_or_default().to_owned(),
        from_uri: envelope.from.uri.to_owned(),
        to_uri: envelope.to.uri.to_owned(),
        contact: contact.flatten().map(|contact| contact.uri.to_owned()),
        call_id: envelope.call_id.to_owned(),
        sdp,
        user: match proof {
            Proof::Valid(user) => Some(user.clone()),
            Proof::Absent | Proof::Stale | Proof::Wrong => None,
        },
        max_forwards,
        replaces: None,
        history: history(headers),
    }
}

/// Values of P-Asserted-Identity (RFC 3325), Diversion (RFC 5806) and History-Info (RFC 7044) that
/// are handed on.
const MAX_HISTORY: usize = 16;

fn history(headers: &Headers) -> Vec<(String, String)> {
    let names = [
        (Name::PAssertedIdentity, "P-Asserted-Identity"),
        (Name::Diversion, "Diversion"),
        (Name::HistoryInfo, "History-Info"),
    ];
    let fields = names.into_iter().flat_map(|(name, title)| {
        headers.all(name).map(move |value| (title.to_owned(), value.to_owned()))
    });
    fields.take(MAX_HISTORY).collect()
}

/// Copies Record-Route into a response that makes a dialog (RFC 3261 §12.1.1).
fn record_route(response: &mut Composer, request: &Request) {
    for value in request.headers.raw(Name::RecordRoute) {
        response.raw("Record-Route", value);
    }
}

/// The first Reason of a request (RFC 3326).
pub(super) fn reason(request: &Request) -> Option<String> {
    request.headers.get(Name::Reason).map(str::to_owned)
}
