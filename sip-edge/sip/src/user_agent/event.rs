//! What the user agent tells its transaction user, and what it wants done.

use super::{RegistrantId, RegistrantState};
use crate::{Credentials, Peer, ReferTo};
use bytes::Bytes;

/// One leg: a dialog of ours, or the INVITE that may become one. Never reused in a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LegId(pub(crate) u64);

impl LegId {
    /// A leg with this number, for tests of those who use this crate.
    pub fn from_u64(number: u64) -> Self {
        Self(number)
    }
}

/// What the shell does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send these bytes there, now.
    Send { peer: Peer, bytes: Bytes },
    /// `alias` is the address where the one behind the connection `peer` listens: what is meant
    /// for it goes over that connection, as long as it stands (RFC 5923).
    Alias { peer: Peer, alias: Peer },
    /// What a message of `source` says about it, for whoever defends us against floods and guesses.
    Judged { source: Peer, what: Suspicion },
    /// Tell the owner of the calls.
    Event(Event),
    /// A message was ignored; the text is a metric label.
    Discarded(&'static str),
}

/// What a message says about its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suspicion {
    /// It proved to know a password.
    Proven,
    /// It was asked who it is, and had not said so: every phone begins like that.
    Unproven,
    /// It named a user, and did not know the password.
    WrongProof,
    /// It sent what is no SIP message.
    Malformed,
    /// It called what does not exist; only the owner of the calls knows that.
    NoSuchPlace,
}

/// What has happened to a leg or a registration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A new INVITE; 100 is sent. Retransmissions, merged and malformed ones never come here.
    Invited { leg: LegId, invite: Box<Invited> },
    /// First ACK of our 2xx, to the initial INVITE or a re-INVITE; `sdp` answers an offer that our
    /// 2xx made.
    Acknowledged { leg: LegId, sdp: Option<Bytes> },
    /// 180, 183 or another 18x of our INVITE; 100 is not told.
    Ringing { leg: LegId, status: u16, sdp: Option<Bytes> },
    /// First 2xx of our INVITE; the ACK is sent already.
    Answered { leg: LegId, sdp: Option<Bytes> },
    /// re-INVITE or UPDATE with an offer; answer with `answer` or `reject`. No `sdp`: the offer is to
    /// be made in the 2xx. The 2xx to an UPDATE counts as acknowledged at once.
    Reinvited { leg: LegId, sdp: Option<Bytes> },
    /// 2xx of the re-INVITE that we were told to send; the ACK is sent already.
    Reanswered { leg: LegId, sdp: Option<Bytes> },
    /// Our re-INVITE was refused, with the status of that; the session goes on as it was.
    ReinviteFailed { leg: LegId, status: u16 },
    /// The remote has another Contact, without an offer; nothing is to be answered.
    Moved { leg: LegId },
    /// REFER inside the dialog; answer with `accept_refer` or `reject_refer`.
    Referred { leg: LegId, refer: Referred },
    /// What became of our REFER: its own response (202 is good), then the status lines of what it
    /// asked for, until `is_over`. Nothing more is told once the leg has ended.
    ReferProgress { leg: LegId, status: u16, is_over: bool },
    /// INFO inside the dialog; 200 is sent already.
    Info { leg: LegId, content_type: String, body: Bytes },
    /// The leg is over: exactly once, the last event of the leg.
    Ended { leg: LegId, end: End },
    /// A REGISTER changed the bindings of `user`, who has `contacts` of them now.
    Registered { user: String, contacts: usize },
    /// What a registration of ours has come to.
    Registrant { registrant: RegistrantId, state: RegistrantState },
}

/// How a leg ended. `reason` is a Reason header value as received (RFC 3326).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The peer sent BYE.
    Bye { reason: Option<String> },
    /// The caller cancelled before we answered; 200 and 487 are sent.
    Cancelled { reason: Option<String> },
    /// Our INVITE got a final response from 300 up, or a challenge.
    Rejected { status: u16, phrase: String, reason: Option<String>, retry_after_s: Option<u32> },
    /// Timer B or F; nobody acknowledged our 2xx, or our reliable provisional response, for 64·T1;
    /// or the session was not refreshed in time (RFC 4028 §10).
    TimedOut,
    /// The connection was lost or refused.
    TransportFailed,
    /// Our own hangup is done; `bye_status` is the BYE's final response, `None` if none came or no
    /// BYE was needed.
    HungUp { bye_status: Option<u16> },
}

