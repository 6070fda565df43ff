//! Requests and responses out of bytes (RFC 3261 §7), tolerant of what RFC 4475 asks to tolerate.
//!
//! Only the start line and the header list are read here; [`crate::envelope`] judges the headers
//! that every message must have, so that a request that is wrong can still be answered 400.

use crate::header::{Headers, Name};
use crate::method::Method;
use bytes::{Bytes, BytesMut};
use memchr::{memchr, memchr_iter};
use std::ops::Range;

/// Longest message in bytes: what a UDP datagram can hold, and the same by TCP.
pub const MAX_MESSAGE_BYTES: usize = 65_535;

/// Why bytes are no SIP message at all, so that not even an error response can be made.
#[derive(Debug, Clone, Copy, thiserror::Error, PartialEq, Eq)]
pub enum ParseError {
    #[error("nothing but line ends: a keep-alive (RFC 5626 §4.4.1)")]
    KeepAlive,
    #[error("{len} bytes are more than {MAX_MESSAGE_BYTES}")]
    TooLong { len: usize },
    #[error("the first line is neither `METHOD URI SIP/2.0` nor `SIP/2.0 CODE PHRASE`")]
    StartLine,
    #[error("status code out of 100 to 699 (RFC 3261 §7.2)")]
    StatusCode,
    #[error("more than 256 header fields")]
    TooManyHeaders,
}

impl ParseError {
    /// The label of this error in the metric of discarded messages.
    pub fn label(self) -> &'static str {
        match self {
            ParseError::KeepAlive => "keep_alive",
            ParseError::TooLong { .. } => "message_too_long",
            ParseError::StartLine => "start_line",
            ParseError::StatusCode => "status_code",
            ParseError::TooManyHeaders => "too_many_headers",
        }
    }
}

#[derive(Clone, Debug)]
pub enum Message {
    Request(Request),
    Response(Response),
}

#[derive(Clone, Debug)]
pub struct Request {
    pub method: Method,
    pub headers: Headers,
    /// Cut to Content-Length if that is given and shorter than what came.
    pub body: Bytes,
    bytes: Bytes,
    method_name: Range<usize>,
    uri: Range<usize>,
    /// The request line is wrong in a way that can still be answered.
    pub(crate) line_defect: Option<LineDefect>,
}

/// What is wrong with a request line whose method could be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LineDefect {
    Version,
    Uri,
}

#[derive(Clone, Debug)]
pub struct Response {
    /// 100 to 699.
    pub status: u16,
    pub headers: Headers,
    pub body: Bytes,
    phrase: Bytes,
}

impl Request {
    /// Bytes of the whole message.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The method as it came.
    pub fn method_name(&self) -> &str {
        std::str::from_utf8(&self.bytes[self.method_name.clone()]).unwrap_or_default()
    }

    /// The Request-URI as it came; empty if it is no UTF-8.
    pub fn uri(&self) -> &str {
        std::str::from_utf8(&self.bytes[self.uri.clone()]).unwrap_or_default()
    }
}

impl Response {
    pub fn phrase(&self) -> String {
        String::from_utf8_lossy(&self.phrase).into_owned()
    }
}

impl Message {
    /// One whole message, leading empty lines allowed (RFC 3261 §7.5).
    ///
    /// # Errors
    /// [`ParseError`] if it cannot even be answered.
    pub fn parse(bytes: Bytes) -> Result<Self, ParseError> {
        if bytes.len() > MAX_MESSAGE_BYTES {
            return Err(ParseError::TooLong { len: bytes.len() });
        }
        let blank = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        let bytes = bytes.slice(blank..);
        if bytes.is_empty() {
            return Err(ParseError::KeepAlive);
        }
        let Sections { head, body, is_folded } = Sections::of(&bytes);
        let bytes = if is_folded { unfold(&bytes, head) } else { bytes };
        let line_end = memchr(b'\n', &bytes[..head]).map_or(head, |at| at + 1);
        let line = bytes[..line_end].trim_ascii_end();
        let headers = Headers::parse(bytes.clone(), line_end..head);
        let mut headers = headers.ok_or(ParseError::TooManyHeaders)?;
        headers.bad_line |= body.is_none();
        let body = cut_body(bytes.slice(body.unwrap_or(bytes.len())..), &headers);
        if let Some(rest) = line.strip_prefix(b"SIP/2.0 ") {
            let (status, phrase) = status_line(rest)?;
            let phrase = bytes.slice_ref(phrase);
            return Ok(Message::Response(Response { status, headers, body, phrase }));
        }
        let (method_name, uri, line_defect) = request_line(line)?;
        let method = Method::of(&bytes[method_name.clone()]);
        let request = Request { method, headers, body, bytes, method_name, uri, line_defect };
        Ok(Message::Request(request))
    }
}

