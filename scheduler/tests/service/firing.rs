//! What becomes of a task whose time comes, or whose call ends before.

use crate::edge::Manner;
use crate::stack::{Stack, request};
use proto::scheduler::v1::*;
use std::time::{Duration, Instant};
use tonic::Status;

#[tokio::test(flavor = "multi_thread")]
async fn a_task_fires_once_never_early_and_says_so() {
    let mut stack = Stack::start(&[]).await;
    let mut tasks = Vec::new();
    for nth in 0..40 {
        let (call_id, asked) = (boot::new_id(), Instant::now());
        let after_ms = (nth * 37) % 500;
        let task = stack.schedule(&call_id, after_ms).await;
        assert_eq!((task.state(), task.revision), (TaskState::Pending, 1));
        tasks.push((task, asked + Duration::from_millis(after_ms as u64)));
    }
    let mut lateness = Vec::new();
    for (task, not_before) in &tasks {
        let ended = stack.ended(&task.task_id).await;
        assert_eq!((ended.state(), ended.revision), (TaskState::Fired, 3));
        assert_eq!(ended.result, "hung up with ALLOTTED_TIMEOUT");
        assert!(ended.ended_unix_ms >= task.fires_at_unix_ms);
        let requests = stack.edge.requests();
        let of_task: Vec<_> = requests.iter().filter(|it| it.task_id == task.task_id).collect();
        let [request] = of_task[..] else { panic!("{} requests", of_task.len()) };
        assert_eq!((&request.call_id, &*request.cause), (&task.call_id, "ALLOTTED_TIMEOUT"));
        assert!(request.at >= *not_before, "early by {:?}", *not_before - request.at);
        assert!(request.at_unix_ms >= task.fires_at_unix_ms);
        lateness.push((request.at_unix_ms - task.fires_at_unix_ms, ended.late_ms));
    }
    lateness.sort_unstable();
    println!("lateness at the edge, and until claimed, in ms: {lateness:?}");
    assert_eq!(stack.edge.requests().len(), tasks.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_says_what_became_of_the_task() {
    let mut stack = Stack::start(&[]).await;
    let pending = stack.schedule(&boot::new_id(), 60_000).await;
    let (outcome, task) = stack.cancel(&pending.task_id).await;
    let task = task.unwrap();
    assert_eq!((outcome, task.state()), (CancelOutcome::Cancelled, TaskState::Cancelled));
    assert_eq!((&*task.result, task.revision), ("test", 2));
    let (outcome, task) = stack.cancel(&pending.task_id).await;
    assert_eq!((outcome, task.unwrap().state()), (CancelOutcome::NotFound, TaskState::Cancelled));
    assert_eq!(stack.cancel(&boot::new_id()).await, (CancelOutcome::NotFound, None));

    let call_id = boot::new_id();
    stack.edge.behave_to(&call_id, Manner::ObeySilently);
    let firing = stack.schedule(&call_id, 0).await;
    stack.edge.wait_for_call(&call_id).await;
    let (outcome, task) = stack.cancel(&firing.task_id).await;
    assert_eq!((outcome, task.unwrap().state()), (CancelOutcome::AlreadyFiring, TaskState::Firing));

    let fired = stack.schedule(&boot::new_id(), 0).await;
    stack.ended(&fired.task_id).await;
    let (outcome, task) = stack.cancel(&fired.task_id).await;
    assert_eq!((outcome, task.unwrap().state()), (CancelOutcome::AlreadyFired, TaskState::Fired));

    let call_id = boot::new_id();
    stack.edge.behave_to(&call_id, Manner::Refuse(Status::invalid_argument("no")));
    let failed = stack.schedule(&call_id, 0).await;
    stack.ended(&failed.task_id).await;
    let (outcome, task) = stack.cancel(&failed.task_id).await;
    assert_eq!((outcome, task.unwrap().state()), (CancelOutcome::NotFound, TaskState::Failed));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_task_is_what_sip_edge_said() {
    let mut stack = Stack::start(&[]).await;
    for (manner, state, result) in [
        (Manner::Obey, TaskState::Fired, "hung up with ALLOTTED_TIMEOUT"),
        (
            Manner::AlreadyEnded,
            TaskState::Expired,
            "call had ended with ALLOTTED_TIMEOUT by caller",
        ),
        (Manner::Refuse(Status::not_found("?")), TaskState::Expired, "no such call"),
        (
            Manner::Refuse(Status::invalid_argument("cause is 7")),
            TaskState::Failed,
            "InvalidArgument: cause is 7",
        ),
    ] {
        let call_id = boot::new_id();
        stack.edge.behave_to(&call_id, manner.clone());
        let task = stack.schedule(&call_id, 1).await;
        let ended = stack.ended(&task.task_id).await;
        assert_eq!((ended.state(), &*ended.result), (state, result), "{manner:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_got_lost_is_not_taken_for_somebody_elses_hangup() {
    let mut stack = Stack::start(&[]).await;
    let call_id = boot::new_id();
    stack.edge.behave_to(&call_id, Manner::ObeySilently);
    let task = stack.schedule(&call_id, 0).await;
    stack.edge.wait_for_requests(1).await;
    stack.edge.behave_to(&call_id, Manner::Obey);
    let ended = stack.ended(&task.task_id).await;
    assert_eq!(ended.state(), TaskState::Fired);
    assert_eq!(stack.edge.requests().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_sip_edge_does_not_answer_for_delay_no_other() {
    let mut stack = Stack::start(&[]).await;
    let mut stuck = Vec::new();
    for _ in 0..20 {
        let call_id = boot::new_id();
        stack.edge.behave_to(&call_id, Manner::ObeySilently);
        stuck.push(stack.schedule(&call_id, 0).await);
        stack.edge.wait_for_call(&call_id).await;
    }
    let task = stack.schedule(&boot::new_id(), 10).await;
    assert_eq!(stack.ended(&task.task_id).await.state(), TaskState::Fired);
    for task in &stuck {
        assert_eq!(stack.get(&task.task_id).await.state(), TaskState::Firing);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_sip_edge_could_not_do_while_it_was_away_is_done_when_it_is_back() {
    let mut stack = Stack::start(&[]).await;
    stack.edge.behave(Manner::Refuse(Status::unavailable("draining")));
    let task = stack.schedule(&boot::new_id(), 0).await;
    stack.edge.wait_for_requests(2).await;
    stack.edge_serving.stop();
    let later = stack.schedule(&boot::new_id(), 0).await;
    stack.event(TaskState::Firing).await;
    stack.edge.behave(Manner::Obey);
    stack.edge_serving = stack.edge.restart();
    for task in [task, later] {
        assert_eq!(stack.ended(&task.task_id).await.state(), TaskState::Fired);
        assert_eq!(stack.edge.ended_by(&task.call_id), Some(task.task_id));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sip_edge_that_dies_over_a_hangup_is_asked_again() {
    let mut stack = Stack::start(&[]).await;
    let (done, undone) = (boot::new_id(), boot::new_id());
    stack.edge.behave_to(&done, Manner::ObeySilently);
    stack.edge.behave_to(&undone, Manner::Ignore);
    let tasks = [stack.schedule(&done, 0).await, stack.schedule(&undone, 0).await];
    stack.edge.wait_for_call(&done).await;
    stack.edge.wait_for_call(&undone).await;
    stack.edge_serving.stop(); // The connection breaks with both unanswered.
    stack.edge.behave_to(&done, Manner::Obey);
    stack.edge.behave_to(&undone, Manner::Obey);
    stack.edge_serving = stack.edge.restart();
    for task in tasks {
        assert_eq!(stack.ended(&task.task_id).await.state(), TaskState::Fired);
        assert_eq!(stack.edge.ended_by(&task.call_id), Some(task.task_id));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_herd_fires_completely_and_the_api_answers_meanwhile() {
    const TASKS: usize = 600;
    let mut stack = Stack::start(&[]).await;
    let at = schedule_request::When::AtUnixMs(boot::unix_ms() + 1_500);
    let asks = (0..TASKS).map(|_| {
        let mut client = stack.client.clone();
        let request = ScheduleRequest { when: Some(at), ..request(&boot::new_id(), 0) };
        async move { client.schedule(request).await.unwrap().into_inner() }
    });
    let tasks = futures::future::join_all(asks).await;
    stack.edge.wait_for_requests(1).await;
    let bystander = stack.schedule(&boot::new_id(), 600_000).await;
    assert_eq!(stack.cancel(&bystander.task_id).await.0, CancelOutcome::Cancelled);
    for task in &tasks {
        assert_eq!(stack.ended(&task.task_id).await.state(), TaskState::Fired);
    }
    let mut asked: Vec<_> = stack.edge.requests().into_iter().map(|it| it.task_id).collect();
    asked.sort_unstable();
    asked.dedup();
    assert_eq!(asked.len(), TASKS);
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_die_with_their_call() {
    let mut stack = Stack::start(&[]).await;
    let (dying, living) = (boot::new_id(), boot::new_id());
    let mut tasks = Vec::new();
    for _ in 0..3 {
        tasks.push(stack.schedule(&dying, 60_000).await);
    }
    let other = stack.schedule(&living, 60_000).await;
    stack.end_call("").await; // Says nothing; must not stand in the way.
    stack.end_call(&dying).await;
    for task in &tasks {
        let ended = stack.ended(&task.task_id).await;
        assert_eq!((ended.state(), &*ended.result), (TaskState::Expired, "call ended"));
    }
    let request = ListRequest { call_id: dying, ..ListRequest::default() };
    assert_eq!(stack.client.list(request).await.unwrap().into_inner().tasks, []);
    assert_eq!(stack.get(&other.task_id).await.state(), TaskState::Pending);
    assert_eq!(stack.edge.requests().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_is_an_event_on_the_bus() {
    let mut stack = Stack::start(&[]).await;
    let task = stack.schedule(&boot::new_id(), 100).await;
    let mut told = Vec::new();
    for state in [TaskState::Pending, TaskState::Firing, TaskState::Fired] {
        let event = stack.event(state).await;
        let of = event.task.unwrap();
        assert_eq!(of.task_id, task.task_id);
        told.push((of.revision, of.state()));
        assert!(event.at_unix_ms >= task.created_unix_ms && !event.event_id.is_empty());
    }
    let expected = [(1, TaskState::Pending), (2, TaskState::Firing), (3, TaskState::Fired)];
    assert_eq!(told, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moved_task_fires_at_its_new_time_only() {
    let mut stack = Stack::start(&[]).await;
    let later = stack.schedule(&boot::new_id(), 1_500).await;
    let sooner = stack.schedule(&boot::new_id(), 60_000).await;
    let reschedule = |task: &Task, after_ms, revision| RescheduleRequest {
        task_id: task.task_id.clone(),
        when: Some(reschedule_request::When::AfterMs(after_ms)),
        revision,
    };
    let moved = stack.client.reschedule(reschedule(&later, 60_000, 1)).await.unwrap().into_inner();
    assert_eq!((moved.revision, moved.state()), (2, TaskState::Pending));
    let stale = stack.client.reschedule(reschedule(&later, 1, 1)).await.unwrap_err();
    assert_eq!(stale.code(), tonic::Code::Aborted);
    assert_eq!(stale.message(), "revision is 1, the task has 2");
    let moved = stack.client.reschedule(reschedule(&sooner, 1_600, 0)).await.unwrap().into_inner();
    let ended = stack.ended(&sooner.task_id).await;
    assert_eq!(ended.fires_at_unix_ms, moved.fires_at_unix_ms);
    // Its first time has passed: 1,600 ms from the later request are more than 1,500 from the first.
    assert_eq!(stack.get(&later.task_id).await.state(), TaskState::Pending);
    let requests = stack.edge.requests();
    assert_eq!((requests.len(), &requests[0].task_id), (1, &sooner.task_id));
    let ended = stack.client.reschedule(reschedule(&sooner, 1, 0)).await.unwrap_err();
    assert_eq!(ended.code(), tonic::Code::FailedPrecondition);
}

#[tokio::test(flavor = "multi_thread")]
async fn nats_may_go_away_and_tasks_still_fire() {
    let mut stack = Stack::start(&[]).await;
    let before = stack.schedule(&boot::new_id(), 500).await;
    stack.nats = stack.nats.restart().unwrap();
    let during = stack.client.schedule(request(&boot::new_id(), 0)).await.unwrap().into_inner();
    stack.edge.wait_for_requests(2).await;
    let doomed = stack.schedule(&boot::new_id(), 60_000).await;
    stack.end_call(&doomed.call_id).await;
    for task in [before, during] {
        assert_eq!(stack.ended(&task.task_id).await.state(), TaskState::Fired);
    }
    assert_eq!(stack.ended(&doomed.task_id).await.state(), TaskState::Expired);
}
