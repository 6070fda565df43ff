//! Two of each service on one PostgreSQL and one NATS, behind what an operator puts before them: a proxy
//! for SIP, and one address for the gRPC of each kind. One after the other can be replaced.

use crate::stack::{READY_LIMIT, SERVICES, Service, pairs, prepare};
use crate::{Dispatcher, Front, NatsServer, Postgres, Process, binary, free_port, free_ports};
use anyhow::{Context as _, ensure};
use proto::media_relay::v1::QueryRequest;
use proto::media_relay::v1::media_relay_client::MediaRelayClient;
use proto::queue::v1::ListRequest;
use proto::queue::v1::queues_client::QueuesClient;
use proto::sip_edge::v1::ListCallsRequest;
use proto::sip_edge::v1::sip_edge_client::SipEdgeClient;
use std::collections::BTreeMap;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

/// Of each service.
pub const REPLICAS: usize = 2;
/// How long calls may go on after SIGTERM, and how much longer a process may take to end.
const DRAIN: Duration = Duration::from_secs(3);
const STOP_LIMIT: Duration = Duration::from_secs(20);
/// How long what is waited for may take, and how often it is looked for.
const WAIT_LIMIT: Duration = Duration::from_secs(20);
const WAIT_POLL: Duration = Duration::from_millis(100);

/// One process of a service, or the place of one that is being replaced.
struct Member {
    grpc: SocketAddr,
    /// Of a sip-edge.
    sip: Option<SocketAddr>,
    flags: Vec<String>,
    process: Option<Process>,
}

pub struct Fleet {
    /// Dropped in this order.
    members: BTreeMap<(Service, usize), Member>,
    fronts: BTreeMap<Service, Front>,
    /// Once there are sip-edges.
    dispatcher: Option<Dispatcher>,
    nats: NatsServer,
    database: Postgres,
    folder: TempDir,
    /// What processes that were replaced have printed.
    gone: Vec<String>,
    /// One stack at a time.
    _alone: File,
}

impl Fleet {
    /// Starts all of it, with this dial plan, and waits until each process serves.
    ///
    /// # Errors
    /// If one of them does not start.
    pub async fn start(dial_plan: &str) -> anyhow::Result<Self> {
        let alone = File::create(std::env::temp_dir().join("holdfast-e2e.lock"))?;
        alone.lock().context("wait for the other tests")?;
        let folder = tempfile::tempdir().context("make a folder for the fleet")?;
        prepare(folder.path())?;
        std::fs::write(folder.path().join("dial-plan.yaml"), dial_plan)?;
        let nats = NatsServer::start()?;
        let database = Postgres::start()?;
        let mut members = BTreeMap::new();
        for service in SERVICES {
            let first = free_ports(2 * REPLICAS as u16)?;
            let addr = |nth: usize| SocketAddr::from((Ipv4Addr::LOCALHOST, first + nth as u16));
            for nth in 0..REPLICAS {
                let sip = (service == Service::SipEdge).then(|| addr(REPLICAS + nth));
                let grpc = addr(nth);
                let member = Member { grpc, sip, flags: Vec::new(), process: None };
                members.insert((service, nth), member);
            }
        }
        let mut fronts = BTreeMap::new();
        for service in [Service::Scheduler, Service::QueueSvc, Service::SipEdge] {
            fronts.insert(service, Front::start(free_port()?).await?);
        }
        let (dispatcher, _alone) = (None, alone);
        let mut fleet =
            Self { members, fronts, dispatcher, nats, database, folder, gone: Vec::new(), _alone };
        for service in SERVICES {
            for nth in 0..REPLICAS {
                let flags = fleet.flags(service, nth);
                fleet.members.get_mut(&(service, nth)).expect("made above").flags = flags;
                fleet.start_member(service, nth)?;
            }
        }
        let edges: Vec<SocketAddr> = fleet.members.values().filter_map(|it| it.sip).collect();
        fleet.dispatcher = Some(Dispatcher::start(&edges)?);
        Ok(fleet)
    }

