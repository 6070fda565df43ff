//! The scheduler's binary beside a real NATS, with a sip-edge that does what the test says.

mod actions;
mod api;
mod crash;
mod edge;
mod firing;
mod stack;
mod start;
mod watch;
