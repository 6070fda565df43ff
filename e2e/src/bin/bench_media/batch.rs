//! Many datagrams in one system call (recvmmsg, sendmmsg), each with an address of its own on our
//! side too: one socket on 0.0.0.0 is as many phones as 127.0.0.0/8 has addresses.
//!
//! The only file of this benchmark with `unsafe`. Every call hands the kernel arrays that this
//! module owns and that outlive the call; their lengths are those of the arrays.
#![allow(unsafe_code)]

use std::io;
use std::mem::{size_of, zeroed};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::ptr::{null_mut, read_unaligned, write_unaligned};

/// Longest datagram; ours have 172 bytes.
const DATAGRAM_BYTES_MAX: usize = 256;
/// Datagrams of one system call.
pub(crate) const BATCH: usize = 64;
/// Enough for a packet information and a timestamp.
const CONTROL_BYTES: usize = 96;

#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; CONTROL_BYTES]);

/// Datagrams and their addresses, received or to send.
pub(crate) struct Batch {
    bytes: Vec<[u8; DATAGRAM_BYTES_MAX]>,
    lens: Vec<usize>,
    names: Vec<libc::sockaddr_in>,
    controls: Vec<Control>,
    parts: Vec<libc::iovec>,
    headers: Vec<libc::mmsghdr>,
    filled: usize,
}

/// A datagram that has come.
pub(crate) struct Arrived<'a> {
    pub bytes: &'a [u8],
    /// Our address that it was sent to.
    pub to: Ipv4Addr,
    /// When the kernel got it, in ns since the Unix epoch.
    pub at_ns: u64,
}

impl Batch {
    pub(crate) fn new() -> Self {
        // SAFETY: all three are plain C structures, for which zeros are a value.
        let (name, part, header) = unsafe { (zeroed(), zeroed(), zeroed()) };
        Self {
            bytes: vec![[0; DATAGRAM_BYTES_MAX]; BATCH],
            lens: vec![0; BATCH],
            names: vec![name; BATCH],
            controls: vec![Control([0; CONTROL_BYTES]); BATCH],
            parts: vec![part; BATCH],
            headers: vec![header; BATCH],
            filled: 0,
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.filled == BATCH
    }

    /// Queues a datagram from the address `from` of ours, with what `write` puts into it.
    pub(crate) fn push(
        &mut self,
        from: Ipv4Addr,
        to: SocketAddrV4,
        write: impl FnOnce(&mut [u8; DATAGRAM_BYTES_MAX]) -> usize,
    ) {
        let nth = self.filled;
        self.lens[nth] = write(&mut self.bytes[nth]);
        self.names[nth] = name(to);
        let information = libc::in_pktinfo {
            ipi_ifindex: 0,
            ipi_spec_dst: address(from),
            ipi_addr: address(from),
        };
        let control = self.controls[nth].0.as_mut_ptr();
        // SAFETY: a header and a packet information fit in CONTROL_BYTES, and the first is aligned.
        unsafe {
            let header = control.cast::<libc::cmsghdr>();
            (*header).cmsg_level = libc::IPPROTO_IP;
            (*header).cmsg_type = libc::IP_PKTINFO;
            (*header).cmsg_len = libc::CMSG_LEN(size_of::<libc::in_pktinfo>() as u32) as _;
            write_unaligned(libc::CMSG_DATA(header).cast(), information);
        }
        self.filled += 1;
    }

    /// Sends what is queued and forgets it; returns how many went.
    pub(crate) fn send(&mut self, socket: &UdpSocket) -> usize {
        // SAFETY: only computes a length.
        let control_len = unsafe { libc::CMSG_SPACE(size_of::<libc::in_pktinfo>() as u32) };
        for nth in 0..self.filled {
            self.prepare(nth, self.lens[nth], control_len as usize);
        }
        let mut sent = 0;
        while sent < self.filled {
            let left = &mut self.headers[sent..self.filled];
            // SAFETY: `prepare` has pointed every header at memory of `self`.
            let n = unsafe {
                libc::sendmmsg(socket.as_raw_fd(), left.as_mut_ptr(), left.len() as u32, 0)
            };
            match usize::try_from(n) {
                Ok(n) if n > 0 => sent += n,
                _ => break,
            }
        }
        self.filled = 0;
        sent
    }

    /// Takes what has come, at most [`BATCH`]; 0 if nothing has.
    pub(crate) fn receive(&mut self, socket: &UdpSocket) -> usize {
        for nth in 0..BATCH {
            self.prepare(nth, DATAGRAM_BYTES_MAX, CONTROL_BYTES);
        }
        // SAFETY: `prepare` has pointed every header at memory of `self`.
        let n = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                BATCH as u32,
                libc::MSG_DONTWAIT as _,
                null_mut(),
            )
        };
        let n = usize::try_from(n).unwrap_or(0);
        for nth in 0..n {
            self.lens[nth] = self.headers[nth].msg_len as usize;
        }
        n
    }

    /// What [`Batch::receive`] has taken.
    pub(crate) fn arrived(&self, nth: usize) -> Arrived<'_> {
        let (mut to, mut at_ns) = (Ipv4Addr::UNSPECIFIED, 0);
        // SAFETY: the kernel has written well-formed control messages, and their total length.
        unsafe {
            let header = &self.headers[nth].msg_hdr;
            let mut control = libc::CMSG_FIRSTHDR(header);
            while !control.is_null() {
                let data = libc::CMSG_DATA(control);
                match ((*control).cmsg_level, (*control).cmsg_type) {
                    (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                        let information: libc::in_pktinfo = read_unaligned(data.cast());
                        to = Ipv4Addr::from(u32::from_be(information.ipi_addr.s_addr));
                    }
                    (libc::SOL_SOCKET, libc::SO_TIMESTAMPNS) => {
                        let at: libc::timespec = read_unaligned(data.cast());
                        at_ns = at.tv_sec as u64 * 1_000_000_000 + at.tv_nsec as u64;
                    }
                    _ => (),
                }
                control = libc::CMSG_NXTHDR(header, control);
            }
        }
        Arrived { bytes: &self.bytes[nth][..self.lens[nth]], to, at_ns }
    }

    fn prepare(&mut self, nth: usize, len: usize, control_len: usize) {
        self.parts[nth] =
            libc::iovec { iov_base: self.bytes[nth].as_mut_ptr().cast(), iov_len: len };
        let header = &mut self.headers[nth].msg_hdr;
        header.msg_name = (&raw mut self.names[nth]).cast();
        header.msg_namelen = size_of::<libc::sockaddr_in>() as u32;
        header.msg_iov = &raw mut self.parts[nth];
        header.msg_iovlen = 1;
        header.msg_control = self.controls[nth].0.as_mut_ptr().cast();
        header.msg_controllen = control_len as _;
    }
}

