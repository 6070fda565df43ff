//! All queues, everybody who waits in them and everybody who serves them.
//!
//! | caller | input | next |
//! |---|---|---|
//! | – | enqueue | entering |
//! | entering | answered | in queue |
//! | in queue | an agent is free, or an operator retrieves | leaving (reserved; on disk before the phone rings) |
//! | leaving | agent answered | gone, connected |
//! | leaving | agent did not | in queue, same place |
//! | any | hung up, taken elsewhere, went on | gone; who rings is stopped |
//! | in queue | waited too long, or no agents | the next queue, same place; or told to go on |
//!
//! | agent | input | next |
//! |---|---|---|
//! | free | reserved | ringing |
//! | ringing | answered first | talking |
//! | ringing | declined, busy, no answer | free, left alone for the delay; paused after so many missed |
//! | ringing | caller gone, another was faster, nobody's fault | free |
//! | talking | call over, or parted from the caller | wrap-up, or free |
//! | wrap-up | time is up, or `Ready` | free |
//!
//! Whoever is free, logged in, not paused, not left alone and on no other call is given to the first
//! caller of a queue at once: after every input there is no such agent beside a caller in queue.

mod admin;
mod agents;
mod assign;
mod check;
mod dispatch;
mod engaged;
mod events;
mod exit;
mod output;

pub use agents::{AGENTS_MAX, AgentView};
pub use check::{CHECK_AGAIN_MS, ENTER_MS, Found, VERIFY_MS};
pub use engaged::CallSeen;
pub use exit::EXIT_AGAIN_MS;
pub use output::{
    AgentEvent, Event, EventKind, Missed, Output, Refusal, Resolution, RingEnded, View,
};

use crate::address::AddressKey;
use crate::caller::UnixMs;
use crate::line::Line;
use crate::pace::Pace;
use crate::policy::{Rank, Seat};
use crate::timers::{Timer, Timers};
use crate::{
    Address, AgentName, AssignmentId, CallId, Caller, CallerState, Count, Departure, Place,
    QueueId, QueueTally, Settings, Uri,
};
use agents::Entry;
use assign::Given;
use engaged::Engaged;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

/// How long ago a caller may have asked for the place that is given now, in ms: a day.
const ASKED_MS_MAX: UnixMs = 86_400_000;
/// Queues that one join may be sent on through.
const OVERFLOWS_MAX: usize = 8;

/// A call that wants a place in line, or has one and is answered now.
#[derive(Clone, Debug)]
pub struct Enqueue {
    pub call_id: CallId,
    pub queue: Wanted,
    pub from: String,
    pub contact: String,
    /// The caller hears music already.
    pub answered: bool,
    /// At most [`crate::PRIORITY_MAX`].
    pub priority: u8,
    /// When the caller asked for the place, in Unix µs, if that is known better than by the time at
    /// which this comes. What is over a day ago or still to come is cut to that.
    pub asked_unix_us: Option<i64>,
}

/// How a queue is named by who asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    Name(String),
    Uri(Uri),
}

/// An operator wants the next caller of a queue to be given to somebody.
#[derive(Clone, Debug)]
pub struct Retrieve {
    pub queue: String,
    pub address: Address,
    /// How long it is rung, in ms.
    pub ring_ms: u32,
}

#[derive(Debug)]
struct Queue {
    settings: Settings,
    line: Line,
    /// The row is gone; only those who wait keep it.
    retired: bool,
    members: BTreeSet<AgentName>,
    /// Those of them who can be rung now.
    free: Vec<Seat>,
    last_rung: Option<Rank>,
    pace: Pace,
    tally: QueueTally,
}

impl Queue {
    fn new(settings: Settings) -> Self {
        Self {
            settings,
            line: Line::default(),
            retired: false,
            members: BTreeSet::new(),
            free: Vec::new(),
            last_rung: None,
            pace: Pace::default(),
            tally: QueueTally::default(),
        }
    }
}

