//! gRPC: the server with health and reflection, and channels to the other services.

use anyhow::Context as _;
use std::time::Duration;
use tokio::net::TcpListener;
use tonic::transport::server::{Router, TcpIncoming};
use tonic::transport::{Channel, Endpoint, Server};

/// How long a connection to another service may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// An idle connection is probed so often, and given up when a probe is not answered in this time.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// A channel to another service. Connects when first used and again whenever it must, so services
/// may start in any order.
///
/// # Errors
/// If `url` is not `http://HOST:PORT`.
pub fn channel(flag: &str, url: &str) -> anyhow::Result<Channel> {
    let endpoint = Endpoint::from_shared(url.to_owned())
        .ok()
        .filter(|endpoint| endpoint.uri().scheme_str() == Some("http"))
        .filter(|endpoint| endpoint.uri().port().is_some())
        .with_context(|| format!("read {flag} {url:?} (wanted e.g. `http://127.0.0.1:50051`)"))?;
    Ok(endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .connect_lazy())
}

/// The server with `routes`, health and both versions of reflection (grpcurl uses v1, older tools
/// v1alpha).
pub(crate) fn server(
    health: tonic_health::pb::health_server::HealthServer<
        impl tonic_health::pb::health_server::Health,
    >,
    routes: tonic::service::Routes,
) -> anyhow::Result<Router> {
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    Ok(Server::builder()
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE))
        .add_routes(routes)
        .add_service(health)
        .add_service(reflection().build_v1().context("load protobuf descriptors")?)
        .add_service(reflection().build_v1alpha().context("load protobuf descriptors")?))
}

pub(crate) fn incoming(listener: TcpListener) -> TcpIncoming {
    TcpIncoming::from(listener).with_nodelay(Some(true))
}
