//! What may come in a request: a documented result, or INVALID_ARGUMENT with the field's name.

use crate::cluster::Cluster;
use proto::scheduler::v1::scheduler_client::SchedulerClient;
use proto::scheduler::v1::*;
use schedule_request::{Action, When};
use tonic::Code;
use tonic::transport::Channel;

const YEAR_MS: i64 = 31_536_000_000;

fn hangup(call_id: &str, when: When) -> ScheduleRequest {
    ScheduleRequest {
        call_id: call_id.to_owned(),
        action: Some(Action::Hangup(HangupCall::default())),
        when: Some(when),
        ..ScheduleRequest::default()
    }
}

/// The task, or the code and message of the refusal.
async fn schedule(
    client: &mut SchedulerClient<Channel>,
    request: ScheduleRequest,
) -> Result<Task, (Code, String)> {
    let scheduled = client.schedule(request).await;
    scheduled.map(|it| it.into_inner()).map_err(|e| (e.code(), e.message().to_owned()))
}

#[track_caller]
fn assert_names(refused: Result<Task, (Code, String)>, code: Code, name: &str) {
    let (got, message) = refused.expect_err("it is refused");
    assert!(
        got == code && message.contains(name),
        "wanted {code:?} with {name}: {got:?} {message}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn each_input_has_its_result_or_is_refused_by_name() {
    let cluster = Cluster::start(2).await;
    let mut client = cluster.replicas[0].client().unwrap();
    let call = boot::new_id();
    for ms in [0, 1, 1 << 31, YEAR_MS] {
        let task = schedule(&mut client, hangup(&call, When::AfterMs(ms))).await.unwrap();
        // The whole ms in which it is asked for is not before it.
        let after_ms = task.fires_at_unix_ms - task.created_unix_ms;
        assert!((ms..=ms + 1).contains(&after_ms), "{ms}: {task:?}");
    }
    for ms in [-5, YEAR_MS + 1, 1 << 53, i64::MIN, i64::MAX] {
        let refused = schedule(&mut client, hangup(&call, When::AfterMs(ms))).await;
        assert_names(refused, Code::InvalidArgument, "after_ms");
    }
    let now = boot::unix_ms();
    for at in [now - 30_000, now, now + 1, now + (1 << 31)] {
        let task = schedule(&mut client, hangup(&call, When::AtUnixMs(at))).await.unwrap();
        assert_eq!(task.fires_at_unix_ms, at);
    }
    for at in [0, 1, -5, now - 120_000, 1 << 31, 1 << 53, i64::MIN, i64::MAX] {
        let refused = schedule(&mut client, hangup(&call, When::AtUnixMs(at))).await;
        assert_names(refused, Code::InvalidArgument, "at_unix_ms");
    }
    for call_id in ["", " ", "1", "not a uuid", &"7".repeat(70_000)] {
        let refused = schedule(&mut client, hangup(call_id, When::AfterMs(1))).await;
        assert_names(refused, Code::InvalidArgument, "call_id");
    }
    let hangup_with = |cause: &str| {
        let action = Action::Hangup(HangupCall { cause: cause.into(), ..HangupCall::default() });
        ScheduleRequest { action: Some(action), ..hangup(&call, When::AfterMs(60_000)) }
    };
    let task = schedule(&mut client, hangup_with("")).await.unwrap();
    let Some(task::Action::Hangup(stored)) = task.action else { panic!("{task:?}") };
    assert_eq!(stored.cause, "ALLOTTED_TIMEOUT");
    for cause in ["NO_SUCH_CAUSE", "allotted_timeout", "16", " "] {
        let refused = schedule(&mut client, hangup_with(cause)).await;
        assert_names(refused, Code::InvalidArgument, "cause");
    }
    let fine = hangup(&call, When::AfterMs(60_000));
    let refused = schedule(&mut client, ScheduleRequest { when: None, ..fine.clone() }).await;
    assert_names(refused, Code::InvalidArgument, "after_ms");
    let refused = schedule(&mut client, ScheduleRequest { action: None, ..fine.clone() }).await;
    assert_names(refused, Code::InvalidArgument, "action");
    let long = |bytes: usize| "x".repeat(bytes + 1);
    for (field, request) in [
        ("group", ScheduleRequest { group: long(128), ..fine.clone() }),
        ("label", ScheduleRequest { label: long(256), ..fine.clone() }),
        ("idempotency_key", ScheduleRequest { idempotency_key: long(128), ..fine.clone() }),
        ("tenant", ScheduleRequest { tenant: long(64), ..fine.clone() }),
        ("edge", ScheduleRequest { edge: long(64), ..fine.clone() }),
    ] {
        assert_names(schedule(&mut client, request).await, Code::InvalidArgument, field);
    }
    let publish = |subject: &str, bytes: usize| {
        let publish = PublishMessage { subject: subject.into(), payload: vec![0; bytes] };
        ScheduleRequest { action: Some(Action::Publish(publish)), ..fine.clone() }
    };
    for subject in ["", "a b", "a.*", "a.>", "holdfast.call.x", "$JS.API.x", "_INBOX.x", &long(256)]
    {
        let refused = schedule(&mut client, publish(subject, 1)).await;
        assert_names(refused, Code::InvalidArgument, "subject");
    }
    schedule(&mut client, publish("a.b", 65_536)).await.unwrap();
    let refused = schedule(&mut client, publish("a.b", 65_537)).await;
    assert_names(refused, Code::InvalidArgument, "payload");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_takes_so_many_tasks_and_no_more() {
    let cluster = Cluster::start(2).await;
    let mut client = cluster.replicas[1].client().unwrap();
    let call = boot::new_id();
    let mut results = Vec::new();
    for _ in 0..10 {
        let requests = vec![hangup(&call, When::AfterMs(3_600_000)); 1_000];
        let response = client.schedule_many(ScheduleManyRequest { requests }).await.unwrap();
        results.extend(response.into_inner().results);
    }
    assert_eq!(results.len(), 10_000);
    let (taken, refused) = results.split_at(100);
    let is_task = |it: &ScheduleResult| matches!(it.result, Some(schedule_result::Result::Task(_)));
    assert!(taken.iter().all(is_task), "{taken:?}");
    for result in refused {
        let Some(schedule_result::Result::Refusal(refusal)) = &result.result else {
            panic!("wanted a refusal: {result:?}");
        };
        assert_eq!(refusal.code, Code::ResourceExhausted as i32, "{refusal:?}");
        assert!(refusal.message.contains("--max-tasks-per-call"), "{refusal:?}");
    }
    let request = CancelGroupRequest { call_id: call, ..CancelGroupRequest::default() };
    let cancelled = cluster.replicas[0].client().unwrap().cancel_group(request).await.unwrap();
    assert_eq!(cancelled.into_inner().cancelled, 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_key_at_two_replicas_at_once_and_late_is_one_task() {
    let cluster = Cluster::start(2).await;
    let call = boot::new_id();
    let keyed = |nth: usize| {
        let idempotency_key = format!("key {nth}");
        ScheduleRequest { idempotency_key, ..hangup(&call, When::AfterMs(3_600_000)) }
    };
    let mut ids = Vec::new();
    for nth in 0..50 {
        let (mut one, mut other) =
            (cluster.replicas[0].client().unwrap(), cluster.replicas[1].client().unwrap());
        let (one, other) = tokio::join!(one.schedule(keyed(nth)), other.schedule(keyed(nth)));
        let (one, other) = (one.unwrap().into_inner(), other.unwrap().into_inner());
        assert_eq!(one.task_id, other.task_id, "key {nth} is two tasks");
        ids.push(one.task_id);
    }
    let mut late = cluster.replicas[1].client().unwrap();
    for (nth, id) in ids.iter().enumerate() {
        assert_eq!(late.schedule(keyed(nth)).await.unwrap().into_inner().task_id, *id);
    }
    let request = ListRequest { call_id: call, ..ListRequest::default() };
    assert_eq!(late.list(request).await.unwrap().into_inner().tasks.len(), 50);
}
