//! Our registrations with other registrars: carriers (RFC 3261 §10.2).
//!
//! One registrant keeps one binding: it registers, proves who it is, registers again in time, and
//! after a failure waits longer each time (RFC 5626 §4.5).

use super::{Event, LegId, UserAgent};
use crate::client_digest::{Challenge, Credentials};
use crate::compose::Composer;
use crate::header::Name;
use crate::message::Response;
use crate::method::Method;
use crate::name_addr::NameAddr;
use crate::peer::Peer;
use crate::transaction::{Key, OurRequest, TxId};
use crate::uri::{SipUri, is_uri};
use crate::via;
use std::time::{Duration, Instant};

/// Registrations of ours at once.
const REGISTRANTS_MAX: usize = 1_000;
/// Longest interval that a 423 may ask for, in seconds.
const INTERVAL_MAX_S: u32 = 86_400;
/// First and longest wait after failures (RFC 5626 §4.5).
const WAIT_MIN: Duration = Duration::from_secs(30);
const WAIT_MAX: Duration = Duration::from_secs(1_800);

/// One registration of ours. Never reused in a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RegistrantId(LegId);

/// Whom to register with, and as whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboundRegistration {
    /// Request-URI: `sip:` and the registrar's domain.
    pub registrar: String,
    /// The address-of-record, for From and To.
    pub record: String,
    /// User part of our Contact.
    pub contact_user: String,
    /// The resolved next hop.
    pub peer: Peer,
    pub credentials: Option<Credentials>,
    /// What is asked for; the registrar decides.
    pub expires_s: u32,
}

/// What a registration of ours has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegistrantState {
    /// Held for so long, and renewed before.
    Registered { expires_s: u32 },
    /// Refused with this status; `None` if nobody answered, or could be reached. Tried again later.
    Failed { status: Option<u16> },
}

/// Why a registration is not begun.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum RegisterError {
    #[error("{field} {got:?} is no SIP URI: want sip:[user@]host[:port]")]
    Uri { field: &'static str, got: String },
    #[error("{max} registrations are the most at once", max = REGISTRANTS_MAX)]
    Full,
}

/// What the registrant waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Its next attempt.
    Waiting,
    Trying(TxId),
}

#[derive(Debug)]
pub(super) struct Registrant {
    order: OutboundRegistration,
    state: State,
    call_id: String,
    tag: String,
    cseq: u32,
    /// Answers of this attempt to challenges, and to 423.
    answers: u8,
    /// Failures in a row.
    failures: u32,
    due: Option<Instant>,
}

impl UserAgent {
    /// Begins to register, and goes on for ever; what comes of it are events.
    ///
    /// # Errors
    /// A URI that cannot stand in a message, or too many registrations.
    pub fn register(
        &mut self,
        now: Instant,
        order: OutboundRegistration,
    ) -> Result<RegistrantId, RegisterError> {
        for (field, got) in [("registrar", &order.registrar), ("record", &order.record)] {
            if !is_uri(got) || SipUri::parse(got).is_err() {
                return Err(RegisterError::Uri { field, got: got.clone() });
            }
        }
        if self.registrants.len() >= REGISTRANTS_MAX {
            return Err(RegisterError::Full);
        }
        let id = self.next_leg_id();
        let registrant = Registrant {
            order,
            state: State::Waiting,
            call_id: self.tokens.call_id(),
            tag: self.tokens.tag(),
            cseq: 0,
            answers: 0,
            failures: 0,
            due: None,
        };
        self.registrants.insert(id, registrant);
        self.send_register(now, id, None);
        Ok(RegistrantId(id))
    }

    /// The registrar is elsewhere now: the next attempt goes there; at once, if one is waited for
    /// after a failure and `at_once` says so.
    pub fn reroute(&mut self, now: Instant, id: RegistrantId, peer: Peer, at_once: bool) {
        let Some(registrant) = self.registrants.get_mut(&id.0) else { return };
        registrant.order.peer = peer;
        let failed = registrant.state == State::Waiting && registrant.failures > 0;
        if failed && at_once {
            self.send_register(now, id.0, None);
        }
    }

