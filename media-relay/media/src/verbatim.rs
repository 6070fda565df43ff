//! Sides whose descriptions somebody else negotiates, and whose packets go on as they came.
//!
//! A proxy that lets two phones agree on codecs, keys and options by themselves only wants our ports
//! between them. We know where each phone is and which payload types it named, not what they mean:
//! so nothing that one sends to the other is changed, be it RTP, SRTP, T.38 or RTCP. What we play
//! to such a side is a stream of our own, in a codec of a static payload type (RFC 3551 Table 4),
//! with an SSRC of its own; the other side is not heard meanwhile. What can be read as RTP of such a
//! payload type is measured, and recorded on request; digits are looked for on request.

use crate::codec::Codec;
use crate::discard::Discard;
use crate::dtmf::{Detection, Digit};
use crate::endpoint::{Endpoint, Hears, Received};
use crate::latch::Latched;
use crate::port_pool::PortPair;
use crate::relay::{Error, EventKind, Offer, Relay};
use crate::sdp::{Refusal, Remote};
use crate::session::{Side, SideKey};
use rtp_types::RtpPacket;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Payload types that a description may name.
pub const PAYLOAD_TYPES_MAX: usize = 128;

/// What is known of a remote whose description we do not see.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verbatim {
    /// Where it receives RTP, and RTCP one port above; none while it is on hold.
    pub rtp: Option<SocketAddr>,
    /// As it named them, in its order; at most [`PAYLOAD_TYPES_MAX`] are read.
    pub payload_types: Vec<u8>,
    /// Of what is played to it, in ms.
    pub ptime_ms: u32,
    /// It sends from where it receives, once its first packet has shown where that is. Else it is
    /// sent to where it said, whatever port of that host its packets come from.
    pub symmetric: bool,
    /// Digits that it sends by this payload type are told, at the clock of 8 kHz.
    pub telephone_event: Option<u8>,
    /// The payload type in which it is played to; none: the first of its own that we know.
    pub plays_in: Option<u8>,
    /// Who gets a copy of what it sends, RTCP one port above.
    pub copied_to: Option<SocketAddr>,
}

/// A side to be made or told anew. See [`Relay::attach`].
#[derive(Debug)]
pub struct Attach<'a> {
    pub session_id: &'a str,
    /// Both are needed with the first side of a session only.
    pub call_id: &'a str,
    pub owner: &'a str,
    pub side: Side,
    /// None: its port is made, and nothing of it is known yet.
    pub remote: Option<Verbatim>,
}

/// How long nothing has been heard of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Silence {
    /// Since the last packet of any side, or the last time that one was attached.
    pub silent: Duration,
    /// Something is being played to one of its sides.
    pub playing: bool,
}

impl Relay {
    /// Makes a side, and its session if needed, on `ports`; or tells where its remote is now. Both
    /// sides of the session hear each other from then on, but for what is played to them. Returns
    /// the RTP port. On an error nothing has changed, and ports that were brought are closed.
    ///
    /// # Errors
    /// As [`Relay::offer`]: [`Error::Missing`], [`Error::Deleted`], [`Error::SessionsUsedUp`], or
    /// [`Error::Refused`] for an address of the wrong family or one that leads back.
    pub fn attach(
        &mut self,
        now: Instant,
        attach: Attach<'_>,
        ports: Option<PortPair>,
    ) -> Result<u16, Error> {
        if let Err(e) = self.check_attach(&attach) {
            if let Some(ports) = ports {
                self.close(now, ports);
            }
            return Err(e);
        }
        let Attach { session_id, call_id, owner, side, remote } = attach;
        let offer = Offer { session_id, call_id, owner, side, remote: None };
        let key = self.key_or_new(now, &offer, ports);
        let endpoint = self.endpoint(key, session_id)?;
        let rtp_port = endpoint.ports.rtp();
        if let Some(remote) = remote {
            endpoint.attach(now, remote);
        }
        endpoint.hears = Hears::OtherSide;
        self.note_change(now, key);
        Ok(rtp_port)
    }

