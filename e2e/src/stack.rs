//! All of Holdfast on one machine: nats-server and the four services, as separate processes.

mod clean;
mod setup;

pub use setup::{
    Databases, Echo, MUSIC, PROMPT, Ports, QUEUE, QUEUE_USER, SERVICES, Service, Setup, USERS,
};
pub(crate) use setup::{pairs, prepare};

use crate::audio::Wav;
use crate::other_edge::OtherEdge;
use crate::{NatsServer, Process, binary, free_ports};
use anyhow::{Context as _, bail};
use proto::media_relay::v1::media_relay_client::MediaRelayClient;
use proto::queue;
use proto::queue::v1::queues_client::QueuesClient;
use proto::scheduler::v1::scheduler_client::SchedulerClient;
use proto::sip_edge::v1::sip_edge_client::SipEdgeClient;
use std::collections::BTreeMap;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

/// How long a service may take to serve.
pub(crate) const READY_LIMIT: Duration = Duration::from_secs(30);
/// What `--drain` gets, and how much longer a service may take to end.
const DRAIN: Duration = Duration::from_secs(1);
const STOP_LIMIT: Duration = Duration::from_secs(5);
/// Where media-relay keeps its snapshots, below the stack's folder.
const MEDIA_STATE: &str = "media-state";

pub struct Stack {
    ports: Ports,
    pub(crate) folder: PathBuf,
    echo: Option<Echo>,
    sip_edge_flags: Vec<String>,
    media_relay_flags: &'static [&'static str],
    common_flags: Vec<String>,
    metrics: Option<u16>,
    databases: Databases,
    /// Dropped in this order.
    services: BTreeMap<Service, Process>,
    pub(crate) other: Option<OtherEdge>,
    nats: NatsServer,
    _temporary: Option<TempDir>,
    /// Held by tests: one stack at a time, or they disturb each other's clocks and sound.
    _alone: Option<File>,
}

impl Stack {
    /// On free ports, in a folder that goes with it; waits until no other test has a stack.
    pub fn start() -> anyhow::Result<Self> {
        Self::start_with(&[])
    }

    /// As [`Stack::start`], with more flags for sip-edge.
    pub fn start_with(flags: &[&str]) -> anyhow::Result<Self> {
        Self::start_beside(flags, None, |_| Ok(()))
    }

    /// As [`Stack::start_with`], after `prepare` has put something into the folder.
    pub fn start_prepared(
        flags: &[&str],
        prepare: impl FnOnce(&Path) -> anyhow::Result<()>,
    ) -> anyhow::Result<Self> {
        Self::start_beside(flags, None, prepare)
    }

    /// As [`Stack::start`], with two sip-edges; queue-svc knows the second one only.
    pub fn start_replicated() -> anyhow::Result<Self> {
        let first = free_ports(2)?;
        let mut stack = Self::start_beside(&[], Some([first, first + 1]), |_| Ok(()))?;
        stack.start_other()?;
        Ok(stack)
    }

    fn start_beside(
        flags: &[&str],
        other_edge: Option<[u16; 2]>,
        prepare: impl FnOnce(&Path) -> anyhow::Result<()>,
    ) -> anyhow::Result<Self> {
        // Our phones know both.
        let digest = ["--digest", "sha-256,md5"];
        let digest = if flags.contains(&digest[0]) { &[][..] } else { &digest };
        let flags = digest.iter().chain(flags).map(|flag| (*flag).to_owned());
        let sip_edge_flags = flags.collect();
        let setup = Setup { sip_edge_flags, other_edge, ..Setup::on(Ports::free()?) };
        Self::start_alone(setup, prepare)
    }

    /// As [`Stack::start`], but as `setup` says.
    pub fn start_as(setup: Setup) -> anyhow::Result<Self> {
        Self::start_alone(setup, |_| Ok(()))
    }

    fn start_alone(
        setup: Setup,
        prepare: impl FnOnce(&Path) -> anyhow::Result<()>,
    ) -> anyhow::Result<Self> {
        let alone = File::create(std::env::temp_dir().join("holdfast-e2e.lock"))?;
        alone.lock().context("wait for the other tests")?;
        let temporary = tempfile::tempdir().context("make a folder for the stack")?;
        prepare(temporary.path())?;
        let mut stack = Self::start_in(temporary.path(), setup)?;
        stack._temporary = Some(temporary);
        stack._alone = Some(alone);
        Ok(stack)
    }

    /// With its databases, events, dial plan and media in `folder`, which may have them already.
    pub fn start_in(folder: &Path, setup: Setup) -> anyhow::Result<Self> {
        let Setup { ports, echo, sip_edge_flags, media_relay_flags, .. } = setup;
        let Setup { common_flags, metrics, other_edge, databases, .. } = setup;
        prepare(folder)?;
        let nats = NatsServer::start_at(&folder.join("nats"), Some(ports.nats))?;
        let folder = folder.to_owned();
        let services = BTreeMap::new();
        let mut stack = Self {
            ports,
            folder,
            echo,
            sip_edge_flags,
            media_relay_flags,
            common_flags,
            metrics,
            databases,
            services,
            other: other_edge.map(|[sip, grpc]| OtherEdge::at(sip, grpc)),
            nats,
            _temporary: None,
            _alone: None,
        };
        for service in SERVICES {
            stack.start_service(service)?;
        }
        Ok(stack)
    }

