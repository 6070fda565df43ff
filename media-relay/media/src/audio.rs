//! A piece of sound, encoded once for each form in which it is played, shared by all who listen.
//!
//! The linear samples stay, and forms are made from them when they are first needed, away from the
//! packet thread: [`Audio::encode`] takes its time, [`Audio::encoded`] only looks. G.711 is there
//! from the start.
//!
//! A loop has no seam. Codecs with a memory are run through it twice, and the second pass is kept,
//! so that their state at the end is the one at the beginning. Where a codec has frames, the loop is
//! repeated until it is a whole number of packets; if that would take more than [`REPEATED_MAX_S`],
//! less than one packet of it is left out, in a crossfade.

use crate::codec::{CLOCK_RATE_HZ, Codec, Encoder, Law, PTIMES_MS, Unit};
use crate::resampler::resample_loop;
use std::sync::{Arc, OnceLock};

/// Longest piece of audio, in samples at 8 kHz: one hour.
pub const SAMPLES_MAX: usize = SECONDS_MAX * CLOCK_RATE_HZ as usize;
/// The same in seconds.
pub const SECONDS_MAX: usize = 3_600;
/// How much of a repeated loop is encoded to reach a whole number of packets, in seconds.
const REPEATED_MAX_S: usize = 120;
/// Codecs with shorter units than this, in samples, have no frames: what is played once has no need of
/// silence after it.
const FRAME_MIN: usize = 80;
/// How long the end of a shortened loop fades into its beginning, in ms.
const FADE_MS: usize = 10;

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum AudioError {
    #[error("it holds no samples")]
    Empty,
    #[error("it lasts {seconds} s, more than the {SECONDS_MAX} of one hour")]
    TooLong { seconds: usize },
}

/// As what audio is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Form {
    pub codec: Codec,
    /// Matters to Opus only; the other codecs' units make packets of any length.
    pub ptime_ms: u32,
    /// For ever; else once, with silence after it. The same for codecs without frames.
    pub repeat: bool,
}

impl Form {
    /// Forms with equal slots are the same bytes.
    fn slot(self) -> usize {
        let ptime = PTIMES_MS.iter().position(|it| *it == self.codec.ptime_ms(self.ptime_ms));
        let once = usize::from(!self.repeat);
        match self.codec {
            Codec::Pcmu => 0,
            Codec::Pcma => 1,
            Codec::G722 => 2,
            Codec::L16Wide => 3,
            Codec::L16Narrow => 4,
            Codec::Gsm => 5 + once,
            Codec::Opus => 7 + 2 * ptime.expect("it is one of ours") + once,
        }
    }
}

const SLOTS: usize = 7 + 2 * PTIMES_MS.len();

/// At least one sample, mono.
#[derive(Debug)]
pub struct Audio {
    linear: Box<[i16]>,
    sample_rate_hz: u32,
    encoded: [OnceLock<Encoded>; SLOTS],
}

impl PartialEq for Audio {
    fn eq(&self, other: &Self) -> bool {
        self.linear() == other.linear()
    }
}

impl Eq for Audio {}

/// Payload bytes of a whole piece of audio.
#[derive(Debug, PartialEq, Eq)]
pub struct Encoded {
    bytes: Box<[u8]>,
    cut: Cut,
}

/// Where packets may begin.
#[derive(Debug, PartialEq, Eq)]
enum Cut {
    /// At any unit.
    Units(Unit),
    /// Packets of this length, which end there.
    Packets { ticks: usize, ends: Box<[u32]> },
}

impl Encoded {
    /// RTP ticks until it repeats, or ends; never 0.
    pub fn ticks(&self) -> usize {
        match &self.cut {
            Cut::Units(unit) => self.bytes.len() / unit.bytes * unit.ticks,
            Cut::Packets { ticks, ends } => ticks * ends.len(),
        }
    }

