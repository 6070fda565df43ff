//! SIP over UDP, TCP and TLS (RFC 3261 §18): whole messages in, bytes out, nothing waits.
//!
//! [`Transports`] owns the sockets of all listeners. `recv` gives one message or failure at a time
//! and may be dropped at any await; `send` never blocks: what a peer does not take is queued within
//! a limit, and past that limit the peer, alone, is given up.
//!
//! `udp` is datagrams; `streams` holds all connections and `link` is one of them, whatever carries
//! it. Another transport with connections, such as WebSocket, is a file like `tls` and a line in
//! `link`.

mod link;
mod listen;
mod streams;
mod tls;
mod udp;

pub(crate) use listen::Listen;
pub(crate) use tls::{Files, Tls};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use sip::{Advertised, HostPort, Listener, Listening, Peer, Transport};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::task::{Context, Poll};
use streams::Streams;
use udp::Udp;

/// Failures that wait to be told; more at once tell nothing new, since transactions time out.
const MAX_FAILURES: usize = 1024;

/// Listeners: a peer remembers its own in one byte.
const MAX_LISTENERS: usize = 64;

/// Attempts to find a port that is free for all transports, if the port asked for is 0.
const PORT_ATTEMPTS: usize = 16;

/// What the network brought.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// One whole SIP message, or a datagram that may be anything.
    Message { source: Peer, bytes: Bytes },
    /// Nothing more goes to this peer for now: connection lost or refused, or send failed.
    Failed { peer: Peer },
    /// As [`Received::Failed`], because it sent what is no SIP.
    Malformed { peer: Peer },
}

/// A listener that is bound.
#[derive(Clone, Debug)]
pub(crate) struct Bound {
    pub(crate) transport: Transport,
    pub(crate) addr: SocketAddr,
    pub(crate) advertised: HostPort,
}

/// The UDP sockets, the listeners and all connections.
pub(crate) struct Transports {
    /// In the order of the listeners; `None` is one with connections.
    udp: Vec<Option<Udp>>,
    streams: Streams,
    bound: Vec<Bound>,
    failures: VecDeque<Peer>,
    /// Which socket is read first: each in its turn, so that none starves the others.
    turn: usize,
}

impl Transports {
    /// Binds all listeners; port 0 takes one that is free for all transports of that listener.
    ///
    /// # Errors
    /// An address is not of this host, a port is taken, TLS has no certificate, or nothing says
    /// where peers reach a listener on every address.
    pub(crate) fn bind(all: &[Listen], tls: Option<&Tls>) -> anyhow::Result<Self> {
        let streams = Streams::new(tls.cloned());
        let (udp, bound, failures) = (Vec::new(), Vec::new(), VecDeque::new());
        let mut transports = Self { udp, streams, bound, failures, turn: 0 };
        for listen in all {
            if listen.transports.contains(&Transport::Tls) && tls.is_none() {
                bail!("listen for TLS at {}: give --tls-cert and --tls-key", listen.addr);
            }
            if transports.bound.len() + listen.transports.len() > MAX_LISTENERS {
                bail!("listen at {}: {MAX_LISTENERS} listeners are the most", listen.addr);
            }
            transports.bind_one(listen)?;
        }
        Ok(transports)
    }

    fn bind_one(&mut self, listen: &Listen) -> anyhow::Result<()> {
        let mut attempts = if listen.addr.port() == 0 { PORT_ATTEMPTS } else { 1 };
        loop {
            attempts -= 1;
            let (before, mut addr) = (self.bound.len(), listen.addr);
            let bound = listen.transports.iter().try_for_each(|transport| {
                addr = self.bind_transport(*transport, addr, listen.advertise.as_ref())?;
                Ok(())
            });
            match bound {
                Err(_) if attempts > 0 => {
                    self.udp.truncate(before); // Another port may be free for all of them.
                    self.bound.truncate(before);
                    self.streams.close_from(Listener(before as u8));
                }
                bound => return bound,
            }
        }
    }

