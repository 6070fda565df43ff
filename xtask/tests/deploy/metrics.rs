//! Alerts and dashboards: they are valid, tested, explained, and ask for metrics that there are.

use crate::{deploy, run};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What our metrics' names begin with.
const PREFIXES: [&str; 2] = ["holdfast_", "queue_"];
/// What Prometheus adds to the name of a histogram.
const HISTOGRAM: [&str; 3] = ["_bucket", "_sum", "_count"];

#[test]
fn each_alert_fires_when_it_should_and_only_then() {
    let check = |args: [&str; 2], file: &str| {
        let (held, text) = run(Command::new("promtool").args(args).arg(deploy().join(file)));
        assert!(held, "{file}: {text}");
    };
    check(["check", "rules"], "chart/rules/alerts.yaml");
    check(["test", "rules"], "alerts/tests.yaml");
}

#[test]
fn each_alert_is_tested_both_ways_and_explained() {
    let tests = read(&deploy().join("alerts/tests.yaml"));
    let runbook = read(&deploy().join("RUNBOOK.md"));
    for alert in alerts() {
        for wanted in [format!("{alert} fires"), format!("{alert} is quiet")] {
            assert!(tests.contains(&wanted), "alerts/tests.yaml has no test {wanted:?}");
        }
        assert!(runbook.contains(&format!("### {alert}\n")), "RUNBOOK.md does not explain {alert}");
    }
}

#[test]
fn the_runbook_explains_no_alert_that_there_is_not() {
    let runbook = read(&deploy().join("RUNBOOK.md"));
    let explained = runbook.lines().filter_map(|line| line.strip_prefix("### Holdfast"));
    for name in explained {
        assert!(alerts().contains(&format!("Holdfast{name}")), "there is no alert Holdfast{name}");
    }
}

#[test]
fn alerts_ask_for_metrics_that_there_are() {
    check_metrics("alerts.yaml", &read(&deploy().join("chart/rules/alerts.yaml")));
}

#[test]
fn documents_name_metrics_that_there_are() {
    for name in ["troubleshooting.md", "sizing.md"] {
        check_metrics(name, &read(&deploy().join("../docs").join(name)));
    }
}

#[test]
fn dashboards_are_whole_and_ask_for_metrics_that_there_are() {
    let mut seen = BTreeSet::new();
    for file in files(&deploy().join("chart/dashboards"), "json") {
        let text = read(&file);
        let name = file.file_name().unwrap().to_str().unwrap().to_owned();
        check_metrics(&name, &text);
        let dashboard: Value = serde_json::from_str(&text).unwrap();
        assert!(seen.insert(dashboard["uid"].as_str().unwrap().to_owned()), "{name}: uid");
        let panels = dashboard["panels"].as_array().unwrap();
        let places: BTreeSet<_> = panels.iter().map(|it| it["gridPos"].to_string()).collect();
        let ids: BTreeSet<_> = panels.iter().map(|it| it["id"].to_string()).collect();
        assert!(panels.len() > 5 && places.len() == panels.len() && ids.len() == panels.len());
        for panel in panels {
            let asks = panel["targets"].as_array().is_some_and(|it| !it.is_empty());
            assert!(asks && panel["title"].is_string(), "{name}: {panel}");
        }
    }
    assert_eq!(seen.len(), 4);
}

#[test]
fn every_expression_of_a_dashboard_is_one_that_prometheus_reads() {
    let mut rules = String::from("groups: [{name: dashboards, rules: [\n");
    for file in files(&deploy().join("chart/dashboards"), "json") {
        let dashboard: Value = serde_json::from_str(&read(&file)).unwrap();
        for panel in dashboard["panels"].as_array().unwrap() {
            for target in panel["targets"].as_array().unwrap() {
                let expression = target["expr"].as_str().unwrap().replace("$instance", ".*");
                let expression = Value::from(expression);
                rules.push_str(&format!("  {{record: a:b, expr: {expression}}},\n"));
            }
        }
    }
    rules.push_str("]}]\n");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rules.yaml");
    std::fs::write(&file, &rules).unwrap();
    let (held, text) = run(Command::new("promtool").args(["check", "rules"]).arg(&file));
    assert!(held, "{text}\n{rules}");
}

#[test]
fn each_metric_has_help_and_a_place_on_a_dashboard() {
    let dashboards = files(&deploy().join("chart/dashboards"), "json");
    let dashboards: String = dashboards.iter().map(|it| read(it)).collect();
    let sources: String = metric_sources().iter().map(|it| read(it)).collect();
    // `Metric::counter("NAME", …`, on one line or several.
    let described: BTreeSet<&str> = sources
        .split("Metric::")
        .skip(1)
        .filter_map(|it| it.split_once('(')?.1.trim_start().strip_prefix('"')?.split('"').next())
        .collect();
    for name in known_metrics() {
        assert!(
            described.contains(name.as_str()),
            "{name} is in no table of metrics, with its help"
        );
        assert!(dashboards.contains(&name), "{name} is on no dashboard");
    }
}

/// The names of all alerts.
fn alerts() -> Vec<String> {
    let text = read(&deploy().join("chart/rules/alerts.yaml"));
    let names = text.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
    let names: Vec<String> = names.map(str::to_owned).collect();
    assert!(names.len() > 10, "{names:?}");
    names
}

fn check_metrics(file: &str, text: &str) {
    let known = known_metrics();
    let mut found = 0;
    for word in text.split(|it: char| !it.is_ascii_alphanumeric() && it != '_') {
        if !PREFIXES.iter().any(|it| word.starts_with(it)) {
            continue;
        }
        let plain = HISTOGRAM.iter().find_map(|it| word.strip_suffix(it)).unwrap_or(word);
        assert!(known.contains(plain), "{file} asks for {word}, which no metrics.rs has");
        found += 1;
    }
    assert!(found > 0, "{file} asks for nothing");
}

/// All names in the files that make metrics.
fn known_metrics() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for source in metric_sources() {
        let text = read(&source);
        let literals = text.split('"').skip(1).step_by(2);
        let ours = literals.filter(|it| PREFIXES.iter().any(|prefix| it.starts_with(prefix)));
        names.extend(ours.map(str::to_owned));
    }
    names
}

fn metric_sources() -> Vec<PathBuf> {
    let root = deploy().join("..");
    let mut sources = files(&root.join("boot/src"), "rs");
    for service in ["sip-edge", "media-relay", "scheduler", "queue-svc"] {
        sources.push(root.join(service).join("src/metrics.rs"));
    }
    sources
}

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|it| it.unwrap().path());
    let files: Vec<_> =
        entries.filter(|it| it.extension().is_some_and(|it| it == extension)).collect();
    assert!(!files.is_empty(), "{} is empty", folder.display());
    files
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()))
}
