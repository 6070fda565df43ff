//! scheduler: tasks of calls, each command with a deadline.

use crate::chain::{DEADLINE, Outcome, persistently};
use call::{CancelOutcome, Failure, FailureKind, Reply, SchedulerCommand};
use proto::scheduler::v1 as wire;
use proto::scheduler::v1::scheduler_client::SchedulerClient;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

/// A client of scheduler; cheap to clone.
#[derive(Clone)]
pub(crate) struct Scheduler {
    client: SchedulerClient<Channel>,
}

impl Scheduler {
    pub(crate) fn new(url: &str) -> anyhow::Result<Self> {
        Ok(Self { client: SchedulerClient::new(boot::channel("--scheduler", url)?) })
    }

    /// Does one command; `key` is of this command alone, for ever.
    pub(crate) async fn perform(
        self,
        call_id: String,
        key: String,
        command: SchedulerCommand,
    ) -> Outcome {
        match command {
            SchedulerCommand::Schedule { after_ms, cause, name } => {
                let hangup = wire::HangupCall { cause: cause.name().to_owned(), legs: 0 };
                let after_ms = i64::try_from(after_ms).unwrap_or(i64::MAX);
                let request = wire::ScheduleRequest {
                    idempotency_key: key,
                    call_id,
                    action: Some(wire::schedule_request::Action::Hangup(hangup)),
                    when: Some(wire::schedule_request::When::AfterMs(after_ms)),
                    group: String::new(),
                    label: name,
                    ..wire::ScheduleRequest::default()
                };
                self.schedule(request).await
            }
            SchedulerCommand::Cancel { task_id } => self.cancel(task_id).await,
            SchedulerCommand::CancelAll => {
                persistently(|| self.clone().cancel_all(call_id.clone())).await
            }
        }
    }

    async fn schedule(mut self, request: wire::ScheduleRequest) -> Outcome {
        let task = self.client.schedule(timed(request)).await.map_err(failure)?.into_inner();
        Ok(Reply::Scheduled { task_id: task.task_id })
    }

    async fn cancel(mut self, task_id: String) -> Outcome {
        let request = wire::CancelRequest { task_id, by: "plan".to_owned() };
        let reply = self.client.cancel(timed(request)).await.map_err(failure)?.into_inner();
        use wire::CancelOutcome as Wire;
        match reply.outcome() {
            Wire::Cancelled | Wire::NotFound => Ok(Reply::Cancelled(CancelOutcome::Cancelled)),
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
