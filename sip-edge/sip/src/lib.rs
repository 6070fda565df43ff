//! SIP without IO: messages, transactions, dialogs, digest and registrar behind one [`UserAgent`].
//!
//! The shell owns one [`UserAgent`] value. It hands in whole messages ([`Framer`] cuts them out of
//! a TCP stream) and the clock, and drains [`UserAgent::poll_output`] after every input. Nothing
//! here opens a socket, reads a clock or knows what a call or an SDP body is: legs are dialogs,
//! bodies are bytes. RFC 3261 with RFC 6026, 3581, 3326, 8760,
//! 3262, 3311, 4028, 3515, 4488 and 3891; see docs/RFC.md for what is left
//! out and why.

mod advertised;
mod body;
mod client_digest;
mod compose;
mod deadlines;
mod dialog;
mod digest;
mod envelope;
mod framer;
mod header;
mod message;
mod method;
mod name_addr;
mod param;
mod peer;
mod registrar;
mod replaces;
mod session_timer;
mod tokens;
mod transaction;
mod uri;
mod user_agent;
mod via;

pub use advertised::{Advertised, Listening};
pub use client_digest::Credentials;
pub use digest::Algorithm;
pub use envelope::{Defect, Envelope};
pub use framer::{Frame, FrameError, Framer, MAX_HEAD_BYTES, PONG};
pub use header::{Headers, MAX_HEADERS, Name};
pub use message::{MAX_MESSAGE_BYTES, Message, ParseError, Request, Response};
pub use method::Method;
pub use name_addr::NameAddr;
pub use param::Params;
pub use peer::{Listener, Peer, Transport};
pub use registrar::{Binding, Instance};
pub use replaces::{ReferTo, Replaces};
pub use uri::{HostPort, SipUri, UriError};
pub use user_agent::{
    AlreadyHere, Config, Contact, End, Event, Hangup, InviteError, Invited, LegId, LegSnapshot,
    MAX_FORWARDS, OutboundInvite, OutboundRefer, OutboundRegistration, Output, Referred,
    RegisterError, RegistrantId, RegistrantState, Registration, Rejection, Suspicion, UserAgent,
};
pub use via::Via;
