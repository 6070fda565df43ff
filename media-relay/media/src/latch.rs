//! Symmetric RTP (RFC 4961, RFC 7362): a side's address is where its packets really come from.

use std::net::SocketAddr;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Latched {
    /// The first valid packet since the latch was opened.
    First,
    Again,
}

/// A packet from elsewhere than the latched source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stranger;

/// Where one remote port is: as signalled, until a packet shows the truth.
#[derive(Debug, Default)]
pub(crate) struct Latch {
    signalled: Option<SocketAddr>,
    latched: Option<SocketAddr>,
    /// Opened by an offer or answer: the next valid source is taken.
    open: bool,
}

impl Latch {
    /// Takes the address of an offer or answer and opens the latch. A source that was latched
    /// stays the destination until a packet comes, if the address is the same as before: behind
    /// NAT it is the only one that works.
    pub(crate) fn signal(&mut self, address: Option<SocketAddr>) {
        if self.signalled != address {
            self.latched = None;
        }
        (self.signalled, self.open) = (address, true);
    }

    /// Takes the source of a valid packet.
    ///
    /// # Errors
    /// [`Stranger`] if another source is latched, or nothing has been signalled yet.
    pub(crate) fn receive(&mut self, source: SocketAddr) -> Result<Latched, Stranger> {
        match (self.open, self.latched) {
            (true, _) => {
                (self.latched, self.open) = (Some(source), false);
                Ok(Latched::First)
            }
            (false, Some(latched)) if latched == source => Ok(Latched::Again),
            (false, _) => Err(Stranger),
        }
    }

    /// Where to send.
    pub(crate) fn destination(&self) -> Option<SocketAddr> {
        self.latched.or(self.signalled)
    }

    pub(crate) fn signalled(&self) -> Option<SocketAddr> {
        self.signalled
    }

    pub(crate) fn latched(&self) -> Option<SocketAddr> {
        self.latched
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_source_wins_until_the_next_offer() {
        let [phone, nat, stranger] = ["10.0.0.1:4000", "203.0.113.9:61000", "192.0.2.1:1"]
            .map(|addr| addr.parse::<SocketAddr>().unwrap());
        let mut latch = Latch::default();
        assert_eq!(latch.receive(phone), Err(Stranger), "nothing was negotiated yet");
        latch.signal(Some(phone));
        assert_eq!(latch.destination(), Some(phone));
        assert_eq!(latch.receive(nat), Ok(Latched::First));
        assert_eq!(latch.destination(), Some(nat));
        assert_eq!(latch.receive(stranger), Err(Stranger));
        assert_eq!(latch.receive(nat), Ok(Latched::Again));

        latch.signal(Some(phone)); // A refresh: the NAT binding stays the destination …
        assert_eq!(latch.destination(), Some(nat));
        assert_eq!(latch.receive(stranger), Ok(Latched::First)); // … and may move.
        assert_eq!(latch.destination(), Some(stranger));

        latch.signal(Some(nat)); // A new address is believed at once.
        assert_eq!(latch.destination(), Some(nat));
        assert_eq!(latch.latched(), None);
    }
}
