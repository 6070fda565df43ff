//! A recording of what the remotes of a session say: one side in mono, or both in stereo.
//!
//! Each side has a jitter buffer that is read at a steady pace from the start on, so that the time in
//! the file is the time of the call, and both sides are where they were to each other. What does not
//! come is silence.

use crate::codec::Codec;
use crate::jitter_buffer::{JitterBuffer, Pace};
use crate::resampler::Resampler;
use crate::schedule::newest_slot;
use crate::session::Side;
use smallvec::SmallVec;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Recordings of a relay at a time.
pub const RECORDINGS_MAX: usize = 1_000;
/// The buffers are read in steps of this length; the sides are as exactly aligned.
const STEP: Duration = Duration::from_millis(STEP_MS as u64);
const STEP_MS: u32 = 20;
/// How long a packet is waited for: a recording has time.
const DELAY_MS: u32 = 300;
const DEPTH_MAX_MS: u32 = 800;
/// Steps that are handed over together.
const CHUNK_STEPS: usize = 10;
/// A recording that is later than this leaves out what it missed, as silence.
const LATE_MAX: Duration = Duration::from_millis(500);

/// Who is recorded, and how the samples are handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordingFormat {
    /// Only this side, in mono; else A left, B right.
    pub side: Option<Side>,
    /// The highest that a recorded side's codec has.
    pub sample_rate_hz: u32,
}

impl RecordingFormat {
    pub fn channels(self) -> usize {
        if self.side.is_some() { 1 } else { 2 }
    }
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RecordingError {
    #[error("media session {0:?} is being recorded already")]
    Exists(String),
    #[error("media session {0:?} is not being recorded")]
    Missing(String),
    #[error("{RECORDINGS_MAX} recordings are being made, and no more at a time")]
    TooMany,
}

#[derive(Debug)]
pub(crate) struct Recording {
    pub id: Arc<str>,
    format: RecordingFormat,
    tracks: SmallVec<[Track; 2]>,
    next_step: Instant,
    until: Instant,
    /// Steps still to be left out: playout is so far behind.
    lead: u32,
    samples: Vec<i16>,
    /// Where the timers have it.
    pub armed: Option<Instant>,
}

/// What one side says.
#[derive(Debug)]
struct Track {
    side: Side,
    buffer: Option<JitterBuffer>,
    resampler: Option<Resampler>,
    read: Vec<i16>,
    resampled: Vec<i16>,
}

impl Recording {
    pub(crate) fn new(
        now: Instant,
        id: Arc<str>,
        format: RecordingFormat,
        longest: Duration,
    ) -> Self {
        let sides = Side::BOTH.into_iter().filter(|it| format.side.is_none_or(|side| side == *it));
        Self {
            id,
            format,
            tracks: sides.map(Track::new).collect(),
            next_step: now + STEP,
            until: now + longest,
            lead: DELAY_MS / STEP_MS,
            samples: Vec::new(),
            armed: None,
        }
    }

    pub(crate) fn has(&self, side: Side) -> bool {
        self.tracks.iter().any(|it| it.side == side)
    }

    /// Takes the sound of a packet.
    pub(crate) fn write(
        &mut self,
        now: Instant,
        side: Side,
        codec: Codec,
        timestamp: u32,
        samples: &[i16],
    ) {
        let since_read = (now + STEP).saturating_duration_since(self.next_step).as_micros();
        let Some(track) = self.tracks.iter_mut().find(|it| it.side == side) else { return };
        let pace = Pace {
            clock_rate_hz: codec.clock_rate_hz(),
            sample_rate_hz: codec.sample_rate_hz(),
            delay_ms: DELAY_MS,
            depth_max_ms: DEPTH_MAX_MS,
            conceals: false,
        };
        if track.buffer.as_ref().is_none_or(|it| it.pace() != pace) {
            track.buffer = Some(JitterBuffer::new(pace));
            track.resampler = Some(Resampler::new(pace.sample_rate_hz, self.format.sample_rate_hz));
        }
        if let Some(buffer) = &mut track.buffer {
            let since_read = since_read * u128::from(pace.sample_rate_hz / 1_000) / 1_000;
            buffer.write_between(timestamp, samples, u32::try_from(since_read).unwrap_or(0));
        }
    }

    pub(crate) fn next_step(&self) -> Instant {
        self.next_step
    }

    /// It has its longest duration.
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        now >= self.until
    }

    /// Does the steps that are due; returns a chunk of interleaved samples if one is full.
    pub(crate) fn record(&mut self, now: Instant) -> Option<Vec<i16>> {
        let newest = newest_slot(self.next_step, now, STEP);
        let late = now.saturating_duration_since(self.next_step) > LATE_MAX;
        while self.next_step <= now {
            self.next_step += STEP;
            self.step(late && self.next_step <= newest);
        }
        let full = self.step_samples() * CHUNK_STEPS;
        (self.samples.len() >= full).then(|| std::mem::take(&mut self.samples))
    }

    /// What is left: the last that was said is still in the buffers.
    pub(crate) fn finish(mut self, now: Instant) -> Vec<i16> {
        let mut samples = self.record(now).unwrap_or_default();
        samples.append(&mut self.samples);
        (0..DELAY_MS / STEP_MS).for_each(|_| self.step(false));
        samples.append(&mut self.samples);
        samples
    }

