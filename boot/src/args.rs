//! The flags that every service takes.

use clap::ValueEnum;
use std::net::SocketAddr;
use std::time::Duration;

/// Flatten this into a service's own `Args`, and give it the service's own port with
/// `#[command(mut_arg("grpc", |it| it.default_value("127.0.0.1:50051")))]`.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Common options")]
pub struct Common {
    /// Address and port where gRPC (operators and the other services) listens; port 0 takes a free one.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:0")]
    pub grpc: SocketAddr,

    /// Address and port of the Prometheus metrics page `/metrics`; none if not given.
    #[arg(long, value_name = "ADDR:PORT")]
    pub metrics: Option<SocketAddr>,

    /// NATS server with JetStream. It must answer at start; later it may be away for a while.
    #[arg(long, value_name = "URL", default_value = "nats://127.0.0.1:4222")]
    pub nats_url: String,

    /// What to log: a level, or levels per module, e.g. `info,sip_edge=debug`.
    #[arg(long, value_name = "FILTER", default_value = "info")]
    pub log: String,

    /// How to log, on stderr.
    #[arg(long, value_name = "FORMAT", default_value = "auto")]
    pub log_format: LogFormat,

    /// How long what is active may go on after SIGTERM, e.g. `30s`, `2h`. A second signal ends it at once.
    #[arg(long, value_name = "DURATION", default_value = "2h", value_parser = humantime::parse_duration)]
    pub drain: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// `human` on a terminal, else `json`.
    Auto,
    /// One coloured line per event.
    Human,
    /// One JSON object per event.
    Json,
}
