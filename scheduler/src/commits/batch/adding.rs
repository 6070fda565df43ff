//! Adding tasks: keys that are known, limits, and two replicas that add the same key at once.

use super::Batch;
use crate::commits::counts::Counts;
use crate::commits::{Declined, New, Reply, Scheduled, Unwritten};
use crate::store::{self, Task};
use std::collections::{HashMap, HashSet};
use wheel::TaskId;

/// What is known of keys and calls while tasks are added.
#[derive(Default)]
struct Known {
    by_key: HashMap<(String, String), TaskId>,
    of_call: HashMap<String, i64>,
}

impl Batch<'_> {
    pub(super) async fn schedule_all(
        &mut self,
        counts: &Counts,
        asked: Vec<(Vec<New>, Reply<Vec<Scheduled>>)>,
    ) -> store::Result<()> {
        let all = || asked.iter().flat_map(|(new, _)| new).filter(|new| self.holds(new.task.id));
        let keys: HashSet<(&str, &str)> = all()
            .filter(|new| !new.key.is_empty())
            .map(|new| (new.task.tenant.as_str(), new.key.as_str()))
            .collect();
        let calls: HashSet<&str> =
            all().map(|new| new.task.call_id.as_str()).filter(|call| !call.is_empty()).collect();
        let (keys, calls): (Vec<_>, Vec<_>) =
            (keys.into_iter().collect(), calls.into_iter().collect());
        let mut known = Known::default();
        for (key, task) in self.transaction.by_keys(&keys).await? {
            known.by_key.insert((task.tenant.clone(), key), task.id);
            self.keep(task.into());
        }
        known.of_call = self.transaction.live_of_calls(&calls).await?.into_iter().collect();
        let mut added: Vec<&New> = Vec::new();
        let mut outcomes = Vec::with_capacity(asked.len());
        for (new, _) in &asked {
            let outcome: Vec<_> =
                new.iter().map(|new| self.decide(counts, &mut known, new, &mut added)).collect();
            outcomes.push(outcome);
        }
        let lost = self.insert(&added).await?;
        for (outcomes, (new, reply)) in outcomes.into_iter().zip(asked) {
            let scheduled = outcomes.into_iter().zip(&new).map(|(outcome, new)| match outcome {
                Ok(Ok(id)) => Ok(self.stored(id, new, &lost)),
                Ok(Err(declined)) => Ok(Err(declined)),
                Err(unwritten) => Err(unwritten),
            });
            let scheduled = scheduled.collect();
            self.answer(reply, Ok(scheduled));
        }
        Ok(())
    }

    /// The id of the task that the answer will be about; `added` gets those that are to be inserted.
    fn decide<'n>(
        &mut self,
        counts: &Counts,
        known: &mut Known,
        new: &'n New,
        added: &mut Vec<&'n New>,
    ) -> Result<Result<TaskId, Declined>, Unwritten> {
        let New { task, key, .. } = new;
        if !self.holds(task.id) {
            return Err(Unwritten::NotOwner);
        }
        let key = (!key.is_empty()).then(|| (task.tenant.clone(), key.clone()));
        if let Some(id) = key.as_ref().and_then(|key| known.by_key.get(key)) {
            return Ok(Ok(*id));
        }
        let of_call = known.of_call.get(&task.call_id).copied().unwrap_or(0);
        let room = self.made.deltas.room(counts, &self.desk.limits, &task.tenant, of_call);
        if let Err(declined) = room {
            return Ok(Err(declined));
        }
        known.by_key.extend(key.map(|key| (key, task.id)));
        if !task.call_id.is_empty() {
            *known.of_call.entry(task.call_id.clone()).or_default() += 1;
        }
        self.made.deltas.add(task.id.shard(), &task.tenant, 1);
        added.push(new);
        Ok(Ok(task.id))
    }

    /// Adds these tasks. Returns those whose keys another replica has added at the same moment, with
    /// the tasks that have the keys.
    async fn insert(&mut self, added: &[&New]) -> store::Result<HashMap<TaskId, Task>> {
        let mut rows: Vec<(&Task, &str)> =
            added.iter().map(|new| (&new.task, new.key.as_str())).collect();
        // In the same order everywhere, so that replicas do not wait for each other in a circle.
        rows.sort_unstable_by_key(|(task, key)| (*key, &task.tenant, task.id));
        let lost: HashSet<TaskId> = self.transaction.insert(&rows).await?.into_iter().collect();
        let mut others = HashMap::new();
        if !lost.is_empty() {
            let keys = rows.iter().filter(|(task, _)| lost.contains(&task.id));
            let keys: Vec<_> = keys.map(|(task, key)| (task.tenant.as_str(), *key)).collect();
            let found = self.transaction.by_keys(&keys).await?;
            for new in added.iter().filter(|new| lost.contains(&new.task.id)) {
                let same = |(key, task): &&(String, Task)| {
                    *key == new.key && task.tenant == new.task.tenant
                };
                let other = found.iter().find(same).map(|(_, task)| task.clone());
                let gone = || store::Error::Protocol("a key was taken and is free again".into());
                others.insert(new.task.id, other.ok_or_else(gone)?);
            }
        }
        for New { task, due, .. } in added.iter().copied() {
            if lost.contains(&task.id) {
                self.made.deltas.add(task.id.shard(), &task.tenant, -1);
                continue;
            }
            self.keep(task.clone().into());
            self.log(task);
            if self.is_near(task.fires_at_unix_ms) {
                self.tell(task, Some(*due));
            }
        }
        Ok(others)
    }

    fn stored(
        &self,
        id: TaskId,
        new: &New,
        lost: &HashMap<TaskId, Task>,
    ) -> Result<Task, Declined> {
        let task = lost.get(&id).unwrap_or_else(|| &*self.rows[&id].task);
        let same = task.call_id == new.task.call_id && task.effect == new.task.effect;
        if same { Ok(task.clone()) } else { Err(Declined::KeyTaken(task.id)) }
    }
}
