//! Any sample rate to one of the codecs', without a seam if the sound is a loop.

use crate::ingest::Unusable;
use media::{AudioError, SECONDS_MAX};
use rubato::audioadapter_buffers::direct::InterleavedSlice;
use rubato::{Fft, FixedSync, Indexing, Resampler as _, WindowFunction};

/// Input samples that are resampled at a time, at least; more make a steeper filter.
const CHUNK_MIN: usize = 2_048;

/// Resamples piece by piece, so that an hour at 192 kHz needs no gigabytes.
///
/// What comes first is resampled again after the end, and that replaces the first moments of the
/// output: the filter then has heard the end before the beginning, as it is in a loop.
pub(super) struct Resampling {
    /// None: the rate is right already.
    resampler: Option<Fft<f32>>,
    rate_in_hz: u32,
    rate_out_hz: u32,
    /// The first samples of the input.
    head: Vec<f32>,
    head_max: usize,
    pending: Vec<f32>,
    /// Input samples so far.
    taken: u64,
    /// Resampled samples that are the filter's delay, and not output.
    delay_left: usize,
    output: Vec<i16>,
}

impl Resampling {
    pub(super) fn new(rate_in_hz: u32, rate_out_hz: u32) -> Result<Self, Unusable> {
        let resampler = match rate_in_hz {
            same if same == rate_out_hz => None,
            _ => Some(resampler(rate_in_hz as usize, rate_out_hz as usize)?),
        };
        let delay = resampler.as_ref().map_or(0, |it| it.output_delay());
        let head_max = resampler.as_ref().map_or(0, |it| 2 * it.input_frames_max());
        let (head, pending, output) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Self {
            resampler,
            rate_in_hz,
            rate_out_hz,
            head,
            head_max,
            pending,
            taken: 0,
            delay_left: delay,
            output,
        })
    }

    pub(super) fn push(&mut self, samples: &[f32]) -> Result<(), Unusable> {
        self.taken += samples.len() as u64;
        let seconds = self.taken / u64::from(self.rate_in_hz);
        if seconds > SECONDS_MAX as u64 {
            return Err(AudioError::TooLong { seconds: seconds as usize }.into());
        }
        if self.resampler.is_none() {
            self.output.extend(samples.iter().map(|it| to_linear(*it)));
            return Ok(());
        }
        let missing = self.head_max - self.head.len();
        self.head.extend(&samples[..missing.min(samples.len())]);
        self.pending.extend_from_slice(samples);
        self.resample()
    }

    /// Of the output so far.
    pub(super) fn memory_bytes(&self) -> usize {
        size_of_val(&*self.output)
    }

    /// Output samples for the input so far.
    fn wanted(&self) -> usize {
        let samples = self.taken * u64::from(self.rate_out_hz);
        usize::try_from(samples.div_ceil(u64::from(self.rate_in_hz))).unwrap_or(usize::MAX)
    }

    fn resample(&mut self) -> Result<(), Unusable> {
        let Some(resampler) = &mut self.resampler else { return Ok(()) };
        let failed = |e: &dyn std::fmt::Display| Unusable::Unsupported { reason: e.to_string() };
        let mut used = 0;
        let mut resampled = vec![0.0; resampler.output_frames_max()];
        while self.pending.len() - used >= resampler.input_frames_next() {
            let wanted = resampler.input_frames_next();
            let input = InterleavedSlice::new(&self.pending[used..used + wanted], 1, wanted)
                .map_err(|e| failed(&e))?;
            let space = resampled.len();
            let mut output =
                InterleavedSlice::new_mut(&mut resampled, 1, space).map_err(|e| failed(&e))?;
            let (read, written) = resampler
                .process_into_buffer(&input, &mut output, Some(&Indexing::new()))
                .map_err(|e| failed(&e))?;
            used += read;
            let skipped = self.delay_left.min(written);
            self.delay_left -= skipped;
            self.output.extend(resampled[skipped..written].iter().map(|it| to_linear(*it)));
        }
        self.pending.drain(..used);
        Ok(())
    }

    /// Goes round, until the first moments have been heard again, and puts them in their place.
    pub(super) fn finish(mut self) -> Result<Vec<i16>, Unusable> {
        let Some(resampler) = &self.resampler else { return Ok(self.output) };
        let (wanted, delay) = (self.wanted(), resampler.output_delay());
        let mut around = std::mem::take(&mut self.head).into_iter().cycle();
        while wanted > 0 && self.output.len() < wanted + 2 * delay {
            self.pending.extend(around.by_ref().take(CHUNK_MIN));
            self.resample()?;
        }
        for n in 0..(2 * delay).min(wanted) {
            let (once, again) = (f32::from(self.output[n]), f32::from(self.output[wanted + n]));
            let weight = (n.saturating_sub(delay)) as f32 / delay as f32;
            self.output[n] = (again + (once - again) * weight).round() as i16;
        }
        self.output.truncate(wanted);
        Ok(self.output)
    }
}

/// The filter delays by half a chunk. So that this is a whole number of samples, and none is shifted
/// against its source, a chunk is an even multiple of the shortest stretch that both rates divide.
fn resampler(rate_hz: usize, rate_out_hz: usize) -> Result<Fft<f32>, Unusable> {
    let stretch = rate_hz / greatest_common_divisor(rate_hz, rate_out_hz);
    let chunk = stretch * CHUNK_MIN.div_ceil(stretch).next_multiple_of(2);
    let (window, fixed) = (WindowFunction::BlackmanHarris2, FixedSync::Both);
    Fft::new_custom(rate_hz, rate_out_hz, chunk, 1, 1, window, fixed)
        .map_err(|e| Unusable::Unsupported { reason: e.to_string() })
}

fn greatest_common_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

fn to_linear(sample: f32) -> i16 {
    (sample * 32_768.0).round() as i16 // Saturates.
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_has_no_seam_at_another_rate() {
        for (rate_in_hz, rate_out_hz) in [(44_100, 48_000), (11_025, 16_000), (22_050, 8_000)] {
            // A second of whole waves, so that the source is a loop.
            let step = std::f64::consts::TAU * 300.0 / f64::from(rate_in_hz);
            let sine = |n: u32| (f64::from(n) * step).sin() as f32 * 0.5;
            let source: Vec<f32> = (0..rate_in_hz).map(sine).collect();
            let mut resampling = Resampling::new(rate_in_hz, rate_out_hz).unwrap();
            for part in source.chunks(1_000) {
                resampling.push(part).unwrap();
            }
            let output = resampling.finish().unwrap();
            assert_eq!(output.len(), rate_out_hz as usize);
            let step = std::f64::consts::TAU * 300.0 / f64::from(rate_out_hz);
            for (n, sample) in output.iter().enumerate() {
                let wanted = (n as f64 * step).sin() * 16_384.0;
                let error = (f64::from(*sample) - wanted).abs();
                assert!(error < 150.0, "{rate_in_hz} {rate_out_hz}, {n}: {error}");
            }
        }
    }

    #[test]
    fn what_is_shorter_than_the_filter_keeps_its_length() {
        for samples in [1, 7, 500] {
            let mut resampling = Resampling::new(44_100, 8_000).unwrap();
            resampling.push(&vec![0.1; samples]).unwrap();
            assert_eq!(resampling.finish().unwrap().len(), (samples * 8_000).div_ceil(44_100));
        }
        assert!(Resampling::new(44_100, 8_000).unwrap().finish().unwrap().is_empty());
    }
}
