//! Our values as protobuf, and back.

use super::{RingAnswer, invalid};
use crate::desk::Retrieved;
use proto::queue::v1 as pb;
use proto::sip_edge::v1::HangupCause;
use queue::{
    AgentEvent, AgentState, AgentView, Assignment, Caller, CallerState, EmptyRule, Expected,
    Presence, QueueId, Queues, Settings, SettingsRow, Strategy, UnixMs, View, Work,
};
use tonic::Status;

pub(super) fn view(view: &View<'_>, now: UnixMs) -> pb::Caller {
    caller(view.caller, view.settings.name(), view.position, view.expected, now)
}

pub(crate) fn caller(
    caller: &Caller,
    queue: &str,
    position: u32,
    expected: Option<Expected>,
    now: UnixMs,
) -> pb::Caller {
    let status = match caller.state {
        CallerState::Entering => pb::CallStatus::Entering,
        CallerState::InQueue => pb::CallStatus::InQueue,
        CallerState::Leaving(_) => pb::CallStatus::Leaving,
    };
    let agent = caller.assignment().map(Assignment::addresses);
    pb::Caller {
        call_id: caller.call_id.as_str().to_owned(),
        queue: queue.to_owned(),
        position,
        status: status.into(),
        from: caller.from.clone(),
        contact: caller.contact.clone(),
        arrived_unix_ms: caller.arrived_at,
        waited_ms: caller.waited_ms(now),
        agent: agent.unwrap_or_default(),
        priority: u32::from(caller.place.priority.0),
        expected_wait: expected.map(self::expected),
    }
}

pub(super) fn expected(expected: Expected) -> pb::ExpectedWait {
    pb::ExpectedWait { median_ms: expected.median_ms, p90_ms: expected.p90_ms }
}

pub(super) fn agent(queues: &Queues, view: &AgentView<'_>) -> pb::Agent {
    let (agent, settings) = (view.agent, &view.agent.settings);
    let (logged_in, paused) = presence(&agent.presence);
    let memberships = settings.memberships.iter().filter_map(|it| {
        let queue = queues.queue_by_id(it.queue).ok()?.name().to_owned();
        let (level, order, weight) = (it.level, it.order, it.weight);
        Some(pb::Membership { queue, level, order, weight })
    });
    let call_id = match &agent.work {
        Work::Ringing { call_id, .. } | Work::Talking { call_id, .. } => call_id.to_string(),
        Work::Free | Work::WrapUp { .. } => String::new(),
    };
    pb::Agent {
        name: settings.name.to_string(),
        address: settings.address.as_str().to_owned(),
        queues: memberships.collect(),
        wrap_up_ms: settings.wrap_up_ms,
        reject_delay_ms: settings.reject_delay_ms,
        busy_delay_ms: settings.busy_delay_ms,
        no_answer_delay_ms: settings.no_answer_delay_ms,
        max_missed: settings.max_missed,
        state: agent_state(view.state).into(),
        logged_in,
        paused,
        call_id,
        idle_since_unix_ms: agent.idle_since,
        missed: agent.missed,
    }
}

pub(crate) fn agent_status(event: &AgentEvent) -> pb::AgentStatus {
    let (logged_in, paused) = presence(&event.presence);
    pb::AgentStatus {
        name: event.agent.to_string(),
        state: agent_state(event.state).into(),
        logged_in,
        paused,
        call_id: event.call_id.as_ref().map(ToString::to_string).unwrap_or_default(),
    }
}

/// Whether logged in, and why paused.
fn presence(presence: &Presence) -> (bool, String) {
    match presence {
        Presence::LoggedOut => (false, String::new()),
        Presence::Ready => (true, String::new()),
        Presence::Paused(why) => (true, why.clone()),
    }
}

pub(super) fn agent_state(state: AgentState) -> pb::AgentState {
    match state {
        AgentState::Offline => pb::AgentState::Offline,
        AgentState::Idle => pb::AgentState::Idle,
        AgentState::Ringing => pb::AgentState::Ringing,
        AgentState::Busy => pb::AgentState::Busy,
        AgentState::WrapUp => pb::AgentState::WrapUp,
        AgentState::Paused => pb::AgentState::Paused,
    }
}

pub(super) fn queue(id: QueueId, settings: &Settings) -> pb::Queue {
    let row = settings.row();
    pb::Queue {
        id: u64::try_from(id.0).unwrap_or_default(),
        name: row.name.clone(),
        uri: row.uri.clone(),
        mohdir: row.mohdir.clone(),
        mohfile: row.mohfile.clone(),
        debug: row.debug,
        max_calls: row.max_calls,
        strategy: match row.strategy {
            Strategy::LongestIdle => pb::Strategy::LongestIdle,
            Strategy::RoundRobin => pb::Strategy::RoundRobin,
            Strategy::Linear => pb::Strategy::Linear,
            Strategy::RingAll => pb::Strategy::RingAll,
        }
        .into(),
        ring_timeout_ms: row.ring_ms,
        service_level_ms: row.service_level_ms,
        max_wait_ms: row.max_wait_ms,
        join_empty: empty_rule(row.join_empty).into(),
        leave_empty: empty_rule(row.leave_empty).into(),
        overflow: row.overflow.clone(),
        announce_every_ms: row.announce_every_ms,
        announce_first_ms: row.announce_first_ms,
        announce_position: row.announce_position,
        announce_wait: row.announce_wait,
        periodic_every_ms: row.periodic_every_ms,
        periodic: row.periodic.clone(),
    }
}

