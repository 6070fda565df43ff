//! The four actions, repetition, pause, groups: through gRPC to a sip-edge and to NATS.

use crate::edge::{Edge, Manner};
use crate::stack::{LIMIT, Stack, request};
use futures::StreamExt as _;
use proto::scheduler::v1::schedule_request::{Action, When};
use proto::scheduler::v1::*;
use proto::sip_edge::v1::{CallPlan, Legs, Park, action, transfer_request};
use tonic::Code;

fn park() -> CallPlan {
    let park = proto::sip_edge::v1::Action { action: Some(action::Action::Park(Park {})) };
    CallPlan { actions: vec![park] }
}

fn publish(subject: &str, payload: &[u8]) -> Action {
    Action::Publish(PublishMessage { subject: subject.to_owned(), payload: payload.to_vec() })
}

fn hangup(legs: Legs) -> Action {
    Action::Hangup(HangupCall { cause: String::new(), legs: legs.into() })
}

/// Due now.
fn now(call_id: &str, action: Action) -> ScheduleRequest {
    ScheduleRequest { action: Some(action), ..request(call_id, 0) }
}

async fn schedule(stack: &mut Stack, request: ScheduleRequest) -> Task {
    stack.client.schedule(request).await.unwrap().into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_task_is_to_do_is_asked_of_sip_edge_as_it_was_said() {
    let mut stack = Stack::start(&[]).await;
    let call_id = boot::new_id();
    let to = |to| Action::Transfer(TransferCall { to: Some(to) });
    let play = PlayToCall { file: "warning.wav".to_owned(), legs: Legs::Both.into() };
    for (action, result) in [
        (to(transfer_call::To::Uri("user/1001".to_owned())), "transferred"),
        (to(transfer_call::To::Plan(park())), "transferred"),
        (Action::Play(play.clone()), "plays for 800 ms"),
        (hangup(Legs::B), "hung up leg B"),
    ] {
        let task = schedule(&mut stack, now(&call_id, action)).await;
        let ended = stack.ended(&task.task_id).await;
        assert_eq!((ended.state(), ended.result.as_str()), (TaskState::Fired, result));
        assert_eq!(ended.action, task.action);
    }
    let transfers: Vec<_> = stack.edge.transfers().into_iter().map(|it| it.to.unwrap()).collect();
    let uri = transfer_request::To::Uri("user/1001".to_owned());
    assert_eq!(transfers, [uri, transfer_request::To::Plan(park())]);
    let [played] = &stack.edge.plays()[..] else { panic!("{:?}", stack.edge.plays()) };
    assert_eq!((&played.call_id, &played.file, played.legs()), (&call_id, &play.file, Legs::Both));
    let [hung_up] = &stack.edge.requests()[..] else { panic!("{:?}", stack.edge.requests()) };
    assert_eq!((hung_up.legs, hung_up.occurrence), (Legs::B, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_published_with_its_task_and_occurrence_as_its_id() {
    let mut stack = Stack::start(&[]).await;
    let client = async_nats::connect(stack.nats.url()).await.unwrap();
    let mut heard = client.subscribe("billing.*").await.unwrap();
    client.flush().await.unwrap();
    let task = schedule(&mut stack, now("", publish("billing.warn", b"\x00 1.50"))).await;
    let message = tokio::time::timeout(LIMIT, heard.next()).await.unwrap().unwrap();
    assert_eq!((&*message.subject, &*message.payload), ("billing.warn", &b"\x00 1.50"[..]));
    let headers = message.headers.unwrap();
    let id = headers.get(async_nats::header::NATS_MESSAGE_ID).unwrap().as_str();
    assert_eq!(id, format!("{}/0", task.task_id));
    let ended = stack.ended(&task.task_id).await;
    assert_eq!((ended.state(), ended.result.as_str()), (TaskState::Fired, "published"));
    assert_eq!(ended.action, task.action);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_repeats_on_its_grid_as_often_as_it_was_said() {
    let mut stack = Stack::start(&[]).await;
    let client = async_nats::connect(stack.nats.url()).await.unwrap();
    let mut heard = client.subscribe("tick").await.unwrap();
    client.flush().await.unwrap();
    let repeat = Some(Repeat { every_ms: 1_000, count: 3, until_unix_ms: 0 });
    let request = ScheduleRequest { repeat, ..now("", publish("tick", b"")) };
    let task = schedule(&mut stack, request).await;
    for occurrence in 0..3 {
        let message = tokio::time::timeout(LIMIT, heard.next()).await.unwrap().unwrap();
        let headers = message.headers.unwrap();
        let id = headers.get(async_nats::header::NATS_MESSAGE_ID).unwrap().as_str();
        assert_eq!(id, format!("{}/{occurrence}", task.task_id));
        let due_unix_ms = task.fires_at_unix_ms + 1_000 * occurrence;
        assert!(boot::unix_ms() >= due_unix_ms, "occurrence {occurrence} came early");
    }
    let ended = stack.ended(&task.task_id).await;
    assert_eq!((ended.state(), ended.occurrence), (TaskState::Fired, 2));
    assert_eq!((ended.fires_at_unix_ms - task.fires_at_unix_ms) % 1_000, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_of_an_occurrence_that_fires_lets_no_other_follow() {
    let mut stack = Stack::start(&[]).await;
    let call_id = boot::new_id();
    stack.edge.behave(Manner::Ignore);
    let repeat = Some(Repeat { every_ms: 1_000, count: 5, until_unix_ms: 0 });
    let request = ScheduleRequest { repeat, ..now(&call_id, hangup(Legs::B)) };
    let task = schedule(&mut stack, request).await;
    stack.edge.wait_for_requests(1).await;
    let (outcome, firing) = stack.cancel(&task.task_id).await;
    assert_eq!(outcome, CancelOutcome::AlreadyFiring);
    assert!(firing.unwrap().cancel_requested);
    stack.edge.behave(Manner::Obey);
    let ended = stack.ended(&task.task_id).await;
    assert_eq!(ended.occurrence, 0);
    assert!(stack.edge.requests().iter().all(|it| it.occurrence == 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_of_a_paused_task_stands_still() {
    let mut stack = Stack::start(&[]).await;
    let call_id = boot::new_id();
    let task = stack.schedule(&call_id, 1_500).await;
    let scope = Some(pause_request::Scope::TaskId(task.task_id.clone()));
    let pause = PauseRequest { scope };
    let paused = stack.client.pause(pause.clone()).await.unwrap().into_inner().task.unwrap();
    assert_eq!(paused.state(), TaskState::Paused);
    assert!((1..=1_500).contains(&paused.remaining_ms), "{paused:?}");
    // It would have fired before this one.
    let other = stack.schedule(&boot::new_id(), 1_700).await;
    stack.ended(&other.task_id).await;
    assert_eq!(stack.get(&task.task_id).await.state(), TaskState::Paused);
    let when = Some(reschedule_request::When::ExtendMs(500));
    let extend = RescheduleRequest { task_id: task.task_id.clone(), when, revision: 0 };
    let extended = stack.client.reschedule(extend).await.unwrap().into_inner();
    assert_eq!(extended.remaining_ms, paused.remaining_ms + 500);
    let scope = Some(resume_request::Scope::CallId(call_id));
    let before_unix_ms = boot::unix_ms();
    let resumed = stack.client.resume(ResumeRequest { scope }).await.unwrap().into_inner();
    assert_eq!(resumed.resumed, 1);
    let pending = stack.get(&task.task_id).await;
    assert_eq!((pending.state(), pending.remaining_ms), (TaskState::Pending, 0));
    assert!(pending.fires_at_unix_ms >= before_unix_ms + extended.remaining_ms, "{pending:?}");
    assert_eq!(stack.ended(&task.task_id).await.state(), TaskState::Fired);
    let status = stack.client.pause(pause).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{}", status.message());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_extended_from_its_own_time_if_it_has_the_revision() {
    let mut stack = Stack::start(&[]).await;
    let task = stack.schedule(&boot::new_id(), 60_000).await;
    let when = Some(reschedule_request::When::ExtendMs(-5_000));
    let request = RescheduleRequest { task_id: task.task_id.clone(), when, revision: 1 };
    let earlier = stack.client.reschedule(request.clone()).await.unwrap().into_inner();
    assert_eq!(earlier.fires_at_unix_ms, task.fires_at_unix_ms - 5_000);
    assert_eq!(earlier.revision, 2);
    let status = stack.client.reschedule(request.clone()).await.unwrap_err();
    assert_eq!(status.code(), Code::Aborted, "{}", status.message());
    let when = Some(reschedule_request::When::ExtendMs(-31_536_000_000));
    let status = stack.client.reschedule(RescheduleRequest { when, revision: 0, ..request }).await;
    assert_eq!(status.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(stack.get(&task.task_id).await, earlier);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_each_has_its_own_result_in_its_own_place() {
    let mut stack = Stack::start(&["--max-tasks-per-call", "2"]).await;
    let call_id = boot::new_id();
    let good = request(&call_id, 60_000);
    let bad = ScheduleRequest { when: Some(When::AfterMs(-5)), ..good.clone() };
    let other = request(&boot::new_id(), 60_000);
    let requests = vec![good.clone(), bad, good.clone(), good, other];
    let response = stack.client.schedule_many(ScheduleManyRequest { requests }).await.unwrap();
    let results = response.into_inner().results.into_iter().map(|it| match it.result.unwrap() {
        schedule_result::Result::Task(task) => task.state().as_str_name().to_owned(),
        schedule_result::Result::Refusal(refusal) => format!("{:?}", Code::from(refusal.code)),
    });
    let pending = TaskState::Pending.as_str_name();
    let expected = [pending, "InvalidArgument", pending, "ResourceExhausted", pending];
    assert_eq!(results.collect::<Vec<_>>(), expected);
    assert_eq!(stack.list(&[]).await.len(), 3);
    for count in [0, 1_001] {
        let requests = vec![ScheduleRequest::default(); count];
        let status = stack.client.schedule_many(ScheduleManyRequest { requests }).await;
        let status = status.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains(&format!("is {count}, wanted 1 to 1000")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_tasks_on_one_call_are_refused_but_for_the_first() {
    let mut stack = Stack::start(&[]).await;
    let call_id = boot::new_id();
    let (mut made, mut refused) = (0, 0);
    for _ in 0..10 {
        let requests = vec![request(&call_id, 60_000); 1_000];
        let response = stack.client.schedule_many(ScheduleManyRequest { requests }).await.unwrap();
        for result in response.into_inner().results {
            match result.result.unwrap() {
                schedule_result::Result::Task(_) => made += 1,
                schedule_result::Result::Refusal(refusal) => {
                    assert_eq!(Code::from(refusal.code), Code::ResourceExhausted);
                    assert!(refusal.message.contains("--max-tasks-per-call"), "{refusal:?}");
                    refused += 1;
                }
            }
        }
    }
    assert_eq!((made, refused), (100, 9_900));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_is_listed_and_cancelled_apart_and_groups_are_paused_as_one() {
    let mut stack = Stack::start(&[]).await;
    for nth in 0..30 {
        let tenant = if nth % 3 == 0 { "a" } else { "b" }.to_owned();
        let group = "campaign".to_owned();
        let request = ScheduleRequest { tenant, group, ..request(&boot::new_id(), 60_000 + nth) };
        stack.client.schedule(request).await.unwrap();
    }
    let of = ListRequest { tenant: "a".to_owned(), ..ListRequest::default() };
    assert_eq!(stack.client.list(of).await.unwrap().into_inner().tasks.len(), 10);
    let scope = Some(pause_request::Scope::Group("campaign".to_owned()));
    let paused = stack.client.pause(PauseRequest { scope }).await.unwrap().into_inner();
    assert_eq!((paused.paused, paused.firing), (30, 0));
    let cancel = CancelGroupRequest { tenant: "a".to_owned(), ..Default::default() };
    assert_eq!(stack.client.cancel_group(cancel).await.unwrap().into_inner().cancelled, 10);
    let scope = Some(resume_request::Scope::Group("campaign".to_owned()));
    let resumed = stack.client.resume(ResumeRequest { scope }).await.unwrap().into_inner();
    assert_eq!(resumed.resumed, 20);
    let left = stack.list(&[]).await;
    assert!(left.len() == 20 && left.iter().all(|task| task.tenant == "b"));
    let fires_before_unix_ms = left[5].fires_at_unix_ms;
    let soon = ListRequest { fires_before_unix_ms, ..ListRequest::default() };
    let soon = stack.client.list(soon).await.unwrap().into_inner().tasks;
    let late = ListRequest { fires_from_unix_ms: fires_before_unix_ms, ..ListRequest::default() };
    let late = stack.client.list(late).await.unwrap().into_inner().tasks;
    assert_eq!([soon, late].concat(), left);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_goes_to_the_edge_that_it_names_or_to_one_that_knows_the_call() {
    let (other, _serving) = Edge::start();
    let named = format!("other=http://{}", other.addr);
    let mut stack = Stack::start(&["--sip-edge", &named]).await;
    let call_id = boot::new_id();
    let request = ScheduleRequest { edge: "other".to_owned(), ..request(&call_id, 0) };
    let task = schedule(&mut stack, request).await;
    assert_eq!(stack.ended(&task.task_id).await.state(), TaskState::Fired);
    assert_eq!((other.requests().len(), stack.edge.requests().len()), (1, 0));

    let unknown = || Manner::Refuse(tonic::Status::not_found("no such call"));
    stack.edge.behave(unknown());
    let task = stack.schedule(&boot::new_id(), 0).await;
    assert_eq!(stack.ended(&task.task_id).await.state(), TaskState::Fired);
    assert_eq!(other.requests().len(), 2);
    other.behave(unknown());
    let task = stack.schedule(&boot::new_id(), 0).await;
    assert_eq!(stack.ended(&task.task_id).await.state(), TaskState::Expired);
}
