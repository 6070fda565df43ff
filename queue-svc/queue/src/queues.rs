//! All queues and everybody who waits in them: joins, leaves, assignments, and who is still there.

mod admin;
mod assign;
mod check;
mod output;

pub use check::{CHECK_AGAIN_MS, ENTER_MS, Found, VERIFY_MS};
pub use output::{Event, EventKind, Output, Refusal, Resolution, RingEnded, View};

use crate::caller::UnixMs;
use crate::line::Line;
use crate::{
    Agent, Assignment, AssignmentId, CallId, Caller, CallerState, Count, Place, QueueId, Settings,
    Uri,
};
use assign::Given;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

/// A call that wants a place in line, or has one and is answered now.
#[derive(Clone, Debug)]
pub struct Enqueue {
    pub call_id: CallId,
    pub queue: Wanted,
    pub from: String,
    pub contact: String,
    /// The caller hears music already.
    pub answered: bool,
}

/// How a queue is named by who asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    Name(String),
    Uri(Uri),
}

/// An operator wants the next caller of a queue to be given to an agent.
#[derive(Clone, Debug)]
pub struct Retrieve {
    pub queue: String,
    pub agent: Agent,
    /// How long the agent is rung, in ms.
    pub ring_ms: u32,
    /// Of this attempt; never used before.
    pub assignment_id: AssignmentId,
}

struct Queue {
    settings: Settings,
    line: Line,
    /// The row is gone; only those who wait keep it.
    retired: bool,
}

/// See the crate's documentation. Limits: `max_calls` callers in all, and as many agents that ring.
pub struct Queues {
    max_calls: usize,
    next_sequence: u64,
    queues: BTreeMap<QueueId, Queue>,
    by_name: HashMap<String, QueueId>,
    by_uri: HashMap<Uri, QueueId>,
    callers: BTreeMap<Place, Caller>,
    places: HashMap<CallId, Place>,
    given: HashMap<AssignmentId, Given>,
    checks: BTreeSet<(UnixMs, Place)>,
    check_at: HashMap<Place, UnixMs>,
    outputs: VecDeque<Output>,
}

impl Queues {
    /// Empty; `max_calls` limits the callers of all queues together.
    pub fn new(max_calls: usize) -> Self {
        Self {
            max_calls,
            next_sequence: 1,
            queues: BTreeMap::new(),
            by_name: HashMap::new(),
            by_uri: HashMap::new(),
            callers: BTreeMap::new(),
            places: HashMap::new(),
            given: HashMap::new(),
            checks: BTreeSet::new(),
            check_at: HashMap::new(),
            outputs: VecDeque::new(),
        }
    }

    /// Takes back those who waited when the process died; call once, after the queues are known.
    ///
    /// Who was given to an agent is rung for again under the same assignment; everybody else is
    /// checked. Nobody is left out: `max_calls` limits those who come, not those who are here.
    pub fn restore(&mut self, now: UnixMs, callers: impl IntoIterator<Item = Caller>) {
        for caller in callers {
            let place = caller.place;
            self.next_sequence = self.next_sequence.max(place.sequence + 1);
            let queue = self.queues.entry(caller.queue).or_insert_with(|| Queue {
                settings: Settings::lost(caller.queue),
                line: Line::default(),
                retired: true,
            });
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
            self.set_check(place, now);
            self.places.insert(caller.call_id.clone(), place);
            self.callers.insert(place, caller);
        }
        self.index();
    }

    /// Gives the call the last place in line, or confirms the place that it has. True if it is new.
    ///
    /// # Errors
    /// Every one of [`Refusal`]'s that is about joining; a place once given is never refused.
    pub fn handle_enqueue(&mut self, now: UnixMs, enqueue: Enqueue) -> Result<bool, Refusal> {
        let wanted = self.find(&enqueue.queue);
        if let Some(&place) = self.places.get(&enqueue.call_id) {
            let waits_in = self.callers[&place].queue;
            if wanted.is_some_and(|id| id != waits_in) {
                let (call_id, queue) = (enqueue.call_id, self.name_of(waits_in).to_owned());
                return Err(Refusal::WaitsElsewhere { call_id, queue });
            }
            if enqueue.answered {
                self.confirm(now, place);
            }
            return Ok(false);
        }
        let id = wanted.filter(|id| !self.queues[id].retired);
        let id = id.ok_or_else(|| Refusal::NoSuchQueue { wanted: enqueue.queue.to_string() })?;
        self.admit(id)?;
        let place = Place { sequence: self.next_sequence };
        self.next_sequence += 1;
        let caller = Caller {
            call_id: enqueue.call_id,
            queue: id,
            place,
            arrived_at: now,
            from: enqueue.from,
            contact: enqueue.contact,
            state: CallerState::Entering,
        };
        self.line(id).enter(place);
        self.places.insert(caller.call_id.clone(), place);
        self.outputs.push_back(Output::Save(caller.clone()));
        self.callers.insert(place, caller);
        self.set_check(place, now + ENTER_MS);
        if enqueue.answered {
            self.confirm(now, place);
        }
        Ok(true)
    }

