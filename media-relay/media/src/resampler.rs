//! Between the sample rates of the codecs: 8, 16 and 48 kHz, by whole factors of 2, 3 and 6.
//!
//! A linear-phase low-pass (windowed sinc), of which only the taps that meet a sample are computed
//! (polyphase). The band passes up to 0.85 of the lower rate's half; what is folded from above that
//! half is below −70 dB from 1.15 of it on.

use std::f64::consts::PI;

/// Taps on each side of the middle, in samples of the lower rate.
const HALF_WIDTH: usize = 16;
/// Of the Kaiser window: −80 dB.
const KAISER_BETA: f64 = 8.0;

/// One direction of one stream; allocates nothing once its buffers have the size of a packet.
#[derive(Debug)]
pub struct Resampler {
    way: Way,
    factor: usize,
    taps: Vec<f32>,
    /// The latest samples, as many as the filter looks back.
    history: Vec<f32>,
    /// Down: samples until the next one that counts.
    until_next: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Same,
    Up,
    Down,
}

impl Resampler {
    /// Both rates are 8,000, 16,000 or 48,000 Hz.
    ///
    /// # Panics
    /// If the higher rate is no multiple of the lower one.
    pub fn new(from_hz: u32, to_hz: u32) -> Self {
        let (low, high) = (from_hz.min(to_hz), from_hz.max(to_hz));
        assert_eq!(high % low, 0, "rates of codecs are multiples of each other");
        let factor = (high / low) as usize;
        let way = match from_hz.cmp(&to_hz) {
            std::cmp::Ordering::Equal => Way::Same,
            std::cmp::Ordering::Less => Way::Up,
            std::cmp::Ordering::Greater => Way::Down,
        };
        let gain = if way == Way::Up { factor as f64 } else { 1.0 };
        let look_back = match way {
            Way::Same => 0,
            Way::Up => 2 * HALF_WIDTH,
            Way::Down => 2 * HALF_WIDTH * factor,
        };
        let history = vec![0.0; look_back];
        Self { way, factor, taps: taps(factor, gain), history, until_next: 0 }
    }

    /// Samples at the output's rate by which the output is behind.
    pub fn delay(&self) -> usize {
        match self.way {
            Way::Same => 0,
            Way::Up => HALF_WIDTH * self.factor,
            Way::Down => HALF_WIDTH,
        }
    }

    /// Appends what `input` becomes: over time as many samples as the rates say.
    pub fn process(&mut self, input: &[i16], output: &mut Vec<i16>) {
        let look_back = self.history.len();
        match self.way {
            Way::Same => return output.extend_from_slice(input),
            Way::Up => {
                self.history.extend(input.iter().map(|it| f32::from(*it)));
                for n in 0..input.len() {
                    let window = &self.history[n..=n + look_back];
                    output.extend((0..self.factor).map(|phase| {
                        let taps = self.taps[phase..].iter().step_by(self.factor);
                        // The last window sample is the newest and meets the first tap.
                        to_linear(taps.zip(window.iter().rev()).map(|(a, b)| a * b).sum())
                    }));
                }
            }
            Way::Down => {
                self.history.extend(input.iter().map(|it| f32::from(*it)));
                let mut n = self.until_next;
                while n < input.len() {
                    let window = &self.history[n..=n + look_back];
                    output.push(to_linear(dot(&self.taps, window)));
                    n += self.factor;
                }
                self.until_next = n - input.len();
            }
        }
        let used = self.history.len() - look_back;
        self.history.drain(..used);
    }
}

/// A loop at another rate; its last samples go before its first, so that it has no seam. The higher
/// rate's length should be a multiple of the factor.
pub(crate) fn resample_loop(samples: &[i16], from_hz: u32, to_hz: u32) -> Vec<i16> {
    if from_hz == to_hz {
        return samples.to_vec();
    }
    let mut resampler = Resampler::new(from_hz, to_hz);
    let around = match resampler.way {
        Way::Up => 2 * HALF_WIDTH,
        _ => 2 * HALF_WIDTH * resampler.factor,
    };
    let lead = samples.iter().rev().cycle().take(around).copied().collect::<Vec<_>>();
    let lead: Vec<i16> = lead.into_iter().rev().collect();
    let tail: Vec<i16> = samples.iter().cycle().take(around).copied().collect();
    let mut output = Vec::new();
    let delay = resampler.delay();
    for part in [&lead, samples, &tail] {
        resampler.process(part, &mut output);
    }
    let ratio = |len: usize| (len as u64 * u64::from(to_hz) / u64::from(from_hz)) as usize;
    let start = ratio(around) + delay;
    let len = ratio(samples.len()).max(1);
    output.truncate(start + len);
    output.drain(..start);
    output
}

