//! Our endpoint of one side: what was negotiated, what it hears, what we know of its stream.

use crate::codec::{CLOCK_RATE_HZ, Codec, Decoder, Malformed};
use crate::comfort_noise::{self, ComfortNoise};
use crate::discard::{Discard, Discards};
use crate::dtmf::{Detection, DtmfReceiver, TelephoneEvent};
use crate::latch::{Latch, Latched};
use crate::outgoing::{Outgoing, Source};
use crate::player::Player;
use crate::port_pool::PortPair;
use crate::reception::Reception;
use crate::rtcp::{self, LastSenderReport, Report, SenderInfo};
use crate::sdp::{Formats, Origin, Remote, TelephoneEvents};
use crate::sending::Sending;
use crate::snapshot::LatchSnapshot;
use crate::transcoder::{self, Transcoder};
use crate::transmit::Transmits;
use rtp_types::RtpPacket;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Longest RTP payload that is relayed, in bytes.
pub(crate) const PAYLOAD_MAX: usize = 1_400;
/// A transcoder lives so long, at least: making one costs as much as some packets do, and a peer that
/// changes codec or SSRC with each packet must not have one for each.
const TRANSCODER_MIN: Duration = Duration::from_millis(20);

/// What a side hears while nothing is played to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Hears {
    Nothing,
    OtherSide,
    Conference(Arc<str>),
}

/// Its fields lie in memory as they are listed: the first ones are what each packet needs, so that
/// it waits for few lines of memory.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Endpoint {
    pub ports: PortPair,
    pub reported_inactive: bool,
    pub was_latched: bool,
    /// The other side hears it from its first packet on.
    pub heard_connects: bool,
    /// What comes from it goes on as it came, and somebody else negotiates for it.
    pub is_verbatim: bool,
    /// What audio was recognised by last, of what was negotiated.
    recognised: Option<(u8, Codec)>,
    /// Follows from what was negotiated and latched; see [`Endpoint::route`].
    route: Option<Route>,
    pub outgoing: Outgoing,
    pub player: Player,
    /// What we send by our own clock: the player's packets, mixes, digits.
    pub sending: Sending,
    /// Where the timers have it.
    pub armed: Option<Instant>,
    pub rtcp_at: Option<Instant>,
    /// Since when somebody needs to hear this side.
    pub needed_since: Option<Instant>,
    pub last_arrival: Option<Instant>,
    pub hears: Hears,
    /// From what the other side speaks, if that is unlike.
    pub transcoder: Option<Box<Transcoder>>,
    pub packets_received: u64,
    pub reception: Option<Reception>,
    pub rtp: Latch,
    pub dtmf: DtmfReceiver,
    /// Of what the remote says, if somebody needs it as sound.
    decoder: Option<Decoder>,
    /// What the remote said last, as far as it counts.
    pub remote: Option<Remote>,
    /// The numbers that we offered: the remote may send with them.
    ours: Option<Formats>,
    /// Our offer, until it is answered.
    pub open_offer: Option<Formats>,
    pub origin: Origin,
    pub rtcp: Latch,
    /// When the last transcoder was made.
    transcoder_made: Option<Instant>,
    pub negotiated: Instant,
    pub comfort_noise_received: u64,
    pub discards: Discards,
    pub remote_fraction_lost: u8,
    last_sender_report: Option<LastSenderReport>,
    /// Packets sent by the last report.
    reported_packets: u64,
}

