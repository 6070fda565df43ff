//! The tasks on disk: all SQL of this service, for SQLite.
//!
//! One connection writes, in transactions that `commits.rs` fills; others read snapshots beside it.
//! [`Transaction::change`] is the compare-and-set by which a task gets another state, and so the one
//! place where "cancel or fire" is decided.

use anyhow::{Context as _, bail, ensure};
use futures::TryStreamExt as _;
use sqlx::pool::PoolConnection;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous,
};
use sqlx::{ConnectOptions as _, QueryBuilder, Row as _, Sqlite, SqlitePool};
use std::fs::File;
use std::str::FromStr as _;
use std::time::Duration;
use uuid::Uuid;
use wheel::{Event, State, TaskId};

/// The database did not answer, or not with what it should hold.
pub(crate) use sqlx::{Error, Result};

/// How long another process (a backup, an operator's shell) may lock the database before a write is
/// given up; readers wait as long for a connection.
const BUSY_TIMEOUT: Duration = Duration::from_secs(1);
const READERS: u32 = 4;
/// Pages (of 4 KiB) in the log of commits at which the writer moves them into the database itself:
/// ten times SQLite's default, because `checkpoint.rs` does it long before.
const LOG_PAGES_MAX: &str = "10000";
/// Rows that one statement ends or deletes, so that no transaction is long.
pub(crate) const ROWS_PER_STATEMENT: u32 = 1_000;

/// Each is applied once, in order; the number of applied ones is in `scheduler_schema`.
const MIGRATIONS: [&str; 1] = ["
    CREATE TABLE tasks (
        task_id          TEXT    NOT NULL PRIMARY KEY,
        call_id          TEXT    NOT NULL,
        state            INTEGER NOT NULL,  -- as scheduler.v1.TaskState
        fires_at_unix_ms INTEGER NOT NULL,
        revision         INTEGER NOT NULL,
        action           TEXT    NOT NULL,  -- 'hangup'
        cause            TEXT    NOT NULL,
        group_name       TEXT    NOT NULL,
        label            TEXT    NOT NULL,
        idempotency_key  TEXT,
        created_unix_ms  INTEGER NOT NULL,
        ended_unix_ms    INTEGER NOT NULL DEFAULT 0,
        late_ms          INTEGER NOT NULL DEFAULT 0,
        result           TEXT    NOT NULL DEFAULT ''
    ) STRICT;
    CREATE UNIQUE INDEX tasks_by_key ON tasks (idempotency_key) WHERE idempotency_key IS NOT NULL;
    CREATE INDEX tasks_by_call ON tasks (call_id, state);
    CREATE INDEX tasks_by_group ON tasks (group_name, state) WHERE group_name <> '';
    CREATE INDEX tasks_live ON tasks (fires_at_unix_ms, task_id) WHERE state IN (1, 2);
    CREATE INDEX tasks_by_end ON tasks (ended_unix_ms) WHERE ended_unix_ms > 0;
"];

/// One row. Times in Unix ms, 0 for what has not happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Task {
    pub(crate) id: TaskId,
    pub(crate) call_id: String,
    pub(crate) state: State,
    pub(crate) fires_at_unix_ms: i64,
    pub(crate) revision: i64,
    /// Hangup cause by name.
    pub(crate) cause: String,
    pub(crate) group: String,
    pub(crate) label: String,
    pub(crate) created_unix_ms: i64,
    pub(crate) ended_unix_ms: i64,
    pub(crate) late_ms: i64,
    pub(crate) result: String,
}

/// What a process that starts must know of a task that has not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Live {
    pub(crate) id: TaskId,
    pub(crate) firing: bool,
    pub(crate) fires_at_unix_ms: i64,
    pub(crate) revision: i64,
}

/// The tasks that something is done to together.
#[derive(Clone, Debug)]
pub(crate) enum Scope {
    Call(String),
    Group(String),
}