/// The machine's ceiling: whatever comes to `socket` goes to `to`, without a table, for ever.
///
/// # Errors
/// The kernel's.
pub(crate) fn forward(socket: &UdpSocket, to: SocketAddrV4) -> io::Result<()> {
    let mut bytes = vec![[0u8; DATAGRAM_BYTES_MAX]; BATCH];
    let mut to = name(to);
    // SAFETY: plain C structures, for which zeros are a value.
    let mut headers: Vec<libc::mmsghdr> = vec![unsafe { zeroed() }; BATCH];
    let mut parts: Vec<libc::iovec> = bytes
        .iter_mut()
        .map(|it| libc::iovec { iov_base: it.as_mut_ptr().cast(), iov_len: it.len() })
        .collect();
    for (header, part) in headers.iter_mut().zip(&mut parts) {
        header.msg_hdr.msg_iov = part;
        header.msg_hdr.msg_iovlen = 1;
    }
    loop {
        let fd = socket.as_raw_fd();
        for (header, part) in headers.iter_mut().zip(&mut parts) {
            (header.msg_hdr.msg_name, header.msg_hdr.msg_namelen) = (null_mut(), 0);
            part.iov_len = DATAGRAM_BYTES_MAX;
        }
        // SAFETY: headers, parts and bytes outlive the call.
        let n = unsafe {
            let flags = libc::MSG_WAITFORONE as _;
            libc::recvmmsg(fd, headers.as_mut_ptr(), BATCH as u32, flags, null_mut())
        };
        let n = usize::try_from(n).map_err(|_| io::Error::last_os_error())?;
        for (header, part) in headers[..n].iter_mut().zip(&mut parts) {
            header.msg_hdr.msg_name = (&raw mut to).cast();
            header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_in>() as u32;
            part.iov_len = header.msg_len as usize;
        }
        // SAFETY: as above, and `to` too.
        unsafe { libc::sendmmsg(fd, headers.as_mut_ptr(), n as u32, 0) };
    }
}

/// Asks for arrival times and our own address with every datagram, and for a large buffer.
pub(crate) fn configure(socket: &UdpSocket, buffer_bytes: i32) -> io::Result<()> {
    set(socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1)?;
    set(socket, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)?;
    enlarge(socket, buffer_bytes)
}

/// Sets the receive buffer, above the system's limit if we may.
pub(crate) fn enlarge(socket: &UdpSocket, bytes: i32) -> io::Result<()> {
    set(socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, bytes)
        .or_else(|_| set(socket, libc::SOL_SOCKET, libc::SO_RCVBUF, bytes))
}

fn set(socket: &UdpSocket, level: i32, option: i32, value: i32) -> io::Result<()> {
    let len = size_of::<i32>() as u32;
    // SAFETY: the kernel reads `len` bytes of `value`.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), len)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Ties this thread to one processor.
pub(crate) fn pin(cpu: usize) -> io::Result<()> {
    // SAFETY: a set of processors is a plain C structure; the kernel reads it whole.
    let result = unsafe {
        let mut set: libc::cpu_set_t = zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Lets children have so many open files, if we may, else as many as we may; returns how many.
pub(crate) fn allow_files(count: u64) -> u64 {
    let mut limit = libc::rlimit { rlim_cur: count, rlim_max: count };
    // SAFETY: the kernel reads the structure or writes it, whole.
    unsafe {
        if libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) != 0 {
            libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        }
    }
    limit.rlim_cur
}

fn address(it: Ipv4Addr) -> libc::in_addr {
    libc::in_addr { s_addr: u32::from(it).to_be() }
}

fn name(it: SocketAddrV4) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: it.port().to_be(),
        sin_addr: address(*it.ip()),
        sin_zero: [0; 8],
    }
}
