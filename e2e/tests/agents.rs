//! Agents with real phones: whoever is free is rung at once, and whatever they do, the caller keeps the
//! place and the music.

use e2e::audio::{Codec, Reference, tune};
use e2e::phone::{PATIENCE, Phone};
use e2e::{MUSIC, QUEUE, QUEUE_USER, Stack};
use proto::queue::v1::*;
use rsip::headers::auth::Algorithm;
use std::time::Duration;

/// A gap between two packets that is heard.
const GAP_MAX: Duration = Duration::from_millis(60);
const LIKENESS_MIN: f64 = 0.98;

/// A stack whose queue is like this.
async fn start(change: impl FnOnce(&mut Queue)) -> anyhow::Result<Stack> {
    let stack = Stack::start()?;
    stack.create_queue().await?;
    let request = GetQueueRequest { name: QUEUE.into() };
    let mut queue = stack.queues().get_queue(request).await?.into_inner();
    change(&mut queue);
    stack.queues().update_queue(UpdateQueueRequest { queue: Some(queue) }).await?;
    Ok(stack)
}

/// An agent of the queue, not logged in, at this address.
async fn create(stack: &Stack, name: &str, address: String, order: u32) -> anyhow::Result<()> {
    let membership = Membership { queue: QUEUE.into(), order, ..Membership::default() };
    let agent = Agent {
        name: name.into(),
        address,
        queues: vec![membership],
        reject_delay_ms: 1_000,
        busy_delay_ms: 1_000,
        no_answer_delay_ms: 1_000,
        ..Agent::default()
    };
    stack.queues().create_agent(CreateAgentRequest { agent: Some(agent) }).await?;
    Ok(())
}

async fn log_in(stack: &Stack, name: &str) -> anyhow::Result<()> {
    say(stack, name, Presence::Login).await
}

async fn say(stack: &Stack, name: &str, presence: Presence) -> anyhow::Result<()> {
    let presence = presence.into();
    let request = SetPresenceRequest { name: name.into(), presence, ..Default::default() };
    stack.queues().set_presence(request).await?;
    Ok(())
}

async fn state(stack: &Stack, name: &str) -> anyhow::Result<AgentState> {
    let request = GetAgentRequest { name: name.into() };
    Ok(stack.queues().get_agent(request).await?.into_inner().state())
}

/// Waits for that event of the queue, and returns its caller.
async fn wait_for(
    watch: &mut tonic::Streaming<WatchResponse>,
    kind: QueueEventType,
) -> anyhow::Result<QueueEvent> {
    loop {
        let next = tokio::time::timeout(PATIENCE, watch.message()).await??;
        let event = next.and_then(|it| it.event).unwrap_or_default();
        if event.r#type() == kind {
            return Ok(event);
        }
    }
}

