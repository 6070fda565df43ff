//! `cargo xtask bench queue`: 10,000 callers in 100 queues and 1,000 agents at one queue-svc in release,
//! on SQLite, with a real NATS, and a sip-edge at which everybody answers at once.
//!
//! Its first word is the report to write. What is measured is what a caller and an agent notice: from
//! `Enqueue` to its reply with the position, at 1,000 joins a second; and from the publication of a
//! call's end to the `Ring` of its agent for the next caller.

mod edge;

use anyhow::{Context as _, ensure};
use e2e::bench::{Percentiles, Report, Usage, resident_bytes};
use e2e::{NatsServer, Process, binary};
use edge::{Edge, Rung};
use proto::queue::v1::queues_client::QueuesClient;
use proto::queue::v1::*;
use proto::sip_edge::v1::{Call, CallEvent, CallEventType, CallState};
use proto::subjects;
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::time::{sleep_until, timeout};
use tonic::transport::{Channel, Endpoint};

const CALLERS: usize = 10_000;
const QUEUES: usize = 100;
const AGENTS: usize = 1_000;
const JOINS_PER_S: u32 = 1_000;
/// Agents that are freed, and how many a second.
const FREED: usize = 4_000;
const FREED_PER_S: u32 = 400;
/// How often a whole queue is listed.
const LISTS: usize = 20;
/// Operators who race for callers on one connection.
const OPERATORS_ON_A_CONNECTION: usize = 500;
const LIMIT: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("failed to {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let path = std::env::args().nth(1).context("know where to write the report")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut report = Report::default();
    let measured = runtime.block_on(measure(&mut report));
    report.finish(&PathBuf::from(path))?; // What was measured before a failure is still true.
    measured
}

/// Dropped in this order.
struct Rig {
    process: Process,
    client: QueuesClient<Channel>,
    endpoint: Endpoint,
    jetstream: async_nats::jetstream::Context,
    rung: mpsc::UnboundedReceiver<Rung>,
    _nats: NatsServer,
    _folder: tempfile::TempDir,
}

async fn measure(report: &mut Report) -> anyhow::Result<()> {
    let mut rig = Rig::start().await?;
    let queues = (0..QUEUES).map(|nth| (format!("q{nth}"), 1_000));
    for (name, max_calls) in queues.chain([("all".to_owned(), 10_000)]) {
        rig.create_queue(&name, max_calls).await?;
    }
    let pid = rig.process.pid();
    let (before, usage) = (resident_bytes(pid)?, Usage::of(pid)?);
    let joined = rig.join(JOINS_PER_S, |nth| format!("q{}", nth % QUEUES)).await?;
    let cpu = usage.cpu_since()?;
    let bytes = resident_bytes(pid)?.saturating_sub(before) as f64 / CALLERS as f64;
    report.add("enqueue_p50_ms", joined.at(50.0), "ms");
    report.add("enqueue_p99_ms", joined.at(99.0), "ms");
    report.add("enqueue_max_ms", joined.max(), "ms");
    report.add("join_cpu_us", cpu.as_secs_f64() * 1e6 / CALLERS as f64, "µs");
    report.add("bytes_per_caller", bytes, "B");

    let rung = rig.free_agents().await?;
    report.add("assign_p50_ms", rung.at(50.0), "ms");
    report.add("assign_p99_ms", rung.at(99.0), "ms");
    report.add("assign_max_ms", rung.max(), "ms");

    rig.join(JOINS_PER_S * 2, |_| "all".to_owned()).await?;
    let listed = rig.list().await?;
    report.add("list_10000_p50_ms", listed.at(50.0), "ms");
    report.add("list_10000_max_ms", listed.max(), "ms");

    report.add("racing_retrieves_per_s", rig.race().await?, "1/s");
    Ok(())
}

