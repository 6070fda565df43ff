//! The life of one task: what it does, when again, and the states from pending to one of four ends.
//!
//! The store asks [`State::next`] what a change makes of a task, and makes it only if the row still
//! is in the state the change begins in; that compare-and-set is where "cancel or fire" is decided.

use std::fmt;

/// A UUID.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(pub u128);

impl fmt::Display for TaskId {
    /// Lower case with hyphens: `0193f0a4-7d6c-7c1e-8a55-0242ac120002`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d] = [self.0 >> 96, self.0 >> 80, self.0 >> 64, self.0 >> 48];
        let (b, c, d, e) = (b as u16, c as u16, d as u16, self.0 & 0xffff_ffff_ffff);
        write!(f, "{a:08x}-{b:04x}-{c:04x}-{d:04x}-{e:012x}")
    }
}

impl fmt::Debug for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Into how many parts all tasks are split; each part is owned by one process at a time.
pub const SHARDS: u8 = 16;

impl TaskId {
    /// The shard that the task is in, below [`SHARDS`]: its lowest byte says.
    pub fn shard(self) -> u8 {
        (self.0 & 0xff) as u8 % SHARDS
    }

    /// The same id, but in this shard.
    ///
    /// # Panics
    /// If there is no such shard.
    pub fn in_shard(self, shard: u8) -> Self {
        assert!(shard < SHARDS, "shard {shard} of {SHARDS}");
        Self(self.0 & !0xff | u128::from(shard))
    }
}

/// The shard of everything that has this key (a call id, or else a group), below [`SHARDS`]: FNV-1a.
/// Never to be changed: what is stored lies where this said.
pub fn shard_of(key: &str) -> u8 {
    let hash = key.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    ((hash ^ (hash >> 32)) & 0xff) as u8 % SHARDS
}

/// What a task does when its time has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Ends a call, or one leg of it, with a hangup cause by name.
    HangUp { call_id: String, cause: String, legs: Legs },
    /// Sends a call elsewhere.
    Transfer { call_id: String, to: TransferTo },
    /// Plays a file to the parties of a call, over what they hear.
    Play { call_id: String, file: String, legs: Legs },
    /// Sends a message on the bus. The task may belong to a call, but need not.
    Publish { subject: String, payload: Vec<u8> },
}

impl Effect {
    /// The call that it is done to; none for a message.
    pub fn call_id(&self) -> Option<&str> {
        match self {
            Self::HangUp { call_id, .. }
            | Self::Transfer { call_id, .. }
            | Self::Play { call_id, .. } => Some(call_id),
            Self::Publish { .. } => None,
        }
    }
}

/// Which legs of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Legs {
    Both,
    /// Towards the caller.
    A,
    /// Towards the callee.
    B,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransferTo {
    Uri(String),
    /// A call plan, in the JSON mapping of `sip_edge.v1.CallPlan`.
    Plan(String),
}

/// How a task repeats: on the grid that its first time and `every_ms` make, so that it never drifts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repeat {
    /// At least 1.
    pub every_ms: u64,
    /// Occurrences in all; none is without such an end. Those that were missed do not count.
    pub count: Option<u32>,
    /// No occurrence is after this, in Unix ms; none is without such an end.
    pub until_unix_ms: Option<i64>,
}

/// The occurrence after one that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Next {
    /// From the time of the one that is over to that of the next, in ms: a multiple of `every_ms`.
    pub after_ms: u64,
    /// Grid points in between, which were past already.
    pub missed: u32,
}

impl Repeat {
    /// What comes after `occurrence` (from 0), which was due at `fires_at_unix_ms`, that is
    /// `behind_ms` ago: the first point of the grid that is not past. `None` if that was the last.
    pub fn next(self, occurrence: u32, fires_at_unix_ms: i64, behind_ms: u64) -> Option<Next> {
        if self.count.is_some_and(|count| occurrence.saturating_add(1) >= count) {
            return None;
        }
        let every_ms = self.every_ms.max(1);
        let steps = behind_ms.div_ceil(every_ms).max(1);
        let after_ms = steps.checked_mul(every_ms)?;
        let fires_at_unix_ms = fires_at_unix_ms.checked_add_unsigned(after_ms)?;
        if self.until_unix_ms.is_some_and(|until| fires_at_unix_ms > until) {
            return None;
        }
        Some(Next { after_ms, missed: u32::try_from(steps - 1).unwrap_or(u32::MAX) })
    }
}