/// See the crate's documentation. Limits: `max_calls` callers in all, and as many assignments.
#[derive(Debug)]
pub struct Queues {
    max_calls: usize,
    /// Of the assignments of this process.
    id_prefix: String,
    next_assignment: u64,
    next_sequence: u64,
    queues: BTreeMap<QueueId, Queue>,
    by_name: HashMap<String, QueueId>,
    by_uri: HashMap<Uri, QueueId>,
    callers: BTreeMap<Place, Caller>,
    places: HashMap<CallId, Place>,
    given: HashMap<AssignmentId, Given>,
    agents: BTreeMap<AgentName, Entry>,
    by_address: HashMap<AddressKey, AgentName>,
    engaged: Engaged,
    /// Agents who have just become free, and queues with somebody new to ring for.
    freed: BTreeSet<AgentName>,
    touched: BTreeSet<QueueId>,
    timers: Timers,
    /// Gives callers to agents no more.
    closed: bool,
    outputs: VecDeque<Output>,
}

impl Queues {
    /// Empty; `max_calls` limits the callers of all queues together. Assignments are named by
    /// `id_prefix`, which was never used before, and a count.
    pub fn new(max_calls: usize, id_prefix: &str) -> Self {
        Self {
            max_calls,
            id_prefix: id_prefix.to_owned(),
            next_assignment: 1,
            next_sequence: 1,
            queues: BTreeMap::new(),
            by_name: HashMap::new(),
            by_uri: HashMap::new(),
            callers: BTreeMap::new(),
            places: HashMap::new(),
            given: HashMap::new(),
            agents: BTreeMap::new(),
            by_address: HashMap::new(),
            engaged: Engaged::default(),
            freed: BTreeSet::new(),
            touched: BTreeSet::new(),
            timers: Timers::default(),
            closed: false,
            outputs: VecDeque::new(),
        }
    }

    /// Takes back those who waited when the process died; call once, after the queues and the agents
    /// are known.
    ///
    /// Who was given to an agent is rung for again under the same assignment; everybody else is
    /// checked. Nobody is left out: `max_calls` limits those who come, not those who are here.
    pub fn restore(&mut self, now: UnixMs, callers: impl IntoIterator<Item = Caller>) {
        for caller in callers {
            let (place, id) = (caller.place, caller.queue);
            self.next_sequence = self.next_sequence.max(place.sequence + 1);
            let queue = self
                .queues
                .entry(id)
                .or_insert_with(|| Queue { retired: true, ..Queue::new(Settings::lost(id)) });
            match &caller.state {
                CallerState::Entering => queue.line.enter(place),
                CallerState::InQueue => queue.line.join(place),
                CallerState::Leaving(assignment) => {
                    queue.line.join(place);
                    queue.line.reserve(place);
                    self.given.insert(assignment.id.clone(), Given::Held(place));
                    let (call_id, assignment) = (caller.call_id.clone(), assignment.clone());
                    self.outputs.push_back(Output::Ring { call_id, assignment });
                }
            }
            if caller.state != CallerState::Entering {
                queue.pace.begin(now);
            }
            self.touched.insert(id);
            self.timers.set(Timer::Check(place), now);
            self.places.insert(caller.call_id.clone(), place);
            let waits = caller.state != CallerState::Entering;
            let assignment = caller.assignment().cloned();
            let call_id = caller.call_id.clone();
            self.callers.insert(place, caller);
            if waits {
                self.set_waiting_timers(now, place);
            }
            if let Some(assignment) = assignment {
                self.mark_ringing(now, &assignment, &call_id, "rang before the restart");
            }
        }
        self.index();
        self.settle(now);
    }

    /// Gives the call the last place in line, or confirms the place that it has. True if it is new.
    ///
    /// # Errors
    /// Every one of [`Refusal`]'s that is about joining; a place once given is never refused.
    pub fn handle_enqueue(&mut self, now: UnixMs, enqueue: Enqueue) -> Result<bool, Refusal> {
        let wanted = self.find(&enqueue.queue);
        if let Some(&place) = self.places.get(&enqueue.call_id) {
            let caller = &self.callers[&place];
            let waits_in = caller.queue;
            if wanted.is_some_and(|id| id != waits_in && id != caller.asked) {
                let (call_id, queue) = (enqueue.call_id, self.name_of(waits_in).to_owned());
                return Err(Refusal::WaitsElsewhere { call_id, queue });
            }
            if enqueue.answered {
                self.confirm(now, place);
                self.settle(now);
            }
            return Ok(false);
        }
        let asked = wanted.filter(|id| !self.queues[id].retired);
        let asked =
            asked.ok_or_else(|| Refusal::NoSuchQueue { wanted: enqueue.queue.to_string() })?;
        let id = self.place_or_overflow(asked)?;
        let place = self.next_place(now, enqueue.priority, enqueue.asked_unix_us);
        let arrived_at = match enqueue.asked_unix_us {
            Some(_) => UnixMs::try_from(place.sequence / 1_000).unwrap_or(now).min(now),
            None => now,
        };
        let caller = Caller {
            call_id: enqueue.call_id,
            queue: id,
            asked,
            place,
            arrived_at,
            since: now,
            from: enqueue.from,
            contact: enqueue.contact,
            state: CallerState::Entering,
        };
        self.line(id).enter(place);
        self.places.insert(caller.call_id.clone(), place);
        self.outputs.push_back(Output::Save(caller.clone()));
        self.callers.insert(place, caller);
        self.timers.set(Timer::Check(place), now + ENTER_MS);
        if enqueue.answered {
            self.confirm(now, place);
            self.settle(now);
        }
        Ok(true)
    }

