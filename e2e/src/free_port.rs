//! Ports for whoever must be told its port before it starts.
//!
//! They lie below those that the kernel hands out by itself, so that nobody's connection takes one
//! between its choice and its use.

use anyhow::bail;
use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::ops::Range;
use std::sync::Mutex;

/// Below the ports of media-relay's sessions (20000 on), and of the kernel (mostly 32768 on).
const PORTS: Range<u16> = 10_000..20_000;
const ATTEMPTS: usize = 1_000;

/// Those that this process has chosen before.
static CHOSEN: Mutex<Option<HashSet<u16>>> = Mutex::new(None);

/// A port of 127.0.0.1 that nobody has now, by UDP or by TCP.
///
/// # Errors
/// If none is found.
pub fn free_port() -> anyhow::Result<u16> {
    free_ports(1)
}

/// The first one of `count` such ports in a row.
///
/// # Errors
/// If there is no such row.
pub fn free_ports(count: u16) -> anyhow::Result<u16> {
    let mut chosen = CHOSEN.lock().expect("nobody panics while choosing");
    let chosen = chosen.get_or_insert_default();
    for _ in 0..ATTEMPTS {
        let random =
            RandomState::new().hash_one(ATTEMPTS) % u64::from(PORTS.end - PORTS.start - count);
        let first = PORTS.start + random as u16;
        let row = first..first + count;
        if row.clone().all(|port| !chosen.contains(&port) && is_free(port)) {
            chosen.extend(row);
            return Ok(first);
        }
    }
    bail!("found no {count} free ports in a row in {PORTS:?}")
}

fn is_free(port: u16) -> bool {
    let place = (Ipv4Addr::LOCALHOST, port);
    UdpSocket::bind(place).is_ok() && TcpListener::bind(place).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_or_was_chosen_is_not_chosen_again() {
        let first = free_ports(3).unwrap();
        assert!(PORTS.contains(&first) && (first..first + 3).all(is_free));
        let _taken = TcpListener::bind((Ipv4Addr::LOCALHOST, first)).unwrap();
        assert!(!is_free(first) && is_free(first + 1));
        let others: HashSet<u16> = (0..500).map(|_| free_port().unwrap()).collect();
        assert_eq!(others.len(), 500);
        assert!((first..first + 3).all(|port| !others.contains(&port)));
    }
}
