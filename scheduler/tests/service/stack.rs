//! NATS, an edge, a database file, and the scheduler's process, which can be killed and restarted.

use crate::edge::{Edge, Serving};
use boot::Channel;
use e2e::{NatsServer, Process};
use proto::scheduler::v1::scheduler_client::SchedulerClient;
use proto::scheduler::v1::*;
use proto::sip_edge::v1::{Call, CallEvent, CallEventType};
use proto::subjects;
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::mpsc;

/// How long the process may take to start, to end, and to do what a test waits for.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

pub(crate) struct Stack {
    pub(crate) nats: NatsServer,
    pub(crate) edge: Edge,
    pub(crate) edge_serving: Serving,
    pub(crate) process: Process,
    pub(crate) client: SchedulerClient<Channel>,
    pub(crate) events: mpsc::Receiver<TaskEvent>,
    bus: boot::Nats,
    flags: Vec<String>,
    dir: TempDir,
}

impl Stack {
    pub(crate) async fn start(flags: &[&str]) -> Self {
        let nats = NatsServer::start().unwrap();
        let (edge, edge_serving) = Edge::start();
        let dir = tempfile::tempdir().unwrap();
        let bus =
            boot::Nats::connect("test", &boot::Login::at(&nats.url()).unwrap()).await.unwrap();
        let events = task_events(bus.clone());
        let flags: Vec<_> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let (process, client) = spawn(&nats, &edge, &dir, &flags);
        Self { nats, edge, edge_serving, process, client, events, bus, flags, dir }
    }

    /// SIGKILL: nothing is finished.
    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    /// A new process on the same database.
    pub(crate) fn restart(&mut self) {
        (self.process, self.client) = spawn(&self.nats, &self.edge, &self.dir, &self.flags);
    }

    pub(crate) fn database_url(&self) -> String {
        database_url(&self.dir)
    }

    /// The next event of a task in this state.
    pub(crate) async fn event(&mut self, state: TaskState) -> TaskEvent {
        let next = async {
            while let Some(event) = self.events.recv().await {
                if event.task.as_ref().is_some_and(|task| task.state() == state) {
                    return event;
                }
            }
            panic!("the bus has ended")
        };
        let waited = tokio::time::timeout(LIMIT, next).await;
        waited.unwrap_or_else(|_| panic!("no event {state:?} in {LIMIT:?}"))
    }

    /// Tells the bus that a call has ended, as sip-edge does.
    pub(crate) async fn end_call(&self, call_id: &str) {
        let event = CallEvent {
            event_id: boot::new_id(),
            r#type: CallEventType::Ended.into(),
            at_unix_ms: boot::unix_ms(),
            call: Some(Call { call_id: call_id.to_owned(), ..Call::default() }),
            ..CallEvent::default()
        };
        let (publisher, publishing) = self.bus.publisher();
        let event_id = event.event_id.clone();
        publisher.publish(subjects::call(CallEventType::Ended, call_id), &event_id, &event);
        tokio::spawn(publishing);
    }

    pub(crate) async fn schedule(&mut self, call_id: &str, after_ms: i64) -> Task {
        self.client.schedule(request(call_id, after_ms)).await.unwrap().into_inner()
    }

    pub(crate) async fn get(&mut self, task_id: &str) -> Task {
        let request = GetRequest { task_id: task_id.to_owned() };
        self.client.get(request).await.unwrap().into_inner()
    }

    pub(crate) async fn cancel(&mut self, task_id: &str) -> (CancelOutcome, Option<Task>) {
        let request = CancelRequest { task_id: task_id.to_owned(), by: "test".to_owned() };
        let response = self.client.cancel(request).await.unwrap().into_inner();
        (response.outcome(), response.task)
    }

    /// All tasks in these states.
    pub(crate) async fn list(&mut self, states: &[TaskState]) -> Vec<Task> {
        let mut request = ListRequest {
            states: states.iter().map(|state| (*state).into()).collect(),
            ..ListRequest::default()
        };
        let mut tasks = Vec::new();
        loop {
            let page = self.client.list(request.clone()).await.unwrap().into_inner();
            tasks.extend(page.tasks);
            if page.next_page_token.is_empty() {
                return tasks;
            }
            request.page_token = page.next_page_token;
        }
    }

    /// Waits until the task has ended, and returns it.
    pub(crate) async fn ended(&mut self, task_id: &str) -> Task {
        loop {
            let task = self.get(task_id).await;
            if task.ended_unix_ms > 0 {
                return task;
            }
            let event = tokio::time::timeout(LIMIT, self.events.recv()).await;
            event.unwrap_or_else(|_| panic!("{task_id} did not end in {LIMIT:?}")).unwrap();
        }
    }
}

/// Hang up with the default cause.
pub(crate) fn request(call_id: &str, after_ms: i64) -> ScheduleRequest {
    ScheduleRequest {
        call_id: call_id.to_owned(),
        action: Some(schedule_request::Action::Hangup(HangupCall::default())),
        when: Some(schedule_request::When::AfterMs(after_ms)),
        ..ScheduleRequest::default()
    }
}

pub(crate) fn database_url(dir: &TempDir) -> String {
    format!("sqlite:{}", dir.path().join("tasks.db").display())
}

fn spawn(
    nats: &NatsServer,
    edge: &Edge,
    dir: &TempDir,
    flags: &[String],
) -> (Process, SchedulerClient<Channel>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_scheduler"));
    command
        .args(["--grpc", "127.0.0.1:0", "--nats-url", &nats.url()])
        .args(["--sip-edge", &format!("http://{}", edge.addr)])
        .args(["--database-url", &database_url(dir)])
        .args(flags);
    let process = Process::spawn("scheduler", &mut command).unwrap();
    let addr = grpc(&process);
    let channel = boot::channel("--scheduler", &format!("http://{addr}")).unwrap();
    (process, SchedulerClient::new(channel))
}

/// Where it serves, by its log.
pub(crate) fn grpc(process: &Process) -> String {
    let serving = process.wait_for("where it serves", LIMIT, |line| {
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        Some(line.get("grpc")?.as_str()?.to_owned())
    });
    serving.unwrap()
}

fn task_events(bus: boot::Nats) -> mpsc::Receiver<TaskEvent> {
    let (events, received) = mpsc::channel(100_000);
    tokio::spawn(bus.consume("test", "holdfast.task.>", move |payload| {
        let events = events.clone();
        async move {
            let json = String::from_utf8(payload)?;
            events.send(proto::json::from_json(&json)?).await?;
            Ok(())
        }
    }));
    received
}