/// What is written beside the new state.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ending {
    pub(crate) ended_unix_ms: i64,
    pub(crate) late_ms: i64,
    pub(crate) result: String,
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
    /// Not empty.
    pub(crate) states: Vec<State>,
    pub(crate) after: Option<Cursor>,
    pub(crate) limit: u32,
}

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct Store {
    writer: SqlitePool,
    readers: SqlitePool,
    /// Locked while this process lives: two schedulers on one file would both fire.
    _lock: std::sync::Arc<File>,
}

impl Store {
    /// Opens the file, makes it if there is none, and brings its tables up to date.
    ///
    /// # Errors
    /// If `url` is not `sqlite:FILE`, or the file cannot be opened, is not ours, was written by a newer
    /// version, or is in use by another scheduler.
    pub(crate) async fn open(url: &str) -> anyhow::Result<Self> {
        Self::open_waiting(url, BUSY_TIMEOUT).await
    }

    pub(crate) async fn open_waiting(url: &str, busy_timeout: Duration) -> anyhow::Result<Self> {
        let context = || format!("open --database-url {url:?}");
        ensure!(
            url.starts_with("sqlite:") && !url.contains(":memory:") && !url.contains("mode=memory"),
            "open --database-url {url:?}: wanted `sqlite:FILE`; tasks outlive the process"
        );
        let options = SqliteConnectOptions::from_str(url)
            .with_context(context)?
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(busy_timeout)
            .pragma("wal_autocheckpoint", LOG_PAGES_MAX)
            .disable_statement_logging();
        let lock = lock(&options).with_context(context)?;
        let pool = || {
            let wait = BUSY_TIMEOUT + busy_timeout;
            SqlitePoolOptions::new().acquire_timeout(wait).test_before_acquire(false)
        };
        let writer = pool().max_connections(1).connect_with(options.clone());
        let writer = writer.await.with_context(context)?;
        migrate(&writer).await.with_context(context)?;
        let readers =
            pool().max_connections(READERS).connect_lazy_with(options.pragma("query_only", "1"));
        Ok(Self { writer, readers, _lock: lock.into() })
    }

    /// A transaction that no other writer can disturb. Dropped without commit, it did nothing.
    pub(crate) async fn begin(&self) -> Result<Transaction> {
        let mut connection = self.writer.acquire().await?;
        sqlx::query("BEGIN IMMEDIATE").execute(&mut *connection).await?;
        Ok(Transaction { connection, committed: false })
    }

    /// All tasks that have not ended, in the order of their deadlines.
    pub(crate) async fn live(&self) -> Result<Vec<Live>> {
        sqlx::query(
            "SELECT task_id, state, fires_at_unix_ms, revision FROM tasks
             WHERE state IN (1, 2) ORDER BY fires_at_unix_ms, task_id",
        )
        .try_map(|row: SqliteRow| {
            Ok(Live {
                id: task_id(&row)?,
                firing: row.try_get::<i64, _>("state")? == State::Firing as i64,
                fires_at_unix_ms: row.try_get("fires_at_unix_ms")?,
                revision: row.try_get("revision")?,
            })
        })
        .fetch_all(&self.readers)
        .await
    }

    pub(crate) async fn get(&self, id: TaskId) -> Result<Option<Task>> {
        sqlx::query("SELECT * FROM tasks WHERE task_id = ?1")
            .bind(id.to_string())
            .try_map(task)
            .fetch_optional(&self.readers)
            .await
    }

