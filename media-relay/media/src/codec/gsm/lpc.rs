//! The short-term side: preprocessing (§5.2.1 to 5.2.3), linear prediction (§5.2.4 to 5.2.7), the
//! lattice filters (§5.2.10, §5.3.4), postprocessing (§5.3.5 to 5.3.7).

use super::FRAME_SAMPLES;
use super::arithmetic::{abs, div, mult, mult_r, norm};
use std::ops::Range;

type Signal = [i16; FRAME_SAMPLES];
type Ratios = [i16; 8];

/// How a log area ratio is quantised (Table 5.1).
struct Quantiser {
    a: i16,
    b: i16,
    largest: i16,
    smallest: i16,
    /// 1/A.
    inverse_a: i16,
}

const fn quantiser(a: i16, b: i16, largest: i16, inverse_a: i16) -> Quantiser {
    Quantiser { a, b, largest, smallest: -largest - 1, inverse_a }
}

const QUANTISERS: [Quantiser; 8] = [
    quantiser(20_480, 0, 31, 13_107),
    quantiser(20_480, 0, 31, 13_107),
    quantiser(20_480, 2_048, 15, 13_107),
    quantiser(20_480, -2_560, 15, 13_107),
    quantiser(13_964, 94, 7, 19_223),
    quantiser(15_360, -1_792, 7, 17_476),
    quantiser(8_534, -341, 3, 31_454),
    quantiser(9_036, -1_144, 3, 29_708),
];

/// Stretches of a frame with coefficients of their own (Table 3.2).
const STRETCHES: [Range<usize>; 4] = [0..13, 13..27, 27..40, 40..FRAME_SAMPLES];

/// Takes out what is constant, and lifts high frequencies.
#[derive(Debug, Default)]
pub(super) struct Preprocessor {
    last_input: i16,
    without_offset: i32,
    last_output: i16,
}

impl Preprocessor {
    pub(super) fn run(&mut self, samples: &Signal) -> Signal {
        samples.map(|sample| {
            let input = (sample >> 3) << 2;
            let step = input.wrapping_sub(self.last_input);
            self.last_input = input;
            let upper = (self.without_offset >> 15) as i16;
            let lower = self.without_offset.wrapping_sub(i32::from(upper) << 15) as i16;
            let step = (i32::from(step) << 15).saturating_add(mult_r(lower, 32_735).into());
            self.without_offset = (i32::from(upper) * 32_735).saturating_add(step);
            let emphasised = mult_r(self.last_output, -28_180);
            self.last_output = (self.without_offset.saturating_add(16_384) >> 15) as i16;
            self.last_output.saturating_add(emphasised)
        })
    }
}

/// Undoes the emphasis, and scales to 16 bits of which the lowest three are 0.
#[derive(Debug, Default)]
pub(super) struct Postprocessor {
    last: i16,
}

impl Postprocessor {
    pub(super) fn run(&mut self, signal: &mut Signal) {
        for sample in signal {
            self.last = sample.saturating_add(mult_r(self.last, 28_180));
            *sample = self.last.saturating_add(self.last) & !7;
        }
    }
}

/// The coded log area ratios of a frame; scales it as the standard does.
pub(super) fn analyse(signal: &mut Signal) -> Ratios {
    let reflections = reflections(autocorrelation(signal));
    let mut coded = reflections.map(log_area_ratio);
    for (ratio, it) in coded.iter_mut().zip(&QUANTISERS) {
        let scaled = mult(it.a, *ratio).saturating_add(it.b).saturating_add(256) >> 9;
        *ratio = scaled.clamp(it.smallest, it.largest) - it.smallest;
    }
    coded
}

fn autocorrelation(signal: &mut Signal) -> [i32; 9] {
    let largest = signal.iter().map(|it| abs(*it)).max().expect("a frame has samples");
    let shift = match largest {
        0 => 0,
        _ => 4 - norm(i32::from(largest) << 16) as i32,
    };
    if shift > 0 {
        let factor = 16_384 >> (shift - 1);
        signal.iter_mut().for_each(|it| *it = mult_r(*it, factor));
    }
    let product = |a: &i16, b: &i16| i32::from(*a) * i32::from(*b);
    let correlations = std::array::from_fn(|lag| {
        signal[lag..].iter().zip(signal.iter()).map(|(a, b)| product(a, b)).sum::<i32>() << 1
    });
    if shift > 0 {
        signal.iter_mut().for_each(|it| *it <<= shift);
    }
    correlations
}

