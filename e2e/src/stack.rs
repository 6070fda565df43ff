//! All of Holdfast on one machine: nats-server and the four services, as separate processes.

use crate::audio::{Wav, tune};
use crate::other_edge::OtherEdge;
use crate::{NatsServer, Process, binary, free_ports};
use anyhow::{Context as _, bail};
use proto::media_relay::v1::media_relay_client::MediaRelayClient;
use proto::queue::v1::queues_client::QueuesClient;
use proto::scheduler::v1::scheduler_client::SchedulerClient;
use proto::sip_edge::v1::sip_edge_client::SipEdgeClient;
use proto::{media_relay, queue, scheduler, sip_edge};
use std::collections::BTreeMap;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

/// How long a service may take to serve.
pub(crate) const READY_LIMIT: Duration = Duration::from_secs(30);
/// What `--drain` gets, and how much longer a service may take to end.
const DRAIN: Duration = Duration::from_secs(1);
const STOP_LIMIT: Duration = Duration::from_secs(5);
/// How long what a call leaves behind may take to be gone after its end.
const CLEAN_LIMIT: Duration = Duration::from_secs(15);
const CLEAN_POLL: Duration = Duration::from_millis(50);
/// Users who may register: name and password.
pub const USERS: [(&str, &str); 2] = [("1000", "secret1000"), ("1001", "secret1001")];
/// The queue that [`Stack::create_queue`] makes, and the user part of its URI.
pub const QUEUE: &str = "abc";
pub const QUEUE_USER: &str = "1008";
/// Music and prompt, below the media folder.
pub const MUSIC: &str = "moh/music.wav";
pub const PROMPT: &str = "prompts/press-1.wav";

/// Where media-relay keeps its snapshots, below the stack's folder.
const MEDIA_STATE: &str = "media-state";

/// Which calls do what: queues by their URI; `service` is who SIPp's own scenarios call.
const DIAL_PLAN: &str = r#"routes:
  - name: queues
    queue_uri: true
    plan:
      actions:
        - enqueue: {}
  - name: park
    uri: "^sip:service@"
    plan:
      actions:
        - answer: {}
        - park: {}
  - name: user
    uri: "^sip:1000@"
    plan:
      actions:
        - dial: { target: user/1000 }
  - name: agent-login
    uri: "^sip:login@"
    plan:
      actions:
        - agent: { does: LOGIN }
        - answer: {}
        - play: { file: prompts/press-1.wav }
  - name: conference
    uri: "^sip:test1@"
    plan:
      actions:
        - conference: { name: test1 }
"#;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Service {
    MediaRelay,
    Scheduler,
    QueueSvc,
    SipEdge,
}

/// In the order in which they are started; stopped the other way round.
pub const SERVICES: [Service; 4] =
    [Service::MediaRelay, Service::Scheduler, Service::QueueSvc, Service::SipEdge];

impl Service {
    pub fn name(self) -> &'static str {
        match self {
            Self::MediaRelay => "media-relay",
            Self::Scheduler => "scheduler",
            Self::QueueSvc => "queue-svc",
            Self::SipEdge => "sip-edge",
        }
    }
}

/// Where everything listens, on 127.0.0.1.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    pub sip: u16,
    pub nats: u16,
    pub sip_edge: u16,
    pub media_relay: u16,
    pub scheduler: u16,
    pub queue_svc: u16,
}

impl Ports {
    /// The defaults of the services' flags.
    pub const DEFAULT: Self = Self {
        sip: 5060,
        nats: 4222,
        sip_edge: 50051,
        media_relay: 50052,
        scheduler: 50053,
        queue_svc: 50054,
    };

    /// Ports that nobody has now, all different.
    pub fn free() -> anyhow::Result<Self> {
        let first = free_ports(6)?;
        let [sip, nats, sip_edge, media_relay, scheduler, queue_svc] =
            std::array::from_fn(|nth| first + nth as u16);
        Ok(Self { sip, nats, sip_edge, media_relay, scheduler, queue_svc })
    }

    /// Where `service` serves gRPC.
    pub fn grpc(&self, service: Service) -> u16 {
        match service {
            Service::MediaRelay => self.media_relay,
            Service::Scheduler => self.scheduler,
            Service::QueueSvc => self.queue_svc,
            Service::SipEdge => self.sip_edge,
        }
    }
}

/// Sees every line that a process prints, with the name of the process.
pub type Echo = Arc<dyn Fn(&str, &str) + Send + Sync>;

