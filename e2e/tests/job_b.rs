//! Job B: a hangup is scheduled when the phone answers, and digit 1 takes it back.

use e2e::audio::{Codec, Reference, tune};
use e2e::phone::{PATIENCE, Phone};
use e2e::{PROMPT, Stack, USERS};
use proto::scheduler::v1::{CancelOutcome, CancelRequest, TaskState};
use proto::sip_edge::v1::CallState;
use rsip::headers::auth::Algorithm;
use std::time::Duration;

/// How late a scheduled hangup may be on the wire on an idle machine.
const LATE_MAX_MS: i64 = 50;
const LIKENESS_MIN: f64 = 0.98;

/// Hang up after `after_ms`, unless 1 is pressed: then join test1.
fn plan(after_ms: u32) -> String {
    format!(
        r#"{{"actions": [
            {{"schedule": {{"after_ms": "{after_ms}", "hangup": {{"cause": "ALLOTTED_TIMEOUT"}}, "as": "limit"}}}},
            {{"collect": {{"prompt": {{"file": "{PROMPT}"}}, "timeout_ms": 60000, "on": {{"1": {{"actions": [
                {{"cancel": {{"name": "limit"}}}}, {{"conference": {{"name": "test1"}}}}]}}}}}}}}]}}"#
    )
}

const CONFERENCE: &str = r#"{"actions": [{"conference": {"name": "test1"}}]}"#;

fn registered(stack: &Stack, nth: usize, algorithm: Algorithm) -> anyhow::Result<Phone> {
    let (user, password) = USERS[nth];
    let phone = Phone::start(user, Codec::Pcmu)?;
    phone.register(stack.sip(), password, algorithm)?;
    Ok(phone)
}

