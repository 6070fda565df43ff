//! Group commit: every write goes through one queue and, many per transaction, to the disk.
//!
//! A reply means: it is on disk. No reply means: nothing was done. What a transaction has changed is
//! told to the firing loop in the order of the commits, before the reply.

use crate::metrics;
use crate::store::{self, Ending, ROWS_PER_STATEMENT, Scope, Store, Task, Transaction};
use tokio::sync::{mpsc, oneshot};
use tracing::warn;
use wheel::{Effect, Event, Legs, State, TaskId, Tick, Verdict};

/// Writes of clients that wait for the database; more are refused.
const WRITES_WAITING_MAX: usize = 4_096;
/// Claims and settlements that wait.
const FIRING_WAITING_MAX: usize = 32_768;
/// Writes of each kind in one transaction: at about 15 µs each, a claim waits 2 ms for the others.
const WRITES_PER_COMMIT: usize = 128;
/// Changes that the firing loop has not taken yet; the writer waits when there are more.
const CHANGES_WAITING_MAX: usize = 8_192;

/// A committed change of a task.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    /// After the change.
    pub(crate) task: Task,
    /// When it is due on the steady clock, if this change has set it.
    pub(crate) due: Option<Tick>,
}

/// Why a write was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unwritten {
    #[error("{WRITES_WAITING_MAX} writes wait for the database already; try again")]
    TooMany,
    #[error("the database does not answer; nothing was done, try again")]
    Failed,
}

/// Why a task is not scheduled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Declined {
    #[error("idempotency_key is known for a different task, {0}: another call or action")]
    KeyTaken(TaskId),
    #[error("{max} tasks have not ended, as many as --max-tasks allows")]
    TooManyTasks { max: u32 },
    #[error("{max} tasks of this call have not ended, as many as --max-tasks-per-call allows")]
    TooManyOfCall { max: u32 },
}

/// Why a task is not moved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unmoved {
    #[error("no such task")]
    NotFound,
    #[error("the task is {0:?}, wanted Pending")]
    NotPending(State),
    #[error("revision is {got}, the task has {has}")]
    Revision { got: i64, has: i64 },
}

/// What became of a cancel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cancelled {
    /// It was pending, and will not happen.
    Now(Task),
    /// It was not pending.
    TooLate(Task),
    NotFound,
}

/// A claim that was granted: the task, now firing.
pub(crate) type Granted = Option<Effect>;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) tasks_max: u32,
    pub(crate) tasks_per_call_max: u32,
}

enum Write {
    Schedule { task: Task, key: String, due: Tick, reply: Reply<Result<Task, Declined>> },
    Reschedule { id: TaskId, revision: i64, at: (i64, Tick), reply: Reply<Result<Task, Unmoved>> },
    Cancel { id: TaskId, ending: Ending, reply: Reply<Cancelled> },
    EndAll { scope: Scope, event: Event, ending: Ending, reply: Reply<(u32, u32)> },
    Claim { id: TaskId, revision: i64, again: bool, reply: Reply<Granted> },
    Settle { id: TaskId, verdict: Verdict, ending: Ending, reply: Reply<()> },
    Forget { before_unix_ms: i64, most: u32, reply: Reply<u32> },
}

type Reply<T> = oneshot::Sender<T>;

/// The way to the disk; cheap to clone.
#[derive(Clone)]
pub(crate) struct Commits {
    writes: mpsc::Sender<Write>,
    firing: mpsc::Sender<Write>,
    tasks_max: u32,
}

/// The other end of [`Commits`].
pub(crate) struct Writer {
    store: Store,
    limits: Limits,
    /// Tasks that have not ended.
    live: i64,
    writes: mpsc::Receiver<Write>,
    firing: mpsc::Receiver<Write>,
    changes: mpsc::Sender<Change>,
}

/// The queue, its end, and the changes that it commits. `live` tasks have not ended at the start.
pub(crate) fn open(
    store: Store,
    limits: Limits,
    live: usize,
) -> (Commits, Writer, mpsc::Receiver<Change>) {
    let (writes, writes_end) = mpsc::channel(WRITES_WAITING_MAX);
    let (firing, firing_end) = mpsc::channel(FIRING_WAITING_MAX);
    let (changes, changes_end) = mpsc::channel(CHANGES_WAITING_MAX);
    let live = i64::try_from(live).unwrap_or(i64::MAX);
    let writer = Writer { store, limits, live, writes: writes_end, firing: firing_end, changes };
    (Commits { writes, firing, tasks_max: limits.tasks_max }, writer, changes_end)
}

impl Commits {
    /// The task as stored: `task`, or the one that has the same idempotency `key` (empty: none).
    pub(crate) async fn schedule(
        &self,
        task: Task,
        key: String,
        due: Tick,
    ) -> Result<Result<Task, Declined>, Unwritten> {
        ask(&self.writes, |reply| Write::Schedule { task, key, due, reply }).await
    }

