//! One UDP socket, with a short queue for when the kernel's is full.

use super::{Received, Unreachable};
use crate::metrics;
use bytes::Bytes;
use nix::libc::{ECONNREFUSED, EHOSTUNREACH, ENETUNREACH, sock_extended_err, sockaddr_in6};
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt,
};
use sip::{Listener, MAX_MESSAGE_BYTES, Peer, Transport};
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{Interest, ReadBuf};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

/// Kernel buffers that are asked for, each way; the kernel gives what its limits allow.
const BUFFER_BYTES: usize = 4 * 1024 * 1024;

/// Most that one datagram over IPv4 holds.
const MAX_DATAGRAM_BYTES: usize = 65_507;

/// Datagrams that wait for the kernel to take them; the oldest are lost first, as UDP may.
const MAX_QUEUED: usize = 1024;

/// ICMP errors that wait to be told.
const MAX_ICMP_ERRORS: usize = 64;

pub(super) struct Udp {
    socket: Arc<UdpSocket>,
    listener: Listener,
    buffer: Box<[u8]>,
    queue: VecDeque<(SocketAddr, Bytes)>,
    /// Who cannot be reached, as ICMP says.
    unreachable: mpsc::Receiver<SocketAddr>,
    reading_errors: AbortHandle,
}

impl Drop for Udp {
    fn drop(&mut self) {
        self.reading_errors.abort();
    }
}

impl Udp {
    pub(super) fn bind(addr: SocketAddr, listener: Listener) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
        if addr.is_ipv6() {
            socket.set_only_v6(true)?; // Sources are compared, so an address has one form.
            setsockopt(&socket, sockopt::Ipv6RecvErr, &true)?;
        } else {
            setsockopt(&socket, sockopt::Ipv4RecvErr, &true)?;
        }
        let _ = socket.set_recv_buffer_size(BUFFER_BYTES); // Best effort.
        let _ = socket.set_send_buffer_size(BUFFER_BYTES);
        socket.set_nonblocking(true)?;
        socket.bind(&addr.into())?;
        let socket = Arc::new(UdpSocket::from_std(socket.into())?);
        let buffer = vec![0; MAX_MESSAGE_BYTES].into_boxed_slice();
        let (errors, unreachable) = mpsc::channel(MAX_ICMP_ERRORS);
        let reading_errors = tokio::spawn(read_icmp_errors(socket.clone(), errors)).abort_handle();
        let queue = VecDeque::new();
        Ok(Self { socket, listener, buffer, queue, unreachable, reading_errors })
    }

    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// The next datagram, or peer that could not be sent to; flushes the queue meanwhile.
    pub(super) fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Received> {
        loop {
            if let Poll::Ready(Some(addr)) = self.unreachable.poll_recv(cx) {
                return Poll::Ready(Received::Failed { peer: self.peer(addr) });
            }
            while !self.queue.is_empty() && self.socket.poll_send_ready(cx).is_ready() {
                if let Some(addr) = self.flush() {
                    return Poll::Ready(Received::Failed { peer: self.peer(addr) });
                }
            }
            let mut buffer = ReadBuf::new(&mut self.buffer);
            match ready!(self.socket.poll_recv_from(cx, &mut buffer)) {
                Ok(_) if is_keep_alive(buffer.filled()) => (),
                Ok(addr) => {
                    let bytes = Bytes::copy_from_slice(buffer.filled());
                    return Poll::Ready(Received::Message { source: self.peer(addr), bytes });
                }
                // Of an earlier datagram: of which one, ICMP's queue says.
                Err(error) => tracing::debug!(%error, "failed to receive by UDP"),
            }
        }
    }

    pub(super) fn send(&mut self, addr: SocketAddr, bytes: Bytes) -> Result<(), Unreachable> {
        if bytes.len() > MAX_DATAGRAM_BYTES {
            // Of one transaction, which times out; the others with this peer are not to blame.
            tracing::debug!(%addr, bytes = bytes.len(), "discarded: too long for UDP");
            metrics::sip_discarded("too_long_for_udp");
            return Ok(());
        }
        if self.queue.is_empty() {
            match self.try_send(&bytes, addr) {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => (),
                Err(error) => {
                    tracing::debug!(%error, %addr, "failed to send by UDP");
                    return Err(Unreachable);
                }
            }
        }
        if self.queue.len() == MAX_QUEUED {
            metrics::sip_discarded("udp_queue_full");
            self.queue.pop_front();
        }
        self.queue.push_back((addr, bytes));
        Ok(())
    }

    /// Sends; an error that the kernel reports here may be that of an earlier datagram to another
    /// peer; told once, it is gone, so one more attempt tells whose it was.
    fn try_send(&self, bytes: &[u8], addr: SocketAddr) -> io::Result<()> {
        match self.socket.try_send_to(bytes, addr) {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(error),
            Err(_) => self.socket.try_send_to(bytes, addr).map(drop),
        }
    }

    /// Sends what the kernel takes; stops at the first address that cannot be sent to.
    fn flush(&mut self) -> Option<SocketAddr> {
        while let Some((addr, bytes)) = self.queue.front().cloned() {
            match self.try_send(&bytes, addr) {
                Ok(()) => drop(self.queue.pop_front()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                Err(error) => {
                    tracing::debug!(%error, %addr, "failed to send by UDP");
                    return self.queue.pop_front().map(|(addr, _)| addr);
                }
            }
        }
        None
    }

    fn peer(&self, addr: SocketAddr) -> Peer {
        Peer { transport: Transport::Udp, addr, listener: self.listener }
    }
}

