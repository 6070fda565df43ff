//! Agents: who they are, what they have said, and what they do now.
//!
//! What an agent has said (logged in, paused) and what an agent does (rings, talks, wraps up) are two
//! things: who logs out while talking is busy until the call ends, and offline then.

use crate::{Address, AssignmentId, CallId, Malformed, QueueId, UnixMs};
use std::fmt;
use std::sync::Arc;

/// Queues that one agent may serve.
pub const MEMBERSHIPS_MAX: usize = 64;
/// Highest level, order and weight of a membership.
pub const RANK_MAX: u32 = 1_000;
/// How long an agent who did not take a caller is left alone, if not said, in ms.
pub const DELAY_MS_DEFAULT: u32 = 5_000;
/// The shortest and the longest such time, in ms: with none, a phone that is busy would be called
/// as fast as it refuses.
pub const DELAY_MS: std::ops::RangeInclusive<u32> = 1_000..=3_600_000;
/// The longest wrap-up, in ms.
pub const WRAP_UP_MS_MAX: u32 = 3_600_000;
/// The most calls that may be missed before an agent is paused.
pub const MISSED_MAX: u32 = 1_000;

const NAME_MAX: usize = 64;

/// An agent's name, which never changes; cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AgentName(Arc<str>);

impl AgentName {
    /// # Errors
    /// [`Malformed`] unless it is 1 to 64 of `[A-Za-z0-9_.-]`.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        if !(1..=NAME_MAX).contains(&text.len()) || !text.chars().all(plain) {
            return Err(Malformed::new("name", text, "1 to 64 of [A-Za-z0-9_.-]"));
        }
        Ok(Self(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for AgentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for AgentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// That an agent serves a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Membership {
    pub queue: QueueId,
    /// Whoever is free at the lowest level is rung.
    pub level: u32,
    /// The place among the agents of the level, for strategies that go by it.
    pub order: u32,
    /// Of the queues in which callers wait, an agent serves the one with the highest weight.
    pub weight: u32,
}

/// An agent as people write it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentSettings {
    pub name: AgentName,
    pub address: Address,
    /// How long the agent is left alone after a call, in ms.
    pub wrap_up_ms: u32,
    /// After the agent declined, was busy, did not answer or could not be reached, in ms.
    pub reject_delay_ms: u32,
    pub busy_delay_ms: u32,
    pub no_answer_delay_ms: u32,
    /// So many calls missed one after the other pause the agent; 0: never.
    pub max_missed: u32,
    pub memberships: Vec<Membership>,
}

impl AgentSettings {
    /// With the defaults in place of delays of 0.
    ///
    /// # Errors
    /// [`Malformed`] for the first field that is out of its range.
    pub fn check(mut self) -> Result<Self, Malformed> {
        let delays = [
            ("reject_delay_ms", &mut self.reject_delay_ms),
            ("busy_delay_ms", &mut self.busy_delay_ms),
            ("no_answer_delay_ms", &mut self.no_answer_delay_ms),
        ];
        for (field, delay_ms) in delays {
            if *delay_ms == 0 {
                *delay_ms = DELAY_MS_DEFAULT;
            }
            within(
                field,
                *delay_ms,
                "1000 to 3600000, or 0 for 5000",
                DELAY_MS.contains(delay_ms),
            )?;
        }
        let wrap_up_ms = self.wrap_up_ms;
        within("wrap_up_ms", wrap_up_ms, "at most 3600000", wrap_up_ms <= WRAP_UP_MS_MAX)?;
        within("max_missed", self.max_missed, "at most 1000", self.max_missed <= MISSED_MAX)?;
        let count = self.memberships.len();
        within("queues", count, "at most 64 queues", count <= MEMBERSHIPS_MAX)?;
        for (at, it) in self.memberships.iter().enumerate() {
            let twice = self.memberships[..at].iter().any(|other| other.queue == it.queue);
            within("queues", format!("one of id {} twice", it.queue.0), "each queue once", !twice)?;
            for (field, rank) in [("level", it.level), ("order", it.order), ("weight", it.weight)] {
                within(field, rank, "at most 1000", rank <= RANK_MAX)?;
            }
        }
        Ok(self)
    }
}

fn within(
    field: &'static str,
    got: impl ToString,
    wanted: &'static str,
    holds: bool,
) -> Result<(), Malformed> {
    if holds { Ok(()) } else { Err(Malformed::new(field, &got.to_string(), wanted)) }
}

/// What an agent has said, or what was decided for one who did not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Presence {
    LoggedOut,
    Ready,
    /// Logged in, and not to be rung; why.
    Paused(String),
}