    /// Starts a service that does not run, on its port and with what it had stored.
    pub fn start_service(&mut self, service: Service) -> anyhow::Result<()> {
        let mut command = Command::new(binary(service.name())?);
        command.current_dir(&self.folder).args(self.flags(service));
        let process = match self.echo.clone() {
            Some(echo) => Process::spawn_echoed(service.name(), &mut command, move |line| {
                echo(service.name(), line);
            }),
            None => Process::spawn(service.name(), &mut command),
        }?;
        process.wait_for("that it serves", READY_LIMIT, |line| {
            (line.contains("serving") && line.contains("grpc")).then_some(())
        })?;
        self.services.insert(service, process);
        Ok(())
    }

    pub(crate) fn flags(&self, service: Service) -> Vec<String> {
        let Ports { sip, nats, sip_edge, media_relay, scheduler, queue_svc } = self.ports;
        let local = |port: u16| format!("127.0.0.1:{port}");
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let grpc = local(self.ports.grpc(service));
        let nats = format!("nats://127.0.0.1:{nats}");
        let drain = format!("{}s", DRAIN.as_secs());
        let format = if self.echo.is_some() { "human" } else { "json" };
        let mut flags = pairs([
            ("--grpc", grpc.as_str()),
            ("--nats-url", &nats),
            ("--drain", &drain),
            ("--log-format", format),
        ]);
        flags.extend(self.common_flags.iter().cloned());
        if let Some(port) = self.metrics_port(service) {
            flags.extend(pairs([("--metrics", local(port).as_str())]));
        }
        flags.extend(match service {
            Service::MediaRelay => {
                let mut flags = pairs([("--media-dir", "media"), ("--state-dir", MEDIA_STATE)]);
                flags.extend(self.media_relay_flags.iter().map(|it| (*it).to_owned()));
                flags
            }
            Service::Scheduler => {
                let mut flags = pairs([("--database-url", self.databases.scheduler.as_str())]);
                let both = self.other.as_ref().map(|other| {
                    let named = format!("{}={}", OtherEdge::NAME, other.url());
                    [format!("edge={}", url(sip_edge)), named]
                });
                let edges = both.map_or_else(|| vec![url(sip_edge)], Vec::from);
                flags.extend(pairs(edges.iter().map(|edge| ("--sip-edge", edge.as_str()))));
                flags
            }
            Service::QueueSvc => {
                let edge = self.other.as_ref().map_or_else(|| url(sip_edge), OtherEdge::url);
                pairs([("--database-url", self.databases.queue.as_str()), ("--sip-edge", &edge)])
            }
            Service::SipEdge => {
                let users = USERS.map(|(name, password)| format!("{name}:{password}"));
                let users = users.iter().map(|user| ("--user", user.as_str()));
                let mut flags = pairs([
                    ("--sip", local(sip).as_str()),
                    ("--media-relay", &url(media_relay)),
                    ("--scheduler", &url(scheduler)),
                    ("--queue-svc", &url(queue_svc)),
                    ("--dial-plan", "dial-plan.yaml"),
                ]);
                flags.extend(pairs(users));
                flags.extend(self.sip_edge_flags.iter().cloned());
                flags
            }
        });
        flags
    }

    /// Where the page of metrics of a service is, if it has one.
    pub fn metrics_port(&self, service: Service) -> Option<u16> {
        let nth = Ports::DEFAULT.grpc(service) - Ports::DEFAULT.sip_edge;
        self.metrics.map(|first| first + nth)
    }

    /// Starts sip-edge again with this dial plan.
    pub fn change_dial_plan(&mut self, yaml: &str) -> anyhow::Result<()> {
        self.kill(Service::SipEdge);
        std::fs::write(self.folder.join("dial-plan.yaml"), yaml).context("write the dial plan")?;
        self.start_service(Service::SipEdge)
    }

    /// Waits until a service has printed a line with `text`.
    pub fn wait_line(&self, service: Service, text: &str) -> anyhow::Result<()> {
        let process = self.services.get(&service).context("find the service")?;
        let has = |line: &str| line.contains(text).then_some(());
        process.wait_for(&format!("{text:?}"), READY_LIMIT, has)
    }

    /// SIGKILL.
    pub fn kill(&mut self, service: Service) {
        self.services.remove(&service); // Dropping kills.
    }

    /// SIGTERM to one service, and its end.
    pub fn terminate(&mut self, service: Service) -> anyhow::Result<()> {
        match self.services.remove(&service) {
            Some(mut process) => process.stop(DRAIN + STOP_LIMIT).map(drop),
            None => Ok(()),
        }
    }

    /// Takes away what a media-relay that was killed would go on with: another host has none of it.
    pub fn lose_media_state(&self) -> anyhow::Result<()> {
        let state = self.folder.join(MEDIA_STATE);
        std::fs::remove_dir_all(state).context("remove the snapshots of media-relay")
    }

