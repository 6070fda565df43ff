//! Job B: a hangup is scheduled when the phone answers; digit 1 takes it back.

use crate::transcript::Transcript;
use anyhow::Context as _;
use e2e::audio::{Wav, tune};
use e2e::{Account, Baresip, PROMPT, Scenario, Sipp, Stack, USERS};
use proto::scheduler::v1::{Task, TaskState};
use proto::sip_edge::v1::Call;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// When the call is hung up if nobody presses 1.
const LIMIT_MS: u64 = 4_000;
/// How late the hangup may be on an idle machine.
const LATE_MAX_MS: i64 = 50;

pub(crate) async fn play(t: &mut Transcript, stack: &Stack, folder: &Path) -> anyhow::Result<()> {
    t.heading(
        "Job B: a timed hangup; baresip registers with digest and presses the key, SIPp does not",
    );
    let voices = [tune(21, 4_000), tune(22, 4_000)];
    let [mut phone, mut other] = register(t, stack, &voices)?;
    let joined =
        stack.originate("user/1001", r#"{"actions": [{"conference": {"name": "test1"}}]}"#);
    let member = joined.await?;
    other.wait_answered()?;

    let call = stack.originate("user/1000", &plan()).await?;
    phone.wait_answered()?;
    let task_id = call.tasks.get("limit").cloned().unwrap_or_default();
    t.check("Originate replies with the task's id", "a UUID", &task_id, task_id.len() == 36);
    let task = stack.task(&task_id).await?;
    t.same("the task", "PENDING".to_owned(), state_of(&task));
    tokio::time::sleep(Duration::from_millis(2_000)).await; // The prompt plays.
    phone.press('1')?;
    let task = stack.wait_task(&task_id, TaskState::Cancelled).await;
    t.attempt("digit 1 in time: the task", "CANCELLED", task.map(|it| state_of(&it)));
    let in_conference = stack.wait_call(&call.call_id, |it| it.conference == "test1").await;
    t.attempt("the leg joins", "test1", in_conference.map(|it| it.conference));
    wait_until(stack.task(&task_id).await?.fires_at_unix_ms + 1_500).await;
    let alive = stack.call(&call.call_id).await?;
    t.same("the call after the deadline", "ANSWERED".to_owned(), call_state(&alive));
    t.attempt("the phone hangs up", "call closed", phone.hang_up().map(|()| "closed"));
    t.attempt("the other participant hangs up", "call closed", other.hang_up().map(|()| "closed"));
    let ended = stack.wait_ended(&member.call_id).await;
    t.attempt("that call", "NORMAL_CLEARING", ended.map(|it| it.cause));
    phone.stop()?;
    other.stop()?;
    t.hear("the prompt", &phone.heard(0)?, &stack.media(PROMPT)?, 1_200, folder, "job-b-prompt")?;
    t.hear(
        "it hears the other participant",
        &phone.heard(0)?,
        &voices[1],
        1_500,
        folder,
        "job-b-hears",
    )?;
    t.hear(
        "the other participant hears it",
        &other.heard(0)?,
        &voices[0],
        1_500,
        folder,
        "job-b-is-heard",
    )?;

    no_digit(t, stack).await?;
    let clean = stack.wait_clean().await.map(|()| "nothing");
    t.attempt("left of calls, mohqcalls, media sessions, tasks", "nothing", clean);
    Ok(())
}

/// The bad branch: nobody presses a key.
async fn no_digit(t: &mut Transcript, stack: &Stack) -> anyhow::Result<()> {
    let silent = Sipp::start(&Scenario::agent_is_timed_out(), Some(&tune(23, 2_000)))?;
    let call = stack.originate(&silent.uri(), &plan()).await?;
    let task_id = call.tasks.get("limit").context("find the task in the reply")?;
    let ended = stack.wait_ended(&call.call_id).await?;
    t.same("no digit: the call ends with", "ALLOTTED_TIMEOUT".to_owned(), ended.cause.clone());
    t.same("ended by", "task".to_owned(), ended.ended_by.clone());
    let bye = silent.finish_without_failure().map(|()| "it has");
    t.attempt("its phone gets BYE with Reason", "text ALLOTTED_TIMEOUT", bye);
    let task = stack.wait_task(task_id, TaskState::Fired).await?;
    let late_ms = ended.ended_unix_ms - task.fires_at_unix_ms;
    let on_time = (0..=LATE_MAX_MS).contains(&late_ms);
    t.check(
        "after the deadline",
        &format!("0 to {LATE_MAX_MS} ms"),
        format!("{late_ms} ms"),
        on_time,
    );
    t.same("the task", "FIRED".to_owned(), state_of(&task));
    Ok(())
}

fn register(t: &mut Transcript, stack: &Stack, voices: &[Wav; 2]) -> anyhow::Result<[Baresip; 2]> {
    let mut phones = Vec::new();
    for ((user, password), voice) in USERS.into_iter().zip(voices) {
        let account = Account {
            user,
            registrar: stack.sip(),
            password: Some(password),
            codec: "pcmu",
            voice,
        };
        let phone = Baresip::start(&account);
        let step = format!("baresip registers as {user} with digest");
        let seen = phone.as_ref().map(|_| "200 OK").map_err(|e| anyhow::anyhow!("{e:#}"));
        t.attempt(&step, "200 OK", seen);
        phones.push(phone?);
    }
    phones.try_into().ok().context("register two phones")
}

fn plan() -> String {
    format!(
        r#"{{"actions": [
            {{"schedule": {{"after_ms": "{LIMIT_MS}", "hangup": {{"cause": "ALLOTTED_TIMEOUT"}}, "as": "limit"}}}},
            {{"collect": {{"prompt": {{"file": "{PROMPT}"}}, "timeout_ms": 60000, "on": {{"1": {{"actions": [
                {{"cancel": {{"name": "limit"}}}}, {{"conference": {{"name": "test1"}}}}]}}}}}}}}]}}"#
    )
}

async fn wait_until(unix_ms: i64) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |it| it.as_millis() as i64);
    tokio::time::sleep(Duration::from_millis((unix_ms - now).max(0) as u64)).await;
}

fn state_of(task: &Task) -> String {
    task.state().as_str_name().trim_start_matches("TASK_STATE_").to_owned()
}

fn call_state(call: &Call) -> String {
    call.state().as_str_name().trim_start_matches("CALL_STATE_").to_owned()
}