/// A new call towards us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invited {
    pub source: Peer,
    pub request_uri: String,
    /// The whole From header value.
    pub from: String,
    pub from_uri: String,
    pub to_uri: String,
    /// URI of the Contact.
    pub contact: Option<String>,
    pub call_id: String,
    /// `None` is a late offer: the answerer offers in its 2xx.
    pub sdp: Option<Bytes>,
    /// Who the caller proved to be by a valid Authorization.
    pub user: Option<String>,
    pub max_forwards: u8,
    /// The leg that this INVITE takes the place of (RFC 3891): end it once this one is confirmed.
    pub replaces: Option<LegId>,
    /// P-Asserted-Identity, Diversion and History-Info as they came, for the other leg.
    pub history: Vec<(String, String)>,
}

/// A REFER of the remote (RFC 3515).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Referred {
    pub to: ReferTo,
    /// Our own leg that the Replaces of `to` names: the remote wants both others connected.
    pub replaced: Option<LegId>,
    /// Value of Referred-By, for the INVITE that follows.
    pub referred_by: Option<String>,
}

/// A REFER from us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboundRefer {
    pub to: ReferTo,
    /// URI of Referred-By.
    pub referred_by: Option<String>,
    /// We do not want to hear what becomes of it (RFC 4488).
    pub is_quiet: bool,
}

/// Max-Forwards of an INVITE that follows from no other, or from one that has none (RFC 3261 §8.1.1.6).
pub const MAX_FORWARDS: u8 = 70;

/// A new call from us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboundInvite {
    /// Request-URI and To, `sip:…`.
    pub target: String,
    /// The resolved next hop.
    pub peer: Peer,
    pub from_uri: String,
    /// Display name in From; quoted and escaped here.
    pub from_display: Option<String>,
    /// Hops that the INVITE may still take; one less than the INVITE had that it follows from, so
    /// that a loop through us ends (RFC 3261 §16.6, RFC 7332).
    pub max_forwards: u8,
    pub sdp: Bytes,
    /// Further headers; names and values are checked.
    pub headers: Vec<(String, String)>,
    /// What a challenge (401, 407) of this INVITE, or within its dialog, is answered with.
    pub credentials: Option<Credentials>,
    /// If `peer` is one of UDP and the request is over 1,300 bytes, it goes by TCP (RFC 3261
    /// §18.1.1).
    pub tcp_if_large: bool,
}

/// How to end a leg.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hangup {
    /// Reason header value, such as `Q.850;cause=16;text="NORMAL_CLEARING"`.
    pub reason: Option<String>,
    /// Final response of a leg that we did not answer yet: 300 to 699, else 480 is taken.
    pub unanswered_status: u16,
}

/// A final response that refuses an INVITE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// 300 to 699; anything else becomes 500.
    pub status: u16,
    /// Such as Retry-After, Warning, Reason; those that are no valid header are left out.
    pub headers: Vec<(String, String)>,
}

/// Where a registered user is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contact {
    pub uri: String,
    /// Where its REGISTER came from.
    pub peer: Peer,
    /// Unix seconds.
    pub expires_unix_s: u64,
}

/// The bindings of one user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    pub user: String,
    /// Newest first, behind them those whose connection is gone.
    pub contacts: Vec<Contact>,
}

/// Why no INVITE was sent.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum InviteError {
    #[error("{field} {got:?} is no SIP URI: want sip:[user@]host[:port]")]
    Uri { field: &'static str, got: String },
    #[error("{name:?}: {value:?} is no header that can be added to an INVITE")]
    Header { name: String, value: String },
    #[error("{max} dialogs are the most at once: end some, or raise the limit")]
    Full { max: usize },
}
