//! Calls of two living sip-edges that become one.

use e2e::phone::{PATIENCE, phones, wait_talk};
use e2e::{QUEUE_USER, Stack, start_bridge_at, start_originate_at};
use proto::sip_edge::v1::{CallState, GetCallRequest, HandOverRequest};

#[tokio::test(flavor = "multi_thread")]
async fn callers_at_two_sip_edges_are_bridged_by_whichever_is_asked() -> anyhow::Result<()> {
    let stack = Stack::start_replicated()?;
    stack.create_queue().await?;
    let [alice, bob] = phones(["alice", "bob"])?;
    for asked in [stack.sip_edge(), stack.other_edge()] {
        let call = alice.dial(stack.sip(), &stack.uri(QUEUE_USER))?;
        stack.wait_waiting(1).await?;
        let other = bob.dial(stack.other_sip(), &stack.uri(QUEUE_USER))?;
        stack.wait_waiting(2).await?;
        let line = stack.line().await?;
        let refused = start_bridge_at(asked.clone(), &line[0], "none").await?.unwrap_err();
        let refused = refused.downcast::<tonic::Status>()?;
        assert_eq!(refused.code(), tonic::Code::NotFound, "{refused}");

        let bridging = start_bridge_at(asked, &line[0], &line[1]);
        other.wait_moved(stack.sip())?;
        bob.invited()?.answer()?;
        let bridged = bridging.await??;
        assert_eq!((bridged.state(), &bridged.call_id), (CallState::Connected, &line[0]));
        assert_eq!(stack.wait_ended(&line[1]).await?.cause, "ATTENDED_TRANSFER");
        stack.wait_waiting(0).await?;
        wait_talk((&alice, &call), (&bob, &other))?;
        other.bye()?;
        alice.wait_bye(PATIENCE)?;
        stack.wait_clean().await?;
    }
    stack.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_transfers_a_caller_into_a_call_at_the_other_sip_edge() -> anyhow::Result<()> {
    let stack = Stack::start_replicated()?;
    stack.create_queue().await?;
    let [caller, agent, carol] = phones(["caller", "agent", "carol"])?;
    let call = caller.dial(stack.sip(), &stack.uri(QUEUE_USER))?;
    stack.wait_waiting(1).await?;
    let retrieving = stack.start_retrieve(&agent.uri(), 10_000);
    let mut answered = agent.invited()?.answer()?;
    retrieving.await??;
    let plan = format!("{{\"actions\": [{{\"dial\": {{\"target\": \"{}\"}}}}]}}", carol.uri());
    let originating = start_originate_at(stack.other_edge(), &agent.uri(), &plan);
    let asking = agent.invited()?.answer()?;
    let talking = carol.invited()?.answer()?;
    originating.await??;

    let to = format!("sip:agent@{}?Replaces={}", stack.other_sip(), asking.replaces());
    assert_eq!(answered.refer(&to)?, 202);
    agent.wait_notify("SIP/2.0 200")?;
    for _ in 0..2 {
        agent.wait_bye(PATIENCE)?;
    }
    wait_talk((&caller, &call), (&carol, &talking))?;
    talking.bye()?;
    caller.wait_bye(PATIENCE)?;
    stack.wait_clean().await?;
    stack.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_nobody_takes_goes_on_where_it_was() -> anyhow::Result<()> {
    let stack = Stack::start_replicated()?;
    stack.create_queue().await?;
    let [alice, agent] = phones(["alice", "agent"])?;
    let call = alice.dial(stack.sip(), &stack.uri(QUEUE_USER))?;
    stack.wait_waiting(1).await?;
    let line = stack.line().await?;
    let request = || HandOverRequest { call_id: line[0].clone() };
    let retrieving = stack.start_retrieve(&agent.uri(), 10_000);
    let invitation = agent.invited()?;
    invitation.ring();
    let refused = stack.sip_edge().hand_over(request()).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Aborted, "an agent rings: {refused}");
    invitation.refuse("486 Busy Here");
    retrieving.await??;
    stack.wait_waiting(1).await?;

    let revision = stack.sip_edge().hand_over(request()).await?.into_inner().revision;
    assert!(revision > 0);
    // It is nobody's now, and nobody says that it is not there.
    for edge in [stack.sip_edge(), stack.other_edge()] {
        let request = GetCallRequest { call_id: line[0].clone() };
        let refused = edge.clone().get_call(request).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::Unavailable, "{refused}");
    }
    call.wait_moved(stack.sip())?; // It has told the phone where it is.
    let shown = stack.call(&line[0]).await?;
    assert_eq!((shown.edge.as_str(), shown.state()), ("edge", CallState::Answered));
    assert_eq!(stack.line().await?, line);
    call.bye()?;
    stack.wait_clean().await?;
    stack.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_nats_calls_of_two_sip_edges_stay_where_they_are() -> anyhow::Result<()> {
    let mut stack = Stack::start_replicated()?;
    let [alice, bob] = phones(["alice", "bob"])?;
    let call = alice.dial(stack.sip(), &stack.uri("service"))?;
    let other = bob.dial(stack.other_sip(), &stack.uri("service"))?;
    stack.wait_kept().await?;
    let calls = stack.calls().await?;
    stack.kill_nats();
    let refused = stack.start_bridge(&calls[0].call_id, &calls[1].call_id).await?.unwrap_err();
    let refused = refused.downcast::<tonic::Status>()?;
    assert_eq!(refused.code(), tonic::Code::Unavailable, "{refused}");
    let request = GetCallRequest { call_id: calls[1].call_id.clone() };
    let shown = stack.other_edge().get_call(request).await?.into_inner();
    assert_eq!((shown.edge.as_str(), shown.state()), ("other", CallState::Answered));

    stack.restart_nats()?;
    stack.wait_kept().await?;
    let bridging = stack.start_bridge(&calls[0].call_id, &calls[1].call_id);
    other.wait_moved(stack.sip())?;
    bob.invited()?.answer()?;
    assert_eq!(bridging.await??.state(), CallState::Connected);
    wait_talk((&alice, &call), (&bob, &other))?;
    other.bye()?;
    alice.wait_bye(PATIENCE)?;
    stack.wait_clean().await?;
    stack.stop()
}
