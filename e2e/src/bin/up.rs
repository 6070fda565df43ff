//! The launcher: everything on loopback in one folder, logs on the terminal, gone with Ctrl-C.
//!
//! `cargo xtask up` builds and starts it; its argument is the folder. With `--free-ports` after it, it
//! takes any ports, not the defaults. HOLDFAST_OTLP_ENDPOINT is where traces go, if they should.

use anyhow::{Context as _, bail};
use e2e::{MUSIC, PROMPT, Ports, QUEUE, QUEUE_USER, SERVICES, Setup, Stack, USERS, free_ports};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// First of the ports of the pages of metrics, as in `deploy`.
const METRICS: u16 = 9_151;
/// How often it looks whether all still run.
const WATCH_INTERVAL: Duration = Duration::from_millis(200);

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("failed to {e:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> anyhow::Result<()> {
    let folder = std::env::args_os().nth(1).map(PathBuf::from);
    let folder = folder.context("know where to keep databases and media: wanted a folder")?;
    std::fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    let folder = folder.canonicalize()?;
    let any = std::env::args().nth(2).is_some_and(|flag| flag == "--free-ports");
    let ports = if any { Ports::free()? } else { default_ports()? };
    // Listened to before there is anything to stop.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let echo = Arc::new(|service: &str, line: &str| println!("{service:>11} | {line}"));
    let metrics = if any { free_ports(4)? } else { METRICS };
    let traces = std::env::var("HOLDFAST_OTLP_ENDPOINT").ok();
    let common_flags = traces.map(|url| vec!["--otlp-endpoint".to_owned(), url]);
    let setup = Setup {
        echo: Some(echo),
        metrics: Some(metrics),
        common_flags: common_flags.unwrap_or_default(),
        ..Setup::on(ports)
    };
    let mut stack = Stack::start_in(&folder, setup).context("start")?;
    stack.create_queue().await?;
    println!("{}", manual(&stack));
    let died = loop {
        tokio::select! {
            _ = interrupt.recv() => break Vec::new(),
            _ = terminate.recv() => break Vec::new(),
            () = tokio::time::sleep(WATCH_INTERVAL) => (),
        }
        let dead = stack.dead();
        if !dead.is_empty() {
            break dead;
        }
    };
    println!("stopping");
    stack.stop()?;
    if !died.is_empty() {
        bail!("keep {} running: ended by itself", died.join(", "));
    }
    println!("stopped");
    Ok(())
}

/// The default ports; another one for NATS where Debian's own nats-server runs already.
fn default_ports() -> anyhow::Result<Ports> {
    let default = Ports::DEFAULT;
    let nats = match TcpListener::bind(("127.0.0.1", default.nats)) {
        Ok(_) => default.nats,
        Err(_) => Ports::free()?.nats,
    };
    Ok(Ports { nats, ..default })
}

/// What to do now: ports, and for each job one grpcurl line and one softphone setting.
fn manual(stack: &Stack) -> String {
    let ports = stack.ports();
    let grpc = SERVICES.map(|it| {
        let (name, grpc) = (it.name(), ports.grpc(it));
        let pid = stack.pid(it).unwrap_or_default();
        let metrics = stack.metrics_port(it).unwrap_or_default();
        format!("{name:<14} 127.0.0.1:{grpc}, http://127.0.0.1:{metrics}/metrics, process {pid}")
    });
    let [(user, password), (agent, agent_password)] = USERS;
    let plan = format!(
        r#"{{"target": "user/{user}", "plan": {{"actions": [
          {{"schedule": {{"after_ms": 15000, "hangup": {{}}, "as": "limit"}}}},
          {{"collect": {{"prompt": {{"file": "{PROMPT}"}}, "on": {{"1": {{"actions": [
            {{"cancel": {{"name": "limit"}}}}, {{"conference": {{"name": "test1"}}}}]}}}}}}}},
          {{"park": {{}}}}]}}}}"#
    );
    format!(
        r#"
Holdfast is up. Everything is in {folder}; Ctrl-C stops it.

  SIP (UDP, TCP) 127.0.0.1:{sip}
  NATS           127.0.0.1:{nats}
  {grpc}

Job A: hold queue
  Softphone: no registration; call {queue_uri} and hear {MUSIC}.
  The agent's softphone: user {agent}, password {agent_password}, server 127.0.0.1:{sip}. Then:
    grpcurl -plaintext -d '{{"queue": "{QUEUE}", "agent": "user/{agent}"}}' 127.0.0.1:{queue_svc} queue.v1.Queues/Retrieve

Job B: timed hangup that can be taken back
  Softphone: user {user}, password {password}, server 127.0.0.1:{sip}. Then, and press 1 within 15 s, or not:
    grpcurl -plaintext -d '{plan}' 127.0.0.1:{sip_edge} sip_edge.v1.SipEdge/Originate
"#,
        folder = stack.folder().display(),
        sip = ports.sip,
        nats = ports.nats,
        grpc = grpc.join("\n  "),
        queue_uri = stack.uri(QUEUE_USER),
        queue_svc = ports.queue_svc,
        sip_edge = ports.sip_edge,
    )
}
