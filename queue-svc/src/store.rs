//! The SQL: mohqueue's tables `mohqueues` and `mohqcalls` as they are, and ours beside them.
//!
//! | table | rows | whose |
//! |---|---|---|
//! | `version` | one for each table; Kamailio checks it | Kamailio's |
//! | `mohqueues` | queues; may be written by hand while we run | mohqueue's |
//! | `mohqcalls` | callers, `call_status` 1 entering, 2 in queue, 3 leaving | mohqueue's, ours to write |
//! | `queue_limits` | `max_calls` of a queue; 50 if it has no row | ours |
//! | `queue_callers` | order, exact time and assignment of each row of `mohqcalls` | ours |
//!
//! A write is safe from the death of this process once it returns (WAL, `synchronous=NORMAL`). If
//! the whole machine dies the last moments may be missing, and so may be the calls themselves: each
//! caller is checked with sip-edge after a start.

mod transaction;

use anyhow::{Context as _, bail};
use queue::{
    Agent, Assignment, AssignmentId, CallId, Caller, CallerState, Place, QueueId, SettingsRow,
};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous,
};
use sqlx::{Row as _, SqlitePool};
use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;
use tracing::warn;
use transaction::Transaction;

/// How long a write waits for another process that writes to the same file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);
/// One that writes, and one so that reading the queues does not wait for it.
const CONNECTIONS: u32 = 2;

/// Version of each table: Kamailio's number for its own, our count of migrations for ours.
const TABLES: [(&str, i64); 4] =
    [("mohqueues", 1), ("mohqcalls", 1), ("queue_limits", 1), ("queue_callers", 1)];

