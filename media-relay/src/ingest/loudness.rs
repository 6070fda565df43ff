//! Brings files to one loudness, if asked to: callers should not reach for the volume between songs.

/// Where the mean of what is heard goes, in dB below full scale.
const TARGET_DB: f64 = -19.0;
/// What no sample exceeds then, of full scale: −1 dB.
const PEAK: f64 = 0.891;
/// Most that is added, in dB: what is nearly silent is meant to be.
const GAIN_MAX_DB: f64 = 20.0;
/// Blocks that are measured, in ms, and below which they are pauses: absolutely, and below the mean
/// (the gates of EBU R 128, without its filter, since telephones cut what that weighs).
const BLOCK_MS: usize = 400;
const PAUSE_DB: f64 = -70.0;
const BELOW_MEAN_DB: f64 = -10.0;

/// Scales the samples, in place; returns the gain in dB. Silence stays.
pub(super) fn normalise(samples: &mut [i16], rate_hz: u32) -> f64 {
    let block = BLOCK_MS * rate_hz as usize / 1_000;
    let power = |it: &[i16]| {
        it.iter().map(|it| (f64::from(*it) / 32_768.0).powi(2)).sum::<f64>() / it.len() as f64
    };
    let blocks: Vec<f64> = samples.chunks(block).map(power).collect();
    let Some(mean) = mean_above(&blocks, from_db(PAUSE_DB)) else { return 0.0 };
    let mean = mean_above(&blocks, mean * from_db(BELOW_MEAN_DB)).unwrap_or(mean);
    let peak = samples.iter().map(|it| f64::from(it.unsigned_abs()) / 32_768.0).fold(0.0, f64::max);
    let wanted_db = (TARGET_DB - 10.0 * mean.log10()).min(GAIN_MAX_DB);
    let gain_db = wanted_db.min(20.0 * (PEAK / peak).log10());
    let gain = 10f64.powf(gain_db / 20.0);
    samples.iter_mut().for_each(|it| *it = (f64::from(*it) * gain).round() as i16);
    gain_db
}

fn mean_above(blocks: &[f64], gate: f64) -> Option<f64> {
    let heard: Vec<f64> = blocks.iter().copied().filter(|it| *it > gate).collect();
    (!heard.is_empty()).then(|| heard.iter().sum::<f64>() / heard.len() as f64)
}

/// Of powers.
fn from_db(db: f64) -> f64 {
    10f64.powf(db / 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sine(amplitude: f64) -> Vec<i16> {
        (0..16_000).map(|n| ((f64::from(n) * 0.3).sin() * amplitude) as i16).collect()
    }

    fn power_db(samples: &[i16]) -> f64 {
        let power: f64 = samples.iter().map(|it| (f64::from(*it) / 32_768.0).powi(2)).sum();
        10.0 * (power / samples.len() as f64).log10()
    }

    #[test]
    fn loud_and_quiet_files_end_equally_loud_whatever_their_pauses() {
        for amplitude in [1_000.0, 8_000.0, 32_000.0] {
            let mut samples = sine(amplitude);
            samples.extend([0; 16_000]);
            normalise(&mut samples, 8_000);
            let loudness = power_db(&samples[..16_000]);
            assert!((loudness + 19.0).abs() < 0.5, "{amplitude}: {loudness}");
        }
    }

    #[test]
    fn nothing_is_clipped_and_silence_stays() {
        let mut clicks = sine(300.0);
        clicks[5_000] = -20_000;
        normalise(&mut clicks, 8_000);
        assert!(clicks.iter().all(|it| it.unsigned_abs() <= 29_197));
        let mut silence = vec![0; 8_000];
        assert_eq!(normalise(&mut silence, 8_000), 0.0);
        let mut nearly = sine(3.0);
        assert!(normalise(&mut nearly, 8_000) <= 20.0);
    }
}
