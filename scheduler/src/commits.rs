//! Group commit: every write goes through one queue and, many per transaction, to the disk.
//!
//! A reply means: it is on disk. [`Unwritten`] says that nothing was done, or that nobody knows. What
//! a transaction has changed is told to the firing loop in the order of the commits, before the
//! replies.

mod ahead;
mod batch;
mod counts;
mod kept;
mod seen;
mod writer;

pub(crate) use counts::Limits;
pub(crate) use writer::{Desk, Writer};

use crate::clock::Pinned;
use crate::shard_set::ShardSet;
use crate::store::{Old, ROWS_PER_STATEMENT, Scope, Task};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use wheel::{Claim, Event, Granted, News, Settled, Settlement, State, TaskId, Tick};

/// Writes of clients that wait for the database; more are refused.
const WRITES_WAITING_MAX: usize = 8_192;
/// What waits for the database, in KiB: each task counts as one at least; more is refused.
const WAITING_KIB_MAX: usize = 32_768;
/// Batches of claims and settlements that wait. The firing loop has few under way.
const FIRING_WAITING_MAX: usize = 4_096;
/// Batches of news that the firing loop has not taken yet; the writer waits when there are more.
const NEWS_WAITING_MAX: usize = 64;

/// How often a step of a sweep is tried, and the wait in between.
const SWEEP_TRIES: usize = 4;
const SWEEP_AGAIN: Duration = Duration::from_millis(250);

/// A task to be stored.
#[derive(Clone, Debug)]
pub(crate) struct New {
    pub(crate) task: Task,
    /// Idempotency key; empty: none.
    pub(crate) key: String,
    /// When it is due on the steady clock.
    pub(crate) due: Tick,
}

/// Where a task is moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum To {
    /// The same moment in Unix ms and on the steady clock.
    At { fires_at_unix_ms: i64, due: Tick, pinned: Pinned },
    /// Later than it is due, or than it has left when paused, by so many ms.
    Later { by_ms: i64 },
}

/// Why a write was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unwritten {
    #[error("{WAITING_KIB_MAX} KiB of writes wait for the database already; try again")]
    TooMany,
    #[error("the database does not answer; nothing was done, try again")]
    Failed,
    /// The shard is not ours, or no longer.
    #[error("another replica owns this now; nothing was done, try again")]
    NotOwner,
    #[error("the database was lost while it wrote; whether it was done is not known")]
    InDoubt,
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
    #[error("{max} tasks of tenant {tenant:?} have not ended, as many as --tenant-quota allows")]
    TooManyOfTenant { tenant: String, max: u32 },
}

/// Why a task is not moved, paused or resumed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unmoved {
    #[error("no such task")]
    NotFound,
    #[error("the task is {0:?}, wanted Pending or, where its time stands still, Paused")]
    WrongState(State),
    #[error("revision is {got}, the task has {has}")]
    Revision { got: i64, has: i64 },
    #[error("it would be due at {unix_ms} Unix ms, wanted {earliest_unix_ms} to {latest_unix_ms}")]
    OutOfRange { unix_ms: i64, earliest_unix_ms: i64, latest_unix_ms: i64 },
}

/// What became of a cancel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cancelled {
    /// It was pending or paused, and will not happen.
    Now(Task),
    /// It was neither. If it is firing and repeats, there will be no other occurrence.
    TooLate(Task),
    NotFound,
}

/// What is done to all tasks of a scope.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    /// Ends what is pending or paused, with this result, and lets nothing repeat.
    End {
        event: Event,
        result: String,
    },
    Pause,
    Resume,
}

/// One step of what is done to a scope.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Swept {
    done: u32,
    firing: u32,
    /// There may be more from this id on.
    next: Option<TaskId>,
}

/// What became of one of many that were to be scheduled.
pub(crate) type Scheduled = Result<Result<Task, Declined>, Unwritten>;

type Reply<T> = oneshot::Sender<Result<T, Unwritten>>;
type Moved = Result<Task, Unmoved>;

