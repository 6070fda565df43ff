//! The launcher behind `cargo xtask up`: all or nothing, and no process left behind.

use anyhow::Context as _;
use e2e::{Process, binary};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(30);

fn up(folder: &TempDir) -> anyhow::Result<Process> {
    let mut command = Command::new(binary("up")?);
    let up = Process::spawn("up", command.arg(folder.path()).arg("--free-ports"))?;
    up.wait_for("that all is up", LIMIT, |line| line.contains("SipEdge/Originate").then_some(()))?;
    Ok(up)
}

/// Process ids and names of nats-server and the services that work with `folder`.
fn children_in(folder: &Path) -> Vec<(u32, String)> {
    let folder = folder.canonicalize().unwrap();
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let process = entry.ok()?.path();
        let pid = process.file_name()?.to_str()?.parse().ok()?;
        let name = std::fs::read_to_string(process.join("comm")).ok()?.trim().to_owned();
        let words = String::from_utf8(std::fs::read(process.join("cmdline")).ok()?).ok()?;
        let cwd = std::fs::read_link(process.join("cwd")).ok()?;
        let named = name != "up" && words.contains(folder.to_str()?);
        (named || cwd == folder).then_some((pid, name))
    });
    processes.collect()
}

fn wait_gone(folder: &Path) {
    let deadline = Instant::now() + LIMIT;
    while !children_in(folder).is_empty() {
        assert!(Instant::now() < deadline, "left behind: {:?}", children_in(folder));
        std::thread::yield_now();
    }
}

fn metrics(address: &str) -> anyhow::Result<String> {
    let mut page = TcpStream::connect(address)?;
    page.set_read_timeout(Some(LIMIT))?;
    write!(page, "GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    page.read_to_string(&mut text)?;
    Ok(text)
}

#[test]
fn ctrl_c_stops_everything_in_good_order() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut up = up(&folder)?;
    assert_eq!(children_in(folder.path()).len(), 5, "{:?}", children_in(folder.path()));
    for wanted in ["queue.v1.Queues/Retrieve", "sip_edge.v1.SipEdge/Originate", "Softphone"] {
        assert!(up.output().contains(wanted), "{}", up.output());
    }
    for service in ["sip-edge", "media-relay", "scheduler", "queue-svc"] {
        let line = up
            .output()
            .lines()
            .find(|it| it.trim().starts_with(service) && it.contains("/metrics"))
            .map(str::to_owned);
        let line = line.context("find the page of metrics")?;
        let address = line.split("http://").nth(1).and_then(|it| it.split("/metrics").next());
        let page = metrics(address.context("find its address")?)?;
        assert!(page.contains("holdfast_build_info"), "{service}: {page}");
    }
    up.signal("INT")?;
    assert!(up.wait(LIMIT)?.success(), "{}", up.output());
    assert_eq!(children_in(folder.path()), []);
    // What is kept does not hinder the next start.
    let mut again = self::up(&folder)?;
    again.signal("TERM")?;
    assert!(again.wait(LIMIT)?.success(), "{}", again.output());
    Ok(())
}

#[test]
fn when_one_dies_it_is_named_and_the_others_are_stopped() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut up = up(&folder)?;
    let services = children_in(folder.path());
    let (pid, _) = services.iter().find(|(_, name)| name == "scheduler").expect("a scheduler");
    assert!(Command::new("kill").args(["-9", &pid.to_string()]).status()?.success());
    assert!(!up.wait(LIMIT)?.success());
    assert!(up.output().contains("keep scheduler running"), "{}", up.output());
    assert_eq!(children_in(folder.path()), []);
    Ok(())
}

#[test]
fn a_killed_launcher_leaves_nothing_behind() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut up = up(&folder)?;
    assert_eq!(children_in(folder.path()).len(), 5);
    up.kill();
    wait_gone(folder.path());
    Ok(())
}