    /// At most `limit` tasks by `fires_at_unix_ms`, then id; fewer once they pass `bytes_max`, as
    /// `size` counts them.
    pub(crate) async fn list(
        &self,
        filter: &Filter,
        bytes_max: usize,
        size: impl Fn(&Task) -> usize,
    ) -> Result<Vec<Task>> {
        let mut query = select(filter);
        let mut rows = query.build().try_map(task).fetch(&self.readers);
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

    /// Ended tasks that are still kept.
    pub(crate) async fn ended(&self) -> Result<i64> {
        let count = sqlx::query("SELECT COUNT(*) FROM tasks WHERE ended_unix_ms > 0");
        count.fetch_one(&self.readers).await?.try_get(0)
    }

    /// Moves what is in the log of commits into the database, without disturbing the writer.
    pub(crate) async fn checkpoint(&self) -> Result<()> {
        sqlx::query("PRAGMA wal_checkpoint(PASSIVE)").execute(&self.readers).await.map(drop)
    }

    /// As if the disk were full at so many pages; None: it is not.
    #[cfg(test)]
    pub(crate) async fn limit_pages(&self, pages: Option<u32>) {
        let pages = pages.unwrap_or(u32::MAX - 1);
        let sql = format!("PRAGMA max_page_count = {}", pages.max(1));
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&self.writer).await.unwrap();
    }
}

fn select(filter: &Filter) -> QueryBuilder<Sqlite> {
    let mut query = QueryBuilder::new("SELECT * FROM tasks WHERE state IN (");
    let mut states = query.separated(", ");
    for state in &filter.states {
        states.push_bind(*state as i64);
    }
    query.push(")");
    if !filter.states.iter().any(|state| state.has_ended()) {
        query.push(" AND state IN (1, 2)"); // In the words of the index.
    }
    if !filter.call_id.is_empty() {
        query.push(" AND call_id = ").push_bind(filter.call_id.clone());
    }
    if !filter.group.is_empty() {
        query.push(" AND group_name <> '' AND group_name = ").push_bind(filter.group.clone());
    }
    if let Some(Cursor { fires_at_unix_ms, id }) = filter.after {
        query.push(" AND (fires_at_unix_ms, task_id) > (").push_bind(fires_at_unix_ms);
        query.push(", ").push_bind(id.to_string()).push(")");
    }
    query.push(" ORDER BY fires_at_unix_ms, task_id LIMIT ").push_bind(i64::from(filter.limit));
    query
}

/// Changes that are made together or not at all.
///
/// Not sqlx's own: on a full disk SQLite rolls back by itself, and sqlx goes on believing that a
/// transaction is open, so that the connection can begin none any more.
pub(crate) struct Transaction {
    connection: PoolConnection<Sqlite>,
    committed: bool,
}

impl Drop for Transaction {
    /// What is not committed is rolled back, whatever state it is in, by closing the connection.
    fn drop(&mut self) {
        if !self.committed {
            self.connection.close_on_drop();
        }
    }
}

impl Transaction {
    pub(crate) async fn commit(mut self) -> Result<()> {
        sqlx::query("COMMIT").execute(&mut *self.connection).await?;
        self.committed = true;
        Ok(())
    }

    pub(crate) async fn get(&mut self, id: TaskId) -> Result<Option<Task>> {
        sqlx::query("SELECT * FROM tasks WHERE task_id = ?1")
            .bind(id.to_string())
            .try_map(task)
            .fetch_optional(&mut *self.connection)
            .await
    }

    pub(crate) async fn by_key(&mut self, key: &str) -> Result<Option<Task>> {
        sqlx::query("SELECT * FROM tasks WHERE idempotency_key = ?1")
            .bind(key)
            .try_map(task)
            .fetch_optional(&mut *self.connection)
            .await
    }

