//! Kamailio around sip-edge: as a proxy with Record-Route in front of it, and as a carrier that
//! asks for digest. Both jobs go through it.

use e2e::audio::tune;
use e2e::phone::Phone;
use e2e::{Account, Baresip, CUSTOMER, Carrier, QUEUE_USER, Service, Stack, audio::Codec};
use proto::queue::v1::RetrieveOutcome;
use proto::scheduler::v1::TaskState;
use std::time::Duration;

const NUMBER: &str = "+493012345";

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_behind_a_proxy_waits_and_is_taken() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    stack.create_queue().await?;
    stack.wait_line(Service::MediaRelay, "audio ready")?;
    let carrier = Carrier::start(stack.sip(), "127.0.0.1:9".parse()?)?;
    let voice = tune(61, 2_000);
    let mut caller = Baresip::start_by(&account("alice", &stack, &voice), "udp", carrier.addr())?;
    caller.dial(&stack.uri(QUEUE_USER))?;
    stack.wait_waiting(1).await?;
    let agent = Phone::start("agent", Codec::Pcmu)?;
    let retrieving = stack.start_retrieve(&agent.uri(), 10_000);
    let answered = agent.invited()?.answer()?;
    assert_eq!(retrieving.await??.outcome(), RetrieveOutcome::Connected, "{}", carrier.output());
    agent.ear().wait_for_packets(50, Duration::from_secs(20))?;
    answered.bye()?; // The BYE to the caller follows the route through the proxy.
    caller.wait_closed(Duration::from_secs(20))?;
    stack.wait_clean().await?;

    caller.dial(&stack.uri(QUEUE_USER))?;
    stack.wait_waiting(1).await?;
    caller.hang_up()?;
    stack.wait_clean().await?;
    stack.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trunk_is_registered_with_and_carries_both_jobs() -> anyhow::Result<()> {
    let mut stack = Stack::start()?;
    stack.create_queue().await?;
    stack.wait_line(Service::MediaRelay, "audio ready")?;
    let voice = tune(62, 2_000);
    let mut callee = Baresip::start(&account(NUMBER, &stack, &voice))?;
    let callee_addr = callee.uri().rsplit('@').next().unwrap_or_default().parse()?;
    let carrier = Carrier::start(stack.sip(), callee_addr)?;
    let (customer, password) = CUSTOMER;
    std::fs::write(stack.folder().join("carrier-secret"), password)?;
    stack.change_dial_plan(&format!(
        "trunks:
  - name: carrier
    uri: sip:{}
    user: \"{customer}\"
    secret_file: carrier-secret
    register: true
    expires_s: 60
    prefixes: [\"+49\"]
    sources: [127.0.0.1]
routes:
  - name: from-carrier
    trunk: carrier
    uri: \"^sip:{customer}@\"
    plan: {{actions: [{{enqueue: {{queue: abc}}}}]}}
",
        carrier.addr()
    ))?;
    stack.wait_line(Service::SipEdge, "\"registered\"")?;

    // Job B: a call by the trunk, challenged, is answered and hung up on time.
    let plan = r#"{"actions": [
        {"schedule": {"after_ms": "1500", "hangup": {"cause": "ALLOTTED_TIMEOUT"}, "as": "limit"}},
        {"conference": {"name": "test1"}}]}"#;
    let call = stack.originate(&format!("tel:{NUMBER}"), plan).await?;
    callee.wait_answered()?;
    stack.wait_task(&call.tasks["limit"], TaskState::Fired).await?;
    callee.wait_closed(Duration::from_secs(20))?;
    let ended = stack.wait_ended(&call.call_id).await?;
    assert_eq!(ended.cause, "ALLOTTED_TIMEOUT");

    // Job A: somebody calls our number at the carrier, and waits in the queue.
    let mut caller = Baresip::start_by(&account("bob", &stack, &voice), "udp", carrier.addr())?;
    caller.dial(&format!("sip:{customer}@{}", carrier.addr()))?;
    stack.wait_waiting(1).await?;
    let retrieved = stack.retrieve(&format!("sip:{NUMBER}@{}", carrier.addr()), 10_000).await?;
    assert_eq!(retrieved.outcome(), RetrieveOutcome::Connected, "{}", carrier.output());
    callee.wait_answered()?;
    caller.hang_up()?;
    callee.wait_closed(Duration::from_secs(20))?;
    let output = stack.output(Service::SipEdge);
    assert!(!output.contains(password), "the password is in the log");
    stack.wait_clean().await?;
    stack.stop()
}

fn account<'a>(user: &'a str, stack: &Stack, voice: &'a e2e::audio::Wav) -> Account<'a> {
    Account { user, registrar: stack.sip(), password: None, codec: "pcmu", voice }
}
