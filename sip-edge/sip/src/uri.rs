//! Host and port, and the SIP URI (RFC 3261 §19.1, grammar in §25.1).

use crate::param::Params;
use crate::peer::{Peer, Transport};
use crate::via::DEFAULT_PORT;
use memchr::memchr;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// A host (name, IPv4, or IPv6 without its brackets) and perhaps a port.
///
/// Written and parsed as `HOST[:PORT]`, IPv6 as `[::1]:5060`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    pub host: String,
    pub port: Option<u16>,
}

/// Why a text is no URI, or no host and port.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum UriError {
    #[error("{got:?} is no host: want a name, an IPv4 address or an IPv6 address in brackets")]
    Host { got: String },
    #[error("{got:?} is no port: want 1 to 65535 (RFC 3261 §25.1)")]
    Port { got: String },
}

impl HostPort {
    pub fn new(host: impl Into<String>, port: impl Into<Option<u16>>) -> Self {
        Self { host: host.into(), port: port.into() }
    }

    /// Whether both name the same place: hosts in any case, no port as 5060 (RFC 3261 §19.1.4).
    pub fn is_same(&self, other: &Self) -> bool {
        let port = |it: &Self| it.port.unwrap_or(DEFAULT_PORT);
        self.host.eq_ignore_ascii_case(&other.host) && port(self) == port(other)
    }

    /// The address if the host is an IP literal, not a name.
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

impl FromStr for HostPort {
    type Err = UriError;

    fn from_str(text: &str) -> Result<Self, UriError> {
        let (host, port) = host_and_port(text)?;
        Ok(Self { host: host.to_owned(), port })
    }
}

/// Both out of `host:port`, without the brackets of an IPv6 address.
fn host_and_port(text: &str) -> Result<(&str, Option<u16>), UriError> {
    let text = text.trim();
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, after) =
                rest.split_once(']').ok_or_else(|| UriError::Host { got: text.to_owned() })?;
            host.parse::<Ipv6Addr>().map_err(|_| UriError::Host { got: text.to_owned() })?;
            match after.trim() {
                "" => (host, None),
                after => match after.strip_prefix(':') {
                    Some(port) => (host, Some(port)),
                    None => return Err(UriError::Host { got: text.to_owned() }),
                },
            }
        }
        None => match split_at(text, b':') {
            Some((host, port)) => (host.trim_end(), Some(port)),
            None => (text, None),
        },
    };
    let allowed =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b':');
    if host.is_empty() || !host.bytes().all(allowed) {
        return Err(UriError::Host { got: text.to_owned() });
    }
    let port = port.map(|got| parse_port(got.trim())).transpose()?;
    Ok((host, port))
}

/// What is before and after the first `separator`, which is ASCII.
fn split_at(text: &str, separator: u8) -> Option<(&str, &str)> {
    let at = memchr(separator, text.as_bytes())?;
    Some((&text[..at], &text[at + 1..]))
}

fn parse_port(got: &str) -> Result<u16, UriError> {
    let digits = !got.is_empty() && got.bytes().all(|byte| byte.is_ascii_digit());
    match got.parse::<u16>() {
        Ok(port) if digits && port != 0 => Ok(port),
        _ => Err(UriError::Port { got: got.to_owned() }),
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.host.contains(':'), self.port) {
            (true, Some(port)) => write!(f, "[{}]:{port}", self.host),
            (true, None) => write!(f, "[{}]", self.host),
            (false, Some(port)) => write!(f, "{}:{port}", self.host),
            (false, None) => f.write_str(&self.host),
        }
    }
}

/// A SIP URI, borrowed from the message that has it.
#[derive(Clone, Debug)]
pub struct SipUri<'a> {
    /// Without the password, escapes as they came.
    pub user: Option<&'a str>,
    pub host: HostPort,
    pub params: Params<'a>,
}

impl<'a> SipUri<'a> {
    /// `sip:user:password@host:port;params?headers`.
    ///
    /// # Errors
    /// Another scheme, or no proper host and port.
    pub fn parse(text: &'a str) -> Result<Self, UriError> {
        let (user, host, params) = Self::parts(text)?;
        Ok(Self { user, host: host.parse()?, params: Params(params) })
    }

    /// Whether it can be parsed; copies nothing.
    pub(crate) fn is_proper(text: &'a str) -> bool {
        Self::parts(text).is_ok_and(|(_, host, _)| host_and_port(host).is_ok())
    }

    /// User, host and port, and parameters.
    fn parts(text: &'a str) -> Result<(Option<&'a str>, &'a str, &'a str), UriError> {
        let (scheme, rest) = split_at(text, b':').unwrap_or(("", text));
        if !scheme.eq_ignore_ascii_case("sip") {
            return Err(UriError::Host { got: text.to_owned() });
        }
        // `;` and `?` may stand in the user part, so the `@` comes first.
        let (user, rest) = match split_at(rest, b'@') {
            Some((user, rest)) => (Some(split_at(user, b':').map_or(user, |(user, _)| user)), rest),
            None => (None, rest),
        };
        let rest = split_at(rest, b'?').map_or(rest, |(rest, _)| rest);
        let (host, params) = split_at(rest, b';').unwrap_or((rest, ""));
        Ok((user, host, params))
    }

    /// Whether the parameter `lr` marks a loose router (RFC 3261 §19.1.1).
    pub fn is_loose_router(&self) -> bool {
        self.params.get("lr").is_some()
    }

    /// Where a request to this URI goes if its host is an address, and its transport one that we
    /// have (RFC 3263 §4.1, §4.2); of our first listener.
    pub(crate) fn peer(&self) -> Option<Peer> {
        let transport = match self.params.get("transport") {
            Some(name) => Transport::of_parameter(name)?,
            None => Transport::Udp,
        };
        let port = self.host.port.unwrap_or(transport.default_port());
        Some(Peer::new(transport, SocketAddr::new(self.host.ip()?, port)))
    }
}

/// The user part with its escapes undone: whose address-of-record a URI names.
pub(crate) fn unescape(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        let hex = hex.and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                plain.push(byte);
                at += 3;
            }
            None => {
                plain.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&plain).into_owned()
}

/// Whether `text` can stand as a URI between angle brackets: one word with a scheme.
pub(crate) fn is_uri(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_graphic() && !b"<>\"".contains(&byte);
    text.bytes().all(plain)
        && text.split_once(':').is_some_and(|(scheme, rest)| {
            !scheme.is_empty()
                && !rest.is_empty()
                && scheme.bytes().all(|it| it.is_ascii_alphanumeric())
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_and_port_are_written_as_they_are_read() {
        for text in ["a.example", "192.0.2.1:5060", "[2001:db8::1]:5080", "[::1]"] {
            assert_eq!(text.parse::<HostPort>().unwrap().to_string(), text);
        }
        for text in ["", ":5060", "a:0", "a:65536", "a:+1", "[::1", "[::1]5060", "a b", "::1"] {
            assert!(text.parse::<HostPort>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_user_part_may_hold_semicolons_and_a_password() {
        let uri = SipUri::parse("sip:a;x=1:pw@192.0.2.1:99;transport=TCP;lr?h=v").unwrap();
        assert_eq!(uri.user, Some("a;x=1"));
        assert!(uri.is_loose_router());
        assert_eq!(uri.peer().unwrap().to_string(), "tcp:192.0.2.1:99");
        assert_eq!(SipUri::parse("sip:host.example").unwrap().peer(), None);
        assert!(SipUri::parse("tel:+4930").is_err());
        assert_eq!(unescape("%61%zz%"), "a%zz%");
    }
}
