//! The SQL: mohqueue's tables `mohqueues` and `mohqcalls` as they are, and ours beside them, in SQLite
//! (one process), or in PostgreSQL, MariaDB or MySQL (replicas).
//!
//! | table | rows | whose |
//! |---|---|---|
//! | `version` | one for each table; Kamailio checks it | Kamailio's |
//! | `mohqueues` | queues; may be written by hand while we run | mohqueue's |
//! | `mohqcalls` | callers, `call_status` 1 entering, 2 in queue, 3 leaving | mohqueue's, ours to write |
//! | `queue_settings` | what we add to a queue; defaults if it has no row | ours |
//! | `queue_callers` | order, exact time and assignment of each row of `mohqcalls` | ours |
//! | `queue_agents`, `queue_members` | agents, and which queues they serve | ours |
//! | `queue_changes`, `queue_told` or `queue_log` | every change, and which of them NATS has | ours |
//! | `queue_owner` | with replicas: who owns the queues | ours |
//!
//! A write is safe from the death of this process once it returns. With replicas each transaction
//! begins with a look at the fencing token in `queue_log`, which stays locked until the commit, so that
//! nobody writes who is not the owner.

mod agents;
mod callers;
mod columns;
mod lease;
mod mysql;
mod postgres;
mod queues;
mod recent;
mod sqlite;

pub(crate) use lease::{Claimant, Leases, View, Wish};

use anyhow::bail;
use lease::Way;
use mysql::Mysql;
use postgres::Postgres;
use queue::{Agent, AgentName, CallId, Caller, QueueId, SettingsRow};
use recent::Recent;
use sqlite::Sqlite;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// So many more than come in a second, so that the log shrinks, and few enough for a short transaction.
const FORGOTTEN_AT_A_TIME: u32 = 5_000;

/// Version of each table where replicas share it: Kamailio's number for its own, our count of
/// migrations for ours.
const SHARED_TABLES: [(&str, i64); 9] = [
    ("mohqueues", 1),
    ("mohqcalls", 1),
    ("queue_settings", 1),
    ("queue_callers", 1),
    ("queue_agents", 1),
    ("queue_members", 1),
    ("queue_changes", 1),
    ("queue_log", 1),
    ("queue_owner", 1),
];

/// The database; cheap to clone.
#[derive(Clone)]
pub(crate) struct Store {
    database: Database,
    recent: Arc<Mutex<Recent>>,
}

#[derive(Clone)]
enum Database {
    Sqlite(Sqlite),
    Postgres(Postgres),
    Mysql(Mysql),
}

/// Counts who has owned the queues: only the last one may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fence(pub(crate) i64);

/// A change that is to be logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) at_unix_ms: i64,
    pub(crate) event: Vec<u8>,
}

/// A change of the log. Revisions count up without gaps and are never used again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Logged {
    pub(crate) revision: i64,
    pub(crate) event: Vec<u8>,
}

/// How far the log reaches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reach {
    /// The oldest change that is kept; one above `last` if none is.
    pub(crate) first: i64,
    /// The newest change; 0 if there never was one.
    pub(crate) last: i64,
    /// The newest one that NATS has.
    pub(crate) told: i64,
}

/// NATS has the changes up to this one; of those, some that are older are forgotten.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Told {
    pub(crate) revision: i64,
    pub(crate) old_unix_ms: i64,
}

/// What is to become of a caller's row.
#[derive(Clone, Debug)]
pub(crate) enum Write {
    Save(Caller),
    Delete,
}

/// What is to become of an agent's row.
#[derive(Clone, Debug)]
pub(crate) enum WriteAgent {
    Save { agent: Box<Agent>, memberships_changed: bool },
    Delete,
}

/// What one transaction writes: all of it or nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Batch {
    pub(crate) callers: BTreeMap<CallId, Write>,
    pub(crate) agents: BTreeMap<AgentName, WriteAgent>,
    pub(crate) changes: Vec<Change>,
}

impl Batch {
    pub(crate) fn is_empty(&self) -> bool {
        self.callers.is_empty() && self.agents.is_empty() && self.changes.is_empty()
    }

    pub(crate) fn rows(&self) -> usize {
        self.callers.len() + self.agents.len() + self.changes.len()
    }

    /// An agent's row anew; memberships that were to be written still are.
    pub(crate) fn put_agent(&mut self, name: AgentName, write: WriteAgent) {
        let before = self.agents.remove(&name);
        let kept = matches!(before, Some(WriteAgent::Save { memberships_changed: true, .. }));
        let write = match write {
            WriteAgent::Save { agent, memberships_changed } => {
                WriteAgent::Save { agent, memberships_changed: memberships_changed || kept }
            }
            WriteAgent::Delete => WriteAgent::Delete,
        };
        self.agents.insert(name, write);
    }

    /// Puts back what was before this; where both speak of one row, this is newer.
    pub(crate) fn put_back(&mut self, older: Batch) {
        for (call_id, write) in older.callers {
            self.callers.entry(call_id).or_insert(write);
        }
        for (name, write) in older.agents {
            let newer = self.agents.remove(&name);
            self.agents.insert(name.clone(), write);
            if let Some(newer) = newer {
                self.put_agent(name, newer);
            }
        }
        self.changes.splice(0..0, older.changes);
    }
}