    /// All of it, for codecs with units: see [`Codec::unit`].
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The packet that holds this tick, which is below [`Encoded::ticks`]; none for codecs with
    /// units.
    pub fn packet_at(&self, tick: usize) -> Option<&[u8]> {
        let Cut::Packets { ticks, ends } = &self.cut else { return None };
        let number = tick / ticks;
        let start = if number == 0 { 0 } else { ends[number - 1] };
        Some(&self.bytes[start as usize..ends[number] as usize])
    }

    fn memory_bytes(&self) -> usize {
        let ends = match &self.cut {
            Cut::Units(_) => 0,
            Cut::Packets { ends, .. } => size_of_val(&**ends),
        };
        self.bytes.len() + ends
    }
}

impl Audio {
    /// Takes 16-bit linear samples at 8,000, 16,000 or 48,000 Hz. If they are to repeat, they go on
    /// from the last to the first.
    ///
    /// # Errors
    /// [`AudioError`] if there are none, or more than an hour of them.
    pub fn new(sample_rate_hz: u32, samples: Vec<i16>) -> Result<Self, AudioError> {
        let seconds = samples.len() / sample_rate_hz as usize;
        match samples.len() {
            0 => return Err(AudioError::Empty),
            _ if seconds >= SECONDS_MAX
                && samples.len() > SECONDS_MAX * sample_rate_hz as usize =>
            {
                return Err(AudioError::TooLong { seconds });
            }
            _ => (),
        }
        let samples = whole(samples, (sample_rate_hz / CLOCK_RATE_HZ) as usize, sample_rate_hz);
        let linear = samples.into_boxed_slice();
        let audio = Self { linear, sample_rate_hz, encoded: [const { OnceLock::new() }; SLOTS] };
        for codec in [Codec::Pcmu, Codec::Pcma] {
            audio.encode(Form { codec, ptime_ms: 20, repeat: true });
        }
        Ok(audio)
    }

    /// [`Audio::new`] at 8 kHz.
    ///
    /// # Errors
    /// The same.
    pub fn from_linear(samples: &[i16]) -> Result<Self, AudioError> {
        Self::new(CLOCK_RATE_HZ, samples.to_vec())
    }

    /// One piece after the other, at the highest of their rates.
    ///
    /// # Errors
    /// [`AudioError`] if there are none, or they last more than an hour together.
    pub fn joined(parts: &[Arc<Self>]) -> Result<Self, AudioError> {
        let rate_hz = parts.iter().map(|it| it.sample_rate_hz).max().unwrap_or(CLOCK_RATE_HZ);
        let mut samples = Vec::new();
        for part in parts {
            samples.extend(resample_loop(&part.linear, part.sample_rate_hz, rate_hz));
        }
        Self::new(rate_hz, samples)
    }

    /// Takes bytes of G.711; they are played as they are in that law.
    ///
    /// # Errors
    /// As [`Audio::new`].
    pub fn from_codes(law: Law, codes: Vec<u8>) -> Result<Self, AudioError> {
        let mut audio = Self::new(CLOCK_RATE_HZ, codes.iter().map(|it| law.decode(*it)).collect())?;
        let to = |to: Law| codes.iter().map(|it| law.transcode(to, *it)).collect();
        for (slot, bytes) in [to(Law::Pcmu), to(Law::Pcma)].into_iter().enumerate() {
            let unit = Cut::Units(Unit { bytes: 1, ticks: 1 });
            audio.encoded[slot] = OnceLock::from(Encoded { bytes, cut: unit });
        }
        Ok(audio)
    }

    /// What it is in this form; none until [`Audio::encode`] has made it.
    pub fn encoded(&self, form: Form) -> Option<&Encoded> {
        self.encoded[form.slot()].get()
    }

    /// Makes a form, unless it is there. Takes up to about a hundredth of the audio's length: not
    /// for the packet thread.
    pub fn encode(&self, form: Form) -> &Encoded {
        self.encoded[form.slot()].get_or_init(|| {
            let rate_hz = form.codec.sample_rate_hz();
            let samples = resample_loop(&self.linear, self.sample_rate_hz, rate_hz);
            encode(form, samples)
        })
    }