    /// SIGSTOP: it keeps its connections and answers nobody.
    pub fn freeze(&self, service: Service) -> anyhow::Result<()> {
        self.services[&service].signal("STOP")
    }

    /// SIGCONT.
    pub fn thaw(&self, service: Service) -> anyhow::Result<()> {
        self.services[&service].signal("CONT")
    }

    /// SIGKILL to nats-server.
    pub fn kill_nats(&mut self) {
        self.nats.process().kill();
    }

    /// SIGKILL to nats-server, and a new one on the same port and store.
    pub fn restart_nats(&mut self) -> anyhow::Result<()> {
        self.kill_nats();
        self.nats = NatsServer::start_at(&self.folder.join("nats"), Some(self.ports.nats))?;
        Ok(())
    }

    pub fn ports(&self) -> Ports {
        self.ports
    }

    /// Where phones send SIP.
    pub fn sip(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.ports.sip))
    }

    /// `sip:USER@…` at this stack; the port is left out where it is SIP's default.
    pub fn uri(&self, user: &str) -> String {
        match self.ports.sip {
            5060 => format!("sip:{user}@127.0.0.1"),
            port => format!("sip:{user}@127.0.0.1:{port}"),
        }
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The source of what callers hear: [`MUSIC`] or [`PROMPT`].
    pub fn media(&self, name: &str) -> anyhow::Result<Wav> {
        Wav::read(&self.folder.join("media").join(name))
    }

    pub fn sip_edge(&self) -> SipEdgeClient<Channel> {
        SipEdgeClient::new(self.channel(Service::SipEdge))
    }

    pub fn media_relay(&self) -> MediaRelayClient<Channel> {
        MediaRelayClient::new(self.channel(Service::MediaRelay))
    }

    pub fn scheduler(&self) -> SchedulerClient<Channel> {
        SchedulerClient::new(self.channel(Service::Scheduler))
    }

    pub fn queues(&self) -> QueuesClient<Channel> {
        QueuesClient::new(self.channel(Service::QueueSvc))
    }

    fn channel(&self, service: Service) -> Channel {
        let url = format!("http://127.0.0.1:{}", self.ports.grpc(service));
        Endpoint::from_shared(url).expect("an address and a port are a URL").connect_lazy()
    }

    /// Makes queue [`QUEUE`] with [`MUSIC`] for calls to [`QUEUE_USER`], if there is none.
    pub async fn create_queue(&self) -> anyhow::Result<()> {
        let queue = queue::v1::Queue {
            name: QUEUE.into(),
            uri: self.uri(QUEUE_USER),
            mohdir: "moh".into(),
            mohfile: "music.wav".into(),
            max_calls: 5_000,
            ..queue::v1::Queue::default()
        };
        let request = queue::v1::CreateQueueRequest { queue: Some(queue) };
        match self.queues().create_queue(request).await {
            Ok(_) => Ok(()),
            Err(status) if status.code() == tonic::Code::AlreadyExists => Ok(()),
            Err(status) => Err(status).context("create the queue"),
        }
    }

    /// Names of the processes that have ended by themselves.
    pub fn dead(&mut self) -> Vec<&'static str> {
        let services = self.services.iter_mut();
        let mut dead: Vec<_> = services
            .filter_map(|(service, process)| process.ended().map(|_| service.name()))
            .collect();
        if self.nats.process().ended().is_some() {
            dead.push("nats-server");
        }
        dead
    }

    /// What a service has printed.
    pub fn output(&self, service: Service) -> String {
        self.services.get(&service).map(Process::output).unwrap_or_default()
    }

    /// Process id of a service that runs.
    pub fn pid(&self, service: Service) -> Option<u32> {
        self.services.get(&service).map(Process::pid)
    }

    /// SIGTERM to all, those that phones see first.
    ///
    /// # Errors
    /// Names those that did not end in time and were killed.
    pub fn stop(mut self) -> anyhow::Result<()> {
        let mut stubborn = Vec::new();
        self.kill_other();
        for service in SERVICES.into_iter().rev() {
            let Some(mut process) = self.services.remove(&service) else { continue };
            if process.stop(DRAIN + STOP_LIMIT).is_err() {
                stubborn.push(service.name());
            }
        }
        if self.nats.process().stop(STOP_LIMIT).is_err() {
            stubborn.push("nats-server");
        }
        if !stubborn.is_empty() {
            bail!("stop {}: no end in time, killed", stubborn.join(", "));
        }
        Ok(())
    }
}

impl Drop for Stack {
    /// Whoever does not get to [`Stack::stop`] has failed: shows what the services said.
    fn drop(&mut self) {
        if self.echo.is_none() {
            for (service, process) in &self.services {
                let output = process.output();
                let lines: Vec<&str> = output.lines().collect();
                let last = &lines[lines.len().saturating_sub(40)..];
                eprintln!("--- {}\n{}", service.name(), last.join("\n"));
            }
        }
    }
}
