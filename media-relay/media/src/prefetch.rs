//! Memory that a batch of datagrams will need, asked for all at once.
//!
//! With thousands of sessions, what a datagram needs is in no cache when it comes, and would be
//! waited for place by place: its port, its session, both sides. Reading a little of each place for
//! some datagrams ahead, place by place, lets the processor fetch all of them together.

use crate::dtmf::Detection;
use crate::endpoint::Endpoint;
use crate::port_pool::PortPair;
use crate::relay::{Relay, TimerKey};
use crate::session::{Side, SideKey};
use std::hint::black_box;

/// Datagrams at a time: what more of them need would not stay in the nearest cache.
pub const PREFETCHED: usize = 12;

impl Relay {
    /// Reads what [`Relay::handle_datagram`] will read for the first [`PREFETCHED`] datagrams, which
    /// came to `ports`, and changes nothing.
    pub fn prefetch(&self, ports: impl Iterator<Item = u16>) {
        // Each loop reads one place of all of them: what the next one reads depends on it, and the
        // processor does not look far enough ahead to overlap whole datagrams.
        let mut keys = [None; PREFETCHED];
        for (key, port) in keys.iter_mut().zip(ports) {
            *key = self.by_port.get(&PortPair::of(port));
        }
        let mut sessions = [None; PREFETCHED];
        for (session, key) in sessions.iter_mut().zip(keys) {
            *session = key.and_then(|it| self.sessions.get(&it.session));
        }
        let mut read = 0;
        for session in sessions.into_iter().flatten() {
            let sides = Side::BOTH.into_iter().filter_map(|it| session.side(it));
            read += sides.map(Endpoint::read_ahead).sum::<u64>();
        }
        black_box(read);
    }

    /// The same for sides whose timers come next.
    pub(crate) fn prefetch_due(&self) {
        let mut read = 0;
        for due in self.timers.coming().take(PREFETCHED) {
            let TimerKey::Side(SideKey { session, side }) = due else { continue };
            let endpoint = self.sessions.get(session).and_then(|it| it.side(*side));
            read += endpoint.map_or(0, |it| it.read_ahead() + it.player.read_ahead());
        }
        black_box(read);
    }
}

impl Endpoint {
    /// A number of each part that a packet needs, added up, without a branch: it means nothing.
    fn read_ahead(&self) -> u64 {
        u64::from(self.ports.rtp())
            + self.outgoing.packets()
            + u64::from(self.is_sending_digits())
            + u64::from(self.rtcp_at.is_some())
            + self.packets_received
            + u64::from(self.reception.is_some())
            + u64::from(self.rtp.latched().is_some())
            + u64::from(self.dtmf.detection == Detection::Auto)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Thousands listen to music: what one of them takes is mostly this.
    #[test]
    fn a_side_is_less_than_two_kilobytes() {
        assert!(size_of::<Endpoint>() < 2_048, "{} bytes", size_of::<Endpoint>());
    }
}
