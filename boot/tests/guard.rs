//! Who may call gRPC, by token and by certificate, and what the log says of what they changed.

use e2e::{Authority, NatsServer, Process};
use proto::sip_edge::v1::HangupRequest;
use proto::sip_edge::v1::sip_edge_client::SipEdgeClient;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_request::MessageRequest,
};

/// How long anything here may take before the test fails.
const LIMIT: Duration = Duration::from_secs(20);

const SERVICES: &str = "services-0123456789abcdef";
const ALICE: &str = "alice-0123456789abcdef";

#[tokio::test]
async fn only_who_has_a_token_may_call() {
    let (_nats, _folder, service) = with_tokens(&[]);
    let channel = open(&format!("http://{}", address(&service, "grpc"))).await;
    for (token, wanted) in [
        (None, Code::Unauthenticated),
        (Some("alice-0123456789abcdeX"), Code::Unauthenticated),
        (Some(ALICE), Code::Unimplemented), // It got through, to a service that has no such method.
        (Some(SERVICES), Code::Unimplemented),
    ] {
        assert_eq!(hang_up(&channel, token).await, wanted, "{token:?}");
    }
    assert_eq!(reflect(&channel, None).await, Code::Unauthenticated);
    assert_eq!(reflect(&channel, Some(ALICE)).await, Code::Ok);
    assert_eq!(health(&channel).await, Code::Ok); // Probes have no token.
}

#[tokio::test]
async fn what_somebody_changes_is_in_the_log_with_their_name_and_no_token() {
    let (_nats, _folder, service) = with_tokens(&[]);
    let channel = open(&format!("http://{}", address(&service, "grpc"))).await;
    assert_eq!(hang_up(&channel, Some(SERVICES)).await, Code::Unimplemented);
    assert_eq!(hang_up(&channel, Some(ALICE)).await, Code::Unimplemented);
    let line = service
        .wait_for("the audit line", LIMIT, |it| it.contains("\"audit\"").then(|| it.to_owned()))
        .unwrap();
    for wanted in [
        r#""method":"/sip_edge.v1.SipEdge/Hangup""#,
        r#""caller":"alice""#,
        r#""peer":"127.0.0.1:"#,
        r#""about":"call_id=c1""#,
        r#""outcome":"Unimplemented""#,
    ] {
        assert!(line.contains(wanted), "wanted {wanted} in {line}");
    }
    let output = service.output();
    assert_eq!(output.matches("\"audit\"").count(), 1, "the services' own calls too: {output}");
    assert!(!output.contains("0123456789abcdef"), "{output}");
}

#[tokio::test]
async fn without_reflection_nobody_learns_what_there_is() {
    let nats = NatsServer::start().unwrap();
    let service = start(&nats, &["--reflection", "off"]);
    let channel = open(&format!("http://{}", address(&service, "grpc"))).await;
    assert_eq!(reflect(&channel, None).await, Code::Unimplemented);
    assert_eq!(health(&channel).await, Code::Ok);
}

#[tokio::test]
async fn by_tls_only_a_certificate_of_the_authority_gets_in_and_probes_need_none() {
    let nats = NatsServer::start().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let strange = tempfile::tempdir().unwrap();
    let (ours, theirs) =
        (Certified::in_folder(folder.path()), Certified::in_folder(strange.path()));
    let path = |name: &str| folder.path().join(name).display().to_string();
    let service = start(
        &nats,
        &[
            "--grpc-cert",
            &path("localhost.pem"),
            "--grpc-key",
            &path("localhost.key"),
            "--grpc-ca",
            &path("authority.pem"),
            "--grpc-health",
            "127.0.0.1:0",
        ],
    );
    let grpc = address(&service, "grpc");
    let connect = |identity: Option<Identity>| {
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&ours.authority));
        let tls = identity.into_iter().fold(tls, ClientTlsConfig::identity);
        let url = format!("https://localhost:{}", grpc.rsplit(':').next().unwrap());
        let endpoint = Endpoint::from_shared(url).unwrap().tls_config(tls).unwrap();
        async move { health(&endpoint.connect_lazy()).await }
    };
    assert_eq!(connect(Some(ours.identity())).await, Code::Ok);
    assert_ne!(connect(Some(theirs.identity())).await, Code::Ok);
    assert_ne!(connect(None).await, Code::Ok);
    let probe = address(&service, "health");
    assert_eq!(health(&open(&format!("http://{probe}")).await).await, Code::Ok);
    assert_ne!(hang_up(&open(&format!("http://{probe}")).await, None).await, Code::Ok);
}

