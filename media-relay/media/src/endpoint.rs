//! Our endpoint of one side: what was negotiated, what it hears, what we know of its stream.

use crate::codec::{Codec, Law, TICKS_PER_MS};
use crate::conference::{STEP_SAMPLES, Step};
use crate::discard::{Discard, Discards};
use crate::dtmf::{DtmfReceiver, TelephoneEvent};
use crate::latch::{Latch, Latched};
use crate::outgoing::Outgoing;
use crate::player::Player;
use crate::port_pool::PortPair;
use crate::reception::Reception;
use crate::rtcp::{self, LastSenderReport, Report, SenderInfo};
use crate::schedule::newest_slot;
use crate::sdp::{Formats, Origin, PTIME_DEFAULT_MS, Remote};
use crate::transmit::Transmits;
use rtp_types::RtpPacket;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A player that is later than this skips what it missed instead of sending it in a burst.
const LATE_MAX: Duration = Duration::from_millis(100);
/// Longest frame that we send, in samples: 60 ms.
const FRAME_MAX: usize = 60 * TICKS_PER_MS as usize;
/// Longest RTP payload that is relayed, in bytes.
pub(crate) const PAYLOAD_MAX: usize = 1_400;

/// What a side hears while nothing is played to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Hears {
    Nothing,
    OtherSide,
    Conference(Arc<str>),
}

#[derive(Debug)]
pub(crate) struct Endpoint {
    pub ports: PortPair,
    pub origin: Origin,
    /// What the remote said last, as far as it counts.
    pub remote: Option<Remote>,
    /// Our offer, until it is answered.
    pub open_offer: Option<Formats>,
    /// The numbers that we offered: the remote may send with them.
    ours: Option<Formats>,
    pub rtp: Latch,
    pub rtcp: Latch,
    pub outgoing: Outgoing,
    pub reception: Option<Reception>,
    pub dtmf: DtmfReceiver,
    pub player: Player,
    pub hears: Hears,
    /// When the next frame of the player is due.
    pub slot: Option<Instant>,
    /// Codes of the mix that do not fill a packet yet.
    mixed: Vec<u8>,
    pub rtcp_at: Option<Instant>,
    /// Since when somebody needs to hear this side.
    pub needed_since: Option<Instant>,
    pub reported_inactive: bool,
    pub was_latched: bool,
    pub last_arrival: Option<Instant>,
    pub negotiated: Instant,
    pub packets_received: u64,
    pub discards: Discards,
    pub remote_fraction_lost: u8,
    last_sender_report: Option<LastSenderReport>,
    /// Packets sent by the last report.
    reported_packets: u64,
    /// Where the timers have it.
    pub armed: Option<Instant>,
}

/// A valid RTP packet of a side.
pub(crate) enum Received<'a> {
    Audio(Codec, RtpPacket<'a>),
    Event(TelephoneEvent, RtpPacket<'a>),
}

/// Where and as what to send audio.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Route {
    pub to: SocketAddr,
    pub payload_type: u8,
    pub codec: Codec,
    pub telephone_event: Option<u8>,
    pub ptime_ms: u32,
}

impl Endpoint {
    pub(crate) fn new(now: Instant, ports: PortPair, origin: Origin, outgoing: Outgoing) -> Self {
        Self {
            ports,
            origin,
            remote: None,
            open_offer: None,
            ours: None,
            rtp: Latch::default(),
            rtcp: Latch::default(),
            outgoing,
            reception: None,
            dtmf: DtmfReceiver::default(),
            player: Player::default(),
            hears: Hears::Nothing,
            slot: None,
            mixed: Vec::new(),
            rtcp_at: None,
            needed_since: None,
            reported_inactive: false,
            was_latched: false,
            last_arrival: None,
            negotiated: now,
            packets_received: 0,
            discards: Discards::default(),
            remote_fraction_lost: 0,
            last_sender_report: None,
            reported_packets: 0,
            armed: None,
        }
    }

    /// Takes what the remote said, in an offer or an answer.
    pub(crate) fn negotiate(&mut self, now: Instant, remote: Remote) {
        self.ours = self.open_offer.take();
        self.rtp.signal(remote.audio.rtp, remote.signalling);
        self.rtcp.signal(remote.audio.rtcp, remote.signalling);
        if remote.held() {
            self.outgoing.switch(); // What is not sent meanwhile must not look lost.
        }
        if self.remote.as_ref().is_some_and(|it| it.codec() != remote.codec()) {
            self.mixed.clear();
        }
        self.remote = Some(remote);
        self.negotiated = now;
        self.wake_player(now);
    }

    /// The remote's description is an answer to ours.
    pub(crate) fn we_offered(&self) -> bool {
        self.ours.is_some()
    }

    /// None while it is not negotiated or on hold.
    pub(crate) fn route(&self) -> Option<Route> {
        let audio = &self.remote.as_ref()?.audio;
        if audio.held() {
            return None;
        }
        let (payload_type, codec) = audio.formats.preferred();
        Some(Route {
            to: self.rtp.destination()?,
            payload_type,
            codec,
            telephone_event: audio.formats.telephone_event,
            ptime_ms: audio.ptime_ms,
        })
    }