/// How a stack differs from another.
pub struct Setup {
    pub ports: Ports,
    pub echo: Option<Echo>,
    /// More flags for sip-edge.
    pub sip_edge_flags: Vec<String>,
    /// More flags for media-relay.
    pub media_relay_flags: &'static [&'static str],
    /// Ports of a second sip-edge for SIP and gRPC; it is not started with the others.
    pub other_edge: Option<[u16; 2]>,
    /// More flags for all four.
    pub common_flags: Vec<String>,
    /// First of four ports in a row for the pages of metrics, in the order of the gRPC ports.
    pub metrics: Option<u16>,
}

impl Setup {
    pub fn on(ports: Ports) -> Self {
        Self {
            ports,
            echo: None,
            sip_edge_flags: Vec::new(),
            media_relay_flags: &[],
            common_flags: Vec::new(),
            metrics: None,
            other_edge: None,
        }
    }
}

pub struct Stack {
    ports: Ports,
    pub(crate) folder: PathBuf,
    echo: Option<Echo>,
    sip_edge_flags: Vec<String>,
    media_relay_flags: &'static [&'static str],
    common_flags: Vec<String>,
    metrics: Option<u16>,
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
        let Setup { common_flags, metrics, other_edge, .. } = setup;
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
                let mut flags = pairs([("--database-url", "sqlite:scheduler.db")]);
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
                pairs([("--database-url", "sqlite:queue.db"), ("--sip-edge", &edge)])
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

    /// SIGKILL to nats-server, and a new one on the same port and store.
    pub fn restart_nats(&mut self) -> anyhow::Result<()> {
        self.nats.process().kill();
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

    /// Waits until no call, caller, media session and task is left, and `mohqcalls` is empty.
    ///
    /// # Errors
    /// If that takes more than 15 s; says what is left.
    pub async fn wait_clean(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + CLEAN_LIMIT;
        loop {
            let left = self.leftovers().await?;
            match left.is_empty() {
                true => return Ok(()),
                false if Instant::now() > deadline => bail!("left over: {}", left.join(", ")),
                false => tokio::time::sleep(CLEAN_POLL).await,
            }
        }
    }

    async fn leftovers(&self) -> anyhow::Result<Vec<String>> {
        let calls = self.sip_edge().list_calls(sip_edge::v1::ListCallsRequest::default()).await?;
        let sessions = self.media_relay().query(media_relay::v1::QueryRequest::default()).await?;
        let tasks = self.scheduler().list(scheduler::v1::ListRequest::default()).await?;
        let mut left = vec![
            (calls.into_inner().live as usize, "live calls".to_owned()),
            (sessions.into_inner().total as usize, "media sessions".to_owned()),
            (tasks.into_inner().tasks.len(), "pending tasks".to_owned()),
            (self.mohqcalls()?.len(), "rows of mohqcalls".to_owned()),
        ];
        let queues = self.queues().list_queues(queue::v1::ListQueuesRequest {}).await?;
        for queue in queues.into_inner().queues {
            let request = queue::v1::CountRequest { queue: queue.name.clone() };
            let count = self.queues().count(request).await?.into_inner();
            let callers = (count.waiting + count.entering + count.leaving) as usize;
            left.push((callers, format!("callers in {}", queue.name)));
        }
        left.retain(|(count, _)| *count > 0);
        Ok(left.into_iter().map(|(count, what)| format!("{count} {what}")).collect())
    }

    /// Rows of the table as `call_id|call_status`, read by sqlite3 from the file, as a dashboard would.
    pub fn mohqcalls(&self) -> anyhow::Result<Vec<String>> {
        let sql = "SELECT call_id, call_status FROM mohqcalls ORDER BY id";
        let mut command = Command::new("sqlite3");
        command.args(["-readonly", "-cmd", ".timeout 5000"]);
        let output = command.arg(self.folder.join("queue.db")).arg(sql).output();
        let output = output.context("run sqlite3")?;
        if !output.status.success() {
            bail!("read mohqcalls: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8(output.stdout)?.lines().map(str::to_owned).collect())
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

/// Folders, dial plan, music and prompt, where they are not there yet.
pub(crate) fn prepare(folder: &Path) -> anyhow::Result<()> {
    let media = folder.join("media");
    for below in ["moh", "prompts"] {
        std::fs::create_dir_all(media.join(below)).context("make the media folder")?;
    }
    std::fs::create_dir_all(folder.join("nats")).context("make a folder for NATS")?;
    // Short enough for its seam to be heard within a test.
    for (name, seed, duration_ms) in [(MUSIC, 1, 6_000), (PROMPT, 2, 1_500)] {
        if !media.join(name).exists() {
            tune(seed, duration_ms).write(&media.join(name))?;
        }
    }
    std::fs::write(folder.join("dial-plan.yaml"), DIAL_PLAN).context("write the dial plan")
}

pub(crate) fn pairs<'a>(flags: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<String> {
    flags.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value.to_owned()]).collect()
}
