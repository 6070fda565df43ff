//! What one transaction in SQLite does.

use super::{Asked, by_ids, chunks, live_of_calls, log_rows, pad, reach, values};
use crate::store::row::{self, COLUMNS};
use crate::store::{
    CommitError, Held, LogRow, Old, ROWS_PER_STATEMENT, Reach, Result, Scope, Task, Update,
};
use sqlx::pool::PoolConnection;
use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, Row as _};
use std::collections::BTreeMap;
use uuid::Uuid;
use wheel::{State, TaskId};

/// Not sqlx's own: on a full disk SQLite rolls back by itself, and sqlx goes on believing that a
/// transaction is open, so that the connection can begin none any more.
pub(crate) struct Transaction {
    connection: PoolConnection<sqlx::Sqlite>,
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
    pub(super) async fn begin(mut connection: PoolConnection<sqlx::Sqlite>) -> Result<Self> {
        sqlx::query("BEGIN IMMEDIATE").execute(&mut *connection).await?;
        Ok(Self { connection, committed: false })
    }

    pub(in crate::store) async fn commit(mut self) -> Result<(), CommitError> {
        let committed = sqlx::query("COMMIT").execute(&mut *self.connection).await;
        committed.map_err(CommitError::Failed)?; // Closing the connection rolls back.
        self.committed = true;
        Ok(())
    }

    pub(in crate::store) async fn reach(&mut self, shards: &[u8]) -> Result<Vec<Reach>> {
        reach(&mut self.connection, shards).await
    }