fn empty_rule(rule: EmptyRule) -> pb::EmptyRule {
    match rule {
        EmptyRule::Never => pb::EmptyRule::Never,
        EmptyRule::LoggedOut => pb::EmptyRule::LoggedOut,
        EmptyRule::Unavailable => pb::EmptyRule::Unavailable,
    }
}

fn read_rule(field: &'static str, rule: i32) -> Result<EmptyRule, Status> {
    match pb::EmptyRule::try_from(rule) {
        Ok(pb::EmptyRule::Unspecified | pb::EmptyRule::Never) => Ok(EmptyRule::Never),
        Ok(pb::EmptyRule::LoggedOut) => Ok(EmptyRule::LoggedOut),
        Ok(pb::EmptyRule::Unavailable) => Ok(EmptyRule::Unavailable),
        Err(_) => Err(invalid(field, rule, "NEVER, LOGGED_OUT or UNAVAILABLE")),
    }
}

fn read_strategy(strategy: i32) -> Result<Strategy, Status> {
    match pb::Strategy::try_from(strategy) {
        Ok(pb::Strategy::Unspecified | pb::Strategy::LongestIdle) => Ok(Strategy::LongestIdle),
        Ok(pb::Strategy::RoundRobin) => Ok(Strategy::RoundRobin),
        Ok(pb::Strategy::Linear) => Ok(Strategy::Linear),
        Ok(pb::Strategy::RingAll) => Ok(Strategy::RingAll),
        Err(_) => {
            Err(invalid("strategy", strategy, "LONGEST_IDLE, ROUND_ROBIN, LINEAR or RING_ALL"))
        }
    }
}

/// # Errors
/// If an enum has a number that is none of its.
pub(super) fn settings_row(queue: pb::Queue) -> Result<SettingsRow, Status> {
    Ok(SettingsRow {
        name: queue.name,
        uri: queue.uri,
        mohdir: queue.mohdir,
        mohfile: queue.mohfile,
        debug: queue.debug,
        max_calls: queue.max_calls,
        strategy: read_strategy(queue.strategy)?,
        ring_ms: queue.ring_timeout_ms,
        service_level_ms: queue.service_level_ms,
        max_wait_ms: queue.max_wait_ms,
        join_empty: read_rule("join_empty", queue.join_empty)?,
        leave_empty: read_rule("leave_empty", queue.leave_empty)?,
        overflow: queue.overflow,
        announce_every_ms: queue.announce_every_ms,
        announce_first_ms: queue.announce_first_ms,
        announce_position: queue.announce_position,
        announce_wait: queue.announce_wait,
        periodic_every_ms: queue.periodic_every_ms,
        periodic: queue.periodic,
    })
}

/// A hangup cause that exists; NORMAL_CLEARING if none is given.
pub(super) fn cause(name: &str) -> Result<&'static str, Status> {
    let name = if name.is_empty() { "NORMAL_CLEARING" } else { name };
    match HangupCause::from_str_name(name) {
        Some(cause) if cause != HangupCause::Unspecified => Ok(cause.as_str_name()),
        _ => Err(invalid("cause", name, "the name of a HangupCause, e.g. NORMAL_CLEARING")),
    }
}

/// What the operator is told.
pub(super) fn retrieved(retrieved: Retrieved) -> Result<pb::RetrieveResponse, Status> {
    use pb::RetrieveOutcome as Outcome;
    let call_id = retrieved.call_id.as_str();
    let kept = |why: &str| format!("{why}; caller {call_id} keeps the place");
    let (outcome, sip_status) = match &retrieved.answer {
        RingAnswer::Connected { sip_status, .. } => (Outcome::Connected, *sip_status),
        RingAnswer::NoAnswer { sip_status, .. } => (Outcome::NoAnswer, *sip_status),
        RingAnswer::Busy { sip_status } => (Outcome::Busy, *sip_status),
        RingAnswer::Declined { sip_status } => (Outcome::Declined, *sip_status),
        RingAnswer::Unreachable { sip_status } => (Outcome::Unreachable, *sip_status),
        RingAnswer::CallerGone | RingAnswer::Stale => (Outcome::CallerGone, 0),
        RingAnswer::BadAgent(why) => return Err(Status::invalid_argument(kept(why))),
        RingAnswer::Unavailable(why) => return Err(Status::unavailable(kept(why))),
    };
    Ok(pb::RetrieveResponse {
        outcome: outcome.into(),
        call_id: call_id.to_owned(),
        assignment_id: retrieved.assignment_id.as_str().to_owned(),
        waited_ms: retrieved.waited_ms,
        sip_status,
    })
}