/// A valid RTP packet of a side.
pub(crate) enum Received<'a> {
    Audio(Codec, RtpPacket<'a>),
    /// With its clock rate, in Hz.
    Event(TelephoneEvent, u32, RtpPacket<'a>),
    /// Silence, but for noise (RFC 3389).
    ComfortNoise(ComfortNoise, RtpPacket<'a>),
}

/// Where and as what to send audio.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    pub to: SocketAddr,
    pub payload_type: u8,
    pub codec: Codec,
    pub telephone_events: Option<TelephoneEvents>,
    /// Negotiated beside this codec.
    pub comfort_noise: Option<u8>,
    pub ptime_ms: u32,
}

impl Endpoint {
    pub(crate) fn new(now: Instant, ports: PortPair, origin: Origin, outgoing: Outgoing) -> Self {
        Self {
            ports,
            origin,
            is_verbatim: false,
            recognised: None,
            route: None,
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
            sending: Sending::default(),
            decoder: None,
            transcoder: None,
            transcoder_made: None,
            rtcp_at: None,
            needed_since: None,
            reported_inactive: false,
            was_latched: false,
            heard_connects: false,
            last_arrival: None,
            negotiated: now,
            packets_received: 0,
            comfort_noise_received: 0,
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
        let symmetric = remote.verbatim.as_ref().is_none_or(|it| it.symmetric);
        self.rtp.set_symmetric(symmetric);
        self.rtcp.set_symmetric(symmetric);
        if remote.held() {
            self.outgoing.switch(); // What is not sent meanwhile must not look lost.
        }
        self.outgoing.set_clock_rate(remote.codec().clock_rate_hz());
        self.remote = Some(remote);
        self.note_formats();
        self.negotiated = now;
        self.wake_player(now);
    }

    /// Forgets what followed from formats and addresses that are others now.
    pub(crate) fn note_formats(&mut self) {
        self.is_verbatim = self.remote.as_ref().is_some_and(|it| it.verbatim.is_some());
        self.recognised = None;
        self.note_latched();
    }

    /// A source was latched: what is sent goes there.
    pub(crate) fn note_latched(&mut self) {
        self.route = self.find_route();
    }

    /// The remote's description is an answer to ours.
    pub(crate) fn we_offered(&self) -> bool {
        self.ours.is_some()
    }

    /// None while it is not negotiated or on hold.
    pub(crate) fn route(&self) -> Option<Route> {
        debug_assert_eq!(self.route, self.find_route(), "it was found when something changed");
        self.route
    }

    fn find_route(&self) -> Option<Route> {
        let audio = &self.remote.as_ref()?.audio;
        if audio.held() {
            return None;
        }
        let (payload_type, codec) = audio.formats.preferred();
        Some(Route {
            to: self.rtp.destination()?,
            payload_type,
            codec,
            telephone_events: audio.formats.events_beside(codec),
            comfort_noise: audio.formats.comfort_noise.filter(|_| codec.sample_rate_hz() == 8_000),
            ptime_ms: codec.ptime_ms(audio.ptime_ms),
        })
    }

    /// Who hears the other side now: nothing is played over it.
    pub(crate) fn hears_other_side(&self) -> bool {
        self.hears == Hears::OtherSide && !self.player.is_playing()
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
        if self.is_sending_digits() {
            return Err(Discard::SendingDigits);
        }
        match received {
            Received::Event(event, clock_rate_hz, packet) => {
                self.relay_event(now, route, *event, *clock_rate_hz, packet, out)
            }
            Received::Audio(codec, packet) if *codec == route.codec => {
                self.relay_as(now, route, packet, packet.payload(), out)
            }
            Received::Audio(codec, packet) => match (codec.law(), route.codec.law()) {
                (Some(from), Some(to)) => {
                    let mut codes = [0; PAYLOAD_MAX];
                    let payload = packet.payload();
                    for (code, before) in codes.iter_mut().zip(payload) {
                        *code = from.transcode(to, *before);
                    }
                    self.relay_as(now, route, packet, &codes[..payload.len()], out)
                }
                _ => self.transcode(now, route, *codec, packet, out),
            },
            Received::ComfortNoise(_, packet) => match route.comfort_noise {
                Some(payload_type) if self.transcoder.is_none() => {
                    let payload = packet.payload();
                    self.relay_source(now, route, packet.into(), payload_type, payload, 0, out)
                }
                // Its place in time stays empty; what comes after it is the first of a talkspurt.
                _ => Ok(()),
            },
        }
    }

    /// Sends on a packet with its own numbers, and this payload.
    fn relay_as(
        &mut self,
        now: Instant,
        route: Route,
        packet: &RtpPacket<'_>,
        payload: &[u8],
        out: &mut Transmits,
    ) -> Result<(), Discard> {
        if self.transcoder.take().is_some() {
            self.outgoing.switch();
        }
        let ticks = route.codec.ticks_of(payload).unwrap_or(0);
        self.relay_source(now, route, packet.into(), route.payload_type, payload, ticks, out)
    }

    #[allow(clippy::too_many_arguments)] // Each is one field of a packet.
    fn relay_source(
        &mut self,
        now: Instant,
        route: Route,
        source: Source,
        payload_type: u8,
        payload: &[u8],
        ticks: u32,
        out: &mut Transmits,
    ) -> Result<(), Discard> {
        let outgoing = &mut self.outgoing;
        out.push(self.ports.rtp(), route.to, None, |bytes| {
            outgoing.relay(now, source, payload_type, payload, ticks, bytes)
        })
        .map_err(|_| Discard::BeforeSwitch)
    }

    /// Sends on a telephone-event, its duration in the clock of this side's events.
    fn relay_event(
        &mut self,
        now: Instant,
        route: Route,
        event: TelephoneEvent,
        clock_rate_hz: u32,
        packet: &RtpPacket<'_>,
        out: &mut Transmits,
    ) -> Result<(), Discard> {
        let events = route.telephone_events.ok_or(Discard::NoTelephoneEvent)?;
        let source = match &mut self.transcoder {
            Some(transcoder) if transcoder.ssrc() == packet.ssrc() => transcoder.event(packet),
            _ => packet.into(),
        };
        let ticks = u64::from(event.duration) * u64::from(events.clock_rate_hz);
        let duration = u16::try_from(ticks / u64::from(clock_rate_hz)).unwrap_or(u16::MAX);
        let mut payload = [0; PAYLOAD_MAX];
        let payload = &mut payload[..packet.payload_len()];
        payload.copy_from_slice(packet.payload());
        payload[2..4].copy_from_slice(&duration.to_be_bytes());
        self.relay_source(now, route, source, events.payload_type, payload, 0, out)
    }

    /// Sends on what a packet becomes in this side's codec: none, one or some.
    fn transcode(
        &mut self,
        now: Instant,
        route: Route,
        from: Codec,
        packet: &RtpPacket<'_>,
        out: &mut Transmits,
    ) -> Result<(), Discard> {
        let form = transcoder::Form { from, to: route.codec, ptime_ms: route.ptime_ms };
        let fits = |it: &Transcoder| it.fits(form, packet.ssrc());
        if !self.transcoder.as_deref().is_some_and(fits) {
            let too_soon = |it: &Instant| now.saturating_duration_since(*it) < TRANSCODER_MIN;
            if self.transcoder_made.as_ref().is_some_and(too_soon) {
                return Err(Discard::CodecChanged);
            }
            self.outgoing.switch();
            self.transcoder = Some(Box::new(Transcoder::new(form, packet)));
            self.transcoder_made = Some(now);
        }
        let Some(mut transcoder) = self.transcoder.take() else { return Ok(()) };
        let mut result = transcoder.push(packet);
        let payload_type = route.payload_type;
        while let Some((source, ticks, payload)) = transcoder.pop() {
            let sent = self.relay_source(now, route, source, payload_type, payload, ticks, out);
            result = result.and(sent);
        }
        self.transcoder = Some(transcoder);
        result
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
        if latched == Latched::First {
            self.note_latched();
        }
        self.note_arrival(now);
        self.packets_received += 1;
        self.comfort_noise_received += u64::from(matches!(received, Received::ComfortNoise(..)));
        // Events share the timestamps of the audio, whose clock their own rate should be.
        let clock_rate_hz = match &received {
            Received::Audio(codec, _) => Some(codec.clock_rate_hz()),
            Received::Event(..) | Received::ComfortNoise(..) => None,
        };
        self.measure(now, ssrc, sequence, timestamp, clock_rate_hz);
        Ok((received, latched))
    }

    /// Counts a packet for our reports; its clock, unless it is that of the packets before.
    pub(crate) fn measure(
        &mut self,
        now: Instant,
        ssrc: u32,
        sequence: u16,
        timestamp: u32,
        clock_rate_hz: Option<u32>,
    ) {
        let reception = match &mut self.reception {
            Some(reception) if reception.ssrc() == ssrc => reception,
            other => other.insert(Reception::new(now, ssrc, CLOCK_RATE_HZ, sequence)),
        };
        if let Some(clock_rate_hz) = clock_rate_hz {
            reception.set_clock_rate(clock_rate_hz);
        }
        reception.receive(now, sequence, timestamp);
    }

    /// What a packet is, by the numbers of the remote or those that we offered.
    pub(crate) fn recognise<'a>(&mut self, packet: RtpPacket<'a>) -> Result<Received<'a>, Discard> {
        let number = packet.payload_type();
        if let Some((_, codec)) = self.recognised.filter(|(known, _)| *known == number) {
            return Ok(Received::Audio(codec, packet));
        }
        let remote = self.remote.as_ref().map(|it| &it.audio.formats);
        for formats in self.ours.iter().chain(remote) {
            if let Some(codec) = formats.codec_of(number) {
                self.recognised = Some((number, codec));
                return Ok(Received::Audio(codec, packet));
            }
            if let Some(events) = formats.events_of(number) {
                let event = TelephoneEvent::parse(packet.payload());
                let event = event.ok_or(Discard::MalformedRtp)?;
                return Ok(Received::Event(event, events.clock_rate_hz, packet));
            }
        }
        let is_noise = |it: &Formats| it.comfort_noise == Some(number);
        // Phones send it unasked, by its customary number.
        if number == comfort_noise::PAYLOAD_TYPE || remote.is_some_and(is_noise) {
            let noise = ComfortNoise::parse(packet.payload()).ok_or(Discard::MalformedRtp)?;
            return Ok(Received::ComfortNoise(noise, packet));
        }
        Err(Discard::PayloadType)
    }

    /// Whether tones are looked for in what the remote says.
    pub(crate) fn detects_tones(&self) -> bool {
        match self.dtmf.detection {
            Detection::Auto => {
                // In talk they are for the other side, which hears them.
                let formats = self.remote.as_ref().map(|it| &it.audio.formats);
                !self.hears_other_side() && formats.is_none_or(|it| it.telephone_events.is_empty())
            }
            Detection::Off => false,
            Detection::On => true,
        }
    }

    /// Takes both latches as an earlier process left them.
    pub(crate) fn restore_latches(&mut self, rtp: LatchSnapshot, rtcp: LatchSnapshot) {
        self.rtp.restore(rtp);
        self.rtcp.restore(rtcp);
        self.route = self.find_route();
    }

    /// Appends the samples of a payload, at the codec's rate. Each packet must be decoded once, in
    /// the order of arrival: most codecs go on from what was before.
    ///
    /// # Errors
    /// [`Malformed`] if it is no payload of its codec.
    pub(crate) fn decode(
        &mut self,
        codec: Codec,
        payload: &[u8],
        samples: &mut Vec<i16>,
    ) -> Result<(), Malformed> {
        let decoder = match &mut self.decoder {
            Some(decoder) if decoder.codec() == codec => decoder,
            other => other.insert(Decoder::new(codec)),
        };
        decoder.decode(payload, samples)
    }

    /// What comes now is not decoded: what comes later does not go on from what was.
    pub(crate) fn forget_sound(&mut self) {
        self.decoder = None;
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
        let Some(to) = self.rtcp.destination().filter(|_| !self.is_verbatim) else { return };
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

    /// The remote says that it sends, and does not hold: many phones are silent then, whatever they say.
    pub(crate) fn is_due(&self) -> bool {
        self.remote.as_ref().is_some_and(|it| it.audio.direction.sends() && !it.held())
    }
}
