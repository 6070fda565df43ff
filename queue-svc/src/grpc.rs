//! The API queue.v1.Queues, and the client of sip-edge: the only places that see wire types and
//! gRPC statuses (`events` apart).

mod agents;
mod edge;
mod forward;
mod statistics;
pub(crate) mod wire;

pub(crate) use edge::{Edge, RingAnswer, seen};
pub(crate) use forward::Forwarding;

use crate::desk::{Desk, Failure, PutAgent};
use crate::leases::Leases;
use crate::watch::{Position, Unwatched, Watches};
use futures::{StreamExt as _, stream};
use proto::queue::v1 as pb;
use queue::{
    Address, CallId, Departure, Enqueue, Malformed, PRIORITY_MAX, QueueId, Refusal, Settings, Uri,
    Wanted,
};
use std::pin::Pin;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

/// Longest From and Contact, in bytes.
const HEADER_MAX: usize = 1024;
/// How long an agent may be rung, and is if not said, in ms.
const RING_MS: std::ops::RangeInclusive<u32> = 1_000..=300_000;
const RING_MS_DEFAULT: u32 = 30_000;
/// How many callers `List` gives, and does if not said.
const LIST: std::ops::RangeInclusive<u32> = 1..=10_000;
const LIST_DEFAULT: u32 = 1_000;
/// The cause of a caller who leaves because the call does something else, and goes on.
const WENT_ON: &str = "PICKED_OFF";
/// Calls of one `Drop` that are hung up at a time.
const DROPS_AT_A_TIME: usize = 16;

pub(crate) struct Service {
    desk: Desk,
    edge: Edge,
    watches: Watches,
    leases: Leases,
}

impl Service {
    pub(crate) fn new(desk: Desk, edge: Edge, watches: Watches, leases: Leases) -> Self {
        Self { desk, edge, watches, leases }
    }

    /// Hangs up on those of these who still wait, and takes them out of the line. How many; the first
    /// failure, if any.
    async fn hang_up(&self, calls: Vec<CallId>, cause: &str) -> (u32, Option<Status>) {
        let one = async |call_id: CallId| {
            let wanted = call_id.clone();
            let waits =
                self.desk.read(None, move |queues| queues.view(boot::unix_ms(), &wanted).is_some());
            if !waits.await.map_err(status)? {
                return Ok(false); // Gone, or talking to an agent, since the line was read.
            }
            self.edge.hang_up(&call_id, cause).await?;
            let reason = "dropped by an operator".to_owned();
            self.desk.leave(call_id, Departure::WentOn, reason).await.map_err(status)?;
            Ok(true)
        };
        let mut dropped = 0;
        let mut failed = None;
        let mut results =
            stream::iter(calls.into_iter().map(one)).buffer_unordered(DROPS_AT_A_TIME);
        while let Some(result) = results.next().await {
            match result {
                Ok(was_here) => dropped += u32::from(was_here),
                Err(e) => failed = failed.or(Some(e)),
            }
        }
        (dropped, failed)
    }
}

#[tonic::async_trait]
impl pb::queues_server::Queues for Service {
    async fn enqueue(
        &self,
        request: Request<pb::EnqueueRequest>,
    ) -> Result<Response<pb::EnqueueResponse>, Status> {
        let request = request.into_inner();
        let queue = match (request.queue.as_str(), request.uri.as_str()) {
            ("", "") => return Err(invalid("queue", "", "a queue's name here, or its URI in uri")),
            ("", uri) => Wanted::Uri(Uri::parse("uri", uri).map_err(malformed)?),
            (name, _) => Wanted::Name(name.to_owned()),
        };
        let enqueue = Enqueue {
            call_id: CallId::parse(&request.call_id).map_err(malformed)?,
            queue,
            from: header("from", request.from)?,
            contact: header("contact", request.contact)?,
            answered: request.answered,
            priority: priority(request.priority)?,
            asked_unix_us: (request.asked_unix_us > 0).then_some(request.asked_unix_us),
        };
        let joined = self.desk.enqueue(enqueue).await.map_err(status)?;
        let now = boot::unix_ms();
        let (queue, position, expected) = (&joined.queue, joined.position, joined.expected);
        let caller = wire::caller(&joined.caller, queue, position, expected, now);
        Ok(Response::new(pb::EnqueueResponse { caller: Some(caller), music: joined.music }))
    }

