//! A call that outlives its process: what is kept of one whose leg A stands, and how it goes on.
//!
//! Commands that had no reply may have been done or not: those of the running step are given again,
//! and each of them may come twice. An attempt at a leg B and a leg on its way into a place are
//! given up: whoever asked for it asks again. Those who waited for an answer are gone.

use crate::attempt::Attempt;
use crate::call::{Call, Facts, Purpose};
use crate::effect::Effects;
use crate::leg::{Leg, LegState};
use crate::output::CallState;
use crate::step::{Origin, Step};
use crate::{Action, AgentOrder, LegNumber, LegSignal, MediaCommand, Now, Plan, RingResult, Side};
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// So far the numbers of commands jump: more than are given between two snapshots, so that no two
/// commands of a call have the same.
const COMMAND_GAP: u64 = 1_000_000;

/// What another process needs to go on with a call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    call_id: String,
    from_uri: String,
    to_uri: String,
    route: String,
    originated: bool,
    a: KeptLeg,
    /// The ACK of our 200 to leg A is here.
    is_acknowledged: bool,
    b: Option<KeptLeg>,
    assignment_id: Option<String>,
    is_connected: bool,
    next_leg: u32,
    plan: Plan,
    next_action: usize,
    action: Option<Action>,
    step: Step,
    step_until_unix_ms: Option<i64>,
    queue: Option<String>,
    place_since_unix_ms: Option<i64>,
    conference: String,
    tasks: Vec<(String, String)>,
    may_have_task: bool,
    next_command: u64,
    has_originated: bool,
    last_ring: Option<(String, RingResult)>,
    created_unix_ms: i64,
    answered_unix_ms: Option<i64>,
    effects: Effects,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct KeptLeg {
    number: LegNumber,
    remote_uri: String,
    held: bool,
}

impl Snapshot {
    pub fn call_id(&self) -> &str {
        &self.call_id
    }

    /// The legs that the call goes on with; of others the shell may have snapshots, too.
    pub fn legs(&self) -> impl Iterator<Item = LegNumber> {
        let b = self.b.as_ref().map(|leg| leg.number);
        std::iter::once(self.a.number).chain(b)
    }

    /// Our 200 is out and leg A may take itself for answered, but its ACK is not here.
    pub fn is_being_answered(&self) -> bool {
        !self.is_acknowledged
    }
}

impl Call {
    /// What is to be kept of the call now; `None` if its leg A does not stand, or not any more.
    pub fn snapshot(&self, now: Now) -> Option<Snapshot> {
        let is_acknowledged = match &self.a.state {
            LegState::Confirmed => true,
            LegState::AwaitingAck if !self.a.late_offer => false,
            _ => return None,
        };
        let stands = |it: &&Attempt| it.leg.is_confirmed() && !it.is_borrowed;
        let b = self.b.as_ref().filter(stands);
        let unix_ms = |at: Instant| {
            let left = at.saturating_duration_since(now.instant).as_millis();
            now.unix_ms.saturating_add(i64::try_from(left).unwrap_or(i64::MAX))
        };
        Some(Snapshot {
            call_id: self.facts.call_id.clone(),
            from_uri: self.facts.from_uri.clone(),
            to_uri: self.facts.to_uri.clone(),
            route: self.facts.route.clone(),
            originated: self.originated,
            a: KeptLeg::of(&self.a),
            is_acknowledged,
            b: b.map(|it| KeptLeg::of(&it.leg)),
            assignment_id: b.and_then(|it| it.assignment_id.clone()),
            is_connected: self.state == CallState::Connected,
            next_leg: self.next_leg,
            plan: self.plan.clone(),
            next_action: self.next_action,
            action: self.action.clone(),
            step: self.step.clone(),
            step_until_unix_ms: self.step_until.map(unix_ms),
            queue: self.queue.clone(),
            place_since_unix_ms: self.place_since.map(|it| ago(now, it)),
            conference: self.conference.clone(),
            tasks: self.tasks.clone(),
            may_have_task: self.may_have_task || self.is_scheduling(),
            next_command: self.next_command,
            has_originated: self.has_originated,
            last_ring: self.last_ring.clone(),
            created_unix_ms: self.created_unix_ms,
            answered_unix_ms: self.answered_unix_ms,
            effects: self.effects.clone(),
        })
    }

    fn is_scheduling(&self) -> bool {
        self.pending.iter().any(|it| matches!(it.purpose, Purpose::Schedule { .. }))
    }

    /// Goes on with a call of another process; what that takes is asked for at once.
    pub fn restore(now: Now, snapshot: Snapshot) -> Self {
        let is_acknowledged = snapshot.is_acknowledged;
        let mut call = Self::of_snapshot(now, snapshot);
        if call.b.is_none() {
            // An attempt that was under way may have left its side at media-relay.
            call.media(MediaCommand::Delete { side: Some(Side::B) });
        }
        match is_acknowledged {
            true => call.resume(now),
            // It was on its way, or has got lost with us: the shell finds out whether leg A is there.
            false => call.handle_a(now, LegSignal::Acknowledged { sdp: None }),
        }
        call
    }

