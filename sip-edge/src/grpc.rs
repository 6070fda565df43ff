//! The API of sip-edge: checks what comes in, asks the loop, and says on the wire what it answered.

mod forward;

pub(crate) use forward::Replicated;

use crate::events::{BEHIND_MAX, Events, Shown};
use crate::plan::{self, Invalid};
use crate::requests::{Answered, HandedOver, List, Originate, Request as Order, Unmet};
use crate::snapshots::Record;
use crate::target::SipUri;
use crate::transfer::Bridge;
use call::{
    Action, Answer, Ask, Cause, CollectOutcome, Destination, FailureKind, Legs, Occurrence, Plan,
    Refusal, RingOutcome, Side,
};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use proto::sip_edge::v1::sip_edge_server::SipEdge;
use proto::sip_edge::v1::{
    BridgeRequest, BridgeResponse, Call, CallEvent, CollectRequest, CollectResponse,
    GetCallRequest, HandOverRequest, HandOverResponse, HangupRequest, HangupResponse,
    ListCallsRequest, ListCallsResponse, ListRegistrationsRequest, ListRegistrationsResponse,
    OriginateRequest, OriginateResponse, PlayRequest, PlayResponse, Registration, RingRequest,
    RingResponse, RunPlanRequest, RunPlanResponse, StopRingingRequest, StopRingingResponse,
    TransferRequest, TransferResponse, WatchCallsRequest, transfer_request,
};
use proto::sip_edge::v1::{CollectOutcome as WireCollected, RingOutcome as WireRing};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;
use tonic::{Request, Response, Status};

const LIST_MAX: u32 = 10_000;
const LIST_DEFAULT: u32 = 1_000;
/// Targets that are rung beside the first one.
const ALSO_MAX: usize = 15;
const DISPLAY_BYTES_MAX: usize = 128;
/// How long a call that goes to another sip-edge may take to come to rest and be written, and the wait
/// between looks.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(2);
const HAND_OVER_LOOK: Duration = Duration::from_millis(50);
/// Longest id that a client may choose, in bytes.
const ID_BYTES_MAX: usize = 128;

#[derive(Clone)]
pub(crate) struct Api {
    orders: mpsc::Sender<Order>,
    events: Events,
}

impl Api {
    pub(crate) fn new(orders: mpsc::Sender<Order>, events: Events) -> Self {
        Self { orders, events }
    }

    async fn order<T>(&self, make: impl FnOnce(oneshot::Sender<T>) -> Order) -> Result<T, Status> {
        let (reply, answer) = oneshot::channel();
        let ending = || Status::unavailable("sip-edge is ending");
        self.orders.send(make(reply)).await.map_err(|_| ending())?;
        answer.await.map_err(|_| ending())
    }

    async fn ask(&self, call_id: String, ask: Ask) -> Result<Answered, Status> {
        required("call_id", &call_id)?;
        let asked = |reply| Order::Ask { call_id, ask, reply };
        self.order(asked).await?.map_err(unmet)
    }

    /// Goes on with a call that another sip-edge has left to us.
    async fn take_over(&self, record: Record) -> Result<(), Status> {
        let record = Box::new(record);
        self.order(|reply| Order::TakeOver { record, reply }).await
    }

    fn call(&self, shown: Shown) -> Option<Call> {
        Some(self.events.wire_call(shown))
    }
}

#[tonic::async_trait]
impl SipEdge for Api {
    type WatchCallsStream = BoxStream<'static, Result<CallEvent, Status>>;

    async fn originate(
        &self,
        request: Request<OriginateRequest>,
    ) -> Result<Response<OriginateResponse>, Status> {
        let originate = Box::new(originate(request.into_inner()).map_err(invalid)?);
        let ordered = |reply| Order::Originate { originate, reply };
        let answered = self.order(ordered).await?.map_err(unmet)?;
        Ok(Response::new(OriginateResponse { call: self.call(answered.call) }))
    }

    async fn get_call(&self, request: Request<GetCallRequest>) -> Result<Response<Call>, Status> {
        let call_id = request.into_inner().call_id;
        required("call_id", &call_id)?;
        let shown = self.order(|reply| Order::Get { call_id, reply }).await?;
        let shown = shown.ok_or_else(|| unmet(Unmet::NoSuchCall))?;
        Ok(Response::new(self.events.wire_call(shown)))
    }

