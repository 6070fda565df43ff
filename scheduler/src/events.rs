//! The bus: what happened to tasks goes out, the ends of calls come in.

use crate::clock::Clock;
use crate::commits::Commits;
use crate::store::{Ending, Scope, Task};
use crate::{grpc, metrics};
use anyhow::Context as _;
use boot::{Nats, Publisher};
use proto::scheduler::v1::TaskEvent;
use proto::sip_edge::v1::CallEvent;
use proto::subjects;
use tokio::sync::{mpsc, oneshot};
use tracing::{info, warn};
use wheel::Event;

/// Names this reader of the bus across restarts.
const DURABLE: &str = "scheduler";

/// Changed tasks that wait to be put into words; more are not told of.
const UNTOLD_MAX: usize = 65_536;

/// Tells the world what became of tasks, without making the firing loop wait for the words.
pub(crate) struct Teller(mpsc::Sender<Untold>);

enum Untold {
    Change(Task),
    /// Answered once all before it are told.
    Mark(oneshot::Sender<()>),
}

impl Teller {
    /// A teller and its task, which never ends.
    pub(crate) fn new(
        publisher: Publisher,
    ) -> (Self, impl Future<Output = anyhow::Result<()>> + Send + 'static) {
        let (told, mut untold) = mpsc::channel(UNTOLD_MAX);
        let telling = async move {
            while let Some(next) = untold.recv().await {
                match next {
                    Untold::Change(task) => publish(&publisher, &task),
                    Untold::Mark(reached) => drop(reached.send(())),
                }
            }
            Ok(())
        };
        (Self(told), telling)
    }

    /// The task, after the change.
    pub(crate) fn tell(&self, task: Task) {
        if self.0.try_send(Untold::Change(task)).is_err() {
            metrics::event_dropped();
        }
    }

    /// Completes when everything up to now is in the publisher's hands.
    pub(crate) async fn catch_up(&self) {
        let (mark, reached) = oneshot::channel();
        if self.0.send(Untold::Mark(mark)).await.is_ok() {
            let _ = reached.await; // The telling ends only with the process.
        }
    }
}

fn publish(publisher: &Publisher, task: &Task) {
    let event_id = boot::new_id();
    let task = grpc::task(task);
    let subject = subjects::task(task.state(), &task.call_id);
    let event =
        TaskEvent { event_id: event_id.clone(), at_unix_ms: boot::unix_ms(), task: Some(task) };
    publisher.publish(subject, &event_id, &event);
}

/// Tasks die with their call: expires what is pending of every call that ends, until the process
/// does. A task that is scheduled after the end of its call expires when it fires.
pub(crate) async fn expire_with_calls(
    nats: Nats,
    clock: Clock,
    commits: Commits,
) -> anyhow::Result<()> {
    nats.consume(DURABLE, subjects::CALLS_ENDED, |payload| {
        let commits = commits.clone();
        async move {
            let Some(call_id) = ended_call(&payload) else {
                metrics::event_malformed();
                return Ok(()); // It would be no better the next time.
            };
            let ending = Ending {
                ended_unix_ms: clock.moment().unix_ms(),
                result: "call ended".to_owned(),
                ..Ending::default()
            };
            let scope = Scope::Call(call_id.clone());
            let (expired, _) = commits
                .end_all(scope, Event::CallEnded, ending)
                .await
                .with_context(|| format!("expire the tasks of call {call_id}"))?;
            if expired > 0 {
                info!(%call_id, expired, "call ended");
            }
            Ok(())
        }
    })
    .await
}

/// The call that the event is about; `None`, and a word about it, if it is not such an event.
fn ended_call(payload: &[u8]) -> Option<String> {
    let event = std::str::from_utf8(payload).map_err(|e| e.to_string()).and_then(|json| {
        proto::json::event_from_json::<CallEvent>(json).map_err(|e| e.to_string())
    });
    match event.map(|event| event.call.map(|call| call.call_id).filter(|id| !id.is_empty())) {
        Ok(Some(call_id)) => Some(call_id),
        Ok(None) => {
            warn!("passed over the end of a call: it does not say which");
            None
        }
        Err(e) => {
            warn!("passed over the end of a call: {e}");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_the_end_of_a_call_ends_nothing() {
        for bad in [&b""[..], b"{}", b"{\"call\":{}}", b"\xff", b"[1]", b"{\"call\":7}"] {
            assert_eq!(ended_call(bad), None, "{}", bad.escape_ascii());
        }
        assert_eq!(ended_call(br#"{"call":{"call_id":"c"}}"#), Some("c".to_owned()));
    }
}
