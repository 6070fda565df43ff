//! A sip-edge without calls, for what is about the scheduler alone: every `Hangup` has its effect once
//! per task and occurrence, as at the real one, and is recorded.

use anyhow::Context as _;
use proto::sip_edge::v1::{Call, HangupRequest, HangupResponse};
use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tonic::codegen::{Body, BoxFuture, Poll, Service, StdError, http};
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

/// What has come for one task and occurrence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effect {
    /// When the first request came, in Unix ms: that one had the effect.
    pub at_unix_ms: i64,
    /// Requests in all; those after the first were told that it has happened.
    pub requests: u32,
}

/// By task id and occurrence.
type Effects = HashMap<(String, u32), Effect>;

/// Serves until dropped.
pub struct RecordingEdge {
    addr: SocketAddr,
    record: Record,
    runtime: Option<Runtime>,
}

#[derive(Clone)]
struct Record {
    effects: Arc<Mutex<Effects>>,
    /// Requests so far.
    count: watch::Sender<usize>,
}

impl RecordingEdge {
    /// On a free port of 127.0.0.1, with a thread of its own.
    pub fn start() -> anyhow::Result<Self> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("bind")?;
        listener.set_nonblocking(true)?;
        let addr = listener.local_addr()?;
        let record = Record { effects: Arc::default(), count: watch::Sender::new(0) };
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.context("start a thread")?;
        let service = Hangups(record.clone());
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).expect("a listener that was just bound");
            let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
            let serving = Server::builder().add_service(service).serve_with_incoming(incoming);
            serving.await.expect("a listener serves");
        });
        Ok(Self { addr, record, runtime: Some(runtime) })
    }

    /// For `--sip-edge`.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// What has happened so far.
    pub fn effects(&self) -> Effects {
        self.record.effects.lock().unwrap().clone()
    }

    /// Requests so far, repeated ones too.
    pub fn requests(&self) -> usize {
        *self.record.count.borrow()
    }

    /// Waits until so many different effects have happened.
    pub async fn wait_for_effects(&self, count: usize) {
        let mut seen = self.record.count.subscribe();
        let enough = |_: &usize| self.record.effects.lock().unwrap().len() >= count;
        seen.wait_for(enough).await.expect("the record is ours");
    }
}

impl Drop for RecordingEdge {
    fn drop(&mut self) {
        self.runtime.take().into_iter().for_each(Runtime::shutdown_background);
    }
}

impl Record {
    fn hang_up(&self, request: HangupRequest) -> HangupResponse {
        let HangupRequest { call_id, cause, task_id, occurrence, .. } = request;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is set");
        let at_unix_ms = now.as_millis() as i64;
        let mut effects = self.effects.lock().unwrap();
        let effect = effects.entry((task_id.clone(), occurrence));
        let effect = effect.or_insert(Effect { at_unix_ms, requests: 0 });
        effect.requests += 1;
        let already_ended = effect.requests > 1;
        drop(effects);
        self.count.send_modify(|count| *count += 1);
        let ended_by = "task".to_owned();
        let call = Call { call_id, cause, ended_by, ended_by_task: task_id, ..Call::default() };
        HangupResponse { already_ended, call: Some(call) }
    }
}

/// The one method, under its name; the generated server would want all of them.
#[derive(Clone)]
struct Hangups(Record);

impl NamedService for Hangups {
    const NAME: &'static str = "sip_edge.v1.SipEdge";
}

impl UnaryService<HangupRequest> for Hangups {
    type Response = HangupResponse;
    type Future = std::future::Ready<Result<Response<HangupResponse>, Status>>;

    fn call(&mut self, request: Request<HangupRequest>) -> Self::Future {
        std::future::ready(Ok(Response::new(self.0.hang_up(request.into_inner()))))
    }
}

impl<B> Service<http::Request<B>> for Hangups
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
        let record = self.clone();
        Box::pin(async move {
            if !request.uri().path().ends_with("/Hangup") {
                return Ok(Status::unimplemented("only Hangup is recorded").into_http());
            }
            let mut grpc = Grpc::new(tonic_prost::ProstCodec::default());
            Ok(grpc.unary(record, request).await)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::sip_edge::v1::sip_edge_client::SipEdgeClient;
    use tonic::transport::Endpoint;

    #[tokio::test]
    async fn the_same_occurrence_has_its_effect_once() {
        let edge = RecordingEdge::start().unwrap();
        let channel = Endpoint::from_shared(edge.url()).unwrap().connect_lazy();
        let mut client = SipEdgeClient::new(channel);
        let mut hang_up = async |occurrence| {
            let task_id = "a".to_owned();
            let request = HangupRequest { task_id, occurrence, ..HangupRequest::default() };
            client.hangup(request).await.unwrap().into_inner().already_ended
        };
        let seen = (hang_up(0).await, hang_up(0).await, hang_up(1).await);
        assert_eq!(seen, (false, true, false));
        edge.wait_for_effects(2).await;
        assert_eq!(edge.effects()[&("a".to_owned(), 0)].requests, 2);
        assert_eq!(edge.requests(), 3);
    }
}
