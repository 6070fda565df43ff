//! The Helm chart: rendered for four kinds of operators, and held against the schemas of Kubernetes.

use crate::{deploy, run, tool};
use expect_test::expect_file;
use serde::Deserialize as _;
use serde_yaml_ng::Value;
use std::io::Write as _;
use std::process::{Command, Stdio};

/// Values files beside the chart's own defaults.
const VALUES: [&str; 3] = ["minimal", "ha", "hardened"];

fn helm(command: &str, values: Option<&str>, set: &[&str]) -> Command {
    let mut helm = Command::new(tool("helm"));
    let chart = deploy().join("chart");
    helm.arg(command);
    if command == "template" {
        helm.arg("holdfast");
    }
    helm.arg(&chart);
    if let Some(values) = values {
        helm.arg("--values").arg(chart.join(format!("ci/{values}.yaml")));
    }
    set.iter().for_each(|it| {
        helm.args(["--set", it]);
    });
    helm
}

fn render(values: Option<&str>, set: &[&str]) -> String {
    let (held, text) = run(&mut helm("template", values, set));
    assert!(held, "{values:?} {set:?}: {text}");
    text
}

/// The manifests of one kind, by name.
pub(crate) fn manifests(values: Option<&str>, set: &[&str], kind: &str) -> Vec<(String, Value)> {
    let text = render(values, set);
    let documents = serde_yaml_ng::Deserializer::from_str(&text);
    let documents = documents.map(|it| Value::deserialize(it).expect("YAML"));
    let of_kind = documents.filter(|it| it["kind"] == kind);
    of_kind.map(|it| (it["metadata"]["name"].as_str().unwrap().to_owned(), it)).collect()
}

fn every_values() -> impl Iterator<Item = Option<&'static str>> {
    std::iter::once(None).chain(VALUES.map(Some))
}

#[test]
fn the_chart_passes_lint_with_all_values() {
    for values in every_values() {
        let (held, text) = run(helm("lint", values, &[]).arg("--strict"));
        assert!(held, "{values:?}: {text}");
    }
}

#[test]
fn the_default_manifests_are_those_that_were_reviewed() {
    // UPDATE_EXPECT=1 writes the file anew.
    expect_file![deploy().join("chart/ci/default.rendered.yaml")].assert_eq(&render(None, &[]));
}

#[test]
fn kubernetes_takes_every_manifest() {
    for values in every_values() {
        let (held, text) = kubeconform(&render(values, &[]));
        assert!(held && text.contains("Errors: 0, Skipped: 0"), "{values:?}: {text}");
    }
}

#[test]
fn a_field_that_kubernetes_does_not_know_is_found() {
    let wrong = render(None, &[]).replace("automountServiceAccountToken:", "automountToken:");
    let (held, text) = kubeconform(&wrong);
    assert!(!held && text.contains("automountToken"), "{text}");
}

