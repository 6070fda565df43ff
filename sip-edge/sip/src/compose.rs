//! Messages written as bytes: responses, and the requests that follow from others.

use crate::envelope::Envelope;
use crate::header::Name;
use crate::message::{Message, Request, Response};
use crate::method::{ALLOW, OPTIONS};
use crate::name_addr::NameAddr;
use crate::param;
use crate::via;
use bytes::Bytes;
use std::fmt::{self, Write as _};
use std::net::SocketAddr;

/// One message in the making. Line ends in values become blanks, so no value can add a header.
pub(crate) struct Composer {
    bytes: Vec<u8>,
}

impl Composer {
    pub(crate) fn request(method: &str, uri: &str) -> Self {
        let mut composer = Self { bytes: Vec::with_capacity(1024) };
        composer.put(method.as_bytes());
        composer.put(b" ");
        composer.put(uri.as_bytes());
        composer.bytes.extend_from_slice(b" SIP/2.0\r\n");
        composer
    }

    pub(crate) fn response(status: u16, phrase: &str) -> Self {
        let mut composer = Self { bytes: Vec::with_capacity(1024) };
        composer.bytes.extend_from_slice(format!("SIP/2.0 {status} ").as_bytes());
        composer.put(phrase.as_bytes());
        composer.bytes.extend_from_slice(b"\r\n");
        composer
    }

    /// A response with what is copied from its request: every Via (the first stamped with
    /// `source`), From, To (with `to_tag` if it has none), Call-ID, CSeq (RFC 3261 §8.2.6.2).
    pub(crate) fn respond(
        request: &Request,
        source: SocketAddr,
        status: u16,
        phrase: &str,
        to_tag: Option<&str>,
    ) -> Self {
        let mut composer = Self::response(status, phrase);
        for (index, value) in request.headers.raw(Name::Via).enumerate() {
            match index {
                0 => composer.raw("Via", &via::stamp(value, source)),
                _ => composer.raw("Via", value),
            };
        }
        for value in request.headers.raw(Name::From).take(1) {
            composer.raw("From", value);
        }
        let to = request.headers.get(Name::To).and_then(NameAddr::parse);
        let tagged = to.is_some_and(|to| to.tag().is_some());
        for value in request.headers.raw(Name::To).take(1) {
            match to_tag.filter(|_| !tagged) {
                Some(tag) => composer.raw("To", &[value, b";tag=", tag.as_bytes()].concat()),
                None => composer.raw("To", value),
            };
        }
        for (name, title) in [(Name::CallId, "Call-ID"), (Name::CSeq, "CSeq")] {
            for value in request.headers.raw(name).take(1) {
                composer.raw(title, value);
            }
        }
        composer
    }

    pub(crate) fn header(&mut self, name: &str, value: impl fmt::Display) -> &mut Self {
        let mut text = String::new();
        let _ = write!(text, "{value}"); // Writing to a String cannot fail.
        self.raw(name, text.as_bytes())
    }

    pub(crate) fn raw(&mut self, name: &str, value: &[u8]) -> &mut Self {
        self.put(name.as_bytes());
        self.bytes.extend_from_slice(b": ");
        self.put(value);
        self.bytes.extend_from_slice(b"\r\n");
        self
    }

    /// Why the status is what it is, in words for whoever reads a trace (RFC 3261 §20.43).
    pub(crate) fn warning(&mut self, text: impl fmt::Display) -> &mut Self {
        self.header("Warning", format_args!("399 holdfast {}", param::quote(&text.to_string())))
    }

    pub(crate) fn allow(&mut self) -> &mut Self {
        self.header("Allow", ALLOW)
    }

    pub(crate) fn supported(&mut self) -> &mut Self {
        self.header("Supported", OPTIONS.join(", "))
    }

    pub(crate) fn sdp(self, sdp: &[u8]) -> Bytes {
        self.body("application/sdp", sdp)
    }

    pub(crate) fn body(self, kind: &str, body: &[u8]) -> Bytes {
        let mut composer = self;
        composer.header("Content-Type", kind);
        composer.finish(body)
    }

    pub(crate) fn empty(self) -> Bytes {
        self.finish(b"")
    }

    fn finish(mut self, body: &[u8]) -> Bytes {
        self.header("Content-Length", body.len());
        self.bytes.extend_from_slice(b"\r\n");
        self.bytes.extend_from_slice(body);
        self.bytes.into()
    }

    fn put(&mut self, text: &[u8]) {
        let clean = |byte: &u8| if matches!(byte, b'\r' | b'\n') { b' ' } else { *byte };
        self.bytes.extend(text.iter().map(clean));
    }
}

/// ACK for a final response from 300 up to `invite`, our own message (RFC 3261 §17.1.1.3).
pub(crate) fn ack(invite: &Bytes, response: &Response) -> Option<Bytes> {
    let to = response.headers.raw(Name::To).next()?;
    Some(follow_up(invite, "ACK", Some(to))?.empty())
}

/// CANCEL of `invite`, our own message (RFC 3261 §9.1).
pub(crate) fn cancel(invite: &Bytes, reason: Option<&str>) -> Option<Bytes> {
    let mut cancel = follow_up(invite, "CANCEL", None)?;
    if let Some(reason) = reason {
        cancel.header("Reason", reason);
    }
    Some(cancel.empty())
}

