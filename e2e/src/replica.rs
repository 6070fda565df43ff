//! One scheduler of several, as a process: killed, frozen and started again by tests.

use crate::{Process, binary};
use anyhow::Context as _;
use proto::scheduler::v1::scheduler_client::SchedulerClient;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};

/// How long it may take to serve; a million tasks on disk are read before.
const READY_LIMIT: Duration = Duration::from_secs(60);
/// Room for everything that is in flight at once: gRPC's own windows are for a few requests.
const WINDOW_BYTES: u32 = 16 << 20;

pub struct Replica {
    pub process: Process,
    url: String,
}

/// What a scheduler is started with.
#[derive(Clone, Debug)]
pub struct ReplicaFlags<'a> {
    pub database_url: &'a str,
    pub nats_url: &'a str,
    pub more: Vec<String>,
    /// LD_PRELOAD and the like.
    pub environment: Vec<(String, String)>,
}

impl Replica {
    /// Starts one on a free port and waits until it serves.
    pub fn start(flags: &ReplicaFlags<'_>) -> anyhow::Result<Self> {
        Self::start_binary(&binary("scheduler")?, flags)
    }

    pub fn start_binary(program: &Path, flags: &ReplicaFlags<'_>) -> anyhow::Result<Self> {
        let mut command = Command::new(program);
        command.args(["--grpc", "127.0.0.1:0", "--log-format", "json"]);
        command.args(["--nats-url", flags.nats_url, "--database-url", flags.database_url]);
        command.args(&flags.more).envs(flags.environment.iter().map(|(k, v)| (k, v)));
        let process = Process::spawn("scheduler", &mut command)?;
        let addr = process.wait_for("where it serves", READY_LIMIT, |line| {
            let line: serde_json::Value = serde_json::from_str(line).ok()?;
            Some(line.get("grpc")?.as_str()?.to_owned())
        })?;
        Ok(Self { process, url: format!("http://{addr}") })
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// A connection of its own.
    pub fn client(&self) -> anyhow::Result<SchedulerClient<Channel>> {
        let endpoint = Endpoint::from_shared(self.url.clone()).context("read its address")?;
        let channel =
            endpoint.tcp_nodelay(true).initial_connection_window_size(WINDOW_BYTES).connect_lazy();
        Ok(SchedulerClient::new(channel).max_decoding_message_size(WINDOW_BYTES as usize))
    }
}
