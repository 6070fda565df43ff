//! Several services dead at once, and services that hang: nothing may be left over in those that
//! were told half of it.

use e2e::audio::Codec;
use e2e::phone::Phone;
use e2e::{QUEUE_USER, Service, Stack};
use proto::scheduler::v1::TaskState;

const PARK: &str = r#"{"actions": [
    {"schedule": {"after_ms": "600000", "hangup": {}, "as": "limit"}}, {"park": {}}]}"#;

/// Kills `services` while a caller waits and a task is pending, and starts them again: the caller goes
/// on waiting, nothing is left once both have hung up, and new calls work.
async fn lose(services: &[Service]) -> anyhow::Result<()> {
    let mut stack = Stack::start()?;
    stack.create_queue().await?;
    let (caller, bob) = (Phone::start("alice", Codec::Pcmu)?, Phone::start("bob", Codec::Pcmu)?);
    let waits = caller.dial(stack.sip(), &stack.uri(QUEUE_USER))?;
    stack.wait_waiting(1).await?;
    let originating = stack.start_originate(&bob.uri(), PARK);
    let parks = bob.invited()?.answer()?;
    let task_id = originating.await??.tasks["limit"].clone();
    stack.wait_kept().await?;
    for service in services {
        stack.kill(*service);
    }
    for service in services {
        stack.start_service(*service)?;
    }
    stack.wait_waiting(1).await?;
    waits.bye()?;
    // sip-edge may have died before it had written that the task is there: then it asks a scheduler
    // that is not there yet, and ends the call.
    let _ = parks.bye();
    stack.wait_clean().await?;
    stack.wait_task(&task_id, TaskState::Expired).await?;

    let call = caller.dial(stack.sip(), &stack.uri(QUEUE_USER))?;
    stack.wait_waiting(1).await?;
    call.bye()?;
    stack.wait_clean().await?;
    stack.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_loss_of_sip_edge_and_those_who_listen_to_it_a_caller_waits_on()
-> anyhow::Result<()> {
    lose(&[Service::SipEdge, Service::Scheduler, Service::QueueSvc]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_media_relay_that_hangs_costs_the_call_and_keeps_no_session() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    stack.create_queue().await?;
    let phone = Phone::start("alice", Codec::Pcmu)?;
    stack.freeze(Service::MediaRelay)?;
    let refused = phone.dial_with(stack.sip(), &stack.uri(QUEUE_USER), &phone.sdp("sendrecv"))?;
    assert_eq!(u16::from(refused.status_code), 503);
    stack.thaw(Service::MediaRelay)?;
    stack.wait_clean().await?;
    let call = phone.dial(stack.sip(), &stack.uri(QUEUE_USER))?;
    stack.wait_waiting(1).await?;
    call.bye()?;
    stack.wait_clean().await?;
    stack.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scheduler_that_hangs_keeps_no_task_of_the_call_that_it_cost() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    let (bob, carol) = (Phone::start("bob", Codec::Pcmu)?, Phone::start("carol", Codec::Pcmu)?);
    stack.freeze(Service::Scheduler)?;
    let originating = stack.start_originate(&bob.uri(), PARK);
    let _lost = bob.invited()?.answer()?;
    let error = format!("{:#}", originating.await?.unwrap_err());
    assert!(error.to_lowercase().contains("scheduler"), "{error}");
    stack.thaw(Service::Scheduler)?;
    bob.wait_bye(e2e::phone::PATIENCE)?;

    let originating = stack.start_originate(&carol.uri(), PARK);
    let call = carol.invited()?.answer()?;
    let task_id = originating.await??.tasks["limit"].clone();
    call.bye()?;
    stack.wait_task(&task_id, TaskState::Expired).await?;
    stack.wait_clean().await?;
    stack.stop()
}
