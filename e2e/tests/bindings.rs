//! A user with two phones: both ring, the first that answers has the call, and what is said at the
//! end is what tells most.

use anyhow::Context as _;
use e2e::audio::Codec;
use e2e::phone::{PATIENCE, Phone};
use e2e::{Stack, USERS};
use rsip::headers::auth::Algorithm;
use std::net::UdpSocket;
use std::time::Instant;

const TARGET: &str = "user/1000";
const PLAN: &str = r#"{"actions": [{"conference": {"name": "test1"}}]}"#;

#[tokio::test(flavor = "multi_thread")]
async fn all_phones_of_a_user_ring_and_the_first_that_answers_has_the_call() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    let [one, two] = [registered(&stack)?, registered(&stack)?];

    let originating = stack.start_originate(TARGET, PLAN);
    let (at_one, at_two) = (one.invited()?, two.invited()?);
    at_two.ring();
    let call = at_one.answer()?;
    two.wait_cancel()?;
    originating.await??;
    call.bye()?;

    let originating = stack.start_originate(TARGET, PLAN);
    let at_one = one.invited()?;
    two.invited()?.refuse("486 Busy Here");
    let call = at_one.answer()?;
    originating.await??;
    call.bye()?;

    let originating = stack.start_originate(TARGET, PLAN);
    let at_one = one.invited()?;
    two.invited()?.refuse("486 Busy Here");
    at_one.refuse("503 Service Unavailable");
    let error = format!("{:#}", originating.await?.unwrap_err());
    assert!(error.contains("USER_BUSY"), "{error}");

    let originating = stack.start_originate(TARGET, PLAN);
    let at_one = one.invited()?;
    at_one.ring();
    two.invited()?.refuse("603 Decline");
    one.wait_cancel()?;
    let error = format!("{:#}", originating.await?.unwrap_err());
    assert!(error.contains("CALL_REJECTED"), "{error}");

    let _mute = mute(two)?;
    let originating = stack.start_originate(TARGET, PLAN);
    let call = one.invited()?.answer()?;
    originating.await??;
    call.bye()?;
    stack.wait_clean().await?;
    stack.stop()
}

/// Takes the phone away, and its port: whatever comes there is not answered.
fn mute(phone: Phone) -> anyhow::Result<UdpSocket> {
    let uri = phone.uri();
    let (_, address) = uri.split_once('@').context("find the phone's address")?;
    drop(phone);
    let give_up_at = Instant::now() + PATIENCE;
    loop {
        match UdpSocket::bind(address) {
            Err(e) if Instant::now() < give_up_at => drop(e), // Its thread has not ended yet.
            bound => return bound.context("take the phone's port"),
        }
        std::thread::yield_now();
    }
}

fn registered(stack: &Stack) -> anyhow::Result<Phone> {
    let (user, password) = USERS[0];
    let phone = Phone::start(user, Codec::Pcmu)?;
    phone.register(stack.sip(), password, Algorithm::Sha256)?;
    Ok(phone)
}
