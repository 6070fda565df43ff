//! The API: `scheduler.v1.Scheduler`. What changes tasks goes to the owner of their shard; what reads
//! them is answered from the database, at any replica.

mod forward;
mod many;
mod sweep;
mod wire;

pub(crate) use forward::Forward;
pub(crate) use wire::{event, task};

use crate::clock::{Clock, Moment, Pinned};
use crate::commits::{Action, Cancelled, Commits, New, To, Unwritten};
use crate::fields::{self, Bad};
use crate::store::{Cursor, Filter, Scope, Store, Task};
use crate::watch::{Position, Wanted, Watches};
use forward::{Hop, forwarded, forwarded_for, not_owner};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use prost::Message as _;
use proto::scheduler::v1::scheduler_server::Scheduler;
use proto::scheduler::v1::{
    self as pb, CancelGroupRequest, CancelGroupResponse, CancelOutcome, CancelRequest,
    CancelResponse, GetRequest, ListRequest, ListResponse, PauseRequest, PauseResponse,
    RescheduleRequest, ResumeRequest, ResumeResponse, ScheduleManyRequest, ScheduleManyResponse,
    ScheduleRequest, ScheduleResult, WatchRequest, WatchResponse, pause_request,
    reschedule_request, resume_request, schedule_request, schedule_result,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use uuid::Uuid;
use wheel::{Event, State, TaskId, Tick, shard_of};

/// A page ends after so many bytes, so that it fits the 4 MiB that gRPC clients take by default.
const PAGE_BYTES_MAX: usize = 3 << 20;
/// Requests in one `ScheduleMany`.
const MANY_MAX: usize = 1_000;

#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) clock: Clock,
    pub(crate) commits: Commits,
    pub(crate) store: Store,
    pub(crate) forward: Forward,
    pub(crate) watches: Watches,
}

#[tonic::async_trait]
impl Scheduler for Api {
    async fn schedule(
        &self,
        request: Request<ScheduleRequest>,
    ) -> Result<Response<pb::Task>, Status> {
        let hop = Hop::of(request.metadata());
        let request = request.into_inner();
        let new = self.new_task(request.clone())?;
        let here = || async {
            let stored = self.commits.schedule(new.clone()).await.map_err(unwritten)??;
            Ok(task(&stored))
        };
        let there = |mut owner: forward::Client| {
            let request = forwarded(request.clone());
            async move { owner.schedule(request).await }
        };
        self.forward.decide((new.task.id.shard(), hop), here, there).await.map(Response::new)
    }

    async fn schedule_many(
        &self,
        request: Request<ScheduleManyRequest>,
    ) -> Result<Response<ScheduleManyResponse>, Status> {
        let hop = Hop::of(request.metadata());
        let ScheduleManyRequest { requests } = request.into_inner();
        let count = requests.len();
        if !(1..=MANY_MAX).contains(&count) {
            let wanted = format!("1 to {MANY_MAX}");
            return Err(Bad::number("requests' number", count as i64, wanted).into());
        }
        let results = self.schedule_all(requests, hop).await?;
        let results = results.into_iter().map(|result| {
            use schedule_result::Result as Wire;
            let result = match result {
                Ok(task) => Wire::Task(Box::new(task)),
                Err(status) => Wire::Refusal(wire::refusal(&status)),
            };
            ScheduleResult { result: Some(result) }
        });
        Ok(Response::new(ScheduleManyResponse { results: results.collect() }))
    }

    async fn cancel(
        &self,
        request: Request<CancelRequest>,
    ) -> Result<Response<CancelResponse>, Status> {
        let hop = Hop::of(request.metadata());
        let request = request.into_inner();
        let id = fields::task_id(&request.task_id)?;
        let by = cancelled_by(request.by.clone())?;
        let here = || async {
            let cancelled = self.commits.cancel(id, by.clone()).await.map_err(unwritten)?;
            let (outcome, task) = match cancelled {
                Cancelled::Now(task) => (CancelOutcome::Cancelled, Some(task)),
                Cancelled::TooLate(task) => (wire::too_late(task.state), Some(task)),
                Cancelled::NotFound => (CancelOutcome::NotFound, None),
            };
            let task = task.as_ref().map(self::task);
            Ok(CancelResponse { outcome: outcome.into(), task })
        };
        let there = |mut owner: forward::Client| {
            let request = forwarded(request.clone());
            async move { owner.cancel(request).await }
        };
        let cancelled = self.forward.decide((id.shard(), hop), here, there).await?;
        Ok(about(cancelled.task.as_ref().map(|it| it.call_id.clone()), cancelled))
    }

