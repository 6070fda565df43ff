//! What the API takes, and what it says about the rest.

use crate::stack::{Stack, request};
use expect_test::{Expect, expect};
use proto::scheduler::v1::*;
use std::fmt::Write as _;
use tonic::Code;

const CALL: &str = "0193f0a4-7d6c-7c1e-8a55-0242ac120002";

#[tokio::test(flavor = "multi_thread")]
async fn bad_fields_are_refused_by_name_value_and_what_is_allowed() {
    let mut stack = Stack::start(&[]).await;
    let good = request(CALL, 60_000);
    let action = |cause: &str| {
        Some(schedule_request::Action::Hangup(HangupCall { cause: cause.to_owned(), legs: 0 }))
    };
    let after = |ms| Some(schedule_request::When::AfterMs(ms));
    let table = [
        ScheduleRequest::default(),
        ScheduleRequest { when: None, ..good.clone() },
        ScheduleRequest { action: None, ..good.clone() },
        ScheduleRequest { call_id: "7".to_owned(), ..good.clone() },
        ScheduleRequest { action: action("allotted_timeout"), ..good.clone() },
        ScheduleRequest { action: action("HANGUP_CAUSE_UNSPECIFIED"), ..good.clone() },
        ScheduleRequest { when: after(-5), ..good.clone() },
        ScheduleRequest { when: after(31_536_000_001), ..good.clone() },
        ScheduleRequest { when: after(1 << 53), ..good.clone() },
        ScheduleRequest { group: "g".repeat(129), ..good.clone() },
        ScheduleRequest { label: "l\n".to_owned(), ..good.clone() },
        ScheduleRequest { idempotency_key: "k".repeat(129), ..good.clone() },
    ];
    let mut said = String::new();
    for request in table {
        let status = stack.client.schedule(request).await.unwrap_err();
        writeln!(said, "{:?}: {}", status.code(), status.message()).unwrap();
    }
    check(
        &said,
        expect![[r#"
            InvalidArgument: when is missing, wanted after_ms or at_unix_ms
            InvalidArgument: when is missing, wanted after_ms or at_unix_ms
            InvalidArgument: action is missing, wanted hangup, transfer, play or publish
            InvalidArgument: call_id is "7", wanted a UUID, e.g. "0193f0a4-7d6c-7c1e-8a55-0242ac120002"
            InvalidArgument: hangup.cause is "allotted_timeout", wanted a name of sip_edge.v1.HangupCause, e.g. "ALLOTTED_TIMEOUT"
            InvalidArgument: hangup.cause is "HANGUP_CAUSE_UNSPECIFIED", wanted a name of sip_edge.v1.HangupCause, e.g. "ALLOTTED_TIMEOUT"
            InvalidArgument: after_ms is -5, wanted 0 to 31536000000 (a year)
            InvalidArgument: after_ms is 31536000001, wanted 0 to 31536000000 (a year)
            InvalidArgument: after_ms is 9007199254740992, wanted 0 to 31536000000 (a year)
            InvalidArgument: group is "gggggggggggggggggggggggggggggggggggggggggggggggggggggggggggggggg"… (129 bytes), wanted at most 128 bytes
            InvalidArgument: label is "l\n", wanted text without control characters
            InvalidArgument: idempotency_key is "kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk"… (129 bytes), wanted at most 128 bytes
        "#]],
    );
    for at_unix_ms in [i64::MIN, 0, 1, 1 << 31, i64::MAX] {
        let when = Some(schedule_request::When::AtUnixMs(at_unix_ms));
        let status = stack.client.schedule(ScheduleRequest { when, ..good.clone() }).await;
        let status = status.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().starts_with(&format!("at_unix_ms is {at_unix_ms}, wanted")));
    }
    assert_eq!(stack.list(&[]).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_questions_are_refused_too() {
    let mut stack = Stack::start(&[]).await;
    let text = |text: &str| text.to_owned();
    let client = &mut stack.client;
    let mut said = String::new();
    let mut note = |status: tonic::Status| {
        writeln!(said, "{:?}: {}", status.code(), status.message()).unwrap();
    };
    let list = ListRequest::default;
    note(client.get(GetRequest { task_id: text("") }).await.unwrap_err());
    note(client.get(GetRequest { task_id: text(CALL) }).await.unwrap_err());
    note(client.cancel(CancelRequest { task_id: text("x"), by: text("") }).await.unwrap_err());
    note(client.cancel_group(CancelGroupRequest::default()).await.unwrap_err());
    let both = CancelGroupRequest { group: text("g"), call_id: text(CALL), ..Default::default() };
    note(client.cancel_group(both).await.unwrap_err());
    note(client.list(ListRequest { page_size: 10_001, ..list() }).await.unwrap_err());
    note(client.list(ListRequest { page_token: text("z"), ..list() }).await.unwrap_err());
    note(client.list(ListRequest { states: vec![9], ..list() }).await.unwrap_err());
    let reschedule = RescheduleRequest { task_id: text(CALL), when: None, revision: -1 };
    note(client.reschedule(reschedule.clone()).await.unwrap_err());
    let reschedule = RescheduleRequest { revision: 0, ..reschedule };
    note(client.reschedule(reschedule.clone()).await.unwrap_err());
    let when = Some(reschedule_request::When::AfterMs(1));
    note(client.reschedule(RescheduleRequest { when, ..reschedule }).await.unwrap_err());
    check(
        &said,
        expect![[r#"
            InvalidArgument: task_id is "", wanted a UUID, e.g. "0193f0a4-7d6c-7c1e-8a55-0242ac120002"
            NotFound: no task 0193f0a4-7d6c-7c1e-8a55-0242ac120002
            InvalidArgument: task_id is "x", wanted a UUID, e.g. "0193f0a4-7d6c-7c1e-8a55-0242ac120002"
            InvalidArgument: group is missing, wanted one of group, call_id and tenant
            InvalidArgument: group is "g", wanted one of group, call_id and tenant, not more
            InvalidArgument: page_size is 10001, wanted 1 to 10000
            InvalidArgument: page_token is "z", wanted next_page_token of the page before, or nothing
            InvalidArgument: states is 9, wanted 1 to 7 (TASK_STATE_PENDING to TASK_STATE_PAUSED)
            InvalidArgument: revision is -1, wanted the task's revision, from 1, or 0 for any
            InvalidArgument: when is missing, wanted after_ms, at_unix_ms or extend_ms
            NotFound: no such task
        "#]],
    );
}

#[track_caller]
fn check(said: &str, expected: Expect) {
    expected.assert_eq(said);
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_refused_by_the_flag_that_sets_them() {
    let mut stack = Stack::start(&["--max-tasks", "3", "--max-tasks-per-call", "2"]).await;
    let task = stack.schedule(CALL, 60_000).await;
    stack.schedule(CALL, 60_000).await;
    let status = stack.client.schedule(request(CALL, 60_000)).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().contains("2 tasks of this call"), "{}", status.message());
    assert!(status.message().contains("--max-tasks-per-call"), "{}", status.message());
    stack.schedule(&boot::new_id(), 60_000).await;
    let status = stack.client.schedule(request(&boot::new_id(), 60_000)).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().contains("--max-tasks allows"), "{}", status.message());
    stack.kill();
    stack.restart(); // The count is that of the disk.
    let status = stack.client.schedule(request(&boot::new_id(), 60_000)).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    stack.cancel(&task.task_id).await;
    stack.schedule(&boot::new_id(), 60_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_key_is_the_same_task_also_after_a_restart() {
    let mut stack = Stack::start(&[]).await;
    let request = ScheduleRequest { idempotency_key: "once".to_owned(), ..request(CALL, 60_000) };
    let first = stack.client.schedule(request.clone()).await.unwrap().into_inner();
    let again = stack.client.schedule(request.clone()).await.unwrap().into_inner();
    assert_eq!(again, first);
    stack.kill();
    stack.restart();
    let again = stack.client.schedule(request.clone()).await.unwrap().into_inner();
    assert_eq!(again, first);
    let other = ScheduleRequest { call_id: boot::new_id(), ..request };
    let status = stack.client.schedule(other).await.unwrap_err();
    assert_eq!(status.code(), Code::AlreadyExists);
    assert!(status.message().contains(&first.task_id), "{}", status.message());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_paged_and_filtered() {
    let mut stack = Stack::start(&[]).await;
    for nth in 0..25 {
        let group = if nth % 5 == 0 { "fives" } else { "" }.to_owned();
        let request = ScheduleRequest { group, ..request(CALL, 60_000 + nth % 3) };
        stack.client.schedule(request).await.unwrap();
    }
    let mut request = ListRequest { page_size: 10, ..ListRequest::default() };
    let mut pages = Vec::new();
    loop {
        let page = stack.client.list(request.clone()).await.unwrap().into_inner();
        pages.push(page.tasks);
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [10, 10, 5]);
    assert!(pages.concat().is_sorted_by_key(|task| (task.fires_at_unix_ms, task.task_id.clone())));
    let cancel = CancelGroupRequest { group: "fives".to_owned(), ..Default::default() };
    let cancelled = stack.client.cancel_group(cancel).await.unwrap().into_inner();
    assert_eq!((cancelled.cancelled, cancelled.firing), (5, 0));
    let ended = stack.list(&[TaskState::Cancelled]).await;
    assert!(ended.iter().all(|task| task.group == "fives" && task.result == "api"));
    assert_eq!((ended.len(), stack.list(&[]).await.len()), (5, 20));
    let cancel = CancelGroupRequest { call_id: CALL.to_owned(), ..Default::default() };
    let cancelled = stack.client.cancel_group(cancel).await.unwrap().into_inner();
    assert_eq!((cancelled.cancelled, stack.list(&[]).await.len()), (20, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_does_not_answer_is_unavailable_and_what_was_armed_fires_afterwards() {
    let mut stack = Stack::start(&[]).await;
    let task = stack.schedule(&boot::new_id(), 1_500).await;
    let other = sqlx::SqlitePool::connect(&stack.database_url()).await.unwrap();
    let lock = other.begin_with("BEGIN IMMEDIATE").await.unwrap();
    // A second each, until it gives up the lock: longer than the task has left.
    for _ in 0..2 {
        let status = stack.client.schedule(request(CALL, 60_000)).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{}", status.message());
    }
    assert_eq!(stack.get(&task.task_id).await.state(), TaskState::Pending);
    lock.rollback().await.unwrap();
    assert_eq!(stack.ended(&task.task_id).await.state(), TaskState::Fired);
    assert_eq!(stack.list(&[]).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn ended_tasks_are_forgotten_after_the_retention() {
    let mut stack = Stack::start(&["--retention", "300ms"]).await;
    let task = stack.schedule(CALL, 60_000).await;
    let kept = stack.schedule(CALL, 60_000).await;
    stack.cancel(&task.task_id).await;
    let deadline = std::time::Instant::now() + crate::stack::LIMIT;
    let request = GetRequest { task_id: task.task_id };
    while stack.client.get(request.clone()).await.is_ok() {
        assert!(std::time::Instant::now() < deadline, "still kept");
    }
    assert_eq!(stack.get(&kept.task_id).await.state(), TaskState::Pending);
}
