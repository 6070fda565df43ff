//! scheduler: tasks of calls, each command with a deadline.

use crate::chain::{DEADLINE, Outcome, persistently, while_replaced};
use boot::Channel;
use call::{CancelOutcome, Failure, FailureKind, Later, Legs, Reply, SchedulerCommand};
use prost::Message as _;
use proto::scheduler::v1 as wire;
use proto::scheduler::v1::scheduler_client::SchedulerClient;
use proto::sip_edge::v1::{CallPlan, Legs as WireLegs};
use std::time::Instant;
use tonic::{Code, Request, Status};

/// A client of scheduler; cheap to clone.
#[derive(Clone)]
pub(crate) struct Scheduler {
    client: SchedulerClient<Channel>,
    /// So that tasks come back to this sip-edge.
    edge_name: String,
}

impl Scheduler {
    pub(crate) fn new(url: &str, edge_name: &str) -> anyhow::Result<Self> {
        let client = SchedulerClient::new(boot::channel("--scheduler", url)?);
        Ok(Self { client, edge_name: edge_name.to_owned() })
    }

    /// Does one command; `key` is of this command alone, for ever.
    pub(crate) async fn perform(
        self,
        call_id: String,
        key: String,
        command: SchedulerCommand,
    ) -> Outcome {
        match command {
            SchedulerCommand::Schedule { after_ms, what, name } => {
                let after_ms = i64::try_from(after_ms).unwrap_or(i64::MAX);
                let request = wire::ScheduleRequest {
                    idempotency_key: key,
                    call_id,
                    action: Some(action(what)),
                    label: name,
                    edge: self.edge_name.clone(),
                    ..wire::ScheduleRequest::default()
                };
                self.schedule(after_ms, request).await
            }
            SchedulerCommand::Cancel { task_id } => self.cancel(task_id).await,
            SchedulerCommand::CancelAll => {
                persistently(|| self.clone().cancel_all(call_id.clone())).await
            }
        }
    }

    /// The key makes it one task, however often it is asked for; its time is what is left of it.
    async fn schedule(self, after_ms: i64, request: wire::ScheduleRequest) -> Outcome {
        let begun = Instant::now();
        let ask = || {
            let passed_ms = i64::try_from(begun.elapsed().as_millis()).unwrap_or(i64::MAX);
            let after_ms = after_ms.saturating_sub(passed_ms).max(0);
            let when = Some(wire::schedule_request::When::AfterMs(after_ms));
            let request = wire::ScheduleRequest { when, ..request.clone() };
            let mut client = self.client.clone();
            async move { client.schedule(timed(request)).await }
        };
        let task = while_replaced(ask).await.map_err(failure)?.into_inner();
        Ok(Reply::Scheduled { task_id: task.task_id })
    }

    async fn cancel(mut self, task_id: String) -> Outcome {
        let request = wire::CancelRequest { task_id, by: "plan".to_owned() };
        let reply = self.client.cancel(timed(request)).await.map_err(failure)?.into_inner();
        use wire::CancelOutcome as Wire;
        match reply.outcome() {
            Wire::Cancelled | Wire::NotFound => Ok(Reply::Cancelled(CancelOutcome::Cancelled)),
            // Too late; but what does not stop the plan is nothing to wait for.
            Wire::AlreadyFiring | Wire::AlreadyFired if !stops_the_plan(reply.task.as_ref()) => {
                Ok(Reply::Cancelled(CancelOutcome::Cancelled))
            }
            Wire::AlreadyFiring | Wire::AlreadyFired => Ok(Reply::Cancelled(CancelOutcome::Firing)),
            Wire::Unspecified => Err(Failure {
                kind: FailureKind::Unavailable,
                message: "a cancel outcome that this version does not know".to_owned(),
            }),
        }
    }

    async fn cancel_all(mut self, call_id: String) -> Outcome {
        let request = wire::CancelGroupRequest {
            call_id,
            by: "the call ended".to_owned(),
            ..wire::CancelGroupRequest::default()
        };
        self.client.cancel_group(timed(request)).await.map_err(failure)?;
        Ok(Reply::Done)
    }
}

/// Whether the plan of the call ends with the effect of this task, which fires or has fired.
fn stops_the_plan(task: Option<&wire::Task>) -> bool {
    use wire::task::Action;
    let Some(task) = task else { return true };
    match &task.action {
        Some(Action::Play(_) | Action::Publish(_)) => false,
        Some(Action::Hangup(hangup)) => hangup.legs() != WireLegs::B,
        // One that has fired has begun the plan that runs now.
        Some(Action::Transfer(_)) => task.state() == wire::TaskState::Firing,
        None => true,
    }
}

/// # Panics
/// If the plan of a transfer is not one that this process has encoded.
fn action(what: Later) -> wire::schedule_request::Action {
    use wire::schedule_request::Action;
    match what {
        Later::Hangup { cause, legs } => Action::Hangup(wire::HangupCall {
            cause: cause.name().to_owned(),
            legs: wire_legs(legs).into(),
        }),
        Later::TransferToTarget(uri) => {
            let to = Some(wire::transfer_call::To::Uri(uri));
            Action::Transfer(wire::TransferCall { to })
        }
        Later::TransferToPlan(plan) => {
            let plan = CallPlan::decode(plan).expect("a plan that was encoded when it was checked");
            let to = Some(wire::transfer_call::To::Plan(plan));
            Action::Transfer(wire::TransferCall { to })
        }
        Later::Play { file, legs } => {
            Action::Play(wire::PlayToCall { file, legs: wire_legs(legs).into() })
        }
        Later::Publish { subject, payload } => {
            Action::Publish(wire::PublishMessage { subject, payload: payload.into() })
        }
    }
}

fn wire_legs(legs: Legs) -> WireLegs {
    match legs {
        Legs::Both => WireLegs::Both,
        Legs::A => WireLegs::A,
        Legs::B => WireLegs::B,
    }
}

fn timed<T>(request: T) -> Request<T> {
    let mut request = Request::new(request);
    request.set_timeout(DEADLINE);
    request
}

fn failure(status: Status) -> Failure {
    let kind = match status.code() {
        Code::ResourceExhausted => FailureKind::Full,
        Code::NotFound => FailureKind::NotFound,
        Code::InvalidArgument | Code::FailedPrecondition | Code::AlreadyExists => {
            FailureKind::Invalid
        }
        _ => FailureKind::Unavailable,
    };
    Failure { kind, message: status.message().to_owned() }
}
