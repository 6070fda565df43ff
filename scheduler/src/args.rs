//! The flags of the scheduler.

use boot::Common;
use clap::Parser;
use std::time::Duration;

/// Does something to a call at a time, once, and tells what became of it.
///
/// A task is on disk before the reply to `Schedule`. After a restart all pending tasks are armed
/// again, and those that are overdue fire at once, in the order of their deadlines. On SIGTERM the
/// scheduler begins nothing more, finishes what it is firing, and ends; the rest is on disk.
#[derive(Parser, Clone, Debug)]
#[command(name = "scheduler", version, mut_arg("grpc", |arg| arg.default_value("127.0.0.1:50053")))]
pub(crate) struct Args {
    /// Where tasks are kept: `sqlite:FILE`, made if there is none. One scheduler at a time may use it.
    #[arg(long, value_name = "URL", default_value = "sqlite:scheduler.db")]
    pub(crate) database_url: String,

    /// gRPC of sip-edge, which brings about what tasks ask for. It may start later.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:50051")]
    pub(crate) sip_edge: String,

    /// How many tasks that have not ended there may be; more are refused with RESOURCE_EXHAUSTED. As
    /// many ended ones are kept at most.
    #[arg(long, value_name = "COUNT", default_value_t = 1_000_000,
          value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    pub(crate) max_tasks: u32,

    /// How many tasks that have not ended one call may have; more are refused with RESOURCE_EXHAUSTED.
    #[arg(long, value_name = "COUNT", default_value_t = 100,
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) max_tasks_per_call: u32,

    /// How long ended tasks can be asked about, and idempotency keys are remembered, e.g. `30m`, `1d`.
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = humantime::parse_duration)]
    pub(crate) retention: Duration,

    #[command(flatten)]
    pub(crate) common: Common,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_flags_are_well_formed_and_have_their_defaults() {
        Args::command().debug_assert();
        let args = Args::parse_from(["scheduler"]);
        assert_eq!(args.common.grpc.to_string(), "127.0.0.1:50053");
        assert_eq!(args.retention, Duration::from_secs(3600));
        assert!(Args::try_parse_from(["scheduler", "--max-tasks", "0"]).is_err());
    }
}
