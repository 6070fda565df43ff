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

/// What an event of one phone is for the leg.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    /// Nothing new.
    Nothing,
    /// This phone is out; others ring on.
    Lost,
    Event(Event),
    /// The leg is at this phone only; the others stop ringing, for this `Reason`.
    Settled {
        event: Event,
        reason: Option<&'static str>,
    },
}

impl Fork {
    pub(crate) fn new(branches: Vec<LegId>) -> Self {
        Self { branches, is_ringing: false, best: None }
    }

    fn hear(&mut self, leg: LegId, event: Event) -> Heard {
        match event {
            // Several cannot be heard, and their answers to our one offer would contradict.
            Event::Ringing { status, .. } => match std::mem::replace(&mut self.is_ringing, true) {
                true => Heard::Nothing,
                false => Heard::Event(Event::Ringing { leg, status, sdp: None }),
            },
            Event::Ended { end, .. } => {
                self.branches.retain(|branch| *branch != leg);
                let is_final = matches!(end, End::Rejected { status: 600.., .. });
                let best = self.best.take().into_iter().chain([end]).min_by_key(rank);
                match best {
                    // Nobody has answered: each of the others has missed a call.
                    Some(end) if self.branches.is_empty() || is_final => {
                        Heard::Settled { event: Event::Ended { leg, end }, reason: None }
                    }
                    best => {
                        self.best = best;
                        Heard::Lost
                    }
                }
            }
            event => Heard::Settled { event, reason: Some(COMPLETED_ELSEWHERE) },
        }
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
        match fork.hear(leg, event) {
            Heard::Nothing => None,
            Heard::Lost => {
                self.legs.remove(&leg);
                None
            }
            Heard::Event(event) => Some(event),
            Heard::Settled { event, reason } => {
                self.settle_fork(&key, leg, reason);
                Some(event)
            }
        }
    }

    /// From now on the leg is at this phone only; the others stop ringing.
    fn settle_fork(&mut self, key: &(CallId, LegNumber), leg: LegId, reason: Option<&'static str>) {
        let Some(fork) = self.forks.remove(key) else { return };
        for other in fork.branches.into_iter().filter(|it| *it != leg) {
            self.legs.remove(&other);
            let hangup = Hangup { reason: reason.map(str::to_owned), unanswered_status: 487 };
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

    fn rejected(status: u16) -> End {
        End::Rejected { status, phrase: String::new(), reason: None, retry_after_s: None }
    }

    #[test]
    fn who_rings_has_missed_no_call_if_another_one_answered_but_one_that_another_one_declined() {
        let [first, second, third] = [1, 2, 3].map(LegId::from_u64);
        let ended = |leg, status| Event::Ended { leg, end: rejected(status) };
        let answered = Event::Answered { leg: second, sdp: None };
        let mut fork = Fork::new(vec![first, second, third]);
        assert_eq!(fork.hear(first, ended(first, 486)), Heard::Lost);
        let heard = fork.hear(second, answered.clone());
        let reason = Some(r#"SIP;cause=200;text="Call completed elsewhere""#);
        assert_eq!(heard, Heard::Settled { event: answered, reason });
        for status in [600, 603, 607] {
            let mut fork = Fork::new(vec![first, second, third]);
            assert_eq!(fork.hear(first, ended(first, 486)), Heard::Lost);
            let heard = fork.hear(second, ended(second, status));
            let event = ended(second, status);
            assert_eq!(heard, Heard::Settled { event, reason: None }, "{status}");
        }
    }

    #[test]
    fn the_end_that_tells_most_is_the_one_that_is_told() {
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
