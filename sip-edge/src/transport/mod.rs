//! SIP over UDP and TCP on one port (RFC 3261 §18): whole messages in, bytes out, nothing waits.
//!
//! [`Transports`] owns the sockets. `recv` gives one message or failure at a time and may be
//! dropped at any await; `send` never blocks: what a peer does not take is queued within a limit,
//! and past that limit the peer, alone, is given up. A request over 1,300 bytes still goes by UDP
//! if its peer is a UDP one (RFC 3261 §18.1.1 wants TCP; fragments work in the networks that we
//! are meant for).

mod tcp;
mod udp;

use anyhow::Context as _;
use bytes::Bytes;
use sip::{Peer, Transport};
use std::collections::VecDeque;
use std::net::SocketAddr;
use tcp::Tcp;
use udp::Udp;

/// Failures that wait to be told; more at once tell nothing new, since transactions time out.
const MAX_FAILURES: usize = 1024;

/// Attempts to find a port that is free for both UDP and TCP, if the port asked for is 0.
const PORT_ATTEMPTS: usize = 16;

/// What the network brought.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// One whole SIP message, or a datagram that may be anything.
    Message { source: Peer, bytes: Bytes },
    /// Nothing more goes to this peer for now: connection lost or refused, or send failed.
    Failed { peer: Peer },
}

/// The UDP socket, the TCP listener and all its connections.
pub(crate) struct Transports {
    udp: Udp,
    tcp: Tcp,
    failures: VecDeque<Peer>,
}

impl Transports {
    /// Binds UDP and TCP to the same port of `addr`; port 0 takes one that is free for both.
    ///
    /// # Errors
    /// The address is not of this host, or the port is taken.
    pub(crate) fn bind(addr: SocketAddr) -> anyhow::Result<Self> {
        let mut attempts = if addr.port() == 0 { PORT_ATTEMPTS } else { 1 };
        loop {
            attempts -= 1;
            let udp = Udp::bind(addr).with_context(|| format!("bind SIP to UDP {addr}"))?;
            let addr = udp.local_addr();
            match Tcp::bind(addr) {
                Ok(tcp) => return Ok(Self { udp, tcp, failures: VecDeque::new() }),
                Err(error) if attempts == 0 => {
                    return Err(error).with_context(|| format!("bind SIP to TCP {addr}"));
                }
                Err(_) => (),
            }
        }
    }

    /// The bound address, with the port that was taken.
    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.udp.local_addr()
    }

    /// The next message or failure. Cancel-safe: nothing is lost if the future is dropped.
    pub(crate) async fn recv(&mut self) -> Received {
        if let Some(peer) = self.failures.pop_front() {
            return Received::Failed { peer };
        }
        loop {
            let received = tokio::select! {
                received = self.udp.recv() => Some(received),
                event = self.tcp.next_event() => self.tcp.handle(event),
            };
            if let Some(received) = received {
                return received;
            }
        }
    }

    /// Sends one whole message or gives the peer up; never waits. By TCP it connects if there is
    /// no connection. A failure comes out of [`Transports::recv`].
    pub(crate) fn send(&mut self, peer: Peer, bytes: Bytes) {
        let sent = match peer.transport {
            Transport::Udp => self.udp.send(peer.addr, bytes),
            Transport::Tcp => self.tcp.send(peer.addr, bytes),
        };
        if sent.is_err() && self.failures.len() < MAX_FAILURES {
            self.failures.push_back(peer);
        }
    }
}

/// The peer cannot be sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Unreachable;

#[cfg(test)]
mod tests;
