//! A sip-edge that does what the test says: agents ring until the test decides.

use proto::sip_edge::v1::sip_edge_server::{SipEdge, SipEdgeServer};
use proto::sip_edge::v1::*;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

/// More than any test makes the service ask for.
const SEEN_MAX: usize = 20_000;
const LIMIT: Duration = Duration::from_secs(20);

/// What the service under test asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Ring {
        call_id: String,
        assignment_id: String,
        target: String,
    },
    StopRinging {
        call_id: String,
        assignment_id: String,
    },
    Hangup {
        call_id: String,
        cause: String,
    },
    /// `to` in words.
    Transfer {
        call_id: String,
        to: String,
    },
    Play {
        call_id: String,
        file: String,
    },
}

pub(crate) struct Edge {
    shared: Arc<Shared>,
    seen: mpsc::Receiver<Seen>,
    addr: SocketAddr,
    /// Its own, so that every connection breaks when it is dropped.
    runtime: Option<Runtime>,
}

struct Shared {
    calls: Mutex<HashMap<String, CallState>>,
    rings: Mutex<HashMap<String, watch::Sender<Option<RingResponse>>>>,
    /// Stops nothing, as if it were stuck.
    stuck: AtomicBool,
    /// Every agent answers at once.
    eager: AtomicBool,
    /// Answers every Ring at once.
    refusal: Mutex<Option<Status>>,
    seen: mpsc::Sender<Seen>,
}

impl Edge {
    pub(crate) async fn start() -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap()).await
    }

    pub(crate) async fn start_at(addr: SocketAddr) -> Self {
        let (tell, seen) = mpsc::channel(SEEN_MAX);
        let shared = Arc::new(Shared {
            calls: Mutex::default(),
            rings: Mutex::default(),
            stuck: AtomicBool::default(),
            eager: AtomicBool::default(),
            refusal: Mutex::default(),
            seen: tell,
        });
        let service = SipEdgeServer::new(Fake(shared.clone()));
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).enable_all().build().unwrap();
        let (bound_at, bound) = oneshot::channel();
        runtime.spawn(async move {
            let listener = TcpListener::bind(addr).await.unwrap();
            bound_at.send(listener.local_addr().unwrap()).unwrap();
            let incoming = TcpListenerStream::new(listener);
            let server = tonic::transport::Server::builder().add_service(service);
            server.serve_with_incoming(incoming).await.unwrap();
        });
        let addr = bound.await.unwrap();
        Self { shared, seen, addr, runtime: Some(runtime) }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// The call exists and is in this state.
    pub(crate) fn call(&self, call_id: &str, state: CallState) {
        self.shared.calls.lock().unwrap().insert(call_id.to_owned(), state);
    }

    /// The call is unknown from now on.
    pub(crate) fn forget(&self, call_id: &str) {
        self.shared.calls.lock().unwrap().remove(call_id);
    }

    /// Agents answer at once from now on.
    pub(crate) fn answer_all(&self) {
        self.shared.eager.store(true, Ordering::Relaxed);
    }

    /// StopRinging does nothing from now on.
    pub(crate) fn ignore_stops(&self) {
        self.shared.stuck.store(true, Ordering::Relaxed);
    }

    pub(crate) fn refuse_rings(&self, refusal: Option<Status>) {
        *self.shared.refusal.lock().unwrap() = refusal;
    }

    /// What the service asks for next.
    pub(crate) async fn next(&mut self) -> Seen {
        let seen = tokio::time::timeout(LIMIT, self.seen.recv()).await;
        seen.expect("the service asks sip-edge in time").unwrap()
    }

    /// What the service has asked for and the test has not looked at.
    pub(crate) fn next_now(&mut self) -> Option<Seen> {
        self.seen.try_recv().ok()
    }

    /// The next thing asked for, which must be to ring: call and assignment.
    pub(crate) async fn next_ring(&mut self) -> (String, String) {
        match self.next().await {
            Seen::Ring { call_id, assignment_id, .. } => (call_id, assignment_id),
            other => panic!("wanted a Ring, got {other:?}"),
        }
    }

    /// The caller talks to this one of those who ring.
    pub(crate) fn answer_ring(&self, assignment_id: &str, answered: &str) {
        let (outcome, answered) = (RingOutcome::Connected.into(), answered.to_owned());
        let response = RingResponse { outcome, answered, ..RingResponse::default() };
        self.shared.ring(assignment_id).send_replace(Some(response));
    }

    /// The agent who rings for this assignment, or would, does this.
    pub(crate) fn end_ring(&self, assignment_id: &str, outcome: RingOutcome, sip_status: u32) {
        let outcome = outcome.into();
        let response = RingResponse { outcome, sip_status, ..RingResponse::default() };
        self.shared.ring(assignment_id).send_replace(Some(response));
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        let runtime = self.runtime.take().expect("dropped once");
        let down = std::thread::spawn(move || runtime.shutdown_timeout(LIMIT)); // Not from a task.
        down.join().unwrap();
    }
}

impl Shared {
    fn tell(&self, seen: Seen) {
        let _ = self.seen.try_send(seen); // The test may have ended.
    }

    fn ring(&self, assignment_id: &str) -> watch::Sender<Option<RingResponse>> {
        let mut rings = self.rings.lock().unwrap();
        rings.entry(assignment_id.to_owned()).or_insert_with(|| watch::Sender::new(None)).clone()
    }

