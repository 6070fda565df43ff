//! Writes what has changed of calls, each call in its order, the newest state only.

use super::{CONCURRENT_MAX, Change, Snapshots, is_too_late, timed};
use crate::calls::CallId;
use crate::edge::Done;
use crate::metrics;
use anyhow::Context as _;
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::kv::{Operation, Store};
use async_nats::jetstream::stream::DeleteMessageErrorKind;
use futures::StreamExt as _;
use std::time::Duration;
use tokio::sync::mpsc;
use tracing::debug;

/// Wait after an attempt of which not everything could be written.
const RETRY_DELAY: Duration = Duration::from_millis(500);
/// How servers say that there is no such message.
const GONE: [ErrorCode; 3] = [
    ErrorCode::NO_MESSAGE_FOUND,
    ErrorCode::SEQUENCE_NOT_FOUND,
    ErrorCode::STREAM_MESSAGE_DELETE_FAILED,
];

/// What has become of a change.
enum Outcome {
    Written(u64),
    Deleted,
    /// Another sip-edge has taken the call over.
    Lost,
    Failed,
}

impl Snapshots {
    /// Writes for ever. Tells `done` of calls that others have taken over.
    pub(crate) async fn write(self, done: mpsc::Sender<Done>) -> anyhow::Result<()> {
        let mut store = None;
        loop {
            self.changed.notified().await;
            loop {
                let batch = self.batch();
                if batch.is_empty() {
                    break;
                }
                if store.is_none() {
                    store = self.open().await.inspect_err(|e| debug!("failed to {e:#}")).ok();
                }
                let failed = self.write_batch(store.as_ref(), batch, &done).await;
                if failed > 0 {
                    metrics::snapshots_unwritten(failed);
                    store = None; // It may have been made anew.
                    tokio::time::sleep(RETRY_DELAY).await;
                }
            }
        }
    }

    /// Every change that is not written; it is not in its slot any more.
    fn batch(&self) -> Vec<(CallId, Change, Option<u64>)> {
        let mut slots = self.slots.lock().expect("never poisoned");
        let changed = slots.iter_mut().filter_map(|(id, slot)| {
            let change = slot.change.take()?;
            Some((id.clone(), change, slot.revision))
        });
        changed.collect()
    }

    /// How many could not be written; they are back in their slots.
    async fn write_batch(
        &self,
        store: Option<&Store>,
        batch: Vec<(CallId, Change, Option<u64>)>,
        done: &mpsc::Sender<Done>,
    ) -> usize {
        let written = futures::stream::iter(batch).map(|(id, change, revision)| async move {
            let outcome = match store {
                Some(store) => self.write_one(store, &id, &change, revision).await,
                None => Ok(Outcome::Failed),
            };
            let outcome = outcome.unwrap_or_else(|e| {
                debug!(call_id = %id, "failed to {e:#}");
                Outcome::Failed
            });
            (id, change, outcome)
        });
        let mut written = written.buffer_unordered(CONCURRENT_MAX);
        let mut failed = 0;
        while let Some((id, change, outcome)) = written.next().await {
            failed += usize::from(matches!(outcome, Outcome::Failed));
            let is_lost = matches!(outcome, Outcome::Lost);
            self.settle(&id, change, outcome);
            if is_lost {
                let _ = done.send(Done::CallLost(id)).await; // The process is ending.
            }
        }
        failed
    }

    async fn write_one(
        &self,
        store: &Store,
        id: &CallId,
        change: &Change,
        revision: Option<u64>,
    ) -> anyhow::Result<Outcome> {
        let json = match change {
            Change::Put(json) => json.clone(),
            Change::Delete => return delete(store, revision).await,
        };
        let key: &str = id;
        match timed(store.update(key, json.clone(), revision.unwrap_or(0))).await {
            Ok(revision) => return Ok(Outcome::Written(revision)),
            Err(e) if !is_too_late(&e) => return Err(e.context("write a call")),
            Err(_) => (),
        }
        // Who wrote it? Perhaps we did, and did not hear that we had.
        let entry = timed(store.entry(key)).await.context("read a call")?;
        let revision = match entry.filter(|it| it.operation == Operation::Put) {
            None => 0,
            Some(entry) if self.is_ours(&entry.value) => entry.revision,
            Some(_) => return Ok(Outcome::Lost),
        };
        let written = timed(store.update(key, json, revision)).await.context("write a call")?;
        Ok(Outcome::Written(written))
    }

    fn settle(&self, id: &CallId, change: Change, outcome: Outcome) {
        let mut slots = self.slots.lock().expect("never poisoned");
        let Some(slot) = slots.get_mut(id) else { return };
        match outcome {
            Outcome::Written(revision) => {
                slot.revision = Some(revision);
                if slot.change.is_none() {
                    for waiting in slot.waiting.drain(..) {
                        let _ = waiting.send(()); // It may have waited long enough.
                    }
                } // Else those who came with the newer one wait with it.
            }
            Outcome::Failed => drop(slot.change.get_or_insert(change)),
            Outcome::Deleted | Outcome::Lost => {
                slots.remove(id);
            }
        }
    }
}

/// An entry of ours that nobody has replaced. No mark is left of it.
async fn delete(store: &Store, revision: Option<u64>) -> anyhow::Result<Outcome> {
    let Some(revision) = revision else { return Ok(Outcome::Deleted) };
    let deleted = store.stream.delete_message(revision);
    let deleted = tokio::time::timeout(super::TIMEOUT, deleted).await.context("delete a call")?;
    match deleted {
        Ok(_) => Ok(Outcome::Deleted),
        Err(e) => match e.kind() {
            // It has been replaced, or is too old.
            DeleteMessageErrorKind::JetStream(e) if GONE.contains(&e.error_code()) => {
                Ok(Outcome::Deleted)
            }
            _ => Err(e).context("delete a call"),
        },
    }
}
