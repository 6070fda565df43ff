//! Is this what was played? Recordings compared with their source, sample by sample.

use crate::audio::{PHONE_RATE_HZ, Wav};
use std::collections::HashMap;
use std::f64::consts::PI;

/// Zero crossings of the resampling kernel on each side.
const KERNEL_CROSSINGS: f64 = 12.0;
/// What is looked for in the source when aligning.
const PROBE_SAMPLES: usize = 2400;
/// A recording is followed in steps of this.
const WINDOW_SAMPLES: usize = 800;
/// A window that correlates less is something else.
const WINDOW_LIKENESS_MIN: f64 = 0.9;
/// Steps per sample when aligning between samples.
const FRACTIONS: usize = 8;
/// Below this, a sample is silence: 0.2 % of full scale.
const SILENCE: f32 = 0.002;

/// A source to compare with: mono at the phones' rate, thought of as an endless loop.
pub struct Reference {
    samples: Vec<f32>,
}

/// The longest part of a recording that is the source.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Span {
    /// Where in the recording it begins and ends, in ms.
    pub from_ms: u64,
    pub to_ms: u64,
    /// Pearson correlation of all its samples with the source, −1 to 1.
    pub correlation: f64,
}

impl Span {
    pub fn duration_ms(&self) -> u64 {
        self.to_ms - self.from_ms
    }
}

impl Reference {
    pub fn new(source: &Wav) -> Self {
        Self { samples: resample(&source.to_mono(), source.rate_hz) }
    }

    /// The source at 8 kHz, mono: what a phone speaks.
    pub fn into_samples(self) -> Vec<f32> {
        self.samples
    }

    /// The longest part of `heard` (8 kHz) that is this source, begun anywhere and looped.
    pub fn longest_span(&self, heard: &[f32]) -> Span {
        let mut best = Span::default();
        let mut from = 0;
        while from + PROBE_SAMPLES <= heard.len() {
            let span = self.span_around(heard, from);
            if span.duration_ms() > best.duration_ms() {
                best = span;
            }
            let beyond = span.to_ms as usize * PHONE_RATE_HZ as usize / 1000;
            from = (from + PROBE_SAMPLES).max(beyond);
        }
        best
    }

    /// Where in the source `heard` (8 kHz) begins, in samples at 8 kHz; none if it is something else.
    pub fn place(&self, heard: &[f32]) -> Option<usize> {
        let probed = heard.get(..PROBE_SAMPLES)?;
        let (place, correlation) = self.align(probed);
        (correlation >= WINDOW_LIKENESS_MIN).then_some(place)
    }

    /// Aligns `heard[probe..]` with the source and follows it in both directions.
    fn span_around(&self, heard: &[f32], probe: usize) -> Span {
        let probed = &heard[probe..probe + PROBE_SAMPLES];
        let (offset, correlation) = self.align(probed);
        if correlation < WINDOW_LIKENESS_MIN {
            return Span::default();
        }
        let shift = self.fraction(probed, offset);
        let lead = self.samples.len() - probe % self.samples.len();
        let source = |at: usize| self.at(at + lead + offset, shift);
        let window_is_like = |at: usize| {
            let wanted: Vec<f32> = (at..at + WINDOW_SAMPLES).map(source).collect();
            pearson(&heard[at..at + WINDOW_SAMPLES], &wanted) >= WINDOW_LIKENESS_MIN
        };
        let (mut from, mut to) = (probe, probe + PROBE_SAMPLES);
        while from >= WINDOW_SAMPLES && window_is_like(from - WINDOW_SAMPLES) {
            from -= WINDOW_SAMPLES;
        }
        while to + WINDOW_SAMPLES <= heard.len() && window_is_like(to) {
            to += WINDOW_SAMPLES;
        }
        let wanted: Vec<f32> = (from..to).map(source).collect();
        let ms = |samples: usize| samples as u64 * 1000 / u64::from(PHONE_RATE_HZ);
        Span { from_ms: ms(from), to_ms: ms(to), correlation: pearson(&heard[from..to], &wanted) }
    }

    /// Where in the source `probed` is most likely, in samples, and how well it fits there.
    fn align(&self, probed: &[f32]) -> (usize, f64) {
        let looped: Vec<f32> =
            self.samples.iter().cycle().take(self.samples.len() + probed.len()).copied().collect();
        let fits = (0..self.samples.len())
            .map(|offset| (offset, pearson(probed, &looped[offset..offset + probed.len()])));
        fits.max_by(|a, b| a.1.total_cmp(&b.1)).unwrap_or((0, 0.0))
    }

    /// The rest of the alignment: a part of a sample, −1 to 1.
    fn fraction(&self, probed: &[f32], offset: usize) -> f64 {
        let shifts = (0..=2 * FRACTIONS).map(|step| step as f64 / FRACTIONS as f64 - 1.0);
        let fits = shifts.map(|shift| {
            let wanted: Vec<f32> =
                (0..probed.len()).map(|at| self.at(at + offset, shift)).collect();
            (shift, pearson(probed, &wanted))
        });
        fits.max_by(|a, b| a.1.total_cmp(&b.1)).map_or(0.0, |(shift, _)| shift)
    }

    /// The source at `at + shift`, between its samples.
    fn at(&self, at: usize, shift: f64) -> f32 {
        let len = self.samples.len();
        if shift == 0.0 {
            return self.samples[at % len];
        }
        let taps = KERNEL_CROSSINGS as usize;
        let tap = |k: usize| {
            let sample = self.samples[(at + len + k - taps) % len];
            f64::from(sample) * kernel(shift - (k as f64 - taps as f64))
        };
        (0..=2 * taps).map(tap).sum::<f64>() as f32
    }
}

