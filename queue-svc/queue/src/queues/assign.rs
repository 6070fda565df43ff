//! Assignments: reserve a caller, ring an agent, then commit or release.

use super::{EventKind, Output, Queues, Refusal, Resolution, Retrieve, RingEnded};
use crate::caller::UnixMs;
use crate::{Assignment, AssignmentId, CallId, Caller, CallerState, Place};

/// An assignment that is not decided yet.
#[derive(Debug)]
pub(super) enum Given {
    /// The caller keeps this place meanwhile.
    Held(Place),
    /// The caller left while the agent rang; whether they met after all is about to be known.
    Abandoned { caller: Box<Caller>, waited_ms: u64 },
}

impl Queues {
    /// Reserves the first caller for whom nobody is rung, and has the agent rung.
    ///
    /// # Errors
    /// [`Refusal::NoSuchQueue`], [`Refusal::NobodyWaits`], [`Refusal::TooManyRing`],
    /// [`Refusal::AssignmentExists`].
    pub fn handle_retrieve(&mut self, now: UnixMs, retrieve: Retrieve) -> Result<(), Refusal> {
        let Retrieve { queue, agent, ring_ms, assignment_id } = retrieve;
        let id = self.named(&queue)?;
        if self.given.contains_key(&assignment_id) {
            return Err(Refusal::AssignmentExists { assignment_id });
        }
        if self.given.len() >= self.max_calls {
            return Err(Refusal::TooManyRing { limit: self.max_calls });
        }
        let line = self.line(id);
        let Some(place) = line.first() else {
            let count = line.count();
            let (entering, leaving) = (count.entering, count.leaving);
            return Err(Refusal::NobodyWaits { queue, entering, leaving });
        };
        line.reserve(place);
        let assignment = Assignment { id: assignment_id, agent, reserved_at: now, ring_ms };
        self.given.insert(assignment.id.clone(), Given::Held(place));
        let call_id = self.set_state(place, CallerState::Leaving(assignment.clone()));
        let reason = format!("first of {queue} for agent {}", assignment.agent.as_str());
        self.publish(EventKind::Reserved, place, Some(&assignment), &reason);
        self.outputs.push_back(Output::Ring { call_id, assignment });
        Ok(())
    }

    /// The one end of an assignment; `None` if it has ended before.
    pub fn handle_ring_ended(
        &mut self,
        now: UnixMs,
        assignment_id: &AssignmentId,
        ended: RingEnded,
    ) -> Option<Resolution> {
        let given = self.given.remove(assignment_id)?;
        Some(match (given, ended) {
            (Given::Held(place), RingEnded::Connected) => self.commit(now, place),
            (Given::Held(place), RingEnded::NotTaken(reason)) => self.release(now, place, reason),
            (Given::Held(place), RingEnded::HungUp) => {
                self.lose(now, place, "caller hung up", RingEnded::HungUp)
            }
            (Given::Held(place), RingEnded::Stale) => {
                self.lose(now, place, "call was gone before", RingEnded::Stale)
            }
            (Given::Abandoned { caller, waited_ms }, RingEnded::Connected) => {
                self.meet_late(&caller, waited_ms)
            }
            (Given::Abandoned { caller, waited_ms }, _) => {
                let call_id = caller.call_id;
                Resolution { call_id, waited_ms, ended: RingEnded::HungUp }
            }
        })
    }

    /// The call has talked to somebody since `at`. Takes the caller out, unless that is what this
    /// open assignment was for: of that the ringing will tell. Ms waited; `None` if nothing changed.
    ///
    /// What was before the caller came says nothing: a client may use a call's id again.
    pub fn handle_connected(
        &mut self,
        now: UnixMs,
        call_id: &CallId,
        at: UnixMs,
        assignment_id: &AssignmentId,
    ) -> Option<u64> {
        let caller = &self.callers[self.places.get(call_id)?];
        let ours = caller.assignment().is_some_and(|it| it.id == *assignment_id);
        if ours || at < caller.arrived_at {
            return None;
        }
        self.handle_leave(now, call_id, "connected without an assignment of the queue")
    }

    /// Whether the assignment is open and its caller still there; else nobody need ring for it.
    pub fn is_held(&self, assignment_id: &AssignmentId) -> bool {
        matches!(self.given.get(assignment_id), Some(Given::Held(_)))
    }

    fn commit(&mut self, now: UnixMs, place: Place) -> Resolution {
        let caller = self.remove(place);
        let reason = "agent answered";
        self.publish_gone(EventKind::Connected, &caller, caller.assignment(), reason);
        let waited_ms = caller.waited_ms(now);
        Resolution { call_id: caller.call_id, waited_ms, ended: RingEnded::Connected }
    }

    /// Back to the same place, which was never given to anybody else.
    fn release(&mut self, now: UnixMs, place: Place, reason: String) -> Resolution {
        let assignment = self.callers[&place].assignment().cloned();
        let call_id = self.set_state(place, CallerState::InQueue);
        let id = self.callers[&place].queue;
        self.line(id).join(place);
        self.publish(EventKind::Released, place, assignment.as_ref(), &reason);
        let waited_ms = self.callers[&place].waited_ms(now);
        Resolution { call_id, waited_ms, ended: RingEnded::NotTaken(reason) }
    }

    fn lose(&mut self, now: UnixMs, place: Place, reason: &str, ended: RingEnded) -> Resolution {
        let caller = self.depart(place, reason);
        let waited_ms = caller.waited_ms(now);
        Resolution { call_id: caller.call_id, waited_ms, ended }
    }

    /// The agent answered in the moment in which the caller left: both are told, both are true.
    fn meet_late(&mut self, caller: &Caller, waited_ms: u64) -> Resolution {
        let reason = "agent answered as the caller left";
        self.publish_gone(EventKind::Connected, caller, caller.assignment(), reason);
        Resolution { call_id: caller.call_id.clone(), waited_ms, ended: RingEnded::Connected }
    }

    fn set_state(&mut self, place: Place, state: CallerState) -> CallId {
        let caller = self.callers.get_mut(&place).expect("a place has its caller");
        caller.state = state;
        let call_id = caller.call_id.clone();
        self.outputs.push_back(Output::Save(caller.clone()));
        call_id
    }
}