/// The numbers are those of `scheduler.v1.TaskState` and of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum State {
    Pending = 1,
    /// Claimed: the effect is under way and can no longer be cancelled.
    Firing = 2,
    /// The effect has happened.
    Fired = 3,
    Cancelled = 4,
    /// The call ended first.
    Expired = 5,
    /// The effect was refused.
    Failed = 6,
    /// Not to fire until it is resumed; the time that it had left is kept.
    Paused = 7,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Its time has come, and nobody was quicker.
    Claimed,
    Cancelled,
    /// Pending: to another time. Paused: with another time left.
    Rescheduled,
    Paused,
    Resumed,
    CallEnded,
    /// An occurrence is over, and there is another one.
    Repeated,
    /// The only occurrence, or the last, is over.
    Answered(Verdict),
}

/// What an answer that ends a task makes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Done,
    CallGone,
    Refused,
}

/// What sip-edge made of an attempt to bring about the effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The effect has happened now; what sip-edge said.
    Done(String),
    /// The call was over before; what sip-edge said. `by_this_task` if an attempt of this
    /// very task had ended it.
    AlreadyEnded { said: String, by_this_task: bool },
    /// There is no such call.
    NoSuchCall,
    /// It will never happen; why.
    Refused(String),
    /// Nobody knows whether it happened, or it did not but may later; why. To be tried again.
    Unanswered(String),
}

/// A change that a task's state does not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a {state:?} task cannot become {event:?}")]
pub struct Refused {
    pub state: State,
    pub event: Event,
}

impl State {
    pub const ALL: [Self; 7] = [
        Self::Pending,
        Self::Firing,
        Self::Fired,
        Self::Cancelled,
        Self::Expired,
        Self::Failed,
        Self::Paused,
    ];

    /// The whole life of a task: one arrow, one line.
    ///
    /// # Errors
    /// [`Refused`] if there is no such arrow: what has ended stays as it is, and what is firing can
    /// only be ended by the answer.
    pub fn next(self, event: Event) -> Result<Self, Refused> {
        use {Event::*, State as S, Verdict::*};
        match (self, event) {
            (S::Pending, Claimed) => Ok(S::Firing),
            (S::Pending, Rescheduled) => Ok(S::Pending),
            (S::Pending, Paused) => Ok(S::Paused),
            (S::Pending | S::Paused, Cancelled) => Ok(S::Cancelled),
            (S::Pending | S::Paused, CallEnded) => Ok(S::Expired),
            (S::Paused, Rescheduled) => Ok(S::Paused),
            (S::Paused, Resumed) => Ok(S::Pending),
            (S::Firing, Repeated) => Ok(S::Pending),
            (S::Firing, Answered(Done)) => Ok(S::Fired),
            (S::Firing, Answered(CallGone)) => Ok(S::Expired),
            (S::Firing, Answered(Refused)) => Ok(S::Failed),
            (state, event) => Err(self::Refused { state, event }),
        }
    }

    pub fn has_ended(self) -> bool {
        !matches!(self, Self::Pending | Self::Firing | Self::Paused)
    }
}

impl TryFrom<i64> for State {
    type Error = i64;