    /// Refuses what [`Relay::attach`] would refuse, so that no ports are bound for nothing.
    ///
    /// # Errors
    /// As [`Relay::attach`].
    pub fn check_attach(&self, attach: &Attach<'_>) -> Result<(), Error> {
        let &Attach { session_id, call_id, owner, side, .. } = attach;
        if let Some(remote) = &attach.remote {
            let addresses = [remote.rtp, remote.copied_to];
            for address in addresses.into_iter().flatten() {
                self.check_loop(session_id, Some(address))?;
                if address.is_ipv4() != self.config.address.is_ipv4() {
                    return Err(family(address, self.config.address).into());
                }
            }
        }
        self.check_offer(&Offer { session_id, call_id, owner, side, remote: None })
    }

    /// What is known of a side that was attached; none of any other side.
    pub fn attached(&self, session_id: &str, side: Side) -> Option<&Verbatim> {
        let session = &self.sessions[self.by_id.get(session_id)?];
        session.side(side)?.remote.as_ref()?.verbatim.as_deref()
    }

    /// Plays to an attached side by this payload type, in packets of `ptime_ms`, from now on; false
    /// if it is not attached, or the number means nothing by itself.
    ///
    /// # Errors
    /// [`Error::NoSession`] or [`Error::NoSide`].
    pub fn play_in(
        &mut self,
        session_id: &str,
        side: Side,
        payload_type: u8,
        ptime_ms: u32,
    ) -> Result<bool, Error> {
        let key = self.key(session_id, side)?;
        let endpoint = self.endpoint(key, session_id)?;
        let Some(remote) = &mut endpoint.remote else { return Ok(false) };
        if !remote.play_in(payload_type, ptime_ms) {
            return Ok(false);
        }
        let clock_rate_hz = remote.codec().clock_rate_hz();
        endpoint.outgoing.set_clock_rate(clock_rate_hz);
        endpoint.note_formats();
        self.note_snapshot(key);
        Ok(true)
    }

    /// Copies what an attached side sends to an address, or to none any more; its RTP port here, from
    /// which the copies come. None if it is not attached.
    ///
    /// # Errors
    /// [`Error::Refused`] for an address of the wrong family or one of ours.
    pub fn copy_to(
        &mut self,
        session_id: &str,
        side: Side,
        to: Option<SocketAddr>,
    ) -> Result<Option<u16>, Error> {
        if let Some(to) = to {
            if to.is_ipv4() != self.config.address.is_ipv4() {
                return Err(family(to, self.config.address).into());
            }
            if self.side_at(to).is_some() {
                return Err(Refusal::Loop { address: to }.into());
            }
        }
        let key = self.key(session_id, side)?;
        let endpoint = self.endpoint(key, session_id)?;
        let rtp_port = endpoint.ports.rtp();
        let verbatim = endpoint.remote.as_mut().and_then(|it| it.verbatim.as_mut());
        let Some(verbatim) = verbatim else { return Ok(None) };
        verbatim.copied_to = to;
        self.note_snapshot(key);
        Ok(Some(rtp_port))
    }

    /// How long nothing has been heard of a session; none if it is gone.
    pub fn silence(&self, now: Instant, session_id: &str) -> Option<Silence> {
        let session = &self.sessions[self.by_id.get(session_id)?];
        let sides = || Side::BOTH.into_iter().filter_map(|it| session.side(it));
        let heard =
            sides().map(|it| it.last_arrival.map_or(it.negotiated, |at| at.max(it.negotiated)));
        let last = heard.max().unwrap_or(session.created);
        let playing = sides().any(|it| it.player.is_playing());
        Some(Silence { silent: now.saturating_duration_since(last), playing })
    }

