//! Conferences: each participant hears the sum of all the others.

use crate::jitter_buffer::JitterBuffer;
use crate::schedule::newest_slot;
use std::time::{Duration, Instant};

/// Participants of one conference.
pub const PARTICIPANTS_MAX: usize = 64;
/// The mix advances in steps of this length: a divisor of every packet time we negotiate.
pub(crate) const STEP: Duration = Duration::from_millis(10);
/// Samples in one [`STEP`].
pub(crate) const STEP_SAMPLES: usize = 80;

pub(crate) type Step = [i16; STEP_SAMPLES];

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the conference has {PARTICIPANTS_MAX} participants, and takes no more")]
pub struct Full;

/// `K` names a participant.
#[derive(Debug)]
pub(crate) struct Conference<K> {
    participants: Vec<Participant<K>>,
    next_step: Instant,
}

#[derive(Debug)]
struct Participant<K> {
    key: K,
    buffer: JitterBuffer,
}

impl<K: Copy + PartialEq> Conference<K> {
    pub(crate) fn new(now: Instant) -> Self {
        Self { participants: Vec::new(), next_step: now }
    }

    /// Adds a participant; one that is in stays as it is.
    ///
    /// # Errors
    /// [`Full`] beyond [`PARTICIPANTS_MAX`].
    pub(crate) fn join(&mut self, key: K) -> Result<(), Full> {
        if self.participants.iter().any(|it| it.key == key) {
            return Ok(());
        }
        if self.participants.len() == PARTICIPANTS_MAX {
            return Err(Full);
        }
        self.participants.push(Participant { key, buffer: JitterBuffer::default() });
        Ok(())
    }

    pub(crate) fn leave(&mut self, key: K) {
        self.participants.retain(|it| it.key != key);
    }

    pub(crate) fn len(&self) -> usize {
        self.participants.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.participants.is_empty()
    }

    /// Takes a packet's samples; false if it was too late.
    pub(crate) fn speak(
        &mut self,
        key: K,
        timestamp: u32,
        samples: impl ExactSizeIterator<Item = i16>,
    ) -> bool {
        let speaker = self.participants.iter_mut().find(|it| it.key == key);
        speaker.is_some_and(|it| it.buffer.write(timestamp, samples))
    }

    /// When the next step is due.
    pub(crate) fn next_step(&self) -> Instant {
        self.next_step
    }

    /// Advances by one [`STEP`] and gives each participant what it hears.
    pub(crate) fn mix(&mut self, mut hear: impl FnMut(K, &Step)) {
        self.next_step += STEP;
        let mut spoken = [[0; STEP_SAMPLES]; PARTICIPANTS_MAX];
        let mut sum = [0i32; STEP_SAMPLES];
        for (participant, own) in self.participants.iter_mut().zip(&mut spoken) {
            participant.buffer.read(own);
            sum.iter_mut().zip(own.iter()).for_each(|(sum, own)| *sum += i32::from(*own));
        }
        for (participant, own) in self.participants.iter().zip(&spoken) {
            hear(participant.key, &std::array::from_fn(|n| saturate(sum[n] - i32::from(own[n]))));
        }
    }

    /// Gives up steps that are too long past, after the process was held up.
    pub(crate) fn skip_to(&mut self, now: Instant) {
        self.next_step = newest_slot(self.next_step, now, STEP);
    }

    pub(crate) fn participants(&self) -> impl Iterator<Item = K> {
        self.participants.iter().map(|it| it.key)
    }
}

fn saturate(sample: i32) -> i16 {
    sample.clamp(i16::MIN.into(), i16::MAX.into()) as i16
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// What each of `voices` hears, after the jitter buffers' delay, if all speak at once.
    fn heard(voices: &[i16]) -> Vec<i16> {
        let mut conference = Conference::new(Instant::now());
        for (key, voice) in voices.iter().enumerate() {
            conference.join(key).unwrap();
            for n in 0..4 {
                assert!(conference.speak(key, n * 160, vec![*voice; 160].into_iter()));
            }
        }
        let mut last = BTreeMap::new();
        for _ in 0..6 {
            conference.mix(|key, step| {
                assert!(step.iter().all(|it| *it == step[0]));
                last.insert(key, step[0]);
            });
        }
        last.into_values().collect()
    }

    #[test]
    fn each_hears_all_the_others_and_not_itself() {
        assert_eq!(heard(&[1, 20, 300, 4_000]), [4_320, 4_301, 4_021, 321]);
        assert_eq!(heard(&[5]), [0], "silence when alone");
        assert_eq!(heard(&[1; PARTICIPANTS_MAX]), [63; PARTICIPANTS_MAX]);
    }

    #[test]
    fn loud_voices_saturate_instead_of_wrapping() {
        assert_eq!(heard(&[30_000, 30_000, 1]), [30_001, 30_001, i16::MAX]);
        assert_eq!(heard(&[-30_000, -30_000, 1]), [-29_999, -29_999, i16::MIN]);
    }

    #[test]
    fn the_sixty_fifth_is_refused() {
        let mut conference = Conference::new(Instant::now());
        (0..PARTICIPANTS_MAX).for_each(|key| conference.join(key).unwrap());
        assert_eq!(conference.join(PARTICIPANTS_MAX), Err(Full));
        assert_eq!(conference.join(3), Ok(()), "who is in stays in");
        conference.leave(3);
        assert_eq!(conference.join(PARTICIPANTS_MAX), Ok(()));
    }
}
