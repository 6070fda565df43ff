//! The tasks in PostgreSQL, which replicas share.
//!
//! Statements for many tasks take one array for each column. The one connection that writes is not
//! pooled: when a statement fails or takes too long it is dropped, and with it the transaction.

mod grip;
mod transaction;

pub(crate) use grip::{Grip, Replica, View};
pub(crate) use transaction::Transaction;

use super::changes::{Changed, LogRow};
use super::row::{self, COLUMNS, LIVE_COLUMNS};
use super::{
    Cursor, Error, Filter, Held, Live, READERS, Reach, Result, STATEMENT_LIMIT, Task, list, schema,
};
use anyhow::Context as _;
use futures::TryStreamExt as _;
use futures::future::BoxFuture;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions, PgRow};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Row as _};
use std::collections::HashMap;
use std::str::FromStr as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::timeout;
use uuid::Uuid;
use wheel::TaskId;

/// How long a connection may take to be made.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// What the server is told for each connection. A transaction whose process stands still is rolled
/// back long before its lease is over. The tables grow from nothing to millions of rows before the
/// server has statistics: plans made for empty ones would read all of them for each task.
const SETTINGS: [(&str, &str); 8] = [
    ("idle_in_transaction_session_timeout", "1000"),
    ("statement_timeout", "5000"),
    ("synchronous_commit", "on"),
    ("enable_seqscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("plan_cache_mode", "force_generic_plan"),
    ("jit", "off"),
];
/// Holds off other replicas that migrate at the same moment.
const MIGRATION_LOCK: i64 = 0x0068_6f6c_6466_6173;

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct Postgres {
    /// The name of this process among the replicas; its connections are called by it.
    process: Arc<str>,
    options: Arc<PgConnectOptions>,
    /// The connection that writes, between two transactions.
    writer: Arc<Mutex<Option<PgConnection>>>,
    readers: PgPool,
}

impl Postgres {
    pub(super) async fn open(url: &str) -> anyhow::Result<Self> {
        let process = Uuid::now_v7().to_string();
        let options = PgConnectOptions::from_str(url).context("read --database-url")?;
        let options = options.options(SETTINGS).disable_statement_logging();
        let options = options.application_name(&grip::sessions_of(&process));
        // The URL may hold a password: name only where it leads.
        let at = format!("{}:{}", options.get_host(), options.get_port());
        let context = || format!("open PostgreSQL of --database-url at {at}");
        let mut connection = connect(&options).await.with_context(context)?;
        migrate(&mut connection).await.with_context(context)?;
        let readers = PgPoolOptions::new()
            .max_connections(READERS)
            .acquire_timeout(CONNECT_LIMIT)
            .connect_lazy_with(options.clone());
        let (process, options) = (process.into(), Arc::new(options));
        Ok(Self { process, options, writer: Arc::new(Mutex::new(Some(connection))), readers })
    }

    pub(super) async fn begin(&self, shards: &[Held]) -> Result<(Transaction, Vec<Held>)> {
        let idle = self.writer.lock().expect("never poisoned").take();
        let connection = match idle {
            Some(connection) => connection,
            None => connect(&self.options).await?,
        };
        Transaction::begin(connection, self.writer.clone(), shards).await
    }

    /// The transaction in question locks its shards until it is over.
    pub(super) async fn was_committed(&self, log: &LogRow) -> Result<bool> {
        let LogRow { shard, seq, fence, .. } = *log;
        self.read(move |connection| {
            Box::pin(async move {
                let mut transaction = connection.begin().await?;
                sqlx::query("SELECT 1 FROM shards WHERE shard = $1 FOR UPDATE")
                    .bind(i16::from(shard))
                    .execute(&mut *transaction)
                    .await?;
                let row = sqlx::query(
                    "SELECT 1 FROM task_changes WHERE shard = $1 AND seq = $2 AND fence = $3",
                );
                let row = row.bind(i16::from(shard)).bind(seq).bind(fence);
                let found = row.fetch_optional(&mut *transaction).await?;
                transaction.commit().await?;
                Ok(found.is_some())
            })
        })
        .await
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
             WHERE shard = $1 AND ended_unix_ms = 0 AND state IN (1, 2) AND fires_at_unix_ms < $2
               AND (fires_at_unix_ms, task_id) > ($3, $4)
             ORDER BY fires_at_unix_ms, task_id LIMIT $5"
        );
        self.read(move |connection| {
            Box::pin(async move {
                sqlx::query(AssertSqlSafe(sql))
                    .bind(i16::from(shard))
                    .bind(before_unix_ms)
                    .bind(after.fires_at_unix_ms)
                    .bind(Uuid::from_u128(after.id.0))
                    .bind(i64::from(limit))
                    .try_map(|it: PgRow| row::live(&it))
                    .fetch_all(connection)
                    .await
            })
        })
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
             WHERE shard = $1 AND ended_unix_ms = 0 AND state = 1 AND fires_at_unix_ms < $2
               AND (fires_at_unix_ms, task_id) > ($3, $4)
             ORDER BY fires_at_unix_ms, task_id LIMIT $5"
        );
        self.read(move |connection| {
            Box::pin(async move {
                sqlx::query(AssertSqlSafe(sql))
                    .bind(i16::from(shard))
                    .bind(before_unix_ms)
                    .bind(after.fires_at_unix_ms)
                    .bind(Uuid::from_u128(after.id.0))
                    .bind(i64::from(limit))
                    .try_map(|it: PgRow| row::task(&it))
                    .fetch_all(connection)
                    .await
            })
        })
        .await
    }

    pub(super) async fn live_of_calls(&self, calls: &[&str]) -> Result<Vec<(String, i64)>> {
        let calls = calls.iter().map(|call| clean(call)).collect();
        self.read(|connection| Box::pin(live_of_calls(connection, calls))).await
    }

    pub(super) async fn get(&self, id: TaskId) -> Result<Option<Task>> {
        let found = self
            .read(move |connection| Box::pin(async move { by_ids(connection, &[id]).await }))
            .await?;
        Ok(found.into_iter().next())
    }

    pub(super) async fn list(
        &self,
        filter: &Filter,
        bytes_max: usize,
        size: impl Fn(&Task) -> usize + Send,
    ) -> Result<Vec<Task>> {
        let mut query = list::select::<sqlx::Postgres>(filter);
        let mut connection = self.readers.acquire().await?;
        let read = async {
            let mut rows =
                query.build().try_map(|it: PgRow| row::task(&it)).fetch(&mut *connection);
            let (mut page, mut bytes) = (Vec::new(), 0);
            while let Some(task) = rows.try_next().await? {
                bytes += size(&task);
                page.push(task);
                if bytes > bytes_max {
                    return Ok((page, false));
                }
            }
            Ok((page, true))
        };
        let read = timeout(STATEMENT_LIMIT, read).await.unwrap_or_else(|_| Err(late()));
        if !matches!(read, Ok((_, true))) {
            connection.close_on_drop(); // The rest would still come by it.
        }
        read.map(|(page, _)| page)
    }

    pub(super) async fn reach(&self, shards: &[u8]) -> Result<Vec<Reach>> {
        let shards = shards.to_vec();
        self.read(move |connection| Box::pin(async move { reach(connection, &shards).await })).await
    }

    pub(super) async fn changes(
        &self,
        shard: u8,
        after_seq: i64,
        commits: u32,
    ) -> Result<Option<Vec<Changed>>> {
        self.read(move |connection| {
            Box::pin(async move {
                let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
                let mut snapshot = connection.begin_with(begin).await?;
                let changed = changes(&mut snapshot, shard, after_seq, commits).await?;
                snapshot.commit().await?;
                Ok(changed)
            })
        })
        .await
    }

    pub(super) async fn published(&self, shard: u8) -> Result<i64> {
        self.read(move |connection| {
            Box::pin(async move {
                sqlx::query("SELECT published_seq FROM shards WHERE shard = $1")
                    .bind(i16::from(shard))
                    .fetch_one(connection)
                    .await?
                    .try_get(0)
            })
        })
        .await
    }

    pub(super) async fn set_published(&self, told: &[(Held, i64)]) -> Result<()> {
        let shards: Vec<i16> = told.iter().map(|(held, _)| i16::from(held.shard)).collect();
        let fences: Vec<i64> = told.iter().map(|(held, _)| held.fence).collect();
        let seqs: Vec<i64> = told.iter().map(|(_, seq)| *seq).collect();
        self.read(move |connection| {
            Box::pin(async move {
                sqlx::query(
                    "UPDATE shards SET published_seq = told.seq
                     FROM UNNEST($1::smallint[], $2::bigint[], $3::bigint[])
                          AS told(shard, fence, seq)
                     WHERE shards.shard = told.shard AND shards.fence = told.fence",
                )
                .bind(shards)
                .bind(fences)
                .bind(seqs)
                .execute(connection)
                .await
                .map(drop)
            })
        })
        .await
    }

    /// Does this with a connection of the readers, within the limit; one that fails is not used again.
    async fn read<T: Send>(
        &self,
        read: impl for<'c> FnOnce(&'c mut PgConnection) -> BoxFuture<'c, Result<T>> + Send,
    ) -> Result<T> {
        let mut connection = self.readers.acquire().await?;
        let answer = timeout(STATEMENT_LIMIT, read(&mut connection)).await;
        let answer = answer.unwrap_or_else(|_| Err(late()));
        if answer.is_err() {
            connection.close_on_drop();
        }
        answer
    }
}