impl Rig {
    async fn start() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("make a folder")?;
        let nats = NatsServer::start()?;
        let (edge, rung) = Edge::start().await?;
        let mut command = Command::new(binary("queue-svc")?);
        command.current_dir(folder.path());
        command.args(["--grpc", "127.0.0.1:0", "--log-format", "json", "--max-calls", "100000"]);
        command.args(["--nats-url", &nats.url(), "--sip-edge", &format!("http://{edge}")]);
        let process = Process::spawn("queue-svc", &mut command)?;
        let addr = process.wait_for("where it serves", LIMIT, |line| {
            let line: serde_json::Value = serde_json::from_str(line).ok()?;
            Some(line.get("grpc")?.as_str()?.to_owned())
        })?;
        let endpoint = Endpoint::from_shared(format!("http://{addr}"))?.tcp_nodelay(true);
        let client = QueuesClient::new(endpoint.connect_lazy()).max_decoding_message_size(64 << 20);
        let bus = async_nats::connect(nats.url()).await.context("connect to NATS")?;
        let jetstream = async_nats::jetstream::new(bus);
        Ok(Self { process, client, endpoint, jetstream, rung, _nats: nats, _folder: folder })
    }

    async fn create_queue(&mut self, name: &str, max_calls: u32) -> anyhow::Result<()> {
        let queue = Queue {
            name: name.to_owned(),
            uri: format!("sip:{name}@example.com"),
            mohfile: "music.wav".into(),
            max_calls,
            ..Queue::default()
        };
        let request = CreateQueueRequest { queue: Some(queue) };
        self.client.create_queue(request).await.context("create a queue")?;
        Ok(())
    }

    /// How long each of [`CALLERS`] waited for its position, in ms: the place is taken before, as by a
    /// caller who is not answered yet.
    async fn join(
        &mut self,
        per_s: u32,
        queue_of: impl Fn(usize) -> String,
    ) -> anyhow::Result<Percentiles> {
        let begin = tokio::time::Instant::now();
        let mut joining = Vec::with_capacity(CALLERS);
        for nth in 0..CALLERS {
            sleep_until(begin + Duration::from_secs(1) * nth as u32 / per_s).await;
            let (mut client, queue) = (self.client.clone(), queue_of(nth));
            joining.push(tokio::spawn(async move {
                let request = EnqueueRequest {
                    call_id: format!("{queue}-{nth:036}"),
                    queue,
                    from: "\"Somebody\" <sip:somebody@example.com>;tag=1234567890".into(),
                    contact: "<sip:somebody@10.0.0.1:5060;transport=udp>".into(),
                    ..EnqueueRequest::default()
                };
                client.enqueue(request.clone()).await?;
                let began = Instant::now();
                let answered = EnqueueRequest { answered: true, ..request };
                let caller = client.enqueue(answered).await?.into_inner().caller;
                assert!(caller.is_some_and(|it| it.position > 0), "the position is known");
                Ok::<_, tonic::Status>(began.elapsed())
            }));
        }
        let mut took_ms = Vec::with_capacity(CALLERS);
        for joining in joining {
            took_ms.push(joining.await?.context("enqueue")?.as_secs_f64() * 1e3);
        }
        Ok(Percentiles::new(took_ms))
    }

    /// How long each agent waited for its next caller, in ms, from the publication of its call's end.
    async fn free_agents(&mut self) -> anyhow::Result<Percentiles> {
        for nth in 0..AGENTS {
            let agent = Agent {
                name: format!("a{nth}"),
                address: format!("user/a{nth}"),
                queues: vec![Membership {
                    queue: format!("q{}", nth % QUEUES),
                    ..Membership::default()
                }],
                ..Agent::default()
            };
            let name = agent.name.clone();
            self.client.create_agent(CreateAgentRequest { agent: Some(agent) }).await?;
            let presence = Presence::Login.into();
            let request = SetPresenceRequest { name, presence, ..SetPresenceRequest::default() };
            self.client.set_presence(request).await?;
        }
        let mut talks: HashMap<String, String> = HashMap::new();
        while talks.len() < AGENTS {
            let rung = self.next_rung().await?;
            talks.insert(rung.target, rung.call_id);
        }
        let begin = tokio::time::Instant::now();
        let mut took_ms = Vec::with_capacity(FREED);
        let mut freed: HashMap<String, Instant> = HashMap::new();
        for nth in 0..FREED {
            let due = begin + Duration::from_secs(1) * nth as u32 / FREED_PER_S;
            while let Ok(rung) = tokio::time::timeout_at(due, self.rung.recv()).await {
                note(rung.context("hear who is rung")?, &mut freed, &mut talks, &mut took_ms);
            }
            let target = format!("user/a{}", nth % AGENTS);
            let call_id = talks.remove(&target).context("free an agent who talks: too slow")?;
            freed.insert(target, Instant::now());
            self.end(&call_id).await?;
        }
        while !freed.is_empty() {
            let rung = self.next_rung().await?;
            note(rung, &mut freed, &mut talks, &mut took_ms);
        }
        ensure!(took_ms.len() == FREED, "ring {FREED} freed agents: {} were rung", took_ms.len());
        Ok(Percentiles::new(took_ms))
    }

    async fn next_rung(&mut self) -> anyhow::Result<Rung> {
        let rung =
            timeout(LIMIT, self.rung.recv()).await.context("wait for an agent to be rung")?;
        rung.context("hear who is rung")
    }

    async fn end(&self, call_id: &str) -> anyhow::Result<()> {
        let call = Call {
            call_id: call_id.to_owned(),
            state: CallState::Ended.into(),
            cause: "NORMAL_CLEARING".into(),
            ..Call::default()
        };
        let event = CallEvent {
            event_id: call_id.to_owned(),
            r#type: CallEventType::Ended.into(),
            call: Some(call),
            ..CallEvent::default()
        };
        let subject = subjects::call(CallEventType::Ended, call_id);
        let json = proto::json::to_json(&event);
        self.jetstream.publish(subject, json.into()).await.context("publish an end")?;
        Ok(())
    }

    /// How long a list of [`CALLERS`] took, in ms.
    async fn list(&mut self) -> anyhow::Result<Percentiles> {
        let mut took_ms = Vec::new();
        for _ in 0..LISTS {
            let began = Instant::now();
            let request = ListRequest { queue: "all".into(), limit: 10_000 };
            let callers = self.client.list(request).await?.into_inner().callers;
            took_ms.push(began.elapsed().as_secs_f64() * 1e3);
            ensure!(callers.len() == CALLERS, "list {CALLERS} callers: {} came", callers.len());
        }
        Ok(Percentiles::new(took_ms))
    }
}

