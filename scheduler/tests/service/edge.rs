//! A sip-edge that records what tasks ask of it, and behaves as it is told to a `Hangup`.

use futures::future::BoxFuture;
use proto::sip_edge::v1::sip_edge_server::{SipEdge, SipEdgeServer};
use proto::sip_edge::v1::*;
use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

/// How long the scheduler may take to do what a test waits for.
const LIMIT: Duration = Duration::from_secs(30);

#[derive(Clone, Debug)]
pub(crate) enum Manner {
    /// Ends the call, and says so.
    Obey,
    /// Ends the call, but never answers.
    ObeySilently,
    /// Does nothing, and never answers.
    Ignore,
    /// Answers with this status, and does nothing.
    Refuse(Status),
    /// Says that the caller had hung up before.
    AlreadyEnded,
}

#[derive(Clone, Debug)]
pub(crate) struct Hangup {
    pub(crate) call_id: String,
    pub(crate) cause: String,
    pub(crate) task_id: String,
    pub(crate) legs: Legs,
    pub(crate) occurrence: u32,
    pub(crate) at: Instant,
    pub(crate) at_unix_ms: i64,
}

#[derive(Default)]
struct World {
    manner: Option<Manner>,
    of_call: HashMap<String, Manner>,
    requests: Vec<Hangup>,
    plays: Vec<PlayRequest>,
    transfers: Vec<TransferRequest>,
    /// Call → task that ended it.
    ended: HashMap<String, String>,
}

#[derive(Clone)]
pub(crate) struct Edge {
    world: Arc<Mutex<World>>,
    requested: watch::Sender<usize>,
    pub(crate) addr: SocketAddr,
}

/// The process of an edge, as far as others can tell: when it stops, its connections break.
pub(crate) struct Serving(Option<Runtime>);

impl Serving {
    pub(crate) fn stop(&mut self) {
        self.0.take().into_iter().for_each(Runtime::shutdown_background);
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Edge {
    /// Serves on a free port.
    pub(crate) fn start() -> (Self, Serving) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let world = Arc::default();
        let edge = Self { world, requested: watch::Sender::new(0), addr };
        let serving = edge.serve(listener);
        (edge, serving)
    }

    /// Serves again, on the port it had.
    pub(crate) fn restart(&self) -> Serving {
        let deadline = Instant::now() + LIMIT;
        loop {
            match TcpListener::bind(self.addr) {
                Ok(listener) => return self.serve(listener),
                Err(e) => assert!(Instant::now() < deadline, "bind {}: {e}", self.addr),
            }
        }
    }

    fn serve(&self, listener: TcpListener) -> Serving {
        let runtime = Runtime::new().unwrap();
        let service = SipEdgeServer::new(self.clone());
        listener.set_nonblocking(true).unwrap();
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let incoming = TcpListenerStream::new(listener);
            let server = tonic::transport::Server::builder().add_service(service);
            server.serve_with_incoming(incoming).await.unwrap();
        });
        Serving(Some(runtime))
    }

    pub(crate) fn behave(&self, manner: Manner) {
        self.world.lock().unwrap().manner = Some(manner);
    }

    pub(crate) fn behave_to(&self, call_id: &str, manner: Manner) {
        self.world.lock().unwrap().of_call.insert(call_id.to_owned(), manner);
    }

    pub(crate) fn requests(&self) -> Vec<Hangup> {
        self.world.lock().unwrap().requests.clone()
    }

    pub(crate) fn plays(&self) -> Vec<PlayRequest> {
        self.world.lock().unwrap().plays.clone()
    }

    pub(crate) fn transfers(&self) -> Vec<TransferRequest> {
        self.world.lock().unwrap().transfers.clone()
    }

    /// The task that ended the call, if one did.
    pub(crate) fn ended_by(&self, call_id: &str) -> Option<String> {
        self.world.lock().unwrap().ended.get(call_id).cloned()
    }

    /// Waits until so many requests have come in all.
    pub(crate) async fn wait_for_requests(&self, count: usize) {
        let mut requested = self.requested.subscribe();
        let waited = tokio::time::timeout(LIMIT, requested.wait_for(|seen| *seen >= count)).await;
        let seen = self.requests().len();
        waited.unwrap_or_else(|_| panic!("{seen} of {count} requests came in {LIMIT:?}")).unwrap();
    }

    /// Waits until a request for this call has come.
    pub(crate) async fn wait_for_call(&self, call_id: &str) {
        let mut requested = self.requested.subscribe();
        let come = |_: &usize| self.requests().iter().any(|request| request.call_id == call_id);
        let waited = tokio::time::timeout(LIMIT, requested.wait_for(come)).await;
        waited.unwrap_or_else(|_| panic!("no request for {call_id} in {LIMIT:?}")).unwrap();
    }

    /// What is answered; `None` for never.
    fn answer(&self, request: HangupRequest) -> Option<Answer> {
        let legs = request.legs();
        let HangupRequest { call_id, cause, task_id, occurrence, .. } = request;
        let mut world = self.world.lock().unwrap();
        world.requests.push(Hangup {
            call_id: call_id.clone(),
            cause: cause.clone(),
            task_id: task_id.clone(),
            legs,
            occurrence,
            at: Instant::now(),
            at_unix_ms: boot::unix_ms(),
        });
        let manner = world.of_call.get(&call_id).or(world.manner.as_ref()).cloned();
        let manner = manner.unwrap_or(Manner::Obey);
        let call = |ended_by: &str| {
            let (cause, ended_by) = (cause.clone(), ended_by.to_owned());
            Some(Call { call_id: call_id.clone(), cause, ended_by, ..Call::default() })
        };
        match manner {
            Manner::Ignore => None,
            Manner::Refuse(status) => Some(Err(status)),
            Manner::AlreadyEnded => {
                let call = call("caller");
                Some(Ok(Response::new(HangupResponse { already_ended: true, call })))
            }
            Manner::Obey | Manner::ObeySilently => {
                let already_ended = world.ended.contains_key(&call_id);
                let by = world.ended.entry(call_id.clone()).or_insert(task_id).clone();
                let call = call("task").map(|call| Call { ended_by_task: by, ..call });
                let answer = HangupResponse { already_ended, call };
                matches!(manner, Manner::Obey).then(|| Ok(Response::new(answer)))
            }
        }
    }
}

