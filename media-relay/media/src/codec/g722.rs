//! G.722 at 64 kbit/s (ITU-T G.722 §3 and §4): 16 kHz in two bands of ADPCM, one byte per two samples.
//!
//! Names and tables are the recommendation's: blocks 1 to 6, L for the lower and H for the higher
//! band. Everything is 16-bit arithmetic that saturates, held in i32.

/// Taps of the quadrature mirror filter, of which the other half is the mirror image.
const QMF: [i32; 12] = [3, -11, 12, 32, -210, 951, 3876, -805, 362, -156, 53, -11];
/// Samples by which both filters together delay.
pub(super) const DELAY: usize = 22;
/// Decision levels of the lower band.
const Q6: [i32; 32] = [
    0, 35, 72, 110, 150, 190, 233, 276, 323, 370, 422, 473, 530, 587, 650, 714, 786, 858, 940,
    1023, 1121, 1219, 1339, 1458, 1612, 1765, 1980, 2195, 2557, 2919, 0, 0,
];
/// Codes of the lower band's intervals, for negative and positive differences.
const ILN: [u8; 32] = [
    0, 63, 62, 31, 30, 29, 28, 27, 26, 25, 24, 23, 22, 21, 20, 19, 18, 17, 16, 15, 14, 13, 12, 11,
    10, 9, 8, 7, 6, 5, 4, 0,
];
const ILP: [u8; 32] = [
    0, 61, 60, 59, 58, 57, 56, 55, 54, 53, 52, 51, 50, 49, 48, 47, 46, 45, 44, 43, 42, 41, 40, 39,
    38, 37, 36, 35, 34, 33, 32, 0,
];
/// Logarithmic scale factor multipliers.
const WL: [i32; 8] = [-60, -30, 58, 172, 334, 538, 1198, 3042];
const RL42: [usize; 16] = [0, 7, 6, 5, 4, 3, 2, 1, 7, 6, 5, 4, 3, 2, 1, 0];
const WH: [i32; 3] = [0, -214, 798];
const RH2: [usize; 4] = [2, 1, 2, 1];
/// Antilogarithm for scale factors.
const ILB: [i32; 32] = [
    2048, 2093, 2139, 2186, 2233, 2282, 2332, 2383, 2435, 2489, 2543, 2599, 2656, 2714, 2774, 2834,
    2896, 2960, 3025, 3091, 3158, 3228, 3298, 3371, 3444, 3520, 3597, 3676, 3756, 3838, 3922, 4008,
];
/// Output levels of the inverse quantisers with 2, 4 and 6 bits.
const QM2: [i32; 4] = [-7408, -1616, 7408, 1616];
const QM4: [i32; 16] = [
    0, -20456, -12896, -8968, -6288, -4240, -2584, -1200, 20456, 12896, 8968, 6288, 4240, 2584,
    1200, 0,
];
const QM6: [i32; 64] = [
    -136, -136, -136, -136, -24808, -21904, -19008, -16704, -14984, -13512, -12280, -11192, -10232,
    -9360, -8576, -7856, -7192, -6576, -6000, -5456, -4944, -4464, -4008, -3576, -3168, -2776,
    -2400, -2032, -1688, -1360, -1040, -728, 24808, 21904, 19008, 16704, 14984, 13512, 12280,
    11192, 10232, 9360, 8576, 7856, 7192, 6576, 6000, 5456, 4944, 4464, 4008, 3576, 3168, 2776,
    2400, 2032, 1688, 1360, 1040, 728, 432, 136, -432, -136,
];
/// Largest logarithmic scale factors, and the decision level of the higher band.
const NB_LOW_MAX: i32 = 18_432;
const NB_HIGH_MAX: i32 = 22_528;
const Q2: i32 = 564;

#[derive(Debug)]
pub(super) struct G722Encoder {
    low: Band,
    high: Band,
    history: [i32; 24],
}

impl Default for G722Encoder {
    fn default() -> Self {
        Self { low: Band::new(32), high: Band::new(8), history: [0; 24] }
    }
}

