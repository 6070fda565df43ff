//! The one RTP stream that we send to a side (RFC 3550 §5.1).
//!
//! Its SSRC never changes, and its sequence numbers and timestamps go on, whatever it carries:
//! music, a prompt, a conference, or the packets of the other side. The first packet of each has
//! the marker bit. Relayed packets keep their distances, so that the receiver sees the sender's
//! losses and reordering.

use crate::codec::CLOCK_RATE_HZ;
use crate::snapshot::{OutgoingSnapshot, RelayingSnapshot, SKIPPED, SentSnapshot};
use rtp_types::RtpPacket;
use std::time::{Duration, Instant};

/// A relayed source that jumps further ahead has restarted (RFC 3550 A.1, MAX_DROPOUT).
const DROPOUT_MAX: i16 = 3_000;
/// A relayed packet that is later than this is from a restarted source (A.1, MAX_MISORDER).
const MISORDER_MAX: i16 = 100;
/// Of an RTP packet of ours.
const HEADER_BYTES: usize = 12;
const VERSION: u8 = 2;

#[derive(Debug)]
pub(crate) struct Outgoing {
    ssrc: u32,
    clock_rate_hz: u32,
    next_sequence: u16,
    last: Option<Sent>,
    first_timestamp: u32,
    /// What we carry has changed: the next packet is the first of something.
    switched: bool,
    relaying: Option<Anchor>,
    /// `relaying` is new since it was last asked.
    anchored: bool,
    packets: u64,
    octets: u64,
}

/// The numbers of a packet that is relayed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source {
    pub ssrc: u32,
    pub sequence: u16,
    pub timestamp: u32,
    pub marker: bool,
}

impl From<&RtpPacket<'_>> for Source {
    fn from(packet: &RtpPacket<'_>) -> Self {
        Self {
            ssrc: packet.ssrc(),
            sequence: packet.sequence_number(),
            timestamp: packet.timestamp(),
            marker: packet.marker_bit(),
        }
    }
}

/// The packet with the newest timestamp.
#[derive(Clone, Copy, Debug)]
struct Sent {
    at: Instant,
    timestamp: u32,
    ticks: u32,
}

/// How the numbers of a relayed source become ours.
#[derive(Clone, Copy, Debug)]
struct Anchor {
    ssrc: u32,
    highest: u16,
    first: u16,
    sequence_offset: u16,
    timestamp_offset: u32,
    /// `highest` and `first` are not known: an earlier process has seen them.
    restored: bool,
}

/// A relayed packet that was sent before the newest switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BeforeSwitch;

impl Outgoing {
    /// All three are random (RFC 3550 §5.1).
    pub(crate) fn new(ssrc: u32, first_sequence: u16, first_timestamp: u32) -> Self {
        Self {
            ssrc,
            clock_rate_hz: CLOCK_RATE_HZ,
            next_sequence: first_sequence,
            last: None,
            first_timestamp,
            switched: true,
            relaying: None,
            anchored: false,
            packets: 0,
            octets: 0,
        }
    }

    pub(crate) fn ssrc(&self) -> u32 {
        self.ssrc
    }

    pub(crate) fn packets(&self) -> u64 {
        self.packets
    }

    /// Payload octets, for sender reports.
    pub(crate) fn octets(&self) -> u64 {
        self.octets
    }

    /// What we carry changes, or has paused.
    pub(crate) fn switch(&mut self) {
        self.switched = true;
        self.relaying = None;
    }

    /// What we send in from now on has this clock. Timestamps go on from the last one, by the time
    /// that passes (RFC 7160 §4.1 would have a new SSRC; receivers do better without).
    pub(crate) fn set_clock_rate(&mut self, clock_rate_hz: u32) {
        if self.clock_rate_hz != clock_rate_hz {
            self.clock_rate_hz = clock_rate_hz;
            self.switch();
        }
    }

    /// The RTP timestamp at `now`; none before the first packet.
    pub(crate) fn timestamp_at(&self, now: Instant) -> Option<u32> {
        let last = self.last?;
        Some(last.timestamp.wrapping_add(self.ticks_between(last.at, now)))
    }

