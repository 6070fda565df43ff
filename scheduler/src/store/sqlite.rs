//! The tasks in a file of SQLite, which one process has for itself.
//!
//! Statements for many tasks take them as rows of `VALUES`, padded with NULLs to one of a few sizes, so that
//! they are prepared once.

mod file;
mod transaction;

pub(crate) use transaction::Transaction;

use super::changes::{Changed, LogRow};
use super::row::{self, COLUMNS, LIVE_COLUMNS};
use super::{Cursor, Filter, Held, Live, READERS, Reach, Result, Task, list};
use anyhow::Context as _;
use futures::TryStreamExt as _;
use sqlx::query::Query;
use sqlx::sqlite::{
    SqliteArguments, SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePoolOptions,
    SqliteRow, SqliteSynchronous,
};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Row as _, SqlitePool};
use std::collections::HashMap;
use std::fs::File;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;
use wheel::TaskId;

/// How long another process (a backup, an operator's shell) may lock the database before a write is
/// given up; readers wait as long for a connection.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(1);
/// Pages (of 4 KiB) in the log of commits at which the writer moves them into the database itself:
/// far above SQLite's default, because `checkpoint.rs` does it long before.
pub(super) const LOG_PAGES_MAX: &str = "100000";
/// Memory for pages, in KiB: those that a million tasks are inserted into.
const CACHE_KIB: &str = "-40960";
/// The same of each connection that reads.
const READER_CACHE_KIB: &str = "-2048";
/// Rows that the thread of a connection reads ahead, so that it and who takes them need not wait for each
/// other row by row.
const ROWS_AHEAD: usize = 1_024;
/// How many rows a statement can be for.
const SIZES: [usize; 10] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512];

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct Sqlite {
    pub(super) writer: SqlitePool,
    readers: SqlitePool,
    /// Locked while this process lives: two schedulers on one file would both fire.
    _lock: Arc<File>,
}

impl Sqlite {
    pub(super) async fn open(url: &str, busy_timeout: Duration) -> anyhow::Result<Self> {
        let context = || format!("open --database-url {url:?}");
        let options = SqliteConnectOptions::from_str(url)
            .with_context(context)?
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(busy_timeout)
            .row_buffer_size(ROWS_AHEAD)
            .pragma("wal_autocheckpoint", LOG_PAGES_MAX)
            .pragma("cache_size", CACHE_KIB)
            .disable_statement_logging();
        let lock = file::lock(&options).with_context(context)?;
        let pool = || {
            let wait = BUSY_TIMEOUT + busy_timeout;
            SqlitePoolOptions::new().acquire_timeout(wait).test_before_acquire(false)
        };
        let writer = pool().max_connections(1).connect_with(options.clone());
        let writer = writer.await.with_context(context)?;
        file::migrate(&writer).await.with_context(context)?;
        let options = options.pragma("query_only", "1").pragma("cache_size", READER_CACHE_KIB);
        let readers = pool().max_connections(READERS).connect_lazy_with(options);
        Ok(Self { writer, readers, _lock: lock.into() })
    }

    pub(super) async fn begin(&self) -> Result<Transaction> {
        Transaction::begin(self.writer.acquire().await?).await
    }

    /// A commit that failed is never in doubt here.
    pub(super) async fn was_committed(&self, log: &LogRow) -> Result<bool> {
        sqlx::query("SELECT 1 FROM task_changes WHERE shard = ?1 AND seq = ?2")
            .bind(log.shard)
            .bind(log.seq)
            .fetch_optional(&self.readers)
            .await
            .map(|row| row.is_some())
    }

    pub(super) async fn live(
        &self,
        shard: u8,
        after: Option<Cursor>,
        before_unix_ms: i64,
        limit: u32,
    ) -> Result<Vec<Live>> {
        let after = after.unwrap_or(Cursor { fires_at_unix_ms: i64::MIN, id: TaskId(0) });
        let sql = format!(
            "SELECT {LIVE_COLUMNS} FROM tasks
             WHERE shard = ?1 AND ended_unix_ms = 0 AND state IN (1, 2) AND fires_at_unix_ms < ?2
               AND (fires_at_unix_ms, task_id) > (?3, ?4)
             ORDER BY fires_at_unix_ms, task_id LIMIT ?5"
        );
        sqlx::query(AssertSqlSafe(sql))
            .bind(shard)
            .bind(before_unix_ms)
            .bind(after.fires_at_unix_ms)
            .bind(Uuid::from_u128(after.id.0))
            .bind(limit)
            .try_map(|it: SqliteRow| row::live(&it))
            .fetch_all(&self.readers)
            .await
    }

