//! GSM 06.10 full rate, 13 kbit/s (ETS 300 961): 160 samples at 8 kHz in a frame of 33 bytes.
//!
//! Names and steps are the standard's §5: a short-term predictor (`lpc.rs`), a long-term one and the
//! pulses that excite them (`ltp.rs`). All of it is 16-bit arithmetic that saturates
//! (`arithmetic.rs`), so that every implementation gives the same bits.

mod arithmetic;
mod lpc;
mod ltp;

use lpc::{Postprocessor, Preprocessor, ShortTermAnalysis, ShortTermSynthesis};
use ltp::{History, LongTermSynthesis};

/// Samples of a frame: 20 ms.
pub(super) const FRAME_SAMPLES: usize = 160;
/// Bytes of a frame (RFC 3551 §4.5.8.1).
pub(super) const FRAME_BYTES: usize = 33;
/// A frame of no sound: all pulses at their smallest.
pub(super) const SILENCE: [u8; FRAME_BYTES] = [
    0xd8, 0x20, 0xa2, 0xe1, 0x5a, 0x50, 0x00, 0x49, 0x24, 0x92, 0x49, 0x24, 0x50, 0x00, 0x49, 0x24,
    0x92, 0x49, 0x24, 0x50, 0x00, 0x49, 0x24, 0x92, 0x49, 0x24, 0x50, 0x00, 0x49, 0x24, 0x92, 0x49,
    0x24,
];
/// Samples of a subframe.
const SUBFRAME: usize = 40;
/// The first four bits of every frame.
const SIGNATURE: u8 = 0xd;
/// Bits of the eight log area ratios.
const LAR_BITS: [u32; 8] = [6, 6, 5, 5, 4, 4, 3, 3];

/// What a frame says of the signal (Table 1.1 of the standard).
#[derive(Debug, Default)]
struct Parameters {
    /// LARc.
    log_area_ratios: [i16; 8],
    subframes: [Subframe; 4],
}

#[derive(Debug, Default)]
struct Subframe {
    /// Nc, in samples.
    lag: i16,
    /// bc.
    gain: i16,
    /// Mc.
    grid: i16,
    /// xmaxc.
    block_amplitude: i16,
    /// xMc.
    pulses: [i16; 13],
}

/// One frame in so many can be understood without what was before it, if that is wanted.
const ENTRY_FRAMES: u32 = 10;

#[derive(Debug, Default)]
pub(super) struct GsmEncoder {
    /// Frames until the next one with an entry; none: no entries.
    until_entry: Option<u32>,
    preprocessor: Preprocessor,
    short_term: ShortTermAnalysis,
    long_term: History,
}

impl GsmEncoder {
    /// For what is joined in its midst: a decoder with another past would never catch up with a steady
    /// tone, which the long-term predictor repeats for ever. So its gain is low now and then.
    pub(super) fn with_entries() -> Self {
        Self { until_entry: Some(0), ..Self::default() }
    }

    pub(super) fn encode(&mut self, samples: &[i16; FRAME_SAMPLES]) -> [u8; FRAME_BYTES] {
        let mut signal = self.preprocessor.run(samples);
        let mut parameters =
            Parameters { log_area_ratios: lpc::analyse(&mut signal), ..Default::default() };
        self.short_term.run(&parameters.log_area_ratios, &mut signal);
        let (residuals, _) = signal.as_chunks::<SUBFRAME>();
        for (residual, subframe) in residuals.iter().zip(&mut parameters.subframes) {
            let is_entry = self.until_entry == Some(0);
            *subframe = ltp::encode(&mut self.long_term, residual, is_entry);
        }
        let next = |it: u32| it.checked_sub(1).unwrap_or(ENTRY_FRAMES - 1);
        self.until_entry = self.until_entry.map(next);
        parameters.pack()
    }
}

#[derive(Debug, Default)]
pub(super) struct GsmDecoder {
    long_term: LongTermSynthesis,
    short_term: ShortTermSynthesis,
    postprocessor: Postprocessor,
}

