//! What tests and the demo run against: real servers, services and phones as child processes on
//! loopback, each with its own ports and folder, gone when the test is.

pub mod audio;
mod baresip;
mod nats;
pub mod phone;
mod process;
mod reaper;
mod sipp;

pub use baresip::{Account, Baresip};
pub use nats::NatsServer;
pub use process::{Process, binary};
pub use sipp::{Scenario, Sipp, Tally};
