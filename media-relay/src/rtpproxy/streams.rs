//! Commands over TCP and UNIX sockets: a line each, answered in order. Over `unix:` a connection has
//! one command, which need not end with a line feed.

use super::access::Network;
use super::command::COMMAND_BYTES_MAX;
use super::server::{Request, reply_or_replaced};
use crate::metrics;
use anyhow::Context as _;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

/// Connections of one listener.
const CONNECTIONS_MAX: usize = 1_024;
/// How long a client may say nothing, and how long it may take to read a reply.
const SILENCE_MAX: Duration = Duration::from_secs(3_600);
const WRITE_MAX: Duration = Duration::from_secs(5);
/// After an error of the listener, e.g. no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Owner and group of the process may give commands.
const SOCKET_MODE: u32 = 0o660;

/// Binds a socket file, in place of one that nobody serves.
///
/// # Errors
/// If somebody serves it, or it cannot be made.
pub(super) fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(io::ErrorKind::AddrInUse.into());
    }
    let is_socket = |it: fs::Metadata| std::os::unix::fs::FileTypeExt::is_socket(&it.file_type());
    if fs::symlink_metadata(path).is_ok_and(is_socket) {
        fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(SOCKET_MODE))?;
    Ok(listener)
}

/// Serves listed clients; completes only with an error.
pub(super) async fn serve_tcp(
    listener: TcpListener,
    allowed: Arc<[Network]>,
    requests: mpsc::Sender<Request>,
) -> anyhow::Result<()> {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let (stream, client) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(e) => {
                warn!("failed to accept a connection: {e}");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if !allowed.iter().any(|it| it.has(client.ip())) {
            metrics::count_rtpproxy_refused("source");
            continue;
        }
        let Ok(place) = places.clone().try_acquire_owned() else {
            metrics::count_rtpproxy_refused("connections");
            continue;
        };
        let requests = requests.clone();
        tokio::spawn(async move {
            let ended = lines(stream, Some(client.ip()), requests).await;
            debug!(%client, ?ended, "connection ended");
            drop(place);
        });
    }
}

/// Serves whom the permissions of the file let in; completes only with an error.
pub(super) async fn serve_unix(
    listener: UnixListener,
    lasting: bool,
    requests: mpsc::Sender<Request>,
) -> anyhow::Result<()> {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(e) => {
                warn!("failed to accept a connection: {e}");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            metrics::count_rtpproxy_refused("connections");
            continue;
        };
        let requests = requests.clone();
        tokio::spawn(async move {
            let ended = match lasting {
                true => lines(stream, None, requests).await,
                false => one(stream, requests).await,
            };
            debug!(?ended, "connection ended");
            drop(place);
        });
    }
}

/// Answers line after line until the client ends, or sends a line that is too long.
async fn lines(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    client: Option<IpAddr>,
    requests: mpsc::Sender<Request>,
) -> anyhow::Result<()> {
    let mut buffer = vec![0; COMMAND_BYTES_MAX + 2];
    let mut len = 0;
    loop {
        while let Some(end) = buffer[..len].iter().position(|it| *it == b'\n') {
            let line = buffer[..end].to_vec();
            buffer.copy_within(end + 1..len, 0);
            len -= end + 1;
            answer(&mut stream, client, &requests, line).await?;
        }
        if len == buffer.len() {
            // It is answered as such, and nothing after it can be told from its rest.
            return answer(&mut stream, client, &requests, buffer).await;
        }
        let read = timeout(SILENCE_MAX, stream.read(&mut buffer[len..])).await;
        match read.context("wait for a command")?.context("read a command")? {
            0 => return Ok(()),
            read => len += read,
        }
    }
}

/// Answers one command: what comes at once, up to a line feed if there is one.
async fn one(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    requests: mpsc::Sender<Request>,
) -> anyhow::Result<()> {
    let mut buffer = vec![0; COMMAND_BYTES_MAX + 1];
    let read = timeout(SILENCE_MAX, stream.read(&mut buffer)).await;
    let len = read.context("wait for a command")?.context("read a command")?;
    if len == 0 {
        return Ok(());
    }
    let end = buffer[..len].iter().position(|it| *it == b'\n').unwrap_or(len);
    buffer.truncate(end);
    answer(&mut stream, None, &requests, buffer).await
}

async fn answer(
    stream: &mut (impl AsyncWrite + Unpin),
    client: Option<IpAddr>,
    requests: &mpsc::Sender<Request>,
    line: Vec<u8>,
) -> anyhow::Result<()> {
    let (reply, answer) = oneshot::channel();
    requests.send(Request { line, client, reply }).await.context("hand a command over")?;
    let mut reply = reply_or_replaced(answer.await);
    reply.push('\n');
    let written = timeout(WRITE_MAX, stream.write_all(reply.as_bytes())).await;
    written.context("wait for the client to read")?.context("write a reply")
}
