//! Music that no two seeds share, and that no moment of repeats: it can be recognised anywhere.

use crate::audio::Wav;
use std::f32::consts::TAU;

/// Steps of the scale above the lowest note, in semitones.
const SCALE: [i32; 10] = [0, 2, 4, 7, 9, 12, 14, 16, 19, 21];
/// One note begins so often, and sounds for two of these.
const BEAT_S: f32 = 0.17;

/// `duration_ms` of notes in pseudo-random order, at 44.1 kHz stereo as music files are; never silent
/// for longer than some ms. The channels differ, so that dropping one is heard.
pub fn tune(seed: u32, duration_ms: u32) -> Wav {
    const RATE_HZ: u32 = 44_100;
    let frames = (u64::from(RATE_HZ) * u64::from(duration_ms) / 1000) as usize;
    let mut left = vec![0.0_f32; frames];
    let mut right = vec![0.0_f32; frames];
    let mut random = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    let beats = (duration_ms as f32 / 1000.0 / BEAT_S).ceil() as usize;
    for beat in 0..beats {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let step = SCALE[(random >> 24) as usize % SCALE.len()];
        let tonic_hz = 220.0 * 2_f32.powf((seed % 7) as f32 / 12.0);
        let pitch_hz = tonic_hz * 2_f32.powf(step as f32 / 12.0);
        let pan = ((random >> 8) & 0xff) as f32 / 255.0;
        let begin = (beat as f32 * BEAT_S * RATE_HZ as f32) as usize;
        for frame in 0..(2.0 * BEAT_S * RATE_HZ as f32) as usize {
            let sample = 0.3 * note(pitch_hz, frame as f32 / RATE_HZ as f32);
            let at = (begin + frame) % frames; // The last note rings on over the seam of the loop.
            left[at] += sample * (0.4 + 0.6 * pan);
            right[at] += sample * (1.0 - 0.6 * pan);
        }
    }
    let samples = left.into_iter().zip(right).flat_map(|(left, right)| [left, right]).collect();
    Wav { rate_hz: RATE_HZ, channels: 2, samples }
}

/// A plucked string, roughly: harmonics that fade, and 10 ms of attack.
fn note(pitch_hz: f32, at_s: f32) -> f32 {
    let harmonic = |n: f32, level: f32| level * (TAU * pitch_hz * n * at_s).sin();
    let attack = (at_s / 0.01).min(1.0);
    let release = ((2.0 * BEAT_S - at_s) / 0.02).clamp(0.0, 1.0);
    attack
        * release
        * (-at_s * 4.0).exp()
        * (harmonic(1.0, 1.0) + harmonic(2.0, 0.4) + harmonic(3.0, 0.2))
}
