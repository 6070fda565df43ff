//! The firing loop: drains what the agenda wants done, then waits for one thing to happen.
//!
//! Claims and settlements go to the database by the batch. Attempts go out lane by lane: those to a
//! sip-edge one by one, because each call answers for itself.

use crate::clock::Clock;
use crate::commits::{Change, Commits};
use crate::edge::Edges;
use crate::events::Teller;
use crate::lanes::{Lanes, PUBLISH};
use crate::metrics;
use crate::publish::Bus;
use crate::store::{Ending, Live};
use anyhow::Context as _;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::{debug, info, warn};
use wheel::{
    Agenda, Answer, Attempt, Claim, Granted, Lane, LaneLimits, News, Output, SHARDS, Settled,
    Settlement, Standing, State, StoreFailed, TaskId, Ticket,
};

/// How long the loop sleeps when nothing is due.
const FAR: Duration = Duration::from_secs(3_600);
/// Tasks of one sip-edge between claim and answer at a time.
const EDGE_BEGUN_MAX: usize = 64;
/// Messages between claim and answer at a time.
const PUBLISH_BEGUN_MAX: usize = 16_384;

/// What the loop works with.
pub(crate) struct Firing {
    pub(crate) agenda: Agenda,
    pub(crate) lanes: Lanes,
    pub(crate) clock: Clock,
    pub(crate) commits: Commits,
    pub(crate) edges: Edges,
    pub(crate) bus: Bus,
    pub(crate) teller: Teller,
    pub(crate) changes: mpsc::Receiver<Change>,
    /// True once the process drains.
    pub(crate) draining: watch::Receiver<bool>,
    /// Turns true when it drains, nothing is in flight, and every change is told.
    pub(crate) idle: watch::Sender<bool>,
}

/// A step that was taken.
enum Done {
    Claimed { lane: Lane, claims: Vec<Claim>, answer: Result<Vec<Granted>, StoreFailed> },
    Answered(Vec<(TaskId, Ticket, Answer)>),
    Settled { settlements: Vec<Settlement>, answer: Result<Vec<Settled>, StoreFailed> },
}

/// The agenda of a process that starts with these tasks on disk.
pub(crate) fn resume(clock: Clock, live: &[Live], lanes: &Lanes, edge_rate: u32) -> Agenda {
    let edge = LaneLimits { begun_max: EDGE_BEGUN_MAX, begun_per_s_max: Some(edge_rate) };
    let publish = LaneLimits { begun_max: PUBLISH_BEGUN_MAX, begun_per_s_max: None };
    let mut limits = vec![edge; usize::from(lanes.count())];
    limits[usize::from(PUBLISH.0)] = publish;
    let mut agenda = Agenda::new(&limits);
    (0..SHARDS).for_each(|shard| agenda.own_shard(shard));
    let moment = clock.moment();
    let news = live.iter().map(|live| {
        let (due, lane) = (moment.at(live.fires_at_unix_ms), lanes.of_edge(""));
        let now = match live.firing {
            false => Standing::Waiting { due, lane },
            true => Standing::Firing { due, lane },
        };
        News { task: live.id, revision: live.revision, now }
    });
    agenda.handle_news(0, news);
    agenda
}

impl Firing {
    /// Fires tasks until the process ends.
    pub(crate) async fn run(mut self) -> anyhow::Result<()> {
        let mut steps = JoinSet::new();
        loop {
            while let Some(output) = self.agenda.poll_output() {
                self.begin(output, &mut steps);
            }
            metrics::tasks(self.agenda.len(), self.agenda.in_flight());
            if *self.draining.borrow_and_update() {
                self.drain().await;
            }
            let timeout = self.agenda.poll_timeout().map(|tick| self.clock.instant(tick));
            let timeout = timeout.unwrap_or_else(|| Instant::now() + FAR);
            tokio::select! {
                Some(change) = self.changes.recv() => self.changed(change),
                Some(done) = steps.join_next() => {
                    self.finish(done.context("take a step of a task")?);
                    // What else is done goes into the same batches.
                    while let Some(done) = steps.try_join_next() {
                        self.finish(done.context("take a step of a task")?);
                    }
                }
                Ok(()) = self.draining.changed() => (),
                () = tokio::time::sleep_until(timeout.into()) => {
                    self.agenda.handle_timeout(self.clock.now());
                }
            }
        }
    }

