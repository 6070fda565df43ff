//! SIP URIs of queues, and when a request URI means the same one.
//!
//! mohqueue compares bytes up to the first `;` or `?`. Here, as RFC 3261 §19.1.4 asks: the scheme
//! and the host ignore case, the user does not, an escaped character equals the plain one, and
//! parameters and headers do not count. Deliberately unlike it: a port that is the scheme's default
//! equals none, because phones differ in whether they write it.

use crate::Malformed;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

const WANTED: &str = "a SIP URI, e.g. `sip:1008@example.com`";

/// What of a SIP URI counts when it is compared: scheme, user, host and port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Uri {
    secure: bool,
    user: Option<String>,
    host: String,
    port: u16,
}

impl Uri {
    /// `field` is named in the error.
    ///
    /// # Errors
    /// [`Malformed`] for everything but `sip:` and `sips:` URIs with a host (RFC 3261 §25.1).
    pub fn parse(field: &'static str, text: &str) -> Result<Self, Malformed> {
        Self::read(text).ok_or_else(|| Malformed::new(field, text, WANTED))
    }

    fn read(text: &str) -> Option<Self> {
        if !text.bytes().all(|b| b.is_ascii_graphic() && !b"<>\"\\^`{|}".contains(&b)) {
            return None;
        }
        let (scheme, rest) = text.split_once(':')?;
        let secure = match scheme.to_ascii_lowercase().as_str() {
            "sip" => false,
            "sips" => true,
            _ => return None,
        };
        // A user may contain `;` and `?`, so it is cut off first.
        let (user, rest) = match rest.split_once('@') {
            Some(("", _)) => return None,
            Some((user, rest)) => (Some(unescape(user)?), rest),
            None => (None, rest),
        };
        let host_port = rest.split([';', '?']).next()?;
        let (host, port) = match host_port.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(read_port(port)?)),
            _ => (host_port, None),
        };
        let port = port.unwrap_or(if secure { 5061 } else { 5060 });
        Some(Self { secure, user, host: read_host(host)?, port })
    }

    pub(crate) fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }
}

impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.secure { "sips" } else { "sip" };
        let (user, at) = self.user.as_deref().map_or(("", ""), |user| (user, "@"));
        write!(f, "{scheme}:{}{at}{}:{}", user.escape_default(), self.host, self.port)
    }
}

fn read_port(digits: &str) -> Option<u16> {
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    digits.parse().ok().filter(|port| plain && *port != 0)
}

/// Lower case, IPv6 in its shortest form.
fn read_host(host: &str) -> Option<String> {
    if let Some(v6) = host.strip_prefix('[') {
        return Some(format!("[{}]", v6.strip_suffix(']')?.parse::<Ipv6Addr>().ok()?));
    }
    let name = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    let dotted = host.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let labels = host.strip_suffix('.').unwrap_or(host).split('.');
    let valid = host.chars().all(name) && labels.into_iter().all(|label| !label.is_empty());
    if !valid || dotted && host.parse::<Ipv4Addr>().is_err() {
        return None;
    }
    Some(host.to_ascii_lowercase())
}

/// Each `%XX` becomes its byte; `None` if one is incomplete.
fn unescape(user: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(user.len());
    let mut rest = user.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let [high, low, tail @ ..] = rest else { return None };
        let digit = |b: u8| char::from(b).to_digit(16);
        bytes.push(u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()?);
        rest = tail;
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_same_queue_is_meant_however_the_phone_writes_it() {
        check("sip:1008@example.com", "SIP:1008@Example.COM:5060;transport=udp?Subject=a", true);
        check("sip:a%31@h", "sip:a1@h", true);
        check("sip:+49;phone-context=x@h", "sip:+49;phone-context=x@h;lr", true);
        check("sip:1@[2001:db8:0::1]:5062", "sip:1@[2001:db8::1]:5062", true);
        check("sip:queue.example", "sip:queue.example;user=phone", true);
        check("sip:1008@h", "sip:1008@h:5062", false);
        check("sip:abc@h", "sip:ABC@h", false);
        check("sip:1008@h", "sips:1008@h", false);
        check("sip:1008@h", "sip:h", false);
    }

    #[test]
    fn what_is_not_a_sip_uri_is_refused() {
        let bad = [
            "",
            "1008",
            "sip:",
            "sip:@h",
            "tel:+491",
            "sip:1008@",
            "sip:1008@h:0",
            "sip:a@h:99999",
            "sip:a@h:5o60",
            "sip:a@300.1.1.1",
            "sip:a@[::1",
            "sip:a@h..x",
            "sip:a b@h",
            "sip:a%4@h",
            "<sip:a@h>",
            "sip:a@h\r\n",
            "sip:ä@h",
            "sip:a@h_x",
        ];
        for text in bad {
            let error = Uri::parse("uri", text).expect_err(text);
            assert_eq!(error, Malformed::new("uri", text, WANTED));
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(sips?:)?[ -~é%@:;\\[\\].]{0,40}") {
            let _ = Uri::parse("uri", &text);
        }
    }

    #[track_caller]
    fn check(a: &str, b: &str, same: bool) {
        let parse = |text| Uri::parse("uri", text).unwrap();
        assert_eq!(parse(a) == parse(b), same, "{a} and {b}");
    }
}
