//! Timeouts and digits, told to who listens for them: a line each, kept until it was taken.
//!
//! Each listed socket has a task and a queue of its own: one that is away delays no other. There is
//! no acknowledgement in the protocol; a line counts as told when its connection has taken it.

use crate::metrics;
use anyhow::{Context as _, bail};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

/// Lines that wait for one socket; further ones are lost, and counted.
const WAITING_MAX: usize = 16_384;
/// Sockets that lines wait for: one for each address of a client, if the wildcard is listed.
const SOCKETS_MAX: usize = 256;
/// How long a connection may take to stand, and to take a line.
const PATIENCE: Duration = Duration::from_secs(5);
/// Time between attempts: the first, and the longest.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(10);
/// In place of an address: that of the client.
const CLIENT: &str = "%%CC_SELF%%";

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Socket {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// A socket that a client may name, by a flag of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Listed {
    Tcp(SocketAddr),
    /// The client's own address.
    TcpOfClient {
        port: u16,
    },
    Unix(PathBuf),
}

impl FromStr for Listed {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        match text.split_once(':') {
            Some(("tcp", rest)) => match rest.strip_prefix(CLIENT) {
                Some(port) => {
                    let port = port.strip_prefix(':').and_then(|it| it.parse().ok());
                    let port = port.with_context(|| format!("{text:?} ends with no port"))?;
                    Ok(Self::TcpOfClient { port })
                }
                None => Ok(Self::Tcp(rest.parse().context("wanted tcp:ADDR:PORT")?)),
            },
            Some(("unix", path)) if !path.is_empty() => Ok(Self::Unix(path.into())),
            _ => bail!("wanted tcp:ADDR:PORT, tcp:{CLIENT}:PORT or unix:PATH"),
        }
    }
}

/// The socket that a client at `client` means, if it is listed. OpenSIPS names it without its
/// transport.
pub(super) fn listed(named: &str, client: Option<IpAddr>, list: &[Listed]) -> Option<Socket> {
    let transport = match named {
        _ if named.starts_with("tcp:") || named.starts_with("unix:") => "",
        _ if named.starts_with('/') => "unix:",
        _ => "tcp:",
    };
    let socket = match format!("{transport}{named}").parse().ok()? {
        Listed::Tcp(address) => Socket::Tcp(address),
        Listed::TcpOfClient { port } => Socket::Tcp(SocketAddr::new(client?, port)),
        Listed::Unix(path) => Socket::Unix(path),
    };
    let is_listed = list.iter().any(|it| match (it, &socket) {
        (Listed::Tcp(it), Socket::Tcp(address)) => it == address,
        (Listed::TcpOfClient { port }, Socket::Tcp(address)) => {
            Some(address.ip()) == client && address.port() == *port
        }
        (Listed::Unix(it), Socket::Unix(path)) => it == path,
        _ => false,
    });
    is_listed.then_some(socket)
}

#[derive(Debug, Default)]
pub(super) struct Notifier {
    queues: HashMap<Socket, mpsc::Sender<String>>,
}

impl Notifier {
    /// Has a line told; it has no line feed yet.
    pub(super) fn tell(&mut self, socket: &Socket, mut line: String) {
        line.push('\n');
        if !self.queues.contains_key(socket) && self.queues.len() == SOCKETS_MAX {
            metrics::count_notification("lost");
            return;
        }
        let queue = self.queues.entry(socket.clone()).or_insert_with(|| {
            let (sender, lines) = mpsc::channel(WAITING_MAX);
            tokio::spawn(tell_all(socket.clone(), lines));
            sender
        });
        if queue.try_send(line).is_err() {
            metrics::count_notification("lost");
        }
    }
}

enum Connection {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Connection {
    async fn open(socket: &Socket) -> std::io::Result<Self> {
        match socket {
            Socket::Tcp(address) => Ok(Self::Tcp(TcpStream::connect(address).await?)),
            Socket::Unix(path) => Ok(Self::Unix(UnixStream::connect(path).await?)),
        }
    }