    /// `key`: the idempotency key; none if empty.
    pub(crate) async fn insert(&mut self, task: &Task, key: &str) -> Result<()> {
        sqlx::query(
            "INSERT INTO tasks (task_id, call_id, state, fires_at_unix_ms, revision, action, cause,
                                group_name, label, idempotency_key, created_unix_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, 'hangup', ?6, ?7, ?8, ?9, ?10)",
        )
        .bind(task.id.to_string())
        .bind(&task.call_id)
        .bind(task.state as i64)
        .bind(task.fires_at_unix_ms)
        .bind(task.revision)
        .bind(&task.cause)
        .bind(&task.group)
        .bind(&task.label)
        .bind((!key.is_empty()).then_some(key))
        .bind(task.created_unix_ms)
        .execute(&mut *self.connection)
        .await
        .map(drop)
    }

    /// The compare-and-set: gives the task the state that `event` leads to, if it still is in `from`
    /// and, unless that is 0, in `revision`; returns it then.
    ///
    /// # Panics
    /// If `event` does not lead anywhere from `from`.
    pub(crate) async fn change(
        &mut self,
        id: TaskId,
        (from, event): (State, Event),
        revision: i64,
        ending: Ending,
    ) -> Result<Option<Task>> {
        sqlx::query(
            "UPDATE tasks SET state = ?1, revision = revision + 1, ended_unix_ms = ?2, late_ms = ?3,
                              result = ?4
             WHERE task_id = ?5 AND state = ?6 AND (?7 = 0 OR revision = ?7) RETURNING *",
        )
        .bind(from.next(event).expect("an arrow of the task's life") as i64)
        .bind(ending.ended_unix_ms)
        .bind(ending.late_ms)
        .bind(ending.result)
        .bind(id.to_string())
        .bind(from as i64)
        .bind(revision)
        .try_map(task)
        .fetch_optional(&mut *self.connection)
        .await
    }

    /// Moves a pending task, if it is in `revision` (0: any); returns it then.
    pub(crate) async fn reschedule(
        &mut self,
        id: TaskId,
        revision: i64,
        fires_at_unix_ms: i64,
    ) -> Result<Option<Task>> {
        sqlx::query(
            "UPDATE tasks SET fires_at_unix_ms = ?1, revision = revision + 1
             WHERE task_id = ?2 AND state = 1 AND (?3 = 0 OR revision = ?3) RETURNING *",
        )
        .bind(fires_at_unix_ms)
        .bind(id.to_string())
        .bind(revision)
        .try_map(task)
        .fetch_optional(&mut *self.connection)
        .await
    }

    /// Ends pending tasks of `scope`, at most [`ROWS_PER_STATEMENT`]; returns them.
    ///
    /// # Panics
    /// If `event` does not lead anywhere from pending.
    pub(crate) async fn end_all(
        &mut self,
        scope: &Scope,
        event: Event,
        ending: Ending,
    ) -> Result<Vec<Task>> {
        let (sql, value) = match scope {
            Scope::Call(call_id) => (
                "UPDATE tasks SET state = ?1, revision = revision + 1, ended_unix_ms = ?2, result = ?3
                 WHERE rowid IN (SELECT rowid FROM tasks WHERE call_id = ?4 AND state = 1 LIMIT ?5)
                 RETURNING *",
                call_id,
            ),
            Scope::Group(group) => (
                "UPDATE tasks SET state = ?1, revision = revision + 1, ended_unix_ms = ?2, result = ?3
                 WHERE rowid IN (SELECT rowid FROM tasks WHERE group_name = ?4 AND group_name <> ''
                                 AND state = 1 LIMIT ?5) RETURNING *",
                group,
            ),
        };
        sqlx::query(sql)
            .bind(State::Pending.next(event).expect("an arrow of the task's life") as i64)
            .bind(ending.ended_unix_ms)
            .bind(ending.result)
            .bind(value)
            .bind(ROWS_PER_STATEMENT)
            .try_map(task)
            .fetch_all(&mut *self.connection)
            .await
    }

    /// Tasks of `scope` that are firing.
    pub(crate) async fn firing(&mut self, scope: &Scope) -> Result<u32> {
        let (sql, value) = match scope {
            Scope::Call(call_id) => {
                ("SELECT COUNT(*) FROM tasks WHERE call_id = ?1 AND state = 2", call_id)
            }
            Scope::Group(group) => (
                "SELECT COUNT(*) FROM tasks WHERE group_name = ?1 AND group_name <> '' AND state = 2",
                group,
            ),
        };
        sqlx::query(sql).bind(value).fetch_one(&mut *self.connection).await?.try_get(0)
    }

    /// Tasks of a call that have not ended.
    pub(crate) async fn live_of_call(&mut self, call_id: &str) -> Result<u32> {
        sqlx::query("SELECT COUNT(*) FROM tasks WHERE call_id = ?1 AND state IN (1, 2)")
            .bind(call_id)
            .fetch_one(&mut *self.connection)
            .await?
            .try_get(0)
    }

    /// Forgets tasks that ended before `before_unix_ms`, oldest first, at most
    /// [`ROWS_PER_STATEMENT`]; returns how many.
    pub(crate) async fn forget(&mut self, before_unix_ms: i64, most: u32) -> Result<u32> {
        let deleted = sqlx::query(
            "DELETE FROM tasks WHERE rowid IN (SELECT rowid FROM tasks
             WHERE ended_unix_ms > 0 AND ended_unix_ms < ?1 ORDER BY ended_unix_ms LIMIT ?2)",
        )
        .bind(before_unix_ms)
        .bind(most.min(ROWS_PER_STATEMENT))
        .execute(&mut *self.connection)
        .await?;
        Ok(deleted.rows_affected() as u32) // Not above ROWS_PER_STATEMENT.
    }
}