/// Says who cannot be reached (RFC 3261 §18.4), as ICMP says it: a host, network or port that is not
/// there.
async fn read_icmp_errors(socket: Arc<UdpSocket>, unreachable: mpsc::Sender<SocketAddr>) {
    while socket.ready(Interest::ERROR).await.is_ok() {
        match socket.try_io(Interest::ERROR, || read_icmp_error(&socket)) {
            Ok(Some(addr)) => {
                tracing::debug!(%addr, "ICMP says that it cannot be reached");
                let _ = unreachable.try_send(addr); // Those beyond the limit time out.
            }
            Ok(None) => (),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => (),
            Err(error) => return tracing::debug!(%error, "failed to read errors of UDP"),
        }
    }
}

/// The next error of an earlier datagram; where it went, if nobody is there.
fn read_icmp_error(socket: &UdpSocket) -> io::Result<Option<SocketAddr>> {
    let mut control = nix::cmsg_space!(sock_extended_err, sockaddr_in6);
    let flags = MsgFlags::MSG_ERRQUEUE;
    let read = recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut [], Some(&mut control), flags)?;
    let errors = read.cmsgs().into_iter().flatten().filter_map(|it| match it {
        ControlMessageOwned::Ipv4RecvErr(error, _) => Some(error.ee_errno),
        ControlMessageOwned::Ipv6RecvErr(error, _) => Some(error.ee_errno),
        _ => None,
    });
    let away = [ECONNREFUSED, EHOSTUNREACH, ENETUNREACH].map(i32::unsigned_abs);
    let is_away = errors.into_iter().any(|errno| away.contains(&errno));
    Ok(read.address.as_ref().filter(|_| is_away).and_then(socket_addr))
}

fn socket_addr(storage: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = storage.as_sockaddr_in().map(|it| SocketAddr::V4((*it).into()));
    v4.or_else(|| storage.as_sockaddr_in6().map(|it| SocketAddr::V6((*it).into())))
}

/// Blank datagrams keep a NAT's mapping alive and want no answer.
fn is_keep_alive(datagram: &[u8]) -> bool {
    datagram.iter().all(|byte| matches!(byte, b'\r' | b'\n' | b' ' | 0))
}
