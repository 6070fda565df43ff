//! Reads tasks that are soon due, so that their claim need not: in a herd, reading costs as much as
//! claiming.
//!
//! The tasks are read beside the writer. What the writer has changed in the meantime may be read as
//! it was before, and is passed over.

use super::kept::Kept;
use crate::store::{self, Cursor, Held, Store, Task};
use std::collections::{HashMap, HashSet};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::debug;
use wheel::TaskId;

/// So long before they are due.
const LEAD_MS: i64 = 5_000;
/// Tasks that are read at a time.
const PAGE: u32 = 256;
/// Tasks that may change while a page is read; if more do, the page is given up.
const CHANGED_MAX: usize = 65_536;
/// How often it is looked for what has come nearer. Much shorter than the lead.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

pub(super) struct Ahead {
    store: Store,
    /// By shard: up to where its tasks have been read.
    read: HashMap<Held, Cursor>,
    /// To be read in this round.
    round: Vec<Held>,
    /// When the next round may begin.
    round_at: Instant,
    under_way: Option<Reading>,
}

struct Reading {
    held: Held,
    before_unix_ms: i64,
    page: JoinHandle<store::Result<Vec<Task>>>,
    /// What was changed since it began.
    changed: HashSet<TaskId>,
}

/// Whether a task will be claimed before long, unless something happens to it.
pub(super) fn is_soon(fires_at_unix_ms: i64, now_unix_ms: i64) -> bool {
    fires_at_unix_ms < now_unix_ms.saturating_add(LEAD_MS)
}

impl Ahead {
    pub(super) fn new(store: Store) -> Self {
        let (read, round, round_at) = (HashMap::new(), Vec::new(), Instant::now());
        Self { store, read, round, round_at, under_way: None }
    }

    /// Begins to read the next page, if there is one and room for it. `held`: the shards of this
    /// process.
    pub(super) fn read_on(&mut self, now_unix_ms: i64, kept: &Kept, held: &[Held]) {
        if self.under_way.is_some() || !kept.has_room(PAGE as usize) {
            return;
        }
        if self.round.is_empty() && Instant::now() >= self.round_at {
            self.round_at = Instant::now() + LOOK_INTERVAL;
            self.round = held.to_vec();
            self.read.retain(|shard, _| held.contains(shard));
        }
        let Some(held) = self.round.pop() else { return };
        let (store, after) = (self.store.clone(), self.read.get(&held).copied());
        let before_unix_ms = now_unix_ms.saturating_add(LEAD_MS);
        let page =
            tokio::spawn(async move { store.soon(held.shard, after, before_unix_ms, PAGE).await });
        self.under_way = Some(Reading { held, before_unix_ms, page, changed: HashSet::new() });
    }

    /// Waits until there is something to do: a page to be kept, or the next round to begin.
    pub(super) async fn ready(&mut self, kept: &Kept) -> Option<Page> {
        if let Some(reading) = &mut self.under_way {
            let page = (&mut reading.page).await;
            let Reading { held, before_unix_ms, changed, .. } = self.under_way.take()?;
            return match page {
                Ok(Ok(tasks)) => Some(Page { held, before_unix_ms, tasks, changed }),
                Ok(Err(e)) => {
                    debug!("failed to read ahead: {e}"); // It is read when it is claimed.
                    None
                }
                Err(_) => None,
            };
        }
        tokio::time::sleep_until(self.round_at).await;
        if !kept.has_room(PAGE as usize) {
            std::future::pending::<()>().await; // Until something else happens.
        }
        None
    }

    /// Keeps what was read.
    pub(super) fn keep(&mut self, page: Page, kept: &mut Kept) {
        let Page { held, before_unix_ms, tasks, changed } = page;
        let mut cursor = Cursor { fires_at_unix_ms: before_unix_ms, id: TaskId(0) };
        if let Some(last) = tasks.last().filter(|_| tasks.len() == PAGE as usize) {
            cursor = Cursor { fires_at_unix_ms: last.fires_at_unix_ms, id: last.id };
            self.round.insert(0, held);
        }
        self.read.insert(held, cursor);
        if kept.holds(held) {
            let unchanged = tasks.into_iter().filter(|task| !changed.contains(&task.id));
            kept.keep(unchanged.map(|task| (held, Box::new(task))));
        }
    }

