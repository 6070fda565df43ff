//! A transaction in the making: the tasks that it is about are read with few statements, changed in
//! memory as the writes ask, in order, and written with few statements.
//!
//! That is right because nobody else writes to the shards it holds. The life of a task is the core's
//! [`State::next`]; a change that it refuses is not made.

mod adding;

use super::ahead;
use super::counts::{Counts, Deltas};
use super::kept::Kept;
use super::seen::Seen;
use super::writer::Desk;
use super::{Action, Cancelled, Moved, Reply, Swept, To, Unmoved, Unwritten, Write};
use crate::clock::Moment;
use crate::fields;
use crate::shard_set::ShardSet;
use crate::store::{
    self, Changed, Held, LogRow, LogWriter, ROWS_PER_STATEMENT, Scope, Task, Transaction, Update,
};
use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasherDefault;
use wheel::{
    Claim, Event, Fence, Granted, IdHasher, News, Settled, Settlement, Standing, State, TaskId,
    Tick,
};

/// A task as it is now, and its revision on disk.
struct Row {
    task: Box<Task>,
    was: i64,
    /// Nothing but a claim was made since it was read.
    claim: bool,
}

/// Says to who asked what became of it; with the reason, that it was not done.
pub(super) type Answer = Box<dyn FnOnce(Option<Unwritten>) + Send + Sync>;

/// What is to be said once it is committed.
pub(super) struct Made {
    pub(super) log: Vec<LogRow>,
    /// What of it there is room for in [`crate::recent`].
    pub(super) recent: Vec<Changed>,
    pub(super) news: Vec<News>,
    pub(super) ends: Vec<Seen>,
    /// What it was about.
    pub(super) touched: Vec<TaskId>,
    /// Those of them that something will soon be written of, as they are now.
    pub(super) kept: Vec<(Held, Box<Task>)>,
    pub(super) deltas: Deltas,
    pub(super) replies: Vec<Answer>,
}

pub(super) struct Batch<'d> {
    transaction: Transaction,
    held: Vec<Held>,
    desk: &'d Desk,
    now: Moment,
    rows: HashMap<TaskId, Row, BuildHasherDefault<IdHasher>>,
    logs: BTreeMap<u8, LogWriter>,
    last_seqs: HashMap<u8, i64>,
    recent_room: usize,
    made: Made,
}

impl<'d> Batch<'d> {
    pub(super) fn new(transaction: Transaction, held: Vec<Held>, desk: &'d Desk) -> Self {
        let made = Made {
            log: Vec::new(),
            recent: Vec::new(),
            news: Vec::new(),
            ends: Vec::new(),
            touched: Vec::new(),
            kept: Vec::new(),
            deltas: Deltas::default(),
            replies: Vec::new(),
        };
        Self {
            transaction,
            held,
            desk,
            now: desk.clock.moment(),
            rows: HashMap::default(),
            logs: BTreeMap::new(),
            last_seqs: HashMap::new(),
            recent_room: desk.recent.room(),
            made,
        }
    }

    pub(super) fn held(&self) -> &[Held] {
        &self.held
    }

    pub(super) fn into_transaction(self) -> Transaction {
        self.transaction
    }

    /// Counts what is in the shards that are new to us.
    pub(super) async fn prepare(&mut self, counts: &mut Counts) -> store::Result<()> {
        let unknown: Vec<Held> =
            self.held.iter().copied().filter(|held| counts.shard(*held).is_none()).collect();
        if !unknown.is_empty() {
            let shards: Vec<u8> = unknown.iter().map(|held| held.shard).collect();
            let reaches = self.transaction.reach(&shards).await?;
            let mut live: HashMap<u8, HashMap<String, i64>> = HashMap::new();
            for (shard, tenant, count) in self.transaction.live_of_tenants(&shards).await? {
                live.entry(shard).or_default().insert(tenant, count);
            }
            for (held, reach) in unknown.into_iter().zip(reaches) {
                counts.begin(held, reach.last, live.remove(&held.shard).unwrap_or_default());
            }
        }
        let last_seq = |held: &Held| Some((held.shard, counts.shard(*held)?.last_seq));
        self.last_seqs = self.held.iter().filter_map(last_seq).collect();
        Ok(())
    }

