//! The firing loop: drains what the agenda wants done, then waits for one thing to happen.

use crate::clock::Clock;
use crate::commits::{Change, Commits};
use crate::edge::Edge;
use crate::events::Teller;
use crate::metrics;
use crate::store::{Ending, Live};
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tracing::{debug, info, warn};
use wheel::{Agenda, IN_FLIGHT_MAX, Input, Output, State, TaskId};

/// How long the loop sleeps when nothing is due.
const FAR: Duration = Duration::from_secs(3_600);

/// What the loop works with.
pub(crate) struct Firing {
    pub(crate) agenda: Agenda,
    pub(crate) clock: Clock,
    pub(crate) commits: Commits,
    pub(crate) edge: Edge,
    pub(crate) teller: Teller,
    pub(crate) changes: mpsc::Receiver<Change>,
    /// True once the process drains.
    pub(crate) draining: watch::Receiver<bool>,
    /// Turns true when it drains, nothing is in flight, and every change is told.
    pub(crate) idle: watch::Sender<bool>,
}

/// The agenda of a process that starts with these tasks on disk, in the order of their deadlines.
pub(crate) fn resume(clock: Clock, live: &[Live], tasks_max: u32) -> Agenda {
    let moment = clock.moment();
    let start = live.first().map(|task| moment.at(task.fires_at_unix_ms));
    let start = start.map_or(clock.now(), |first| first.min(clock.now()));
    let room = u32::try_from(live.len() + IN_FLIGHT_MAX).unwrap_or(u32::MAX);
    let mut agenda = Agenda::new(start, tasks_max.saturating_add(room));
    for Live { id, firing, fires_at_unix_ms, revision } in live.iter().copied() {
        let due = moment.at(fires_at_unix_ms);
        let input = match firing {
            false => Input::Armed { revision, due },
            true => Input::Resumed { revision, due },
        };
        agenda.handle(start, id, input);
    }
    agenda
}

impl Firing {
    /// Fires tasks until the process ends.
    pub(crate) async fn run(mut self) -> anyhow::Result<()> {
        let mut in_flight: FuturesUnordered<BoxFuture<'static, (TaskId, Input)>> =
            FuturesUnordered::new();
        loop {
            while let Some(output) = self.agenda.poll_output() {
                in_flight.push(self.perform(output));
            }
            metrics::tasks(self.agenda.len(), self.agenda.in_flight());
            if *self.draining.borrow_and_update() {
                self.agenda.drain();
                // A settlement's change is here before its answer, but need not be read before it.
                let idle = self.agenda.in_flight() == 0 && self.changes.is_empty();
                if idle {
                    self.teller.catch_up().await;
                }
                self.idle.send_replace(idle);
            }
            let timeout = self.agenda.poll_timeout().map(|tick| self.clock.instant(tick));
            let timeout = timeout.unwrap_or_else(|| Instant::now() + FAR);
            tokio::select! {
                Some(change) = self.changes.recv() => self.changed(change),
                Some((task, input)) = in_flight.next() => {
                    self.agenda.handle(self.clock.now(), task, input);
                }
                Ok(()) = self.draining.changed() => (),
                () = tokio::time::sleep_until(timeout.into()) => {
                    self.agenda.handle_timeout(self.clock.now());
                }
            }
        }
    }

    /// A commit has changed a task: tell the agenda, and the world.
    fn changed(&mut self, Change { task, due }: Change) {
        metrics::changed(task.state);
        let (id, call_id, state) = (task.id, &task.call_id, task.state);
        match state {
            State::Pending | State::Firing | State::Cancelled | State::Paused => {
                debug!(task_id = %id, %call_id, ?state, "task");
            }
            State::Fired | State::Expired => {
                info!(task_id = %id, %call_id, ?state, late_ms = task.late_ms, "task: {}", task.result);
            }
            State::Failed => {
                warn!(task_id = %id, %call_id, ?state, late_ms = task.late_ms, "task: {}", task.result);
            }
        }
        let revision = task.revision;
        self.teller.tell(task);
        let input = match (state, due) {
            (State::Pending, Some(due)) => Input::Armed { revision, due },
            (state, _) if state.has_ended() => Input::Ended,
            _ => return,
        };
        self.agenda.handle(self.clock.now(), id, input);
    }

    fn perform(&self, output: Output) -> BoxFuture<'static, (TaskId, Input)> {
        let (commits, edge) = (self.commits.clone(), self.edge.clone());
        Box::pin(async move {
            match output {
                Output::Claim { task, revision, again } => {
                    let input = match commits.claim(task, revision, again).await {
                        Ok(Some(effect)) => Input::Claimed(effect),
                        Ok(None) => Input::NotClaimed,
                        Err(_) => Input::StoreFailed,
                    };
                    (task, input)
                }
                Output::Perform { task, effect } => {
                    let answer = edge.perform(task, effect).await;
                    metrics::attempted(&answer);
                    debug!(task_id = %task, ?answer, "attempt");
                    (task, Input::Answered(answer))
                }
                Output::Settle { task, verdict, late_ms, result } => {
                    metrics::late(late_ms);
                    let ended_unix_ms = boot::unix_ms();
                    let late_ms = i64::try_from(late_ms).unwrap_or(i64::MAX);
                    let ending = Ending { ended_unix_ms, late_ms, result };
                    let input = match commits.settle(task, verdict, ending).await {
                        Ok(()) => Input::Settled,
                        Err(_) => Input::StoreFailed,
                    };
                    (task, input)
                }
            }
        })
    }
}
