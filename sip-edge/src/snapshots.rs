//! Calls that outlive this process: one entry of a JetStream key-value bucket for each call whose leg A
//! stands, with the newest state that NATS has taken. An entry says who has the call; who takes it over
//! says so by a compare-and-set on its revision, so that one alone does.
//!
//! Nothing waits for NATS, but what nobody could repeat: see `keeping.rs`. While NATS is away, calls go
//! on, and only their newest state is written afterwards.

mod record;
#[cfg(test)]
mod tests;
mod writer;

pub(crate) use record::{Kept, Record};

use crate::calls::CallId;
use anyhow::{Context as _, ensure};
use async_nats::jetstream::kv::{Entry, Operation, Store, UpdateErrorKind};
use async_nats::jetstream::{self, stream};
use futures::StreamExt as _;
use proto::subjects::{CALLS_BUCKET, CALLS_MAX_BYTES};
use record::{Owner, RECORD_BYTES_MAX};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use tracing::warn;

/// How long an entry stays that nobody writes again: far longer than a session timer, which has each
/// call written anew.
const RECORD_AGE_MAX: Duration = Duration::from_secs(7 * 24 * 3_600);
/// Requests to NATS at the same time.
const CONCURRENT_MAX: usize = 64;
/// Wait after an attempt to take one call.
const RETRY_DELAY: Duration = Duration::from_millis(500);
/// How long NATS may take for one of them.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What is to be written, and what of it has been. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Snapshots {
    us: Arc<Owner>,
    context: jetstream::Context,
    slots: Arc<Mutex<HashMap<CallId, Slot>>>,
    changed: Arc<Notify>,
}

/// One call. There are no more of them than live calls, and calls whose entry is being deleted.
#[derive(Default)]
struct Slot {
    /// Of the entry, if there is one that we have written.
    revision: Option<u64>,
    /// The newest state that is not written.
    change: Option<Change>,
    /// Those who wait until it is: one at least for each state that is not, who may have gone.
    waiting: Vec<oneshot::Sender<()>>,
}

#[derive(Clone)]
enum Change {
    Put(bytes::Bytes),
    Delete,
}

impl Snapshots {
    pub(crate) fn new(context: jetstream::Context, owner: &str) -> Self {
        let us = Owner { owner: owner.to_owned(), process: boot::new_id() };
        Self { us: us.into(), context, slots: Arc::default(), changed: Arc::default() }
    }

    /// Who we are.
    pub(crate) fn us(&self) -> &Owner {
        &self.us
    }

    /// Has this state written, in place of one that waits; the receiver hears when it, or a later one,
    /// is.
    pub(crate) fn put(&self, id: &CallId, json: Vec<u8>) -> oneshot::Receiver<()> {
        let (written, waiting) = oneshot::channel();
        let mut slots = self.slots.lock().expect("never poisoned");
        let slot = slots.entry(id.clone()).or_default();
        slot.change = Some(Change::Put(json.into()));
        slot.waiting.retain(|it| !it.is_closed());
        slot.waiting.push(written);
        self.changed.notify_one();
        waiting
    }

    /// Hears when the newest state is written, if it is not.
    pub(crate) fn unwritten(&self, id: &CallId) -> Option<oneshot::Receiver<()>> {
        let mut slots = self.slots.lock().expect("never poisoned");
        let slot = slots.get_mut(id).filter(|slot| !slot.waiting.is_empty())?;
        let (written, waiting) = oneshot::channel();
        slot.waiting.retain(|it| !it.is_closed());
        slot.waiting.push(written);
        Some(waiting)
    }

    /// Has the entry deleted, if there is one.
    pub(crate) fn delete(&self, id: &CallId) {
        if let Some(slot) = self.slots.lock().expect("never poisoned").get_mut(id) {
            slot.change = Some(Change::Delete);
            slot.waiting.clear();
            self.changed.notify_one();
        }
    }

    /// Forgets a call that is another one's now.
    pub(crate) fn forget(&self, id: &CallId) {
        self.slots.lock().expect("never poisoned").remove(id);
    }