    /// Settlements free, schedules and changes of clients follow, claims come last: a cancel that came
    /// in time is not overtaken.
    pub(super) async fn apply(
        &mut self,
        counts: &Counts,
        kept: &mut Kept,
        writes: Vec<Write>,
    ) -> store::Result<()> {
        self.read(kept, &writes).await?;
        let (mut schedules, mut changes, mut claims) = (Vec::new(), Vec::new(), Vec::new());
        for write in writes {
            match write {
                Write::Settle { settlements, reply } => {
                    let settled = settlements.into_iter().filter_map(|it| self.settle(it));
                    let settled = settled.collect();
                    self.answer(reply, Ok(settled));
                }
                Write::Schedule { new, reply } => schedules.push((new, reply)),
                Write::Claim { claims: asked, reply } => claims.push((asked, reply)),
                other => changes.push(other),
            }
        }
        self.schedule_all(counts, schedules).await?;
        for change in changes {
            self.change(change).await?;
        }
        for (asked, reply) in claims {
            let granted = asked.into_iter().filter_map(|claim| self.claim(claim)).collect();
            self.answer(reply, Ok(granted));
        }
        Ok(())
    }

    /// Writes what has changed; what is left is the commit, and what to say after it.
    pub(super) async fn flush(mut self) -> store::Result<(Transaction, Made)> {
        let changed = self.rows.values().filter(|row| row.task.revision != row.was);
        let mut updates: Vec<Update<'_>> = changed
            .map(|Row { task, was, claim }| Update { task, was: *was, claim: *claim })
            .collect();
        updates.sort_unstable_by_key(|update| update.task.id);
        self.transaction.update(&updates, &self.held).await?;
        let at_unix_ms = self.now.unix_ms();
        let logs = std::mem::take(&mut self.logs);
        self.made.log = logs.into_values().map(|log| log.finish(at_unix_ms)).collect();
        self.transaction.append(&self.made.log).await?;
        self.made.touched = self.rows.keys().copied().collect();
        let kept = self.rows.into_values().map(|row| row.task).filter(|task| match task.state {
            State::Firing => true,
            State::Pending => ahead::is_soon(task.fires_at_unix_ms, at_unix_ms),
            _ => false,
        });
        self.made.kept =
            kept.filter_map(|task| Some((held_of(&self.held, task.id)?, task))).collect();
        Ok((self.transaction, self.made))
    }

    /// Reads the tasks that are named by their ids, and are not kept.
    async fn read(&mut self, kept: &mut Kept, writes: &[Write]) -> store::Result<()> {
        let mut ids = Vec::new();
        for write in writes {
            match write {
                Write::Cancel { id, .. }
                | Write::Reschedule { id, .. }
                | Write::Pause { id, .. }
                | Write::Resume { id, .. } => ids.push(*id),
                Write::Claim { claims, .. } => ids.extend(claims.iter().map(|it| it.task)),
                Write::Settle { settlements, .. } => {
                    ids.extend(settlements.iter().map(|it| it.task));
                }
                Write::Schedule { .. }
                | Write::Sweep { .. }
                | Write::Forget { .. }
                | Write::Pass { .. } => {}
            }
        }
        ids.retain(|id| self.holds(*id));
        ids.sort_unstable();
        ids.dedup();
        self.rows.reserve(ids.len());
        ids.retain(|id| match kept.take(*id) {
            Some(task) => {
                self.keep(task);
                false
            }
            None => true,
        });
        let found = self.transaction.by_ids(&ids).await?;
        for task in found {
            self.keep(task.into());
        }
        Ok(())
    }

    fn keep(&mut self, task: Box<Task>) {
        let was = task.revision;
        self.rows.entry(task.id).or_insert(Row { task, was, claim: true });
    }

    /// Whether the task's shard is held under this very token.
    fn holds_under(&self, id: TaskId, fence: Fence) -> bool {
        self.held.contains(&Held { shard: id.shard(), fence })
    }

    fn holds(&self, id: TaskId) -> bool {
        self.held.iter().any(|held| held.shard == id.shard())
    }