    pub(in crate::store) async fn live_of_tenants(
        &mut self,
        shards: &[u8],
    ) -> Result<Vec<(u8, String, i64)>> {
        let rows = sqlx::query(
            "SELECT shard, tenant, COUNT(*) FROM tasks WHERE ended_unix_ms = 0 GROUP BY 1, 2",
        );
        let rows =
            rows.try_map(|row: SqliteRow| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?)));
        let rows: Vec<(u8, String, i64)> = rows.fetch_all(&mut *self.connection).await?;
        Ok(rows.into_iter().filter(|row| shards.contains(&row.0)).collect())
    }

    pub(in crate::store) async fn by_ids(&mut self, ids: &[TaskId]) -> Result<Vec<Task>> {
        by_ids(&mut self.connection, ids).await
    }

    pub(in crate::store) async fn by_keys(
        &mut self,
        keys: &[(&str, &str)],
    ) -> Result<Vec<(String, Task)>> {
        let mut found = Vec::new();
        for (chunk, size) in chunks(keys) {
            let sql = format!(
                "SELECT {COLUMNS}, idempotency_key FROM ({}) AS asked CROSS JOIN tasks
                 ON tasks.tenant = asked.column1 AND idempotency_key = asked.column2",
                values(2, size)
            );
            let mut query = sqlx::query(AssertSqlSafe(sql));
            for at in 0..size {
                let key = chunk.get(at).copied().unzip();
                query = query.bind(key.0).bind(key.1);
            }
            let rows = query.fetch_all(&mut *self.connection).await?;
            for it in rows {
                found.push((it.try_get(22)?, row::task(&it)?));
            }
        }
        Ok(found)
    }

    pub(in crate::store) async fn live_of_calls(
        &mut self,
        calls: &[&str],
    ) -> Result<Vec<(String, i64)>> {
        live_of_calls(&mut self.connection, calls).await
    }

    pub(in crate::store) async fn tasks_of(
        &mut self,
        scope: &Scope,
        from: TaskId,
        _all_are_ours: &[Held],
    ) -> Result<Vec<Task>> {
        let (column, value) = match scope {
            Scope::Call(call_id) => ("call_id", call_id),
            Scope::Group(group) => ("group_name", group),
            Scope::Tenant(tenant) => ("tenant", tenant),
        };
        let sql = format!(
            "SELECT {COLUMNS} FROM tasks WHERE {column} = ?1 AND {column} <> ''
             AND ended_unix_ms = 0 AND task_id >= ?2 ORDER BY task_id LIMIT {ROWS_PER_STATEMENT}"
        );
        sqlx::query(AssertSqlSafe(sql))
            .bind(value)
            .bind(Uuid::from_u128(from.0))
            .try_map(|it: SqliteRow| row::task(&it))
            .fetch_all(&mut *self.connection)
            .await
    }

    pub(in crate::store) async fn insert(
        &mut self,
        tasks: &[(&Task, &str)],
    ) -> Result<Vec<TaskId>> {
        for (chunk, size) in chunks(tasks) {
            let sql = format!(
                "INSERT INTO tasks (shard, idempotency_key, {COLUMNS})
                 SELECT * FROM ({}) WHERE column1 IS NOT NULL",
                values(24, size)
            );
            let query = pad(sqlx::query(AssertSqlSafe(sql)), chunk, size, bind_task);
            query.execute(&mut *self.connection).await?;
        }
        Ok(Vec::new()) // Nobody else writes.
    }

    pub(in crate::store) async fn update(&mut self, updates: &[Update<'_>]) -> Result<u64> {
        let (claims, others): (Vec<&Update<'_>>, Vec<&Update<'_>>) =
            updates.iter().partition(|it| it.claim);
        let mut written = 0;
        // Most are claimed in the revision in which they were added.
        let mut by_revision: BTreeMap<i64, Vec<TaskId>> = BTreeMap::new();
        for Update { task, was, .. } in claims {
            by_revision.entry(*was).or_default().push(task.id);
        }
        for (was, ids) in by_revision {
            for (chunk, size) in chunks(&ids) {
                let sql = format!(
                    "UPDATE tasks SET state = {}, revision = revision + 1
                     WHERE revision = ? AND task_id IN ({})",
                    State::Firing as i64,
                    vec!["?"; size].join(",")
                );
                let query = sqlx::query(AssertSqlSafe(sql)).bind(was);
                let query = pad(query, chunk, size, |query, id| {
                    query.bind(id.map(|id| Uuid::from_u128(id.0)))
                });
                written += query.execute(&mut *self.connection).await?.rows_affected();
            }
        }
        for (chunk, size) in chunks(&others) {
            let sql = format!(
                "UPDATE tasks SET state = to_be.column3, revision = to_be.column4,
                     fires_at_unix_ms = to_be.column5, ended_unix_ms = to_be.column6,
                     late_ms = to_be.column7, result = to_be.column8, occurrence = to_be.column9,
                     missed = to_be.column10, remaining_ms = to_be.column11,
                     cancel_requested = to_be.column12, pinned_tick = to_be.column13
                 FROM ({}) AS to_be
                 WHERE task_id = to_be.column1 AND revision = to_be.column2",
                values(13, size)
            );
            let query = pad(sqlx::query(AssertSqlSafe(sql)), chunk, size, |query, update| {
                let task = update.map(|it| it.task);
                bind_state(query, update.copied())
                    .bind(task.map(|it| it.fires_at_unix_ms))
                    .bind(task.map(|it| it.ended_unix_ms))
                    .bind(task.map(|it| it.late_ms))
                    .bind(task.map(|it| it.result.as_str()))
                    .bind(task.map(|it| it.occurrence))
                    .bind(task.map(|it| it.missed))
                    .bind(task.map(|it| it.remaining_ms))
                    .bind(task.map(|it| it.cancel_requested))
                    .bind(task.map(|it| it.pinned.0))
            });
            written += query.execute(&mut *self.connection).await?.rows_affected();
        }
        Ok(written)
    }

    pub(in crate::store) async fn append(&mut self, rows: &[LogRow]) -> Result<()> {
        for (chunk, size) in chunks(rows) {
            let sql = format!(
                "INSERT INTO task_changes (shard, seq, first_seq, fence, at_unix_ms, changes)
                 SELECT * FROM ({}) WHERE column1 IS NOT NULL",
                values(6, size)
            );
            let query = pad(sqlx::query(AssertSqlSafe(sql)), chunk, size, |query, row| {
                query
                    .bind(row.map(|it| it.shard))
                    .bind(row.map(|it| it.seq))
                    .bind(row.map(|it| it.first_seq))
                    .bind(row.map(|it| it.fence))
                    .bind(row.map(|it| it.at_unix_ms))
                    .bind(row.map(|it| it.changes.as_str()))
            });
            query.execute(&mut *self.connection).await?;
        }
        Ok(())
    }

    pub(in crate::store) async fn forget(
        &mut self,
        shard: u8,
        old: Old,
        commits: u32,
    ) -> Result<u32> {
        let Reach { last, .. } = reach(&mut self.connection, &[shard]).await?[0];
        let rows = log_rows(&mut self.connection, shard, 0, commits).await?;
        let (mut forgotten, mut ended, mut up_to) = (0, Vec::new(), 0);
        for row in rows.iter().take_while(|row| old.includes(row)) {
            let ids = row.ids()?;
            forgotten += ids.len() as u32;
            ended.extend(ids.into_iter().filter(|(_, ended)| *ended).map(|(id, _)| id));
            up_to = row.seq;
        }
        if forgotten == 0 {
            return Ok(0);
        }
        for (chunk, size) in chunks(&ended) {
            let sql = format!("DELETE FROM tasks WHERE task_id IN ({})", values(1, size));
            let query = pad(sqlx::query(AssertSqlSafe(sql)), chunk, size, |query, id| {
                query.bind(id.map(|id| Uuid::from_u128(id.0)))
            });
            query.execute(&mut *self.connection).await?;
        }
        sqlx::query("DELETE FROM task_changes WHERE shard = ?1 AND seq <= ?2 AND seq < ?3")
            .bind(shard)
            .bind(up_to)
            .bind(last)
            .execute(&mut *self.connection)
            .await?;
        // The last one is kept without its changes: it is where the numbers go on.
        sqlx::query(
            "UPDATE task_changes SET changes = '[]', first_seq = seq + 1
             WHERE shard = ?1 AND seq <= ?2 AND seq = ?3",
        )
        .bind(shard)
        .bind(up_to)
        .bind(last)
        .execute(&mut *self.connection)
        .await?;
        Ok(forgotten)
    }
}

