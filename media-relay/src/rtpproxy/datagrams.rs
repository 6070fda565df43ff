//! Commands over UDP: a datagram each, its first word a cookie that comes back before the reply.

use super::access::Network;
use super::command::COMMAND_BYTES_MAX;
use super::reply_cache::{COOKIE_BYTES_MAX, Key, Known, ReplyCache};
use super::server::{Request, reply_or_replaced};
use super::statistics::Commands;
use crate::metrics;
use anyhow::Context as _;
use futures::stream::{FuturesUnordered, StreamExt as _};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot};
use tracing::debug;

/// Commands whose replies are awaited; further datagrams wait in the kernel.
const UNDER_WAY_MAX: usize = 1_024;
/// A cookie, a blank, a command, and one byte to see that it is too long.
const DATAGRAM_BYTES_MAX: usize = COOKIE_BYTES_MAX + 1 + COMMAND_BYTES_MAX + 1;

/// Serves the clients of a socket; completes only with an error.
///
/// # Errors
/// If the socket cannot be read.
pub(super) async fn serve(
    socket: UdpSocket,
    allowed: Arc<[Network]>,
    requests: mpsc::Sender<Request>,
    commands: Arc<Commands>,
) -> anyhow::Result<()> {
    let mut cache = ReplyCache::default();
    let mut under_way = FuturesUnordered::new();
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        tokio::select! {
            received = socket.recv_from(&mut buffer), if under_way.len() < UNDER_WAY_MAX => {
                let (len, client) = match received {
                    Ok(received) => received,
                    // An answer of ours came to a client that has gone.
                    Err(e) if e.kind() == ErrorKind::ConnectionRefused => continue,
                    Err(e) => return Err(e).context("read commands"),
                };
                let Some((key, line)) = read(&allowed, client, &buffer[..len]) else { continue };
                match cache.begin(Instant::now(), &key) {
                    None => (),
                    Some(known) => {
                        commands.repeated.fetch_add(1, Ordering::Relaxed);
                        if let Known::Reply(reply) = known {
                            send(&socket, &key, &reply).await;
                        }
                        continue;
                    }
                }
                let (reply, answer) = oneshot::channel();
                let request = Request { line, client: Some(client.ip()), reply };
                requests.send(request).await.context("hand a command over")?;
                under_way.push(async move { (key, answer.await) });
            }
            Some((key, answer)) = under_way.next() => {
                let reply: Arc<str> = reply_or_replaced(answer).into();
                send(&socket, &key, &reply).await;
                cache.finish(Instant::now(), &key, reply);
            }
        }
    }
}

/// The cookie and the command of a datagram; none if it is not for us.
fn read(allowed: &[Network], client: SocketAddr, datagram: &[u8]) -> Option<(Key, Vec<u8>)> {
    if !allowed.iter().any(|it| it.has(client.ip())) {
        metrics::count_rtpproxy_refused("source");
        return None;
    }
    let datagram = datagram.trim_ascii_start();
    let end = datagram.iter().position(u8::is_ascii_whitespace).unwrap_or(datagram.len());
    let (cookie, line) = datagram.split_at(end);
    let cookie =
        str::from_utf8(cookie).ok().filter(|it| it.bytes().all(|it| it.is_ascii_graphic()));
    match cookie {
        Some(cookie) if (1..=COOKIE_BYTES_MAX).contains(&cookie.len()) => {
            Some((Key { client, cookie: cookie.into() }, line.to_vec()))
        }
        _ => {
            metrics::count_rtpproxy_refused("cookie");
            None
        }
    }
}

async fn send(socket: &UdpSocket, key: &Key, reply: &str) {
    let datagram = format!("{} {reply}\n", key.cookie);
    if let Err(e) = socket.send_to(datagram.as_bytes(), key.client).await {
        debug!(client = %key.client, "failed to send a reply: {e}"); // It will ask again.
    }
}
