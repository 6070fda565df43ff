//! DTMF tones in the sound (ITU-T Q.23, Q.24): Goertzel filters over blocks of 12.75 ms.
//!
//! A digit begins with two blocks in a row that hold it and ends with two that do not, so 40 ms of
//! tone and 40 ms of pause are enough wherever the blocks lie. Speech holds such pairs of tones for
//! moments too ("talk-off"). It is kept out by asking of the two blocks that the tones are nearly
//! all of the energy, that no other tone of their group comes near them, that their levels fit, and
//! that the phase of each goes on from block to block as that of a tone of its frequency does.

use crate::dtmf::Digit;
use std::f32::consts::{PI, TAU};

/// Of the digit in row, column.
const KEYS: [[u8; 4]; 4] = [[1, 2, 3, 12], [4, 5, 6, 13], [7, 8, 9, 14], [10, 0, 11, 15]];
const ROWS_HZ: [f32; 4] = [697.0, 770.0, 852.0, 941.0];
const COLUMNS_HZ: [f32; 4] = [1_209.0, 1_336.0, 1_477.0, 1_633.0];

/// Samples of a block at 8 kHz.
const BLOCK: u32 = 102;
/// Weakest tone, as the mean square of its samples: −36 dBm0, of a full scale of +3.14 dBm0.
const POWER_MIN: f32 = 65_000.0;
/// How much stronger than the column's the row's tone may be, and how much weaker: 8 and 4 dB, and
/// 1 dB for what of each tone leaks into the other's filter in so short a time.
const TWIST_ROW_MAX: f32 = 7.94;
const TWIST_COLUMN_MAX: f32 = 3.16;
/// How far the other tones of a group must be below the strongest: 6 dB.
const PEAK_MIN: f32 = 4.0;
/// Least part of the energy that is in the two tones, of one block and of the two that begin a
/// digit.
const BLOCK_PURITY_MIN: f32 = 0.7;
const PURITY_MIN: f32 = 0.86;
/// How far a tone may be from its frequency: 1.5 % (Q.24), and what the phases are uncertain by.
const DETUNED_MAX: f32 = 0.018;

/// Looks for digits in the sound of one side.
#[derive(Clone, Debug)]
pub(crate) struct ToneDetector {
    sample_rate_hz: u32,
    block_len: u32,
    coefficients: [f32; 8],
    filters: [Filter; 8],
    /// Sum of squares in this block, and its samples so far.
    energy: f32,
    taken: u32,
    last: Option<Pair>,
    within: Option<Digit>,
}

/// The two newest states of a Goertzel filter.
#[derive(Clone, Copy, Debug, Default)]
struct Filter(f32, f32);

/// Two tones that one block holds.
#[derive(Clone, Copy, Debug)]
struct Pair {
    digit: Digit,
    row: Tone,
    column: Tone,
    /// Mean square of the block.
    total: f32,
}

#[derive(Clone, Copy, Debug)]
struct Tone {
    hz: f32,
    /// Mean square.
    power: f32,
    /// At the end of the block, in radians.
    phase: f32,
}

impl ToneDetector {
    pub(crate) fn new(sample_rate_hz: u32) -> Self {
        let angle = |n: usize| TAU * frequency_hz(n) / sample_rate_hz as f32;
        Self {
            sample_rate_hz,
            block_len: BLOCK * sample_rate_hz / 8_000,
            coefficients: std::array::from_fn(|n| 2.0 * angle(n).cos()),
            filters: [Filter::default(); 8],
            energy: 0.0,
            taken: 0,
            last: None,
            within: None,
        }
    }

    pub(crate) fn sample_rate_hz(&self) -> u32 {
        self.sample_rate_hz
    }

    /// Takes the next samples; returns the digit that begins in them. Packets of at most 60 ms
    /// cannot hold two.
    pub(crate) fn listen(&mut self, samples: &[i16]) -> Option<Digit> {
        let mut begun = None;
        let mut rest = samples;
        while !rest.is_empty() {
            let wanted = (self.block_len - self.taken) as usize;
            let (block, after) = rest.split_at(wanted.min(rest.len()));
            self.filter(block);
            self.taken += u32::try_from(block.len()).expect("at most a block");
            rest = after;
            if self.taken == self.block_len {
                let found = self.find_pair();
                (self.filters, self.energy, self.taken) = ([Filter::default(); 8], 0.0, 0);
                begun = self.follow(found).or(begun);
            }
        }
        begun
    }

    fn filter(&mut self, block: &[i16]) {
        for sample in block {
            let sample = f32::from(*sample);
            self.energy += sample * sample;
            for (filter, coefficient) in self.filters.iter_mut().zip(self.coefficients) {
                *filter = Filter(sample + coefficient * filter.0 - filter.1, filter.0);
            }
        }
    }

