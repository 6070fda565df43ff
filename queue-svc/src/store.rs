//! The SQL: mohqueue's tables `mohqueues` and `mohqcalls` as they are, and ours beside them.
//!
//! | table | rows | whose |
//! |---|---|---|
//! | `version` | one for each table; Kamailio checks it | Kamailio's |
//! | `mohqueues` | queues; may be written by hand while we run | mohqueue's |
//! | `mohqcalls` | callers, `call_status` 1 entering, 2 in queue, 3 leaving | mohqueue's, ours to write |
//! | `queue_settings` | what we add to a queue; defaults if it has no row | ours |
//! | `queue_callers` | order, exact time and assignment of each row of `mohqcalls` | ours |
//! | `queue_agents`, `queue_members` | agents, and which queues they serve | ours |
//! | `queue_changes`, `queue_told` | every change, and which of them NATS has | ours |
//!
//! A write is safe from the death of this process once it returns. Whether it is safe from the death
//! of the machine is `--sqlite-synchronous`: with `normal` (WAL) the last moments before a power cut may
//! be missing, never more, and nothing is torn; with `full` each commit waits for the disk. Each caller
//! is checked with sip-edge after a start either way.

mod agents;
mod callers;
mod log;
mod queues;
mod schema;
mod transaction;

pub(crate) use log::{Change, Logged, Reach};

use anyhow::{Context as _, bail};
use queue::{Agent, AgentName, CallId, Caller, QueueId, SettingsRow};
use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;
use transaction::Transaction;

/// How long a write waits for another process that writes to the same file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);
/// One that writes, and others so that reading does not wait for it.
const CONNECTIONS: u32 = 4;

/// The database; cheap to clone.
#[derive(Clone)]
pub(crate) struct Store {
    pool: SqlitePool,
    /// Locked while this process lives: of two on one file, each would give away the same callers.
    _lock: Arc<File>,
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
}

impl From<sqlx::Error> for StoreError {
    fn from(e: sqlx::Error) -> Self {
        match &e {
            sqlx::Error::Database(cause) if cause.is_unique_violation() => Self::Taken,
            _ => Self::Away(e),
        }
    }
}

impl Store {
    /// Opens the database and makes what tables are missing.
    ///
    /// # Errors
    /// If it cannot be opened, is in use by another queue-svc, or a table has a version that is not
    /// ours.
    pub(crate) async fn open(url: &str, synchronous: Synchronous) -> anyhow::Result<Self> {
        let in_memory = url.contains(":memory:") || url.contains("mode=memory");
        if !url.starts_with("sqlite:") || in_memory {
            bail!(
                "read --database-url {url:?} (wanted `sqlite:` and a file, e.g. `sqlite:queue.db`)"
            );
        }
        let options = SqliteConnectOptions::from_str(url)
            .with_context(|| format!("read --database-url {url:?}"))?
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(match synchronous {
                Synchronous::Normal => SqliteSynchronous::Normal,
                Synchronous::Full => SqliteSynchronous::Full,
            })
            .busy_timeout(BUSY_TIMEOUT);
        let lock = lock(&options).with_context(|| format!("open --database-url {url}"))?;
        let pool = SqlitePoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(BUSY_TIMEOUT)
            .connect_with(options)
            .await
            .with_context(|| format!("open --database-url {url}"))?;
        let store = Self { pool, _lock: lock.into() };
        store.migrate().await.with_context(|| format!("prepare the tables of {url}"))?;
        Ok(store)
    }

    /// All or nothing; refuses tables that it does not know before it touches anything.
    async fn migrate(&self) -> anyhow::Result<()> {
        let mut tx = Transaction::begin(&self.pool).await?;
        let has_versions =
            "SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND name = 'version'";
        let has_versions: i64 = sqlx::query_scalar(has_versions).fetch_one(&mut *tx).await?;
        let mut callers_are_old = false;
        if has_versions > 0 {
            for (table, wanted) in schema::TABLES {
                let version = "SELECT table_version FROM version WHERE table_name = ?";
                let found: Option<i64> =
                    sqlx::query_scalar(version).bind(table).fetch_optional(&mut *tx).await?;
                match (table, found) {
                    ("queue_callers", Some(1)) => callers_are_old = true,
                    (_, Some(found)) if found != wanted => {
                        bail!(
                            "table {table} has version {found} in table `version`, wanted {wanted}"
                        );
                    }
                    _ => (),
                }
            }
        }
        sqlx::raw_sql(schema::CREATE).execute(&mut *tx).await?;
        if callers_are_old {
            sqlx::raw_sql(schema::CALLERS_1_TO_2).execute(&mut *tx).await?;
        }
        sqlx::raw_sql(schema::TIDY).execute(&mut *tx).await?;
        for (table, version) in schema::TABLES {
            let insert = "INSERT OR IGNORE INTO version (table_name, table_version) VALUES (?, ?)";
            sqlx::query(insert).bind(table).bind(version).execute(&mut *tx).await?;
        }
        tx.commit().await?;
        Ok(())
    }