    async fn drain(&mut self) {
        self.agenda.drain();
        // A settlement's change is here before its answer, but need not be read before it.
        let idle = self.agenda.in_flight() == 0 && self.changes.is_empty();
        if idle {
            self.teller.catch_up().await;
        }
        self.idle.send_replace(idle);
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
        let now = match (state, due) {
            (State::Pending, Some(due)) => Standing::Waiting { due, lane: self.lanes.of_edge("") },
            (state, _) if state.has_ended() => Standing::Gone,
            _ => return,
        };
        self.agenda.handle_news(self.clock.now(), [News { task: id, revision, now }]);
    }

    fn begin(&self, output: Output, steps: &mut JoinSet<Done>) {
        match output {
            Output::Claim { lane, claims } => {
                let commits = self.commits.clone();
                steps.spawn(async move {
                    let answer = commits.claim_all(&claims).await.map_err(|_| StoreFailed);
                    Done::Claimed { lane, claims, answer }
                });
            }
            Output::Attempt { lane, attempts } => self.attempt(lane, attempts, steps),
            Output::Settle { settlements } => {
                settlements.iter().for_each(|settlement| metrics::late(settlement.late_ms));
                let commits = self.commits.clone();
                steps.spawn(async move {
                    let answer = commits.settle_all(&settlements).await.map_err(|_| StoreFailed);
                    Done::Settled { settlements, answer }
                });
            }
        }
    }

    fn attempt(&self, lane: Lane, attempts: Vec<Attempt>, steps: &mut JoinSet<Done>) {
        let Some(place) = Lanes::edge(lane) else {
            let bus = self.bus.clone();
            steps.spawn(async move {
                let answers = bus.publish_all(&attempts).await;
                answers.iter().for_each(|(.., answer)| metrics::attempted(answer));
                Done::Answered(answers)
            });
            return;
        };
        for attempt in attempts {
            let edges = self.edges.clone();
            steps.spawn(async move {
                let answer = edges.perform(place, &attempt).await;
                metrics::attempted(&answer);
                debug!(task_id = %attempt.task, ?answer, "attempt");
                Done::Answered(vec![(attempt.task, attempt.ticket, answer)])
            });
        }
    }

    fn finish(&mut self, done: Done) {
        let now = self.clock.now();
        match done {
            Done::Claimed { lane, claims, answer } => {
                self.agenda.handle_claimed(now, lane, &claims, answer);
            }
            Done::Answered(answers) => self.agenda.handle_answered(now, answers),
            Done::Settled { settlements, answer } => {
                self.agenda.handle_settled(now, &settlements, answer);
            }
        }
    }
}

impl Commits {
    /// Those of the claims that are granted.
    async fn claim_all(&self, claims: &[Claim]) -> Result<Vec<Granted>, crate::commits::Unwritten> {
        let claims = claims.iter().map(|claim| async move {
            let Claim { task, revision, again, .. } = *claim;
            let mut effect = self.claim(task, revision, again).await?;
            if again && effect.is_none() {
                effect = self.claim(task, revision, false).await?;
            }
            Ok(effect.map(|effect| Granted {
                task,
                occurrence: 0,
                fires_at_unix_ms: 0,
                effect,
                repeat: None,
            }))
        });
        let granted = futures::future::try_join_all(claims).await?;
        Ok(granted.into_iter().flatten().collect())
    }

    async fn settle_all(
        &self,
        settlements: &[Settlement],
    ) -> Result<Vec<Settled>, crate::commits::Unwritten> {
        let ended_unix_ms = boot::unix_ms();
        let settlements = settlements.iter().map(|settlement| async move {
            let Settlement { task, verdict, late_ms, result, .. } = settlement.clone();
            let late_ms = i64::try_from(late_ms).unwrap_or(i64::MAX);
            self.settle(task, verdict, Ending { ended_unix_ms, late_ms, result }).await?;
            Ok(Settled { task, pending: None })
        });
        futures::future::try_join_all(settlements).await
    }
}
