//! The tables in a file of SQLite, which one process has for itself.
//!
//! A write is safe from the death of this process once it returns. Whether it is safe from the death
//! of the machine is `--sqlite-synchronous`: with `normal` (WAL) the last moments before a power cut
//! may be missing, never more, and nothing is torn; with `full` each commit waits for the disk. Each
//! caller is checked with sip-edge after a start either way.

mod checkpoint;
mod chunks;
mod log;
mod rows;
mod schema;
mod transaction;
mod write;

use super::{Batch, Logged, Reach, StoreError, Synchronous, Told, Write, WriteAgent};
use anyhow::{Context as _, bail};
use checkpoint::{Checkpoint, LOG_PAGES_MAX};
use queue::{Agent, Caller, QueueId, SettingsRow};
use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;
use transaction::{Transaction, Writer};
use write::Rows;

/// How long a write waits for another process that writes to the same file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);
/// So that reading does not wait for who writes.
const READERS: u32 = 3;
/// What each connection remembers of the file, in KiB as SQLite wants it: the one that writes has the
/// rows of 10,000 callers at hand, and those that read read anew what is new.
const WRITER_CACHE: &str = "-6144";
const READER_CACHE: &str = "-512";

/// Cheap to clone.
#[derive(Clone)]
pub(super) struct Sqlite {
    writer: Writer,
    /// Those that read.
    pool: SqlitePool,
    checkpoint: Checkpoint,
    /// Locked while this process lives: of two on one file, each would give away the same callers.
    _lock: Arc<File>,
}

impl Sqlite {
    pub(super) async fn open(url: &str, synchronous: Synchronous) -> anyhow::Result<Self> {
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
        let writes = options.clone().pragma("cache_size", WRITER_CACHE);
        let writer = Writer::new(writes.pragma("wal_autocheckpoint", LOG_PAGES_MAX));
        let pool = SqlitePoolOptions::new()
            .max_connections(READERS)
            .acquire_timeout(BUSY_TIMEOUT)
            .connect_with(options.pragma("cache_size", READER_CACHE))
            .await
            .with_context(|| format!("open --database-url {url}"))?;
        let store = Self { writer, pool, checkpoint: Checkpoint::new(), _lock: lock.into() };
        store.migrate().await.with_context(|| format!("prepare the tables of {url}"))?;
        Ok(store)
    }

    /// All or nothing; refuses tables that it does not know before it touches anything.
    async fn migrate(&self) -> anyhow::Result<()> {
        let mut tx = Transaction::begin(&self.writer).await?;
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

    pub(super) async fn load_queues(&self) -> sqlx::Result<BTreeMap<QueueId, SettingsRow>> {
        rows::load_queues(&self.pool).await
    }

    pub(super) async fn load_callers(&self) -> sqlx::Result<Vec<Caller>> {
        rows::load_callers(&self.pool).await
    }

    pub(super) async fn load_agents(&self) -> sqlx::Result<Vec<Agent>> {
        rows::load_agents(&self.pool).await
    }

    pub(super) async fn write(&self, batch: &Batch, told: Option<Told>) -> Result<i64, StoreError> {
        let (mut saved, mut gone) = (Vec::new(), Vec::new());
        for (call_id, write) in &batch.callers {
            match write {
                Write::Save(caller) => saved.push(caller),
                Write::Delete => gone.push(call_id.as_str()),
            }
        }
        let rows = Rows::new(&saved, &gone, &batch.changes);
        let last = match (batch.agents.is_empty(), told) {
            (true, None) => rows.commit(&self.writer).await?,
            _ => {
                let mut tx = Transaction::begin(&self.writer).await?;
                write_agents(&mut tx, batch).await?;
                let last = rows.write(&mut tx).await?;
                if let Some(Told { revision, old_unix_ms }) = told {
                    log::set_told(&mut tx, revision).await?;
                    log::forget(&mut tx, old_unix_ms).await?;
                }
                tx.commit().await?;
                last
            }
        };
        self.checkpoint.note(&self.pool, batch.rows());
        Ok(last)
    }

    pub(super) async fn insert_queue(&self, row: &SettingsRow) -> Result<QueueId, StoreError> {
        let mut tx = Transaction::begin(&self.writer).await?;
        let id = rows::insert_queue(&mut tx, row).await?;
        tx.commit().await?;
        Ok(id)
    }

    pub(super) async fn update_queue(
        &self,
        id: QueueId,
        row: &SettingsRow,
    ) -> Result<(), StoreError> {
        let mut tx = Transaction::begin(&self.writer).await?;
        if !rows::update_queue(&mut tx, id, row).await? {
            return Err(StoreError::Missing);
        }
        Ok(tx.commit().await?)
    }

    pub(super) async fn delete_queue(&self, id: QueueId) -> Result<(), StoreError> {
        let mut tx = Transaction::begin(&self.writer).await?;
        rows::delete_queue(&mut tx, id).await?;
        Ok(tx.commit().await?)
    }

    pub(super) async fn changes(&self, after: i64, limit: u32) -> sqlx::Result<Vec<Logged>> {
        log::read(&self.pool, after, limit).await
    }

    pub(super) async fn reach(&self) -> sqlx::Result<Reach> {
        log::reach(&self.pool).await
    }

    /// As somebody else writes, or a full disk is.
    #[cfg(test)]
    pub(super) fn pool(&self) -> &SqlitePool {
        &self.pool
    }
}

async fn write_agents(tx: &mut Transaction, batch: &Batch) -> Result<(), StoreError> {
    let (mut saved, mut moved, mut gone) = (Vec::new(), Vec::new(), Vec::new());
    for (name, write) in &batch.agents {
        match write {
            WriteAgent::Save { agent, memberships_changed } => {
                saved.push(&**agent);
                moved.extend(memberships_changed.then_some(&**agent));
            }
            WriteAgent::Delete => gone.push(name.as_str()),
        }
    }
    rows::save_agents(tx, &saved).await?;
    rows::save_memberships(tx, &moved).await?;
    rows::delete(tx, &["queue_agents"], "name", &gone).await?;
    rows::delete(tx, &["queue_members"], "agent", &gone).await?;
    Ok(())
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
