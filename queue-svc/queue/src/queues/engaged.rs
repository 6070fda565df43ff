//! Calls that keep agents busy: those of the queues, and those that sip-edge tells of.
//!
//! What is told can come late and in any order, so calls that have ended are remembered for a while:
//! news of them changes nothing any more. And each such call is asked about now and then, so that no
//! lost event keeps an agent from work for ever.

use super::{Found, Queues, VERIFY_MS};
use crate::address::AddressKey;
use crate::caller::UnixMs;
use crate::timers::Timer;
use crate::{AgentName, AssignmentId, CallId, Departure, Work};
use std::collections::{HashMap, HashSet, VecDeque};

/// Calls that have ended and are remembered.
const OVER_MAX: usize = 4_096;
/// Calls outside the queues that one agent is known to be on.
const CALLS_MAX: usize = 8;

/// What sip-edge tells of a call that lives.
#[derive(Clone, Debug)]
pub struct CallSeen {
    pub call_id: CallId,
    pub at: UnixMs,
    /// For whom leg B rings or has answered; empty if for nobody of a queue.
    pub assignment_id: AssignmentId,
    /// Its legs talk.
    pub connected: bool,
    /// Far ends of its legs, as far as they live.
    pub remotes: Vec<String>,
}

#[derive(Debug, Default)]
pub(super) struct Engaged {
    by_call: HashMap<CallId, Vec<AgentName>>,
    /// Calls that are not of a queue.
    elsewhere: HashMap<AgentName, Vec<CallId>>,
    over: VecDeque<CallId>,
    is_over: HashSet<CallId>,
}

impl Engaged {
    pub(super) fn is_elsewhere(&self, name: &AgentName) -> bool {
        self.elsewhere.contains_key(name)
    }

    pub(super) fn is_over(&self, call_id: &CallId) -> bool {
        self.is_over.contains(call_id)
    }

    pub(super) fn begin_talk(&mut self, call_id: &CallId, name: &AgentName) {
        self.leave(call_id, name);
        self.by_call.entry(call_id.clone()).or_default().push(name.clone());
    }

    /// False if the agent is on too many calls already.
    fn begin_elsewhere(&mut self, call_id: &CallId, name: &AgentName) -> bool {
        let calls = self.elsewhere.entry(name.clone()).or_default();
        if calls.len() >= CALLS_MAX {
            return false;
        }
        calls.push(call_id.clone());
        self.by_call.entry(call_id.clone()).or_default().push(name.clone());
        true
    }

    fn leave(&mut self, call_id: &CallId, name: &AgentName) {
        if let Some(names) = self.by_call.get_mut(call_id) {
            names.retain(|it| it != name);
            if names.is_empty() {
                self.by_call.remove(call_id);
            }
        }
        if let Some(calls) = self.elsewhere.get_mut(name) {
            calls.retain(|it| it != call_id);
            if calls.is_empty() {
                self.elsewhere.remove(name);
            }
        }
    }

    pub(super) fn forget_agent(&mut self, name: &AgentName) {
        for call_id in self.elsewhere.get(name).cloned().unwrap_or_default() {
            self.leave(&call_id, name);
        }
    }

    fn on(&self, call_id: &CallId) -> Vec<AgentName> {
        self.by_call.get(call_id).cloned().unwrap_or_default()
    }

    fn set_over(&mut self, call_id: &CallId) {
        if self.is_over.insert(call_id.clone()) {
            self.over.push_back(call_id.clone());
            if self.over.len() > OVER_MAX
                && let Some(oldest) = self.over.pop_front()
            {
                self.is_over.remove(&oldest);
            }
        }
    }
}

impl Queues {
    /// The call is over: a caller who waits has gone, an agent who talks has not any more. Ms waited;
    /// `None` if it waited nowhere.
    pub fn handle_ended(&mut self, now: UnixMs, call_id: &CallId, reason: &str) -> Option<u64> {
        self.engaged.set_over(call_id);
        let waited_ms = self.handle_leave(now, call_id, Departure::HungUp, reason);
        self.end_call(now, call_id, reason);
        self.settle(now);
        waited_ms
    }

