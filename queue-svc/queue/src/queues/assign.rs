//! Assignments: reserve a caller, ring agents, then commit or release.

use super::{EventKind, Missed, Output, Queues, Refusal, Resolution, Retrieve, RingEnded};
use crate::caller::UnixMs;
use crate::timers::Timer;
use crate::{
    AgentName, Assignment, AssignmentId, CallId, Caller, CallerState, Departure, Place, Presence,
    QueueId, Target, Work,
};

/// An assignment that is not decided yet.
#[derive(Debug)]
pub(super) enum Given {
    /// The caller keeps this place meanwhile.
    Held(Place),
    /// The caller left while the agent rang; whether they met after all is about to be known.
    Abandoned { caller: Box<Caller>, waited_ms: u64 },
}

impl Queues {
    /// Reserves the first caller for whom nobody is rung, and has the address rung. Which assignment
    /// that is.
    ///
    /// # Errors
    /// [`Refusal::NoSuchQueue`], [`Refusal::NobodyWaits`], [`Refusal::TooManyRing`], and
    /// [`Refusal::AgentBusy`] if the address is that of an agent who rings or talks.
    pub fn handle_retrieve(
        &mut self,
        now: UnixMs,
        retrieve: Retrieve,
    ) -> Result<AssignmentId, Refusal> {
        let Retrieve { queue, address, ring_ms } = retrieve;
        let id = self.named(&queue)?;
        let agent = self.by_address.get(&address.key()).cloned();
        if let Some(name) = &agent {
            let agent = &self.agents[name].agent;
            if let Work::Ringing { .. } | Work::Talking { .. } = agent.work {
                let state = agent.state(false);
                return Err(Refusal::AgentBusy { agent: name.clone(), state });
            }
        }
        let line = &self.queues[&id].line;
        let Some(place) = line.first() else {
            let count = line.count();
            let (entering, leaving) = (count.entering, count.leaving);
            return Err(Refusal::NobodyWaits { queue, entering, leaving });
        };
        if self.given.len() >= self.max_calls {
            return Err(Refusal::TooManyRing { limit: self.max_calls });
        }
        let reason = format!("first of {queue} for agent {}", address.as_str());
        let assignment =
            self.reserve(now, place, vec![Target { address, agent }], ring_ms, &reason);
        Ok(assignment)
    }

    pub(super) fn reserve(
        &mut self,
        now: UnixMs,
        place: Place,
        targets: Vec<Target>,
        ring_ms: u32,
        reason: &str,
    ) -> AssignmentId {
        let id = AssignmentId::new(&format!("{}-{}", self.id_prefix, self.next_assignment));
        self.next_assignment += 1;
        let assignment = Assignment { id: id.clone(), targets, reserved_at: now, ring_ms };
        self.given.insert(id.clone(), Given::Held(place));
        let queue = self.callers[&place].queue;
        self.line(queue).reserve(place);
        let call_id = self.set_state(place, CallerState::Leaving(assignment.clone()));
        self.publish(now, EventKind::Reserved, place, Some(&assignment), reason);
        self.mark_ringing(now, &assignment, &call_id, reason);
        self.outputs.push_back(Output::Ring { call_id, assignment });
        id
    }

    pub(super) fn mark_ringing(
        &mut self,
        now: UnixMs,
        assignment: &Assignment,
        call_id: &CallId,
        reason: &str,
    ) {
        for name in assignment.targets.iter().filter_map(|it| it.agent.as_ref()) {
            if let Some(entry) = self.agents.get_mut(name) {
                entry.tally.rung += 1;
            }
            let (assignment_id, call_id) = (assignment.id.clone(), call_id.clone());
            self.change_agent(now, name, reason, |it| {
                it.work = Work::Ringing { assignment_id, call_id };
            });
        }
    }