fn late() -> Error {
    Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, "PostgreSQL does not answer"))
}

async fn connect(options: &PgConnectOptions) -> Result<PgConnection> {
    timeout(CONNECT_LIMIT, options.connect()).await.unwrap_or_else(|_| Err(late()))
}

async fn live_of_calls(
    connection: &mut PgConnection,
    calls: Vec<String>,
) -> Result<Vec<(String, i64)>> {
    sqlx::query(
        // One probe of the index for each call: joined in any other way, a plan made
        // while there were few tasks would read all of them. And not of `tasks_live`,
        // which would do for `= 0`, and cost as little for an empty table.
        "SELECT asked, live.count FROM UNNEST($1::text[]) AS asked
         CROSS JOIN LATERAL (
             SELECT COUNT(*) AS count FROM tasks
             WHERE call_id = asked AND call_id <> ''
               AND ended_unix_ms BETWEEN 0 AND 0) AS live
         WHERE live.count > 0",
    )
    .bind(calls)
    .try_map(|row: PgRow| Ok((row.try_get(0)?, row.try_get(1)?)))
    .fetch_all(connection)
    .await
}

/// PostgreSQL's text takes any character but NUL.
fn clean(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

async fn by_ids(connection: &mut PgConnection, ids: &[TaskId]) -> Result<Vec<Task>> {
    let ids: Vec<Uuid> = ids.iter().map(|id| Uuid::from_u128(id.0)).collect();
    // One probe of the index for each, whatever the server thinks of the table.
    let sql = format!(
        "SELECT {COLUMNS} FROM UNNEST($1::uuid[]) AS asked
         CROSS JOIN LATERAL (SELECT * FROM tasks WHERE task_id = asked OFFSET 0) AS found"
    );
    sqlx::query(AssertSqlSafe(sql))
        .bind(ids)
        .try_map(|it: PgRow| row::task(&it))
        .fetch_all(connection)
        .await
}

async fn reach(connection: &mut PgConnection, shards: &[u8]) -> Result<Vec<Reach>> {
    let shards: Vec<i16> = shards.iter().copied().map(i16::from).collect();
    sqlx::query(
        "SELECT COALESCE((SELECT first_seq FROM task_changes WHERE task_changes.shard = asked
                          ORDER BY seq LIMIT 1), 1),
                COALESCE((SELECT seq FROM task_changes WHERE task_changes.shard = asked
                          ORDER BY seq DESC LIMIT 1), 0)
         FROM UNNEST($1::smallint[]) WITH ORDINALITY AS it(asked, place) ORDER BY place",
    )
    .bind(shards)
    .try_map(|row: PgRow| Ok(Reach { first: row.try_get(0)?, last: row.try_get(1)? }))
    .fetch_all(connection)
    .await
}