    /// Appends a packet of ours that lasts `ticks`, due at `at`, with what `payload` appends, to `out`;
    /// nothing if that fails.
    ///
    /// # Errors
    /// That of `payload`.
    pub(crate) fn frame<E>(
        &mut self,
        at: Instant,
        payload_type: u8,
        ticks: u32,
        out: &mut Vec<u8>,
        payload: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let start = out.len();
        out.extend_from_slice(&[0; HEADER_BYTES]);
        payload(out).inspect_err(|_| out.truncate(start))?;
        let timestamp = self.next_timestamp(at);
        let sequence = self.next_sequence;
        self.last = Some(Sent { at, timestamp, ticks });
        self.next_sequence = sequence.wrapping_add(1);
        let header = self.header(sequence, timestamp, payload_type, self.switched);
        out[start..start + HEADER_BYTES].copy_from_slice(&header);
        self.count(out.len() - start - HEADER_BYTES);
        self.anchored |= self.switched; // Until now it may have been a pause.
        self.switched = false;
        Ok(())
    }

    /// Begins an event of ours (RFC 4733) at `at`: the timestamp of all its packets.
    pub(crate) fn begin_event(&mut self, at: Instant) -> u32 {
        self.switch();
        let timestamp = self.next_timestamp(at);
        self.last = Some(Sent { at, timestamp, ticks: 0 });
        timestamp
    }

    /// Appends a packet of that event, which has lasted `ticks`, to `out`.
    pub(crate) fn event(
        &mut self,
        timestamp: u32,
        ticks: u32,
        marker: bool,
        payload_type: u8,
        payload: &[u8],
        out: &mut Vec<u8>,
    ) {
        let sequence = self.next_sequence;
        self.next_sequence = sequence.wrapping_add(1);
        if let Some(last) = self.last.as_mut().filter(|it| it.timestamp == timestamp) {
            last.ticks = ticks;
        }
        self.write(sequence, timestamp, payload_type, marker, payload, out);
    }

    /// Appends a packet of the other side, with our numbers, to `out`; it lasts `ticks`.
    ///
    /// # Errors
    /// [`BeforeSwitch`] if its place in our stream is taken by what we sent before.
    pub(crate) fn relay(
        &mut self,
        now: Instant,
        packet: impl Into<Source>,
        payload_type: u8,
        payload: &[u8],
        ticks: u32,
        out: &mut Vec<u8>,
    ) -> Result<(), BeforeSwitch> {
        let packet = packet.into();
        let anchor = self.anchor(now, packet);
        let sequence_in = packet.sequence;
        if (sequence_in.wrapping_sub(anchor.first) as i16) < 0 {
            return Err(BeforeSwitch);
        }
        let sequence = sequence_in.wrapping_add(anchor.sequence_offset);
        let timestamp = packet.timestamp.wrapping_add(anchor.timestamp_offset);
        let ahead = sequence.wrapping_sub(self.next_sequence) as i16;
        if ahead >= 0 {
            self.next_sequence = sequence.wrapping_add(1);
        }
        if self.last.is_none_or(|last| (timestamp.wrapping_sub(last.timestamp) as i32) > 0) {
            self.last = Some(Sent { at: now, timestamp, ticks });
        }
        let marker = packet.marker || self.switched;
        self.write(sequence, timestamp, payload_type, marker, payload, out);
        self.switched = false;
        Ok(())
    }

    /// The mapping for this packet; a new one if it is the first, or its source has restarted.
    fn anchor(&mut self, now: Instant, packet: Source) -> Anchor {
        let sequence = packet.sequence;
        if let Some(anchor) = &mut self.relaying {
            if anchor.restored && anchor.ssrc == packet.ssrc {
                (anchor.highest, anchor.first, anchor.restored) = (sequence, sequence, false);
                self.next_sequence = sequence.wrapping_add(anchor.sequence_offset);
                self.last = None;
                return *anchor;
            }
            let step = sequence.wrapping_sub(anchor.highest) as i16;
            if anchor.ssrc == packet.ssrc && (-MISORDER_MAX..=DROPOUT_MAX).contains(&step) {
                if step > 0 {
                    anchor.highest = sequence;
                    // Stays comparable with `highest` however long the source goes on.
                    let span = anchor.highest.wrapping_sub(anchor.first);
                    if span > i16::MAX as u16 / 2 {
                        anchor.first = anchor.highest.wrapping_sub(MISORDER_MAX as u16);
                    }
                }
                return *anchor;
            }
            self.switched = true;
        }
        let anchor = Anchor {
            ssrc: packet.ssrc,
            highest: sequence,
            first: sequence,
            sequence_offset: self.next_sequence.wrapping_sub(sequence),
            timestamp_offset: self.next_timestamp(now).wrapping_sub(packet.timestamp),
            restored: false,
        };
        self.anchored = true;
        *self.relaying.insert(anchor)
    }

