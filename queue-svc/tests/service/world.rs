//! queue-svc as a process, with a real NATS, a real database file, and a sip-edge of the test.

use crate::edge::Edge;
use boot::Channel;
use e2e::{NatsServer, Process};
use futures::StreamExt as _;
use proto::queue::v1::queues_client::QueuesClient;
use proto::queue::v1::*;
use proto::sip_edge::v1::{Call, CallEvent, CallEventType, CallState, Leg};
use proto::subjects;
use sqlx::{Connection as _, SqliteConnection};
use std::collections::HashSet;
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;
use tonic::{Code, Status};

pub(crate) const LIMIT: Duration = Duration::from_secs(20);

pub(crate) struct World {
    pub(crate) edge: Edge,
    pub(crate) client: QueuesClient<Channel>,
    pub(crate) process: Process,
    url: String,
    events: async_nats::Subscriber,
    /// Of the events that have come: after a crash some come again.
    seen: HashSet<String>,
    bus: async_nats::Client,
    nats: NatsServer,
    folder: TempDir,
}

/// The command line of a queue-svc of its own.
pub(crate) fn command(folder: &TempDir, nats_url: &str, edge_url: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_queue-svc"));
    command
        .current_dir(folder.path())
        .args(["--grpc", "127.0.0.1:0", "--database-url", "sqlite:queue.db"])
        .args(["--nats-url", nats_url, "--sip-edge", edge_url]);
    command
}