    async fn leave(
        &self,
        request: Request<pb::LeaveRequest>,
    ) -> Result<Response<pb::LeaveResponse>, Status> {
        let request = request.into_inner();
        let call_id = CallId::parse(&request.call_id).map_err(malformed)?;
        let cause = wire::cause(&request.cause)?;
        let departure = match cause {
            WENT_ON => Departure::WentOn,
            _ => Departure::HungUp,
        };
        let reason = format!("caller left: {cause}");
        let waited_ms = self.desk.leave(call_id, departure, reason).await.map_err(status)?;
        Ok(Response::new(pb::LeaveResponse {
            existed: waited_ms.is_some(),
            waited_ms: waited_ms.unwrap_or_default(),
        }))
    }

    async fn retrieve(
        &self,
        request: Request<pb::RetrieveRequest>,
    ) -> Result<Response<pb::RetrieveResponse>, Status> {
        let request = request.into_inner();
        let queue = required("queue", request.queue)?;
        let address = Address::parse("agent", &request.agent).map_err(malformed)?;
        let ring_ms = match request.ring_timeout_ms {
            0 => RING_MS_DEFAULT,
            ms if RING_MS.contains(&ms) => ms,
            ms => return Err(invalid("ring_timeout_ms", ms, "1000 to 300000, or 0 for 30000")),
        };
        let retrieved = self.desk.retrieve(queue, address, ring_ms).await.map_err(status)?;
        let retrieved = wire::retrieved(retrieved)?;
        Ok(boot::about_call(&retrieved.call_id.clone(), retrieved))
    }

    async fn count(
        &self,
        request: Request<pb::CountRequest>,
    ) -> Result<Response<pb::CountResponse>, Status> {
        let queue = required("queue", request.into_inner().queue)?;
        let name = queue.clone();
        let count = self.desk.read(Some(&queue), move |queues| queues.count(&name)).await;
        let count = count.map_err(status)?.map_err(refused)?;
        Ok(Response::new(pb::CountResponse {
            waiting: count.in_queue,
            entering: count.entering,
            leaving: count.leaving,
        }))
    }

    async fn list(
        &self,
        request: Request<pb::ListRequest>,
    ) -> Result<Response<pb::ListResponse>, Status> {
        let request = request.into_inner();
        let queue = required("queue", request.queue)?;
        let limit = match request.limit {
            0 => LIST_DEFAULT,
            limit if LIST.contains(&limit) => limit,
            limit => return Err(invalid("limit", limit, "1 to 10000, or 0 for 1000")),
        };
        let name = queue.clone();
        let now = boot::unix_ms();
        let callers = self.desk.read(Some(&queue), move |queues| {
            let views = queues.list(now, &name)?.take(limit as usize);
            Ok(views.map(|view| wire::view(&view, now)).collect())
        });
        let callers = callers.await.map_err(status)?.map_err(refused)?;
        Ok(Response::new(pb::ListResponse { callers }))
    }

    async fn drop(
        &self,
        request: Request<pb::DropRequest>,
    ) -> Result<Response<pb::DropResponse>, Status> {
        let request = request.into_inner();
        let queue = required("queue", request.queue)?;
        let cause = wire::cause(&request.cause)?;
        let one = match request.call_id.as_str() {
            "*" => None,
            call_id => Some(CallId::parse(call_id).map_err(malformed)?),
        };
        let name = queue.clone();
        let calls = self.desk.read(Some(&queue), move |queues| {
            let all = queues.list(boot::unix_ms(), &name)?.map(|it| it.caller.call_id.clone());
            let calls: Vec<_> = all.filter(|it| one.as_ref().is_none_or(|one| one == it)).collect();
            match one {
                Some(call_id) if calls.is_empty() => {
                    Err(Refusal::NoSuchCaller { queue: name, call_id })
                }
                _ => Ok(calls),
            }
        });
        let calls = calls.await.map_err(status)?.map_err(refused)?;
        let wanted = calls.len();
        match self.hang_up(calls, cause).await {
            (dropped, None) => Ok(Response::new(pb::DropResponse { dropped })),
            (dropped, Some(e)) => {
                let message = format!("dropped {dropped} of {wanted} callers: {}", e.message());
                Err(Status::new(e.code(), message))
            }
        }
    }

