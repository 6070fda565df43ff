//! The ends of calls come in from the bus: their tasks end with them.
//!
//! Most calls have no task. Whether they have is asked for many at a time, and read beside the writer,
//! so that a call without tasks costs it next to nothing.

use crate::commits::Commits;
use crate::store::Store;
use crate::{grpc, metrics};
use anyhow::Context as _;
use boot::Nats;
use proto::sip_edge::v1::CallEvent;
use proto::subjects;
use std::collections::HashSet;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;
use tracing::{info, warn};

/// Names this reader of the bus across restarts.
const DURABLE: &str = "scheduler";
/// Ends of calls that are in hand together.
const ENDS_AT_ONCE: usize = 256;
/// How long they are gathered.
const GATHER: Duration = Duration::from_millis(20);

/// A call that has ended, and who wants to know whether it has tasks.
struct Question {
    call_id: String,
    answer: oneshot::Sender<bool>,
}

/// Expires what is pending of every call that ends, by whoever owns its tasks, until the process does.
/// A task that is scheduled after the end of its call expires when it fires.
pub(crate) async fn expire_with_calls(
    nats: Nats,
    store: Store,
    commits: Commits,
    api: grpc::Api,
) -> anyhow::Result<()> {
    let (questions, asked) = mpsc::channel(ENDS_AT_ONCE);
    let handle = |payload: Vec<u8>| {
        let (api, questions) = (api.clone(), questions.clone());
        async move {
            let Some(call_id) = ended_call(&payload) else {
                metrics::event_malformed();
                return Ok(()); // It would be no better the next time.
            };
            if !has_tasks(&questions, &call_id).await? {
                return Ok(());
            }
            let expired = api.expire(&call_id).await;
            let expired = expired.with_context(|| format!("expire the tasks of call {call_id}"))?;
            if expired > 0 {
                info!(%call_id, expired, "call ended");
            }
            Ok(())
        }
    };
    tokio::select! {
        ended = nats.consume_together(DURABLE, subjects::CALLS_ENDED, ENDS_AT_ONCE, handle) => ended,
        () = answer(store, commits, asked) => anyhow::bail!("nobody asks any more"),
    }
}

async fn has_tasks(questions: &mpsc::Sender<Question>, call_id: &str) -> anyhow::Result<bool> {
    let (answer, answered) = oneshot::channel();
    let question = Question { call_id: call_id.to_owned(), answer };
    questions.send(question).await.ok().context("ask for tasks")?;
    answered.await.with_context(|| format!("look for tasks of call {call_id}"))
}

/// Answers as long as somebody may ask; not what cannot be read.
async fn answer(store: Store, commits: Commits, mut asked: mpsc::Receiver<Question>) {
    let mut questions = Vec::with_capacity(ENDS_AT_ONCE);
    while asked.recv_many(&mut questions, ENDS_AT_ONCE).await > 0 {
        sleep(GATHER).await;
        while questions.len() < ENDS_AT_ONCE
            && let Ok(next) = asked.try_recv()
        {
            questions.push(next);
        }
        let calls: Vec<&str> = questions.iter().map(|it| it.call_id.as_str()).collect();
        // What was scheduled before the ends is to be seen.
        let passed = commits.pass().await.context("wait for the writer");
        let live = match passed {
            Ok(()) => store.live_of_calls(&calls).await.map_err(anyhow::Error::from),
            Err(e) => Err(e),
        };
        match live {
            Ok(live) => {
                let live: HashSet<String> = live.into_iter().map(|(call, _)| call).collect();
                for Question { call_id, answer } in questions.drain(..) {
                    let _ = answer.send(live.contains(&call_id)); // NATS may have been lost.
                }
            }
            Err(e) => {
                warn!("failed to look for tasks of calls that have ended: {e:#}");
                questions.clear(); // Who asked hears of it, and the event comes again.
            }
        }
    }
}

/// The call that the event is about; `None`, and a word about it, if it is not such an event.
fn ended_call(payload: &[u8]) -> Option<String> {
    let event = proto::json::event_from_json::<CallEvent>(payload);
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
