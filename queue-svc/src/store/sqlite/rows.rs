//! The statements that read and write rows in SQLite.

use super::Transaction;
use super::chunks::chunks;
use crate::store::agents::{self, AgentRow};
use crate::store::callers;
use crate::store::queues;
use queue::{Agent, Caller, QueueId, SettingsRow};
use sqlx::{QueryBuilder, Result, Sqlite, SqlitePool};
use std::collections::BTreeMap;

/// In order of arrival; rows that mohqueue itself left behind come last.
const LOAD_CALLERS: &str = "
SELECT c.mohq_id, c.call_id, c.call_status, q.arrival_sequence,
    COALESCE(q.arrived_unix_ms, unixepoch(c.call_time) * 1000, 0) AS arrived_unix_ms,
    COALESCE(q.call_from, c.call_from, '') AS call_from,
    COALESCE(q.call_contact, c.call_contact, '') AS call_contact,
    COALESCE(q.priority, 0) AS priority, q.since_unix_ms, q.asked_mohq_id,
    q.assignment_id, q.agent, q.reserved_unix_ms, q.ring_ms, q.agent_names
FROM mohqcalls c LEFT JOIN queue_callers q ON q.call_id = c.call_id
ORDER BY q.arrival_sequence IS NULL, q.arrival_sequence, c.id";

const SAVE_AGENTS: &str = "
INSERT INTO queue_agents (name, address, wrap_up_ms, reject_delay_ms, busy_delay_ms,
    no_answer_delay_ms, max_missed, presence, paused, work, call_id, mohq_id, work_unix_ms,
    idle_since_unix_ms, rest_until_unix_ms, missed) ";

const OR_UPDATE_AGENTS: &str = "
ON CONFLICT (name) DO UPDATE SET address = excluded.address, wrap_up_ms = excluded.wrap_up_ms,
    reject_delay_ms = excluded.reject_delay_ms, busy_delay_ms = excluded.busy_delay_ms,
    no_answer_delay_ms = excluded.no_answer_delay_ms, max_missed = excluded.max_missed,
    presence = excluded.presence, paused = excluded.paused, work = excluded.work,
    call_id = excluded.call_id, mohq_id = excluded.mohq_id, work_unix_ms = excluded.work_unix_ms,
    idle_since_unix_ms = excluded.idle_since_unix_ms,
    rest_until_unix_ms = excluded.rest_until_unix_ms, missed = excluded.missed";

const SAVE_MEMBERS: &str = "INSERT INTO queue_members (agent, mohq_id, level, rank, weight) ";

const LOAD_MEMBERS: &str =
    "SELECT agent, mohq_id, level, rank AS place, weight FROM queue_members ORDER BY rowid";

/// Casts, because SQLite keeps any type in any column and people write these rows by hand.
const LOAD_QUEUES: &str = "
SELECT q.id, CAST(q.name AS TEXT) AS name, CAST(q.uri AS TEXT) AS uri,
    CAST(COALESCE(q.mohdir, '') AS TEXT) AS mohdir, CAST(q.mohfile AS TEXT) AS mohfile,
    CAST(COALESCE(q.debug, 0) AS INTEGER) AS debug,
    CAST(COALESCE(s.max_calls, 0) AS INTEGER) AS max_calls,
    CAST(COALESCE(s.strategy, '') AS TEXT) AS strategy,
    CAST(COALESCE(s.ring_ms, 0) AS INTEGER) AS ring_ms,
    CAST(COALESCE(s.service_level_ms, 0) AS INTEGER) AS service_level_ms,
    CAST(COALESCE(s.max_wait_ms, 0) AS INTEGER) AS max_wait_ms,
    CAST(COALESCE(s.join_empty, '') AS TEXT) AS join_empty,
    CAST(COALESCE(s.leave_empty, '') AS TEXT) AS leave_empty,
    CAST(COALESCE(s.overflow, '') AS TEXT) AS overflow,
    CAST(COALESCE(s.announce_every_ms, 0) AS INTEGER) AS announce_every_ms,
    CAST(COALESCE(s.announce_first_ms, 0) AS INTEGER) AS announce_first_ms,
    CAST(COALESCE(s.announce_position, 0) AS INTEGER) AS announce_position,
    CAST(COALESCE(s.announce_wait, 0) AS INTEGER) AS announce_wait,
    CAST(COALESCE(s.periodic_every_ms, 0) AS INTEGER) AS periodic_every_ms,
    CAST(COALESCE(s.periodic, '') AS TEXT) AS periodic
FROM mohqueues q LEFT JOIN queue_settings s ON s.mohq_id = q.id ORDER BY q.id";

const INSERT_QUEUE: &str =
    "INSERT INTO mohqueues (name, uri, mohdir, mohfile, debug) VALUES (?, ?, ?, ?, ?)";

const UPDATE_QUEUE: &str =
    "UPDATE mohqueues SET name = ?, uri = ?, mohdir = ?, mohfile = ?, debug = ? WHERE id = ?";

const SAVE_SETTINGS: &str = "
INSERT OR REPLACE INTO queue_settings (mohq_id, max_calls, strategy, ring_ms, service_level_ms,
    max_wait_ms, join_empty, leave_empty, overflow, announce_every_ms, announce_first_ms,
    announce_position, announce_wait, periodic_every_ms, periodic)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";

