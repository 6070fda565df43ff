//! The API: `scheduler.v1.Scheduler`.

use crate::clock::{Clock, Moment};
use crate::commits::{Cancelled, Commits, Declined, Unmoved, Unwritten};
use crate::fields::{self, Bad};
use crate::store::{self, Cursor, Ending, Filter, Scope, Store, Task};
use prost::Message as _;
use proto::scheduler::v1::scheduler_server::Scheduler;
use proto::scheduler::v1::{
    self as wire, CancelGroupRequest, CancelGroupResponse, CancelOutcome, CancelRequest,
    CancelResponse, GetRequest, HangupCall, ListRequest, ListResponse, RescheduleRequest,
    ScheduleRequest, reschedule_request, schedule_request, task,
};
use proto::sip_edge::v1::HangupCause;
use tonic::{Request, Response, Status};
use tracing::warn;
use uuid::Uuid;
use wheel::{Event, State, TaskId, Tick};

/// A page ends after so many bytes, so that it fits the 4 MiB that gRPC clients take by default.
const PAGE_BYTES_MAX: usize = 3 << 20;
const DEFAULT_CAUSE: HangupCause = HangupCause::AllottedTimeout;

pub(crate) struct Api {
    pub(crate) clock: Clock,
    pub(crate) commits: Commits,
    pub(crate) store: Store,
}

#[tonic::async_trait]
impl Scheduler for Api {
    type WatchStream = futures::stream::Empty<Result<wire::WatchResponse, Status>>;

    async fn schedule_many(
        &self,
        _: Request<wire::ScheduleManyRequest>,
    ) -> Result<Response<wire::ScheduleManyResponse>, Status> {
        Err(not_yet())
    }

    async fn pause(
        &self,
        _: Request<wire::PauseRequest>,
    ) -> Result<Response<wire::PauseResponse>, Status> {
        Err(not_yet())
    }

    async fn resume(
        &self,
        _: Request<wire::ResumeRequest>,
    ) -> Result<Response<wire::ResumeResponse>, Status> {
        Err(not_yet())
    }

    async fn watch(
        &self,
        _: Request<wire::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        Err(not_yet())
    }

    async fn schedule(
        &self,
        request: Request<ScheduleRequest>,
    ) -> Result<Response<wire::Task>, Status> {
        let now = self.clock.moment();
        let request = request.into_inner();
        let (fires_at_unix_ms, due) = match request.when {
            Some(schedule_request::When::AfterMs(ms)) => after(now, ms)?,
            Some(schedule_request::When::AtUnixMs(ms)) => at(now, ms)?,
            None => return Err(missing_when()),
        };
        let task = Task {
            id: TaskId(Uuid::now_v7().as_u128()),
            call_id: fields::call_id(&request.call_id)?,
            state: State::Pending,
            fires_at_unix_ms,
            revision: 1,
            cause: cause(request.action)?,
            group: fields::text("group", request.group, fields::GROUP_MAX_BYTES)?,
            label: fields::text("label", request.label, fields::LABEL_MAX_BYTES)?,
            created_unix_ms: now.unix_ms(),
            ended_unix_ms: 0,
            late_ms: 0,
            result: String::new(),
        };
        let key = request.idempotency_key;
        let key = fields::text("idempotency_key", key, fields::KEY_MAX_BYTES)?;
        let stored = self.commits.schedule(task, key, due).await??;
        Ok(Response::new(self::task(&stored)))
    }

    async fn cancel(
        &self,
        request: Request<CancelRequest>,
    ) -> Result<Response<CancelResponse>, Status> {
        let CancelRequest { task_id, by } = request.into_inner();
        let id = fields::task_id(&task_id)?;
        let cancelled = self.commits.cancel(id, self.cancelled_by(by)?).await?;
        let (outcome, task) = match cancelled {
            Cancelled::Now(task) => (CancelOutcome::Cancelled, Some(task)),
            Cancelled::TooLate(task) => (too_late(task.state), Some(task)),
            Cancelled::NotFound => (CancelOutcome::NotFound, None),
        };
        let task = task.as_ref().map(self::task);
        Ok(Response::new(CancelResponse { outcome: outcome.into(), task }))
    }

    async fn cancel_group(
        &self,
        request: Request<CancelGroupRequest>,
    ) -> Result<Response<CancelGroupResponse>, Status> {
        let CancelGroupRequest { group, call_id, by, .. } = request.into_inner();
        let scope = match (group.is_empty(), call_id.is_empty()) {
            (false, true) => Scope::Group(fields::text("group", group, fields::GROUP_MAX_BYTES)?),
            (true, false) => Scope::Call(fields::call_id(&call_id)?),
            (true, true) => return Err(Bad::missing("group", "either group or call_id").into()),
            (false, false) => {
                return Err(Bad::text("group", &group, "either group or call_id, not both").into());
            }
        };
        let ending = self.cancelled_by(by)?;
        let (cancelled, firing) = self.commits.end_all(scope, Event::Cancelled, ending).await?;
        Ok(Response::new(CancelGroupResponse { cancelled, firing }))
    }

