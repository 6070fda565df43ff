//! What one transaction in MariaDB or MySQL does.

use crate::store::agents::AgentRow;
use crate::store::callers::CallerRow;
use crate::store::{
    Batch, Change, FORGOTTEN_AT_A_TIME, Fence, StoreError, Told, Write, WriteAgent,
};
use queue::{Agent, Caller, QueueId, SettingsRow};
use sqlx::mysql::{MySqlConnection, MySqlPool};
use sqlx::pool::PoolConnection;
use sqlx::{AssertSqlSafe, MySql, QueryBuilder, Result, Row as _};
use std::collections::HashSet;

/// Rows of one statement, of up to 16 values each: at most 65,535 values, and 16 MiB of them.
const ROWS_PER_STATEMENT: usize = 500;

const UPDATE_CALL: &str = "UPDATE mohqcalls SET mohq_id = ?, call_status = ? WHERE call_id = ?";

const INSERT_CALLS: &str =
    "INSERT INTO mohqcalls (mohq_id, call_id, call_status, call_from, call_contact, call_time) ";

const INSERT_CALLERS: &str = "
INSERT INTO queue_callers (call_id, arrival_sequence, arrived_unix_ms, call_from, call_contact,
    assignment_id, agent, reserved_unix_ms, ring_ms, priority, since_unix_ms, asked_mohq_id,
    agent_names) ";

const OR_UPDATE_CALLERS: &str = "
ON DUPLICATE KEY UPDATE arrival_sequence = VALUES(arrival_sequence),
    assignment_id = VALUES(assignment_id), agent = VALUES(agent),
    reserved_unix_ms = VALUES(reserved_unix_ms), ring_ms = VALUES(ring_ms),
    priority = VALUES(priority), since_unix_ms = VALUES(since_unix_ms),
    asked_mohq_id = VALUES(asked_mohq_id), agent_names = VALUES(agent_names)";

const INSERT_AGENTS: &str = "
INSERT INTO queue_agents (name, address, wrap_up_ms, reject_delay_ms, busy_delay_ms,
    no_answer_delay_ms, max_missed, presence, paused, work, call_id, mohq_id, work_unix_ms,
    idle_since_unix_ms, rest_until_unix_ms, missed) ";

const OR_UPDATE_AGENTS: &str = "
ON DUPLICATE KEY UPDATE address = VALUES(address), wrap_up_ms = VALUES(wrap_up_ms),
    reject_delay_ms = VALUES(reject_delay_ms), busy_delay_ms = VALUES(busy_delay_ms),
    no_answer_delay_ms = VALUES(no_answer_delay_ms), max_missed = VALUES(max_missed),
    presence = VALUES(presence), paused = VALUES(paused), work = VALUES(work),
    call_id = VALUES(call_id), mohq_id = VALUES(mohq_id), work_unix_ms = VALUES(work_unix_ms),
    idle_since_unix_ms = VALUES(idle_since_unix_ms),
    rest_until_unix_ms = VALUES(rest_until_unix_ms), missed = VALUES(missed)";

const INSERT_QUEUE: &str =
    "INSERT INTO mohqueues (name, uri, mohdir, mohfile, debug) VALUES (?, ?, ?, ?, ?)";

const UPDATE_QUEUE: &str =
    "UPDATE mohqueues SET name = ?, uri = ?, mohdir = ?, mohfile = ?, debug = ? WHERE id = ?";

const SAVE_SETTINGS: &str = "
REPLACE INTO queue_settings (mohq_id, max_calls, strategy, ring_ms, service_level_ms, max_wait_ms,
    join_empty, leave_empty, overflow, announce_every_ms, announce_first_ms, announce_position,
    announce_wait, periodic_every_ms, periodic)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";

/// Callers whose row somebody deleted by hand.
const TIDY: &str = "
DELETE FROM queue_callers WHERE call_id NOT IN (
    SELECT CONVERT(call_id USING utf8mb4) COLLATE utf8mb4_bin FROM mohqcalls)";

/// Dropped without commit, it closes its connection and has done nothing.
pub(super) struct Transaction {
    connection: PoolConnection<MySql>,
    committed: bool,
    fence: Fence,
    /// How many there were before, and one.
    number: i64,
    revision: i64,
}

