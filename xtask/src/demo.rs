//! `cargo xtask demo`: prepares what the demo needs and runs it.

use crate::{cargo, debian};
use anyhow::Context as _;
use std::process::{Command, ExitCode};

pub(crate) fn run() -> anyhow::Result<ExitCode> {
    debian::ensure(&[
        debian::CMAKE,
        debian::NATS_SERVER,
        debian::SIPP,
        debian::BARESIP,
        debian::SQLITE3,
    ])?;
    cargo::build()?;
    let status = command().status().context("start the demo")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

pub(crate) fn command() -> Command {
    let mut demo = Command::new(cargo::binary("demo"));
    demo.arg(cargo::target().join("demo")).env("PATH", debian::path());
    demo
}
