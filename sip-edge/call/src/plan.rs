//! Call plans: what a call does, in order.
//!
//! A value of these types is valid: whoever makes it from text or from the wire has checked names
//! and ranges. A nested plan (`on`, `otherwise`) takes the place of what would follow.

use crate::{Cause, Later, shared};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Actions, run one after the other; when the last one has ended, the call is hung up with
/// NORMAL_CLEARING. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<Action>", into = "Vec<Action>")]
pub struct Plan(Arc<[Action]>);

impl Plan {
    pub fn new(actions: impl IntoIterator<Item = Action>) -> Self {
        Self(actions.into_iter().collect())
    }

    /// The action at `index`, counted from 0; `None` after the last.
    pub fn action(&self, index: usize) -> Option<&Action> {
        self.0.get(index)
    }
}

impl From<Vec<Action>> for Plan {
    fn from(actions: Vec<Action>) -> Self {
        Self(actions.into())
    }
}

impl From<Plan> for Vec<Action> {
    fn from(plan: Plan) -> Self {
        plan.0.to_vec()
    }
}

/// One step of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// Answers leg A. Implied by every action that needs media.
    Answer,
    /// Plays a file to its end.
    Play { file: String },
    /// Collects digits and branches on them.
    Collect(#[serde(with = "shared")] Arc<Collect>),
    /// Schedules what is to happen to the call, under a name.
    Schedule { after_ms: u64, what: Later, name: String },
    /// Cancels the task of that name.
    Cancel { name: String },
    /// Waits in a queue with music.
    Enqueue(#[serde(with = "shared")] Arc<Enqueue>),
    /// Tells queue-svc what an agent says.
    Agent { does: AgentOrder, agent: Option<String>, otherwise: Option<Plan> },
    /// Joins a conference; the plan goes on when somebody sends leg A out of it.
    Conference(#[serde(with = "shared")] Arc<Conference>),
    /// Rings somebody and connects both; `otherwise: None`: hang up with the cause of the failure.
    Dial { target: String, ring: Duration, otherwise: Option<Plan> },
    /// Ends the call.
    Hangup { cause: Cause },
    /// Keeps the call up until an API call or a task does something with it.
    Park,
}

impl Action {
    /// Its name as in the protobuf.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Answer => "answer",
            Self::Play { .. } => "play",
            Self::Collect(_) => "collect",
            Self::Schedule { .. } => "schedule",
            Self::Cancel { .. } => "cancel",
            Self::Enqueue(_) => "enqueue",
            Self::Agent { .. } => "agent",
            Self::Conference(_) => "conference",
            Self::Dial { .. } => "dial",
            Self::Hangup { .. } => "hangup",
            Self::Park => "park",
        }
    }
}

/// How a call waits in a queue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enqueue {
    /// `None`: the queue whose URI is the request URI.
    pub queue: Option<String>,
    /// Who has a higher one goes before others.
    pub priority: u8,
    /// Digits with which the caller leaves, and what follows.
    pub on: BTreeMap<char, Plan>,
    /// What follows if the queue does not take the caller, or lets it wait no longer; `None`: it is
    /// refused, or the plan goes on.
    pub otherwise: Option<Plan>,
}

/// What an agent of the queues says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AgentOrder {
    Login,
    Logout,
    Pause,
    Unpause,
    Toggle,
    Ready,
}

/// How digits are collected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collect {
    /// File that is played meanwhile; the first digit stops it.
    pub prompt: Option<String>,
    /// So many digits end the collection; at least 1.
    pub max_digits: usize,
    /// Silence before the first digit, from the end of the prompt.
    pub timeout: Duration,
    /// Silence between two digits.
    pub digit_timeout: Duration,
    /// Digits that end the collection and are not part of it.
    pub terminators: String,
    /// What follows for exactly these digits, also if time was up after them.
    pub on: BTreeMap<String, Plan>,
    /// What follows for others, or none; `None`: the plan goes on.
    pub otherwise: Option<Plan>,
}

/// Which conference, and how it is when leg A makes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conference {
    pub name: String,
    /// Digits that the caller has to dial first; empty: none.
    pub pin: String,
    /// Played while it dials.
    pub pin_prompt: Option<String>,
    /// Participants that it takes; 0: as many as media-relay does.
    pub participants_max: u32,
    /// What a participant hears while it is alone; empty: silence.
    pub music: String,
}
