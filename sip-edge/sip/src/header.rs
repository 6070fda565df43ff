//! The list of header fields of one message, as ranges of its bytes (RFC 3261 §7.3).

use bytes::{Bytes, BytesMut};
use memchr::{memchr, memchr_iter};
use smallvec::SmallVec;
use std::ops::Range;

/// Header fields of one message at most. Proxies add one Via each, and Max-Forwards is 70.
pub const MAX_HEADERS: usize = 256;

macro_rules! names {
    ($($variant:ident $long:literal $compact:literal,)*) => {
        /// The header fields that this crate reads; all else is `Other`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Name { $($variant,)* Other }

        impl Name {
            /// By long or compact form, in any case (RFC 3261 §7.3.1, §7.3.3).
            pub fn of(name: &[u8]) -> Self {
                let Some(first) = name.first() else { return Name::Other };
                let spelled = BY_LETTER[letter(*first)].iter().map_while(|&nth| SPELLED.get(nth));
                let mut spelled = spelled.filter(|(it, _)| name.eq_ignore_ascii_case(it));
                spelled.next().map_or(Name::Other, |(_, name)| *name)
            }

            /// Whether a caller of this crate may add such a field: all but those that carry the
            /// transaction, the dialog and the body.
            pub(crate) fn is_free(self) -> bool {
                use Name::*;
                matches!(
                    self,
                    Authorization
                        | Diversion
                        | Expires
                        | HistoryInfo
                        | Other
                        | PAssertedIdentity
                        | Reason
                        | ReferredBy
                        | Replaces
                        | RetryAfter
                        | Route
                )
            }
        }

        /// Each form of each name.
        const SPELLED: &[(&[u8], Name)] =
            &[$(($long, Name::$variant), ($compact, Name::$variant),)*];
    };
}

/// Forms of names with the same first letter at most.
const ALIKE_MAX: usize = 24;
/// Where in [`SPELLED`] the names of each first letter are; [`usize::MAX`] follows the last.
static BY_LETTER: [[usize; ALIKE_MAX + 1]; 32] = by_letter();

const fn by_letter() -> [[usize; ALIKE_MAX + 1]; 32] {
    let (mut found, mut counts, mut nth) = ([[usize::MAX; ALIKE_MAX + 1]; 32], [0; 32], 0);
    while nth < SPELLED.len() {
        let letter = letter(SPELLED[nth].0[0]);
        assert!(counts[letter] < ALIKE_MAX, "the end must be marked");
        found[letter][counts[letter]] = nth;
        counts[letter] += 1;
        nth += 1;
    }
    found
}

/// The same for both cases of a letter.
const fn letter(byte: u8) -> usize {
    (byte & 31) as usize
}

names! {
    Via b"Via" b"v",
    From b"From" b"f",
    To b"To" b"t",
    CallId b"Call-ID" b"i",
    CSeq b"CSeq" b"CSeq",
    MaxForwards b"Max-Forwards" b"Max-Forwards",
    Contact b"Contact" b"m",
    ContentLength b"Content-Length" b"l",
    ContentType b"Content-Type" b"c",
    ContentEncoding b"Content-Encoding" b"e",
    Route b"Route" b"Route",
    RecordRoute b"Record-Route" b"Record-Route",
    Require b"Require" b"Require",
    Authorization b"Authorization" b"Authorization",
    Expires b"Expires" b"Expires",
    Reason b"Reason" b"Reason",
    RetryAfter b"Retry-After" b"Retry-After",
    Accept b"Accept" b"Accept",
    MinExpires b"Min-Expires" b"Min-Expires",
    Allow b"Allow" b"Allow",
    Supported b"Supported" b"k",
    SessionExpires b"Session-Expires" b"x",
    MinSe b"Min-SE" b"Min-SE",
    RSeq b"RSeq" b"RSeq",
    RAck b"RAck" b"RAck",
    ReferTo b"Refer-To" b"r",
    ReferredBy b"Referred-By" b"b",
    ReferSub b"Refer-Sub" b"Refer-Sub",
    Replaces b"Replaces" b"Replaces",
    Event b"Event" b"o",
    SubscriptionState b"Subscription-State" b"Subscription-State",
    WwwAuthenticate b"WWW-Authenticate" b"WWW-Authenticate",
    ProxyAuthenticate b"Proxy-Authenticate" b"Proxy-Authenticate",
    ProxyAuthorization b"Proxy-Authorization" b"Proxy-Authorization",
    PAssertedIdentity b"P-Asserted-Identity" b"P-Asserted-Identity",
    Diversion b"Diversion" b"Diversion",
    HistoryInfo b"History-Info" b"History-Info",
}

#[derive(Clone, Debug)]
struct Field {
    name: Name,
    value: Range<u32>,
}