    fn flags(&self, service: Service, nth: usize) -> Vec<String> {
        let member = &self.members[&(service, nth)];
        let url = |service: Service, nth: usize| format!("http://{}", self.grpc(service, nth));
        let front = |service: Service| self.fronts[&service].url();
        let drain = format!("{}s", DRAIN.as_secs());
        let mut flags = pairs([
            ("--grpc", member.grpc.to_string().as_str()),
            ("--nats-url", &self.nats.url()),
            ("--drain", &drain),
            ("--log-format", "json"),
        ]);
        flags.extend(match service {
            Service::MediaRelay => {
                let first = 20_000 + 2_000 * nth;
                let ports = format!("{first}-{}", first + 1_999);
                let state = format!("media-{nth}");
                pairs([("--media-dir", "media"), ("--state-dir", &state), ("--rtp-ports", &ports)])
            }
            Service::Scheduler => {
                let edges = [0, 1].map(|nth| format!("edge-{nth}={}", url(Service::SipEdge, nth)));
                let database = self.database.url();
                let mut flags = pairs([("--database-url", database.as_str())]);
                flags.extend(pairs(edges.iter().map(|edge| ("--sip-edge", edge.as_str()))));
                flags
            }
            Service::QueueSvc => {
                let (database, edge) = (self.database.url(), front(Service::SipEdge));
                pairs([("--database-url", database.as_str()), ("--sip-edge", &edge)])
            }
            Service::SipEdge => pairs([
                ("--sip", member.sip.expect("a sip-edge").to_string().as_str()),
                ("--edge-name", &format!("edge-{nth}")),
                ("--media-relay", &url(Service::MediaRelay, nth)),
                ("--scheduler", &front(Service::Scheduler)),
                ("--queue-svc", &front(Service::QueueSvc)),
                ("--dial-plan", "dial-plan.yaml"),
            ]),
        });
        flags
    }

    fn start_member(&mut self, service: Service, nth: usize) -> anyhow::Result<()> {
        let member = self.members.get_mut(&(service, nth)).expect("a member");
        let mut command = Command::new(binary(service.name())?);
        command.current_dir(self.folder.path()).args(&member.flags);
        let process = Process::spawn(&format!("{} {nth}", service.name()), &mut command)?;
        process.wait_for("that it serves", READY_LIMIT, |line| {
            (line.contains("serving") && line.contains("grpc")).then_some(())
        })?;
        member.process = Some(process);
        if let Some(front) = self.fronts.get(&service) {
            front.add(member.grpc);
        }
        Ok(())
    }

    /// As a rolling update does: no new connections, SIGTERM, its end, a new one in its place, and then
    /// waits until that one is used.
    ///
    /// # Errors
    /// If it does not end by itself, or the new one does not serve.
    pub fn replace(&mut self, service: Service, nth: usize) -> anyhow::Result<()> {
        let member = self.members.get_mut(&(service, nth)).expect("a member");
        let dispatcher = self.dispatcher.as_ref().expect("started");
        let sip = member.sip.map(|sip| (sip, dispatcher.downs(sip) + 1));
        if let Some(front) = self.fronts.get(&service) {
            front.remove(member.grpc);
        }
        let mut process = member.process.take().context("find the process")?;
        let status = process.stop(STOP_LIMIT)?;
        ensure!(status.success(), "{} ended with {status}:\n{}", process.name(), process.output());
        self.gone.push(said(&process));
        if let Some((sip, nth)) = sip {
            dispatcher.wait_downs(sip, nth)?;
        }
        self.start_member(service, nth)?;
        let dispatcher = self.dispatcher.as_ref().expect("started");
        sip.map_or(Ok(()), |(sip, nth)| dispatcher.wait_ups(sip, nth))
    }

