//! How the rest of the service talks to the loop.

use super::request::{AgentDraft, Change, Failure, PutAgent, Request};
use crate::grpc::RingAnswer;
use crate::leases::OWNER_WAIT_LIMIT;
use queue::{
    Address, AgentName, Assignment, AssignmentId, CallId, CallSeen, Caller, Departure, Enqueue,
    Expected, Found, PresenceOrder, QueueId, Queues, Settings, Wanted,
};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

/// The way to the loop, while there is one; cheap to clone. Every method waits for a loop for
/// [`OWNER_WAIT_LIMIT`], then fails with [`Failure::NotOwner`]; if the loop ends before it has
/// answered, with [`Failure::Lost`].
#[derive(Clone)]
pub(crate) struct Desk {
    requests: watch::Receiver<Option<mpsc::Sender<Request>>>,
    busy: watch::Receiver<bool>,
}

/// What lets requests of the API reach the loop of the moment.
pub(crate) struct Door {
    requests: watch::Sender<Option<mpsc::Sender<Request>>>,
}

impl Door {
    /// Closed; and the desk behind it, whatever loop there will be. `busy`: see [`Desk::drained`].
    pub(crate) fn new(busy: &watch::Sender<bool>) -> (Self, Desk) {
        let requests = watch::Sender::new(None);
        let desk = Desk { requests: requests.subscribe(), busy: busy.subscribe() };
        (Self { requests }, desk)
    }

    /// Requests go to the same loop as those of this desk.
    pub(crate) fn open(&self, desk: &Desk) {
        self.requests.send_replace(desk.requests.borrow().clone());
    }

    pub(crate) fn close(&self) {
        self.requests.send_replace(None);
    }
}

/// A caller's place.
#[derive(Clone, Debug)]
pub(crate) struct Joined {
    pub(crate) caller: Caller,
    pub(crate) queue: String,
    /// From 1; 0 while entering.
    pub(crate) position: u32,
    pub(crate) expected: Option<Expected>,
    /// For media-relay.
    pub(crate) music: String,
}

/// What became of a request for a caller.
#[derive(Clone, Debug)]
pub(crate) struct Retrieved {
    pub(crate) answer: RingAnswer,
    pub(crate) call_id: CallId,
    pub(crate) assignment_id: AssignmentId,
    pub(crate) waited_ms: u64,
}

impl Desk {
    /// Of one loop only.
    pub(super) fn new(requests: mpsc::Sender<Request>, busy: watch::Receiver<bool>) -> Self {
        Self { requests: watch::channel(Some(requests)).1, busy }
    }

    /// Completes when no assignment is under way and every row is on disk.
    pub(crate) fn drained(&self) -> impl Future<Output = ()> + use<> {
        let mut busy = self.busy.clone();
        async move {
            let _ = busy.wait_for(|busy| !busy).await; // The loop has ended as well.
        }
    }

    pub(crate) async fn enqueue(&self, enqueue: Enqueue) -> Result<Joined, Failure> {
        self.ask(|reply| Request::Enqueue { enqueue, reply }).await
    }

    /// Ms waited; `None` if the call waited nowhere.
    pub(crate) async fn leave(
        &self,
        call_id: CallId,
        departure: Departure,
        reason: String,
    ) -> Result<Option<u64>, Failure> {
        self.ask(|reply| Request::Leave { call_id, departure, reason, reply }).await
    }

    /// Returns when the end of the call is no news to the queues and agents any more.
    pub(crate) async fn ended(&self, call_id: CallId, reason: String) -> Result<(), Failure> {
        self.ask(|reply| Request::Ended { call_id, reason, reply }).await
    }

    /// Returns when nobody takes the call for one that waits any more, if it does not, and those whom
    /// it keeps busy are not rung.
    pub(crate) async fn seen(&self, seen: CallSeen) -> Result<(), Failure> {
        self.ask(|reply| Request::Seen { seen, reply }).await
    }

    /// Returns when the assignment is decided; goes on if nobody waits for that.
    pub(crate) async fn retrieve(
        &self,
        queue: String,
        address: Address,
        ring_ms: u32,
    ) -> Result<Retrieved, Failure> {
        self.ask(|reply| Request::Retrieve { queue, address, ring_ms, reply }).await
    }

    pub(crate) async fn put_agent(&self, put: PutAgent, draft: AgentDraft) -> Result<(), Failure> {
        self.ask(|reply| Request::PutAgent { put, draft: Box::new(draft), reply }).await
    }

    pub(crate) async fn delete_agent(&self, name: AgentName) -> Result<(), Failure> {
        self.ask(|reply| Request::DeleteAgent { name, reply }).await
    }

    pub(crate) async fn set_presence(
        &self,
        name: AgentName,
        order: PresenceOrder,
    ) -> Result<(), Failure> {
        self.ask(|reply| Request::SetPresence { name, order, reply }).await
    }

    /// NATS has all changes up to this one.
    pub(crate) async fn told(&self, revision: i64) {
        self.report(Request::Told(revision)).await;
    }

    pub(crate) async fn create_queue(
        &self,
        settings: Settings,
    ) -> Result<(QueueId, Settings), Failure> {
        self.change(Change::Create(settings)).await
    }

    /// Found by `id`, else by name.
    pub(crate) async fn update_queue(
        &self,
        id: Option<QueueId>,
        settings: Settings,
    ) -> Result<(QueueId, Settings), Failure> {
        self.change(Change::Update(id, settings)).await
    }

    pub(crate) async fn delete_queue(&self, name: String) -> Result<(QueueId, Settings), Failure> {
        self.change(Change::Delete(name)).await
    }

    async fn change(&self, change: Change) -> Result<(QueueId, Settings), Failure> {
        self.ask(|reply| Request::Change { change, reply }).await
    }

    /// What `read` makes of the queues. The table is read first if `queue` is not known.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        queue: Option<&str>,
        read: impl FnOnce(&Queues) -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let wanted = queue.map(|name| Wanted::Name(name.to_owned()));
        self.ask(|reply| {
            let read = Box::new(move |queues: &Queues| {
                let _ = reply.send(Ok(read(queues))); // Who asked may have gone.
            });
            Request::Read { wanted, read }
        })
        .await
    }

    pub(super) async fn ring_ended(&self, assignment: Assignment, answer: RingAnswer) {
        self.report(Request::RingEnded { assignment, answer }).await;
    }

    pub(super) async fn checked(&self, call_id: CallId, found: Found) {
        self.report(Request::Checked { call_id, found }).await;
    }

    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<T, Failure>>) -> Request,
    ) -> Result<T, Failure> {
        let (reply, answer) = oneshot::channel();
        let mut door = self.requests.clone();
        let requests = timeout(OWNER_WAIT_LIMIT, door.wait_for(Option::is_some)).await;
        let requests = requests.ok().and_then(|open| open.ok()?.clone());
        let requests = requests.ok_or(Failure::NotOwner)?;
        requests.send(request(reply)).await.map_err(|_| Failure::NotOwner)?;
        answer.await.map_err(|_| Failure::Lost)?
    }

    /// What nobody waits for; the loop may have gone.
    async fn report(&self, request: Request) {
        let requests = self.requests.borrow().clone();
        if let Some(requests) = requests {
            let _ = requests.send(request).await;
        }
    }
}