    /// The writer changes these tasks, or tries to.
    pub(super) fn changes(&mut self, tasks: impl IntoIterator<Item = TaskId>) {
        let Some(reading) = &mut self.under_way else { return };
        reading.changed.extend(tasks);
        if reading.changed.len() > CHANGED_MAX {
            reading.page.abort();
            self.under_way = None;
        }
    }
}

/// Tasks of a shard that were read, in the order of their deadlines.
pub(super) struct Page {
    held: Held,
    before_unix_ms: i64,
    tasks: Vec<Task>,
    changed: HashSet<TaskId>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commits::New;
    use crate::commits::tests::{Bench, sample};
    use crate::store::tests::Database;

    /// Tasks of shard 0: soon due but for the last, and more than a page.
    async fn fill(bench: &Bench) -> Vec<TaskId> {
        let now_unix_ms = boot::unix_ms();
        let ids: Vec<TaskId> = (1..=u128::from(PAGE) + 9).map(|nth| TaskId(nth * 16)).collect();
        let new = |id: &TaskId| {
            let far = *id == ids[ids.len() - 1];
            let fires_at_unix_ms = now_unix_ms + if far { 60_000 } else { 1_000 };
            let task = Task { fires_at_unix_ms, ..sample(id.0, &format!("call-{}", id.0)) };
            New { task, key: String::new(), due: 7 }
        };
        bench.commits.schedule_many(ids.iter().map(new).collect()).await.unwrap();
        ids
    }

    /// Reads what there is to read in one round.
    async fn read_round(bench: &Bench, ahead: &mut Ahead, kept: &mut Kept, changed: &[TaskId]) {
        let held = bench.leases.all_held();
        kept.retain(&held);
        loop {
            ahead.read_on(boot::unix_ms(), kept, &held);
            if ahead.under_way.is_none() {
                return;
            }
            ahead.changes(changed.iter().copied());
            let page = ahead.ready(kept).await.expect("a page is under way");
            ahead.keep(page, kept);
        }
    }

    #[tokio::test]
    async fn what_is_soon_due_is_kept_as_it_is_on_disk_and_nothing_else() {
        for database in Database::each() {
            let bench = Bench::alone(&database).await;
            let ids = fill(&bench).await;
            let (far, near) = ids.split_last().unwrap();
            let (mut ahead, mut kept) = (Ahead::new(bench.store.clone()), Kept::default());
            read_round(&bench, &mut ahead, &mut kept, &[]).await;
            assert_eq!(kept.take(*far), None);
            for id in near {
                let task = kept.take(*id).unwrap_or_else(|| panic!("{id} is not kept"));
                assert_eq!(*task, bench.get(id.0).await);
            }
        }
    }

    #[tokio::test]
    async fn what_is_changed_while_it_is_read_is_not_kept() {
        let database = Database::file();
        let bench = Bench::alone(&database).await;
        let ids = fill(&bench).await;
        let (mut ahead, mut kept) = (Ahead::new(bench.store.clone()), Kept::default());
        read_round(&bench, &mut ahead, &mut kept, &ids[3..5]).await;
        let kept: Vec<bool> = ids[..7].iter().map(|id| kept.take(*id).is_some()).collect();
        assert_eq!(kept, [true, true, true, false, false, true, true]);
    }

    #[tokio::test]
    async fn a_page_that_is_overtaken_by_many_changes_is_given_up() {
        let database = Database::file();
        let bench = Bench::alone(&database).await;
        let (mut ahead, kept) = (Ahead::new(bench.store.clone()), Kept::default());
        ahead.read_on(boot::unix_ms(), &kept, &bench.leases.all_held());
        ahead.changes((0..CHANGED_MAX as u128).map(TaskId));
        assert!(ahead.under_way.is_some());
        ahead.changes([TaskId(u128::MAX)]);
        assert!(ahead.under_way.is_none());
    }
}