/// A row of shard, key and [`COLUMNS`].
fn bind_task<'q>(query: Asked<'q>, row: Option<&'q (&'q Task, &'q str)>) -> Asked<'q> {
    let (task, key) = row.copied().unzip();
    let repeat = task.map(|it| row::repeat_numbers(it.repeat));
    query
        .bind(task.map(|it| it.id.shard()))
        .bind(key.filter(|key| !key.is_empty()))
        .bind(task.map(|it| Uuid::from_u128(it.id.0)))
        .bind(task.map(|it| it.call_id.as_str()))
        .bind(task.map(|it| it.state as i64))
        .bind(task.map(|it| it.fires_at_unix_ms))
        .bind(task.map(|it| it.revision))
        .bind(task.map(|it| row::action(&it.effect)))
        .bind(task.map(|it| it.group.as_str()))
        .bind(task.map(|it| it.label.as_str()))
        .bind(task.map(|it| it.tenant.as_str()))
        .bind(task.map(|it| it.edge.as_str()))
        .bind(task.map(|it| it.created_unix_ms))
        .bind(task.map(|it| it.ended_unix_ms))
        .bind(task.map(|it| it.late_ms))
        .bind(task.map(|it| it.result.as_str()))
        .bind(repeat.map(|it| it.0))
        .bind(repeat.map(|it| it.1))
        .bind(repeat.map(|it| it.2))
        .bind(task.map(|it| it.occurrence))
        .bind(task.map(|it| it.missed))
        .bind(task.map(|it| it.remaining_ms))
        .bind(task.map(|it| it.cancel_requested))
        .bind(task.map(|it| it.pinned.0))
}

/// Id, revision before, state, revision after.
fn bind_state<'q>(query: Asked<'q>, update: Option<&Update<'q>>) -> Asked<'q> {
    query
        .bind(update.map(|it| Uuid::from_u128(it.task.id.0)))
        .bind(update.map(|it| it.was))
        .bind(update.map(|it| it.task.state as i64))
        .bind(update.map(|it| it.task.revision))
}
