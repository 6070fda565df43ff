//! What operators get: the chart, the alerts, the dashboards and the units hold what they promise.

mod chart;
mod flags;
mod metrics;
mod release;
mod units;

use std::path::{Path, PathBuf};
use std::process::Command;

/// The `deploy` folder.
fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").canonicalize().unwrap()
}

/// A folder or a command that `cargo xtask tools` makes.
fn tool(name: &str) -> PathBuf {
    let path = programs().join("../tools").join(name);
    assert!(path.exists(), "{} is not there: run `cargo xtask tools`", path.display());
    path
}

/// Where the services are built.
fn programs() -> PathBuf {
    let test = std::env::current_exe().unwrap(); // …/deps/deploy-…
    test.parent().unwrap().parent().unwrap().to_owned()
}

/// What `command` printed, on both streams, and whether it held.
fn run(command: &mut Command) -> (bool, String) {
    let output = command.output().unwrap_or_else(|e| panic!("run {command:?}: {e}"));
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}
