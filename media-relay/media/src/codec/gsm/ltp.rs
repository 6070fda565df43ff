//! The long-term predictor (§5.2.11, §5.2.12, §5.3.2) and the pulses of what it leaves: regular
//! pulse excitation (§5.2.13 to 5.2.18, §5.3.1).

use super::arithmetic::{abs, mult, mult_r, norm};
use super::{SUBFRAME, Subframe};

type Residual = [i16; SUBFRAME];
type Pulses = [i16; 13];

/// Lags of the predictor, in samples.
const LAG_MIN: usize = 40;
const LAG_MAX: usize = 120;
/// Decision levels of its gain, and the gains (Tables 5.3).
const GAIN_LEVELS: [i16; 3] = [6_554, 16_384, 26_214];
const GAINS: [i16; 4] = [3_277, 11_469, 21_299, 32_767];
/// Impulse response of the weighting filter (Table 5.4).
const WEIGHTS: [i32; 11] = [-134, -374, 0, 2_054, 5_741, 8_192, 5_741, 2_054, 0, -374, -134];
/// Mantissas of block amplitudes, and their inverses (Tables 5.5 and 5.6).
const INVERSE_MANTISSAS: [i16; 8] =
    [29_128, 26_215, 23_832, 21_846, 20_165, 18_725, 17_476, 16_384];
const MANTISSAS: [i16; 8] = [18_431, 20_479, 22_527, 24_575, 26_623, 28_671, 30_719, 32_767];

/// The latest reconstructed short-term residual, the newest last.
#[derive(Debug)]
pub(super) struct History([i16; LAG_MAX]);

impl Default for History {
    fn default() -> Self {
        Self([0; LAG_MAX])
    }
}

impl History {
    /// A subframe's length, `lag` samples ago.
    fn ago(&self, lag: usize) -> &Residual {
        let start = LAG_MAX - lag;
        self.0[start..start + SUBFRAME].try_into().expect("a lag is a subframe at least")
    }

    fn push(&mut self, residual: &Residual) {
        self.0.copy_within(SUBFRAME.., 0);
        self.0[LAG_MAX - SUBFRAME..].copy_from_slice(residual);
    }
}

/// With `is_entry` the gain is the lowest, so that another history is soon forgotten.
pub(super) fn encode(history: &mut History, residual: &Residual, is_entry: bool) -> Subframe {
    let (lag, gain) = predictor(history, residual);
    let gain = if is_entry { 0 } else { gain };
    let predicted = history.ago(lag).map(|it| mult_r(GAINS[gain], it));
    let rest: Residual = std::array::from_fn(|n| residual[n].saturating_sub(predicted[n]));
    let (grid, pulses) = decimated(&weighted(&rest));
    let block_amplitude = block_amplitude(&pulses);
    let scale = Scale::of(block_amplitude);
    let subframe = Subframe {
        lag: lag as i16,
        gain: gain as i16,
        grid: grid as i16,
        block_amplitude,
        pulses: pulses.map(|it| scale.quantise(it)),
    };
    let excitation = excitation(&subframe);
    history.push(&std::array::from_fn(|n| excitation[n].saturating_add(predicted[n])));
    subframe
}

/// Residuals from their parameters.
#[derive(Debug)]
pub(super) struct LongTermSynthesis {
    history: History,
    lag: usize,
}

impl Default for LongTermSynthesis {
    fn default() -> Self {
        Self { history: History::default(), lag: LAG_MIN }
    }
}

impl LongTermSynthesis {
    pub(super) fn run(&mut self, subframe: &Subframe) -> Residual {
        let lag = subframe.lag as usize;
        if (LAG_MIN..=LAG_MAX).contains(&lag) {
            self.lag = lag;
        }
        let gain = GAINS[subframe.gain as usize];
        let excitation = excitation(subframe);
        let before = self.history.ago(self.lag);
        let residual =
            std::array::from_fn(|n| excitation[n].saturating_add(mult_r(gain, before[n])));
        self.history.push(&residual);
        residual
    }
}

