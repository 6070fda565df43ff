//! TCP connections, one task each: a peer that does not read or write stalls only its own.

use super::{Received, Unreachable};
use bytes::Bytes;
use sip::{Frame, Framer, PONG, Peer, Transport};
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::{self, Instant};

/// Connections at once, both ways; further ones are closed as soon as they are accepted.
pub(super) const MAX_CONNECTIONS: usize = 10_000;
/// Messages that wait for one peer to read; at the next one its connection is closed.
pub(super) const MAX_QUEUED_PER_PEER: usize = 256;
/// Events of all connections that wait for the user agent; readers pause when it is full.
const MAX_EVENTS: usize = 1024;
const LISTEN_BACKLOG: i32 = 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// One message must be taken by the peer's TCP within this.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// A message that has begun, and the first of a connection, must be whole within this.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(30);
/// Silence after which a connection is closed: longer than a registration lasts.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3_900);
/// Wait after a failed accept, which is mostly for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const READ_BYTES: usize = 16 * 1024;

pub(super) enum Event {
    Accepted(TcpStream, SocketAddr),
    Message { addr: SocketAddr, bytes: Bytes },
    Closed { addr: SocketAddr, id: u64 },
}

struct Connection {
    id: u64,
    queue: mpsc::Sender<Bytes>,
    task: AbortHandle,
}

pub(super) struct Tcp {
    connections: HashMap<SocketAddr, Connection>,
    last_id: u64,
    events: mpsc::Receiver<Event>,
    events_tx: mpsc::Sender<Event>,
    accepting: AbortHandle,
}

impl Drop for Tcp {
    fn drop(&mut self) {
        self.accepting.abort();
        self.connections.values().for_each(|connection| connection.task.abort());
    }
}

impl Tcp {
    pub(super) fn bind(addr: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
        if addr.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_reuse_address(true)?; // A restart must not wait for old connections.
        socket.set_nonblocking(true)?;
        socket.bind(&addr.into())?;
        socket.listen(LISTEN_BACKLOG)?;
        let listener = TcpListener::from_std(socket.into())?;
        let (events_tx, events) = mpsc::channel(MAX_EVENTS);
        let accepting = tokio::spawn(accept(listener, events_tx.clone())).abort_handle();
        Ok(Self { connections: HashMap::new(), last_id: 0, events, events_tx, accepting })
    }

    pub(super) async fn next_event(&mut self) -> Event {
        self.events.recv().await.expect("the sender is held beside the receiver")
    }

    pub(super) fn handle(&mut self, event: Event) -> Option<Received> {
        match event {
            Event::Accepted(stream, addr) => {
                if self.connections.len() < MAX_CONNECTIONS {
                    self.open(addr, Some(stream));
                }
                None
            }
            Event::Message { addr, bytes } => Some(Received::Message { source: peer(addr), bytes }),
            Event::Closed { addr, id } => {
                let ours = self.connections.get(&addr).is_some_and(|it| it.id == id);
                ours.then(|| self.connections.remove(&addr))?;
                Some(Received::Failed { peer: peer(addr) })
            }
        }
    }

    pub(super) fn send(&mut self, addr: SocketAddr, bytes: Bytes) -> Result<(), Unreachable> {
        if !self.connections.contains_key(&addr) {
            if self.connections.len() >= MAX_CONNECTIONS {
                return Err(Unreachable);
            }
            self.open(addr, None);
        }
        let sent = self.connections[&addr].queue.try_send(bytes);
        sent.map_err(|_| {
            if let Some(connection) = self.connections.remove(&addr) {
                connection.task.abort(); // Full: it does not read. Closed: its event is on its way.
            }
            Unreachable
        })
    }

