//! Watching: every change once, in order, from where one was, also after a crash.

use crate::stack::{LIMIT, Stack, request};
use proto::scheduler::v1::*;
use tonic::{Code, Status, Streaming};

async fn next(watch: &mut Streaming<WatchResponse>) -> Result<WatchResponse, Status> {
    let next = tokio::time::timeout(LIMIT, watch.message()).await;
    next.unwrap_or_else(|_| panic!("nothing to watch in {LIMIT:?}")).map(|it| it.expect("no end"))
}

/// The next change, and the token after it.
async fn change(watch: &mut Streaming<WatchResponse>) -> (Task, String) {
    loop {
        let WatchResponse { event, resume_token } = next(watch).await.unwrap();
        if let Some(event) = event {
            let task = event.task.unwrap();
            assert_eq!(event.event_id, format!("{}/{}", task.task_id, task.revision));
            return (task, resume_token);
        }
    }
}

/// A watch that has begun, and where.
async fn watch(stack: &mut Stack, request: WatchRequest) -> (Streaming<WatchResponse>, String) {
    let mut watch = stack.client.watch(request).await.unwrap().into_inner();
    let begun = next(&mut watch).await.unwrap();
    assert_eq!(begun.event, None);
    (watch, begun.resume_token)
}

fn from(resume_token: &str) -> WatchRequest {
    WatchRequest { resume_token: resume_token.to_owned(), ..WatchRequest::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_goes_on_where_it_was_without_gap_or_repeat_also_after_a_crash() {
    let mut stack = Stack::start(&[]).await;
    let (mut all, begin) = watch(&mut stack, WatchRequest::default()).await;
    let task = stack.schedule(&boot::new_id(), 60_000).await;
    let (first, after_first) = change(&mut all).await;
    assert_eq!(first, task);
    let when = Some(reschedule_request::When::ExtendMs(1_000));
    let extend = RescheduleRequest { task_id: task.task_id.clone(), when, revision: 0 };
    let extended = stack.client.reschedule(extend).await.unwrap().into_inner();
    assert_eq!(change(&mut all).await.0, extended);

    stack.kill();
    assert!(next(&mut all).await.is_err());
    stack.restart();
    let (mut again, _) = watch(&mut stack, from(&after_first)).await;
    assert_eq!(change(&mut again).await.0, extended);
    let (_, cancelled) = stack.cancel(&task.task_id).await;
    assert_eq!(change(&mut again).await.0, cancelled.unwrap());
    let (mut again, _) = watch(&mut stack, from(&begin)).await;
    let mut states = Vec::new();
    for _ in 0..3 {
        let (task, _) = change(&mut again).await;
        states.push((task.state(), task.revision));
    }
    use TaskState::{Cancelled, Pending};
    assert_eq!(states, [(Pending, 1), (Pending, 2), (Cancelled, 3)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_hands_on_what_it_was_asked_for_and_nothing_else() {
    let mut stack = Stack::start(&[]).await;
    let call_id = boot::new_id();
    let states = vec![TaskState::Fired.into()];
    let wanted = WatchRequest { call_id: call_id.clone(), states, ..WatchRequest::default() };
    let (mut fired, _) = watch(&mut stack, wanted).await;
    let wanted = WatchRequest { group: "g".to_owned(), ..WatchRequest::default() };
    let (mut group, _) = watch(&mut stack, wanted).await;
    stack.schedule(&boot::new_id(), 0).await;
    let task = stack.schedule(&call_id, 0).await;
    let (told, _) = change(&mut fired).await;
    assert_eq!((told.state(), told.task_id), (TaskState::Fired, task.task_id));
    let request = ScheduleRequest { group: "g".to_owned(), ..request(&call_id, 60_000) };
    let task = stack.client.schedule(request).await.unwrap().into_inner();
    assert_eq!(change(&mut group).await.0, task);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_none_or_too_old_is_refused() {
    let mut stack = Stack::start(&["--retention", "300ms"]).await;
    let mut client = stack.client.clone();
    let mut refused =
        async |token: &str| client.watch(from(token)).await.err().map(|status| status.code());
    assert_eq!(refused("soon").await, Some(Code::InvalidArgument));
    let ahead = format!("1{}", ".5".repeat(16));
    assert_eq!(refused(&ahead).await, Some(Code::OutOfRange));
    let (_watch, begin) = watch(&mut stack, WatchRequest::default()).await;
    let task = stack.schedule(&boot::new_id(), 60_000).await;
    stack.cancel(&task.task_id).await;
    let deadline = std::time::Instant::now() + LIMIT;
    while refused(&begin).await != Some(Code::OutOfRange) {
        assert!(std::time::Instant::now() < deadline, "still kept");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn there_are_64_watches_at_a_time_and_they_end_with_their_readers() {
    let mut stack = Stack::start(&[]).await;
    let mut watches = Vec::new();
    for _ in 0..64 {
        watches.push(watch(&mut stack, WatchRequest::default()).await);
    }
    let status = stack.client.watch(WatchRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{}", status.message());
    watches.pop();
    let deadline = std::time::Instant::now() + LIMIT;
    while stack.client.watch(WatchRequest::default()).await.is_err() {
        assert!(std::time::Instant::now() < deadline, "a watch without a reader goes on");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_ends_when_the_process_drains() {
    let mut stack = Stack::start(&[]).await;
    let (mut all, _) = watch(&mut stack, WatchRequest::default()).await;
    stack.process.signal("TERM").unwrap();
    assert_eq!(next(&mut all).await.unwrap_err().code(), Code::Unavailable);
    assert!(stack.process.wait(LIMIT).unwrap().success(), "{}", stack.process.output());
}
