//! The flags that every service takes.

use clap::ValueEnum;
use std::net::SocketAddr;
use std::path::PathBuf;
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

    /// NATS server with JetStream. It must answer at start; later it may be away for a while. A name and
    /// password, or a token, may stand in it: `nats://NAME:PASSWORD@HOST:PORT`; then give it by the
    /// environment, since everybody on the host can read flags.
    #[arg(
        long,
        value_name = "URL",
        default_value = "nats://127.0.0.1:4222",
        env = "HOLDFAST_NATS_URL",
        hide_env_values = true
    )]
    pub nats_url: String,

    /// Name that NATS knows us by.
    #[arg(long, value_name = "NAME", requires = "nats_password_file")]
    pub nats_user: Option<String>,

    /// File whose first line is the password of --nats-user.
    #[arg(long, value_name = "FILE", requires = "nats_user")]
    pub nats_password_file: Option<PathBuf>,

    /// File by whose key we log in to NATS: `.creds`, as `nsc` makes them, or the seed of an nkey alone.
    #[arg(long, value_name = "FILE", conflicts_with = "nats_user")]
    pub nats_creds: Option<PathBuf>,

    /// Who may call gRPC: a file with lines of `NAME:TOKEN`; callers show `authorization: Bearer TOKEN`,
    /// and what they change is in the log with their name. The first line is what this service shows
    /// to the others; give all of them the same file. Health may be asked without. Default: anyone.
    #[arg(long, value_name = "FILE")]
    pub grpc_token_file: Option<PathBuf>,

    /// Certificate chain of this service for gRPC by TLS, as PEM, for the host names that others reach
    /// it by. It is shown to them as a client, too, where their URL is `https:`. Default: no TLS.
    #[arg(long, value_name = "FILE", requires = "grpc_key")]
    pub grpc_cert: Option<PathBuf>,

    /// Private key of --grpc-cert, as PEM.
    #[arg(long, value_name = "FILE", requires = "grpc_cert")]
    pub grpc_key: Option<PathBuf>,

    /// Authorities, as PEM, for gRPC by TLS: callers must show a certificate by one of them, and so
    /// must the services that this one calls by `https:`.
    #[arg(long, value_name = "FILE", requires = "grpc_cert")]
    pub grpc_ca: Option<PathBuf>,

    /// Address and port of a second gRPC port with health alone, without TLS and token, for probes
    /// that can do neither; none if not given.
    #[arg(long, value_name = "ADDR:PORT")]
    pub grpc_health: Option<SocketAddr>,

    /// Whether callers can ask what services, methods and messages there are, as grpcurl does.
    #[arg(long, value_name = "SWITCH", default_value = "on")]
    pub reflection: Switch,

    /// Collector of OpenTelemetry that takes traces by OTLP over gRPC, e.g. `http://127.0.0.1:4317`. The
    /// trace of a call has its `call_id`, without the dashes, as its id. Default: no traces.
    #[arg(long, value_name = "URL")]
    pub otlp_endpoint: Option<String>,

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
pub enum Switch {
    On,
    Off,
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
