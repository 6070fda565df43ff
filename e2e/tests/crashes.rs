//! What SIGKILL takes away, and what it does not.

use e2e::audio::{Codec, Reference};
use e2e::phone::{PATIENCE, Phone};
use e2e::{MUSIC, QUEUE_USER, Service, Stack};
use proto::queue::v1::RetrieveOutcome;
use proto::scheduler::v1::TaskState;
use proto::sip_edge::v1::CallState;
use std::time::Duration;

const GAP_MAX: Duration = Duration::from_millis(60);

fn park_for(after_ms: u32) -> String {
    format!(
        r#"{{"actions": [{{"schedule": {{"after_ms": "{after_ms}", "hangup": {{}}, "as": "limit"}}}}, {{"park": {{}}}}]}}"#
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_scheduler_fires_every_task_once() -> anyhow::Result<()> {
    let mut stack = Stack::start()?;
    let phones: Vec<Phone> = (0..6)
        .map(|nth| Phone::start(&format!("p{nth}"), Codec::Pcmu))
        .collect::<Result<_, _>>()?;
    let mut tasks = Vec::new();
    let mut dialogs = Vec::new();
    for (phone, nth) in phones.iter().zip(0..) {
        // The first three are overdue when it comes back, the others are still to come.
        let after_ms = if nth < 3 { 1_500 + nth * 10 } else { 6_000 + nth * 10 };
        let originating = stack.start_originate(&phone.uri(), &park_for(after_ms));
        dialogs.push(phone.invited()?.answer()?);
        tasks.push(originating.await??.tasks["limit"].clone());
    }
    stack.kill(Service::Scheduler);
    phones[0].ear().clear();
    assert!(phones[0].wait_bye(Duration::from_millis(2_500)).is_err(), "hung up by nobody");
    stack.start_service(Service::Scheduler)?;
    for (phone, task_id) in phones.iter().zip(&tasks) {
        let bye = phone.wait_bye(PATIENCE)?;
        assert!(bye.reason.contains("ALLOTTED_TIMEOUT"), "{bye:?}");
        let task = stack.wait_task(task_id, TaskState::Fired).await?;
        assert!(bye.at_unix_ms >= task.fires_at_unix_ms, "early: {task:?}");
        assert!(!phone.has_bye(), "hung up twice");
    }
    stack.wait_clean().await?;
    stack.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_queue_svc_keeps_the_order_and_the_music() -> anyhow::Result<()> {
    let mut stack = Stack::start()?;
    stack.create_queue().await?;
    let callers: Vec<Phone> = (0..4)
        .map(|nth| Phone::start(&format!("c{nth}"), Codec::Pcmu))
        .collect::<Result<_, _>>()?;
    let mut calls = Vec::new();
    for caller in &callers {
        calls.push(caller.dial(stack.sip(), &stack.uri(QUEUE_USER))?);
    }
    stack.wait_waiting(4).await?;
    let line = stack.line().await?;
    stack.kill(Service::QueueSvc);
    callers[0].ear().listen(Duration::from_secs(1))?;
    calls.pop().expect("there are four").bye()?; // Leaves while nobody can be told.
    stack.start_service(Service::QueueSvc)?;
    stack.wait_waiting(3).await?;
    assert_eq!(stack.line().await?, line[..3]);
    callers[0].ear().listen(Duration::from_secs(1))?;
    for caller in &callers[..3] {
        let span =
            Reference::new(&stack.media(MUSIC)?).longest_span(&caller.ear().audio(Codec::Pcmu));
        assert!(span.duration_ms() >= 2_000 && span.correlation >= 0.98, "{span:?}");
        assert_eq!(caller.ear().discontinuity(), None);
        assert!(caller.ear().longest_gap() <= GAP_MAX, "{:?}", caller.ear().longest_gap());
        assert!(!caller.has_bye());
    }
    let agent = Phone::start("agent", Codec::Pcmu)?;
    let retrieving = stack.start_retrieve(&agent.uri(), 10_000);
    let answered = agent.invited()?.answer()?;
    let outcome = retrieving.await??;
    assert_eq!((outcome.outcome(), outcome.call_id), (RetrieveOutcome::Connected, line[0].clone()));
    answered.bye()?;
    callers[0].wait_bye(PATIENCE)?;
    for call in calls.into_iter().skip(1) {
        call.bye()?;
    }
    stack.wait_clean().await?;
    stack.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_svc_killed_while_an_agent_rings_resolves_the_ringing() -> anyhow::Result<()> {
    let mut stack = Stack::start()?;
    stack.create_queue().await?;
    let (caller, agent) =
        (Phone::start("alice", Codec::Pcmu)?, Phone::start("agent", Codec::Pcmu)?);
    let call = caller.dial(stack.sip(), &stack.uri(QUEUE_USER))?;
    stack.wait_waiting(1).await?;
    let line = stack.line().await?;
    let retrieving = stack.start_retrieve(&agent.uri(), 8_000);
    let invitation = agent.invited()?;
    invitation.ring();
    stack.kill(Service::QueueSvc);
    assert!(retrieving.await?.is_err(), "whom did it tell?");
    stack.start_service(Service::QueueSvc)?;
    let answered = invitation.answer()?;
    stack.wait_call(&line[0], |it| it.state() == CallState::Connected).await?;
    answered.bye()?;
    caller.wait_bye(PATIENCE)?;
    drop(call);
    stack.wait_clean().await?;
    stack.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn music_and_order_outlive_nats_for_a_while() -> anyhow::Result<()> {
    let mut stack = Stack::start()?;
    stack.create_queue().await?;
    let caller = Phone::start("alice", Codec::Pcmu)?;
    let call = caller.dial(stack.sip(), &stack.uri(QUEUE_USER))?;
    stack.wait_waiting(1).await?;
    stack.restart_nats()?;
    caller.ear().listen(Duration::from_secs(1))?;
    assert_eq!(stack.waiting().await?, 1);
    assert!(caller.ear().longest_gap() <= GAP_MAX, "{:?}", caller.ear().longest_gap());
    call.bye()?;
    stack.wait_clean().await?;
    stack.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sip_edge_killed_while_an_agent_rings_keeps_the_caller_in_line() -> anyhow::Result<()> {
    let mut stack = Stack::start()?;
    stack.create_queue().await?;
    let (caller, agent) =
        (Phone::start("alice", Codec::Pcmu)?, Phone::start("agent", Codec::Pcmu)?);
    let call = caller.dial(stack.sip(), &stack.uri(QUEUE_USER))?;
    stack.wait_waiting(1).await?;
    let line = stack.line().await?;
    let retrieving = stack.start_retrieve(&agent.uri(), 5_000);
    agent.invited()?.ring();
    stack.wait_kept().await?;
    stack.kill(Service::SipEdge);
    stack.start_service(Service::SipEdge)?;
    let told = retrieving.await?;
    let connected = told.is_ok_and(|it| it.outcome() == RetrieveOutcome::Connected);
    assert!(!connected, "connected by a dead process");
    stack.wait_waiting(1).await?;
    assert_eq!(stack.line().await?, line);

    let other = Phone::start("other", Codec::Pcmu)?;
    let retrieving = stack.start_retrieve(&other.uri(), 10_000);
    let answered = other.invited()?.answer()?;
    assert_eq!(retrieving.await??.outcome(), RetrieveOutcome::Connected);
    call.bye()?;
    other.wait_bye(PATIENCE)?;
    drop(answered);
    stack.wait_clean().await?;
    stack.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_a_media_relay_that_lost_its_state_are_ended_with_a_cause() -> anyhow::Result<()> {
    let mut stack = Stack::start()?;
    stack.create_queue().await?;
    let (waiting, parked, late) = (
        Phone::start("alice", Codec::Pcmu)?,
        Phone::start("bob", Codec::Pcma)?,
        Phone::start("carol", Codec::Pcmu)?,
    );
    let _waits = waiting.dial(stack.sip(), &stack.uri(QUEUE_USER))?;
    let _parks = parked.dial(stack.sip(), &stack.uri("service"))?;
    stack.wait_waiting(1).await?;
    let calls = stack.calls().await?;
    assert_eq!(calls.len(), 2);

    stack.kill(Service::MediaRelay);
    let refused = late.dial_with(stack.sip(), &stack.uri(QUEUE_USER), &late.sdp("sendrecv"))?;
    assert_eq!(u16::from(refused.status_code), 503);
    stack.lose_media_state()?;
    stack.start_service(Service::MediaRelay)?;
    for phone in [&waiting, &parked] {
        let bye = phone.wait_bye(PATIENCE)?;
        assert!(bye.reason.contains("NETWORK_OUT_OF_ORDER"), "{bye:?}");
    }
    for call in calls {
        let ended = stack.wait_ended(&call.call_id).await?;
        assert_eq!(ended.cause, "NETWORK_OUT_OF_ORDER", "{ended:?}");
    }
    stack.wait_clean().await?;

    let call = late.dial(stack.sip(), &stack.uri(QUEUE_USER))?;
    stack.wait_waiting(1).await?;
    late.ear().listen(Duration::from_secs(1))?;
    call.bye()?;
    stack.wait_clean().await?;
    stack.stop()
}