    async fn list_calls(
        &self,
        request: Request<ListCallsRequest>,
    ) -> Result<Response<ListCallsResponse>, Status> {
        let ListCallsRequest { after_created_unix_ms, limit, include_ended } = request.into_inner();
        let limit = if limit == 0 { LIST_DEFAULT } else { limit };
        if limit > LIST_MAX {
            return Err(invalid(Invalid::new("limit", limit, "1 to 10,000")));
        }
        let list = List { after_created_unix_ms, limit: limit as usize, include_ended };
        let listed = self.order(|reply| Order::List { list, reply }).await?;
        let calls = listed.calls.into_iter().map(|it| self.events.wire_call(it)).collect();
        let live = u32::try_from(listed.live).unwrap_or(u32::MAX);
        Ok(Response::new(ListCallsResponse { calls, live }))
    }

    async fn watch_calls(
        &self,
        request: Request<WatchCallsRequest>,
    ) -> Result<Response<Self::WatchCallsStream>, Status> {
        let call_id = request.into_inner().call_id;
        let events = BroadcastStream::new(self.events.watch()).filter_map(move |event| {
            let event = match event {
                Ok(event) => {
                    let of = event.call.as_ref().map_or("", |call| call.call_id.as_str());
                    (call_id.is_empty() || of == call_id).then(|| Ok(CallEvent::clone(&event)))
                }
                Err(BroadcastStreamRecvError::Lagged(missed)) => {
                    let message =
                        format!("{missed} events missed: read {BEHIND_MAX} behind at most");
                    Some(Err(Status::resource_exhausted(message)))
                }
            };
            std::future::ready(event)
        });
        Ok(Response::new(until_error(events.boxed())))
    }

    async fn hangup(
        &self,
        request: Request<HangupRequest>,
    ) -> Result<Response<HangupResponse>, Status> {
        let HangupRequest { call_id, cause, task_id, legs, occurrence } = request.into_inner();
        let cause = plan::cause("cause", &cause, Cause::NormalClearing).map_err(invalid)?;
        let legs = plan::legs("legs", legs, Legs::Both).map_err(invalid)?;
        let task = task(task_id, occurrence)?;
        let answered = self.ask(call_id, Ask::Hangup { cause, legs, task }).await?;
        let Answer::HungUp { already_ended, .. } = answered.answer else { return Err(mixed_up()) };
        Ok(Response::new(HangupResponse { already_ended, call: self.call(answered.call) }))
    }

    async fn ring(&self, request: Request<RingRequest>) -> Result<Response<RingResponse>, Status> {
        let RingRequest { call_id, assignment_id, target, ring_timeout_ms, also } =
            request.into_inner();
        required("assignment_id", &assignment_id)?;
        let target = plan::target("target", &target).map_err(invalid)?;
        let ring = plan::ring("ring_timeout_ms", ring_timeout_ms).map_err(invalid)?;
        let also = also.iter().map(|it| plan::target("also", it)).collect::<Result<Vec<_>, _>>();
        let also = also.map_err(invalid)?;
        if also.len() > ALSO_MAX {
            let wanted = "at most 15 further targets";
            return Err(invalid(Invalid::new("also", also.len(), wanted)));
        }
        let answered = self.ask(call_id, Ask::Ring { assignment_id, target, also, ring }).await?;
        let Answer::Ring(result) = answered.answer else { return Err(mixed_up()) };
        let outcome = match result.outcome {
            RingOutcome::Connected => WireRing::Connected,
            RingOutcome::NoAnswer => WireRing::NoAnswer,
            RingOutcome::Busy => WireRing::Busy,
            RingOutcome::Declined => WireRing::Declined,
            RingOutcome::Unreachable => WireRing::Unreachable,
            RingOutcome::CallerGone => WireRing::CallerGone,
            RingOutcome::Stopped => WireRing::Stopped,
        };
        Ok(Response::new(RingResponse {
            outcome: outcome.into(),
            sip_status: result.status.unwrap_or(0).into(),
            cause: result.cause.map_or(String::new(), |cause| cause.name().to_owned()),
            answered: match result.outcome {
                RingOutcome::Connected => leg_b(&answered.call).unwrap_or_default(),
                _ => String::new(),
            },
        }))
    }

