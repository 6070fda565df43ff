//! The statements that read rows of PostgreSQL.

use crate::store::{agents, callers, queues};
use queue::{Agent, Caller, QueueId, SettingsRow};
use sqlx::{PgPool, Result};
use std::collections::BTreeMap;

/// In order of arrival; rows that mohqueue itself left behind come last.
const LOAD_CALLERS: &str = "
SELECT c.mohq_id::bigint AS mohq_id, c.call_id::text AS call_id,
    c.call_status::bigint AS call_status, q.arrival_sequence,
    COALESCE(q.arrived_unix_ms, floor(extract(epoch FROM c.call_time) * 1000)::bigint, 0)
        AS arrived_unix_ms,
    COALESCE(q.call_from, c.call_from::text, '') AS call_from,
    COALESCE(q.call_contact, c.call_contact::text, '') AS call_contact,
    COALESCE(q.priority, 0) AS priority, q.since_unix_ms, q.asked_mohq_id,
    q.assignment_id, q.agent, q.reserved_unix_ms, q.ring_ms, q.agent_names
FROM mohqcalls c LEFT JOIN queue_callers q ON q.call_id = c.call_id
ORDER BY q.arrival_sequence IS NULL, q.arrival_sequence, c.id";

const LOAD_MEMBERS: &str = "
SELECT agent, mohq_id, level, place, weight FROM queue_members ORDER BY agent, nth";

const LOAD_QUEUES: &str = "
SELECT q.id::bigint AS id, q.name::text AS name, q.uri::text AS uri,
    COALESCE(q.mohdir::text, '') AS mohdir, q.mohfile::text AS mohfile,
    q.debug::bigint AS debug,
    COALESCE(s.max_calls, 0) AS max_calls, COALESCE(s.strategy, '') AS strategy,
    COALESCE(s.ring_ms, 0) AS ring_ms, COALESCE(s.service_level_ms, 0) AS service_level_ms,
    COALESCE(s.max_wait_ms, 0) AS max_wait_ms, COALESCE(s.join_empty, '') AS join_empty,
    COALESCE(s.leave_empty, '') AS leave_empty, COALESCE(s.overflow, '') AS overflow,
    COALESCE(s.announce_every_ms, 0) AS announce_every_ms,
    COALESCE(s.announce_first_ms, 0) AS announce_first_ms,
    COALESCE(s.announce_position, 0) AS announce_position,
    COALESCE(s.announce_wait, 0) AS announce_wait,
    COALESCE(s.periodic_every_ms, 0) AS periodic_every_ms,
    COALESCE(s.periodic, '') AS periodic
FROM mohqueues q LEFT JOIN queue_settings s ON s.mohq_id = q.id ORDER BY q.id";

pub(super) async fn load_callers(pool: &PgPool) -> Result<Vec<Caller>> {
    Ok(callers::read_all(&sqlx::query(LOAD_CALLERS).fetch_all(pool).await?))
}

pub(super) async fn load_agents(pool: &PgPool) -> Result<Vec<Agent>> {
    let members = sqlx::query(LOAD_MEMBERS).fetch_all(pool).await?;
    let agents = sqlx::query("SELECT * FROM queue_agents ORDER BY name").fetch_all(pool).await?;
    agents::read_all(&agents, &members)
}

pub(super) async fn load_queues(pool: &PgPool) -> Result<BTreeMap<QueueId, SettingsRow>> {
    Ok(queues::read_all(&sqlx::query(LOAD_QUEUES).fetch_all(pool).await?))
}