    async fn change(&mut self, write: Write) -> store::Result<()> {
        match write {
            Write::Cancel { id, reply, .. } if !self.holds(id) => {
                self.answer(reply, Err(Unwritten::NotOwner));
            }
            Write::Reschedule { id, reply, .. }
            | Write::Pause { id, reply }
            | Write::Resume { id, reply }
                if !self.holds(id) =>
            {
                self.answer(reply, Err(Unwritten::NotOwner));
            }
            Write::Cancel { id, by, reply } => {
                let cancelled = self.cancel(id, &by);
                self.answer(reply, Ok(cancelled));
            }
            Write::Reschedule { id, revision, to, reply } => {
                let moved = self.reschedule(id, revision, to);
                self.answer(reply, Ok(moved));
            }
            Write::Pause { id, reply } => {
                let paused = self.pause(id);
                self.answer(reply, Ok(paused));
            }
            Write::Resume { id, reply } => {
                let resumed = self.resume(id);
                self.answer(reply, Ok(resumed));
            }
            Write::Sweep { scope, shards, from, action, reply } => {
                let swept = self.sweep(&scope, shards, from, &action).await?;
                self.answer(reply, swept);
            }
            Write::Forget { shard, old, commits, reply } => {
                let forgotten = match self.last_seqs.contains_key(&shard) {
                    true => Ok(self.transaction.forget(shard, old, commits).await?),
                    false => Err(Unwritten::NotOwner),
                };
                self.answer(reply, forgotten);
            }
            Write::Pass { reply } => self.answer(reply, Ok(())),
            Write::Schedule { .. } | Write::Claim { .. } | Write::Settle { .. } => {
                unreachable!("apply has taken them out")
            }
        }
        Ok(())
    }

    fn cancel(&mut self, id: TaskId, by: &str) -> Cancelled {
        match self.rows.get(&id) {
            None => Cancelled::NotFound,
            Some(_) => match self.end(id, Event::Cancelled, by) {
                true => Cancelled::Now(self.task(id)),
                false => Cancelled::TooLate(self.task(id)),
            },
        }
    }

    /// Ends the task if it is pending or paused; if it is firing, this occurrence is the last one.
    fn end(&mut self, id: TaskId, event: Event, result: &str) -> bool {
        let ended_unix_ms = self.now.unix_ms();
        let task = &self.rows[&id].task;
        if task.state == State::Firing && task.repeat.is_some() && !task.cancel_requested {
            self.mark(id, |task| task.cancel_requested = true);
            return false;
        }
        let ended = self.step(id, event, |task| {
            task.ended_unix_ms = ended_unix_ms;
            task.remaining_ms = 0;
            task.result = result.to_owned();
        });
        if ended {
            self.gone(id);
        }
        ended
    }

    fn reschedule(&mut self, id: TaskId, revision: i64, to: To) -> Moved {
        let task = &self.rows.get(&id).ok_or(Unmoved::NotFound)?.task;
        if revision != 0 && revision != task.revision {
            return Err(Unmoved::Revision { got: revision, has: task.revision });
        }
        let state = task.state;
        let was = (task.fires_at_unix_ms, task.pinned);
        let (fires_at_unix_ms, (due, pinned), remaining_ms) = match (state, to) {
            (State::Pending, To::At { fires_at_unix_ms, due, pinned }) => {
                (fires_at_unix_ms, (due, pinned), 0)
            }
            (State::Pending, To::Later { by_ms }) => {
                let (due, pinned) = self.now.later(was.0, was.1, by_ms);
                self.in_range(self.now.until_ms(due))?;
                (was.0.saturating_add(by_ms), (due, pinned), 0)
            }
            (State::Paused, To::Later { by_ms }) => {
                let remaining_ms = task.remaining_ms.saturating_add(by_ms).max(0);
                self.in_range(remaining_ms)?;
                let fires_at_unix_ms = was.0.saturating_add(by_ms);
                (fires_at_unix_ms, self.now.later(was.0, was.1, by_ms), remaining_ms)
            }
            _ => return Err(Unmoved::WrongState(state)),
        };
        self.step(id, Event::Rescheduled, |task| {
            task.fires_at_unix_ms = fires_at_unix_ms;
            task.pinned = pinned;
            task.remaining_ms = remaining_ms;
        });
        if state == State::Pending {
            self.waits(id, due);
        }
        Ok(self.task(id))
    }

    /// Whether a task may be due so much from now, whatever the wall clock showed when it was asked for.
    fn in_range(&self, after_ms: i64) -> Result<(), Unmoved> {
        let (earliest_unix_ms, latest_unix_ms) = fields::at_limits(self.now.unix_ms());
        let unix_ms = self.now.unix_ms().saturating_add(after_ms);
        match (earliest_unix_ms..=latest_unix_ms).contains(&unix_ms) {
            true => Ok(()),
            false => Err(Unmoved::OutOfRange { unix_ms, earliest_unix_ms, latest_unix_ms }),
        }
    }