    /// One byte per sample.
    ///
    /// # Panics
    /// For codecs other than G.711.
    pub fn codes(&self, codec: Codec) -> &[u8] {
        assert!(codec.law().is_some(), "{codec:?} is not there from the start");
        let form = Form { codec, ptime_ms: 20, repeat: true };
        self.encoded(form).expect("G.711 is there from the start").bytes()
    }

    /// The source, and its rate in Hz.
    pub fn linear(&self) -> (&[i16], u32) {
        (&self.linear, self.sample_rate_hz)
    }

    /// Length in samples at 8 kHz; never 0.
    pub fn samples(&self) -> usize {
        self.codes(Codec::Pcmu).len()
    }

    /// Length in ms, rounded up.
    pub fn duration_ms(&self) -> u32 {
        let ms = self.linear.len().div_ceil(self.sample_rate_hz as usize / 1_000);
        u32::try_from(ms).expect("an hour of ms fits")
    }

    /// Heap memory in bytes; grows with each new form.
    pub fn memory_bytes(&self) -> usize {
        let encoded = self.encoded.iter().filter_map(|it| Some(it.get()?.memory_bytes()));
        size_of_val(&*self.linear) + encoded.sum::<usize>()
    }
}

/// Whole loops of whole packets.
fn encode(form: Form, samples: Vec<i16>) -> Encoded {
    let codec = form.codec;
    let frame = match codec.unit() {
        Some(unit) => unit.ticks * codec.samples_per_ms() / codec.ticks_per_ms() as usize,
        None => codec.ptime_ms(form.ptime_ms) as usize * codec.samples_per_ms(),
    };
    let mut encoder = Encoder::for_files(codec);
    let at_a_time = match codec.unit() {
        Some(_) => frame * (1_024 / frame),
        None => frame,
    };
    let samples = if form.repeat || frame < FRAME_MIN {
        let looped = whole(repeated(samples, frame, codec), frame, codec.sample_rate_hz());
        run_in(&mut encoder, &looped, at_a_time);
        looped
    } else {
        padded(samples, frame, encoder.lookahead())
    };
    let mut bytes = Vec::new();
    let mut ends = Vec::new();
    for part in samples.chunks(at_a_time) {
        encoder.encode(part, &mut bytes);
        ends.push(u32::try_from(bytes.len()).expect("an hour is below 4 GiB"));
    }
    let cut = match codec.unit() {
        Some(unit) => Cut::Units(unit),
        None => Cut::Packets { ticks: frame, ends: ends.into() },
    };
    Encoded { bytes: bytes.into(), cut }
}

/// Brings an encoder to the state that it has at the end of a loop.
fn run_in(encoder: &mut Encoder, samples: &[i16], at_a_time: usize) {
    let before = samples.len().saturating_sub(encoder.codec().sample_rate_hz() as usize);
    let mut unused = Vec::new();
    for part in samples[before / at_a_time * at_a_time..].chunks(at_a_time) {
        unused.clear();
        encoder.encode(part, &mut unused);
    }
}

/// The loop so often that it is a whole number of frames, if that is not too long.
fn repeated(samples: Vec<i16>, frame: usize, codec: Codec) -> Vec<i16> {
    let max = REPEATED_MAX_S * codec.sample_rate_hz() as usize;
    let times = (1..=frame).take_while(|n| n * samples.len() <= max.max(samples.len()));
    let exact = times.clone().find(|n| (n * samples.len()).is_multiple_of(frame));
    // Else as often as allowed: what is left out is left out as seldom as possible.
    let times = exact.or(times.last()).unwrap_or(1);
    samples.repeat(times)
}

/// A loop whose length is a multiple of `unit`; if it was not, it is shortened by less than that
/// (or lengthened, if it is shorter), and its end fades into its beginning.
fn whole(mut samples: Vec<i16>, unit: usize, sample_rate_hz: u32) -> Vec<i16> {
    let surplus = samples.len() % unit.max(1);
    if surplus == 0 {
        return samples;
    }
    if samples.len() < unit {
        samples = samples.repeat(unit.div_ceil(samples.len()));
        return whole(samples, unit, sample_rate_hz);
    }
    let len = samples.len() - surplus;
    let fade = (FADE_MS * sample_rate_hz as usize / 1_000).min(len);
    // The surplus goes before the beginning; so the seam is where the source goes on.
    for n in 0..fade.min(surplus) {
        let weight = n as f32 / fade.min(surplus) as f32;
        let (from, to) = (f32::from(samples[len + n]), f32::from(samples[n]));
        samples[n] = (from + (to - from) * weight) as i16;
    }
    samples.truncate(len);
    samples
}