/// Version 1 of all tables; mohqueue's as in Kamailio's own scripts for SQLite.
const CREATE: &str = "
CREATE TABLE IF NOT EXISTS version (
    id INTEGER PRIMARY KEY NOT NULL,
    table_name VARCHAR(32) NOT NULL,
    table_version INTEGER DEFAULT 0 NOT NULL,
    CONSTRAINT version_table_name_idx UNIQUE (table_name)
);
CREATE TABLE IF NOT EXISTS mohqueues (
    id INTEGER PRIMARY KEY NOT NULL,
    name VARCHAR(25) NOT NULL,
    uri VARCHAR(100) NOT NULL,
    mohdir VARCHAR(100),
    mohfile VARCHAR(100) NOT NULL,
    debug INTEGER NOT NULL,
    CONSTRAINT mohqueues_mohqueue_uri_idx UNIQUE (uri),
    CONSTRAINT mohqueues_mohqueue_name_idx UNIQUE (name)
);
CREATE TABLE IF NOT EXISTS mohqcalls (
    id INTEGER PRIMARY KEY NOT NULL,
    mohq_id INTEGER NOT NULL,
    call_id VARCHAR(100) NOT NULL,
    call_status INTEGER NOT NULL,
    call_from VARCHAR(100) NOT NULL,
    call_contact VARCHAR(100),
    call_time DATETIME NOT NULL,
    CONSTRAINT mohqcalls_mohqcalls_idx UNIQUE (call_id)
);
CREATE TABLE IF NOT EXISTS queue_limits (
    mohq_id INTEGER PRIMARY KEY NOT NULL,
    max_calls INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS queue_callers (
    call_id VARCHAR(100) PRIMARY KEY NOT NULL,
    arrival_sequence INTEGER NOT NULL,
    arrived_unix_ms INTEGER NOT NULL,
    call_from TEXT NOT NULL,
    call_contact TEXT NOT NULL,
    assignment_id VARCHAR(64),
    agent VARCHAR(255),
    reserved_unix_ms INTEGER,
    ring_ms INTEGER
);
-- A caller whose row somebody deleted by hand.
DELETE FROM queue_callers WHERE call_id NOT IN (SELECT call_id FROM mohqcalls);
";

const SAVE_CALL: &str = "
INSERT INTO mohqcalls (mohq_id, call_id, call_status, call_from, call_contact, call_time)
VALUES (?1, ?2, ?3, substr(?4, 1, 100), substr(?5, 1, 100), datetime(?6 / 1000, 'unixepoch'))
ON CONFLICT (call_id) DO UPDATE SET mohq_id = ?1, call_status = ?3";

const SAVE_CALLER: &str = "
INSERT INTO queue_callers (call_id, arrival_sequence, arrived_unix_ms, call_from, call_contact,
    assignment_id, agent, reserved_unix_ms, ring_ms)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
ON CONFLICT (call_id) DO UPDATE SET arrival_sequence = ?2,
    assignment_id = ?6, agent = ?7, reserved_unix_ms = ?8, ring_ms = ?9";

/// In order of arrival; rows that mohqueue itself left behind come last.
const LOAD_CALLERS: &str = "
SELECT c.mohq_id, c.call_id, c.call_status, q.arrival_sequence,
    COALESCE(q.arrived_unix_ms, unixepoch(c.call_time) * 1000, 0) AS arrived_unix_ms,
    COALESCE(q.call_from, c.call_from, '') AS call_from,
    COALESCE(q.call_contact, c.call_contact, '') AS call_contact,
    q.assignment_id, q.agent, q.reserved_unix_ms, q.ring_ms
FROM mohqcalls c LEFT JOIN queue_callers q ON q.call_id = c.call_id
ORDER BY q.arrival_sequence IS NULL, q.arrival_sequence, c.id";

/// Casts, because SQLite keeps any type in any column and people write these rows by hand.
const LOAD_QUEUES: &str = "
SELECT q.id, CAST(q.name AS TEXT) AS name, CAST(q.uri AS TEXT) AS uri,
    CAST(COALESCE(q.mohdir, '') AS TEXT) AS mohdir, CAST(q.mohfile AS TEXT) AS mohfile,
    CAST(COALESCE(q.debug, 0) AS INTEGER) <> 0 AS debug,
    CAST(COALESCE(l.max_calls, 0) AS INTEGER) AS max_calls
FROM mohqueues q LEFT JOIN queue_limits l ON l.mohq_id = q.id ORDER BY q.id";

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
    pub(crate) async fn open(url: &str) -> anyhow::Result<Self> {
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
            .synchronous(SqliteSynchronous::Normal)
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
        if has_versions > 0 {
            for (table, wanted) in TABLES {
                let version = "SELECT table_version FROM version WHERE table_name = ?";
                let found: Option<i64> =
                    sqlx::query_scalar(version).bind(table).fetch_optional(&mut *tx).await?;
                if let Some(found) = found.filter(|found| *found != wanted) {
                    bail!("table {table} has version {found} in table `version`, wanted {wanted}");
                }
            }
        }
        sqlx::raw_sql(CREATE).execute(&mut *tx).await?;
        for (table, version) in TABLES {
            let insert = "INSERT OR IGNORE INTO version (table_name, table_version) VALUES (?, ?)";
            sqlx::query(insert).bind(table).bind(version).execute(&mut *tx).await?;
        }
        tx.commit().await?;
        Ok(())
    }

    /// All queues as written, good or bad, by id. A row that cannot even be read is left out.
    pub(crate) async fn load_queues(&self) -> Result<BTreeMap<QueueId, SettingsRow>, StoreError> {
        let rows = sqlx::query(LOAD_QUEUES).fetch_all(&self.pool).await?;
        let rows = rows.iter().filter_map(|row| {
            read_queue(row).inspect_err(|e| warn!("failed to read a row of mohqueues: {e}")).ok()
        });
        Ok(rows.collect())
    }

    /// Everybody who waited, in order of arrival.
    pub(crate) async fn load_callers(&self) -> Result<Vec<Caller>, StoreError> {
        let rows = sqlx::query(LOAD_CALLERS).fetch_all(&self.pool).await?;
        let mut sequence = 0;
        let mut callers = Vec::with_capacity(rows.len());
        for row in &rows {
            match read_caller(row, sequence + 1) {
                Ok(caller) => {
                    sequence = caller.place.sequence;
                    callers.push(caller);
                }
                Err(e) => warn!("failed to read a row of mohqcalls: {e:#}"),
            }
        }
        Ok(callers)
    }

    /// All of `writes`, or none.
    pub(crate) async fn write(&self, writes: &BTreeMap<CallId, Write>) -> Result<(), StoreError> {
        let mut tx = Transaction::begin(&self.pool).await?;
        for (call_id, write) in writes {
            let call_id = call_id.as_str();
            match write {
                Write::Save(caller) => save(&mut tx, caller).await?,
                Write::Delete => {
                    let calls = sqlx::query("DELETE FROM mohqcalls WHERE call_id = ?");
                    calls.bind(call_id).execute(&mut *tx).await?;
                    let callers = sqlx::query("DELETE FROM queue_callers WHERE call_id = ?");
                    callers.bind(call_id).execute(&mut *tx).await?;
                }
            }
        }
        Ok(tx.commit().await?)
    }

    pub(crate) async fn insert_queue(&self, row: &SettingsRow) -> Result<QueueId, StoreError> {
        let mut tx = Transaction::begin(&self.pool).await?;
        let insert =
            "INSERT INTO mohqueues (name, uri, mohdir, mohfile, debug) VALUES (?, ?, ?, ?, ?)";
        let inserted = sqlx::query(insert)
            .bind(&row.name)
            .bind(&row.uri)
            .bind(&row.mohdir)
            .bind(&row.mohfile)
            .bind(row.debug)
            .execute(&mut *tx)
            .await?;
        let id = QueueId(inserted.last_insert_rowid());
        set_limit(&mut tx, id, row.max_calls).await?;
        tx.commit().await?;
        Ok(id)
    }

    pub(crate) async fn update_queue(
        &self,
        id: QueueId,
        row: &SettingsRow,
    ) -> Result<(), StoreError> {
        let mut tx = Transaction::begin(&self.pool).await?;
        let update = "UPDATE mohqueues SET name = ?, uri = ?, mohdir = ?, mohfile = ?, debug = ? WHERE id = ?";
        let updated = sqlx::query(update)
            .bind(&row.name)
            .bind(&row.uri)
            .bind(&row.mohdir)
            .bind(&row.mohfile)
            .bind(row.debug)
            .bind(id.0)
            .execute(&mut *tx)
            .await?;
        if updated.rows_affected() == 0 {
            return Err(StoreError::Missing);
        }
        set_limit(&mut tx, id, row.max_calls).await?;
        Ok(tx.commit().await?)
    }

    pub(crate) async fn delete_queue(&self, id: QueueId) -> Result<(), StoreError> {
        let mut tx = Transaction::begin(&self.pool).await?;
        sqlx::query("DELETE FROM mohqueues WHERE id = ?").bind(id.0).execute(&mut *tx).await?;
        sqlx::query("DELETE FROM queue_limits WHERE mohq_id = ?")
            .bind(id.0)
            .execute(&mut *tx)
            .await?;
        Ok(tx.commit().await?)
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

async fn set_limit(tx: &mut Transaction, id: QueueId, max_calls: u32) -> Result<(), sqlx::Error> {
    let set = "INSERT INTO queue_limits (mohq_id, max_calls) VALUES (?1, ?2)
        ON CONFLICT (mohq_id) DO UPDATE SET max_calls = ?2";
    sqlx::query(set).bind(id.0).bind(max_calls).execute(&mut **tx).await?;
    Ok(())
}

async fn save(tx: &mut Transaction, caller: &Caller) -> Result<(), sqlx::Error> {
    let call_status = match caller.state {
        CallerState::Entering => 1,
        CallerState::InQueue => 2,
        CallerState::Leaving(_) => 3,
    };
    sqlx::query(SAVE_CALL)
        .bind(caller.queue.0)
        .bind(caller.call_id.as_str())
        .bind(call_status)
        .bind(&caller.from)
        .bind(&caller.contact)
        .bind(caller.arrived_at)
        .execute(&mut **tx)
        .await?;
    let assignment = caller.assignment();
    sqlx::query(SAVE_CALLER)
        .bind(caller.call_id.as_str())
        .bind(i64::try_from(caller.place.sequence).expect("not so many calls are made"))
        .bind(caller.arrived_at)
        .bind(&caller.from)
        .bind(&caller.contact)
        .bind(assignment.map(|it| it.id.as_str()))
        .bind(assignment.map(|it| it.agent.as_str()))
        .bind(assignment.map(|it| it.reserved_at))
        .bind(assignment.map(|it| it.ring_ms))
        .execute(&mut **tx)
        .await?;
    Ok(())
}

fn read_queue(row: &SqliteRow) -> Result<(QueueId, SettingsRow), sqlx::Error> {
    let max_calls: i64 = row.try_get("max_calls")?;
    let queue = SettingsRow {
        name: row.try_get("name")?,
        uri: row.try_get("uri")?,
        mohdir: row.try_get("mohdir")?,
        mohfile: row.try_get("mohfile")?,
        debug: row.try_get("debug")?,
        max_calls: u32::try_from(max_calls).unwrap_or(u32::MAX), // Refused as out of range.
    };
    Ok((QueueId(row.try_get("id")?), queue))
}

/// `next_sequence` is the lowest that is free; for a row that mohqueue left behind, which has none.
fn read_caller(row: &SqliteRow, next_sequence: u64) -> anyhow::Result<Caller> {
    let sequence: Option<i64> = row.try_get("arrival_sequence")?;
    let call_status: i64 = row.try_get("call_status")?;
    let state = match call_status {
        1 => CallerState::Entering,
        2 => CallerState::InQueue,
        3 => match read_assignment(row) {
            Ok(assignment) => assignment.map_or(CallerState::InQueue, CallerState::Leaving),
            Err(e) => {
                warn!("failed to read an assignment; the caller goes on waiting: {e:#}");
                CallerState::InQueue
            }
        },
        other => bail!("call_status is {other}; wanted 1, 2 or 3"),
    };
    Ok(Caller {
        call_id: CallId::parse(row.try_get("call_id")?)?,
        queue: QueueId(row.try_get("mohq_id")?),
        // Never two at one place, whatever was written by hand.
        place: Place { sequence: sequence.map_or(Ok(0), u64::try_from)?.max(next_sequence) },
        arrived_at: row.try_get("arrived_unix_ms")?,
        from: row.try_get("call_from")?,
        contact: row.try_get("call_contact")?,
        state,
    })
}

fn read_assignment(row: &SqliteRow) -> anyhow::Result<Option<Assignment>> {
    let Some(id) = row.try_get::<Option<&str>, _>("assignment_id")? else { return Ok(None) };
    Ok(Some(Assignment {
        id: AssignmentId::new(id),
        agent: Agent::parse(row.try_get("agent")?)?,
        reserved_at: row.try_get("reserved_unix_ms")?,
        ring_ms: row.try_get("ring_ms")?,
    }))
}

#[cfg(test)]
mod tests;