impl Rig {
    /// As many operators as callers ask for one at the same moment: each gets another caller, and nobody
    /// none. How many a second. They have many connections, as operators do.
    async fn race(&mut self) -> anyhow::Result<f64> {
        let began = Instant::now();
        let operators: Vec<_> = (0..CALLERS)
            .map(|nth| {
                if nth % OPERATORS_ON_A_CONNECTION == 0 {
                    self.client = QueuesClient::new(self.endpoint.connect_lazy());
                }
                let mut client = self.client.clone();
                let (queue, agent) = ("all".to_owned(), format!("user/r{nth}"));
                let request = RetrieveRequest { queue, agent, ..RetrieveRequest::default() };
                tokio::spawn(async move { client.retrieve(request).await })
            })
            .collect();
        let mut got = HashSet::new();
        for operator in operators {
            let retrieved = operator.await?.context("retrieve")?.into_inner();
            ensure!(retrieved.outcome() == RetrieveOutcome::Connected, "talk to {retrieved:?}");
            ensure!(got.insert(retrieved.call_id), "give each caller to one operator");
        }
        Ok(got.len() as f64 / began.elapsed().as_secs_f64())
    }
}

/// An agent was rung: if it had been freed, that took so long.
fn note(
    rung: Rung,
    freed: &mut HashMap<String, Instant>,
    talks: &mut HashMap<String, String>,
    took_ms: &mut Vec<f64>,
) {
    if let Some(since) = freed.remove(&rung.target) {
        took_ms.push((rung.at - since).as_secs_f64() * 1e3);
    }
    talks.insert(rung.target, rung.call_id);
}
