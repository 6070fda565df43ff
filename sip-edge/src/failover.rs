//! A host with several places: if one is dead or overloaded, the next is called instead, as the same
//! leg of the call and within the same ring time (RFC 3263 §4.3).

use crate::calls::Slot;
use crate::edge::{Done, Edge};
use crate::resolve::{NextHop, NextHops, Resolved};
use bytes::Bytes;
use sip::{End, Hangup, LegId};
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use tokio::time::sleep;
use tracing::info;

/// Places that one call tries.
pub(crate) const TRIED_MAX: usize = 16;
/// How long a place may say nothing at all before the next is tried.
const SILENCE_MAX: Duration = Duration::from_secs(4);

/// Where else a leg can go, while nothing of substance was heard from where it is.
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

    /// A phone rings, or the leg is not wanted any more: it is this place or none.
    pub(crate) fn forget_others(&mut self, leg: LegId) {
        self.others.remove(&leg);
    }

    /// Whether a leg that has ended goes on elsewhere, because this place is dead or overloaded.
    pub(crate) fn try_others(&mut self, leg: LegId, end: &End) -> bool {
        let others = self.others.remove(&leg);
        let dead = match end {
            End::Rejected { status, .. } => *status == 503,
            End::TimedOut | End::TransportFailed => true,
            End::Bye { .. } | End::Cancelled { .. } | End::HungUp { .. } => false,
        };
        others.filter(|_| dead).is_some_and(|others| self.go_on(leg, others))
    }

    /// The time for the first word is over.
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
        info!(call_id = %call, left = next_hops.len(), "this place is dead; trying the next");
        if let Some(entry) = self.calls.get_mut(&call) {
            entry.legs.insert(number, Slot::Resolving);
        }
        let next_hops = Ok(NextHops::InTurn(next_hops));
        self.handle_resolved(Resolved { call, leg: number, sdp, next_hops });
        true
    }
}
