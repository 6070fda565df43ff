//! `cargo xtask bench scheduler`: lateness, adding, memory and herds of tasks, on SQLite and on
//! PostgreSQL, beside what the database itself does in the same run.
//!
//! Its first word is the report to write. The words after it choose parts (bulk, add, lateness, herd,
//! calls) and databases (sqlite, postgres); none of a kind: all. Every effect is observed where it
//! arrives, on NATS or at a phone, by the clock of this process.

mod add;
mod bulk;
mod bus;
mod calls;
mod fill;
mod herd;
mod lateness;
mod rig;

use anyhow::{Context as _, bail};
use e2e::bench::Report;
use rig::Backend;
use std::path::PathBuf;
use std::process::ExitCode;

const PARTS: [&str; 5] = ["bulk", "add", "lateness", "herd", "calls"];

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("failed to {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let mut words = std::env::args().skip(1);
    let path = PathBuf::from(words.next().context("know where to write the report")?);
    let (backends, parts): (Vec<String>, Vec<String>) =
        words.partition(|word| Backend::named(word).is_some());
    if let Some(unknown) = parts.iter().find(|part| !PARTS.contains(&part.as_str())) {
        bail!("run part {unknown:?}: wanted some of {PARTS:?}, and sqlite or postgres");
    }
    let chosen = |part: &str| parts.is_empty() || parts.iter().any(|it| it == part);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut report = Report::default();
    for backend in Backend::ALL {
        if !backends.is_empty() && !backends.iter().any(|it| Backend::named(it) == Some(backend)) {
            continue;
        }
        if chosen("lateness") {
            runtime.block_on(lateness::measure(backend, &mut report))?;
        }
        if chosen("herd") {
            runtime.block_on(herd::measure(backend, &mut report))?;
        }
        if chosen("add") || chosen("bulk") {
            runtime.block_on(add::measure(backend, chosen("add"), &mut report))?;
        }
        if chosen("calls") && backend == Backend::Sqlite {
            runtime.block_on(calls::measure(&mut report))?;
        }
    }
    report.finish(&path)
}
