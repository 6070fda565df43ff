//! Symmetric RTP (RFC 4961, RFC 7362): a side's address is where its packets really come from.

use crate::snapshot::LatchSnapshot;
use std::net::{IpAddr, SocketAddr};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Latched {
    /// The first valid packet since the latch was opened.
    First,
    Again,
}

/// A packet from elsewhere than the latched source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stranger;

/// Packets of the former source, without any of another, after which it is believed again: 2 s.
const FORMER_PACKETS_MAX: u32 = 100;

/// Where one remote port is: as signalled, until a packet shows the truth.
#[derive(Debug, Default)]
pub(crate) struct Latch {
    /// The last address that was signalled.
    signalled: Option<SocketAddr>,
    /// Where the signalling came from: behind NAT, media often come from there too.
    signalling: Option<IpAddr>,
    /// What was signalled last is to send nothing (c=0.0.0.0, port 0).
    muted: bool,
    latched: Option<SocketAddr>,
    /// Opened by an offer or answer: the next valid source is taken.
    open: bool,
    /// Where packets come from says nothing of where to send (no symmetric RTP): the remote is its
    /// host, and its address the signalled one.
    asymmetric: bool,
    /// Where the remote was before it signalled a new address, and how many packets have come from
    /// there since.
    former: Option<(SocketAddr, u32)>,
}

impl Latch {
    /// Takes the address of an offer or answer, if it has one, and opens the latch. A source that
    /// was latched stays the destination until a packet comes, if the address is the same as
    /// before: behind NAT it is the only one that works.
    pub(crate) fn signal(&mut self, address: Option<SocketAddr>, signalling: Option<IpAddr>) {
        self.signalling = signalling.or(self.signalling);
        self.muted = address.is_none();
        self.open = true;
        if address.is_some() && self.signalled != address {
            self.former = self.latched.take().or(self.signalled).map(|it| (it, 0));
            self.signalled = address;
        }
    }

    /// Whether the remote sends from where it receives.
    pub(crate) fn set_symmetric(&mut self, symmetric: bool) {
        self.asymmetric = !symmetric;
        if self.asymmetric {
            self.latched = None;
        }
    }

    /// How likely it is that `source` is the remote (RFC 7362 §4 and §5): the signalled address, else
    /// a host that was signalled or has signalled, else anybody.
    fn credit(&self, source: SocketAddr) -> u8 {
        let host = Some(source.ip());
        match () {
            () if self.signalled == Some(source) => 2,
            () if self.signalled.map(|it| it.ip()) == host || self.signalling == host => 1,
            () => 0,
        }
    }

    /// Takes the source of a valid packet. One that is more likely to be the remote than the latched
    /// one is believed whenever a packet comes from it: whoever was quicker was not the remote. The
    /// source that a remote has just moved away from is heard, but not latched: its last packets are
    /// on their way.
    ///
    /// # Errors
    /// [`Stranger`] if another source is latched, or nothing has been signalled yet.
    pub(crate) fn receive(&mut self, source: SocketAddr) -> Result<Latched, Stranger> {
        if !self.open && self.latched == Some(source) {
            return Ok(Latched::Again);
        }
        let is_signalled = self.signalled == Some(source);
        if self.asymmetric {
            return match (self.credit(source), std::mem::take(&mut self.open)) {
                (0, was_open) => {
                    self.open = was_open;
                    Err(Stranger)
                }
                (_, true) => Ok(Latched::First),
                (_, false) => Ok(Latched::Again),
            };
        }
        match (self.open, self.latched) {
            (false, Some(latched)) if self.credit(source) <= self.credit(latched) => {
                return Err(Stranger);
            }
            (false, None) if !is_signalled => return Err(Stranger),
            _ => (),
        }
        if let Some((former, packets)) = &mut self.former
            && *former == source
            && !is_signalled
            && *packets < FORMER_PACKETS_MAX
        {
            *packets += 1;
            return Ok(Latched::Again);
        }
        (self.latched, self.open, self.former) = (Some(source), false, None);
        Ok(Latched::First)
    }

    /// Where to send.
    pub(crate) fn destination(&self) -> Option<SocketAddr> {
        self.latched.or(self.signalled).filter(|_| !self.muted)
    }

    pub(crate) fn signalled(&self) -> Option<SocketAddr> {
        self.signalled.filter(|_| !self.muted)
    }

    pub(crate) fn latched(&self) -> Option<SocketAddr> {
        self.latched
    }

    pub(crate) fn snapshot(&self) -> LatchSnapshot {
        LatchSnapshot { latched: self.latched, signalling: self.signalling, open: self.open }
    }