pub(super) async fn load_callers(pool: &SqlitePool) -> Result<Vec<Caller>> {
    Ok(callers::read_all(&sqlx::query(LOAD_CALLERS).fetch_all(pool).await?))
}

pub(super) async fn load_agents(pool: &SqlitePool) -> Result<Vec<Agent>> {
    let members = sqlx::query(LOAD_MEMBERS).fetch_all(pool).await?;
    let agents = sqlx::query("SELECT * FROM queue_agents ORDER BY name").fetch_all(pool).await?;
    agents::read_all(&agents, &members)
}

pub(super) async fn load_queues(pool: &SqlitePool) -> Result<BTreeMap<QueueId, SettingsRow>> {
    Ok(queues::read_all(&sqlx::query(LOAD_QUEUES).fetch_all(pool).await?))
}

pub(super) async fn save_agents(tx: &mut Transaction, agents: &[&Agent]) -> Result<()> {
    for agents in chunks(agents) {
        let mut insert = QueryBuilder::<Sqlite>::new(SAVE_AGENTS);
        insert.push_values(agents.iter().map(|it| AgentRow::from(*it)), |mut values, row| {
            values.push_bind(row.name).push_bind(row.address).push_bind(row.wrap_up_ms);
            values.push_bind(row.reject_delay_ms).push_bind(row.busy_delay_ms);
            values.push_bind(row.no_answer_delay_ms).push_bind(row.max_missed);
            values.push_bind(row.presence).push_bind(row.paused).push_bind(row.work);
            values.push_bind(row.call_id).push_bind(row.mohq_id).push_bind(row.work_unix_ms);
            values.push_bind(row.idle_since_unix_ms).push_bind(row.rest_until_unix_ms);
            values.push_bind(row.missed);
        });
        insert.push(OR_UPDATE_AGENTS).build().execute(&mut **tx).await?;
    }
    Ok(())
}

/// The queues that these agents serve, instead of those that were there.
pub(super) async fn save_memberships(tx: &mut Transaction, agents: &[&Agent]) -> Result<()> {
    let names: Vec<&str> = agents.iter().map(|it| it.name().as_str()).collect();
    delete(tx, &["queue_members"], "agent", &names).await?;
    let mut rows = Vec::new();
    for agent in agents {
        let memberships = agent.settings.memberships.iter();
        rows.extend(memberships.map(|it| (agent.name().as_str(), it)));
    }
    for rows in chunks(&rows) {
        let mut insert = QueryBuilder::<Sqlite>::new(SAVE_MEMBERS);
        insert.push_values(rows, |mut values, (agent, it)| {
            values.push_bind(*agent).push_bind(it.queue.0);
            values.push_bind(it.level).push_bind(it.order).push_bind(it.weight);
        });
        insert.build().execute(&mut **tx).await?;
    }
    Ok(())
}

/// From each of `tables` what has one of `keys` in `column`.
pub(super) async fn delete(
    tx: &mut Transaction,
    tables: &[&str],
    column: &str,
    keys: &[&str],
) -> Result<()> {
    for table in tables {
        for keys in chunks(keys) {
            let sql = format!("DELETE FROM {table} WHERE {column} IN (");
            let mut delete = QueryBuilder::<Sqlite>::new(sql);
            let mut list = delete.separated(", ");
            for key in keys {
                list.push_bind(*key);
            }
            list.push_unseparated(")");
            delete.build().execute(&mut **tx).await?;
        }
    }
    Ok(())
}

pub(super) async fn insert_queue(tx: &mut Transaction, row: &SettingsRow) -> Result<QueueId> {
    let insert = sqlx::query(INSERT_QUEUE).bind(&row.name).bind(&row.uri).bind(&row.mohdir);
    let inserted = insert.bind(&row.mohfile).bind(row.debug).execute(&mut **tx).await?;
    let id = QueueId(inserted.last_insert_rowid());
    save_settings(tx, id, row).await?;
    Ok(id)
}

/// False if there is no such row.
pub(super) async fn update_queue(
    tx: &mut Transaction,
    id: QueueId,
    row: &SettingsRow,
) -> Result<bool> {
    let update = sqlx::query(UPDATE_QUEUE).bind(&row.name).bind(&row.uri).bind(&row.mohdir);
    let update = update.bind(&row.mohfile).bind(row.debug).bind(id.0);
    if update.execute(&mut **tx).await?.rows_affected() == 0 {
        return Ok(false);
    }
    save_settings(tx, id, row).await?;
    Ok(true)
}

pub(super) async fn delete_queue(tx: &mut Transaction, id: QueueId) -> Result<()> {
    for delete in [
        "DELETE FROM mohqueues WHERE id = ?",
        "DELETE FROM queue_settings WHERE mohq_id = ?",
        "DELETE FROM queue_members WHERE mohq_id = ?",
    ] {
        sqlx::query(delete).bind(id.0).execute(&mut **tx).await?;
    }
    Ok(())
}

async fn save_settings(tx: &mut Transaction, id: QueueId, row: &SettingsRow) -> Result<()> {
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
        .execute(&mut **tx)
        .await?;
    Ok(())
}