    fn send_register(&mut self, now: Instant, id: LegId, authorization: Option<(&str, &str)>) {
        let branch = self.tokens.branch();
        let advertised = &self.config.advertised;
        let Some(registrant) = self.registrants.get_mut(&id) else { return };
        if authorization.is_none() {
            registrant.answers = 0;
        }
        registrant.cseq += 1;
        let order = &registrant.order;
        let (record, peer) = (&order.record, order.peer);
        let transport = match peer.transport.is_reliable() {
            true => format!(";transport={}", peer.transport.name().to_ascii_lowercase()),
            false => String::new(),
        };
        let contact = format!("<sip:{}@{}{transport}>", order.contact_user, advertised.at(peer));
        let mut request = Composer::request("REGISTER", &order.registrar);
        request.header("Via", via::of_request(peer, advertised, &branch));
        request.header("Max-Forwards", 70);
        request.header("From", format_args!("<{record}>;tag={}", registrant.tag));
        request.header("To", format_args!("<{record}>"));
        request.header("Call-ID", &registrant.call_id);
        request.header("CSeq", format_args!("{} REGISTER", registrant.cseq));
        request.header("Contact", contact).header("Expires", order.expires_s);
        request.header("User-Agent", &self.config.user_agent).allow();
        if let Some((name, value)) = authorization {
            request.header(name, value);
        }
        let key = Key::client(&branch, "REGISTER");
        let bytes = request.empty();
        let request = OurRequest { key, method: Method::Register, peer, bytes, leg: Some(id) };
        let tx = self.transactions.open_client(now, request, &mut self.outputs);
        self.set_registrant(id, State::Trying(tx), None);
    }

    /// Whether this belongs to a registration of ours.
    pub(super) fn is_registrant(&self, id: LegId) -> bool {
        self.registrants.contains_key(&id)
    }

    pub(super) fn receive_register_response(
        &mut self,
        now: Instant,
        id: LegId,
        tx: TxId,
        response: &Response,
    ) {
        let state = self.registrants.get(&id).map(|registrant| registrant.state);
        match (state, response.status) {
            (Some(State::Trying(ours)), _) if ours != tx => (), // Of an attempt that is over.
            (_, 100..=199) => (),
            (Some(State::Trying(_)), 200..=299) => self.registered(now, id, response),
            (Some(State::Trying(_)), 401 | 407) => self.answer_registrar(now, id, response),
            (Some(State::Trying(_)), 423) => self.ask_for_longer(now, id, response),
            (Some(State::Trying(_)), status) => self.register_failed(now, id, Some(status)),
            _ => (), // Nothing is awaited.
        }
    }

    pub(super) fn register_transaction_failed(&mut self, now: Instant, id: LegId) {
        self.register_failed(now, id, None);
    }

    fn registered(&mut self, now: Instant, id: LegId, response: &Response) {
        let Some(registrant) = self.registrants.get_mut(&id) else { return };
        let expires_s = granted(response, &registrant.order);
        registrant.failures = 0;
        let due = now + renew_after(expires_s);
        self.set_registrant(id, State::Waiting, Some(due));
        self.tell_registrant(id, RegistrantState::Registered { expires_s });
    }