#[test]
fn files_that_are_not_what_their_flag_says_are_refused() {
    let nats = NatsServer::start().unwrap();
    let folder = tempfile::tempdir().unwrap();
    Certified::in_folder(folder.path());
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(path("short"), "a:b").unwrap();
    for (flags, wanted) in [
        (vec!["--grpc-token-file", "/nowhere"], "failed to read --grpc-token-file /nowhere"),
        (vec!["--grpc-token-file", &path("short")], "wanted NAME:TOKEN"),
        (vec!["--grpc-cert", &path("localhost.pem")], "--grpc-key"),
        (vec!["--grpc-ca", &path("authority.pem")], "--grpc-cert"),
        (vec!["--grpc-cert", &path("short"), "--grpc-key", &path("localhost.key")], "wanted PEM"),
    ] {
        let mut process = spawn(&nats, &flags);
        assert!(!process.wait(LIMIT).unwrap().success(), "{flags:?} started");
        let output = process.output();
        assert!(output.contains(wanted), "{flags:?} said {output:?}, wanted {wanted:?}");
    }
}

/// A certificate for localhost by an authority of its own, as the text of their files.
struct Certified {
    authority: String,
    certificate: String,
    key: String,
}

impl Certified {
    /// With the files `authority.pem`, `localhost.pem` and `localhost.key` in `folder`.
    fn in_folder(folder: &Path) -> Self {
        let authority = Authority::in_folder(folder).unwrap();
        let (certificate, key) = authority.certify("localhost").unwrap();
        let read = |path: &Path| std::fs::read_to_string(path).unwrap();
        Self {
            authority: read(&authority.file()),
            certificate: read(&certificate),
            key: read(&key),
        }
    }

    fn identity(&self) -> Identity {
        Identity::from_pem(&self.certificate, &self.key)
    }
}

fn with_tokens(flags: &[&str]) -> (NatsServer, TempDir, Process) {
    let nats = NatsServer::start().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokens");
    std::fs::write(&file, format!("services:{SERVICES}\nalice:{ALICE}\n")).unwrap();
    let file = file.display().to_string();
    let service = start(&nats, &[&["--grpc-token-file", file.as_str()], flags].concat());
    (nats, folder, service)
}

async fn open(url: &str) -> Channel {
    Endpoint::from_shared(url.to_owned()).unwrap().connect().await.unwrap()
}

fn with<T>(token: Option<&str>, message: T) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(token) = token {
        let value = format!("Bearer {token}").parse().unwrap();
        request.metadata_mut().insert("authorization", value);
    }
    request
}

async fn hang_up(channel: &Channel, token: Option<&str>) -> Code {
    let request = HangupRequest { call_id: "c1".into(), ..HangupRequest::default() };
    let done = SipEdgeClient::new(channel.clone()).hangup(with(token, request)).await;
    done.map_or_else(|status| status.code(), |_| Code::Ok)
}

async fn health(channel: &Channel) -> Code {
    let request = HealthCheckRequest { service: "bare.v1.Bare".to_owned() };
    let done = HealthClient::new(channel.clone()).check(request).await;
    done.map_or_else(|status| status.code(), |_| Code::Ok)
}

async fn reflect(channel: &Channel, token: Option<&str>) -> Code {
    let list = MessageRequest::ListServices(String::new());
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(list) };
    let requests = with(token, tokio_stream::once(request));
    let done = ServerReflectionClient::new(channel.clone()).server_reflection_info(requests).await;
    done.map_or_else(|status| status.code(), |_| Code::Ok)
}

fn start(nats: &NatsServer, flags: &[&str]) -> Process {
    let process = spawn(nats, flags);
    process.wait_for("that it serves", LIMIT, |it| it.contains("serving").then_some(())).unwrap();
    process
}

fn spawn(nats: &NatsServer, flags: &[&str]) -> Process {
    let mut program = std::env::current_exe().unwrap();
    program.pop(); // …/deps
    program.pop();
    let mut command = Command::new(program.join("examples/bare_service"));
    command.args(["--nats-url", &nats.url()]).args(flags);
    Process::spawn("bare-service", &mut command).unwrap()
}

/// Where it says that it serves `what`.
fn address(process: &Process, what: &str) -> String {
    let field = format!(r#""{what}":""#);
    let find = |line: &str| Some(line.split_once(&field)?.1.split('"').next()?.to_owned());
    process.wait_for("an address", LIMIT, find).unwrap()
}
