//! One direction of one stream: linear samples to payloads, and back.
//!
//! Both are values with the state that their codec needs; they allocate when they are made, and
//! after that only until the buffers they are given have grown to the size of a packet.

use crate::codec::g722::{self, G722Decoder, G722Encoder};
use crate::codec::gsm::{self, GsmDecoder, GsmEncoder};
use crate::codec::law::Law;
use crate::codec::opus::{OpusDecoder, OpusEncoder};
use crate::codec::{Codec, PACKET_SAMPLES_MAX};

/// A payload that is none of its codec.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{len} bytes that are no payload of {}", codec.rtpmap())]
pub struct Malformed {
    codec: Codec,
    len: usize,
}

/// Linear samples at [`Codec::sample_rate_hz`] to payloads.
#[derive(Debug)]
pub struct Encoder(Encoding);

#[derive(Debug)]
enum Encoding {
    Law(Law),
    L16(Codec),
    G722(Box<G722Encoder>),
    Gsm(Box<GsmEncoder>),
    Opus(Box<OpusEncoder>),
}

impl Encoder {
    /// For what is said now: as good as is cheap.
    pub fn new(codec: Codec) -> Self {
        Self(match codec {
            Codec::Pcmu => Encoding::Law(Law::Pcmu),
            Codec::Pcma => Encoding::Law(Law::Pcma),
            Codec::L16Wide | Codec::L16Narrow => Encoding::L16(codec),
            Codec::G722 => Encoding::G722(Box::default()),
            Codec::Gsm => Encoding::Gsm(Box::default()),
            Codec::Opus => Encoding::Opus(Box::new(OpusEncoder::for_talk())),
        })
    }

    /// For what is encoded once and heard by many, from anywhere in it: as good as it gets.
    pub fn for_files(codec: Codec) -> Self {
        match codec {
            Codec::Gsm => Self(Encoding::Gsm(Box::new(GsmEncoder::with_entries()))),
            Codec::Opus => Self(Encoding::Opus(Box::new(OpusEncoder::for_files()))),
            _ => Self::new(codec),
        }
    }

    pub fn codec(&self) -> Codec {
        match &self.0 {
            Encoding::Law(Law::Pcmu) => Codec::Pcmu,
            Encoding::Law(Law::Pcma) => Codec::Pcma,
            Encoding::L16(codec) => *codec,
            Encoding::G722(_) => Codec::G722,
            Encoding::Gsm(_) => Codec::Gsm,
            Encoding::Opus(_) => Codec::Opus,
        }
    }

    /// Samples by which a decoder's output is behind what is encoded.
    pub fn lookahead(&mut self) -> usize {
        match &mut self.0 {
            Encoding::Law(_) | Encoding::L16(_) | Encoding::Gsm(_) => 0,
            Encoding::G722(_) => g722::DELAY,
            Encoding::Opus(encoder) => encoder.lookahead(),
        }
    }

    /// Appends the payload of one packet, of a packet time that [`Codec::ptime_ms`] allows. Samples
    /// that do not fill the last unit of the codec are followed by silence.
    pub fn encode(&mut self, samples: &[i16], payload: &mut Vec<u8>) {
        match &mut self.0 {
            Encoding::Law(law) => payload.extend(samples.iter().map(|it| law.encode(*it))),
            Encoding::L16(_) => payload.extend(samples.iter().flat_map(|it| it.to_be_bytes())),
            Encoding::G722(encoder) => encoder.encode(samples, payload),
            Encoding::Gsm(encoder) => {
                for frame in samples.chunks(gsm::FRAME_SAMPLES) {
                    let mut whole = [0; gsm::FRAME_SAMPLES];
                    whole[..frame.len()].copy_from_slice(frame);
                    payload.extend(encoder.encode(&whole));
                }
            }
            Encoding::Opus(encoder) => encoder.encode(samples, payload),
        }
    }
}

/// Payloads to linear samples at [`Codec::sample_rate_hz`].
#[derive(Debug)]
pub struct Decoder(Decoding);

