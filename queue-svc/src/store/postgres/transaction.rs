//! What one transaction in PostgreSQL does: one statement for many rows, with an array for each
//! column.

use crate::store::agents::AgentRow;
use crate::store::callers::CallerRow;
use crate::store::{
    Batch, Change, FORGOTTEN_AT_A_TIME, Fence, StoreError, Told, Write, WriteAgent,
};
use queue::{Agent, Caller, QueueId, SettingsRow};
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnection, PgPool};
use sqlx::{AssertSqlSafe, Postgres, Result, Row as _};

/// A row that is there is not inserted again: that would use up ids, of which there are 2³¹.
const SAVE_CALLS: &str = "
WITH new AS (
    SELECT * FROM UNNEST($1::bigint[], $2::text[], $3::bigint[], $4::text[], $5::text[], $6::bigint[])
        AS it(mohq_id, call_id, call_status, call_from, call_contact, at_unix_ms)
), known AS (
    UPDATE mohqcalls SET mohq_id = new.mohq_id, call_status = new.call_status
    FROM new WHERE mohqcalls.call_id = new.call_id RETURNING mohqcalls.call_id
)
INSERT INTO mohqcalls (mohq_id, call_id, call_status, call_from, call_contact, call_time)
SELECT mohq_id, call_id, call_status, substr(call_from, 1, 100), substr(call_contact, 1, 100),
    to_timestamp(at_unix_ms / 1000) AT TIME ZONE 'UTC'
FROM new WHERE call_id NOT IN (SELECT call_id FROM known)";

const SAVE_CALLERS: &str = "
INSERT INTO queue_callers (call_id, arrival_sequence, arrived_unix_ms, call_from, call_contact,
    assignment_id, agent, reserved_unix_ms, ring_ms, priority, since_unix_ms, asked_mohq_id,
    agent_names)
SELECT * FROM UNNEST($1::text[], $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::text[],
    $7::text[], $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[], $13::text[])
ON CONFLICT (call_id) DO UPDATE SET arrival_sequence = excluded.arrival_sequence,
    assignment_id = excluded.assignment_id, agent = excluded.agent,
    reserved_unix_ms = excluded.reserved_unix_ms, ring_ms = excluded.ring_ms,
    priority = excluded.priority, since_unix_ms = excluded.since_unix_ms,
    asked_mohq_id = excluded.asked_mohq_id, agent_names = excluded.agent_names";

const SAVE_AGENTS: &str = "
INSERT INTO queue_agents (name, address, wrap_up_ms, reject_delay_ms, busy_delay_ms,
    no_answer_delay_ms, max_missed, presence, paused, work, call_id, mohq_id, work_unix_ms,
    idle_since_unix_ms, rest_until_unix_ms, missed)
SELECT * FROM UNNEST($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[],
    $7::bigint[], $8::text[], $9::text[], $10::text[], $11::text[], $12::bigint[], $13::bigint[],
    $14::bigint[], $15::bigint[], $16::bigint[])
ON CONFLICT (name) DO UPDATE SET address = excluded.address, wrap_up_ms = excluded.wrap_up_ms,
    reject_delay_ms = excluded.reject_delay_ms, busy_delay_ms = excluded.busy_delay_ms,
    no_answer_delay_ms = excluded.no_answer_delay_ms, max_missed = excluded.max_missed,
    presence = excluded.presence, paused = excluded.paused, work = excluded.work,
    call_id = excluded.call_id, mohq_id = excluded.mohq_id, work_unix_ms = excluded.work_unix_ms,
    idle_since_unix_ms = excluded.idle_since_unix_ms,
    rest_until_unix_ms = excluded.rest_until_unix_ms, missed = excluded.missed";

/// The next id of the sequence, or one above what people wrote by hand without it.
const INSERT_QUEUE: &str = "
INSERT INTO mohqueues (id, name, uri, mohdir, mohfile, debug)
SELECT setval(pg_get_serial_sequence('mohqueues', 'id'), GREATEST(
        nextval(pg_get_serial_sequence('mohqueues', 'id')),
        (SELECT COALESCE(MAX(id), 0) + 1 FROM mohqueues))),
    $1, $2, $3, $4, $5
RETURNING id::bigint";