    async fn create_queue(
        &self,
        request: Request<pb::CreateQueueRequest>,
    ) -> Result<Response<pb::Queue>, Status> {
        let (_, settings) = settings(request.into_inner().queue)?;
        let created = self.desk.create_queue(settings).await.map_err(status)?;
        Ok(Response::new(wire::queue(created.0, &created.1)))
    }

    async fn update_queue(
        &self,
        request: Request<pb::UpdateQueueRequest>,
    ) -> Result<Response<pb::Queue>, Status> {
        let (id, settings) = settings(request.into_inner().queue)?;
        let updated = self.desk.update_queue(id, settings).await.map_err(status)?;
        Ok(Response::new(wire::queue(updated.0, &updated.1)))
    }

    async fn delete_queue(
        &self,
        request: Request<pb::DeleteQueueRequest>,
    ) -> Result<Response<pb::DeleteQueueResponse>, Status> {
        let name = required("name", request.into_inner().name)?;
        self.desk.delete_queue(name).await.map_err(status)?;
        Ok(Response::new(pb::DeleteQueueResponse {}))
    }

    async fn get_queue(
        &self,
        request: Request<pb::GetQueueRequest>,
    ) -> Result<Response<pb::Queue>, Status> {
        let name = required("name", request.into_inner().name)?;
        let wanted = name.clone();
        let found = self.desk.read(Some(&name), move |queues| {
            queues.queue(&wanted).map(|(id, settings)| wire::queue(id, settings))
        });
        Ok(Response::new(found.await.map_err(status)?.map_err(refused)?))
    }

    async fn list_queues(
        &self,
        _: Request<pb::ListQueuesRequest>,
    ) -> Result<Response<pb::ListQueuesResponse>, Status> {
        let queues = self.desk.read(None, |queues| {
            queues.queues().map(|(id, settings)| wire::queue(id, settings)).collect()
        });
        let queues = queues.await.map_err(status)?;
        Ok(Response::new(pb::ListQueuesResponse { queues }))
    }

    async fn create_agent(
        &self,
        request: Request<pb::CreateAgentRequest>,
    ) -> Result<Response<pb::Agent>, Status> {
        Ok(Response::new(self.put_agent(PutAgent::Create, request.into_inner().agent).await?))
    }

    async fn update_agent(
        &self,
        request: Request<pb::UpdateAgentRequest>,
    ) -> Result<Response<pb::Agent>, Status> {
        Ok(Response::new(self.put_agent(PutAgent::Update, request.into_inner().agent).await?))
    }

    async fn delete_agent(
        &self,
        request: Request<pb::DeleteAgentRequest>,
    ) -> Result<Response<pb::DeleteAgentResponse>, Status> {
        let name = agents::name(&request.into_inner().name)?;
        self.desk.delete_agent(name).await.map_err(status)?;
        Ok(Response::new(pb::DeleteAgentResponse {}))
    }

    async fn get_agent(
        &self,
        request: Request<pb::GetAgentRequest>,
    ) -> Result<Response<pb::Agent>, Status> {
        Ok(Response::new(self.agent(agents::name(&request.into_inner().name)?).await?))
    }

    async fn list_agents(
        &self,
        request: Request<pb::ListAgentsRequest>,
    ) -> Result<Response<pb::ListAgentsResponse>, Status> {
        let agents = self.agents_of(request.into_inner().queue).await?;
        Ok(Response::new(pb::ListAgentsResponse { agents }))
    }

    async fn set_presence(
        &self,
        request: Request<pb::SetPresenceRequest>,
    ) -> Result<Response<pb::Agent>, Status> {
        Ok(Response::new(self.change_presence(request.into_inner()).await?))
    }

