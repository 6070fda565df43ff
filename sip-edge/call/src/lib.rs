//! Call control: what a call does with its legs, its media, its place in a queue and its tasks.
//!
//! A [`Call`] is a value without IO. It is told what its legs, the other services and the API said
//! ([`Input`]) and asks for what is to be done ([`Output`]); time is an argument. Everything that a
//! call needs to go on is in the value, and what survives its process is its [`Snapshot`].
//!
//! ```text
//! Early ──(leg A confirmed)──▶ Answered ──(leg B confirmed, media connected)──▶ Connected
//!   └──────────────────────────────┴──────────────── any end ───────────────────────┴──▶ Ended
//! ```
//!
//! Invariants, held by `tests/properties.rs`:
//! - A call that has ended has asked for the end of every leg that lives, once; has deleted its
//!   media session, once; has left its queue, once; and has answered every API request, once.
//! - Every command to another service is answered or given up after [`COMMAND_TIMEOUT`].
//! - Leg A survives everything that happens to an attempt at a leg B.

mod answering;
mod attempt;
mod call;
mod cause;
mod collecting;
mod conferring;
pub mod dtmf_info;
mod effect;
mod end;
mod input;
mod leg;
mod octets;
mod output;
mod overlay;
mod plan;
mod queueing;
mod replacing;
mod request;
mod shared;
mod snapshot;
mod step;

pub use call::{COMMAND_TIMEOUT, Call, Facts, Originated};
pub use cause::{COMPLETED_ELSEWHERE, Cause};
pub use conferring::PIN_ATTEMPTS_MAX;
pub use effect::{Destination, EFFECTS_MAX, Later, Legs, Occurrence};
pub use input::{
    Ask, CancelOutcome, CommandNumber, Failure, FailureKind, Input, LegEnd, LegNumber, LegSignal,
    Now, Reply, RequestNumber, Side,
};
pub use output::{
    Answer, CallState, CollectOutcome, EndedBy, Event, LegStage, LegView, MediaCommand, Output,
    QueueCommand, Refusal, RingOutcome, RingResult, SchedulerCommand, SipOrder, View, Warning,
};
pub use overlay::OVERLAYS_MAX;
pub use plan::{Action, AgentOrder, Collect, Conference, Enqueue, Plan};
pub use replacing::REPLACE_MAX;
pub use request::REQUESTS_MAX;
pub use snapshot::Snapshot;
