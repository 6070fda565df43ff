//! The flags of queue-svc; `--help` is the manual.

use clap::Parser;

/// Queues, and who waits in them in which order.
///
/// Speaks gRPC (queue.v1.Queues). Keeps the callers in the tables mohqueues and mohqcalls of a
/// database, so that nobody loses their place when this process dies.
#[derive(Clone, Debug, Parser)]
#[command(version, mut_arg("grpc", |arg| arg.required(false).default_value("127.0.0.1:50054")))]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) common: boot::Common,

    /// Database of queues and callers: `sqlite:` and a file, which is made if it is not there. One
    /// queue-svc at a time may use it.
    #[arg(
        long,
        value_name = "URL",
        default_value = "sqlite:queue.db",
        env = "HOLDFAST_DATABASE_URL",
        hide_env_values = true
    )]
    pub(crate) database_url: String,

    /// gRPC of sip-edge, which rings the agents.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:50051")]
    pub(crate) sip_edge: String,

    /// How many callers may wait in all queues together, 1 to 1,000,000. Each queue has its own
    /// `max_calls` besides.
    #[arg(long, value_name = "CALLS", default_value_t = 5000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) max_calls: u32,
}