    /// Who hears the other side now: nothing is played over it.
    pub(crate) fn hears_other_side(&self) -> bool {
        self.hears == Hears::OtherSide && !self.player.is_playing()
    }

    /// Changes what it hears below the player.
    pub(crate) fn set_hears(&mut self, hears: Hears) {
        self.mixed.clear();
        self.hears = hears;
        self.outgoing.switch();
    }

    /// Starts the player's slots, if it has something to play to somebody who listens.
    pub(crate) fn wake_player(&mut self, now: Instant) {
        if self.slot.is_none() && self.player.is_playing() && self.route().is_some() {
            self.outgoing.switch();
            self.slot = Some(now);
        }
    }

    /// Sends the frames that are due; returns the prompt that has ended.
    pub(crate) fn send_frames(&mut self, now: Instant, out: &mut Transmits) -> Option<Arc<str>> {
        let mut finished = None;
        if let Some(slot) = self.slot.filter(|it| now.saturating_duration_since(*it) > LATE_MAX) {
            let ptime_ms = self.route().map_or(PTIME_DEFAULT_MS, |it| it.ptime_ms);
            self.outgoing.switch();
            self.slot = Some(newest_slot(slot, now, Duration::from_millis(ptime_ms.into())));
        }
        while let Some(slot) = self.slot.filter(|slot| *slot <= now) {
            if let Some(play_id) = self.player.take_finished() {
                finished = Some(play_id);
                self.outgoing.switch();
            }
            self.slot = self.send_frame(slot, out);
        }
        finished
    }

    /// Sends the frame of one slot; the next one, or none if the player is done or must pause.
    fn send_frame(&mut self, slot: Instant, out: &mut Transmits) -> Option<Instant> {
        if !self.player.is_playing() {
            return None;
        }
        let Some(route) = self.route() else {
            self.outgoing.switch();
            return None;
        };
        let mut frame = [0; FRAME_MAX];
        let frame = &mut frame[..(route.ptime_ms * TICKS_PER_MS) as usize];
        self.player.fill(route.codec, frame);
        self.send(route, slot, frame, out);
        Some(slot + Duration::from_millis(route.ptime_ms.into()))
    }

    /// Takes one step of a mix, and sends a packet when enough have come.
    pub(crate) fn hear_step(&mut self, at: Instant, step: &Step, out: &mut Transmits) {
        if self.player.is_playing() {
            return;
        }
        let Some(route) = self.route() else {
            self.mixed.clear();
            self.outgoing.switch();
            return;
        };
        let law = route.codec.law().unwrap_or(Law::Pcmu);
        self.mixed.extend(step.iter().map(|it| law.encode(*it)));
        let wanted = (route.ptime_ms * TICKS_PER_MS) as usize;
        if self.mixed.len() + STEP_SAMPLES > wanted {
            let packet = std::mem::take(&mut self.mixed);
            self.send(route, at, &packet[..packet.len().min(wanted)], out);
            self.mixed = packet;
            self.mixed.clear();
        }
    }

    /// Notes that steps of its mix were skipped: time has passed without samples.
    pub(crate) fn miss_steps(&mut self) {
        if !self.player.is_playing() {
            self.mixed.clear();
            self.outgoing.switch();
        }
    }

    fn send(&mut self, route: Route, at: Instant, payload: &[u8], out: &mut Transmits) {
        let outgoing = &mut self.outgoing;
        let Ok(()) = out.push(self.ports.rtp(), route.to, Some(at), |bytes| {
            outgoing.frame(at, route.payload_type, payload, bytes);
            Ok::<(), Infallible>(())
        });
    }

    /// Sends on a packet of the other side.
    ///
    /// # Errors
    /// Why it cannot be sent.
    pub(crate) fn relay(
        &mut self,
        now: Instant,
        received: &Received<'_>,
        out: &mut Transmits,
    ) -> Result<(), Discard> {
        let route = self.route().ok_or(Discard::OnHold)?;
        let mut transcoded = [0; PAYLOAD_MAX];
        let (packet, payload_type, payload) = match received {
            Received::Event(_, packet) => {
                let payload_type = route.telephone_event.ok_or(Discard::NoTelephoneEvent)?;
                (packet, payload_type, packet.payload())
            }
            Received::Audio(codec, packet) if *codec == route.codec => {
                (packet, route.payload_type, packet.payload())
            }
            Received::Audio(codec, packet) => {
                let payload = packet.payload();
                let (Some(from), Some(to)) = (codec.law(), route.codec.law()) else {
                    return Err(Discard::PayloadType);
                };
                for (code, before) in transcoded.iter_mut().zip(payload) {
                    *code = from.transcode(to, *before);
                }
                (packet, route.payload_type, &transcoded[..payload.len()])
            }
        };
        let outgoing = &mut self.outgoing;
        out.push(self.ports.rtp(), route.to, None, |bytes| {
            outgoing.relay(now, packet, payload_type, payload, bytes)
        })
        .map_err(|_| Discard::BeforeSwitch)
    }