/// What a commit waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Synchronous {
    Normal,
    Full,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("name or uri is taken by another queue")]
    Taken,
    #[error("no such queue row")]
    Missing,
    #[error("the database does not answer: {0}")]
    Away(sqlx::Error),
    /// As [`StoreError::Away`], but it may have committed before.
    #[error("the database does not say whether it has committed: {0}")]
    InDoubt(sqlx::Error),
    #[error("another replica owns the queues")]
    Lost,
}

impl From<sqlx::Error> for StoreError {
    fn from(e: sqlx::Error) -> Self {
        match &e {
            sqlx::Error::Database(cause) if cause.is_unique_violation() => Self::Taken,
            _ => Self::Away(e),
        }
    }
}

/// Does it in whichever database this is.
macro_rules! in_database {
    ($store:expr, $database:ident => $does:expr) => {
        match &$store.database {
            Database::Sqlite($database) => $does,
            Database::Postgres($database) => $does,
            Database::Mysql($database) => $does,
        }
    };
}

/// The same, where those that replicas share need the fencing token.
macro_rules! fenced {
    ($store:expr, $method:ident, $fence:expr $(, $arg:expr)*) => {
        match &$store.database {
            Database::Sqlite(sqlite) => sqlite.$method($($arg),*).await,
            Database::Postgres(postgres) => postgres.$method($fence $(, $arg)*).await,
            Database::Mysql(mysql) => mysql.$method($fence $(, $arg)*).await,
        }
    };
}

impl Store {
    /// Opens the database and makes what tables are missing.
    ///
    /// # Errors
    /// If it cannot be opened, is a file in use by another queue-svc, or a table has a version that is
    /// not ours.
    pub(crate) async fn open(url: &str, synchronous: Synchronous) -> anyhow::Result<Self> {
        let in_memory = url.contains(":memory:") || url.contains("mode=memory");
        let database = match url.split_once(':') {
            Some(("sqlite", _)) if !in_memory => {
                Database::Sqlite(Sqlite::open(url, synchronous).await?)
            }
            Some(("postgres" | "postgresql", _)) => Database::Postgres(Postgres::open(url).await?),
            Some(("mysql" | "mariadb", _)) => Database::Mysql(Mysql::open(url).await?),
            scheme => bail!(
                "read --database-url that begins with {:?} (wanted `sqlite:` and a file, e.g. \
                 `sqlite:queue.db`, or `postgres://USER@HOST/DATABASE` or \
                 `mysql://USER@HOST/DATABASE`)",
                scheme.map_or(url, |it| it.0)
            ),
        };
        Ok(Self { database, recent: Arc::default() })
    }

    /// The way to the lease; `None`: this process has the database for itself.
    pub(crate) fn leases(&self) -> Option<Leases> {
        match &self.database {
            Database::Sqlite(_) => None,
            Database::Postgres(postgres) => Some(Leases(Way::Postgres(postgres.leases()))),
            Database::Mysql(mysql) => Some(Leases(Way::Mysql(mysql.leases()))),
        }
    }

    /// Forgets what we added to rows of callers that somebody deleted by hand.
    pub(crate) async fn tidy(&self, fence: Fence) -> Result<(), StoreError> {
        match &self.database {
            Database::Sqlite(_) => Ok(()), // Was done when it was opened.
            Database::Postgres(postgres) => postgres.tidy(fence).await,
            Database::Mysql(mysql) => mysql.tidy(fence).await,
        }
    }

    /// All queues as written, good or bad, by id. A row that cannot even be read is left out.
    pub(crate) async fn load_queues(&self) -> Result<BTreeMap<QueueId, SettingsRow>, StoreError> {
        Ok(in_database!(self, it => it.load_queues().await)?)
    }

    /// Everybody who waited, in order of arrival.
    pub(crate) async fn load_callers(&self) -> Result<Vec<Caller>, StoreError> {
        Ok(in_database!(self, it => it.load_callers().await)?)
    }

    pub(crate) async fn load_agents(&self) -> Result<Vec<Agent>, StoreError> {
        Ok(in_database!(self, it => it.load_agents().await)?)
    }

    /// All of `batch`, or nothing; the last revision there is then.
    pub(crate) async fn write(
        &self,
        fence: Fence,
        batch: &Batch,
        told: Option<Told>,
    ) -> Result<i64, StoreError> {
        let last = fenced!(self, write, fence, batch, told)?;
        self.recent.lock().expect("never poisoned").note(&batch.changes, last);
        Ok(last)
    }

    pub(crate) async fn insert_queue(
        &self,
        fence: Fence,
        row: &SettingsRow,
    ) -> Result<QueueId, StoreError> {
        fenced!(self, insert_queue, fence, row)
    }

    pub(crate) async fn update_queue(
        &self,
        fence: Fence,
        id: QueueId,
        row: &SettingsRow,
    ) -> Result<(), StoreError> {
        fenced!(self, update_queue, fence, id, row)
    }

    pub(crate) async fn delete_queue(&self, fence: Fence, id: QueueId) -> Result<(), StoreError> {
        fenced!(self, delete_queue, fence, id)
    }

    /// Up to `limit` changes after a revision, in order.
    pub(crate) async fn changes(&self, after: i64, limit: u32) -> Result<Vec<Logged>, StoreError> {
        if let Some(recent) = self.recent.lock().expect("never poisoned").after(after, limit) {
            return Ok(recent);
        }
        Ok(in_database!(self, it => it.changes(after, limit).await)?)
    }

    pub(crate) async fn reach(&self) -> Result<Reach, StoreError> {
        Ok(in_database!(self, it => it.reach().await)?)
    }
}

#[cfg(test)]
mod tests;