    async fn reschedule(
        &self,
        request: Request<RescheduleRequest>,
    ) -> Result<Response<wire::Task>, Status> {
        let now = self.clock.moment();
        let request = request.into_inner();
        let id = fields::task_id(&request.task_id)?;
        let revision = fields::revision(request.revision)?;
        let at = match request.when {
            Some(reschedule_request::When::AfterMs(ms)) => after(now, ms)?,
            Some(reschedule_request::When::AtUnixMs(ms)) => at(now, ms)?,
            Some(reschedule_request::When::ExtendMs(_)) => return Err(not_yet()),
            None => return Err(missing_when()),
        };
        let moved = self.commits.reschedule(id, revision, at).await??;
        Ok(Response::new(self::task(&moved)))
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<wire::Task>, Status> {
        let id = fields::task_id(&request.into_inner().task_id)?;
        let task = self.store.get(id).await.map_err(unreadable)?;
        let task = task.ok_or_else(|| Status::not_found(format!("no task {id}")))?;
        Ok(Response::new(self::task(&task)))
    }

    async fn list(&self, request: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        let request = request.into_inner();
        let call_id = match request.call_id.as_str() {
            "" => String::new(),
            call_id => fields::call_id(call_id)?,
        };
        let limit = fields::page_size(request.page_size)?;
        let filter = Filter {
            call_id,
            group: fields::text("group", request.group, fields::GROUP_MAX_BYTES)?,
            states: fields::states(&request.states)?,
            after: fields::cursor(&request.page_token)?,
            limit,
        };
        let size = |task: &Task| self::task(task).encoded_len();
        let page = self.store.list(&filter, PAGE_BYTES_MAX, size).await.map_err(unreadable)?;
        let bytes: usize = page.iter().map(size).sum();
        let full = page.len() == limit as usize || bytes > PAGE_BYTES_MAX;
        let last = page.last().filter(|_| full);
        let next_page_token = last.map(|last| {
            fields::page_token(Cursor { fires_at_unix_ms: last.fires_at_unix_ms, id: last.id })
        });
        Ok(Response::new(ListResponse {
            tasks: page.iter().map(self::task).collect(),
            next_page_token: next_page_token.unwrap_or_default(),
        }))
    }
}

impl Api {
    fn cancelled_by(&self, by: String) -> Result<Ending, Bad> {
        let by = fields::text("by", by, fields::BY_MAX_BYTES)?;
        let by = if by.is_empty() { "api".to_owned() } else { by };
        let ended_unix_ms = self.clock.moment().unix_ms();
        Ok(Ending { ended_unix_ms, late_ms: 0, result: by })
    }
}

/// The task on the wire.
pub(crate) fn task(task: &Task) -> wire::Task {
    wire::Task {
        task_id: task.id.to_string(),
        call_id: task.call_id.clone(),
        state: state(task.state).into(),
        fires_at_unix_ms: task.fires_at_unix_ms,
        revision: task.revision,
        action: Some(task::Action::Hangup(HangupCall { cause: task.cause.clone(), legs: 0 })),
        group: task.group.clone(),
        label: task.label.clone(),
        created_unix_ms: task.created_unix_ms,
        ended_unix_ms: task.ended_unix_ms,
        late_ms: task.late_ms,
        result: task.result.clone(),
        ..wire::Task::default()
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

/// What to say to a cancel that found the task in this state.
fn too_late(state: State) -> CancelOutcome {
    match state {
        State::Firing => CancelOutcome::AlreadyFiring,
        State::Fired | State::Failed => CancelOutcome::AlreadyFired,
        State::Pending | State::Paused | State::Cancelled | State::Expired => {
            CancelOutcome::NotFound
        }
    }
}

fn not_yet() -> Status {
    Status::unimplemented("this build only has it in its .proto")
}

fn after(now: Moment, ms: i64) -> Result<(i64, Tick), Bad> {
    fields::after_ms(ms).map(|ms| now.after(ms))
}

fn at(now: Moment, unix_ms: i64) -> Result<(i64, Tick), Bad> {
    fields::at_unix_ms(unix_ms, now.unix_ms()).map(|unix_ms| (unix_ms, now.at(unix_ms)))
}

fn missing_when() -> Status {
    Bad::missing("when", "after_ms or at_unix_ms").into()
}

/// The hangup cause by its name.
fn cause(action: Option<schedule_request::Action>) -> Result<String, Bad> {
    let Some(schedule_request::Action::Hangup(HangupCall { cause, .. })) = action else {
        return Err(Bad::missing("action", "hangup"));
    };
    if cause.is_empty() {
        return Ok(DEFAULT_CAUSE.as_str_name().to_owned());
    }
    match HangupCause::from_str_name(&cause) {
        Some(HangupCause::Unspecified) | None => {
            let wanted = "a name of sip_edge.v1.HangupCause, e.g. \"ALLOTTED_TIMEOUT\"";
            Err(Bad::text("hangup.cause", &cause, wanted))
        }
        Some(_) => Ok(cause),
    }
}

fn unreadable(e: store::Error) -> Status {
    warn!("failed to read the database: {e}");
    Status::unavailable("the database does not answer; try again")
}

impl From<Bad> for Status {
    fn from(bad: Bad) -> Self {
        Self::invalid_argument(bad.to_string())
    }
}

impl From<Unwritten> for Status {
    fn from(unwritten: Unwritten) -> Self {
        Self::unavailable(unwritten.to_string())
    }
}

impl From<Declined> for Status {
    fn from(declined: Declined) -> Self {
        let message = declined.to_string();
        match declined {
            Declined::KeyTaken(_) => Self::already_exists(message),
            Declined::TooManyTasks { .. } | Declined::TooManyOfCall { .. } => {
                Self::resource_exhausted(message)
            }
        }
    }
}

impl From<Unmoved> for Status {
    fn from(unmoved: Unmoved) -> Self {
        let message = unmoved.to_string();
        match unmoved {
            Unmoved::NotFound => Self::not_found(message),
            Unmoved::NotPending(_) => Self::failed_precondition(message),
            Unmoved::Revision { .. } => Self::aborted(message),
        }
    }
}
