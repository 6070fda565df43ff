//! What tasks do to live calls, as the phones hear it: a warning over the talk, the hangup of one
//! leg, transfers; and what they publish.

use e2e::audio::{Codec, Reference, tune};
use e2e::phone::{PATIENCE, Phone};
use e2e::{PROMPT, QUEUE_USER, Stack};
use futures::StreamExt as _;
use proto::scheduler::v1::TaskState;
use proto::sip_edge::v1::{CallState, TransferRequest, transfer_request};
use std::time::Duration;

const LIKENESS_MIN: f64 = 0.98;
/// How much must be heard of something to know it.
const HEARD_MIN_MS: u64 = 1_000;

/// Does `what` after `after_ms`, as `task`, then dials `target`; `after` follows if that leg goes.
fn plan(after_ms: u32, what: &str, target: &str, after: &str) -> String {
    format!(
        r#"{{"actions": [{{"schedule": {{"after_ms": "{after_ms}", {what}, "as": "task"}}}},
            {{"dial": {{"target": "{target}"}}}}{after}]}}"#
    )
}

#[track_caller]
fn assert_heard(phone: &Phone, what: &Reference) {
    let heard = what.longest_span(&phone.ear().audio(Codec::Pcmu));
    let known = heard.duration_ms() >= HEARD_MIN_MS && heard.correlation >= LIKENESS_MIN;
    assert!(known, "{heard:?}");
}