    fn call(&self, call_id: &str) -> Result<Call, Status> {
        let calls = self.calls.lock().unwrap();
        let state = calls.get(call_id).ok_or_else(|| Status::not_found("no such call"))?;
        let call_id = call_id.to_owned();
        let ended_unix_ms = i64::from(*state == CallState::Ended); // Long ago.
        Ok(Call { call_id, state: (*state).into(), ended_unix_ms, ..Call::default() })
    }
}

struct Fake(Arc<Shared>);

impl Fake {
    fn end(&self, assignment_id: &str, outcome: RingOutcome) -> bool {
        let response = RingResponse { outcome: outcome.into(), ..RingResponse::default() };
        self.0.ring(assignment_id).send_replace(Some(response)).is_none()
    }
}

type Stream<T> = Pin<Box<dyn futures::Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl SipEdge for Fake {
    async fn ring(&self, request: Request<RingRequest>) -> Result<Response<RingResponse>, Status> {
        let RingRequest { call_id, assignment_id, target, also, .. } = request.into_inner();
        let target = [vec![target], also].concat().join(" ");
        let seen =
            Seen::Ring { call_id: call_id.clone(), assignment_id: assignment_id.clone(), target };
        self.0.tell(seen);
        if let Some(refusal) = self.0.refusal.lock().unwrap().clone() {
            return Err(refusal);
        }
        if self.0.call(&call_id)?.state() == CallState::Ended {
            self.end(&assignment_id, RingOutcome::CallerGone);
        }
        if self.0.eager.load(Ordering::Relaxed) {
            self.end(&assignment_id, RingOutcome::Connected);
        }
        let mut ended = self.0.ring(&assignment_id).subscribe();
        let response = ended.wait_for(Option::is_some).await.unwrap().clone().unwrap();
        Ok(Response::new(response))
    }

    async fn stop_ringing(
        &self,
        request: Request<StopRingingRequest>,
    ) -> Result<Response<StopRingingResponse>, Status> {
        let StopRingingRequest { call_id, assignment_id } = request.into_inner();
        let seen = Seen::StopRinging { call_id, assignment_id: assignment_id.clone() };
        self.0.tell(seen);
        let stuck = self.0.stuck.load(Ordering::Relaxed);
        let stopped = !stuck && self.end(&assignment_id, RingOutcome::Stopped);
        Ok(Response::new(StopRingingResponse { stopped }))
    }

    async fn hangup(
        &self,
        request: Request<HangupRequest>,
    ) -> Result<Response<HangupResponse>, Status> {
        let HangupRequest { call_id, cause, .. } = request.into_inner();
        let call = self.0.call(&call_id);
        self.0.tell(Seen::Hangup { call_id: call_id.clone(), cause });
        self.0.calls.lock().unwrap().insert(call_id, CallState::Ended);
        Ok(Response::new(HangupResponse { already_ended: false, call: Some(call?) }))
    }

    async fn get_call(&self, request: Request<GetCallRequest>) -> Result<Response<Call>, Status> {
        Ok(Response::new(self.0.call(&request.into_inner().call_id)?))
    }

    type WatchCallsStream = Stream<CallEvent>;

    async fn watch_calls(
        &self,
        _: Request<WatchCallsRequest>,
    ) -> Result<Response<Self::WatchCallsStream>, Status> {
        Err(not_for_queues())
    }

    async fn originate(
        &self,
        _: Request<OriginateRequest>,
    ) -> Result<Response<OriginateResponse>, Status> {
        Err(not_for_queues())
    }

    async fn list_calls(
        &self,
        _: Request<ListCallsRequest>,
    ) -> Result<Response<ListCallsResponse>, Status> {
        Ok(Response::new(ListCallsResponse::default()))
    }

    async fn play(&self, request: Request<PlayRequest>) -> Result<Response<PlayResponse>, Status> {
        let PlayRequest { call_id, file, .. } = request.into_inner();
        self.0.tell(Seen::Play { call_id, file });
        Ok(Response::new(PlayResponse::default()))
    }

    async fn bridge(&self, _: Request<BridgeRequest>) -> Result<Response<BridgeResponse>, Status> {
        Err(not_for_queues())
    }

    async fn hand_over(
        &self,
        _: Request<HandOverRequest>,
    ) -> Result<Response<HandOverResponse>, Status> {
        Err(not_for_queues())
    }

    async fn transfer(
        &self,
        request: Request<TransferRequest>,
    ) -> Result<Response<TransferResponse>, Status> {
        use transfer_request::To;
        let TransferRequest { call_id, to, .. } = request.into_inner();
        let to = match to {
            Some(To::Uri(uri)) => uri,
            Some(To::GoOn(_)) => "its plan".to_owned(),
            Some(To::Moved(moved)) => format!("queue {} with {}", moved.queue, moved.music),
            other => panic!("no queue asks for {other:?}"),
        };
        self.0.tell(Seen::Transfer { call_id, to });
        Ok(Response::new(TransferResponse::default()))
    }

    async fn collect(
        &self,
        _: Request<CollectRequest>,
    ) -> Result<Response<CollectResponse>, Status> {
        Err(not_for_queues())
    }

    async fn run_plan(
        &self,
        _: Request<RunPlanRequest>,
    ) -> Result<Response<RunPlanResponse>, Status> {
        Err(not_for_queues())
    }

    async fn list_registrations(
        &self,
        _: Request<ListRegistrationsRequest>,
    ) -> Result<Response<ListRegistrationsResponse>, Status> {
        Err(not_for_queues())
    }
}

fn not_for_queues() -> Status {
    Status::unimplemented("queue-svc has no business with this")
}
