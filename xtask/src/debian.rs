//! Programs that Debian has: installs what is missing, or says how.

use anyhow::{Context as _, bail};
use std::path::PathBuf;
use std::process::Command;

/// A program and the package that has it.
#[derive(Clone, Copy)]
pub(crate) struct Program {
    /// On the PATH, or with its path where Debian does not put it there.
    pub(crate) name: &'static str,
    pub(crate) package: &'static str,
}

pub(crate) const NATS_SERVER: Program = Program { name: "nats-server", package: "nats-server" };
/// Builds libopus.
pub(crate) const CMAKE: Program = Program { name: "cmake", package: "cmake" };
pub(crate) const SIPP: Program = Program { name: "sipp", package: "sip-tester" };
pub(crate) const BARESIP: Program = Program { name: "baresip", package: "baresip-core" };
pub(crate) const SVWAR: Program = Program { name: "svwar", package: "sipvicious" };
pub(crate) const DNSMASQ: Program = Program { name: "dnsmasq", package: "dnsmasq-base" };
pub(crate) const SQLITE3: Program = Program { name: "sqlite3", package: "sqlite3" };
pub(crate) const POSTGRES: Program =
    Program { name: "/usr/lib/postgresql/15/bin/postgres", package: "postgresql-15" };
pub(crate) const MARIADB: Program =
    Program { name: "/usr/sbin/mariadbd", package: "mariadb-server" };
pub(crate) const RTPENGINE: Program = Program { name: "rtpengine", package: "rtpengine-daemon" };
pub(crate) const KAMAILIO: Program = Program { name: "kamailio", package: "kamailio" };
/// A module of Kamailio, by its file.
pub(crate) const KAMAILIO_SQLITE: Program = Program {
    name: "/usr/share/kamailio/db_sqlite/mohqueue-create.sql",
    package: "kamailio-sqlite-modules",
};
pub(crate) const FAKETIME: Program = Program { name: "faketime", package: "faketime" };
/// The server, and promtool beside it.
pub(crate) const PROMETHEUS: Program = Program { name: "prometheus", package: "prometheus" };
/// Checks units; it need not be what runs the machine.
pub(crate) const SYSTEMD: Program = Program { name: "systemd-analyze", package: "systemd" };
pub(crate) const BUILDAH: Program = Program { name: "buildah", package: "buildah" };
/// As debootstrap, but also without installing what it unpacks.
pub(crate) const MMDEBSTRAP: Program = Program { name: "mmdebstrap", package: "mmdebstrap" };
pub(crate) const GO: Program = Program { name: "go", package: "golang-go" };

/// Where packages put programs that are not always on a user's PATH.
const MORE_PATHS: [&str; 3] = ["/usr/sbin", "/usr/local/sbin", "/sbin"];

/// Makes sure that all of `programs` can be run, by installing their packages if that is permitted.
///
/// # Errors
/// Has the one command to run, if we may not install. Nothing is skipped for a missing program.
pub(crate) fn ensure(programs: &[Program]) -> anyhow::Result<()> {
    let missing: Vec<&str> =
        programs.iter().filter(|it| find(it.name).is_none()).map(|it| it.package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let by_hand = format!("sudo apt-get install --no-install-recommends {}", missing.join(" "));
    if find("apt-get").is_none() {
        bail!("run {}: not installed, and this is not Debian", missing.join(", "));
    }
    let Some(prefix) = privilege() else { bail!("install {}; run: {by_hand}", missing.join(", ")) };
    eprintln!("installing {} from Debian", missing.join(", "));
    if install(&prefix, &missing).is_err() {
        run(&prefix, &["apt-get", "--quiet", "update"])?; // A fresh machine has no package lists.
        install(&prefix, &missing).with_context(|| format!("install packages; try: {by_hand}"))?;
    }
    match programs.iter().find(|it| find(it.name).is_none()) {
        Some(program) => bail!("find {} after installing {}", program.name, program.package),
        None => Ok(()),
    }
}

/// The path of a program that can be run.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(MORE_PATHS.map(PathBuf::from));
    folders.map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// PATH for what we start: with the folders that Debian's packages use.
pub(crate) fn path() -> std::ffi::OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(MORE_PATHS.map(PathBuf::from));
    std::env::join_paths(folders).unwrap_or(path)
}

/// Installs "$@" without starting what the packages would run as a service: we start servers ourselves,
/// on ports of our own, and theirs would be in the way of others. Debian's way to say so is a
/// policy-rc.d that forbids it (101); one that is there already knows better.
const INSTALL: &str = r#"
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        trap 'rm -f "$policy"' EXIT
        printf '#!/bin/sh\nexit 101\n' > "$policy" && chmod 755 "$policy"
    fi
    DEBIAN_FRONTEND=noninteractive apt-get --quiet install --yes --no-install-recommends "$@" || exit
    if [ -d /run/systemd/system ]; then
        for package in "$@"; do
            for unit in $(dpkg -L "$package" | sed -n 's:^\(/usr\)\?/lib/systemd/system/\([^/@]*\.service\)$:\2:p'); do
                systemctl --quiet disable "$unit"
            done
        done
    fi
    exit 0
"#;

/// What goes before apt-get; none if it would need a password or is not allowed.
fn privilege() -> Option<Vec<&'static str>> {
    let output = |program: &str, args: &[&str]| Command::new(program).args(args).output().ok();
    if output("id", &["-u"])?.stdout.trim_ascii() == b"0" {
        return Some(Vec::new());
    }
    let sudo = ["sudo", "--non-interactive"];
    output(sudo[0], &[sudo[1], "true"])?.status.success().then(|| sudo.to_vec())
}

fn install(prefix: &[&str], packages: &[&str]) -> anyhow::Result<()> {
    run(prefix, &[&["sh", "-c", INSTALL, "sh"], packages].concat())
}

fn run(prefix: &[&str], args: &[&str]) -> anyhow::Result<()> {
    let words = [prefix, args].concat();
    let status = Command::new(words[0]).args(&words[1..]).status().context("run apt-get")?;
    if !status.success() {
        bail!("run apt-get: {status}");
    }
    Ok(())
}