    async fn stop_ringing(
        &self,
        request: Request<StopRingingRequest>,
    ) -> Result<Response<StopRingingResponse>, Status> {
        let StopRingingRequest { call_id, assignment_id } = request.into_inner();
        required("assignment_id", &assignment_id)?;
        let answered = self.ask(call_id, Ask::StopRinging { assignment_id }).await?;
        let Answer::StoppedRinging { stopped } = answered.answer else { return Err(mixed_up()) };
        Ok(Response::new(StopRingingResponse { stopped }))
    }

    async fn play(&self, request: Request<PlayRequest>) -> Result<Response<PlayResponse>, Status> {
        let PlayRequest { call_id, file, wait, legs, task_id, occurrence } = request.into_inner();
        let file = plan::file("file", &file).map_err(invalid)?;
        let legs = plan::legs("legs", legs, Legs::A).map_err(invalid)?;
        let task = task(task_id, occurrence)?;
        let is_task = task.is_some();
        let answered = self.ask(call_id, Ask::Play { file, legs, task, wait }).await?;
        let (duration, already_ended) = match answered.answer {
            Answer::Playing { duration } => (duration, false),
            Answer::TooLate(_) => (Duration::ZERO, true),
            _ => return Err(mixed_up()),
        };
        let duration_ms = u32::try_from(duration.as_millis()).unwrap_or(u32::MAX);
        let call = self.call(answered.call).filter(|_| is_task);
        Ok(Response::new(PlayResponse { duration_ms, already_ended, call }))
    }

    async fn transfer(
        &self,
        request: Request<TransferRequest>,
    ) -> Result<Response<TransferResponse>, Status> {
        let TransferRequest { call_id, to, task_id, occurrence } = request.into_inner();
        let to = destination(to).map_err(invalid)?;
        let task = task(task_id, occurrence)?;
        let answered = self.ask(call_id, Ask::Transfer { to, task }).await?;
        let already_ended = match answered.answer {
            Answer::Transferred(_) => false,
            Answer::TooLate(_) => true,
            _ => return Err(mixed_up()),
        };
        Ok(Response::new(TransferResponse { already_ended, call: self.call(answered.call) }))
    }

    async fn bridge(
        &self,
        request: Request<BridgeRequest>,
    ) -> Result<Response<BridgeResponse>, Status> {
        let BridgeRequest { call_id, legs, other_call_id, other_legs } = request.into_inner();
        required("call_id", &call_id)?;
        required("other_call_id", &other_call_id)?;
        let kept = side("legs", legs).map_err(invalid)?;
        let other_side = side("other_legs", other_legs).map_err(invalid)?;
        let bridge = Bridge { call_id, side: kept, other_call_id, other_side };
        let answered = self.order(|reply| Order::Bridge { bridge, reply }).await?.map_err(unmet)?;
        Ok(Response::new(BridgeResponse { call: self.call(answered.call) }))
    }

    async fn hand_over(
        &self,
        request: Request<HandOverRequest>,
    ) -> Result<Response<HandOverResponse>, Status> {
        let HandOverRequest { call_id } = request.into_inner();
        required("call_id", &call_id)?;
        let deadline = Instant::now() + HAND_OVER_TIMEOUT;
        let mut keep = true;
        loop {
            let unwritten = if keep {
                self.order(|reply| Order::Keep { call_id: call_id.clone(), reply }).await?
            } else {
                let ordered = |reply| Order::HandOver { call_id: call_id.clone(), reply };
                match self.order(ordered).await? {
                    Ok(HandedOver::At(revision)) => {
                        return Ok(Response::new(HandOverResponse { revision }));
                    }
                    Ok(HandedOver::NotYet(written)) => Ok(Some(written)),
                    Err(e) => Err(e),
                }
            };
            match unwritten {
                Ok(Some(written)) => {
                    let written = timeout_at(deadline, written).await.ok().and_then(Result::ok);
                    let stays = "NATS has not taken the call, which goes on here: try again";
                    written.ok_or_else(|| Status::unavailable(stays))?;
                    keep = false;
                }
                Ok(None) => {
                    let message = "the call cannot be kept: the log of its sip-edge says why";
                    return Err(Status::failed_precondition(message));
                }
                Err(Unmet::Underway) if Instant::now() < deadline => {
                    tokio::time::sleep(HAND_OVER_LOOK).await;
                }
                Err(e) => return Err(unmet(e)),
            }
        }
    }

