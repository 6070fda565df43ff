//! The statements that read rows of MariaDB or MySQL.

use crate::store::{agents, callers, queues};
use queue::{Agent, Caller, QueueId, SettingsRow};
use sqlx::{MySqlPool, Result};
use std::collections::BTreeMap;

/// In order of arrival; rows that mohqueue itself left behind come last. Keys are compared byte by
/// byte, whatever collation the table of others has.
const LOAD_CALLERS: &str = "
SELECT CAST(c.mohq_id AS SIGNED) AS mohq_id, CAST(c.call_id AS CHAR) AS call_id,
    CAST(c.call_status AS SIGNED) AS call_status, q.arrival_sequence,
    CAST(COALESCE(q.arrived_unix_ms, UNIX_TIMESTAMP(c.call_time) * 1000, 0) AS SIGNED)
        AS arrived_unix_ms,
    CAST(COALESCE(q.call_from, c.call_from, '') AS CHAR) AS call_from,
    CAST(COALESCE(q.call_contact, c.call_contact, '') AS CHAR) AS call_contact,
    CAST(COALESCE(q.priority, 0) AS SIGNED) AS priority, q.since_unix_ms, q.asked_mohq_id,
    q.assignment_id, q.agent, q.reserved_unix_ms, q.ring_ms, q.agent_names
FROM mohqcalls c LEFT JOIN queue_callers q
    ON q.call_id = CONVERT(c.call_id USING utf8mb4) COLLATE utf8mb4_bin
ORDER BY q.arrival_sequence IS NULL, q.arrival_sequence, c.id";

const LOAD_MEMBERS: &str = "
SELECT agent, mohq_id, level, place, weight FROM queue_members ORDER BY agent, nth";

const LOAD_QUEUES: &str = "
SELECT CAST(q.id AS SIGNED) AS id, CAST(q.name AS CHAR) AS name, CAST(q.uri AS CHAR) AS uri,
    CAST(COALESCE(q.mohdir, '') AS CHAR) AS mohdir, CAST(q.mohfile AS CHAR) AS mohfile,
    CAST(q.debug AS SIGNED) AS debug,
    CAST(COALESCE(s.max_calls, 0) AS SIGNED) AS max_calls,
    CAST(COALESCE(s.strategy, '') AS CHAR) AS strategy,
    CAST(COALESCE(s.ring_ms, 0) AS SIGNED) AS ring_ms,
    CAST(COALESCE(s.service_level_ms, 0) AS SIGNED) AS service_level_ms,
    CAST(COALESCE(s.max_wait_ms, 0) AS SIGNED) AS max_wait_ms,
    CAST(COALESCE(s.join_empty, '') AS CHAR) AS join_empty,
    CAST(COALESCE(s.leave_empty, '') AS CHAR) AS leave_empty,
    CAST(COALESCE(s.overflow, '') AS CHAR) AS overflow,
    CAST(COALESCE(s.announce_every_ms, 0) AS SIGNED) AS announce_every_ms,
    CAST(COALESCE(s.announce_first_ms, 0) AS SIGNED) AS announce_first_ms,
    CAST(COALESCE(s.announce_position, 0) AS SIGNED) AS announce_position,
    CAST(COALESCE(s.announce_wait, 0) AS SIGNED) AS announce_wait,
    CAST(COALESCE(s.periodic_every_ms, 0) AS SIGNED) AS periodic_every_ms,
    CAST(COALESCE(s.periodic, '') AS CHAR) AS periodic
FROM mohqueues q LEFT JOIN queue_settings s ON s.mohq_id = q.id ORDER BY q.id";

pub(super) async fn load_callers(pool: &MySqlPool) -> Result<Vec<Caller>> {
    Ok(callers::read_all(&sqlx::query(LOAD_CALLERS).fetch_all(pool).await?))
}

pub(super) async fn load_agents(pool: &MySqlPool) -> Result<Vec<Agent>> {
    let members = sqlx::query(LOAD_MEMBERS).fetch_all(pool).await?;
    let agents = sqlx::query("SELECT * FROM queue_agents ORDER BY name").fetch_all(pool).await?;
    agents::read_all(&agents, &members)
}

pub(super) async fn load_queues(pool: &MySqlPool) -> Result<BTreeMap<QueueId, SettingsRow>> {
    Ok(queues::read_all(&sqlx::query(LOAD_QUEUES).fetch_all(pool).await?))
}
