//! Who waits in which queue, in which order, and which agent is rung for whom. No IO.
//!
//! [`Queues`] is a value. Its owner calls `handle_*` with the time and what has happened, writes
//! the rows of [`Queues::poll_output`] to disk, and only then does what the other outputs say and
//! replies. After a crash, [`Queues::restore`] with the rows that were on disk goes on from there.
//!
//! - The order is by [`Place`], given on arrival; nothing that happens later changes it.
//! - A caller is given to one agent at a time: reserved, then committed (gone) or released (back,
//!   at the same place, waiting since the same time).
//! - Everything may come twice: the second time changes nothing.

mod caller;
mod line;
mod malformed;
mod queues;
mod settings;
mod uri;

pub use caller::{Agent, Assignment, AssignmentId, CallId, Caller, CallerState, Place, UnixMs};
pub use line::Count;
pub use malformed::Malformed;
pub use queues::{
    CHECK_AGAIN_MS, ENTER_MS, Enqueue, Event, EventKind, Found, Output, Queues, Refusal,
    Resolution, Retrieve, RingEnded, VERIFY_MS, View, Wanted,
};
pub use settings::{MAX_CALLS_DEFAULT, MAX_CALLS_MAX, QueueId, Settings, SettingsRow};
pub use uri::Uri;