/// The Schur recursion.
fn reflections(correlations: [i32; 9]) -> Ratios {
    let mut reflections = [0; 8];
    if correlations[0] == 0 {
        return reflections;
    }
    let shift = norm(correlations[0]);
    let mut p = correlations.map(|it| ((it << shift) >> 16) as i16);
    let mut k = p;
    for n in 0..8 {
        let size = abs(p[1]);
        if p[0] < size {
            return reflections;
        }
        let reflection = div(size, p[0]);
        let reflection = if p[1] > 0 { -reflection } else { reflection };
        reflections[n] = reflection;
        p[0] = p[0].saturating_add(mult_r(p[1], reflection));
        for m in 1..8 - n {
            let next = p[m + 1];
            p[m] = next.saturating_add(mult_r(k[m], reflection));
            k[m] = k[m].saturating_add(mult_r(next, reflection));
        }
    }
    reflections
}

fn log_area_ratio(reflection: i16) -> i16 {
    let size = match abs(reflection) {
        small @ ..22_118 => small >> 1,
        middle @ 22_118..31_130 => middle - 11_059,
        large => (large - 26_112) << 2,
    };
    if reflection < 0 { -size } else { size }
}

/// §5.2.8.
fn decoded(coded: &Ratios) -> Ratios {
    std::array::from_fn(|n| {
        let it = &QUANTISERS[n];
        let scaled = (coded[n] + it.smallest) << 10;
        let ratio = mult_r(it.inverse_a, scaled.saturating_sub(it.b << 1));
        ratio.saturating_add(ratio)
    })
}

/// §5.2.9.
fn reflection(ratio: i16) -> i16 {
    let size = match abs(ratio) {
        small @ ..11_059 => small << 1,
        middle @ 11_059..20_070 => middle + 11_059,
        large => (large >> 2).saturating_add(26_112),
    };
    if ratio < 0 { -size } else { size }
}

/// The log area ratios of the last frame, from which those of the next one glide away.
#[derive(Debug, Default)]
struct Gliding {
    last: Ratios,
}

impl Gliding {
    /// Reflection coefficients of the four stretches (§5.2.9).
    fn stretches(&mut self, coded: &Ratios) -> [Ratios; 4] {
        let (new, old) = (decoded(coded), self.last);
        self.last = new;
        let glide = |mix: fn(i16, i16) -> i16| -> Ratios {
            std::array::from_fn(|n| reflection(mix(old[n], new[n])))
        };
        [
            glide(|old, new| (old >> 2).saturating_add(new >> 2).saturating_add(old >> 1)),
            glide(|old, new| (old >> 1).saturating_add(new >> 1)),
            glide(|old, new| (old >> 2).saturating_add(new >> 2).saturating_add(new >> 1)),
            glide(|_, new| new),
        ]
    }
}

/// Signal to residual.
#[derive(Debug, Default)]
pub(super) struct ShortTermAnalysis {
    gliding: Gliding,
    lattice: [i16; 8],
}

impl ShortTermAnalysis {
    pub(super) fn run(&mut self, coded: &Ratios, signal: &mut Signal) {
        for (stretch, reflections) in STRETCHES.into_iter().zip(self.gliding.stretches(coded)) {
            for sample in &mut signal[stretch] {
                let mut forward = *sample;
                let mut backward = *sample;
                for (stored, reflection) in self.lattice.iter_mut().zip(reflections) {
                    let before = std::mem::replace(stored, backward);
                    backward = before.saturating_add(mult_r(reflection, forward));
                    forward = forward.saturating_add(mult_r(reflection, before));
                }
                *sample = forward;
            }
        }
    }
}

/// Residual to signal.
#[derive(Debug, Default)]
pub(super) struct ShortTermSynthesis {
    gliding: Gliding,
    lattice: [i16; 9],
}

impl ShortTermSynthesis {
    pub(super) fn run(&mut self, coded: &Ratios, signal: &mut Signal) {
        for (stretch, reflections) in STRETCHES.into_iter().zip(self.gliding.stretches(coded)) {
            for sample in &mut signal[stretch] {
                for n in (0..8).rev() {
                    let (reflection, stored) = (reflections[n], self.lattice[n]);
                    *sample = sample.saturating_sub(mult_r(reflection, stored));
                    self.lattice[n + 1] = stored.saturating_add(mult_r(reflection, *sample));
                }
                self.lattice[0] = *sample;
            }
        }
    }
}