enum Write {
    Schedule {
        new: Vec<New>,
        reply: Reply<Vec<Scheduled>>,
    },
    Reschedule {
        id: TaskId,
        revision: i64,
        to: To,
        reply: Reply<Moved>,
    },
    Pause {
        id: TaskId,
        reply: Reply<Moved>,
    },
    Resume {
        id: TaskId,
        reply: Reply<Moved>,
    },
    Cancel {
        id: TaskId,
        by: String,
        reply: Reply<Cancelled>,
    },
    Sweep {
        scope: Scope,
        shards: ShardSet,
        from: TaskId,
        action: Action,
        reply: Reply<Swept>,
    },
    Claim {
        claims: Vec<Claim>,
        reply: Reply<Vec<Granted>>,
    },
    Settle {
        settlements: Vec<Settlement>,
        reply: Reply<Vec<Settled>>,
    },
    Forget {
        shard: u8,
        old: Old,
        commits: u32,
        reply: Reply<u32>,
    },
    /// Nothing, in its turn.
    Pass {
        reply: Reply<()>,
    },
}

impl Write {
    /// How many tasks it claims or settles.
    fn firing(&self) -> usize {
        match self {
            Self::Claim { claims, .. } => claims.len(),
            Self::Settle { settlements, .. } => settlements.len(),
            _ => 0,
        }
    }
}

/// A write that counts as so much of what waits.
struct Waiting {
    write: Write,
    _room: Option<OwnedSemaphorePermit>,
}

/// The way to the disk; cheap to clone.
#[derive(Clone)]
pub(crate) struct Commits {
    writes: mpsc::Sender<Waiting>,
    claims: mpsc::Sender<Waiting>,
    settlements: mpsc::Sender<Waiting>,
    room: Arc<Semaphore>,
    tasks_max: u32,
    committed: watch::Receiver<u64>,
}

/// The queue, its end, and what the firing loop hears of it.
pub(crate) fn open(desk: Desk) -> (Commits, Writer, mpsc::Receiver<Vec<News>>) {
    let (writes, writes_end) = mpsc::channel(WRITES_WAITING_MAX);
    let (claims, claims_end) = mpsc::channel(FIRING_WAITING_MAX);
    let (settlements, settlements_end) = mpsc::channel(FIRING_WAITING_MAX);
    let (news, news_end) = mpsc::channel(NEWS_WAITING_MAX);
    let (commit, committed) = watch::channel(0);
    let tasks_max = desk.limits.tasks_max;
    let room = Arc::new(Semaphore::new(WAITING_KIB_MAX));
    let queues =
        writer::Queues { writes: writes_end, claims: claims_end, settlements: settlements_end };
    let writer = Writer::new(desk, queues, news, commit);
    (Commits { writes, claims, settlements, room, tasks_max, committed }, writer, news_end)
}

impl Commits {
    /// The task as stored: this one, or the one that has the same idempotency key.
    pub(crate) async fn schedule(&self, new: New) -> Scheduled {
        let scheduled = self.schedule_many(vec![new]).await?;
        scheduled.into_iter().next().unwrap_or(Err(Unwritten::Failed))
    }

    /// Each by itself, in their order.
    pub(crate) async fn schedule_many(&self, new: Vec<New>) -> Result<Vec<Scheduled>, Unwritten> {
        let kib: usize = new.iter().map(|new| 1 + size(&new.task) / 1_024).sum();
        self.ask(kib, |reply| Write::Schedule { new, reply }).await
    }

    /// Moves a task, if it is in `revision` (0: any).
    pub(crate) async fn reschedule(
        &self,
        id: TaskId,
        revision: i64,
        to: To,
    ) -> Result<Result<Task, Unmoved>, Unwritten> {
        self.ask(1, |reply| Write::Reschedule { id, revision, to, reply }).await
    }

    /// Stops the time of a pending task; does nothing to a paused one.
    pub(crate) async fn pause(&self, id: TaskId) -> Result<Result<Task, Unmoved>, Unwritten> {
        self.ask(1, |reply| Write::Pause { id, reply }).await
    }

    /// Lets the time of a paused task run on; does nothing to a pending one.
    pub(crate) async fn resume(&self, id: TaskId) -> Result<Result<Task, Unmoved>, Unwritten> {
        self.ask(1, |reply| Write::Resume { id, reply }).await
    }

    /// `by`: who cancels.
    pub(crate) async fn cancel(&self, id: TaskId, by: String) -> Result<Cancelled, Unwritten> {
        self.ask(1, |reply| Write::Cancel { id, by, reply }).await
    }

