//! The core of the scheduler, without IO: which task is due, and what becomes of it.
//!
//! [`Wheel`] says which of many deadlines comes next. [`State`] and [`Event`] are the life of one
//! task. [`Agenda`] joins the two: what the shell must do now, and with which answer a task ends;
//! what they exchange is in `step.rs`.
//! Time is a [`Tick`], given by the caller; nothing here reads a clock.

mod active;
mod agenda;
mod id_hasher;
mod lane;
mod step;
mod task;
mod waiting;
mod wheel;

pub use agenda::{ATTEMPTS_PER_BATCH, Agenda, Output, SETTLEMENTS_PER_BATCH, StoreFailed};
pub use id_hasher::IdHasher;
pub use lane::{CLAIMS_PER_BATCH, LaneLimits};
pub use step::{Attempt, Claim, Fence, Granted, Lane, News, Settled, Settlement, Standing, Ticket};
pub use task::{
    Answer, Effect, Event, Legs, Next, Refused, Repeat, SHARDS, State, TaskId, TransferTo, Verdict,
    shard_of,
};
pub use wheel::{Full, Handle, Wheel};

/// Milliseconds of a clock that never steps; which moment is 0 is the caller's choice.
pub type Tick = u64;
