//! How the process starts, refuses to start, and ends.

use crate::edge::Manner;
use crate::stack::{LIMIT, Stack, request};
use e2e::{NatsServer, Process};
use proto::scheduler::v1::{TaskState, schedule_request};
use std::collections::HashSet;
use std::process::Command;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

/// Starts it with these flags, expects it to fail, and returns what it said.
#[track_caller]
fn refused(flags: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_scheduler"));
    let mut process = Process::spawn("scheduler", command.args(flags)).unwrap();
    let status = process.wait(LIMIT).unwrap();
    assert!(!status.success(), "{flags:?}: {status}");
    process.output()
}

#[test]
fn what_it_cannot_start_with_is_one_clear_line() {
    let nats = NatsServer::start().unwrap();
    let nats_url = nats.url();
    let dir = tempfile::tempdir().unwrap();
    let database = format!("sqlite:{}", dir.path().join("tasks.db").display());
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let nowhere = format!("sqlite:{}", dir.path().join("no/such/tasks.db").display());
    let free = "127.0.0.1:0";
    let flags = |grpc, nats, database, edge| {
        ["--grpc", grpc, "--nats-url", nats, "--database-url", database, "--sip-edge", edge]
    };
    let edge = "http://127.0.0.1:1";
    for (flags, wanted) in [
        (flags(free, "nats://127.0.0.1:1", &database, edge), "connect to NATS"),
        (flags(free, &nats_url, &nowhere, edge), "no/such/tasks.db"),
        (flags(free, &nats_url, "mysql://x", edge), "wanted `sqlite:FILE`"),
        (flags(&taken, &nats_url, &database, edge), "bind --grpc"),
        (flags(free, &nats_url, &database, "127.0.0.1"), "read --sip-edge"),
    ] {
        let said = refused(&flags);
        let lines: Vec<_> =
            said.lines().filter(|line| line.starts_with("scheduler: failed to")).collect();
        assert_eq!(lines.len(), 1, "{flags:?}: {said}");
        assert!(lines[0].contains(wanted), "{flags:?}: {said}");
    }
    for (flag, value) in [("--max-tasks", "0"), ("--retention", "soon"), ("--sip", "x")] {
        let said = refused(&[flag, value]);
        assert!(said.contains("error:") && said.contains(flag), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_finishes_what_is_in_flight_begins_nothing_and_ends_with_an_open_stream() {
    let mut stack = Stack::start(&[]).await;
    let addr = crate::stack::grpc(&stack.process);
    let channel = boot::channel("--scheduler", &format!("http://{addr}")).unwrap();
    let mut health = HealthClient::new(channel);
    let service = "scheduler.v1.Scheduler".to_owned();
    let watch = health.watch(HealthCheckRequest { service }).await.unwrap();
    let mut watch = watch.into_inner();
    let now = watch.message().await.unwrap().unwrap();
    assert_eq!(now.status(), ServingStatus::Serving);

    let call_id = boot::new_id();
    stack.edge.behave_to(&call_id, Manner::ObeySilently);
    let in_flight = stack.schedule(&call_id, 0).await;
    let pending = stack.schedule(&boot::new_id(), 100).await;
    stack.edge.wait_for_call(&call_id).await;
    stack.process.signal("TERM").unwrap();
    let now = watch.message().await.unwrap().unwrap();
    assert_eq!(now.status(), ServingStatus::NotServing);
    let status = stack.process.wait(LIMIT).unwrap();
    assert!(status.success(), "{status}: {}", stack.process.output());

    let begun: Vec<_> = stack.edge.requests().into_iter().map(|it| it.task_id).collect();
    assert!(begun.contains(&in_flight.task_id));
    stack.edge.behave_to(&call_id, Manner::Obey);
    stack.restart();
    for task in [in_flight, pending] {
        assert_eq!(stack.ended(&task.task_id).await.state(), TaskState::Fired);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_fires_before_the_end_is_told_on_the_bus() {
    let mut stack = Stack::start(&[]).await;
    let together = schedule_request::When::AtUnixMs(boot::unix_ms() + 2_000);
    let schedule = |_| {
        let mut client = stack.client.clone();
        let mut request = request(&boot::new_id(), 0);
        request.when = Some(together);
        tokio::spawn(async move { client.schedule(request).await.unwrap() })
    };
    futures::future::join_all((0..2_000).map(schedule)).await;
    let told = stack.event(TaskState::Fired).await.task.unwrap().task_id;
    stack.process.signal("TERM").unwrap();
    assert!(stack.process.wait(LIMIT).unwrap().success(), "{}", stack.process.output());
    let database = sqlx::SqlitePool::connect(&stack.database_url()).await.unwrap();
    let fired = sqlx::query_scalar("SELECT lower(hex(task_id)) FROM tasks WHERE state = 3");
    let fired: Vec<String> = fired.fetch_all(&database).await.unwrap();
    let mut untold: HashSet<String> = fired.into_iter().collect();
    assert!(untold.remove(&told.replace('-', "")));
    while !untold.is_empty() {
        let told = stack.event(TaskState::Fired).await.task.unwrap().task_id;
        untold.remove(&told.replace('-', ""));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_scheduler_on_the_same_database_does_not_start() {
    let stack = Stack::start(&[]).await;
    let (nats_url, database) = (stack.nats.url(), stack.database_url());
    let said =
        refused(&["--grpc", "127.0.0.1:0", "--nats-url", &nats_url, "--database-url", &database]);
    assert!(said.contains("another scheduler uses it"), "{said}");
}
