//! Moves what the log of commits holds into the database, beside the writer.
//!
//! Left to itself, SQLite does it within a commit: one in a hundred would take several times as
//! long, and make the tasks that wait for it late.

use crate::metrics;
use crate::store::Store;
use std::time::Duration;
use tokio::sync::watch;
use tracing::debug;

const INTERVAL: Duration = Duration::from_secs(1);
/// How long it waits for a herd that is firing: what a herd of 300,000 writes is far less than
/// SQLite's own limit.
const YIELD_LIMIT: Duration = Duration::from_secs(10);

/// Checkpoints as often as anything may have been written, until the process ends. `busy` is true
/// while a herd is firing.
pub(crate) async fn keep_up(store: Store, mut busy: watch::Receiver<bool>) -> anyhow::Result<()> {
    loop {
        tokio::time::sleep(INTERVAL).await;
        let quiet = busy.wait_for(|busy| !busy);
        let _ = tokio::time::timeout(YIELD_LIMIT, quiet).await; // Either way it goes on.
        if let Err(e) = store.checkpoint().await {
            metrics::checkpoint_failed();
            debug!("failed to checkpoint: {e}");
        }
    }
}