/// The parts of a message, as offsets.
struct Sections {
    /// End of the header section.
    head: usize,
    /// `None` if no empty line came.
    body: Option<usize>,
    /// Some line of the header section goes on in the next one.
    is_folded: bool,
}

impl Sections {
    fn of(bytes: &[u8]) -> Self {
        let (mut line_start, mut is_folded) = (0, false);
        for at in memchr_iter(b'\n', bytes) {
            if matches!(&bytes[line_start..at], b"" | b"\r") {
                return Self { head: line_start, body: Some(at + 1), is_folded };
            }
            line_start = at + 1;
            is_folded |= matches!(bytes.get(line_start), Some(b' ' | b'\t'));
        }
        Self { head: bytes.len(), body: None, is_folded }
    }
}

/// Replaces the line end of each fold by blanks, so that offsets stay (RFC 3261 §7.3.1).
fn unfold(bytes: &[u8], head: usize) -> Bytes {
    let mut text = BytesMut::from(bytes);
    for at in 0..head.saturating_sub(1) {
        if text[at] == b'\n' && matches!(text[at + 1], b' ' | b'\t') {
            text[at] = b' ';
            if at > 0 && text[at - 1] == b'\r' {
                text[at - 1] = b' ';
            }
        }
    }
    text.freeze()
}

/// What follows the declared length is no part of the message (RFC 3261 §18.3).
fn cut_body(mut body: Bytes, headers: &Headers) -> Bytes {
    let length = headers.get(Name::ContentLength).and_then(|text| text.parse::<usize>().ok());
    if let Some(length) = length {
        body.truncate(length);
    }
    body
}

fn status_line(rest: &[u8]) -> Result<(u16, &[u8]), ParseError> {
    let end = rest.iter().position(|byte| *byte == b' ').unwrap_or(rest.len());
    let code = std::str::from_utf8(&rest[..end]).ok().filter(|code| code.len() == 3);
    let code = code.and_then(|code| code.parse::<u16>().ok()).ok_or(ParseError::StatusCode)?;
    match code {
        100..=699 => Ok((code, rest[end..].trim_ascii())),
        _ => Err(ParseError::StatusCode),
    }
}

type RequestLine = (Range<usize>, Range<usize>, Option<LineDefect>);

fn request_line(line: &[u8]) -> Result<RequestLine, ParseError> {
    let first = line.iter().position(|byte| *byte == b' ').ok_or(ParseError::StartLine)?;
    let last = line.iter().rposition(|byte| *byte == b' ').ok_or(ParseError::StartLine)?;
    let token = |byte: &u8| byte.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(byte);
    let version = line.get(last + 1..).unwrap_or_default();
    let is_sip = version.len() > 4 && version[..4].eq_ignore_ascii_case(b"SIP/");
    if first == 0 || first == last || !is_sip || !line[..first].iter().all(token) {
        return Err(ParseError::StartLine);
    }
    let uri = &line[first + 1..last];
    let strange = |byte: &u8| !byte.is_ascii_graphic() || b"<>\"".contains(byte);
    let defect = if !version.eq_ignore_ascii_case(b"SIP/2.0") {
        Some(LineDefect::Version)
    } else if uri.is_empty() || uri.iter().any(strange) {
        Some(LineDefect::Uri)
    } else {
        None
    };
    Ok((0..first, first + 1..last, defect))
}
