//! The tasks on disk, in SQLite (one process) or PostgreSQL (replicas): all SQL of this service.
//!
//! `schema.rs` has the tables. One connection writes, in transactions that `commits/` fills with few
//! statements for many tasks; others read snapshots beside it. What a transaction may change is the
//! tasks of the shards that it [holds](Store::begin): the fencing tokens are checked with the
//! first statement, stay locked until the commit, and are checked again in the statement that
//! changes tasks. That `UPDATE … WHERE revision = …` is where "cancel or fire" is decided.

mod changes;
mod list;
mod postgres;
mod row;
mod schema;
mod sqlite;

pub(crate) use changes::{Changed, LogRow, LogWriter, Old};
pub(crate) use postgres::{Grip, Replica, View};

use crate::clock::Pinned;
use anyhow::bail;
use std::sync::Arc;
use std::time::Duration;
use wheel::{Effect, Repeat, State, TaskId};

/// The database did not answer, or not with what it should hold.
pub(crate) use sqlx::{Error, Result};

/// Rows that one statement ends, pauses or deletes, so that no transaction is long.
pub(crate) const ROWS_PER_STATEMENT: u32 = 1_000;
/// How long a statement may take before the database counts as away.
const STATEMENT_LIMIT: Duration = Duration::from_secs(5);
/// Connections that read.
const READERS: u32 = 4;

/// One row. Times in Unix ms, 0 for what has not happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Task {
    pub(crate) id: TaskId,
    /// Empty: of no call.
    pub(crate) call_id: String,
    pub(crate) state: State,
    pub(crate) fires_at_unix_ms: i64,
    pub(crate) revision: i64,
    pub(crate) effect: Arc<Effect>,
    pub(crate) group: String,
    pub(crate) label: String,
    pub(crate) tenant: String,
    /// Name of the sip-edge that has the call; empty: not said.
    pub(crate) edge: String,
    pub(crate) created_unix_ms: i64,
    pub(crate) ended_unix_ms: i64,
    pub(crate) late_ms: i64,
    pub(crate) result: String,
    /// `None`: it happens once.
    pub(crate) repeat: Option<Repeat>,
    /// From 0.
    pub(crate) occurrence: u32,
    pub(crate) missed: u32,
    /// Of a paused one.
    pub(crate) remaining_ms: i64,
    pub(crate) cancel_requested: bool,
    /// When it is due on the clock of the process that wrote it.
    pub(crate) pinned: Pinned,
}

/// What a process that begins to own a shard must know of a task that is to fire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Live {
    pub(crate) id: TaskId,
    pub(crate) firing: bool,
    pub(crate) fires_at_unix_ms: i64,
    pub(crate) pinned: Pinned,
    pub(crate) revision: i64,
    /// Whether it is published, whatever the edge.
    pub(crate) publishes: bool,
    pub(crate) edge: String,
}

/// The tasks that something is done to together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    Call(String),
    Group(String),
    Tenant(String),
}

impl Scope {
    pub(crate) fn holds(&self, task: &Task) -> bool {
        match self {
            Self::Call(call_id) => task.call_id == *call_id,
            Self::Group(group) => task.group == *group,
            Self::Tenant(tenant) => task.tenant == *tenant,
        }
    }
}

/// Where a page begins: after the task with this time and id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cursor {
    pub(crate) fires_at_unix_ms: i64,
    pub(crate) id: TaskId,
}

#[derive(Clone, Debug)]
pub(crate) struct Filter {
    /// Empty: any.
    pub(crate) call_id: String,
    /// Empty: any.
    pub(crate) group: String,
    /// `None`: any; the empty one is a tenant like any other.
    pub(crate) tenant: Option<String>,
    /// Not empty.
    pub(crate) states: Vec<State>,
    /// Due then or later.
    pub(crate) fires_from_unix_ms: Option<i64>,
    /// Due before then.
    pub(crate) fires_before_unix_ms: Option<i64>,
    pub(crate) after: Option<Cursor>,
    pub(crate) limit: u32,
}

/// A shard with the fencing token under which this process holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Held {
    pub(crate) shard: u8,
    pub(crate) fence: i64,
}

/// How far the log of changes of one shard reaches. Sequence numbers count from 1, without gaps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reach {
    /// The oldest change that is kept; one above `last` if none is.
    pub(crate) first: i64,
    /// The newest change; 0 if there never was one.
    pub(crate) last: i64,
}

/// A commit that was not answered with success.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommitError {
    #[error("{0}")]
    Failed(Error),
    /// Whether it was done is for [`Store::was_committed`] to find out.
    #[error("in doubt: {0}")]
    InDoubt(Error),
}

/// A task after a change, as a transaction is to write it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Update<'a> {
    pub(crate) task: &'a Task,
    /// Its revision on disk: the update is made only to this one.
    pub(crate) was: i64,
    /// It is a claim: only state and revision differ, the latter by one.
    pub(crate) claim: bool,
}