type Answer = Result<Response<HangupResponse>, Status>;

/// Methods as `async_trait` would write them; it does not see into macros.
macro_rules! not_here {
    ($($method:ident: $request:ty => $response:ty;)*) => {$(
        fn $method<'a, 'b>(
            &'a self,
            _: Request<$request>,
        ) -> BoxFuture<'b, Result<Response<$response>, Status>>
        where
            'a: 'b,
            Self: 'b,
        {
            Box::pin(async { Err(Status::unimplemented(stringify!($method))) })
        }
    )*};
}

#[tonic::async_trait]
impl SipEdge for Edge {
    async fn hangup(&self, request: Request<HangupRequest>) -> Answer {
        let answer = self.answer(request.into_inner());
        self.requested.send_modify(|requested| *requested += 1);
        match answer {
            Some(answer) => answer,
            None => std::future::pending().await,
        }
    }

    async fn play(&self, request: Request<PlayRequest>) -> Result<Response<PlayResponse>, Status> {
        self.world.lock().unwrap().plays.push(request.into_inner());
        Ok(Response::new(PlayResponse { duration_ms: 800, ..PlayResponse::default() }))
    }

    async fn transfer(
        &self,
        request: Request<TransferRequest>,
    ) -> Result<Response<TransferResponse>, Status> {
        self.world.lock().unwrap().transfers.push(request.into_inner());
        Ok(Response::new(TransferResponse::default()))
    }

    type WatchCallsStream = tokio_stream::Empty<Result<CallEvent, Status>>;

    not_here! {
        originate: OriginateRequest => OriginateResponse;
        get_call: GetCallRequest => Call;
        list_calls: ListCallsRequest => ListCallsResponse;
        watch_calls: WatchCallsRequest => Self::WatchCallsStream;
        ring: RingRequest => RingResponse;
        stop_ringing: StopRingingRequest => StopRingingResponse;
        bridge: BridgeRequest => BridgeResponse;
        hand_over: HandOverRequest => HandOverResponse;
        collect: CollectRequest => CollectResponse;
        run_plan: RunPlanRequest => RunPlanResponse;
        list_registrations: ListRegistrationsRequest => ListRegistrationsResponse;
    }
}
