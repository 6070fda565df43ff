//! Host and port, and the SIP URI (RFC 3261 §19.1, grammar in §25.1).

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
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

    /// The address if the host is an IP literal, not a name.
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

impl FromStr for HostPort {
    type Err = UriError;

    fn from_str(text: &str) -> Result<Self, UriError> {
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
            None => match text.split_once(':') {
                Some((host, port)) => (host.trim_end(), Some(port)),
                None => (text, None),
            },
        };
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:%".contains(&byte);
        if host.is_empty() || !host.bytes().all(allowed) {
            return Err(UriError::Host { got: text.to_owned() });
        }
        let port = port.map(|got| parse_port(got.trim())).transpose()?;
        Ok(Self { host: host.to_owned(), port })
    }
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
