//! What the core asks for, tells, and refuses.

use super::Wanted;
use crate::{Assignment, AssignmentId, CallId, Caller, Settings};
use std::fmt;

/// An order to the owner of the core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Write this row, whole; it may be there already.
    Save(Caller),
    /// Delete the row; it may be gone already.
    Delete(CallId),
    /// Ring the agent for the caller, and report by `handle_ring_ended`. After a restart it may be
    /// that the agent rings already, or that this is decided.
    Ring { call_id: CallId, assignment: Assignment },
    /// The caller is gone: let the agent's phone be quiet.
    StopRinging { call_id: CallId, assignment_id: AssignmentId },
    /// Find out whether the call is still there, and report by `handle_checked`, also if there was no
    /// answer; it is not asked about again before.
    Check(CallId),
    /// Tell the others.
    Publish(Event),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    Joined,
    Reserved,
    Released,
    Connected,
    Left,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub kind: EventKind,
    /// As it was; for Connected and Left, just before.
    pub caller: Caller,
    /// Name of the queue.
    pub queue: String,
    /// From 1; 0 if the caller is gone.
    pub position: u32,
    /// How many wait in the queue afterwards, without those for whom an agent rings.
    pub in_queue: u32,
    /// The attempt that it is about.
    pub assignment: Option<Assignment>,
    pub reason: String,
}

/// How ringing an agent has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RingEnded {
    /// Caller and agent talk.
    Connected,
    /// The agent did not take the caller, or could not be rung; why.
    NotTaken(String),
    /// The caller hung up while the agent rang.
    HungUp,
    /// The call had ended or gone elsewhere before: it should not have been in line any more.
    Stale,
}

/// What became of an assignment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolution {
    pub call_id: CallId,
    /// Ms from arrival to the end of the waiting, or to now if it goes on.
    pub waited_ms: u64,
    pub ended: RingEnded,
}

/// Why a request is not done. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("no such queue: {wanted}")]
    NoSuchQueue { wanted: String },
    #[error("no such caller in queue {queue}: {call_id}")]
    NoSuchCaller { queue: String, call_id: CallId },
    #[error("queue {queue} is full: {max_calls} callers (its max_calls)")]
    QueueFull { queue: String, max_calls: u32 },
    #[error("all queues together are full: {max_calls} callers (--max-calls)")]
    AllFull { max_calls: usize },
    #[error("call {call_id} waits in queue {queue}; it must leave there first")]
    WaitsElsewhere { call_id: CallId, queue: String },
    #[error(
        "nobody waits in queue {queue} ({entering} not answered yet, {leaving} being given to agents)"
    )]
    NobodyWaits { queue: String, entering: u32, leaving: u32 },
    #[error("{limit} agents are being rung, as many as there may be callers (--max-calls)")]
    TooManyRing { limit: usize },
    #[error("assignment {assignment_id:?} exists already")]
    AssignmentExists { assignment_id: AssignmentId },
    #[error("{field} {value:?} is that of queue {queue} already")]
    Taken { field: &'static str, value: String, queue: String },
    #[error("{callers} callers are in queue {queue}; it can be deleted when they are gone")]
    CallersWait { queue: String, callers: u32 },
}

/// A caller as seen from outside.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    pub caller: &'a Caller,
    pub settings: &'a Settings,
    /// From 1; 0 while entering.
    pub position: u32,
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wanted::Name(name) => write!(f, "{name:?}"),
            Wanted::Uri(uri) => write!(f, "none has the URI {uri}"),
        }
    }
}
