//! `cargo xtask supply`: what we depend on may be, by `deny.toml`, and is listed in target/sbom.json.
//!
//! It is what `cargo deny` checks of licences, duplicates and sources, in the same file, without being
//! built first. Advisories are not checked: their database is not on crates.io.

use crate::cargo;
use anyhow::{Context as _, ensure};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

const SERVICES: [&str; 4] = ["media-relay", "queue-svc", "scheduler", "sip-edge"];

/// As much of `deny.toml` as is checked here.
#[derive(Deserialize)]
struct Rules {
    graph: Graph,
    licenses: Licenses,
    bans: Bans,
    sources: Sources,
}

#[derive(Deserialize)]
struct Graph {
    targets: Vec<String>,
}

#[derive(Deserialize)]
struct Licenses {
    allow: BTreeSet<String>,
    clarify: Vec<Clarified>,
}

#[derive(Deserialize)]
struct Clarified {
    /// NAME@VERSION.
    #[serde(rename = "crate")]
    package: String,
    expression: String,
}

#[derive(Deserialize)]
struct Bans {
    skip: Vec<Skipped>,
}

#[derive(Deserialize)]
struct Skipped {
    /// NAME@ and the beginning of a version.
    #[serde(rename = "crate")]
    package: String,
    reason: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Sources {
    allow_registry: Vec<String>,
}

/// What cargo knows of a package.
#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    /// None: ours.
    source: Option<String>,
    rust_version: Option<String>,
    description: Option<String>,
}

impl Package {
    fn id(&self) -> String {
        format!("{}@{}", self.name, self.version)
    }
}

pub(crate) fn run() -> anyhow::Result<ExitCode> {
    let complaints = check()?;
    complaints.iter().for_each(|it| eprintln!("{it}"));
    Ok(if complaints.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What is not as it should be; writes the bill of materials.
pub(crate) fn check() -> anyhow::Result<Vec<String>> {
    let text =
        std::fs::read_to_string(cargo::root().join("deny.toml")).context("read deny.toml")?;
    let rules: Rules = toml::from_str(&text).context("read deny.toml")?;
    let packages = packages()?;
    let mut complaints = of_licences(&rules.licenses, &packages);
    let ours = rust_version(env!("CARGO_PKG_RUST_VERSION"));
    for package in &packages {
        let id = package.id();
        let source = package.source.as_deref().and_then(|it| it.strip_prefix("registry+"));
        let known = |it: &str| rules.sources.allow_registry.iter().any(|allowed| allowed == it);
        if package.source.is_some() && !source.is_some_and(known) {
            complaints.push(format!("{id}: comes from {:?}", package.source));
        }
        if package.rust_version.as_deref().is_some_and(|it| rust_version(it) > ours) {
            complaints
                .push(format!("{id}: wants Rust {:?}, newer than ours", package.rust_version));
        }
    }
    let built = built(&rules.graph.targets)?;
    complaints.extend(of_duplicates(&rules.bans.skip, &built));
    let path = cargo::target().join("sbom.json");
    let bill = bill(&packages, &built, &checksums()?);
    std::fs::write(&path, format!("{bill:#}")).context("write target/sbom.json")?;
    Ok(complaints)
}

fn of_licences(rules: &Licenses, packages: &[Package]) -> Vec<String> {
    let mut complaints = Vec::new();
    for package in packages.iter().filter(|it| it.source.is_some()) {
        let id = package.id();
        let clarified = rules.clarify.iter().find(|it| it.package == id);
        let said = package.license.as_deref().or(clarified.map(|it| it.expression.as_str()));
        match said {
            Some(said) if may_be_used(said, &rules.allow) => (),
            Some(said) => {
                complaints.push(format!("{id}: its licence {said:?} is not in deny.toml"))
            }
            None => complaints.push(format!("{id}: has no licence in its manifest")),
        }
    }
    complaints
}

/// Whether an SPDX expression (or its older form with `/` for OR) can be met with `allowed` alone.
/// AND binds closer than OR; WITH makes one licence of two words.
fn may_be_used(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let text = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = text.split_whitespace().collect();
    let mut at = 0;
    let held = any(&words, &mut at, allowed);
    held && at == words.len()
}

fn any(words: &[&str], at: &mut usize, allowed: &BTreeSet<String>) -> bool {
    let mut held = all(words, at, allowed);
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        held |= all(words, at, allowed);
    }
    held
}

fn all(words: &[&str], at: &mut usize, allowed: &BTreeSet<String>) -> bool {
    let mut held = one(words, at, allowed);
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        held &= one(words, at, allowed);
    }
    held
}

fn one(words: &[&str], at: &mut usize, allowed: &BTreeSet<String>) -> bool {
    let Some(word) = words.get(*at) else { return false };
    *at += 1;
    if *word == "(" {
        let held = any(words, at, allowed);
        *at += 1; // The other bracket; if it is missing, not all words are read.
        return held;
    }
    let mut name = (*word).to_owned();
    if words.get(*at) == Some(&"WITH") {
        name = format!("{name} WITH {}", words.get(*at + 1).unwrap_or(&""));
        *at += 2;
    }
    allowed.contains(&name)
}