async fn log_rows(
    connection: &mut PgConnection,
    shard: u8,
    after_seq: i64,
    limit: u32,
) -> Result<Vec<LogRow>> {
    sqlx::query(
        "SELECT seq, first_seq, fence, at_unix_ms, changes FROM task_changes
         WHERE shard = $1 AND seq > $2 ORDER BY seq LIMIT $3",
    )
    .bind(i16::from(shard))
    .bind(after_seq)
    .bind(i64::from(limit))
    .try_map(|row: PgRow| {
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

async fn changes(
    snapshot: &mut PgConnection,
    shard: u8,
    after_seq: i64,
    commits: u32,
) -> Result<Option<Vec<Changed>>> {
    let Reach { first, .. } = reach(snapshot, &[shard]).await?[0];
    if after_seq < first - 1 {
        return Ok(None);
    }
    let rows = log_rows(snapshot, shard, after_seq, commits).await?;
    let mut ids = Vec::new();
    for row in &rows {
        ids.extend(row.ids()?.into_iter().map(|(id, _)| id));
    }
    ids.sort_unstable();
    ids.dedup();
    let tasks = by_ids(snapshot, &ids).await?;
    let tasks: HashMap<_, _> = tasks.into_iter().map(|task| (task.id, task)).collect();
    let mut changed = Vec::new();
    for row in &rows {
        changed.extend(row.changed(after_seq, &tasks)?);
    }
    Ok(Some(changed))
}

async fn migrate(connection: &mut PgConnection) -> anyhow::Result<()> {
    let mut transaction = connection.begin().await.context("begin")?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)")
        .bind(MIGRATION_LOCK)
        .execute(&mut *transaction)
        .await
        .context("wait for who migrates it")?;
    sqlx::raw_sql("CREATE TABLE IF NOT EXISTS scheduler_schema (applied bigint NOT NULL)")
        .execute(&mut *transaction)
        .await
        .context("read its schema")?;
    let applied: i64 = sqlx::query("SELECT COALESCE(MAX(applied), 0) FROM scheduler_schema")
        .fetch_one(&mut *transaction)
        .await
        .and_then(|row| row.try_get(0))
        .context("read its schema")?;
    let known = schema::POSTGRES.len();
    let applied = schema::applied_of(applied, known)?;
    for migration in &schema::POSTGRES[applied..] {
        sqlx::raw_sql(*migration).execute(&mut *transaction).await.context("migrate it")?;
    }
    if applied < known {
        sqlx::query("INSERT INTO scheduler_schema (applied) VALUES ($1)")
            .bind(known as i64)
            .execute(&mut *transaction)
            .await
            .context("migrate it")?;
    }
    transaction.commit().await.context("migrate it")
}
