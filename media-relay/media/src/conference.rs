//! Conferences: each participant hears the sum of all the others, at the rate of its own codec.
//!
//! Of more than [`SPEAKERS_MAX`] who speak, the loudest are mixed. So a step costs a fixed amount
//! for the speakers, who are resampled to each rate that somebody hears, and one subtraction for
//! each listener: resampling is linear, so the sum without oneself is the sum minus oneself at every
//! rate.

use crate::jitter_buffer::{JitterBuffer, Pace};
use crate::mix::{Level, Mix, RATES_HZ, STEP_SAMPLES_MAX, rate_index};
use crate::schedule::newest_slot;
use std::time::{Duration, Instant};

/// Participants of one conference.
pub const PARTICIPANTS_MAX: usize = 64;
/// Speakers that are mixed at a time.
pub const SPEAKERS_MAX: usize = 8;
/// The mix advances in steps of this length: a divisor of every packet time we negotiate.
pub(crate) const STEP: Duration = Duration::from_millis(STEP_MS as u64);
const STEP_MS: usize = 10;
/// How far playout is behind at the start, and at most, in ms.
const DELAY_MS: u32 = 40;
const DEPTH_MAX_MS: u32 = 120;

/// Who may come in, and what one hears who is alone: set by who makes the conference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rules {
    pub pin: String,
    /// 1 to [`PARTICIPANTS_MAX`].
    pub participants_max: usize,
}

impl Default for Rules {
    fn default() -> Self {
        Self { pin: String::new(), participants_max: PARTICIPANTS_MAX }
    }
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum JoinError {
    #[error("the conference has {max} participants, and takes no more")]
    Full { max: usize },
    #[error("the PIN is not that of the conference")]
    WrongPin,
}

/// `K` names a participant.
#[derive(Debug)]
pub(crate) struct Conference<K> {
    rules: Rules,
    participants: Vec<Participant<K>>,
    mix: Box<Mix>,
    next_step: Instant,
}

#[derive(Debug)]
pub(crate) struct Participant<K> {
    pub key: K,
    pub muted: bool,
    pub deaf: bool,
    pub joined: Instant,
    /// What it says; none before its first packet.
    buffer: Option<JitterBuffer>,
    level: Level,
    /// Its place in the mix, while it is heard.
    voice: Option<usize>,
    /// Its place in the step that was mixed last, also if it has faded out in it.
    in_step: Option<usize>,
    /// The rate at which it hears this step, by its place in [`RATES_HZ`].
    hears: Option<usize>,
}

impl<K> Participant<K> {
    pub(crate) fn is_speaking(&self) -> bool {
        self.voice.is_some() && self.level.is_speech()
    }
}

impl<K: Copy + PartialEq> Conference<K> {
    pub(crate) fn new(now: Instant, rules: Rules) -> Self {
        Self { rules, participants: Vec::new(), mix: Box::default(), next_step: now }
    }

    /// Adds a participant; one that is in stays as it is, but for `muted` and `deaf`.
    ///
    /// # Errors
    /// [`JoinError`]; nothing has changed then.
    pub(crate) fn join(
        &mut self,
        now: Instant,
        key: K,
        pin: &str,
        muted: bool,
        deaf: bool,
    ) -> Result<(), JoinError> {
        if let Some(participant) = self.participant_mut(key) {
            (participant.muted, participant.deaf) = (muted, deaf);
            return Ok(());
        }
        if !pin_matches(&self.rules.pin, pin) {
            return Err(JoinError::WrongPin);
        }
        let max = self.rules.participants_max;
        if self.participants.len() >= max {
            return Err(JoinError::Full { max });
        }
        self.participants.push(Participant {
            key,
            muted,
            deaf,
            joined: now,
            buffer: None,
            level: Level::default(),
            voice: None,
            in_step: None,
            hears: None,
        });
        Ok(())
    }