    /// Does this to all tasks of the scope that are in these shards; to how many it was done, and how
    /// many were firing. Many take several transactions, so that nobody waits for long.
    ///
    /// # Errors
    /// [`Unwritten::NotOwner`] unless all of the shards are ours. [`Unwritten::InDoubt`] also if it
    /// was done to some.
    pub(crate) async fn sweep(
        &self,
        scope: &Scope,
        action: &Action,
        shards: ShardSet,
    ) -> Result<(u32, u32), Unwritten> {
        let (mut done, mut firing, mut from) = (0, 0, TaskId(0));
        // Bounded, because others may add to the scope as fast as this goes on.
        for _ in 0..=self.tasks_max / ROWS_PER_STATEMENT {
            let swept = self.sweep_step(scope, action, shards, from).await;
            let swept = swept.map_err(|e| if done > 0 { Unwritten::InDoubt } else { e })?;
            (done, firing) = (done + swept.done, firing + swept.firing);
            match swept.next {
                Some(next) => from = next,
                None => break,
            }
        }
        Ok((done, firing))
    }

    /// One step, again if nothing was done: whoever asks for many should not have half of them done
    /// because a connection was lost in between.
    async fn sweep_step(
        &self,
        scope: &Scope,
        action: &Action,
        shards: ShardSet,
        from: TaskId,
    ) -> Result<Swept, Unwritten> {
        for _ in 1..SWEEP_TRIES {
            let (scope, action) = (scope.clone(), action.clone());
            match self.ask(1, |reply| Write::Sweep { scope, shards, from, action, reply }).await {
                Err(Unwritten::Failed) => tokio::time::sleep(SWEEP_AGAIN).await,
                answer => return answer,
            }
        }
        let (scope, action) = (scope.clone(), action.clone());
        self.ask(1, |reply| Write::Sweep { scope, shards, from, action, reply }).await
    }

    /// Those of the claims that are granted: the tasks are firing.
    pub(crate) async fn claim(&self, claims: Vec<Claim>) -> Result<Vec<Granted>, Unwritten> {
        ask(&self.claims, None, |reply| Write::Claim { claims, reply }).await
    }

    /// Those of the settlements that were written: the others are no longer ours to write.
    pub(crate) async fn settle(
        &self,
        settlements: Vec<Settlement>,
    ) -> Result<Vec<Settled>, Unwritten> {
        ask(&self.settlements, None, |reply| Write::Settle { settlements, reply }).await
    }

    /// Forgets changes of the shard that are old, and the tasks that ended with them. At most what
    /// `commits` commits have done; how many changes it were.
    pub(crate) async fn forget(&self, shard: u8, old: Old, commits: u32) -> Result<u32, Unwritten> {
        self.ask(1, |reply| Write::Forget { shard, old, commits, reply }).await
    }

    /// Returns when all that was asked for before is on disk, or refused.
    pub(crate) async fn pass(&self) -> Result<(), Unwritten> {
        self.ask(1, |reply| Write::Pass { reply }).await
    }

    /// Changes with every commit of this process.
    pub(crate) fn committed(&self) -> watch::Receiver<u64> {
        self.committed.clone()
    }

    async fn ask<T>(
        &self,
        kib: usize,
        write: impl FnOnce(Reply<T>) -> Write,
    ) -> Result<T, Unwritten> {
        let kib = u32::try_from(kib).map_err(|_| Unwritten::TooMany)?;
        let room = self.room.clone().try_acquire_many_owned(kib);
        ask(&self.writes, Some(room.map_err(|_| Unwritten::TooMany)?), write).await
    }
}

async fn ask<T>(
    queue: &mpsc::Sender<Waiting>,
    room: Option<OwnedSemaphorePermit>,
    write: impl FnOnce(Reply<T>) -> Write,
) -> Result<T, Unwritten> {
    let (reply, answer) = oneshot::channel();
    let waiting = Waiting { write: write(reply), _room: room };
    queue.try_send(waiting).map_err(|_| Unwritten::TooMany)?;
    answer.await.unwrap_or(Err(Unwritten::Failed))
}

/// Bytes of what clients may make long.
pub(crate) fn size(task: &Task) -> usize {
    use wheel::{Effect, TransferTo};
    let effect = match &*task.effect {
        Effect::HangUp { .. } => 0,
        Effect::Play { file, .. } => file.len(),
        Effect::Transfer { to: TransferTo::Uri(text) | TransferTo::Plan(text), .. } => text.len(),
        Effect::Publish { subject, payload } => subject.len() + payload.len(),
    };
    effect + task.label.len() + task.group.len()
}

#[cfg(test)]
pub(crate) mod tests;
