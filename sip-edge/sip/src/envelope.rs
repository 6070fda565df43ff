//! The headers that every message must have, read and judged (RFC 3261 §8.1.1, §8.2, §16.3).

use crate::header::{Headers, Name};
use crate::message::{LineDefect, Request, Response};
use crate::method::Method;
use crate::name_addr::NameAddr;
use crate::uri::SipUri;
use crate::via::Via;
use memchr::memchr;

/// Via, From, To, Call-ID and CSeq of one message.
#[derive(Clone, Debug)]
pub struct Envelope<'a> {
    pub via: Via<'a>,
    pub from: NameAddr<'a>,
    pub to: NameAddr<'a>,
    pub call_id: &'a str,
    pub cseq: u32,
    pub cseq_method: &'a str,
}

/// What makes a message one that is not acted on. A request gets `status`, if its Via can be read.
#[derive(Debug, Clone, Copy, thiserror::Error, PartialEq, Eq)]
pub enum Defect {
    #[error("Missing or Invalid Via Header Field")]
    Via,
    #[error("Missing or Invalid From Header Field")]
    From,
    #[error("Missing or Invalid To Header Field")]
    To,
    #[error("Missing or Repeated Call-ID Header Field")]
    CallId,
    #[error("Missing or Invalid CSeq Header Field")]
    CSeq,
    #[error("CSeq Method Differs from Request Method")]
    CSeqMethod,
    #[error("Invalid Contact Header Field")]
    Contact,
    #[error("Invalid Max-Forwards Header Field")]
    MaxForwards,
    #[error("Invalid Content-Length Header Field")]
    ContentLength,
    #[error("Body Shorter than Content-Length")]
    Body,
    #[error("Invalid Header Line")]
    Line,
    #[error("Invalid Request-URI")]
    Uri,
    #[error("Unsupported URI Scheme")]
    Scheme,
    #[error("Version Not Supported")]
    Version,
}

impl Defect {
    /// Status of the response to a request that has it.
    pub fn status(self) -> u16 {
        match self {
            Defect::Version => 505,
            Defect::Scheme => 416,
            _ => 400,
        }
    }
}

impl<'a> Envelope<'a> {
    /// Reads the envelope of a request, and checks what concerns the request as a whole.
    ///
    /// # Errors
    /// The first [`Defect`], in the order in which a reader meets them.
    pub fn of_request(request: &'a Request) -> Result<Self, Defect> {
        match request.line_defect {
            Some(LineDefect::Version) => return Err(Defect::Version),
            Some(LineDefect::Uri) => return Err(Defect::Uri),
            None => (),
        }
        let envelope = Self::of(&request.headers, &request.body)?;
        if envelope.cseq_method != request.method_name() {
            return Err(Defect::CSeqMethod);
        }
        let mut hops = request.headers.all(Name::MaxForwards);
        let are_proper = hops.next().is_none_or(|text| text.parse::<u8>().is_ok());
        if !are_proper || hops.next().is_some() {
            return Err(Defect::MaxForwards);
        }
        check_contacts(&request.headers)?;
        if request.method == Method::Register && !SipUri::is_proper(envelope.to.uri) {
            return Err(Defect::To); // An address-of-record is a SIP URI (RFC 3261 §10.2).
        }
        let uri = request.uri();
        match &uri[..memchr(b':', uri.as_bytes()).unwrap_or(0)] {
            "tel" | "Tel" | "TEL" => Ok(envelope),
            scheme if scheme.eq_ignore_ascii_case("sip") => match SipUri::is_proper(uri) {
                true => Ok(envelope),
                false => Err(Defect::Uri),
            },
            "" => Err(Defect::Uri),
            _ => Err(Defect::Scheme),
        }
    }

    /// # Errors
    /// The first [`Defect`]; such a response is discarded (RFC 3261 §8.1.3).
    pub fn of_response(response: &'a Response) -> Result<Self, Defect> {
        Self::of(&response.headers, &response.body)
    }

    fn of(headers: &'a Headers, body: &[u8]) -> Result<Self, Defect> {
        let via = headers.get(Name::Via).and_then(Via::parse).ok_or(Defect::Via)?;
        if headers.bad_line {
            return Err(Defect::Line);
        }
        let from = only(headers, Name::From).and_then(NameAddr::parse).ok_or(Defect::From)?;
        let to = only(headers, Name::To).and_then(NameAddr::parse).ok_or(Defect::To)?;
        let call_id = only(headers, Name::CallId).filter(|it| !it.is_empty());
        let call_id = call_id.ok_or(Defect::CallId)?;
        let cseq = only(headers, Name::CSeq).and_then(|text| text.split_once([' ', '\t']));
        let (number, method) = cseq.ok_or(Defect::CSeq)?;
        let digits = number.bytes().all(|byte| byte.is_ascii_digit());
        let number = number.parse::<u32>().ok().filter(|it| digits && *it < 1 << 31);
        check_length(headers, body)?;
        let cseq = number.ok_or(Defect::CSeq)?;
        Ok(Self { via, from, to, call_id, cseq, cseq_method: method.trim() })
    }
}

/// The value of a field that must be there exactly once.
fn only(headers: &Headers, name: Name) -> Option<&str> {
    let mut values = headers.all(name);
    values.next().filter(|_| values.next().is_none())
}

/// Each Contact is a URI, or one `*`. A URI with `?` needs its angle brackets (RFC 3261 §20.10).
fn check_contacts(headers: &Headers) -> Result<(), Defect> {
    let proper = |contact: Option<NameAddr<'_>>| contact.is_some();
    let mut values = headers.all(Name::Contact).filter(|value| *value != "*");
    match values.all(|value| NameAddr::list(value).all(proper)) {
        true => Ok(()),
        false => Err(Defect::Contact),
    }
}

fn check_length(headers: &Headers, body: &[u8]) -> Result<(), Defect> {
    let mut lengths = headers.all(Name::ContentLength);
    let Some(text) = lengths.next() else { return Ok(()) };
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse::<usize>() {
        Ok(_) if !digits || lengths.next().is_some() => Err(Defect::ContentLength),
        Ok(length) if length > body.len() => Err(Defect::Body),
        Ok(_) => Ok(()),
        Err(_) => Err(Defect::ContentLength),
    }
}
