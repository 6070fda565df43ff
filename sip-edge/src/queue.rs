//! queue-svc: places in queues, each command with a deadline.

use crate::chain::{DEADLINE, Outcome, persistently, while_replaced};
use anyhow::Context as _;
use boot::Channel;
use call::{AgentOrder, Cause, Failure, FailureKind, QueueCommand, Reply};
use proto::queue::v1 as wire;
use proto::queue::v1::queues_client::QueuesClient;
use tonic::{Code, Request, Status};

/// Longest `from` and `contact` that queue-svc takes, in bytes.
const HEADER_BYTES_MAX: usize = 1_024;

/// A client of queue-svc; cheap to clone.
#[derive(Clone)]
pub(crate) struct Queues {
    client: QueuesClient<Channel>,
}

/// The call that a command is about.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    pub(crate) call_id: String,
    /// When it asked for a place; 0 for another command.
    pub(crate) asked_unix_us: i64,
    pub(crate) request_uri: String,
    /// Of leg A.
    pub(crate) from_uri: String,
    /// The From header field, or our URI of it.
    pub(crate) from: String,
    pub(crate) contact: String,
}

impl Queues {
    pub(crate) fn new(url: &str) -> anyhow::Result<Self> {
        Ok(Self { client: QueuesClient::new(boot::channel("--queue-svc", url)?) })
    }

    /// Does one command; a `Leave` is tried again for a while.
    pub(crate) async fn perform(self, subject: Subject, command: QueueCommand) -> Outcome {
        match command {
            QueueCommand::Enqueue { queue, answered, priority, .. } => {
                self.enqueue(subject, queue, answered, priority).await
            }
            QueueCommand::Agent { does, agent } => self.set_presence(subject, does, agent).await,
            QueueCommand::Leave { cause } => {
                persistently(|| self.clone().leave(subject.call_id.clone(), cause)).await
            }
        }
    }

    /// A call has one place, however often it is asked for.
    async fn enqueue(
        self,
        subject: Subject,
        queue: Option<String>,
        answered: bool,
        priority: u8,
    ) -> Outcome {
        let uri = if queue.is_some() { String::new() } else { subject.request_uri };
        let request = wire::EnqueueRequest {
            call_id: subject.call_id,
            queue: queue.unwrap_or_default(),
            uri,
            from: shortened(subject.from),
            contact: shortened(subject.contact),
            answered,
            priority: priority.into(),
            asked_unix_us: subject.asked_unix_us,
        };
        let ask = || {
            let (mut client, request) = (self.client.clone(), timed(request.clone()));
            async move { client.enqueue(request).await }
        };
        let reply = while_replaced(ask).await.map_err(failure)?.into_inner();
        let queue = reply.caller.unwrap_or_default().queue;
        Ok(Reply::Enqueued { queue, music: reply.music })
    }

    async fn set_presence(
        mut self,
        subject: Subject,
        does: AgentOrder,
        agent: Option<String>,
    ) -> Outcome {
        let presence = match does {
            AgentOrder::Login => wire::Presence::Login,
            AgentOrder::Logout => wire::Presence::Logout,
            AgentOrder::Pause => wire::Presence::Pause,
            AgentOrder::Unpause => wire::Presence::Unpause,
            AgentOrder::Toggle => wire::Presence::Toggle,
            AgentOrder::Ready => wire::Presence::Ready,
        };
        let request = wire::SetPresenceRequest {
            name: agent.unwrap_or_default(),
            address: subject.from_uri,
            presence: presence.into(),
            reason: String::new(),
        };
        self.client.set_presence(timed(request)).await.map(|_| Reply::Done).map_err(failure)
    }

    async fn leave(mut self, call_id: String, cause: Cause) -> Outcome {
        let request = wire::LeaveRequest { call_id, cause: cause.name().to_owned() };
        match self.client.leave(timed(request)).await {
            Ok(_) => Ok(Reply::Done),
            Err(status) if status.code() == Code::NotFound => Ok(Reply::Done),
            Err(status) => Err(failure(status)),
        }
    }

    /// The URIs of all queues.
    pub(crate) async fn uris(mut self) -> anyhow::Result<Vec<String>> {
        let request = timed(wire::ListQueuesRequest {});
        let reply = self.client.list_queues(request).await.context("list queues")?;
        Ok(reply.into_inner().queues.into_iter().map(|queue| queue.uri).collect())
    }
}

fn shortened(mut text: String) -> String {
    if text.len() > HEADER_BYTES_MAX {
        let end = (0..=HEADER_BYTES_MAX).rev().find(|at| text.is_char_boundary(*at));
        text.truncate(end.unwrap_or(0));
    }
    text
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
        Code::InvalidArgument | Code::FailedPrecondition => FailureKind::Invalid,
        _ => FailureKind::Unavailable,
    };
    Failure { kind, message: status.message().to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_header_is_cut_between_characters() {
        assert_eq!(shortened("ä".repeat(600)).len(), 1_024);
        assert_eq!(shortened(format!("x{}", "ä".repeat(600))).len(), 1_023);
        assert_eq!(shortened("short".to_owned()), "short");
    }
}
