//! dnsmasq, a name server that is not ours, with the records of a test.

use crate::{Process, free_port};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

const READY_LIMIT: Duration = Duration::from_secs(20);

pub struct Dnsmasq {
    addr: SocketAddr,
    _process: Process,
}

impl Dnsmasq {
    /// On a free port of loopback; `records` are flags of dnsmasq. It knows nothing else.
    pub fn start(records: &[impl AsRef<str>]) -> anyhow::Result<Self> {
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let mut command = Command::new("dnsmasq");
        let port = format!("--port={}", addr.port());
        command.args(["--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv"]);
        command.args(["--no-hosts", "--listen-address=127.0.0.1", "--bind-interfaces", &port]);
        command.args(["--log-facility=-", "--user=", "--group="]);
        command.args(records.iter().map(AsRef::as_ref));
        let process = Process::spawn("dnsmasq", &mut command)?;
        let started = |line: &str| line.contains("started").then_some(());
        process.wait_for("that it has started", READY_LIMIT, started)?;
        Ok(Self { addr, _process: process })
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}
