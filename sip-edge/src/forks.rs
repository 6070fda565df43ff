//! A user with several phones: all of them ring, and the first that answers has the call
//! (RFC 3261 §16.7 has the rules for a proxy that does the same).

use crate::calls::{CallId, Slot};
use crate::edge::Edge;
use call::{COMPLETED_ELSEWHERE, LegNumber};
use sip::{End, Event, Hangup, LegId};
use std::time::Instant;

/// Phones of one user that ring for one call, those that registered last.
pub(crate) const BINDINGS_MAX: usize = 5;

/// One leg of a call, at several phones.
#[derive(Debug)]
pub(crate) struct Fork {
    /// Those that have not ended.
    branches: Vec<LegId>,
    is_ringing: bool,
    /// The best of those that have.
    best: Option<End>,
}

impl Fork {
    pub(crate) fn new(branches: Vec<LegId>) -> Self {
        Self { branches, is_ringing: false, best: None }
    }
}

impl Edge {
    /// What the call hears of an event, which is all of it unless the leg is one of several phones:
    /// that the first rings, that the first has answered, and how it ended when all have.
    pub(crate) fn of_fork(&mut self, event: Event) -> Option<Event> {
        let (Event::Ringing { leg, .. } | Event::Answered { leg, .. } | Event::Ended { leg, .. }) =
            &event
        else {
            return Some(event);
        };
        let leg = *leg;
        let Some(key) = self.legs.get(&leg).cloned() else { return Some(event) };
        let Some(fork) = self.forks.get_mut(&key) else { return Some(event) };
        match event {
            // Several cannot be heard, and their answers to our one offer would contradict.
            Event::Ringing { leg, status, .. } => {
                let is_first = !std::mem::replace(&mut fork.is_ringing, true);
                is_first.then_some(Event::Ringing { leg, status, sdp: None })
            }
            Event::Ended { end, .. } => {
                fork.branches.retain(|branch| *branch != leg);
                let is_final = matches!(end, End::Rejected { status: 600.., .. });
                let best = fork.best.take();
                let best = best.into_iter().chain([end]).min_by_key(rank);
                if fork.branches.is_empty() || is_final {
                    self.settle_fork(&key, leg);
                    return best.map(|end| Event::Ended { leg, end });
                }
                fork.best = best;
                self.legs.remove(&leg);
                None
            }
            event => {
                self.settle_fork(&key, leg);
                Some(event)
            }
        }
    }

    /// From now on the leg is at this phone only; the others stop ringing.
    fn settle_fork(&mut self, key: &(CallId, LegNumber), leg: LegId) {
        let Some(fork) = self.forks.remove(key) else { return };
        for other in fork.branches.into_iter().filter(|it| *it != leg) {
            self.legs.remove(&other);
            let hangup =
                Hangup { reason: Some(COMPLETED_ELSEWHERE.to_owned()), unanswered_status: 487 };
            self.user_agent.hangup(Instant::now(), other, hangup);
        }
        let sip_call_id = self.user_agent.call_id(leg).map(str::to_owned);
        if let Some(entry) = self.calls.get_mut(&key.0) {
            entry.legs.insert(key.1, Slot::Live(leg));
            if let Some(sip_call_id) = sip_call_id {
                entry.sip_call_ids.retain(|(number, _)| *number != key.1);
                entry.sip_call_ids.push((key.1, sip_call_id));
            }
        }
    }

    /// The phones at which a leg is: all that still ring, or the one.
    pub(crate) fn branches(&self, call: &CallId, number: LegNumber, leg: LegId) -> Vec<LegId> {
        let fork = self.forks.get(&(call.clone(), number));
        fork.map_or_else(|| vec![leg], |fork| fork.branches.clone())
    }
}

/// Which end tells most (RFC 3261 §16.7, step 6): what all phones agree on, what somebody did, and
/// last what nobody answered.
fn rank(end: &End) -> u8 {
    match end {
        End::Rejected { status: 600.., .. } => 0,
        End::Rejected { status: 486, .. } => 1,
        End::Rejected { status: 408 | 480, .. } => 3,
        End::Rejected { status: 300..500, .. } => 2,
        End::Rejected { .. } => 4,
        End::Bye { .. } | End::Cancelled { .. } | End::HungUp { .. } => 5,
        End::TimedOut => 6,
        End::TransportFailed => 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_that_tells_most_is_the_one_that_is_told() {
        let rejected = |status| End::Rejected {
            status,
            phrase: String::new(),
            reason: None,
            retry_after_s: None,
        };
        let ordered = [
            rejected(603),
            rejected(486),
            rejected(404),
            rejected(480),
            rejected(503),
            End::TimedOut,
            End::TransportFailed,
        ];
        assert!(ordered.is_sorted_by_key(rank), "{ordered:?}");
    }
}
