//! Forgets changes that are old, and with them the tasks that ended then.

use crate::clock::Clock;
use crate::commits::{Commits, Unwritten};
use crate::leases::Leases;
use crate::store::{self, Held, Old, Reach, Store};
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

/// How many changes of a shard are kept, whether NATS has them or not.
pub(crate) fn kept(tasks_max: u32) -> i64 {
    (CHANGES_PER_TASK * i64::from(tasks_max) / i64::from(SHARDS)).max(KEPT_MIN)
}

/// Whose changes are forgotten when.
pub(crate) struct Retention {
    pub(crate) store: Store,
    pub(crate) commits: Commits,
    pub(crate) leases: Leases,
    pub(crate) clock: Clock,
    pub(crate) retention: Duration,
    pub(crate) tasks_max: u32,
}

impl Retention {
    /// Forgets what the bus was told of after the retention time, and the oldest changes where there
    /// are more than those of all tasks that there may be, in the shards of this process, until it
    /// ends. What fails is done at the next sweep.
    pub(crate) async fn sweep(self) -> anyhow::Result<()> {
        let interval = SWEEP_INTERVAL.min(self.retention).max(PAUSE);
        loop {
            tokio::time::sleep(interval).await;
            let mut forgotten = 0;
            for held in self.leases.all_held() {
                let Ok(old) = self.old(held).await else { continue };
                while let Ok(changes @ 1..) = self.forget(held, old).await {
                    forgotten += changes;
                    tokio::time::sleep(PAUSE).await;
                }
            }
            if forgotten > 0 {
                debug!(forgotten, "retention");
            }
        }
    }

    async fn old(&self, Held { shard, .. }: Held) -> store::Result<Old> {
        let retention_ms = i64::try_from(self.retention.as_millis()).unwrap_or(i64::MAX);
        let Reach { last, .. } = self.store.reach(&[shard]).await?[0];
        Ok(Old {
            before_unix_ms: self.clock.moment().unix_ms().saturating_sub(retention_ms),
            told_seq: self.store.published(shard).await?,
            before_seq: last.saturating_sub(kept(self.tasks_max)),
        })
    }

    async fn forget(&self, held: Held, old: Old) -> Result<u32, Unwritten> {
        self.commits.forget(held.shard, old, COMMITS_PER_STEP).await
    }
}