impl GsmDecoder {
    /// None if it is no frame.
    pub(super) fn decode(&mut self, frame: &[u8; FRAME_BYTES]) -> Option<[i16; FRAME_SAMPLES]> {
        let parameters = Parameters::unpack(frame)?;
        let mut signal = [0; FRAME_SAMPLES];
        let (residuals, _) = signal.as_chunks_mut::<SUBFRAME>();
        for (residual, subframe) in residuals.iter_mut().zip(&parameters.subframes) {
            *residual = self.long_term.run(subframe);
        }
        self.short_term.run(&parameters.log_area_ratios, &mut signal);
        self.postprocessor.run(&mut signal);
        Some(signal)
    }
}

impl Parameters {
    /// Most significant bits first.
    fn pack(&self) -> [u8; FRAME_BYTES] {
        let mut bits = BitWriter { frame: [0; FRAME_BYTES], at: 0 };
        bits.put(SIGNATURE.into(), 4);
        for (ratio, width) in self.log_area_ratios.iter().zip(LAR_BITS) {
            bits.put(*ratio, width);
        }
        for subframe in &self.subframes {
            bits.put(subframe.lag, 7);
            bits.put(subframe.gain, 2);
            bits.put(subframe.grid, 2);
            bits.put(subframe.block_amplitude, 6);
            subframe.pulses.iter().for_each(|it| bits.put(*it, 3));
        }
        bits.frame
    }

    fn unpack(frame: &[u8; FRAME_BYTES]) -> Option<Self> {
        let mut bits = BitReader { frame, at: 0 };
        if bits.take(4) != i16::from(SIGNATURE) {
            return None;
        }
        Some(Self {
            log_area_ratios: LAR_BITS.map(|width| bits.take(width)),
            subframes: std::array::from_fn(|_| Subframe {
                lag: bits.take(7),
                gain: bits.take(2),
                grid: bits.take(2),
                block_amplitude: bits.take(6),
                pulses: std::array::from_fn(|_| bits.take(3)),
            }),
        })
    }
}

struct BitWriter {
    frame: [u8; FRAME_BYTES],
    at: usize,
}

impl BitWriter {
    fn put(&mut self, value: i16, width: u32) {
        for shift in (0..width).rev() {
            let bit = (value >> shift & 1) as u8;
            self.frame[self.at / 8] |= bit << (7 - self.at % 8);
            self.at += 1;
        }
    }
}

struct BitReader<'a> {
    frame: &'a [u8; FRAME_BYTES],
    at: usize,
}

impl BitReader<'_> {
    fn take(&mut self, width: u32) -> i16 {
        (0..width).fold(0, |value, _| {
            let bit = self.frame[self.at / 8] >> (7 - self.at % 8) & 1;
            self.at += 1;
            value << 1 | i16::from(bit)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Noise and a swept tone: all block amplitudes, lags and signs.
    fn sound() -> Vec<i16> {
        let mut noise = 1u32;
        (0..8_000u32)
            .map(|n| {
                noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let envelope = (n % 2_000 * 16) as i32;
                let triangle = (n as i32 * (20 + n as i32 / 400) % 2_000 - 1_000).abs() * 2 - 1_000;
                let hiss = (noise >> 22) as i32 - 512;
                ((triangle * envelope) / 1_000 + hiss).clamp(-32_768, 32_767) as i16
            })
            .collect()
    }

    fn checksum(bytes: impl Iterator<Item = u8>) -> u64 {
        bytes.fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
            (sum ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        })
    }

    /// The sums are those of libgsm 1.0.22 (by way of sox) for the same sound.
    #[test]
    fn the_bits_are_those_of_the_standard() {
        let mut encoder = GsmEncoder::default();
        let sound = sound();
        let (frames, _) = sound.as_chunks::<FRAME_SAMPLES>();
        let frames: Vec<_> = frames.iter().map(|it| encoder.encode(it)).collect();
        let mut decoder = GsmDecoder::default();
        let samples = frames.iter().flat_map(|it| decoder.decode(it).unwrap());
        let samples = checksum(samples.flat_map(|it| it.to_le_bytes()));
        let codes = checksum(frames.iter().flatten().copied());
        expect_test::expect!["ade27c0ad767ed69 dd8c918d3794d7e5"]
            .assert_eq(&format!("{codes:016x} {samples:016x}"));
    }
}
