//! Any sip-edge answers for any call: what is asked here about a call of another one is forwarded to
//! it, once.

use super::{Api, page, side, unmet};
use crate::peers::Peers;
use crate::requests::Unmet;
use crate::snapshots::Snapshots;
use boot::Channel;
use futures::StreamExt as _;
use futures::future::{join_all, ready};
use futures::stream::FuturesUnordered;
use proto::sip_edge::v1::sip_edge_client::SipEdgeClient;
use proto::sip_edge::v1::sip_edge_server::SipEdge;
use proto::sip_edge::v1::*;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Response, Status};
use tracing::warn;

/// In the metadata of a request that another sip-edge has forwarded.
const FORWARDED: &str = "holdfast-forwarded";
/// How long the client gives us, in the metadata of its request.
const DEADLINE: &str = "grpc-timeout";
/// How long the others may take to list their calls, and to say whether they have one.
const LIST_TIMEOUT: Duration = Duration::from_secs(3);
const ASK_TIMEOUT: Duration = Duration::from_secs(1);
/// Connections that are kept; more than there are sip-edges in any deployment.
const CLIENTS_MAX: usize = 64;

/// How long another one may take to let go of a call.
const COMING_TIMEOUT: Duration = Duration::from_secs(4);
const OWNER_GONE: &str = "the sip-edge that had the call is gone: try again";

type Client = SipEdgeClient<Channel>;

/// Our own API, and the way to those of the others.
pub(crate) struct Replicated {
    here: Api,
    peers: Peers,
    snapshots: Snapshots,
    clients: Arc<Mutex<HashMap<String, Client>>>,
}

impl Replicated {
    pub(crate) fn new(here: Api, peers: Peers, snapshots: Snapshots) -> Self {
        Self { here, peers, snapshots, clients: Arc::default() }
    }

    /// What is answered here, or else by who has the call.
    async fn by_owner<Q: Clone, R, H, T>(
        &self,
        call_id: impl Fn(&Q) -> &str,
        request: Request<Q>,
        here: impl FnOnce(Request<Q>) -> H,
        there: impl FnOnce(Client, Request<Q>) -> T,
    ) -> Result<Response<R>, Status>
    where
        H: Future<Output = Result<Response<R>, Status>>,
        T: Future<Output = Result<Response<R>, Status>>,
    {
        let deadline = request.metadata().get(DEADLINE).cloned();
        let is_forwarded = request.metadata().contains_key(FORWARDED);
        let again = request.get_ref().clone();
        let refused = match here(request).await {
            Err(status) if status.code() == Code::NotFound => status,
            answered => return answered,
        };
        if is_forwarded {
            return Err(self.or_coming(call_id(&again), refused).await);
        }
        let Some(client) = self.client_of(call_id(&again), refused).await? else {
            return Err(Status::unavailable(OWNER_GONE));
        };
        let mut request = Request::new(again);
        request.metadata_mut().insert(FORWARDED, MetadataValue::from_static("1"));
        if let Some(deadline) = deadline {
            request.metadata_mut().insert(DEADLINE, deadline);
        }
        there(client, request).await
    }

    /// What is said to another sip-edge of a call that is not here: it may be on its way from here, or
    /// about to come. Who hears that it is nowhere forgets it.
    async fn or_coming(&self, call_id: &str, refused: Status) -> Status {
        match self.snapshots.owner_of(call_id).await {
            Ok(None) => refused,
            _ => Status::unavailable(OWNER_GONE),
        }
    }

    async fn is_here(&self, call_id: &str, wanted: impl FnOnce(&Call) -> bool) -> bool {
        let request = GetCallRequest { call_id: call_id.to_owned() };
        let call = self.here.get_call(Request::new(request)).await;
        call.is_ok_and(|call| wanted(call.get_ref()))
    }

    /// Has a call of another sip-edge go on here.
    async fn bring(&self, call_id: &str) -> Result<(), Status> {
        let client = self.client_of(call_id, unmet(Unmet::NoSuchCall)).await?;
        let client = client.ok_or_else(|| Status::unavailable(OWNER_GONE))?;
        let request = HandOverRequest { call_id: call_id.to_owned() };
        // Whoever wants it may go: a call that is on its way must arrive.
        let coming = come(self.here.clone(), self.snapshots.clone(), client, request);
        let come = tokio::spawn(coming).await;
        come.unwrap_or_else(|_| Err(Status::unavailable("sip-edge is ending")))
    }