    /// Takes a datagram of an attached side, whatever it is, from its RTP or its RTCP port.
    ///
    /// # Errors
    /// [`Discard`] says why it went nowhere.
    pub(crate) fn handle_verbatim(
        &mut self,
        now: Instant,
        key: SideKey,
        is_rtp: bool,
        source: SocketAddr,
        bytes: &[u8],
    ) -> Result<(), Discard> {
        let session = self.sessions.get_mut(&key.session).ok_or(Discard::NoListener)?;
        let facing = session.facing_recorded(key.side);
        let (endpoint, other, mut recording) = facing.ok_or(Discard::NoListener)?;
        let ports = endpoint.ports;
        let (port, latch) = match is_rtp {
            true => (ports.rtp(), &mut endpoint.rtp),
            false => (ports.rtcp(), &mut endpoint.rtcp),
        };
        let latched = latch.receive(source).map_err(|_| Discard::Stranger)?;
        if latched == Latched::First {
            endpoint.note_latched();
        }
        endpoint.last_arrival = Some(now);
        let mut digit = None;
        if is_rtp {
            endpoint.packets_received += 1;
            let packet = RtpPacket::parse(bytes).ok();
            // RFC 5761 §4: these are RTCP on the same port.
            let packet = packet.filter(|it| !(64..96).contains(&it.payload_type()));
            let received = packet.and_then(|it| endpoint.look_at(now, it));
            digit = received.as_ref().and_then(|it| digit_of(endpoint, it));
            if let (Some(recording), Some(Received::Audio(codec, packet))) =
                (&mut recording, &received)
            {
                self.sound.clear();
                // What cannot be decoded is silence in the recording, and goes on all the same.
                if endpoint.decode(*codec, packet.payload(), &mut self.sound).is_ok() {
                    recording.write(now, key.side, *codec, packet.timestamp(), &self.sound);
                }
            }
        }
        let above = u16::from(!is_rtp);
        if let Some(to) = endpoint.copied_to() {
            let to = SocketAddr::new(to.ip(), to.port().saturating_add(above));
            self.transmits.push_copy(port, to, bytes);
        }
        let to = match other {
            Some(other) if other.hears_other_side() => match is_rtp {
                true => Ok((other.ports.rtp(), other.rtp.destination())),
                false => Ok((other.ports.rtcp(), other.rtcp.destination())),
            },
            _ => Err(Discard::NoListener),
        };
        let first = is_rtp && latched == Latched::First && !endpoint.was_latched;
        endpoint.was_latched |= first;
        let passed_on = match to {
            Ok((from, Some(to))) => {
                self.transmits.push_copy(from, to, bytes);
                Ok(())
            }
            Ok((_, None)) => Err(Discard::OnHold),
            Err(reason) => Err(reason),
        };
        if latched == Latched::First {
            self.note_snapshot(key);
        }
        if first {
            self.emit(key, EventKind::Latched);
        }
        if let Some((digit, duration_ms, volume)) = digit {
            self.emit(key, EventKind::DigitReleased { digit, duration_ms, volume });
        }
        passed_on
    }
}

impl Endpoint {
    /// Takes what is known of a remote whose description we do not see.
    pub(crate) fn attach(&mut self, now: Instant, remote: Verbatim) {
        self.dtmf.detection = Detection::Off; // Tones are heard by who negotiates for it.
        self.negotiate(now, Remote::verbatim(remote));
    }

    fn copied_to(&self) -> Option<SocketAddr> {
        self.remote.as_ref()?.verbatim.as_ref()?.copied_to
    }

    /// Measures an RTP packet; what it is, as far as its number says so by itself.
    fn look_at<'a>(&mut self, now: Instant, packet: RtpPacket<'a>) -> Option<Received<'a>> {
        let (ssrc, sequence) = (packet.ssrc(), packet.sequence_number());
        let timestamp = packet.timestamp();
        let received = self.recognise(packet).ok();
        let clock_rate_hz = match &received {
            Some(Received::Audio(codec, _)) => Some(codec.clock_rate_hz()),
            _ => None,
        };
        self.measure(now, ssrc, sequence, timestamp, clock_rate_hz);
        received
    }
}

/// The digit whose release a packet tells first, its duration in ms, and its volume in −dBm0.
fn digit_of(endpoint: &mut Endpoint, received: &Received<'_>) -> Option<(Digit, u32, u8)> {
    let Received::Event(event, clock_rate_hz, packet) = received else { return None };
    let digit = endpoint.dtmf.release(packet.ssrc(), packet.timestamp(), *event)?;
    let duration_ms = u32::from(event.duration) * 1_000 / clock_rate_hz;
    let volume = packet.payload().get(1)? & 0x3f; // RFC 4733 §2.3.4.
    Some((digit, duration_ms, volume))
}

fn family(theirs: SocketAddr, ours: std::net::IpAddr) -> Refusal {
    let name = |v4: bool| if v4 { "IPv4" } else { "IPv6" };
    Refusal::AddressFamily { got: name(theirs.is_ipv4()), ours: name(ours.is_ipv4()) }
}

/// The codec that a payload type means by itself.
pub(crate) fn codec_of(payload_type: u8) -> Option<Codec> {
    Codec::ALL.into_iter().find(|it| it.static_payload_type() == Some(payload_type))
}
