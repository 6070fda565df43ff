//! Who is silent, and who is gone: a caller who hears music may say nothing for ever; one who should
//! talk and has vanished is found after `--inactivity`.

use e2e::audio::{Codec, Reference, tune};
use e2e::phone::{PATIENCE, Phone};
use e2e::{Ports, QUEUE_USER, Setup, Stack};
use proto::queue::v1::RetrieveOutcome;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// In real time: longer than any timeout of a relay that looks for RTP.
const MUTED: Duration = Duration::from_secs(180);
/// What `--inactivity` gets, and how much later everybody knows.
const INACTIVITY: Duration = Duration::from_secs(3);
/// Each stack has ports of its own.
const MUTED_FLAGS: &[&str] = &["--inactivity", "3s", "--rtp-ports", "15000-15099"];
const VANISHED_FLAGS: &[&str] = &["--inactivity", "3s", "--rtp-ports", "15100-15199"];
const FOUND_WITHIN: Duration = Duration::from_secs(3);

/// Beside other stacks: nothing here listens closely.
fn start(folder: &Path, media_relay_flags: &'static [&'static str]) -> anyhow::Result<Stack> {
    // One after the other: what is free now must be free still when it is bound.
    static STARTING: Mutex<()> = Mutex::new(());
    let _starting = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    let setup = Setup { media_relay_flags, ..Setup::on(Ports::free()?) };
    Stack::start_in(folder, setup)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_who_sends_no_rtp_for_three_minutes_is_still_in_the_queue() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let stack = start(folder.path(), MUTED_FLAGS)?;
    stack.create_queue().await?;
    let muted = Phone::start("muted", Codec::Pcmu)?; // Silent unless told to speak.
    let call = muted.dial(stack.sip(), &stack.uri(QUEUE_USER))?;
    stack.wait_waiting(1).await?;
    let line = stack.line().await?;
    muted.ear().listen(MUTED)?;
    assert!(!muted.has_bye());
    assert_eq!(stack.line().await?, line);
    assert_eq!(muted.ear().discontinuity(), None);
    let agent = Phone::start("agent", Codec::Pcmu)?;
    let retrieving = stack.start_retrieve(&agent.uri(), 10_000);
    let answered = agent.invited()?.answer()?;
    assert_eq!(retrieving.await??.outcome(), RetrieveOutcome::Connected);
    call.bye()?;
    agent.wait_bye(PATIENCE)?;
    drop(answered);
    stack.wait_clean().await?;
    stack.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_who_vanishes_in_a_talk_is_found_in_time() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let stack = start(folder.path(), VANISHED_FLAGS)?;
    stack.create_queue().await?;
    let voice = Reference::new(&tune(31, 2_000)).into_samples();
    let (caller, agent) =
        (Phone::start("alice", Codec::Pcmu)?, Phone::start("agent", Codec::Pcmu)?);
    let call = caller.dial(stack.sip(), &stack.uri(QUEUE_USER))?;
    stack.wait_waiting(1).await?;
    call.speak(&voice);
    let retrieving = stack.start_retrieve(&agent.uri(), 10_000);
    let answered = agent.invited()?.answer()?;
    answered.speak(&voice);
    assert_eq!(retrieving.await??.outcome(), RetrieveOutcome::Connected);
    agent.ear().listen(INACTIVITY)?;
    assert!(!agent.has_bye(), "both talk");
    call.hush(); // Its network is gone: no BYE either.
    let gone = Instant::now();
    let bye = agent.wait_bye(PATIENCE)?;
    let found = gone.elapsed();
    println!("found after {found:?}: {bye:?}");
    assert!(found >= INACTIVITY - Duration::from_millis(100), "{found:?}");
    assert!(found <= INACTIVITY + FOUND_WITHIN, "{found:?}");
    drop((call, answered));
    stack.wait_clean().await?;
    stack.stop()
}