    pub(crate) fn leave(&mut self, key: K) {
        let left = self.participants.iter().position(|it| it.key == key);
        if let Some(voice) = left.and_then(|it| self.participants.remove(it).voice) {
            self.mix.free(voice);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.participants.len()
    }

    pub(crate) fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Longest in it first.
    pub(crate) fn participants(&self) -> &[Participant<K>] {
        &self.participants
    }

    pub(crate) fn participant_mut(&mut self, key: K) -> Option<&mut Participant<K>> {
        self.participants.iter_mut().find(|it| it.key == key)
    }

    /// What a participant says is written here, in sound of these rates.
    pub(crate) fn buffer(
        &mut self,
        key: K,
        clock_rate_hz: u32,
        sample_rate_hz: u32,
    ) -> Option<&mut JitterBuffer> {
        let (delay_ms, depth_max_ms, conceals) = (DELAY_MS, DEPTH_MAX_MS, true);
        let pace = Pace { clock_rate_hz, sample_rate_hz, delay_ms, depth_max_ms, conceals };
        let participant = self.participant_mut(key)?;
        if participant.buffer.as_ref().is_none_or(|it| it.pace() != pace) {
            participant.buffer = Some(JitterBuffer::new(pace));
        }
        participant.buffer.as_mut()
    }

    /// The same, if it has said something.
    pub(crate) fn last_buffer(&mut self, key: K) -> Option<&mut JitterBuffer> {
        self.participant_mut(key)?.buffer.as_mut()
    }

    /// When the next step is due.
    pub(crate) fn next_step(&self) -> Instant {
        self.next_step
    }

    /// Advances by one [`STEP`] and mixes it for all who can hear, each at the rate that `rate_hz`
    /// gives.
    pub(crate) fn mix(&mut self, mut rate_hz: impl FnMut(K) -> Option<u32>) {
        self.next_step += STEP;
        let mut rates = [false; RATES_HZ.len()];
        let mut sound = [[0; STEP_SAMPLES_MAX]; PARTICIPANTS_MAX];
        for (participant, sound) in self.participants.iter_mut().zip(&mut sound) {
            participant.hears = rate_hz(participant.key).and_then(rate_index);
            participant.hears.into_iter().for_each(|it| rates[it] = true);
            let sound = &mut sound[..participant.step_samples()];
            if let Some(buffer) = &mut participant.buffer {
                buffer.read(sound);
            }
            participant.level.follow(sound, participant.muted);
        }
        let speakers = self.choose_speakers();
        self.mix.begin(rates);
        for (n, (participant, sound)) in self.participants.iter_mut().zip(&mut sound).enumerate() {
            let sound = &mut sound[..participant.step_samples()];
            participant.in_step = participant.voice;
            match (participant.voice, speakers & 1 << n != 0) {
                (None, false) => (),
                (None, true) => {
                    fade(sound, true);
                    participant.voice = self.mix.add_new(sound, participant.rate_hz());
                    participant.in_step = participant.voice;
                }
                (Some(voice), true) => self.mix.add(voice, sound, participant.rate_hz()),
                (Some(voice), false) => {
                    fade(sound, false);
                    self.mix.add(voice, sound, participant.rate_hz());
                    self.mix.free(voice);
                    participant.voice = None;
                }
            }
        }
        self.mix.sum();
    }

    /// Gives each participant that can hear its part of the step that was mixed last.
    pub(crate) fn hear_each(&self, mut hear: impl FnMut(K, &[i16])) {
        for participant in &self.participants {
            let Some(rate) = participant.hears else { continue };
            let voice = participant.in_step;
            match participant.deaf {
                true => hear(participant.key, Mix::silence(rate)),
                false => self.mix.without(rate, voice, |step| hear(participant.key, step)),
            }
        }
    }

    /// Bit `n` is set if participant `n` is to be heard: all, or the loudest. Who is heard already
    /// stays so until somebody is clearly louder.
    fn choose_speakers(&self) -> u64 {
        let mut levels = [(0u64, 0usize); PARTICIPANTS_MAX];
        let mut count = 0;
        for (n, participant) in self.participants.iter().enumerate() {
            if !participant.muted && participant.buffer.is_some() {
                levels[count] = (participant.level.standing(participant.voice.is_some()), n);
                count += 1;
            }
        }
        let levels = &mut levels[..count];
        levels.sort_unstable_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
        levels.iter().take(SPEAKERS_MAX).fold(0, |chosen, (_, n)| chosen | 1 << n)
    }

    /// Gives up steps that are too long past, after the process was held up.
    pub(crate) fn skip_to(&mut self, now: Instant) {
        self.next_step = newest_slot(self.next_step, now, STEP);
    }
}

impl<K> Participant<K> {
    /// Of what it says.
    fn rate_hz(&self) -> u32 {
        self.buffer.as_ref().map_or(RATES_HZ[0], |it| it.pace().sample_rate_hz)
    }

