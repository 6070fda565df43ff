//! A nats-server with JetStream, on a free port, with its own folder.

use crate::Process;
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// How long nats-server may take to be ready.
const READY_LIMIT: Duration = Duration::from_secs(20);

pub struct NatsServer {
    process: Process,
    store: TempDir,
    port: u16,
}

impl NatsServer {
    pub fn start() -> anyhow::Result<Self> {
        let store = tempfile::tempdir()?;
        Self::start_on(store, None)
    }

    fn start_on(store: TempDir, port: Option<u16>) -> anyhow::Result<Self> {
        let port_flag = port.map_or("-1".to_owned(), |port| port.to_string()); // -1: a free one.
        let mut command = Command::new("nats-server");
        command.args(["-a", "127.0.0.1", "-p", &port_flag, "-js", "-sd"]).arg(store.path());
        let process = Process::spawn("nats-server", &mut command)?;
        let port = process.wait_for("its port", READY_LIMIT, |line| {
            line.split_once("Listening for client connections on 127.0.0.1:")?.1.trim().parse().ok()
        })?;
        process.wait_for("that it is ready", READY_LIMIT, |line| {
            line.contains("Server is ready").then_some(())
        })?;
        Ok(Self { process, store, port })
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// SIGKILL and a new process on the same port and store.
    pub fn restart(mut self) -> anyhow::Result<Self> {
        self.process.kill();
        Self::start_on(self.store, Some(self.port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comes_back_on_the_same_port() {
        let server = NatsServer::start().unwrap();
        let url = server.url();
        assert_eq!(server.restart().unwrap().url(), url);
    }
}