    pub(super) async fn soon(
        &self,
        shard: u8,
        after: Option<Cursor>,
        before_unix_ms: i64,
        limit: u32,
    ) -> Result<Vec<Task>> {
        let after = after.unwrap_or(Cursor { fires_at_unix_ms: i64::MIN, id: TaskId(0) });
        let sql = format!(
            "SELECT {COLUMNS} FROM tasks
             WHERE shard = ?1 AND ended_unix_ms = 0 AND state = 1 AND fires_at_unix_ms < ?2
               AND (fires_at_unix_ms, task_id) > (?3, ?4)
             ORDER BY fires_at_unix_ms, task_id LIMIT ?5"
        );
        sqlx::query(AssertSqlSafe(sql))
            .bind(shard)
            .bind(before_unix_ms)
            .bind(after.fires_at_unix_ms)
            .bind(Uuid::from_u128(after.id.0))
            .bind(limit)
            .try_map(|it: SqliteRow| row::task(&it))
            .fetch_all(&self.readers)
            .await
    }

    pub(super) async fn live_of_calls(&self, calls: &[&str]) -> Result<Vec<(String, i64)>> {
        live_of_calls(&mut *self.readers.acquire().await?, calls).await
    }

    pub(super) async fn get(&self, id: TaskId) -> Result<Option<Task>> {
        let found = by_ids(&mut *self.readers.acquire().await?, &[id]).await?;
        Ok(found.into_iter().next())
    }

    pub(super) async fn list(
        &self,
        filter: &Filter,
        bytes_max: usize,
        size: impl Fn(&Task) -> usize,
    ) -> Result<Vec<Task>> {
        let mut query = list::select::<sqlx::Sqlite>(filter);
        let mut rows = query.build().try_map(|it: SqliteRow| row::task(&it)).fetch(&self.readers);
        let (mut page, mut bytes) = (Vec::new(), 0);
        while let Some(task) = rows.try_next().await? {
            bytes += size(&task);
            page.push(task);
            if bytes > bytes_max {
                break;
            }
        }
        Ok(page)
    }

    pub(super) async fn reach(&self, shards: &[u8]) -> Result<Vec<Reach>> {
        reach(&mut *self.readers.acquire().await?, shards).await
    }

    pub(super) async fn changes(
        &self,
        shard: u8,
        after_seq: i64,
        commits: u32,
    ) -> Result<Option<Vec<Changed>>> {
        let mut snapshot = self.readers.begin().await?;
        let Reach { first, .. } = reach(&mut snapshot, &[shard]).await?[0];
        if after_seq < first - 1 {
            return Ok(None);
        }
        let rows = log_rows(&mut snapshot, shard, after_seq, commits).await?;
        let mut ids = Vec::new();
        for row in &rows {
            ids.extend(row.ids()?.into_iter().map(|(id, _)| id));
        }
        ids.sort_unstable();
        ids.dedup();
        let tasks = by_ids(&mut snapshot, &ids).await?;
        let tasks: HashMap<_, _> = tasks.into_iter().map(|task| (task.id, task)).collect();
        let mut changed = Vec::new();
        for row in &rows {
            changed.extend(row.changed(after_seq, &tasks)?);
        }
        Ok(Some(changed))
    }

    pub(super) async fn published(&self, shard: u8) -> Result<i64> {
        let row = sqlx::query("SELECT published_seq FROM shards WHERE shard = ?1").bind(shard);
        row.fetch_one(&self.readers).await?.try_get(0)
    }

    pub(super) async fn set_published(&self, told: &[(Held, i64)]) -> Result<()> {
        let sql = format!(
            "UPDATE shards SET published_seq = told.column2 FROM ({}) AS told
             WHERE shard = told.column1",
            values(2, told.len())
        );
        let query = pad(sqlx::query(AssertSqlSafe(sql)), told, told.len(), |query, told| {
            query.bind(told.map(|(held, _)| held.shard)).bind(told.map(|(_, seq)| *seq))
        });
        query.execute(&self.writer).await.map(drop)
    }

    pub(super) async fn checkpoint(&self) -> Result<()> {
        sqlx::query("PRAGMA wal_checkpoint(PASSIVE)").execute(&self.readers).await.map(drop)
    }

