//! gRPC: the server with health and reflection, and channels to the other services.

use crate::Switch;
use crate::audit::USER_AGENT;
use crate::credentials::Credentials;
use crate::gated::{Connector, Gate};
use crate::guard::Guard;
use crate::trace::{Place, TRACEPARENT};
use anyhow::{Context as _, anyhow};
use std::time::Duration;
use tokio::net::TcpListener;
use tonic::Status;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::server::{Router, TcpIncoming};
use tonic::transport::{self, Endpoint, Server};
use tonic_health::pb::health_server::{Health, HealthServer};
use tower_layer::{Identity, Stack};

/// How long a connection to another service may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// An idle connection is probed so often, and given up when a probe is not answered in this time.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// To another service, with what this process shows of itself.
pub type Channel = InterceptedService<transport::Channel, Shown>;

/// Puts our token into every request, if we have one, and where it belongs, if it does.
#[derive(Clone, Debug)]
pub struct Shown(Option<&'static MetadataValue<Ascii>>);

impl Interceptor for Shown {
    fn call(&mut self, mut request: tonic::Request<()>) -> Result<tonic::Request<()>, Status> {
        if let Some(shown) = self.0 {
            request.metadata_mut().insert("authorization", shown.clone());
        }
        if let Some(place) = Place::current().and_then(|it| it.parse().ok()) {
            request.metadata_mut().insert(TRACEPARENT, place);
        }
        Ok(request)
    }
}

/// A channel to another service, by TLS if its URL is `https:`. Connects when first used and again
/// whenever it must, so services may start in any order.
///
/// # Errors
/// If `url` is not `http://HOST:PORT`, or `https:` without `--grpc-ca`.
pub fn channel(flag: &str, url: &str) -> anyhow::Result<Channel> {
    Ok(shown(endpoint(flag, url)?.connect_lazy()))
}

/// As [`channel`], but requests leave this process only while `gate` is open; those that did not until
/// then fail.
///
/// # Errors
/// As [`channel`].
pub fn gated_channel(flag: &str, url: &str, gate: Gate) -> anyhow::Result<Channel> {
    Ok(shown(endpoint(flag, url)?.connect_with_connector_lazy(Connector(gate))))
}

fn shown(channel: transport::Channel) -> Channel {
    InterceptedService::new(channel, Shown(Credentials::of_process().shown()))
}

fn endpoint(flag: &str, url: &str) -> anyhow::Result<Endpoint> {
    let credentials = Credentials::of_process();
    let wanted = || format!("read {flag} {url:?} (wanted e.g. `http://127.0.0.1:50051`)");
    let endpoint = Endpoint::from_shared(url.to_owned())
        .ok()
        .filter(|endpoint| endpoint.uri().port().is_some())
        .with_context(wanted)?;
    let endpoint = match endpoint.uri().scheme_str() {
        Some("http") => endpoint,
        Some("https") => {
            let tls = credentials.client_tls().with_context(|| {
                format!("read {flag} {url:?}: `https:` needs --grpc-ca, --grpc-cert and --grpc-key")
            })?;
            endpoint.tls_config(tls).with_context(|| format!("set up TLS for {flag} {url:?}"))?
        }
        _ => return Err(anyhow!(wanted())),
    };
    let endpoint = endpoint.user_agent(USER_AGENT).context("name ourselves")?;
    Ok(endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE))
}

/// The server with `routes`, health and, if `reflection` is on, both versions of it (grpcurl uses v1,
/// older tools v1alpha), behind the guard.
pub(crate) fn server<H: Health>(
    health: HealthServer<H>,
    routes: tonic::service::Routes,
    reflection: Switch,
) -> anyhow::Result<Router<Stack<Guard, Identity>>> {
    let credentials = Credentials::of_process();
    let mut server = Server::builder()
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE));
    if let Some(tls) = credentials.server_tls() {
        server = server.tls_config(tls).context("use --grpc-cert, --grpc-key and --grpc-ca")?;
    }
    let mut server = server.layer(Guard { credentials });
    let server = server.add_routes(routes).add_service(health);
    if reflection == Switch::Off {
        return Ok(server);
    }
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    Ok(server
        .add_service(reflection().build_v1().context("load protobuf descriptors")?)
        .add_service(reflection().build_v1alpha().context("load protobuf descriptors")?))
}

/// Serves health alone, to anyone, until the process ends.
pub(crate) async fn serve_health<H: Health>(
    listener: TcpListener,
    health: HealthServer<H>,
) -> anyhow::Result<()> {
    let server = Server::builder().http2_keepalive_interval(Some(KEEP_ALIVE)).add_service(health);
    server.serve_with_incoming(incoming(listener)).await.context("serve --grpc-health")
}

pub(crate) fn incoming(listener: TcpListener) -> TcpIncoming {
    TcpIncoming::from(listener).with_nodelay(Some(true))
}
