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
use crate::path::{Sent, TRAFFIC_CLASS_EF, port_socket};
use anyhow::{Context as _, ensure};
use media::{PortPair, Transmit};
use rustix::process::{Resource, getrlimit};
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};

/// Kernel buffer for what has arrived on all ports: about 50 ms at 250,000 packets per second.
const RECEIVE_BUFFER_BYTES: i32 = 16 * 1024 * 1024;
/// Kernel buffer for what a network card has not sent yet.
const SEND_BUFFER_BYTES: i32 = 4 * 1024 * 1024;
/// Nothing comes from there: the last host of the loopback network.
const NOBODY: Ipv4Addr = Ipv4Addr::new(127, 255, 255, 254);
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
        let sender = raw_socket(address)?;
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
        let _ = inbox.receive::<BATCH>(&self.receiver, None);
    }

    pub(crate) fn send<'a>(
        &mut self,
        mut transmits: impl Iterator<Item = Transmit<'a>> + Clone,
    ) -> Sent {
        let mut sent = Sent::default();
        // Most wake-ups have nothing to send: room for a whole batch is not made for them.
        while transmits.clone().next().is_some() {
            let batch = transmits.clone();
            let Self { address, sender, held, outbox, .. } = self;
            let letters = transmits.by_ref().map(|it| letter(*address, &it));
            let mut failures = 0;
            let count = outbox.send(&*sender, letters, |n, error| {
                let too_long = error.raw_os_error() == Some(libc::EMSGSIZE);
                let transmit = batch.clone().nth(n).filter(|_| too_long);
                failures += u64::from(!transmit.is_some_and(|it| send_held(held, &it)));
            });
            sent.failed += failures;
            sent.datagrams += count as u64 - failures;
        }
        sent
    }
}

/// A socket that sends UDP from any port of `address`.
///
/// For IPv4 the kernel writes the IP header: if we did, it would make a route for each datagram to
/// the local network and free it again. Such a socket also gets a copy of every UDP datagram from
/// its peer, or from all without one; so its peer is [`NOBODY`].
fn raw_socket(address: IpAddr) -> anyhow::Result<Socket> {
    let open = |domain, protocol: i32| {
        let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(protocol)));
        socket.context("open a raw socket (CAP_NET_RAW)")
    };
    if address.is_ipv6() {
        let socket = open(Domain::IPV6, libc::IPPROTO_RAW)?;
        set_option(&socket, libc::SOL_IPV6, libc::IPV6_HDRINCL, 1)
            .context("write IP headers ourselves")?;
        return Ok(socket);
    }
    let socket = open(Domain::IPV4, libc::IPPROTO_UDP)?;
    socket.set_recv_buffer_size(0).context("shrink a receive buffer")?; // There is a least size.
    set_option(&socket, libc::SOL_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DO)
        .context("forbid fragments")?;
    socket.bind(&SocketAddr::new(address, 0).into()).context("bind a raw socket")?;
    socket.connect(&SocketAddr::from((NOBODY, 0)).into()).context("connect a raw socket")?;
    // Last: it makes the kernel forget the route to the peer, which it would check after each send.
    socket.set_tos_v4(TRAFFIC_CLASS_EF).context("mark what we send")?;
    Ok(socket)
}

fn letter<'a>(from: IpAddr, transmit: &Transmit<'a>) -> Letter<'a> {
    let mut letter = Letter { to: transmit.to, head: [0; 48], head_len: 0, body: transmit.bytes };
    letter.head_len = write_header(&mut letter.head, from, transmit);
    letter.to.set_port(0); // IPv6 wants a protocol or nothing here.
    letter
}

fn send_held(held: &[Option<Socket>], transmit: &Transmit<'_>) -> bool {
    let socket = held[usize::from(transmit.from)].as_ref();
    socket.is_some_and(|it| it.send_to(transmit.bytes, &transmit.to.into()).is_ok())
}
