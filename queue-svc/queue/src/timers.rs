//! What is due when, in Unix ms: one time for each thing, changed or taken back at any moment.

use crate::{AgentName, CallId, Place, UnixMs};
use std::collections::{BTreeSet, HashMap};

/// What a time is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Timer {
    /// Ask whether the call of a caller is still there.
    Check(Place),
    /// The caller has waited for as long as the queue allows, or may leave an empty queue.
    MaxWait(Place),
    /// Tell the caller where in line it is.
    Announce(Place),
    /// Play the next of the queue's announcements to the caller.
    Periodic(Place),
    /// An agent's wrap-up or rest ends.
    Agent(AgentName),
    /// Ask whether a call that keeps agents busy is still there.
    Engaged(CallId),
}

#[derive(Debug, Default)]
pub(crate) struct Timers {
    order: BTreeSet<(UnixMs, Timer)>,
    at: HashMap<Timer, UnixMs>,
}

impl Timers {
    pub(crate) fn set(&mut self, timer: Timer, at: UnixMs) {
        self.clear(&timer);
        self.order.insert((at, timer.clone()));
        self.at.insert(timer, at);
    }

    pub(crate) fn clear(&mut self, timer: &Timer) {
        if let Some(at) = self.at.remove(timer) {
            self.order.remove(&(at, timer.clone()));
        }
    }

    pub(crate) fn next(&self) -> Option<UnixMs> {
        self.order.first().map(|(at, _)| *at)
    }

    /// What is due first, if it is due; it is cleared.
    pub(crate) fn pop(&mut self, now: UnixMs) -> Option<Timer> {
        let (at, _) = self.order.first()?;
        if *at > now {
            return None;
        }
        let (_, timer) = self.order.pop_first()?;
        self.at.remove(&timer);
        Some(timer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_that_is_set_again_is_due_once_at_the_later_word() {
        let timer = |name: &str| Timer::Agent(AgentName::parse(name).unwrap());
        let mut timers = Timers::default();
        timers.set(timer("a"), 10);
        timers.set(timer("b"), 20);
        timers.set(timer("a"), 30);
        timers.set(timer("c"), 5);
        timers.clear(&timer("c"));
        timers.clear(&timer("c"));
        assert_eq!((timers.next(), timers.pop(19)), (Some(20), None));
        assert_eq!(timers.pop(40), Some(timer("b")));
        assert_eq!(timers.pop(40), Some(timer("a")));
        assert_eq!((timers.pop(40), timers.next()), (None, None));
    }
}
