//! All connections, TCP and TLS, one task each: a peer that does not read or write stalls only its
//! own. One that stands is used both ways, by whoever opened it (RFC 5923).

use super::link::{Link, Opening};
use super::tls::Tls;
use super::{Received, Unreachable};
use crate::metrics;
use bytes::Bytes;
use sip::{Listener, Peer, Transport};
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time;

/// Connections at once, both ways; further ones are closed as soon as they are accepted.
pub(super) const MAX_CONNECTIONS: usize = 10_000;
/// Connections from one address; a flood of them leaves room for the others.
pub(super) const MAX_CONNECTIONS_PER_HOST: usize = 2_000;
/// Messages that wait for one peer to read; at the next one its connection is closed.
pub(super) const MAX_QUEUED_PER_PEER: usize = 256;
/// Host names that are remembered for the certificates of peers.
const MAX_NAMES: usize = 10_000;
/// Events of all connections that wait for the user agent; readers pause when it is full.
const MAX_EVENTS: usize = 1024;
const LISTEN_BACKLOG: i32 = 1024;
/// Wait after a failed accept, which is mostly for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

pub(super) enum Event {
    Accepted(TcpStream, Peer),
    Message {
        source: Peer,
        bytes: Bytes,
    },
    Closed {
        peer: Peer,
        id: u64,
        /// It sent what is no SIP.
        malformed: bool,
    },
}

struct Connection {
    id: u64,
    queue: mpsc::Sender<Bytes>,
    task: AbortHandle,
    /// Where its other end listens, if it said so.
    alias: Option<Peer>,
}

pub(super) struct Streams {
    connections: HashMap<Peer, Connection>,
    /// Address where a peer listens → its connection.
    aliases: HashMap<Peer, Peer>,
    per_host: HashMap<IpAddr, usize>,
    /// Whose certificate is wanted at an address, if not the address's own.
    names: HashMap<SocketAddr, String>,
    /// What is bound, by listener.
    local_addrs: HashMap<Listener, SocketAddr>,
    tls: Option<Tls>,
    last_id: u64,
    events: mpsc::Receiver<Event>,
    events_tx: mpsc::Sender<Event>,
    accepting: Vec<(Listener, AbortHandle)>,
}

impl Drop for Streams {
    fn drop(&mut self) {
        self.accepting.iter().for_each(|(_, accepting)| accepting.abort());
        self.connections.values().for_each(|connection| connection.task.abort());
    }
}

impl Streams {
    pub(super) fn new(tls: Option<Tls>) -> Self {
        let (events_tx, events) = mpsc::channel(MAX_EVENTS);
        Self {
            connections: HashMap::new(),
            aliases: HashMap::new(),
            per_host: HashMap::new(),
            names: HashMap::new(),
            local_addrs: HashMap::new(),
            tls,
            last_id: 0,
            events,
            events_tx,
            accepting: Vec::new(),
        }
    }

    /// Begins to accept on `addr`; what was bound.
    pub(super) fn listen(
        &mut self,
        transport: Transport,
        addr: SocketAddr,
        listener: Listener,
    ) -> io::Result<SocketAddr> {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
        if addr.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_reuse_address(true)?; // A restart must not wait for old connections.
        socket.set_nonblocking(true)?;
        socket.bind(&addr.into())?;
        socket.listen(LISTEN_BACKLOG)?;
        let listening = TcpListener::from_std(socket.into())?;
        let bound = listening.local_addr()?;
        self.local_addrs.insert(listener, bound);
        let events = self.events_tx.clone();
        let accepting = tokio::spawn(accept(listening, transport, listener, events));
        self.accepting.push((listener, accepting.abort_handle()));
        Ok(bound)
    }

    /// Ends the listeners from `first` on; their connections go on.
    pub(super) fn close_from(&mut self, first: Listener) {
        self.accepting.retain(|(listener, accepting)| {
            if *listener >= first {
                accepting.abort();
            }
            *listener < first
        });
        self.local_addrs.retain(|listener, _| *listener < first);
    }

    pub(super) fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Received> {
        while let Poll::Ready(event) = self.events.poll_recv(cx) {
            let event = event.expect("the sender is held beside the receiver");
            if let Some(received) = self.handle(event) {
                return Poll::Ready(received);
            }
        }
        Poll::Pending
    }

