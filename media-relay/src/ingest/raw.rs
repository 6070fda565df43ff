//! Raw files, as mohqueue has them: `NAME.0` holds PCMU, `.3` GSM, `.8` PCMA, `.9` G.722, without a
//! header.
//!
//! Nothing in such a file says what it is, and a wrong guess crackles into every caller's ear. So
//! the content is looked at: real audio is smooth from sample to sample when decoded as what it is,
//! and close to noise when decoded as anything else.

use crate::ingest::{Unusable, Wishes, audio};
use media::{Audio, Codec, Decoder, Law, SAMPLES_MAX};
use std::fs::File;
use std::io::{Read as _, Seek as _};
use tracing::warn;

/// Fewer bytes than this, 100 ms, say nothing about what they are.
const JUDGED_MIN: usize = 800;
/// How much of a file is judged, in bytes.
const JUDGED_MAX: usize = 1 << 20;
/// Another reading must be so much smoother than the named one to be believed.
const MUCH_SMOOTHER: f64 = 0.5;
/// How far the bytes at even and odd places of 16-bit samples differ, at least (0 to 1).
const PARITY_MIN: f64 = 0.1;
/// Bytes that begin samples below a quarter of full scale: near 0x00 and near 0xff.
const HIGH_BYTE_MIN: f64 = 0.9;
const LOW_BYTE_MAX: f64 = 0.5;
/// Sound is below zero at least so often, and above; files may be mostly silence.
const SIGN_MIN: f64 = 0.02;

/// Bytes that are decoded at a time: frames of GSM, and little enough for a decoder.
const DECODED_BYTES: usize = 330;

/// What a file's name says that it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Raw {
    Law(Law),
    /// GSM or G.722.
    Other(Codec),
}

/// What it holds instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Instead {
    Law(Law),
    Linear(Endian),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Endian {
    Little,
    Big,
}

impl Raw {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Law(Law::Pcmu) => "PCMU",
            Self::Law(Law::Pcma) => "PCMA",
            Self::Other(codec) => codec.encoding_name(),
        }
    }

    fn sample_rate_hz(self) -> u32 {
        match self {
            Self::Law(_) => 8_000,
            Self::Other(codec) => codec.sample_rate_hz(),
        }
    }

    /// How sox writes the like: there is no G.722 in it.
    fn sox_output(self) -> &'static str {
        match self {
            Self::Law(Law::Pcmu) => "-t ul OUT",
            Self::Law(Law::Pcma) => "-t al OUT",
            Self::Other(Codec::Gsm) => "-t gsm OUT",
            Self::Other(_) => "OUT.wav",
        }
    }

    fn decode(self, bytes: &[u8]) -> Result<Vec<i16>, Unusable> {
        let codec = match self {
            Self::Law(law) => return Ok(bytes.iter().map(|it| law.decode(*it)).collect()),
            Self::Other(codec) => codec,
        };
        let mut decoder = Decoder::new(codec);
        let mut samples = Vec::new();
        for (n, part) in bytes.chunks(DECODED_BYTES).enumerate() {
            let at = n * DECODED_BYTES;
            decoder.decode(part, &mut samples).map_err(|_| no_frame(part, at))?;
        }
        Ok(samples)
    }
}

/// Where the first frame is not one; else the last one is cut.
fn no_frame(part: &[u8], at: usize) -> Unusable {
    let frames = part.chunks(33).enumerate();
    let bad = frames.filter(|(_, it)| it[0] >> 4 != 0xd).map(|(n, _)| at + 33 * n).next();
    match bad {
        Some(at) => Unusable::NoGsmFrame { at },
        None => Unusable::Truncated { got: (at + part.len()) as u64, wanted: None },
    }
}

