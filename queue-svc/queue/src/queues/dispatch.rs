//! Who is free meets who is first: after every input, and never by looking around now and then.

use super::Queues;
use crate::caller::UnixMs;
use crate::policy;
use crate::{AgentName, Place, QueueId, Target};
use std::cmp::Reverse;

impl Queues {
    /// Gives callers to agents until nobody is left who could be.
    pub(super) fn settle(&mut self, now: UnixMs) {
        while let Some(name) = self.freed.pop_first() {
            self.serve(now, &name);
        }
        while let Some(id) = self.touched.pop_first() {
            self.dispatch(now, id);
        }
    }

    /// An agent who has become free: of its queues the one with the highest weight, then the one
    /// whose first caller goes before the others'.
    fn serve(&mut self, now: UnixMs, name: &AgentName) {
        let Some(entry) = self.agents.get(name) else { return };
        let mut waiting: Vec<(Reverse<u32>, Place, QueueId)> = Vec::new();
        for membership in &entry.agent.settings.memberships {
            let first = self.queues.get(&membership.queue).and_then(|queue| queue.line.first());
            waiting
                .extend(first.map(|place| (Reverse(membership.weight), place, membership.queue)));
        }
        waiting.sort_unstable();
        for (.., id) in waiting {
            self.dispatch(now, id);
        }
    }

    /// Gives the first callers of a queue to its free agents, while there are both.
    fn dispatch(&mut self, now: UnixMs, id: QueueId) {
        while !self.closed && self.given.len() < self.max_calls {
            let Some(queue) = self.queues.get(&id) else { return };
            let Some(place) = queue.line.first() else { return };
            let strategy = queue.settings.row().strategy;
            let ring_ms = queue.settings.row().ring_ms;
            let names = policy::choose(strategy, &queue.free, queue.last_rung.as_ref());
            let Some(first) = names.first().cloned() else { return };
            let rank = queue.free.iter().find(|seat| seat.agent == first).map(|seat| seat.order);
            let reason = match names.len() {
                1 => format!("agent {first}: {}", strategy.words()),
                many => format!("{many} agents, {first} first: {}", strategy.words()),
            };
            let targets = names.into_iter().map(|name| {
                let address = self.agents[&name].agent.settings.address.clone();
                Target { address, agent: Some(name) }
            });
            let targets = targets.collect();
            self.queue_mut(id).last_rung = rank.map(|order| (order, first));
            self.reserve(now, place, targets, ring_ms, &reason);
        }
    }
}
