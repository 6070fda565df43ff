//! The log of changes goes to NATS, in order: each change at least once, whoever dies meanwhile.

use crate::desk::Desk;
use crate::events;
use crate::store::{Logged, Store, StoreError};
use boot::{Event, Journal, UNACKED_MAX};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{debug, warn};

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
    mut journal: Journal,
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
        match publish_some(&store, &mut journal, at).await {
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
async fn publish_some(store: &Store, journal: &mut Journal, after: i64) -> Result<i64, StoreError> {
    let changes = store.changes(after, UNACKED_MAX as u32).await?;
    let Some(last) = changes.last().map(|it| it.revision) else {
        return Ok(store.reach().await?.last); // A log that somebody has emptied.
    };
    let events: Vec<Event> = changes.iter().filter_map(event).collect();
    journal.keep(&events, |_| true).await;
    Ok(last)
}

/// The event that a change is; nothing if it cannot be read.
fn event(change: &Logged) -> Option<Event> {
    let event = events::read_change(&change.event)
        .inspect_err(|e| {
            let revision = change.revision;
            warn!(revision, "passed over a change that cannot be read: {e}");
        })
        .ok()?;
    let json = proto::json::event_to_json(&event);
    Some(Event { subject: events::subject(&event), id: event.event_id, json })
}
