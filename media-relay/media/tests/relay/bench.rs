//! A relay, a virtual clock, and phones that are addresses.

use media::sdp::Remote;
use media::{Audio, Codec, Config, Described, Error, Event, EventKind, Offer, Output, Play};
use media::{PortPair, Relay, Side, SideStatus};
use rtp_types::{RtpPacket, RtpPacketBuilder};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(crate) const SESSION: &str = "session-1";
pub(crate) const A: &str = "192.0.2.1:4000";
pub(crate) const B: &str = "192.0.2.2:5000";

/// An RTP packet that we sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Packet {
    pub at: Duration,
    pub ssrc: u32,
    pub sequence: u16,
    pub timestamp: u32,
    pub payload_type: u8,
    pub marker: bool,
    pub payload: Vec<u8>,
}

pub(crate) struct Bench {
    pub relay: Relay,
    start: Instant,
    now: Instant,
    sent: Vec<(Duration, u16, SocketAddr, Vec<u8>)>,
    pub events: Vec<(Duration, Event)>,
    pub closed: Vec<PortPair>,
    /// Samples of recordings, as they came out.
    pub recorded: Vec<i16>,
    pub recordings_ended: usize,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::with(|_| ())
    }

    pub(crate) fn with(change: impl FnOnce(&mut Config)) -> Self {
        let start = Instant::now();
        let mut config = Config {
            address: "198.51.100.1".parse().unwrap(),
            bound: "198.51.100.1".parse().unwrap(),
            rtp_ports: 20_000..=20_199,
            port_quarantine: Duration::from_secs(5),
            inactivity: Duration::from_secs(60),
            recording_max: Duration::from_secs(4 * 3_600),
            sessions_max: 50,
            codecs: media::Codec::ALL.to_vec(),
        };
        change(&mut config);
        let relay = Relay::new(config, [7; 32], start, Duration::from_secs(1_700_000_000));
        let relay = relay.unwrap();
        let (sent, events, closed) = (Vec::new(), Vec::new(), Vec::new());
        let (recorded, recordings_ended) = (Vec::new(), 0);
        Self { relay, start, now: start, sent, events, closed, recorded, recordings_ended }
    }

    /// A session with side A negotiated in PCMU with telephone-event 101.
    pub(crate) fn one_side() -> Self {
        let mut bench = Self::new();
        bench.offer(SESSION, Side::A, Some(&sdp(A, "0 101"))).unwrap();
        bench
    }

    /// Sides A (PCMU) and B (`formats`), connected.
    pub(crate) fn connected(formats: &str) -> Self {
        let mut bench = Self::one_side();
        bench.offer(SESSION, Side::B, Some(&sdp(B, formats))).unwrap();
        let now = bench.now;
        bench.relay.connect(now, SESSION).unwrap();
        bench
    }

    pub(crate) fn now(&self) -> Instant {
        self.now
    }

    pub(crate) fn offer(
        &mut self,
        session_id: &str,
        side: Side,
        sdp: Option<&str>,
    ) -> Result<Described, Error> {
        let remote = sdp.map(|it| Remote::parse(it.as_bytes())).transpose()?;
        self.offer_of(session_id, side, remote)
    }

    pub(crate) fn offer_of(
        &mut self,
        session_id: &str,
        side: Side,
        remote: Option<Remote>,
    ) -> Result<Described, Error> {
        let offer = Offer { session_id, call_id: "call-1", owner: "edge", side, remote };
        self.relay.check_offer(&offer)?;
        let ports = match self.relay.needs_ports(session_id, side) {
            true => Some(self.relay.take_ports(self.now)?),
            false => None,
        };
        let described = self.relay.offer(self.now, offer, ports);
        self.drain();
        described
    }

    pub(crate) fn answer(&mut self, side: Side, sdp: &str) -> Result<Described, Error> {
        let remote = Remote::parse(sdp.as_bytes())?;
        self.relay.answer(self.now, SESSION, side, remote)
    }

    pub(crate) fn play(&mut self, side: Side, name: &str, audio: &Arc<Audio>, repeat: bool) {
        self.play_from(side, name, audio, repeat, 0);
    }

    pub(crate) fn play_from(
        &mut self,
        side: Side,
        name: &str,
        audio: &Arc<Audio>,
        repeat: bool,
        offset_ms: u32,
    ) {
        let audio = audio.clone();
        let (play_id, file) = (name.into(), name.into());
        let play = Play { play_id, file, audio, repeat, offset_ms, radio: false };
        self.relay.play(self.now, SESSION, side, play).unwrap();
    }

    /// Lets time pass, stopping wherever the relay wants to be called.
    pub(crate) fn run(&mut self, ms: u64) {
        let until = self.now + Duration::from_millis(ms);
        self.drain();
        while let Some(due) = self.relay.poll_timeout().filter(|due| *due <= until) {
            self.now = self.now.max(due);
            self.relay.handle_timeout(self.now);
            self.drain();
        }
        self.now = until;
    }

    /// As if the process stood still and then went on.
    pub(crate) fn stall(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
        self.relay.handle_timeout(self.now);
        self.drain();
    }

    fn drain(&mut self) {
        let at = self.now - self.start;
        let transmits = self.relay.transmits();
        self.sent.extend(transmits.map(|it| (at, it.from, it.to, it.bytes.to_vec())));
        self.relay.clear_transmits();
        while let Some(output) = self.relay.poll_output() {
            match output {
                Output::Event(event) => self.events.push((at, event)),
                Output::ClosePorts(pair) => self.closed.push(pair),
                Output::Recorded { samples, .. } => self.recorded.extend(samples),
                Output::RecordingEnded { .. } => self.recordings_ended += 1,
                Output::Encode(audio, form) => {
                    audio.encode(form);
                }
            }
        }
    }

    pub(crate) fn status(&self, session_id: &str, side: Side) -> SideStatus {
        let session = self.relay.session(self.now, session_id).unwrap();
        session.sides.into_iter().find(|it| it.side == side).unwrap()
    }

    pub(crate) fn receive(&mut self, side: Side, source: &str, bytes: &[u8]) -> Option<String> {
        let port = self.status(SESSION, side).rtp_port;
        self.receive_on(port, source, bytes)
    }

    /// Hands over a datagram; the reason if it was discarded.
    pub(crate) fn receive_on(&mut self, port: u16, source: &str, bytes: &[u8]) -> Option<String> {
        let source = source.parse().unwrap();
        let handled = self.relay.handle_datagram(self.now, port, source, bytes);
        self.drain();
        handled.err().map(|it| it.label().to_owned())
    }

    /// RTP that went to `to` since the last time it was asked for.
    pub(crate) fn take_rtp(&mut self, to: &str) -> Vec<Packet> {
        let to: SocketAddr = to.parse().unwrap();
        let taken = self.sent.extract_if(.., |(_, from, it, _)| *it == to && *from % 2 == 0);
        taken.map(|(at, _, _, bytes)| parse(at, &bytes)).collect()
    }

    /// Datagrams that nobody has taken yet.
    pub(crate) fn left(&self) -> usize {
        self.sent.len()
    }

    /// Datagrams of any kind that went to `to` since the last time.
    pub(crate) fn take_raw(&mut self, to: &str) -> Vec<Vec<u8>> {
        let to: SocketAddr = to.parse().unwrap();
        self.sent.extract_if(.., |(_, _, it, _)| *it == to).map(|it| it.3).collect()
    }

    /// RTCP likewise.
    pub(crate) fn take_rtcp(&mut self, to: &str) -> Vec<(Duration, Vec<u8>)> {
        let to: SocketAddr = to.parse().unwrap();
        let taken = self.sent.extract_if(.., |(_, from, it, _)| *it == to && *from % 2 == 1);
        taken.map(|(at, _, _, bytes)| (at, bytes)).collect()
    }

    pub(crate) fn digits(&self) -> String {
        let digit = |(_, event): &(_, Event)| match &event.kind {
            EventKind::Digit(digit, _) => Some(digit.as_char()),
            _ => None,
        };
        self.events.iter().filter_map(digit).collect()
    }

    pub(crate) fn count(&self, kind: &EventKind) -> usize {
        self.events.iter().filter(|(_, it)| it.kind == *kind).count()
    }
}

