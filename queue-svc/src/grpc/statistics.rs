//! The part of the API that counts.

use super::{Service, refused, status, wire};
use proto::queue::v1 as pb;
use queue::{AgentState, AgentView, Presence, QueueId, Queues, Refusal, UnixMs};
use tonic::Status;

impl Service {
    /// Of one queue and its agents, or of all if its name is empty.
    pub(super) async fn statistics(
        &self,
        queue: String,
    ) -> Result<pb::GetStatisticsResponse, Status> {
        let since_unix_ms = self.leases.held().map_or(0, |it| it.since_unix_ms);
        let wanted = queue.clone();
        let known = (!wanted.is_empty()).then_some(wanted.as_str());
        let counted = self.desk.read(known, move |queues| {
            let now = boot::unix_ms();
            let ids: Vec<(QueueId, String)> = match queue.as_str() {
                "" => queues.queues().map(|(id, it)| (id, it.name().to_owned())).collect(),
                name => vec![(queues.queue(name)?.0, name.to_owned())],
            };
            let serves = |view: &AgentView<'_>| {
                let memberships = &view.agent.settings.memberships;
                queue.is_empty() || memberships.iter().any(|it| it.queue == ids[0].0)
            };
            let agents = queues.agents().filter(serves).map(|view| of_agent(&view)).collect();
            let of_queue = |(id, name): &(QueueId, String)| of_queue(queues, now, *id, name);
            let queues = ids.iter().map(of_queue).collect::<Result<_, Refusal>>()?;
            Ok(pb::GetStatisticsResponse { since_unix_ms, queues, agents })
        });
        counted.await.map_err(status)?.map_err(refused)
    }
}

fn of_queue(
    queues: &Queues,
    now: UnixMs,
    id: QueueId,
    name: &str,
) -> Result<pb::QueueStatistics, Refusal> {
    let count = queues.count(name)?;
    let (tally, longest_wait_ms) = queues.tally(now, name)?;
    let serves =
        |view: &AgentView<'_>| view.agent.settings.memberships.iter().any(|it| it.queue == id);
    let (mut agents_logged_in, mut agents_idle) = (0, 0);
    for view in queues.agents().filter(serves) {
        agents_logged_in += u32::from(view.agent.presence != Presence::LoggedOut);
        agents_idle += u32::from(view.state == AgentState::Idle);
    }
    Ok(pb::QueueStatistics {
        queue: name.to_owned(),
        waiting: count.in_queue,
        leaving: count.leaving,
        longest_wait_ms,
        agents_logged_in,
        agents_idle,
        joined: tally.joined,
        handled: tally.connected,
        abandoned: tally.abandoned,
        left: tally.left,
        released: tally.released,
        service_level: tally.service_level().unwrap_or_default(),
        average_wait_ms: average(tally.wait_ms, tally.connected),
        max_wait_ms: tally.wait_ms_max,
        average_talk_ms: average(tally.talk_ms, tally.talks),
        expected_wait: queues.expected(now, name)?.map(wire::expected),
    })
}

fn of_agent(view: &AgentView<'_>) -> pb::AgentStatistics {
    pb::AgentStatistics {
        agent: view.agent.name().as_str().to_owned(),
        state: wire::agent_state(view.state).into(),
        rung: view.tally.rung,
        handled: view.tally.connected,
        missed: view.tally.missed,
        refused: view.tally.refused,
        average_talk_ms: average(view.tally.talk_ms, view.tally.talks),
    }
}

fn average(sum: u64, count: u64) -> u64 {
    sum.checked_div(count).unwrap_or_default()
}
