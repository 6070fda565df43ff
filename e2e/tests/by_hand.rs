//! Every grpcurl line of `docs/by-hand.md`, `docs/from-freeswitch.md` and `deploy/RUNBOOK.md` does what
//! the document says. Phones that are registered answer by themselves.

use anyhow::Context as _;
use e2e::audio::Codec;
use e2e::document::{self, Script, Step};
use e2e::phone::{Dialog, PATIENCE, Phone};
use e2e::{QUEUE_USER, Stack, USERS};
use rsip::headers::auth::Algorithm;
use serde_json::Value;
use std::time::Duration;

/// How often phones look for calls while a script runs.
const POLL: Duration = Duration::from_millis(20);

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
    let mut session =
        Session { stack: &stack, phones: &phones, calls: [None, None], ids: Ids::default() };
    let mut waiting = None;
    for step in &steps {
        match step {
            Step::Shell(script) => session.run(script)?,
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
                    session.calls[0].as_ref().context("find the call of 1000")?.press('1');
                    stack.wait_call(&session.ids.call, |it| it.conference == "test1").await?;
                }
                "1000 is hung up" => {
                    phones[0].wait_bye(PATIENCE)?;
                    stack.wait_ended(&session.ids.call).await?;
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

/// What a reader would put into shell variables: the last ids that were printed.
#[derive(Default)]
struct Ids {
    call: String,
    task: String,
}

struct Session<'a> {
    stack: &'a Stack,
    phones: &'a [Phone; 2],
    calls: [Option<Dialog<'a>>; 2],
    ids: Ids,
}

impl Session<'_> {
    /// Runs a script to its end, while the registered phones answer.
    fn run(&mut self, script: &Script) -> anyhow::Result<()> {
        let ids = [("CALL_ID", self.ids.call.clone()), ("TASK_ID", self.ids.task.clone())];
        let variables = ids.each_ref().map(|(name, id)| (*name, id.as_str()));
        let ports = self.stack.ports();
        let replaced = |text: &str| document::with_ports(text, ports);
        let messages = script.run_while(replaced, &variables, || {
            for (phone, call) in self.phones.iter().zip(&mut self.calls) {
                if let Ok(invitation) = phone.invited_within(POLL) {
                    *call = Some(invitation.answer()?);
                }
            }
            Ok(())
        })?;
        messages.iter().for_each(|message| self.note_ids(message));
        Ok(())
    }

    fn note_ids(&mut self, message: &Value) {
        let Value::Object(fields) = message else {
            return message.as_array().into_iter().flatten().for_each(|it| self.note_ids(it));
        };
        for (name, value) in fields {
            match (name.as_str(), value) {
                ("callId", Value::String(id)) => self.ids.call = id.clone(),
                ("taskId", Value::String(id)) => self.ids.task = id.clone(),
                ("limit", Value::String(id)) if self.ids.task.is_empty() => {
                    self.ids.task = id.clone();
                }
                _ => self.note_ids(value),
            }
        }
    }
}
