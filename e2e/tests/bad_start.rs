//! A service that cannot start says why in one line, and ends with an error.

use e2e::{NatsServer, Process, binary};
use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(20);

/// Starts `service` with `flags`, which must be refused; what it says must have each of `wanted`.
fn refused(service: &str, flags: &[&str], wanted: &[&str]) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut command = Command::new(binary(service)?);
    command
        .current_dir(folder.path())
        .args(["--grpc", "127.0.0.1:0", "--log", "error"])
        .args(flags);
    let mut process = Process::spawn(service, &mut command)?;
    let status = process.wait(LIMIT)?;
    let output = process.output();
    assert!(!status.success(), "{service} {flags:?} ended well:\n{output}");
    let lines: Vec<&str> = output.lines().filter(|line| !line.trim().is_empty()).collect();
    assert_eq!(lines.len(), 1, "{service} {flags:?}:\n{output}");
    for word in wanted {
        assert!(output.contains(word), "{service} {flags:?} does not say {word:?}:\n{output}");
    }
    Ok(())
}

#[test]
fn an_unreachable_nats_is_named() -> anyhow::Result<()> {
    // A port that was free a moment ago.
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let url = format!("nats://127.0.0.1:{port}");
    for service in ["scheduler", "queue-svc", "sip-edge"] {
        let flags: &[&str] = match service {
            "sip-edge" => &["--sip", "127.0.0.1:0", "--nats-url", &url],
            _ => &["--nats-url", &url],
        };
        refused(service, flags, &["NATS", &url])?;
    }
    Ok(())
}

#[test]
fn a_taken_port_is_named() -> anyhow::Result<()> {
    let nats = NatsServer::start()?;
    let url = nats.url();
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let addr = taken.local_addr()?.to_string();
    for service in ["media-relay", "scheduler", "queue-svc", "sip-edge"] {
        let sip: &[&str] = if service == "sip-edge" { &["--sip", "127.0.0.1:0"] } else { &[] };
        let folder = tempfile::tempdir()?;
        let mut command = Command::new(binary(service)?);
        command.current_dir(folder.path()).args(["--grpc", &addr, "--nats-url", &url]);
        let mut process = Process::spawn(service, command.args(["--log", "error"]).args(sip))?;
        assert!(!process.wait(LIMIT)?.success(), "{service}");
        assert!(process.output().contains(&addr), "{service}:\n{}", process.output());
    }
    refused("sip-edge", &["--nats-url", &url, "--sip", &addr], &[&addr])
}

#[test]
fn an_unopenable_database_is_named() -> anyhow::Result<()> {
    let nats = NatsServer::start()?;
    for service in ["scheduler", "queue-svc"] {
        let flags = ["--nats-url", &nats.url(), "--database-url", "sqlite:/nowhere/at/all.db"];
        refused(service, &flags, &["/nowhere/at/all.db"])?;
    }
    Ok(())
}

#[test]
fn a_bad_dial_plan_is_refused_by_route_and_field() -> anyhow::Result<()> {
    let nats = NatsServer::start()?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("plan.yaml");
    for (text, wanted) in [
        ("routes: [{name: a, uri: '(', plan: {actions: [{park: {}}]}}]", "uri"),
        (
            "routes: [{name: a, plan: {actions: [{hangup: {cause: NO_SUCH_CAUSE}}]}}]",
            "NO_SUCH_CAUSE",
        ),
        ("routes: [{name: a, plan: {actions: [{dance: {}}]}}]", "dance"),
    ] {
        std::fs::write(&path, text)?;
        let plan = path.to_string_lossy();
        let flags = ["--nats-url", &nats.url(), "--sip", "127.0.0.1:0", "--dial-plan", &plan];
        refused("sip-edge", &flags, &[wanted])?;
    }
    Ok(())
}