    fn admit(&self, id: QueueId) -> Result<(), Refusal> {
        let queue = &self.queues[&id];
        let max_calls = queue.settings.row().max_calls;
        if queue.line.count().total() >= max_calls {
            return Err(Refusal::QueueFull { queue: queue.settings.name().to_owned(), max_calls });
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
        self.line(id).join(place);
        self.set_check(place, now + VERIFY_MS);
        self.publish(EventKind::Joined, place, None, "caller was answered");
    }

    /// The caller has gone; an agent who rings is stopped. Ms waited; `None` if nobody waited.
    pub fn handle_leave(&mut self, now: UnixMs, call_id: &CallId, reason: &str) -> Option<u64> {
        let place = *self.places.get(call_id)?;
        let caller = self.depart(place, reason);
        let waited_ms = caller.waited_ms(now);
        if let Some(Assignment { id, .. }) = caller.assignment() {
            let (call_id, assignment_id) = (call_id.clone(), id.clone());
            self.given.insert(id.clone(), Given::Abandoned { caller: Box::new(caller), waited_ms });
            self.outputs.push_back(Output::StopRinging { call_id, assignment_id });
        }
        Some(waited_ms)
    }

    /// Takes a caller out of everything but `given`. An event only for who has been announced.
    fn depart(&mut self, place: Place, reason: &str) -> Caller {
        let joined = self.callers[&place].state != CallerState::Entering;
        let caller = self.remove(place);
        if joined {
            self.publish_gone(EventKind::Left, &caller, caller.assignment(), reason);
        }
        caller
    }

    fn remove(&mut self, place: Place) -> Caller {
        let caller = self.callers.remove(&place).expect("a place has its caller");
        self.places.remove(&caller.call_id);
        self.clear_check(place);
        self.line(caller.queue).remove(place);
        self.outputs.push_back(Output::Delete(caller.call_id.clone()));
        caller
    }

    /// What to do next, in order. Rows go to disk before anything after them happens.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
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
    pub fn list(&self, queue: &str) -> Result<impl Iterator<Item = View<'_>>, Refusal> {
        let queue = &self.queues[&self.named(queue)?];
        Ok(queue.line.places().map(|place| self.view_at(place)))
    }

    pub fn view(&self, call_id: &CallId) -> Option<View<'_>> {
        Some(self.view_at(*self.places.get(call_id)?))
    }

    fn view_at(&self, place: Place) -> View<'_> {
        let caller = &self.callers[&place];
        let queue = &self.queues[&caller.queue];
        View { caller, settings: &queue.settings, position: queue.line.position(place) }
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

    fn line(&mut self, id: QueueId) -> &mut Line {
        &mut self.queues.get_mut(&id).expect("a caller's queue is kept").line
    }

    fn publish(
        &mut self,
        kind: EventKind,
        place: Place,
        assignment: Option<&Assignment>,
        reason: &str,
    ) {
        let caller = self.callers[&place].clone();
        let position = self.queues[&caller.queue].line.position(place);
        self.push_event(kind, caller, position, assignment, reason);
    }

    fn publish_gone(
        &mut self,
        kind: EventKind,
        caller: &Caller,
        assignment: Option<&Assignment>,
        reason: &str,
    ) {
        self.push_event(kind, caller.clone(), 0, assignment, reason);
    }

    fn push_event(
        &mut self,
        kind: EventKind,
        caller: Caller,
        position: u32,
        assignment: Option<&Assignment>,
        reason: &str,
    ) {
        let queue = self.queues.get(&caller.queue);
        self.outputs.push_back(Output::Publish(Event {
            kind,
            queue: queue.map(|it| it.settings.name().to_owned()).unwrap_or_default(),
            position,
            in_queue: queue.map(|it| it.line.count().in_queue).unwrap_or_default(),
            assignment: assignment.cloned(),
            reason: reason.to_owned(),
            caller,
        }));
    }
}
