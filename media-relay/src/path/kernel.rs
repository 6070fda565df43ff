//! The only unsafe code: calls of the kernel for which there is no safe binding. `recvmmsg` and
//! `sendmmsg` move up to [`BATCH`] datagrams at a time, `setsockopt` takes what socket2 has not,
//! and bpf(2) loads what `steering.rs` has written.
//!
//! Every pointer that is given to the kernel is made in the function that makes the call, from
//! memory that this function borrows, and is not used afterwards.

use std::io;
use std::mem::size_of_val;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::ptr::null_mut;

/// Datagrams in one call.
pub(crate) const BATCH: usize = 256;
/// Longest datagram that is read whole: an Ethernet frame's worth. The core refuses longer ones.
pub(crate) const DATAGRAM_BYTES_MAX: usize = 2_048;
/// Longest header that is written before a datagram: IPv6 and UDP.
pub(crate) const HEAD_BYTES_MAX: usize = 48;
/// `struct sockaddr_in6`, the longest address.
const NAME_BYTES: usize = 28;
/// A `struct cmsghdr` and a `struct sockaddr_in6`, aligned.
const CONTROL_BYTES: usize = 48;
/// `struct cmsghdr`.
const CMSG_HEAD_BYTES: usize = 16;

/// A `struct sockaddr_in` or `sockaddr_in6`.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Name([u8; NAME_BYTES]);

/// One control message at most: to which address the datagram came.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; CONTROL_BYTES]);

/// Datagrams that have come, in memory that is used again and again.
pub(crate) struct Inbox {
    bytes: Box<[[u8; DATAGRAM_BYTES_MAX]]>,
    names: Box<[Name]>,
    controls: Box<[Control]>,
    /// What each took: its port, its length in bytes.
    taken: Vec<(u16, usize)>,
}

/// One datagram that has come.
pub(crate) struct Received<'a> {
    /// Ours.
    pub port: u16,
    pub source: SocketAddr,
    pub bytes: &'a [u8],
}

impl Inbox {
    pub(crate) fn new() -> Self {
        Self {
            bytes: vec![[0; DATAGRAM_BYTES_MAX]; BATCH].into(),
            names: vec![Name([0; NAME_BYTES]); BATCH].into(),
            controls: vec![Control([0; CONTROL_BYTES]); BATCH].into(),
            taken: Vec::with_capacity(BATCH),
        }
    }

    pub(crate) fn clear(&mut self) {
        self.taken.clear();
    }

    pub(crate) fn len(&self) -> usize {
        self.taken.len()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.taken.len() == BATCH
    }

    /// The ports of the datagrams from number `first` on.
    pub(crate) fn ports(&self, first: usize) -> impl Iterator<Item = u16> {
        self.taken.iter().skip(first).map(|(port, _)| *port)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Received<'_>> {
        self.taken.iter().zip(&self.bytes).zip(&self.names).filter_map(
            |((&(port, len), bytes), name)| {
                Some(Received { port, source: name.address()?, bytes: &bytes[..len] })
            },
        )
    }

    /// Takes at most `LIMIT` more datagrams, without waiting, from a socket that is bound to
    /// `port`; none: from one that says with each datagram where it came to. Returns how many.
    ///
    /// # Errors
    /// The kernel's; [`io::ErrorKind::WouldBlock`] if there is none.
    pub(crate) fn receive<const LIMIT: usize>(
        &mut self,
        socket: impl AsFd,
        port: Option<u16>,
    ) -> io::Result<usize> {
        let first = self.taken.len();
        let wanted = LIMIT.min(BATCH - first);
        let mut vectors = [const { libc::iovec { iov_base: null_mut(), iov_len: 0 } }; LIMIT];
        let mut messages = [EMPTY; LIMIT];
        let slots = self.bytes[first..].iter_mut().zip(&mut self.names[first..]);
        let slots =
            slots.zip(&mut self.controls[first..]).zip(vectors.iter_mut().zip(&mut messages));
        for (((bytes, name), control), (vector, message)) in slots.take(wanted) {
            *vector = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
            let header = &mut message.msg_hdr;
            header.msg_name = name.0.as_mut_ptr().cast();
            header.msg_namelen = NAME_BYTES as u32;
            (header.msg_iov, header.msg_iovlen) = (vector, 1);
            if port.is_none() {
                header.msg_control = control.0.as_mut_ptr().cast();
                header.msg_controllen = CONTROL_BYTES;
            }
        }
        // SAFETY: each of the first `wanted` messages points to a name, a buffer, a vector and a
        // control buffer of the lengths that it says, which are ours until this function returns;
        // no two share one. Without a timeout the last pointer may be null.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_fd().as_raw_fd(),
                messages.as_mut_ptr(),
                wanted as u32,
                libc::MSG_DONTWAIT,
                null_mut(),
            )
        };
        let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
        for (n, message) in messages[..received].iter().enumerate() {
            let control =
                &self.controls[first + n].0[..message.msg_hdr.msg_controllen.min(CONTROL_BYTES)];
            let port = port.or_else(|| came_to(control)).unwrap_or(0); // 0 is nobody's.
            self.taken.push((port, (message.msg_len as usize).min(DATAGRAM_BYTES_MAX)));
        }
        Ok(received)
    }
}

