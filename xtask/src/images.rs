//! `cargo xtask images`: the four images of `deploy/Dockerfile`, by buildah, in target/images.
//!
//! The programs are built on this machine, not in a container. The base is the one that the
//! Dockerfile names; where no registry can be reached, it is made from Debian's packages, and said so.
//! Needs no daemon.

use crate::{cargo, debian};
use anyhow::{Context as _, ensure};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const SERVICES: [&str; 4] = ["media-relay", "queue-svc", "scheduler", "sip-edge"];

/// Debian 12 without what only its package manager needs: as the Dockerfile's base, no shell.
const PACKAGES: &str = "base-files,netbase,libc6,libgcc-s1,ca-certificates";
const ARCHIVES: [&str; 2] = [
    "deb http://deb.debian.org/debian bookworm main",
    "deb http://deb.debian.org/debian-security bookworm-security main",
];
/// Run where the packages lie unpacked; what their scripts would do, and we need, is one file.
const TIDY: &str = r#"
    cat "$1"/usr/share/ca-certificates/mozilla/*.crt > "$1/etc/ssl/certs/ca-certificates.crt"
    cd "$1/usr/share"
    rm -r bash-completion debconf lintian man perl5 pixmaps
"#;
/// The name of that base.
const OWN_BASE: &str = "localhost/holdfast-base";

/// What images are built and run with.
pub(crate) const PROGRAMS: [debian::Program; 2] = [debian::BUILDAH, debian::MMDEBSTRAP];

/// Builds the programs, in release or not, and the images.
pub(crate) fn run(debug: bool) -> anyhow::Result<ExitCode> {
    debian::ensure(&[debian::CMAKE])?;
    debian::ensure(&PROGRAMS)?;
    let mut build = cargo::command(&["build", "--locked", "--bins"]);
    if !debug {
        build.arg("--release");
    }
    for service in SERVICES {
        build.args(["--package", service]);
    }
    let status = build.status().context("run cargo")?;
    ensure!(status.success(), "build the programs: cargo {status}");
    let images = if debug { make(cargo::binary) } else { make(cargo::release_binary) };
    for image in images? {
        println!("{image}");
    }
    println!("push one with: {}", Buildah::new().shown(&["push", "IMAGE", "docker://…"]));
    Ok(ExitCode::SUCCESS)
}

/// Images of the programs that `program` finds by name; their names.
pub(crate) fn make(program: impl Fn(&str) -> PathBuf) -> anyhow::Result<Vec<String>> {
    let buildah = Buildah::new();
    let programs = buildah.folder.join("programs");
    std::fs::create_dir_all(programs.join("state")).context("make a folder for programs")?;
    for service in SERVICES {
        let mut strip = Command::new("strip");
        strip.arg("-o").arg(programs.join(service)).arg(program(service));
        let status = strip.status().context("run strip")?;
        ensure!(status.success(), "strip {service}: {status}");
    }
    // Those of tests that were killed keep what is to be replaced.
    finish(&mut buildah.command(&["rm", "--all"])).context("remove containers")?;
    let dockerfile = cargo::root().join("deploy/Dockerfile");
    let text = std::fs::read_to_string(&dockerfile).context("read the Dockerfile")?;
    let base = base(&buildah, text.lines().find_map(|it| it.strip_prefix("ARG BASE_IMAGE=")))?;
    let mut images = Vec::new();
    for service in SERVICES {
        let image = format!("holdfast/{service}:{}", env!("CARGO_PKG_VERSION"));
        let mut build = buildah.command(&["build", "--quiet", "--pull=never", "--layers=false"]);
        build.args(["--isolation", "chroot", "--format", "oci", "--target", service]);
        build.args(["--build-arg", &format!("BASE_IMAGE={base}")]);
        build.args(["--build-arg", concat!("VERSION=", env!("CARGO_PKG_VERSION"))]);
        build.args(["--build-context", &format!("programs={}", programs.display())]);
        build.arg("--ignorefile").arg(dockerfile.with_extension("dockerignore"));
        build.args(["--tag", &image, "--file"]).arg(&dockerfile).arg(cargo::root());
        finish(&mut build).with_context(|| format!("build the image of {service}"))?;
        images.push(image);
    }
    finish(&mut buildah.command(&["rmi", "--prune"])).context("forget what they replace")?;
    Ok(images)
}

/// The name of the base: `wanted` if it can be fetched, else our own.
fn base(buildah: &Buildah, wanted: Option<&str>) -> anyhow::Result<String> {
    let wanted = wanted.context("find ARG BASE_IMAGE in the Dockerfile")?;
    match finish(&mut buildah.command(&["pull", "--quiet", wanted])) {
        Ok(()) => return Ok(wanted.to_owned()),
        Err(e) => eprintln!("failed to fetch {wanted}: {e:#}"),
    }
    let known = buildah.command(&["inspect", "--type", "image", OWN_BASE]).output();
    if known.context("run buildah")?.status.success() {
        eprintln!(
            "taking the base that was made of Debian's packages before; without target/images it is made anew"
        );
        return Ok(OWN_BASE.to_owned());
    }
    eprintln!("making a base of Debian's packages {PACKAGES} instead");
    let archive = buildah.folder.join("base.tar");
    let mut debstrap = Command::new("mmdebstrap");
    debstrap.args(["--quiet", "--variant=extract", &format!("--include={PACKAGES}")]);
    debstrap.arg(format!("--extract-hook={TIDY}")).arg("bookworm").arg(&archive).args(ARCHIVES);
    finish(&mut debstrap).context("make a base of Debian's packages")?;
    let container = "holdfast-base";
    let _ = buildah.command(&["rm", container]).output(); // There only if an earlier run was cut off.
    finish(&mut buildah.command(&["from", "--quiet", "--name", container, "scratch"]))?;
    finish(buildah.command(&["add", "--quiet", container]).arg(&archive).arg("/"))?;
    finish(&mut buildah.command(&["commit", "--quiet", "--rm", container, OWN_BASE]))?;
    std::fs::remove_file(archive).context("remove what the base was made of")?;
    Ok(OWN_BASE.to_owned())
}

/// buildah with its images and containers in target/images, so that it needs no place of its own.
struct Buildah {
    folder: PathBuf,
}

impl Buildah {
    fn new() -> Self {
        Self { folder: cargo::target().join("images") }
    }

    fn command(&self, args: &[&str]) -> Command {
        let at = |name: &str| -> PathBuf { Path::join(&self.folder, name) };
        let mut command = Command::new("buildah");
        command.arg("--root").arg(at("store")).arg("--runroot").arg(at("run"));
        command.args(["--storage-driver", "vfs"]).args(args); // vfs works in every sandbox.
        command
    }

    fn shown(&self, args: &[&str]) -> String {
        let command = self.command(args);
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        words.map(|it| it.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }
}

/// Runs it without a word, unless it fails.
fn finish(command: &mut Command) -> anyhow::Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("run {name}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().last().unwrap_or_default();
    ensure!(output.status.success(), "run {name}: {last}");
    Ok(())
}
