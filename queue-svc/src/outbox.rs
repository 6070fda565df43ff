//! The log of changes goes to NATS, in order: each change at least once, whoever dies meanwhile.

use crate::desk::Desk;
use crate::events;
use crate::store::{Logged, Store, StoreError};
use async_nats::jetstream::context::{PublishAckFuture, PublishError, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use boot::Nats;
use futures::future::join_all;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{debug, warn};

/// Changes that are on their way to NATS at a time.
const UNACKED_MAX: u32 = 256;
/// Wait before what failed is tried again.
const AGAIN: Duration = Duration::from_millis(250);
/// How long the end of the process waits for NATS.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);
/// The shortest wait between two looks at the log: what is logged meanwhile goes along.
const LOOK_PAUSE: Duration = Duration::from_millis(5);

/// Publishes for ever. `logged` has the revision of the last change on disk; `told` gets that of the
/// last one that NATS has.
pub(crate) async fn run(
    store: Store,
    nats: Nats,
    desk: Desk,
    mut logged: watch::Receiver<i64>,
    told: &watch::Sender<i64>,
) -> anyhow::Result<()> {
    let mut at = loop {
        match store.reach().await {
            Ok(reach) => break reach.told,
            Err(e) => debug!("failed to read how far NATS is told: {e}"),
        }
        sleep(AGAIN).await;
    };
    loop {
        told.send_replace(at);
        logged.wait_for(|last| *last > at).await?;
        sleep(LOOK_PAUSE).await;
        match publish_some(&store, &nats, at).await {
            Ok(revision) => {
                at = revision;
                desk.told(at).await;
            }
            Err(e) => {
                debug!("failed to read changes for NATS: {e}");
                sleep(AGAIN).await;
            }
        }
    }
}

/// Completes when `work` has, and NATS has every change that was logged until then, or does not take
/// them.
pub(crate) async fn drained(
    work: impl Future<Output = ()>,
    logged: watch::Receiver<i64>,
    mut told: watch::Receiver<i64>,
) {
    work.await;
    let last = *logged.borrow();
    let all_told = told.wait_for(|revision| *revision >= last);
    let _ = tokio::time::timeout(DRAIN_LIMIT, all_told).await; // The log keeps them.
}

/// The next changes after `after`; the revision of the last one that NATS has then.
async fn publish_some(store: &Store, nats: &Nats, after: i64) -> Result<i64, StoreError> {
    let changes = store.changes(after, UNACKED_MAX).await?;
    let Some(last) = changes.last().map(|it| it.revision) else {
        return Ok(store.reach().await?.last); // A log that somebody has emptied.
    };
    let mut left: Vec<&Logged> = changes.iter().collect();
    loop {
        let mut on_the_way = Vec::with_capacity(left.len());
        for change in &left {
            on_the_way.push(send(nats, change).await); // One after the other, or they change places.
        }
        let sent = join_all(on_the_way.into_iter().map(confirmed)).await;
        let mut results = sent.iter();
        left.retain(|_| results.next().is_some_and(Result::is_err));
        if left.is_empty() {
            return Ok(last);
        }
        let lost = |e: &PublishError| e.kind() == PublishErrorKind::StreamNotFound;
        if sent.iter().any(|sent| sent.as_ref().is_err_and(lost))
            && let Err(e) = nats.make_stream().await
        {
            debug!("failed to make the stream of events: {e:#}");
        }
        sleep(AGAIN).await;
    }
}

/// Hands the event to the client; nothing if there is none that could be read.
async fn send(nats: &Nats, change: &Logged) -> Result<Option<PublishAckFuture>, PublishError> {
    let event = match events::read_change(&change.event) {
        Ok(event) => event,
        Err(e) => {
            warn!(revision = change.revision, "passed over a change that cannot be read: {e}");
            return Ok(None);
        }
    };
    let json = proto::json::to_json(&event);
    let message = PublishMessage::build().payload(json.into()).message_id(&event.event_id);
    let subject = events::subject(&event);
    nats.jetstream().send_publish(subject, message).await.map(Some)
}

/// Returns once JetStream has confirmed it.
async fn confirmed(
    sent: Result<Option<PublishAckFuture>, PublishError>,
) -> Result<(), PublishError> {
    match sent? {
        Some(ack) => ack.await.map(drop),
        None => Ok(()),
    }
}
