//! An `sk_lookup` program (BPF) that steers the datagrams of many ports to one socket.
//!
//! The kernel runs it when a datagram has come and no connected socket is its own, before it looks
//! for a bound one. It says "that socket" for our address and those ports that are in a table, and
//! "as usual" for all else: what is not ours is not touched. It is attached to this network
//! namespace and goes with our process, however that ends.
//!
//! Because all ports share one queue, none may fill it: of each pair only so many datagrams per
//! second are steered. The others take their usual way, to the socket that holds the port and reads
//! nothing, and are lost there.
//!
//! It is 40 instructions, written here one by one, so that neither a compiler for BPF nor a loader
//! is needed to build us.

use crate::path::kernel::Bpf;
use anyhow::Context as _;
use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};

// enum bpf_map_type, bpf_prog_type and bpf_attach_type of linux/bpf.h.
const MAP_ARRAY: u32 = 2;
const MAP_SOCKMAP: u32 = 15;
const PROGRAM_SK_LOOKUP: u32 = 30;
const ATTACH_SK_LOOKUP: u32 = 36;

// Helpers: enum bpf_func_id.
const MAP_LOOKUP_ELEM: i32 = 1;
const KTIME_GET_NS: i32 = 5;
const SK_RELEASE: i32 = 86;
const SK_ASSIGN: i32 = 124;

/// `SK_PASS` of enum sk_action: to the assigned socket, else as usual.
const SK_PASS: i32 = 1;

// Offsets in `struct bpf_sk_lookup`; addresses are in network order, the local port is in ours.
const FAMILY: i16 = 8;
const PROTOCOL: i16 = 12;
const LOCAL_IP4: i16 = 40;
const LOCAL_IP6: i16 = 44;
const LOCAL_PORT: i16 = 60;

/// Datagrams of a pair that are steered in a second: ten streams' worth.
const DATAGRAMS_PER_SECOND_MAX: i32 = 1_000;
const SECOND_NS: i32 = 1_000_000_000;

// What the table has of each pair, 16 bytes: whether it is ours, datagrams since, nanoseconds.
const STEERED: i16 = 0;
const COUNT: i16 = 4;
const SINCE: i16 = 8;

/// Port pairs that there are.
const PAIRS: u32 = 1 << 15;

pub(crate) struct Steering {
    /// By the number of the pair.
    ports: OwnedFd,
    /// Each keeps alive what it refers to.
    _link: OwnedFd,
}

impl Steering {
    /// Sends on to `socket`, which must be bound to `address`, the datagrams of ports that are
    /// added later.
    ///
    /// # Errors
    /// If the kernel has no `sk_lookup`, or we lack CAP_BPF or CAP_NET_ADMIN.
    pub(crate) fn attach(address: IpAddr, socket: impl AsFd) -> anyhow::Result<Self> {
        let map = |kind, value_bytes, entries| Bpf::MapCreate {
            kind,
            key_bytes: 4,
            value_bytes,
            entries,
        };
        let ports = map(MAP_ARRAY, 16, PAIRS).make().context("make a BPF array (CAP_BPF)")?;
        let sockets =
            map(MAP_SOCKMAP, 4, 1).make().context("make a BPF sockmap (CAP_NET_ADMIN)")?;
        let socket = descriptor(&socket);
        Bpf::MapUpdate { map: sockets.as_fd(), key: 0, value: &[socket] }
            .call()
            .context("put the receiving socket into a BPF sockmap")?;
        let instructions = program(address, descriptor(&ports), descriptor(&sockets));
        let program = Bpf::ProgramLoad {
            kind: PROGRAM_SK_LOOKUP,
            attach: ATTACH_SK_LOOKUP,
            instructions: &instructions,
        };
        let program = program.make().context("load an sk_lookup program (CAP_BPF)")?;
        let namespace = File::open("/proc/self/ns/net").context("open /proc/self/ns/net")?;
        let link = Bpf::LinkCreate {
            program: program.as_fd(),
            target: namespace.as_fd(),
            attach: ATTACH_SK_LOOKUP,
        };
        let link = link.make().context("attach an sk_lookup program (CAP_NET_ADMIN)")?;
        Ok(Self { ports, _link: link })
    }