    async fn write(&mut self, line: &str) -> std::io::Result<()> {
        if self.has_ended() {
            return Err(std::io::ErrorKind::ConnectionReset.into());
        }
        match self {
            Self::Tcp(it) => it.write_all(line.as_bytes()).await,
            Self::Unix(it) => it.write_all(line.as_bytes()).await,
        }
    }

    /// The peer has gone: it sends nothing, so the first thing to be read is the end.
    fn has_ended(&self) -> bool {
        let mut byte = [0];
        let read = match self {
            Self::Tcp(it) => it.try_read(&mut byte),
            Self::Unix(it) => it.try_read(&mut byte),
        };
        !matches!(read, Ok(1..)) && !read.is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock)
    }
}

/// Tells one line after the other, over one connection as long as it stands.
async fn tell_all(socket: Socket, mut lines: mpsc::Receiver<String>) {
    let mut connection = None;
    while let Some(line) = lines.recv().await {
        let mut pause = RETRY_MIN;
        while let Err(e) = tell(&socket, &mut connection, &line).await {
            if pause == RETRY_MIN {
                warn!(?socket, "failed to notify, and tries again: {e}");
            }
            connection = None;
            sleep(pause).await;
            pause = (2 * pause).min(RETRY_MAX);
        }
        if pause > RETRY_MIN {
            info!(?socket, "notified again");
        }
        metrics::count_notification("told");
    }
}

async fn tell(
    socket: &Socket,
    connection: &mut Option<Connection>,
    line: &str,
) -> std::io::Result<()> {
    let telling = async {
        match connection {
            Some(connection) => connection.write(line).await,
            None => connection.insert(Connection::open(socket).await?).write(line).await,
        }
    };
    timeout(PATIENCE, telling).await.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listed_sockets_are_told() {
        let list = ["tcp:192.0.2.1:9", "tcp:%%CC_SELF%%:7", "unix:/run/n.sock"];
        let list: Vec<Listed> = list.iter().map(|it| it.parse().unwrap()).collect();
        let client = Some("198.51.100.5".parse().unwrap());
        let found = |named: &str| listed(named, client, &list);
        let own = Some(Socket::Tcp("198.51.100.5:7".parse().unwrap()));
        assert_eq!(found("tcp:%%CC_SELF%%:7"), own);
        assert_eq!(found("tcp:198.51.100.5:7"), own);
        assert_eq!(found("unix:/run/n.sock"), Some(Socket::Unix("/run/n.sock".into())));
        assert!(found("tcp:192.0.2.1:9").is_some());
        assert_eq!(found("198.51.100.5:7"), own, "as OpenSIPS names it");
        assert_eq!(found("/run/n.sock"), Some(Socket::Unix("/run/n.sock".into())));
        let others =
            ["tcp:192.0.2.1:10", "tcp:%%CC_SELF%%:8", "unix:/run/o.sock", "0", "tcp:x", "/"];
        for other in others {
            assert_eq!(found(other), None, "{other}");
        }
        assert_eq!(listed("tcp:%%CC_SELF%%:7", None, &list), None, "a client without address");
    }

    #[tokio::test]
    async fn lines_wait_for_who_is_away_and_come_in_order() {
        use tokio::io::{AsyncBufReadExt as _, BufReader};
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("n.sock");
        let mut notifier = Notifier::default();
        for line in ["one", "two"] {
            notifier.tell(&Socket::Unix(path.clone()), line.to_owned());
        }
        tokio::task::yield_now().await; // It has tried in vain.
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let mut lines = BufReader::new(stream).lines();
        assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("one"));
        assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("two"));
        drop(lines);
        notifier.tell(&Socket::Unix(path), "three".to_owned());
        let (stream, _) = listener.accept().await.unwrap();
        let mut lines = BufReader::new(stream).lines();
        assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("three"));
    }
}
