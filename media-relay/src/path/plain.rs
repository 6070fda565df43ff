//! The path that needs nothing: a socket for each port, in one epoll. What has come to many of
//! them is read in one turn; each datagram costs a call of its own each way.

use crate::path::kernel::{BATCH, Inbox};
use crate::path::{Sent, port_socket};
use media::{PortPair, Transmit};
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use socket2::Socket;
use std::io;
use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Datagrams that are read from one socket before it is another one's turn.
const DATAGRAMS_PER_TURN: usize = 8;
/// Kernel buffer for what has arrived: over a second of one stream.
const RECEIVE_BUFFER_BYTES: usize = 128 * 1024;
/// Ports that there are.
const PORTS: usize = 1 << 16;

pub(crate) struct Plain {
    address: IpAddr,
    epoll: OwnedFd,
    by_port: Box<[Option<Socket>]>,
}

impl Plain {
    /// # Errors
    /// If nothing can be bound on `address`.
    pub(crate) fn open(address: IpAddr) -> io::Result<Self> {
        port_socket(address, 0)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let by_port = (0..PORTS).map(|_| None).collect();
        Ok(Self { address, epoll, by_port })
    }

    /// Binds both ports of a pair.
    ///
    /// # Errors
    /// The kernel's: [`io::ErrorKind::AddrInUse`] if another process has one of them.
    pub(crate) fn bind(&mut self, pair: PortPair) -> io::Result<()> {
        let rtp = self.open_registered(pair.rtp())?;
        let rtcp = self.open_registered(pair.rtcp())?; // On an error `rtp` closes itself.
        self.by_port[usize::from(pair.rtp())] = Some(rtp);
        self.by_port[usize::from(pair.rtcp())] = Some(rtcp);
        Ok(())
    }

    fn open_registered(&self, port: u16) -> io::Result<Socket> {
        let socket = port_socket(self.address, port)?;
        socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
        let data = epoll::EventData::new_u64(port.into());
        epoll::add(&self.epoll, &socket, data, epoll::EventFlags::IN)?;
        Ok(socket)
    }

    pub(crate) fn close(&mut self, pair: PortPair) {
        for port in [pair.rtp(), pair.rtcp()] {
            self.by_port[usize::from(port)] = None;
        }
    }

    /// Readable when a datagram has come.
    pub(crate) fn readiness(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    /// Reads from sockets that have something. The kernel names those that were left with some
    /// again, after all others.
    ///
    /// # Errors
    /// The epoll's.
    pub(crate) fn receive(&mut self, inbox: &mut Inbox) -> io::Result<()> {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut ready = [const { MaybeUninit::uninit() }; BATCH];
        let ready = match epoll::wait(&self.epoll, &mut ready, Some(&now)) {
            Ok((ready, _)) => ready,
            Err(Errno::INTR) => return Ok(()),
            Err(e) => return Err(e.into()),
        };
        for event in ready {
            if inbox.is_full() {
                break;
            }
            let port = event.data.u64() as u16;
            if let Some(socket) = &self.by_port[usize::from(port)] {
                // What fails is an ICMP error of an earlier send, which is nobody's concern.
                let _ = inbox.receive::<DATAGRAMS_PER_TURN>(socket, Some(port));
            }
        }
        Ok(())
    }

    pub(crate) fn send<'a>(&self, transmits: impl Iterator<Item = Transmit<'a>>) -> Sent {
        let mut sent = Sent::default();
        for transmit in transmits {
            let socket = self.by_port[usize::from(transmit.from)].as_ref();
            let result = socket.map(|it| it.send_to(transmit.bytes, &transmit.to.into()));
            sent.count(matches!(result, Some(Ok(_))));
        }
        sent
    }
}