    /// # Errors
    /// The number itself, if it is not that of a state.
    fn try_from(number: i64) -> Result<Self, i64> {
        Self::ALL.into_iter().find(|state| *state as i64 == number).ok_or(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use std::fmt::Write as _;

    #[test]
    fn a_task_ends_once_and_firing_is_not_taken_back() {
        check(expect![[r#"
            Pending + Claimed -> Firing
            Pending + Cancelled -> Cancelled
            Pending + Rescheduled -> Pending
            Pending + Paused -> Paused
            Pending + CallEnded -> Expired
            Firing + Repeated -> Pending
            Firing + Answered(Done) -> Fired
            Firing + Answered(CallGone) -> Expired
            Firing + Answered(Refused) -> Failed
            Paused + Cancelled -> Cancelled
            Paused + Rescheduled -> Paused
            Paused + Resumed -> Pending
            Paused + CallEnded -> Expired
        "#]]);
    }

    /// All arrows there are.
    #[track_caller]
    fn check(expected: Expect) {
        use Event::*;
        let answers = [Verdict::Done, Verdict::CallGone, Verdict::Refused].map(Answered);
        let others = [Claimed, Cancelled, Rescheduled, Paused, Resumed, CallEnded, Repeated];
        let events = others.into_iter().chain(answers);
        let mut arrows = String::new();
        for (state, event) in State::ALL.iter().flat_map(|s| events.clone().map(move |e| (s, e))) {
            if let Ok(next) = state.next(event) {
                writeln!(arrows, "{state:?} + {event:?} -> {next:?}").unwrap();
            }
        }
        expected.assert_eq(&arrows);
    }

    #[test]
    fn states_and_ids_read_as_they_were_written() {
        for state in State::ALL {
            assert_eq!(State::try_from(state as i64), Ok(state));
        }
        assert_eq!(State::try_from(8), Err(8));
        let id = TaskId(0x0193_f0a4_7d6c_7c1e_8a55_0242_ac12_0002);
        assert_eq!(id.to_string(), "0193f0a4-7d6c-7c1e-8a55-0242ac120002");
    }

    #[test]
    fn the_lowest_byte_of_an_id_is_its_shard() {
        let id = TaskId(0x0193_f0a4_7d6c_7c1e_8a55_0242_ac12_00ff);
        assert_eq!(id.shard(), 15);
        for shard in 0..SHARDS {
            assert_eq!(id.in_shard(shard).shard(), shard);
            assert_eq!(id.in_shard(shard).0 >> 8, id.0 >> 8);
        }
    }

    #[test]
    fn keys_are_spread_over_all_shards_and_stay_where_they_are() {
        let mut hits = [0; SHARDS as usize];
        for call in 0..16_000u128 {
            hits[usize::from(shard_of(&TaskId(call).to_string()))] += 1;
        }
        assert!(hits.iter().all(|hits| (800..1_200).contains(hits)), "{hits:?}");
        let stored = ["", "a", "0193f0a4-7d6c-7c1e-8a55-0242ac120002"].map(shard_of);
        assert_eq!(stored, [1, 0, 8]);
    }

    #[test]
    fn the_next_occurrence_is_the_first_point_of_the_grid_that_is_not_past() {
        let next = |behind_ms| {
            let forever = Repeat { every_ms: 1_000, count: None, until_unix_ms: None };
            let Next { after_ms, missed } = forever.next(1, 5, behind_ms).unwrap();
            (after_ms, missed)
        };
        assert_eq!([0, 1, 999, 1_000].map(next), [(1_000, 0); 4]);
        assert_eq!([1_001, 2_000, 2_001].map(next), [(2_000, 1), (2_000, 1), (3_000, 2)]);
    }

    #[test]
    fn a_repetition_ends_by_count_and_by_time() {
        let by_count = Repeat { every_ms: 1_000, count: Some(3), until_unix_ms: None };
        assert!(by_count.next(1, 0, 0).is_some());
        assert_eq!(by_count.next(2, 0, 0), None);
        let by_time = Repeat { every_ms: 1_000, count: None, until_unix_ms: Some(5_000) };
        assert!(by_time.next(9, 4_000, 0).is_some());
        assert_eq!(by_time.next(9, 4_001, 0), None);
        assert_eq!(by_time.next(9, 3_000, 2_001), None);
        assert_eq!(by_time.next(9, 0, u64::MAX), None);
    }
}
