//! Tasks and refusals on the wire.

use super::forward::{Unrouted, not_owner};
use crate::commits::{Declined, Unmoved};
use crate::fields::Bad;
use crate::store::{self, Changed, Task};
use crate::watch::Unwatched;
use proto::scheduler::v1::{
    self as wire, CancelOutcome, HangupCall, PlayToCall, PublishMessage, TaskEvent, TransferCall,
    task, transfer_call,
};
use proto::sip_edge::v1::{CallPlan, Legs as WireLegs};
use tonic::Status;
use tracing::warn;
use wheel::{Effect, Legs, Repeat, State, TransferTo};

/// The task on the wire.
pub(crate) fn task(task: &Task) -> wire::Task {
    wire::Task {
        task_id: task.id.to_string(),
        call_id: task.call_id.clone(),
        state: state(task.state).into(),
        fires_at_unix_ms: task.fires_at_unix_ms,
        revision: task.revision,
        action: Some(action(&task.effect)),
        group: task.group.clone(),
        label: task.label.clone(),
        created_unix_ms: task.created_unix_ms,
        ended_unix_ms: task.ended_unix_ms,
        late_ms: task.late_ms,
        result: task.result.clone(),
        edge: task.edge.clone(),
        tenant: task.tenant.clone(),
        repeat: task.repeat.map(repeat),
        occurrence: task.occurrence,
        missed: task.missed,
        remaining_ms: task.remaining_ms,
        cancel_requested: task.cancel_requested,
    }
}

/// The change as an event, with the same id wherever and however often it is told.
pub(crate) fn event(change: &Changed) -> TaskEvent {
    TaskEvent {
        event_id: format!("{}/{}", change.task.id, change.task.revision),
        at_unix_ms: change.at_unix_ms,
        task: Some(task(&change.task)),
    }
}

fn action(effect: &Effect) -> task::Action {
    match effect {
        Effect::HangUp { cause, legs, .. } => {
            task::Action::Hangup(HangupCall { cause: cause.clone(), legs: wire_legs(*legs) })
        }
        Effect::Transfer { to: TransferTo::Uri(uri), .. } => {
            let to = Some(transfer_call::To::Uri(uri.clone()));
            task::Action::Transfer(TransferCall { to })
        }
        Effect::Transfer { to: TransferTo::Plan(json), .. } => {
            // What a newer build has stored may hold more than this one knows.
            let plan = proto::json::kept_from_json::<CallPlan>(json).unwrap_or_default();
            task::Action::Transfer(TransferCall { to: Some(transfer_call::To::Plan(plan)) })
        }
        Effect::Play { file, legs, .. } => {
            task::Action::Play(PlayToCall { file: file.clone(), legs: wire_legs(*legs) })
        }
        Effect::Publish { subject, payload } => task::Action::Publish(PublishMessage {
            subject: subject.clone(),
            payload: payload.clone(),
        }),
    }
}

fn wire_legs(legs: Legs) -> i32 {
    match legs {
        Legs::Both => WireLegs::Both.into(),
        Legs::A => WireLegs::A.into(),
        Legs::B => WireLegs::B.into(),
    }
}

fn repeat(repeat: Repeat) -> wire::Repeat {
    wire::Repeat {
        every_ms: i64::try_from(repeat.every_ms).unwrap_or(i64::MAX),
        count: repeat.count.unwrap_or(0),
        until_unix_ms: repeat.until_unix_ms.unwrap_or(0),
    }
}

fn state(state: State) -> wire::TaskState {
    match state {
        State::Pending => wire::TaskState::Pending,
        State::Firing => wire::TaskState::Firing,
        State::Fired => wire::TaskState::Fired,
        State::Cancelled => wire::TaskState::Cancelled,
        State::Expired => wire::TaskState::Expired,
        State::Failed => wire::TaskState::Failed,
        State::Paused => wire::TaskState::Paused,
    }
}

/// What to say to a cancel that found the task in this state. A failed task has had no effect, so
/// nothing fired.
pub(super) fn too_late(state: State) -> CancelOutcome {
    match state {
        State::Firing => CancelOutcome::AlreadyFiring,
        State::Fired => CancelOutcome::AlreadyFired,
        State::Pending | State::Paused | State::Cancelled | State::Expired | State::Failed => {
            CancelOutcome::NotFound
        }
    }
}

pub(super) fn refusal(status: &Status) -> wire::Refusal {
    wire::Refusal { code: i32::from(status.code()), message: status.message().to_owned() }
}

pub(super) fn unreadable(e: store::Error) -> Status {
    warn!("failed to read the database: {e}");
    Status::unavailable("the database does not answer; try again")
}

impl From<Bad> for Status {
    fn from(bad: Bad) -> Self {
        Self::invalid_argument(bad.to_string())
    }
}

impl From<Unrouted> for Status {
    fn from(unrouted: Unrouted) -> Self {
        not_owner(unrouted.to_string())
    }
}

impl From<Declined> for Status {
    fn from(declined: Declined) -> Self {
        let message = declined.to_string();
        match declined {
            Declined::KeyTaken(_) => Self::already_exists(message),
            Declined::TooManyTasks { .. }
            | Declined::TooManyOfCall { .. }
            | Declined::TooManyOfTenant { .. } => Self::resource_exhausted(message),
        }
    }
}

impl From<Unmoved> for Status {
    fn from(unmoved: Unmoved) -> Self {
        let message = unmoved.to_string();
        match unmoved {
            Unmoved::NotFound => Self::not_found(message),
            Unmoved::WrongState(_) => Self::failed_precondition(message),
            Unmoved::OutOfRange { .. } => Self::invalid_argument(message),
            Unmoved::Revision { .. } => Self::aborted(message),
        }
    }
}

impl From<Unwatched> for Status {
    fn from(unwatched: Unwatched) -> Self {
        let message = unwatched.to_string();
        match unwatched {
            Unwatched::TooMany { .. } => Self::resource_exhausted(message),
            Unwatched::Forgotten => Self::out_of_range(message),
            Unwatched::Unreadable(_) | Unwatched::Draining => Self::unavailable(message),
        }
    }
}