impl G722Encoder {
    /// Appends a byte for each two samples; an odd last one is followed by silence.
    pub(super) fn encode(&mut self, samples: &[i16], codes: &mut Vec<u8>) {
        codes.extend(samples.chunks(2).map(|pair| {
            let (low, high) = self.split(pair[0], pair.get(1).copied().unwrap_or(0));
            self.encode_high(high) << 6 | self.encode_low(low)
        }));
    }

    /// The transmit quadrature mirror filter.
    fn split(&mut self, first: i16, second: i16) -> (i32, i32) {
        self.history.copy_within(2.., 0);
        self.history[22] = first.into();
        self.history[23] = second.into();
        let (odd, even) = filtered(&self.history);
        ((even + odd) >> 14, (even - odd) >> 14)
    }

    fn encode_low(&mut self, low: i32) -> u8 {
        let difference = saturate(low - self.low.prediction);
        let size = magnitude(difference);
        let is_below = |n: &usize| size < (Q6[*n] * self.low.scale) >> 12;
        let interval = (1..30).find(is_below).unwrap_or(30);
        let code = if difference < 0 { ILN[interval] } else { ILP[interval] };
        self.low.adapt_low(code >> 2);
        code
    }

    fn encode_high(&mut self, high: i32) -> u8 {
        let difference = saturate(high - self.high.prediction);
        let is_large = magnitude(difference) >= (Q2 * self.high.scale) >> 12;
        let code = match (difference < 0, is_large) {
            (true, false) => 1,
            (true, true) => 0,
            (false, false) => 3,
            (false, true) => 2,
        };
        self.high.adapt_high(code);
        code
    }
}

#[derive(Debug)]
pub(super) struct G722Decoder {
    low: Band,
    high: Band,
    history: [i32; 24],
}

impl Default for G722Decoder {
    fn default() -> Self {
        Self { low: Band::new(32), high: Band::new(8), history: [0; 24] }
    }
}

impl G722Decoder {
    /// Appends two samples for each byte.
    pub(super) fn decode(&mut self, codes: &[u8], samples: &mut Vec<i16>) {
        samples.extend(codes.iter().flat_map(|code| {
            let (low_code, high_code) = (code & 0x3f, code >> 6);
            let level = (self.low.scale * QM6[usize::from(low_code)]) >> 15;
            let low = limit(self.low.prediction + level);
            self.low.adapt_low(low_code >> 2);
            let level = (self.high.scale * QM2[usize::from(high_code)]) >> 15;
            let high = limit(self.high.prediction + level);
            self.high.adapt_high(high_code);
            self.join(low, high)
        }));
    }

    /// The receive quadrature mirror filter.
    fn join(&mut self, low: i32, high: i32) -> [i16; 2] {
        self.history.copy_within(2.., 0);
        self.history[22] = low + high;
        self.history[23] = low - high;
        let (odd, even) = filtered(&self.history);
        [saturate(even >> 11) as i16, saturate(odd >> 11) as i16]
    }
}

/// The ADPCM predictor of one band: two poles, six zeros.
#[derive(Debug)]
struct Band {
    /// Of the next sample (S).
    prediction: i32,
    /// Of that, what the zeros predict (SZ).
    prediction_of_zeros: i32,
    /// The latest two reconstructed signals (R) and partially reconstructed ones (P).
    reconstructed: [i32; 2],
    partial: [i32; 2],
    /// The latest six quantised differences (D).
    differences: [i32; 6],
    poles: [i32; 2],
    zeros: [i32; 6],
    /// Logarithmic scale factor (NB) and linear one (DET).
    log_scale: i32,
    scale: i32,
}

impl Band {
    fn new(scale: i32) -> Self {
        Self {
            prediction: 0,
            prediction_of_zeros: 0,
            reconstructed: [0; 2],
            partial: [0; 2],
            differences: [0; 6],
            poles: [0; 2],
            zeros: [0; 6],
            log_scale: 0,
            scale,
        }
    }