    /// Reads a datagram of the RTP port; also says if it is the first of its source.
    ///
    /// # Errors
    /// Why it is not a packet of this side.
    pub(crate) fn receive_rtp<'a>(
        &mut self,
        now: Instant,
        source: SocketAddr,
        bytes: &'a [u8],
    ) -> Result<(Received<'a>, Latched), Discard> {
        let packet = RtpPacket::parse(bytes).map_err(|_| Discard::MalformedRtp)?;
        if (64..96).contains(&packet.payload_type()) {
            return Err(Discard::RtcpOnRtpPort); // RFC 5761 §4: never an RTP payload type.
        }
        if packet.payload_len() > PAYLOAD_MAX {
            return Err(Discard::TooLong);
        }
        let (ssrc, sequence, timestamp) =
            (packet.ssrc(), packet.sequence_number(), packet.timestamp());
        let received = self.recognise(packet)?;
        let latched = self.rtp.receive(source).map_err(|_| Discard::Stranger)?;
        self.note_arrival(now);
        self.packets_received += 1;
        let reception = match &mut self.reception {
            Some(reception) if reception.ssrc() == ssrc => reception,
            other => other.insert(Reception::new(now, ssrc, sequence)),
        };
        reception.receive(now, sequence, timestamp);
        Ok((received, latched))
    }

    /// What a packet is, by the numbers of the remote or those that we offered.
    fn recognise<'a>(&self, packet: RtpPacket<'a>) -> Result<Received<'a>, Discard> {
        let number = packet.payload_type();
        let remote = self.remote.as_ref().map(|it| &it.audio.formats);
        for formats in self.ours.iter().chain(remote) {
            if let Some(codec) = formats.codec_of(number) {
                return Ok(Received::Audio(codec, packet));
            }
            if formats.telephone_event == Some(number) {
                let event = TelephoneEvent::parse(packet.payload());
                return Ok(Received::Event(event.ok_or(Discard::MalformedRtp)?, packet));
            }
        }
        Err(Discard::PayloadType)
    }

    /// Reads a datagram of the RTCP port.
    ///
    /// # Errors
    /// Why it is not a packet of this side.
    pub(crate) fn receive_rtcp(
        &mut self,
        now: Instant,
        source: SocketAddr,
        bytes: &[u8],
    ) -> Result<(), Discard> {
        let heard = rtcp::parse(bytes, self.outgoing.ssrc()).map_err(|_| Discard::MalformedRtcp)?;
        self.rtcp.receive(source).map_err(|_| Discard::Stranger)?;
        self.note_arrival(now);
        if let Some(ntp_middle) = heard.sender_report_ntp_middle {
            self.last_sender_report = Some(LastSenderReport { ntp_middle, arrival: now });
        }
        if let Some(fraction_lost) = heard.fraction_lost {
            self.remote_fraction_lost = fraction_lost;
        }
        Ok(())
    }

    fn note_arrival(&mut self, now: Instant) {
        self.last_arrival = Some(now);
        self.reported_inactive = false;
    }

    /// Sends our RTCP: SR if we have sent since the last one, else RR.
    pub(crate) fn send_report(
        &mut self,
        now: Instant,
        wallclock: Duration,
        goodbye: bool,
        out: &mut Transmits,
    ) {
        let Some(to) = self.rtcp.destination() else { return };
        let packets = self.outgoing.packets();
        let sent = packets != self.reported_packets;
        self.reported_packets = packets;
        let sender = self.outgoing.timestamp_at(now).filter(|_| sent).map(|timestamp| SenderInfo {
            wallclock,
            timestamp,
            packets,
            octets: self.outgoing.octets(),
        });
        let last = self.last_sender_report;
        let ssrc = self.outgoing.ssrc();
        let report = Report {
            ssrc,
            cname: &format!("{ssrc:08x}@holdfast"), // As random as the SSRC (RFC 7022 §4.2).
            sender,
            reception: self.reception.as_mut().map(|it| (it.report(), last)),
            goodbye,
        };
        let Ok(()) = out.push(self.ports.rtcp(), to, None, |bytes| {
            report.write(now, bytes);
            Ok::<(), Infallible>(())
        });
    }

    /// When it would be inactive, if nothing more came.
    pub(crate) fn inactive_at(&self, limit: Duration) -> Option<Instant> {
        let needed = self.needed_since.filter(|_| !self.reported_inactive && !limit.is_zero())?;
        Some(self.last_arrival.map_or(needed, |it| it.max(needed)) + limit)
    }

    /// The remote says that it sends.
    pub(crate) fn sends(&self) -> bool {
        self.remote.as_ref().is_some_and(|it| it.audio.direction.sends())
    }
}