    /// Moves a pending task to `at`, the same moment in Unix ms and on the steady clock.
    pub(crate) async fn reschedule(
        &self,
        id: TaskId,
        revision: i64,
        at: (i64, Tick),
    ) -> Result<Result<Task, Unmoved>, Unwritten> {
        ask(&self.writes, |reply| Write::Reschedule { id, revision, at, reply }).await
    }

    pub(crate) async fn cancel(&self, id: TaskId, ending: Ending) -> Result<Cancelled, Unwritten> {
        ask(&self.writes, |reply| Write::Cancel { id, ending, reply }).await
    }

    /// Ends all pending tasks of `scope`; how many it ended, and how many were firing afterwards.
    /// Many take several transactions, so that nobody waits for long.
    pub(crate) async fn end_all(
        &self,
        scope: Scope,
        event: Event,
        ending: Ending,
    ) -> Result<(u32, u32), Unwritten> {
        let (mut ended, mut firing) = (0, 0);
        // Bounded, because others may add to the scope as fast as this takes from it.
        for _ in 0..=self.tasks_max / ROWS_PER_STATEMENT {
            let (scope, ending) = (scope.clone(), ending.clone());
            let write = |reply| Write::EndAll { scope, event, ending, reply };
            let (ended_now, firing_now) = ask(&self.writes, write).await?;
            (ended, firing) = (ended + ended_now, firing_now);
            if ended_now < ROWS_PER_STATEMENT {
                break;
            }
        }
        Ok((ended, firing))
    }

    /// What to do, if the task was pending in `revision` and is firing now; with `again`, if it is
    /// firing.
    pub(crate) async fn claim(
        &self,
        id: TaskId,
        revision: i64,
        again: bool,
    ) -> Result<Granted, Unwritten> {
        ask(&self.firing, |reply| Write::Claim { id, revision, again, reply }).await
    }

    /// Ends a firing task.
    pub(crate) async fn settle(
        &self,
        id: TaskId,
        verdict: Verdict,
        ending: Ending,
    ) -> Result<(), Unwritten> {
        ask(&self.firing, |reply| Write::Settle { id, verdict, ending, reply }).await
    }

    /// Forgets at most `most` tasks that ended before then; how many it has forgotten.
    pub(crate) async fn forget(&self, before_unix_ms: i64, most: u32) -> Result<u32, Unwritten> {
        ask(&self.writes, |reply| Write::Forget { before_unix_ms, most, reply }).await
    }
}

async fn ask<T>(
    queue: &mpsc::Sender<Write>,
    write: impl FnOnce(Reply<T>) -> Write,
) -> Result<T, Unwritten> {
    let (reply, answer) = oneshot::channel();
    queue.try_send(write(reply)).map_err(|_| Unwritten::TooMany)?;
    answer.await.map_err(|_| Unwritten::Failed)
}

impl Writer {
    /// Writes whatever is asked for. A failure of the database is the answer to those who wait, not
    /// the end.
    pub(crate) async fn run(mut self) -> anyhow::Result<()> {
        let mut writes = Vec::with_capacity(WRITES_PER_COMMIT);
        while self.collect(&mut writes).await {
            let count = writes.len();
            match self.write(writes.drain(..)).await {
                Ok(batch) => self.tell(batch).await,
                Err(e) => {
                    metrics::commit_failed();
                    warn!(writes = count, "failed to commit: {e}");
                }
            }
        }
        Ok(())
    }

    /// Waits for a write, then takes what else is there, of each kind at most [`WRITES_PER_COMMIT`];
    /// claims last, so that a cancel which came in time is not overtaken. False when there can be
    /// none.
    async fn collect(&mut self, writes: &mut Vec<Write>) -> bool {
        let first = tokio::select! {
            biased;
            first = self.firing.recv() => first,
            first = self.writes.recv() => first,
        };
        writes.extend(first);
        for queue in [&mut self.writes, &mut self.firing] {
            let full = writes.len() + WRITES_PER_COMMIT;
            while writes.len() < full
                && let Ok(write) = queue.try_recv()
            {
                writes.push(write);
            }
        }
        !writes.is_empty()
    }

    async fn write(&self, writes: impl Iterator<Item = Write>) -> store::Result<Batch> {
        let (limits, live) = (self.limits, self.live);
        let transaction = self.store.begin().await?;
        let mut batch =
            Batch { transaction, limits, live, changes: Vec::new(), replies: Vec::new() };
        for write in writes {
            batch.apply(write).await?;
        }
        Ok(batch)
    }

    async fn tell(&mut self, batch: Batch) {
        let Batch { transaction, live, changes, replies, .. } = batch;
        if let Err(e) = transaction.commit().await {
            metrics::commit_failed();
            warn!(writes = replies.len(), "failed to commit: {e}");
            return; // Replies that are dropped say so.
        }
        metrics::committed(replies.len());
        self.live = live;
        for change in changes {
            let _ = self.changes.send(change).await; // The firing loop ends with the process.
        }
        replies.into_iter().for_each(|reply| reply());
    }
}

