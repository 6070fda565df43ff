//! Test sounds, WAV files of them, and how alike two sounds are.

use std::f64::consts::TAU;

/// A sound by its time in seconds, within ±1.
pub(crate) type Sound = fn(f64) -> f64;

/// Tones that glide, all below 3 kHz; lasts as long as one likes.
pub(crate) fn melody(t: f64) -> f64 {
    let glide = (TAU * (300.0 * t + 400.0 * t * t)).sin();
    let chord = (TAU * 523.0 * t).sin() + (TAU * 1_318.5 * t).sin();
    0.3 * glide + 0.2 * chord * (0.6 + 0.4 * (TAU * 3.0 * t).sin())
}

pub(crate) fn tone(pitch_hz: f64) -> impl Fn(f64) -> f64 {
    move |t| (TAU * pitch_hz * t).sin() * 5_000.0
}

/// 16-bit WAV of `ms`; odd channels get half the sound and even ones one and a half.
pub(crate) fn wav(sound: Sound, ms: u32, rate_hz: u32, channels: u16) -> Vec<u8> {
    let frames = u64::from(ms) * u64::from(rate_hz) / 1_000;
    let mut data = Vec::new();
    for n in 0..frames {
        let sample = sound(n as f64 / f64::from(rate_hz)) * 20_000.0;
        for channel in 0..channels {
            let gain = match (channels, channel % 2) {
                (1, _) => 1.0,
                (_, 0) => 1.5,
                (_, _) => 0.5,
            };
            data.extend(((sample * gain) as i16).to_le_bytes());
        }
    }
    with_header(1, 16, rate_hz, channels, &data)
}

/// The bytes of a WAV file with `data` as its samples.
pub(crate) fn with_header(
    format: u16,
    bits: u16,
    rate_hz: u32,
    channels: u16,
    data: &[u8],
) -> Vec<u8> {
    let frame = channels * bits / 8;
    let mut bytes = b"RIFF".to_vec();
    let extension: &[u8] = if format == 1 { &[] } else { &[0, 0] };
    let fmt_len = 16 + extension.len() as u32;
    bytes.extend((20 + fmt_len + data.len() as u32).to_le_bytes());
    bytes.extend(b"WAVEfmt ");
    bytes.extend(fmt_len.to_le_bytes());
    bytes.extend(format.to_le_bytes());
    bytes.extend(channels.to_le_bytes());
    bytes.extend(rate_hz.to_le_bytes());
    bytes.extend((rate_hz * u32::from(frame)).to_le_bytes());
    bytes.extend(frame.to_le_bytes());
    bytes.extend(bits.to_le_bytes());
    bytes.extend(extension);
    bytes.extend(b"data");
    bytes.extend((data.len() as u32).to_le_bytes());
    bytes.extend(data);
    bytes
}

/// What should be heard of a loop: the sound at 8 kHz, over and over.
pub(crate) fn looped(sound: Sound, ms: u32, samples: usize) -> Vec<f64> {
    let len = ms as usize * 8;
    (0..samples).map(|n| sound((n % len) as f64 / 8_000.0)).collect()
}

/// Pearson's correlation.
pub(crate) fn correlation(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    let mean = |x: &[f64]| x.iter().sum::<f64>() / x.len() as f64;
    let (mean_a, mean_b) = (mean(a), mean(b));
    let sum = |f: &dyn Fn(f64, f64) -> f64| -> f64 {
        a.iter().zip(b).map(|(a, b)| f(a - mean_a, b - mean_b)).sum()
    };
    sum(&|a, b| a * b) / (sum(&|a, _| a * a) * sum(&|_, b| b * b)).sqrt()
}

/// Amplitude of one pitch in samples at 8 kHz.
pub(crate) fn amplitude(samples: &[f64], pitch_hz: f64) -> f64 {
    let (mut sine, mut cosine) = (0.0, 0.0);
    for (n, sample) in samples.iter().enumerate() {
        let phase = n as f64 / 8_000.0 * pitch_hz * TAU;
        sine += sample * phase.sin();
        cosine += sample * phase.cos();
    }
    sine.hypot(cosine) * 2.0 / samples.len() as f64
}