    /// Steers both ports of the pair that `port` is in, or leaves them alone again.
    ///
    /// # Errors
    /// The kernel's; not to be expected.
    pub(crate) fn set(&self, port: u16, steered: bool) -> io::Result<()> {
        let value = [u32::from(steered), 0, 0, 0];
        let key = u32::from(port / 2);
        Bpf::MapUpdate { map: self.ports.as_fd(), key, value: &value }.call().map(drop)
    }
}

fn descriptor(it: &impl AsFd) -> u32 {
    use std::os::fd::AsRawFd as _;
    it.as_fd().as_raw_fd().unsigned_abs() // A descriptor is never negative.
}

/// Registers: r0 what a function returns, r1 to r5 its arguments, r6 to r9 kept over calls, r10
/// the stack.
fn program(address: IpAddr, ports: u32, sockets: u32) -> Vec<u64> {
    let (family, words) = match address {
        IpAddr::V4(it) => (libc::AF_INET, words(&it.octets())),
        IpAddr::V6(it) => (libc::AF_INET6, words(&it.octets())),
    };
    let first_word = if address.is_ipv4() { LOCAL_IP4 } else { LOCAL_IP6 };
    let mut code = Assembler::default();
    code.push(MOVE, 6, 1, 0, 0); // r6 = what is looked up
    let mut require = |offset, value| {
        code.push(LOAD_WORD, 2, 6, offset, 0);
        code.leave_unless_equal(2, value);
    };
    require(PROTOCOL, libc::IPPROTO_UDP);
    require(FAMILY, family);
    for (offset, word) in (first_word..).step_by(4).zip(words) {
        require(offset, word);
    }
    code.push(LOAD_WORD, 2, 6, LOCAL_PORT, 0);
    code.push(SHIFT_RIGHT, 2, 0, 0, 1);
    code.look_up(ports); // Its key is r2.
    code.leave_if_zero(0);
    code.push(MOVE, 8, 0, 0, 0); // r8 = what the table has of it
    code.push(LOAD_WORD, 2, 8, STEERED, 0);
    code.leave_if_zero(2);
    code.leave_if_too_many();
    code.push(MOVE_NUMBER, 2, 0, 0, 0);
    code.look_up(sockets);
    code.leave_if_zero(0);
    code.push(MOVE, 7, 0, 0, 0);
    code.push(MOVE, 1, 6, 0, 0);
    code.push(MOVE, 2, 7, 0, 0);
    code.push(MOVE_NUMBER, 3, 0, 0, 0);
    code.push(CALL, 0, 0, 0, SK_ASSIGN);
    code.push(MOVE, 1, 7, 0, 0);
    code.push(CALL, 0, 0, 0, SK_RELEASE); // The table gave us a reference.
    code.finish()
}

fn words(octets: &[u8]) -> Vec<i32> {
    let word = |it: &[u8]| i32::from_ne_bytes([it[0], it[1], it[2], it[3]]);
    octets.chunks_exact(4).map(word).collect()
}

// Operation codes: linux/bpf_common.h and linux/bpf.h. 64-bit arithmetic, 32-bit comparison.
const MOVE: u8 = 0xbf;
const MOVE_NUMBER: u8 = 0xb7;
const SHIFT_RIGHT: u8 = 0x77;
const LOAD_WORD: u8 = 0x61;
const STORE_WORD: u8 = 0x63;
const LOAD_LONG: u8 = 0x18;
const LOAD_LONG_WORD: u8 = 0x79;
const STORE_LONG_WORD: u8 = 0x7b;
const SUBTRACT: u8 = 0x1f;
const JUMP_IF_LESS: u8 = 0xa5;
const JUMP_IF_GREATER: u8 = 0x25;
const ADD_NUMBER: u8 = 0x07;
const JUMP_IF_EQUAL_64: u8 = 0x15;
const JUMP_IF_NOT_EQUAL: u8 = 0x56;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;

