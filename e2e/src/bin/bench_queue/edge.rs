//! A sip-edge at which every agent answers at once, and which says when each was rung.

use anyhow::Context as _;
use proto::sip_edge::v1::*;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Instant;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tonic::codegen::{Body, BoxFuture, Poll, Service, StdError, http};
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

/// An agent was rung.
pub(crate) struct Rung {
    pub(crate) target: String,
    pub(crate) call_id: String,
    pub(crate) at: Instant,
}

#[derive(Clone)]
pub(crate) struct Edge {
    rung: mpsc::UnboundedSender<Rung>,
}

impl Edge {
    /// Serves until the process ends; its address, and who is rung. Without a limit, because what is
    /// measured must not wait for who measures.
    pub(crate) async fn start() -> anyhow::Result<(SocketAddr, mpsc::UnboundedReceiver<Rung>)> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("bind")?;
        let addr = listener.local_addr()?;
        let (rung, heard) = mpsc::unbounded_channel();
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let serving = Server::builder().add_service(Self { rung }).serve_with_incoming(incoming);
        tokio::spawn(async move { serving.await.expect("a listener serves") });
        Ok((addr, heard))
    }
}

impl NamedService for Edge {
    const NAME: &'static str = "sip_edge.v1.SipEdge";
}

type Ready<T> = std::future::Ready<Result<Response<T>, Status>>;

impl Edge {
    fn ring(&self, request: RingRequest) -> Ready<RingResponse> {
        let at = Instant::now();
        let RingRequest { call_id, target, .. } = request;
        let _ = self.rung.send(Rung { target, call_id, at }); // It may have been measured.
        let outcome = RingOutcome::Connected.into();
        let response = RingResponse { outcome, sip_status: 200, ..RingResponse::default() };
        std::future::ready(Ok(Response::new(response)))
    }

    fn get_call(&self, request: GetCallRequest) -> Ready<Call> {
        let (call_id, state) = (request.call_id, CallState::Answered.into());
        std::future::ready(Ok(Response::new(Call { call_id, state, ..Call::default() })))
    }
}

impl<B> Service<http::Request<B>> for Edge
where
    B: Body + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let edge = self.clone();
        Box::pin(async move {
            let method = request.uri().path().rsplit('/').next().unwrap_or_default();
            match method {
                "Ring" => {
                    let mut grpc = Grpc::new(tonic_prost::ProstCodec::default());
                    Ok(grpc.unary::<_, B>(AsRing(edge), request).await)
                }
                "GetCall" => {
                    let mut grpc = Grpc::new(tonic_prost::ProstCodec::default());
                    Ok(grpc.unary::<_, B>(AsGetCall(edge), request).await)
                }
                other => Ok(Status::unimplemented(format!("no {other} here")).into_http()),
            }
        })
    }
}

/// Each method is a service of its own to tonic.
struct AsRing(Edge);
struct AsGetCall(Edge);

impl UnaryService<RingRequest> for AsRing {
    type Response = RingResponse;
    type Future = Ready<RingResponse>;

    fn call(&mut self, request: Request<RingRequest>) -> Self::Future {
        self.0.ring(request.into_inner())
    }
}

impl UnaryService<GetCallRequest> for AsGetCall {
    type Response = Call;
    type Future = Ready<Call>;

    fn call(&mut self, request: Request<GetCallRequest>) -> Self::Future {
        self.0.get_call(request.into_inner())
    }
}