    /// A second challenge in a row means that the password is wrong, unless only the nonce was old.
    fn answer_registrar(&mut self, now: Instant, id: LegId, response: &Response) {
        let cnonce = format!("{:016x}", self.tokens.number());
        let (asks, name) = match response.status {
            407 => (Name::ProxyAuthenticate, "Proxy-Authorization"),
            _ => (Name::WwwAuthenticate, "Authorization"),
        };
        let Some(registrant) = self.registrants.get_mut(&id) else { return };
        let most = |challenge: &Challenge| if challenge.is_stale { 2 } else { 1 };
        let challenge = Challenge::choose(response.headers.all(asks));
        let challenge = challenge.filter(|it| registrant.answers < most(it));
        let uri = &registrant.order.registrar;
        match challenge.zip(registrant.order.credentials.as_ref()) {
            Some((challenge, credentials)) => {
                let value = challenge.answer(credentials, "REGISTER", uri, &cnonce);
                registrant.answers += 1;
                self.send_register(now, id, Some((name, &value)));
            }
            None => self.register_failed(now, id, Some(response.status)),
        }
    }

    fn ask_for_longer(&mut self, now: Instant, id: LegId, response: &Response) {
        let Some(registrant) = self.registrants.get_mut(&id) else { return };
        let least = response.headers.get(Name::MinExpires).and_then(|it| it.parse::<u32>().ok());
        let asked = registrant.order.expires_s;
        match least.filter(|least| (asked + 1..=INTERVAL_MAX_S).contains(least)) {
            Some(least) => {
                registrant.order.expires_s = least;
                self.send_register(now, id, None);
            }
            None => self.register_failed(now, id, Some(423)),
        }
    }

    fn register_failed(&mut self, now: Instant, id: LegId, status: Option<u16>) {
        let half = self.tokens.number() % 512;
        let Some(registrant) = self.registrants.get_mut(&id) else { return };
        let doubled = WAIT_MIN * 2_u32.saturating_pow(registrant.failures.min(8));
        registrant.failures = registrant.failures.saturating_add(1);
        // Half of it at random, so that all who failed together do not come again together.
        let wait = doubled.min(WAIT_MAX);
        let wait = wait / 2 + wait / 1024 * half as u32;
        self.set_registrant(id, State::Waiting, Some(now + wait));
        self.tell_registrant(id, RegistrantState::Failed { status });
    }

    pub(super) fn registrant_timed_out(&mut self, now: Instant, id: LegId) {
        self.send_register(now, id, None);
    }

    /// The connection is gone by which the registrar reaches us: the binding is made anew.
    pub(super) fn registrants_lost(&mut self, now: Instant, peer: Peer) {
        let held = |it: &Registrant| it.state == State::Waiting && it.failures == 0;
        let lost = self.registrants.iter().filter(|(_, it)| it.order.peer == peer && held(it));
        let lost: Vec<LegId> = lost.map(|(id, _)| *id).collect();
        for id in lost {
            self.register_failed(now, id, None);
        }
    }

    fn set_registrant(&mut self, id: LegId, state: State, due: Option<Instant>) {
        if let Some(registrant) = self.registrants.get_mut(&id) {
            registrant.state = state;
            let old = std::mem::replace(&mut registrant.due, due);
            self.registrant_deadlines.shift(id, old, due);
        }
    }

    fn tell_registrant(&mut self, id: LegId, state: RegistrantState) {
        self.tell(Event::Registrant { registrant: RegistrantId(id), state });
    }
}

/// Seconds that the registrar gives: with our Contact, else for all, else what we asked for.
fn granted(response: &Response, order: &OutboundRegistration) -> u32 {
    let ours = |contact: &NameAddr<'_>| {
        let user = SipUri::parse(contact.uri).ok().and_then(|uri| uri.user);
        user == Some(order.contact_user.as_str())
    };
    let contacts = response.headers.all(Name::Contact).flat_map(NameAddr::list).flatten();
    let own = contacts.filter(ours).find_map(|it| it.params.get("expires")?.parse().ok());
    let all = || response.headers.get(Name::Expires)?.parse().ok();
    own.or_else(all).unwrap_or(order.expires_s).min(INTERVAL_MAX_S)
}

/// Early enough for several attempts: at five sixths of the interval, and no more than once in 5 s.
fn renew_after(expires_s: u32) -> Duration {
    Duration::from_secs((u64::from(expires_s) * 5 / 6).max(5))
}