/// `BPF_PSEUDO_MAP_FD`: the number is a descriptor, and becomes the map's address.
const MAP_DESCRIPTOR: u8 = 1;
/// Where the key of a look-up is, from the end of the stack.
const KEY: i16 = -4;

#[derive(Default)]
struct Assembler {
    code: Vec<u64>,
    /// Jumps to the end.
    leaving: Vec<usize>,
}

impl Assembler {
    /// `struct bpf_insn`: operation, registers, offset, number, from the lowest byte up.
    fn push(&mut self, operation: u8, to: u8, from: u8, offset: i16, number: i32) {
        let [low, high] = offset.to_ne_bytes();
        let [a, b, c, d] = number.to_ne_bytes();
        let registers = match cfg!(target_endian = "little") {
            true => from << 4 | to,
            false => to << 4 | from,
        };
        let bytes = [operation, registers, low, high, a, b, c, d];
        self.code.push(u64::from_ne_bytes(bytes));
    }

    fn leave_unless_equal(&mut self, register: u8, number: i32) {
        self.leaving.push(self.code.len());
        self.push(JUMP_IF_NOT_EQUAL, register, 0, 0, number);
    }

    fn leave_if_zero(&mut self, register: u8) {
        self.leaving.push(self.code.len());
        self.push(JUMP_IF_EQUAL_64, register, 0, 0, 0);
    }

    /// Counts a datagram of the pair at r8. Two processors may count at once, and one be lost.
    fn leave_if_too_many(&mut self) {
        self.push(CALL, 0, 0, 0, KTIME_GET_NS);
        self.push(LOAD_LONG_WORD, 1, 8, SINCE, 0);
        self.push(MOVE, 2, 0, 0, 0);
        self.push(SUBTRACT, 2, 1, 0, 0);
        self.push(JUMP_IF_LESS, 2, 0, 3, SECOND_NS); // Over a new second's beginning:
        self.push(STORE_LONG_WORD, 8, 0, SINCE, 0);
        self.push(MOVE_NUMBER, 1, 0, 0, 0);
        self.push(STORE_WORD, 8, 1, COUNT, 0);
        self.push(LOAD_WORD, 1, 8, COUNT, 0);
        self.push(ADD_NUMBER, 1, 0, 0, 1);
        self.push(STORE_WORD, 8, 1, COUNT, 0);
        self.leaving.push(self.code.len());
        self.push(JUMP_IF_GREATER, 1, 0, 0, DATAGRAMS_PER_SECOND_MAX);
    }

    /// r0 = where the value of key r2 is, or 0.
    fn look_up(&mut self, map: u32) {
        self.push(STORE_WORD, 10, 2, KEY, 0);
        self.push(LOAD_LONG, 1, MAP_DESCRIPTOR, 0, map.cast_signed());
        self.push(0, 0, 0, 0, 0); // The upper half of a long number.
        self.push(MOVE, 2, 10, 0, 0);
        self.push(ADD_NUMBER, 2, 0, 0, KEY.into());
        self.push(CALL, 0, 0, 0, MAP_LOOKUP_ELEM);
    }

    /// Ends with "pass", where all jumps go to.
    fn finish(mut self) -> Vec<u64> {
        let end = self.code.len();
        for at in self.leaving {
            let distance = i16::try_from(end - at - 1).expect("it is short");
            let mut bytes = self.code[at].to_ne_bytes();
            bytes[2..4].copy_from_slice(&distance.to_ne_bytes());
            self.code[at] = u64::from_ne_bytes(bytes);
        }
        self.leaving = Vec::new();
        self.push(MOVE_NUMBER, 0, 0, 0, SK_PASS);
        self.push(EXIT, 0, 0, 0, 0);
        self.code
    }
}
