//! A phone registers once; sip-edge is killed, or another replica is asked: it is called all the
//! same.

use e2e::audio::Codec;
use e2e::phone::Phone;
use e2e::{Process, Service, Stack, USERS, binary};
use proto::sip_edge::v1::sip_edge_client::SipEdgeClient;
use proto::sip_edge::v1::{ListRegistrationsRequest, OriginateRequest};
use rsip::headers::auth::Algorithm;
use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::time::{Duration, Instant};
use tonic::transport::{Channel, Endpoint};

const PLAN: &str = r#"{"actions": [{"conference": {"name": "test1"}}]}"#;
const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn a_binding_survives_the_crash_of_sip_edge_and_is_known_to_others() -> anyhow::Result<()> {
    let mut stack = Stack::start()?;
    let (user, password) = USERS[0];
    let phone = Phone::start(user, Codec::Pcmu)?;
    phone.register(stack.sip(), password, Algorithm::Sha256)?;
    let other = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let replica = replica(&stack, other)?;
    let url = format!("http://{other}");
    let mut client = SipEdgeClient::new(Endpoint::from_shared(url)?.connect_lazy());
    wait_registered(&mut client, user).await?;
    let request = OriginateRequest {
        target: format!("user/{user}"),
        plan: Some(proto::json::from_json(PLAN)?),
        ..OriginateRequest::default()
    };
    let originating = tokio::spawn(async move { client.originate(request).await });
    let call = phone.invited()?.answer()?;
    originating.await??;
    call.bye()?;
    stack.wait_clean().await?; // It has deleted its media session.
    drop(replica);

    stack.kill(Service::SipEdge);
    stack.start_service(Service::SipEdge)?;
    wait_registered(&mut stack.sip_edge(), user).await?;
    let originating = stack.start_originate(&format!("user/{user}"), PLAN);
    let call = phone.invited()?.answer()?;
    originating.await??;
    call.bye()?;
    stack.wait_clean().await?;
    stack.stop()
}

/// Another sip-edge of the same stack.
fn replica(stack: &Stack, grpc: SocketAddr) -> anyhow::Result<Process> {
    let ports = stack.ports();
    let url = |port: u16| format!("http://127.0.0.1:{port}");
    let (user, password) = USERS[0];
    let mut command = Command::new(binary("sip-edge")?);
    command.args(["--grpc", &grpc.to_string(), "--sip", "127.0.0.1:0", "--edge-name", "other"]);
    command.args(["--nats-url", &format!("nats://127.0.0.1:{}", ports.nats)]);
    command.args(["--media-relay", &url(ports.media_relay), "--queue-svc", &url(ports.queue_svc)]);
    command.args(["--scheduler", &url(ports.scheduler), "--user", &format!("{user}:{password}")]);
    let process = Process::spawn("the other sip-edge", &mut command)?;
    let serves = |line: &str| (line.contains("serving") && line.contains("grpc")).then_some(());
    process.wait_for("that it serves", PATIENCE, serves)?;
    Ok(process)
}

async fn wait_registered(client: &mut SipEdgeClient<Channel>, user: &str) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let listed = client.list_registrations(ListRegistrationsRequest::default()).await?;
        if listed.into_inner().registrations.iter().any(|it| it.user == user) {
            return Ok(());
        }
        anyhow::ensure!(Instant::now() < deadline, "{user} is not registered there in time");
        tokio::task::yield_now().await;
    }
}