    fn pause(&mut self, id: TaskId) -> Moved {
        let task = &self.rows.get(&id).ok_or(Unmoved::NotFound)?.task;
        let state = task.state;
        let due = self.now.due(task.fires_at_unix_ms, task.pinned);
        let remaining_ms = self.now.until_ms(due).max(0);
        match self.step(id, Event::Paused, |task| task.remaining_ms = remaining_ms) {
            true => self.gone(id),
            false if state == State::Paused => {}
            false => return Err(Unmoved::WrongState(state)),
        }
        Ok(self.task(id))
    }

    fn resume(&mut self, id: TaskId) -> Moved {
        let task = &self.rows.get(&id).ok_or(Unmoved::NotFound)?.task;
        let state = task.state;
        let (fires_at_unix_ms, due, pinned) = self.now.pinned_after(task.remaining_ms);
        let resumed = self.step(id, Event::Resumed, |task| {
            task.fires_at_unix_ms = fires_at_unix_ms;
            task.pinned = pinned;
            task.remaining_ms = 0;
        });
        match resumed {
            true => self.waits(id, due),
            false if state == State::Pending => {}
            false => return Err(Unmoved::WrongState(state)),
        }
        Ok(self.task(id))
    }

    async fn sweep(
        &mut self,
        scope: &Scope,
        shards: ShardSet,
        from: TaskId,
        action: &Action,
    ) -> store::Result<Result<Swept, Unwritten>> {
        let held = self.held.iter().copied().filter(|held| shards.contains(held.shard));
        let held: Vec<Held> = held.collect();
        if held.len() < shards.iter().count() {
            return Ok(Err(Unwritten::NotOwner)); // What is in the others is not ours to see.
        }
        let found = self.transaction.tasks_of(scope, from, &held).await?;
        let mut swept = Swept::default();
        if found.len() == ROWS_PER_STATEMENT as usize {
            swept.next = found.last().map(|task| TaskId(task.id.0.saturating_add(1)));
        }
        for task in found {
            let id = task.id;
            self.keep(task.into());
            debug_assert!(scope.holds(&self.rows[&id].task));
            let before = self.rows[&id].task.state;
            swept.done += u32::from(match action {
                Action::End { event, result } => self.end(id, *event, result),
                Action::Pause => before == State::Pending && self.pause(id).is_ok(),
                Action::Resume => before == State::Paused && self.resume(id).is_ok(),
            });
            swept.firing += u32::from(before == State::Firing);
        }
        Ok(Ok(swept))
    }

    fn claim(&mut self, claim: Claim) -> Option<Granted> {
        let Claim { task: id, revision, again, fence, .. } = claim;
        if !self.holds_under(id, fence) {
            return None;
        }
        let task = &self.rows.get(&id)?.task;
        let firing_already = again && task.state == State::Firing;
        if !firing_already {
            if task.revision != revision {
                return None;
            }
            let row = self.rows.get_mut(&id)?;
            let only_claimed = row.claim && row.was == row.task.revision;
            if !self.step(id, Event::Claimed, |_| {}) {
                return None;
            }
            self.rows.get_mut(&id)?.claim = only_claimed;
        }
        let task = &self.rows.get(&id)?.task;
        Some(Granted {
            task: id,
            occurrence: task.occurrence,
            fires_at_unix_ms: task.fires_at_unix_ms,
            effect: task.effect.clone(),
            repeat: task.repeat,
        })
    }

    fn settle(&mut self, settlement: Settlement) -> Option<Settled> {
        let Settlement { task: id, occurrence, verdict, late_ms, result, next, fence, .. } =
            settlement;
        if !self.holds_under(id, fence) {
            return None;
        }
        let task = &self.rows.get(&id)?.task;
        if task.state != State::Firing || task.occurrence != occurrence {
            // If it was written before, by a commit whose answer got lost, this is the answer.
            let repeats = task.state == State::Pending && task.occurrence == occurrence + 1;
            let pending = repeats.then_some(task.revision);
            return (repeats || task.state.has_ended()).then_some(Settled { task: id, pending });
        }
        let late_ms = i64::try_from(late_ms).unwrap_or(i64::MAX);
        let ended_unix_ms = self.now.unix_ms();
        let next = next.filter(|_| !task.cancel_requested);
        if let Some(next) = next {
            let after_ms = i64::try_from(next.after_ms).unwrap_or(i64::MAX);
            let (_, pinned) = self.now.later(task.fires_at_unix_ms, task.pinned, after_ms);
            self.step(id, Event::Repeated, |task| {
                task.late_ms = late_ms;
                task.result = result;
                task.occurrence = task.occurrence.saturating_add(1);
                task.missed = task.missed.saturating_add(next.missed);
                task.fires_at_unix_ms = task.fires_at_unix_ms.saturating_add(after_ms);
                task.pinned = pinned;
            });
            return Some(Settled { task: id, pending: Some(self.rows[&id].task.revision) });
        }
        self.step(id, Event::Answered(verdict), |task| {
            task.late_ms = late_ms;
            task.result = result;
            task.ended_unix_ms = ended_unix_ms;
        });
        Some(Settled { task: id, pending: None })
    }