impl Transaction {
    /// Begins, and locks the log against every other, and against whoever takes the queues over.
    pub(super) async fn begin(pool: &MySqlPool, fence: Fence) -> Result<Self, StoreError> {
        let connection = pool.acquire().await?;
        let mut tx = Self { connection, committed: false, fence, number: 0, revision: 0 };
        sqlx::raw_sql("BEGIN").execute(tx.to()).await?;
        let select =
            "SELECT commits, revision FROM queue_log WHERE id = 1 AND fence = ? FOR UPDATE";
        let log = sqlx::query(select).bind(fence.0).fetch_optional(tx.to()).await?;
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
        charset: &str,
    ) -> Result<(), StoreError> {
        let (mut saved, mut gone) = (Vec::new(), Vec::new());
        for (call_id, write) in &batch.callers {
            match write {
                Write::Save(caller) => saved.push(caller),
                Write::Delete => gone.push(call_id.as_str()),
            }
        }
        for callers in saved.chunks(ROWS_PER_STATEMENT) {
            self.save_callers(callers, charset).await?;
        }
        self.delete(&["mohqcalls", "queue_callers"], "call_id", &gone).await?;
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
        for agents in saved.chunks(ROWS_PER_STATEMENT) {
            self.save_agents(agents).await?;
        }
        self.save_memberships(&moved).await?;
        self.delete(&["queue_agents"], "name", &gone).await?;
        self.delete(&["queue_members"], "agent", &gone).await?;
        for changes in batch.changes.chunks(ROWS_PER_STATEMENT) {
            self.append(changes).await?;
        }
        if let Some(told) = told {
            self.set_told(told).await?;
        }
        Ok(())
    }

    /// A row that is there is not inserted again: that would use up ids, of which there are 2³².
    async fn save_callers(&mut self, callers: &[&Caller], charset: &str) -> Result<()> {
        let rows: Vec<CallerRow<'_>> = callers.iter().map(|it| CallerRow::from(*it)).collect();
        let mut select = QueryBuilder::new(
            "SELECT CAST(call_id AS CHAR) AS call_id FROM mohqcalls WHERE call_id IN (",
        );
        push_list(&mut select, rows.iter().map(|it| it.call_id));
        let known: Vec<String> = select.build_query_scalar().fetch_all(self.to()).await?;
        let known: HashSet<&str> = known.iter().map(String::as_str).collect();
        let (known, new): (Vec<_>, Vec<_>) =
            rows.iter().partition(|row| known.contains(row.call_id));
        for row in known {
            let update = sqlx::query(UPDATE_CALL).bind(row.mohq_id).bind(row.call_status);
            update.bind(row.call_id).execute(self.to()).await?;
        }
        if !new.is_empty() {
            let mut insert = QueryBuilder::new(INSERT_CALLS);
            insert.push_values(new, |mut values, row| {
                values.push_bind(row.mohq_id).push_bind(row.call_id).push_bind(row.call_status);
                for text in [row.call_from, row.call_contact] {
                    values.push("SUBSTR(CONVERT(").push_bind_unseparated(text);
                    values.push_unseparated(format!(" USING {charset}), 1, 100)"));
                }
                values.push("FROM_UNIXTIME(").push_bind_unseparated(row.arrived_unix_ms / 1000);
                values.push_unseparated(")");
            });
            insert.build().execute(self.to()).await?;
        }
        let mut insert = QueryBuilder::new(INSERT_CALLERS);
        insert.push_values(&rows, |mut values, row| {
            values.push_bind(row.call_id).push_bind(row.arrival_sequence);
            values.push_bind(row.arrived_unix_ms).push_bind(row.call_from);
            values.push_bind(row.call_contact).push_bind(row.assignment_id);
            values.push_bind(row.agent.as_deref()).push_bind(row.reserved_unix_ms);
            values.push_bind(row.ring_ms).push_bind(row.priority).push_bind(row.since_unix_ms);
            values.push_bind(row.asked_mohq_id).push_bind(row.agent_names.as_deref());
        });
        insert.push(OR_UPDATE_CALLERS).build().execute(self.to()).await?;
        Ok(())
    }

    async fn save_agents(&mut self, agents: &[&Agent]) -> Result<()> {
        let mut insert = QueryBuilder::new(INSERT_AGENTS);
        insert.push_values(agents.iter().map(|it| AgentRow::from(*it)), |mut values, row| {
            values.push_bind(row.name).push_bind(row.address).push_bind(row.wrap_up_ms);
            values.push_bind(row.reject_delay_ms).push_bind(row.busy_delay_ms);
            values.push_bind(row.no_answer_delay_ms).push_bind(row.max_missed);
            values.push_bind(row.presence).push_bind(row.paused).push_bind(row.work);
            values.push_bind(row.call_id).push_bind(row.mohq_id).push_bind(row.work_unix_ms);
            values.push_bind(row.idle_since_unix_ms).push_bind(row.rest_until_unix_ms);
            values.push_bind(row.missed);
        });
        insert.push(OR_UPDATE_AGENTS).build().execute(self.to()).await?;
        Ok(())
    }

    /// The queues that these agents serve, instead of those that were there.
    async fn save_memberships(&mut self, agents: &[&Agent]) -> Result<()> {
        let names: Vec<&str> = agents.iter().map(|it| it.name().as_str()).collect();
        self.delete(&["queue_members"], "agent", &names).await?;
        let mut rows = Vec::new();
        for agent in agents {
            let memberships = agent.settings.memberships.iter().zip(0i64..);
            rows.extend(memberships.map(|(it, nth)| (agent.name().as_str(), it, nth)));
        }
        for rows in rows.chunks(ROWS_PER_STATEMENT) {
            let insert = "INSERT INTO queue_members (agent, mohq_id, nth, level, place, weight) ";
            let mut insert = QueryBuilder::new(insert);
            insert.push_values(rows, |mut values, (agent, it, nth)| {
                values.push_bind(agent).push_bind(it.queue.0).push_bind(nth);
                values.push_bind(it.level).push_bind(it.order).push_bind(it.weight);
            });
            insert.build().execute(self.to()).await?;
        }
        Ok(())
    }

