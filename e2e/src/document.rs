//! Documents whose scripts are run: `docs/by-hand.md` and others like it.
//!
//! `sh` blocks are run in order, with other addresses in place of those that are written. Each `json`
//! block after them must be part of one of the messages that they print, and each line of a `text`
//! block must be in their output. What phones do stands between them as `<!-- phone: … -->`.

use crate::{Ports, SERVICES, binary};
use anyhow::{Context as _, ensure};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// What a document has one do, in its order.
#[derive(Debug)]
pub enum Step {
    Shell(Script),
    Phone(String),
    /// A block of another language, by its name.
    Block(String, String),
}

/// Commands for a shell, and what they should print.
#[derive(Debug)]
pub struct Script {
    text: String,
    expected: Vec<Expected>,
}

#[derive(Debug)]
enum Expected {
    Json(Value),
    Text(String),
}

/// Reads a document by its path in the repository. Blocks without a language are for the eye only.
///
/// # Errors
/// If it cannot be read, or what is expected stands before any script, or is no JSON.
pub fn read(path: &str) -> anyhow::Result<Vec<Step>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    let document = std::fs::read_to_string(path).context("read the document")?;
    let mut steps = Vec::new();
    let mut lines = document.lines();
    while let Some(line) = lines.next() {
        let line = line.trim_start(); // Of a list's item.
        if let Some(action) = line.strip_prefix("<!-- phone: ") {
            steps.push(Step::Phone(action.trim_end_matches(" -->").to_owned()));
        }
        let Some(language) = line.strip_prefix("```") else { continue };
        let block: Vec<&str> =
            lines.by_ref().take_while(|line| !line.trim_start().starts_with("```")).collect();
        let block = block.join("\n");
        match (language, steps.last_mut()) {
            ("sh", _) => steps.push(Step::Shell(Script { text: block, expected: Vec::new() })),
            ("json", Some(Step::Shell(script))) => {
                let value = serde_json::from_str(&block).context("read what is expected")?;
                script.expected.push(Expected::Json(value));
            }
            ("text", Some(Step::Shell(script))) => script.expected.push(Expected::Text(block)),
            ("json" | "text", last) => anyhow::bail!("a block of {language} after {last:?}"),
            ("", _) => (),
            (language, _) => steps.push(Step::Block(language.to_owned(), block)),
        }
    }
    Ok(steps)
}

impl Script {
    /// Whether it runs a program of that name.
    pub fn mentions(&self, program: &str) -> bool {
        self.text.contains(program)
    }

    /// Runs it to its end with these `variables`, after `replaced` has put other addresses in; the
    /// messages that it prints.
    ///
    /// # Errors
    /// If it prints something else than the document says, or fails where that says nothing of it.
    pub fn run(
        &self,
        replaced: impl Fn(&str) -> String,
        variables: &[(&str, &str)],
    ) -> anyhow::Result<Vec<Value>> {
        let output = self.start(&replaced, variables)?.wait_with_output()?;
        self.check(&output, replaced)
    }

    /// As [`Script::run`]; `meanwhile`, which takes a moment, is called again and again until then.
    ///
    /// # Errors
    /// As [`Script::run`], and those of `meanwhile`.
    pub fn run_while(
        &self,
        replaced: impl Fn(&str) -> String,
        variables: &[(&str, &str)],
        mut meanwhile: impl FnMut() -> anyhow::Result<()>,
    ) -> anyhow::Result<Vec<Value>> {
        let mut bash = self.start(&replaced, variables)?;
        while bash.try_wait()?.is_none() {
            meanwhile()?;
        }
        self.check(&bash.wait_with_output()?, replaced)
    }

    fn start(
        &self,
        replaced: impl Fn(&str) -> String,
        variables: &[(&str, &str)],
    ) -> anyhow::Result<Child> {
        let mut bash = Command::new("bash");
        bash.args(["-c", &replaced(&self.text)])
            .env("PATH", path_with_tools()?)
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        bash.spawn().context("run bash")
    }

    fn check(
        &self,
        output: &Output,
        replaced: impl Fn(&str) -> String,
    ) -> anyhow::Result<Vec<Value>> {
        let Self { text, expected } = self;
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        let complained = String::from_utf8_lossy(&output.stderr);
        let everything = format!("{text}\nprinted:\n{printed}{complained}");
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
                        let found = everything.contains(replaced(line).trim());
                        ensure!(found, "wanted {line:?}\n{everything}");
                    }
                }
            }
        }
        Ok(messages)
    }
}

/// The text with the ports of a stack in place of the default ones.
pub fn with_ports(text: &str, ports: Ports) -> String {
    let mut text = text.to_owned();
    for service in SERVICES {
        let default = format!("127.0.0.1:{}", Ports::DEFAULT.grpc(service));
        text = text.replace(&default, &format!("127.0.0.1:{}", ports.grpc(service)));
    }
    text
}

/// grpcurl is in `target/tools`, beside the profile's folder, or wherever it is installed.
///
/// # Errors
/// If nothing is built.
pub fn path_with_tools() -> anyhow::Result<std::ffi::OsString> {
    let built = binary("sip-edge")?;
    let tools: PathBuf = built.ancestors().nth(2).context("find target/tools")?.join("tools");
    let path = std::env::var_os("PATH").unwrap_or_default();
    Ok(std::env::join_paths(std::iter::once(tools).chain(std::env::split_paths(&path)))?)
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
