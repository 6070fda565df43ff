//! Two sip-edges: either answers for the calls of both, and goes on with those of the other when that
//! one dies.
//!
//! HOLDFAST_TAKEOVER_CALLS says how many calls are up, half of them in the queue and half talking.

use e2e::audio::{Codec, Reference};
use e2e::phone::{Dialog, PATIENCE, Phone};
use e2e::{MUSIC, QUEUE_USER, Service, Stack};
use proto::queue::v1::RetrieveOutcome;
use proto::scheduler::v1::{HangupCall, ScheduleRequest, TaskState, schedule_request};
use proto::sip_edge::v1::{CallState, GetCallRequest, HangupRequest, ListCallsRequest};
use std::time::Instant;

/// Hung up 15 s after the answer: after the take-over.
const LIMITED: &str = r#"{"actions": [
    {"schedule": {"after_ms": "15000", "hangup": {}, "as": "limit"}}, {"park": {}}]}"#;

fn phones(name: &str, count: usize) -> anyhow::Result<Vec<Phone>> {
    (0..count).map(|nth| Phone::start(&format!("{name}{nth}"), Codec::Pcmu)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_a_killed_sip_edge_go_on_at_the_other() -> anyhow::Result<()> {
    let mut stack = Stack::start_replicated()?;
    stack.create_queue().await?;
    let [first, second, third, agent, bob] =
        phones("p", 5)?.try_into().unwrap_or_else(|_| unreachable!("five"));
    let talking = first.dial(stack.sip(), &stack.uri(QUEUE_USER))?;
    stack.wait_waiting(1).await?;
    let retrieving = stack.start_retrieve(&agent.uri(), 10_000);
    let agents_call = agent.invited()?.answer()?;
    retrieving.await??;
    let mut waits = second.dial(stack.sip(), &stack.uri(QUEUE_USER))?;
    stack.wait_waiting(1).await?;
    let leaves = third.dial(stack.sip(), &stack.uri(QUEUE_USER))?;
    stack.wait_waiting(2).await?;
    let line = stack.line().await?;
    let originating = stack.start_originate(&bob.uri(), LIMITED);
    let bobs_call = bob.invited()?.answer()?;
    let task_id = originating.await??.tasks["limit"].clone();

    stack.wait_kept().await?;
    second.ear().clear();
    stack.kill(Service::SipEdge);
    for call in [&talking, &agents_call, &waits, &leaves, &bobs_call] {
        call.wait_moved(stack.other_sip())?;
    }
    stack.start_service(Service::SipEdge)?; // It has no calls, but can be asked about them.
    let listed = stack.calls().await?;
    assert_eq!(listed.len(), 4);
    assert!(listed.iter().all(|call| call.edge == "other"), "{listed:?}");
    assert_eq!(stack.call(&line[0]).await?.edge, "other");
    assert_eq!(stack.line().await?, line);
    let music = second.ear().audio(Codec::Pcmu);
    let span = Reference::new(&stack.media(MUSIC)?).longest_span(&music);
    assert!(span.duration_ms() >= 2_000 && span.correlation >= 0.98, "{span:?}");

    leaves.bye()?;
    stack.wait_waiting(1).await?;
    assert!(waits.offer("sendonly")?.contains("recvonly"));
    waits.offer("sendrecv")?;
    agents_call.bye()?;
    first.wait_bye(PATIENCE)?;
    let retrieving = stack.start_retrieve(&agent.uri(), 10_000);
    let agents_call = agent.invited()?.answer()?;
    let retrieved = retrieving.await??;
    assert_eq!((retrieved.outcome(), &retrieved.call_id), (RetrieveOutcome::Connected, &line[0]));
    waits.bye()?;
    agent.wait_bye(PATIENCE)?;
    let bye = bob.wait_bye(2 * PATIENCE)?;
    assert!(bye.reason.contains("ALLOTTED_TIMEOUT"), "{bye:?}");
    stack.wait_task(&task_id, TaskState::Fired).await?;
    stack.wait_clean().await?;
    drop((talking, agents_call, bobs_call));
    stack.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn either_sip_edge_answers_for_the_calls_of_both() -> anyhow::Result<()> {
    let mut stack = Stack::start_replicated()?;
    let here = Phone::start("here", Codec::Pcmu)?;
    let there = Phone::start("there", Codec::Pcmu)?;
    let _one = here.dial(stack.sip(), &stack.uri("service"))?;
    let _other = there.dial(stack.other_sip(), &stack.uri("service"))?;
    for call in stack.calls().await? {
        stack.wait_call(&call.call_id, |it| it.state() == CallState::Answered).await?;
    }
    let calls = stack.calls().await?;
    let edges: Vec<&str> = calls.iter().map(|call| call.edge.as_str()).collect();
    assert_eq!(edges, ["edge", "other"]);
    let listed = stack.other_edge().list_calls(ListCallsRequest::default()).await?.into_inner();
    assert_eq!((listed.live, listed.calls), (2, calls.clone()));
    for call in &calls {
        let request = GetCallRequest { call_id: call.call_id.clone() };
        let asked = stack.other_edge().get_call(request).await?.into_inner();
        assert_eq!((&asked, &stack.call(&call.call_id).await?), (call, call));
    }
    let hangup = |nth: usize| HangupRequest {
        call_id: calls[nth].call_id.clone(),
        ..HangupRequest::default()
    };
    stack.other_edge().hangup(hangup(0)).await?;
    here.wait_bye(PATIENCE)?;
    stack.sip_edge().hangup(hangup(1)).await?;
    there.wait_bye(PATIENCE)?;
    let unknown = GetCallRequest { call_id: "none".into() };
    let refused = stack.other_edge().get_call(unknown).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::NotFound);
    stack.wait_clean().await?;

    // Nobody says that a call is not there while it is on its way from one to the other.
    let _one = here.dial(stack.sip(), &stack.uri("service"))?;
    let [call] = stack.calls().await?.try_into().unwrap();
    stack.wait_kept().await?;
    stack.kill(Service::SipEdge);
    let request = || GetCallRequest { call_id: call.call_id.clone() };
    let refused = stack.other_edge().get_call(request()).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unavailable, "{refused}");
    _one.wait_moved(stack.other_sip())?;
    assert_eq!(stack.other_edge().get_call(request()).await?.into_inner().edge, "other");
    _one.bye()?;
    stack.start_service(Service::SipEdge)?;
    stack.wait_clean().await?;
    stack.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sip_edge_that_was_frozen_lets_go_of_what_the_other_has_taken() -> anyhow::Result<()> {
    let stack = Stack::start_replicated()?;
    let phone = Phone::start("alice", Codec::Pcmu)?;
    let call = phone.dial(stack.sip(), &stack.uri("service"))?;
    let [shown] = stack.calls().await?.try_into().unwrap();
    stack.wait_kept().await?;
    stack.freeze(Service::SipEdge)?;
    call.wait_moved(stack.other_sip())?;
    stack.thaw(Service::SipEdge)?;
    stack.wait_call(&shown.call_id, |it| it.edge == "other").await?;
    assert!(!phone.has_bye());
    call.bye()?;
    stack.wait_clean().await?;
    stack.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sip_edge_that_is_told_to_end_leaves_its_calls_to_the_other() -> anyhow::Result<()> {
    let mut stack = Stack::start_replicated()?;
    stack.create_queue().await?;
    let phone = Phone::start("alice", Codec::Pcmu)?;
    let call = phone.dial(stack.sip(), &stack.uri(QUEUE_USER))?;
    stack.wait_waiting(1).await?;
    stack.wait_kept().await?;
    stack.terminate(Service::SipEdge)?;
    call.wait_moved(stack.other_sip())?;
    assert!(!phone.has_bye());
    stack.start_service(Service::SipEdge)?;
    assert_eq!(stack.waiting().await?, 1);
    call.bye()?;
    stack.wait_clean().await?;
    stack.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_of_a_killed_sip_edge_are_bridged_by_the_other() -> anyhow::Result<()> {
    let mut stack = Stack::start_replicated()?;
    stack.create_queue().await?;
    let [alice, bob] = phones("p", 2)?.try_into().unwrap_or_else(|_| unreachable!("two"));
    let call = alice.dial(stack.sip(), &stack.uri(QUEUE_USER))?;
    stack.wait_waiting(1).await?;
    let other = bob.dial(stack.sip(), &stack.uri(QUEUE_USER))?;
    stack.wait_waiting(2).await?;
    let line = stack.line().await?;
    stack.wait_kept().await?;
    stack.kill(Service::SipEdge);
    call.wait_moved(stack.other_sip())?;
    other.wait_moved(stack.other_sip())?;
    stack.start_service(Service::SipEdge)?;
    let bridging = stack.start_bridge(&line[0], &line[1]); // Which has none of them.
    bob.invited()?.answer()?;
    let bridged = bridging.await??;
    assert_eq!((bridged.state(), &bridged.call_id), (CallState::Connected, &line[0]));
    other.bye()?;
    alice.wait_bye(PATIENCE)?;
    stack.wait_clean().await?;
    drop(call);
    stack.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_call_of_many_is_lost() -> anyhow::Result<()> {
    let calls: usize = std::env::var("HOLDFAST_TAKEOVER_CALLS").map_or(Ok(6), |it| it.parse())?;
    let half = calls / 2;
    let mut stack = Stack::start_replicated()?;
    stack.create_queue().await?;
    let (callers, agents) = (phones("caller", 2 * half)?, phones("agent", half)?);
    let mut dialogs: Vec<Dialog<'_>> = Vec::new();
    for (nth, caller) in (1..).zip(&callers) {
        dialogs.push(caller.dial(stack.sip(), &stack.uri(QUEUE_USER))?);
        stack.wait_waiting(nth).await?;
    }
    for agent in &agents {
        let retrieving = stack.start_retrieve(&agent.uri(), 10_000);
        dialogs.push(agent.invited()?.answer()?);
        assert_eq!(retrieving.await??.outcome(), RetrieveOutcome::Connected);
    }
    let before = stack.calls().await?;
    assert_eq!(before.len(), 2 * half);

    stack.wait_kept().await?;
    let killed = Instant::now();
    stack.kill(Service::SipEdge);
    for dialog in &dialogs {
        dialog.wait_moved(stack.other_sip())?;
    }
    let taken = killed.elapsed();
    stack.start_service(Service::SipEdge)?;
    let after = stack.calls().await?;
    let ids = |calls: &[proto::sip_edge::v1::Call]| -> Vec<String> {
        calls.iter().map(|call| call.call_id.clone()).collect()
    };
    assert_eq!(ids(&after), ids(&before), "lost");
    let connected = after.iter().filter(|it| it.state() == CallState::Connected).count();
    assert_eq!((connected, stack.waiting().await? as usize), (half, half));
    eprintln!("{} calls at the other sip-edge {taken:?} after the kill, 0 lost", after.len());

    let retriever = Phone::start("retriever", Codec::Pcmu)?;
    let line = stack.line().await?;
    let retrieving = stack.start_retrieve(&retriever.uri(), 10_000);
    let answered = retriever.invited()?.answer()?;
    let retrieved = retrieving.await??;
    assert_eq!((retrieved.outcome(), &retrieved.call_id), (RetrieveOutcome::Connected, &line[0]));
    for call_id in ids(&after) {
        let hangup = HangupCall { cause: "ALLOTTED_TIMEOUT".into(), ..HangupCall::default() };
        let request = ScheduleRequest {
            call_id,
            action: Some(schedule_request::Action::Hangup(hangup)),
            when: Some(schedule_request::When::AfterMs(1_000)),
            edge: "edge".into(), // Which does not have it any more.
            ..ScheduleRequest::default()
        };
        stack.scheduler().schedule(request).await?;
    }
    for phone in callers.iter().chain(&agents).chain([&retriever]) {
        let bye = phone.wait_bye(PATIENCE)?;
        assert!(bye.reason.contains("ALLOTTED_TIMEOUT"), "{bye:?}");
    }
    stack.wait_clean().await?;
    drop((dialogs, answered));
    stack.stop()
}
