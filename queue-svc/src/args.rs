//! The flags of queue-svc; `--help` is the manual.

use crate::store;
use clap::{Parser, ValueEnum};
use std::time::Duration;

/// Queues, and who waits in them in which order.
///
/// Speaks gRPC (queue.v1.Queues). Keeps the callers in the tables mohqueues and mohqcalls of a
/// database, so that nobody loses their place when this process dies.
#[derive(Clone, Debug, Parser)]
#[command(version, mut_arg("grpc", |arg| arg.required(false).default_value("127.0.0.1:50054")))]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) common: boot::Common,

    /// Database of queues and callers: `sqlite:` and a file, which is made if it is not there, for one
    /// queue-svc at a time; or `postgres://USER@HOST/DATABASE` or `mysql://USER@HOST/DATABASE` (MariaDB,
    /// MySQL), for replicas, of which one owns the queues and the others hand requests on to it; with
    /// `?sslmode=verify-full`, or `?ssl-mode=VERIFY_IDENTITY`, by TLS.
    #[arg(
        long,
        value_name = "URL",
        default_value = "sqlite:queue.db",
        env = "HOLDFAST_DATABASE_URL",
        hide_env_values = true
    )]
    pub(crate) database_url: String,

    /// What a commit of SQLite waits for. `normal`: it survives the death of this process, but a power
    /// cut may take the last moments. `full`: it waits for the disk, and survives that, too.
    #[arg(long, value_name = "MODE", default_value = "normal")]
    pub(crate) sqlite_synchronous: Synchronous,

    /// Where other replicas reach the gRPC of this one, if not at --grpc, e.g. `http://10.0.0.7:50054`.
    #[arg(long, value_name = "URL")]
    pub(crate) advertise_grpc: Option<String>,

    /// How long changes are kept for those who watch and were away.
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = humantime::parse_duration)]
    pub(crate) retention: Duration,

    /// Folder of the words of announcements, below media-relay's `--media-dir`: you-are-number,
    /// wait-within, wait-within-a-minute, minutes, number/0 to number/20, number/30 to number/90,
    /// number/100 to number/900, number/thousand, each with an extension that media-relay knows.
    #[arg(long, value_name = "FOLDER", default_value = "prompts/queue")]
    pub(crate) prompts: String,

    /// gRPC of sip-edge, which rings the agents.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:50051")]
    pub(crate) sip_edge: String,

    /// How many callers may wait in all queues together, 1 to 1,000,000. Each queue has its own
    /// `max_calls` besides.
    #[arg(long, value_name = "CALLS", default_value_t = 5000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) max_calls: u32,
}

/// SQLite's `PRAGMA synchronous`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Synchronous {
    Normal,
    Full,
}

impl From<Synchronous> for store::Synchronous {
    fn from(mode: Synchronous) -> Self {
        match mode {
            Synchronous::Normal => Self::Normal,
            Synchronous::Full => Self::Full,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_says_what_help_says() {
        e2e::manual::check("queue-svc", <Args as clap::CommandFactory>::command());
    }
}
