//! media-relay driven by the rtpproxy protocol, as Kamailio would.

use crate::commands::place;
use anyhow::{Context as _, ensure};
use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::time::Duration;

/// Commands that are under way at the same time.
pub(crate) const WINDOW: usize = 64;
const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) struct Client {
    socket: UdpSocket,
    cookies: u64,
}

impl Client {
    pub(crate) fn new(relay: SocketAddr) -> anyhow::Result<Self> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.connect(relay)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { socket, cookies: 0 })
    }

    /// The replies to commands, in their order, with as many under way as Kamailio's processes would
    /// have.
    pub(crate) fn ask(&mut self, commands: &[String]) -> anyhow::Result<Vec<String>> {
        let first = self.cookies;
        let mut replies: HashMap<u64, String> = HashMap::new();
        let mut buffer = [0; 2_048];
        while replies.len() < commands.len() {
            let sent = usize::try_from(self.cookies - first)?;
            if sent < commands.len() && sent - replies.len() < WINDOW {
                let datagram = format!("{} {}", self.cookies, commands[sent]);
                self.socket.send(datagram.as_bytes())?;
                self.cookies += 1;
                continue;
            }
            let len = self.socket.recv(&mut buffer).context("wait for a reply")?;
            let reply = std::str::from_utf8(&buffer[..len])?.trim_end();
            let (cookie, reply) = reply.split_once(' ').context("find a cookie")?;
            replies.insert(cookie.parse()?, reply.to_owned());
        }
        let in_order = (first..self.cookies).map(|it| replies.remove(&it));
        in_order.collect::<Option<_>>().context("have a reply to each command")
    }

    /// Connects phones 2n and 2n+1 for all `sessions`; where each phone must send.
    pub(crate) fn connect(&mut self, sessions: usize) -> anyhow::Result<Vec<SocketAddrV4>> {
        let offers: Vec<_> = (0..sessions).map(|it| place('U', it, 2 * it, "a;1")).collect();
        let answers: Vec<_> =
            (0..sessions).map(|it| place('L', it, 2 * it + 1, "a;1 b;1")).collect();
        let for_callees = self.ask(&offers)?;
        let for_callers = self.ask(&answers)?;
        let both = for_callers.iter().zip(&for_callees);
        both.flat_map(|(a, b)| [port(a), port(b)]).collect()
    }

    pub(crate) fn delete(&mut self, sessions: usize) -> anyhow::Result<()> {
        let commands: Vec<_> = (0..sessions).map(|it| format!("D call-{it} a b")).collect();
        let replies = self.ask(&commands)?;
        ensure!(replies.iter().all(|it| it == "0"), "delete sessions: {:?}", replies.first());
        Ok(())
    }
}

/// The port of a reply, at the address in it.
fn port(reply: &str) -> anyhow::Result<SocketAddrV4> {
    let (port, address) = reply.split_once(' ').with_context(|| format!("find a port: {reply}"))?;
    Ok(SocketAddrV4::new(address.parse::<Ipv4Addr>()?, port.parse()?))
}
