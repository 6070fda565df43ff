//! The queues themselves: what their table says, and what may be changed.

use super::{Output, Queue, Queues, Refusal, Wanted};
use crate::caller::UnixMs;
use crate::{Agent, Expected, Place, QueueId, QueueTally, Settings};
use std::collections::BTreeMap;

impl Queues {
    /// Takes over the table of queues as it is now. Nobody who waits is moved or dropped: a changed
    /// row changes its queue in place, and a queue without a row lasts until its last caller is gone
    /// but takes no new ones. A row that is deleted and written anew under another id, as `REPLACE`
    /// does, is found again by its URI, else by its name. Where two rows mean the same URI, the lower
    /// id has it.
    pub fn handle_table(&mut self, now: UnixMs, table: BTreeMap<QueueId, Settings>) {
        let same = table.len() == self.queues.len()
            && self.queues.iter().zip(&table).all(|((id, queue), (row_id, settings))| {
                id == row_id && !queue.retired && queue.settings == *settings
            });
        if same {
            return;
        }
        for (id, queue) in &mut self.queues {
            queue.retired = !table.contains_key(id);
        }
        let mut changed: Vec<Place> = Vec::new();
        for (id, settings) in table {
            let known = self.queues.remove(&id).or_else(|| self.adopt(id, &settings));
            let queue = match known {
                Some(queue) => {
                    if queue.settings != settings {
                        changed.extend(queue.line.answered());
                    }
                    Queue { settings, retired: false, ..queue }
                }
                None => Queue::new(settings),
            };
            self.queues.insert(id, queue);
        }
        self.queues.retain(|_, queue| !queue.retired || !queue.line.is_empty());
        self.index();
        self.seat_all(now);
        for place in changed {
            self.set_waiting_timers(now, place);
        }
        self.settle(now);
    }

    /// The queue without a row that the new row `id` means, with its callers and agents moved to that
    /// id.
    fn adopt(&mut self, id: QueueId, settings: &Settings) -> Option<Queue> {
        let rowless = || self.queues.iter().filter(|(_, queue)| queue.retired);
        let same_uri = rowless().find(|(_, queue)| queue.settings.uri() == settings.uri());
        let same_name = || rowless().find(|(_, queue)| queue.settings.name() == settings.name());
        let old = *same_uri.or_else(same_name)?.0;
        let queue = self.queues.remove(&old)?;
        for place in queue.line.places() {
            let caller = self.callers.get_mut(&place).expect("a place has its caller");
            caller.queue = id;
            self.outputs.push_back(Output::Save(caller.clone()));
        }
        for entry in self.agents.values_mut() {
            if adopt_membership(&mut entry.agent, old, id) {
                let agent = Box::new(entry.agent.stored());
                self.outputs.push_back(Output::SaveAgent { agent, memberships_changed: true });
            }
        }
        Some(queue)
    }

    /// Names and URIs anew; a queue that has its row goes before one that lost it.
    pub(super) fn index(&mut self) {
        self.by_name.clear();
        self.by_uri.clear();
        for retired in [false, true] {
            for (id, queue) in self.queues.iter().filter(|(_, it)| it.retired == retired) {
                let settings = &queue.settings;
                self.by_name.entry(settings.name().to_owned()).or_insert(*id);
                self.by_uri.entry(settings.uri().clone()).or_insert(*id);
            }
        }
    }

    /// Whether a queue may be as `settings` say; `id` is its own, if it exists.
    ///
    /// # Errors
    /// [`Refusal::Taken`] if another queue has the name or the URI.
    pub fn check_free(&self, id: Option<QueueId>, settings: &Settings) -> Result<(), Refusal> {
        let row = settings.row();
        let same_name = self.by_name.get(&row.name);
        let same_uri = self.by_uri.get(settings.uri());
        for (field, value, holder) in [("name", &row.name, same_name), ("uri", &row.uri, same_uri)]
        {
            if let Some(holder) = holder.filter(|holder| Some(**holder) != id) {
                let holder = format!("queue {}", self.name_of(*holder));
                return Err(Refusal::Taken { field, value: value.clone(), holder });
            }
        }
        Ok(())
    }

    /// # Errors
    /// [`Refusal::NoSuchQueue`], [`Refusal::CallersWait`].
    pub fn check_empty(&self, name: &str) -> Result<QueueId, Refusal> {
        let id = self.named(name)?;
        match self.queues[&id].line.count().total() {
            0 => Ok(id),
            callers => Err(Refusal::CallersWait { queue: name.to_owned(), callers }),
        }
    }

    /// Whether a queue is called so, or has this URI.
    pub fn knows(&self, wanted: &Wanted) -> bool {
        self.find(wanted).is_some()
    }

    /// # Errors
    /// [`Refusal::NoSuchQueue`].
    pub fn queue(&self, name: &str) -> Result<(QueueId, &Settings), Refusal> {
        let id = self.named(name)?;
        Ok((id, &self.queues[&id].settings))
    }

    /// # Errors
    /// [`Refusal::NoSuchQueue`].
    pub fn queue_by_id(&self, id: QueueId) -> Result<&Settings, Refusal> {
        let queue = self.queues.get(&id).filter(|queue| !queue.retired);
        let missing = || Refusal::NoSuchQueue { wanted: format!("id {}", id.0) };
        queue.map(|queue| &queue.settings).ok_or_else(missing)
    }

    /// All queues that have a row, by id.
    pub fn queues(&self) -> impl Iterator<Item = (QueueId, &Settings)> {
        let present = self.queues.iter().filter(|(_, queue)| !queue.retired);
        present.map(|(id, queue)| (*id, &queue.settings))
    }

    /// How long somebody who joined a queue now may have to wait; `None` if too little is known.
    ///
    /// # Errors
    /// [`Refusal::NoSuchQueue`].
    pub fn expected(&self, now: UnixMs, name: &str) -> Result<Option<Expected>, Refusal> {
        let queue = &self.queues[&self.named(name)?];
        let count = queue.line.count();
        Ok(queue.pace.expected(now, count.in_queue + count.leaving + 1))
    }

    /// What has happened in a queue since the process began, and how long its first caller has waited.
    ///
    /// # Errors
    /// [`Refusal::NoSuchQueue`].
    pub fn tally(&self, now: UnixMs, name: &str) -> Result<(QueueTally, u64), Refusal> {
        let queue = &self.queues[&self.named(name)?];
        let waited = queue.line.answered().map(|place| self.callers[&place].waited_ms(now));
        Ok((queue.tally, waited.max().unwrap_or_default()))
    }
}

fn adopt_membership(agent: &mut Agent, old: QueueId, new: QueueId) -> bool {
    let memberships = &mut agent.settings.memberships;
    let known = memberships.iter().any(|it| it.queue == new);
    let Some(membership) = memberships.iter_mut().find(|it| it.queue == old && !known) else {
        return false;
    };
    membership.queue = new;
    true
}
