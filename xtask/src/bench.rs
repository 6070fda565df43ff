//! `cargo xtask bench NAME`: builds in release and runs the benchmark of that name.

use crate::cargo;
use crate::debian::{self, Program};
use anyhow::{Context as _, ensure};
use clap::ValueEnum;
use std::process::{Command, ExitCode};

/// A benchmark: the binary `bench_NAME` of `e2e`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Bench {
    /// Relay, music and conferences, beside rtpengine.
    Media,
    /// Joins, agents, memory and lists at 10,000 waiting callers.
    Queue,
    /// Lateness, adding, memory and herds of tasks, beside the database itself.
    Scheduler,
    /// Parsing beside rsip, the core behind SIPp, and joins through all four services.
    Sip,
}

impl Bench {
    fn name(self) -> &'static str {
        match self {
            Self::Media => "media",
            Self::Queue => "queue",
            Self::Scheduler => "scheduler",
            Self::Sip => "sip",
        }
    }

    fn programs(self) -> &'static [Program] {
        match self {
            Self::Media => &[debian::CMAKE, debian::NATS_SERVER, debian::RTPENGINE],
            Self::Queue => &[debian::CMAKE, debian::NATS_SERVER],
            Self::Sip => &[debian::CMAKE, debian::NATS_SERVER, debian::SIPP],
            Self::Scheduler => {
                &[debian::CMAKE, debian::NATS_SERVER, debian::SQLITE3, debian::POSTGRES]
            }
        }
    }
}

/// Runs it with `args` (which of its parts; all if none), which writes `target/bench/NAME.json`.
pub(crate) fn run(bench: Bench, args: &[String]) -> anyhow::Result<ExitCode> {
    debian::ensure(bench.programs())?;
    let mut build = cargo::command(&["build", "--release", "--bins", "--package", "e2e"]);
    for service in ["media-relay", "queue-svc", "scheduler", "sip-edge"] {
        build.args(["--package", service]);
    }
    let status = build.status().context("run cargo")?;
    ensure!(status.success(), "build in release: cargo {status}");
    let mut command = Command::new(cargo::release_binary(&format!("bench_{}", bench.name())));
    let report = cargo::target().join("bench").join(format!("{}.json", bench.name()));
    command.arg(report).args(args).env("PATH", debian::path());
    let status = command.status().with_context(|| format!("start bench {}", bench.name()))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
