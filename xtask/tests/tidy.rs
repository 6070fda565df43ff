//! Rules about the code that clippy cannot state. Each failure names the place and the remedy.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What decides and does no IO.
const CORES: [&str; 5] =
    ["sip-edge/sip", "sip-edge/call", "media-relay/media", "scheduler/wheel", "queue-svc/queue"];

/// What a core may name as a dependency: none of it opens a socket, a file or a clock.
const PURE: [&str; 14] = [
    "audio-codec-algorithms",
    "bytes",
    "hashbrown",
    "md-5",
    "memchr",
    "opus",
    "rand",
    "rtcp-types",
    "rtp-types",
    "sdp-types",
    "serde",
    "sha2",
    "smallvec",
    "thiserror",
];

/// What must not come in by any path.
const IMPURE: [&str; 12] = [
    "async-nats",
    "axum",
    "boot",
    "hyper",
    "mio",
    "proto",
    "socket2",
    "sqlx",
    "tokio",
    "tonic",
    "tracing",
    "prost",
];

/// The services; their packages have the names of their folders.
const SHELLS: [&str; 4] = ["sip-edge", "media-relay", "scheduler", "queue-svc"];

/// Longest file, in lines.
const LINES_MAX: usize = 600;

/// Module names that say nothing.
const EMPTY_NAMES: [&str; 5] = ["common", "helpers", "manager", "types", "utils"];

#[test]
fn cores_name_only_pure_dependencies() {
    let metadata = Metadata::read();
    for core in CORES {
        let package = metadata.package_in(core);
        for dependency in metadata.direct(package) {
            assert!(
                PURE.contains(&dependency),
                "{core} depends on {dependency}: do that in its service instead"
            );
        }
    }
}

#[test]
fn nothing_that_cores_depend_on_does_io() {
    let metadata = Metadata::read();
    for core in CORES {
        let reached = metadata.reachable(metadata.package_in(core));
        for name in IMPURE {
            assert!(!reached.contains(name), "{core} depends on {name}, through {reached:?}");
        }
    }
}

#[test]
fn services_know_only_their_own_cores_and_boot_and_proto() {
    let metadata = Metadata::read();
    let ours: BTreeSet<&str> = metadata.members().collect();
    for shell in SHELLS {
        for dependency in metadata.direct(shell).filter(|it| ours.contains(it)) {
            let own = CORES.iter().any(|core| {
                core.strip_prefix(shell)
                    .is_some_and(|rest| rest.strip_prefix('/') == Some(dependency))
            });
            assert!(
                own || ["boot", "proto"].contains(&dependency),
                "{shell} depends on {dependency}: services talk by gRPC and NATS only"
            );
        }
    }
}

/// What is measured of the core `sip` by itself is measured in e2e.
#[test]
fn proto_and_boot_know_no_service() {
    let metadata = Metadata::read();
    let ours: BTreeSet<&str> = metadata.members().collect();
    for (package, allowed) in
        [("proto", &[][..]), ("boot", &["proto"][..]), ("e2e", &["proto", "sip"][..])]
    {
        for dependency in metadata.direct(package).filter(|it| ours.contains(it)) {
            assert!(allowed.contains(&dependency), "{package} depends on {dependency}");
        }
    }
}

#[test]
fn every_file_says_what_it_is_for() {
    for file in rust_files() {
        assert!(
            file.text.starts_with("//!"),
            "{}: start with a `//!` line that says what the file is for",
            file.path
        );
    }
}

#[test]
fn no_file_is_too_long_to_read() {
    for file in rust_files() {
        let lines = file.text.lines().count();
        assert!(lines <= LINES_MAX, "{}: {lines} lines, split it by noun", file.path);
    }
}

#[test]
fn modules_have_names_that_say_something() {
    for file in rust_files() {
        let name = Path::new(&file.path).file_stem().unwrap().to_str().unwrap();
        let folder = Path::new(&file.path).parent().and_then(Path::file_name);
        let folder = folder.map(|it| it.to_str().unwrap()).unwrap_or_default();
        for empty in EMPTY_NAMES {
            assert!(name != empty && folder != empty, "{}: name it by what it is", file.path);
        }
    }
}

#[test]
fn cores_and_tests_never_sleep() {
    let core = |path: &str| CORES.iter().any(|core| path.starts_with(&format!("{core}/")));
    for file in rust_files().iter().filter(|it| core(&it.path) || it.path.contains("/tests/")) {
        if file.path.ends_with("xtask/tests/tidy.rs") {
            continue; // It names the word.
        }
        for (number, line) in file.code() {
            assert!(
                !line.contains("sleep("),
                "{}:{number}: wait for what must happen, or move the virtual clock",
                file.path
            );
        }
    }
}

#[test]
fn cores_read_no_clock_and_open_nothing() {
    const WORDS: [&str; 7] = [
        "Instant::now",
        "SystemTime",
        "std::fs",
        "std::net::Udp",
        "std::net::Tcp",
        "async fn",
        "std::thread",
    ];
    for file in rust_files()
        .iter()
        .filter(|it| CORES.iter().any(|core| it.path.starts_with(&format!("{core}/src/"))))
    {
        for (number, line) in file.code_before_tests() {
            for word in WORDS {
                assert!(
                    !line.contains(word),
                    "{}:{number}: {word} belongs in the service",
                    file.path
                );
            }
        }
    }
}

