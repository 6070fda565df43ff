//! The way of a new operator: what the README says to do with `cargo xtask up`, and what it says can be
//! seen then: metrics, dashboards, alerts, a trace, the log, a drain.

use anyhow::{Context as _, bail, ensure};
use e2e::audio::Codec;
use e2e::document::{self, Step};
use e2e::phone::{PATIENCE, Phone};
use e2e::{
    Collector, Ports, Process, Prometheus, QUEUE_USER, Reader, SERVICES, Service, USERS, binary,
    http_get,
};
use proto::queue::v1::queues_client::QueuesClient;
use proto::queue::v1::{QueueEventType, WatchRequest, WatchResponse};
use rsip::headers::auth::Algorithm;
use serde_json::Value;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tonic::Streaming;
use tonic::transport::Endpoint;

const LIMIT: Duration = Duration::from_secs(30);
/// Spans of the call that is looked for in the end: it waits, gets a timer, and is hung up.
const SPANS: [(&str, &str); 5] = [
    ("sip-edge", "call"),
    ("media-relay", "media_relay.v1.MediaRelay/Offer"),
    ("queue-svc", "queue.v1.Queues/Enqueue"),
    ("scheduler", "scheduler.v1.Scheduler/Schedule"),
    ("scheduler", "holdfast.call.ended"),
];
/// Panels about what the README's stack does not have.
const ABSENT: [&str; 1] = ["Trunks registered"];

#[tokio::test(flavor = "multi_thread")]
async fn the_readme_leads_to_a_call_its_traces_and_a_drained_service() -> anyhow::Result<()> {
    let collector = Collector::start().await?;
    let folder = tempfile::tempdir()?;
    let mut command = Command::new(binary("up")?);
    command.env("HOLDFAST_OTLP_ENDPOINT", collector.url());
    let mut up = Process::spawn("up", command.arg(folder.path()).arg("--free-ports"))?;
    let place = Place::read(&up)?;
    let prometheus = Prometheus::start(place.metrics)?;

    let call_id = follow(&place).await?;

    for nth in 0..4 {
        check_help(&http_get(&format!("127.0.0.1:{}", place.metrics + nth), "/metrics")?)?;
    }
    check_dashboards(&prometheus)?;
    check_rules(&prometheus)?;
    collector.trace_with(&call_id.replace('-', ""), &SPANS).await?;
    let pid = place.sip_edge_pid.to_string();
    ensure!(Command::new("kill").args(["-TERM", &pid]).status()?.success());
    ensure!(!up.wait(LIMIT)?.success());
    let log = up.output();
    let said = |service: &str, text: &str| {
        let mut lines = log.lines().filter(|it| it.trim_start().starts_with(service));
        lines.any(|it| it.contains(text))
    };
    ensure!(said("sip-edge", "draining") && said("sip-edge", "drained"), "{log}");
    ensure!(log.contains("keep sip-edge running: ended by itself"), "{log}");
    for service in SERVICES.map(Service::name) {
        ensure!(said(service, &call_id), "the log of {service} has nothing of {call_id}: {log}");
    }
    Ok(())
}

/// Does what the README says; the id of the last call.
async fn follow(place: &Place) -> anyhow::Result<String> {
    let caller = Phone::start("alice", Codec::Pcmu)?;
    let mut phones = Vec::new();
    for (user, password) in USERS {
        let phone = Phone::start(user, Codec::Pcmu)?;
        phone.register(place.sip, password, Algorithm::Md5)?;
        phones.push(phone);
    }
    let mut reader = Reader::new(place.ports, &phones);
    let url = format!("http://127.0.0.1:{}", place.ports.queue_svc);
    let mut queues = QueuesClient::new(Endpoint::from_shared(url)?.connect().await?);
    let mut events = queues.watch(WatchRequest::default()).await?.into_inner();
    let mut calling = None;
    let mut scripts = 0;
    for step in document::read("README.md")? {
        match step {
            Step::Shell(script) if script.mentions("grpcurl ") => {
                reader.run(&script)?;
                scripts += 1;
            }
            Step::Shell(_) | Step::Block(..) => {} // Builds, and what is for other machines.
            Step::Phone(action) => match action.as_str() {
                "the caller calls 1008" => {
                    let uri = format!("sip:{QUEUE_USER}@{}", place.sip);
                    calling = Some(caller.dial(place.sip, &uri)?);
                    wait_joined(&mut events).await?;
                }
                "the caller hangs up" => {
                    calling.take().context("find the caller's call")?.bye()?;
                    phones[1].wait_bye(PATIENCE)?;
                }
                "1000 hangs up" => {
                    reader.calls[0].take().context("find the call of 1000")?.bye()?;
                }
                other => bail!("this test does not know how to do {other:?}"),
            },
        }
    }
    ensure!(scripts >= 5, "the README has only {scripts} scripts with grpcurl");
    calling.context("find the last call")?.bye()?;
    Ok(reader.ids.call)
}