#[derive(Debug)]
enum Decoding {
    Law(Law),
    L16(Codec),
    G722(Box<G722Decoder>),
    Gsm(Box<GsmDecoder>),
    Opus(Box<OpusDecoder>),
}

impl Decoder {
    pub fn new(codec: Codec) -> Self {
        Self(match codec {
            Codec::Pcmu => Decoding::Law(Law::Pcmu),
            Codec::Pcma => Decoding::Law(Law::Pcma),
            Codec::L16Wide | Codec::L16Narrow => Decoding::L16(codec),
            Codec::G722 => Decoding::G722(Box::default()),
            Codec::Gsm => Decoding::Gsm(Box::default()),
            Codec::Opus => Decoding::Opus(Box::new(OpusDecoder::new())),
        })
    }

    pub fn codec(&self) -> Codec {
        match &self.0 {
            Decoding::Law(Law::Pcmu) => Codec::Pcmu,
            Decoding::Law(Law::Pcma) => Codec::Pcma,
            Decoding::L16(codec) => *codec,
            Decoding::G722(_) => Codec::G722,
            Decoding::Gsm(_) => Codec::Gsm,
            Decoding::Opus(_) => Codec::Opus,
        }
    }

    /// Appends the samples of a payload, at most [`PACKET_SAMPLES_MAX`].
    ///
    /// # Errors
    /// [`Malformed`], and then nothing is appended.
    pub fn decode(&mut self, payload: &[u8], samples: &mut Vec<i16>) -> Result<(), Malformed> {
        let codec = self.codec();
        let malformed = Malformed { codec, len: payload.len() };
        let ticks = codec.ticks_of(payload).ok_or(malformed)? as usize;
        let per_tick = codec.samples_per_ms() / codec.ticks_per_ms() as usize;
        if ticks == 0 || ticks * per_tick > PACKET_SAMPLES_MAX {
            return Err(malformed);
        }
        match &mut self.0 {
            Decoding::Law(law) => samples.extend(payload.iter().map(|it| law.decode(*it))),
            Decoding::L16(_) => {
                let pairs = payload.chunks_exact(2);
                samples.extend(pairs.map(|it| i16::from_be_bytes([it[0], it[1]])));
            }
            Decoding::G722(decoder) => decoder.decode(payload, samples),
            Decoding::Gsm(decoder) => {
                let before = samples.len();
                for frame in payload.chunks_exact(gsm::FRAME_BYTES) {
                    let frame = frame.try_into().expect("chunks are exact");
                    let Some(decoded) = decoder.decode(frame) else {
                        samples.truncate(before);
                        return Err(malformed);
                    };
                    samples.extend(decoded);
                }
            }
            Decoding::Opus(decoder) => decoder.decode(payload, samples).ok_or(malformed)?,
        }
        Ok(())
    }