const UPDATE_QUEUE: &str = "
UPDATE mohqueues SET name = $1, uri = $2, mohdir = $3, mohfile = $4, debug = $5 WHERE id = $6";

const SAVE_SETTINGS: &str = "
INSERT INTO queue_settings (mohq_id, max_calls, strategy, ring_ms, service_level_ms, max_wait_ms,
    join_empty, leave_empty, overflow, announce_every_ms, announce_first_ms, announce_position,
    announce_wait, periodic_every_ms, periodic)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
ON CONFLICT (mohq_id) DO UPDATE SET max_calls = $2, strategy = $3, ring_ms = $4,
    service_level_ms = $5, max_wait_ms = $6, join_empty = $7, leave_empty = $8, overflow = $9,
    announce_every_ms = $10, announce_first_ms = $11, announce_position = $12, announce_wait = $13,
    periodic_every_ms = $14, periodic = $15";

/// Callers whose row somebody deleted by hand.
const TIDY: &str = "DELETE FROM queue_callers WHERE call_id NOT IN (SELECT call_id FROM mohqcalls)";

/// Dropped without commit, it closes its connection and has done nothing.
pub(super) struct Transaction {
    connection: PoolConnection<Postgres>,
    committed: bool,
    fence: Fence,
    /// How many there were before, and one.
    number: i64,
    revision: i64,
}

impl Transaction {
    /// Begins, and locks the log against every other, and against whoever takes the queues over.
    pub(super) async fn begin(pool: &PgPool, fence: Fence) -> Result<Self, StoreError> {
        let connection = pool.acquire().await?;
        let mut tx = Self { connection, committed: false, fence, number: 0, revision: 0 };
        let sql = format!(
            "BEGIN; SELECT commits, revision FROM queue_log WHERE id = 1 AND fence = {} FOR UPDATE",
            fence.0
        );
        let log = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_optional(tx.to()).await?;
        let log = log.ok_or(StoreError::Lost)?;
        (tx.number, tx.revision) =
            (log.try_get::<i64, _>("commits")? + 1, log.try_get("revision")?);
        Ok(tx)
    }

    pub(super) fn fence(&self) -> Fence {
        self.fence
    }

    /// Counts the transactions.
    pub(super) fn number(&self) -> i64 {
        self.number
    }

    /// The last one of the log, with what this transaction has added.
    pub(super) fn revision(&self) -> i64 {
        self.revision
    }

    pub(super) async fn commit(mut self) -> Result<()> {
        let sql = format!(
            "UPDATE queue_log SET commits = {}, revision = {} WHERE id = 1; COMMIT",
            self.number, self.revision
        );
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(self.to()).await?;
        self.committed = true;
        Ok(())
    }

    pub(super) async fn tidy(&mut self) -> Result<(), StoreError> {
        sqlx::raw_sql(TIDY).execute(self.to()).await?;
        Ok(())
    }

    pub(super) async fn write(
        &mut self,
        batch: &Batch,
        told: Option<Told>,
    ) -> Result<(), StoreError> {
        let (mut saved, mut gone) = (Vec::new(), Vec::new());
        for (call_id, write) in &batch.callers {
            match write {
                Write::Save(caller) => saved.push(caller),
                Write::Delete => gone.push(call_id.as_str()),
            }
        }
        self.save_callers(&saved).await?;
        self.delete(["mohqcalls", "queue_callers"], "call_id", &gone).await?;
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
        self.save_agents(&saved).await?;
        self.save_memberships(&moved).await?;
        self.delete(["queue_agents"], "name", &gone).await?;
        self.delete(["queue_members"], "agent", &gone).await?;
        self.append(&batch.changes).await?;
        if let Some(told) = told {
            self.set_told(told).await?;
        }
        Ok(())
    }