    fn open(&mut self, addr: SocketAddr, stream: Option<TcpStream>) {
        self.last_id += 1;
        let id = self.last_id;
        let (queue, queued) = mpsc::channel(MAX_QUEUED_PER_PEER);
        let link = Link { addr, events: self.events_tx.clone(), pongs: queue.downgrade() };
        let task = tokio::spawn(async move {
            let events = link.events.clone();
            link.run(stream, queued).await;
            let _ = events.send(Event::Closed { addr, id }).await; // Nobody left to tell: fine.
        });
        let task = task.abort_handle();
        if let Some(old) = self.connections.insert(addr, Connection { id, queue, task }) {
            old.task.abort();
        }
    }
}

fn peer(addr: SocketAddr) -> Peer {
    Peer { transport: Transport::Tcp, addr }
}

async fn accept(listener: TcpListener, events: mpsc::Sender<Event>) {
    loop {
        match listener.accept().await {
            Ok((stream, addr)) => {
                if events.send(Event::Accepted(stream, addr)).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "failed to accept a TCP connection");
                time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One connection, seen from its task.
struct Link {
    addr: SocketAddr,
    events: mpsc::Sender<Event>,
    pongs: mpsc::WeakSender<Bytes>,
}

impl Link {
    /// Connects if need be, then reads and writes until either ends.
    async fn run(&self, stream: Option<TcpStream>, queued: mpsc::Receiver<Bytes>) {
        let stream = match stream {
            Some(stream) => Ok(stream),
            None => time::timeout(CONNECT_TIMEOUT, TcpStream::connect(self.addr))
                .await
                .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
        };
        let ended = match stream {
            Ok(stream) => {
                let _ = stream.set_nodelay(true); // A delay, not a failure, if it cannot be set.
                let (reader, writer) = stream.into_split();
                tokio::select! {
                    ended = self.read(reader) => ended,
                    ended = write(writer, queued) => ended,
                }
            }
            Err(error) => Err(error.into()),
        };
        if let Err(error) = ended {
            tracing::debug!(addr = %self.addr, "closed a TCP connection: {error:#}");
        }
    }

    async fn read(&self, reader: OwnedReadHalf) -> anyhow::Result<()> {
        let mut framer = Framer::new();
        let mut due = Instant::now() + MESSAGE_TIMEOUT;
        loop {
            time::timeout_at(due, reader.readable()).await??;
            let was_idle = framer.is_empty();
            match take(&reader, &mut framer) {
                Ok(0) => return Ok(()),
                Ok(_) => (),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error.into()),
            }
            let mut whole = false;
            while let Some(frame) = framer.next_frame()? {
                whole = true;
                match frame {
                    Frame::Message(bytes) => {
                        self.events.send(Event::Message { addr: self.addr, bytes }).await?;
                    }
                    Frame::Ping => self.pong(),
                }
            }
            due = match (framer.is_empty(), was_idle || whole) {
                (true, _) => Instant::now() + IDLE_TIMEOUT,
                (false, true) => Instant::now() + MESSAGE_TIMEOUT,
                (false, false) => due, // Byte by byte does not buy time.
            };
        }
    }

    /// A peer that pings without reading gets no more pongs than its queue holds.
    fn pong(&self) {
        if let Some(queue) = self.pongs.upgrade() {
            let _ = queue.try_send(Bytes::from_static(PONG));
        }
    }
}

/// Moves what has come into the framer. The buffer is not the connection's, so that one without
/// traffic costs none.
fn take(reader: &OwnedReadHalf, framer: &mut Framer) -> io::Result<usize> {
    let mut buffer = [0; READ_BYTES];
    let len = reader.try_read(&mut buffer)?;
    framer.push(&buffer[..len]);
    Ok(len)
}

/// Writes until the queue's owner is gone, or the peer does not take one message in time.
async fn write(
    mut writer: OwnedWriteHalf,
    mut queued: mpsc::Receiver<Bytes>,
) -> anyhow::Result<()> {
    while let Some(bytes) = queued.recv().await {
        time::timeout(WRITE_TIMEOUT, writer.write_all(&bytes)).await??;
    }
    Ok(())
}
