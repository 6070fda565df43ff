//! All four services with tokens and mutual TLS between them: calls go on as ever, and nobody else gets
//! in.

use anyhow::{Context as _, ensure};
use e2e::audio::{Codec, tune};
use e2e::phone::{PATIENCE, Phone};
use e2e::{Authority, NatsServer, Ports, Process, QUEUE_USER, SERVICES, Service, binary};
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(30);
const SERVICES_TOKEN: &str = "services-0123456789abcdef";
const ALICE: &str = "alice-0123456789abcdef";

#[tokio::test(flavor = "multi_thread")]
async fn callers_wait_and_are_hung_up_on_time_behind_tokens_and_certificates() -> anyhow::Result<()>
{
    let folder = tempfile::tempdir()?;
    let installation = Installation::start(folder.path())?;
    let queue = format!(
        r#"{{"queue": {{"name": "abc", "uri": "sip:{QUEUE_USER}@127.0.0.1:{}", "mohdir": "moh", "mohfile": "music.wav"}}}}"#,
        installation.ports.sip
    );
    let ask = |token: Option<&str>| {
        installation.grpcurl(Service::QueueSvc, token, &queue, "queue.v1.Queues/CreateQueue")
    };
    for stranger in [None, Some("alice-0123456789abcdeX")] {
        let refused = ask(stranger).unwrap_err().to_string();
        ensure!(refused.contains("Unauthenticated"), "{refused}");
    }
    ask(Some(ALICE))?;

    // sip-edge asks media-relay and queue-svc.
    let caller = Phone::start("alice", Codec::Pcmu)?;
    let edge = ([127, 0, 0, 1], installation.ports.sip).into();
    let uri = format!("sip:{QUEUE_USER}@127.0.0.1:{}", installation.ports.sip);
    let waiting = caller.dial(edge, &uri)?;
    let calls = installation.grpcurl(
        Service::SipEdge,
        Some(ALICE),
        "{}",
        "sip_edge.v1.SipEdge/ListCalls",
    )?;
    let call_id = calls["calls"][0]["callId"].as_str().context("find the call")?.to_owned();

    // queue-svc asks sip-edge.
    let outcome = installation.grpcurl(
        Service::QueueSvc,
        Some(ALICE),
        r#"{"queue": "abc", "agent": "user/1001"}"#,
        "queue.v1.Queues/Retrieve",
    )?;
    ensure!(outcome["outcome"] == "RETRIEVE_OUTCOME_UNREACHABLE", "{outcome}");

    // The scheduler asks sip-edge.
    installation.grpcurl(
        Service::Scheduler,
        Some(ALICE),
        &format!(r#"{{"call_id": "{call_id}", "hangup": {{}}, "after_ms": 1}}"#),
        "scheduler.v1.Scheduler/Schedule",
    )?;
    caller.wait_bye(PATIENCE)?;
    drop(waiting);

    let audited = installation.services[2].output();
    for wanted in [r#""caller":"alice""#, r#""about":"name=abc""#, r#""about":"queue=abc""#] {
        ensure!(audited.contains(wanted), "wanted {wanted} in {audited}");
    }
    for service in &installation.services {
        ensure!(!service.output().contains("0123456789abcdef"), "a token is in the log");
    }
    Ok(())
}

/// The four services, with nats-server.
struct Installation {
    ports: Ports,
    /// In the order of [`SERVICES`]; they go before their NATS does.
    services: Vec<Process>,
    _nats: NatsServer,
    authority: String,
    certificate: String,
    key: String,
}

impl Installation {
    fn start(folder: &Path) -> anyhow::Result<Self> {
        let ports = Ports::free()?;
        std::fs::create_dir_all(folder.join("media/moh"))?;
        std::fs::create_dir_all(folder.join("nats"))?;
        tune(1, 2_000).write(&folder.join("media/moh/music.wav"))?;
        let tokens = folder.join("tokens");
        std::fs::write(&tokens, format!("services:{SERVICES_TOKEN}\nalice:{ALICE}\n"))?;
        let authority = Authority::in_folder(folder)?;
        let (certificate, key) = authority.certify("localhost")?;
        let text = |path: &Path| path.display().to_string();
        let nats = NatsServer::start_at(&folder.join("nats"), Some(ports.nats))?;
        let mut it = Self {
            ports,
            services: Vec::new(),
            _nats: nats,
            authority: text(&authority.file()),
            certificate: text(&certificate),
            key: text(&key),
        };
        for service in SERVICES {
            let mut command = Command::new(binary(service.name())?);
            command.current_dir(folder).args(it.flags(service, &text(&tokens)));
            let process = Process::spawn(service.name(), &mut command)?;
            process.wait_for("that it serves", LIMIT, |line| {
                (line.contains("serving") && line.contains("grpc")).then_some(())
            })?;
            it.services.push(process);
        }
        Ok(it)
    }

    fn flags(&self, service: Service, tokens: &str) -> Vec<String> {
        let ports = self.ports;
        let url =
            |flag: &str, service| format!("--{flag}=https://localhost:{}", ports.grpc(service));
        let edge = url("sip-edge", Service::SipEdge);
        let own = match service {
            Service::MediaRelay => vec!["--media-dir=media".to_owned()],
            Service::Scheduler => vec!["--database-url=sqlite:scheduler.db".to_owned(), edge],
            Service::QueueSvc => vec!["--database-url=sqlite:queue.db".to_owned(), edge],
            Service::SipEdge => vec![
                format!("--sip=127.0.0.1:{}", ports.sip),
                url("media-relay", Service::MediaRelay),
                url("scheduler", Service::Scheduler),
                url("queue-svc", Service::QueueSvc),
            ],
        };
        let all = [
            format!("--grpc=127.0.0.1:{}", ports.grpc(service)),
            format!("--nats-url=nats://127.0.0.1:{}", ports.nats),
            format!("--grpc-token-file={tokens}"),
            format!("--grpc-cert={}", self.certificate),
            format!("--grpc-key={}", self.key),
            format!("--grpc-ca={}", self.authority),
            "--drain=1s".to_owned(),
            "--log-format=json".to_owned(),
        ];
        all.into_iter().chain(own).collect()
    }

    /// What grpcurl prints; its complaint if the method fails.
    fn grpcurl(
        &self,
        service: Service,
        token: Option<&str>,
        request: &str,
        method: &str,
    ) -> anyhow::Result<Value> {
        let built = binary("sip-edge")?;
        let tools = built.ancestors().nth(2).context("find target/tools")?.join("tools");
        let mut command = Command::new(tools.join("grpcurl"));
        command.args(["-cacert", &self.authority, "-cert", &self.certificate, "-key", &self.key]);
        if let Some(token) = token {
            command.args(["-H", &format!("authorization: Bearer {token}")]);
        }
        let address = format!("localhost:{}", self.ports.grpc(service));
        let output =
            command.args(["-d", request, &address, method]).output().context("run grpcurl")?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(serde_json::from_slice(&output.stdout)?)
    }
}
