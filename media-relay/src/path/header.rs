//! Headers of what we send from a raw socket: UDP (RFC 768), and IPv6 (RFC 8200), which the kernel
//! does not write before a UDP header of ours. That of IPv4 it does.

use crate::path::TRAFFIC_CLASS_EF;
use crate::path::kernel::HEAD_BYTES_MAX;
use media::Transmit;
use std::net::{IpAddr, SocketAddr};

const UDP_BYTES: usize = 8;
const IPV6_BYTES: usize = 40;
/// As Linux sends by default.
const HOPS: u8 = 64;
const UDP: u8 = 17;

/// Writes the headers of a datagram from `from` that the kernel does not; returns their length in
/// bytes.
///
/// # Panics
/// If its addresses are of different families: negotiation refuses such a remote.
pub(crate) fn write_header(
    head: &mut [u8; HEAD_BYTES_MAX],
    from: IpAddr,
    transmit: &Transmit<'_>,
) -> usize {
    let udp_len = UDP_BYTES + transmit.bytes.len();
    let (ip_len, pseudo_header) = match (from, transmit.to) {
        (IpAddr::V4(from), SocketAddr::V4(to)) => (0, sum(&from.octets()) + sum(&to.ip().octets())),
        (IpAddr::V6(from), SocketAddr::V6(to)) => {
            head[..4].copy_from_slice(&(6 << 28 | TRAFFIC_CLASS_EF << 20).to_be_bytes());
            head[4..6].copy_from_slice(&(udp_len as u16).to_be_bytes());
            head[6..8].copy_from_slice(&[UDP, HOPS]);
            head[8..24].copy_from_slice(&from.octets());
            head[24..40].copy_from_slice(&to.ip().octets());
            (IPV6_BYTES, sum(&head[8..40]))
        }
        (from, to) => unreachable!("a datagram from {from} to {to}"),
    };
    let udp = &mut head[ip_len..ip_len + UDP_BYTES];
    udp[..2].copy_from_slice(&transmit.from.to_be_bytes());
    udp[2..4].copy_from_slice(&transmit.to.port().to_be_bytes());
    udp[4..6].copy_from_slice(&(udp_len as u16).to_be_bytes());
    let pseudo_header = pseudo_header + u64::from(UDP) + udp_len as u64;
    let checksum = match fold(pseudo_header + sum(&udp[..6]) + sum(transmit.bytes)) {
        0 => 0xffff, // 0 says that there is none.
        checksum => checksum,
    };
    udp[6..].copy_from_slice(&checksum.to_be_bytes());
    ip_len + UDP_BYTES
}

/// The sum of big-endian words of 16 bits, the last one padded with zero, not folded yet.
///
/// Words of 32 bits are added: they fold to the same (RFC 1071 §2).
fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<4>();
    let words: u64 = words.iter().map(|it| u64::from(u32::from_be_bytes(*it))).sum();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    words + u64::from(u32::from_be_bytes(last))
}

/// The complement of the sum with its carries added until 16 bits are left.
fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header(from: &str, to: &str, bytes: &[u8]) -> Vec<u8> {
        let to = to.parse().unwrap();
        let transmit = Transmit { from: 20_000, to, bytes, due: None };
        let mut head = [0; HEAD_BYTES_MAX];
        let len = write_header(&mut head, from.parse().unwrap(), &transmit);
        head[..len].to_vec()
    }

    /// RFC 1071, word by word, over everything that the checksum is to cover.
    fn checks(pseudo_header: &[u8], udp: &[u8], body: &[u8]) -> bool {
        let mut all = [pseudo_header, &[0, UDP], &udp[4..6], udp, body].concat();
        all.resize(all.len().next_multiple_of(2), 0);
        let words = all.chunks(2).map(|it| u32::from(u16::from_be_bytes([it[0], it[1]])));
        let sum: u32 = words.sum();
        let folded = (sum & 0xffff) + (sum >> 16);
        (folded & 0xffff) + (folded >> 16) == 0xffff
    }

    proptest! {
        #[test]
        fn the_checksum_makes_the_sum_all_ones(bytes in prop::collection::vec(any::<u8>(), 0..1_500)) {
            let v4 = header("192.0.2.1", "198.51.100.7:40001", &bytes);
            prop_assert!(checks(&[192, 0, 2, 1, 198, 51, 100, 7], &v4, &bytes));
            let v6 = header("2001:db8::1", "[2001:db8::2]:40001", &bytes);
            prop_assert!(checks(&v6[8..40], &v6[40..], &bytes));
        }
    }

    #[test]
    fn a_header_says_ports_and_length_and_that_of_ipv6_ef() {
        let v4 = header("192.0.2.1", "198.51.100.7:40001", &[0; 172]);
        assert_eq!((v4.len(), &v4[..6]), (8, &[0x4e, 0x20, 0x9c, 0x41, 0, 180][..]));
        let v6 = header("2001:db8::1", "[2001:db8::2]:40001", &[0; 172]);
        assert_eq!(v6[..8], [0x6b, 0x80, 0, 0, 0, 180, 17, 64]);
        assert_eq!((v6.len(), &v6[40..46]), (48, &[0x4e, 0x20, 0x9c, 0x41, 0, 180][..]));
    }
}
