//! The session description in the body of a message (RFC 3261 §7.4, RFC 5621 for multipart).

use crate::header::{Headers, Name};
use crate::param::{self, Params};
use bytes::Bytes;

/// The body is of a type that is not understood: 415 with Accept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unsupported;

/// What Accept says.
pub(crate) const ACCEPT: &str = "application/sdp";

/// Whether the sender takes SDP in a response: a UA that says nothing does (RFC 3261 §20.1).
pub(crate) fn is_sdp_accepted(headers: &Headers) -> bool {
    if headers.count(Name::Accept) == 0 {
        return true;
    }
    let ranges = headers.all(Name::Accept).flat_map(|text| param::split(text, b','));
    let mut kinds = ranges.map(|range| range.split(';').next().unwrap_or_default().trim());
    kinds.any(|kind| {
        let any_of = ["application/sdp", "application/*", "*/*"];
        any_of.iter().any(|it| kind.eq_ignore_ascii_case(it))
    })
}

/// The SDP of a message; `None` if it has no body. A `multipart/mixed` body gives its first part
/// that is SDP.
pub(crate) fn sdp(headers: &Headers, body: &Bytes) -> Result<Option<Bytes>, Unsupported> {
    if body.is_empty() {
        return Ok(None);
    }
    let encoding = headers.get(Name::ContentEncoding).unwrap_or("identity");
    if !encoding.eq_ignore_ascii_case("identity") {
        return Err(Unsupported);
    }
    let value = headers.get(Name::ContentType).ok_or(Unsupported)?;
    let (kind, params) = value.split_once(';').unwrap_or((value, ""));
    if kind.trim().eq_ignore_ascii_case("application/sdp") {
        return Ok(Some(body.clone()));
    }
    if !kind.trim().eq_ignore_ascii_case("multipart/mixed") {
        return Err(Unsupported);
    }
    let boundary = Params(params).get("boundary").ok_or(Unsupported)?;
    parts(body, &param::unquote(boundary)).find_map(sdp_part).map(Some).ok_or(Unsupported)
}

/// What stands between the boundary lines (RFC 2046 §5.1).
fn parts<'a>(body: &'a Bytes, boundary: &str) -> impl Iterator<Item = Bytes> + 'a {
    let delimiter = format!("--{boundary}").into_bytes();
    let mut starts = Vec::new();
    let mut at = 0;
    for line in body.split_inclusive(|byte| *byte == b'\n') {
        if line.starts_with(&delimiter) && starts.len() <= MAX_PARTS {
            starts.push((at, at + line.len()));
        }
        at += line.len();
    }
    let pairs: Vec<_> = starts.windows(2).map(|pair| pair[0].1..pair[1].0).collect();
    pairs.into_iter().map(|range| body.slice(range))
}

/// Parts of one body that are looked at.
const MAX_PARTS: usize = 16;

fn sdp_part(part: Bytes) -> Option<Bytes> {
    let end = part.windows(4).position(|it| it == b"\r\n\r\n")?;
    let headers = Headers::parse(part.clone(), 0..end + 2)?;
    let kind = headers.get(Name::ContentType)?.split(';').next()?.trim().to_ascii_lowercase();
    let sdp = part.slice(end + 4..);
    let sdp = sdp.strip_suffix(b"\r\n").map(|it| sdp.slice_ref(it)).unwrap_or(sdp);
    (kind == "application/sdp").then_some(sdp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_sdp_part_of_a_multipart_body() {
        let body = "--x y\r\nContent-Type: text/plain\r\n\r\nhi\r\n--x y\r\n\
                    c: application/sdp\r\n\r\nv=0\r\no=-\r\n--x y--\r\n";
        let kind = "multipart/mixed; boundary=\"x y\"";
        assert_eq!(check(kind, body), Ok(Some(Bytes::from_static(b"v=0\r\no=-"))));
        assert_eq!(check("multipart/mixed; boundary=other", body), Err(Unsupported));
        assert_eq!(check("Application/SDP; charset=x", "v=0"), Ok(Some("v=0".into())));
        assert_eq!(check("text/plain", "v=0"), Err(Unsupported));
        assert_eq!(check("text/plain", ""), Ok(None));
    }

    fn check(kind: &str, body: &'static str) -> Result<Option<Bytes>, Unsupported> {
        let head = Bytes::from(format!("Content-Type: {kind}\r\n"));
        let end = head.len();
        sdp(&Headers::parse(head, 0..end).unwrap(), &Bytes::from_static(body.as_bytes()))
    }
}
