//! What all four binaries do the same way: flags, logs, metrics, traces, health, reflection, NATS, drain.
//!
//! Knows nothing about calls, media, tasks or queues; that is the test for adding anything here.
//!
//! A `main` parses its flags, hands them to [`run`], binds everything it needs, and then calls
//! [`Service::serve`]:
//!
//! ```no_run
//! # use clap::Parser; use std::process::ExitCode;
//! # #[derive(Parser)] struct Args { #[command(flatten)] common: boot::Common }
//! fn main() -> ExitCode {
//!     let args = Args::parse();
//!     boot::run("scheduler", &args.common.clone(), |service| async move {
//!         let grpc = service.bind_grpc().await?; // Early: a taken port is found before any work.
//!         let nats = service.connect_nats().await?;
//!         # let (_, routes, drained) = (nats, tonic::service::Routes::default(), async {});
//!         service.serve(grpc, &["scheduler.v1.Scheduler"], routes, drained).await
//!     })
//! }
//! ```

mod args;
mod audit;
mod credentials;
mod gated;
mod grpc;
mod guard;
mod journal;
mod line;
mod login;
mod logs;
mod metric;
mod nats;
mod otlp;
mod service;
mod trace;

pub use args::{Common, LogFormat, Switch};
pub use audit::about_call;
pub use gated::Gate;
pub use grpc::{Channel, channel, gated_channel};
pub use journal::{Event, Journal, UNACKED_MAX};
pub use line::{Line, Message, Refused};
pub use login::Login;
pub use metric::Metric;
pub use nats::{Nats, Publisher};
pub use service::{Service, run};
pub use trace::{CallTrace, call_ended, of_call};

/// Milliseconds since the Unix epoch, for what is stored or sent.
pub fn unix_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(i64::MAX)
}

/// A new UUIDv7 as text: what `call_id`, `task_id`, `event_id` and their like are.
pub fn new_id() -> String {
    uuid::Uuid::now_v7().to_string()
}