fn parse(at: Duration, bytes: &[u8]) -> Packet {
    let packet = RtpPacket::parse(bytes).unwrap();
    Packet {
        at,
        ssrc: packet.ssrc(),
        sequence: packet.sequence_number(),
        timestamp: packet.timestamp(),
        payload_type: packet.payload_type(),
        marker: packet.marker_bit(),
        payload: packet.payload().to_vec(),
    }
}

/// An offer or answer of `address`, with rtpmaps for all formats above 95 as telephone-event.
pub(crate) fn sdp(address: &str, formats: &str) -> String {
    sdp_with(address, formats, "")
}

/// The same with further attribute lines.
pub(crate) fn sdp_with(address: &str, formats: &str, attributes: &str) -> String {
    let address: SocketAddr = address.parse().unwrap();
    let events: String = formats
        .split(' ')
        .filter(|it| it.parse::<u8>().is_ok_and(|it| it > 95))
        .map(|it| format!("a=rtpmap:{it} telephone-event/8000\r\n"))
        .collect();
    let attributes: String =
        attributes.split_whitespace().map(|it| format!("a={it}\r\n")).collect();
    let (ip, port) = (address.ip(), address.port());
    format!(
        "v=0\r\no=- 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\n\
         m=audio {port} RTP/AVP {formats}\r\n{events}{attributes}"
    )
}

pub(crate) fn rtp(
    ssrc: u32,
    sequence: u16,
    timestamp: u32,
    payload_type: u8,
    payload: &[u8],
) -> Vec<u8> {
    RtpPacketBuilder::<&[u8], &[u8]>::new()
        .payload_type(payload_type)
        .sequence_number(sequence)
        .timestamp(timestamp)
        .ssrc(ssrc)
        .payload(payload)
        .write_vec()
        .unwrap()
}

/// Codes that name their place: `len` samples, different from those of another `seed`.
pub(crate) fn audio(codec: Codec, seed: usize, len: usize) -> Arc<Audio> {
    let codes = (0..len).map(|n| ((n * 7 + seed * 31 + n / 256) % 256) as u8).collect();
    Arc::new(Audio::from_codes(codec.law().unwrap(), codes).unwrap())
}

/// Sequence numbers and timestamps go on as if it were one stream, and it is one SSRC.
pub(crate) fn assert_continuous(packets: &[Packet]) {
    for pair in packets.windows(2) {
        let [before, after] = pair else { unreachable!() };
        assert_eq!(after.ssrc, before.ssrc);
        assert_eq!(after.sequence, before.sequence.wrapping_add(1), "{before:?} {after:?}");
        let ticks = after.timestamp.wrapping_sub(before.timestamp);
        let passed = u32::try_from((after.at - before.at).as_millis()).unwrap() * 8;
        assert!(
            ticks.abs_diff(passed) <= before.payload.len() as u32,
            "{ticks} ticks in {passed}, from {:?} to {:?}",
            before.at,
            after.at
        );
        assert!(ticks as usize >= before.payload.len(), "timestamps overlap");
    }
}