    /// True once for each relayed source, and for each beginning of what we send ourselves: what a
    /// snapshot has of it is out of date.
    pub(crate) fn take_anchored(&mut self) -> bool {
        std::mem::take(&mut self.anchored)
    }

    pub(crate) fn snapshot(&self, now: Instant) -> OutgoingSnapshot {
        let age_us = |at| u64::try_from(now.saturating_duration_since(at).as_micros()).unwrap_or(0);
        OutgoingSnapshot {
            ssrc: self.ssrc,
            next_sequence: self.next_sequence,
            first_timestamp: self.first_timestamp,
            last: self.last.map(|it| SentSnapshot {
                age_us: age_us(it.at),
                timestamp: it.timestamp,
                ticks: it.ticks,
            }),
            relaying: self.relaying.map(|it| RelayingSnapshot {
                ssrc: it.ssrc,
                sequence_offset: it.sequence_offset,
                timestamp_offset: it.timestamp_offset,
            }),
            packets: self.packets,
            octets: self.octets,
        }
    }

    /// The stream of a snapshot that was taken `age` ago, if packets have gone out `every` so often
    /// since: they count as sent, and [`SKIPPED`] more.
    pub(crate) fn restore(
        now: Instant,
        age: Duration,
        every: Option<Duration>,
        snapshot: &OutgoingSnapshot,
    ) -> Self {
        let sent = every.map_or(0, |every| age.as_nanos() / every.as_nanos()) + u128::from(SKIPPED);
        // Without a packet so far, the first one has gone out at once.
        let begun = SentSnapshot { age_us: 0, timestamp: snapshot.first_timestamp, ticks: 0 };
        let last = snapshot.last.or(every.map(|_| begun)).map(|it| {
            let at = now.checked_sub(age + Duration::from_micros(it.age_us));
            Sent { at: at.unwrap_or(now), timestamp: it.timestamp, ticks: it.ticks }
        });
        let skipped = if last.is_some() { sent as u16 } else { 0 };
        let relaying = snapshot.relaying.map(|it| Anchor {
            ssrc: it.ssrc,
            highest: 0,
            first: 0,
            sequence_offset: it.sequence_offset,
            timestamp_offset: it.timestamp_offset,
            restored: true,
        });
        Self {
            next_sequence: snapshot.next_sequence.wrapping_add(skipped),
            last,
            relaying,
            packets: snapshot.packets,
            octets: snapshot.octets,
            ..Self::new(snapshot.ssrc, 0, snapshot.first_timestamp)
        }
    }

    /// Without a switch, samples follow samples; after one, time has passed.
    fn next_timestamp(&self, at: Instant) -> u32 {
        match self.last {
            None => self.first_timestamp,
            Some(last) if self.switched => {
                last.timestamp.wrapping_add(self.ticks_between(last.at, at).max(last.ticks))
            }
            Some(last) => last.timestamp.wrapping_add(last.ticks),
        }
    }

    /// RTP ticks from `earlier` to `later`, rounded down; 0 if it is not later.
    fn ticks_between(&self, earlier: Instant, later: Instant) -> u32 {
        let micros = later.saturating_duration_since(earlier).as_micros();
        (micros * u128::from(self.clock_rate_hz) / 1_000_000) as u32 // Wraps, as timestamps do.
    }

    fn write(
        &mut self,
        sequence: u16,
        timestamp: u32,
        payload_type: u8,
        marker: bool,
        payload: &[u8],
        out: &mut Vec<u8>,
    ) {
        self.count(payload.len());
        out.extend_from_slice(&self.header(sequence, timestamp, payload_type, marker));
        out.extend_from_slice(payload);
    }

    fn count(&mut self, payload_len: usize) {
        self.packets += 1;
        self.octets += payload_len as u64;
    }

