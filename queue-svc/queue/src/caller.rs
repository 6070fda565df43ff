//! A caller who waits: in which queue, at which place, since when, given to which agent.

use crate::{Malformed, QueueId, Uri};
use std::fmt;
use std::sync::Arc;

/// Milliseconds since the Unix epoch: a queue outlives its process, an `Instant` does not.
pub type UnixMs = i64;

/// Size of mohqueue's column `call_id`.
const CALL_ID_MAX: usize = 100;
/// Longest agent address, in bytes.
const AGENT_MAX: usize = 255;
/// Longest user name in an agent address, in bytes.
const USER_MAX: usize = 64;

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

/// Whom to ring: a SIP URI, or `user/NAME` for a registered user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent(Arc<str>);

impl Agent {
    /// # Errors
    /// [`Malformed`] if it is neither, or longer than 255 bytes.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let named = |c: char| c.is_ascii_alphanumeric() || "_.+-".contains(c);
        let valid = match text.strip_prefix("user/") {
            Some(name) => (1..=USER_MAX).contains(&name.len()) && name.chars().all(named),
            None => text.len() <= AGENT_MAX && Uri::parse("agent", text).is_ok(),
        };
        if !valid {
            let wanted = "`sip:USER@HOST` of at most 255 bytes, or `user/NAME` with 1 to 64 of [A-Za-z0-9_.+-]";
            return Err(Malformed::new("agent", text, wanted));
        }
        Ok(Self(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A place in line: the lower one is served first, also after a restart.
///
/// Derived order: a field that is to rank above arrival, such as a priority, goes before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Counts up with each arrival at the service, over all queues.
    pub sequence: u64,
}

/// One attempt to give a caller to an agent, while it lasts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    pub id: AssignmentId,
    pub agent: Agent,
    pub reserved_at: UnixMs,
    /// How long the agent is rung, in ms.
    pub ring_ms: u32,
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
    pub place: Place,
    pub arrived_at: UnixMs,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_is_a_sip_uri_or_a_user() {
        for good in ["sip:1001@10.0.0.5:5062;transport=tcp", "sips:a@b.example", "user/1001"] {
            assert_eq!(Agent::parse(good).unwrap().as_str(), good);
        }
        let long = format!("sip:{}@b", "a".repeat(300));
        for bad in ["", "1001", "user/", "user/a b", "sip:", "tel:+491", "sip:a@b\r\nX: y", &long] {
            Agent::parse(bad).unwrap_err();
        }
    }
}