/// Takes the file for this process, for as long as it lives, however it dies.
fn lock(options: &SqliteConnectOptions) -> anyhow::Result<File> {
    let mut path = options.get_filename().as_os_str().to_owned();
    path.push("-lock");
    let file = File::options().create(true).append(true).open(&path);
    let file = file.with_context(|| format!("open {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => bail!("another scheduler uses it"),
        Err(std::fs::TryLockError::Error(e)) => Err(e).context(format!("lock {}", path.display())),
    }
}

async fn migrate(writer: &SqlitePool) -> anyhow::Result<()> {
    let mut transaction = writer.begin_with("BEGIN IMMEDIATE").await.context("begin")?;
    sqlx::raw_sql("CREATE TABLE IF NOT EXISTS scheduler_schema (applied INTEGER NOT NULL) STRICT")
        .execute(&mut *transaction)
        .await
        .context("read its schema")?;
    let applied: i64 = sqlx::query("SELECT COALESCE(MAX(applied), 0) FROM scheduler_schema")
        .fetch_one(&mut *transaction)
        .await
        .and_then(|row| row.try_get(0))
        .context("read its schema")?;
    let known = MIGRATIONS.len();
    let applied = usize::try_from(applied).ok().filter(|applied| *applied <= known);
    let Some(applied) = applied else {
        bail!("its schema is newer than the {known} known to this version; upgrade the scheduler");
    };
    for migration in &MIGRATIONS[applied..] {
        sqlx::raw_sql(*migration).execute(&mut *transaction).await.context("migrate it")?;
    }
    if applied < known {
        sqlx::query("INSERT INTO scheduler_schema (applied) VALUES (?1)")
            .bind(known as i64)
            .execute(&mut *transaction)
            .await
            .context("migrate it")?;
    }
    transaction.commit().await.context("migrate it")
}

fn task(row: SqliteRow) -> Result<Task> {
    let state: i64 = row.try_get("state")?;
    let state = State::try_from(state)
        .map_err(|got| Error::Decode(format!("state {got} is not one of ours").into()))?;
    Ok(Task {
        id: task_id(&row)?,
        call_id: row.try_get("call_id")?,
        state,
        fires_at_unix_ms: row.try_get("fires_at_unix_ms")?,
        revision: row.try_get("revision")?,
        cause: row.try_get("cause")?,
        group: row.try_get("group_name")?,
        label: row.try_get("label")?,
        created_unix_ms: row.try_get("created_unix_ms")?,
        ended_unix_ms: row.try_get("ended_unix_ms")?,
        late_ms: row.try_get("late_ms")?,
        result: row.try_get("result")?,
    })
}

fn task_id(row: &SqliteRow) -> Result<TaskId> {
    let id = Uuid::parse_str(row.try_get("task_id")?);
    id.map(|id| TaskId(id.as_u128())).map_err(|e| Error::Decode(e.into()))
}

#[cfg(test)]
mod tests;
