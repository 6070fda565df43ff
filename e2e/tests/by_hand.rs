//! Every grpcurl line of `docs/by-hand.md`, `docs/from-freeswitch.md` and `deploy/RUNBOOK.md` does what
//! the document says.
//!
//! `sh` blocks are run in order, with the ports of a stack in place of the default ones. Each `json`
//! block after them must be part of one of the messages that they print, and each line of a `text`
//! block must be in their output. What phones do stands between them as `<!-- phone: … -->`; the
//! registered ones answer by themselves.

use anyhow::{Context as _, ensure};
use e2e::audio::Codec;
use e2e::phone::{Dialog, PATIENCE, Phone};
use e2e::{Ports, QUEUE_USER, SERVICES, Stack, USERS};
use rsip::headers::auth::Algorithm;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
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
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    let steps = parse(&std::fs::read_to_string(&path)?);
    let scripts = steps.iter().filter(|it| matches!(it, Step::Shell { .. })).count();
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
            Step::Shell { script, expected } => session.run(script, expected)?,
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

#[derive(Debug)]
enum Step {
    Shell { script: String, expected: Vec<Expected> },
    Phone(String),
}

#[derive(Debug)]
enum Expected {
    Json(Value),
    Text(String),
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
    fn run(&mut self, script: &str, expected: &[Expected]) -> anyhow::Result<()> {
        let output = self.output(script)?;
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        let complained = String::from_utf8_lossy(&output.stderr);
        let everything = format!("{script}\nprinted:\n{printed}{complained}");
        let may_fail = expected.iter().any(|it| matches!(it, Expected::Text(_)));
        ensure!(may_fail || output.status.success(), "{everything}");
        let messages: Vec<Value> = serde_json::Deserializer::from_str(&printed)
            .into_iter()
            .map_while(Result::ok)
            .collect();
        for expected in expected {
            match expected {
                Expected::Json(wanted) => ensure!(
                    messages.iter().any(|message| is_part(wanted, message)),
                    "wanted {wanted:#}\n{everything}"
                ),
                Expected::Text(wanted) => {
                    for line in wanted.lines() {
                        let found = everything.contains(line.trim());
                        ensure!(found, "wanted {line:?}\n{everything}");
                    }
                }
            }
        }
        messages.iter().for_each(|message| self.note_ids(message));
        Ok(())
    }

    /// Runs a script to its end, while the registered phones answer.
    fn output(&mut self, script: &str) -> anyhow::Result<Output> {
        let mut bash = Command::new("bash");
        bash.args(["-c", &with_ports(script, self.stack.ports())])
            .env("PATH", path_with_tools()?)
            .env("CALL_ID", &self.ids.call)
            .env("TASK_ID", &self.ids.task)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut bash = bash.spawn().context("run bash")?;
        while bash.try_wait()?.is_none() {
            for (phone, call) in self.phones.iter().zip(&mut self.calls) {
                if let Ok(invitation) = phone.invited_within(POLL) {
                    *call = Some(invitation.answer()?);
                }
            }
        }
        Ok(bash.wait_with_output()?)
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

/// Everything in `wanted` is in `found`; "…" is any text, arrays match from their beginning.
fn is_part(wanted: &Value, found: &Value) -> bool {
    match (wanted, found) {
        (Value::Object(wanted), Value::Object(found)) => wanted
            .iter()
            .all(|(name, value)| found.get(name).is_some_and(|found| is_part(value, found))),
        (Value::Array(wanted), Value::Array(found)) => {
            found.len() >= wanted.len() && wanted.iter().zip(found).all(|(a, b)| is_part(a, b))
        }
        (Value::String(any), Value::String(_)) if any == "…" => true,
        (wanted, found) => wanted == found,
    }
}

fn with_ports(script: &str, ports: Ports) -> String {
    let mut script = script.to_owned();
    for service in SERVICES {
        let default = format!("127.0.0.1:{}", Ports::DEFAULT.grpc(service));
        script = script.replace(&default, &format!("127.0.0.1:{}", ports.grpc(service)));
    }
    script
}

/// grpcurl is in `target/tools`, beside the profile's folder, or wherever it is installed.
fn path_with_tools() -> anyhow::Result<std::ffi::OsString> {
    let built = e2e::binary("sip-edge")?;
    let tools: PathBuf = built.ancestors().nth(2).context("find target/tools")?.join("tools");
    let path = std::env::var_os("PATH").unwrap_or_default();
    Ok(std::env::join_paths(std::iter::once(tools).chain(std::env::split_paths(&path)))?)
}

fn parse(document: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut lines = document.lines();
    while let Some(line) = lines.next() {
        if let Some(action) = line.strip_prefix("<!-- phone: ") {
            steps.push(Step::Phone(action.trim_end_matches(" -->").to_owned()));
        }
        let Some(language) = line.strip_prefix("```") else { continue };
        let block: Vec<&str> = lines.by_ref().take_while(|line| !line.starts_with("```")).collect();
        let block = block.join("\n");
        match (language, steps.last_mut()) {
            ("sh", _) => steps.push(Step::Shell { script: block, expected: Vec::new() }),
            ("json", Some(Step::Shell { expected, .. })) => {
                expected.push(Expected::Json(serde_json::from_str(&block).expect("JSON")));
            }
            ("text", Some(Step::Shell { expected, .. })) => expected.push(Expected::Text(block)),
            (other, _) => panic!("a block of {other:?} after {:?}", steps.last()),
        }
    }
    steps
}
