//! A user with two phones: the one that registered last is called, the other when that one is dead.

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
async fn a_binding_that_is_broken_or_dead_is_passed_by_and_one_that_refuses_is_not()
-> anyhow::Result<()> {
    let stack = Stack::start()?;
    let [older, newer] = [registered(&stack)?, registered(&stack)?];

    let originating = stack.start_originate(TARGET, PLAN);
    newer.invited()?.refuse("503 Service Unavailable");
    let call = older.invited()?.answer()?;
    originating.await??;
    call.bye()?;

    let originating = stack.start_originate(TARGET, PLAN);
    newer.invited()?.refuse("486 Busy Here");
    let error = format!("{:#}", originating.await?.unwrap_err());
    assert!(error.contains("USER_BUSY"), "{error}");

    let originating = stack.start_originate(TARGET, PLAN);
    newer.invited()?.refuse("500 Server Internal Error");
    older.invited()?.refuse("503 Service Unavailable");
    let error = format!("{:#}", originating.await?.unwrap_err());
    assert!(error.contains("503"), "{error}");

    let _mute = mute(newer)?;
    let originating = stack.start_originate(TARGET, PLAN);
    let call = older.invited()?.answer()?;
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