#[tokio::test(flavor = "multi_thread")]
async fn digit_1_takes_the_hangup_back_and_both_hear_each_other() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    let phone = registered(&stack, 0, Algorithm::Sha256)?;
    let other = registered(&stack, 1, Algorithm::Md5)?;
    let [phone_voice, other_voice] = [tune(41, 2_000), tune(42, 2_000)];
    let originating = stack.start_originate("user/1001", CONFERENCE);
    let other_call = other.invited()?.answer()?;
    originating.await??;
    other_call.speak(&Reference::new(&other_voice).into_samples());

    let originating = stack.start_originate("user/1000", &plan(4_000));
    let phone_call = phone.invited()?.answer()?;
    let call = originating.await??;
    let task_id = call.tasks.get("limit").expect("the task id is in the reply").clone();
    assert_eq!(stack.task(&task_id).await?.state(), TaskState::Pending);
    phone.ear().wait_for_packets(70, PATIENCE)?; // All of the prompt but a little.
    let prompt =
        Reference::new(&stack.media(PROMPT)?).longest_span(&phone.ear().audio(Codec::Pcmu));
    assert!(prompt.duration_ms() >= 1_200 && prompt.correlation >= LIKENESS_MIN, "{prompt:?}");

    phone_call.press('1');
    let task = stack.wait_task(&task_id, TaskState::Cancelled).await?;
    stack.wait_call(&call.call_id, |it| it.conference == "test1").await?;
    phone_call.speak(&Reference::new(&phone_voice).into_samples());
    phone.ear().listen(Duration::from_secs(3))?; // Past the deadline.
    let after_ms = task.fires_at_unix_ms - task.created_unix_ms;
    assert!((4_000..4_100).contains(&after_ms), "{task:?}");
    assert!(!phone.has_bye());
    assert_eq!(stack.call(&call.call_id).await?.state(), CallState::Answered);
    let heard = Reference::new(&other_voice).longest_span(&phone.ear().audio(Codec::Pcmu));
    assert!(heard.duration_ms() >= 1_500 && heard.correlation >= LIKENESS_MIN, "{heard:?}");
    let heard = Reference::new(&phone_voice).longest_span(&other.ear().audio(Codec::Pcmu));
    assert!(heard.duration_ms() >= 1_500 && heard.correlation >= LIKENESS_MIN, "{heard:?}");

    phone_call.bye()?;
    other_call.bye()?;
    stack.wait_clean().await?;
    stack.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_digit_by_info_counts_too() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    let phone = Phone::start("bob", Codec::Pcma)?;
    let originating = stack.start_originate(&phone.uri(), &plan(5_000));
    let mut phone_call = phone.invited()?.answer()?;
    let call = originating.await??;
    assert_eq!(phone_call.press_by_info('1')?, 200);
    stack.wait_task(&call.tasks["limit"], TaskState::Cancelled).await?;
    stack.wait_call(&call.call_id, |it| it.conference == "test1").await?;
    phone_call.bye()?;
    stack.wait_clean().await?;
    stack.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_digit_the_call_is_hung_up_on_time_and_says_why() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    let phone = registered(&stack, 0, Algorithm::Md5)?;
    let mut latenesses = Vec::new();
    for _ in 0..3 {
        let originating = stack.start_originate("user/1000", &plan(1_200));
        let _phone_call = phone.invited()?.answer()?;
        let call = originating.await??;
        let fires_at_unix_ms = stack.task(&call.tasks["limit"]).await?.fires_at_unix_ms;
        let bye = phone.wait_bye(PATIENCE)?;
        assert!(bye.reason.contains("ALLOTTED_TIMEOUT"), "Reason: {:?}", bye.reason);
        latenesses.push(bye.at_unix_ms - fires_at_unix_ms);
        let ended = stack.wait_ended(&call.call_id).await?;
        assert_eq!((ended.cause.as_str(), ended.ended_by.as_str()), ("ALLOTTED_TIMEOUT", "task"));
        stack.wait_task(&call.tasks["limit"], TaskState::Fired).await?;
    }
    // Never early; on time where the machine was idle, which a test cannot make sure of each time.
    assert!(latenesses.iter().all(|late_ms| *late_ms >= 0), "{latenesses:?}");
    assert!(latenesses.iter().any(|late_ms| *late_ms <= LATE_MAX_MS), "{latenesses:?}");
    stack.wait_clean().await?;
    stack.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_deadline_the_call_is_hung_up_or_saved_and_cancel_tells_which() -> anyhow::Result<()>
{
    const ROUNDS: i64 = 12;
    let stack = Stack::start()?;
    for round in 0..ROUNDS {
        let phone = Phone::start("bob", Codec::Pcmu)?;
        let park = r#"{"actions": [{"schedule": {"after_ms": "600", "hangup": {}, "as": "limit"}}, {"park": {}}]}"#;
        let originating = stack.start_originate(&phone.uri(), park);
        let phone_call = phone.invited()?.answer()?;
        let call = originating.await??;
        let task = stack.task(&call.tasks["limit"]).await?;
        // From 6 ms before the deadline to 5 ms after it.
        let cancel_at = task.fires_at_unix_ms + round - ROUNDS / 2;
        wait_until(cancel_at).await;
        let request = CancelRequest { task_id: task.task_id.clone(), by: "test".into() };
        let outcome = stack.scheduler().cancel(request).await?.into_inner().outcome();
        if outcome == CancelOutcome::Cancelled {
            phone_call.bye()?;
            assert!(!phone.has_bye(), "round {round}: cancelled, and hung up nevertheless");
            assert_eq!(stack.task(&task.task_id).await?.state(), TaskState::Cancelled);
        } else {
            let too_late = [CancelOutcome::AlreadyFiring, CancelOutcome::AlreadyFired];
            assert!(too_late.contains(&outcome), "round {round}: {outcome:?}");
            phone.wait_bye(PATIENCE)?;
            stack.wait_task(&task.task_id, TaskState::Fired).await?;
        }
    }
    stack.wait_clean().await?;
    stack.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_dies_with_its_call() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    let phone = Phone::start("bob", Codec::Pcmu)?;
    let originating = stack.start_originate(&phone.uri(), &plan(60_000));
    let phone_call = phone.invited()?.answer()?;
    let call = originating.await??;
    phone_call.bye()?;
    stack.wait_task(&call.tasks["limit"], TaskState::Expired).await?;
    stack.wait_clean().await?;
    stack.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_that_does_not_answer_is_reported_with_its_cause() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    let phone = Phone::start("bob", Codec::Pcmu)?;
    let originating = stack.start_originate(&phone.uri(), &plan(5_000));
    phone.invited()?.refuse("486 Busy Here");
    let error = format!("{:#}", originating.await?.unwrap_err());
    assert!(error.contains("USER_BUSY") && error.contains("486"), "{error}");
    let error = format!("{:#}", stack.originate("user/1000", &plan(5_000)).await.unwrap_err());
    assert!(
        error.contains("USER_NOT_REGISTERED") || error.contains("SUBSCRIBER_ABSENT"),
        "{error}"
    );
    stack.wait_clean().await?;
    stack.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_registers_nobody() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    let phone = Phone::start("1000", Codec::Pcmu)?;
    assert!(phone.register(stack.sip(), "wrong", Algorithm::Sha256).is_err());
    assert!(phone.register(stack.sip(), "wrong", Algorithm::Md5).is_err());
    let request = proto::sip_edge::v1::ListRegistrationsRequest {};
    let listed = stack.sip_edge().list_registrations(request).await?.into_inner();
    assert_eq!(listed.registrations.len(), 0);
    stack.stop()
}

async fn wait_until(unix_ms: i64) {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let left_ms = (unix_ms - now.as_millis() as i64).max(0) as u64;
    let due = tokio::time::Instant::now() + Duration::from_millis(left_ms);
    tokio::time::sleep_until(due).await;
}
