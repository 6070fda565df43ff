//! The agents: who there is, what they say, and when one can be rung.

use super::{AgentEvent, Output, Queue, Queues, Refusal};
use crate::address::AddressKey;
use crate::caller::UnixMs;
use crate::policy::Seat;
use crate::timers::Timer;
use crate::{
    Agent, AgentName, AgentSettings, AgentState, AgentTally, CallId, EmptyRule, Presence,
    PresenceOrder, QueueId, Work,
};

/// Agents that there may be.
pub const AGENTS_MAX: usize = 10_000;

/// An agent, and what of it is not on disk.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) agent: Agent,
    /// As was last told.
    pub(super) shown: AgentState,
    /// Can be rung now.
    free: bool,
    pub(super) tally: AgentTally,
}

/// An agent as seen from outside.
#[derive(Clone, Copy, Debug)]
pub struct AgentView<'a> {
    pub agent: &'a Agent,
    pub state: AgentState,
    pub tally: AgentTally,
}

impl Queues {
    /// Takes back the agents of before; call once, after the queues are known.
    pub fn restore_agents(&mut self, now: UnixMs, agents: impl IntoIterator<Item = Agent>) {
        for agent in agents {
            if let Work::Talking { call_id, .. } = &agent.work {
                self.timers.set(Timer::Engaged(call_id.clone()), now);
                self.engaged.begin_talk(call_id, agent.name());
            }
            let (name, shown) = (agent.name().clone(), agent.state(false));
            self.insert_agent(agent);
            self.agents.get_mut(&name).expect("just made").shown = shown; // Others know.
            self.show_agent(now, &name, "was so before the restart");
        }
        self.freed.clear(); // The callers are not here yet; `restore` looks at every queue of theirs.
    }

    /// Makes an agent, or changes one in place: whoever rings or talks goes on. True if it is new.
    ///
    /// # Errors
    /// [`Refusal::Taken`] if the address is another's, [`Refusal::TooManyAgents`].
    pub fn handle_put_agent(
        &mut self,
        now: UnixMs,
        settings: AgentSettings,
    ) -> Result<bool, Refusal> {
        let name = settings.name.clone();
        if let Some(holder) = self.by_address.get(&settings.address.key()).filter(|it| **it != name)
        {
            let value = settings.address.as_str().to_owned();
            let holder = format!("agent {holder}");
            return Err(Refusal::Taken { field: "address", value, holder });
        }
        let Some(entry) = self.agents.get_mut(&name) else {
            if self.agents.len() >= AGENTS_MAX {
                return Err(Refusal::TooManyAgents { limit: AGENTS_MAX });
            }
            let agent = Agent::new(settings);
            self.save_agent(&agent, true);
            self.insert_agent(agent);
            return Ok(true);
        };
        let before = entry.agent.clone();
        entry.agent.settings = settings;
        self.forget_seats(&before);
        let agent = self.agents[&name].agent.clone();
        self.index_agent(&agent);
        self.save_agent(&agent, true);
        self.show_agent(now, &name, "agent was changed");
        for queue in before.settings.memberships {
            self.look_for_agents(now, queue.queue);
        }
        self.settle(now);
        Ok(false)
    }

    /// # Errors
    /// [`Refusal::NoSuchAgent`], [`Refusal::AgentBusy`].
    pub fn handle_delete_agent(&mut self, now: UnixMs, name: &AgentName) -> Result<(), Refusal> {
        let agent = self.known(name)?.agent.clone();
        if let Work::Ringing { .. } | Work::Talking { .. } = agent.work {
            return Err(Refusal::AgentBusy { agent: name.clone(), state: agent.state(false) });
        }
        self.forget_seats(&agent);
        self.agents.remove(name);
        self.engaged.forget_agent(name);
        self.freed.remove(name);
        self.timers.clear(&Timer::Agent(name.clone()));
        self.outputs.push_back(Output::DeleteAgent(name.clone()));
        for membership in agent.settings.memberships {
            self.look_for_agents(now, membership.queue);
        }
        self.settle(now);
        Ok(())
    }

