//! Moves what the log of commits holds into the database, beside the writer.
//!
//! Left to itself, SQLite does it within a commit: one in a hundred would take several times as
//! long, and make the tasks that wait for it late.

use crate::metrics;
use crate::store::Store;
use std::time::Duration;
use tracing::debug;

const INTERVAL: Duration = Duration::from_secs(1);

/// Checkpoints as often as anything may have been written, until the process ends.
pub(crate) async fn keep_up(store: Store) -> anyhow::Result<()> {
    loop {
        tokio::time::sleep(INTERVAL).await;
        if let Err(e) = store.checkpoint().await {
            metrics::checkpoint_failed();
            debug!("failed to checkpoint: {e}");
        }
    }
}
