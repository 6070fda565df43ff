//! What may be asked of the loop, and how it asks the core.

use super::step::{Step, Undo, Waiter, reply};
use super::{Joined, Retrieved, Told, Work};
use crate::grpc::RingAnswer;
use crate::metrics;
use queue::{
    Address, AgentName, AgentSettings, Assignment, CallId, CallSeen, Departure, Enqueue, Found,
    Malformed, Membership, PresenceOrder, QueueId, Queues, Refusal, Retrieve, RingEnded, Settings,
    UnixMs, View, Wanted,
};
use std::time::Instant;
use tokio::sync::oneshot;
use tracing::info;

/// How many callers whose calls turn out to be over one request for a caller passes by.
const STALE_MAX: u32 = 20;

type ReplyTo<T> = oneshot::Sender<Result<T, Failure>>;

pub(crate) enum Request {
    Enqueue { enqueue: Enqueue, reply: ReplyTo<Joined> },
    Leave { call_id: CallId, departure: Departure, reason: String, reply: ReplyTo<Option<u64>> },
    Ended { call_id: CallId, reason: String, reply: ReplyTo<()> },
    Seen { seen: CallSeen, reply: ReplyTo<()> },
    Retrieve { queue: String, address: Address, ring_ms: u32, reply: ReplyTo<Retrieved> },
    RingEnded { assignment: Assignment, answer: RingAnswer },
    Checked { call_id: CallId, found: Found },
    Change { change: Change, reply: ReplyTo<(QueueId, Settings)> },
    PutAgent { put: PutAgent, draft: Box<AgentDraft>, reply: ReplyTo<()> },
    DeleteAgent { name: AgentName, reply: ReplyTo<()> },
    SetPresence { name: AgentName, order: PresenceOrder, reply: ReplyTo<()> },
    Told(i64),
    Read { wanted: Option<Wanted>, read: Box<dyn FnOnce(&Queues) + Send> },
}

/// An agent as it is to be; its queues by name.
pub(crate) struct AgentDraft {
    /// Without memberships.
    pub(crate) settings: AgentSettings,
    /// The id of each is that of no queue yet.
    pub(crate) memberships: Vec<(String, Membership)>,
}

/// Whether an agent may, or must, be there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PutAgent {
    Create,
    Update,
}

/// A change of the table of queues.
pub(crate) enum Change {
    Create(Settings),
    Update(Option<QueueId>, Settings),
    Delete(String),
}

/// Why a request is not done.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("{0}; nothing was done")]
    Store(String),
    #[error("queue-svc drains: no new callers and no new assignments")]
    Draining,
    #[error("this replica does not own the queues; nothing was done, try again")]
    NotOwner,
    #[error("the queues changed hands while it was decided; whether it was done is not known")]
    Lost,
}

impl Work {
    pub(super) async fn handle(&mut self, now: UnixMs, request: Request) {
        match request {
            Request::Enqueue { enqueue, reply } => self.enqueue(now, enqueue, reply).await,
            Request::Leave { call_id, departure, reason, reply: to } => {
                let waited_ms = self.queues.handle_leave(now, &call_id, departure, &reason);
                log_left(&call_id, waited_ms, &reason);
                self.finish(Step { reply: reply(to, Ok(waited_ms)), ..Step::default() });
            }
            Request::Ended { call_id, reason, reply: to } => {
                let waited_ms = self.queues.handle_ended(now, &call_id, &reason);
                log_left(&call_id, waited_ms, &reason);
                self.finish(Step { reply: reply(to, Ok(())), ..Step::default() });
            }
            Request::Seen { seen, reply: to } => {
                let waited_ms = self.queues.handle_call(now, &seen);
                log_left(&seen.call_id, waited_ms, "connected without an assignment");
                self.finish(Step { reply: reply(to, Ok(())), ..Step::default() });
            }
            Request::Retrieve { queue, address, ring_ms, reply } => {
                self.know(&Wanted::Name(queue.clone())).await;
                let tries_left = STALE_MAX;
                self.retrieve(now, Waiter { queue, address, ring_ms, tries_left, reply });
            }
            Request::RingEnded { assignment, answer } => self.ring_ended(now, &assignment, answer),
            Request::Checked { call_id, found } => {
                if found == Found::Gone {
                    info!(%call_id, "checked: the call is gone");
                }
                self.queues.handle_checked(now, &call_id, found);
                self.finish(Step::default());
            }
            Request::Change { change, reply: to } => {
                let changed = self.change(change).await;
                self.finish(Step { reply: reply(to, changed), ..Step::default() });
            }
            Request::PutAgent { put, draft, reply: to } => {
                let done = self.put_agent(now, put, *draft).await;
                self.finish(Step { reply: reply(to, done), ..Step::default() });
            }
            Request::DeleteAgent { name, reply: to } => {
                let done = self.queues.handle_delete_agent(now, &name).map_err(Failure::from);
                self.finish(Step { reply: reply(to, done), ..Step::default() });
            }
            Request::SetPresence { name, order, reply: to } => {
                let done = self.queues.handle_presence(now, &name, order).map(drop);
                self.finish(Step {
                    reply: reply(to, done.map_err(Failure::from)),
                    ..Step::default()
                });
            }
            Request::Told(revision) => {
                let since = self.told.as_ref().map_or_else(Instant::now, |it| it.since);
                self.told = Some(Told { revision, since });
            }
            Request::Read { wanted, read } => {
                if let Some(wanted) = wanted {
                    self.know(&wanted).await;
                }
                read(&self.queues);
            }
        }
    }