fn assert_clean_music(stack: &Stack, caller: &Phone, at_least: Duration) {
    let heard = caller.ear().audio(Codec::Pcmu);
    let span = Reference::new(&stack.media(MUSIC).unwrap()).longest_span(&heard);
    assert!(span.correlation >= LIKENESS_MIN, "{span:?}");
    assert!(u128::from(span.duration_ms()) >= at_least.as_millis(), "{span:?}");
    assert_eq!(caller.ear().discontinuity(), None);
    assert!(caller.ear().longest_gap() <= GAP_MAX, "{:?}", caller.ear().longest_gap());
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_agents_do_the_caller_keeps_place_and_music_until_one_answers()
-> anyhow::Result<()> {
    let stack = start(|queue| {
        queue.set_strategy(Strategy::Linear);
        queue.ring_timeout_ms = 1_000;
    })
    .await?;
    let phones = [Phone::start("agent1", Codec::Pcmu)?, Phone::start("agent2", Codec::Pcmu)?];
    for (nth, phone) in (1..).zip(&phones) {
        create(&stack, &format!("a{nth}"), phone.uri(), nth).await?;
    }
    let mut watch = stack.queues().watch(WatchRequest::default()).await?.into_inner();
    let (caller, second) = (Phone::start("alice", Codec::Pcmu)?, Phone::start("bob", Codec::Pcmu)?);
    let _call = caller.dial(stack.sip(), &stack.uri(QUEUE_USER))?;
    stack.wait_waiting(1).await?;
    let second_call = second.dial(stack.sip(), &stack.uri(QUEUE_USER))?;
    stack.wait_waiting(2).await?;
    let line = stack.line().await?;

    // The first one is silent for too long, is rung again, and refuses; then is not there at all.
    log_in(&stack, "a1").await?;
    phones[0].invited()?.ring();
    phones[0].wait_cancel()?;
    for refusal in ["486 Busy Here", "603 Decline", "404 Not Found"] {
        phones[0].invited()?.refuse(refusal);
        let released = wait_for(&mut watch, QueueEventType::Released).await?;
        assert_eq!(released.caller.unwrap_or_default().position, 1, "{refusal}");
    }
    assert_eq!(stack.line().await?, line);
    say(&stack, "a1", Presence::Logout).await?; // Before it is rung again.
    let [_, second_phone] = phones;

    log_in(&stack, "a2").await?;
    let answered = second_phone.invited()?.answer()?;
    let connected = wait_for(&mut watch, QueueEventType::Connected).await?;
    let taken = connected.caller.unwrap_or_default();
    assert_eq!(taken.call_id, line[0]);
    assert!(taken.waited_ms >= 4_000, "waited {} ms since the arrival", taken.waited_ms);
    assert_eq!(state(&stack, "a2").await?, AgentState::Busy);
    assert_clean_music(&stack, &second, Duration::from_secs(2));
    answered.bye()?;
    caller.wait_bye(PATIENCE)?;

    // Freed, and rung at once for the next one, who hangs up.
    let rings = second_phone.invited()?;
    rings.ring();
    second_call.bye()?;
    second_phone.wait_cancel()?;
    stack.wait_clean().await?;
    stack.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn all_phones_ring_until_one_answers() -> anyhow::Result<()> {
    let stack = start(|queue| queue.set_strategy(Strategy::RingAll)).await?;
    let phones = [Phone::start("agent1", Codec::Pcmu)?, Phone::start("agent2", Codec::Pcmu)?];
    for (nth, phone) in (1..).zip(&phones) {
        create(&stack, &format!("a{nth}"), phone.uri(), nth).await?;
        log_in(&stack, &format!("a{nth}")).await?;
    }
    let mut watch = stack.queues().watch(WatchRequest::default()).await?.into_inner();
    let caller = Phone::start("alice", Codec::Pcmu)?;
    let _call = caller.dial(stack.sip(), &stack.uri(QUEUE_USER))?;
    let (rings, answers) = (phones[0].invited()?, phones[1].invited()?);
    rings.ring();
    answers.ring();
    let answered = answers.answer()?;
    phones[0].wait_cancel()?;
    wait_for(&mut watch, QueueEventType::Connected).await?;
    let voice = Reference::new(&tune(32, 2_000));
    answered.speak(&Reference::new(&tune(32, 2_000)).into_samples());
    caller.ear().listen(Duration::from_millis(2_500))?;
    let heard = voice.longest_span(&caller.ear().audio(Codec::Pcmu));
    assert!(heard.duration_ms() >= 1_500 && heard.correlation >= LIKENESS_MIN, "{heard:?}");
    assert_eq!(state(&stack, "a1").await?, AgentState::Idle);
    assert_eq!(state(&stack, "a2").await?, AgentState::Busy);
    answered.bye()?;
    caller.wait_bye(PATIENCE)?;
    stack.wait_clean().await?;
    stack.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn all_phones_of_all_agents_ring_and_those_that_need_not_are_told_why() -> anyhow::Result<()>
{
    let stack = start(|queue| queue.set_strategy(Strategy::RingAll)).await?;
    let of_one = [Phone::start("1001", Codec::Pcmu)?, Phone::start("1001", Codec::Pcmu)?];
    for phone in &of_one {
        phone.register(stack.sip(), "secret1001", Algorithm::Sha256)?;
    }
    let other = Phone::start("other", Codec::Pcmu)?;
    create(&stack, "a1", "user/1001".into(), 1).await?;
    create(&stack, "a2", other.uri(), 2).await?;
    log_in(&stack, "a1").await?;
    log_in(&stack, "a2").await?;
    let caller = Phone::start("alice", Codec::Pcmu)?;
    let phones = [&of_one[0], &of_one[1], &other];
    for (answers, busy, idle) in [(1, "a1", "a2"), (2, "a2", "a1")] {
        let mut watch = stack.queues().watch(WatchRequest::default()).await?.into_inner();
        let _call = caller.dial(stack.sip(), &stack.uri(QUEUE_USER))?;
        let mut invitations = Vec::new();
        for phone in phones {
            let invitation = phone.invited()?;
            invitation.ring();
            invitations.push(invitation);
        }
        let answered = invitations.swap_remove(answers).answer()?;
        for phone in phones.iter().enumerate().filter(|(nth, _)| *nth != answers) {
            let reason = phone.1.wait_cancel()?;
            assert_eq!(reason, "SIP;cause=200;text=\"Call completed elsewhere\"", "{}", phone.0);
        }
        wait_for(&mut watch, QueueEventType::Connected).await?;
        assert_eq!(state(&stack, busy).await?, AgentState::Busy);
        assert_eq!(state(&stack, idle).await?, AgentState::Idle);
        answered.bye()?;
        caller.wait_bye(PATIENCE)?;
        stack.wait_clean().await?;
    }
    stack.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn agent_dials_a_code_to_log_in_and_is_rung() -> anyhow::Result<()> {
    let stack = start(|_| ()).await?;
    let agent = Phone::start("1001", Codec::Pcmu)?;
    agent.register(stack.sip(), "secret1001", Algorithm::Sha256)?;
    create(&stack, "1001", "user/1001".into(), 0).await?;
    let _login = agent.dial(stack.sip(), &stack.uri("login"))?;
    agent.wait_bye(PATIENCE)?; // After the prompt.
    assert_eq!(state(&stack, "1001").await?, AgentState::Idle);
    let mut watch = stack.queues().watch(WatchRequest::default()).await?.into_inner();
    let caller = Phone::start("alice", Codec::Pcmu)?;
    let _call = caller.dial(stack.sip(), &stack.uri(QUEUE_USER))?;
    let answered = agent.invited()?.answer()?;
    wait_for(&mut watch, QueueEventType::Connected).await?; // Before that nobody would have been taken.
    answered.bye()?;
    caller.wait_bye(PATIENCE)?;
    stack.wait_clean().await?;
    stack.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn position_is_said_over_the_music_which_goes_on_where_it_was() -> anyhow::Result<()> {
    let stack = start(|queue| {
        queue.announce_every_ms = 5_000;
        queue.announce_position = true;
    })
    .await?;
    let prompts = stack.folder().join("media/prompts/queue");
    std::fs::create_dir_all(prompts.join("number"))?;
    let (words, one) = (tune(41, 1_000), tune(42, 800));
    words.write(&prompts.join("you-are-number.wav"))?;
    one.write(&prompts.join("number/1.wav"))?;
    let caller = Phone::start("alice", Codec::Pcmu)?;
    let call = caller.dial(stack.sip(), &stack.uri(QUEUE_USER))?;
    stack.wait_waiting(1).await?;
    caller.ear().listen(Duration::from_secs(9))?;
    let heard = caller.ear().audio(Codec::Pcmu);
    for (said, ms) in [(words, 900), (one, 700)] {
        let span = Reference::new(&said).longest_span(&heard);
        assert!(span.correlation >= LIKENESS_MIN && span.duration_ms() >= ms, "{span:?}");
    }
    assert_eq!(caller.ear().discontinuity(), None, "one RTP stream");
    assert!(caller.ear().longest_gap() <= GAP_MAX, "{:?}", caller.ear().longest_gap());
    call.bye()?;
    stack.wait_clean().await?;
    stack.stop()
}