    /// Blocks 2L to 4L for the upper four bits of a code.
    fn adapt_low(&mut self, code: u8) {
        let code = usize::from(code);
        let difference = (self.scale * QM4[code]) >> 15;
        self.rescale(WL[RL42[code]], NB_LOW_MAX, 8);
        self.predict(difference);
    }

    /// Blocks 2H to 4H.
    fn adapt_high(&mut self, code: u8) {
        let code = usize::from(code);
        let difference = (self.scale * QM2[code]) >> 15;
        self.rescale(WH[RH2[code]], NB_HIGH_MAX, 10);
        self.predict(difference);
    }

    /// LOGSCL and SCALEL, or LOGSCH and SCALEH.
    fn rescale(&mut self, step: i32, max: i32, exponent: i32) {
        self.log_scale = (((self.log_scale * 127) >> 7) + step).clamp(0, max);
        let mantissa = ILB[(self.log_scale >> 6) as usize & 31];
        let shift = exponent - (self.log_scale >> 11);
        let linear = if shift < 0 { mantissa << -shift } else { mantissa >> shift };
        self.scale = linear << 2;
    }

    /// Block 4: adapts the predictor to a quantised difference, and predicts.
    fn predict(&mut self, difference: i32) {
        let reconstructed = saturate(self.prediction + difference);
        let partial = saturate(self.prediction_of_zeros + difference);
        self.adapt_poles(partial);
        self.adapt_zeros(difference);
        self.differences.copy_within(..5, 1);
        self.differences[0] = difference;
        self.reconstructed = [reconstructed, self.reconstructed[0]];
        self.partial = [partial, self.partial[0]];
        let of_poles = |n: usize| (self.poles[n] * saturate(self.reconstructed[n] * 2)) >> 15;
        let of_zeros = |n: usize| (self.zeros[n] * saturate(self.differences[n] * 2)) >> 15;
        self.prediction_of_zeros = saturate((0..6).map(of_zeros).sum());
        self.prediction = saturate(saturate(of_poles(0) + of_poles(1)) + self.prediction_of_zeros);
    }

    /// UPPOL2 and UPPOL1.
    fn adapt_poles(&mut self, partial: i32) {
        let like_last = (partial < 0) == (self.partial[0] < 0);
        let like_last_but_one = (partial < 0) == (self.partial[1] < 0);
        let first = saturate(self.poles[0] * 4);
        let towards = if like_last { (-first).min(32_767) } else { first };
        let step = if like_last_but_one { 128 } else { -128 };
        let second = (towards >> 7) + step + ((self.poles[1] * 32_512) >> 15);
        let second = second.clamp(-12_288, 12_288);
        let step = if like_last { 192 } else { -192 };
        let first = saturate(step + ((self.poles[0] * 32_640) >> 15));
        let bound = saturate(15_360 - second);
        self.poles = [first.clamp(-bound, bound), second];
    }

    /// UPZERO.
    fn adapt_zeros(&mut self, difference: i32) {
        let step = if difference == 0 { 0 } else { 128 };
        for (zero, before) in self.zeros.iter_mut().zip(self.differences) {
            let step = if (before < 0) == (difference < 0) { step } else { -step };
            *zero = saturate(step + ((*zero * 32_640) >> 15));
        }
    }
}

/// Both phases of the quadrature mirror filter over the latest 24 samples.
fn filtered(history: &[i32; 24]) -> (i32, i32) {
    let (mut odd, mut even) = (0, 0);
    for (n, pair) in history.chunks_exact(2).enumerate() {
        odd += pair[0] * QMF[n];
        even += pair[1] * QMF[11 - n];
    }
    (odd, even)
}

fn saturate(value: i32) -> i32 {
    value.clamp(i16::MIN.into(), i16::MAX.into())
}

/// Of a reconstructed band (block 6).
fn limit(value: i32) -> i32 {
    value.clamp(-16_384, 16_383)
}

/// As the recommendation has it: that of -1 is 0.
fn magnitude(difference: i32) -> i32 {
    if difference >= 0 { difference } else { -(difference + 1) }
}
