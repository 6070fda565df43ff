//! Who is at the other end of a message: transport and address (RFC 3261 §18).

use std::fmt;
use std::net::SocketAddr;

/// What carries a message. TLS and WebSocket are not here yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    Udp,
    Tcp,
}

impl Transport {
    /// Whether the transport repeats lost data itself, so that Timers A, E, G, I, J, K rest
    /// (RFC 3261 §17).
    pub fn is_reliable(self) -> bool {
        self == Transport::Tcp
    }

    /// As it stands in a Via header: `UDP` or `TCP`.
    pub fn name(self) -> &'static str {
        match self {
            Transport::Udp => "UDP",
            Transport::Tcp => "TCP",
        }
    }
}

/// Where a message came from or goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Peer {
    pub transport: Transport,
    pub addr: SocketAddr,
}

impl fmt::Display for Peer {
    /// `udp:192.0.2.1:5060`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let transport = match self.transport {
            Transport::Udp => "udp",
            Transport::Tcp => "tcp",
        };
        write!(f, "{transport}:{}", self.addr)
    }
}
