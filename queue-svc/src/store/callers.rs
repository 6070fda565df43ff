//! What the rows of those who wait say: `mohqcalls` as mohqueue has it, and the rest in
//! `queue_callers`.

use super::columns::Columns;
use anyhow::bail;
use queue::{
    Address, AgentName, Assignment, AssignmentId, CallId, Caller, CallerState, Place, QueueId,
    Target,
};
use std::cmp::Reverse;
use tracing::warn;

/// A caller as the columns have it.
pub(super) struct CallerRow<'a> {
    pub(super) mohq_id: i64,
    pub(super) call_id: &'a str,
    pub(super) call_status: i64,
    pub(super) call_from: &'a str,
    pub(super) call_contact: &'a str,
    pub(super) arrival_sequence: i64,
    pub(super) arrived_unix_ms: i64,
    pub(super) assignment_id: Option<&'a str>,
    /// Addresses, with a space between them.
    pub(super) agent: Option<String>,
    pub(super) reserved_unix_ms: Option<i64>,
    pub(super) ring_ms: Option<i64>,
    pub(super) priority: i64,
    pub(super) since_unix_ms: i64,
    pub(super) asked_mohq_id: i64,
    /// In the order of the addresses; `-` for nobody whom we know.
    pub(super) agent_names: Option<String>,
}

impl<'a> From<&'a Caller> for CallerRow<'a> {
    fn from(caller: &'a Caller) -> Self {
        let assignment = caller.assignment();
        let sequence = i64::try_from(caller.place.sequence).expect("not so many calls are made");
        Self {
            mohq_id: caller.queue.0,
            call_id: caller.call_id.as_str(),
            call_status: match caller.state {
                CallerState::Entering => 1,
                CallerState::InQueue => 2,
                CallerState::Leaving(_) => 3,
            },
            call_from: &caller.from,
            call_contact: &caller.contact,
            arrival_sequence: sequence,
            arrived_unix_ms: caller.arrived_at,
            assignment_id: assignment.map(|it| it.id.as_str()),
            agent: assignment.map(Assignment::addresses),
            reserved_unix_ms: assignment.map(|it| it.reserved_at),
            ring_ms: assignment.map(|it| it.ring_ms.into()),
            priority: caller.place.priority.0.into(),
            since_unix_ms: caller.since,
            asked_mohq_id: caller.asked.0,
            agent_names: assignment.map(agent_names),
        }
    }
}

fn agent_names(assignment: &Assignment) -> String {
    let name = |target: &Target| target.agent.as_ref().map_or("-".to_owned(), ToString::to_string);
    assignment.targets.iter().map(name).collect::<Vec<_>>().join(" ")
}

/// Those who can be read, in the order of the rows: that of arrival, and last those whom mohqueue
/// itself left behind.
pub(super) fn read_all(rows: &[impl Columns]) -> Vec<Caller> {
    let mut sequence = 0;
    let mut callers = Vec::with_capacity(rows.len());
    for row in rows {
        match read(row, sequence + 1) {
            Ok(caller) => {
                sequence = caller.place.sequence;
                callers.push(caller);
            }
            Err(e) => warn!("failed to read a row of mohqcalls: {e:#}"),
        }
    }
    callers
}

/// `next_sequence` is the lowest that is free; for a row that mohqueue left behind, which has none.
fn read(row: &impl Columns, next_sequence: u64) -> anyhow::Result<Caller> {
    let sequence = row.maybe_number("arrival_sequence")?;
    let state = match row.number("call_status")? {
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
    let queue = QueueId(row.number("mohq_id")?);
    let arrived_at = row.number("arrived_unix_ms")?;
    Ok(Caller {
        call_id: CallId::parse(&row.text("call_id")?)?,
        queue,
        asked: row.maybe_number("asked_mohq_id")?.map_or(queue, QueueId),
        place: Place {
            priority: Reverse(u8::try_from(row.number("priority")?).unwrap_or(0)),
            // Never two at one place, whatever was written by hand.
            sequence: sequence.map_or(Ok(0), u64::try_from)?.max(next_sequence),
        },
        arrived_at,
        since: row.maybe_number("since_unix_ms")?.unwrap_or(arrived_at),
        from: row.text("call_from")?,
        contact: row.text("call_contact")?,
        state,
    })
}

fn read_assignment(row: &impl Columns) -> anyhow::Result<Option<Assignment>> {
    let Some(id) = row.maybe_text("assignment_id")? else { return Ok(None) };
    let addresses = row.text("agent")?;
    let names = row.maybe_text("agent_names")?.unwrap_or_default();
    let mut names = names.split(' ');
    let mut targets = Vec::new();
    for address in addresses.split(' ') {
        let agent = names.next().and_then(|name| AgentName::parse(name).ok());
        let agent = agent.filter(|name| name.as_str() != "-");
        targets.push(Target { address: Address::parse("agent", address)?, agent });
    }
    Ok(Some(Assignment {
        id: AssignmentId::new(&id),
        targets,
        reserved_at: row.number("reserved_unix_ms")?,
        ring_ms: row.small("ring_ms")?,
    }))
}
