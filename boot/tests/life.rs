//! The life of a process, seen from outside: start, refuse to start, drain, end, die.

use e2e::{NatsServer, Process};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

/// How long anything here may take before the test fails.
const LIMIT: Duration = Duration::from_secs(20);

#[test]
fn the_first_sigterm_drains_and_the_second_ends_at_once() {
    let nats = NatsServer::start().unwrap();
    let mut busy = start(&nats, &["--busy"]);
    busy.signal("TERM").unwrap();
    wait_for(&busy, "draining");
    busy.signal("TERM").unwrap();
    wait_for(&busy, "second signal");
    assert!(busy.wait(LIMIT).unwrap().success());
}

#[test]
fn an_idle_service_ends_with_the_first_sigterm() {
    let nats = NatsServer::start().unwrap();
    let mut idle = start(&nats, &[]);
    idle.signal("TERM").unwrap();
    assert!(idle.wait(LIMIT).unwrap().success(), "{}", idle.output());
}

#[test]
fn the_drain_has_a_limit() {
    let nats = NatsServer::start().unwrap();
    let mut busy = start(&nats, &["--busy", "--drain", "10ms"]);
    busy.signal("INT").unwrap();
    wait_for(&busy, "drain timed out");
    assert!(busy.wait(LIMIT).unwrap().success());
}

#[tokio::test]
async fn the_last_events_of_a_drain_are_not_lost() {
    let nats = NatsServer::start().unwrap();
    let mut service = start(&nats, &["--last-words", "2000"]);
    service.signal("TERM").unwrap();
    assert!(service.wait(LIMIT).unwrap().success(), "{}", service.output());
    let client = async_nats::connect(nats.url()).await.unwrap();
    let jetstream = async_nats::jetstream::new(client);
    let stream = jetstream.get_stream(proto::subjects::STREAM).await.unwrap();
    assert_eq!(stream.get_info().await.unwrap().state.messages, 2_000);
}

#[test]
fn a_nats_that_is_away_does_not_hold_up_the_end() {
    let mut nats = NatsServer::start().unwrap();
    let mut service = start(&nats, &["--last-words", "7"]);
    nats.process().kill();
    wait_for(&service, "lost NATS");
    service.signal("TERM").unwrap();
    assert!(service.wait(LIMIT).unwrap().success());
    let told = r#""message":"ending without having published the last events","events":7"#;
    assert!(service.output().contains(told), "{}", service.output());
}

#[tokio::test]
async fn health_is_told_per_service_and_turns_while_draining() {
    let nats = NatsServer::start().unwrap();
    let busy = start(&nats, &["--busy"]);
    let url = format!("http://{}", grpc_address(&busy));
    let channel = tonic::transport::Endpoint::from_shared(url).unwrap().connect().await.unwrap();
    let mut client = HealthClient::new(channel);
    let request = HealthCheckRequest { service: "bare.v1.Bare".to_owned() };
    let mut watched = client.watch(request).await.unwrap().into_inner();
    let first = watched.message().await.unwrap().unwrap();
    assert_eq!(first.status(), ServingStatus::Serving);
    let unknown = HealthCheckRequest { service: "bare.v1.Nobody".to_owned() };
    let refused = client.check(unknown).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::NotFound);
    busy.signal("TERM").unwrap();
    let second = watched.message().await.unwrap().unwrap();
    assert_eq!(second.status(), ServingStatus::NotServing);
}

#[test]
fn metrics_are_on_their_own_page() {
    let nats = NatsServer::start().unwrap();
    let port = free_port();
    let service = start(&nats, &["--metrics", &format!("127.0.0.1:{port}")]);
    let mut page = TcpStream::connect(("127.0.0.1", port)).unwrap();
    page.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    page.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    assert!(text.contains("holdfast_build_info{"), "{text}");
    drop(service);
}

#[test]
fn what_it_cannot_start_with_is_one_line_and_an_exit_code() {
    let nats = NatsServer::start().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    for (flags, wanted) in [
        (&["--grpc", &taken][..], "failed to bind --grpc 127.0.0.1:"),
        (&["--metrics", &taken], "failed to bind --metrics 127.0.0.1:"),
        (
            &["--nats-url", &format!("nats://{taken}")],
            "failed to connect to NATS at nats://127.0.0.1:",
        ),
        (&["--nats-url", "nats://127.0.0.1:1"], "(--nats-url)"),
        (&["--log", "loud=maybe=no"], "failed to read --log"),
    ] {
        let mut process = spawn(&nats, flags);
        let status = process.wait(LIMIT).unwrap();
        let output = process.output();
        assert!(!status.success(), "{flags:?} started: {output}");
        assert_eq!(output.lines().count(), 1, "{flags:?} said:\n{output}");
        assert!(output.contains(wanted), "{flags:?} said {output:?}, wanted {wanted:?}");
    }
}

#[test]
fn a_bad_flag_is_refused_with_what_is_wanted() {
    let nats = NatsServer::start().unwrap();
    for (flags, wanted) in [
        (["--drain", "soon"], "--drain <DURATION>"),
        (["--grpc", "localhost"], "--grpc <ADDR:PORT>"),
        (["--log-format", "xml"], "human"),
    ] {
        let mut process = spawn(&nats, &flags);
        assert_eq!(process.wait(LIMIT).unwrap().code(), Some(2));
        assert!(process.output().contains(wanted), "{}", process.output());
    }
}

#[test]
fn a_vital_task_that_dies_takes_the_process_down() {
    let nats = NatsServer::start().unwrap();
    for (how, wanted) in [
        ("error", "failed to keep a doomed task running: find the file"),
        ("end", "failed to keep a doomed task running: it has ended"),
        ("panic", "an invariant is broken"),
    ] {
        let mut process = spawn(&nats, &["--die-by", how]);
        assert!(!process.wait(LIMIT).unwrap().success(), "{how}: {}", process.output());
        assert!(process.output().contains(wanted), "{how}: {}", process.output());
    }
}

fn start(nats: &NatsServer, flags: &[&str]) -> Process {
    let process = spawn(nats, flags);
    wait_for(&process, "serving");
    process
}

/// Flags of `flags` win over the usual ones because clap would refuse a repetition.
fn spawn(nats: &NatsServer, flags: &[&str]) -> Process {
    let mut program = std::env::current_exe().unwrap();
    program.pop(); // …/deps
    program.pop();
    let mut command = Command::new(program.join("examples/bare_service"));
    if !flags.contains(&"--nats-url") {
        command.args(["--nats-url", &nats.url()]);
    }
    Process::spawn("bare-service", command.args(flags)).unwrap()
}

fn wait_for(process: &Process, text: &str) {
    process.wait_for(text, LIMIT, |line| line.contains(text).then_some(())).unwrap();
}

fn grpc_address(process: &Process) -> SocketAddr {
    let address = |line: &str| line.split_once(r#""grpc":""#)?.1.split('"').next()?.parse().ok();
    process.wait_for("its gRPC port", LIMIT, address).unwrap()
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