    /// After what was signalled has been signalled again: the source that was latched is it still.
    pub(crate) fn restore(&mut self, LatchSnapshot { latched, open, .. }: LatchSnapshot) {
        (self.latched, self.open, self.former) = (latched, open, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses() -> [SocketAddr; 3] {
        ["10.0.0.1:4000", "203.0.113.9:61000", "192.0.2.1:1"].map(|it| it.parse().unwrap())
    }

    #[test]
    fn without_symmetric_rtp_the_signalled_address_is_kept_and_its_host_is_heard() {
        let [phone, stranger, _] = addresses();
        let mut latch = Latch::default();
        latch.signal(Some(phone), None);
        latch.set_symmetric(false);
        assert_eq!(latch.receive(stranger), Err(Stranger));
        let other_port = SocketAddr::new(phone.ip(), 9);
        assert_eq!(latch.receive(other_port), Ok(Latched::First));
        assert_eq!(latch.receive(phone), Ok(Latched::Again));
        assert_eq!(latch.receive(stranger), Err(Stranger));
        assert_eq!(latch.destination(), Some(phone));
    }

    #[test]
    fn the_first_source_wins_until_the_next_offer() {
        let [phone, nat, stranger] = addresses();
        let mut latch = Latch::default();
        assert_eq!(latch.receive(phone), Err(Stranger), "nothing was negotiated yet");
        latch.signal(Some(phone), None);
        assert_eq!(latch.destination(), Some(phone));
        assert_eq!(latch.receive(nat), Ok(Latched::First));
        assert_eq!(latch.destination(), Some(nat));
        assert_eq!(latch.receive(stranger), Err(Stranger));
        assert_eq!(latch.receive(nat), Ok(Latched::Again));

        latch.signal(Some(phone), None); // A refresh: the NAT binding stays the destination …
        assert_eq!(latch.destination(), Some(nat));
        assert_eq!(latch.receive(stranger), Ok(Latched::First)); // … and may move.
        assert_eq!(latch.destination(), Some(stranger));

        latch.signal(Some(nat), None); // A new address is believed at once.
        assert_eq!(latch.destination(), Some(nat));
        assert_eq!(latch.latched(), None);
    }
    #[test]
    fn the_last_packets_of_the_old_address_do_not_hold_the_latch() {
        let [old, new, stranger] = addresses();
        let mut latch = Latch::default();
        latch.signal(Some(old), None);
        assert_eq!(latch.receive(old), Ok(Latched::First));
        latch.signal(Some(new), None);
        assert_eq!(latch.receive(old), Ok(Latched::Again), "still heard");
        assert_eq!(latch.destination(), Some(new));
        assert_eq!(latch.receive(new), Ok(Latched::First));
        assert_eq!(latch.receive(old), Err(Stranger));

        latch.signal(Some(stranger), None); // It never comes from there: the old source was right.
        let packets = (0..=FORMER_PACKETS_MAX).map(|_| latch.receive(new).unwrap());
        assert_eq!(packets.last(), Some(Latched::First));
        assert_eq!(latch.destination(), Some(new));
    }

    #[test]
    fn who_was_quicker_than_the_signalled_address_loses_to_it() {
        let [phone, _, stranger] = addresses();
        let mut latch = Latch::default();
        latch.signal(Some(phone), None);
        assert_eq!(latch.receive(stranger), Ok(Latched::First));
        assert_eq!(latch.receive(phone), Ok(Latched::First));
        assert_eq!(latch.receive(stranger), Err(Stranger));
        assert_eq!(latch.destination(), Some(phone));
    }

    #[test]
    fn who_comes_from_where_the_signalling_came_from_beats_a_quicker_stranger_once() {
        let [phone, nat, stranger] = addresses();
        let mut latch = Latch::default();
        latch.signal(Some(phone), Some(nat.ip()));
        assert_eq!(latch.receive(stranger), Ok(Latched::First), "media may come from anywhere");
        assert_eq!(latch.receive(nat), Ok(Latched::First));
        assert_eq!(latch.receive(stranger), Err(Stranger));
        let neighbour = SocketAddr::new(nat.ip(), nat.port() + 2);
        assert_eq!(latch.receive(neighbour), Err(Stranger), "behind the same NAT, but later");
        assert_eq!(latch.destination(), Some(nat));
    }

    #[test]
    fn a_source_behind_nat_is_known_again_after_hold_by_0_0_0_0() {
        let [phone, nat, _] = addresses();
        let mut latch = Latch::default();
        latch.signal(Some(phone), None);
        latch.receive(nat).unwrap();
        latch.signal(None, None);
        assert_eq!((latch.destination(), latch.signalled()), (None, None));
        latch.signal(Some(phone), None);
        assert_eq!(latch.destination(), Some(nat));
    }
}
