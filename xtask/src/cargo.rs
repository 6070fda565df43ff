//! The cargo that runs us, and where it builds.

use anyhow::{Context as _, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

/// `cargo ARGS` in the workspace's folder.
pub(crate) fn command(args: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()).args(args);
    command
}

/// Builds every executable, in the profile in which tests look for them.
pub(crate) fn build() -> anyhow::Result<()> {
    let status = command(&["build", "--workspace", "--bins"]).status().context("run cargo")?;
    ensure!(status.success(), "build the workspace: cargo {status}");
    Ok(())
}

/// The workspace's folder.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is in the workspace")
}

/// `target`, or what CARGO_TARGET_DIR says.
pub(crate) fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root().join(dir),
        None => root().join("target"),
    }
}

/// An executable of this workspace, as [`build`] builds it.
pub(crate) fn binary(name: &str) -> PathBuf {
    target().join("debug").join(name)
}

/// An executable of this workspace, built with `--release`.
pub(crate) fn release_binary(name: &str) -> PathBuf {
    target().join("release").join(name)
}