    async fn delete(&mut self, tables: &[&str], column: &str, keys: &[&str]) -> Result<()> {
        for table in tables {
            for keys in keys.chunks(ROWS_PER_STATEMENT) {
                let mut delete =
                    QueryBuilder::new(format!("DELETE FROM {table} WHERE {column} IN ("));
                push_list(&mut delete, keys.iter().copied());
                delete.build().execute(self.to()).await?;
            }
        }
        Ok(())
    }

    async fn append(&mut self, changes: &[Change]) -> Result<()> {
        let mut insert =
            QueryBuilder::new("INSERT INTO queue_changes (revision, at_unix_ms, event) ");
        let revisions = self.revision + 1..;
        insert.push_values(changes.iter().zip(revisions), |mut values, (change, revision)| {
            values.push_bind(revision).push_bind(change.at_unix_ms).push_bind(&change.event[..]);
        });
        insert.build().execute(self.to()).await?;
        self.revision += i64::try_from(changes.len()).expect("a batch is bounded");
        Ok(())
    }

    /// Forgets changes that are older and that NATS has, at most [`FORGOTTEN_AT_A_TIME`].
    async fn set_told(&mut self, Told { revision, old_unix_ms }: Told) -> Result<()> {
        let update = "UPDATE queue_log SET told = ? WHERE id = 1 AND told < ?";
        sqlx::query(update).bind(revision).bind(revision).execute(self.to()).await?;
        // Of the oldest alone it is asked how old they are: there may be millions, in the order of time.
        // Both ends of the range are numbers: MariaDB would read the whole table for a subquery.
        let select = "SELECT (SELECT MIN(revision) FROM queue_changes),
            (SELECT told FROM queue_log WHERE id = 1)";
        let reach = sqlx::query(select).fetch_one(self.to()).await?;
        let (first, told) = (reach.try_get::<Option<i64>, _>(0)?, reach.try_get::<i64, _>(1)?);
        let Some(first) = first else { return Ok(()) };
        let delete = sqlx::query(
            "DELETE FROM queue_changes WHERE revision BETWEEN ? AND ? AND at_unix_ms < ?",
        );
        let last = told.min(first + i64::from(FORGOTTEN_AT_A_TIME) - 1);
        let delete = delete.bind(first).bind(last).bind(old_unix_ms);
        delete.execute(self.to()).await?;
        Ok(())
    }

    pub(super) async fn insert_queue(&mut self, row: &SettingsRow) -> Result<QueueId, StoreError> {
        let insert = sqlx::query(INSERT_QUEUE).bind(&row.name).bind(&row.uri).bind(&row.mohdir);
        let insert = insert.bind(&row.mohfile).bind(row.debug);
        let id = insert.execute(self.to()).await?.last_insert_id();
        let id = QueueId(i64::try_from(id).expect("the column is an INT"));
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
        let update = update.bind(&row.mohfile).bind(row.debug).bind(id.0);
        if update.execute(self.to()).await?.rows_affected() == 0 {
            return Ok(false);
        }
        self.save_settings(id, row).await?;
        Ok(true)
    }

    pub(super) async fn delete_queue(&mut self, id: QueueId) -> Result<(), StoreError> {
        for delete in [
            "DELETE FROM mohqueues WHERE id = ?",
            "DELETE FROM queue_settings WHERE mohq_id = ?",
            "DELETE FROM queue_members WHERE mohq_id = ?",
        ] {
            sqlx::query(delete).bind(id.0).execute(self.to()).await?;
        }
        Ok(())
    }

    async fn save_settings(&mut self, id: QueueId, row: &SettingsRow) -> Result<()> {
        sqlx::query(SAVE_SETTINGS)
            .bind(id.0)
            .bind(row.max_calls)
            .bind(row.strategy.words())
            .bind(row.ring_ms)
            .bind(row.service_level_ms)
            .bind(row.max_wait_ms)
            .bind(row.join_empty.words())
            .bind(row.leave_empty.words())
            .bind(&row.overflow)
            .bind(row.announce_every_ms)
            .bind(row.announce_first_ms)
            .bind(row.announce_position)
            .bind(row.announce_wait)
            .bind(row.periodic_every_ms)
            .bind(row.periodic.join(" "))
            .execute(self.to())
            .await?;
        Ok(())
    }

    fn to(&mut self) -> &mut MySqlConnection {
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

/// These, and the end of the list.
fn push_list<'a>(query: &mut QueryBuilder<MySql>, keys: impl Iterator<Item = &'a str>) {
    let mut list = query.separated(", ");
    for key in keys {
        list.push_bind(key);
    }
    list.push_unseparated(")");
}
