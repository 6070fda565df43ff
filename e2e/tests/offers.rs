//! Who offers what, and when: INVITEs without an offer, and offers of callers who wait.

use e2e::audio::{Codec, Reference};
use e2e::phone::{PATIENCE, Phone};
use e2e::{MUSIC, QUEUE_USER, Stack};
use proto::queue::v1::RetrieveOutcome;
use std::time::Duration;

const LIKENESS_MIN: f64 = 0.98;

fn assert_hears_music(stack: &Stack, phone: &Phone, codec: Codec) -> anyhow::Result<()> {
    phone.ear().clear();
    phone.ear().listen(Duration::from_secs(2))?;
    let span = Reference::new(&stack.media(MUSIC)?).longest_span(&phone.ear().audio(codec));
    assert!(span.duration_ms() >= 1_500 && span.correlation >= LIKENESS_MIN, "{codec:?}: {span:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_without_an_offer_hears_music_in_the_codec_of_its_answer() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    stack.create_queue().await?;
    for codec in [Codec::Pcmu, Codec::Pcma] {
        let caller = Phone::start("alice", codec)?;
        let call = caller.dial_without_offer(stack.sip(), &stack.uri(QUEUE_USER))?;
        stack.wait_waiting(1).await?;
        assert_hears_music(&stack, &caller, codec)?;
        call.bye()?;
        stack.wait_clean().await?;
    }
    stack.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_on_hold_keeps_the_place_and_is_given_out_first() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    stack.create_queue().await?;
    let (first, second) =
        (Phone::start("first", Codec::Pcmu)?, Phone::start("second", Codec::Pcma)?);
    let mut first_call = first.dial_without_offer(stack.sip(), &stack.uri(QUEUE_USER))?;
    stack.wait_waiting(1).await?;
    let second_call = second.dial(stack.sip(), &stack.uri(QUEUE_USER))?;
    stack.wait_waiting(2).await?;
    let line = stack.line().await?;

    let answer = first_call.offer("sendonly")?;
    assert!(answer.contains("a=recvonly"), "{answer}");
    stack.wait_call(&line[0], |it| it.legs[0].held).await?;
    assert_eq!(stack.line().await?, line);
    let answer = first_call.offer("sendrecv")?;
    assert!(answer.contains("a=sendrecv"), "{answer}");
    stack.wait_call(&line[0], |it| !it.legs[0].held).await?;
    assert_eq!(stack.line().await?, line);
    assert_hears_music(&stack, &first, Codec::Pcmu)?;

    let agent = Phone::start("agent", Codec::Pcmu)?;
    let retrieving = stack.start_retrieve(&agent.uri(), 10_000);
    let answered = agent.invited()?.answer()?;
    let outcome = retrieving.await??;
    assert_eq!((outcome.outcome(), &outcome.call_id), (RetrieveOutcome::Connected, &line[0]));
    first_call.bye()?;
    agent.wait_bye(PATIENCE)?;
    drop(answered);
    second_call.bye()?;
    stack.wait_clean().await?;
    stack.stop()
}
