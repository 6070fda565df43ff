//! Who waits in which queue, in which order, and which agents are rung for whom. No IO.
//!
//! [`Queues`] is a value. Its owner calls `handle_*` with the time and what has happened, writes
//! the rows of [`Queues::poll_output`] to disk, and only then does what the other outputs say and
//! replies. After a crash, [`Queues::restore`] with the rows that were on disk goes on from there.
//!
//! - The order is by [`Place`], given on arrival; nothing that happens later changes it.
//! - A caller is given to one agent at a time: reserved, then committed (gone) or released (back,
//!   at the same place, waiting since the same time).
//! - Everything may come twice: the second time changes nothing.

mod address;
mod agent;
mod caller;
mod line;
mod malformed;
mod pace;
mod policy;
mod queues;
mod settings;
mod spoken;
mod tally;
mod timers;
mod uri;

pub use address::Address;
pub use agent::{
    Agent, AgentName, AgentSettings, AgentState, DELAY_MS, DELAY_MS_DEFAULT, MEMBERSHIPS_MAX,
    MISSED_MAX, Membership, Presence, PresenceOrder, RANK_MAX, WRAP_UP_MS_MAX, Work,
};
pub use caller::{
    Assignment, AssignmentId, CallId, Caller, CallerState, PRIORITY_MAX, Place, Target, UnixMs,
};
pub use line::Count;
pub use malformed::Malformed;
pub use pace::{Expected, GAP_AGE_MS, GAPS_MIN};
pub use policy::{RING_ALL_MAX, Strategy};
pub use queues::{
    AGENTS_MAX, AgentEvent, AgentView, CHECK_AGAIN_MS, CallSeen, ENTER_MS, EXIT_AGAIN_MS, Enqueue,
    Event, EventKind, Found, Missed, Output, Queues, Refusal, Resolution, Retrieve, RingEnded,
    VERIFY_MS, View, Wanted,
};
pub use settings::{
    ANNOUNCE_MS_MIN, EmptyRule, MAX_CALLS_DEFAULT, MAX_CALLS_MAX, Overflow, PERIODIC_MAX, QueueId,
    RING_MS, RING_MS_DEFAULT, SERVICE_LEVEL_MS_DEFAULT, Settings, SettingsRow, WAIT_MS_MAX,
};
pub use spoken::PROMPTS;
pub use tally::{AgentTally, Departure, QueueTally};
pub use uri::Uri;
