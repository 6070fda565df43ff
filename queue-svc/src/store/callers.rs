//! The rows of those who wait: `mohqcalls` as mohqueue has it, and the rest in `queue_callers`.

use super::transaction::Transaction;
use anyhow::bail;
use queue::{
    Address, AgentName, Assignment, AssignmentId, CallId, Caller, CallerState, Place, QueueId,
    Target,
};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqlitePool};
use std::cmp::Reverse;
use tracing::warn;

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

pub(super) async fn load(pool: &SqlitePool) -> Result<Vec<Caller>, sqlx::Error> {
    let rows = sqlx::query(LOAD_CALLERS).fetch_all(pool).await?;
    let mut sequence = 0;
    let mut callers = Vec::with_capacity(rows.len());
    for row in &rows {
        match read(row, sequence + 1) {
            Ok(caller) => {
                sequence = caller.place.sequence;
                callers.push(caller);
            }
            Err(e) => warn!("failed to read a row of mohqcalls: {e:#}"),
        }
    }
    Ok(callers)
}

pub(super) async fn save(tx: &mut Transaction, caller: &Caller) -> Result<(), sqlx::Error> {
    let call_status = match caller.state {
        CallerState::Entering => 1,
        CallerState::InQueue => 2,
        CallerState::Leaving(_) => 3,
    };
    sqlx::query(SAVE_CALL)
        .bind(caller.queue.0)
        .bind(caller.call_id.as_str())
        .bind(call_status)
        .bind(&caller.from)
        .bind(&caller.contact)
        .bind(caller.arrived_at)
        .execute(&mut **tx)
        .await?;
    let assignment = caller.assignment();
    sqlx::query(SAVE_CALLER)
        .bind(caller.call_id.as_str())
        .bind(i64::try_from(caller.place.sequence).expect("not so many calls are made"))
        .bind(caller.arrived_at)
        .bind(&caller.from)
        .bind(&caller.contact)
        .bind(assignment.map(|it| it.id.as_str()))
        .bind(assignment.map(Assignment::addresses))
        .bind(assignment.map(|it| it.reserved_at))
        .bind(assignment.map(|it| it.ring_ms))
        .bind(caller.place.priority.0)
        .bind(caller.since)
        .bind(caller.asked.0)
        .bind(assignment.map(agent_names))
        .execute(&mut **tx)
        .await?;
    Ok(())
}

pub(super) async fn delete(tx: &mut Transaction, call_id: &CallId) -> Result<(), sqlx::Error> {
    for delete in
        ["DELETE FROM mohqcalls WHERE call_id = ?", "DELETE FROM queue_callers WHERE call_id = ?"]
    {
        sqlx::query(delete).bind(call_id.as_str()).execute(&mut **tx).await?;
    }
    Ok(())
}

/// In the order of the addresses; `-` for nobody whom we know.
fn agent_names(assignment: &Assignment) -> String {
    let name = |target: &Target| target.agent.as_ref().map_or("-".to_owned(), ToString::to_string);
    assignment.targets.iter().map(name).collect::<Vec<_>>().join(" ")
}

/// `next_sequence` is the lowest that is free; for a row that mohqueue left behind, which has none.
fn read(row: &SqliteRow, next_sequence: u64) -> anyhow::Result<Caller> {
    let sequence: Option<i64> = row.try_get("arrival_sequence")?;
    let priority: i64 = row.try_get("priority")?;
    let call_status: i64 = row.try_get("call_status")?;
    let state = match call_status {
        1 => CallerState::Entering,
        2 => CallerState::InQueue,
        3 => match read_assignment(row) {
            Ok(assignment) => assignment.map_or(CallerState::InQueue, CallerState::Leaving),
            Err(e) => {
                warn!("failed to read an assignment; the caller goes on waiting: {e:#}");
                CallerState::InQueue
            }
        },
        other => bail!("call_status is {other}; wanted 1, 2 or 3"),
    };
    let queue = QueueId(row.try_get("mohq_id")?);
    let arrived_at = row.try_get("arrived_unix_ms")?;
    Ok(Caller {
        call_id: CallId::parse(row.try_get("call_id")?)?,
        queue,
        asked: row.try_get::<Option<i64>, _>("asked_mohq_id")?.map_or(queue, QueueId),
        place: Place {
            priority: Reverse(u8::try_from(priority).unwrap_or(0)),
            // Never two at one place, whatever was written by hand.
            sequence: sequence.map_or(Ok(0), u64::try_from)?.max(next_sequence),
        },
        arrived_at,
        since: row.try_get::<Option<i64>, _>("since_unix_ms")?.unwrap_or(arrived_at),
        from: row.try_get("call_from")?,
        contact: row.try_get("call_contact")?,
        state,
    })
}

fn read_assignment(row: &SqliteRow) -> anyhow::Result<Option<Assignment>> {
    let Some(id) = row.try_get::<Option<&str>, _>("assignment_id")? else { return Ok(None) };
    let addresses: &str = row.try_get("agent")?;
    let names: Option<&str> = row.try_get("agent_names")?;
    let mut names = names.unwrap_or_default().split(' ');
    let mut targets = Vec::new();
    for address in addresses.split(' ') {
        let agent = names.next().and_then(|name| AgentName::parse(name).ok());
        let agent = agent.filter(|name| name.as_str() != "-");
        targets.push(Target { address: Address::parse("agent", address)?, agent });
    }
    Ok(Some(Assignment {
        id: AssignmentId::new(id),
        targets,
        reserved_at: row.try_get("reserved_unix_ms")?,
        ring_ms: row.try_get("ring_ms")?,
    }))
}
