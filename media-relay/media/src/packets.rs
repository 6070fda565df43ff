//! Datagrams that arrive: whose they are, and where they go.

use crate::codec::Law;
use crate::discard::Discard;
use crate::endpoint::{Hears, Received};
use crate::latch::Latched;
use crate::port_pool::PortPair;
use crate::relay::{EventKind, Relay};
use crate::session::SideKey;
use std::net::SocketAddr;
use std::time::Instant;

impl Relay {
    /// Takes a datagram that came to `port` from `source`.
    ///
    /// # Errors
    /// [`Discard`] says why it went nowhere; it is counted on its side already.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        port: u16,
        source: SocketAddr,
        bytes: &[u8],
    ) -> Result<(), Discard> {
        let ports = PortPair::of(port);
        let key = *self.by_port.get(&ports).ok_or(Discard::NoListener)?;
        let result = match port == ports.rtp() {
            true => self.handle_rtp(now, key, source, bytes),
            false => self.handle_rtcp(now, key, source, bytes),
        };
        if let Err(reason) = result
            && let Some(endpoint) = self.session_mut(key).and_then(|it| it.side_mut(key.side))
        {
            endpoint.discards.count(reason);
        }
        result
    }

    fn handle_rtp(
        &mut self,
        now: Instant,
        key: SideKey,
        source: SocketAddr,
        bytes: &[u8],
    ) -> Result<(), Discard> {
        let session = self.sessions.get_mut(&key.session).ok_or(Discard::NoListener)?;
        let (endpoint, other) = session.facing(key.side).ok_or(Discard::NoListener)?;
        let was_inactive = endpoint.reported_inactive;
        let (received, latched) = endpoint.receive_rtp(now, source, bytes)?;
        let digit = match &received {
            Received::Event(event, packet) => {
                endpoint.dtmf.receive(now, packet.ssrc(), packet.timestamp(), *event)
            }
            Received::Audio(..) => None,
        };
        let first = latched == Latched::First && !endpoint.was_latched;
        endpoint.was_latched |= first;
        let mut anchored = false;
        let heard = match (&endpoint.hears, &received) {
            (Hears::Conference(_), Received::Event(..)) => Ok(()), // Digits are not mixed.
            (Hears::Conference(name), Received::Audio(codec, packet)) => {
                let law = codec.law().unwrap_or(Law::Pcmu);
                let samples = packet.payload().iter().map(|it| law.decode(*it));
                let room = self.conferences.get_mut(name);
                let spoken =
                    room.is_some_and(|it| it.conference.speak(key, packet.timestamp(), samples));
                if spoken { Ok(()) } else { Err(Discard::Late) }
            }
            (Hears::Nothing | Hears::OtherSide, _) => match other {
                Some(other) if other.hears_other_side() => {
                    let relayed = other.relay(now, &received, &mut self.transmits);
                    anchored = other.outgoing.take_anchored();
                    relayed
                }
                // Its digit was noted, which is what most events are for.
                _ if matches!(received, Received::Event(..)) => Ok(()),
                _ => Err(Discard::NoListener),
            },
        };
        if anchored || latched == Latched::First {
            self.note_snapshot(key);
        }
        if first {
            self.emit(key, EventKind::Latched);
        }
        if let Some(digit) = digit {
            self.emit(key, EventKind::Digit(digit));
        }
        if was_inactive {
            self.arm(key);
        }
        heard
    }

    fn handle_rtcp(
        &mut self,
        now: Instant,
        key: SideKey,
        source: SocketAddr,
        bytes: &[u8],
    ) -> Result<(), Discard> {
        let session = self.sessions.get_mut(&key.session).ok_or(Discard::NoListener)?;
        let endpoint = session.side_mut(key.side).ok_or(Discard::NoListener)?;
        let was_inactive = endpoint.reported_inactive;
        endpoint.receive_rtcp(now, source, bytes)?;
        if was_inactive {
            self.arm(key);
        }
        Ok(())
    }
}
