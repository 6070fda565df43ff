//! Forgets changes that are old, and with them the tasks that ended then.

use crate::clock::Clock;
use crate::commits::Commits;
use crate::leases::Leases;
use std::time::Duration;
use tracing::debug;
use wheel::SHARDS;

/// How often changes are looked at, unless `--retention` is shorter.
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);
/// Lets others write between two deletions.
const PAUSE: Duration = Duration::from_millis(20);
/// Changes that are kept for each task that there may be: a task that ends has at least two.
const CHANGES_PER_TASK: i64 = 2;
/// How many commits' changes are forgotten in one transaction.
const COMMITS_PER_STEP: u32 = 16;
/// Fewest changes that are kept of a shard.
const KEPT_MIN: i64 = 1_000;

/// Forgets changes after `retention`, and the oldest where there are more than those of `tasks_max`
/// tasks, in the shards of this process, until it ends. What fails is done at the next sweep.
pub(crate) async fn sweep(
    commits: Commits,
    leases: Leases,
    clock: Clock,
    retention: Duration,
    tasks_max: u32,
) -> anyhow::Result<()> {
    let interval = SWEEP_INTERVAL.min(retention).max(PAUSE);
    let retention_ms = i64::try_from(retention.as_millis()).unwrap_or(i64::MAX);
    let kept_max = (CHANGES_PER_TASK * i64::from(tasks_max) / i64::from(SHARDS)).max(KEPT_MIN);
    loop {
        tokio::time::sleep(interval).await;
        let before_unix_ms = clock.moment().unix_ms().saturating_sub(retention_ms);
        let mut forgotten = 0;
        for held in leases.all_held() {
            let forget = || commits.forget(held.shard, before_unix_ms, kept_max, COMMITS_PER_STEP);
            while let Ok(changes @ 1..) = forget().await {
                forgotten += changes;
                tokio::time::sleep(PAUSE).await;
            }
        }
        if forgotten > 0 {
            debug!(forgotten, "retention");
        }
    }
}