    /// The tones that stand out of the block, if they are most of it.
    fn find_pair(&self) -> Option<Pair> {
        let total = self.energy / self.block_len as f32;
        if total < POWER_MIN / 2.0 {
            return None;
        }
        let tones: [Tone; 8] = std::array::from_fn(|n| self.tone(n));
        let (row, column) = (peak(&tones[..4])?, peak(&tones[4..])?);
        let digit = Digit::from_event_code(KEYS[row][column])?;
        let (row, column) = (tones[row], tones[4 + column]);
        let is_most = row.power + column.power >= total * BLOCK_PURITY_MIN;
        is_most.then_some(Pair { digit, row, column, total })
    }

    fn tone(&self, n: usize) -> Tone {
        let Filter(newest, before) = self.filters[n];
        let hz = frequency_hz(n);
        let (sin, cos) = (TAU * hz / self.sample_rate_hz as f32).sin_cos();
        let (real, imaginary) = (newest - before * cos, before * sin);
        // A tone of amplitude a gives a·len/2, and has a mean square of a²/2.
        let len = self.block_len as f32;
        let power = 2.0 * (real * real + imaginary * imaginary) / (len * len);
        Tone { hz, power, phase: imaginary.atan2(real) }
    }

    /// A digit begins with its second block in a row, and ends with the second without it.
    fn follow(&mut self, found: Option<Pair>) -> Option<Digit> {
        let last = std::mem::replace(&mut self.last, found);
        let digit = |it: Option<Pair>| it.map(|it| it.digit);
        if digit(found) == self.within || digit(last) == self.within {
            return None;
        }
        let block_seconds = self.block_len as f32 / self.sample_rate_hz as f32;
        self.within = match (last, found) {
            (Some(last), Some(found)) if last.begins_digit(&found, block_seconds) => {
                Some(found.digit)
            }
            _ => None,
        };
        self.within
    }
}

impl Pair {
    /// Whether this and the next block are the beginning of a digit.
    fn begins_digit(&self, next: &Self, block_seconds: f32) -> bool {
        if self.digit != next.digit {
            return false;
        }
        let row = self.row.goes_on(&next.row, block_seconds);
        let column = self.column.goes_on(&next.column, block_seconds);
        let (Some(row), Some(column)) = (row, column) else { return false };
        row >= 2.0 * POWER_MIN
            && column >= 2.0 * POWER_MIN
            && row <= column * TWIST_ROW_MAX
            && column <= row * TWIST_COLUMN_MAX
            && row + column >= (self.total + next.total) * PURITY_MIN
    }
}

impl Tone {
    /// The power of both blocks, if it is one tone of about this frequency. What the filter loses
    /// because it is not quite that is made up for.
    fn goes_on(&self, next: &Self, block_seconds: f32) -> Option<f32> {
        let turns = (next.phase - self.phase) / TAU - self.hz * block_seconds;
        let detuned_turns = turns - turns.round();
        let is_tuned = (detuned_turns / block_seconds).abs() <= self.hz * DETUNED_MAX;
        let angle = PI * detuned_turns;
        let kept = if angle.abs() < 1e-3 { 1.0 } else { angle.sin() / angle };
        is_tuned.then_some((self.power + next.power) / (kept * kept))
    }
}

fn frequency_hz(n: usize) -> f32 {
    if n < 4 { ROWS_HZ[n] } else { COLUMNS_HZ[n - 4] }
}