    /// Appends what stands in for `count` samples of packets that were lost. Opus takes them from
    /// the packet after them, if there is one that has them too, else goes on from what it heard;
    /// the others are silent.
    pub fn recover(&mut self, next: Option<&[u8]>, count: usize, samples: &mut Vec<i16>) {
        match &mut self.0 {
            Decoding::Opus(decoder) => decoder.recover(next, count, samples),
            _ => samples.extend(std::iter::repeat_n(0, count)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Two seconds of gliding tones below 3 kHz, at half of full scale.
    fn melody(rate_hz: u32) -> Vec<i16> {
        let sample = |n: u32| {
            let t = f64::from(n) / f64::from(rate_hz);
            let glide = (std::f64::consts::TAU * (300.0 * t + 200.0 * t * t)).sin();
            let tone = (std::f64::consts::TAU * 1_318.5 * t).sin();
            (10_000.0 * glide + 4_000.0 * tone) as i16
        };
        (0..2 * rate_hz).map(sample).collect()
    }

    /// Encodes and decodes in packets of `ptime_ms`.
    fn round_trip(codec: Codec, ptime_ms: u32, samples: &[i16]) -> Vec<i16> {
        let (mut encoder, mut decoder) = (Encoder::new(codec), Decoder::new(codec));
        let mut heard = Vec::new();
        for packet in samples.chunks(ptime_ms as usize * codec.samples_per_ms()) {
            let mut payload = Vec::new();
            encoder.encode(packet, &mut payload);
            assert_eq!(codec.ticks_of(&payload), Some(ptime_ms * codec.ticks_per_ms()));
            decoder.decode(&payload, &mut heard).unwrap();
        }
        heard
    }

    /// Signal over noise in dB, with the output shifted to where it fits best.
    fn snr_db(source: &[i16], heard: &[i16], delay_max: usize) -> f64 {
        let settled = source.len() / 2..source.len() / 2 + source.len() / 10;
        let power = |it: f64| it * it;
        let signal: f64 = source[settled.clone()].iter().map(|it| power(f64::from(*it))).sum();
        let noise = |delay: usize| -> f64 {
            let pairs = settled.clone().map(|n| (source[n], heard[n + delay]));
            pairs.map(|(a, b)| power(f64::from(a) - f64::from(b))).sum()
        };
        let least = (0..delay_max).map(noise).fold(f64::MAX, f64::min);
        10.0 * (signal / least.max(1.0)).log10()
    }

    #[test]
    fn what_is_encoded_is_heard_again() {
        for (codec, floor_db) in [
            (Codec::Pcmu, 35.0),
            (Codec::Pcma, 35.0),
            (Codec::G722, 25.0),
            (Codec::L16Wide, 90.0),
            (Codec::L16Narrow, 90.0),
            (Codec::Gsm, 8.0),
            (Codec::Opus, 12.0),
        ] {
            let source = melody(codec.sample_rate_hz());
            for wanted_ms in [10, 20, 40, 60] {
                let ptime_ms = codec.ptime_ms(wanted_ms);
                let packet = ptime_ms as usize * codec.samples_per_ms();
                let whole = &source[..source.len() / packet * packet];
                let heard = round_trip(codec, ptime_ms, whole);
                let snr_db = snr_db(whole, &heard, 30 * codec.samples_per_ms());
                assert!(snr_db > floor_db, "{codec:?} {ptime_ms}: {snr_db}");
            }
        }
    }

    #[test]
    fn a_payload_of_another_length_is_malformed() {
        for (codec, len) in [(Codec::Gsm, 32), (Codec::L16Wide, 3), (Codec::Pcmu, 0)] {
            let mut samples = vec![7];
            let malformed = Decoder::new(codec).decode(&vec![0xd5; len], &mut samples);
            assert_eq!(malformed, Err(Malformed { codec, len }));
            assert_eq!(samples, [7]);
        }
        let error = Decoder::new(Codec::Gsm).decode(&[0; 33], &mut Vec::new()).unwrap_err();
        assert_eq!(error.to_string(), "33 bytes that are no payload of GSM/8000");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn no_payload_can_make_a_decoder_panic_or_run_on(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..20),
            signature in any::<bool>(),
        ) {
            for codec in Codec::ALL {
                let mut decoder = Decoder::new(codec);
                for payload in &payloads {
                    let mut payload = payload.clone();
                    if codec == Codec::Gsm {
                        payload.resize(33, 0xff);
                        if signature {
                            payload[0] |= 0xd0;
                            payload[0] &= 0xdf;
                        }
                    }
                    let mut samples = Vec::new();
                    let _ = decoder.decode(&payload, &mut samples);
                    prop_assert!(samples.len() <= PACKET_SAMPLES_MAX);
                    decoder.recover(Some(&payload), 173, &mut samples);
                    decoder.recover(None, 960, &mut samples);
                }
            }
        }

        #[test]
        fn no_sound_can_make_an_encoder_panic(
            samples in prop::collection::vec(
                prop_oneof![Just(i16::MIN), Just(i16::MAX), Just(0), any::<i16>()], 2_880
            ),
        ) {
            for codec in Codec::ALL {
                let mut encoder = Encoder::new(codec);
                for packet in samples.chunks(20 * codec.samples_per_ms()) {
                    if packet.len() == 20 * codec.samples_per_ms() {
                        let mut payload = Vec::new();
                        encoder.encode(packet, &mut payload);
                        prop_assert!(codec.ticks_of(&payload).is_some());
                    }
                }
            }
        }
    }
}
