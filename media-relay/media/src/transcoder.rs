//! One direction of talk between sides that speak unlike codecs: decode, resample, encode.
//!
//! Packets go in with the sender's numbers and come out with numbers of our own, which
//! [`Outgoing`](crate::outgoing::Outgoing) then joins on to what was sent before. What is lost is
//! concealed, as long as it is short; after a longer pause the timestamps jump, as the sender's did.

use crate::codec::{Codec, Decoder, Encoder};
use crate::discard::Discard;
use crate::outgoing::Source;
use crate::resampler::Resampler;
use rtp_types::RtpPacket;

/// Longest gap that is concealed, in ms.
const CONCEALED_MAX_MS: u32 = 120;
/// A packet that is older than this is of a source that has started again, in ms.
const LATE_MAX_MS: u32 = 1_000;
/// A gap that is longer is no pause, but a source that has started again, in ms.
const PAUSE_MAX_MS: u32 = 60_000;

#[derive(Debug)]
pub(crate) struct Transcoder {
    form: Form,
    decoder: Decoder,
    resampler: Resampler,
    encoder: Encoder,
    /// Samples at the sender's rate, of the packet that is being taken.
    decoded: Vec<i16>,
    /// Samples at the receiver's rate that do not fill a packet yet.
    pending: Vec<i16>,
    payload: Vec<u8>,
    ssrc: u32,
    /// Names this series of numbers, which is another one after a restart.
    number: u32,
    /// The sender's next timestamp; none before its first packet.
    expected: Option<u32>,
    highest_sequence: u16,
    /// Of the next packet that goes out.
    sequence: u16,
    timestamp: u32,
    marker: bool,
    /// The last telephone-event: its timestamp as it came, and as it went.
    event: Option<(u32, u32)>,
}

/// What a transcoder is for; another one needs another transcoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Form {
    pub from: Codec,
    pub to: Codec,
    pub ptime_ms: u32,
}

impl Transcoder {
    /// For the source of `packet`, from it on.
    pub(crate) fn new(form: Form, packet: &RtpPacket<'_>) -> Self {
        Self {
            form,
            decoder: Decoder::new(form.from),
            resampler: Resampler::new(form.from.sample_rate_hz(), form.to.sample_rate_hz()),
            encoder: Encoder::new(form.to),
            decoded: Vec::new(),
            pending: Vec::new(),
            payload: Vec::new(),
            ssrc: packet.ssrc(),
            number: packet.ssrc() ^ packet.timestamp(),
            expected: None,
            highest_sequence: 0,
            sequence: 0,
            timestamp: 0,
            marker: false,
            event: None,
        }
    }

    /// True if it goes on with packets of this source in this form.
    pub(crate) fn fits(&self, form: Form, ssrc: u32) -> bool {
        self.form == form && self.ssrc == ssrc
    }

    pub(crate) fn ssrc(&self) -> u32 {
        self.ssrc
    }

    /// Takes a packet; [`Transcoder::pop`] then has what it becomes.
    ///
    /// # Errors
    /// [`Discard::Late`] if its place has passed, [`Discard::MalformedRtp`] if it is no payload.
    pub(crate) fn push(&mut self, packet: &RtpPacket<'_>) -> Result<(), Discard> {
        let from = self.form.from;
        let payload = packet.payload();
        let ticks = from.ticks_of(payload).ok_or(Discard::MalformedRtp)?;
        let expected = *self.expected.get_or_insert(packet.timestamp());
        let gap = packet.timestamp().wrapping_sub(expected) as i32;
        let ticks_per_ms = from.ticks_per_ms() as i32;
        let gap_ms = gap / ticks_per_ms;
        if gap < 0 && gap_ms >= -(LATE_MAX_MS as i32) {
            return Err(Discard::Late);
        }
        self.decoded.clear();
        if gap > 0 && gap_ms <= CONCEALED_MAX_MS as i32 {
            let missing = gap as usize * from.samples_per_ms() / ticks_per_ms as usize;
            let alone = packet.sequence_number().wrapping_sub(self.highest_sequence) == 2;
            self.decoder.recover(alone.then_some(payload), missing, &mut self.decoded);
        } else if gap != 0 {
            self.pause(gap_ms);
        }
        self.decoder.decode(payload, &mut self.decoded).map_err(|_| Discard::MalformedRtp)?;
        self.resampler.process(&self.decoded, &mut self.pending);
        self.expected = Some(packet.timestamp().wrapping_add(ticks));
        self.highest_sequence = packet.sequence_number();
        self.marker |= packet.marker_bit();
        Ok(())
    }

    /// Jumps over a pause of the sender, or to a new beginning of it.
    fn pause(&mut self, gap_ms: i32) {
        let pending = self.ticks_pending();
        self.pending.clear();
        let pause_ms = u32::try_from(gap_ms).ok().filter(|ms| *ms <= PAUSE_MAX_MS).unwrap_or(0);
        let ticks = pause_ms * self.form.to.ticks_per_ms();
        self.timestamp = self.timestamp.wrapping_add(pending + ticks);
        self.marker = true;
    }

    /// The next packet that is full, with the ticks that it lasts.
    pub(crate) fn pop(&mut self) -> Option<(Source, u32, &[u8])> {
        let Form { to, ptime_ms, .. } = self.form;
        let samples = ptime_ms as usize * to.samples_per_ms();
        if self.pending.len() < samples {
            return None;
        }
        self.payload.clear();
        self.encoder.encode(&self.pending[..samples], &mut self.payload);
        self.pending.drain(..samples);
        let source = self.source(self.timestamp);
        self.marker = false;
        let ticks = ptime_ms * to.ticks_per_ms();
        self.timestamp = self.timestamp.wrapping_add(ticks);
        Some((source, ticks, &self.payload))
    }

    /// The numbers of a telephone-event between the packets of audio; all packets of one event have
    /// its timestamp.
    pub(crate) fn event(&mut self, packet: &RtpPacket<'_>) -> Source {
        let timestamp = match self.event {
            Some((came, went)) if came == packet.timestamp() => went,
            _ => {
                let since = match self.expected {
                    Some(expected) => packet.timestamp().wrapping_sub(expected) as i32,
                    None => 0,
                };
                let (from, to) = (self.form.from.ticks_per_ms(), self.form.to.ticks_per_ms());
                let since = i64::from(since) * i64::from(to) / i64::from(from);
                self.timestamp.wrapping_add(self.ticks_pending()).wrapping_add(since as u32)
            }
        };
        self.event = Some((packet.timestamp(), timestamp));
        self.marker = packet.marker_bit();
        let source = self.source(timestamp);
        self.marker = true; // What comes after it is the first again.
        source
    }

    fn source(&mut self, timestamp: u32) -> Source {
        let sequence = self.sequence;
        self.sequence = sequence.wrapping_add(1);
        Source { ssrc: self.number, sequence, timestamp, marker: self.marker }
    }

    fn ticks_pending(&self) -> u32 {
        let to = self.form.to;
        (self.pending.len() / to.samples_per_ms()) as u32 * to.ticks_per_ms()
    }
}
