//! All deadlines; each key has at most one.
//!
//! A wheel of slots of one millisecond holds what is due soon: the frames of players and mixes,
//! which are armed again for each packet. An ordered set holds the rest: reports, silence.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Slots of the wheel; a bit of a word each. More than the longest packet time, in ms.
const SLOTS: u64 = 64;

type Deadline<K> = (Instant, K);

#[derive(Debug)]
pub(crate) struct Timers<K> {
    /// The beginning of millisecond 0.
    origin: Instant,
    /// The millisecond before which the wheel holds nothing.
    current_ms: u64,
    /// What is due in `current_ms`, or was due before and armed late, and in the 63 ms after it,
    /// each at its number modulo [`SLOTS`]. In no order.
    wheel: Vec<Vec<Deadline<K>>>,
    /// Bits of the slots that are not empty.
    occupied: u64,
    far: BTreeSet<Deadline<K>>,
    /// What was found due and has not been asked for yet: the earliest is last.
    due: Vec<Deadline<K>>,
}

impl<K: Ord + Clone> Timers<K> {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            origin: now,
            current_ms: 0,
            wheel: (0..SLOTS).map(|_| Vec::new()).collect(),
            occupied: 0,
            far: BTreeSet::new(),
            due: Vec::new(),
        }
    }

    /// Moves `key` from where it is `armed` to `at`, and notes that in `armed`.
    pub(crate) fn arm(&mut self, key: &K, armed: &mut Option<Instant>, at: Option<Instant>) {
        if *armed == at {
            return;
        }
        if let Some(before) = armed.take() {
            self.remove(&(before, key.clone()));
        }
        if let Some(at) = at {
            match self.slot(at) {
                Some(slot) => {
                    self.wheel[slot].push((at, key.clone()));
                    self.occupied |= 1 << slot;
                }
                None => drop(self.far.insert((at, key.clone()))),
            }
        }
        *armed = at;
    }

    fn remove(&mut self, deadline: &Deadline<K>) {
        if let Some(slot) = self.slot(deadline.0)
            && let Some(place) = self.wheel[slot].iter().position(|it| it == deadline)
        {
            self.wheel[slot].swap_remove(place);
            self.note_occupied(slot);
        } else if !self.far.remove(deadline) {
            self.due.retain(|it| it != deadline);
        }
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        let after_current = self.occupied.rotate_right((self.current_ms % SLOTS) as u32);
        let slot = (self.current_ms + u64::from(after_current.trailing_zeros())) % SLOTS;
        let soon = self.wheel[slot as usize].iter().min();
        let earliest = [self.due.last(), soon, self.far.first()].into_iter().flatten().min();
        earliest.map(|(at, _)| *at)
    }

    /// Takes out the earliest key that is due; its owner must forget that it was armed.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<K> {
        if self.due.is_empty() {
            self.collect_due(now);
        }
        self.due.pop().map(|(_, key)| key)
    }

    /// What [`Timers::pop_due`] will take out next, in that order, as far as it is known.
    pub(crate) fn coming(&self) -> impl Iterator<Item = &K> {
        self.due.iter().rev().map(|(_, key)| key)
    }

    fn collect_due(&mut self, now: Instant) {
        let (last_ms, first_ms) = (self.ms(now).max(self.current_ms), self.current_ms);
        for ms in (first_ms..=last_ms).take(SLOTS as usize) {
            let slot = (ms % SLOTS) as usize;
            if self.occupied & 1 << slot != 0 {
                self.due.extend(self.wheel[slot].extract_if(.., |(at, _)| *at <= now));
                self.note_occupied(slot);
            }
        }
        self.current_ms = last_ms;
        while self.far.first().is_some_and(|(at, _)| *at <= now) {
            self.due.extend(self.far.pop_first());
        }
        self.due.sort_unstable_by(|a, b| b.cmp(a));
    }

    /// None if it is beyond the wheel.
    fn slot(&self, at: Instant) -> Option<usize> {
        let ms = self.ms(at).max(self.current_ms);
        (ms < self.current_ms + SLOTS).then_some((ms % SLOTS) as usize)
    }

    fn note_occupied(&mut self, slot: usize) {
        if self.wheel[slot].is_empty() {
            self.occupied &= !(1 << slot);
        }
    }

    fn ms(&self, at: Instant) -> u64 {
        let since: Duration = at.saturating_duration_since(self.origin);
        since.as_secs() * 1_000 + u64::from(since.subsec_millis())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Step {
        /// A key, and from now on, in µs; none: never.
        Arm(usize, Option<u64>),
        Wait(u64),
        Pop,
    }

    fn us() -> impl Strategy<Value = u64> {
        prop_oneof![
            Just(0),
            0..3_000u64,
            Just(63_000),
            Just(64_000),
            0..200_000u64,
            0..20_000_000u64
        ]
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0..8usize, prop::option::weighted(0.8, us())).prop_map(|(k, at)| Step::Arm(k, at)),
            2 => us().prop_map(Step::Wait),
            3 => Just(Step::Pop),
        ]
    }

    proptest! {
        /// Whatever is armed, moved, disarmed and waited for, it is one ordered set.
        #[test]
        fn the_wheel_equals_an_ordered_set(steps in prop::collection::vec(step(), 1..200)) {
            let start = Instant::now();
            let mut now = start;
            let mut timers = Timers::new(start);
            let mut armed = [None; 8];
            for step in steps {
                match step {
                    Step::Arm(key, after) => {
                        let at = after.map(|it| now + Duration::from_micros(it));
                        timers.arm(&key, &mut armed[key], at);
                    }
                    Step::Wait(us) => now += Duration::from_micros(us),
                    Step::Pop => {
                        // Each turn takes all that is due, as the relay does.
                        let mut popped = Vec::new();
                        while let Some(key) = timers.pop_due(now) {
                            popped.push((armed[key].take().unwrap(), key));
                        }
                        prop_assert!(popped.is_sorted() && popped.iter().all(|(at, _)| *at <= now));
                    }
                }
                let expected: BTreeSet<_> =
                    armed.iter().enumerate().filter_map(|(key, at)| Some(((*at)?, key))).collect();
                prop_assert_eq!(timers.next(), expected.first().map(|(at, _)| *at));
                if matches!(step, Step::Pop) {
                    prop_assert!(expected.iter().all(|(at, _)| *at > now));
                }
            }
        }
    }

    #[test]
    fn what_is_disarmed_while_others_are_taken_is_not_taken() {
        let now = Instant::now();
        let mut timers = Timers::new(now);
        let mut armed = [None; 3];
        for (key, armed) in armed.iter_mut().enumerate() {
            timers.arm(&key, armed, Some(now + Duration::from_millis(key as u64)));
        }
        let later = now + Duration::from_millis(5);
        assert_eq!(timers.pop_due(later), Some(0));
        timers.arm(&1, &mut armed[1], None);
        assert_eq!((timers.pop_due(later), timers.pop_due(later)), (Some(2), None));
    }
}
