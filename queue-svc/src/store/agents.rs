//! The rows of the agents: `queue_agents`, and whom they serve in `queue_members`.

use super::transaction::Transaction;
use anyhow::bail;
use queue::{
    Address, Agent, AgentName, AgentSettings, CallId, Membership, Presence, QueueId, Work,
};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqlitePool};
use std::collections::HashMap;
use tracing::warn;

const SAVE: &str = "
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

/// All that can be read.
pub(super) async fn load(pool: &SqlitePool) -> Result<Vec<Agent>, sqlx::Error> {
    let members = sqlx::query("SELECT * FROM queue_members ORDER BY rowid").fetch_all(pool).await?;
    let mut memberships: HashMap<String, Vec<Membership>> = HashMap::new();
    for row in &members {
        let membership = Membership {
            queue: QueueId(row.try_get("mohq_id")?),
            level: row.try_get("level")?,
            order: row.try_get("rank")?,
            weight: row.try_get("weight")?,
        };
        memberships.entry(row.try_get("agent")?).or_default().push(membership);
    }
    let rows = sqlx::query("SELECT * FROM queue_agents ORDER BY name").fetch_all(pool).await?;
    let agents = rows.iter().filter_map(|row| {
        let name: String = row.try_get("name").ok()?;
        let memberships = memberships.remove(&name).unwrap_or_default();
        let read = read(row, &name, memberships);
        read.inspect_err(|e| warn!(name, "failed to read a row of queue_agents: {e:#}")).ok()
    });
    Ok(agents.collect())
}

pub(super) async fn save(
    tx: &mut Transaction,
    agent: &Agent,
    with_memberships: bool,
) -> Result<(), sqlx::Error> {
    let settings = &agent.settings;
    let name = settings.name.as_str();
    let (presence, paused) = match &agent.presence {
        Presence::LoggedOut => ("logged out", ""),
        Presence::Ready => ("ready", ""),
        Presence::Paused(why) => ("paused", why.as_str()),
    };
    let (work, call_id, queue, at) = match &agent.work {
        Work::Free | Work::Ringing { .. } => ("free", "", 0, 0),
        Work::Talking { call_id, queue, since } => ("talking", call_id.as_str(), queue.0, *since),
        Work::WrapUp { until } => ("wrap-up", "", 0, *until),
    };
    sqlx::query(SAVE)
        .bind(name)
        .bind(settings.address.as_str())
        .bind(settings.wrap_up_ms)
        .bind(settings.reject_delay_ms)
        .bind(settings.busy_delay_ms)
        .bind(settings.no_answer_delay_ms)
        .bind(settings.max_missed)
        .bind(presence)
        .bind(paused)
        .bind(work)
        .bind(call_id)
        .bind(queue)
        .bind(at)
        .bind(agent.idle_since)
        .bind(agent.rest_until)
        .bind(agent.missed)
        .execute(&mut **tx)
        .await?;
    if with_memberships {
        sqlx::query("DELETE FROM queue_members WHERE agent = ?")
            .bind(name)
            .execute(&mut **tx)
            .await?;
        for it in &settings.memberships {
            let insert = sqlx::query(SAVE_MEMBER).bind(name).bind(it.queue.0);
            insert.bind(it.level).bind(it.order).bind(it.weight).execute(&mut **tx).await?;
        }
    }
    Ok(())
}

pub(super) async fn delete(tx: &mut Transaction, name: &AgentName) -> Result<(), sqlx::Error> {
    for delete in
        ["DELETE FROM queue_agents WHERE name = ?", "DELETE FROM queue_members WHERE agent = ?"]
    {
        sqlx::query(delete).bind(name.as_str()).execute(&mut **tx).await?;
    }
    Ok(())
}

fn read(row: &SqliteRow, name: &str, memberships: Vec<Membership>) -> anyhow::Result<Agent> {
    let settings = AgentSettings {
        name: AgentName::parse(name)?,
        address: Address::parse("address", row.try_get("address")?)?,
        wrap_up_ms: row.try_get("wrap_up_ms")?,
        reject_delay_ms: row.try_get("reject_delay_ms")?,
        busy_delay_ms: row.try_get("busy_delay_ms")?,
        no_answer_delay_ms: row.try_get("no_answer_delay_ms")?,
        max_missed: row.try_get("max_missed")?,
        memberships,
    };
    let presence = match row.try_get("presence")? {
        "logged out" => Presence::LoggedOut,
        "ready" => Presence::Ready,
        "paused" => Presence::Paused(row.try_get("paused")?),
        other => bail!("presence is {other:?}; wanted `logged out`, `ready` or `paused`"),
    };
    let at = row.try_get("work_unix_ms")?;
    let work = match row.try_get("work")? {
        "free" => Work::Free,
        "talking" => Work::Talking {
            call_id: CallId::parse(row.try_get("call_id")?)?,
            queue: QueueId(row.try_get("mohq_id")?),
            since: at,
        },
        "wrap-up" => Work::WrapUp { until: at },
        other => bail!("work is {other:?}; wanted `free`, `talking` or `wrap-up`"),
    };
    Ok(Agent {
        settings: settings.check()?,
        presence,
        work,
        idle_since: row.try_get("idle_since_unix_ms")?,
        rest_until: row.try_get("rest_until_unix_ms")?,
        missed: row.try_get("missed")?,
    })
}