/// Cheap to clone.
#[derive(Clone)]
pub(crate) enum Store {
    Sqlite(sqlite::Sqlite),
    Postgres(postgres::Postgres),
}

/// Changes that are made together or not at all; dropped without commit, it did nothing.
pub(crate) enum Transaction {
    Sqlite(sqlite::Transaction),
    Postgres(postgres::Transaction),
}

/// The same of both databases.
macro_rules! each {
    ($self:expr, $database:ident => $do:expr) => {
        match $self {
            Self::Sqlite($database) => $do,
            Self::Postgres($database) => $do,
        }
    };
}

impl Store {
    /// Opens `sqlite:FILE` (made if there is none) or `postgres://…`, and brings its tables up to date.
    ///
    /// # Errors
    /// If `url` is neither, or it cannot be opened, is not ours, or was written by a newer version; a
    /// file also if another scheduler uses it.
    pub(crate) async fn open(url: &str) -> anyhow::Result<Self> {
        if url.starts_with("sqlite:") && !url.contains(":memory:") && !url.contains("mode=memory") {
            return sqlite::Sqlite::open(url, sqlite::BUSY_TIMEOUT).await.map(Self::Sqlite);
        }
        if url.starts_with("postgres:") || url.starts_with("postgresql:") {
            return postgres::Postgres::open(url).await.map(Self::Postgres);
        }
        bail!(
            "open --database-url: wanted `sqlite:FILE` or `postgres://USER@HOST/DATABASE`; tasks \
             outlive the process"
        )
    }

    /// A transaction that no other writer can disturb, and those of the shards that this process
    /// still holds: only their tasks may be changed in it.
    pub(crate) async fn begin(&self, shards: &[Held]) -> Result<(Transaction, Vec<Held>)> {
        Ok(match self {
            Self::Sqlite(it) => (Transaction::Sqlite(it.begin().await?), shards.to_vec()),
            Self::Postgres(it) => {
                let (transaction, held) = it.begin(shards).await?;
                (Transaction::Postgres(transaction), held)
            }
        })
    }

    /// Whether the transaction that appended this row to the log is committed. Waits for it, if it
    /// is still under way.
    pub(crate) async fn was_committed(&self, row: &LogRow) -> Result<bool> {
        each!(self, it => it.was_committed(row).await)
    }

    /// Pending and firing tasks of the shard that are due before then, in the order of their
    /// deadlines; at most `limit`, those after `after`.
    pub(crate) async fn live(
        &self,
        shard: u8,
        after: Option<Cursor>,
        before_unix_ms: i64,
        limit: u32,
    ) -> Result<Vec<Live>> {
        each!(self, it => it.live(shard, after, before_unix_ms, limit).await)
    }

    /// Pending tasks of the shard that are due before then, in the order of their deadlines; at most
    /// `limit`, those after `after`.
    pub(crate) async fn soon(
        &self,
        shard: u8,
        after: Option<Cursor>,
        before_unix_ms: i64,
        limit: u32,
    ) -> Result<Vec<Task>> {
        each!(self, it => it.soon(shard, after, before_unix_ms, limit).await)
    }

    /// As [`Transaction::live_of_calls`], of all shards, and as it was a moment ago.
    pub(crate) async fn live_of_calls(&self, calls: &[&str]) -> Result<Vec<(String, i64)>> {
        each!(self, it => it.live_of_calls(calls).await)
    }

    pub(crate) async fn get(&self, id: TaskId) -> Result<Option<Task>> {
        each!(self, it => it.get(id).await)
    }

    /// At most `limit` tasks by `fires_at_unix_ms`, then id; fewer once they pass `bytes_max`, as
    /// `size` counts them.
    pub(crate) async fn list(
        &self,
        filter: &Filter,
        bytes_max: usize,
        size: impl Fn(&Task) -> usize + Send,
    ) -> Result<Vec<Task>> {
        each!(self, it => it.list(filter, bytes_max, size).await)
    }

    /// How far the logs of these shards reach, in their order.
    pub(crate) async fn reach(&self, shards: &[u8]) -> Result<Vec<Reach>> {
        each!(self, it => it.reach(shards).await)
    }

    /// Changes of the shard after the one with this sequence number, in order: those of at most
    /// `commits` commits. `None` if some of them are forgotten.
    pub(crate) async fn changes(
        &self,
        shard: u8,
        after_seq: i64,
        commits: u32,
    ) -> Result<Option<Vec<Changed>>> {
        each!(self, it => it.changes(shard, after_seq, commits).await)
    }

    /// Up to which change of the shard the world was told.
    pub(crate) async fn published(&self, shard: u8) -> Result<i64> {
        each!(self, it => it.published(shard).await)
    }

    /// Remembers that the world was told of the changes of these shards up to these; nothing of a
    /// shard that is no longer held.
    pub(crate) async fn set_published(&self, told: &[(Held, i64)]) -> Result<()> {
        each!(self, it => it.set_published(told).await)
    }

