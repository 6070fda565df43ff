//! Who is at the other end of a message: transport and address, and which of our listeners it
//! talks to (RFC 3261 §18).

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::SocketAddr;

/// What carries a message. WebSocket is not here yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Transport {
    Udp,
    Tcp,
    Tls,
}

impl Transport {
    /// Whether the transport repeats lost data itself, so that Timers A, E, G, I, J, K rest
    /// (RFC 3261 §17). Such a transport has connections.
    pub fn is_reliable(self) -> bool {
        self != Transport::Udp
    }

    /// As it stands in a Via header: `UDP`, `TCP` or `TLS`.
    pub fn name(self) -> &'static str {
        match self {
            Transport::Udp => "UDP",
            Transport::Tcp => "TCP",
            Transport::Tls => "TLS",
        }
    }

    /// As it stands in a URI's `transport` parameter, in any case; `None` if we do not have it.
    pub fn of_parameter(value: &str) -> Option<Self> {
        let all = [Transport::Udp, Transport::Tcp, Transport::Tls];
        all.into_iter().find(|it| it.name().eq_ignore_ascii_case(value))
    }

    /// The port where no other is named (RFC 3261 §19.1.2).
    pub fn default_port(self) -> u16 {
        match self {
            Transport::Udp | Transport::Tcp => 5060,
            Transport::Tls => 5061,
        }
    }
}

/// One of our listeners, by its place in [`Config::advertised`](crate::Config::advertised).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub struct Listener(pub u8);

/// Where a message came from or goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Peer {
    pub transport: Transport,
    pub addr: SocketAddr,
    /// Ours: what it sends to, and what it sees us at.
    pub listener: Listener,
}

impl Peer {
    /// One that talks to our first listener.
    pub fn new(transport: Transport, addr: SocketAddr) -> Self {
        Self { transport, addr, listener: Listener::default() }
    }
}

impl fmt::Display for Peer {
    /// `udp:192.0.2.1:5060`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.transport.name().to_ascii_lowercase(), self.addr)
    }
}