    /// The one end of an assignment; `None` if it has ended before.
    pub fn handle_ring_ended(
        &mut self,
        now: UnixMs,
        assignment_id: &AssignmentId,
        ended: RingEnded,
    ) -> Option<Resolution> {
        let given = self.given.remove(assignment_id)?;
        let caller = match &given {
            Given::Held(place) => self.callers[place].clone(),
            Given::Abandoned { caller, .. } => (**caller).clone(),
        };
        let resolution = match (given, ended.clone()) {
            (Given::Held(place), RingEnded::Connected { .. }) => {
                self.commit(now, place, ended.clone())
            }
            (Given::Held(place), RingEnded::NotTaken(missed, reason)) => {
                self.release(now, place, missed, reason)
            }
            (Given::Held(place), RingEnded::HungUp) => {
                self.lose(now, place, "caller hung up", RingEnded::HungUp)
            }
            (Given::Held(place), RingEnded::Stale) => {
                self.lose(now, place, "call was gone before", RingEnded::Stale)
            }
            (Given::Abandoned { caller, waited_ms }, RingEnded::Connected { .. }) => {
                self.meet_late(now, &caller, waited_ms, ended.clone())
            }
            (Given::Abandoned { caller, waited_ms }, _) => {
                let call_id = caller.call_id;
                Resolution { call_id, waited_ms, ended: RingEnded::HungUp }
            }
        };
        let ended = match resolution.ended {
            RingEnded::HungUp => RingEnded::HungUp, // Then it is nobody's fault, whatever was said.
            _ => ended,
        };
        self.end_ringing(now, &caller, &ended);
        self.settle(now);
        Some(resolution)
    }

    /// What the end of an assignment means to the agents who rang.
    fn end_ringing(&mut self, now: UnixMs, caller: &Caller, ended: &RingEnded) {
        let Some(assignment) = caller.assignment() else { return };
        let winner = match ended {
            RingEnded::Connected { answered } => {
                let by_address = |it: &&Target| Some(it.address.as_str()) == answered.as_deref();
                assignment.targets.iter().find(by_address).or(assignment.targets.first())
            }
            _ => None,
        };
        for target in &assignment.targets {
            let Some(name) = &target.agent else { continue };
            let work = self.agents.get(name).map(|it| &it.agent.work);
            let rings = |work: &Work| matches!(work, Work::Ringing { assignment_id, .. } if *assignment_id == assignment.id);
            if !work.is_some_and(rings) {
                continue; // A row that somebody wrote.
            }
            match ended {
                RingEnded::Connected { .. } if winner == Some(target) => {
                    self.begin_talk(now, name, &caller.call_id, caller.queue);
                }
                RingEnded::Connected { .. } => self.set_free(now, name, "another agent answered"),
                RingEnded::NotTaken(missed, reason) => self.miss(now, name, *missed, reason),
                RingEnded::HungUp => self.set_free(now, name, "caller hung up"),
                RingEnded::Stale => self.set_free(now, name, "call was gone before"),
            }
        }
    }

    fn set_free(&mut self, now: UnixMs, name: &AgentName, reason: &str) {
        self.change_agent(now, name, reason, |it| it.work = Work::Free);
    }

    /// The agent did not take the caller: left alone for a while, last among those who are idle, and
    /// paused after too many.
    fn miss(&mut self, now: UnixMs, name: &AgentName, missed: Missed, reason: &str) {
        let Some(entry) = self.agents.get_mut(name) else { return };
        match missed {
            Missed::NoAnswer | Missed::Unreachable => entry.tally.missed += 1,
            Missed::Busy | Missed::Declined => entry.tally.refused += 1,
            Missed::Fault => (),
        }
        self.change_agent(now, name, reason, |it| {
            let settings = &it.settings;
            let delay_ms = match missed {
                Missed::NoAnswer | Missed::Unreachable => settings.no_answer_delay_ms,
                Missed::Busy => settings.busy_delay_ms,
                Missed::Declined => settings.reject_delay_ms,
                Missed::Fault => *crate::DELAY_MS.start(),
            };
            (it.work, it.idle_since) = (Work::Free, now);
            it.rest_until = now + UnixMs::from(delay_ms);
            if let Missed::NoAnswer | Missed::Unreachable = missed {
                it.missed += 1;
                let too_many = it.settings.max_missed > 0 && it.missed >= it.settings.max_missed;
                if too_many && it.presence == Presence::Ready {
                    let why = format!("missed {} calls one after the other", it.missed);
                    it.presence = Presence::Paused(why);
                }
            }
        });
        for membership in self.agents[name].agent.settings.memberships.clone() {
            self.look_for_agents(now, membership.queue);
        }
    }