/// The lag with the highest correlation, and which gain it has.
fn predictor(history: &History, residual: &Residual) -> (usize, usize) {
    let largest = residual.iter().map(|it| abs(*it)).max().expect("a subframe has samples");
    let free_bits = if largest == 0 { 6 } else { norm(i32::from(largest) << 16) };
    let shift = 6u32.saturating_sub(free_bits);
    let scaled = residual.map(|it| it >> shift);
    let (mut lag, mut most) = (LAG_MIN, 0);
    for candidate in LAG_MIN..=LAG_MAX {
        let before = history.ago(candidate).iter();
        let correlation: i32 =
            scaled.iter().zip(before).map(|(a, b)| i32::from(*a) * i32::from(*b)).sum();
        if correlation > most {
            (lag, most) = (candidate, correlation);
        }
    }
    let most = (most << 1) >> (6 - shift);
    let square = |it: &i16| i32::from(it >> 3) * i32::from(it >> 3);
    let power = history.ago(lag).iter().map(square).sum::<i32>() << 1;
    if most <= 0 {
        return (lag, 0);
    }
    if most >= power {
        return (lag, 3);
    }
    let shift = norm(power);
    let (most, power) = (((most << shift) >> 16) as i16, ((power << shift) >> 16) as i16);
    let is_within = |level: &i16| most <= mult(power, *level);
    (lag, GAIN_LEVELS.iter().position(is_within).unwrap_or(3))
}

fn weighted(rest: &Residual) -> Residual {
    std::array::from_fn(|n| {
        let taps = WEIGHTS.iter().enumerate().filter_map(|(tap, weight)| {
            let at = (n + tap).checked_sub(5)?;
            Some(i32::from(*rest.get(at)?) * weight)
        });
        let sum = (taps.sum::<i32>() + 4_096) >> 13;
        sum.clamp(i16::MIN.into(), i16::MAX.into()) as i16
    })
}

/// Every third sample, beginning with the first, second, third or fourth: those with most energy.
fn decimated(weighted: &Residual) -> (usize, Pulses) {
    let pulses = |grid: usize| -> Pulses { std::array::from_fn(|n| weighted[grid + 3 * n]) };
    let energy = |grid: usize| -> i32 {
        pulses(grid).iter().map(|it| i32::from(it >> 2) * i32::from(it >> 2)).sum()
    };
    let mut best = 0;
    for grid in 1..4 {
        if energy(grid) > energy(best) {
            best = grid;
        }
    }
    (best, pulses(best))
}

/// xmaxc: the largest pulse, in steps that grow with it.
fn block_amplitude(pulses: &Pulses) -> i16 {
    let largest = pulses.iter().map(|it| abs(*it)).max().expect("there are pulses");
    let exponent = (0..6).take_while(|n| (largest >> 9) >> n > 0).count() as i16;
    (largest >> (exponent + 5)) + (exponent << 3)
}

/// What block amplitudes mean (§5.2.16).
struct Scale {
    exponent: i16,
    mantissa: usize,
}

impl Scale {
    fn of(block_amplitude: i16) -> Self {
        let mut exponent = if block_amplitude > 15 { (block_amplitude >> 3) - 1 } else { 0 };
        let mut mantissa = block_amplitude - (exponent << 3);
        if mantissa == 0 {
            return Self { exponent: -4, mantissa: 7 };
        }
        while mantissa <= 7 {
            mantissa = mantissa << 1 | 1;
            exponent -= 1;
        }
        Self { exponent, mantissa: (mantissa - 8) as usize }
    }

    /// One of eight steps.
    fn quantise(&self, pulse: i16) -> i16 {
        let scaled = mult(pulse << (6 - self.exponent), INVERSE_MANTISSAS[self.mantissa]);
        (scaled >> 12) + 4
    }

    fn restore(&self, step: i16) -> i16 {
        let shift = 6 - self.exponent;
        let level = mult_r(MANTISSAS[self.mantissa], ((step << 1) - 7) << 12);
        let half = if shift > 0 { 1 << (shift - 1) } else { 0 };
        level.saturating_add(half) >> shift
    }
}

/// The pulses in their places (§5.2.17, §5.2.18).
fn excitation(subframe: &Subframe) -> Residual {
    let scale = Scale::of(subframe.block_amplitude);
    let mut excitation = [0; SUBFRAME];
    for (n, step) in subframe.pulses.iter().enumerate() {
        excitation[subframe.grid as usize + 3 * n] = scale.restore(*step);
    }
    excitation
}
