//! A user with several bindings: if the newest turns out to be dead, the next newest is called
//! instead, as the same leg of the call and within the same ring time.

use crate::calls::Slot;
use crate::edge::{Done, Edge};
use crate::resolve::{NextHop, Resolved};
use bytes::Bytes;
use sip::{End, Hangup, LegId};
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use tokio::time::sleep;
use tracing::info;

/// Bindings of a user that one call tries, newest first.
pub(crate) const BINDINGS_MAX: usize = 5;
/// How long a phone may say nothing at all before the next binding is tried.
const SILENCE_MAX: Duration = Duration::from_secs(4);

/// Where else a leg can go, while its phone has said nothing of substance.
pub(crate) struct Others {
    sdp: Bytes,
    next_hops: VecDeque<NextHop>,
}

impl Edge {
    pub(crate) fn keep_others(&mut self, leg: LegId, sdp: Bytes, next_hops: VecDeque<NextHop>) {
        if next_hops.is_empty() {
            return;
        }
        self.others.insert(leg, Others { sdp, next_hops });
        let done = self.done.clone();
        tokio::spawn(async move {
            sleep(SILENCE_MAX).await;
            let _ = done.send(Done::Silent(leg)).await; // The process is ending.
        });
    }

    /// A phone rings, or the leg is not wanted any more: it is this binding or none.
    pub(crate) fn forget_others(&mut self, leg: LegId) {
        self.others.remove(&leg);
    }

    /// Whether a leg that has ended goes on with another binding, because this one is dead.
    pub(crate) fn try_others(&mut self, leg: LegId, end: &End) -> bool {
        let others = self.others.remove(&leg);
        let dead = match end {
            End::Rejected { status, .. } => *status == 408 || (500..600).contains(status),
            End::TimedOut | End::TransportFailed => true,
            End::Bye { .. } | End::Cancelled { .. } | End::HungUp { .. } => false,
        };
        others.filter(|_| dead).is_some_and(|others| self.go_on(leg, others))
    }

    /// The time for the phone's first word is over.
    pub(crate) fn handle_silent(&mut self, leg: LegId) {
        if !self.user_agent.is_silent(leg) {
            return; // It tries; if that fails, it will say so.
        }
        if let Some(others) = self.others.remove(&leg) {
            self.go_on(leg, others);
            let hangup = Hangup { reason: None, unanswered_status: 408 };
            self.user_agent.hangup(Instant::now(), leg, hangup);
        }
    }

    fn go_on(&mut self, leg: LegId, Others { sdp, next_hops }: Others) -> bool {
        let Some((call, number)) = self.legs.remove(&leg) else { return false };
        info!(call_id = %call, left = next_hops.len(), "binding is dead; trying the next newest");
        if let Some(entry) = self.calls.get_mut(&call) {
            entry.legs.insert(number, Slot::Resolving);
        }
        self.handle_resolved(Resolved { call, leg: number, sdp, next_hops: Ok(next_hops) });
        true
    }
}
