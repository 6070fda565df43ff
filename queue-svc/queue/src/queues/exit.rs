//! What a queue does for and with those who wait: announcements, the longest wait, overflow.

use super::{EventKind, OVERFLOWS_MAX, Output, Queues, Refusal};
use crate::caller::UnixMs;
use crate::timers::Timer;
use crate::{CallerState, Departure, EmptyRule, Overflow, Place, QueueId, spoken};

/// When a caller who should have left a queue, and still waits, is sent away again, in ms.
pub const EXIT_AGAIN_MS: UnixMs = 5_000;
/// When to look again at a caller whose time is up while an agent rings, in ms.
const HELD_AGAIN_MS: UnixMs = 1_000;

impl Queues {
    /// The queue of a join: the one that was asked for, or the first one of its overflow that takes
    /// the caller. If none does, what the first one said.
    pub(super) fn place_or_overflow(&self, asked: QueueId) -> Result<QueueId, Refusal> {
        let refusal = match self.admit(asked) {
            Ok(()) => return Ok(asked),
            Err(refusal) => refusal,
        };
        self.overflow_of(asked).ok_or(refusal)
    }

    /// The next queue on the way of overflow that takes somebody.
    fn overflow_of(&self, id: QueueId) -> Option<QueueId> {
        let mut at = id;
        for _ in 0..OVERFLOWS_MAX {
            let Overflow::Queue(name) = self.queues[&at].settings.overflow() else { return None };
            at = *self.by_name.get(name)?;
            if at == id {
                return None;
            }
            if !self.queues[&at].retired && self.admit(at).is_ok() {
                return Some(at);
            }
        }
        None
    }

    pub(super) fn set_waiting_timers(&mut self, now: UnixMs, place: Place) {
        let caller = &self.callers[&place];
        let queue = &self.queues[&caller.queue];
        let row = queue.settings.row();
        let empty = self.is_empty_of_agents(queue, row.leave_empty);
        let max_wait = caller.since + UnixMs::from(row.max_wait_ms);
        let exit = if empty { Some(now) } else { (row.max_wait_ms > 0).then_some(max_wait) };
        let announces = row.announce_position || row.announce_wait;
        let announce = (announces && row.announce_every_ms > 0).then_some(row.announce_first_ms);
        let periodic = (!row.periodic.is_empty() && row.periodic_every_ms > 0)
            .then_some(row.periodic_every_ms);
        for (timer, at) in [
            (Timer::MaxWait(place), exit),
            (Timer::Announce(place), announce.map(|ms| now + UnixMs::from(ms))),
            (Timer::Periodic(place), periodic.map(|ms| now + UnixMs::from(ms))),
        ] {
            match at {
                Some(at) => self.timers.set(timer, at),
                None => self.timers.clear(&timer),
            }
        }
    }

    pub(super) fn clear_timers(&mut self, place: Place) {
        for timer in [
            Timer::Check(place),
            Timer::MaxWait(place),
            Timer::Announce(place),
            Timer::Periodic(place),
        ] {
            self.timers.clear(&timer);
        }
    }

    /// Agents of this queue may have come or gone: who must leave an empty queue is looked at.
    pub(super) fn look_for_agents(&mut self, now: UnixMs, id: QueueId) {
        let Some(queue) = self.queues.get(&id) else { return };
        let rule = queue.settings.row().leave_empty;
        if rule != EmptyRule::Never && self.is_empty_of_agents(queue, rule) {
            let waiting: Vec<Place> = queue.line.answered().collect();
            for place in waiting {
                self.timers.set(Timer::MaxWait(place), now);
            }
        }
    }