#[track_caller]
fn assert_not_heard(phone: &Phone, what: &Reference) {
    let heard = what.longest_span(&phone.ear().audio(Codec::Pcmu));
    assert!(heard.duration_ms() < HEARD_MIN_MS || heard.correlation < 0.9, "{heard:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_warning_is_heard_over_the_talk_by_one_leg_and_both_talk_on() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    let prompt = Reference::new(&stack.media(PROMPT)?);
    let (a, b) = (Phone::start("alice", Codec::Pcmu)?, Phone::start("bob", Codec::Pcmu)?);
    let [a_voice, b_voice] = [tune(51, 2_000), tune(52, 2_000)];
    let warn = format!(r#""play": {{"file": "{PROMPT}", "legs": "LEGS_A"}}"#);
    let originating = stack.start_originate(&a.uri(), &plan(1_500, &warn, &b.uri(), ""));
    let a_call = a.invited()?.answer()?;
    let b_call = b.invited()?.answer()?;
    let call = originating.await??;
    a_call.speak(&Reference::new(&a_voice).into_samples());
    b_call.speak(&Reference::new(&b_voice).into_samples());
    let task = stack.wait_task(&call.tasks["task"], TaskState::Fired).await?;
    assert!(task.result.starts_with("plays for"), "{task:?}");
    let prompt_ms = stack.media(PROMPT)?.duration_ms();
    a.ear().listen(Duration::from_millis(prompt_ms + 200))?;
    assert_heard(&a, &prompt);
    assert_heard(&b, &Reference::new(&a_voice));
    assert_not_heard(&b, &prompt);

    a.ear().clear();
    a.ear().listen(Duration::from_millis(2_500))?;
    assert_heard(&a, &Reference::new(&b_voice));
    assert_eq!(stack.call(&call.call_id).await?.state(), CallState::Connected);
    a_call.bye()?;
    b.wait_bye(PATIENCE)?;
    stack.wait_clean().await?;
    stack.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn leg_b_is_hung_up_alone_and_leg_a_goes_on_with_its_plan() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    let (a, b) = (Phone::start("alice", Codec::Pcmu)?, Phone::start("bob", Codec::Pcmu)?);
    let after = format!(r#", {{"play": {{"file": "{PROMPT}"}}}}, {{"park": {{}}}}"#);
    let hangup = r#""hangup": {"legs": "LEGS_B"}"#;
    let originating = stack.start_originate(&a.uri(), &plan(1_000, hangup, &b.uri(), &after));
    let a_call = a.invited()?.answer()?;
    let _b_call = b.invited()?.answer()?;
    let call = originating.await??;
    let bye = b.wait_bye(PATIENCE)?;
    assert!(bye.reason.contains("ALLOTTED_TIMEOUT"), "Reason: {:?}", bye.reason);
    let task = stack.wait_task(&call.tasks["task"], TaskState::Fired).await?;
    assert_eq!(task.result, "hung up leg B");
    let parked = stack.wait_call(&call.call_id, |it| it.action == "park").await?;
    assert_eq!((parked.state(), parked.legs.len()), (CallState::Answered, 1));
    assert!(!a.has_bye());
    assert_heard(&a, &Reference::new(&stack.media(PROMPT)?));
    a_call.bye()?;
    stack.wait_clean().await?;
    stack.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_talking_caller_is_transferred_into_a_conference() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    let [a, b, c] = ["alice", "bob", "carol"].map(|name| Phone::start(name, Codec::Pcmu));
    let (a, b, c) = (a?, b?, c?);
    let c_voice = tune(53, 2_000);
    let conference = r#"{"actions": [{"conference": {"name": "test1"}}]}"#;
    let originating = stack.start_originate(&c.uri(), conference);
    let c_call = c.invited()?.answer()?;
    originating.await??;
    c_call.speak(&Reference::new(&c_voice).into_samples());
    let transfer = format!(r#""transfer": {{"plan": {conference}}}"#);
    let originating = stack.start_originate(&a.uri(), &plan(1_000, &transfer, &b.uri(), ""));
    let a_call = a.invited()?.answer()?;
    let _b_call = b.invited()?.answer()?;
    let call = originating.await??;
    let bye = b.wait_bye(PATIENCE)?;
    assert!(bye.reason.contains("BLIND_TRANSFER"), "Reason: {:?}", bye.reason);
    stack.wait_call(&call.call_id, |it| it.conference == "test1").await?;
    let task = stack.wait_task(&call.tasks["task"], TaskState::Fired).await?;
    assert_eq!(task.result, "transferred");
    a.ear().clear();
    a.ear().listen(Duration::from_millis(2_500))?;
    assert_heard(&a, &Reference::new(&c_voice));
    a_call.bye()?;
    c_call.bye()?;
    stack.wait_clean().await?;
    stack.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_caller_who_is_transferred_leaves_the_queue_and_talks() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    stack.create_queue().await?;
    let (a, b) = (Phone::start("alice", Codec::Pcmu)?, Phone::start("bob", Codec::Pcmu)?);
    let b_voice = tune(54, 2_000);
    let a_call = a.dial(stack.sip(), &stack.uri(QUEUE_USER))?;
    stack.wait_waiting(1).await?;
    let call_id = stack.calls().await?[0].call_id.clone();
    let to = Some(transfer_request::To::Uri(b.uri()));
    let request = TransferRequest { call_id: call_id.clone(), to, ..TransferRequest::default() };
    let reply = stack.sip_edge().transfer(request.clone()).await?.into_inner();
    assert!(!reply.already_ended);
    let b_call = b.invited()?.answer()?;
    b_call.speak(&Reference::new(&b_voice).into_samples());
    stack.wait_call(&call_id, |it| it.state() == CallState::Connected).await?;
    stack.wait_waiting(0).await?;
    a.ear().clear();
    a.ear().listen(Duration::from_millis(2_500))?;
    assert_heard(&a, &Reference::new(&b_voice));
    a_call.bye()?;
    b.wait_bye(PATIENCE)?;
    let ended =
        stack.sip_edge().transfer(TransferRequest { task_id: "t".into(), ..request }).await?;
    assert!(ended.into_inner().already_ended);
    stack.wait_clean().await?;
    stack.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_has_something_published_while_the_call_goes_on() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    let client = async_nats::connect(format!("127.0.0.1:{}", stack.ports().nats)).await?;
    let mut heard = client.subscribe("billing.>").await?;
    client.flush().await?;
    let a = Phone::start("alice", Codec::Pcmu)?;
    // "1.50" in base64, as the JSON mapping has bytes.
    let publish = r#""publish": {"subject": "billing.warn", "payload": "MS41MA=="}"#;
    let plan = format!(
        r#"{{"actions": [{{"schedule": {{"after_ms": "500", {publish}}}}}, {{"park": {{}}}}]}}"#
    );
    let originating = stack.start_originate(&a.uri(), &plan);
    let a_call = a.invited()?.answer()?;
    let call = originating.await??;
    let message = tokio::time::timeout(PATIENCE, heard.next()).await?.expect("a message");
    assert_eq!((&*message.subject, &*message.payload), ("billing.warn", &b"1.50"[..]));
    let task = stack.wait_task(&call.tasks["publish"], TaskState::Fired).await?;
    let id = message.headers.as_ref().and_then(|it| it.get(async_nats::header::NATS_MESSAGE_ID));
    assert_eq!(id.map(|it| it.as_str().to_owned()), Some(format!("{}/0", task.task_id)));
    assert!(!a.has_bye());
    a_call.bye()?;
    stack.wait_clean().await?;
    stack.stop()
}