    async fn cancel_group(
        &self,
        request: Request<CancelGroupRequest>,
    ) -> Result<Response<CancelGroupResponse>, Status> {
        let asked = sweep::Asked::of(request.metadata())?;
        let request = request.into_inner();
        let CancelGroupRequest { group, call_id, by, tenant, call_ended } = request.clone();
        let scope = match [group.as_str(), &call_id, &tenant].map(str::is_empty) {
            [false, true, true] => {
                Scope::Group(fields::text("group", group, fields::GROUP_MAX_BYTES)?)
            }
            [true, false, true] => Scope::Call(fields::call_id(&call_id)?),
            [true, true, false] => {
                Scope::Tenant(fields::text("tenant", tenant, fields::TENANT_MAX_BYTES)?)
            }
            [true, true, true] => {
                return Err(Bad::missing("group", "one of group, call_id and tenant").into());
            }
            _ => {
                let wanted = "one of group, call_id and tenant, not more";
                return Err(Bad::text("group", &group, wanted).into());
            }
        };
        let action = match (call_ended, &scope) {
            (false, _) => Action::End { event: Event::Cancelled, result: cancelled_by(by)? },
            (true, Scope::Call(_)) => {
                Action::End { event: Event::CallEnded, result: "call ended".to_owned() }
            }
            (true, _) => return Err(Bad::missing("call_id", "the call that has ended").into()),
        };
        let there = |mut owner: forward::Client, shards| {
            let request = forwarded_for(shards, request.clone());
            async move {
                let response = owner.cancel_group(request).await?.into_inner();
                Ok((response.cancelled, response.firing))
            }
        };
        let (cancelled, firing) = self.sweep(asked, &scope, &action, there).await?;
        Ok(Response::new(CancelGroupResponse { cancelled, firing }))
    }

    async fn reschedule(
        &self,
        request: Request<RescheduleRequest>,
    ) -> Result<Response<pb::Task>, Status> {
        let hop = Hop::of(request.metadata());
        let now = self.clock.moment();
        let request = request.into_inner();
        let id = fields::task_id(&request.task_id)?;
        let revision = fields::revision(request.revision)?;
        use reschedule_request::When;
        let at = |(fires_at_unix_ms, due, pinned)| To::At { fires_at_unix_ms, due, pinned };
        let to = match request.when {
            Some(When::AfterMs(ms)) => at(after(now, ms)?),
            Some(When::AtUnixMs(ms)) => at(self::at(now, ms)?),
            Some(When::ExtendMs(ms)) => To::Later { by_ms: fields::extend_ms(ms)? },
            None => return Err(Bad::missing("when", "after_ms, at_unix_ms or extend_ms").into()),
        };
        let here = || async {
            let moved = self.commits.reschedule(id, revision, to).await.map_err(unwritten)??;
            Ok(task(&moved))
        };
        let there = |mut owner: forward::Client| {
            let request = forwarded(request.clone());
            async move { owner.reschedule(request).await }
        };
        let moved = self.forward.decide((id.shard(), hop), here, there).await?;
        Ok(about(Some(moved.call_id.clone()), moved))
    }

    async fn pause(
        &self,
        request: Request<PauseRequest>,
    ) -> Result<Response<PauseResponse>, Status> {
        let hop = Hop::of(request.metadata());
        let asked = sweep::Asked::of(request.metadata())?;
        let request = request.into_inner();
        use pause_request::Scope as Wire;
        let scope = match request.scope.clone() {
            None => return Err(missing_scope()),
            Some(Wire::Group(group)) => self::group(group)?,
            Some(Wire::CallId(call_id)) => Scope::Call(fields::call_id(&call_id)?),
            Some(Wire::TaskId(id)) => {
                let id = fields::task_id(&id)?;
                let here = || async {
                    let paused = self.commits.pause(id).await.map_err(unwritten)??;
                    Ok(PauseResponse { paused: 1, firing: 0, task: Some(task(&paused)) })
                };
                let there = |mut owner: forward::Client| {
                    let request = forwarded(request.clone());
                    async move { owner.pause(request).await }
                };
                let decided = self.forward.decide((id.shard(), hop), here, there).await?;
                return Ok(about(decided.task.as_ref().map(|it| it.call_id.clone()), decided));
            }
        };
        let there = |mut owner: forward::Client, shards| {
            let request = forwarded_for(shards, request.clone());
            async move {
                let response = owner.pause(request).await?.into_inner();
                Ok((response.paused, response.firing))
            }
        };
        let (paused, firing) = self.sweep(asked, &scope, &Action::Pause, there).await?;
        Ok(Response::new(PauseResponse { paused, firing, task: None }))
    }

