//! Raw G.711 files, as mohqueue has them: `NAME.0` holds PCMU, `NAME.8` PCMA, without a header.
//!
//! Nothing in such a file says what it is, and a wrong guess crackles into every caller's ear. So
//! the content is looked at: real audio is smooth from sample to sample when decoded as what it is,
//! and close to noise when decoded as anything else.

use crate::library::Unusable;
use crate::wav::looks_like;
use media::{Law, SAMPLES_MAX};
use std::fs::File;
use std::io::Read as _;

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

/// Reads the codes of a file that is named as `law`.
///
/// # Errors
/// [`Unusable`] says what the file looks like, and what to do.
pub(crate) fn read(file: File, law: Law) -> Result<Vec<u8>, Unusable> {
    let mut codes = Vec::new();
    file.take(SAMPLES_MAX as u64 + 1).read_to_end(&mut codes)?;
    check(&codes, law)?;
    Ok(codes)
}

fn check(codes: &[u8], law: Law) -> Result<(), Unusable> {
    let named = name(law);
    if [b"RIFF", b".snd", b"FORM", b"OggS", b"fLaC"].iter().any(|it| codes.starts_with(*it)) {
        return Err(Unusable::Header { looks_like: looks_like(codes), named });
    }
    let judged = &codes[..codes.len().min(JUDGED_MAX)];
    if judged.len() < JUDGED_MIN {
        return Ok(());
    }
    let other = Law::BOTH.into_iter().find(|it| *it != law).expect("there are two");
    let as_named = roughness(judged.iter().map(|it| law.decode(*it)));
    let as_other = roughness(judged.iter().map(|it| other.decode(*it)));
    let pairs = || judged.chunks_exact(2).map(|it| [it[0], it[1]]);
    let as_little = roughness(pairs().map(i16::from_le_bytes));
    let as_big = roughness(pairs().map(i16::from_be_bytes));
    let much_smoother = |reading: f64| reading < as_named * MUCH_SMOOTHER;
    let unlike = parity_distance(judged) > PARITY_MIN;
    let little = is_upper_half(judged, 1) && unlike && much_smoother(as_little)
        || is_quiet_upper_half(judged, 1);
    let big = is_upper_half(judged, 0) && unlike && much_smoother(as_big)
        || is_quiet_upper_half(judged, 0);
    match (little, big) {
        (false, false) if much_smoother(as_other) => {
            Err(Unusable::OtherLaw { looks_like: name(other), named })
        }
        (false, false) => Ok(()),
        (little, big) => {
            let little = little && (!big || as_little <= as_big);
            let endian = if little { "little" } else { "big" };
            Err(Unusable::LinearPcm { endian, named, law: sox_type(law) })
        }
    }
}

fn name(law: Law) -> &'static str {
    match law {
        Law::Pcmu => "PCMU",
        Law::Pcma => "PCMA",
    }
}

/// The type of a law for sox.
fn sox_type(law: Law) -> &'static str {
    match law {
        Law::Pcmu => "ul",
        Law::Pcma => "al",
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
    fn a_header_in_a_raw_file_is_refused() {
        let error = check(b"RIFF\x10\0\0\0WAVEfmt ", Law::Pcma).unwrap_err().to_string();
        assert!(error.contains("a WAV file"), "{error}");
    }
}