async fn wait_joined(events: &mut Streaming<WatchResponse>) -> anyhow::Result<()> {
    let joined = async {
        while let Some(told) = events.message().await? {
            if told.event.is_some_and(|it| it.r#type() == QueueEventType::Joined) {
                return Ok(());
            }
        }
        bail!("queue-svc ended its events")
    };
    tokio::time::timeout(LIMIT, joined).await.context("wait until the caller waits")?
}

/// Where everything is, as `up` prints it.
struct Place {
    sip: SocketAddr,
    ports: Ports,
    /// The first of four.
    metrics: u16,
    sip_edge_pid: u32,
}

impl Place {
    fn read(up: &Process) -> anyhow::Result<Self> {
        up.wait_for("that all is up", LIMIT, |line| {
            line.contains("SipEdge/Originate").then_some(())
        })?;
        let text = up.output();
        let address = |name: &str| {
            let mut lines = text.lines().filter_map(|it| it.trim().strip_prefix(name));
            lines.find_map(|it| it.trim_start().strip_prefix("127.0.0.1:"))
        };
        let port = |name: &str| -> anyhow::Result<u16> {
            let rest = address(name).with_context(|| format!("find {name} in {text}"))?;
            Ok(rest.split(',').next().unwrap_or_default().trim().parse()?)
        };
        let sip_edge = address("sip-edge").context("find sip-edge")?;
        let part = |before: &str, after: &str| {
            let (_, rest) = sip_edge.split_once(before)?;
            Some(rest.split(after).next().unwrap_or_default().trim().to_owned())
        };
        let sip = port("SIP (UDP, TCP)")?;
        Ok(Self {
            sip: SocketAddr::from(([127, 0, 0, 1], sip)),
            ports: Ports {
                sip,
                nats: port("NATS")?,
                sip_edge: port("sip-edge")?,
                media_relay: port("media-relay")?,
                scheduler: port("scheduler")?,
                queue_svc: port("queue-svc")?,
            },
            metrics: part("http://127.0.0.1:", "/").context("find metrics")?.parse()?,
            sip_edge_pid: part("process ", "\n").context("find the process")?.parse()?,
        })
    }
}

/// Each metric on a page says what it is.
fn check_help(page: &str) -> anyhow::Result<()> {
    let names = |before: &str| {
        let lines = page.lines().filter_map(move |it| it.strip_prefix(before));
        lines.map(|it| it.split(' ').next().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    let helped = names("# HELP ");
    ensure!(helped.len() > 10, "{page}");
    for name in names("# TYPE ") {
        ensure!(helped.contains(&name), "{name} has no help");
    }
    Ok(())
}

/// Each query of each panel has data after the calls of the README.
fn check_dashboards(prometheus: &Prometheus) -> anyhow::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/chart/dashboards");
    let mut queries = 0;
    for file in std::fs::read_dir(folder)? {
        let file = file?.path();
        let dashboard: Value = serde_json::from_str(&std::fs::read_to_string(&file)?)?;
        for panel in dashboard["panels"].as_array().context("find the panels")? {
            if ABSENT.iter().any(|it| panel["title"] == *it) {
                continue;
            }
            for target in panel["targets"].as_array().context("find the queries")? {
                let query = target["expr"].as_str().context("find the query")?;
                let query = query.replace("$instance", ".*");
                let found = prometheus.wait_for(&query, |found| !found.is_empty());
                found.with_context(|| format!("{}: {}", file.display(), panel["title"]))?;
                queries += 1;
            }
        }
    }
    ensure!(queries > 50, "{queries}");
    Ok(())
}

/// Prometheus can evaluate each alert, and none fires.
fn check_rules(prometheus: &Prometheus) -> anyhow::Result<()> {
    let rules = prometheus.rules()?;
    ensure!(rules.len() > 10, "{rules:?}");
    for rule in &rules {
        ensure!(rule["health"] == "ok" && rule["state"] != "firing", "{rule:#}");
    }
    Ok(())
}
