//! How many tasks have not ended, and how many there may be.
//!
//! Exact for the shards of this process. Of the other replicas' shards it knows what they said last,
//! about a second ago: at a limit that is shared, all replicas together may go over it by what is
//! added in that time.

use super::Declined;
use crate::store::Held;
use std::collections::HashMap;
use wheel::SHARDS;

#[derive(Clone, Debug)]
pub(crate) struct Limits {
    pub(crate) tasks_max: u32,
    pub(crate) tasks_per_call_max: u32,
    /// Of each tenant that has none of its own.
    pub(crate) tenant_quota: u32,
    pub(crate) tenant_quotas: HashMap<String, u32>,
}

/// What the writer knows of a shard that it writes to.
#[derive(Clone, Debug)]
pub(super) struct Shard {
    pub(super) held: Held,
    /// The number of the last change.
    pub(super) last_seq: i64,
    /// Tasks that have not ended, by tenant.
    live: HashMap<String, i64>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    shards: HashMap<u8, Shard>,
    elsewhere: HashMap<String, i64>,
    /// The sum over all tenants, here and elsewhere.
    total: i64,
    of_tenants: HashMap<String, i64>,
}

impl Counts {
    pub(super) fn shard(&self, held: Held) -> Option<&Shard> {
        self.shards.get(&held.shard).filter(|shard| shard.held == held)
    }

    /// What was found in a shard that this process has begun to write to.
    pub(super) fn begin(&mut self, held: Held, last_seq: i64, live: HashMap<String, i64>) {
        self.shards.insert(held.shard, Shard { held, last_seq, live });
        self.add_up();
    }

    /// Only these shards are ours.
    pub(super) fn retain(&mut self, held: &[Held]) {
        let before = self.shards.len();
        self.shards.retain(|_, shard| held.contains(&shard.held));
        if self.shards.len() < before {
            self.add_up();
        }
    }

    /// What the other replicas have.
    pub(super) fn hear(&mut self, elsewhere: Vec<(String, i64)>) {
        self.elsewhere = elsewhere.into_iter().collect();
        self.add_up();
    }

    /// What to tell the other replicas.
    pub(super) fn told(&self) -> Vec<(u8, &str, i64)> {
        let each = self.shards.values().flat_map(|Shard { held, live, .. }| {
            live.iter().map(move |(tenant, live)| (held.shard, tenant.as_str(), *live))
        });
        each.collect()
    }

    pub(super) fn total(&self) -> i64 {
        self.total
    }

    pub(super) fn of_tenant(&self, tenant: &str) -> i64 {
        self.of_tenants.get(tenant).copied().unwrap_or(0)
    }

    /// A commit has added so many tasks (or ended them, if negative), and gone on to `last_seq`.
    pub(super) fn apply(&mut self, changes: &Deltas) {
        for (tenant, of_shards) in &changes.by {
            for (number, by) in (0..SHARDS).zip(of_shards).filter(|(_, by)| **by != 0) {
                if let Some(shard) = self.shards.get_mut(&number) {
                    change(&mut shard.live, tenant, *by);
                }
                self.total += by;
                change(&mut self.of_tenants, tenant, *by);
            }
        }
    }

    pub(super) fn advance(&mut self, shard: u8, last_seq: i64) {
        if let Some(shard) = self.shards.get_mut(&shard) {
            shard.last_seq = last_seq;
        }
    }

    fn add_up(&mut self) {
        self.of_tenants = self.elsewhere.clone();
        for (tenant, live) in self.shards.values().flat_map(|shard| &shard.live) {
            *self.of_tenants.entry(tenant.clone()).or_default() += live;
        }
        self.total = self.of_tenants.values().sum();
    }
}

/// Those of a tenant that has none are left out.
fn change(counts: &mut HashMap<String, i64>, tenant: &str, by: i64) {
    let count = counts.entry(tenant.to_owned()).or_default();
    *count += by;
    if *count == 0 {
        counts.remove(tenant);
    }
}

/// What a transaction will have changed in the counts once it is committed.
#[derive(Debug, Default)]
pub(super) struct Deltas {
    /// By tenant, and by shard.
    by: HashMap<String, [i64; SHARDS as usize]>,
    total: i64,
}

impl Deltas {
    pub(super) fn add(&mut self, shard: u8, tenant: &str, by: i64) {
        let of_tenant = match self.by.get_mut(tenant) {
            Some(of_tenant) => of_tenant,
            None => self.by.entry(tenant.to_owned()).or_default(),
        };
        of_tenant[usize::from(shard)] += by;
        self.total += by;
    }

    /// Whether there is room for one more task of this tenant and of a call that has so many.
    pub(super) fn room(
        &self,
        counts: &Counts,
        limits: &Limits,
        tenant: &str,
        of_call: i64,
    ) -> Result<(), Declined> {
        let Limits { tasks_max, tasks_per_call_max, .. } = *limits;
        if counts.total() + self.total >= i64::from(tasks_max) {
            return Err(Declined::TooManyTasks { max: tasks_max });
        }
        let max = limits.tenant_quotas.get(tenant).copied().unwrap_or(limits.tenant_quota);
        let of_tenant: i64 = self.by.get(tenant).map_or(0, |of_shards| of_shards.iter().sum());
        if counts.of_tenant(tenant) + of_tenant >= i64::from(max) {
            return Err(Declined::TooManyOfTenant { tenant: tenant.to_owned(), max });
        }
        if of_call >= i64::from(tasks_per_call_max) {
            return Err(Declined::TooManyOfCall { max: tasks_per_call_max });
        }
        Ok(())
    }
}
