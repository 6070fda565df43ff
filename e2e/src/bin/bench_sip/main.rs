//! `cargo xtask bench sip`: the parser beside rsip, the core as a user agent server behind SIPp, what an
//! idle dialog takes, and joining and leaving the queue through all four services.
//!
//! Its first word is the report to write. The words after it choose parts (parse, dialogs, uas, join);
//! none: all. With `serve` and a port, or `hold` and a number, it is its own child process: what is
//! measured of the core is what a process costs that does nothing else.

mod core;
mod dialogs;
mod invite;
mod join;
mod parse;
mod uas;

use anyhow::{Context as _, bail};
use e2e::bench::Report;
use std::path::PathBuf;
use std::process::ExitCode;

const PARTS: [&str; 4] = ["parse", "dialogs", "uas", "join"];

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
    let first = words.next().context("know where to write the report")?;
    let words: Vec<String> = words.collect();
    match (first.as_str(), words.as_slice()) {
        ("serve", [port]) => return uas::serve(port.parse().context("read a port")?),
        ("hold", [count]) => return dialogs::hold(count.parse().context("read a number")?),
        _ => (),
    }
    if let Some(unknown) = words.iter().find(|word| !PARTS.contains(&word.as_str())) {
        bail!("run part {unknown:?}: wanted some of {PARTS:?}");
    }
    let mut report = Report::default();
    let measured = measure(&words, &mut report);
    report.finish(&PathBuf::from(first))?; // What was measured before a failure is still true.
    measured
}

fn measure(parts: &[String], report: &mut Report) -> anyhow::Result<()> {
    let chosen = |part: &str| parts.is_empty() || parts.iter().any(|it| it == part);
    if chosen("parse") {
        parse::measure(report).context("measure the parser")?;
    }
    if chosen("dialogs") {
        dialogs::measure(report).context("measure an idle dialog")?;
    }
    if chosen("uas") {
        uas::measure(report).context("measure a user agent server")?;
    }
    if chosen("join") {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(join::measure(report)).context("measure joins")?;
    }
    Ok(())
}
