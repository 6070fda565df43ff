//! What the core asks for, tells, and refuses.

use super::Wanted;
use crate::caller::UnixMs;
use crate::{
    Address, Agent, AgentName, AgentState, Assignment, AssignmentId, CallId, Caller, Expected,
    Presence, Settings,
};
use std::fmt;

/// An order to the owner of the core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Write this row, whole; it may be there already.
    Save(Caller),
    /// Delete the row; it may be gone already.
    Delete(CallId),
    /// Write this agent, whole; it may be there already. Its memberships need writing only if they have
    /// changed.
    SaveAgent { agent: Box<Agent>, memberships_changed: bool },
    /// Delete the agent; it may be gone already.
    DeleteAgent(AgentName),
    /// Ring the targets for the caller, and report by `handle_ring_ended`. After a restart it may be
    /// that they ring already, or that this is decided.
    Ring { call_id: CallId, assignment: Assignment },
    /// The caller is gone: let the agents' phones be quiet.
    StopRinging { call_id: CallId, assignment_id: AssignmentId },
    /// Find out whether the call is still there, and report by `handle_checked`, also if there was no
    /// answer; it is not asked about again before.
    Check(CallId),
    /// The caller may not wait any longer: send the call there; `None`: on with its plan. If it still
    /// waits after [`super::EXIT_AGAIN_MS`], this comes again.
    Exit { call_id: CallId, to: Option<Address> },
    /// The caller waits in this queue now, with its music.
    Move { call_id: CallId, queue: String, music: String },
    /// Play these files, one after the other, over the caller's music.
    Announce { call_id: CallId, files: Vec<String> },
    /// Tell the others.
    Publish(Event),
    /// Tell the others.
    PublishAgent(AgentEvent),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    Joined,
    Reserved,
    Released,
    Connected,
    Left,
    /// From another queue into this one, to the place of the arrival there.
    Moved,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub at: UnixMs,
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

/// An agent is in another state than before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentEvent {
    pub at: UnixMs,
    pub agent: AgentName,
    pub state: AgentState,
    pub presence: Presence,
    /// For whom the agent rings, or with whom it talks.
    pub call_id: Option<CallId>,
    pub reason: String,
}

/// How ringing agents has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RingEnded {
    /// Caller and agent talk; at which address, if there were several.
    Connected { answered: Option<String> },
    /// Nobody took the caller; why, in a word and as a sentence.
    NotTaken(Missed, String),
    /// The caller hung up while the agent rang.
    HungUp,
    /// The call had ended or gone elsewhere before: it should not have been in line any more.
    Stale,
}

/// Why an agent did not take a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missed {
    NoAnswer,
    Busy,
    Declined,
    Unreachable,
    /// It is not the agent's doing.
    Fault,
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
    #[error("no such agent: {name:?}")]
    NoSuchAgent { name: String },
    #[error("queue {queue} is full: {max_calls} callers (its max_calls)")]
    QueueFull { queue: String, max_calls: u32 },
    #[error("queue {queue} has no agents who could serve it (its join_empty)")]
    NoAgents { queue: String },
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
    #[error("agent {agent} is {}; wanted: one without a call", state.word())]
    AgentBusy { agent: AgentName, state: AgentState },
    #[error("there are {limit} agents, as many as there may be")]
    TooManyAgents { limit: usize },
    #[error("{field} {value:?} is that of {holder} already")]
    Taken { field: &'static str, value: String, holder: String },
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
    /// `None`: too little is known.
    pub expected: Option<Expected>,
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wanted::Name(name) => write!(f, "{name:?}"),
            Wanted::Uri(uri) => write!(f, "none has the URI {uri}"),
        }
    }
}