    fn handle(&mut self, event: Event) -> Option<Received> {
        match event {
            Event::Accepted(stream, peer) => {
                match self.has_room(peer) {
                    true => self.open(peer, Some(stream)),
                    false => metrics::sip_discarded("too_many_connections"),
                }
                None
            }
            Event::Message { source, bytes } => Some(Received::Message { source, bytes }),
            Event::Closed { peer, id, malformed } => {
                self.connections.get(&peer).filter(|it| it.id == id)?;
                self.forget(peer);
                Some(match malformed {
                    true => Received::Malformed { peer },
                    false => Received::Failed { peer },
                })
            }
        }
    }

    fn has_room(&self, peer: Peer) -> bool {
        let of_host = self.per_host.get(&peer.addr.ip()).copied().unwrap_or_default();
        self.connections.len() < MAX_CONNECTIONS && of_host < MAX_CONNECTIONS_PER_HOST
    }

    /// Over the connection that stands, the peer's own or one that it asked us to use, or over a
    /// new one.
    pub(super) fn send(&mut self, peer: Peer, bytes: Bytes) -> Result<(), Unreachable> {
        let mut peer = peer;
        if !self.connections.contains_key(&peer) {
            match self.aliases.get(&peer) {
                Some(connection) => peer = *connection,
                None if self.has_room(peer) => self.open(peer, None),
                None => {
                    metrics::sip_discarded("too_many_connections");
                    return Err(Unreachable);
                }
            }
        }
        let sent = self.connections[&peer].queue.try_send(bytes);
        sent.map_err(|_| {
            // Full: it does not read. Closed: its event is on its way.
            metrics::sip_discarded("peer_does_not_read");
            if let Some(connection) = self.forget(peer) {
                connection.task.abort();
            }
            Unreachable
        })
    }

    /// What is meant for `alias` goes over the connection of `peer`, while that stands. The newest
    /// connection counts: its peer has begun anew.
    pub(super) fn alias(&mut self, peer: Peer, alias: Peer) {
        let Some(connection) = self.connections.get_mut(&peer) else { return };
        if let Some(old) = connection.alias.replace(alias)
            && old != alias
            && self.aliases.get(&old) == Some(&peer)
        {
            self.aliases.remove(&old);
        }
        self.aliases.insert(alias, peer);
    }

    /// The certificate at `addr` must be for `name`. Without this it must be for the address.
    pub(super) fn expect_name(&mut self, addr: SocketAddr, name: &str) {
        if self.names.len() >= MAX_NAMES {
            self.names.clear(); // They are told again with each lookup.
        }
        self.names.insert(addr, name.to_owned());
    }

    fn open(&mut self, peer: Peer, stream: Option<TcpStream>) {
        self.last_id += 1;
        let id = self.last_id;
        let (queue, queued) = mpsc::channel(MAX_QUEUED_PER_PEER);
        let opening = Opening {
            stream,
            local_ip: self.local_addrs.get(&peer.listener).map(SocketAddr::ip),
            tls: self.tls.clone().filter(|_| peer.transport == Transport::Tls),
            name: self.names.get(&peer.addr).cloned(),
        };
        let link = Link { peer, events: self.events_tx.clone(), pongs: queue.downgrade() };
        let task = tokio::spawn(async move {
            let events = link.events.clone();
            let malformed = link.run(opening, queued).await;
            let closed = Event::Closed { peer, id, malformed };
            let _ = events.send(closed).await; // Nobody left to tell: fine.
        });
        let task = task.abort_handle();
        if let Some(old) = self.forget(peer) {
            old.task.abort();
        }
        *self.per_host.entry(peer.addr.ip()).or_default() += 1;
        self.connections.insert(peer, Connection { id, queue, task, alias: None });
    }

    fn forget(&mut self, peer: Peer) -> Option<Connection> {
        let connection = self.connections.remove(&peer)?;
        if let Some(alias) = connection.alias
            && self.aliases.get(&alias) == Some(&peer)
        {
            self.aliases.remove(&alias);
        }
        let ip = peer.addr.ip();
        if let Some(count) = self.per_host.get_mut(&ip) {
            *count -= 1;
            if *count == 0 {
                self.per_host.remove(&ip);
            }
        }
        Some(connection)
    }
}

async fn accept(
    listening: TcpListener,
    transport: Transport,
    listener: Listener,
    events: mpsc::Sender<Event>,
) {
    loop {
        match listening.accept().await {
            Ok((stream, addr)) => {
                let peer = Peer { transport, addr, listener };
                if events.send(Event::Accepted(stream, peer)).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "failed to accept a connection");
                time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
