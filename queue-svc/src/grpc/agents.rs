//! The part of the API that is about agents.

use super::{Service, invalid, malformed, refused, required, status, wire};
use crate::desk::{AgentDraft, PutAgent};
use proto::queue::v1 as pb;
use queue::{Address, AgentName, AgentSettings, Membership, PresenceOrder, QueueId, Refusal};
use tonic::Status;

/// Longest reason of a pause, in bytes.
const REASON_MAX: usize = 100;
const REASON_DEFAULT: &str = "by the agent";

impl Service {
    pub(super) async fn put_agent(
        &self,
        put: PutAgent,
        agent: Option<pb::Agent>,
    ) -> Result<pb::Agent, Status> {
        let agent = agent.ok_or_else(|| invalid("agent", "", "an agent"))?;
        let draft = draft(agent)?;
        let name = draft.settings.name.clone();
        self.desk.put_agent(put, draft).await.map_err(status)?;
        self.agent(name).await
    }

    pub(super) async fn agent(&self, name: AgentName) -> Result<pb::Agent, Status> {
        let found = self
            .desk
            .read(None, move |queues| queues.agent(&name).map(|view| wire::agent(queues, &view)));
        found.await.map_err(status)?.map_err(refused)
    }

    pub(super) async fn agents_of(&self, queue: String) -> Result<Vec<pb::Agent>, Status> {
        let wanted = queue.clone();
        let known = (!wanted.is_empty()).then_some(wanted.as_str());
        let agents = self.desk.read(known, move |queues| {
            let only = match queue.as_str() {
                "" => None,
                name => Some(queues.queue(name)?.0),
            };
            let serves = |agent: &queue::AgentView<'_>| {
                let memberships = &agent.agent.settings.memberships;
                only.is_none_or(|id| memberships.iter().any(|it| it.queue == id))
            };
            let agents = queues.agents().filter(serves).map(|view| wire::agent(queues, &view));
            Ok::<_, Refusal>(agents.collect())
        });
        agents.await.map_err(status)?.map_err(refused)
    }

    pub(super) async fn change_presence(
        &self,
        request: pb::SetPresenceRequest,
    ) -> Result<pb::Agent, Status> {
        use pb::Presence as Said;
        let order = match request.presence() {
            Said::Login => PresenceOrder::Login,
            Said::Logout => PresenceOrder::Logout,
            Said::Pause => PresenceOrder::Pause { reason: reason(request.reason.clone())? },
            Said::Unpause => PresenceOrder::Unpause,
            Said::Toggle => PresenceOrder::Toggle,
            Said::Ready => PresenceOrder::Ready,
            Said::Unspecified => {
                let wanted = "LOGIN, LOGOUT, PAUSE, UNPAUSE, TOGGLE or READY";
                return Err(invalid("presence", request.presence, wanted));
            }
        };
        let name = match (request.name.as_str(), request.address) {
            ("", address) => self.agent_at(address).await?,
            (text, _) => name(text)?,
        };
        self.desk.set_presence(name.clone(), order).await.map_err(status)?;
        self.agent(name).await
    }

    async fn agent_at(&self, address: String) -> Result<AgentName, Status> {
        let address = required("name", address)?;
        let found = self.desk.read(None, move |queues| {
            let missing = || Refusal::NoSuchAgent { name: address.clone() };
            queues.agent_at(&address).cloned().ok_or_else(missing)
        });
        found.await.map_err(status)?.map_err(refused)
    }
}

pub(super) fn name(text: &str) -> Result<AgentName, Status> {
    AgentName::parse(text).map_err(malformed)
}

fn reason(reason: String) -> Result<String, Status> {
    if reason.len() > REASON_MAX || reason.chars().any(char::is_control) {
        let wanted = "at most 100 bytes without control characters";
        return Err(invalid("reason", reason, wanted));
    }
    Ok(if reason.is_empty() { REASON_DEFAULT.to_owned() } else { reason })
}

fn draft(agent: pb::Agent) -> Result<AgentDraft, Status> {
    let membership = |it: pb::Membership| {
        let (level, order, weight) = (it.level, it.order, it.weight);
        let membership = Membership { queue: QueueId(0), level, order, weight };
        Ok::<_, Status>((required("queue", it.queue)?, membership))
    };
    Ok(AgentDraft {
        settings: AgentSettings {
            name: name(&agent.name)?,
            address: Address::parse("address", &agent.address).map_err(malformed)?,
            wrap_up_ms: agent.wrap_up_ms,
            reject_delay_ms: agent.reject_delay_ms,
            busy_delay_ms: agent.busy_delay_ms,
            no_answer_delay_ms: agent.no_answer_delay_ms,
            max_missed: agent.max_missed,
            memberships: Vec::new(),
        },
        memberships: agent.queues.into_iter().map(membership).collect::<Result<_, _>>()?,
    })
}
