//! PostgreSQL, NATS, an edge that records effects, and two schedulers with a cable each to the
//! database, which can be cut.

use crate::messages::{Messages, SUBJECT};
use e2e::{Cut, NatsServer, Postgres, RecordingEdge, Replica, ReplicaFlags};
use proto::scheduler::v1::*;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long what must come may take to come about.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);
/// Between two looks at what no event tells of.
pub(crate) const LOOK: Duration = Duration::from_millis(50);

pub(crate) struct Cluster {
    pub(crate) replicas: Vec<Replica>,
    /// Between each replica and the database.
    pub(crate) cables: Vec<Cut>,
    pub(crate) edge: RecordingEdge,
    pub(crate) messages: Messages,
    pub(crate) postgres: Postgres,
    nats: NatsServer,
}

impl Cluster {
    /// `count` replicas, each with its share of the shards.
    pub(crate) async fn start(count: usize) -> Self {
        let postgres = Postgres::start().unwrap();
        let nats = NatsServer::start().unwrap();
        let edge = RecordingEdge::start().unwrap();
        let messages = Messages::listen(&nats.url()).await;
        let mut cluster = Self { replicas: vec![], cables: vec![], edge, messages, postgres, nats };
        (0..count).for_each(|_| cluster.join());
        cluster.wait_shared().await;
        cluster
    }

    /// One more replica, which will take its share.
    pub(crate) fn join(&mut self) {
        let cable = Cut::before(self.postgres.addr()).unwrap();
        let replica = self.spawn(&cable);
        self.cables.push(cable);
        self.replicas.push(replica);
    }

    fn spawn(&self, cable: &Cut) -> Replica {
        let flags = ReplicaFlags {
            database_url: &self.postgres.url_through(cable.addr()),
            nats_url: &self.nats.url(),
            more: ["--sip-edge", &self.edge.url(), "--edge-rate", "100000"]
                .map(str::to_owned)
                .into(),
            environment: Vec::new(),
        };
        Replica::start_binary(Path::new(env!("CARGO_BIN_EXE_scheduler")), &flags).unwrap()
    }

    /// A new process in the place of one that was killed.
    pub(crate) fn restart(&mut self, nth: usize) {
        self.replicas[nth].process.kill();
        self.replicas[nth] = self.spawn(&self.cables[nth]);
    }

    /// Waits until every replica has its share of the 16 shards.
    pub(crate) async fn wait_shared(&self) {
        self.wait("every replica to have its share", || self.is_shared()).await;
    }

    pub(crate) fn is_shared(&self) -> bool {
        let (held, share) = (self.held(), 16 / self.replicas.len());
        held.len() == self.replicas.len() && held.iter().all(|(_, shards)| *shards == share)
    }

    /// Addresses of the replicas that hold shards, and how many, as the database says.
    fn held(&self) -> Vec<(String, usize)> {
        let rows = self.postgres.psql(
            "SELECT address, COUNT(*) FROM shards JOIN replicas ON replica = holder
             WHERE lease_until > now() GROUP BY address ORDER BY address",
        );
        let rows = rows.unwrap();
        let row = |line: &str| {
            let (address, shards) = line.split_once('|').unwrap();
            (address.to_owned(), shards.parse().unwrap())
        };
        rows.lines().map(row).collect()
    }

    /// Looks again and again, because the database tells nobody.
    pub(crate) async fn wait(&self, what: &str, mut look: impl FnMut() -> bool) {
        let deadline = Instant::now() + LIMIT;
        let mut looks = tokio::time::interval(LOOK);
        while !look() {
            assert!(Instant::now() < deadline, "waited {LIMIT:?} for {what}; {:?}", self.held());
            looks.tick().await;
        }
    }

    /// Adds hangups of as many calls, one each, at these times; their ids.
    pub(crate) async fn schedule(&self, at_replica: usize, at_unix_ms: &[i64]) -> Vec<String> {
        let hangup = |at: &i64| ScheduleRequest {
            call_id: boot::new_id(),
            action: Some(schedule_request::Action::Hangup(HangupCall::default())),
            when: Some(schedule_request::When::AtUnixMs(*at)),
            ..ScheduleRequest::default()
        };
        self.add(at_replica, at_unix_ms.iter().map(hangup).collect()).await
    }

    /// Adds messages to be published at these times; their ids, and the messages.
    pub(crate) async fn schedule_messages(
        &self,
        at_replica: usize,
        at_unix_ms: &[i64],
    ) -> Vec<(String, String)> {
        let messages: Vec<String> = at_unix_ms.iter().map(|_| boot::new_id()).collect();
        let publish = |(at, message): (&i64, &String)| {
            let payload = message.clone().into_bytes();
            let publish = PublishMessage { subject: SUBJECT.to_owned(), payload };
            ScheduleRequest {
                call_id: boot::new_id(), // So that they are in all shards.
                action: Some(schedule_request::Action::Publish(publish)),
                when: Some(schedule_request::When::AtUnixMs(*at)),
                ..ScheduleRequest::default()
            }
        };
        let requests = at_unix_ms.iter().zip(&messages).map(publish).collect();
        self.add(at_replica, requests).await.into_iter().zip(messages).collect()
    }

    async fn add(&self, at_replica: usize, requests: Vec<ScheduleRequest>) -> Vec<String> {
        let mut client = self.replicas[at_replica].client().unwrap();
        let request = ScheduleManyRequest { requests };
        let response = client.schedule_many(request).await.unwrap().into_inner();
        let id = |result: ScheduleResult| match result.result {
            Some(schedule_result::Result::Task(task)) => task.task_id,
            other => panic!("wanted a task: {other:?}"),
        };
        response.results.into_iter().map(id).collect()
    }

    /// Waits until the task has ended as FIRED, by what a replica says.
    pub(crate) async fn wait_fired(&self, at_replica: usize, task_id: &str) {
        let mut client = self.replicas[at_replica].client().unwrap();
        let deadline = Instant::now() + LIMIT;
        let mut looks = tokio::time::interval(LOOK);
        loop {
            let request = GetRequest { task_id: task_id.to_owned() };
            let task = client.get(request).await.unwrap().into_inner();
            match task.state() {
                TaskState::Fired => return,
                TaskState::Pending | TaskState::Firing => (),
                _ => panic!("wanted FIRED: {task:?}"),
            }
            assert!(Instant::now() < deadline, "not settled in {LIMIT:?}: {task:?}");
            looks.tick().await;
        }
    }
}
