//! Where peers reach us: one host and port for each listener (RFC 3261 §18.1.1, sent-by).

use crate::{HostPort, Listener, Peer, Transport};

/// What one listener takes, and where its peers find it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listening {
    pub transport: Transport,
    pub is_ipv6: bool,
    pub host_port: HostPort,
}

/// Our listeners by number; there is at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertised {
    first: HostPort,
    /// Empty if the first is everything.
    listening: Vec<Listening>,
}

impl Advertised {
    /// Listener 0 and those that follow, at most 256 in all: a peer can name no other.
    pub fn new(first: Listening, others: impl IntoIterator<Item = Listening>) -> Self {
        let host_port = first.host_port.clone();
        let all = std::iter::once(first).chain(others).take(usize::from(u8::MAX) + 1);
        Self { first: host_port, listening: all.collect() }
    }

    /// What `peer` sees us at: Via and Contact of what is sent there.
    pub fn at(&self, peer: Peer) -> &HostPort {
        let own = self.listening.get(usize::from(peer.listener.0));
        own.map_or(&self.first, |it| &it.host_port)
    }

    /// The first listener's.
    pub fn first(&self) -> &HostPort {
        &self.first
    }

    /// `peer` with a listener of its transport and address family: `liked`, if that is one, else
    /// the first that is; `None` if there is none, so that we cannot talk to it.
    pub fn towards(&self, peer: Peer, liked: Listener) -> Option<Peer> {
        let suits =
            |it: &Listening| it.transport == peer.transport && it.is_ipv6 == peer.addr.is_ipv6();
        let is_liked = self.listening.get(usize::from(liked.0)).is_some_and(suits);
        if is_liked || self.listening.is_empty() {
            return Some(Peer { listener: liked, ..peer });
        }
        let (number, _) = (0..=u8::MAX).zip(&self.listening).find(|(_, it)| suits(it))?;
        Some(Peer { listener: Listener(number), ..peer })
    }

    /// Whether one of our listeners is there; host names in any case, port 5060 as none.
    pub fn is_ours(&self, other: &HostPort) -> bool {
        let mut all = self.listening.iter().map(|it| &it.host_port);
        self.first.is_same(other) || all.any(|ours| ours.is_same(other))
    }
}

impl From<HostPort> for Advertised {
    /// One place for everything.
    fn from(first: HostPort) -> Self {
        Self { first, listening: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_listener_has_its_own_address_and_an_unknown_one_the_first() {
        let advertised = advertised();
        let at = |number| advertised.at(peer(Transport::Udp, number)).host.as_str();
        assert_eq!([at(0), at(1), at(3), at(9)], ["a", "b", "d", "a"]);
        assert!(advertised.is_ours(&HostPort::new("B", None)));
        assert!(!advertised.is_ours(&HostPort::new("b", 5061)));
    }

    #[test]
    fn a_peer_is_reached_by_the_liked_listener_or_the_first_of_its_kind() {
        let advertised = advertised();
        let towards = |peer: Peer, liked| {
            advertised.towards(peer, Listener(liked)).map(|peer| peer.listener.0)
        };
        assert_eq!(towards(peer(Transport::Udp, 9), 3), Some(3));
        assert_eq!(towards(peer(Transport::Udp, 9), 1), Some(0));
        assert_eq!(towards(peer(Transport::Tcp, 9), 0), Some(1));
        assert_eq!(towards(peer(Transport::Tls, 9), 3), None);
        let v6 = |transport| Peer::new(transport, "[::1]:9".parse().unwrap());
        assert_eq!(towards(v6(Transport::Udp), 0), Some(2));
        assert_eq!(towards(v6(Transport::Tcp), 0), None);
    }

    fn peer(transport: Transport, listener: u8) -> Peer {
        let addr = "192.0.2.1:9".parse().unwrap();
        Peer { listener: Listener(listener), ..Peer::new(transport, addr) }
    }

    fn advertised() -> Advertised {
        let listening = |host, transport, is_ipv6| {
            let host_port = HostPort::new(host, 5060);
            Listening { transport, is_ipv6, host_port }
        };
        let first = listening("a", Transport::Udp, false);
        let others = [
            listening("b", Transport::Tcp, false),
            listening("c", Transport::Udp, true),
            listening("d", Transport::Udp, false),
        ];
        Advertised::new(first, others)
    }
}
