//! The rtpproxy control protocol (version 20040107), for Kamailio and OpenSIPS: the second shell of
//! the core, beside gRPC.
//!
//! Its clients rewrite session descriptions by themselves. They ask for a port for each party (`U`
//! for who offers, `L` for who answers), and for music (`P`, `S`), recordings (`R`, `C`, `N`),
//! statistics (`Q`, `G`, `I`) and the end (`D`, `X`). A party is side A or B of a media session whose
//! packets go on as they came.
//!
//! [`command`] reads, [`server`] does, one command after the other; [`datagrams`] and [`streams`]
//! carry. What a call is to its client is in [`calls`]; ports and media are the core's.

mod access;
mod calls;
mod command;
mod datagrams;
mod error_code;
mod listen;
mod modifiers;
mod notifier;
mod parties;
mod place;
mod playing;
mod recording;
mod reply_cache;
mod server;
mod statistics;
mod streams;
mod sub_command;
mod tag;

#[cfg(test)]
mod tests;

pub(crate) use access::Network;
pub(crate) use listen::Listen;
pub(crate) use notifier::Listed;
pub(crate) use server::{Server, Settings};

use anyhow::Context as _;
use server::Request;
use statistics::Commands;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, UdpSocket, UnixListener};
use tokio::sync::mpsc;
use tracing::info;

/// Commands that wait for the server; further ones wait in the kernel.
const REQUESTS_MAX: usize = 1_024;

/// How long the process lives on after its last session: the reply to who has ended it is on its way.
pub(crate) const LAST_REPLY: Duration = Duration::from_secs(1);

/// Bound, but not served yet: a taken port is found before any work.
pub(crate) enum Bound {
    Udp(UdpSocket),
    Tcp(TcpListener),
    Unix { listener: UnixListener, lasting: bool },
}

/// Binds where clients will find us. A socket file that a dead process has left is replaced.
///
/// # Errors
/// If an address is taken or not of this machine, or a socket file cannot be made.
pub(crate) async fn bind(listens: &[Listen]) -> anyhow::Result<Vec<Bound>> {
    let mut bound = Vec::new();
    for listen in listens {
        bound.push(match listen {
            Listen::Udp(address) => Bound::Udp(
                UdpSocket::bind(address)
                    .await
                    .with_context(|| format!("bind --rtpproxy-listen udp:{address}"))?,
            ),
            Listen::Tcp(address) => Bound::Tcp(
                TcpListener::bind(address)
                    .await
                    .with_context(|| format!("bind --rtpproxy-listen tcp:{address}"))?,
            ),
            Listen::Unix { path, lasting } => {
                let listener = streams::bind_unix(path)
                    .with_context(|| format!("bind --rtpproxy-listen {}", path.display()))?;
                Bound::Unix { listener, lasting: *lasting }
            }
        });
    }
    Ok(bound)
}

/// Serves clients; completes only with an error.
///
/// # Errors
/// If a socket fails.
pub(crate) async fn serve(
    bound: Vec<Bound>,
    allowed: Vec<Network>,
    server: Server,
) -> anyhow::Result<()> {
    let (requests_tx, requests) = mpsc::channel::<Request>(REQUESTS_MAX);
    let allowed: Arc<[Network]> = allowed.into();
    let commands: Arc<Commands> = server.commands();
    let mut listening = tokio::task::JoinSet::new();
    for bound in bound {
        let (requests, allowed, commands) =
            (requests_tx.clone(), allowed.clone(), commands.clone());
        match bound {
            Bound::Udp(socket) => {
                info!(address = ?socket.local_addr(), "rtpproxy protocol over UDP");
                listening.spawn(datagrams::serve(socket, allowed, requests, commands));
            }
            Bound::Tcp(listener) => {
                info!(address = ?listener.local_addr(), "rtpproxy protocol over TCP");
                listening.spawn(streams::serve_tcp(listener, allowed, requests));
            }
            Bound::Unix { listener, lasting } => {
                info!(address = ?listener.local_addr(), lasting, "rtpproxy protocol over UNIX");
                listening.spawn(streams::serve_unix(listener, lasting, requests));
            }
        }
    }
    tokio::select! {
        served = server.run(requests) => served,
        Some(ended) = listening.join_next() => ended.context("keep a listener running")?,
    }
}