    /// Where callers send SIP: to the proxy.
    pub fn sip(&self) -> SocketAddr {
        self.dispatcher.as_ref().expect("started").sip()
    }

    /// Where the nth sip-edge takes SIP.
    pub fn edge_sip(&self, nth: usize) -> SocketAddr {
        self.members[&(Service::SipEdge, nth)].sip.expect("a sip-edge")
    }

    fn grpc(&self, service: Service, nth: usize) -> SocketAddr {
        self.members[&(service, nth)].grpc
    }

    fn channel(&self, service: Service, nth: usize) -> Channel {
        let url = format!("http://{}", self.grpc(service, nth));
        Endpoint::from_shared(url).expect("an address is a URL").connect_lazy()
    }

    pub fn queues(&self, nth: usize) -> QueuesClient<Channel> {
        QueuesClient::new(self.channel(Service::QueueSvc, nth))
    }

    pub fn sip_edge(&self, nth: usize) -> SipEdgeClient<Channel> {
        SipEdgeClient::new(self.channel(Service::SipEdge, nth))
    }

    pub fn media_relay(&self, nth: usize) -> MediaRelayClient<Channel> {
        MediaRelayClient::new(self.channel(Service::MediaRelay, nth))
    }

    /// Who waits in a queue, in order.
    pub async fn line(&self, queue: &str) -> anyhow::Result<Vec<String>> {
        let request = ListRequest { queue: queue.to_owned(), ..ListRequest::default() };
        let listed = self.queues(0).list(request).await?.into_inner();
        Ok(listed.callers.into_iter().map(|it| it.call_id).collect())
    }

    /// Waits until so many wait in a queue.
    ///
    /// # Errors
    /// If that takes too long.
    pub async fn wait_line(&self, queue: &str, wanted: usize) -> anyhow::Result<()> {
        let deadline = Instant::now() + WAIT_LIMIT;
        loop {
            let line = self.line(queue).await?;
            if line.len() == wanted {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "wanted {wanted} in line, got {line:?}");
            tokio::time::sleep(WAIT_POLL).await;
        }
    }

    /// Waits until so many calls have come.
    ///
    /// # Errors
    /// If that takes too long.
    pub async fn wait_calls(&self, wanted: usize) -> anyhow::Result<()> {
        let deadline = Instant::now() + WAIT_LIMIT;
        let request = ListCallsRequest { include_ended: true, limit: 10_000, ..Default::default() };
        loop {
            let calls = self.sip_edge(0).list_calls(request).await?.into_inner().calls.len();
            if calls >= wanted {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "wanted {wanted} calls, got {calls}");
            tokio::time::sleep(WAIT_POLL).await;
        }
    }

    /// Waits until no call, no place in a queue and no media session is left.
    ///
    /// # Errors
    /// If that takes too long.
    pub async fn wait_clean(&self, queue: &str) -> anyhow::Result<()> {
        let deadline = Instant::now() + WAIT_LIMIT;
        loop {
            let mut left = self.line(queue).await?.len() as u64;
            for nth in 0..REPLICAS {
                let calls = self.sip_edge(nth).list_calls(ListCallsRequest::default()).await?;
                let sessions = self.media_relay(nth).query(QueryRequest::default()).await?;
                left += u64::from(calls.into_inner().live) + u64::from(sessions.into_inner().total);
            }
            if left == 0 {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "{left} calls, places and sessions are left");
            tokio::time::sleep(WAIT_POLL).await;
        }
    }

    /// What all processes have printed, those too that have been replaced.
    pub fn outputs(&self) -> String {
        let processes = self.members.values().filter_map(|it| it.process.as_ref());
        let proxy = self.dispatcher.as_ref().map(Dispatcher::output);
        let all = self.gone.iter().cloned().chain(processes.map(said)).chain(proxy);
        all.collect::<Vec<_>>().join("\n")
    }
}

fn said(process: &Process) -> String {
    format!("== {}\n{}", process.name(), process.output())
}