    async fn resume(
        &self,
        request: Request<ResumeRequest>,
    ) -> Result<Response<ResumeResponse>, Status> {
        let hop = Hop::of(request.metadata());
        let asked = sweep::Asked::of(request.metadata())?;
        let request = request.into_inner();
        use resume_request::Scope as Wire;
        let scope = match request.scope.clone() {
            None => return Err(missing_scope()),
            Some(Wire::Group(group)) => self::group(group)?,
            Some(Wire::CallId(call_id)) => Scope::Call(fields::call_id(&call_id)?),
            Some(Wire::TaskId(id)) => {
                let id = fields::task_id(&id)?;
                let here = || async {
                    let resumed = self.commits.resume(id).await.map_err(unwritten)??;
                    Ok(ResumeResponse { resumed: 1, task: Some(task(&resumed)) })
                };
                let there = |mut owner: forward::Client| {
                    let request = forwarded(request.clone());
                    async move { owner.resume(request).await }
                };
                let decided = self.forward.decide((id.shard(), hop), here, there).await?;
                return Ok(about(decided.task.as_ref().map(|it| it.call_id.clone()), decided));
            }
        };
        let there = |mut owner: forward::Client, shards| {
            let request = forwarded_for(shards, request.clone());
            async move { Ok((owner.resume(request).await?.into_inner().resumed, 0)) }
        };
        let (resumed, _) = self.sweep(asked, &scope, &Action::Resume, there).await?;
        Ok(Response::new(ResumeResponse { resumed, task: None }))
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<pb::Task>, Status> {
        let id = fields::task_id(&request.into_inner().task_id)?;
        let task = self.store.get(id).await.map_err(wire::unreadable)?;
        let task = task.ok_or_else(|| Status::not_found(format!("no task {id}")))?;
        Ok(Response::new(self::task(&task)))
    }

    async fn list(&self, request: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        let filter = filter(request.into_inner())?;
        let size = |task: &Task| self::task(task).encoded_len();
        let page = self.store.list(&filter, PAGE_BYTES_MAX, size).await;
        let page = page.map_err(wire::unreadable)?;
        let tasks: Vec<_> = page.iter().map(self::task).collect();
        let bytes: usize = tasks.iter().map(pb::Task::encoded_len).sum();
        let full = page.len() == filter.limit as usize || bytes > PAGE_BYTES_MAX;
        let last = page.last().filter(|_| full);
        let next_page_token = last.map(|last| {
            fields::page_token(Cursor { fires_at_unix_ms: last.fires_at_unix_ms, id: last.id })
        });
        let next_page_token = next_page_token.unwrap_or_default();
        Ok(Response::new(ListResponse { tasks, next_page_token }))
    }

    type WatchStream = BoxStream<'static, Result<WatchResponse, Status>>;

    async fn watch(
        &self,
        request: Request<WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let WatchRequest { call_id, group, tenant, states, resume_token } = request.into_inner();
        let wanted = Wanted {
            call_id: any_call(&call_id)?,
            group: fields::text("group", group, fields::GROUP_MAX_BYTES)?,
            tenant: fields::text("tenant", tenant, fields::TENANT_MAX_BYTES)?,
            states: fields::states(&states)?,
        };
        let after = match resume_token.as_str() {
            "" => None,
            token => Some(Position::parse(token).ok_or_else(|| {
                Bad::text("resume_token", token, "one of a WatchResponse, or nothing")
            })?),
        };
        let responses = self.watches.begin(wanted, after, event).await?;
        let responses = ReceiverStream::new(responses).map(|it| it.map_err(Status::from));
        Ok(Response::new(responses.boxed()))
    }
}

impl Api {
    /// Expires the tasks of a call that has ended; how many.
    ///
    /// # Errors
    /// If that could not be done, or nobody knows.
    pub(crate) async fn expire(&self, call_id: &str) -> Result<u32, Status> {
        let call_id = call_id.to_owned();
        let request = CancelGroupRequest { call_id, call_ended: true, ..Default::default() };
        let response = self.cancel_group(Request::new(request)).await;
        match response {
            Ok(response) => Ok(response.into_inner().cancelled),
            // Not a call of ours.
            Err(status) if status.code() == tonic::Code::InvalidArgument => Ok(0),
            Err(status) => Err(status),
        }
    }

