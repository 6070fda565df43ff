//! Tools that Debian does not have, in target/tools: built by Go, at pinned versions.

use crate::{cargo, debian, schemas};
use anyhow::{Context as _, ensure};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// A command, and the module and version that it is built from.
struct Tool {
    name: &'static str,
    module: &'static str,
    version: &'static str,
}

const TOOLS: [Tool; 4] = [
    // Reads compose.yaml as `docker compose` does.
    Tool {
        name: "compose",
        module: "github.com/compose-spec/compose-go/v2/cmd",
        version: "v2.16.2",
    },
    Tool {
        name: "grpcurl",
        module: "github.com/fullstorydev/grpcurl/cmd/grpcurl",
        version: "v1.8.9",
    },
    Tool { name: "helm", module: "helm.sh/helm/v4/cmd/helm", version: "v4.3.1" },
    Tool {
        name: "kubeconform",
        module: "github.com/yannh/kubeconform/cmd/kubeconform",
        version: "v0.8.0",
    },
];

/// The first Go that fetches by itself the newer one that a module asks for.
const GO_MINOR_MIN: u32 = 21;
/// What an older one is replaced by.
const TOOLCHAIN: &str = "golang.org/toolchain@v0.0.1-go1.26.8.linux-amd64";

pub(crate) fn run() -> anyhow::Result<ExitCode> {
    for path in all()? {
        println!("{}", path.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// Where the tools and the schemas of Kubernetes are; built if they are not there yet.
pub(crate) fn all() -> anyhow::Result<Vec<PathBuf>> {
    let folder = cargo::target().join("tools");
    let mut paths: Vec<PathBuf> =
        TOOLS.iter().map(|tool| install(tool, &folder)).collect::<Result<_, _>>()?;
    paths.push(schemas::make(&folder)?);
    Ok(paths)
}

fn install(tool: &Tool, folder: &Path) -> anyhow::Result<PathBuf> {
    let Tool { name, module, version } = tool;
    let path = folder.join(name);
    let stamp = folder.join(format!("{name}.version")); // A newer pin must not find the old tool.
    if path.is_file() && std::fs::read_to_string(&stamp).is_ok_and(|it| it == *version) {
        return Ok(path);
    }
    let wanted = format!("{module}@{version}");
    eprintln!("installing {wanted}");
    std::fs::create_dir_all(folder).context("make target/tools")?;
    let mut go = go()?;
    let status = go.args(["install", &wanted]).env("GOBIN", folder).status().context("run go")?;
    let built = folder.join(module.rsplit('/').next().unwrap_or(name)); // As go names it.
    ensure!(status.success() && built.is_file(), "install {wanted}: go {status}");
    std::fs::rename(built, &path).context("name a tool")?;
    std::fs::write(stamp, version).context("note the version of a tool")?;
    Ok(path)
}

/// The folder of a module's files, fetched if it is not there yet.
pub(crate) fn module(module_and_version: &str) -> anyhow::Result<PathBuf> {
    download(&mut go()?, module_and_version)
}

/// A Go that can build all [`TOOLS`]: Debian 12's cannot, but can fetch one that does.
fn go() -> anyhow::Result<Command> {
    debian::ensure(&[debian::GO])?;
    let output = Command::new("go").args(["env", "GOVERSION"]).output().context("run go")?;
    let version = String::from_utf8_lossy(&output.stdout);
    let newer = minor(&version).is_some_and(|minor| minor >= GO_MINOR_MIN);
    let program = if newer {
        PathBuf::from("go")
    } else {
        let folder = download(&mut plain("go"), TOOLCHAIN)?;
        // Old versions of Go unpack modules without the bits that make programs of files.
        let status = Command::new("chmod").args(["-R", "u+x"]).arg(&folder).status();
        ensure!(status.context("run chmod")?.success(), "make {} executable", folder.display());
        folder.join("bin/go")
    };
    Ok(plain(program))
}

/// The 26 of "go1.26.8".
fn minor(version: &str) -> Option<u32> {
    version.trim().strip_prefix("go1.")?.split('.').next()?.parse().ok()
}

/// Without what the user's own Go projects want.
fn plain(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut go = Command::new(program);
    go.env("GOFLAGS", "").env("GOTOOLCHAIN", "auto").env_remove("GOROOT").current_dir("/");
    go
}

fn download(go: &mut Command, module_and_version: &str) -> anyhow::Result<PathBuf> {
    let output = go.args(["mod", "download", "-json", module_and_version]).output();
    let output = output.context("run go")?;
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let complaint = || format!("{}{}", said["Error"], String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "fetch {module_and_version}: {}", complaint());
    Ok(PathBuf::from(said["Dir"].as_str().context("read what go fetched")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_go_is_read() {
        assert_eq!(minor("go1.19.8\n"), Some(19));
        assert_eq!(minor("go1.26\n"), Some(26));
        assert_eq!(minor("devel"), None);
    }
}
