//! Pure tones: found in a mix by their frequency, where tunes would cover each other.

use crate::audio::PHONE_RATE_HZ;
use std::f32::consts::TAU;

/// A frequency of which a whole number of periods fits into a packet of 20 ms: a packet that is lost
/// or moved leaves the phase of the others.
pub const TONE_STEP_HZ: u32 = 50;

/// One second of a tone, to be looped; `amplitude` is 0 to 1, `frequency_hz` a multiple of
/// [`TONE_STEP_HZ`].
pub fn tone(frequency_hz: u32, amplitude: f32) -> Vec<f32> {
    assert_eq!(frequency_hz % TONE_STEP_HZ, 0, "a tone that clicks in each packet");
    (0..PHONE_RATE_HZ).map(|at| amplitude * phase(frequency_hz, at).sin()).collect()
}

/// The amplitude of a tone within `heard` (8 kHz), 0 to 1: one bin of a Fourier transform.
pub fn tone_amplitude(heard: &[f32], frequency_hz: u32) -> f32 {
    let (mut cosine, mut sine) = (0.0_f32, 0.0_f32);
    for (sample, at) in heard.iter().zip(0..) {
        cosine += sample * phase(frequency_hz, at).cos();
        sine += sample * phase(frequency_hz, at).sin();
    }
    2.0 * cosine.hypot(sine) / heard.len().max(1) as f32
}

/// The angle at sample `at`, which is counted within a second: there `f32` is exact enough.
fn phase(frequency_hz: u32, at: u32) -> f32 {
    TAU * (frequency_hz * (at % PHONE_RATE_HZ) % PHONE_RATE_HZ) as f32 / PHONE_RATE_HZ as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tone_is_found_in_a_mix_and_another_is_not() {
        let mix: Vec<f32> =
            tone(450, 0.2).iter().zip(tone(1_150, 0.1)).map(|(a, b)| a + b).collect();
        assert!((tone_amplitude(&mix, 450) - 0.2).abs() < 0.001);
        assert!((tone_amplitude(&mix, 1_150) - 0.1).abs() < 0.001);
        assert!(tone_amplitude(&mix, 2_050) < 0.001);
    }
}