    async fn collect(
        &self,
        request: Request<CollectRequest>,
    ) -> Result<Response<CollectResponse>, Status> {
        let CollectRequest { call_id, collect } = request.into_inner();
        let wanted = "how to collect, e.g. {\"max_digits\": 4}";
        let collect = collect.ok_or_else(|| invalid(Invalid::new("collect", "nothing", wanted)))?;
        let collect = plan::collect("collect", &collect).map_err(invalid)?;
        let answered = self.ask(call_id, Ask::Collect(collect)).await?;
        let Answer::Collected { outcome, digits } = answered.answer else {
            return Err(mixed_up());
        };
        let outcome = match outcome {
            CollectOutcome::Complete => WireCollected::Complete,
            CollectOutcome::Terminated => WireCollected::Terminated,
            CollectOutcome::TimedOut => WireCollected::Timeout,
        };
        Ok(Response::new(CollectResponse { outcome: outcome.into(), digits }))
    }

    async fn run_plan(
        &self,
        request: Request<RunPlanRequest>,
    ) -> Result<Response<RunPlanResponse>, Status> {
        let RunPlanRequest { call_id, plan: wire } = request.into_inner();
        let wire = wire.filter(|it| !it.actions.is_empty()).ok_or_else(|| {
            let wanted = "a call plan with an action, e.g. {\"actions\": [{\"park\": {}}]}";
            invalid(Invalid::new("plan", "nothing", wanted))
        })?;
        let plan = plan::plan("plan", &wire).map_err(invalid)?;
        let answered = self.ask(call_id, Ask::RunPlan(plan)).await?;
        Ok(Response::new(RunPlanResponse { call: self.call(answered.call) }))
    }

    async fn list_registrations(
        &self,
        _: Request<ListRegistrationsRequest>,
    ) -> Result<Response<ListRegistrationsResponse>, Status> {
        let listed = self.order(|reply| Order::Registrations { reply }).await?;
        let registrations = listed.into_iter().flat_map(|registration| {
            let user = registration.user;
            registration.contacts.into_iter().map(move |contact| Registration {
                user: user.clone(),
                contact: contact.uri,
                received_from: contact.peer.to_string(),
                expires_unix_ms: i64::try_from(contact.expires_unix_s).unwrap_or(0) * 1_000,
            })
        });
        Ok(Response::new(ListRegistrationsResponse { registrations: registrations.collect() }))
    }
}

/// The first calls of several lists, each of which is whole: those up to `limit`, and all that were
/// made in the same millisecond as the last of them.
fn page(mut calls: Vec<Call>, limit: u32) -> Vec<Call> {
    let limit = if limit == 0 { LIST_DEFAULT } else { limit };
    calls.sort_by(|one, other| {
        let key = |it: &Call| (it.created_unix_ms, it.call_id.clone());
        key(one).cmp(&key(other))
    });
    if let Some(last) = calls.get(limit as usize - 1).map(|it| it.created_unix_ms) {
        calls.truncate(calls.partition_point(|it| it.created_unix_ms <= last));
    }
    calls
}

fn originate(request: OriginateRequest) -> Result<Originate, Invalid> {
    let wire = request.clone();
    let from_uri = Some(request.from_uri).filter(|uri| !uri.is_empty());
    if let Some(uri) = from_uri.as_ref().filter(|uri| SipUri::parse(uri).is_none()) {
        return Err(Invalid::new("from_uri", uri, "sip:[USER@]HOST[:PORT]"));
    }
    let display = request.from_display;
    if display.len() > DISPLAY_BYTES_MAX || display.chars().any(char::is_control) {
        let wanted = "at most 128 bytes without control characters";
        return Err(Invalid::new("from_display", display, wanted));
    }
    let call_id = match request.call_id.as_str() {
        "" => boot::new_id(),
        given => uuid::Uuid::try_parse(given)
            .map_err(|_| Invalid::new("call_id", given, "a UUID"))?
            .hyphenated()
            .to_string(),
    };
    let plan = match &request.plan {
        Some(wire) => plan::plan("plan", wire)?,
        None => Plan::new([Action::Park]),
    };
    Ok(Originate {
        call_id,
        target: plan::target("target", &request.target)?,
        plan,
        from_uri,
        from_display: Some(display).filter(|it| !it.is_empty()),
        ring: plan::ring("ring_timeout_ms", request.ring_timeout_ms)?,
        return_at_once: request.return_at_once,
        request: wire,
    })
}