    async fn get_statistics(
        &self,
        request: Request<pb::GetStatisticsRequest>,
    ) -> Result<Response<pb::GetStatisticsResponse>, Status> {
        Ok(Response::new(self.statistics(request.into_inner().queue).await?))
    }

    type WatchStream =
        Pin<Box<dyn futures::Stream<Item = Result<pb::WatchResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<pb::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let pb::WatchRequest { queue, resume_token } = request.into_inner();
        let after = match resume_token.as_str() {
            "" => None,
            token => Some(Position::parse(token).ok_or_else(|| {
                invalid("resume_token", token, "one of a WatchResponse, or nothing")
            })?),
        };
        let responses = self.watches.begin(queue, after).await.map_err(unwatched)?;
        let responses = ReceiverStream::new(responses).map(|it| it.map_err(unwatched));
        Ok(Response::new(Box::pin(responses)))
    }
}

/// The id, if it is not 0, and the rest.
fn settings(queue: Option<pb::Queue>) -> Result<(Option<QueueId>, Settings), Status> {
    let queue = queue.ok_or_else(|| invalid("queue", "", "a queue"))?;
    let id = i64::try_from(queue.id).map_err(|_| invalid("id", queue.id, "the id of a queue"))?;
    let settings = Settings::parse(wire::settings_row(queue)?).map_err(malformed)?;
    Ok(((id != 0).then_some(QueueId(id)), settings))
}

fn priority(priority: u32) -> Result<u8, Status> {
    let valid = u8::try_from(priority).ok().filter(|it| *it <= PRIORITY_MAX);
    valid.ok_or_else(|| invalid("priority", priority, "0 to 100"))
}

fn required(field: &'static str, value: String) -> Result<String, Status> {
    if value.is_empty() { Err(invalid(field, "", "the name of a queue")) } else { Ok(value) }
}

fn header(field: &'static str, value: String) -> Result<String, Status> {
    if value.len() > HEADER_MAX || value.chars().any(char::is_control) {
        return Err(invalid(field, value, "at most 1024 bytes without control characters"));
    }
    Ok(value)
}

fn invalid(field: &'static str, got: impl ToString, wanted: &'static str) -> Status {
    malformed(Malformed::new(field, &got.to_string(), wanted))
}

fn malformed(e: Malformed) -> Status {
    Status::invalid_argument(e.to_string())
}

fn refused(refusal: Refusal) -> Status {
    let message = refusal.to_string();
    match refusal {
        Refusal::NoSuchQueue { .. }
        | Refusal::NoSuchCaller { .. }
        | Refusal::NoSuchAgent { .. } => Status::not_found(message),
        Refusal::QueueFull { .. }
        | Refusal::NoAgents { .. }
        | Refusal::AllFull { .. }
        | Refusal::TooManyRing { .. }
        | Refusal::TooManyAgents { .. } => Status::resource_exhausted(message),
        Refusal::WaitsElsewhere { .. }
        | Refusal::NobodyWaits { .. }
        | Refusal::AgentBusy { .. }
        | Refusal::CallersWait { .. } => Status::failed_precondition(message),
        Refusal::Taken { .. } => Status::already_exists(message),
    }
}

fn status(failure: Failure) -> Status {
    match failure {
        Failure::Refused(refusal) => refused(refusal),
        Failure::Malformed(e) => malformed(e),
        Failure::Store(_) | Failure::Draining => Status::unavailable(failure.to_string()),
        Failure::NotOwner => forward::not_owner(failure.to_string()),
        Failure::Lost => forward::lost(failure.to_string()),
    }
}

fn unwatched(e: Unwatched) -> Status {
    let message = e.to_string();
    match e {
        Unwatched::TooMany { .. } => Status::resource_exhausted(message),
        Unwatched::Forgotten => Status::out_of_range(message),
        Unwatched::NoChange { .. } => Status::data_loss(message),
        Unwatched::Unreadable(_) | Unwatched::Draining => Status::unavailable(message),
        Unwatched::NotOwner => forward::not_owner(message),
    }
}