/// Header fields in the order of the message.
#[derive(Clone, Debug)]
pub struct Headers {
    bytes: Bytes,
    /// `bytes` with `?` for each byte that is no UTF-8; the same bytes in all proper messages.
    text: Bytes,
    fields: SmallVec<[Field; 16]>,
    /// A line that is no header field: no colon, no name, or a control character.
    pub(crate) bad_line: bool,
}

impl Headers {
    /// Reads header fields from `section`, a range of `bytes` without the empty line and without
    /// folds. `None` if there are more than [`MAX_HEADERS`].
    pub(crate) fn parse(bytes: Bytes, section: Range<usize>) -> Option<Self> {
        let text = as_text(&bytes, section.end);
        let mut headers = Self { bytes, text, fields: SmallVec::new(), bad_line: false };
        let bytes = headers.bytes.clone();
        let ends = memchr_iter(b'\n', &bytes[section.clone()]).map(|at| section.start + at + 1);
        let mut start = section.start;
        for end in ends.chain([section.end]) {
            let line = &bytes[start..end];
            if line.is_empty() {
                break; // The last line had its end.
            }
            if headers.fields.len() == MAX_HEADERS {
                return None;
            }
            match field(line) {
                Some((name, value)) => {
                    let value = (start + value.start) as u32..(start + value.end) as u32;
                    headers.fields.push(Field { name, value });
                }
                None => headers.bad_line = true,
            }
            start = end;
        }
        Some(headers)
    }

    /// Value of the first field of this name, `?` for each byte that is no UTF-8.
    pub fn get(&self, name: Name) -> Option<&str> {
        self.all(name).next()
    }

    /// Values of all fields of this name, `?` for each byte that is no UTF-8.
    pub fn all(&self, name: Name) -> impl Iterator<Item = &str> {
        self.values(&self.text, name).filter_map(|value| std::str::from_utf8(value).ok())
    }

    /// Values of all fields of this name, as they came.
    pub fn raw(&self, name: Name) -> impl Iterator<Item = &[u8]> {
        self.values(&self.bytes, name)
    }

    fn values<'a>(&'a self, of: &'a Bytes, name: Name) -> impl Iterator<Item = &'a [u8]> {
        let fields = self.fields.iter().filter(move |field| field.name == name);
        fields.map(|field| &of[field.value.start as usize..field.value.end as usize])
    }

    pub fn count(&self, name: Name) -> usize {
        self.fields.iter().filter(|field| field.name == name).count()
    }
}

/// Name and range of the trimmed value of one line.
fn field(line: &[u8]) -> Option<(Name, Range<usize>)> {
    let colon = memchr(b':', line)?;
    let name = line[..colon].trim_ascii_end();
    let token = |byte: &u8| byte.is_ascii_graphic() && *byte != b':';
    if name.is_empty() || !name.iter().all(token) {
        return None;
    }
    let value = line[colon + 1..].trim_ascii_start();
    let start = line.len() - value.len();
    let value = value.trim_ascii_end();
    if !is_printable(value) {
        return None;
    }
    Some((Name::of(name), start..start + value.len()))
}

/// Whether control characters stand only behind a backslash, as a quoted string may have them
/// (RFC 3261 §25.1, `quoted-pair`).
fn is_printable(value: &[u8]) -> bool {
    let is_control = |byte: u8| byte.is_ascii_control() && byte != b'\t';
    if !value.iter().fold(false, |found, byte| found | is_control(*byte)) {
        return true; // Nearly all values; looked at without a branch for each byte.
    }
    let mut escaped = false;
    value.iter().all(|byte| {
        let was_escaped = escaped;
        escaped = *byte == b'\\' && !was_escaped;
        let may_be_escaped = !matches!(byte, b'\r' | b'\n');
        !is_control(*byte) || (was_escaped && may_be_escaped)
    })
}

/// The first `head` bytes with `?` for each one that is no UTF-8, at the same offsets.
fn as_text(bytes: &Bytes, head: usize) -> Bytes {
    if std::str::from_utf8(&bytes[..head]).is_ok() {
        return bytes.clone();
    }
    let mut text = BytesMut::with_capacity(head);
    for chunk in bytes[..head].utf8_chunks() {
        text.extend_from_slice(chunk.valid().as_bytes());
        text.resize(text.len() + chunk.invalid().len(), b'?');
    }
    text.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_utf_8_keep_the_place_of_what_follows() {
        let bytes = Bytes::from_static(b"Subject: \xe2\x82 x\r\ni: \xffc\r\n");
        let end = bytes.len();
        let headers = Headers::parse(bytes, 0..end).unwrap();
        assert_eq!(headers.get(Name::CallId), Some("?c"));
        assert_eq!(headers.raw(Name::CallId).next(), Some(&b"\xffc"[..]));
    }
}
