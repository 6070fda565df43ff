//! Debian's Prometheus, with the configuration that operators get, on ports of a test.

use crate::{Process, free_port};
use anyhow::{Context as _, bail, ensure};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long it may take to be ready, and to have seen what there is.
const LIMIT: Duration = Duration::from_secs(30);
/// How often it is asked for what is not there yet.
const POLL: Duration = Duration::from_millis(100);
/// What operators start.
const CONFIG: &str = "../deploy/prometheus.yaml";
/// First of the ports in it.
const FIRST_PORT: u16 = 9_151;

/// Stops when dropped.
pub struct Prometheus {
    port: u16,
    _process: Process,
    _folder: TempDir,
}

impl Prometheus {
    /// Looks every second at the pages of metrics on four ports from `first_metrics_port` on.
    ///
    /// # Errors
    /// If it does not start, or does not take the configuration.
    pub fn start(first_metrics_port: u16) -> anyhow::Result<Self> {
        let config = Path::new(env!("CARGO_MANIFEST_DIR")).join(CONFIG);
        let text = std::fs::read_to_string(&config).context("read its configuration")?;
        let rules = config.with_file_name("chart/rules/alerts.yaml");
        let mut text = text
            .replace("15s", "1s")
            .replace("chart/rules/alerts.yaml", rules.to_str().context("name the rules")?);
        for nth in 0..4 {
            let [wanted, got] = [FIRST_PORT, first_metrics_port].map(|it| format!(":{}", it + nth));
            text = text.replace(&wanted, &got);
        }
        let folder = tempfile::tempdir()?;
        let changed = folder.path().join("prometheus.yaml");
        std::fs::write(&changed, text).context("write its configuration")?;
        let port = free_port()?;
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", changed.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"));
        let process = Process::spawn("prometheus", &mut command)?;
        process.wait_for("that it is ready", LIMIT, |line| {
            line.contains("Server is ready to receive web requests").then_some(())
        })?;
        Ok(Self { port, _process: process, _folder: folder })
    }

    /// What an expression gives now.
    ///
    /// # Errors
    /// If it does not answer, or cannot read the expression.
    pub fn query(&self, expression: &str) -> anyhow::Result<Vec<Value>> {
        let expression = utf8_percent_encode(expression, NON_ALPHANUMERIC);
        let data = self.get(&format!("/api/v1/query?query={expression}"))?;
        Ok(data["result"].as_array().context("find the result")?.clone())
    }

    /// Waits until `enough` holds of what an expression gives, which comes back.
    ///
    /// # Errors
    /// As [`Prometheus::query`], and if it does not hold in time.
    pub fn wait_for(
        &self,
        expression: &str,
        enough: impl Fn(&[Value]) -> bool,
    ) -> anyhow::Result<Vec<Value>> {
        let deadline = Instant::now() + LIMIT;
        loop {
            let result = self.query(expression).with_context(|| format!("ask {expression}"))?;
            if enough(&result) {
                return Ok(result);
            }
            ensure!(Instant::now() < deadline, "{expression} gave {result:?} for {LIMIT:?}");
            std::thread::sleep(POLL);
        }
    }

    /// The rules of all groups, once each has been evaluated.
    ///
    /// # Errors
    /// If it does not answer, or does not evaluate them in time.
    pub fn rules(&self) -> anyhow::Result<Vec<Value>> {
        let deadline = Instant::now() + LIMIT;
        loop {
            let data = self.get("/api/v1/rules")?;
            let groups = data["groups"].as_array().context("find the groups")?;
            let rules = groups.iter().flat_map(|it| it["rules"].as_array().into_iter().flatten());
            let rules: Vec<Value> = rules.cloned().collect();
            if rules.iter().all(|it| it["health"] != "unknown") {
                return Ok(rules);
            }
            ensure!(Instant::now() < deadline, "rules were not evaluated: {rules:?}");
            std::thread::sleep(POLL);
        }
    }

    fn get(&self, path: &str) -> anyhow::Result<Value> {
        let address = format!("127.0.0.1:{}", self.port);
        let page = http_get(&address, path)?;
        let mut answer: Value = serde_json::from_str(&page).with_context(|| page.clone())?;
        match answer["status"].as_str() {
            Some("success") => Ok(answer["data"].take()),
            _ => bail!("{answer}"),
        }
    }
}

/// What a server answers, without its headers.
///
/// # Errors
/// If it does not, or with another status than 200.
pub fn http_get(address: &str, path: &str) -> anyhow::Result<String> {
    let mut server = TcpStream::connect(address).with_context(|| format!("reach {address}"))?;
    server.set_read_timeout(Some(LIMIT))?;
    // HTTP/1.0: the body comes as it is, to the end.
    write!(server, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut text = String::new();
    server.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").context("find the end of the headers")?;
    let status = head.split(' ').nth(1);
    ensure!(status == Some("200"), "{address}{path} answers {text}");
    Ok(body.to_owned())
}