/// Reads a file that is named as `named`.
///
/// # Errors
/// [`Unusable`] says what the file looks like, and what to do.
pub(super) fn read(mut file: File, named: Raw, wishes: Wishes) -> Result<Audio, Unusable> {
    file.rewind()?;
    let mut bytes = Vec::new();
    file.take(2 * SAMPLES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.is_empty() {
        return Err(Unusable::Empty);
    }
    let decoded = named.decode(&bytes);
    let instead = instead(&bytes, named, decoded.as_deref().unwrap_or_default());
    match instead {
        Some(instead) if wishes.repair => {
            warn!(named = named.name(), ?instead, "repairing a raw file");
            let samples = match instead {
                Instead::Law(law) => Raw::Law(law).decode(&bytes)?,
                Instead::Linear(endian) => linear(&bytes, endian).collect(),
            };
            audio(samples, named.sample_rate_hz(), wishes)
        }
        Some(instead) => Err(unusable(named, instead)),
        None => match named {
            Raw::Law(law) if !wishes.normalise => Ok(Audio::from_codes(law, bytes)?),
            _ => audio(decoded?, named.sample_rate_hz(), wishes),
        },
    }
}

fn unusable(named: Raw, instead: Instead) -> Unusable {
    let (name, rate_hz) = (named.name(), named.sample_rate_hz());
    let to = named.sox_output();
    match instead {
        Instead::Law(law) => Unusable::OtherLaw { looks_like: Raw::Law(law).name(), named: name },
        Instead::Linear(Endian::Little) => {
            Unusable::LinearPcm { endian: "little", rate_hz, named: name, to }
        }
        Instead::Linear(Endian::Big) => {
            Unusable::LinearPcm { endian: "big", rate_hz, named: name, to }
        }
    }
}

fn linear(bytes: &[u8], endian: Endian) -> impl Iterator<Item = i16> {
    let pairs = bytes.chunks_exact(2).map(|it| [it[0], it[1]]);
    pairs.map(move |it| match endian {
        Endian::Little => i16::from_le_bytes(it),
        Endian::Big => i16::from_be_bytes(it),
    })
}

/// What the bytes are, if they are not what they are named; `decoded` is what they become if they
/// are, and empty if they cannot be.
fn instead(bytes: &[u8], named: Raw, decoded: &[i16]) -> Option<Instead> {
    let judged = &bytes[..bytes.len().min(JUDGED_MAX)];
    if judged.len() < JUDGED_MIN {
        return None;
    }
    let as_named = match decoded {
        [] => f64::MAX,
        samples => roughness(samples[..samples.len().min(JUDGED_MAX)].iter().copied()),
    };
    let as_little = roughness(linear(judged, Endian::Little));
    let as_big = roughness(linear(judged, Endian::Big));
    let much_smoother = |reading: f64| reading < as_named * MUCH_SMOOTHER;
    let unlike = parity_distance(judged) > PARITY_MIN;
    let little = is_upper_half(judged, 1) && unlike && much_smoother(as_little)
        || is_quiet_upper_half(judged, 1);
    let big = is_upper_half(judged, 0) && unlike && much_smoother(as_big)
        || is_quiet_upper_half(judged, 0);
    match (little, big) {
        (false, false) => {
            let Raw::Law(law) = named else { return None };
            let other = Law::BOTH.into_iter().find(|it| *it != law)?;
            let as_other = roughness(judged.iter().map(|it| other.decode(*it)));
            much_smoother(as_other).then_some(Instead::Law(other))
        }
        (true, true) if as_big < as_little => Some(Instead::Linear(Endian::Big)),
        (true, _) => Some(Instead::Linear(Endian::Little)),
        (false, true) => Some(Instead::Linear(Endian::Big)),
    }
}

/// Mean step between neighbours over mean size: 0 is constant, about 1.3 and more is noise.
fn roughness(samples: impl Iterator<Item = i16>) -> f64 {
    let (mut steps, mut sizes, mut before) = (0.0, 0.0, None);
    for sample in samples.map(f64::from) {
        steps += before.map_or(0.0, |before: f64| (sample - before).abs());
        sizes += sample.abs();
        before = Some(sample);
    }
    if sizes == 0.0 { 0.0 } else { steps / sizes }
}

/// How differently the bytes at even and at odd places are distributed, from 0 to 1. In G.711 every
/// place is like the others.
fn parity_distance(bytes: &[u8]) -> f64 {
    let mut counts = [[0.0; 2]; 256];
    for (at, byte) in bytes.iter().enumerate() {
        counts[usize::from(*byte)][at % 2] += 1.0;
    }
    let differences: f64 = counts.iter().map(|[even, odd]: &[f64; 2]| (even - odd).abs()).sum();
    differences / bytes.len() as f64
}

/// True if the bytes at places of this parity can be the upper halves of 16-bit samples: sound has
/// both signs.
fn is_upper_half(bytes: &[u8], parity: usize) -> bool {
    let negative = share(bytes, parity, |it| it >= 0x80);
    (SIGN_MIN..=1.0 - SIGN_MIN).contains(&negative)
}

/// True if they look like the upper halves of quiet samples of both signs, and those at the other
/// places like the lower halves. Finds quiet noise, too, which is not smooth.
fn is_quiet_upper_half(bytes: &[u8], parity: usize) -> bool {
    let small = |it: u8| !(0x20..0xe0).contains(&it);
    is_upper_half(bytes, parity)
        && share(bytes, parity, small) >= HIGH_BYTE_MIN
        && share(bytes, 1 - parity, small) <= LOW_BYTE_MAX
}

/// Which part of the bytes at places of this parity is so.
fn share(bytes: &[u8], parity: usize, is: impl Fn(u8) -> bool) -> f64 {
    let places = bytes.iter().skip(parity).step_by(2);
    places.clone().filter(|it| is(**it)).count() as f64 / places.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use media::Encoder;

    fn check(bytes: &[u8], law: Law) -> Result<(), Unusable> {
        let named = Raw::Law(law);
        let decoded = named.decode(bytes).unwrap();
        instead(bytes, named, &decoded).map_or(Ok(()), |it| Err(unusable(named, it)))
    }

    /// A melody with some noise, `gain` of full scale.
    fn music(gain: f64) -> Vec<i16> {
        let mut noise = 1u32;
        let sample = |n: usize| {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let t = n as f64 / 8_000.0;
            let pitch = [262.0, 330.0, 392.0, 523.0][n / 2_000 % 4];
            let tone = (t * pitch * std::f64::consts::TAU).sin();
            let hiss = f64::from(noise >> 16) / 65_536.0 - 0.5;
            ((tone * 0.9 + hiss * 0.1) * gain * 32_767.0) as i16
        };
        (0..16_000).map(sample).collect()
    }

    fn encoded(samples: &[i16], law: Law) -> Vec<u8> {
        samples.iter().map(|it| law.encode(*it)).collect()
    }

    #[test]
    fn audio_in_the_named_law_is_taken() {
        let mut noise = 1u32;
        let white: Vec<i16> = (0..16_000)
            .map(|_| {
                noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (noise >> 18) as i16 - 8_192
            })
            .collect();
        let quarter: Vec<i16> = (0..8_000).map(|n| [0, 9_000, 0, -9_000][n % 4]).collect();
        for law in Law::BOTH {
            for gain in [0.001, 0.03, 0.3, 1.0] {
                let checked = check(&encoded(&music(gain), law), law);
                assert!(checked.is_ok(), "{law:?} at {gain}: {checked:?}");
            }
            for samples in [white.clone(), quarter.clone(), vec![0; 8_000]] {
                let checked = check(&encoded(&samples, law), law);
                assert!(checked.is_ok(), "{law:?}: {checked:?}");
            }
        }
    }

    #[test]
    fn linear_pcm_under_the_name_of_g711_is_refused() {
        for law in Law::BOTH {
            for gain in [0.02, 0.1, 0.3, 1.0] {
                let samples = music(gain);
                let little: Vec<u8> = samples.iter().flat_map(|it| it.to_le_bytes()).collect();
                let error =
                    check(&little, law).expect_err(&format!("{law:?} at {gain}")).to_string();
                assert!(error.contains("16-bit linear PCM (little-endian)"), "{gain}: {error}");
                let big: Vec<u8> = samples.iter().flat_map(|it| it.to_be_bytes()).collect();
                let error = check(&big, law).unwrap_err().to_string();
                assert!(error.contains("16-bit linear PCM (big-endian)"), "{gain}: {error}");
            }
        }
    }

    #[test]
    fn the_other_law_is_refused() {
        let error = check(&encoded(&music(0.3), Law::Pcma), Law::Pcmu).unwrap_err();
        assert!(error.to_string().contains("looks like PCMA"), "{error}");
        let error = check(&encoded(&music(0.3), Law::Pcmu), Law::Pcma).unwrap_err();
        assert!(error.to_string().contains("looks like PCMU"), "{error}");
    }

    #[test]
    fn frames_and_codes_of_the_others_are_told_from_linear_pcm() {
        let little: Vec<u8> = music(0.3).iter().flat_map(|it| it.to_le_bytes()).collect();
        for codec in [Codec::G722, Codec::Gsm] {
            let named = Raw::Other(codec);
            for gain in [0.003, 0.03, 0.3, 1.0] {
                let mut bytes = Vec::new();
                Encoder::new(codec).encode(&music(gain), &mut bytes);
                let decoded = named.decode(&bytes).unwrap();
                assert_eq!(instead(&bytes, named, &decoded), None, "{codec:?} at {gain}");
            }
            let decoded = named.decode(&little).unwrap_or_default();
            let found = instead(&little, named, &decoded);
            assert_eq!(found, Some(Instead::Linear(Endian::Little)), "{codec:?}");
        }
    }

    #[test]
    fn a_frame_that_is_cut_or_none_is_told_by_its_place() {
        let mut frames = Vec::new();
        Encoder::new(Codec::Gsm).encode(&music(0.3), &mut frames);
        let error = |bytes: &[u8]| Raw::Other(Codec::Gsm).decode(bytes).unwrap_err().to_string();
        assert!(error(&frames[..3_000]).starts_with("is truncated: 3000 bytes"));
        frames[33 * 20] = 0;
        assert!(error(&frames).contains("byte 660 does not begin a frame"));
    }
}