/// The strongest of a group, if it stands out.
fn peak(tones: &[Tone]) -> Option<usize> {
    let (at, strongest) =
        tones.iter().enumerate().max_by(|(_, a), (_, b)| a.power.total_cmp(&b.power))?;
    let mut others = tones.iter().enumerate().filter(|(n, _)| *n != at);
    others.all(|(_, it)| it.power * PEAK_MIN <= strongest.power).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    /// Amplitude of a tone of so many dBm0.
    fn amplitude(dbm0: f32) -> f32 {
        32_767.0 * 10f32.powf((dbm0 - 3.17) / 20.0)
    }

    #[derive(Clone, Copy, Debug)]
    struct Press {
        code: u8,
        tone_ms: u32,
        row_dbm0: f32,
        column_dbm0: f32,
        /// Of both frequencies, from the nominal ones.
        detuned: f32,
    }

    fn press(code: u8) -> Press {
        Press { code, tone_ms: 40, row_dbm0: -10.0, column_dbm0: -10.0, detuned: 0.0 }
    }

    /// `lead` samples of silence, then each press with a pause of 40 ms behind it.
    fn sound(presses: &[Press], sample_rate_hz: u32, lead: usize) -> Vec<i16> {
        let mut samples = vec![0; lead];
        for press in presses {
            let (row, column) = (0..16)
                .map(|it| (it / 4, it % 4))
                .find(|(row, column)| KEYS[*row][*column] == press.code)
                .unwrap();
            let tone = |hz: f32, dbm0: f32, n: u32| {
                let hz = hz * (1.0 + press.detuned);
                amplitude(dbm0) * (TAU * hz * n as f32 / sample_rate_hz as f32).sin()
            };
            let len = sample_rate_hz * press.tone_ms / 1_000;
            samples.extend((0..len).map(|n| {
                let row = tone(ROWS_HZ[row], press.row_dbm0, n);
                (row + tone(COLUMNS_HZ[column], press.column_dbm0, n)) as i16
            }));
            samples.resize(samples.len() + sample_rate_hz as usize * 40 / 1_000, 0);
        }
        samples
    }

    fn digits(samples: &[i16], sample_rate_hz: u32) -> String {
        let mut detector = ToneDetector::new(sample_rate_hz);
        let packets = samples.chunks(sample_rate_hz as usize / 50);
        packets.filter_map(|it| detector.listen(it)).map(Digit::as_char).collect()
    }

    proptest! {
        /// 40 ms of tone and 40 ms of pause are enough, at every rate, wherever the blocks lie.
        #[test]
        fn the_shortest_presses_are_all_heard(
            codes in prop::collection::vec(0..16u8, 1..12),
            rate in prop_oneof![Just(8_000u32), Just(16_000), Just(48_000)],
            lead in 0..700usize,
            dbm0 in -27.0..-5f32,
            twist in -4.0..8f32,
        ) {
            let level = |code| Press { row_dbm0: dbm0, column_dbm0: dbm0 - twist, ..press(code) };
            let presses: Vec<_> = codes.iter().map(|it| level(*it)).collect();
            let wanted: String =
                codes.iter().map(|it| Digit::from_event_code(*it).unwrap().as_char()).collect();
            prop_assert_eq!(digits(&sound(&presses, rate, lead), rate), wanted);
        }
    }

    #[test]
    fn a_long_press_is_one_digit() {
        let presses = [Press { tone_ms: 10_000, ..press(5) }, press(5)];
        assert_eq!(digits(&sound(&presses, 8_000, 0), 8_000), "55");
    }

    #[test]
    fn frequencies_may_be_off_by_one_and_a_half_percent() {
        for detuned in [-0.015, 0.015] {
            let presses: Vec<_> = (0..16).map(|it| Press { detuned, ..press(it) }).collect();
            assert_eq!(digits(&sound(&presses, 8_000, 33), 8_000), "0123456789*#ABCD");
        }
    }

    #[test]
    fn what_is_out_of_bounds_is_no_digit() {
        let none = |press: Press| assert_eq!(digits(&sound(&[press], 8_000, 0), 8_000), "");
        none(Press { column_dbm0: -23.0, ..press(1) });
        none(Press { row_dbm0: -19.0, ..press(1) });
        none(Press { row_dbm0: -40.0, column_dbm0: -40.0, ..press(1) });
        none(Press { tone_ms: 12, ..press(1) });
        none(Press { detuned: 0.05, ..press(1) });
        none(Press { row_dbm0: -90.0, ..press(1) });
    }

    /// Vowels and consonants as a vocal tract makes them: pulses of a gliding pitch, or noise,
    /// through three moving formants, in syllables.
    fn speech(seed: u64, seconds: u32) -> Vec<i16> {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut samples = Vec::new();
        let mut states = [[0f32; 2]; 3];
        let mut phase = 0f32;
        while samples.len() < (seconds * 8_000) as usize {
            let len = rng.random_range(500..2_400);
            let voiced = rng.random_bool(0.8);
            let (pitch, glide) = (rng.random_range(80.0..320f32), rng.random_range(-0.3..0.3f32));
            let formants = [(250.0, 950.0), (800.0, 2_300.0), (2_200.0, 3_200.0)]
                .map(|(low, high)| (rng.random_range(low..high), rng.random_range(-0.2..0.2f32)));
            for n in 0..len {
                let part = n as f32 / len as f32;
                phase += pitch * (1.0 + glide * part) / 8_000.0;
                let pulse = if phase >= 1.0 { 1.0 } else { -0.02 };
                phase = phase.fract();
                let source = if voiced { pulse } else { rng.random_range(-0.3..0.3) };
                let mut sum = 0.0;
                for ((state, (hz, moves)), gain) in
                    states.iter_mut().zip(formants).zip([1.0, 0.7, 0.3])
                {
                    let (hz, radius) = (hz * (1.0 + moves * part), 0.965f32);
                    let out = source + 2.0 * radius * (TAU * hz / 8_000.0).cos() * state[0]
                        - radius * radius * state[1];
                    *state = [out, state[0]];
                    sum += gain * out;
                }
                let envelope = (part * std::f32::consts::PI).sin();
                samples.push((sum * envelope * 4_000.0) as i16);
            }
            samples.resize(samples.len() + rng.random_range(0..1_600), 0);
        }
        samples
    }

    /// Bellcore's recording of half an hour of talk may set off a receiver some hundred times; one
    /// in three minutes would be a nuisance.
    #[test]
    fn three_minutes_of_talk_hold_no_digit() {
        assert_eq!(digits(&speech(4733, 180), 8_000), "");
    }

    #[test]
    fn digits_are_heard_over_the_noise_of_a_line() {
        let mut rng = StdRng::seed_from_u64(1);
        let presses: Vec<_> = (0..16).map(press).collect();
        let mut samples = sound(&presses, 8_000, 50);
        for sample in &mut samples {
            *sample += rng.random_range(-300..300); // About 30 dB below the tones.
        }
        assert_eq!(digits(&samples, 8_000), "0123456789*#ABCD");
    }
}