fn kubeconform(manifests: &str) -> (bool, String) {
    let schemas = std::fs::read_dir(tool("schemas")).unwrap().next().unwrap().unwrap().path();
    let location = format!("{}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json", schemas.display());
    let mut kubeconform = Command::new(tool("kubeconform"));
    kubeconform.args(["-strict", "-summary", "-schema-location", &location]);
    let mut child = kubeconform
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(manifests.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

#[test]
fn values_that_cannot_work_are_refused_with_the_remedy() {
    for (set, wanted) in [
        ("scheduler.replicas=2", "Set scheduler.database to PostgreSQL"),
        ("queueSvc.replicas=2", "Set queueSvc.database to PostgreSQL or MariaDB"),
        ("sipEdge.replicas=2", "fewer replicas than sip-edges"),
        ("mediaRelay.rtpPorts.first=30000", "first is not below last"),
        ("sipEdge.replica=1", "sipEdge"),
        ("sipEdge.ports.sip=70000", "/sipEdge/ports/sip"),
        ("nats.url=http://nats:4222", "/nats/url"),
        ("mediaRelay.state.keptBy=disk", "/mediaRelay/state/keptBy"),
        ("nats.login.user=holdfast", "Set nats.login.user and nats.login.secret"),
        ("sipEdge.callRecords.url=sqlite:calls.db", "/sipEdge/callRecords/url"),
    ] {
        let (held, text) = run(&mut helm("template", None, &[set]));
        assert!(!held && text.contains(wanted), "{set}: wanted {wanted:?} in {text}");
    }
}

#[test]
fn a_pod_gets_more_time_to_end_than_its_service_takes() {
    for (name, it) in manifests(None, &["scheduler.drainSeconds=100"], "StatefulSet") {
        let pod = &it["spec"]["template"]["spec"];
        let args = pod["containers"][0]["args"].as_sequence().unwrap();
        let drain = args.iter().find_map(|it| it.as_str()?.strip_prefix("--drain=")).unwrap();
        let drain: u64 = drain.strip_suffix('s').unwrap().parse().unwrap();
        assert_eq!(pod["terminationGracePeriodSeconds"].as_u64(), Some(drain + 30), "{name}");
        assert!(!name.ends_with("scheduler") || drain == 100);
    }
}

#[test]
fn no_container_may_more_than_it_needs() {
    for values in every_values() {
        for (name, it) in manifests(values, &[], "StatefulSet") {
            let pod = &it["spec"]["template"]["spec"];
            let container = &pod["containers"][0]["securityContext"];
            assert_eq!(container["allowPrivilegeEscalation"], false, "{name}");
            assert_eq!(container["readOnlyRootFilesystem"], true, "{name}");
            assert_eq!(container["capabilities"]["drop"][0], "ALL", "{name}");
            let kernel = values == Some("hardened") && name.ends_with("media-relay");
            assert_eq!(pod["securityContext"]["runAsNonRoot"], !kernel, "{name}");
            assert_eq!(container["capabilities"]["add"].is_null(), !kernel, "{name}");
            assert_eq!(pod["automountServiceAccountToken"], false, "{name}");
        }
    }
}

#[test]
fn secrets_come_from_secrets_and_are_on_no_command_line() {
    let rendered = render(Some("hardened"), &[]);
    assert!(!rendered.contains("kind: Secret\n"));
    for (name, it) in manifests(Some("hardened"), &[], "StatefulSet") {
        let env = it["spec"]["template"]["spec"]["containers"][0]["env"].as_sequence().unwrap();
        let find = |wanted: &str| env.iter().find(|it| it["name"] == wanted);
        if !name.ends_with("media-relay") {
            let nats = find("HOLDFAST_NATS_URL").unwrap();
            assert_eq!(nats["valueFrom"]["secretKeyRef"]["name"], "nats-url", "{name}");
        }
        if name.ends_with("scheduler") {
            let database = find("HOLDFAST_DATABASE_URL").unwrap();
            assert_eq!(database["valueFrom"]["secretKeyRef"]["name"], "scheduler-database");
        }
    }
}

#[test]
fn a_new_dial_plan_makes_new_pods() {
    let checksum = |set: &[&str]| {
        let edges = manifests(Some("hardened"), set, "StatefulSet");
        let (_, edge) = edges.iter().find(|(name, _)| name.ends_with("sip-edge")).unwrap();
        edge["spec"]["template"]["metadata"]["annotations"]["checksum/dial-plan"].clone()
    };
    let before = checksum(&[]);
    assert!(before.is_string());
    assert_ne!(before, checksum(&["sipEdge.dialPlan.routes[0].name=other"]));
}

#[test]
fn each_name_that_a_service_is_given_is_one_that_there_is() {
    for values in every_values() {
        let services = manifests(values, &[], "Service");
        let sets = manifests(values, &[], "StatefulSet");
        let exists = |name: &str| services.iter().any(|(it, _)| it == name);
        for (name, it) in &sets {
            assert!(exists(it["spec"]["serviceName"].as_str().unwrap()), "{values:?} {name}");
            for arg in
                it["spec"]["template"]["spec"]["containers"][0]["args"].as_sequence().unwrap()
            {
                let arg = arg.as_str().unwrap();
                let Some((_, host)) = arg.split_once("://") else { continue };
                if arg.starts_with("--otlp-endpoint=") {
                    continue; // Not one of ours.
                }
                let (host, _port) = host.split_once(".default.svc:").unwrap();
                let service = host.rsplit('.').next().unwrap();
                let off =
                    values.is_some_and(|it| it != "hardened") && service.contains("queue-svc");
                assert!(off || exists(service), "{values:?} {name}: {arg:?}");
            }
        }
    }
}