/// A transaction, and what is to be said once it is committed.
struct Batch {
    transaction: Transaction,
    limits: Limits,
    live: i64,
    changes: Vec<Change>,
    replies: Vec<Box<dyn FnOnce() + Send>>,
}

impl Batch {
    async fn apply(&mut self, write: Write) -> store::Result<()> {
        match write {
            Write::Schedule { task, key, due, reply } => {
                let scheduled = self.schedule(task, &key, due).await?;
                self.answer(reply, scheduled);
            }
            Write::Reschedule { id, revision, at, reply } => {
                let moved = self.reschedule(id, revision, at).await?;
                self.answer(reply, moved);
            }
            Write::Cancel { id, ending, reply } => {
                let cancelled = self.cancel(id, ending).await?;
                self.answer(reply, cancelled);
            }
            Write::EndAll { scope, event, ending, reply } => {
                let ended = self.transaction.end_all(&scope, event, ending).await?;
                let count = ended.len() as u32; // Not above ROWS_PER_STATEMENT.
                let firing = self.transaction.firing(&scope).await?;
                ended.into_iter().for_each(|task| self.changed(task, None));
                self.answer(reply, (count, firing));
            }
            Write::Claim { id, revision, again, reply } => {
                let granted = self.claim(id, revision, again).await?;
                self.answer(reply, granted);
            }
            Write::Settle { id, verdict, ending, reply } => {
                let arrow = (State::Firing, Event::Answered(verdict));
                let settled = self.transaction.change(id, arrow, 0, ending).await?;
                settled.into_iter().for_each(|task| self.changed(task, None));
                self.answer(reply, ());
            }
            Write::Forget { before_unix_ms, most, reply } => {
                let forgotten = self.transaction.forget(before_unix_ms, most).await?;
                self.answer(reply, forgotten);
            }
        }
        Ok(())
    }

    async fn schedule(
        &mut self,
        task: Task,
        key: &str,
        due: Tick,
    ) -> store::Result<Result<Task, Declined>> {
        if !key.is_empty()
            && let Some(known) = self.transaction.by_key(key).await?
        {
            let same = known.call_id == task.call_id && known.cause == task.cause;
            return Ok(if same { Ok(known) } else { Err(Declined::KeyTaken(known.id)) });
        }
        let Limits { tasks_max, tasks_per_call_max } = self.limits;
        if self.live >= i64::from(tasks_max) {
            return Ok(Err(Declined::TooManyTasks { max: tasks_max }));
        }
        if self.transaction.live_of_call(&task.call_id).await? >= tasks_per_call_max {
            return Ok(Err(Declined::TooManyOfCall { max: tasks_per_call_max }));
        }
        self.transaction.insert(&task, key).await?;
        self.live += 1;
        self.changes.push(Change { task: task.clone(), due: Some(due) });
        Ok(Ok(task))
    }

    async fn reschedule(
        &mut self,
        id: TaskId,
        revision: i64,
        (fires_at_unix_ms, due): (i64, Tick),
    ) -> store::Result<Result<Task, Unmoved>> {
        let moved = self.transaction.reschedule(id, revision, fires_at_unix_ms).await?;
        if let Some(task) = moved {
            self.changes.push(Change { task: task.clone(), due: Some(due) });
            return Ok(Ok(task));
        }
        Ok(Err(match self.transaction.get(id).await? {
            None => Unmoved::NotFound,
            Some(task) if task.state == State::Pending => {
                Unmoved::Revision { got: revision, has: task.revision }
            }
            Some(task) => Unmoved::NotPending(task.state),
        }))
    }

    async fn cancel(&mut self, id: TaskId, ending: Ending) -> store::Result<Cancelled> {
        let arrow = (State::Pending, Event::Cancelled);
        if let Some(task) = self.transaction.change(id, arrow, 0, ending).await? {
            self.changed(task.clone(), None);
            return Ok(Cancelled::Now(task));
        }
        let found = self.transaction.get(id).await?;
        Ok(found.map_or(Cancelled::NotFound, Cancelled::TooLate))
    }

    async fn claim(&mut self, id: TaskId, revision: i64, again: bool) -> store::Result<Granted> {
        let firing = if again {
            self.transaction.get(id).await?.filter(|task| task.state == State::Firing)
        } else {
            let arrow = (State::Pending, Event::Claimed);
            let claimed = self.transaction.change(id, arrow, revision, Ending::default()).await?;
            claimed.inspect(|task| self.changed(task.clone(), None))
        };
        Ok(firing.map(|Task { call_id, cause, .. }| Effect::HangUp {
            call_id,
            cause,
            legs: Legs::Both,
        }))
    }

    fn changed(&mut self, task: Task, due: Option<Tick>) {
        self.live -= i64::from(task.state.has_ended());
        self.changes.push(Change { task, due });
    }

    /// Once committed. Who asked may have gone.
    fn answer<T: Send + 'static>(&mut self, reply: Reply<T>, answer: T) {
        self.replies.push(Box::new(move || drop(reply.send(answer))));
    }
}

#[cfg(test)]
mod tests;