    /// The way to the one that has the call; `None` if it is being taken over. `refused` is what we
    /// say of calls that nobody has.
    async fn client_of(&self, call_id: &str, refused: Status) -> Result<Option<Client>, Status> {
        let refused = match self.snapshots.owner_of(call_id).await {
            Ok(Some(owner)) => {
                return Ok(self.peers.url(&owner).and_then(|url| self.client(&url)));
            }
            Ok(None) => refused,
            Err(e) => {
                warn!(call_id, "failed to {e:#}");
                Status::unavailable("nobody knows who has the call while NATS is away")
            }
        };
        self.who_says_so(call_id).await.map(Some).ok_or(refused)
    }

    /// The way to the one that says that it has the call: it may not be kept yet, or be over.
    async fn who_says_so(&self, call_id: &str) -> Option<Client> {
        let clients = self.peers.urls().into_iter().filter_map(|url| self.client(&url));
        let asked = clients.map(|client| async move {
            let mut request = Request::new(GetCallRequest { call_id: call_id.to_owned() });
            request.metadata_mut().insert(FORWARDED, MetadataValue::from_static("1"));
            request.set_timeout(ASK_TIMEOUT);
            let answer = client.clone().get_call(request).await;
            answer.is_ok().then_some(client)
        });
        let mut answers = asked.collect::<FuturesUnordered<_>>().filter_map(ready);
        answers.next().await
    }

    fn client(&self, url: &str) -> Option<Client> {
        let mut clients = self.clients.lock().expect("never poisoned");
        if let Some(client) = clients.get(url) {
            return Some(client.clone());
        }
        let client = SipEdgeClient::new(boot::channel("--advertise-grpc", url).ok()?);
        if clients.len() >= CLIENTS_MAX {
            clients.clear(); // They come and go with new addresses; the live ones come back.
        }
        clients.insert(url.to_owned(), client.clone());
        Some(client)
    }

    /// The calls of all others that live; one that does not answer is left out.
    async fn calls_elsewhere(&self, wanted: ListCallsRequest) -> Vec<ListCallsResponse> {
        let clients = self.peers.urls().into_iter().filter_map(|url| self.client(&url));
        let listed = clients.map(|mut client| async move {
            let mut request = Request::new(wanted);
            request.metadata_mut().insert(FORWARDED, MetadataValue::from_static("1"));
            request.set_timeout(LIST_TIMEOUT);
            let listed = client.list_calls(request).await;
            let listed = listed.inspect_err(|e| warn!("failed to list calls elsewhere: {e}"));
            listed.ok().map(Response::into_inner)
        });
        join_all(listed).await.into_iter().flatten().collect()
    }
}

/// Asks who has the call to let go of it, and goes on with it. After an error it goes on there: at once,
/// or when nobody has taken it.
async fn come(
    here: Api,
    snapshots: Snapshots,
    mut client: Client,
    request: HandOverRequest,
) -> Result<(), Status> {
    let call_id = request.call_id.clone();
    let mut request = Request::new(request);
    request.set_timeout(COMING_TIMEOUT);
    let handed = client.hand_over(request).await.map_err(|e| match e.code() {
        Code::FailedPrecondition | Code::Aborted => e,
        Code::Unimplemented => Status::failed_precondition(
            "the sip-edge of the other call is too old to let go of it: update it",
        ),
        _ => Status::unavailable(format!("the other call has not come: {}", e.message())),
    })?;
    let revision = handed.into_inner().revision;
    match snapshots.take_at(&call_id, revision).await {
        Some(record) => here.take_over(record).await,
        None => Err(Status::unavailable(OWNER_GONE)),
    }
}

#[tonic::async_trait]
impl SipEdge for Replicated {
    type WatchCallsStream = <Api as SipEdge>::WatchCallsStream;

    async fn originate(
        &self,
        request: Request<OriginateRequest>,
    ) -> Result<Response<OriginateResponse>, Status> {
        self.here.originate(request).await
    }

    async fn get_call(&self, request: Request<GetCallRequest>) -> Result<Response<Call>, Status> {
        let there = async |mut to: Client, it| to.get_call(it).await;
        self.by_owner(|it| &it.call_id, request, |it| self.here.get_call(it), there).await
    }

