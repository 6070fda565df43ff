//! Which transaction a message belongs to (RFC 3261 §17.1.3, §17.2.3).

use crate::envelope::Envelope;
use crate::header::Name;
use crate::message::Request;
use crate::method::Method;

/// What every branch since RFC 3261 begins with.
const MAGIC: &str = "z9hG4bK";

/// What makes a message belong to a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key(Box<str>);

impl Key {
    /// Of a request from a peer: branch, sent-by and method, ACK being its INVITE's. Without the
    /// magic cookie, what RFC 2543 has instead.
    pub(crate) fn server(request: &Request, envelope: &Envelope<'_>) -> Self {
        let method = match request.method {
            Method::Ack => "INVITE",
            _ => request.method_name(),
        };
        Self::of_server(request, envelope, method)
    }

    /// Of the INVITE that this CANCEL is about (RFC 3261 §9.2).
    pub(crate) fn cancelled(request: &Request, envelope: &Envelope<'_>) -> Self {
        Self::of_server(request, envelope, "INVITE")
    }

    fn of_server(request: &Request, envelope: &Envelope<'_>, method: &str) -> Self {
        let text = match envelope.via.branch() {
            Some(branch) if branch.starts_with(MAGIC) && branch.len() > MAGIC.len() => {
                format!("s {branch} {} {method}", envelope.via.sent_by).to_ascii_lowercase()
            }
            _ => {
                let via = request.headers.get(Name::Via).unwrap_or_default();
                let tag = envelope.from.tag().unwrap_or_default();
                let (call_id, cseq) = (envelope.call_id, envelope.cseq);
                format!("2 {} {tag} {call_id} {cseq} {via} {method}", request.uri())
            }
        };
        Self(text.into())
    }

    /// Of a request of ours, and of its responses.
    pub(crate) fn client(branch: &str, method: &str) -> Self {
        Self(format!("c {branch} {method}").into())
    }

    /// The same request by another way (RFC 3261 §8.2.2.2).
    pub(super) fn merged(envelope: &Envelope<'_>) -> Option<Self> {
        if envelope.to.tag().is_some() {
            return None;
        }
        let tag = envelope.from.tag().unwrap_or_default();
        let (call_id, cseq, method) = (envelope.call_id, envelope.cseq, envelope.cseq_method);
        Some(Self(format!("m {tag} {call_id} {cseq} {method}").into()))
    }
}