    /// All queues as written, good or bad, by id. A row that cannot even be read is left out.
    pub(crate) async fn load_queues(&self) -> Result<BTreeMap<QueueId, SettingsRow>, StoreError> {
        Ok(queues::load(&self.pool).await?)
    }

    /// Everybody who waited, in order of arrival.
    pub(crate) async fn load_callers(&self) -> Result<Vec<Caller>, StoreError> {
        Ok(callers::load(&self.pool).await?)
    }

    pub(crate) async fn load_agents(&self) -> Result<Vec<Agent>, StoreError> {
        Ok(agents::load(&self.pool).await?)
    }

    /// All of `batch`, or nothing. `told`: NATS has the changes up to this one; of those, some that are
    /// older than `old_unix_ms` are forgotten.
    pub(crate) async fn write(
        &self,
        batch: &Batch,
        told: Option<i64>,
        old_unix_ms: i64,
    ) -> Result<(), StoreError> {
        let mut tx = Transaction::begin(&self.pool).await?;
        for (call_id, write) in &batch.callers {
            match write {
                Write::Save(caller) => callers::save(&mut tx, caller).await?,
                Write::Delete => callers::delete(&mut tx, call_id).await?,
            }
        }
        for (name, write) in &batch.agents {
            match write {
                WriteAgent::Save { agent, memberships_changed } => {
                    agents::save(&mut tx, agent, *memberships_changed).await?;
                }
                WriteAgent::Delete => agents::delete(&mut tx, name).await?,
            }
        }
        log::append(&mut tx, &batch.changes).await?;
        if let Some(revision) = told {
            log::set_told(&mut tx, revision).await?;
            log::forget(&mut tx, old_unix_ms).await?;
        }
        Ok(tx.commit().await?)
    }

    pub(crate) async fn insert_queue(&self, row: &SettingsRow) -> Result<QueueId, StoreError> {
        let mut tx = Transaction::begin(&self.pool).await?;
        let id = queues::insert(&mut tx, row).await?;
        tx.commit().await?;
        Ok(id)
    }

    pub(crate) async fn update_queue(
        &self,
        id: QueueId,
        row: &SettingsRow,
    ) -> Result<(), StoreError> {
        let mut tx = Transaction::begin(&self.pool).await?;
        if !queues::update(&mut tx, id, row).await? {
            return Err(StoreError::Missing);
        }
        Ok(tx.commit().await?)
    }

    pub(crate) async fn delete_queue(&self, id: QueueId) -> Result<(), StoreError> {
        let mut tx = Transaction::begin(&self.pool).await?;
        queues::delete(&mut tx, id).await?;
        Ok(tx.commit().await?)
    }

    /// Up to `limit` changes after a revision, in order.
    pub(crate) async fn changes(&self, after: i64, limit: u32) -> Result<Vec<Logged>, StoreError> {
        Ok(log::read(&self.pool, after, limit).await?)
    }

    pub(crate) async fn reach(&self) -> Result<Reach, StoreError> {
        Ok(log::reach(&self.pool).await?)
    }
}

/// Takes the database for this process, for as long as it lives, however it dies. Others may read and
/// write rows: only a second queue-svc asks for this lock.
fn lock(options: &SqliteConnectOptions) -> anyhow::Result<File> {
    let mut path = options.get_filename().as_os_str().to_owned();
    path.push("-lock");
    let file = File::options().create(true).append(true).open(&path);
    let file = file.with_context(|| format!("open {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => bail!("another queue-svc uses it"),
        Err(TryLockError::Error(e)) => Err(e).context(format!("lock {}", path.display())),
    }
}

#[cfg(test)]
mod tests;
