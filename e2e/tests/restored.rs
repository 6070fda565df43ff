//! A sip-edge dies with calls up, and goes on with them when it is started again.

use e2e::audio::{Codec, Reference};
use e2e::phone::{PATIENCE, phones};
use e2e::{MUSIC, QUEUE_USER, Service, Stack};
use proto::queue::v1::RetrieveOutcome;
use proto::scheduler::v1::TaskState;
use proto::sip_edge::v1::CallState;
use std::time::Duration;

const GAP_MAX: Duration = Duration::from_millis(60);
/// Hung up 5 s after the answer.
const LIMITED: &str = r#"{"actions": [
    {"schedule": {"after_ms": "5000", "hangup": {}, "as": "limit"}}, {"park": {}}]}"#;

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_a_killed_sip_edge_go_on_when_it_is_back() -> anyhow::Result<()> {
    let mut stack = Stack::start()?;
    stack.create_queue().await?;
    let [first, second, third, agent, bob] = phones(["c1", "c2", "c3", "agent", "bob"])?;
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

    second.ear().clear();
    stack.kill(Service::SipEdge);
    second.ear().listen(Duration::from_secs(1))?;
    stack.start_service(Service::SipEdge)?;
    for call in [&talking, &agents_call, &waits, &leaves, &bobs_call] {
        call.wait_moved(stack.sip())?; // It has asked whether they are there.
    }
    assert_eq!(stack.calls().await?.len(), 4);
    assert_eq!(stack.line().await?, line);
    let music = second.ear().audio(Codec::Pcmu);
    let span = Reference::new(&stack.media(MUSIC)?).longest_span(&music);
    assert!(span.duration_ms() >= 1_000 && span.correlation >= 0.98, "{span:?}");
    assert!(second.ear().longest_gap() <= GAP_MAX, "{:?}", second.ear().longest_gap());

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
    let bye = bob.wait_bye(PATIENCE)?;
    assert!(bye.reason.contains("ALLOTTED_TIMEOUT"), "{bye:?}");
    stack.wait_task(&task_id, TaskState::Fired).await?;
    stack.wait_clean().await?;
    drop((talking, agents_call, bobs_call));
    stack.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_that_has_gone_while_its_sip_edge_was_dead_is_found_out() -> anyhow::Result<()> {
    let mut stack = Stack::start()?;
    stack.create_queue().await?;
    let [caller, agent] = phones(["alice", "agent"])?;
    let call = caller.dial(stack.sip(), &stack.uri(QUEUE_USER))?;
    stack.wait_waiting(1).await?;
    let retrieving = stack.start_retrieve(&agent.uri(), 10_000);
    let _talks = agent.invited()?.answer()?;
    let call_id = retrieving.await??.call_id;
    stack.kill(Service::SipEdge);
    call.forget();
    stack.start_service(Service::SipEdge)?;
    agent.wait_bye(PATIENCE)?;
    let ended = stack.wait_call(&call_id, |it| it.state() == CallState::Ended).await?;
    assert_eq!(ended.cause, "RECOVERY_ON_TIMER_EXPIRE");
    stack.wait_clean().await?;
    stack.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_nobody_had_answered_leave_nothing_behind() -> anyhow::Result<()> {
    let mut stack = Stack::start()?;
    let [caller, phone, bob] = phones(["alice", "1000", "bob"])?;
    let (user, password) = e2e::USERS[0];
    phone.register(stack.sip(), password, rsip::headers::auth::Algorithm::Sha256)?;
    let dialling = caller.start_dial(stack.sip(), &stack.uri(user))?;
    phone.invited()?.ring();
    let originating = stack.start_originate(&bob.uri(), LIMITED);
    bob.invited()?.ring();
    stack.kill(Service::SipEdge);
    assert!(originating.await?.is_err(), "answered by nobody");
    stack.start_service(Service::SipEdge)?;
    stack.wait_clean().await?;
    assert_eq!(dialling.give_up()?, 481, "the new process knows nothing of it");
    stack.stop()
}
