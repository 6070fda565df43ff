//! Tools that Debian does not have, at versions that its compilers can build.

use crate::{cargo, debian};
use anyhow::{Context as _, ensure};
use std::path::PathBuf;
use std::process::{Command, ExitCode};

/// The last that Debian 12's Go 1.19 builds.
const GRPCURL: &str = "github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.8.9";

pub(crate) fn run() -> anyhow::Result<ExitCode> {
    println!("{}", grpcurl()?.display());
    Ok(ExitCode::SUCCESS)
}

/// Where our grpcurl is; built if it is not there yet.
pub(crate) fn grpcurl() -> anyhow::Result<PathBuf> {
    let folder = cargo::target().join("tools");
    let path = folder.join("grpcurl");
    if path.is_file() {
        return Ok(path);
    }
    debian::ensure(&[debian::GO])?;
    eprintln!("installing {GRPCURL}");
    std::fs::create_dir_all(&folder).context("make target/tools")?;
    let mut go = Command::new("go");
    go.args(["install", GRPCURL]).env("GOBIN", &folder).env("GOFLAGS", "");
    let status = go.status().context("run go")?;
    ensure!(status.success() && path.is_file(), "install {GRPCURL}: go {status}");
    Ok(path)
}
