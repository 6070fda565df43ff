//! Every grpcurl line of `docs/by-hand.md`, `docs/from-freeswitch.md` and `deploy/RUNBOOK.md` does what
//! the document says. Phones that are registered answer by themselves.

use anyhow::Context as _;
use e2e::audio::Codec;
use e2e::document::{self, Step};
use e2e::phone::{PATIENCE, Phone};
use e2e::{QUEUE_USER, Reader, Stack, USERS};
use rsip::headers::auth::Algorithm;

#[tokio::test(flavor = "multi_thread")]
async fn every_line_of_the_manual_does_what_it_says() -> anyhow::Result<()> {
    run_document("docs/by-hand.md", 20).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_line_beside_one_of_freeswitch_does_the_same() -> anyhow::Result<()> {
    run_document("docs/from-freeswitch.md", 8).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_line_of_the_runbook_answers_its_question() -> anyhow::Result<()> {
    run_document("deploy/RUNBOOK.md", 12).await
}

/// Runs a document of at least so many scripts.
async fn run_document(path: &str, scripts_min: usize) -> anyhow::Result<()> {
    let steps = document::read(path)?;
    let scripts = steps.iter().filter(|it| matches!(it, Step::Shell(_))).count();
    assert!(scripts > scripts_min, "{steps:?}");
    let stack = Stack::start()?;
    stack.create_queue().await?;
    let caller = Phone::start("alice", Codec::Pcmu)?;
    let phones = [registered(&stack, 0)?, registered(&stack, 1)?];
    let mut reader = Reader::new(stack.ports(), &phones);
    let mut waiting = None;
    for step in &steps {
        match step {
            Step::Shell(script) => reader.run(script)?,
            Step::Block(language, _) => anyhow::bail!("a block of {language:?}"),
            Step::Phone(action) => match action.as_str() {
                "the caller calls 1008" => {
                    waiting = Some(caller.dial(stack.sip(), &stack.uri(QUEUE_USER))?);
                    stack.wait_waiting(1).await?;
                }
                "the caller is hung up" => {
                    caller.wait_bye(PATIENCE)?;
                    phones[1].wait_bye(PATIENCE)?;
                    waiting = None;
                }
                "the caller is hung up alone" => {
                    caller.wait_bye(PATIENCE)?;
                    waiting = None;
                }
                "1000 presses 1" => {
                    reader.calls[0].as_ref().context("find the call of 1000")?.press('1');
                    stack.wait_call(&reader.ids.call, |it| it.conference == "test1").await?;
                }
                "1000 is hung up" => {
                    phones[0].wait_bye(PATIENCE)?;
                    stack.wait_ended(&reader.ids.call).await?;
                }
                other => anyhow::bail!("this test does not know how to do {other:?}"),
            },
        }
    }
    drop(waiting);
    stack.stop()
}

fn registered(stack: &Stack, nth: usize) -> anyhow::Result<Phone> {
    let (user, password) = USERS[nth];
    let phone = Phone::start(user, Codec::Pcmu)?;
    phone.register(stack.sip(), password, Algorithm::Sha256)?;
    Ok(phone)
}
