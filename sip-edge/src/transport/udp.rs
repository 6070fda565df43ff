//! One UDP socket, with a short queue for when the kernel's is full.

use super::{Received, Unreachable};
use bytes::Bytes;
use sip::{MAX_MESSAGE_BYTES, Peer, Transport};
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use tokio::net::UdpSocket;

/// Kernel buffers that are asked for, each way; the kernel gives what its limits allow.
const BUFFER_BYTES: usize = 4 * 1024 * 1024;

/// Most that one datagram over IPv4 holds.
const MAX_DATAGRAM_BYTES: usize = 65_507;

/// Datagrams that wait for the kernel to take them; the oldest are lost first, as UDP may.
const MAX_QUEUED: usize = 1024;

pub(super) struct Udp {
    socket: UdpSocket,
    local_addr: SocketAddr,
    buffer: Box<[u8]>,
    queue: VecDeque<(SocketAddr, Bytes)>,
}

impl Udp {
    pub(super) fn bind(addr: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
        if addr.is_ipv6() {
            socket.set_only_v6(true)?; // Sources are compared, so an address has one form.
        }
        let _ = socket.set_recv_buffer_size(BUFFER_BYTES); // Best effort.
        let _ = socket.set_send_buffer_size(BUFFER_BYTES);
        socket.set_nonblocking(true)?;
        socket.bind(&addr.into())?;
        let socket = UdpSocket::from_std(socket.into())?;
        let local_addr = socket.local_addr()?;
        let buffer = vec![0; MAX_MESSAGE_BYTES].into_boxed_slice();
        Ok(Self { socket, local_addr, buffer, queue: VecDeque::new() })
    }

    pub(super) fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// The next datagram, or peer that could not be sent to; flushes the queue meanwhile.
    pub(super) async fn recv(&mut self) -> Received {
        loop {
            tokio::select! {
                received = self.socket.recv_from(&mut self.buffer) => match received {
                    Ok((len, addr)) => {
                        let source = Peer { transport: Transport::Udp, addr };
                        let bytes = Bytes::copy_from_slice(&self.buffer[..len]);
                        return Received::Message { source, bytes };
                    }
                    // An ICMP error of an earlier datagram: its transaction times out.
                    Err(error) => tracing::debug!(%error, "failed to receive by UDP"),
                },
                _ = self.socket.writable(), if !self.queue.is_empty() => {
                    if let Some(addr) = flush(&self.socket, &mut self.queue) {
                        return Received::Failed { peer: Peer { transport: Transport::Udp, addr } };
                    }
                }
            }
        }
    }

    pub(super) fn send(&mut self, addr: SocketAddr, bytes: Bytes) -> Result<(), Unreachable> {
        if bytes.len() > MAX_DATAGRAM_BYTES {
            // Of one transaction, which times out; the others with this peer are not to blame.
            tracing::debug!(%addr, bytes = bytes.len(), "discarded: too long for UDP");
            return Ok(());
        }
        if self.queue.is_empty() {
            match self.socket.try_send_to(&bytes, addr) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => (),
                Err(error) => {
                    tracing::debug!(%error, %addr, "failed to send by UDP");
                    return Err(Unreachable);
                }
            }
        }
        if self.queue.len() == MAX_QUEUED {
            self.queue.pop_front();
        }
        self.queue.push_back((addr, bytes));
        Ok(())
    }
}

/// Sends what the kernel takes; stops at the first address that cannot be sent to.
fn flush(socket: &UdpSocket, queue: &mut VecDeque<(SocketAddr, Bytes)>) -> Option<SocketAddr> {
    while let Some((addr, bytes)) = queue.front() {
        match socket.try_send_to(bytes, *addr) {
            Ok(_) => drop(queue.pop_front()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
            Err(error) => {
                tracing::debug!(%error, %addr, "failed to send by UDP");
                return queue.pop_front().map(|(addr, _)| addr);
            }
        }
    }
    None
}
