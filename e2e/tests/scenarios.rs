//! What phones do with SIP, a script of SIPp for each.

use anyhow::Context as _;
use e2e::audio::Codec;
use e2e::phone::{PATIENCE, Phone};
use e2e::{QUEUE_USER, Scenario, Sipp, Stack, USERS};
use futures::StreamExt as _;
use proto::queue::v1::RetrieveOutcome;
use proto::sip_edge::v1::{CallEvent, CallEventType, CallState, HangupRequest};

/// Runs to its end; every check of the script must hold.
async fn play(scenario: Scenario) -> anyhow::Result<()> {
    let phone = Sipp::start(&scenario, None)?;
    let context = format!("play {scenario:?}");
    tokio::task::spawn_blocking(|| phone.finish_without_failure()).await?.context(context)
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_in_the_queue_use_sip_in_every_way() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    stack.create_queue().await?;
    for script in [
        "caller_writes_unusually.xml",
        "caller_uses_the_dialog.xml",
        "caller_asks_for_short_sessions.xml",
    ] {
        play(Scenario::caller_by(script, stack.sip(), QUEUE_USER)).await?;
    }
    stack.wait_clean().await?;
    stack.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_are_rung_reliably_and_give_up() -> anyhow::Result<()> {
    let mut stack = Stack::start()?;
    let agent = Phone::start("agent", Codec::Pcmu)?;
    stack.change_dial_plan(&format!(
        "routes:
  - name: agent
    uri: \"^sip:agent@\"
    plan: {{actions: [{{dial: {{target: \"{}\"}}}}]}}
",
        agent.uri()
    ))?;
    let scenario = Scenario::caller_by("caller_wants_reliable_ringing.xml", stack.sip(), "agent");
    let caller = Sipp::start(&scenario, None)?;
    let invitation = agent.invited()?;
    invitation.ring();
    let _call = invitation.answer()?;
    agent.wait_bye(PATIENCE)?;
    tokio::task::spawn_blocking(|| caller.finish_without_failure()).await??;
    stack.wait_clean().await?;

    let caller = Scenario::caller_by("caller_gives_up.xml", stack.sip(), "agent");
    let caller = Sipp::start(&caller, None)?;
    let invitation = agent.invited()?;
    invitation.ring();
    tokio::task::spawn_blocking(|| caller.finish_without_failure()).await??;
    stack.wait_clean().await?;
    stack.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_knows_the_password_is_registered_and_nobody_else() -> anyhow::Result<()> {
    let stack = Stack::start_with(&["--digest", "md5"])?;
    let (user, password) = USERS[0];
    let phone = |script| Scenario::caller_by(script, stack.sip(), user);
    play(phone("phone_registers.xml").with_password(password)).await?;
    play(phone("phone_guesses.xml").with_password("guessed")).await?;
    stack.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_use_sip_in_every_way() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    stack.create_queue().await?;
    let caller = Phone::start("caller", Codec::Pcmu)?;
    let carol = Phone::start("carol", Codec::Pcmu)?;

    let call = caller.dial(stack.sip(), &stack.uri(QUEUE_USER))?;
    let (agent, _) = taken_by(&stack, Scenario::agent_by("agent_rings_reliably.xml")).await?;
    call.bye()?;
    tokio::task::spawn_blocking(|| agent.finish_without_failure()).await??;
    stack.wait_clean().await?;

    let _call = caller.dial(stack.sip(), &stack.uri(QUEUE_USER))?;
    let (agent, _) = taken_by(&stack, Scenario::agent_by("agent_updates_and_holds.xml")).await?;
    tokio::task::spawn_blocking(|| agent.finish_without_failure()).await??;
    caller.wait_bye(PATIENCE)?;
    stack.wait_clean().await?;

    let call = caller.dial(stack.sip(), &stack.uri(QUEUE_USER))?;
    let refers = Scenario::agent_by("agent_refers.xml").with("transfer_to", &carol.uri());
    let (agent, _) = taken_by(&stack, refers).await?;
    let invitation = carol.invited()?;
    invitation.ring();
    let _talk = invitation.answer()?;
    tokio::task::spawn_blocking(|| agent.finish_without_failure()).await??;
    call.bye()?;
    carol.wait_bye(PATIENCE)?;
    stack.wait_clean().await?;
    stack.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_are_bridged_though_offers_cross_and_may_be_replaced() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    stack.create_queue().await?;
    let alice = Phone::start("alice", Codec::Pcmu)?;
    let script = |name| Scenario::caller_by(name, stack.sip(), QUEUE_USER);
    let call = alice.dial(stack.sip(), &stack.uri(QUEUE_USER))?;
    stack.wait_waiting(1).await?;
    let crossing = Sipp::start(&script("caller_has_crossing_offers.xml"), None)?;
    stack.wait_waiting(2).await?;
    let line = stack.line().await?;
    let bridged = stack.start_bridge(&line[0], &line[1]).await??;
    assert_eq!(bridged.state(), CallState::Connected);

    let replaces = script("caller_replaces_another.xml").with("replaces", &call.replaces_header());
    let replacing = Sipp::start(&replaces, None)?;
    let bye = alice.wait_bye(PATIENCE)?;
    assert!(bye.reason.contains("PICKED_OFF"), "{bye:?}");
    let hangup = HangupRequest { call_id: line[0].clone(), ..HangupRequest::default() };
    stack.sip_edge().hangup(hangup).await?;
    tokio::task::spawn_blocking(|| replacing.finish_without_failure()).await??;
    tokio::task::spawn_blocking(|| crossing.finish_without_failure()).await??;
    drop(call);
    stack.wait_clean().await?;
    stack.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hangup_is_done_whatever_the_bye_is_answered() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    stack.create_queue().await?;
    let bus = async_nats::connect(format!("127.0.0.1:{}", stack.ports().nats)).await?;
    let mut events = bus.subscribe("holdfast.call.>").await?;
    for status in ["408 Request Timeout", "481 Call Does Not Exist", "503 Service Unavailable"] {
        let caller = Phone::start("caller", Codec::Pcmu)?;
        let _call = caller.dial(stack.sip(), &stack.uri(QUEUE_USER))?;
        let answers = Scenario::agent_by("agent_answers_bye.xml").with("bye_status", status);
        let (agent, call_id) = taken_by(&stack, answers).await?;
        let request = HangupRequest { call_id: call_id.clone(), ..HangupRequest::default() };
        stack.sip_edge().hangup(request).await?;
        caller.wait_bye(PATIENCE)?;
        tokio::task::spawn_blocking(|| agent.finish_without_failure()).await??;
        loop {
            let next = tokio::time::timeout(PATIENCE, events.next()).await;
            let message = next.with_context(|| format!("hear of {status}"))?.context("hear")?;
            let text = std::str::from_utf8(&message.payload)?;
            let event: CallEvent = proto::json::from_json(text)?;
            let is_ours = event.call.as_ref().is_some_and(|it| it.call_id == call_id);
            if is_ours && event.r#type() == CallEventType::Released && event.side == "B" {
                assert_eq!(event.sip_status.to_string(), status[..3], "{event:?}");
                break;
            }
        }
        stack.wait_clean().await?;
    }
    stack.stop()
}

/// The caller who waits is retrieved by an agent that SIPp plays; the agent and the call.
async fn taken_by(stack: &Stack, agent: Scenario) -> anyhow::Result<(Sipp, String)> {
    stack.wait_waiting(1).await?;
    let agent = Sipp::start(&agent, None)?;
    let retrieved = stack.start_retrieve(&agent.uri(), 10_000).await??;
    if retrieved.outcome() != RetrieveOutcome::Connected {
        tokio::task::spawn_blocking(|| agent.finish_without_failure()).await??;
        anyhow::bail!("be taken: {retrieved:?}");
    }
    Ok((agent, retrieved.call_id))
}