/// The process, a client of it, and its address.
pub(crate) async fn start(mut command: Command) -> (Process, QueuesClient<Channel>, String) {
    let process = Process::spawn("queue-svc", &mut command).unwrap();
    let port = process.wait_for("its port", LIMIT, |line| {
        let rest = line.split_once(r#""message":"serving""#)?.1;
        rest.split_once(r#""grpc":"127.0.0.1:"#)?.1.split_once('"')?.0.parse::<u16>().ok()
    });
    let url = format!("http://127.0.0.1:{}", port.unwrap());
    let client = connect(&url);
    (process, client, url)
}

fn connect(url: &str) -> QueuesClient<Channel> {
    QueuesClient::new(boot::channel("the test's", url).unwrap())
}

impl World {
    /// With queue abc, `sip:1008@example.com`, for `max_calls` callers.
    pub(crate) async fn with_queue(max_calls: u32) -> Self {
        let mut world = Self::empty().await;
        world
            .client
            .create_queue(CreateQueueRequest { queue: Some(abc(max_calls)) })
            .await
            .unwrap();
        world
    }

    pub(crate) async fn empty() -> Self {
        Self::in_folder(tempfile::tempdir().unwrap()).await
    }

    /// As [`World::with_queue`], also where so many are more than all queues take by default.
    pub(crate) async fn with_limit(max_calls: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut world = Self::start(folder, &["--max-calls", &max_calls.to_string()]).await;
        let request = CreateQueueRequest { queue: Some(abc(max_calls)) };
        world.client.create_queue(request).await.unwrap();
        world
    }

    pub(crate) async fn in_folder(folder: TempDir) -> Self {
        Self::start(folder, &[]).await
    }

    async fn start(folder: TempDir, flags: &[&str]) -> Self {
        let nats = NatsServer::start().unwrap();
        let edge = Edge::start().await;
        let bus = async_nats::connect(nats.url()).await.unwrap();
        let events = bus.subscribe("holdfast.queue.>").await.unwrap();
        bus.flush().await.unwrap();
        let mut command = command(&folder, &nats.url(), &edge.url());
        command.args(flags);
        let (process, client, url) = start(command).await;
        Self { edge, client, process, url, events, seen: HashSet::new(), bus, nats, folder }
    }

    pub(crate) async fn kill(&mut self) {
        self.process.kill();
    }

    pub(crate) async fn restart(&mut self) {
        self.process.kill();
        let command = command(&self.folder, &self.nats.url(), &self.edge.url());
        (self.process, self.client, self.url) = start(command).await;
    }

    /// What follows goes by a connection of its own; what is under way stays on the old one.
    pub(crate) fn connect_anew(&mut self) {
        self.client = connect(&self.url);
    }

    /// A call that is answered and waits in abc.
    pub(crate) async fn join(&mut self, call_id: &str) {
        self.edge.call(call_id, CallState::Answered);
        self.enqueue(call_id, false).await.unwrap();
        self.enqueue(call_id, true).await.unwrap();
    }

    /// As [`World::join`], by itself.
    pub(crate) fn start_join(&self, call_id: &str) -> tokio::task::JoinHandle<Result<(), Status>> {
        self.edge.call(call_id, CallState::Answered);
        let mut client = self.client.clone();
        let (call_id, queue) = (call_id.to_owned(), "abc".to_owned());
        let request = EnqueueRequest { call_id, queue, answered: true, ..Default::default() };
        tokio::spawn(async move { client.enqueue(request).await.map(drop) })
    }

    pub(crate) fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    pub(crate) async fn enqueue(
        &mut self,
        call_id: &str,
        answered: bool,
    ) -> Result<EnqueueResponse, Status> {
        let request = EnqueueRequest {
            call_id: call_id.into(),
            queue: "abc".into(),
            from: format!("\"{call_id}\" <sip:{call_id}@example.com>;tag=1"),
            contact: format!("<sip:{call_id}@10.0.0.1>"),
            answered,
            ..EnqueueRequest::default()
        };
        Ok(self.client.enqueue(request).await?.into_inner())
    }

    pub(crate) async fn leave(&mut self, call_id: &str) -> LeaveResponse {
        let request = LeaveRequest { call_id: call_id.into(), ..LeaveRequest::default() };
        self.client.leave(request).await.unwrap().into_inner()
    }

    /// A request that goes on by itself.
    pub(crate) fn retrieve(
        &self,
        agent: &str,
    ) -> tokio::task::JoinHandle<Result<RetrieveResponse, Status>> {
        let mut client = self.client.clone();
        let request =
            RetrieveRequest { queue: "abc".into(), agent: agent.into(), ..Default::default() };
        tokio::spawn(async move { Ok(client.retrieve(request).await?.into_inner()) })
    }

    /// `position call status`, first in line first.
    pub(crate) async fn list(&mut self, queue: &str) -> String {
        let request = ListRequest { queue: queue.into(), limit: 10_000 };
        let callers = self.client.list(request).await.unwrap().into_inner().callers;
        let one = |it: &Caller| {
            let status = it.status().as_str_name().trim_start_matches("CALL_STATUS_");
            format!("{} {} {status}", it.position, it.call_id)
        };
        callers.iter().map(one).collect::<Vec<_>>().join(", ")
    }

    pub(crate) async fn count(&mut self) -> (u32, u32, u32) {
        let request = CountRequest { queue: "abc".into() };
        let count = self.client.count(request).await.unwrap().into_inner();
        (count.entering, count.waiting, count.leaving)
    }

    /// The next one that has not come before.
    pub(crate) async fn event(&mut self) -> QueueEvent {
        loop {
            let message = tokio::time::timeout(LIMIT, self.events.next()).await;
            let message = message.expect("an event comes in time").unwrap();
            let event: QueueEvent =
                proto::json::from_json(std::str::from_utf8(&message.payload).unwrap()).unwrap();
            let queue = event.caller.as_ref().map(|it| it.queue.as_str());
            let agent = event.agent.as_ref().map(|it| it.name.as_str());
            let about = queue.or(agent).unwrap();
            assert_eq!(message.subject.as_str(), subjects::queue(event.r#type(), about));
            if self.seen.insert(event.event_id.clone()) {
                return event;
            }
        }
    }

    /// The next event: `TYPE call at position of waiting: reason`.
    pub(crate) async fn event_text(&mut self) -> String {
        let event = self.event().await;
        let name = event.r#type().as_str_name().trim_start_matches("QUEUE_EVENT_TYPE_");
        if let Some(agent) = &event.agent {
            let state = agent.state().as_str_name().trim_start_matches("AGENT_STATE_");
            return format!("AGENT {} {state}: {}", agent.name, event.reason);
        }
        let caller = event.caller.unwrap();
        let (position, waiting, reason) = (caller.position, event.waiting, event.reason);
        format!("{name} {} at {position} of {waiting}: {reason}", caller.call_id)
    }

    /// Tells everybody that the call has ended, as sip-edge does.
    pub(crate) async fn publish_end(&self, call_id: &str) {
        publish_end(&self.bus, call_id).await;
    }

    /// Tells everybody that the call talks to somebody now, as sip-edge does.
    pub(crate) async fn publish_connected(&self, call_id: &str, assignment_id: &str) {
        let state = CallState::Connected.into();
        let call = Some(Call { call_id: call_id.into(), state, ..Call::default() });
        let assignment_id = assignment_id.into();
        let event = CallEvent { call, assignment_id, ..CallEvent::default() };
        self.publish_call(CallEventType::Connected, event).await;
    }

    /// Tells everybody that the call connects these.
    pub(crate) async fn publish_talk(&self, call_id: &str, remotes: &[&str]) {
        let leg = |remote: &&str| Leg { remote_uri: (*remote).into(), ..Leg::default() };
        let legs = remotes.iter().map(leg).collect();
        let state = CallState::Connected.into();
        let call = Some(Call { call_id: call_id.into(), state, legs, ..Call::default() });
        self.publish_call(CallEventType::Connected, CallEvent { call, ..CallEvent::default() })
            .await;
    }

    async fn publish_call(&self, kind: CallEventType, event: CallEvent) {
        publish_call(&self.bus, kind, event).await;
    }

    /// A connection of somebody else to the database.
    pub(crate) async fn database(&self) -> SqliteConnection {
        open(&self.folder).await
    }
}

/// Tells everybody on this NATS that the call has ended, as sip-edge does.
pub(crate) async fn publish_end(bus: &async_nats::Client, call_id: &str) {
    let cause = "NORMAL_CLEARING".into();
    let call = Some(Call { call_id: call_id.into(), cause, ..Call::default() });
    publish_call(bus, CallEventType::Ended, CallEvent { call, ..CallEvent::default() }).await;
}

async fn publish_call(bus: &async_nats::Client, kind: CallEventType, mut event: CallEvent) {
    event.set_type(kind);
    event.event_id = boot::new_id();
    event.at_unix_ms = boot::unix_ms();
    let subject = subjects::call(kind, &event.call.as_ref().unwrap().call_id);
    let jetstream = async_nats::jetstream::new(bus.clone());
    let sent = jetstream.publish(subject, proto::json::to_json(&event).into()).await.unwrap();
    sent.await.unwrap();
}

pub(crate) async fn open(folder: &TempDir) -> SqliteConnection {
    let path = folder.path().join("queue.db");
    SqliteConnection::connect(&format!("sqlite:{}?mode=rwc", path.display())).await.unwrap()
}

pub(crate) fn abc(max_calls: u32) -> Queue {
    Queue {
        name: "abc".into(),
        uri: "sip:1008@example.com".into(),
        mohdir: "/var/moh".into(),
        mohfile: "music.wav".into(),
        max_calls,
        ..Queue::default()
    }
}

#[track_caller]
pub(crate) fn refused<T: std::fmt::Debug>(result: Result<T, Status>, code: Code, says: &str) {
    let status = result.unwrap_err();
    assert_eq!(status.code(), code, "{status}");
    assert!(status.message().contains(says), "{:?} does not say {says:?}", status.message());
}