    fn bind_transport(
        &mut self,
        transport: Transport,
        addr: SocketAddr,
        advertise: Option<&HostPort>,
    ) -> anyhow::Result<SocketAddr> {
        let listener = Listener(self.bound.len() as u8);
        let context = || format!("bind SIP to {} {addr}", transport.name());
        let (udp, bound) = match transport {
            Transport::Udp => {
                let udp = Udp::bind(addr, listener).with_context(context)?;
                let bound = udp.local_addr().with_context(context)?;
                (Some(udp), bound)
            }
            Transport::Tcp | Transport::Tls => {
                let bound = self.streams.listen(transport, addr, listener);
                (None, bound.with_context(context)?)
            }
        };
        let advertised = match advertise {
            Some(HostPort { host, port }) => HostPort::new(host, port.unwrap_or(bound.port())),
            None if bound.ip().is_unspecified() => bail!(
                "advertise {bound}: it is every address of this host; say by --advertise, or by \
                 ;advertise= behind it, where peers reach us"
            ),
            None => HostPort::new(bound.ip().to_string(), bound.port()),
        };
        self.udp.push(udp);
        self.bound.push(Bound { transport, addr: bound, advertised });
        Ok(bound)
    }

    /// What is bound, in the order of the listeners.
    pub(crate) fn bound(&self) -> &[Bound] {
        &self.bound
    }

    /// Where peers reach us; `None` without a listener.
    pub(crate) fn advertised(&self) -> Option<Advertised> {
        let mut listening = self.bound.iter().map(|bound| Listening {
            transport: bound.transport,
            is_ipv6: bound.addr.is_ipv6(),
            host_port: bound.advertised.clone(),
        });
        let first = listening.next()?;
        Some(Advertised::new(first, listening))
    }

    /// The next message or failure. Cancel-safe: nothing is lost if the future is dropped.
    pub(crate) async fn recv(&mut self) -> Received {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Received> {
        if let Some(peer) = self.failures.pop_front() {
            return Poll::Ready(Received::Failed { peer });
        }
        let sockets = self.udp.len() + 1; // The connections count as one.
        self.turn = (self.turn + 1) % sockets;
        for index in 0..sockets {
            let received = match self.udp.get_mut((self.turn + index) % sockets) {
                Some(Some(udp)) => udp.poll_recv(cx),
                Some(None) => Poll::Pending,
                None => self.streams.poll_recv(cx),
            };
            if received.is_ready() {
                return received;
            }
        }
        Poll::Pending
    }

    /// Sends one whole message or gives the peer up; never waits. Without a connection, one is
    /// opened. A failure comes out of [`Transports::recv`].
    pub(crate) fn send(&mut self, peer: Peer, bytes: Bytes) {
        let sent = match peer.transport {
            Transport::Udp => match self.udp.get_mut(usize::from(peer.listener.0)) {
                Some(Some(udp)) => udp.send(peer.addr, bytes),
                _ => Err(Unreachable), // Nothing of ours speaks UDP with that address family.
            },
            Transport::Tcp | Transport::Tls => self.streams.send(peer, bytes),
        };
        if sent.is_err() && self.failures.len() < MAX_FAILURES {
            self.failures.push_back(peer);
        }
    }

    /// What is meant for `alias` goes over the connection of `peer`, while that stands (RFC 5923).
    pub(crate) fn alias(&mut self, peer: Peer, alias: Peer) {
        self.streams.alias(peer, alias);
    }

    /// By TLS, whoever is at `addr` must prove to be `name` (RFC 5922 §7.2).
    pub(crate) fn expect_name(&mut self, addr: SocketAddr, name: &str) {
        self.streams.expect_name(addr, name);
    }
}

/// The peer cannot be sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Unreachable;

#[cfg(test)]
mod tests;