    fn begin_talk(&mut self, now: UnixMs, name: &AgentName, call_id: &CallId, queue: QueueId) {
        if let Some(entry) = self.agents.get_mut(name) {
            entry.tally.connected += 1;
        }
        self.engaged.begin_talk(call_id, name);
        self.timers.set(Timer::Engaged(call_id.clone()), now + super::VERIFY_MS);
        let talk = Work::Talking { call_id: call_id.clone(), queue, since: now };
        self.change_agent(now, name, "took the caller", |it| (it.work, it.missed) = (talk, 0));
        if self.engaged.is_over(call_id) {
            self.end_call(now, call_id, "call ended as it was answered");
        }
    }

    /// The call has talked to somebody since `at`. Takes the caller out, unless that is what this
    /// open assignment was for: of that the ringing will tell. Ms waited; `None` if nothing changed.
    ///
    /// What was before the caller came says nothing: a client may use a call's id again.
    pub(super) fn take_away(
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
        let reason = "connected without an assignment of the queue";
        self.handle_leave(now, call_id, Departure::WentOn, reason)
    }

    /// Whether the assignment is open and its caller still there; else nobody need ring for it.
    pub fn is_held(&self, assignment_id: &AssignmentId) -> bool {
        matches!(self.given.get(assignment_id), Some(Given::Held(_)))
    }

    fn commit(&mut self, now: UnixMs, place: Place, ended: RingEnded) -> Resolution {
        let waited_ms = self.callers[&place].waited_ms(now);
        let queue = self.queue_mut(self.callers[&place].queue);
        queue.tally.connect(waited_ms, queue.settings.row().service_level_ms);
        queue.pace.advance(now);
        let caller = self.remove(place);
        self.publish_gone(now, EventKind::Connected, &caller, "agent answered");
        Resolution { call_id: caller.call_id, waited_ms, ended }
    }

    /// Back to the same place, which was never given to anybody else.
    fn release(&mut self, now: UnixMs, place: Place, missed: Missed, reason: String) -> Resolution {
        let assignment = self.callers[&place].assignment().cloned();
        let call_id = self.set_state(place, CallerState::InQueue);
        let id = self.callers[&place].queue;
        self.line(id).join(place);
        self.queue_mut(id).tally.released += 1;
        self.touched.insert(id);
        self.publish(now, EventKind::Released, place, assignment.as_ref(), &reason);
        let waited_ms = self.callers[&place].waited_ms(now);
        Resolution { call_id, waited_ms, ended: RingEnded::NotTaken(missed, reason) }
    }

    fn lose(&mut self, now: UnixMs, place: Place, reason: &str, ended: RingEnded) -> Resolution {
        let caller = self.depart(now, place, Departure::HungUp, reason);
        let waited_ms = caller.waited_ms(now);
        Resolution { call_id: caller.call_id, waited_ms, ended }
    }

    /// The agent answered in the moment in which the caller left: both are told, both are true.
    fn meet_late(
        &mut self,
        now: UnixMs,
        caller: &Caller,
        waited_ms: u64,
        ended: RingEnded,
    ) -> Resolution {
        let reason = "agent answered as the caller left";
        self.publish_gone(now, EventKind::Connected, caller, reason);
        Resolution { call_id: caller.call_id.clone(), waited_ms, ended }
    }

    fn set_state(&mut self, place: Place, state: CallerState) -> CallId {
        let caller = self.callers.get_mut(&place).expect("a place has its caller");
        caller.state = state;
        let call_id = caller.call_id.clone();
        self.outputs.push_back(Output::Save(caller.clone()));
        call_id
    }
}