    /// The task that the request asks for.
    fn new_task(&self, request: ScheduleRequest) -> Result<New, Bad> {
        let now = self.clock.moment();
        let (fires_at_unix_ms, due, pinned) = match request.when {
            Some(schedule_request::When::AfterMs(ms)) => after(now, ms)?,
            Some(schedule_request::When::AtUnixMs(ms)) => at(now, ms)?,
            None => return Err(Bad::missing("when", "after_ms or at_unix_ms")),
        };
        let call_id = any_call(&request.call_id)?;
        let effect = fields::effect(&call_id, request.action)?;
        let group = fields::text("group", request.group, fields::GROUP_MAX_BYTES)?;
        let key = request.idempotency_key;
        let key = fields::text("idempotency_key", key, fields::KEY_MAX_BYTES)?;
        let id = TaskId(Uuid::now_v7().as_u128());
        // The shard of what it belongs to; of its key, so that one replica decides who has it.
        let id = match [&call_id, &group, &key].into_iter().find(|it| !it.is_empty()) {
            Some(of) => id.in_shard(shard_of(of)),
            None => id.in_shard(id.shard()),
        };
        let task = Task {
            id,
            call_id,
            state: State::Pending,
            fires_at_unix_ms,
            revision: 1,
            effect: effect.into(),
            group,
            label: fields::text("label", request.label, fields::LABEL_MAX_BYTES)?,
            tenant: fields::text("tenant", request.tenant, fields::TENANT_MAX_BYTES)?,
            edge: fields::edge(request.edge)?,
            created_unix_ms: now.unix_ms(),
            ended_unix_ms: 0,
            late_ms: 0,
            result: String::new(),
            repeat: fields::repeat(request.repeat, fires_at_unix_ms)?,
            occurrence: 0,
            missed: 0,
            remaining_ms: 0,
            cancel_requested: false,
            pinned,
        };
        Ok(New { task, key, due })
    }
}

fn filter(request: ListRequest) -> Result<Filter, Bad> {
    let fires = (request.fires_from_unix_ms, request.fires_before_unix_ms);
    let (fires_from_unix_ms, fires_before_unix_ms) = fields::fires_between(fires.0, fires.1)?;
    let tenant = fields::text("tenant", request.tenant, fields::TENANT_MAX_BYTES)?;
    Ok(Filter {
        call_id: any_call(&request.call_id)?,
        group: fields::text("group", request.group, fields::GROUP_MAX_BYTES)?,
        tenant: Some(tenant).filter(|tenant| !tenant.is_empty()),
        states: fields::live_states(&request.states)?,
        fires_from_unix_ms,
        fires_before_unix_ms,
        after: fields::cursor(&request.page_token)?,
        limit: fields::page_size(request.page_size)?,
    })
}

/// A response about a call, which the request may have named by a task alone.
fn about<T>(call_id: Option<String>, message: T) -> Response<T> {
    match call_id.filter(|it| !it.is_empty()) {
        Some(call_id) => boot::about_call(&call_id, message),
        None => Response::new(message),
    }
}

/// A call, or none.
fn any_call(call_id: &str) -> Result<String, Bad> {
    if call_id.is_empty() { Ok(String::new()) } else { fields::call_id(call_id) }
}

fn group(group: String) -> Result<Scope, Status> {
    if group.is_empty() {
        return Err(Bad::missing("group", "the name of a group").into());
    }
    Ok(Scope::Group(fields::text("group", group, fields::GROUP_MAX_BYTES)?))
}

fn missing_scope() -> Status {
    Bad::missing("scope", "one of task_id, group and call_id").into()
}

fn cancelled_by(by: String) -> Result<String, Bad> {
    let by = fields::text("by", by, fields::BY_MAX_BYTES)?;
    Ok(if by.is_empty() { "api".to_owned() } else { by })
}

fn after(now: Moment, ms: i64) -> Result<(i64, Tick, Pinned), Bad> {
    fields::after_ms(ms).map(|ms| now.pinned_after(ms))
}

fn at(now: Moment, unix_ms: i64) -> Result<(i64, Tick, Pinned), Bad> {
    let unix_ms = fields::at_unix_ms(unix_ms, now.unix_ms())?;
    Ok((unix_ms, now.at(unix_ms), Pinned::default()))
}

fn unwritten(e: Unwritten) -> Status {
    let message = e.to_string();
    match e {
        Unwritten::NotOwner => not_owner(message),
        Unwritten::InDoubt => Status::unknown(message),
        Unwritten::TooMany | Unwritten::Failed => Status::unavailable(message),
    }
}
