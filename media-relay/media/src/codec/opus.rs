//! Opus (RFC 6716, RFC 7587) by libopus: mono at 48 kHz.

use crate::codec::{PACKET_SAMPLES_MAX, PAYLOAD_BYTES_MAX};
use opus::{Application, Bitrate, Channels};

const SAMPLE_RATE_HZ: u32 = 48_000;
/// Bits per second of talk: wideband speech is transparent there.
const TALK_BITRATE: i32 = 32_000;
/// Bits per second of files, which are often music.
const FILES_BITRATE: i32 = 48_000;
/// Of libopus, 0 to 10: half of the time of 10, for a difference that few hear in talk.
const TALK_COMPLEXITY: i32 = 5;
const FILES_COMPLEXITY: i32 = 10;
/// Loss that our talk should survive by in-band FEC, in per cent.
const TALK_LOSS_PERCENT: i32 = 5;
/// libopus conceals in multiples of 2.5 ms.
const CONCEALED_STEP: usize = 120;

#[derive(Debug)]
pub(super) struct OpusEncoder(opus::Encoder);

impl OpusEncoder {
    pub(super) fn for_talk() -> Self {
        let mut encoder = Self::new(Application::Voip, TALK_BITRATE, TALK_COMPLEXITY);
        encoder.0.set_inband_fec(true).expect("a switch of libopus");
        encoder.0.set_packet_loss_perc(TALK_LOSS_PERCENT).expect("0 to 100");
        encoder
    }

    pub(super) fn for_files() -> Self {
        Self::new(Application::Audio, FILES_BITRATE, FILES_COMPLEXITY)
    }

    fn new(application: Application, bitrate: i32, complexity: i32) -> Self {
        let mut encoder = opus::Encoder::new(SAMPLE_RATE_HZ, Channels::Mono, application)
            .expect("libopus has memory and knows 48 kHz mono");
        encoder.set_bitrate(Bitrate::Bits(bitrate)).expect("within 6 to 510 kbit/s");
        encoder.set_complexity(complexity).expect("0 to 10");
        Self(encoder)
    }

    /// Samples of the input that a decoder's output is behind.
    pub(super) fn lookahead(&mut self) -> usize {
        let samples = self.0.get_lookahead().expect("libopus knows its delay");
        usize::try_from(samples).expect("a delay is not negative")
    }

    /// `samples` is one packet of 10, 20, 40 or 60 ms.
    pub(super) fn encode(&mut self, samples: &[i16], payload: &mut Vec<u8>) {
        let start = payload.len();
        payload.resize(start + PAYLOAD_BYTES_MAX, 0);
        let len = self.0.encode(samples, &mut payload[start..]).expect("a packet time of Opus");
        payload.truncate(start + len);
    }
}

#[derive(Debug)]
pub(super) struct OpusDecoder(opus::Decoder);

impl OpusDecoder {
    pub(super) fn new() -> Self {
        let decoder = opus::Decoder::new(SAMPLE_RATE_HZ, Channels::Mono);
        Self(decoder.expect("libopus has memory and knows 48 kHz mono"))
    }

    /// Appends the samples of a payload; stereo is mixed down. None if it is malformed.
    pub(super) fn decode(&mut self, payload: &[u8], samples: &mut Vec<i16>) -> Option<()> {
        self.run(payload, PACKET_SAMPLES_MAX, false, samples)
    }

    /// Appends `count` samples of a packet that was lost, from what `next` says of it, or as they
    /// would go on from the last ones.
    pub(super) fn recover(&mut self, next: Option<&[u8]>, count: usize, samples: &mut Vec<i16>) {
        let end = samples.len() + count;
        let whole = count.next_multiple_of(CONCEALED_STEP).min(PACKET_SAMPLES_MAX);
        let next = next.filter(|it| !it.is_empty());
        let _ = self.run(next.unwrap_or(&[]), whole, next.is_some(), samples);
        samples.resize(end, 0); // What it cannot conceal is silence.
    }

    fn run(
        &mut self,
        payload: &[u8],
        space: usize,
        of_the_lost: bool,
        samples: &mut Vec<i16>,
    ) -> Option<()> {
        let start = samples.len();
        samples.resize(start + space, 0);
        let decoded = self.0.decode(payload, &mut samples[start..], of_the_lost);
        samples.truncate(start + decoded.as_ref().copied().unwrap_or(0));
        decoded.is_ok().then_some(())
    }
}

/// Samples at 48 kHz that a packet lasts; none if it is malformed.
pub(super) fn samples_of(payload: &[u8]) -> Option<usize> {
    opus::packet::get_nb_samples(payload, SAMPLE_RATE_HZ).ok()
}
