//! What is done to all tasks of a call, a group or a tenant: in each shard by its owner.
//!
//! Who forwards says which shards it asks for, and who is asked does it in all of these or says that
//! they are not its own. So no shard is passed over because it changed hands meanwhile.

use super::forward::{Client, Hop, Route, forwarded_shards, is_not_owner, of_other};
use super::{Api, unwritten};
use crate::commits::Action;
use crate::fields::Bad;
use crate::leases::OWNER_WAIT_LIMIT;
use crate::shard_set::ShardSet;
use crate::store::Scope;
use futures::future;
use tokio::time::Instant;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};
use wheel::shard_of;

/// Who asks, and about which shards.
#[derive(Clone, Copy, Debug)]
pub(super) enum Asked {
    /// About all that there are.
    ByClient,
    ByReplica(ShardSet),
}

impl Asked {
    /// # Errors
    /// If another replica asks, but does not say about which shards.
    pub(super) fn of(metadata: &MetadataMap) -> Result<Self, Bad> {
        let missing = || Bad::missing("metadata holdfast-shards", "shards, e.g. \"0,15\"");
        match Hop::of(metadata) {
            Hop::First => Ok(Self::ByClient),
            Hop::Forwarded => forwarded_shards(metadata).map(Self::ByReplica).ok_or_else(missing),
        }
    }
}

impl Api {
    /// Does this to all tasks of the scope, here and, by `there`, at the other owners; to how many it
    /// was done, and how many were firing.
    ///
    /// # Errors
    /// UNKNOWN if it was done to some only, or nobody knows to which: to be repeated.
    pub(super) async fn sweep<F>(
        &self,
        asked: Asked,
        scope: &Scope,
        action: &Action,
        there: impl Fn(Client, ShardSet) -> F,
    ) -> Result<(u32, u32), Status>
    where
        F: Future<Output = Result<(u32, u32), Status>>,
    {
        let (hop, mut left) = match (asked, scope) {
            (Asked::ByReplica(shards), _) => (Hop::Forwarded, shards),
            // All tasks of a call are in one shard.
            (Asked::ByClient, Scope::Call(call)) => (Hop::First, ShardSet::of([shard_of(call)])),
            (Asked::ByClient, _) => (Hop::First, ShardSet::ALL),
        };
        let (until, mut swept) = (Instant::now() + OWNER_WAIT_LIMIT, (0, 0));
        loop {
            let routes = self.forward.routes(left, hop).await;
            let routes = routes.map_err(|e| after(swept, e.into()))?;
            let (there, mut failed) = (&there, None);
            let parts = routes.into_iter().map(|(route, shards)| async move {
                let part = match route {
                    Route::Here => {
                        self.commits.sweep(scope, action, shards).await.map_err(unwritten)
                    }
                    Route::There(_, owner) => there(owner, shards).await.map_err(of_other),
                };
                (shards, part)
            });
            left = ShardSet::default();
            for (shards, part) in future::join_all(parts).await {
                match part {
                    Ok((done, firing)) => swept = (swept.0 + done, swept.1 + firing),
                    Err(e) if is_not_owner(&e) && hop == Hop::First && Instant::now() < until => {
                        left = left.union(shards);
                    }
                    Err(e) => failed = Some(e),
                }
            }
            if let Some(e) = failed {
                return Err(after(swept, e));
            }
            if left.is_empty() {
                return Ok(swept);
            }
            self.forward.look_again().await;
        }
    }
}

/// The error, if it was done to so many before.
fn after(swept: (u32, u32), e: Status) -> Status {
    match swept {
        (0, _) => e,
        (done, _) if e.code() == Code::InvalidArgument => {
            Status::internal(format!("done to {done} tasks: {}", e.message()))
        }
        (done, _) => Status::unknown(format!(
            "done to {done} tasks, to the others perhaps not; repeat it: {}",
            e.message()
        )),
    }
}
