//! The path with BPF: one socket receives for all ports, one raw socket sends from all of them,
//! and each call moves up to 256 datagrams.
//!
//! Every port in use is held by a socket that is bound to it and reads nothing, so that no other
//! process can have it. Floods end there (see [`Steering`]); and if a datagram is too long for the
//! raw socket, which does not fragment, that socket sends it. When half of the descriptors that we
//! may have are used, further ports are only tried: so `ulimit -n` does not limit calls.

use crate::path::header::write_header;
use crate::path::kernel::{BATCH, Inbox, Letter, Outbox, set_option};
use crate::path::steering::Steering;
use crate::path::{Sent, port_socket};
use anyhow::{Context as _, ensure};
use media::{PortPair, Transmit};
use rustix::process::{Resource, getrlimit};
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};

/// Kernel buffer for what has arrived on all ports: about 50 ms at 250,000 packets per second.
const RECEIVE_BUFFER_BYTES: i32 = 16 * 1024 * 1024;
/// Kernel buffer for what a network card has not sent yet.
const SEND_BUFFER_BYTES: i32 = 4 * 1024 * 1024;
/// Ports that there are.
const PORTS: usize = 1 << 16;

pub(crate) struct Steered {
    address: IpAddr,
    receiver: Socket,
    sender: Socket,
    steering: Steering,
    held: Box<[Option<Socket>]>,
    /// Sockets with a descriptor from this on do not hold their ports.
    hold_below: i32,
    outbox: Outbox,
    /// Of IPv4, where it need not be unique: what we send is never fragmented (RFC 6864).
    identification: u16,
}

impl Steered {
    /// # Errors
    /// What is missing: CAP_BPF, CAP_NET_ADMIN or CAP_NET_RAW, a kernel with `sk_lookup`, or a
    /// single address.
    pub(crate) fn open(address: IpAddr) -> anyhow::Result<Self> {
        ensure!(!address.is_unspecified(), "it wants a single --rtp-address, not {address}");
        let receiver = port_socket(address, 0)
            .with_context(|| format!("bind RTP on --rtp-address {address}"))?;
        let (level, option) = match address.is_ipv4() {
            true => (libc::SOL_IP, libc::IP_RECVORIGDSTADDR),
            false => (libc::SOL_IPV6, libc::IPV6_RECVORIGDSTADDR),
        };
        set_option(&receiver, level, option, 1).context("ask for the ports of datagrams")?;
        set_option(&receiver, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, RECEIVE_BUFFER_BYTES)
            .context("enlarge the receive buffer (CAP_NET_ADMIN)")?;
        let (domain, level) = match address.is_ipv4() {
            true => (Domain::IPV4, libc::SOL_IP),
            false => (Domain::IPV6, libc::SOL_IPV6),
        };
        let raw = Some(Protocol::from(libc::IPPROTO_RAW));
        let sender =
            Socket::new(domain, Type::RAW, raw).context("open a raw socket (CAP_NET_RAW)")?;
        let header_included = if address.is_ipv4() { libc::IP_HDRINCL } else { libc::IPV6_HDRINCL };
        set_option(&sender, level, header_included, 1).context("write IP headers ourselves")?;
        set_option(&sender, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, SEND_BUFFER_BYTES)
            .context("enlarge the send buffer (CAP_NET_ADMIN)")?;
        let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let steering = Steering::attach(address, &receiver)?;
        Ok(Self {
            address,
            receiver,
            sender,
            steering,
            held: (0..PORTS).map(|_| None).collect(),
            hold_below: i32::try_from(descriptors / 2).unwrap_or(i32::MAX),
            outbox: Outbox::new(),
            identification: 0,
        })
    }

    /// Takes both ports of a pair for us.
    ///
    /// # Errors
    /// The kernel's: [`io::ErrorKind::AddrInUse`] if another process has one of them.
    pub(crate) fn bind(&mut self, pair: PortPair) -> io::Result<()> {
        let rtp = port_socket(self.address, pair.rtp())?;
        let rtcp = port_socket(self.address, pair.rtcp())?;
        for held in [&rtp, &rtcp] {
            held.set_recv_buffer_size(0)?; // The kernel has a least size.
        }
        self.steering.set(pair.rtp(), true)?;
        for (port, socket) in [(pair.rtp(), rtp), (pair.rtcp(), rtcp)] {
            let holds = socket.as_raw_fd() < self.hold_below;
            self.held[usize::from(port)] = holds.then_some(socket);
        }
        Ok(())
    }

    pub(crate) fn close(&mut self, pair: PortPair) {
        self.steering.set(pair.rtp(), false).expect("a table takes what it took before");
        for port in [pair.rtp(), pair.rtcp()] {
            self.held[usize::from(port)] = None;
        }
    }

    /// Readable when a datagram has come.
    pub(crate) fn readiness(&self) -> BorrowedFd<'_> {
        self.receiver.as_fd()
    }

    pub(crate) fn receive(&mut self, inbox: &mut Inbox) {
        // It fails if there is nothing, or with an error of an earlier send, of which it makes none.
        let _ = inbox.receive(&self.receiver, None, BATCH);
    }

    pub(crate) fn send<'a>(
        &mut self,
        mut transmits: impl Iterator<Item = Transmit<'a>> + Clone,
    ) -> Sent {
        let mut sent = Sent::default();
        loop {
            let batch = transmits.clone();
            let Self { address, sender, held, outbox, identification, .. } = self;
            let letters = transmits.by_ref().map(|it| letter(*address, &it, identification));
            let mut failures = 0;
            let count = outbox.send(&*sender, letters, |n, error| {
                let too_long = error.raw_os_error() == Some(libc::EMSGSIZE);
                let transmit = batch.clone().nth(n).filter(|_| too_long);
                failures += u64::from(!transmit.is_some_and(|it| send_held(held, &it)));
            });
            if count == 0 {
                return sent;
            }
            sent.failed += failures;
            sent.datagrams += count as u64 - failures;
        }
    }
}

fn letter<'a>(from: IpAddr, transmit: &Transmit<'a>, identification: &mut u16) -> Letter<'a> {
    *identification = identification.wrapping_add(1).max(1); // The kernel would replace 0.
    let mut letter = Letter { to: transmit.to, head: [0; 48], head_len: 0, body: transmit.bytes };
    letter.head_len = write_header(&mut letter.head, from, transmit, *identification);
    letter.to.set_port(0); // IPv6 wants a protocol or nothing here.
    letter
}

fn send_held(held: &[Option<Socket>], transmit: &Transmit<'_>) -> bool {
    let socket = held[usize::from(transmit.from)].as_ref();
    socket.is_some_and(|it| it.send_to(transmit.bytes, &transmit.to.into()).is_ok())
}
