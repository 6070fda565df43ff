//! One step of a mix: the voices of those who are heard, at each rate that somebody hears, and their
//! sums. Allocates only when a voice is heard at a rate for the first time.

use crate::conference::SPEAKERS_MAX;
use crate::resampler::Resampler;

/// Rates at which sound is heard, in Hz.
pub(crate) const RATES_HZ: [u32; 3] = [8_000, 16_000, 48_000];
/// Samples of a step of 10 ms at the highest of them.
pub(crate) const STEP_SAMPLES_MAX: usize = 480;
/// Voices of one step: those who fade in and those who fade out are both in it.
const VOICES_MAX: usize = 2 * SPEAKERS_MAX;
/// Mean square below which a participant does not count as speaking: −50 dB of full scale.
const SPEECH_POWER_MIN: u64 = 10_700;

pub(crate) fn rate_index(rate_hz: u32) -> Option<usize> {
    RATES_HZ.iter().position(|it| *it == rate_hz)
}

/// How loud somebody is: rises at once and falls within some hundred ms, as between two words.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Level(u64);

impl Level {
    pub(crate) fn follow(&mut self, step: &[i16], muted: bool) {
        let sum: u64 = step.iter().map(|it| u64::from(it.unsigned_abs()).pow(2)).sum();
        let power = if muted { 0 } else { sum / step.len().max(1) as u64 };
        self.0 = power.max(self.0 - self.0 / 16);
        if muted {
            self.0 = 0;
        }
    }

    /// To compare with others: who is heard counts double.
    pub(crate) fn standing(self, is_heard: bool) -> u64 {
        if is_heard { self.0.saturating_mul(2) } else { self.0 }
    }

    pub(crate) fn is_speech(self) -> bool {
        self.0 >= SPEECH_POWER_MIN
    }
}

#[derive(Debug)]
pub(crate) struct Mix {
    voices: [Voice; VOICES_MAX],
    /// Which rates are heard in this step.
    rates: [bool; RATES_HZ.len()],
    sums: [[i32; STEP_SAMPLES_MAX]; RATES_HZ.len()],
    /// The same, for those who are not in it.
    saturated: [[i16; STEP_SAMPLES_MAX]; RATES_HZ.len()],
}

/// A place for one who is heard.
#[derive(Debug, Default)]
struct Voice {
    is_taken: bool,
    is_in_step: bool,
    rate_hz: u32,
    /// This step, at each rate.
    steps: [Vec<i16>; RATES_HZ.len()],
    resamplers: [Option<Resampler>; RATES_HZ.len()],
}

impl Default for Mix {
    fn default() -> Self {
        Self {
            voices: std::array::from_fn(|_| Voice::default()),
            rates: [false; RATES_HZ.len()],
            sums: [[0; STEP_SAMPLES_MAX]; RATES_HZ.len()],
            saturated: [[0; STEP_SAMPLES_MAX]; RATES_HZ.len()],
        }
    }
}

impl Mix {
    pub(crate) fn begin(&mut self, rates: [bool; RATES_HZ.len()]) {
        self.rates = rates;
        self.voices.iter_mut().for_each(|it| it.is_in_step = false);
    }

    /// Adds somebody who was not heard before; returns the place, if there is one.
    pub(crate) fn add_new(&mut self, sound: &[i16], rate_hz: u32) -> Option<usize> {
        let free = self.voices.iter().position(|it| !it.is_taken && !it.is_in_step)?;
        self.voices[free].is_taken = true;
        self.add(free, sound, rate_hz);
        Some(free)
    }

    pub(crate) fn add(&mut self, voice: usize, sound: &[i16], rate_hz: u32) {
        self.voices[voice].take(sound, rate_hz, self.rates);
    }

    /// Gives a place back. What is in the step stays in it.
    pub(crate) fn free(&mut self, voice: usize) {
        self.voices[voice].is_taken = false;
    }

    pub(crate) fn sum(&mut self) {
        for rate in (0..RATES_HZ.len()).filter(|it| self.rates[*it]) {
            let len = step_samples(rate);
            let sum = &mut self.sums[rate][..len];
            sum.fill(0);
            for voice in self.voices.iter().filter(|it| it.is_in_step) {
                for (sum, sample) in sum.iter_mut().zip(&voice.steps[rate]) {
                    *sum += i32::from(*sample);
                }
            }
            for (to, sum) in self.saturated[rate].iter_mut().zip(sum) {
                *to = saturate(*sum);
            }
        }
    }

    /// Hands over the step at a rate, without a voice.
    pub(crate) fn without(&self, rate: usize, voice: Option<usize>, hear: impl FnOnce(&[i16])) {
        let len = step_samples(rate);
        let Some(own) = voice.map(|it| &self.voices[it]).filter(|it| it.is_in_step) else {
            return hear(&self.saturated[rate][..len]);
        };
        let mut step = [0; STEP_SAMPLES_MAX];
        for ((to, sum), own) in step.iter_mut().zip(&self.sums[rate][..len]).zip(&own.steps[rate]) {
            *to = saturate(sum - i32::from(*own));
        }
        hear(&step[..len]);
    }

    pub(crate) fn silence(rate: usize) -> &'static [i16] {
        static SILENCE: [i16; STEP_SAMPLES_MAX] = [0; STEP_SAMPLES_MAX];
        &SILENCE[..step_samples(rate)]
    }
}

impl Voice {
    fn take(&mut self, sound: &[i16], rate_hz: u32, rates: [bool; RATES_HZ.len()]) {
        if self.rate_hz != rate_hz {
            self.rate_hz = rate_hz;
            self.resamplers = Default::default();
        }
        self.is_in_step = true;
        for (n, to_hz) in RATES_HZ.into_iter().enumerate().filter(|(n, _)| rates[*n]) {
            let resampler =
                self.resamplers[n].get_or_insert_with(|| Resampler::new(rate_hz, to_hz));
            self.steps[n].clear();
            resampler.process(sound, &mut self.steps[n]);
        }
    }
}

fn step_samples(rate: usize) -> usize {
    RATES_HZ[rate] as usize / 100
}

fn saturate(sample: i32) -> i16 {
    sample.clamp(i16::MIN.into(), i16::MAX.into()) as i16
}
