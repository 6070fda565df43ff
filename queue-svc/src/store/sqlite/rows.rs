//! The statements that read and write rows in SQLite.

use super::Transaction;
use crate::store::agents::{self, AgentRow};
use crate::store::callers::{self, CallerRow};
use crate::store::queues;
use queue::{Agent, AgentName, CallId, Caller, Membership, QueueId, SettingsRow};
use sqlx::{Result, SqlitePool};
use std::collections::BTreeMap;

const SAVE_CALL: &str = "
INSERT INTO mohqcalls (mohq_id, call_id, call_status, call_from, call_contact, call_time)
VALUES (?1, ?2, ?3, substr(?4, 1, 100), substr(?5, 1, 100), datetime(?6 / 1000, 'unixepoch'))
ON CONFLICT (call_id) DO UPDATE SET mohq_id = ?1, call_status = ?3";

const SAVE_CALLER: &str = "
INSERT INTO queue_callers (call_id, arrival_sequence, arrived_unix_ms, call_from, call_contact,
    assignment_id, agent, reserved_unix_ms, ring_ms, priority, since_unix_ms, asked_mohq_id,
    agent_names)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)
ON CONFLICT (call_id) DO UPDATE SET arrival_sequence = ?2,
    assignment_id = ?6, agent = ?7, reserved_unix_ms = ?8, ring_ms = ?9, priority = ?10,
    since_unix_ms = ?11, asked_mohq_id = ?12, agent_names = ?13";

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

const SAVE_AGENT: &str = "
INSERT INTO queue_agents (name, address, wrap_up_ms, reject_delay_ms, busy_delay_ms,
    no_answer_delay_ms, max_missed, presence, paused, work, call_id, mohq_id, work_unix_ms,
    idle_since_unix_ms, rest_until_unix_ms, missed)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)
ON CONFLICT (name) DO UPDATE SET address = ?2, wrap_up_ms = ?3, reject_delay_ms = ?4,
    busy_delay_ms = ?5, no_answer_delay_ms = ?6, max_missed = ?7, presence = ?8, paused = ?9,
    work = ?10, call_id = ?11, mohq_id = ?12, work_unix_ms = ?13, idle_since_unix_ms = ?14,
    rest_until_unix_ms = ?15, missed = ?16";

const SAVE_MEMBER: &str =
    "INSERT INTO queue_members (agent, mohq_id, level, rank, weight) VALUES (?, ?, ?, ?, ?)";

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

pub(super) async fn save_caller(tx: &mut Transaction, caller: &Caller) -> Result<()> {
    let row = CallerRow::from(caller);
    sqlx::query(SAVE_CALL)
        .bind(row.mohq_id)
        .bind(row.call_id)
        .bind(row.call_status)
        .bind(row.call_from)
        .bind(row.call_contact)
        .bind(row.arrived_unix_ms)
        .execute(&mut **tx)
        .await?;
    sqlx::query(SAVE_CALLER)
        .bind(row.call_id)
        .bind(row.arrival_sequence)
        .bind(row.arrived_unix_ms)
        .bind(row.call_from)
        .bind(row.call_contact)
        .bind(row.assignment_id)
        .bind(row.agent)
        .bind(row.reserved_unix_ms)
        .bind(row.ring_ms)
        .bind(row.priority)
        .bind(row.since_unix_ms)
        .bind(row.asked_mohq_id)
        .bind(row.agent_names)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

pub(super) async fn delete_caller(tx: &mut Transaction, call_id: &CallId) -> Result<()> {
    for delete in
        ["DELETE FROM mohqcalls WHERE call_id = ?", "DELETE FROM queue_callers WHERE call_id = ?"]
    {
        sqlx::query(delete).bind(call_id.as_str()).execute(&mut **tx).await?;
    }
    Ok(())
}

pub(super) async fn save_agent(tx: &mut Transaction, agent: &Agent) -> Result<()> {
    let row = AgentRow::from(agent);
    sqlx::query(SAVE_AGENT)
        .bind(row.name)
        .bind(row.address)
        .bind(row.wrap_up_ms)
        .bind(row.reject_delay_ms)
        .bind(row.busy_delay_ms)
        .bind(row.no_answer_delay_ms)
        .bind(row.max_missed)
        .bind(row.presence)
        .bind(row.paused)
        .bind(row.work)
        .bind(row.call_id)
        .bind(row.mohq_id)
        .bind(row.work_unix_ms)
        .bind(row.idle_since_unix_ms)
        .bind(row.rest_until_unix_ms)
        .bind(row.missed)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// The queues that an agent serves, instead of those that were there.
pub(super) async fn save_memberships(
    tx: &mut Transaction,
    name: &AgentName,
    memberships: &[Membership],
) -> Result<()> {
    let delete = sqlx::query("DELETE FROM queue_members WHERE agent = ?").bind(name.as_str());
    delete.execute(&mut **tx).await?;
    for it in memberships {
        let insert = sqlx::query(SAVE_MEMBER).bind(name.as_str()).bind(it.queue.0);
        insert.bind(it.level).bind(it.order).bind(it.weight).execute(&mut **tx).await?;
    }
    Ok(())
}

pub(super) async fn delete_agent(tx: &mut Transaction, name: &AgentName) -> Result<()> {
    for delete in
        ["DELETE FROM queue_agents WHERE name = ?", "DELETE FROM queue_members WHERE agent = ?"]
    {
        sqlx::query(delete).bind(name.as_str()).execute(&mut **tx).await?;
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
