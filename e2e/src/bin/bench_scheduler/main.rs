//! `cargo xtask bench scheduler`: lateness, adding, memory and herds of tasks, on SQLite and on
//! PostgreSQL, beside what the database itself does in the same run.
//!
//! Its first word is the report to write. The words after it choose parts (disk, bulk, add, lateness,
//! herd, calls) and databases (sqlite, postgres); none of a kind: all. Bulk alone is add without its
//! load. Every effect is observed where it arrives, on NATS or at a phone, by the clock of this process.

mod add;
mod bulk;
mod bus;
mod calls;
mod disk;
mod fill;
mod herd;
mod lateness;
mod rig;

use anyhow::{Context as _, bail};
use e2e::bench::Report;
use rig::Backend;
use std::path::PathBuf;
use std::process::ExitCode;

const PARTS: [&str; 6] = ["disk", "bulk", "add", "lateness", "herd", "calls"];

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
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut report = Report::default();
    let measured = runtime.block_on(async {
        for backend in Backend::ALL {
            let named = |word: &String| Backend::named(word) == Some(backend);
            if backends.is_empty() || backends.iter().any(named) {
                measure(backend, &parts, &mut report).await?;
            }
        }
        Ok(())
    });
    report.finish(&path)?; // What was measured before a failure is still true.
    measured
}

async fn measure(backend: Backend, parts: &[String], report: &mut Report) -> anyhow::Result<()> {
    let chosen = |part: &str| parts.is_empty() || parts.iter().any(|it| it == part);
    if chosen("disk") && backend == Backend::Sqlite {
        disk::measure(report).context("measure the disk")?;
    }
    if chosen("lateness") {
        lateness::measure(backend, report).await.context("measure lateness")?;
    }
    if chosen("herd") {
        herd::measure(backend, report).await.context("measure a herd")?;
    }
    if chosen("add") || chosen("bulk") {
        add::measure(backend, chosen("add"), report).await.context("measure adding")?;
    }
    if chosen("calls") && backend == Backend::Sqlite {
        calls::measure(report).await.context("measure calls")?;
    }
    Ok(())
}
