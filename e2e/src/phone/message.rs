//! SIP messages as text: written by hand, read by rsip.

use crate::phone::wire::Wire;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// A request that this phone sends, perhaps more than once.
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) uri: String,
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) call_id: String,
    pub(crate) cseq: u32,
    pub(crate) branch: String,
    via: SocketAddr,
    headers: String,
    body: String,
}

impl Request {
    /// A request outside a dialog; `from` gets a tag.
    pub(crate) fn new(method: &str, uri: &str, from: &str, to: &str, wire: &Wire) -> Self {
        let from = format!("{from};tag={}", token());
        Self::within(method, uri, &from, to, &token(), 1, wire)
    }

    pub(crate) fn within(
        method: &str,
        uri: &str,
        from: &str,
        to: &str,
        call_id: &str,
        cseq: u32,
        wire: &Wire,
    ) -> Self {
        Self {
            method: method.to_owned(),
            uri: uri.to_owned(),
            from: from.to_owned(),
            to: to.to_owned(),
            call_id: call_id.to_owned(),
            cseq,
            branch: format!("z9hG4bK{}", token()),
            via: wire.local,
            headers: String::new(),
            body: String::new(),
        }
    }

    pub(crate) fn header(&mut self, name: &str, value: &str) {
        let _ = write!(self.headers, "{name}: {value}\r\n");
    }

    pub(crate) fn body(&mut self, content_type: &str, body: &str) {
        self.header("Content-Type", content_type);
        self.body = body.to_owned();
    }

    /// The CANCEL of this INVITE (RFC 3261 §9.1).
    pub(crate) fn cancel(&self, wire: &Wire) -> Self {
        let Self { uri, from, to, call_id, cseq, branch, .. } = self;
        let cancel = Self::within("CANCEL", uri, from, to, call_id, *cseq, wire);
        Self { branch: branch.clone(), ..cancel }
    }

    /// Makes it the next transaction of the same Call-ID.
    pub(crate) fn next(&mut self) {
        self.cseq += 1;
        self.branch = format!("z9hG4bK{}", token());
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let Self { method, uri, from, to, call_id, cseq, branch, via, headers, body } = self;
        format!(
            "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {via};branch={branch};rport\r\n\
             Max-Forwards: 70\r\nFrom: {from}\r\nTo: {to}\r\nCall-ID: {call_id}\r\n\
             CSeq: {cseq} {method}\r\n{headers}Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .into_bytes()
    }
}

/// A response to `request`; `tag` is put into To if it has none.
pub(crate) fn response(
    request: &rsip::Request,
    line: &str,
    tag: &str,
    headers: &str,
    body: &str,
) -> Vec<u8> {
    let mut text = format!("SIP/2.0 {line}\r\n");
    for name in ["Via", "Record-Route", "From", "To", "Call-ID", "CSeq"] {
        for value in self::headers(&request.headers, name) {
            let untagged = name == "To" && !value.contains(";tag=");
            let tag = if untagged { format!(";tag={tag}") } else { String::new() };
            let _ = write!(text, "{name}: {value}{tag}\r\n");
        }
    }
    let _ = write!(text, "{headers}Content-Length: {}\r\n\r\n{body}", body.len());
    text.into_bytes()
}

/// The status code of a response.
pub(crate) fn status(response: &rsip::Response) -> u16 {
    u16::from(response.status_code.clone())
}

/// The first header field of this name, without it.
pub fn header(all: &rsip::Headers, name: &str) -> Option<String> {
    headers(all, name).into_iter().next()
}

pub(crate) fn headers(all: &rsip::Headers, name: &str) -> Vec<String> {
    let lines = all.iter().map(ToString::to_string);
    lines
        .filter_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.trim().eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
        .collect()
}

/// What is between `<` and `>`, or the URI before the parameters.
pub(crate) fn uri_of(name_addr: &str) -> &str {
    match name_addr.split_once('<').and_then(|(_, rest)| rest.split_once('>')) {
        Some((uri, _)) => uri,
        None => name_addr.split(';').next().unwrap_or(name_addr).trim(),
    }
}

/// Where an SDP body wants its audio, if it wants any.
pub(crate) fn rtp_address(sdp: &str) -> Option<SocketAddr> {
    let address = sdp.lines().find_map(|line| line.strip_prefix("c=IN IP4 "))?;
    let port = sdp.lines().find_map(|line| line.strip_prefix("m=audio "))?.split(' ').next()?;
    Some(SocketAddr::new(address.trim().parse().ok()?, port.parse().ok()?))
}

/// Unique within this machine's tests.
pub(crate) fn token() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let now_us = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |it| it.as_micros());
    format!("{:x}{:x}x{:x}", std::process::id(), now_us, NEXT.fetch_add(1, Ordering::Relaxed))
}