    /// What sip-edge tells of a call: who talks on it is busy, and does not wait. Ms waited, if that
    /// has ended with it.
    pub fn handle_call(&mut self, now: UnixMs, seen: &CallSeen) -> Option<u64> {
        let call_id = &seen.call_id;
        if self.engaged.is_over(call_id) {
            return None;
        }
        let mut waited_ms = None;
        if seen.connected {
            waited_ms = self.take_away(now, call_id, seen.at, &seen.assignment_id);
        }
        let present: Vec<AgentName> =
            seen.remotes.iter().filter_map(|it| self.found_at(it)).collect();
        for name in self.engaged.on(call_id) {
            let talks = self.talks(&name, call_id);
            if present.contains(&name)
                || talks && (seen.connected || !self.began_before(&name, seen.at))
            {
                continue;
            }
            if talks {
                self.end_talk(now, &name, "parted from the caller");
            }
            self.engaged.leave(call_id, &name);
            self.show_agent(now, &name, "left another call");
        }
        // Who rings for a queue is in the queue's hands; the news of it may be late.
        if seen.connected || seen.assignment_id.as_str().is_empty() {
            for name in present {
                self.engage(now, call_id, &name);
            }
        }
        if self.engaged.on(call_id).is_empty() {
            self.timers.clear(&Timer::Engaged(call_id.clone()));
        }
        self.settle(now);
        waited_ms
    }

    /// Unless the agent rings or talks on this call for a queue.
    fn engage(&mut self, now: UnixMs, call_id: &CallId, name: &AgentName) {
        let ours = match self.agents.get(name).map(|it| &it.agent.work) {
            Some(Work::Ringing { call_id: it, .. } | Work::Talking { call_id: it, .. }) => {
                it == call_id
            }
            _ => false,
        };
        if ours || self.engaged.on(call_id).contains(name) {
            return;
        }
        if self.engaged.begin_elsewhere(call_id, name) {
            self.timers.set(Timer::Engaged(call_id.clone()), now + VERIFY_MS);
            self.show_agent(now, name, "on another call");
        }
    }

    fn found_at(&self, remote: &str) -> Option<AgentName> {
        AddressKey::of_remote(remote).find_map(|key| self.by_address.get(&key).cloned())
    }

    fn began_before(&self, name: &AgentName, at: UnixMs) -> bool {
        let work = self.agents.get(name).map(|it| &it.agent.work);
        matches!(work, Some(Work::Talking { since, .. }) if *since <= at)
    }

    /// Nobody is kept busy by this call any more.
    pub(super) fn end_call(&mut self, now: UnixMs, call_id: &CallId, reason: &str) {
        for name in self.engaged.on(call_id) {
            if self.talks(&name, call_id) {
                self.end_talk(now, &name, reason);
            }
            self.engaged.leave(call_id, &name);
            self.show_agent(now, &name, reason);
        }
        self.timers.clear(&Timer::Engaged(call_id.clone()));
    }

    fn end_talk(&mut self, now: UnixMs, name: &AgentName, reason: &str) {
        let Some(entry) = self.agents.get_mut(name) else { return };
        if let Work::Talking { queue, since, .. } = entry.agent.work {
            let talk_ms = u64::try_from(now.saturating_sub(since)).unwrap_or(0);
            entry.tally.talks += 1;
            entry.tally.talk_ms += talk_ms;
            if let Some(queue) = self.queues.get_mut(&queue) {
                queue.tally.talks += 1;
                queue.tally.talk_ms += talk_ms;
            }
        }
        self.change_agent(now, name, reason, |it| match it.settings.wrap_up_ms {
            0 => (it.work, it.idle_since) = (Work::Free, now),
            ms => it.work = Work::WrapUp { until: now + UnixMs::from(ms) },
        });
    }

    /// The answer to a question about a call that keeps agents busy.
    pub(super) fn check_engaged(&mut self, now: UnixMs, call_id: &CallId, found: Found) {
        let on = self.engaged.on(call_id);
        if on.is_empty() {
            return;
        }
        match found {
            Found::Gone => self.end_call(now, call_id, "call was gone before"),
            Found::Waiting => {
                for name in on {
                    if self.talks(&name, call_id) {
                        self.end_talk(now, &name, "parted from the caller");
                    }
                    self.engaged.leave(call_id, &name);
                    self.show_agent(now, &name, "nobody is with them on the call");
                }
            }
            Found::Early | Found::Connected | Found::Unknown => (),
        }
        if !self.engaged.on(call_id).is_empty() {
            let after_ms = if found == Found::Unknown { super::CHECK_AGAIN_MS } else { VERIFY_MS };
            self.timers.set(Timer::Engaged(call_id.clone()), now + after_ms);
        }
    }
}
