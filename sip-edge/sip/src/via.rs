//! Via values (RFC 3261 §20.42, RFC 3581).

use crate::param::{Params, find};
use crate::peer::{Peer, Transport};
use crate::{Advertised, HostPort};
use std::net::{IpAddr, SocketAddr};

/// The default port of SIP over UDP and TCP.
pub(crate) const DEFAULT_PORT: u16 = 5060;

/// The topmost Via of a message.
#[derive(Clone, Debug)]
pub struct Via<'a> {
    pub sent_by: HostPort,
    params: Params<'a>,
}

impl<'a> Via<'a> {
    /// The first value of a comma list: `SIP / 2.0 / UDP host : port ; params`.
    pub fn parse(text: &'a str) -> Option<Self> {
        let text = crate::param::split(text, b',').next()?;
        let mut parts = text.splitn(3, '/');
        let (sip, version, rest) = (parts.next()?.trim(), parts.next()?.trim(), parts.next()?);
        if !sip.eq_ignore_ascii_case("SIP") || version != "2.0" {
            return None;
        }
        let (_transport, rest) = rest.trim_start().split_once([' ', '\t'])?;
        let (sent_by, params) = rest.split_once(';').unwrap_or((rest, ""));
        let mut parts = params.trim_end().trim_end_matches(';').split(';');
        if !params.is_empty() && parts.any(|part| part.trim().is_empty()) {
            return None; // `;;`, but one `;` too many at the end is forgiven.
        }
        Some(Self { sent_by: sent_by.parse().ok()?, params: Params(params) })
    }

    /// The branch, if there is one that is not empty.
    pub fn branch(&self) -> Option<&'a str> {
        self.params.get("branch").filter(|branch| !branch.is_empty())
    }

    /// The address where the sender listens, if it says that it takes requests there over the
    /// connection that `source` is (RFC 5923 §5): only its own address, so that nobody can take
    /// over what is meant for another.
    pub(crate) fn alias(&self, source: Peer) -> Option<Peer> {
        let port = self.sent_by.port.unwrap_or(source.transport.default_port());
        let alias = Peer { addr: SocketAddr::new(self.sent_by.ip()?, port), ..source };
        let wanted = source.transport.is_reliable() && self.params.get("alias").is_some();
        (wanted && alias.addr.ip() == source.addr.ip() && alias != source).then_some(alias)
    }

    /// Whether the sender asked for the response at its source port (RFC 3581 §3).
    pub fn wants_rport(&self) -> bool {
        self.params.get("rport").is_some()
    }

    /// Where the response goes (RFC 3261 §18.2.2, RFC 3581 §4): the connection, or by UDP the
    /// source address, at the source port if asked for, else at the port in sent-by.
    pub(crate) fn response_peer(&self, source: Peer) -> Peer {
        match source.transport {
            Transport::Udp if self.wants_rport() => source,
            Transport::Udp => {
                let port = self.sent_by.port.unwrap_or(DEFAULT_PORT);
                Peer { addr: SocketAddr::new(source.addr.ip(), port), ..source }
            }
            Transport::Tcp | Transport::Tls => source,
        }
    }
}

/// The Via value of a request of ours that goes to `peer` (RFC 3261 §8.1.1.7, RFC 3581 §3). Over a
/// connection we take requests too (RFC 5923 §5).
pub(crate) fn of_request(peer: Peer, advertised: &Advertised, branch: &str) -> String {
    let (transport, sent_by) = (peer.transport.name(), advertised.at(peer));
    let alias = if peer.transport.is_reliable() { ";alias" } else { "" };
    format!("SIP/2.0/{transport} {sent_by};branch={branch};rport{alias}")
}

/// The topmost Via value with `received` and `rport` filled in (RFC 3261 §18.2.1, RFC 3581 §4);
/// the other values of the same field follow unchanged.
pub(crate) fn stamp(value: &[u8], source: SocketAddr) -> Vec<u8> {
    let (first, rest) = value.split_at(find(value, b',').unwrap_or(value.len()));
    let mut stamped = Vec::with_capacity(value.len() + 48);
    let (mut rport, mut left) = (false, Some(first));
    let parts = std::iter::from_fn(|| {
        let text = left?;
        let end = find(text, b';');
        left = end.map(|at| &text[at + 1..]);
        Some(&text[..end.unwrap_or(text.len())])
    });
    for (index, part) in parts.enumerate() {
        let end = part.iter().position(|byte| *byte == b'=').unwrap_or(part.len());
        let name = part[..end].trim_ascii();
        if index > 0 && name.eq_ignore_ascii_case(b"received") {
            continue;
        }
        if index > 0 {
            stamped.push(b';');
        }
        if index > 0 && name.eq_ignore_ascii_case(b"rport") {
            rport = true;
            stamped.extend_from_slice(format!("rport={}", source.port()).as_bytes());
        } else {
            stamped.extend_from_slice(part);
        }
    }
    if rport || !sent_by_is(first, source.ip()) {
        stamped.extend_from_slice(format!(";received={}", source.ip()).as_bytes());
    }
    stamped.extend_from_slice(rest);
    stamped
}

fn sent_by_is(via: &[u8], ip: IpAddr) -> bool {
    let via = std::str::from_utf8(via).ok().and_then(Via::parse);
    via.and_then(|via| via.sent_by.ip()).is_some_and(|sent_by| sent_by == ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_odd_spacing_and_ipv6() {
        let via =
            Via::parse("SIP / 2.0 /  UDP\t a.example : 9 ; branch = z9hG4bKx ;rport").unwrap();
        assert_eq!(via.sent_by, HostPort::new("a.example", 9));
        assert_eq!(via.branch(), Some("z9hG4bKx"));
        assert!(via.wants_rport());
        let via = Via::parse("SIP/2.0/TCP [2001:db8::1];branch=1, SIP/2.0/UDP x").unwrap();
        assert_eq!(via.sent_by, HostPort::new("2001:db8::1", None));
        assert!(Via::parse("SIP/2.0/UDP a;branch=1;").is_some());
        assert!(Via::parse("SIP/2.0/UDP a;;branch=1").is_none());
        assert!(Via::parse("SIP/2.0/UDP").is_none());
        assert!(Via::parse("SIP/2.0/UDP a:99999").is_none());
    }

    #[test]
    fn stamp_fills_rport_and_received_of_the_first_value_only() {
        let source = "192.0.2.9:7000".parse().unwrap();
        for (via, wanted) in [
            ("SIP/2.0/UDP 192.0.2.9;branch=a", "SIP/2.0/UDP 192.0.2.9;branch=a"),
            (
                "SIP/2.0/UDP 10.0.0.1;rport;branch=a, SIP/2.0/UDP b;rport",
                "SIP/2.0/UDP 10.0.0.1;rport=7000;branch=a;received=192.0.2.9, SIP/2.0/UDP b;rport",
            ),
            (
                r#"SIP/2.0/UDP b;x="1;rport,2\"";branch=a, SIP/2.0/UDP c"#,
                r#"SIP/2.0/UDP b;x="1;rport,2\"";branch=a;received=192.0.2.9, SIP/2.0/UDP c"#,
            ),
            (
                "SIP/2.0/UDP host;received=1.1.1.1;branch=a",
                "SIP/2.0/UDP host;branch=a;received=192.0.2.9",
            ),
        ] {
            assert_eq!(String::from_utf8(stamp(via.as_bytes(), source)).unwrap(), wanted);
        }
    }
}