    /// The caller's time may be up.
    pub(super) fn end_waiting(&mut self, now: UnixMs, place: Place) {
        let caller = &self.callers[&place];
        if let CallerState::Leaving(_) = caller.state {
            return self.timers.set(Timer::MaxWait(place), now + HELD_AGAIN_MS);
        }
        let queue = &self.queues[&caller.queue];
        let row = queue.settings.row();
        let ends_at = caller.since + UnixMs::from(row.max_wait_ms);
        let reason = if row.max_wait_ms > 0 && ends_at <= now {
            format!("waited for {} ms, the queue's max_wait_ms", row.max_wait_ms)
        } else if self.is_empty_of_agents(queue, row.leave_empty) {
            "no agents, by the queue's leave_empty".to_owned()
        } else if row.max_wait_ms > 0 {
            return self.timers.set(Timer::MaxWait(place), ends_at);
        } else {
            return; // An agent has come back.
        };
        self.timers.set(Timer::MaxWait(place), now + EXIT_AGAIN_MS);
        let (call_id, id) = (caller.call_id.clone(), caller.queue);
        match queue.settings.overflow().clone() {
            // If none takes the caller now, it is better off waiting here.
            Overflow::Queue(_) => {
                if let Some(to) = self.overflow_of(id) {
                    self.move_caller(now, place, to, &reason);
                }
            }
            Overflow::Plan => self.outputs.push_back(Output::Exit { call_id, to: None }),
            Overflow::Address(to) => {
                self.outputs.push_back(Output::Exit { call_id, to: Some(to) });
            }
        }
    }

    /// Into another queue, in line there by the arrival here.
    fn move_caller(&mut self, now: UnixMs, place: Place, to: QueueId, reason: &str) {
        let (from_name, to_name) = (self.name_of_owned(place), self.name_of(to).to_owned());
        let was = self.callers[&place].clone();
        self.leave_line(was.queue, place);
        self.queue_mut(was.queue).tally.depart(Departure::WentOn);
        self.publish_gone(now, EventKind::Left, &was, &format!("to queue {to_name}: {reason}"));
        let caller = self.callers.get_mut(&place).expect("a place has its caller");
        (caller.queue, caller.since) = (to, now);
        self.outputs.push_back(Output::Save(caller.clone()));
        self.join_line(now, to, place);
        self.publish(
            now,
            EventKind::Moved,
            place,
            None,
            &format!("from queue {from_name}: {reason}"),
        );
        let music = self.queues[&to].settings.music();
        self.outputs.push_back(Output::Move { call_id: was.call_id, queue: to_name, music });
    }

    fn name_of_owned(&self, place: Place) -> String {
        self.name_of(self.callers[&place].queue).to_owned()
    }

    /// Position and expected wait, as far as the queue says them and they are known.
    pub(super) fn announce_place(&mut self, now: UnixMs, place: Place) {
        let caller = &self.callers[&place];
        let queue = &self.queues[&caller.queue];
        let row = queue.settings.row();
        self.timers.set(Timer::Announce(place), now + UnixMs::from(row.announce_every_ms));
        if caller.state != CallerState::InQueue {
            return; // An agent rings: it may be over before the words are.
        }
        let position = queue.line.position(place);
        let mut files = Vec::new();
        if row.announce_position {
            files.extend(spoken::position(position));
        }
        if let Some(expected) = queue.pace.expected(now, position).filter(|_| row.announce_wait) {
            files.extend(spoken::wait(expected.p90_ms));
        }
        if !files.is_empty() {
            let call_id = caller.call_id.clone();
            self.outputs.push_back(Output::Announce { call_id, files });
        }
    }

    /// The file whose turn it is follows from the time waited: it is the next one each time.
    pub(super) fn announce_periodic(&mut self, now: UnixMs, place: Place) {
        let caller = &self.callers[&place];
        let row = self.queues[&caller.queue].settings.row();
        let every_ms = UnixMs::from(row.periodic_every_ms);
        let turn = now.saturating_sub(caller.since).max(0) / every_ms.max(1);
        let count = row.periodic.len().max(1);
        let file = row.periodic.get(usize::try_from(turn - 1).unwrap_or(0) % count).cloned();
        self.timers.set(Timer::Periodic(place), now + every_ms);
        if let (CallerState::InQueue, Some(file)) = (&caller.state, file) {
            let call_id = caller.call_id.clone();
            self.outputs.push_back(Output::Announce { call_id, files: vec![file] });
        }
    }
}
