//! Kamailio in front of several sip-edges, by the configuration in `e2e/kamailio/dispatcher.cfg`.

use crate::{Process, free_port};
use anyhow::Context as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// How long it may take to find out what a sip-edge does.
const FIND_OUT_LIMIT: Duration = Duration::from_secs(30);
const STOP_LIMIT: Duration = Duration::from_secs(10);
const CONFIGURATION: &str = include_str!("../kamailio/dispatcher.cfg");

pub struct Dispatcher {
    sip: SocketAddr,
    /// Its configuration and list.
    _folder: TempDir,
    process: Process,
}

impl Dispatcher {
    /// Starts it; it takes all of `edges` to serve until it has asked them.
    ///
    /// # Errors
    /// If it does not start.
    pub fn start(edges: &[SocketAddr]) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("make a folder for Kamailio")?;
        let sip = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let list = folder.path().join("dispatcher.list");
        let lines: Vec<String> = edges.iter().map(|edge| format!("1 sip:{edge}\n")).collect();
        std::fs::write(&list, lines.concat())?;
        let configuration = CONFIGURATION
            .replace("{port}", &sip.port().to_string())
            .replace("{edges}", &list.display().to_string());
        let file = folder.path().join("kamailio.cfg");
        std::fs::write(&file, configuration)?;
        let mut command = Command::new("kamailio");
        command.args(["-DD", "-E", "-f"]).arg(&file).arg("-Y").arg(folder.path());
        let process = Process::spawn("kamailio", &mut command)?;
        process.wait_for("that it serves", FIND_OUT_LIMIT, |line| {
            line.contains("dispatcher: serving").then_some(())
        })?;
        Ok(Self { sip, _folder: folder, process })
    }

    /// Where callers send SIP.
    pub fn sip(&self) -> SocketAddr {
        self.sip
    }

    /// How often it has found out that `edge` gets no calls.
    pub fn downs(&self, edge: SocketAddr) -> usize {
        let down = found("down", edge);
        self.output().lines().filter(|line| line.contains(&down)).count()
    }

    /// Waits until it has found out so often that `edge` gets no calls.
    ///
    /// # Errors
    /// If that takes too long.
    pub fn wait_downs(&self, edge: SocketAddr, wanted: usize) -> anyhow::Result<()> {
        self.wait(&found("down", edge), wanted)
    }

    /// Waits until it has found out so often that `edge` gets calls again.
    ///
    /// # Errors
    /// If that takes too long.
    pub fn wait_ups(&self, edge: SocketAddr, wanted: usize) -> anyhow::Result<()> {
        self.wait(&found("up", edge), wanted)
    }

    fn wait(&self, text: &str, wanted: usize) -> anyhow::Result<()> {
        let mut seen = 0;
        self.process.wait_for(&format!("{text:?} {wanted} times"), FIND_OUT_LIMIT, |line| {
            seen += usize::from(line.contains(text));
            (seen >= wanted).then_some(())
        })
    }

    pub fn output(&self) -> String {
        self.process.output()
    }
}

/// What the configuration prints.
fn found(what: &str, edge: SocketAddr) -> String {
    format!("dispatcher: {what} sip:{edge}|")
}

impl Drop for Dispatcher {
    fn drop(&mut self) {
        let _ = self.process.stop(STOP_LIMIT); // Its children go with it only if it may say so.
    }
}
