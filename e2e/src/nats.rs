//! A nats-server with JetStream, with its own port and folder.

use crate::Process;
use anyhow::Context as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// How long nats-server may take to be ready.
const READY_LIMIT: Duration = Duration::from_secs(20);

pub struct NatsServer {
    process: Process,
    store: PathBuf,
    port: u16,
    /// The store, if it goes with the server.
    _temporary: Option<TempDir>,
}

impl NatsServer {
    /// On a free port, with a folder that goes with it.
    pub fn start() -> anyhow::Result<Self> {
        let temporary = tempfile::tempdir()?;
        let server = Self::start_at(temporary.path(), None)?;
        Ok(Self { _temporary: Some(temporary), ..server })
    }

    /// As [`NatsServer::start`], for who has this name and password alone.
    pub fn start_for(user: &str, password: &str) -> anyhow::Result<Self> {
        let temporary = tempfile::tempdir()?;
        let flags = ["--user", user, "--pass", password];
        let server = Self::start_with(temporary.path(), None, &flags)?;
        Ok(Self { _temporary: Some(temporary), ..server })
    }

    /// As [`NatsServer::start`], with this in its configuration file.
    pub fn start_configured(config: &str) -> anyhow::Result<Self> {
        let temporary = tempfile::tempdir()?;
        let file = temporary.path().join("nats.conf");
        std::fs::write(&file, config).context("write the configuration of NATS")?;
        let file = file.to_str().context("name the configuration of NATS")?;
        let server = Self::start_with(temporary.path(), None, &["-c", file])?;
        Ok(Self { _temporary: Some(temporary), ..server })
    }

    /// On `port`, or a free one, with JetStream's files in `store`.
    pub fn start_at(store: &Path, port: Option<u16>) -> anyhow::Result<Self> {
        Self::start_with(store, port, &[])
    }

    fn start_with(store: &Path, port: Option<u16>, flags: &[&str]) -> anyhow::Result<Self> {
        let port_flag = port.map_or("-1".to_owned(), |port| port.to_string()); // -1: a free one.
        let mut command = Command::new("nats-server");
        command.args(["-a", "127.0.0.1", "-p", &port_flag, "-js", "-sd"]).arg(store).args(flags);
        let process = Process::spawn("nats-server", &mut command)?;
        let port = process.wait_for("its port", READY_LIMIT, |line| {
            line.split_once("Listening for client connections on 127.0.0.1:")?.1.trim().parse().ok()
        })?;
        process.wait_for("that it is ready", READY_LIMIT, |line| {
            line.contains("Server is ready").then_some(())
        })?;
        Ok(Self { process, store: store.to_owned(), port, _temporary: None })
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// SIGKILL and a new process on the same port and store.
    pub fn restart(mut self) -> anyhow::Result<Self> {
        self.process.kill();
        let restarted = Self::start_at(&self.store, Some(self.port))?;
        Ok(Self { _temporary: self._temporary.take(), ..restarted })
    }

    pub fn process(&mut self) -> &mut Process {
        &mut self.process
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
