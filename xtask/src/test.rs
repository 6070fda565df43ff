//! `cargo xtask test`: every gate, one after the other, and one line at the end.

use crate::{cargo, debian, demo, images, links, supply, tools};
use anyhow::Context as _;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, ExitCode, Stdio};

/// Private items are documented too, so links to them lead somewhere.
const RUSTDOC_FLAGS: &str = "-D warnings -A rustdoc::private_intra_doc_links";

/// What tests run.
const PROGRAMS: &[debian::Program] = &[
    debian::CMAKE,
    debian::NATS_SERVER,
    debian::SIPP,
    debian::BARESIP,
    debian::SVWAR,
    debian::DNSMASQ,
    debian::SQLITE3,
    debian::POSTGRES,
    debian::MARIADB,
    debian::RTPENGINE,
    debian::FAKETIME,
    debian::PROMETHEUS,
    debian::SYSTEMD,
    debian::KAMAILIO,
    debian::KAMAILIO_SQLITE,
];

/// What has been counted. A gate is one test.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    passed: u32,
    failed: u32,
}

impl Count {
    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }

    fn of(held: bool) -> Self {
        Self { passed: held.into(), failed: (!held).into() }
    }
}

pub(crate) fn run() -> anyhow::Result<ExitCode> {
    debian::ensure(PROGRAMS)?;
    debian::ensure(&images::PROGRAMS)?;
    tools::all()?;
    let mut count = Count::default();
    count.add(gate("fmt", &mut cargo::command(&["fmt", "--all", "--check"]))?);
    let supplied = supply::check();
    match &supplied {
        Ok(complaints) => complaints.iter().for_each(|it| eprintln!("{it}")),
        Err(e) => eprintln!("failed to {e:#}"),
    }
    count.add(verdict("supply", supplied.is_ok_and(|it| it.is_empty())));
    let clippy = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
    count.add(gate("clippy", &mut cargo::command(&clippy))?);
    let build = gate("build", &mut cargo::command(&["build", "--workspace", "--bins"]))?;
    count.add(build);
    println!("== images");
    let images = images::make(cargo::binary).inspect_err(|e| eprintln!("failed to {e:#}"));
    count.add(verdict("images", images.is_ok()));
    count.add(tests()?);
    let mut doc = cargo::command(&["doc", "--workspace", "--no-deps", "--document-private-items"]);
    count.add(gate("docs", doc.env("RUSTDOCFLAGS", RUSTDOC_FLAGS))?);
    let broken = links::broken();
    broken.iter().for_each(|link| eprintln!("broken link in {link}"));
    count.add(verdict("links", broken.is_empty()));
    count.add(gate("demo", &mut demo::command())?);
    println!("{} passed, {} failed", count.passed, count.failed);
    Ok(if count.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn gate(name: &str, command: &mut Command) -> anyhow::Result<Count> {
    println!("== {name}");
    let status = command.status().with_context(|| format!("run {name} ({command:?})"))?;
    Ok(verdict(name, status.success()))
}

fn verdict(name: &str, held: bool) -> Count {
    println!("== {name}: {}", if held { "passed" } else { "FAILED" });
    Count::of(held)
}

/// All tests of all crates; tidy is one of them.
fn tests() -> anyhow::Result<Count> {
    println!("== tests");
    let mut command = cargo::command(&["test", "--workspace", "--no-fail-fast"]);
    command.env("PATH", debian::path()).stdout(Stdio::piped());
    let mut child = command.spawn().context("run cargo test")?;
    let output = child.stdout.take().context("read cargo test")?;
    let mut count = Count::default();
    for line in BufReader::new(output).lines() {
        let line = line.context("read cargo test")?;
        println!("{line}");
        count.add(result(&line).unwrap_or_default());
    }
    let status = child.wait().context("wait for cargo test")?;
    if !status.success() && count.failed == 0 {
        count.failed = 1; // It did not even get to run them.
    }
    Ok(count)
}

/// The numbers in `test result: ok. 5 passed; 0 failed; 1 ignored; …`; an ignored test has failed to
/// be run.
fn result(line: &str) -> Option<Count> {
    let numbers = line.strip_prefix("test result: ")?;
    let number = |what: &str| -> Option<u32> {
        numbers.split([';', '.']).find_map(|it| it.trim().strip_suffix(what)?.trim().parse().ok())
    };
    Some(Count { passed: number("passed")?, failed: number("failed")? + number("ignored")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_read_and_ignored_tests_are_failures() {
        let line = "test result: FAILED. 5 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.06s";
        assert_eq!(result(line), Some(Count { passed: 5, failed: 3 }));
        assert_eq!(result("test dialog::tests::it_works ... ok"), None);
    }
}