    /// What an agent says. Saying it again changes nothing.
    ///
    /// # Errors
    /// [`Refusal::NoSuchAgent`].
    pub fn handle_presence(
        &mut self,
        now: UnixMs,
        name: &AgentName,
        order: PresenceOrder,
    ) -> Result<AgentView<'_>, Refusal> {
        let presence = &self.known(name)?.agent.presence;
        let order = match (order, presence) {
            (PresenceOrder::Toggle, Presence::LoggedOut) => PresenceOrder::Login,
            (PresenceOrder::Toggle, Presence::Paused(_)) => PresenceOrder::Unpause,
            (PresenceOrder::Toggle, Presence::Ready) => {
                PresenceOrder::Pause { reason: "by the agent".to_owned() }
            }
            (order, _) => order,
        };
        match (order, presence) {
            (PresenceOrder::Login, Presence::LoggedOut) => self.set_ready(now, name, "logged in"),
            (PresenceOrder::Logout, Presence::Ready | Presence::Paused(_)) => {
                self.change_agent(now, name, "logged out", |it| it.presence = Presence::LoggedOut);
            }
            (PresenceOrder::Pause { reason }, Presence::Ready | Presence::Paused(_)) => {
                let why = format!("paused: {reason}");
                self.change_agent(now, name, &why, |it| it.presence = Presence::Paused(reason));
            }
            (PresenceOrder::Unpause, Presence::Paused(_)) => self.set_ready(now, name, "unpaused"),
            (PresenceOrder::Ready, _) => self.change_agent(now, name, "ready", |it| {
                it.rest_until = 0;
                if let Work::WrapUp { .. } = it.work {
                    (it.work, it.idle_since) = (Work::Free, now);
                }
            }),
            // Who is not logged in cannot pause; who is in that state already stays.
            _ => (),
        }
        for membership in self.known(name)?.agent.settings.memberships.clone() {
            self.look_for_agents(now, membership.queue);
        }
        self.settle(now);
        self.agent(name)
    }

    fn set_ready(&mut self, now: UnixMs, name: &AgentName, reason: &str) {
        self.change_agent(now, name, reason, |it| {
            it.presence = Presence::Ready;
            (it.idle_since, it.missed, it.rest_until) = (now, 0, 0);
        });
    }

    /// # Errors
    /// [`Refusal::NoSuchAgent`].
    pub fn agent(&self, name: &AgentName) -> Result<AgentView<'_>, Refusal> {
        let entry = self.known(name)?;
        let state = entry.agent.state(self.engaged.is_elsewhere(name));
        Ok(AgentView { agent: &entry.agent, state, tally: entry.tally })
    }

    /// All agents, by name.
    pub fn agents(&self) -> impl Iterator<Item = AgentView<'_>> {
        self.agents.values().map(|entry| {
            let state = entry.agent.state(self.engaged.is_elsewhere(entry.agent.name()));
            AgentView { agent: &entry.agent, state, tally: entry.tally }
        })
    }

    /// The agent with this address, written as in its row or as another URI that means the same.
    pub fn agent_at(&self, address: &str) -> Option<&AgentName> {
        AddressKey::of_remote(address).find_map(|key| self.by_address.get(&key))
    }

    pub(super) fn known(&self, name: &AgentName) -> Result<&Entry, Refusal> {
        let missing = || Refusal::NoSuchAgent { name: name.as_str().to_owned() };
        self.agents.get(name).ok_or_else(missing)
    }

    /// Changes an agent, writes it if that is to outlive us, and lets others know what follows.
    pub(super) fn change_agent(
        &mut self,
        now: UnixMs,
        name: &AgentName,
        reason: &str,
        change: impl FnOnce(&mut Agent),
    ) {
        let Some(entry) = self.agents.get_mut(name) else { return };
        let before = entry.agent.stored();
        change(&mut entry.agent);
        let after = entry.agent.stored();
        if before != after {
            self.save_agent(&after, false);
        }
        self.show_agent(now, name, reason);
    }

    pub(super) fn save_agent(&mut self, agent: &Agent, memberships_changed: bool) {
        let agent = Box::new(agent.stored());
        self.outputs.push_back(Output::SaveAgent { agent, memberships_changed });
    }

    /// Seats, timer and event follow from what the agent is now.
    pub(super) fn show_agent(&mut self, now: UnixMs, name: &AgentName, reason: &str) {
        let elsewhere = self.engaged.is_elsewhere(name);
        let Some(entry) = self.agents.get_mut(name) else { return };
        let agent = &entry.agent;
        let state = agent.state(elsewhere);
        let free = state == AgentState::Idle && agent.rest_until <= now;
        let seats_change = free || entry.free;
        let newly_free = free && !entry.free;
        entry.free = free;
        let told = std::mem::replace(&mut entry.shown, state);
        let (presence, due_at) = (agent.presence.clone(), agent.due_at(now));
        let call_id = match &agent.work {
            Work::Ringing { call_id, .. } | Work::Talking { call_id, .. } => Some(call_id.clone()),
            Work::Free | Work::WrapUp { .. } => None,
        };
        if seats_change {
            self.set_seats(name);
        }
        if newly_free {
            self.freed.insert(name.clone());
        }
        match due_at {
            Some(at) => self.timers.set(Timer::Agent(name.clone()), at),
            None => self.timers.clear(&Timer::Agent(name.clone())),
        }
        if told != state {
            let (agent, reason) = (name.clone(), reason.to_owned());
            let event = AgentEvent { at: now, agent, state, presence, call_id, reason };
            self.outputs.push_back(Output::PublishAgent(event));
        }
    }

    /// A wrap-up or a rest may be over.
    pub(super) fn end_pause(&mut self, now: UnixMs, name: &AgentName) {
        self.change_agent(now, name, "wrap-up is over", |it| match it.work {
            Work::WrapUp { until } if until <= now => (it.work, it.idle_since) = (Work::Free, now),
            _ => (),
        });
    }

    /// Whoever is free takes a seat in each of its queues, whoever is not has none.
    fn set_seats(&mut self, name: &AgentName) {
        let Some(entry) = self.agents.get(name) else { return };
        for membership in &entry.agent.settings.memberships {
            let Some(queue) = self.queues.get_mut(&membership.queue) else { continue };
            queue.free.retain(|seat| seat.agent != *name);
            if entry.free {
                queue.free.push(Seat {
                    agent: name.clone(),
                    level: membership.level,
                    order: membership.order,
                    idle_since: entry.agent.idle_since,
                });
            }
        }
    }

    fn insert_agent(&mut self, agent: Agent) {
        self.index_agent(&agent);
        let shown = AgentState::Offline;
        let entry = Entry { agent, shown, free: false, tally: AgentTally::default() };
        self.agents.insert(entry.agent.name().clone(), entry);
    }

    fn index_agent(&mut self, agent: &Agent) {
        self.by_address.insert(agent.settings.address.key(), agent.name().clone());
        for membership in &agent.settings.memberships {
            if let Some(queue) = self.queues.get_mut(&membership.queue) {
                queue.members.insert(agent.name().clone());
            }
        }
    }

    fn forget_seats(&mut self, agent: &Agent) {
        self.by_address.remove(&agent.settings.address.key());
        for membership in &agent.settings.memberships {
            if let Some(queue) = self.queues.get_mut(&membership.queue) {
                queue.members.remove(agent.name());
                queue.free.retain(|seat| seat.agent != *agent.name());
            }
        }
        if let Some(entry) = self.agents.get_mut(agent.name()) {
            entry.free = false;
        }
    }

    /// After the table of queues has changed: members and seats anew.
    pub(super) fn seat_all(&mut self, now: UnixMs) {
        for queue in self.queues.values_mut() {
            queue.members.clear();
            queue.free.clear();
        }
        let agents: Vec<Agent> = self.agents.values().map(|it| it.agent.clone()).collect();
        for agent in agents {
            self.index_agent(&agent);
            self.set_seats(agent.name());
        }
        let ids: Vec<QueueId> = self.queues.keys().copied().collect();
        for id in ids {
            self.look_for_agents(now, id);
            self.touched.insert(id);
        }
    }

    /// Whether nobody serves this queue, as the rule counts.
    pub(super) fn is_empty_of_agents(&self, queue: &Queue, rule: EmptyRule) -> bool {
        let serves = |name: &AgentName| match (rule, &self.agents[name].agent.presence) {
            (EmptyRule::Never, _) | (_, Presence::Ready) => true,
            (EmptyRule::LoggedOut, Presence::Paused(_)) => true,
            (_, Presence::LoggedOut) | (EmptyRule::Unavailable, Presence::Paused(_)) => false,
        };
        rule != EmptyRule::Never && !queue.members.iter().any(serves)
    }

    /// Whom this call keeps busy, if it is the queue's.
    pub(super) fn talks(&self, name: &AgentName, call_id: &CallId) -> bool {
        let work = self.agents.get(name).map(|it| &it.agent.work);
        matches!(work, Some(Work::Talking { call_id: it, .. }) if it == call_id)
    }
}
