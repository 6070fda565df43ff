//! What becomes no call: other methods, callers who give up early, and a queue-svc that is not there.

use e2e::audio::Codec;
use e2e::phone::{Phone, header};
use e2e::{QUEUE_USER, Service, Stack, USERS};
use rsip::headers::auth::Algorithm;

async fn start() -> anyhow::Result<Stack> {
    let stack = Stack::start()?;
    stack.create_queue().await?;
    Ok(stack)
}

#[tokio::test(flavor = "multi_thread")]
async fn options_and_methods_that_we_do_not_speak_are_told_which_we_do() -> anyhow::Result<()> {
    let stack = start().await?;
    let phone = Phone::start("alice", Codec::Pcmu)?;
    for (method, wanted) in [("OPTIONS", 200), ("PUBLISH", 405), ("DANCE", 501)] {
        let response = phone.ask(stack.sip(), method, &stack.uri(QUEUE_USER))?;
        assert_eq!(u16::from(response.status_code.clone()), wanted, "{method}");
        let allow = header(&response.headers, "Allow").unwrap_or_default();
        for spoken in ["INVITE", "ACK", "BYE", "CANCEL", "OPTIONS", "INFO"] {
            assert!(allow.contains(spoken), "{method}: Allow: {allow}");
        }
    }
    for (method, wanted) in [("BYE", 481), ("REFER", 403)] {
        let response = phone.ask(stack.sip(), method, &stack.uri(QUEUE_USER))?;
        assert_eq!(u16::from(response.status_code), wanted, "{method} outside of a call");
    }
    stack.wait_clean().await?;
    stack.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_who_gives_up_while_queue_svc_thinks_is_not_queued() -> anyhow::Result<()> {
    let stack = start().await?;
    let (ghost, caller) =
        (Phone::start("ghost", Codec::Pcmu)?, Phone::start("alice", Codec::Pcmu)?);
    stack.freeze(Service::QueueSvc)?;
    let attempt = ghost.start_dial(stack.sip(), &stack.uri(QUEUE_USER))?;
    assert_eq!(attempt.cancel()?, (200, 487));
    stack.thaw(Service::QueueSvc)?;
    stack.wait_clean().await?;
    let call = caller.dial(stack.sip(), &stack.uri(QUEUE_USER))?;
    stack.wait_waiting(1).await?;
    call.bye()?;
    stack.wait_clean().await?;
    stack.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_who_gives_up_while_a_user_rings_stops_the_ringing() -> anyhow::Result<()> {
    let stack = start().await?;
    let (user, password) = USERS[0];
    let (callee, caller) = (Phone::start(user, Codec::Pcmu)?, Phone::start("alice", Codec::Pcmu)?);
    callee.register(stack.sip(), password, Algorithm::Sha256)?;
    let attempt = caller.start_dial(stack.sip(), &stack.uri(user))?;
    let invited = callee.invited()?;
    let hops = header(&invited.request().headers, "Max-Forwards");
    assert_eq!(hops.as_deref(), Some("69"), "one less than the caller's, so that loops end");
    invited.ring();
    assert_eq!(attempt.cancel()?, (200, 487));
    callee.wait_cancel()?;
    stack.wait_clean().await?;
    stack.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_queue_svc_callers_are_asked_to_try_again() -> anyhow::Result<()> {
    let mut stack = start().await?;
    let phone = Phone::start("alice", Codec::Pcmu)?;
    stack.kill(Service::QueueSvc);
    let refused = phone.dial_with(stack.sip(), &stack.uri(QUEUE_USER), &phone.sdp("sendrecv"))?;
    assert_eq!(u16::from(refused.status_code), 503);
    let retry_after_s = header(&refused.headers, "Retry-After").unwrap_or_default();
    assert!(retry_after_s.parse::<u32>().is_ok(), "Retry-After: {retry_after_s}");
    assert_eq!(stack.calls().await?.len(), 0);
    stack.start_service(Service::QueueSvc)?;
    let call = phone.dial(stack.sip(), &stack.uri(QUEUE_USER))?;
    stack.wait_waiting(1).await?;
    call.bye()?;
    stack.wait_clean().await?;
    stack.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_refused_for_a_silent_queue_svc_is_not_queued_when_it_speaks() -> anyhow::Result<()>
{
    let stack = start().await?;
    let phone = Phone::start("alice", Codec::Pcmu)?;
    stack.freeze(Service::QueueSvc)?;
    let refused = phone.dial_with(stack.sip(), &stack.uri(QUEUE_USER), &phone.sdp("sendrecv"))?;
    assert_eq!(u16::from(refused.status_code), 503);
    assert!(header(&refused.headers, "Retry-After").is_some());
    stack.thaw(Service::QueueSvc)?;
    let call = phone.dial(stack.sip(), &stack.uri(QUEUE_USER))?;
    stack.wait_waiting(1).await?;
    call.bye()?;
    stack.wait_clean().await?;
    stack.stop()
}