/// The port of an `IP_ORIGDSTADDR` or `IPV6_ORIGDSTADDR`, in the same place in both.
fn came_to(control: &[u8]) -> Option<u16> {
    let head = control.get(8..CMSG_HEAD_BYTES)?;
    let is =
        |level: i32, kind: i32| head[..4] == level.to_ne_bytes() && head[4..] == kind.to_ne_bytes();
    let known =
        is(libc::SOL_IP, libc::IP_ORIGDSTADDR) || is(libc::SOL_IPV6, libc::IPV6_ORIGDSTADDR);
    let port = control.get(CMSG_HEAD_BYTES + 2..CMSG_HEAD_BYTES + 4).filter(|_| known)?;
    Some(u16::from_be_bytes([port[0], port[1]]))
}

impl Name {
    fn address(&self) -> Option<SocketAddr> {
        let bytes = &self.0;
        let port = u16::from_be_bytes([bytes[2], bytes[3]]);
        match i32::from(u16::from_ne_bytes([bytes[0], bytes[1]])) {
            libc::AF_INET => {
                let address = Ipv4Addr::from(<[u8; 4]>::try_from(&bytes[4..8]).ok()?);
                Some((address, port).into())
            }
            libc::AF_INET6 => {
                let address = Ipv6Addr::from(<[u8; 16]>::try_from(&bytes[8..24]).ok()?);
                let scope = u32::from_ne_bytes(bytes[24..28].try_into().ok()?);
                Some(SocketAddrV6::new(address, port, 0, scope).into())
            }
            _ => None,
        }
    }

    /// The address, and its length in bytes.
    fn of(address: SocketAddr) -> (Self, u32) {
        let mut bytes = [0; NAME_BYTES];
        bytes[2..4].copy_from_slice(&address.port().to_be_bytes());
        let (family, len) = match address {
            SocketAddr::V4(address) => {
                bytes[4..8].copy_from_slice(&address.ip().octets());
                (libc::AF_INET, 16)
            }
            SocketAddr::V6(address) => {
                bytes[8..24].copy_from_slice(&address.ip().octets());
                bytes[24..28].copy_from_slice(&address.scope_id().to_ne_bytes());
                (libc::AF_INET6, NAME_BYTES as u32)
            }
        };
        bytes[..2].copy_from_slice(&(family as u16).to_ne_bytes());
        (Self(bytes), len)
    }
}

const EMPTY: libc::mmsghdr = libc::mmsghdr {
    msg_hdr: libc::msghdr {
        msg_name: null_mut(),
        msg_namelen: 0,
        msg_iov: null_mut(),
        msg_iovlen: 0,
        msg_control: null_mut(),
        msg_controllen: 0,
        msg_flags: 0,
    },
    msg_len: 0,
};

/// A datagram to send: a header that is made for it, and bytes that are somebody else's.
pub(crate) struct Letter<'a> {
    pub to: SocketAddr,
    pub head: [u8; HEAD_BYTES_MAX],
    /// Bytes of `head` that count.
    pub head_len: usize,
    pub body: &'a [u8],
}

/// Longest datagram, with its header, that is copied to be in one piece: 60 ms of G.711 and more. The
/// kernel takes longer to put two together.
const PIECE_BYTES_MAX: usize = 576;

/// Memory for what is said to the kernel about datagrams, that is used again and again.
pub(crate) struct Outbox {
    pieces: Box<[[u8; PIECE_BYTES_MAX]]>,
    names: Box<[Name]>,
}

impl Outbox {
    pub(crate) fn new() -> Self {
        Self {
            pieces: vec![[0; PIECE_BYTES_MAX]; BATCH].into(),
            names: vec![Name([0; NAME_BYTES]); BATCH].into(),
        }
    }

