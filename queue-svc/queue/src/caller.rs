//! A caller who waits: in which queue, at which place, since when, given to which agent.

use crate::{Address, AgentName, Malformed, QueueId};
use std::cmp::Reverse;
use std::fmt;
use std::sync::Arc;

/// Milliseconds since the Unix epoch: a queue outlives its process, an `Instant` does not.
pub type UnixMs = i64;

/// Size of mohqueue's column `call_id`.
const CALL_ID_MAX: usize = 100;

/// Holdfast's id of a call; cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(Arc<str>);

impl CallId {
    /// # Errors
    /// [`Malformed`] unless it is 1 to 100 visible ASCII characters.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let visible = text.bytes().all(|b| b.is_ascii_graphic());
        if text.is_empty() || text.len() > CALL_ID_MAX || !visible {
            return Err(Malformed::new("call_id", text, "1 to 100 visible ASCII characters"));
        }
        Ok(Self(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Names one attempt to give a caller to an agent; unique for ever, chosen by the owner of the core.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AssignmentId(Arc<str>);

impl AssignmentId {
    pub fn new(id: &str) -> Self {
        Self(id.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for AssignmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The highest priority of a caller; the lowest, and the usual one, is 0.
pub const PRIORITY_MAX: u8 = 100;

/// A place in line: the lower one is served first, also after a restart and in another queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The higher one goes first.
    pub priority: Reverse<u8>,
    /// Goes up with the time of the arrival, in Unix µs, over all queues; no two of one priority
    /// have the same.
    pub sequence: u64,
}

/// Whose phone rings for a caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub address: Address,
    /// `None`: nobody whom we know as an agent.
    pub agent: Option<AgentName>,
}

/// One attempt to give a caller to an agent, or to one of several, while it lasts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    pub id: AssignmentId,
    /// At least one.
    pub targets: Vec<Target>,
    pub reserved_at: UnixMs,
    /// How long they are rung, in ms.
    pub ring_ms: u32,
}

impl Assignment {
    /// The addresses, separated by spaces.
    pub fn addresses(&self) -> String {
        let addresses: Vec<&str> = self.targets.iter().map(|it| it.address.as_str()).collect();
        addresses.join(" ")
    }
}

/// mohqueue's `call_status`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallerState {
    /// Has a place; is not answered yet.
    Entering,
    /// Waits and hears music.
    InQueue,
    /// An agent is rung; keeps the place until that is decided.
    Leaving(Assignment),
}

/// A row of `mohqcalls`, with what we add to it. Whole: what is stored is what is restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    pub call_id: CallId,
    pub queue: QueueId,
    /// The queue that was asked for; the caller may have been sent on from there.
    pub asked: QueueId,
    pub place: Place,
    pub arrived_at: UnixMs,
    /// Since when in this queue.
    pub since: UnixMs,
    /// The From header field of leg A.
    pub from: String,
    /// The Contact of leg A.
    pub contact: String,
    pub state: CallerState,
}

impl Caller {
    /// Ms since arrival; 0 if the clock went back.
    pub fn waited_ms(&self, now: UnixMs) -> u64 {
        u64::try_from(now.saturating_sub(self.arrived_at)).unwrap_or(0)
    }

    pub fn assignment(&self) -> Option<&Assignment> {
        match &self.state {
            CallerState::Leaving(assignment) => Some(assignment),
            CallerState::Entering | CallerState::InQueue => None,
        }
    }
}
