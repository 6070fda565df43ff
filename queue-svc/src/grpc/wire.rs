//! Our values as protobuf, and back.

use super::{RingAnswer, invalid};
use crate::desk::Retrieved;
use proto::queue::v1 as pb;
use proto::sip_edge::v1::HangupCause;
use queue::{Caller, CallerState, QueueId, Settings, SettingsRow, UnixMs};
use tonic::Status;

pub(crate) fn caller(caller: &Caller, queue: &str, position: u32, now: UnixMs) -> pb::Caller {
    let status = match caller.state {
        CallerState::Entering => pb::CallStatus::Entering,
        CallerState::InQueue => pb::CallStatus::InQueue,
        CallerState::Leaving(_) => pb::CallStatus::Leaving,
    };
    let agent = caller.assignment().map(|it| it.agent.as_str().to_owned());
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
    }
}

pub(super) fn settings_row(queue: pb::Queue) -> SettingsRow {
    SettingsRow {
        name: queue.name,
        uri: queue.uri,
        mohdir: queue.mohdir,
        mohfile: queue.mohfile,
        debug: queue.debug,
        max_calls: queue.max_calls,
    }
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
        RingAnswer::Connected { sip_status } => (Outcome::Connected, *sip_status),
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
