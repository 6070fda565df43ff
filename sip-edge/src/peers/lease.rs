//! Our own lease and those of the others in the bucket, and what follows when one runs out.

use super::{LEASE, Peers, RENEW};
use crate::edge::Done;
use crate::snapshots::Snapshots;
use anyhow::Context as _;
use async_nats::jetstream::kv::{Operation, Store};
use async_nats::jetstream::{self, stream};
use futures::StreamExt as _;
use proto::subjects::{EDGES_BUCKET, EDGES_MAX_BYTES};
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tracing::{debug, info, warn};

/// How long the entry of a sip-edge stays that is gone.
const ENTRY_AGE_MAX: Duration = Duration::from_secs(3_600);
const ENTRY_BYTES_MAX: i32 = 4 * 1_024;
/// How long NATS may take, and the wait before a lost watch is begun again.
const TIMEOUT: Duration = Duration::from_secs(2);
const RETRY_DELAY: Duration = Duration::from_millis(500);

/// What a sip-edge says of itself.
#[derive(Serialize, Deserialize)]
struct Entry {
    /// Where its gRPC is.
    url: String,
    /// Which process of its name it is: what another one has is not to be taken for its calls.
    #[serde(default)]
    process: String,
}

pub(crate) struct Lease {
    pub(crate) context: jetstream::Context,
    pub(crate) peers: Peers,
    pub(crate) snapshots: Snapshots,
    /// Where our gRPC is; empty if others cannot reach it.
    pub(crate) url: String,
    pub(crate) done: mpsc::Sender<Done>,
}

impl Lease {
    /// Says that we are there, hears the others, and takes over the calls of those that die. Never
    /// ends: NATS may go away and come back.
    pub(crate) async fn hold(self) -> anyhow::Result<()> {
        tokio::join!(self.renew(), self.listen(), self.look());
        Ok(())
    }

    /// Says that we are there before we take the calls of the process before us, so that the others know
    /// whose they are if we die with them.
    ///
    /// # Errors
    /// If NATS does not take it.
    pub(crate) async fn announce(&self) -> anyhow::Result<()> {
        let mut store = None;
        let announced = self.renew_once(&mut store);
        tokio::time::timeout(TIMEOUT, announced).await.context("renew the lease")?
    }

    /// # Errors
    /// If NATS does not take it; the others find out by themselves, later.
    pub(crate) async fn give_up(context: jetstream::Context, name: &str) -> anyhow::Result<()> {
        let given_up =
            async { open(&context).await?.delete(name).await.context("give the lease up") };
        tokio::time::timeout(TIMEOUT, given_up).await.context("give the lease up")?
    }

    async fn renew(&self) {
        let mut ticks = tokio::time::interval(RENEW);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut store, mut renewed) = (None, Instant::now());
        loop {
            ticks.tick().await;
            match tokio::time::timeout(TIMEOUT, self.renew_once(&mut store)).await {
                Ok(Ok(())) => {
                    let was_silent = renewed.elapsed() >= LEASE;
                    renewed = Instant::now();
                    if was_silent {
                        self.tell_of_lost().await;
                    }
                }
                Ok(Err(e)) => debug!("failed to {e:#}"),
                Err(_) => debug!("failed to renew the lease in {TIMEOUT:?}"),
            }
        }
    }

    async fn renew_once(&self, store: &mut Option<Store>) -> anyhow::Result<()> {
        let opened = match store.take() {
            Some(opened) => opened,
            None => open(&self.context).await?,
        };
        let entry = Entry { url: self.url.clone(), process: self.snapshots.us().process.clone() };
        let json = serde_json::to_vec(&entry).context("write the lease as JSON")?;
        opened.put(self.peers.own_name(), json.into()).await.context("renew the lease")?;
        *store = Some(opened);
        Ok(())
    }

    /// We were silent for so long that others may have taken our calls.
    async fn tell_of_lost(&self) {
        match self.snapshots.lost().await {
            Ok(lost) => {
                for id in lost {
                    let _ = self.done.send(Done::CallLost(id)).await; // The process is ending.
                }
            }
            Err(e) => warn!("failed to {e:#}"), // The next change of a call finds out.
        }
    }

    async fn listen(&self) {
        loop {
            if let Err(e) = self.listen_until_lost().await {
                debug!("failed to {e:#}");
            }
            tokio::time::sleep(RETRY_DELAY).await;
        }
    }

    async fn listen_until_lost(&self) -> anyhow::Result<()> {
        let store = open(&self.context).await?;
        let mut entries = store.watch_with_history(">").await.context("watch the sip-edges")?;
        while let Some(entry) = entries.next().await {
            let (entry, now) = (entry.context("hear of a sip-edge")?, Instant::now());
            match entry.operation {
                Operation::Put => match serde_json::from_slice::<Entry>(&entry.value) {
                    Ok(Entry { url, process }) => {
                        self.peers.handle_renewed(now, &entry.key, &url, &process);
                    }
                    Err(e) => warn!(edge = entry.key, "failed to read a lease: {e}"),
                },
                Operation::Delete | Operation::Purge => self.peers.handle_gone(now, &entry.key),
            }
        }
        Ok(())
    }

    async fn look(&self) {
        let mut ticks = tokio::time::interval(RENEW / 2);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            for (dead, process) in self.peers.poll_dead(Instant::now()) {
                match self.snapshots.take_over(&dead, &process).await {
                    Ok(records) => {
                        info!(edge = dead, calls = records.len(), "a sip-edge is gone");
                        for record in records {
                            let _ = self.done.send(Done::CallTaken(Box::new(record))).await;
                        }
                    }
                    Err(e) => {
                        warn!(edge = dead, "failed to {e:#}; trying again");
                        self.peers.look_again(&dead);
                    }
                }
            }
        }
    }
}

/// The bucket; made if it is not there, as its stream, which every server understands.
async fn open(context: &jetstream::Context) -> anyhow::Result<Store> {
    if let Ok(store) = context.get_key_value(EDGES_BUCKET).await {
        return Ok(store);
    }
    let config = stream::Config {
        name: format!("KV_{EDGES_BUCKET}"),
        subjects: vec![format!("$KV.{EDGES_BUCKET}.>")],
        max_messages_per_subject: 1,
        max_bytes: EDGES_MAX_BYTES,
        max_age: ENTRY_AGE_MAX,
        max_message_size: ENTRY_BYTES_MAX,
        discard: stream::DiscardPolicy::Old,
        allow_rollup: true,
        allow_direct: true,
        ..stream::Config::default()
    };
    context.get_or_create_stream(config).await.context("make the bucket of sip-edges")?;
    context.get_key_value(EDGES_BUCKET).await.context("open the bucket of sip-edges")
}
