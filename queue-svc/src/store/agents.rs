//! What the rows of the agents say: `queue_agents`, and whom they serve in `queue_members`.

use super::columns::Columns;
use anyhow::bail;
use queue::{
    Address, Agent, AgentName, AgentSettings, CallId, Membership, Presence, QueueId, Work,
};
use std::collections::HashMap;
use tracing::warn;

/// An agent as the columns have it.
pub(super) struct AgentRow<'a> {
    pub(super) name: &'a str,
    pub(super) address: &'a str,
    pub(super) wrap_up_ms: i64,
    pub(super) reject_delay_ms: i64,
    pub(super) busy_delay_ms: i64,
    pub(super) no_answer_delay_ms: i64,
    pub(super) max_missed: i64,
    pub(super) presence: &'static str,
    /// Why; empty if not paused.
    pub(super) paused: &'a str,
    pub(super) work: &'static str,
    pub(super) call_id: &'a str,
    pub(super) mohq_id: i64,
    /// Since when the agent talks, or until when the wrap-up is.
    pub(super) work_unix_ms: i64,
    pub(super) idle_since_unix_ms: i64,
    pub(super) rest_until_unix_ms: i64,
    pub(super) missed: i64,
}

impl<'a> From<&'a Agent> for AgentRow<'a> {
    fn from(agent: &'a Agent) -> Self {
        let settings = &agent.settings;
        let (presence, paused) = match &agent.presence {
            Presence::LoggedOut => ("logged out", ""),
            Presence::Ready => ("ready", ""),
            Presence::Paused(why) => ("paused", why.as_str()),
        };
        let (work, call_id, mohq_id, work_unix_ms) = match &agent.work {
            Work::Free | Work::Ringing { .. } => ("free", "", 0, 0),
            Work::Talking { call_id, queue, since } => {
                ("talking", call_id.as_str(), queue.0, *since)
            }
            Work::WrapUp { until } => ("wrap-up", "", 0, *until),
        };
        Self {
            name: settings.name.as_str(),
            address: settings.address.as_str(),
            wrap_up_ms: settings.wrap_up_ms.into(),
            reject_delay_ms: settings.reject_delay_ms.into(),
            busy_delay_ms: settings.busy_delay_ms.into(),
            no_answer_delay_ms: settings.no_answer_delay_ms.into(),
            max_missed: settings.max_missed.into(),
            presence,
            paused,
            work,
            call_id,
            mohq_id,
            work_unix_ms,
            idle_since_unix_ms: agent.idle_since,
            rest_until_unix_ms: agent.rest_until,
            missed: agent.missed.into(),
        }
    }
}

/// All that can be read; `members` in the order in which each agent named the queues.
pub(super) fn read_all(
    agents: &[impl Columns],
    members: &[impl Columns],
) -> Result<Vec<Agent>, sqlx::Error> {
    let mut memberships: HashMap<String, Vec<Membership>> = HashMap::new();
    for row in members {
        let membership = Membership {
            queue: QueueId(row.number("mohq_id")?),
            level: row.small("level")?,
            order: row.small("place")?,
            weight: row.small("weight")?,
        };
        memberships.entry(row.text("agent")?).or_default().push(membership);
    }
    let agents = agents.iter().filter_map(|row| {
        let name = row.text("name").ok()?;
        let memberships = memberships.remove(&name).unwrap_or_default();
        let read = read(row, &name, memberships);
        read.inspect_err(|e| warn!(name, "failed to read a row of queue_agents: {e:#}")).ok()
    });
    Ok(agents.collect())
}

fn read(row: &impl Columns, name: &str, memberships: Vec<Membership>) -> anyhow::Result<Agent> {
    let settings = AgentSettings {
        name: AgentName::parse(name)?,
        address: Address::parse("address", &row.text("address")?)?,
        wrap_up_ms: row.small("wrap_up_ms")?,
        reject_delay_ms: row.small("reject_delay_ms")?,
        busy_delay_ms: row.small("busy_delay_ms")?,
        no_answer_delay_ms: row.small("no_answer_delay_ms")?,
        max_missed: row.small("max_missed")?,
        memberships,
    };
    let presence = match row.text("presence")?.as_str() {
        "logged out" => Presence::LoggedOut,
        "ready" => Presence::Ready,
        "paused" => Presence::Paused(row.text("paused")?),
        other => bail!("presence is {other:?}; wanted `logged out`, `ready` or `paused`"),
    };
    let at = row.number("work_unix_ms")?;
    let work = match row.text("work")?.as_str() {
        "free" => Work::Free,
        "talking" => Work::Talking {
            call_id: CallId::parse(&row.text("call_id")?)?,
            queue: QueueId(row.number("mohq_id")?),
            since: at,
        },
        "wrap-up" => Work::WrapUp { until: at },
        other => bail!("work is {other:?}; wanted `free`, `talking` or `wrap-up`"),
    };
    Ok(Agent {
        settings: settings.check()?,
        presence,
        work,
        idle_since: row.number("idle_since_unix_ms")?,
        rest_until: row.number("rest_until_unix_ms")?,
        missed: row.small("missed")?,
    })
}
