//! The log tells what happened to a call: each line about it, of each service, has its `call_id`.

use anyhow::Context as _;
use e2e::audio::Codec;
use e2e::phone::{Dialog, PATIENCE, Phone};
use e2e::{Echo, PROMPT, Ports, QUEUE_USER, SERVICES, Service, Setup, Stack, USERS};
use proto::media_relay::v1::QueryRequest;
use proto::queue::v1::RetrieveOutcome;
use proto::scheduler::v1::schedule_request::{Action, When};
use proto::scheduler::v1::{CancelRequest, HangupCall, ScheduleRequest};
use proto::sip_edge::v1::HangupRequest;
use rsip::headers::auth::Algorithm;
use serde_json::Value;
use std::sync::Arc;

/// Everything that our own code says.
const LEVELS: &str =
    "info,audit=debug,boot=debug,sip_edge=debug,media_relay=debug,scheduler=debug,queue_svc=debug";
/// What names something that belongs to a call.
const FIELDS: [&str; 5] =
    ["session_id", "task_id", "assignment_id", "sip_call_id", "other_call_id"];

#[tokio::test(flavor = "multi_thread")]
async fn each_json_line_about_a_call_has_its_call_id() -> anyhow::Result<()> {
    check_all(None, |line| {
        let fields: Value = serde_json::from_str(line).with_context(|| format!("read {line}"))?;
        let names = fields.as_object().context("find the fields")?.keys();
        let belongs = names.into_iter().any(|name| FIELDS.contains(&name.as_str()));
        Ok(Line { call_id: fields["call_id"].as_str().map(str::to_owned), belongs })
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn each_line_for_people_about_a_call_has_its_call_id() -> anyhow::Result<()> {
    check_all(Some(Arc::new(|_, _| ())), |line| {
        let value = |name: &str| {
            let (_, rest) = line.split_once(&format!(" {name}="))?;
            let value = rest.split(' ').next().unwrap_or_default();
            Some(value.trim_matches('"').to_owned())
        };
        let belongs = FIELDS.iter().any(|name| value(name).is_some());
        Ok(Line { call_id: value("call_id"), belongs })
    })
    .await
}

/// What a line of a log says it is about.
struct Line {
    call_id: Option<String>,
    /// It names something of a call.
    belongs: bool,
}

/// What belongs to one call: its id, and all other ids by which a line may name it.
struct Known {
    call_id: String,
    ids: Vec<String>,
    is_queued: bool,
}

/// Has both jobs done, and reads what the services have said.
async fn check_all(
    echo: Option<Echo>,
    read: impl Fn(&str) -> anyhow::Result<Line>,
) -> anyhow::Result<()> {
    let common_flags = vec!["--log".to_owned(), LEVELS.to_owned()];
    let sip_edge_flags = vec!["--digest".to_owned(), "sha-256,md5".to_owned()];
    let setup = Setup { echo, common_flags, sip_edge_flags, ..Setup::on(Ports::free()?) };
    let stack = Stack::start_as(setup)?;
    stack.create_queue().await?;
    let phones = [registered(&stack, 0)?, registered(&stack, 1)?];
    let calls = [queued(&stack, &phones[1]).await?, limited(&stack, &phones[0]).await?];
    stack.wait_clean().await?;
    stack.wait_line(Service::MediaRelay, "deleted")?;
    for service in SERVICES {
        let output = stack.output(service);
        for call in &calls {
            let lines = output.lines().filter(|it| call.ids.iter().any(|id| it.contains(id)));
            let mut count = 0;
            for line in lines {
                let got = read(line)?.call_id;
                assert_eq!(got.as_ref(), Some(&call.call_id), "{service:?}: {line}");
                count += 1;
            }
            let has_part = service != Service::QueueSvc || call.is_queued;
            assert!(
                count > 1 || !has_part,
                "{service:?} says {count} times what it did for a call"
            );
        }
        for line in output.lines().filter(|it| !it.trim().is_empty()) {
            let it = read(line)?;
            assert!(!it.belongs || it.call_id.is_some(), "{service:?}: {line}");
        }
    }
    stack.stop()
}

/// A caller waits, gets a timer, which an operator takes back, and an agent; then hangs up.
async fn queued(stack: &Stack, agent: &Phone) -> anyhow::Result<Known> {
    let caller = Phone::start("alice", Codec::Pcmu)?;
    let calling = caller.dial(stack.sip(), &stack.uri(QUEUE_USER))?;
    stack.wait_waiting(1).await?;
    let call_id = stack.calls().await?.pop().context("find the call")?.call_id;
    let request = ScheduleRequest {
        call_id: call_id.clone(),
        action: Some(Action::Hangup(HangupCall::default())),
        when: Some(When::AfterMs(60_000)),
        ..ScheduleRequest::default()
    };
    let task_id = stack.scheduler().schedule(request).await?.into_inner().task_id;
    let cancel = CancelRequest { task_id: task_id.clone(), ..CancelRequest::default() };
    stack.scheduler().cancel(cancel).await?;
    let retrieving = stack.start_retrieve("user/1001", 20_000);
    let answered = agent.invited()?.answer()?;
    let retrieved = retrieving.await??;
    assert_eq!(retrieved.outcome(), RetrieveOutcome::Connected);
    let mut ids = vec![call_id.clone(), task_id, retrieved.assignment_id];
    ids.extend([&calling, &answered].map(|it| it.sip_call_id().to_owned()));
    ids.push(session_of(stack, &call_id).await?);
    calling.bye()?;
    agent.wait_bye(PATIENCE)?;
    stack.wait_ended(&call_id).await?;
    Ok(Known { call_id, ids, is_queued: true })
}

/// A phone is called, gets a limit, takes it back by a digit, and is hung up on in the conference.
async fn limited(stack: &Stack, phone: &Phone) -> anyhow::Result<Known> {
    let plan = format!(
        r#"{{"actions": [
            {{"schedule": {{"after_ms": 60000, "hangup": {{}}, "as": "limit"}}}},
            {{"collect": {{"prompt": {{"file": "{PROMPT}"}}, "timeout_ms": 60000, "on": {{"1": {{"actions": [
                {{"cancel": {{"name": "limit"}}}}, {{"conference": {{"name": "test1"}}}}]}}}}}}}}]}}"#
    );
    let originating = stack.start_originate("user/1000", &plan);
    let answered: Dialog<'_> = phone.invited()?.answer()?;
    let call = originating.await??;
    answered.press('1');
    stack.wait_call(&call.call_id, |it| it.conference == "test1").await?;
    let mut ids = vec![call.call_id.clone(), answered.sip_call_id().to_owned()];
    ids.extend(call.tasks.values().cloned());
    ids.push(session_of(stack, &call.call_id).await?);
    let hangup = HangupRequest { call_id: call.call_id.clone(), ..HangupRequest::default() };
    stack.sip_edge().hangup(hangup).await?;
    phone.wait_bye(PATIENCE)?;
    stack.wait_ended(&call.call_id).await?;
    Ok(Known { call_id: call.call_id, ids, is_queued: false })
}

async fn session_of(stack: &Stack, call_id: &str) -> anyhow::Result<String> {
    let all = stack.media_relay().query(QueryRequest::default()).await?.into_inner();
    let session = all.sessions.into_iter().find(|it| it.call_id == call_id);
    Ok(session.context("find the media session")?.session_id)
}

fn registered(stack: &Stack, nth: usize) -> anyhow::Result<Phone> {
    let (user, password) = USERS[nth];
    let phone = Phone::start(user, Codec::Pcmu)?;
    phone.register(stack.sip(), password, Algorithm::Sha256)?;
    Ok(phone)
}