    /// A place of its own: by the arrival, or behind everybody who has come so far.
    fn next_place(&mut self, now: UnixMs, priority: u8, asked_unix_us: Option<i64>) -> Place {
        let priority = Reverse(priority);
        let (now_us, oldest_us) = (now.saturating_mul(1_000), (now - ASKED_MS_MAX) * 1_000);
        let sequence = match asked_unix_us {
            Some(asked_us) => asked_us.min(now_us.saturating_add(999)).max(oldest_us),
            None => now_us,
        };
        let sequence = u64::try_from(sequence).unwrap_or(0);
        let mut place = Place { priority, sequence };
        if asked_unix_us.is_none() {
            place.sequence = sequence.max(self.next_sequence);
        }
        while self.callers.contains_key(&place) {
            place.sequence += 1; // In the same microsecond: as they are told of.
        }
        self.next_sequence = self.next_sequence.max(place.sequence + 1);
        place
    }

    fn admit(&self, id: QueueId) -> Result<(), Refusal> {
        let queue = &self.queues[&id];
        let name = || queue.settings.name().to_owned();
        let max_calls = queue.settings.row().max_calls;
        if self.is_empty_of_agents(queue, queue.settings.row().join_empty) {
            return Err(Refusal::NoAgents { queue: name() });
        }
        if queue.line.count().total() >= max_calls {
            return Err(Refusal::QueueFull { queue: name(), max_calls });
        }
        if self.callers.len() >= self.max_calls {
            return Err(Refusal::AllFull { max_calls: self.max_calls });
        }
        Ok(())
    }

    /// Entering becomes in queue; anything later stays.
    fn confirm(&mut self, now: UnixMs, place: Place) {
        let caller = self.callers.get_mut(&place).expect("a place has its caller");
        if caller.state != CallerState::Entering {
            return;
        }
        caller.state = CallerState::InQueue;
        let id = caller.queue;
        self.outputs.push_back(Output::Save(caller.clone()));
        self.timers.set(Timer::Check(place), now + VERIFY_MS);
        self.join_line(now, id, place);
        self.publish(now, EventKind::Joined, place, None, "caller was answered");
    }

    /// An answered caller stands in the line of a queue from now on.
    fn join_line(&mut self, now: UnixMs, id: QueueId, place: Place) {
        let queue = self.queue_mut(id);
        queue.line.join(place);
        queue.pace.begin(now);
        queue.tally.joined += 1;
        self.touched.insert(id);
        self.set_waiting_timers(now, place);
    }

    /// The caller has gone; an agent who rings is stopped. Ms waited; `None` if nobody waited.
    pub fn handle_leave(
        &mut self,
        now: UnixMs,
        call_id: &CallId,
        departure: Departure,
        reason: &str,
    ) -> Option<u64> {
        let place = *self.places.get(call_id)?;
        let caller = self.depart(now, place, departure, reason);
        let waited_ms = caller.waited_ms(now);
        if let Some(assignment) = caller.assignment() {
            let id = assignment.id.clone();
            let (call_id, assignment_id) = (call_id.clone(), id.clone());
            self.given.insert(id, Given::Abandoned { caller: Box::new(caller), waited_ms });
            self.outputs.push_back(Output::StopRinging { call_id, assignment_id });
        }
        self.settle(now);
        Some(waited_ms)
    }