    async fn enqueue(&mut self, now: UnixMs, enqueue: Enqueue, to: ReplyTo<Joined>) {
        self.know(&enqueue.queue).await;
        let call_id = enqueue.call_id.clone();
        let known = self.queues.view(now, &call_id).is_some();
        let joined = match self.refuse_new() {
            Some(failure) if !known => Err(failure),
            _ => self.queues.handle_enqueue(now, enqueue).map_err(Failure::from),
        };
        let mut step = Step::default();
        match &joined {
            Ok(true) => {
                metrics::count_join();
                self.uncommitted.insert(call_id.clone());
            }
            Ok(false) => (),
            Err(failure) => metrics::count_refusal(failure.word()),
        }
        if joined.is_ok() && self.uncommitted.contains(&call_id) {
            step.undo = Some(Undo::Join(call_id.clone()));
        }
        let joined = joined.map(|new| {
            let view = self.queues.view(now, &call_id).expect("who has joined is there");
            let joined = place_of(view);
            if new {
                info!(%call_id, queue = joined.queue, "entered");
            }
            joined
        });
        step.reply = reply(to, joined);
        self.finish(step);
    }

    /// Why there can be nothing new now.
    fn refuse_new(&self) -> Option<Failure> {
        if *self.draining.borrow() {
            return Some(Failure::Draining);
        }
        let failed = self.store_failed_at.is_some();
        failed.then(|| Failure::Store("the database does not take writes".into()))
    }

    fn retrieve(&mut self, now: UnixMs, waiter: Waiter) {
        if let Some(failure) = self.refuse_new() {
            return waiter.refuse(failure);
        }
        let retrieve = Retrieve {
            queue: waiter.queue.clone(),
            address: waiter.address.clone(),
            ring_ms: waiter.ring_ms,
        };
        match self.queues.handle_retrieve(now, retrieve) {
            Ok(assignment_id) => {
                self.waiters.insert(assignment_id.clone(), waiter);
                let undo = Some(Undo::Reserve(assignment_id));
                self.finish(Step { undo, ..Step::default() });
            }
            Err(refusal) => waiter.refuse(refusal.into()),
        }
    }

    /// Makes or changes an agent, whose queues must exist.
    async fn put_agent(
        &mut self,
        now: UnixMs,
        put: PutAgent,
        draft: AgentDraft,
    ) -> Result<(), Failure> {
        let AgentDraft { mut settings, memberships } = draft;
        for (queue, membership) in memberships {
            self.know(&Wanted::Name(queue.clone())).await;
            let id = self.queues.queue(&queue)?.0;
            settings.memberships.push(Membership { queue: id, ..membership });
        }
        let settings = settings.check()?;
        let name = &settings.name;
        match (put, self.queues.agent(name)) {
            (PutAgent::Create, Ok(_)) => {
                let (value, holder) = (name.as_str().to_owned(), "an agent".to_owned());
                return Err(Refusal::Taken { field: "name", value, holder }.into());
            }
            (PutAgent::Update, Err(refusal)) => return Err(refusal.into()),
            _ => (),
        }
        if let Some(failure) = self.refuse_new() {
            return Err(failure);
        }
        self.queues.handle_put_agent(now, settings)?;
        Ok(())
    }

    fn ring_ended(&mut self, now: UnixMs, assignment: &Assignment, answer: RingAnswer) {
        let waiter = self.waiters.remove(&assignment.id);
        let Some(resolution) = self.queues.handle_ring_ended(now, &assignment.id, answer.ended())
        else {
            return; // Decided before.
        };
        let (call_id, waited_ms) = (resolution.call_id, resolution.waited_ms);
        let outcome = answer.word();
        info!(%call_id, assignment_id = assignment.id.as_str(), outcome, waited_ms, "assignment decided");
        metrics::count_assignment(outcome, waited_ms);
        let answer = match resolution.ended {
            RingEnded::HungUp => RingAnswer::CallerGone,
            _ => answer,
        };
        match waiter {
            None => self.finish(Step::default()),
            Some(waiter) if answer == RingAnswer::Stale && waiter.tries_left > 0 => {
                self.finish(Step::default());
                let tries_left = waiter.tries_left - 1;
                self.retrieve(now, Waiter { tries_left, ..waiter });
            }
            Some(waiter) => {
                let assignment_id = assignment.id.clone();
                let retrieved = Retrieved { answer, call_id, assignment_id, waited_ms };
                let reply = reply(waiter.reply, Ok(retrieved));
                self.finish(Step { reply, ..Step::default() });
            }
        }
    }
}

fn log_left(call_id: &CallId, waited_ms: Option<u64>, reason: &str) {
    if let Some(waited_ms) = waited_ms {
        info!(%call_id, waited_ms, reason, "left");
    }
}

/// As seen from outside.
pub(crate) fn place_of(view: View<'_>) -> Joined {
    Joined {
        caller: view.caller.clone(),
        queue: view.settings.name().to_owned(),
        position: view.position,
        expected: view.expected,
        music: view.settings.music(),
    }
}

impl Failure {
    /// For metrics.
    fn word(&self) -> &'static str {
        match self {
            Self::Refused(Refusal::QueueFull { .. } | Refusal::AllFull { .. }) => "full",
            Self::Refused(Refusal::NoSuchQueue { .. }) => "no_such_queue",
            Self::Refused(Refusal::NoAgents { .. }) => "no_agents",
            Self::Refused(_) | Self::Malformed(_) => "refused",
            Self::Store(_) => "store",
            Self::Draining => "draining",
            Self::NotOwner | Self::Lost => "not_owner",
        }
    }
}
