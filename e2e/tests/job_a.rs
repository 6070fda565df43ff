//! Job A: a hold queue. Callers hear its music until an agent takes them, in the order they came.

use e2e::audio::{Codec, Reference, tune};
use e2e::phone::{PATIENCE, Phone, header};
use e2e::{MUSIC, QUEUE, QUEUE_USER, Stack};
use proto::queue::v1::{GetQueueRequest, RetrieveOutcome, UpdateQueueRequest};
use proto::sip_edge::v1::CallState;
use std::time::Duration;

/// Longer than the music lasts.
const OVER_THE_SEAM: Duration = Duration::from_millis(7_000);
/// A gap between two packets that is heard.
const GAP_MAX: Duration = Duration::from_millis(60);
const LIKENESS_MIN: f64 = 0.98;

async fn start() -> anyhow::Result<Stack> {
    let stack = Stack::start()?;
    stack.create_queue().await?;
    Ok(stack)
}

/// What a caller has heard is the music from beginning to end, without a gap and in one RTP stream.
fn assert_clean_music(stack: &Stack, caller: &Phone, codec: Codec, at_least: Duration) {
    let span =
        Reference::new(&stack.media(MUSIC).unwrap()).longest_span(&caller.ear().audio(codec));
    assert!(span.correlation >= LIKENESS_MIN, "{codec:?}: {span:?}");
    assert!(u128::from(span.duration_ms()) >= at_least.as_millis(), "{codec:?}: {span:?}");
    assert!(span.from_ms <= 100, "{codec:?}: the first packets were not music: {span:?}");
    assert_eq!(caller.ear().discontinuity(), None, "{codec:?}");
    assert!(caller.ear().longest_gap() <= GAP_MAX, "{codec:?}: {:?}", caller.ear().longest_gap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_hears_clean_music_over_its_seam_in_the_offered_codec() -> anyhow::Result<()> {
    let stack = start().await?;
    for codec in [Codec::Pcmu, Codec::Pcma] {
        let caller = Phone::start("alice", codec)?;
        let call = caller.dial(stack.sip(), &stack.uri(QUEUE_USER))?;
        assert_eq!(stack.wait_waiting(1).await?, 1);
        caller.ear().listen(OVER_THE_SEAM)?;
        assert_clean_music(&stack, &caller, codec, OVER_THE_SEAM - Duration::from_millis(500));
        call.bye()?;
        stack.wait_clean().await?;
    }
    stack.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_who_does_not_take_the_call_changes_nothing_for_the_caller() -> anyhow::Result<()>
{
    let stack = start().await?;
    let (first, second) =
        (Phone::start("first", Codec::Pcmu)?, Phone::start("second", Codec::Pcma)?);
    let first_call = first.dial(stack.sip(), &stack.uri(QUEUE_USER))?;
    stack.wait_waiting(1).await?;
    let second_call = second.dial(stack.sip(), &stack.uri(QUEUE_USER))?;
    stack.wait_waiting(2).await?;
    let line = stack.line().await?;
    let agent = Phone::start("agent", Codec::Pcmu)?;

    let retrieving = stack.start_retrieve(&agent.uri(), 1_500);
    let invitation = agent.invited()?;
    invitation.ring();
    agent.wait_cancel()?;
    let outcome = retrieving.await??;
    assert_eq!(outcome.outcome(), RetrieveOutcome::NoAnswer);
    assert_eq!(outcome.call_id, line[0]);
    assert_eq!(stack.line().await?, line);

    for (refusal, wanted, status) in [
        ("486 Busy Here", RetrieveOutcome::Busy, 486),
        ("603 Decline", RetrieveOutcome::Declined, 603),
        ("404 Not Found", RetrieveOutcome::Unreachable, 404),
    ] {
        let retrieving = stack.start_retrieve(&agent.uri(), 5_000);
        agent.invited()?.refuse(refusal);
        let outcome = retrieving.await??;
        assert_eq!((outcome.outcome(), outcome.sip_status), (wanted, status), "{refusal}");
        assert_eq!(stack.line().await?, line, "{refusal}");
    }
    // Nobody is there at all.
    drop(agent);
    let outcome = stack.retrieve("user/1001", 1_000).await?;
    assert_eq!(outcome.outcome(), RetrieveOutcome::Unreachable);
    assert_eq!(stack.line().await?, line);
    assert_eq!(stack.waiting().await?, 2);

    first.ear().listen(Duration::from_secs(1))?;
    assert_clean_music(&stack, &first, Codec::Pcmu, Duration::from_secs(2));
    assert_clean_music(&stack, &second, Codec::Pcma, Duration::from_secs(2));
    assert!(!first.has_bye() && !second.has_bye());
    first_call.bye()?;
    second_call.bye()?;
    stack.wait_clean().await?;
    stack.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn caller_and_agent_hear_each_other_once_the_agent_has_answered() -> anyhow::Result<()> {
    let stack = start().await?;
    let voices = [tune(31, 2_000), tune(32, 2_000)].map(|it| Reference::new(&it));
    let [caller_voice, agent_voice] = [0, 1].map(|nth| tune(31 + nth, 2_000));
    for (caller_codec, agent_codec) in [(Codec::Pcmu, Codec::Pcmu), (Codec::Pcma, Codec::Pcmu)] {
        let (caller, agent) =
            (Phone::start("alice", caller_codec)?, Phone::start("agent", agent_codec)?);
        let call = caller.dial(stack.sip(), &stack.uri(QUEUE_USER))?;
        stack.wait_waiting(1).await?;
        call.speak(&Reference::new(&caller_voice).into_samples());
        let retrieving = stack.start_retrieve(&agent.uri(), 10_000);
        let invitation = agent.invited()?;
        invitation.ring();
        caller.ear().listen(Duration::from_millis(500))?; // Music while it rings.
        let answered = invitation.answer()?;
        answered.speak(&Reference::new(&agent_voice).into_samples());
        let outcome = retrieving.await??;
        assert_eq!(outcome.outcome(), RetrieveOutcome::Connected);
        assert_eq!(stack.call(&outcome.call_id).await?.state(), CallState::Connected);
        assert_eq!(stack.waiting().await?, 0);
        agent.ear().listen(Duration::from_millis(2_500))?;

        let heard = voices[1].longest_span(&caller.ear().audio(caller_codec));
        assert!(heard.duration_ms() >= 1_500 && heard.correlation >= LIKENESS_MIN, "{heard:?}");
        let heard = voices[0].longest_span(&agent.ear().audio(agent_codec));
        assert!(heard.duration_ms() >= 1_500 && heard.correlation >= LIKENESS_MIN, "{heard:?}");
        assert_eq!(caller.ear().discontinuity(), None, "music and agent are one RTP stream");

        answered.bye()?;
        caller.wait_bye(PATIENCE)?;
        let ended = stack.wait_ended(&outcome.call_id).await?;
        assert_eq!((ended.cause.as_str(), ended.ended_by.as_str()), ("NORMAL_CLEARING", "callee"));
        stack.wait_clean().await?;
    }
    stack.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_who_hangs_up_while_the_agent_rings_stops_the_ringing() -> anyhow::Result<()> {
    let stack = start().await?;
    let (caller, agent) =
        (Phone::start("alice", Codec::Pcmu)?, Phone::start("agent", Codec::Pcmu)?);
    let call = caller.dial(stack.sip(), &stack.uri(QUEUE_USER))?;
    stack.wait_waiting(1).await?;
    let retrieving = stack.start_retrieve(&agent.uri(), 10_000);
    agent.invited()?.ring();
    call.bye()?;
    agent.wait_cancel()?;
    assert_eq!(retrieving.await??.outcome(), RetrieveOutcome::CallerGone);
    stack.wait_clean().await?;
    stack.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_are_given_out_in_the_order_in_which_they_came() -> anyhow::Result<()> {
    let stack = start().await?;
    let callers: Vec<Phone> = (0..4)
        .map(|nth| Phone::start(&format!("c{nth}"), Codec::Pcmu))
        .collect::<Result<_, _>>()?;
    let mut calls = Vec::new();
    for caller in &callers {
        calls.push(caller.dial(stack.sip(), &stack.uri(QUEUE_USER))?);
    }
    stack.wait_waiting(4).await?;
    let line = stack.line().await?;
    let rows = stack.mohqcalls()?;
    assert_eq!(rows, line.iter().map(|it| format!("{it}|2")).collect::<Vec<_>>());
    for (call_id, nth) in line.iter().zip(0..) {
        let agent = Phone::start("agent", Codec::Pcmu)?;
        let retrieving = stack.start_retrieve(&agent.uri(), 10_000);
        let answered = agent.invited()?.answer()?;
        assert_eq!(&retrieving.await??.call_id, call_id);
        answered.bye()?;
        callers[nth].wait_bye(PATIENCE)?;
    }
    stack.wait_clean().await?;
    stack.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_refuses_at_once_and_keeps_nothing() -> anyhow::Result<()> {
    let stack = start().await?;
    let request = GetQueueRequest { name: QUEUE.into() };
    let mut queue = stack.queues().get_queue(request).await?.into_inner();
    queue.max_calls = 1;
    stack.queues().update_queue(UpdateQueueRequest { queue: Some(queue) }).await?;
    let (first, second) =
        (Phone::start("first", Codec::Pcmu)?, Phone::start("second", Codec::Pcmu)?);
    let call = first.dial(stack.sip(), &stack.uri(QUEUE_USER))?;
    stack.wait_waiting(1).await?;
    let refused = second.dial_with(stack.sip(), &stack.uri(QUEUE_USER), &second.sdp("sendrecv"))?;
    assert_eq!(u16::from(refused.status_code), 486);
    assert_eq!(stack.calls().await?.len(), 1);
    call.bye()?;
    stack.wait_clean().await?;
    stack.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_become_a_call_is_refused_with_the_right_response() -> anyhow::Result<()> {
    let stack = start().await?;
    let phone = Phone::start("alice", Codec::Pcmu)?;
    let g729 = phone
        .sdp("sendrecv")
        .replace("RTP/AVP 0 101", "RTP/AVP 18")
        .replace("PCMU/8000", "G729/8000");
    let refused = phone.dial_with(stack.sip(), &stack.uri(QUEUE_USER), &g729)?;
    assert_eq!(u16::from(refused.status_code.clone()), 488);
    let warning = header(&refused.headers, "Warning").unwrap_or_default();
    assert!(warning.starts_with("305 "), "Warning: {warning}");

    let refused = phone.dial_with(stack.sip(), &stack.uri("nobody"), &phone.sdp("sendrecv"))?;
    assert_eq!(u16::from(refused.status_code), 404);

    let refused = phone.dial_with(stack.sip(), &stack.uri(QUEUE_USER), "this is not SDP")?;
    let status = u16::from(refused.status_code);
    assert!((400..500).contains(&status), "a body that is not SDP got {status}");
    stack.wait_clean().await?;
    stack.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_on_hold_hears_nothing_and_then_the_music_again() -> anyhow::Result<()> {
    let stack = start().await?;
    let caller = Phone::start("alice", Codec::Pcmu)?;
    let mut call = caller.dial(stack.sip(), &stack.uri(QUEUE_USER))?;
    stack.wait_waiting(1).await?;
    caller.ear().listen(Duration::from_secs(1))?;
    let answer = call.offer("inactive")?;
    assert!(answer.contains("a=inactive"), "{answer}");
    let call_id = stack.calls().await?.remove(0).call_id;
    stack.wait_call(&call_id, |it| it.legs.iter().any(|leg| leg.held)).await?;
    caller.ear().clear();
    assert!(caller.ear().listen(Duration::from_millis(100)).is_err(), "packets came while on hold");
    let answer = call.offer("sendrecv")?;
    assert!(!answer.contains("a=inactive"), "{answer}");
    caller.ear().listen(Duration::from_secs(2))?;
    let span = Reference::new(&stack.media(MUSIC)?).longest_span(&caller.ear().audio(Codec::Pcmu));
    assert!(span.duration_ms() >= 1_500 && span.correlation >= LIKENESS_MIN, "{span:?}");
    assert_eq!(stack.waiting().await?, 1);
    call.bye()?;
    stack.wait_clean().await?;
    stack.stop()
}