    /// Takes a caller out of everything but `given`. An event only for who has been announced.
    fn depart(&mut self, now: UnixMs, place: Place, departure: Departure, reason: &str) -> Caller {
        let joined = self.callers[&place].state != CallerState::Entering;
        let caller = self.remove(place);
        if joined {
            if let Some(queue) = self.queues.get_mut(&caller.queue) {
                queue.tally.depart(departure);
            }
            self.publish_gone(now, EventKind::Left, &caller, reason);
        }
        caller
    }

    fn remove(&mut self, place: Place) -> Caller {
        let caller = self.callers.remove(&place).expect("a place has its caller");
        self.places.remove(&caller.call_id);
        self.clear_timers(place);
        self.leave_line(caller.queue, place);
        self.outputs.push_back(Output::Delete(caller.call_id.clone()));
        caller
    }

    fn leave_line(&mut self, id: QueueId, place: Place) {
        let queue = self.queue_mut(id);
        queue.line.remove(place);
        if !queue.line.has_answered() {
            queue.pace.end();
        }
    }

    /// Gives no more callers to agents, because this process ends and the next one goes on.
    pub fn close(&mut self) {
        self.closed = true;
    }

    /// What to do next, in order. Rows go to disk before anything after them happens.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to call `handle_timeout`.
    pub fn poll_timeout(&self) -> Option<UnixMs> {
        self.timers.next()
    }

    pub fn handle_timeout(&mut self, now: UnixMs) {
        while let Some(timer) = self.timers.pop(now) {
            match timer {
                Timer::Check(place) => self.ask_about(now, place),
                Timer::MaxWait(place) => self.end_waiting(now, place),
                Timer::Announce(place) => self.announce_place(now, place),
                Timer::Periodic(place) => self.announce_periodic(now, place),
                Timer::Agent(name) => self.end_pause(now, &name),
                Timer::Engaged(call_id) => self.outputs.push_back(Output::Check(call_id)),
            }
        }
        self.settle(now);
    }

    /// How many are in the queue.
    ///
    /// # Errors
    /// [`Refusal::NoSuchQueue`].
    pub fn count(&self, queue: &str) -> Result<Count, Refusal> {
        Ok(self.queues[&self.named(queue)?].line.count())
    }

    /// Who waits, first in line first; those who are not answered yet come last.
    ///
    /// # Errors
    /// [`Refusal::NoSuchQueue`].
    pub fn list(
        &self,
        now: UnixMs,
        queue: &str,
    ) -> Result<impl Iterator<Item = View<'_>>, Refusal> {
        let queue = &self.queues[&self.named(queue)?];
        let mut places = queue.line.places();
        let mut position = 0;
        Ok(std::iter::from_fn(move || {
            let place = places.next()?;
            let caller = &self.callers[&place];
            let answered = caller.state != CallerState::Entering;
            position += u32::from(answered);
            let position = if answered { position } else { 0 };
            let expected = queue.pace.expected(now, position);
            Some(View { caller, settings: &queue.settings, position, expected })
        }))
    }

    pub fn view(&self, now: UnixMs, call_id: &CallId) -> Option<View<'_>> {
        let caller = &self.callers[self.places.get(call_id)?];
        let queue = &self.queues[&caller.queue];
        let position = queue.line.position(caller.place);
        let expected = queue.pace.expected(now, position);
        Some(View { caller, settings: &queue.settings, position, expected })
    }

    /// Callers in all queues.
    pub fn callers(&self) -> usize {
        self.callers.len()
    }

    /// Assignments that are not decided yet.
    pub fn assignments(&self) -> usize {
        self.given.len()
    }

    fn named(&self, queue: &str) -> Result<QueueId, Refusal> {
        let id = self.by_name.get(queue).copied();
        id.ok_or_else(|| Refusal::NoSuchQueue { wanted: format!("{queue:?}") })
    }

    fn find(&self, wanted: &Wanted) -> Option<QueueId> {
        match wanted {
            Wanted::Name(name) => self.by_name.get(name).copied(),
            Wanted::Uri(uri) => self.by_uri.get(uri).copied(),
        }
    }

    fn name_of(&self, id: QueueId) -> &str {
        self.queues[&id].settings.name()
    }

    fn queue_mut(&mut self, id: QueueId) -> &mut Queue {
        self.queues.get_mut(&id).expect("a caller's queue is kept")
    }

    fn line(&mut self, id: QueueId) -> &mut Line {
        &mut self.queue_mut(id).line
    }
}
