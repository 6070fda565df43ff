//! The UDP sockets of all port pairs, in one epoll.

use anyhow::Context as _;
use media::{PortPair, Transmit};
use mio::net::UdpSocket;
use mio::{Interest, Registry, Token};
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};

/// Expedited forwarding (RFC 3246), in the place of the old TOS byte.
const TRAFFIC_CLASS_EF: u32 = 0xb8;
/// Kernel buffer for what has arrived: over a second of one stream.
const RECEIVE_BUFFER_BYTES: usize = 128 * 1024;

pub(crate) struct Sockets {
    address: IpAddr,
    registry: Registry,
    by_port: HashMap<u16, UdpSocket>,
}

impl Sockets {
    /// Sockets on `address`, whose readiness is told by the poll of `registry` with the port as
    /// token.
    ///
    /// # Errors
    /// If nothing can be bound there.
    pub(crate) fn new(address: IpAddr, registry: Registry) -> anyhow::Result<Self> {
        open(address, 0).with_context(|| format!("bind RTP on --rtp-address {address}"))?;
        Ok(Self { address, registry, by_port: HashMap::new() })
    }

    /// Binds both ports of a pair.
    ///
    /// # Errors
    /// The kernel's: [`io::ErrorKind::AddrInUse`] if another process has one of them.
    pub(crate) fn bind(&mut self, pair: PortPair) -> io::Result<()> {
        let rtp = self.open_registered(pair.rtp())?;
        let rtcp = self.open_registered(pair.rtcp())?; // On an error `rtp` closes itself.
        self.by_port.insert(pair.rtp(), rtp);
        self.by_port.insert(pair.rtcp(), rtcp);
        Ok(())
    }

    fn open_registered(&self, port: u16) -> io::Result<UdpSocket> {
        let mut socket = UdpSocket::from_std(open(self.address, port)?.into());
        self.registry.register(&mut socket, Token(port.into()), Interest::READABLE)?;
        Ok(socket)
    }

    pub(crate) fn close(&mut self, pair: PortPair) {
        for port in [pair.rtp(), pair.rtcp()] {
            self.by_port.remove(&port);
        }
    }

    pub(crate) fn send(&self, transmit: Transmit<'_>) -> io::Result<usize> {
        match self.by_port.get(&transmit.from) {
            Some(socket) => socket.send_to(transmit.bytes, transmit.to),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    pub(crate) fn receive(&self, port: u16, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        match self.by_port.get(&port) {
            Some(socket) => socket.recv_from(buffer),
            None => Err(io::ErrorKind::WouldBlock.into()), // Closed since it became readable.
        }
    }

    /// Open port pairs.
    pub(crate) fn pairs(&self) -> usize {
        self.by_port.len() / 2
    }
}

fn open(address: IpAddr, port: u16) -> io::Result<Socket> {
    let address = SocketAddr::new(address, port);
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
    match address.is_ipv4() {
        true => socket.set_tos_v4(TRAFFIC_CLASS_EF)?,
        false => socket.set_tclass_v6(TRAFFIC_CLASS_EF)?,
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Lets the process open as many sockets as the system permits it: four for each session.
pub(crate) fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, ..limit };
    if let Err(e) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!("failed to raise the limit of open files above {:?}: {e}", limit.current);
    }
}
