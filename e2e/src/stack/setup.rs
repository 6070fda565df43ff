//! What a stack is made of: its services, where they listen, what they are told and what they find.

use crate::audio::tune;
use crate::free_ports;
use anyhow::Context as _;
use std::path::Path;
use std::sync::Arc;

/// Users who may register: name and password.
pub const USERS: [(&str, &str); 2] = [("1000", "secret1000"), ("1001", "secret1001")];
/// The queue that [`super::Stack::create_queue`] makes, and the user part of its URI.
pub const QUEUE: &str = "abc";
pub const QUEUE_USER: &str = "1008";
/// Music and prompt, below the media folder.
pub const MUSIC: &str = "moh/music.wav";
pub const PROMPT: &str = "prompts/press-1.wav";

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

/// `--database-url` of those who have a database.
#[derive(Clone, Debug)]
pub struct Databases {
    pub scheduler: String,
    pub queue: String,
}

impl Default for Databases {
    /// Files in the folder of the stack.
    fn default() -> Self {
        Self { scheduler: "sqlite:scheduler.db".into(), queue: "sqlite:queue.db".into() }
    }
}

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
    pub databases: Databases,
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
            databases: Databases::default(),
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