/// Versions of one crate beside each other in what we ship, but for those with a reason; and reasons
/// for what is not there.
fn of_duplicates(skipped: &[Skipped], built: &BTreeSet<(String, String)>) -> Vec<String> {
    let is = |it: &Skipped, name: &str, version: &str| {
        it.package.split_once('@').is_some_and(|(of, begins)| {
            of == name && (version == begins || version.starts_with(&format!("{begins}.")))
        })
    };
    let mut kept: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, version) in built {
        if !skipped.iter().any(|it| is(it, name, version)) {
            kept.entry(name).or_default().push(version);
        }
    }
    let twice = kept.into_iter().filter(|(_, versions)| versions.len() > 1);
    let twice =
        twice.map(|(name, versions)| format!("{name}: {} beside each other", versions.join(", ")));
    let gone =
        skipped.iter().filter(|it| !built.iter().any(|(name, version)| is(it, name, version)));
    let gone = gone.map(|it| format!("{}: skipped ({}), but not there", it.package, it.reason));
    twice.chain(gone).collect()
}

/// 1.94.0 as (1, 94).
fn rust_version(text: &str) -> (u32, u32) {
    let mut numbers = text.split('.').map(|it| it.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// All packages of the workspace and below, for every target and test.
fn packages() -> anyhow::Result<Vec<Package>> {
    let mut metadata: Value = serde_json::from_str(&output(&["metadata", "--format-version=1"])?)
        .context("read cargo's metadata")?;
    serde_json::from_value(metadata["packages"].take()).context("read cargo's packages")
}

/// Names and versions of what is in the services.
fn built(targets: &[String]) -> anyhow::Result<BTreeSet<(String, String)>> {
    let mut args = vec!["tree", "--edges=normal", "--prefix=none", "--format={p}"];
    targets.iter().for_each(|it| args.extend(["--target", it]));
    SERVICES.iter().for_each(|it| args.extend(["--package", it]));
    let text = output(&args)?;
    let package = |line: &str| {
        let mut words = line.split(' ');
        Some((words.next()?.to_owned(), words.next()?.strip_prefix('v')?.to_owned()))
    };
    Ok(text.lines().filter_map(package).collect())
}

/// What cargo says; the lock file must be what the manifests ask for.
fn output(args: &[&str]) -> anyhow::Result<String> {
    let output = cargo::command(args).arg("--locked").output().context("run cargo")?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "run cargo {}: {complaint}", args[0]);
    String::from_utf8(output.stdout).context("read what cargo says")
}

/// SHA-256 of each package's archive, from the lock file.
fn checksums() -> anyhow::Result<BTreeMap<(String, String), String>> {
    #[derive(Deserialize)]
    struct Lock {
        package: Vec<Locked>,
    }
    #[derive(Deserialize)]
    struct Locked {
        name: String,
        version: String,
        checksum: Option<String>,
    }
    let text =
        std::fs::read_to_string(cargo::root().join("Cargo.lock")).context("read Cargo.lock")?;
    let lock: Lock = toml::from_str(&text).context("read Cargo.lock")?;
    let with_sum =
        lock.package.into_iter().filter_map(|it| Some(((it.name, it.version), it.checksum?)));
    Ok(with_sum.collect())
}

/// What the services are made of, as CycloneDX 1.5.
fn bill(
    packages: &[Package],
    built: &BTreeSet<(String, String)>,
    checksums: &BTreeMap<(String, String), String>,
) -> Value {
    let components = packages.iter().filter_map(|package| {
        let key = (package.name.clone(), package.version.clone());
        let checksum = checksums.get(&key).filter(|_| built.contains(&key))?;
        let licence = package.license.as_deref().unwrap_or_default().replace('/', " OR ");
        let url = format!("pkg:cargo/{}", package.id());
        Some(json!({
            "type": "library",
            "bom-ref": url,
            "name": package.name,
            "version": package.version,
            "description": package.description.as_deref().unwrap_or_default().trim(),
            "licenses": [{"expression": licence}],
            "hashes": [{"alg": "SHA-256", "content": checksum}],
            "purl": url,
        }))
    });
    json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.5.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {
            "type": "application",
            "bom-ref": "holdfast",
            "name": "holdfast",
            "version": env!("CARGO_PKG_VERSION"),
            "licenses": [{"license": {"id": "Apache-2.0"}}],
        }},
        "components": components.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_licence_may_be_used_if_a_choice_of_it_is_allowed() {
        let allowed = ["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"].map(str::to_owned).into();
        for good in [
            "MIT",
            "GPL-3.0/MIT",
            "GPL-3.0 OR ISC",
            "GPL-3.0 AND X OR MIT",
            "(GPL-3.0 OR MIT) AND ISC",
            "Apache-2.0 WITH LLVM-exception",
        ] {
            assert!(may_be_used(good, &allowed), "{good}");
        }
        for bad in [
            "",
            "GPL-3.0",
            "MIT AND GPL-3.0",
            "Apache-2.0",
            "MIT WITH X",
            "(MIT",
            "MIT MIT",
            "MIT )",
        ] {
            assert!(!may_be_used(bad, &allowed), "{bad}");
        }
    }

    #[test]
    fn duplicates_are_told_and_so_are_reasons_that_are_not_needed_any_more() {
        let built =
            [("a", "1.2.0"), ("a", "2.0.0"), ("b", "0.1.1"), ("b", "0.10.0"), ("c", "1.0.0")];
        let built = built.map(|(name, version)| (name.to_owned(), version.to_owned())).into();
        let skipped = ["a@1", "b@0.10", "c@2"];
        let skipped = skipped.map(|it| Skipped { package: it.to_owned(), reason: "r".to_owned() });
        assert_eq!(of_duplicates(&skipped, &built), ["c@2: skipped (r), but not there"]);
        assert_eq!(of_duplicates(&skipped[1..2], &built), ["a: 1.2.0, 2.0.0 beside each other"]);
        // 0.1 is not the beginning of 0.10.
        let one = [Skipped { package: "b@0.1".to_owned(), reason: "r".to_owned() }];
        assert_eq!(of_duplicates(&one, &built).len(), 1);
    }
}
