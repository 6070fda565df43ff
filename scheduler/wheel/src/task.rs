//! The life of one task: pending, firing, and one of four ends.
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
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Its time has come, and nobody was quicker.
    Claimed,
    Cancelled,
    Rescheduled,
    CallEnded,
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
    pub const ALL: [Self; 6] =
        [Self::Pending, Self::Firing, Self::Fired, Self::Cancelled, Self::Expired, Self::Failed];

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
            (S::Pending, Cancelled) => Ok(S::Cancelled),
            (S::Pending, CallEnded) => Ok(S::Expired),
            (S::Firing, Answered(Done)) => Ok(S::Fired),
            (S::Firing, Answered(CallGone)) => Ok(S::Expired),
            (S::Firing, Answered(Refused)) => Ok(S::Failed),
            (state, event) => Err(self::Refused { state, event }),
        }
    }

    pub fn has_ended(self) -> bool {
        !matches!(self, Self::Pending | Self::Firing)
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
            Pending + CallEnded -> Expired
            Firing + Answered(Done) -> Fired
            Firing + Answered(CallGone) -> Expired
            Firing + Answered(Refused) -> Failed
        "#]]);
    }

    /// All arrows there are.
    #[track_caller]
    fn check(expected: Expect) {
        use Event::*;
        let answers = [Verdict::Done, Verdict::CallGone, Verdict::Refused].map(Answered);
        let events = [Claimed, Cancelled, Rescheduled, CallEnded].into_iter().chain(answers);
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
        assert_eq!(State::try_from(7), Err(7));
        let id = TaskId(0x0193_f0a4_7d6c_7c1e_8a55_0242_ac12_0002);
        assert_eq!(id.to_string(), "0193f0a4-7d6c-7c1e-8a55-0242ac120002");
    }
}
