//! Forgets tasks that ended long ago.

use crate::clock::Clock;
use crate::commits::Commits;
use crate::store::{ROWS_PER_STATEMENT, Store};
use std::time::Duration;
use tracing::debug;

/// How often ended tasks are looked at, unless `--retention` is shorter.
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);
/// Lets others write between two deletions.
const PAUSE: Duration = Duration::from_millis(20);

/// Forgets tasks `retention` after they ended, and the oldest of more than `ended_max`, until the
/// process ends. What fails is done at the next sweep.
pub(crate) async fn sweep(
    store: Store,
    commits: Commits,
    clock: Clock,
    retention: Duration,
    ended_max: u32,
) -> anyhow::Result<()> {
    let interval = SWEEP_INTERVAL.min(retention).max(PAUSE);
    let retention_ms = i64::try_from(retention.as_millis()).unwrap_or(i64::MAX);
    loop {
        tokio::time::sleep(interval).await;
        let before_unix_ms = clock.moment().unix_ms().saturating_sub(retention_ms);
        let mut forgotten = forget(&commits, before_unix_ms, u32::MAX).await;
        let excess = store.ended().await.map_or(0, |ended| ended - i64::from(ended_max));
        if let Ok(excess @ 1..) = u32::try_from(excess) {
            forgotten += forget(&commits, i64::MAX, excess).await;
        }
        if forgotten > 0 {
            debug!(forgotten, "retention");
        }
    }
}

/// Forgets at most `most` tasks that ended before then, oldest first; how many it has forgotten.
async fn forget(commits: &Commits, before_unix_ms: i64, most: u32) -> u32 {
    let mut forgotten = 0;
    while forgotten < most {
        let Ok(now) = commits.forget(before_unix_ms, most - forgotten).await else { break };
        forgotten += now;
        if now < ROWS_PER_STATEMENT {
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    forgotten
}
