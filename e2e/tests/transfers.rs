//! Calls that change hands: transfers by the phones, and two calls that become one.

use e2e::audio::Codec;
use e2e::phone::{PATIENCE, Phone, wait_talk};
use e2e::{QUEUE_USER, Stack};
use proto::sip_edge::v1::CallState;

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_transfers_a_caller_blindly() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    stack.create_queue().await?;
    let (caller, agent, carol) = phones()?;
    let call = caller.dial(stack.sip(), &stack.uri(QUEUE_USER))?;
    stack.wait_waiting(1).await?;
    let retrieving = stack.start_retrieve(&agent.uri(), 10_000);
    let mut answered = agent.invited()?.answer()?;
    let call_id = retrieving.await??.call_id;

    assert_eq!(answered.refer(&carol.uri())?, 202);
    agent.wait_notify("SIP/2.0 100")?;
    let invitation = carol.invited()?;
    invitation.ring();
    agent.wait_notify("SIP/2.0 180")?;
    let talking = invitation.answer()?;
    agent.wait_notify("SIP/2.0 200")?;
    let bye = agent.wait_bye(PATIENCE)?;
    assert!(bye.reason.contains("BLIND_TRANSFER"), "{bye:?}");
    stack.wait_call(&call_id, |it| it.legs[1].remote_uri == carol.uri()).await?;
    wait_talk((&caller, &call), (&carol, &talking))?;
    call.bye()?;
    carol.wait_bye(PATIENCE)?;
    stack.wait_clean().await?;
    stack.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_transfers_a_caller_after_asking() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    stack.create_queue().await?;
    let (caller, agent, carol) = phones()?;
    let call = caller.dial(stack.sip(), &stack.uri(QUEUE_USER))?;
    stack.wait_waiting(1).await?;
    let retrieving = stack.start_retrieve(&agent.uri(), 10_000);
    let mut answered = agent.invited()?.answer()?;
    let first = retrieving.await??.call_id;
    answered.offer("sendonly")?;
    let plan = format!("{{\"actions\": [{{\"dial\": {{\"target\": \"{}\"}}}}]}}", carol.uri());
    let originating = stack.start_originate(&agent.uri(), &plan);
    let asking = agent.invited()?.answer()?;
    let talking = carol.invited()?.answer()?;
    let second = originating.await??.call_id;

    let to = format!("{}?Replaces={}", carol.uri(), asking.replaces());
    assert_eq!(answered.refer(&to)?, 202);
    caller.invited()?.answer()?;
    agent.wait_notify("SIP/2.0 200")?;
    for _ in 0..2 {
        let bye = agent.wait_bye(PATIENCE)?;
        assert!(bye.reason.contains("ATTENDED_TRANSFER"), "{bye:?}");
    }
    assert_eq!(stack.wait_ended(&first).await?.cause, "ATTENDED_TRANSFER");
    let joined =
        stack.wait_call(&second, |it| it.legs[0].sip_call_id == call.sip_call_id()).await?;
    assert_eq!(joined.state(), CallState::Connected);
    wait_talk((&caller, &call), (&carol, &talking))?;
    talking.bye()?;
    caller.wait_bye(PATIENCE)?;
    stack.wait_clean().await?;
    stack.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_callers_who_wait_are_bridged() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    stack.create_queue().await?;
    let (alice, bob, _) = phones()?;
    let call = alice.dial(stack.sip(), &stack.uri(QUEUE_USER))?;
    stack.wait_waiting(1).await?;
    let other = bob.dial(stack.sip(), &stack.uri(QUEUE_USER))?;
    stack.wait_waiting(2).await?;
    let line = stack.line().await?;
    let bridging = stack.start_bridge(&line[0], &line[1]);
    bob.invited()?.answer()?;
    let bridged = bridging.await??;
    assert_eq!((bridged.state(), &bridged.call_id), (CallState::Connected, &line[0]));
    assert_eq!(stack.wait_ended(&line[1]).await?.cause, "ATTENDED_TRANSFER");
    stack.wait_waiting(0).await?;
    wait_talk((&alice, &call), (&bob, &other))?;
    other.bye()?;
    alice.wait_bye(PATIENCE)?;
    stack.wait_clean().await?;
    stack.stop()
}

fn phones() -> anyhow::Result<(Phone, Phone, Phone)> {
    let start = |user| Phone::start(user, Codec::Pcmu);
    Ok((start("caller")?, start("agent")?, start("carol")?))
}