/// Silence after the end, until the codec's delay is over and a frame is full.
fn padded(mut samples: Vec<i16>, frame: usize, lookahead: usize) -> Vec<i16> {
    let len = (samples.len() + lookahead).next_multiple_of(frame);
    samples.resize(len, 0);
    samples
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Decoder;
    use crate::resampler::sine;

    /// What is heard of a form from its beginning, for this many RTP ticks and more.
    fn heard(audio: &Audio, form: Form, ticks: usize) -> Vec<i16> {
        let encoded = audio.encode(form);
        let mut decoder = Decoder::new(form.codec);
        let mut samples = Vec::new();
        let packet = (form.ptime_ms * form.codec.ticks_per_ms()) as usize;
        let mut at = 0;
        while at < ticks {
            let tick = at % encoded.ticks();
            match form.codec.unit() {
                None => {
                    decoder.decode(encoded.packet_at(tick).unwrap(), &mut samples).unwrap();
                    at += packet;
                }
                Some(unit) => {
                    let n = tick / unit.ticks * unit.bytes;
                    decoder.decode(&encoded.bytes()[n..n + unit.bytes], &mut samples).unwrap();
                    at += unit.ticks;
                }
            }
        }
        samples
    }

    fn largest_step(samples: &[i16]) -> i32 {
        let step = |it: &[i16]| (i32::from(it[1]) - i32::from(it[0])).abs();
        samples.windows(2).map(step).max().unwrap()
    }

    #[test]
    fn pieces_are_joined_in_order_and_at_the_highest_rate() {
        let piece = |rate_hz, value: i16, ms| {
            let samples = vec![value; rate_hz as usize / 1_000 * ms];
            Arc::new(Audio::new(rate_hz, samples).unwrap())
        };
        let joined = Audio::joined(&[piece(16_000, 1_000, 20), piece(8_000, 4_000, 10)]).unwrap();
        let (linear, rate_hz) = joined.linear();
        assert_eq!((linear.len(), rate_hz, joined.duration_ms()), (480, 16_000, 30));
        assert_eq!(linear[160], 1_000);
        assert!((3_800..4_200).contains(&linear[400]), "{}", linear[400]);
        assert_eq!(Audio::joined(&[]), Err(AudioError::Empty));
    }

    #[test]
    fn the_largest_step_over_seams_is_that_of_the_source() {
        // 1,303 ms of 440 whole waves (or nearly): not a whole number of frames of any codec.
        let pitch_hz = 440.0 * 1_000.0 / 1_303.0;
        let source = sine(pitch_hz, 48_000, 48 * 1_303);
        let audio = Audio::new(48_000, source).unwrap();
        for codec in Codec::ALL {
            for ptime_ms in [20, 60].map(|it| codec.ptime_ms(it)) {
                let form = Form { codec, ptime_ms, repeat: true };
                let ticks = codec.ticks_per_ms() as usize;
                let samples = heard(&audio, form, 4_000 * ticks);
                let settled = &samples[100 * codec.samples_per_ms()..];
                let source = sine(pitch_hz, codec.sample_rate_hz(), 8_000);
                let (got, wanted) = (largest_step(settled), largest_step(&source));
                // Coding noise is part of what is heard, also far from seams.
                let between =
                    &samples[100 * codec.samples_per_ms()..][..1_100 * codec.samples_per_ms()];
                let noise = largest_step(between) - wanted;
                assert!(
                    got <= wanted + noise.max(wanted / 20) + 40,
                    "{codec:?}: {got} of {wanted}, {noise}"
                );
            }
        }
    }
}