/// What an agent does for the queues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    Free,
    /// On disk this is `Free`: that an agent rings is in the caller's row.
    Ringing {
        assignment_id: AssignmentId,
        call_id: CallId,
    },
    /// With a caller of this queue, since then.
    Talking {
        call_id: CallId,
        queue: QueueId,
        since: UnixMs,
    },
    WrapUp {
        until: UnixMs,
    },
}

/// An agent, whole: what is stored is what is restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    pub settings: AgentSettings,
    pub presence: Presence,
    pub work: Work,
    /// Since when there was nothing to do, or the last call that was not taken.
    pub idle_since: UnixMs,
    /// Not rung before then.
    pub rest_until: UnixMs,
    /// Calls not answered, one after the other.
    pub missed: u32,
}

/// What others see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgentState {
    Offline,
    Idle,
    Ringing,
    /// On a call, of a queue or another one.
    Busy,
    WrapUp,
    Paused,
}

impl Agent {
    /// One who has never logged in.
    pub fn new(settings: AgentSettings) -> Self {
        let (presence, work) = (Presence::LoggedOut, Work::Free);
        Self { settings, presence, work, idle_since: 0, rest_until: 0, missed: 0 }
    }

    pub fn name(&self) -> &AgentName {
        &self.settings.name
    }

    /// `elsewhere`: on a call that is not of a queue.
    pub fn state(&self, elsewhere: bool) -> AgentState {
        match (&self.work, &self.presence) {
            (Work::Ringing { .. }, _) => AgentState::Ringing,
            (Work::Talking { .. }, _) => AgentState::Busy,
            _ if elsewhere => AgentState::Busy,
            (_, Presence::LoggedOut) => AgentState::Offline,
            (_, Presence::Paused(_)) => AgentState::Paused,
            (Work::WrapUp { .. }, Presence::Ready) => AgentState::WrapUp,
            (Work::Free, Presence::Ready) => AgentState::Idle,
        }
    }

    /// As on disk.
    pub fn stored(&self) -> Self {
        let work = match &self.work {
            Work::Ringing { .. } => Work::Free,
            other => other.clone(),
        };
        Self { work, ..self.clone() }
    }

    /// When something ends by itself.
    pub(crate) fn due_at(&self, now: UnixMs) -> Option<UnixMs> {
        match self.work {
            Work::WrapUp { until } => Some(until),
            _ => Some(self.rest_until).filter(|at| *at > now),
        }
    }
}

impl AgentState {
    pub fn word(self) -> &'static str {
        match self {
            Self::Offline => "offline",
            Self::Idle => "idle",
            Self::Ringing => "ringing",
            Self::Busy => "busy",
            Self::WrapUp => "wrap-up",
            Self::Paused => "paused",
        }
    }
}

/// What is asked of an agent's presence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PresenceOrder {
    Login,
    Logout,
    Pause {
        reason: String,
    },
    Unpause,
    /// Offline: login. Paused: unpause. Else pause.
    Toggle,
    /// Ends the wrap-up.
    Ready,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> AgentSettings {
        AgentSettings {
            name: AgentName::parse("1001").unwrap(),
            address: Address::parse("address", "user/1001").unwrap(),
            wrap_up_ms: 0,
            reject_delay_ms: 0,
            busy_delay_ms: 0,
            no_answer_delay_ms: 0,
            max_missed: 0,
            memberships: vec![member(1), member(2)],
        }
    }

    fn member(queue: i64) -> Membership {
        Membership { queue: QueueId(queue), level: 0, order: 0, weight: 0 }
    }

    #[test]
    fn the_first_field_out_of_range_is_named() {
        assert_eq!(settings().check().unwrap().busy_delay_ms, DELAY_MS_DEFAULT);
        let refused = |field: &str, change: fn(&mut AgentSettings)| {
            let mut settings = settings();
            change(&mut settings);
            assert_eq!(settings.check().unwrap_err().field, field);
        };
        refused("reject_delay_ms", |it| it.reject_delay_ms = 999);
        refused("busy_delay_ms", |it| it.busy_delay_ms = 3_600_001);
        refused("wrap_up_ms", |it| it.wrap_up_ms = 3_600_001);
        refused("max_missed", |it| it.max_missed = 1_001);
        refused("queues", |it| it.memberships.push(member(1)));
        refused("queues", |it| it.memberships = (0..65).map(member).collect());
        refused("level", |it| it.memberships[1].level = 1_001);
    }

    #[test]
    fn who_logs_out_while_talking_is_busy_first_and_offline_then() {
        let mut agent = Agent::new(settings());
        let call_id = CallId::parse("c").unwrap();
        agent.work = Work::Talking { call_id, queue: QueueId(1), since: 0 };
        assert_eq!(agent.state(false), AgentState::Busy);
        agent.work = Work::Free;
        assert_eq!(agent.state(true), AgentState::Busy);
        assert_eq!(agent.state(false), AgentState::Offline);
    }
}
