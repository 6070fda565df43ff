//! A child process whose output can be waited for, and which dies with its owner.

use crate::reaper;
use anyhow::{Context as _, bail};
use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Read};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// Lines that are kept of a child's output; older ones go first.
const LINES_MAX: usize = 20_000;

type Echo = Box<dyn Fn(&str) + Send + Sync>;

/// A running child; killed when dropped.
pub struct Process {
    name: String,
    child: Child,
    /// Set once it has ended and was waited for.
    reaped: Option<ExitStatus>,
    output: Arc<Output>,
}

#[derive(Default)]
struct Output {
    lines: Mutex<Lines>,
    grown: Condvar,
    /// Also sees each line as it comes.
    echo: Option<Echo>,
}

#[derive(Default)]
struct Lines {
    kept: VecDeque<String>,
    /// How many lines were dropped from the front.
    dropped: usize,
    open_pipes: usize,
}

/// The executable of a workspace member, beside the one that runs: `target/<profile>/<name>`.
pub fn binary(name: &str) -> anyhow::Result<PathBuf> {
    let mut dir = std::env::current_exe().context("find this executable")?;
    dir.pop();
    if dir.ends_with("deps") {
        dir.pop();
    }
    let path = dir.join(name);
    if !path.exists() {
        bail!(
            "{} is not built: run `cargo build --workspace` (same profile) first",
            path.display()
        );
    }
    Ok(path)
}

impl Process {
    /// Starts `command` with its standard output and error read line by line, in a process group of
    /// its own: Ctrl-C on the terminal reaches only its owner, who stops it in good order.
    pub fn spawn(name: &str, command: &mut Command) -> anyhow::Result<Self> {
        Self::start(name, command, Output::default())
    }

    /// As [`Process::spawn`]; `echo` also sees each line as it comes.
    pub fn spawn_echoed(
        name: &str,
        command: &mut Command,
        echo: impl Fn(&str) + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        Self::start(name, command, Output { echo: Some(Box::new(echo)), ..Output::default() })
    }

    fn start(name: &str, command: &mut Command, output: Output) -> anyhow::Result<Self> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .with_context(|| format!("start {name} ({command:?})"))?;
        reaper::watch(&child);
        let output = Arc::new(output);
        output.lines.lock().unwrap().open_pipes = 2;
        read(child.stdout.take().expect("stdout is piped"), &output);
        read(child.stderr.take().expect("stderr is piped"), &output);
        Ok(Self { name: name.to_owned(), child, reaped: None, output })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The first value that `pick` makes of a line, among those printed already and those to come.
    ///
    /// # Errors
    /// If `limit` passes or the child closes its output first; has the last lines.
    pub fn wait_for<T>(
        &self,
        what: &str,
        limit: Duration,
        mut pick: impl FnMut(&str) -> Option<T>,
    ) -> anyhow::Result<T> {
        let deadline = Instant::now() + limit;
        let mut lines = self.output.lines.lock().unwrap();
        let mut seen = 0;
        loop {
            let first = lines.dropped;
            let fresh = lines.kept.iter().skip(usize::saturating_sub(seen, first));
            if let Some(value) = fresh.map(String::as_str).find_map(&mut pick) {
                return Ok(value);
            }
            seen = first + lines.kept.len();
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || lines.open_pipes == 0 {
                let why = if left.is_zero() { "in time" } else { "before it ended" };
                let tail: Vec<_> = lines.kept.iter().rev().take(20).rev().cloned().collect();
                bail!("{} did not say {what} {why}; it said:\n{}", self.name, tail.join("\n"));
            }
            lines = self.output.grown.wait_timeout(lines, left).unwrap().0;
        }
    }

    /// Everything that the child has printed so far (the last 20,000 lines of it).
    pub fn output(&self) -> String {
        let lines = self.output.lines.lock().unwrap();
        lines.kept.iter().map(String::as_str).collect::<Vec<_>>().join("\n")
    }

    /// Sends a signal by name, e.g. "TERM", "KILL", "USR1".
    pub fn signal(&self, signal: &str) -> anyhow::Result<()> {
        // In a group of its own, so that an impatient second Ctrl-C does not hit it.
        let mut kill = Command::new("kill");
        let status = kill.args(["-s", signal, &self.pid().to_string()]).process_group(0).status();
        let status = status.context("run kill")?;
        if !status.success() {
            bail!("send SIG{signal} to {} (pid {}): {status}", self.name, self.pid());
        }
        Ok(())
    }

    /// Waits until the child has ended by itself and has closed its output.
    ///
    /// # Errors
    /// If it has not within `limit`.
    pub fn wait(&mut self, limit: Duration) -> anyhow::Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        let mut lines = self.output.lines.lock().unwrap();
        while lines.open_pipes > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("{} did not end within {limit:?}", self.name);
            }
            lines = self.output.grown.wait_timeout(lines, left).unwrap().0;
        }
        drop(lines);
        self.reap()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.reaped.is_none() && self.output.lines.lock().unwrap().open_pipes > 0 {
            return None;
        }
        self.reap().ok()
    }

    /// SIGTERM, then waits until it has ended by itself; SIGKILL after `limit`.
    ///
    /// # Errors
    /// If it had to be killed.
    pub fn stop(&mut self, limit: Duration) -> anyhow::Result<ExitStatus> {
        if let Some(status) = self.ended() {
            return Ok(status);
        }
        self.signal("TERM")?;
        self.wait(limit).inspect_err(|_| self.kill())
    }

    /// SIGKILL, then waits until it is gone.
    pub fn kill(&mut self) {
        if self.reaped.is_none() {
            let _ = self.child.kill(); // It may have ended already.
            let _ = self.reap();
        }
    }

    fn reap(&mut self) -> anyhow::Result<ExitStatus> {
        if let Some(status) = self.reaped {
            return Ok(status);
        }
        reaper::forget(self.child.id());
        let status = self.child.wait().with_context(|| format!("wait for {}", self.name))?;
        self.reaped = Some(status);
        Ok(status)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn read(pipe: impl Read + Send + 'static, output: &Arc<Output>) {
    let output = output.clone();
    std::thread::spawn(move || {
        let mut pipe = BufReader::new(pipe);
        let mut line = Vec::new();
        while pipe.read_until(b'\n', &mut line).is_ok_and(|len| len > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            line.clear();
            if let Some(echo) = &output.echo {
                echo(&text);
            }
            let mut lines = output.lines.lock().unwrap();
            if lines.kept.len() == LINES_MAX {
                lines.kept.pop_front();
                lines.dropped += 1;
            }
            lines.kept.push_back(text);
            output.grown.notify_all();
        }
        output.lines.lock().unwrap().open_pipes -= 1;
        output.grown.notify_all();
    });
}
