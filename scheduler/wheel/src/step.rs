//! What goes between an agenda and its shell: the steps of a firing task, and their answers.
//!
//! A step is a claim, an attempt or a settlement. Each has a [`Ticket`] that comes back with the
//! answer, so that an answer which is out of date can be told from one that is not.

use crate::Tick;
use crate::task::{Effect, Next, Repeat, TaskId, Verdict};
use std::sync::Arc;

/// Names one step of one agenda.
pub type Ticket = u32;

/// The fencing token under which a shard is owned; it grows with every owner.
pub type Fence = i64;

/// Who brings about the effect of a task; the shell says which number is whose. Lanes do not wait
/// for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lane(pub u16);

/// Compare-and-set: from PENDING in this revision to FIRING.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    pub task: TaskId,
    pub revision: i64,
    /// It may be FIRING already, claimed by an owner before us or by a commit of ours whose answer
    /// got lost: if it is, in whichever revision, that is granted too.
    pub again: bool,
    /// Under no other token: what was asked for before the shard was lost is not done after it has
    /// come back, when nobody waits for the answer.
    pub fence: Fence,
    pub ticket: Ticket,
}

/// A claim that the store has committed: the task is FIRING. A claim of the batch without one of
/// these was not granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Granted {
    pub task: TaskId,
    /// From 0.
    pub occurrence: u32,
    /// When this occurrence was due.
    pub fires_at_unix_ms: i64,
    pub effect: Arc<Effect>,
    pub repeat: Option<Repeat>,
}

/// An attempt at the effect of one occurrence, which is idempotent by task and occurrence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    pub task: TaskId,
    /// From 0.
    pub occurrence: u32,
    pub effect: Arc<Effect>,
    /// From 1: how often it was tried, with this one, by this process.
    pub attempt: u32,
    pub ticket: Ticket,
}

/// What to write about an occurrence that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settlement {
    pub task: TaskId,
    /// The store writes it only if the task is still firing this one.
    pub occurrence: u32,
    pub verdict: Verdict,
    /// From its time to the first attempt.
    pub late_ms: u64,
    /// What is to be told about it.
    pub result: String,
    /// From FIRING back to PENDING with the next occurrence, unless a cancel was requested; `None`:
    /// the task ends as `verdict` says.
    pub next: Option<Next>,
    /// As that of the claim.
    pub fence: Fence,
    pub ticket: Ticket,
}

/// A settlement that the store has committed, now or by a commit whose answer got lost. One of the
/// batch without this was not written, because the task is no longer ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    pub task: TaskId,
    /// The task's revision, if it is PENDING again with its next occurrence; `None`: it has ended.
    pub pending: Option<i64>,
}

/// What the store has committed for somebody else's sake. News may come late and in any order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct News {
    pub task: TaskId,
    /// After the change.
    pub revision: i64,
    pub now: Standing,
}

/// How a task stands, as far as the agenda needs to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// PENDING, and near enough to be waited for.
    Waiting { due: Tick, lane: Lane },
    /// FIRING when this process began to own it: its effect may have happened.
    Firing { due: Tick, lane: Lane },
    /// Paused, ended, far away, or not ours.
    Gone,
}