    /// Reads a step of each side, or leaves it out as silence.
    fn step(&mut self, is_missed: bool) {
        let rate_hz = self.format.sample_rate_hz;
        for track in &mut self.tracks {
            track.step(rate_hz, is_missed);
        }
        if self.lead > 0 {
            self.lead -= 1;
            return;
        }
        for n in 0..(rate_hz / 1_000 * STEP_MS) as usize {
            self.samples.extend(self.tracks.iter().map(|it| it.resampled[n]));
        }
    }

    fn step_samples(&self) -> usize {
        (self.format.sample_rate_hz / 1_000 * STEP_MS) as usize * self.tracks.len()
    }
}

impl Track {
    fn new(side: Side) -> Self {
        Self { side, buffer: None, resampler: None, read: Vec::new(), resampled: Vec::new() }
    }

    fn step(&mut self, rate_hz: u32, is_missed: bool) {
        self.resampled.clear();
        if let (Some(buffer), Some(resampler)) = (&mut self.buffer, &mut self.resampler) {
            let samples = buffer.pace().sample_rate_hz / 1_000 * STEP_MS;
            self.read.resize(samples as usize, 0);
            buffer.read(&mut self.read);
            if is_missed {
                self.read.fill(0);
            }
            resampler.process(&self.read, &mut self.resampled);
        }
        self.resampled.resize((rate_hz / 1_000 * STEP_MS) as usize, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEREO: RecordingFormat = RecordingFormat { side: None, sample_rate_hz: 8_000 };

    /// Records `ms`, in which packet `n` of a side comes `n` × 20 ms after the start, plus its
    /// delay; none if it is lost. Returns the channels.
    fn record(
        format: RecordingFormat,
        ms: u32,
        arrives: impl Fn(Side, u32) -> Option<u32>,
    ) -> Vec<Vec<i16>> {
        let start = Instant::now();
        let hour = Duration::from_secs(3_600);
        let mut recording = Recording::new(start, "r".into(), format, hour);
        let mut samples = Vec::new();
        for now_ms in 0..ms {
            for side in Side::BOTH {
                for n in now_ms.saturating_sub(1_000) / 20..=now_ms / 20 {
                    if arrives(side, n).map(|it| n * 20 + it) == Some(now_ms) {
                        let value = if side == Side::A { n as i16 + 1 } else { -(n as i16) - 1 };
                        let now = start + Duration::from_millis(now_ms.into());
                        recording.write(now, side, Codec::Pcmu, n * 160, &[value; 160]);
                    }
                }
            }
            let now = start + Duration::from_millis(now_ms.into());
            samples.extend(recording.record(now).unwrap_or_default());
        }
        samples.extend(recording.finish(start + Duration::from_millis(ms.into())));
        let channels = format.channels();
        (0..channels)
            .map(|it| samples.iter().skip(it).step_by(channels).copied().collect())
            .collect()
    }

    #[test]
    fn both_sides_are_where_they_were_in_time() {
        let channels = record(STEREO, 2_000, |side, n| match side {
            Side::A => Some(n % 5 * 11), // Jitter up to 44 ms.
            Side::B => (n >= 50).then_some(0),
        });
        for channel in &channels {
            assert_eq!(channel.len(), 16_000, "two seconds");
        }
        let value_at = |channel: usize, ms: usize| channels[channel][ms * 8];
        for n in [0i16, 10, 49, 50, 95] {
            assert_eq!(value_at(0, n as usize * 20 + 10), n + 1, "packet {n} of A");
        }
        assert_eq!(value_at(1, 985), 0, "B has not begun");
        assert_eq!((value_at(1, 1_010), value_at(1, 1_990)), (-51, -100), "the last is there too");
    }

    #[test]
    fn what_was_lost_is_silence_and_the_rest_stays_in_its_place() {
        let lost = |n: u32| (30..60).contains(&n) || n == 80;
        let format = RecordingFormat { side: Some(Side::A), ..STEREO };
        let channels = record(format, 2_000, |_, n| (!lost(n)).then_some(0));
        assert_eq!(channels.len(), 1);
        for n in 0..100u32 {
            let wanted = if lost(n) { 0 } else { n as i16 + 1 };
            let heard = &channels[0][n as usize * 160..][..160];
            assert!(heard.iter().all(|it| *it == wanted), "packet {n}: {heard:?}");
        }
    }

    #[test]
    fn a_side_that_never_speaks_is_silent() {
        let channels = record(STEREO, 1_000, |side, _| (side == Side::A).then_some(0));
        assert!(channels[1].iter().all(|it| *it == 0));
        assert!(channels[0].iter().any(|it| *it != 0));
    }

    #[test]
    fn a_slower_codec_is_resampled_to_the_rate_of_the_file() {
        let format = RecordingFormat { sample_rate_hz: 48_000, ..STEREO };
        let channels = record(format, 1_000, |_, _| Some(0));
        assert_eq!(channels[0].len(), 48_000);
        assert_eq!(channels[0][47_000], 49);
    }

    #[test]
    fn after_a_stall_of_the_process_time_has_passed_in_the_file_too() {
        let start = Instant::now();
        let mut recording =
            Recording::new(start, "r".into(), STEREO, Duration::from_secs(4 * 3_600));
        let mut samples = recording.record(start + Duration::from_secs(7)).unwrap();
        assert!(!recording.is_over(start + Duration::from_secs(7)));
        assert!(recording.is_over(start + Duration::from_secs(4 * 3_600)));
        samples.extend(recording.finish(start + Duration::from_secs(7)));
        assert_eq!(samples.len(), 7 * 8_000 * 2);
    }
}