/// Length in ms of the longest run of (nearly) silent samples at 8 kHz.
pub fn longest_silence_ms(heard: &[f32]) -> u64 {
    let runs = heard.split(|sample| sample.abs() > SILENCE).map(<[f32]>::len);
    runs.max().unwrap_or(0) as u64 * 1000 / u64::from(PHONE_RATE_HZ)
}

/// Pearson's correlation; 0 where one side is constant.
fn pearson(a: &[f32], b: &[f32]) -> f64 {
    let n = a.len().min(b.len()) as f64;
    let (mut sa, mut sb, mut saa, mut sbb, mut sab) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for (a, b) in a.iter().zip(b) {
        let (a, b) = (f64::from(*a), f64::from(*b));
        sa += a;
        sb += b;
        saa += a * a;
        sbb += b * b;
        sab += a * b;
    }
    let spread = ((n * saa - sa * sa) * (n * sbb - sb * sb)).sqrt();
    if spread > 1e-9 { (n * sab - sa * sb) / spread } else { 0.0 }
}

/// `source` at the phones' rate, as one turn of a loop: what is above 4 kHz is filtered out.
fn resample(source: &[f32], rate_hz: u32) -> Vec<f32> {
    let ratio = f64::from(rate_hz) / f64::from(PHONE_RATE_HZ);
    let stretch = ratio.max(1.0); // How much wider than one source sample the kernel is.
    let reach = (KERNEL_CROSSINGS * stretch).ceil() as i64;
    let len = source.len() as i64;
    let turn = (source.len() as f64 / ratio).round() as u64;
    let mut kernels: HashMap<u64, Vec<f64>> = HashMap::new();
    let mut resampled = Vec::with_capacity(turn as usize);
    for n in 0..turn {
        let position = n * u64::from(rate_hz);
        let (whole, phase) =
            (position / u64::from(PHONE_RATE_HZ), position % u64::from(PHONE_RATE_HZ));
        let weights = kernels.entry(phase).or_insert_with(|| {
            let part = phase as f64 / f64::from(PHONE_RATE_HZ);
            (-reach..=reach).map(|k| kernel((part - k as f64) / stretch) / stretch).collect()
        });
        let around = (-reach..=reach).map(|k| source[(whole as i64 + k).rem_euclid(len) as usize]);
        let sum: f64 =
            around.zip(weights.iter()).map(|(sample, weight)| f64::from(sample) * weight).sum();
        resampled.push(sum as f32);
    }
    resampled
}

/// A sinc under a Hann window.
fn kernel(x: f64) -> f64 {
    if x.abs() >= KERNEL_CROSSINGS {
        return 0.0;
    }
    let sinc = if x == 0.0 { 1.0 } else { (PI * x).sin() / (PI * x) };
    sinc * 0.5 * (1.0 + (PI * x / KERNEL_CROSSINGS).cos())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::{Codec, tune};

    fn phone_hears(source: &Wav, codec: Codec, skip: usize, samples: usize) -> Vec<f32> {
        let looped = Reference::new(source).samples.into_iter().cycle().skip(skip).take(samples);
        codec.decode(&codec.encode(&looped.collect::<Vec<_>>()))
    }

    #[test]
    fn a_looped_source_is_recognised_through_both_codecs() {
        let source = tune(1, 2_000);
        for codec in [Codec::Pcmu, Codec::Pcma] {
            let heard = phone_hears(&source, codec, 12_345, 40_000);
            let span = Reference::new(&source).longest_span(&heard);
            assert_eq!((span.from_ms, span.to_ms), (0, 5_000));
            assert!(span.correlation > 0.998, "{span:?}");
        }
    }

    #[test]
    fn the_span_ends_where_something_else_begins() {
        let (music, voice) = (tune(1, 2_000), tune(2, 2_000));
        let mut heard = phone_hears(&music, Codec::Pcmu, 0, 16_000);
        heard.extend(phone_hears(&voice, Codec::Pcmu, 0, 8_000));
        let span = Reference::new(&music).longest_span(&heard);
        assert_eq!((span.from_ms, span.to_ms), (0, 2_000));
        let span = Reference::new(&voice).longest_span(&heard);
        assert!(span.from_ms.abs_diff(2_000) <= 300 && span.to_ms == 3_000, "{span:?}");
    }

    #[test]
    fn a_lost_packet_ends_the_span() {
        let source = tune(1, 2_000);
        let mut heard = phone_hears(&source, Codec::Pcmu, 0, 24_000);
        heard.drain(8_000..8_160);
        let span = Reference::new(&source).longest_span(&heard);
        assert!(span.duration_ms() < 2_200, "{span:?}");
    }

    #[test]
    fn another_tune_and_noise_are_not_recognised() {
        let source = tune(1, 2_000);
        let other = phone_hears(&tune(2, 2_000), Codec::Pcmu, 0, 16_000);
        assert_eq!(Reference::new(&source).longest_span(&other), Span::default());
    }

    #[test]
    fn half_a_sample_of_delay_does_not_matter() {
        let source = tune(3, 2_000);
        let reference = Reference::new(&source);
        let late: Vec<f32> = (0..16_000).map(|at| reference.at(at, 0.5)).collect();
        let span = reference.longest_span(&late);
        assert!(span.duration_ms() == 2_000 && span.correlation > 0.999, "{span:?}");
    }

    #[test]
    fn a_tune_is_never_silent_and_a_hole_in_it_is_measured() {
        let mut heard = phone_hears(&tune(1, 2_000), Codec::Pcmu, 0, 32_000);
        assert!(longest_silence_ms(&heard) < 20, "{}", longest_silence_ms(&heard));
        heard[8_000..8_640].fill(0.0);
        assert!((80..=90).contains(&longest_silence_ms(&heard)), "{}", longest_silence_ms(&heard));
    }
}