#[test]
fn sql_is_written_only_in_stores() {
    const WORDS: [&str; 6] =
        ["SELECT ", "INSERT INTO ", "UPDATE ", "DELETE FROM ", "CREATE TABLE ", "sqlx::"];
    for file in services().filter(|it| !it.is_module("store")) {
        for (number, line) in file.code_before_tests() {
            for word in WORDS {
                assert!(!line.contains(word), "{}:{number}: {word} belongs in store.rs", file.path);
            }
        }
    }
}

#[test]
fn grpc_statuses_are_made_only_in_grpc() {
    for file in services().filter(|it| !it.is_module("grpc")) {
        for (number, line) in file.code_before_tests() {
            for made in [
                "Status::new(",
                "Status::invalid_argument(",
                "Status::not_found(",
                "Status::unavailable(",
                "Status::internal(",
            ] {
                assert!(!line.contains(made), "{}:{number}: make it in grpc.rs", file.path);
            }
        }
    }
}

#[test]
fn no_channel_is_unbounded() {
    for file in rust_files()
        .iter()
        .filter(|it| !it.path.starts_with("xtask/") && !it.path.starts_with("e2e/"))
    {
        for (number, line) in file.code() {
            assert!(
                !line.contains("unbounded_channel") && !line.contains("mpsc::unbounded"),
                "{}:{number}: give it a named limit, and refuse when it is full",
                file.path
            );
        }
    }
}

#[test]
fn nats_subjects_are_written_only_in_proto() {
    for file in services() {
        for (number, line) in file.code_before_tests() {
            assert!(
                !line.contains("\"holdfast."),
                "{}:{number}: take it from proto::subjects",
                file.path
            );
        }
    }
}

/// A Rust file, by its path from the workspace's folder.
struct File {
    path: String,
    text: String,
}

impl File {
    /// Lines that are not comments, with their numbers.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate().map(|(at, line)| (at + 1, line));
        lines.filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    /// The same without the unit tests, which come last in a file.
    fn code_before_tests(&self) -> impl Iterator<Item = (usize, &str)> {
        let is_tests = self.path.contains("/tests/") || self.path.ends_with("tests.rs");
        self.code().take_while(move |(_, line)| !is_tests && line.trim() != "#[cfg(test)]")
    }

    /// Whether it is `name.rs` or below `name/`.
    fn is_module(&self, name: &str) -> bool {
        self.path.ends_with(&format!("/{name}.rs")) || self.path.contains(&format!("/{name}/"))
    }
}

/// The files of the services' shells.
fn services() -> impl Iterator<Item = File> {
    let shell = |file: &File| SHELLS.iter().any(|it| file.path.starts_with(&format!("{it}/src/")));
    rust_files().into_iter().filter(shell)
}

fn rust_files() -> Vec<File> {
    let mut paths = Vec::new();
    find_rust_files(root(), &mut paths);
    assert!(paths.len() > 50, "found only {} files: is {} right?", paths.len(), root().display());
    let file = |path: PathBuf| File {
        text: fs::read_to_string(&path).unwrap(),
        path: path.strip_prefix(root()).unwrap().display().to_string(),
    };
    paths.into_iter().map(file).collect()
}

fn find_rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() && !path.ends_with("target") && !path.ends_with(".git") {
            find_rust_files(&path, found);
        } else if path.extension().is_some_and(|it| it == "rs") {
            found.push(path);
        }
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// Who depends on whom, as `cargo tree` says it: without tests' and builds' dependencies.
struct Metadata {
    /// Direct dependencies by package name.
    edges: BTreeMap<String, BTreeSet<String>>,
    /// Workspace packages: name by folder.
    members: BTreeMap<String, String>,
}

impl Metadata {
    fn read() -> Self {
        let mut metadata = Self { edges: BTreeMap::new(), members: BTreeMap::new() };
        let tree = cargo(&[
            "tree",
            "--workspace",
            "--edges",
            "normal",
            "--prefix",
            "depth",
            "--no-dedupe",
            "--format",
            "|{p}",
        ]);
        let mut path: Vec<String> = Vec::new();
        for line in tree.lines().filter(|line| !line.is_empty()) {
            let (depth, package) = line.split_once('|').unwrap();
            let mut words = package.split(' ');
            let name = words.next().unwrap().to_owned();
            let folder = package.split_once('(').and_then(|(_, rest)| rest.split_once(')'));
            if let Some(below) = folder.and_then(|it| Path::new(it.0).strip_prefix(root()).ok()) {
                metadata.members.insert(below.display().to_string(), name.clone());
            }
            path.truncate(depth.parse().unwrap());
            if let Some(parent) = path.last() {
                metadata.edges.entry(parent.clone()).or_default().insert(name.clone());
            }
            path.push(name);
        }
        for core in CORES {
            assert!(metadata.members.contains_key(core), "{core} is not in {:?}", metadata.members);
        }
        metadata
    }

    fn package_in(&self, folder: &str) -> &str {
        &self.members[folder]
    }

    fn members(&self) -> impl Iterator<Item = &str> {
        self.members.values().map(String::as_str)
    }

    fn direct(&self, package: &str) -> impl Iterator<Item = &str> {
        self.edges.get(package).into_iter().flatten().map(String::as_str)
    }

    fn reachable<'a>(&'a self, package: &'a str) -> BTreeSet<&'a str> {
        let mut reached = BTreeSet::new();
        let mut next = vec![package];
        while let Some(package) = next.pop() {
            for dependency in self.direct(package) {
                if reached.insert(dependency) {
                    next.push(dependency);
                }
            }
        }
        reached
    }
}

fn cargo(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO")).current_dir(root()).args(args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