    async fn save_callers(&mut self, callers: &[&Caller]) -> Result<()> {
        if callers.is_empty() {
            return Ok(());
        }
        let rows: Vec<CallerRow<'_>> = callers.iter().map(|it| CallerRow::from(*it)).collect();
        sqlx::query(SAVE_CALLS)
            .bind(column(&rows, |it| it.mohq_id))
            .bind(column(&rows, |it| it.call_id))
            .bind(column(&rows, |it| it.call_status))
            .bind(column(&rows, |it| it.call_from))
            .bind(column(&rows, |it| it.call_contact))
            .bind(column(&rows, |it| it.arrived_unix_ms))
            .execute(self.to())
            .await?;
        sqlx::query(SAVE_CALLERS)
            .bind(column(&rows, |it| it.call_id))
            .bind(column(&rows, |it| it.arrival_sequence))
            .bind(column(&rows, |it| it.arrived_unix_ms))
            .bind(column(&rows, |it| it.call_from))
            .bind(column(&rows, |it| it.call_contact))
            .bind(column(&rows, |it| it.assignment_id))
            .bind(column(&rows, |it| it.agent.as_deref()))
            .bind(column(&rows, |it| it.reserved_unix_ms))
            .bind(column(&rows, |it| it.ring_ms))
            .bind(column(&rows, |it| it.priority))
            .bind(column(&rows, |it| it.since_unix_ms))
            .bind(column(&rows, |it| it.asked_mohq_id))
            .bind(column(&rows, |it| it.agent_names.as_deref()))
            .execute(self.to())
            .await?;
        Ok(())
    }

    async fn save_agents(&mut self, agents: &[&Agent]) -> Result<()> {
        if agents.is_empty() {
            return Ok(());
        }
        let rows: Vec<AgentRow<'_>> = agents.iter().map(|it| AgentRow::from(*it)).collect();
        sqlx::query(SAVE_AGENTS)
            .bind(column(&rows, |it| it.name))
            .bind(column(&rows, |it| it.address))
            .bind(column(&rows, |it| it.wrap_up_ms))
            .bind(column(&rows, |it| it.reject_delay_ms))
            .bind(column(&rows, |it| it.busy_delay_ms))
            .bind(column(&rows, |it| it.no_answer_delay_ms))
            .bind(column(&rows, |it| it.max_missed))
            .bind(column(&rows, |it| it.presence))
            .bind(column(&rows, |it| it.paused))
            .bind(column(&rows, |it| it.work))
            .bind(column(&rows, |it| it.call_id))
            .bind(column(&rows, |it| it.mohq_id))
            .bind(column(&rows, |it| it.work_unix_ms))
            .bind(column(&rows, |it| it.idle_since_unix_ms))
            .bind(column(&rows, |it| it.rest_until_unix_ms))
            .bind(column(&rows, |it| it.missed))
            .execute(self.to())
            .await?;
        Ok(())
    }

    /// The queues that these agents serve, instead of those that were there.
    async fn save_memberships(&mut self, agents: &[&Agent]) -> Result<()> {
        let names: Vec<&str> = agents.iter().map(|it| it.name().as_str()).collect();
        self.delete(["queue_members"], "agent", &names).await?;
        let mut rows = Vec::new();
        for agent in agents {
            rows.extend(agent.settings.memberships.iter().map(|it| (agent.name().as_str(), it)));
        }
        if rows.is_empty() {
            return Ok(());
        }
        let insert = "INSERT INTO queue_members (agent, mohq_id, nth, level, place, weight)
            SELECT * FROM UNNEST($1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[],
                $6::bigint[])";
        sqlx::query(insert)
            .bind(column(&rows, |it| it.0))
            .bind(column(&rows, |it| it.1.queue.0))
            .bind((0..).take(rows.len()).collect::<Vec<i64>>())
            .bind(column(&rows, |it| i64::from(it.1.level)))
            .bind(column(&rows, |it| i64::from(it.1.order)))
            .bind(column(&rows, |it| i64::from(it.1.weight)))
            .execute(self.to())
            .await?;
        Ok(())
    }

    async fn delete<const N: usize>(
        &mut self,
        tables: [&str; N],
        column: &str,
        keys: &[&str],
    ) -> Result<()> {
        for table in tables.iter().filter(|_| !keys.is_empty()) {
            let delete = format!("DELETE FROM {table} WHERE {column} = ANY($1)");
            sqlx::query(AssertSqlSafe(delete)).bind(keys).execute(self.to()).await?;
        }
        Ok(())
    }