    fn step_samples(&self) -> usize {
        self.rate_hz() as usize / 1_000 * STEP_MS
    }
}

const _: () = assert!(PARTICIPANTS_MAX <= u64::BITS as usize);

/// Raises a step from nothing, or lowers it to nothing, so that a change of speakers does not click.
fn fade(step: &mut [i16], is_in: bool) {
    let len = step.len() as i32;
    for (n, sample) in (0..).zip(step) {
        let weight = if is_in { n } else { len - 1 - n };
        *sample = (i32::from(*sample) * weight / len) as i16;
    }
}

/// Takes as long for a wrong PIN as for the right one, so that its digits cannot be found one by
/// one.
fn pin_matches(wanted: &str, got: &str) -> bool {
    let differs = wanted.bytes().zip(got.bytes()).fold(0, |differs, (a, b)| differs | (a ^ b));
    wanted.is_empty() || (wanted.len() == got.len() && differs == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// Participants who each say one value all the time, and what each hears of it.
    struct Room {
        conference: Conference<usize>,
        voices: Vec<i16>,
        spoken: u32,
    }

    impl Room {
        fn new(voices: &[i16]) -> Self {
            let now = Instant::now();
            let mut conference = Conference::new(now, Rules::default());
            (0..voices.len()).for_each(|it| conference.join(now, it, "", false, false).unwrap());
            Self { conference, voices: voices.to_vec(), spoken: 0 }
        }

        /// The last sample that each has heard after so many ms.
        fn heard_after(&mut self, ms: u32) -> Vec<i16> {
            let mut last = BTreeMap::new();
            for n in self.spoken..self.spoken + ms / 20 {
                for (key, voice) in self.voices.iter().enumerate() {
                    let buffer = self.conference.buffer(key, 8_000, 8_000);
                    buffer.unwrap().write(n * 160, &[*voice; 160]);
                }
                for _ in 0..2 {
                    self.conference.mix(|_| Some(8_000));
                    self.conference.hear_each(|key, step| {
                        assert_eq!(step.len(), 80);
                        last.insert(key, step[79]);
                    });
                }
            }
            self.spoken += ms / 20;
            last.into_values().collect()
        }
    }

    #[test]
    fn each_hears_all_the_others_and_not_itself() {
        let heard = Room::new(&[1, 20, 300, 4_000]).heard_after(200);
        assert_eq!(heard, [4_320, 4_301, 4_021, 321]);
        assert_eq!(Room::new(&[5]).heard_after(200), [0], "silence when alone");
    }

    #[test]
    fn loud_voices_saturate_instead_of_wrapping() {
        let heard = |voices| Room::new(voices).heard_after(200);
        assert_eq!(heard(&[30_000, 30_000, 1]), [30_001, 30_001, i16::MAX]);
        assert_eq!(heard(&[-30_000, -30_000, 1]), [-29_999, -29_999, i16::MIN]);
    }

    #[test]
    fn of_many_the_loudest_eight_are_heard() {
        let voices: Vec<i16> = (0..PARTICIPANTS_MAX as i16).map(|n| 100 + n * 10).collect();
        let loudest: i16 = voices.iter().rev().take(SPEAKERS_MAX).sum();
        let mut room = Room::new(&voices);
        let heard = room.heard_after(1_000);
        assert!(heard[..56].iter().all(|it| *it == loudest), "{heard:?}");
        assert_eq!(heard[63], loudest - voices[63], "not itself");
        room.voices[3] = 20_000;
        let heard = room.heard_after(1_000);
        assert_eq!(heard[0], 20_000 + loudest - voices[56], "who becomes loud is heard");
        assert_eq!(
            room.conference.participants().iter().filter(|it| it.voice.is_some()).count(),
            8
        );
    }

    #[test]
    fn the_muted_are_not_heard_and_the_deaf_hear_nothing_until_it_is_taken_back() {
        let mut room = Room::new(&[1, 20, 300]);
        room.heard_after(200);
        room.conference.participant_mut(0).unwrap().muted = true;
        room.conference.participant_mut(1).unwrap().deaf = true;
        assert_eq!(room.heard_after(200), [320, 0, 20]);
        room.conference.participant_mut(0).unwrap().muted = false;
        room.conference.participant_mut(1).unwrap().deaf = false;
        assert_eq!(room.heard_after(200), [320, 301, 21]);
    }

    #[test]
    fn a_change_of_speakers_is_no_click() {
        let mut room = Room::new(&[10_000, 0]);
        let mut heard = Vec::new();
        for n in 0..40 {
            room.conference.participant_mut(0).unwrap().muted = n / 10 % 2 == 1;
            room.conference.buffer(0, 8_000, 8_000).unwrap().write(n * 160, &[10_000; 160]);
            for _ in 0..2 {
                room.conference.mix(|_| Some(8_000));
                room.conference.hear_each(|key, step| {
                    if key == 1 {
                        heard.extend_from_slice(step);
                    }
                });
            }
        }
        assert!(heard.contains(&0) && heard.contains(&10_000));
        let steepest = heard.windows(2).map(|it| it[0].abs_diff(it[1])).max();
        assert!(steepest.unwrap() <= 600, "a step of {steepest:?}");
    }

    #[test]
    fn each_hears_at_its_own_rate_what_was_said_at_another() {
        let now = Instant::now();
        let mut conference = Conference::new(now, Rules::default());
        for key in 0..3 {
            conference.join(now, key, "", false, false).unwrap();
        }
        let mut heard = vec![Vec::new(); 3];
        let tone = |n: u32| (8_000.0 * (f64::from(n) * std::f64::consts::TAU / 48.0).sin()) as i16;
        for n in 0..100u32 {
            let samples: Vec<i16> = (0..960).map(|it| tone(n * 960 + it)).collect();
            conference.buffer(2, 48_000, 48_000).unwrap().write(n * 960, &samples);
            for _ in 0..2 {
                conference.mix(|key| Some(RATES_HZ[key]));
                conference.hear_each(|key, step| heard[key].extend_from_slice(step));
            }
        }
        for (key, per_tone) in [(0, 8.0), (1, 16.0)] {
            let settled = &heard[key][heard[key].len() / 2..];
            let power: f64 = settled.iter().map(|it| f64::from(*it).powi(2)).sum();
            let rms = (power / settled.len() as f64).sqrt();
            assert!((5_300.0..5_900.0).contains(&rms), "{rms} of 5657 for participant {key}");
            let crossings = settled.windows(2).filter(|it| it[0] < 0 && it[1] >= 0).count();
            let pitch = crossings as f64 * per_tone * 1_000.0 / settled.len() as f64;
            assert!((pitch - 1_000.0).abs() < 5.0, "{pitch} Hz");
        }
        assert!(heard[2].iter().all(|it| *it == 0), "not itself");
    }

    #[test]
    fn the_pin_and_the_limit_are_those_of_who_made_it() {
        let now = Instant::now();
        let rules = Rules { pin: "4711".into(), participants_max: 2 };
        let mut conference = Conference::new(now, rules);
        let mut join = |key, pin| conference.join(now, key, pin, false, false);
        assert_eq!(join(1, "4711"), Ok(()));
        for wrong in ["", "471", "47111", "4712"] {
            assert_eq!(join(2, wrong), Err(JoinError::WrongPin), "{wrong}");
        }
        assert_eq!(join(2, "4711"), Ok(()));
        assert_eq!(join(3, "4711"), Err(JoinError::Full { max: 2 }));
        assert_eq!(join(1, ""), Ok(()), "who is in stays in");
        conference.leave(1);
        assert_eq!(conference.join(now, 3, "4711", false, false), Ok(()));
    }
}
