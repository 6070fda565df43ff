//! A sip-edge that cannot do its work does not start: one clear line on stderr, exit code not 0.

use e2e::{NatsServer, Process};
use std::net::{TcpListener, UdpSocket};
use std::process::Command;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(30);
/// Nothing listens there.
const NOWHERE: &str = "nats://127.0.0.1:1";

#[test]
fn a_bad_flag_is_named_with_what_is_wanted() {
    check(&["--sip", "nonsense"], "invalid value 'nonsense' for '--sip <ADDR:PORT>'");
    check(&["--user", "no-password"], "wanted NAME:PASSWORD");
    check(&["--listen", "ws:127.0.0.1:0"], "wanted udp:ADDR:PORT");
    check(&["--listen", "tls:127.0.0.1:0"], "give --tls-cert and --tls-key");
    check(
        &["--tls-cert", "/nonexistent", "--tls-key", "/nonexistent"],
        "sip-edge: failed to read --tls-cert /nonexistent",
    );
    check(&["--edge-name", "a b"], "wanted 1 to 64 of [A-Za-z0-9_.-]");
    check(&["--media-relay", "127.0.0.1:1"], "sip-edge: failed to read --media-relay");
    check(&["--users", "/nonexistent"], "sip-edge: failed to read --users /nonexistent");
}

#[test]
fn a_dial_plan_that_is_none_names_route_and_field() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("plan.yaml");
    std::fs::write(&file, "routes: [{name: a, plan: {actions: [{play: {}}]}}]").unwrap();
    let file = file.to_str().unwrap();
    let expected = format!(
        "sip-edge: failed to read --dial-plan {file}: route \"a\": plan.actions[0].play.file: got"
    );
    check(&["--dial-plan", file], &expected);
}

#[test]
fn a_taken_port_is_named() {
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let sip = udp.local_addr().unwrap().to_string();
    check(&["--sip", &sip], &format!("sip-edge: failed to bind SIP to UDP {sip}"));
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let grpc = tcp.local_addr().unwrap().to_string();
    check(&["--grpc", &grpc], &format!("sip-edge: failed to bind --grpc {grpc}"));
}

#[test]
fn nats_that_does_not_answer_is_named() {
    let expected = format!("sip-edge: failed to connect to NATS at {NOWHERE} (--nats-url)");
    check(&[], &expected);
}

#[test]
fn every_address_needs_one_to_advertise() {
    let nats = NatsServer::start().unwrap();
    check(
        &["--sip", "0.0.0.0:0", "--nats-url", &nats.url()],
        "it is every address of this host; say by --advertise",
    );
}

#[test]
fn it_starts_without_the_other_services_and_drains_on_sigterm() {
    let nats = NatsServer::start().unwrap();
    let mut process = spawn(&["--nats-url", &nats.url()]);
    process
        .wait_for("that it serves", LIMIT, |line| line.contains("serving").then_some(()))
        .unwrap();
    process.signal("TERM").unwrap();
    let status = process.wait(LIMIT).unwrap();
    assert!(status.success(), "{status}: {}", process.output());
    assert!(process.output().contains("\"drained\""), "{}", process.output());
}

/// Starts with these flags, which are wrong, and expects a line with this text.
fn check(flags: &[&str], expected: &str) {
    let mut process = spawn(flags);
    let status = process.wait(LIMIT).unwrap();
    let output = process.output();
    assert!(!status.success(), "{flags:?} started: {output}");
    let lines = output.lines().filter(|line| line.contains(expected)).count();
    assert_eq!(lines, 1, "{flags:?} said {output:?}, wanted {expected:?}");
}

/// On free ports; what `flags` has comes last and wins.
fn spawn(flags: &[&str]) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sip-edge"));
    let given = |flag: &str| flags.contains(&flag);
    let defaults = [("--grpc", "127.0.0.1:0"), ("--sip", "127.0.0.1:0"), ("--nats-url", NOWHERE)];
    for (flag, value) in defaults.into_iter().filter(|(flag, _)| !given(flag)) {
        command.args([flag, value]);
    }
    Process::spawn("sip-edge", command.args(flags)).unwrap()
}