    fn of_snapshot(now: Now, snapshot: Snapshot) -> Self {
        let Snapshot { call_id, from_uri, to_uri, route, .. } = snapshot;
        let facts = Facts { call_id, from_uri, to_uri, route };
        let mut a = snapshot.a.leg(Side::A);
        if !snapshot.is_acknowledged {
            a.state = LegState::AwaitingAck;
        }
        let attempt = |leg: KeptLeg| Attempt {
            leg: leg.leg(Side::B),
            rivals: Vec::new(),
            assignment_id: snapshot.assignment_id,
            requests: Vec::new(),
            ring_until: None,
            is_borrowed: false,
            bridge: None,
        };
        let state = match (snapshot.is_acknowledged, snapshot.is_connected) {
            (false, _) => CallState::Early,
            (true, false) => CallState::Answered,
            (true, true) => CallState::Connected,
        };
        let until = |unix_ms: i64| {
            let left = u64::try_from(unix_ms.saturating_sub(now.unix_ms)).unwrap_or(0);
            now.instant + Duration::from_millis(left)
        };
        let since = |unix_ms: i64| {
            let ago = u64::try_from(now.unix_ms.saturating_sub(unix_ms)).unwrap_or(0);
            now.instant.checked_sub(Duration::from_millis(ago)).unwrap_or(now.instant)
        };
        Self {
            state,
            originated: snapshot.originated,
            b: snapshot.b.map(attempt),
            next_leg: snapshot.next_leg,
            next_action: snapshot.next_action,
            action: snapshot.action,
            step: snapshot.step,
            step_until: snapshot.step_until_unix_ms.map(until),
            queue: snapshot.queue,
            place_since: snapshot.place_since_unix_ms.map(since),
            conference: snapshot.conference,
            tasks: snapshot.tasks,
            may_have_task: snapshot.may_have_task,
            has_media: true,
            next_command: snapshot.next_command.saturating_add(COMMAND_GAP),
            has_originated: snapshot.has_originated,
            last_ring: snapshot.last_ring,
            created_unix_ms: snapshot.created_unix_ms,
            answered_unix_ms: snapshot.answered_unix_ms,
            effects: snapshot.effects,
            ..Self::new(now, facts, snapshot.plan, a)
        }
    }

    /// Takes the running step up where it was, with what may not have been done.
    fn resume(&mut self, now: Now) {
        if self.state == CallState::Connected {
            return;
        }
        if self.b.is_some() {
            return self.join_legs(now); // Both have answered, and may not be connected yet.
        }
        match (self.step.clone(), self.action.clone()) {
            (Step::Idle, _) => self.run_next(now),
            (Step::AwaitingAnswer | Step::Dialing, Some(action)) => self.begin(now, action),
            (Step::Scheduling(number), Some(Action::Schedule { after_ms, what, name })) => {
                self.schedule_as(now, number, (after_ms, what, name)); // Once, by its number.
            }
            (Step::Cancelling { .. }, _) => self.ask_to_cancel(now),
            (Step::TellingOfAgent, Some(Action::Agent { does: AgentOrder::Toggle, .. })) => {
                self.run_next(now); // Twice would be as good as never.
            }
            (Step::TellingOfAgent, Some(action)) => self.begin(now, action),
            (Step::Playing(playing), action) if playing.is_starting() => {
                match (playing.origin, action) {
                    (Origin::Plan, Some(action)) => self.begin(now, action),
                    _ => self.enter(Step::Parked),
                }
            }
            (Step::Collecting(collecting), _) => self.resume_collecting(now, &collecting),
            (Step::Joining(conference), _) => self.join(now, conference),
            (Step::Entering(_), Some(Action::Enqueue(enqueue))) => {
                let since = self.place_since.unwrap_or(now.instant);
                self.begin_entering(now, &enqueue, since);
            }
            (Step::Waiting { .. }, _) => self.resume_waiting(now),
            _ => (), // It goes on by itself.
        }
    }
}

/// A moment that is over, in Unix ms.
fn ago(now: Now, moment: Instant) -> i64 {
    let ago = now.instant.saturating_duration_since(moment).as_millis();
    now.unix_ms.saturating_sub(i64::try_from(ago).unwrap_or(i64::MAX))
}

impl KeptLeg {
    fn of(leg: &Leg) -> Self {
        Self { number: leg.number, remote_uri: leg.remote_uri.clone(), held: leg.held }
    }

    fn leg(self, side: Side) -> Leg {
        let Self { number, remote_uri, held } = self;
        Leg { state: LegState::Confirmed, held, ..Leg::outbound(number, side, remote_uri) }
    }
}
