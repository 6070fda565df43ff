//! `cargo xtask up`: prepares what the launcher needs and becomes it.

use crate::{cargo, debian};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

pub(crate) fn run() -> anyhow::Result<ExitCode> {
    debian::ensure(&[debian::CMAKE, debian::NATS_SERVER])?;
    cargo::build()?;
    let mut up = Command::new(cargo::binary("up"));
    up.arg(cargo::target().join("up")).env("PATH", debian::path());
    Err(anyhow::Error::from(up.exec()).context("start the launcher")) // It does not come back.
}