    /// RFC 3550 §5.1, without padding, extension and contributing sources.
    fn header(
        &self,
        sequence: u16,
        timestamp: u32,
        payload_type: u8,
        marker: bool,
    ) -> [u8; HEADER_BYTES] {
        let mut header = [0; HEADER_BYTES];
        header[0] = VERSION << 6;
        header[1] = u8::from(marker) << 7 | payload_type & 0x7f;
        header[2..4].copy_from_slice(&sequence.to_be_bytes());
        header[4..8].copy_from_slice(&timestamp.to_be_bytes());
        header[8..].copy_from_slice(&self.ssrc.to_be_bytes());
        header
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use rtp_types::RtpPacketBuilder;
    use std::convert::Infallible;
    use std::fmt::Write as _;

    /// Words are `f` (a frame of ours), `s` (switch), `r<sequence>/<timestamp>` (a relayed packet);
    /// time is 20 ms per word.
    fn check(script: &str, expected: Expect) {
        let start = Instant::now();
        let mut outgoing = Outgoing::new(7, 65_534, u32::MAX - 159);
        let mut ladder = String::new();
        for (n, word) in (0u32..).zip(script.split_whitespace()) {
            let now = start + n * Duration::from_millis(20);
            let mut out = Vec::new();
            match word.strip_prefix('r') {
                _ if word == "s" => outgoing.switch(),
                None => {
                    let Ok(()) = outgoing.frame(now, 0, 160, &mut out, |out| {
                        out.extend_from_slice(&[0xff; 160]);
                        Ok::<(), Infallible>(())
                    });
                }
                Some(numbers) => {
                    let (sequence, timestamp) = numbers.split_once('/').unwrap();
                    let bytes = packet(sequence.parse().unwrap(), timestamp.parse().unwrap());
                    let packet = RtpPacket::parse(&bytes).unwrap();
                    if outgoing.relay(now, &packet, 0, &[0; 160], 160, &mut out).is_err() {
                        writeln!(ladder, "{word}: before switch").unwrap();
                    }
                }
            }
            if let Ok(sent) = RtpPacket::parse(&out) {
                let mark = if sent.marker_bit() { " M" } else { "" };
                let (sequence, timestamp) = (sent.sequence_number(), sent.timestamp());
                writeln!(ladder, "{word}: {sequence} {timestamp}{mark}").unwrap();
            }
        }
        expected.assert_eq(&ladder);
    }

    fn packet(sequence: u16, timestamp: u32) -> Vec<u8> {
        RtpPacketBuilder::<&[u8], &[u8]>::new()
            .payload_type(0)
            .sequence_number(sequence)
            .timestamp(timestamp)
            .ssrc(99)
            .write_vec()
            .unwrap()
    }

    #[test]
    fn sequence_and_timestamp_go_on_from_music_to_relay_and_back() {
        check(
            "f f s r500/1000 r501/1160 s f f",
            expect![[r#"
            f: 65534 4294967136 M
            f: 65535 0
            r500/1000: 0 320 M
            r501/1160: 1 480
            f: 2 800 M
            f: 3 960
        "#]],
        );
    }

    #[test]
    fn loss_and_reordering_of_the_source_stay_visible() {
        check(
            "r10/0 r13/480 r12/320 r14/640",
            expect![[r#"
            r10/0: 65534 4294967136 M
            r13/480: 1 320
            r12/320: 0 160
            r14/640: 2 480
        "#]],
        );
    }

    #[test]
    fn a_packet_from_before_the_switch_is_not_relayed() {
        check(
            "f s r500/1000 r499/840 r501/1160",
            expect![[r#"
            f: 65534 4294967136 M
            r500/1000: 65535 160 M
            r499/840: before switch
            r501/1160: 0 320
        "#]],
        );
    }

    #[test]
    fn a_source_that_restarts_is_joined_on() {
        check(
            "r500/1000 r501/1160 r40000/77 r40001/237",
            expect![[r#"
            r500/1000: 65534 4294967136 M
            r501/1160: 65535 0
            r40000/77: 0 160 M
            r40001/237: 1 320
        "#]],
        );
    }

    #[test]
    fn a_long_source_wraps_without_a_restart() {
        let start = Instant::now();
        let mut outgoing = Outgoing::new(7, 0, 0);
        for n in 0..200_000u32 {
            let bytes = packet(n as u16, n * 160);
            let mut out = Vec::new();
            let packet = RtpPacket::parse(&bytes).unwrap();
            outgoing.relay(start, &packet, 0, &[], 0, &mut out).unwrap();
            let sent = RtpPacket::parse(&out).unwrap();
            assert_eq!((sent.sequence_number(), sent.marker_bit()), (n as u16, n == 0));
        }
    }
}