    /// Takes over all calls that `process` of `owner` had and that nobody is faster with; not those of a
    /// process that came after it. Of no process in particular if it is empty; `owner` may then be our
    /// own name, for what those before us had.
    ///
    /// # Errors
    /// If NATS does not say what there is.
    pub(crate) async fn take_over(
        &self,
        owner: &str,
        process: &str,
    ) -> anyhow::Result<Vec<Record>> {
        let store = self.open().await?;
        let entries = entries(&store).await?;
        let theirs = entries.into_iter().filter(|entry| self.is_theirs(entry, owner, process));
        let theirs: Vec<Entry> = theirs.collect();
        let taken = futures::stream::iter(theirs).map(|entry| self.take(&store, entry));
        let taken = taken.buffer_unordered(CONCURRENT_MAX);
        Ok(taken.filter_map(std::future::ready).collect().await)
    }

    fn is_theirs(&self, entry: &Entry, owner: &str, process: &str) -> bool {
        let said = serde_json::from_slice::<Owner>(&entry.value);
        let is_meant = |it: &str| it != self.us.process && (process.is_empty() || it == process);
        said.is_ok_and(|it| it.owner == owner && is_meant(&it.process))
    }

    /// `None` if somebody was faster, or it cannot be read.
    async fn take(&self, store: &Store, entry: Entry) -> Option<Record> {
        match self.try_take(store, self.as_ours(&entry)?, &entry).await {
            Ok(Some(record)) => Some(record),
            _ => self.take_tried(&entry.key, entry.revision, true).await,
        }
    }

    /// A call as it is written when we have it; `None`, which stays so, if we cannot read or write it.
    fn as_ours(&self, entry: &Entry) -> Option<(Record, Vec<u8>)> {
        let taken = Record::read(&entry.value).and_then(|mut record| {
            (record.owner, record.process) = (self.us.owner.clone(), self.us.process.clone());
            let json = record.write()?;
            Ok((record, json))
        });
        taken.inspect_err(|e| warn!(call_id = entry.key, "failed to take a call over: {e:#}")).ok()
    }