/// Sum of the products; written so that it becomes vector instructions.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (a_whole, a_rest) = a.as_chunks::<8>();
    let (b_whole, b_rest) = b.as_chunks::<8>();
    let mut sums = [0.0; 8];
    for (a, b) in a_whole.iter().zip(b_whole) {
        for n in 0..8 {
            sums[n] += a[n] * b[n];
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}

/// A low-pass at the higher rate that cuts at half the lower one.
fn taps(factor: usize, gain: f64) -> Vec<f32> {
    let half = (HALF_WIDTH * factor) as f64;
    let tap = |n: usize| {
        let x = n as f64 - half;
        let sinc =
            if x == 0.0 { 1.0 } else { (PI * x / factor as f64).sin() * factor as f64 / (PI * x) };
        let window = bessel_i0(KAISER_BETA * (1.0 - (x / half).powi(2)).max(0.0).sqrt())
            / bessel_i0(KAISER_BETA);
        sinc * window
    };
    let taps: Vec<f64> = (0..=2 * HALF_WIDTH * factor).map(tap).collect();
    let sum: f64 = taps.iter().sum();
    taps.into_iter().map(|it| (it * gain / sum) as f32).collect()
}

/// The modified Bessel function of order zero, by its series.
fn bessel_i0(x: f64) -> f64 {
    let mut term = 1.0;
    let mut sum = 1.0;
    for n in 1..50 {
        term *= (x / (2.0 * f64::from(n))).powi(2);
        sum += term;
    }
    sum
}

fn to_linear(sample: f32) -> i16 {
    sample.round() as i16 // Saturates.
}

/// A sine of `pitch_hz` at half of full scale, for tests.
#[cfg(test)]
pub(crate) fn sine(pitch_hz: f64, rate_hz: u32, samples: usize) -> Vec<i16> {
    (0..samples)
        .map(|n| {
            (16_000.0 * (std::f64::consts::TAU * pitch_hz * n as f64 / f64::from(rate_hz)).sin())
                as i16
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATES_HZ: [u32; 3] = [8_000, 16_000, 48_000];

    /// The amplitude of what a sine becomes, of full scale 16,000.
    fn passed(pitch_hz: f64, from_hz: u32, to_hz: u32) -> f64 {
        let mut output = Vec::new();
        let mut resampler = Resampler::new(from_hz, to_hz);
        for packet in sine(pitch_hz, from_hz, from_hz as usize).chunks(from_hz as usize / 50) {
            resampler.process(packet, &mut output);
        }
        assert_eq!(output.len(), to_hz as usize, "as many samples as the rates say");
        let settled = &output[to_hz as usize / 10..];
        let power: f64 = settled.iter().map(|it| f64::from(*it).powi(2)).sum();
        (2.0 * power / settled.len() as f64).sqrt() / 16_000.0
    }

    #[test]
    fn the_band_passes_and_what_would_fold_into_it_does_not() {
        for from_hz in RATES_HZ {
            for to_hz in RATES_HZ {
                let half = f64::from(from_hz.min(to_hz)) / 2.0;
                for share in [0.05, 0.3, 0.8] {
                    let gain = passed(half * share, from_hz, to_hz);
                    assert!((gain - 1.0).abs() < 0.02, "{from_hz} {to_hz} {share}: {gain}");
                }
                if from_hz > to_hz {
                    let gain = passed(half * 1.2, from_hz, to_hz);
                    assert!(gain < 0.001, "{from_hz} {to_hz}: {gain}");
                }
            }
        }
    }

    #[test]
    fn a_loop_has_no_seam_at_another_rate() {
        for from_hz in RATES_HZ {
            for to_hz in RATES_HZ {
                let source = sine(500.0, from_hz, from_hz as usize / 10);
                let other = resample_loop(&source, from_hz, to_hz);
                let wanted = sine(500.0, to_hz, to_hz as usize / 10);
                assert_eq!(other.len(), wanted.len());
                for (got, wanted) in other.iter().zip(&wanted) {
                    assert!((got - wanted).abs() < 100, "{from_hz} {to_hz}: {got} {wanted}");
                }
            }
        }
    }
}