    /// As if the disk were full at so many pages; None: it is not.
    #[cfg(test)]
    pub(crate) async fn limit_pages(&self, pages: Option<u32>) {
        let pages = pages.unwrap_or(u32::MAX - 1);
        let sql = format!("PRAGMA max_page_count = {}", pages.max(1));
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&self.writer).await.unwrap();
    }
}

type Asked<'q> = Query<'q, sqlx::Sqlite, SqliteArguments>;

/// The rows in parts, each with the size of the statement that it is for.
fn chunks<T>(rows: &[T]) -> impl Iterator<Item = (&[T], usize)> {
    let largest = SIZES[SIZES.len() - 1];
    rows.chunks(largest).map(move |chunk| {
        let size = SIZES.into_iter().find(|size| *size >= chunk.len());
        (chunk, size.unwrap_or(largest))
    })
}

/// `VALUES (?,?),(?,?)`: its columns are called `column1` and so on.
fn values(columns: usize, rows: usize) -> String {
    let row = format!("({})", vec!["?"; columns].join(","));
    format!("VALUES {}", vec![row.as_str(); rows].join(","))
}

/// Binds each row, and NULLs for those that fill up.
fn pad<'q, T>(
    query: Asked<'q>,
    chunk: &'q [T],
    size: usize,
    bind: impl Fn(Asked<'q>, Option<&'q T>) -> Asked<'q>,
) -> Asked<'q> {
    (0..size).fold(query, |query, at| bind(query, chunk.get(at)))
}

async fn by_ids(connection: &mut SqliteConnection, ids: &[TaskId]) -> Result<Vec<Task>> {
    let mut found = Vec::with_capacity(ids.len());
    for (chunk, size) in chunks(ids) {
        let sql = format!(
            "SELECT {COLUMNS} FROM ({}) AS asked CROSS JOIN tasks ON task_id = asked.column1",
            values(1, size)
        );
        let query = pad(sqlx::query(AssertSqlSafe(sql)), chunk, size, |query, id| {
            query.bind(id.map(|id| Uuid::from_u128(id.0)))
        });
        let mut rows = query.fetch(&mut *connection);
        while let Some(it) = rows.try_next().await? {
            found.push(row::task(&it)?);
        }
    }
    Ok(found)
}

async fn live_of_calls(
    connection: &mut SqliteConnection,
    calls: &[&str],
) -> Result<Vec<(String, i64)>> {
    let mut found = Vec::new();
    for (chunk, size) in chunks(calls) {
        let sql = format!(
            "SELECT column1, (SELECT COUNT(*) FROM tasks WHERE call_id = column1
                              AND call_id <> '' AND ended_unix_ms = 0) AS live
             FROM ({}) WHERE live > 0",
            values(1, size)
        );
        let query = pad(sqlx::query(AssertSqlSafe(sql)), chunk, size, |query, call| {
            query.bind(call.copied())
        });
        let rows = query.try_map(|row: SqliteRow| Ok((row.try_get(0)?, row.try_get(1)?)));
        found.extend(rows.fetch_all(&mut *connection).await?);
    }
    Ok(found)
}

async fn reach(connection: &mut SqliteConnection, shards: &[u8]) -> Result<Vec<Reach>> {
    let mut reaches = Vec::with_capacity(shards.len());
    for shard in shards {
        let row = sqlx::query(
            "SELECT COALESCE((SELECT first_seq FROM task_changes WHERE shard = ?1
                              ORDER BY seq LIMIT 1), 1),
                    COALESCE((SELECT seq FROM task_changes WHERE shard = ?1
                              ORDER BY seq DESC LIMIT 1), 0)",
        );
        let row = row.bind(shard).fetch_one(&mut *connection).await?;
        reaches.push(Reach { first: row.try_get(0)?, last: row.try_get(1)? });
    }
    Ok(reaches)
}

async fn log_rows(
    connection: &mut SqliteConnection,
    shard: u8,
    after_seq: i64,
    limit: u32,
) -> Result<Vec<LogRow>> {
    sqlx::query(
        "SELECT seq, first_seq, fence, at_unix_ms, changes FROM task_changes
         WHERE shard = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3",
    )
    .bind(shard)
    .bind(after_seq)
    .bind(limit)
    .try_map(|row: SqliteRow| {
        Ok(LogRow {
            shard,
            seq: row.try_get(0)?,
            first_seq: row.try_get(1)?,
            fence: row.try_get(2)?,
            at_unix_ms: row.try_get(3)?,
            changes: row.try_get(4)?,
        })
    })
    .fetch_all(connection)
    .await
}
