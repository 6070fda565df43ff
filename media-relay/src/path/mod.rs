//! How datagrams get from the kernel to the core and back: one of several paths, chosen at start.
//!
//! | path | needs | one call of the kernel moves |
//! |---|---|---|
//! | [`bpf`](steered) | CAP_BPF, CAP_NET_ADMIN, CAP_NET_RAW, Linux 5.9 | up to 256 datagrams |
//! | [`plain`] | nothing | one datagram |
//!
//! To the packet thread they are the same: ports are bound and closed, a batch is received, a batch
//! is sent.

mod header;
#[allow(unsafe_code)]
mod kernel;
mod plain;
mod steered;
mod steering;

pub(crate) use kernel::Inbox;

use anyhow::Context as _;
use clap::ValueEnum;
use media::{PortPair, Transmit};
use plain::Plain;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::BorrowedFd;
use steered::Steered;
use tracing::info;

/// Expedited forwarding (RFC 3246), in the place of the old TOS byte.
const TRAFFIC_CLASS_EF: u32 = 0xb8;

/// What `--packet-path` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Wish {
    /// `bpf` if it can be set up, else `plain`.
    Auto,
    /// One receiving and one sending socket for all ports; needs CAP_BPF, CAP_NET_ADMIN and
    /// CAP_NET_RAW.
    Bpf,
    /// A socket for each port; needs nothing.
    Plain,
}

pub(crate) enum Path {
    Plain(Plain),
    Steered(Box<Steered>),
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sent {
    pub datagrams: u64,
    /// Those that the kernel did not take: full, unreachable, gone. RTP is not sent again.
    pub failed: u64,
}

impl Sent {
    fn count(&mut self, sent: bool) {
        self.datagrams += u64::from(sent);
        self.failed += u64::from(!sent);
    }
}

impl Path {
    /// # Errors
    /// If nothing can be bound on `address`, or `wish` names what cannot be set up.
    pub(crate) fn open(wish: Wish, address: IpAddr) -> anyhow::Result<Self> {
        let steered = match wish {
            Wish::Plain => None,
            Wish::Bpf => {
                Some(Steered::open(address).context("set up --packet-path bpf (or use auto)")?)
            }
            Wish::Auto => Steered::open(address)
                .inspect_err(|e| info!("packets take the plain path: failed to {e:#}"))
                .ok(),
        };
        Ok(match steered {
            Some(steered) => Self::Steered(Box::new(steered)),
            None => {
                let plain = Plain::open(address);
                let plain =
                    plain.with_context(|| format!("bind RTP on --rtp-address {address}"))?;
                Self::Plain(plain)
            }
        })
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Plain(_) => "plain",
            Self::Steered(_) => "bpf",
        }
    }

    /// Takes both ports of a pair for us.
    ///
    /// # Errors
    /// The kernel's: [`io::ErrorKind::AddrInUse`] if another process has one of them.
    pub(crate) fn bind(&mut self, pair: PortPair) -> io::Result<()> {
        match self {
            Self::Plain(path) => path.bind(pair),
            Self::Steered(path) => path.bind(pair),
        }
    }

    /// Gives both ports back, if it has them.
    pub(crate) fn close(&mut self, pair: PortPair) {
        match self {
            Self::Plain(path) => path.close(pair),
            Self::Steered(path) => path.close(pair),
        }
    }

    /// Readable when a datagram has come.
    pub(crate) fn readiness(&self) -> BorrowedFd<'_> {
        match self {
            Self::Plain(path) => path.readiness(),
            Self::Steered(path) => path.readiness(),
        }
    }

    /// Takes what has come, without waiting, until `inbox` is full; if it is not, nothing is left,
    /// or only of a port that has had its turn.
    ///
    /// # Errors
    /// If it cannot be asked what has come.
    pub(crate) fn receive(&mut self, inbox: &mut Inbox) -> io::Result<()> {
        inbox.clear();
        match self {
            Self::Plain(path) => path.receive(inbox),
            Self::Steered(path) => {
                path.receive(inbox);
                Ok(())
            }
        }
    }

    /// Sends all of `transmits`, without waiting.
    pub(crate) fn send<'a>(
        &mut self,
        transmits: impl Iterator<Item = Transmit<'a>> + Clone,
    ) -> Sent {
        match self {
            Self::Plain(path) => path.send(transmits),
            Self::Steered(path) => path.send(transmits),
        }
    }
}

/// A socket on a port; 0: any.
fn port_socket(address: IpAddr, port: u16) -> io::Result<Socket> {
    let address = SocketAddr::new(address, port);
    let kind = Type::DGRAM.nonblocking();
    let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::UDP))?;
    match address.is_ipv4() {
        true => socket.set_tos_v4(TRAFFIC_CLASS_EF)?,
        false => socket.set_tclass_v6(TRAFFIC_CLASS_EF)?,
    }
    socket.bind(&address.into())?;
    Ok(socket)
}