    /// Makes the change that the core allows, and logs it; whether it was made.
    fn step(&mut self, id: TaskId, event: Event, change: impl FnOnce(&mut Task)) -> bool {
        let Ok(next) = self.rows[&id].task.state.next(event) else { return false };
        self.mark(id, |task| {
            task.state = next;
            change(task);
        });
        let Row { task, .. } = &self.rows[&id];
        if task.state.has_ended() {
            self.made.deltas.add(id.shard(), &task.tenant, -1);
        }
        self.made.ends.push(Seen::new(task));
        true
    }

    fn mark(&mut self, id: TaskId, change: impl FnOnce(&mut Task)) {
        let row = self.rows.get_mut(&id).expect("it was read");
        row.claim = false;
        row.task.revision += 1;
        change(&mut row.task);
        let Self { rows, logs, made, held, last_seqs, recent_room, now, .. } = self;
        let log = log_of(logs, held, last_seqs, id);
        let at_unix_ms = now.unix_ms();
        made.log(log, &rows[&id].task, at_unix_ms, *recent_room);
    }

    fn log(&mut self, task: &Task) {
        let log = log_of(&mut self.logs, &self.held, &self.last_seqs, task.id);
        self.made.log(log, task, self.now.unix_ms(), self.recent_room);
    }

    /// The firing loop need not wait for it any more.
    fn gone(&mut self, id: TaskId) {
        let task = self.task(id);
        self.tell(&task, None);
    }

    /// It is due then: near enough for the firing loop, or not.
    fn waits(&mut self, id: TaskId, due: Tick) {
        let task = self.task(id);
        let near = self.is_near(task.fires_at_unix_ms);
        self.tell(&task, near.then_some(due));
    }

    fn tell(&mut self, task: &Task, due: Option<Tick>) {
        let lane = self.desk.lanes.of(&task.effect, &task.edge);
        let now = due.map_or(Standing::Gone, |due| Standing::Waiting { due, lane });
        self.made.news.push(News { task: task.id, revision: task.revision, now });
    }

    fn is_near(&self, fires_at_unix_ms: i64) -> bool {
        fires_at_unix_ms < self.now.horizon_end_unix_ms(self.desk.horizon_ms)
    }

    fn task(&self, id: TaskId) -> Task {
        Task::clone(&self.rows[&id].task)
    }

    /// Once committed. Who asked may have gone.
    fn answer<T: Send + Sync + 'static>(&mut self, reply: Reply<T>, answer: Result<T, Unwritten>) {
        self.made.replies.push(Box::new(move |unwritten| {
            let _ = reply.send(unwritten.map_or(answer, Err));
        }));
    }
}

impl Made {
    /// Logs the task as it is after a change.
    fn log(&mut self, log: &mut LogWriter, task: &Task, at_unix_ms: i64, recent_max: usize) {
        let seq = log.push(task);
        if self.recent.len() < recent_max {
            let (shard, task) = (task.id.shard(), task.clone());
            self.recent.push(Changed { shard, seq, at_unix_ms, task });
        }
    }
}

/// The log that changes of this task go to.
fn log_of<'l>(
    logs: &'l mut BTreeMap<u8, LogWriter>,
    held: &[Held],
    last_seqs: &HashMap<u8, i64>,
    id: TaskId,
) -> &'l mut LogWriter {
    logs.entry(id.shard()).or_insert_with(|| {
        let held = held_of(held, id).expect("checked before");
        LogWriter::new(held, last_seqs[&held.shard])
    })
}

/// The shard of the task, and the token under which it is held.
fn held_of(held: &[Held], id: TaskId) -> Option<Held> {
    held.iter().copied().find(|held| held.shard == id.shard())
}
