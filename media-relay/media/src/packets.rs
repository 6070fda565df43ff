//! Datagrams that arrive: whose they are, and where they go.

use crate::discard::Discard;
use crate::dtmf::{Digit, Transport};
use crate::endpoint::{Endpoint, Hears, Received};
use crate::latch::Latched;
use crate::port_pool::PortPair;
use crate::recording::Recording;
use crate::relay::{EventKind, Relay};
use crate::rooms::Room;
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
            _ if self.is_astray(key, source) => Err(Discard::Stranger),
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

    /// Media that we send go where we were told to. Nobody who was told of another address gets them
    /// from us: whoever says so has forged its source, for a side to latch to us and send in circles.
    fn is_astray(&self, key: SideKey, source: SocketAddr) -> bool {
        if self.side_at(source).is_none() {
            return false;
        }
        let side = self.sessions.get(&key.session).and_then(|it| it.side(key.side));
        let signalled = side.and_then(|it| it.rtp.signalled());
        !signalled.is_some_and(|it| {
            it.ip() == source.ip() && PortPair::of(it.port()) == PortPair::of(source.port())
        })
    }

    fn handle_rtp(
        &mut self,
        now: Instant,
        key: SideKey,
        source: SocketAddr,
        bytes: &[u8],
    ) -> Result<(), Discard> {
        let session = self.sessions.get_mut(&key.session).ok_or(Discard::NoListener)?;
        let facing = session.facing_recorded(key.side);
        let (endpoint, mut other, mut recording) = facing.ok_or(Discard::NoListener)?;
        if endpoint.is_verbatim {
            return self.handle_verbatim(now, key, true, source, bytes);
        }
        let was_inactive = endpoint.reported_inactive;
        let (received, latched) = endpoint.receive_rtp(now, source, bytes)?;
        let mut room = match &endpoint.hears {
            Hears::Conference(name) => self.conferences.get_mut(name),
            Hears::Nothing | Hears::OtherSide => None,
        };
        let connects = std::mem::take(&mut endpoint.heard_connects);
        if let Some(other) = other.as_mut().filter(|_| connects) {
            other.hear_other_side();
        }
        let detects_tones = endpoint.detects_tones();
        if !detects_tones {
            endpoint.dtmf.pause();
        }
        self.sound.clear();
        if room.is_some() || recording.is_some() || detects_tones {
            decode(endpoint, &received, &mut self.sound)?;
        } else {
            endpoint.forget_sound();
        }
        let digit = digit_of(now, endpoint, &received, &self.sound);
        if let Some(recording) = &mut recording {
            record(now, recording, key, &received, &self.sound);
        }
        let first = latched == Latched::First && !endpoint.was_latched;
        endpoint.was_latched |= first;
        let mut anchored = false;
        let heard = match (&mut room, other) {
            (Some(room), _) => speak(room, key, &received, &self.sound),
            (None, Some(other)) if other.hears_other_side() => {
                let relayed = other.relay(now, &received, &mut self.transmits);
                anchored = other.outgoing.take_anchored();
                relayed
            }
            // Its digit was noted, which is what most events are for; it is recorded; tones are
            // looked for in it.
            _ if !self.sound.is_empty() || !matches!(received, Received::Audio(..)) => Ok(()),
            _ => Err(Discard::NoListener),
        };
        if anchored || latched == Latched::First {
            self.note_snapshot(key);
        }
        if connects {
            self.note_change(now, SideKey { side: key.side.other(), ..key });
        }
        if first {
            self.emit(key, EventKind::Latched);
        }
        if let Some((digit, transport)) = digit {
            self.emit(key, EventKind::Digit(digit, transport));
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
        if endpoint.is_verbatim {
            return self.handle_verbatim(now, key, false, source, bytes);
        }
        let was_inactive = endpoint.reported_inactive;
        endpoint.receive_rtcp(now, source, bytes)?;
        if was_inactive {
            self.arm(key);
        }
        Ok(())
    }
}

/// Decodes what is sound.
fn decode(
    endpoint: &mut Endpoint,
    received: &Received<'_>,
    sound: &mut Vec<i16>,
) -> Result<(), Discard> {
    match received {
        Received::Audio(codec, packet) => {
            endpoint.decode(*codec, packet.payload(), sound).map_err(|_| Discard::MalformedRtp)
        }
        Received::Event(..) | Received::ComfortNoise(..) => Ok(()),
    }
}

/// The digit that begins in a packet.
fn digit_of(
    now: Instant,
    endpoint: &mut Endpoint,
    received: &Received<'_>,
    sound: &[i16],
) -> Option<(Digit, Transport)> {
    match received {
        Received::Event(event, _, packet) => {
            let digit = endpoint.dtmf.receive(now, packet.ssrc(), packet.timestamp(), *event);
            Some((digit?, Transport::Rtp))
        }
        Received::Audio(codec, _) if !sound.is_empty() && endpoint.detects_tones() => {
            let digit = endpoint.dtmf.listen(now, codec.sample_rate_hz(), sound);
            Some((digit?, Transport::Inband))
        }
        Received::Audio(..) | Received::ComfortNoise(..) => None,
    }
}

fn record(
    now: Instant,
    recording: &mut Recording,
    key: SideKey,
    received: &Received<'_>,
    sound: &[i16],
) {
    if let Received::Audio(codec, packet) = received {
        recording.write(now, key.side, *codec, packet.timestamp(), sound);
    }
}

/// Lets the others in a conference hear a packet.
fn speak(
    room: &mut Room,
    key: SideKey,
    received: &Received<'_>,
    sound: &[i16],
) -> Result<(), Discard> {
    let conference = &mut room.conference;
    match received {
        Received::Audio(codec, packet) => {
            let buffer = conference.buffer(key, codec.clock_rate_hz(), codec.sample_rate_hz());
            let spoken = buffer.is_some_and(|it| it.write(packet.timestamp(), sound));
            if spoken { Ok(()) } else { Err(Discard::Late) }
        }
        Received::ComfortNoise(noise, _) => {
            if let Some(buffer) = conference.last_buffer(key) {
                buffer.write_noise(noise.clone());
            }
            Ok(())
        }
        Received::Event(..) => Ok(()), // Digits are not mixed.
    }
}