/// `request`, our own message, once more as a new transaction of its dialog: another branch, the
/// next CSeq, and `changes` in place of the header fields of those names (RFC 3261 §8.1.3.5, §22.2).
pub(crate) fn again(
    request: &Bytes,
    branch: &str,
    cseq: u32,
    changes: &[(&str, String)],
) -> Option<Bytes> {
    let Ok(Message::Request(parsed)) = Message::parse(request.clone()) else { return None };
    let old = parsed.headers.get(Name::Via).and_then(via::Via::parse)?.branch()?.to_owned();
    let mut composer = Composer::request(parsed.method_name(), parsed.uri());
    let head = request.windows(4).position(|it| it == b"\r\n\r\n")?;
    let lines = std::str::from_utf8(&request[..head]).ok()?.split("\r\n").skip(1);
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        match name {
            "Via" => composer.header("Via", value.replace(&old, branch)),
            "CSeq" => composer.header("CSeq", format_args!("{cseq} {}", parsed.method_name())),
            "Content-Length" => &mut composer, // Written at the end.
            name if changes.iter().any(|(changed, _)| *changed == name) => &mut composer,
            name => composer.header(name, value),
        };
    }
    for (name, value) in changes {
        composer.header(name, value);
    }
    Some(composer.finish(&parsed.body))
}

fn follow_up(invite: &Bytes, method: &str, to: Option<&[u8]>) -> Option<Composer> {
    let Ok(Message::Request(request)) = Message::parse(invite.clone()) else { return None };
    let envelope = Envelope::of_request(&request).ok()?;
    let mut composer = Composer::request(method, request.uri());
    composer.raw("Via", request.headers.raw(Name::Via).next()?);
    composer.header("Max-Forwards", 70);
    for route in request.headers.raw(Name::Route) {
        composer.raw("Route", route);
    }
    composer.raw("From", request.headers.raw(Name::From).next()?);
    composer.raw("To", to.or(request.headers.raw(Name::To).next())?);
    composer.header("Call-ID", envelope.call_id);
    composer.header("CSeq", format_args!("{} {method}", envelope.cseq));
    Some(composer)
}

/// The reason phrase of a status code (RFC 3261 §21); the class's general one for others.
pub(crate) fn phrase(status: u16) -> &'static str {
    match status {
        100 => "Trying",
        180 => "Ringing",
        181 => "Call Is Being Forwarded",
        182 => "Queued",
        183 => "Session Progress",
        200 => "OK",
        202 => "Accepted",
        302 => "Moved Temporarily",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        408 => "Request Timeout",
        410 => "Gone",
        415 => "Unsupported Media Type",
        416 => "Unsupported URI Scheme",
        420 => "Bad Extension",
        422 => "Session Interval Too Small",
        423 => "Interval Too Brief",
        480 => "Temporarily Unavailable",
        481 => "Call/Transaction Does Not Exist",
        482 => "Loop Detected",
        483 => "Too Many Hops",
        484 => "Address Incomplete",
        486 => "Busy Here",
        487 => "Request Terminated",
        489 => "Bad Event",
        488 => "Not Acceptable Here",
        491 => "Request Pending",
        500 => "Server Internal Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Server Time-out",
        505 => "Version Not Supported",
        600 => "Busy Everywhere",
        603 => "Decline",
        604 => "Does Not Exist Anywhere",
        606 => "Not Acceptable",
        _ => match status / 100 {
            1 => "Progress",
            2 => "OK",
            3 => "Redirection",
            4 => "Request Failure",
            5 => "Server Failure",
            _ => "Global Failure",
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_again_differs_in_branch_cseq_and_what_is_changed() {
        let mut request = Composer::request("UPDATE", "sip:b@h");
        request.header("Via", "SIP/2.0/UDP a;branch=z9hG4bK1;rport").header("CSeq", "4 UPDATE");
        request.header("From", "<sip:a@h>;tag=1").header("To", "<sip:b@h>");
        request.header("Call-ID", "c").header("Min-SE", 90);
        let again = again(&request.sdp(b"v=0"), "z9hG4bK2", 5, &[("Min-SE", "600".to_owned())]);
        let wanted = "UPDATE sip:b@h SIP/2.0\r\nVia: SIP/2.0/UDP a;branch=z9hG4bK2;rport\r\n\
            CSeq: 5 UPDATE\r\nFrom: <sip:a@h>;tag=1\r\nTo: <sip:b@h>\r\nCall-ID: c\r\n\
            Content-Type: application/sdp\r\nMin-SE: 600\r\nContent-Length: 3\r\n\r\nv=0";
        assert_eq!(again.unwrap(), wanted);
    }

    #[test]
    fn no_value_can_add_a_header_line() {
        let mut composer = Composer::response(200, "O\r\nK");
        composer.header("X", "a\r\nVia: b").raw("Y", b"c\n");
        let wanted = "SIP/2.0 200 O  K\r\nX: a  Via: b\r\nY: c \r\nContent-Length: 0\r\n\r\n";
        assert_eq!(composer.empty(), wanted);
    }
}
