//! What may be asked of the loop, and how it asks the core.

use super::step::{Step, Undo, Waiter, reply};
use super::{Joined, Retrieved, Work};
use crate::grpc::RingAnswer;
use crate::metrics;
use queue::{
    Agent, Assignment, AssignmentId, CallId, Enqueue, Found, QueueId, Queues, Refusal, Retrieve,
    RingEnded, Settings, UnixMs, View, Wanted,
};
use tokio::sync::oneshot;
use tracing::info;

/// How many callers whose calls turn out to be over one request for a caller passes by.
const STALE_MAX: u32 = 20;

type ReplyTo<T> = oneshot::Sender<Result<T, Failure>>;

pub(crate) enum Request {
    Enqueue { enqueue: Enqueue, reply: ReplyTo<Joined> },
    Leave { call_id: CallId, reason: String, reply: ReplyTo<Option<u64>> },
    Connected { connected: Connected, reply: ReplyTo<()> },
    Retrieve { queue: String, agent: Agent, ring_ms: u32, reply: ReplyTo<Retrieved> },
    RingEnded { assignment: Assignment, answer: RingAnswer },
    Checked { call_id: CallId, found: Found },
    Change { change: Change, reply: ReplyTo<(QueueId, Settings)> },
    Read { wanted: Option<Wanted>, read: Box<dyn FnOnce(&Queues) + Send> },
}

/// Somebody talks to a caller.
pub(crate) struct Connected {
    pub(crate) call_id: CallId,
    pub(crate) at: UnixMs,
    /// Of whoever had the agent rung; ours, or not.
    pub(crate) assignment_id: AssignmentId,
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
    #[error("{0}; nothing was done")]
    Store(String),
    #[error("queue-svc drains: no new callers and no new assignments")]
    Draining,
    #[error("queue-svc is ending")]
    Ending,
}

impl Work {
    pub(super) async fn handle(&mut self, now: UnixMs, request: Request) {
        match request {
            Request::Enqueue { enqueue, reply } => self.enqueue(now, enqueue, reply).await,
            Request::Leave { call_id, reason, reply: to } => {
                let waited_ms = self.queues.handle_leave(now, &call_id, &reason);
                if let Some(waited_ms) = waited_ms {
                    info!(%call_id, waited_ms, reason, "left");
                }
                self.finish(Step { reply: reply(to, Ok(waited_ms)), ..Step::default() });
            }
            Request::Connected { connected, reply: to } => {
                let Connected { call_id, at, assignment_id } = connected;
                let waited_ms = self.queues.handle_connected(now, &call_id, at, &assignment_id);
                if let Some(waited_ms) = waited_ms {
                    info!(%call_id, waited_ms, "connected without an assignment");
                }
                self.finish(Step { reply: reply(to, Ok(())), ..Step::default() });
            }
            Request::Retrieve { queue, agent, ring_ms, reply } => {
                self.know(&Wanted::Name(queue.clone())).await;
                let tries_left = STALE_MAX;
                self.retrieve(now, Waiter { queue, agent, ring_ms, tries_left, reply });
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
        let known = self.queues.view(&call_id).is_some();
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
            let view = self.queues.view(&call_id).expect("who has joined is there");
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
        let assignment_id = AssignmentId::new(&boot::new_id());
        let retrieve = Retrieve {
            queue: waiter.queue.clone(),
            agent: waiter.agent.clone(),
            ring_ms: waiter.ring_ms,
            assignment_id: assignment_id.clone(),
        };
        match self.queues.handle_retrieve(now, retrieve) {
            Ok(()) => {
                self.waiters.insert(assignment_id.clone(), waiter);
                let undo = Some(Undo::Reserve(assignment_id));
                self.finish(Step { undo, ..Step::default() });
            }
            Err(refusal) => waiter.refuse(refusal.into()),
        }
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

/// As seen from outside.
pub(crate) fn place_of(view: View<'_>) -> Joined {
    Joined {
        caller: view.caller.clone(),
        queue: view.settings.name().to_owned(),
        position: view.position,
        music: view.settings.music(),
    }
}

impl Failure {
    /// For metrics.
    fn word(&self) -> &'static str {
        match self {
            Self::Refused(Refusal::QueueFull { .. } | Refusal::AllFull { .. }) => "full",
            Self::Refused(Refusal::NoSuchQueue { .. }) => "no_such_queue",
            Self::Refused(_) => "refused",
            Self::Store(_) => "store",
            Self::Draining | Self::Ending => "draining",
        }
    }
}