    async fn append(&mut self, changes: &[Change]) -> Result<()> {
        if changes.is_empty() {
            return Ok(());
        }
        let first = self.revision + 1;
        let insert = "INSERT INTO queue_changes (revision, at_unix_ms, event)
            SELECT * FROM UNNEST($1::bigint[], $2::bigint[], $3::bytea[])";
        sqlx::query(insert)
            .bind((first..).take(changes.len()).collect::<Vec<i64>>())
            .bind(column(changes, |it| it.at_unix_ms))
            .bind(column(changes, |it| &it.event[..]))
            .execute(self.to())
            .await?;
        self.revision += i64::try_from(changes.len()).expect("a batch is bounded");
        Ok(())
    }

    /// Forgets changes that are older and that NATS has, at most [`FORGOTTEN_AT_A_TIME`].
    async fn set_told(&mut self, Told { revision, old_unix_ms }: Told) -> Result<()> {
        let update = "UPDATE queue_log SET told = $1 WHERE id = 1 AND told < $1";
        sqlx::query(update).bind(revision).execute(self.to()).await?;
        // Of the oldest alone it is asked how old they are: there may be millions, in the order of time.
        let delete = "DELETE FROM queue_changes WHERE revision IN (
            SELECT revision FROM (
                SELECT revision, at_unix_ms FROM queue_changes
                WHERE revision <= (SELECT told FROM queue_log WHERE id = 1)
                ORDER BY revision LIMIT $2) AS oldest
            WHERE at_unix_ms < $1)";
        let delete = sqlx::query(delete).bind(old_unix_ms).bind(i64::from(FORGOTTEN_AT_A_TIME));
        delete.execute(self.to()).await?;
        Ok(())
    }

    pub(super) async fn insert_queue(&mut self, row: &SettingsRow) -> Result<QueueId, StoreError> {
        let insert = sqlx::query(INSERT_QUEUE).bind(&row.name).bind(&row.uri).bind(&row.mohdir);
        let insert = insert.bind(&row.mohfile).bind(i32::from(row.debug));
        let id = QueueId(insert.fetch_one(self.to()).await?.try_get(0)?);
        self.save_settings(id, row).await?;
        Ok(id)
    }

    /// False if there is no such row.
    pub(super) async fn update_queue(
        &mut self,
        id: QueueId,
        row: &SettingsRow,
    ) -> Result<bool, StoreError> {
        let update = sqlx::query(UPDATE_QUEUE).bind(&row.name).bind(&row.uri).bind(&row.mohdir);
        let update = update.bind(&row.mohfile).bind(i32::from(row.debug)).bind(id.0);
        if update.execute(self.to()).await?.rows_affected() == 0 {
            return Ok(false);
        }
        self.save_settings(id, row).await?;
        Ok(true)
    }

    pub(super) async fn delete_queue(&mut self, id: QueueId) -> Result<(), StoreError> {
        for delete in [
            "DELETE FROM mohqueues WHERE id = $1",
            "DELETE FROM queue_settings WHERE mohq_id = $1",
            "DELETE FROM queue_members WHERE mohq_id = $1",
        ] {
            sqlx::query(delete).bind(id.0).execute(self.to()).await?;
        }
        Ok(())
    }

    async fn save_settings(&mut self, id: QueueId, row: &SettingsRow) -> Result<()> {
        sqlx::query(SAVE_SETTINGS)
            .bind(id.0)
            .bind(i64::from(row.max_calls))
            .bind(row.strategy.words())
            .bind(i64::from(row.ring_ms))
            .bind(i64::from(row.service_level_ms))
            .bind(i64::from(row.max_wait_ms))
            .bind(row.join_empty.words())
            .bind(row.leave_empty.words())
            .bind(&row.overflow)
            .bind(i64::from(row.announce_every_ms))
            .bind(i64::from(row.announce_first_ms))
            .bind(i64::from(row.announce_position))
            .bind(i64::from(row.announce_wait))
            .bind(i64::from(row.periodic_every_ms))
            .bind(row.periodic.join(" "))
            .execute(self.to())
            .await?;
        Ok(())
    }

    fn to(&mut self) -> &mut PgConnection {
        &mut self.connection
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if !self.committed {
            self.connection.close_on_drop();
        }
    }
}

/// One value of each row.
fn column<'a, R, T>(rows: &'a [R], value: impl Fn(&'a R) -> T) -> Vec<T> {
    rows.iter().map(value).collect()
}
