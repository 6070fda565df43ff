//! One connection, seen from its task: it opens, reads messages and writes what is queued. What is
//! particular to a transport is [`Link::establish`]; all else is a stream of bytes.

use super::streams::Event;
use super::tls::Tls;
use anyhow::Context as _;
use bytes::Bytes;
use sip::{Frame, FrameError, Framer, PONG, Peer, Transport};
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::ready;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf, ReadHalf, WriteHalf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{self, Instant};

/// How long a connection may take to stand, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// One message must be taken by the peer within this.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// A message that has begun, and the first of a connection, must be whole within this.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(30);
/// Silence after which a connection is closed: longer than a registration lasts.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3_900);
/// Silence of ours after which a connection that we opened is kept alive (RFC 5626 §4.4.1: 95 to
/// 120 s).
const KEEP_ALIVE: Duration = Duration::from_secs(100);
/// What keeps it alive.
const PING: &[u8] = b"\r\n\r\n";
const READ_BYTES: usize = 16 * 1024;

/// What carries the bytes of one connection.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// What a connection begins with.
pub(super) struct Opening {
    /// The one that was accepted; without it, we connect.
    pub(super) stream: Option<TcpStream>,
    /// What our listener is bound to.
    pub(super) local_ip: Option<IpAddr>,
    pub(super) tls: Option<Tls>,
    /// Whose certificate we want to see.
    pub(super) name: Option<String>,
}

pub(super) struct Link {
    pub(super) peer: Peer,
    pub(super) events: mpsc::Sender<Event>,
    pub(super) pongs: mpsc::WeakSender<Bytes>,
}

impl Link {
    /// Opens the connection, then reads and writes until either ends; whether that was because the
    /// peer sent what is no SIP.
    pub(super) async fn run(&self, opening: Opening, queued: mpsc::Receiver<Bytes>) -> bool {
        let is_ours = opening.stream.is_none();
        let established = time::timeout(CONNECT_TIMEOUT, self.establish(opening)).await;
        let ended = match established.context("wait for the connection").flatten() {
            Ok(stream) => {
                let (reader, writer) = tokio::io::split(stream);
                tokio::select! {
                    ended = self.read(reader) => ended,
                    ended = write(writer, queued, is_ours) => ended,
                }
            }
            Err(error) => Err(error),
        };
        let Err(error) = ended else { return false };
        tracing::debug!(peer = %self.peer, "closed a connection: {error:#}");
        error.is::<FrameError>()
    }

    async fn establish(&self, opening: Opening) -> anyhow::Result<Box<dyn Stream>> {
        let Opening { stream, local_ip, tls, name } = opening;
        let is_ours = stream.is_none();
        let stream = match stream {
            Some(stream) => stream,
            None => connect(self.peer.addr, local_ip).await.context("connect")?,
        };
        let _ = stream.set_nodelay(true); // A delay, not a failure, if it cannot be set.
        match (self.peer.transport, tls) {
            (Transport::Tls, Some(tls)) if is_ours => {
                let name = name.unwrap_or_else(|| self.peer.addr.ip().to_string());
                let name = name.try_into().context("read the name for the certificate")?;
                Ok(Box::new(tls.connect(stream, name).await.context("begin TLS")?))
            }
            (Transport::Tls, Some(tls)) => {
                Ok(Box::new(tls.accept(stream).await.context("accept TLS")?))
            }
            (Transport::Tls, None) => anyhow::bail!("begin TLS: there is no certificate"),
            (Transport::Tcp | Transport::Udp, _) => Ok(Box::new(stream)),
        }
    }

    async fn read(&self, mut reader: ReadHalf<Box<dyn Stream>>) -> anyhow::Result<()> {
        let mut framer = Framer::new();
        let mut due = Instant::now() + MESSAGE_TIMEOUT;
        loop {
            let was_idle = framer.is_empty();
            if time::timeout_at(due, take(&mut reader, &mut framer)).await?? == 0 {
                return Ok(());
            }
            let mut whole = false;
            while let Some(frame) = framer.next_frame()? {
                whole = true;
                match frame {
                    Frame::Message(bytes) => {
                        self.events.send(Event::Message { source: self.peer, bytes }).await?;
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

/// From the address that our listener is bound to, if it is bound to one: the peer may know us by it.
async fn connect(addr: SocketAddr, local_ip: Option<IpAddr>) -> io::Result<TcpStream> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    let same_family = |ip: &IpAddr| ip.is_ipv4() == addr.is_ipv4() && !ip.is_unspecified();
    if let Some(ip) = local_ip.filter(same_family) {
        socket.bind(SocketAddr::new(ip, 0))?;
    }
    socket.connect(addr).await
}

/// Moves what comes next into the framer; how many bytes. The buffer is not the connection's, so
/// that one without traffic costs none.
async fn take(reader: &mut ReadHalf<Box<dyn Stream>>, framer: &mut Framer) -> io::Result<usize> {
    poll_fn(|cx| {
        let mut bytes = [0; READ_BYTES];
        let mut buffer = ReadBuf::new(&mut bytes);
        ready!(Pin::new(&mut *reader).poll_read(cx, &mut buffer))?;
        framer.push(buffer.filled());
        std::task::Poll::Ready(Ok(buffer.filled().len()))
    })
    .await
}

/// Writes until the queue's owner is gone, or the peer does not take one message in time.
async fn write(
    mut writer: WriteHalf<Box<dyn Stream>>,
    mut queued: mpsc::Receiver<Bytes>,
    keep_alive: bool,
) -> anyhow::Result<()> {
    loop {
        let bytes = match time::timeout(KEEP_ALIVE, queued.recv()).await {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Ok(()),
            Err(_) if keep_alive => Bytes::from_static(PING),
            Err(_) => continue,
        };
        let written = async {
            writer.write_all(&bytes).await?;
            writer.flush().await // TLS keeps what it has not sent.
        };
        time::timeout(WRITE_TIMEOUT, written).await??;
    }
}