    async fn list_calls(
        &self,
        request: Request<ListCallsRequest>,
    ) -> Result<Response<ListCallsResponse>, Status> {
        let is_forwarded = request.metadata().contains_key(FORWARDED);
        let wanted = *request.get_ref();
        let mut listed = self.here.list_calls(request).await?.into_inner();
        if is_forwarded {
            return Ok(Response::new(listed));
        }
        for other in self.calls_elsewhere(wanted).await {
            listed.live = listed.live.saturating_add(other.live);
            listed.calls.extend(other.calls);
        }
        listed.calls = page(listed.calls, wanted.limit);
        Ok(Response::new(listed))
    }

    async fn watch_calls(
        &self,
        request: Request<WatchCallsRequest>,
    ) -> Result<Response<Self::WatchCallsStream>, Status> {
        self.here.watch_calls(request).await
    }

    async fn hangup(
        &self,
        request: Request<HangupRequest>,
    ) -> Result<Response<HangupResponse>, Status> {
        let there = async |mut to: Client, it| to.hangup(it).await;
        self.by_owner(|it| &it.call_id, request, |it| self.here.hangup(it), there).await
    }

    async fn ring(&self, request: Request<RingRequest>) -> Result<Response<RingResponse>, Status> {
        let there = async |mut to: Client, it| to.ring(it).await;
        self.by_owner(|it| &it.call_id, request, |it| self.here.ring(it), there).await
    }

    async fn stop_ringing(
        &self,
        request: Request<StopRingingRequest>,
    ) -> Result<Response<StopRingingResponse>, Status> {
        let there = async |mut to: Client, it| to.stop_ringing(it).await;
        self.by_owner(|it| &it.call_id, request, |it| self.here.stop_ringing(it), there).await
    }

    async fn play(&self, request: Request<PlayRequest>) -> Result<Response<PlayResponse>, Status> {
        let there = async |mut to: Client, it| to.play(it).await;
        self.by_owner(|it| &it.call_id, request, |it| self.here.play(it), there).await
    }

    async fn transfer(
        &self,
        request: Request<TransferRequest>,
    ) -> Result<Response<TransferResponse>, Status> {
        let there = async |mut to: Client, it| to.transfer(it).await;
        self.by_owner(|it| &it.call_id, request, |it| self.here.transfer(it), there).await
    }

    async fn bridge(
        &self,
        request: Request<BridgeRequest>,
    ) -> Result<Response<BridgeResponse>, Status> {
        // Both calls must be here: who has the one that goes on has the other one come.
        let BridgeRequest { call_id, legs, other_call_id, other_legs } = request.get_ref();
        let is_sound = side("legs", *legs).is_ok() && side("other_legs", *other_legs).is_ok();
        let is_live = |it: &Call| it.state() != CallState::Ended;
        if is_sound
            && !other_call_id.is_empty()
            && self.is_here(call_id, is_live).await
            && !self.is_here(other_call_id, |_| true).await
        {
            self.bring(other_call_id).await?;
        }
        let there = async |mut to: Client, it| to.bridge(it).await;
        self.by_owner(|it| &it.call_id, request, |it| self.here.bridge(it), there).await
    }

    async fn hand_over(
        &self,
        request: Request<HandOverRequest>,
    ) -> Result<Response<HandOverResponse>, Status> {
        self.here.hand_over(request).await
    }

    async fn collect(
        &self,
        request: Request<CollectRequest>,
    ) -> Result<Response<CollectResponse>, Status> {
        let there = async |mut to: Client, it| to.collect(it).await;
        self.by_owner(|it| &it.call_id, request, |it| self.here.collect(it), there).await
    }

    async fn run_plan(
        &self,
        request: Request<RunPlanRequest>,
    ) -> Result<Response<RunPlanResponse>, Status> {
        let there = async |mut to: Client, it| to.run_plan(it).await;
        self.by_owner(|it| &it.call_id, request, |it| self.here.run_plan(it), there).await
    }

    async fn list_registrations(
        &self,
        request: Request<ListRegistrationsRequest>,
    ) -> Result<Response<ListRegistrationsResponse>, Status> {
        self.here.list_registrations(request).await
    }
}