    /// Sends at most [`BATCH`] of `letters`, in order, without waiting; returns how many it took
    /// from them, and calls `failed` with the number, from 0 on, of each that could not be sent. If
    /// the kernel has no room, the rest of them fail with [`io::ErrorKind::WouldBlock`].
    pub(crate) fn send<'a>(
        &mut self,
        socket: impl AsFd,
        letters: impl Iterator<Item = Letter<'a>>,
        mut failed: impl FnMut(usize, io::Error),
    ) -> usize {
        let Self { pieces, names } = self;
        let mut vectors = [const { [libc::iovec { iov_base: null_mut(), iov_len: 0 }; 2] }; BATCH];
        let mut messages = [EMPTY; BATCH];
        let slots = pieces.iter_mut().zip(names).zip(vectors.iter_mut().zip(&mut messages));
        let mut count = 0;
        for (((piece, name), (vectors, message)), letter) in slots.zip(letters) {
            let (to, to_len) = Name::of(letter.to);
            *name = to;
            let body = letter.body;
            let (head, after) = piece.split_at_mut(letter.head_len);
            head.copy_from_slice(&letter.head[..letter.head_len]);
            let mut piece_len = letter.head_len;
            if let Some(place) = after.get_mut(..body.len()) {
                place.copy_from_slice(body);
                piece_len += body.len();
            }
            // The kernel reads what these point to, and writes nothing there.
            vectors[0] = libc::iovec { iov_base: piece.as_mut_ptr().cast(), iov_len: piece_len };
            vectors[1] =
                libc::iovec { iov_base: body.as_ptr().cast_mut().cast(), iov_len: body.len() };
            let header = &mut message.msg_hdr;
            header.msg_name = name.0.as_mut_ptr().cast();
            header.msg_namelen = to_len;
            header.msg_iov = vectors.as_mut_ptr();
            header.msg_iovlen = if piece_len > letter.head_len { 1 } else { 2 };
            count += 1;
        }
        let mut sent = 0;
        while sent < count {
            let rest = &mut messages[sent..count];
            // SAFETY: each of the messages points to a name of ours, to one or two vectors on this
            // stack, and through them to a piece of ours and a body that lives for `'a`, all of the
            // lengths that it says.
            let result = unsafe {
                libc::sendmmsg(
                    socket.as_fd().as_raw_fd(),
                    rest.as_mut_ptr(),
                    rest.len() as u32,
                    libc::MSG_DONTWAIT,
                )
            };
            match usize::try_from(result) {
                Ok(taken) if taken > 0 => sent += taken,
                _ => {
                    let error = io::Error::last_os_error();
                    if error.kind() == io::ErrorKind::WouldBlock {
                        (sent..count).for_each(|n| failed(n, io::ErrorKind::WouldBlock.into()));
                        break;
                    }
                    failed(sent, error);
                    sent += 1; // The one that it stopped at.
                }
            }
        }
        count
    }
}

/// `setsockopt` of an option that is a number.
///
/// # Errors
/// The kernel's.
pub(crate) fn set_option(socket: impl AsFd, level: i32, option: i32, value: i32) -> io::Result<()> {
    // SAFETY: the value is a `c_int`, of which the kernel reads the length that it is told.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            size_of_val(&value) as u32,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The commands of bpf(2) that we use, with the fields of `union bpf_attr` that they read.
pub(crate) enum Bpf<'a> {
    MapCreate {
        kind: u32,
        key_bytes: u32,
        value_bytes: u32,
        entries: u32,
    },
    /// The value has the length that the map was made for.
    MapUpdate {
        map: BorrowedFd<'a>,
        key: u32,
        value: &'a [u32],
    },
    ProgramLoad {
        kind: u32,
        attach: u32,
        instructions: &'a [u64],
    },
    LinkCreate {
        program: BorrowedFd<'a>,
        target: BorrowedFd<'a>,
        attach: u32,
    },
}

impl Bpf<'_> {
    /// A descriptor of what was made.
    ///
    /// # Errors
    /// The kernel's: [`io::ErrorKind::PermissionDenied`] without CAP_BPF and CAP_NET_ADMIN.
    pub(crate) fn make(&self) -> io::Result<OwnedFd> {
        let descriptor = self.call()?;
        // SAFETY: these commands return a new descriptor, which nobody else has.
        Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
    }

    /// # Errors
    /// The kernel's.
    pub(crate) fn call(&self) -> io::Result<i32> {
        // The licence counts for helpers that only GPL programs may call: we call none.
        const LICENCE: &core::ffi::CStr = c"Apache-2.0";
        // `union bpf_attr`, as words of 64 bits; the kernel takes zeros for what is not given.
        let mut attributes = [0u64; 16];
        let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        let number = |it: &BorrowedFd<'_>| it.as_raw_fd() as u32;
        let key_at;
        let command = match self {
            Self::MapCreate { kind, key_bytes, value_bytes, entries } => {
                attributes[..2]
                    .copy_from_slice(&[pair(*kind, *key_bytes), pair(*value_bytes, *entries)]);
                0
            }
            Self::MapUpdate { map, key, value } => {
                key_at = *key;
                attributes[..3].copy_from_slice(&[
                    pair(number(map), 0),
                    (&raw const key_at).expose_provenance() as u64,
                    value.as_ptr().expose_provenance() as u64,
                ]);
                2
            }
            Self::ProgramLoad { kind, attach, instructions } => {
                attributes[..3].copy_from_slice(&[
                    pair(*kind, instructions.len() as u32),
                    instructions.as_ptr().expose_provenance() as u64,
                    LICENCE.as_ptr().expose_provenance() as u64,
                ]);
                attributes[8] = pair(0, *attach); // `expected_attach_type` is at byte 68.
                5
            }
            Self::LinkCreate { program, target, attach } => {
                attributes[..2]
                    .copy_from_slice(&[pair(number(program), number(target)), pair(*attach, 0)]);
                28
            }
        };
        // SAFETY: the kernel reads the attributes, and through them a number on this stack and
        // slices that are borrowed; with these commands it writes to none of them.
        let result = unsafe {
            libc::syscall(libc::SYS_bpf, command, attributes.as_mut_ptr(), size_of_val(&attributes))
        };
        match i32::try_from(result) {
            Ok(result) if result >= 0 => Ok(result),
            _ => Err(io::Error::last_os_error()),
        }
    }
}