    /// Moves what is in SQLite's log of commits into the file, without disturbing the writer.
    pub(crate) async fn checkpoint(&self) -> Result<()> {
        match self {
            Self::Sqlite(it) => it.checkpoint().await,
            Self::Postgres(_) => Ok(()), // It does that by itself.
        }
    }

    /// Where replicas agree on who owns which shard; none if there can be only one process.
    pub(crate) fn replicas(&self) -> Option<&postgres::Postgres> {
        match self {
            Self::Sqlite(_) => None,
            Self::Postgres(it) => Some(it),
        }
    }
}

impl Transaction {
    /// # Errors
    /// With [`CommitError::InDoubt`], it may have happened nevertheless.
    pub(crate) async fn commit(self) -> Result<(), CommitError> {
        each!(self, it => it.commit().await)
    }

    /// How far the logs of these shards reach, in their order.
    pub(crate) async fn reach(&mut self, shards: &[u8]) -> Result<Vec<Reach>> {
        each!(self, it => it.reach(shards).await)
    }

    /// How many tasks each tenant has that have not ended, by shard.
    pub(crate) async fn live_of_tenants(
        &mut self,
        shards: &[u8],
    ) -> Result<Vec<(u8, String, i64)>> {
        each!(self, it => it.live_of_tenants(shards).await)
    }

    /// The same in shards that others own, as they last said.
    pub(crate) async fn counts_elsewhere(&mut self, mine: &[u8]) -> Result<Vec<(String, i64)>> {
        match self {
            Self::Sqlite(_) => Ok(Vec::new()),
            Self::Postgres(it) => it.counts_elsewhere(mine).await,
        }
    }

    /// Says how many tasks each tenant has in these shards of ours.
    pub(crate) async fn tell_counts(
        &mut self,
        shards: &[u8],
        counts: &[(u8, &str, i64)],
    ) -> Result<()> {
        match self {
            Self::Sqlite(_) => Ok(()), // There is nobody to tell.
            Self::Postgres(it) => it.tell_counts(shards, counts).await,
        }
    }

    /// Those of the tasks that there are.
    pub(crate) async fn by_ids(&mut self, ids: &[TaskId]) -> Result<Vec<Task>> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        each!(self, it => it.by_ids(ids).await)
    }

    /// Those of the tasks, by tenant and idempotency key, that there are, with their keys.
    pub(crate) async fn by_keys(&mut self, keys: &[(&str, &str)]) -> Result<Vec<(String, Task)>> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        each!(self, it => it.by_keys(keys).await)
    }

    /// How many tasks these calls have that have not ended; calls without any are left out.
    pub(crate) async fn live_of_calls(&mut self, calls: &[&str]) -> Result<Vec<(String, i64)>> {
        if calls.is_empty() {
            return Ok(Vec::new());
        }
        each!(self, it => it.live_of_calls(calls).await)
    }

    /// Tasks of the scope that have not ended, in these shards, by id: from `from` on, at most
    /// [`ROWS_PER_STATEMENT`].
    pub(crate) async fn tasks_of(
        &mut self,
        scope: &Scope,
        from: TaskId,
        shards: &[Held],
    ) -> Result<Vec<Task>> {
        each!(self, it => it.tasks_of(scope, from, shards).await)
    }

    /// Adds tasks with their idempotency keys (empty: none). Returns those that were not added,
    /// because somebody else has added their key at the same moment.
    pub(crate) async fn insert(&mut self, tasks: &[(&Task, &str)]) -> Result<Vec<TaskId>> {
        if tasks.is_empty() {
            return Ok(Vec::new());
        }
        each!(self, it => it.insert(tasks).await)
    }

    /// Writes the tasks that are still in the revision they were in, and whose shards are held.
    ///
    /// # Errors
    /// Also if that is not so of all: they were read in this transaction and are locked.
    pub(crate) async fn update(&mut self, updates: &[Update<'_>], held: &[Held]) -> Result<()> {
        let written = match self {
            Self::Sqlite(it) => it.update(updates).await?,
            Self::Postgres(it) => it.update(updates, held).await?,
        };
        if written != updates.len() as u64 {
            let what = format!("{written} of {} tasks are as they were read", updates.len());
            return Err(Error::Protocol(what));
        }
        Ok(())
    }

    pub(crate) async fn append(&mut self, rows: &[LogRow]) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        each!(self, it => it.append(rows).await)
    }

    /// Forgets the oldest changes of the shard, if they are `old`, and the tasks that ended with them;
    /// at most those of `commits` commits. Returns how many changes.
    pub(crate) async fn forget(&mut self, shard: u8, old: Old, commits: u32) -> Result<u32> {
        each!(self, it => it.forget(shard, old, commits).await)
    }
}

#[cfg(test)]
pub(crate) mod tests;
