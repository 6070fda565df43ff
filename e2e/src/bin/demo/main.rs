//! The demo: both jobs, each with its bad branch, with phones that are not our own code.
//!
//! `cargo xtask demo` builds and starts it; its argument is the folder for what the callers heard.
//! It ends with 0 only if every step held.

mod job_a;
mod job_b;
mod transcript;

use anyhow::Context as _;
use e2e::{Ports, Setup, Stack};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use transcript::Transcript;

#[tokio::main]
async fn main() -> ExitCode {
    let mut transcript = Transcript::default();
    let done = run(&mut transcript).await;
    if let Err(e) = &done {
        transcript.check("the demo goes on", "to its end", format!("failed to {e:#}"), false);
    }
    println!("\n{}", transcript.summary());
    if transcript.held() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn run(transcript: &mut Transcript) -> anyhow::Result<()> {
    let folder = std::env::args_os().nth(1).map(PathBuf::from);
    let folder = folder.context("know where to put recordings: wanted a folder")?;
    let _ = std::fs::remove_dir_all(&folder); // What an earlier demo left.
    std::fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    let folder = folder.canonicalize()?;
    transcript.heading("Start: nats-server and the four services, on free ports");
    let started = std::time::Instant::now();
    let stack = Stack::start_in(&folder.join("stack"), Setup::on(Ports::free()?))?;
    let seen = format!("after {} ms, SIP on {}", started.elapsed().as_millis(), stack.sip());
    transcript.check("everything serves", "health SERVING", seen, true);
    let played = play(transcript, &stack, &folder).await;
    if played.is_err() || !transcript.held() {
        keep_logs(&stack, &folder);
    }
    let stopped = stack.stop();
    transcript.heading("End");
    transcript.attempt(
        "SIGTERM ends all processes",
        "each by itself",
        stopped.map(|()| "they did"),
    );
    played
}

async fn play(transcript: &mut Transcript, stack: &Stack, folder: &Path) -> anyhow::Result<()> {
    let a = job_a::play(transcript, stack, folder).await.context("play job A");
    if let Err(e) = &a {
        transcript.check("job A goes on", "to its end", format!("failed to {e:#}"), false);
    }
    job_b::play(transcript, stack, folder).await.context("play job B")
}

fn keep_logs(stack: &Stack, folder: &Path) {
    for service in e2e::SERVICES {
        let path = folder.join(format!("{}.log", service.name()));
        if std::fs::write(&path, stack.output(service)).is_ok() {
            println!("  log kept: {}", path.display());
        }
    }
}