/// Whom leg A talks to.
fn leg_b(call: &Shown) -> Option<String> {
    let mut legs = call.view.legs.iter();
    legs.find(|leg| leg.side == call::Side::B).map(|leg| leg.remote_uri.clone())
}

fn destination(to: Option<transfer_request::To>) -> Result<Destination, Invalid> {
    match to {
        None => Err(Invalid::new("to", "nothing", "a uri or a plan")),
        Some(transfer_request::To::Uri(uri)) => plan::target("uri", &uri).map(Destination::Target),
        Some(transfer_request::To::Plan(wire)) if wire.actions.is_empty() => {
            let wanted = "a call plan with an action, e.g. {\"actions\": [{\"park\": {}}]}";
            Err(Invalid::new("plan", "nothing", wanted))
        }
        Some(transfer_request::To::Plan(wire)) => plan::plan("plan", &wire).map(Destination::Plan),
        Some(transfer_request::To::GoOn(_)) => Ok(Destination::GoOn),
        Some(transfer_request::To::Moved(wire)) => Ok(Destination::Queue {
            name: plan::queue("moved.queue", &wire.queue)?,
            music: plan::file("moved.music", &wire.music)?,
        }),
    }
}

/// Which occurrence of which task asks; none if it is not a task.
fn task(task_id: String, number: u32) -> Result<Option<Occurrence>, Status> {
    if task_id.is_empty() {
        return Ok(None);
    }
    required("task_id", &task_id)?;
    Ok(Some(Occurrence { task_id, number }))
}

/// One leg; leg A by default.
fn side(field: &str, legs: i32) -> Result<Side, Invalid> {
    match plan::legs(field, legs, Legs::A)? {
        Legs::A => Ok(Side::A),
        Legs::B => Ok(Side::B),
        Legs::Both => Err(Invalid::new(field, "LEGS_BOTH", "LEGS_A or LEGS_B")),
    }
}

fn required(field: &str, id: &str) -> Result<(), Status> {
    if id.is_empty() || id.len() > ID_BYTES_MAX {
        return Err(invalid(Invalid::new(field, id, "an id of 1 to 128 bytes")));
    }
    Ok(())
}

/// The events up to the first error, and that.
fn until_error(
    events: BoxStream<'static, Result<CallEvent, Status>>,
) -> BoxStream<'static, Result<CallEvent, Status>> {
    let failed = events.scan(false, |failed, event| {
        let over = std::mem::replace(failed, event.is_err());
        std::future::ready((!over).then_some(event))
    });
    failed.boxed()
}

fn invalid(e: Invalid) -> Status {
    Status::invalid_argument(e.to_string())
}

fn unmet(e: Unmet) -> Status {
    let message = e.to_string();
    match e {
        Unmet::NoSuchCall => Status::not_found(message),
        Unmet::CallIdInUse => Status::already_exists(message),
        Unmet::Moved | Unmet::Draining => Status::unavailable(message),
        Unmet::Underway => Status::aborted(message),
        Unmet::Bound => Status::failed_precondition(message),
        Unmet::TooManyCalls { .. } => Status::resource_exhausted(message),
        Unmet::Refused(refusal) => refused(&refusal, message),
    }
}

fn refused(refusal: &Refusal, message: String) -> Status {
    match refusal {
        Refusal::NotAnswered { .. } => Status::aborted(message),
        Refusal::TooMany { .. } => Status::resource_exhausted(message),
        Refusal::Failed { failure, .. } => match failure.kind {
            FailureKind::Invalid => Status::invalid_argument(message),
            // NOT_FOUND would say that there is no such call.
            FailureKind::NotFound => Status::failed_precondition(message),
            FailureKind::Denied => Status::permission_denied(message),
            FailureKind::Full => Status::resource_exhausted(message),
            FailureKind::NoCodec | FailureKind::NoAddressFamily => Status::aborted(message),
            FailureKind::Unavailable => Status::unavailable(message),
        },
        Refusal::Ended { .. }
        | Refusal::NotAnsweredYet
        | Refusal::Busy { .. }
        | Refusal::Disturbed { .. }
        | Refusal::NoLegB
        | Refusal::Connected
        | Refusal::Replaced
        | Refusal::Rings => Status::failed_precondition(message),
    }
}

/// A call has answered something that it was not asked: a fault of ours.
fn mixed_up() -> Status {
    Status::internal("the call answered a different request")
}