    /// `None` if the entry is at another revision.
    async fn try_take(
        &self,
        store: &Store,
        (record, json): (Record, Vec<u8>),
        entry: &Entry,
    ) -> anyhow::Result<Option<Record>> {
        match timed(store.update(&entry.key, json.into(), entry.revision)).await {
            Ok(revision) => {
                self.own(&record.call_id(), revision);
                Ok(Some(record))
            }
            Err(e) if is_too_late(&e) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// The revision of a call's entry, if it is ours and written.
    pub(crate) fn revision(&self, id: &CallId) -> Option<u64> {
        self.slots.lock().expect("never poisoned").get(id)?.revision
    }

    /// Takes a call whose sip-edge has let go of it, or had, at `revision`; `None` if somebody else
    /// was faster, or it has ended. Asks NATS until it says.
    pub(crate) async fn take_at(&self, call_id: &str, revision: u64) -> Option<Record> {
        self.take_tried(call_id, revision, false).await
    }

    /// If it was `tried` before, what is ours now is that: NATS has taken it and we did not hear.
    async fn take_tried(&self, call_id: &str, revision: u64, mut tried: bool) -> Option<Record> {
        loop {
            match self.try_take_at(call_id, revision, &mut tried).await {
                Ok(taken) => return taken,
                Err(e) => warn!(call_id, "failed to take a call over: {e:#}; trying again"),
            }
            tokio::time::sleep(RETRY_DELAY).await;
        }
    }

    async fn try_take_at(
        &self,
        call_id: &str,
        revision: u64,
        tried: &mut bool,
    ) -> anyhow::Result<Option<Record>> {
        let store = self.open().await?;
        let entry = timed(store.entry(call_id)).await.context("read a call")?;
        let Some(entry) = entry.filter(|it| it.operation == Operation::Put) else {
            return Ok(None);
        };
        ensure!(entry.revision >= revision, "got revision {}, wanted {revision}", entry.revision);
        let Some((record, json)) = self.as_ours(&entry) else { return Ok(None) };
        if entry.revision == revision {
            *tried = true;
            let taken = self.try_take(&store, (record, json), &entry).await?;
            // Somebody was faster, or an attempt of ours that was slow.
            return taken.map(Some).context("take it before somebody else");
        }
        let id = record.call_id();
        if !*tried || !self.is_ours(&entry.value) || self.revision(&id).is_some() {
            return Ok(None);
        }
        self.own(&id, entry.revision);
        Ok(Some(record))
    }

    fn own(&self, id: &CallId, revision: u64) {
        let mut slots = self.slots.lock().expect("never poisoned");
        slots.entry(id.clone()).or_default().revision = Some(revision);
    }

    /// Calls that we had and that others have taken over.
    ///
    /// # Errors
    /// If NATS does not say what there is.
    pub(crate) async fn lost(&self) -> anyhow::Result<Vec<CallId>> {
        let entries = entries(&self.open().await?).await?;
        let slots = self.slots.lock().expect("never poisoned");
        let theirs = entries.iter().filter(|entry| !self.is_ours(&entry.value));
        let lost = theirs.filter_map(|entry| slots.get_key_value(entry.key.as_str()));
        Ok(lost.map(|(id, _)| id.clone()).collect())
    }

    fn is_ours(&self, json: &[u8]) -> bool {
        let owner = serde_json::from_slice::<Owner>(json);
        owner.is_ok_and(|it| it == *self.us)
    }

    /// Who has this call; `None` if nobody.
    ///
    /// # Errors
    /// If NATS does not say.
    pub(crate) async fn owner_of(&self, call_id: &str) -> anyhow::Result<Option<String>> {
        let store = self.open().await?;
        let entry = timed(store.entry(call_id)).await.context("read a call")?;
        let entry = entry.filter(|it| it.operation == Operation::Put);
        let owner = entry.map(|it| serde_json::from_slice::<Owner>(&it.value));
        Ok(owner.transpose().context("read a call")?.map(|it| it.owner))
    }

    /// The bucket; made if it is not there, as its stream, which every server understands.
    async fn open(&self) -> anyhow::Result<Store> {
        if let Ok(store) = timed(self.context.get_key_value(CALLS_BUCKET)).await {
            return Ok(store);
        }
        let config = stream::Config {
            name: format!("KV_{CALLS_BUCKET}"),
            subjects: vec![format!("$KV.{CALLS_BUCKET}.>")],
            max_messages_per_subject: 1,
            max_bytes: CALLS_MAX_BYTES,
            max_age: RECORD_AGE_MAX,
            max_message_size: RECORD_BYTES_MAX as i32 + 4 * 1_024, // The subject and headers count.
            discard: stream::DiscardPolicy::New,
            allow_rollup: true,
            allow_direct: true,
            ..stream::Config::default()
        };
        let made = timed(self.context.get_or_create_stream(config)).await;
        made.context("make the bucket of calls")?;
        timed(self.context.get_key_value(CALLS_BUCKET)).await.context("open the bucket of calls")
    }
}

async fn entries(store: &Store) -> anyhow::Result<Vec<Entry>> {
    let keys = timed(store.keys()).await.context("list the calls")?;
    let entries = keys.map(|key| async move {
        let key = key.context("list the calls")?;
        timed(store.entry(key)).await.context("read a call")
    });
    let mut entries = entries.buffer_unordered(CONCURRENT_MAX);
    let mut found = Vec::new();
    while let Some(entry) = entries.next().await {
        found.extend(entry?.filter(|it| it.operation == Operation::Put));
    }
    Ok(found)
}

async fn timed<T, E>(work: impl Future<Output = Result<T, E>>) -> anyhow::Result<T>
where
    E: std::error::Error + Send + Sync + 'static,
{
    Ok(tokio::time::timeout(TIMEOUT, work).await.context("ask NATS")??)
}

/// Whether somebody else has written the entry meanwhile.
fn is_too_late(e: &anyhow::Error) -> bool {
    use async_nats::jetstream::kv::UpdateError;
    let e = e.downcast_ref::<UpdateError>();
    e.is_some_and(|e| e.kind() == UpdateErrorKind::WrongLastRevision)
}
