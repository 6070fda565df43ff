//! The firing loop: drains what the agenda wants done, then waits for one thing to happen.
//!
//! Claims and settlements go to the database by the batch. Attempts go out lane by lane: those to a
//! sip-edge one by one, because each call answers for itself.

use crate::clock::Clock;
use crate::commits::Commits;
use crate::edge::Edges;
use crate::horizon::Horizon;
use crate::lanes::{Lanes, PUBLISH};
use crate::leases::{Leases, Turn};
use crate::metrics;
use crate::publish::Bus;
use crate::store::{self, Cursor, Held};
use anyhow::Context as _;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::{debug, warn};
use wheel::{
    Agenda, Answer, Attempt, Claim, Granted, Lane, LaneLimits, News, Output, SHARDS, Settled,
    Settlement, StoreFailed, TaskId, Ticket,
};

/// How long the loop sleeps when nothing is due.
const FAR: Duration = Duration::from_secs(3_600);
/// Wait before tasks that could not be read are tried again.
const READ_AGAIN: Duration = Duration::from_millis(250);
/// Tasks of one sip-edge between claim and answer at a time.
const EDGE_BEGUN_MAX: usize = 64;
/// With so many tasks in flight, the world is told of them later.
const BUSY: usize = 1_000;
/// Messages between claim and answer at a time.
const PUBLISH_BEGUN_MAX: usize = 24_576;

/// What the loop works with.
pub(crate) struct Firing {
    pub(crate) agenda: Agenda,
    pub(crate) clock: Clock,
    pub(crate) commits: Commits,
    pub(crate) edges: Edges,
    pub(crate) bus: Bus,
    pub(crate) leases: Leases,
    pub(crate) horizon: Horizon,
    pub(crate) news: mpsc::Receiver<Vec<News>>,
    pub(crate) turns: mpsc::Receiver<Turn>,
    pub(crate) shards: Shards,
    /// True once the process drains.
    pub(crate) draining: watch::Receiver<bool>,
    /// Turns true when it drains, and nothing is in flight.
    pub(crate) idle: watch::Sender<bool>,
    /// True while so much is in flight that what can wait should.
    pub(crate) busy: watch::Sender<bool>,
}

/// What the loop has to remember about shards.
#[derive(Default)]
pub(crate) struct Shards {
    /// Given up once nothing is in flight there.
    leaving: Vec<u8>,
    /// New to us, and not one of its tasks has been read.
    unread: Vec<u8>,
    /// Up to when its tasks are known, in Unix ms.
    read_unix_ms: [i64; SHARDS as usize],
}

/// A step that was taken.
enum Done {
    Claimed { lane: Lane, claims: Vec<Claim>, answer: Result<Vec<Granted>, StoreFailed> },
    Answered(Vec<(TaskId, Ticket, Answer)>),
    Settled { settlements: Vec<Settlement>, answer: Result<Vec<Settled>, StoreFailed> },
    Read { shard: u8, read: store::Result<(Vec<News>, Option<Cursor>)>, after: Option<Cursor> },
}

/// An agenda with a lane for each edge, and one for what is published.
pub(crate) fn agenda(lanes: &Lanes, edge_rate: u32) -> Agenda {
    let edge = LaneLimits { begun_max: EDGE_BEGUN_MAX, begun_per_s_max: Some(edge_rate) };
    let publish = LaneLimits { begun_max: PUBLISH_BEGUN_MAX, begun_per_s_max: None };
    let mut limits = vec![edge; usize::from(lanes.count())];
    limits[usize::from(PUBLISH.0)] = publish;
    Agenda::new(&limits)
}

impl Firing {
    /// Fires tasks until the process ends.
    pub(crate) async fn run(mut self) -> anyhow::Result<()> {
        let mut steps = JoinSet::new();
        let mut scan = Box::pin(tokio::time::sleep(self.horizon.interval()));
        loop {
            while let Some(output) = self.agenda.poll_output() {
                self.begin(output, &mut steps);
            }
            let in_flight = self.agenda.in_flight();
            metrics::tasks(self.agenda.len(), in_flight);
            let is_busy = in_flight >= BUSY;
            self.busy.send_if_modified(|busy| std::mem::replace(busy, is_busy) != is_busy);
            self.leave().await;
            if *self.draining.borrow_and_update() {
                self.agenda.drain();
                self.idle.send_replace(self.agenda.in_flight() == 0);
            }
            let timeout = self.agenda.poll_timeout().map(|tick| self.clock.instant(tick));
            let timeout = timeout.unwrap_or_else(|| Instant::now() + FAR);
            tokio::select! {
                Some(news) = self.news.recv() => self.agenda.handle_news(self.clock.now(), news),
                Some(turn) = self.turns.recv() => self.turn(turn, &mut steps),
                Some(done) = steps.join_next() => {
                    self.finish(done.context("take a step of a task")?, &mut steps);
                    // What else is done goes into the same batches.
                    while let Some(done) = steps.try_join_next() {
                        self.finish(done.context("take a step of a task")?, &mut steps);
                    }
                }
                () = &mut scan => {
                    scan.as_mut().reset(tokio::time::Instant::now() + self.horizon.interval());
                    self.read_on(&mut steps);
                }
                Ok(()) = self.draining.changed() => (),
                () = tokio::time::sleep_until(timeout.into()) => {
                    self.agenda.handle_timeout(self.clock.now());
                }
            }
        }
    }

    fn turn(&mut self, turn: Turn, steps: &mut JoinSet<Done>) {
        match turn {
            Turn::Gained(Held { shard, fence }) => {
                self.shards.forget(shard);
                self.shards.unread.push(shard);
                self.shards.read_unix_ms[usize::from(shard)] = self.horizon.end_unix_ms();
                self.agenda.hold(true);
                self.agenda.own_shard(shard, fence);
                self.read(shard, None, steps);
            }
            Turn::Leaving(shard) => {
                self.agenda.release_shard(shard);
                self.shards.forget(shard);
                self.shards.leaving.push(shard);
            }
            Turn::Lost(shard) => {
                self.shards.forget(shard);
                self.agenda.drop_shard(shard);
            }
        }
        self.agenda.hold(!self.shards.unread.is_empty());
    }

    /// Reads the tasks that have come nearer than the horizon.
    fn read_on(&mut self, steps: &mut JoinSet<Done>) {
        for Held { shard, .. } in self.leases.all_held() {
            let read_unix_ms = &mut self.shards.read_unix_ms[usize::from(shard)];
            let since = self.horizon.since(*read_unix_ms);
            *read_unix_ms = (*read_unix_ms).max(self.horizon.end_unix_ms());
            self.read(shard, Some(since), steps);
        }
    }

    /// Gives up what is being left and has nothing in flight.
    async fn leave(&mut self) {
        let agenda = &self.agenda;
        let quiet = |shard: &u8| agenda.shard_in_flight(*shard) == 0;
        let (quiet, busy) = self.shards.leaving.iter().partition(|shard| quiet(shard));
        self.shards.leaving = busy;
        let quiet: Vec<u8> = quiet;
        for shard in quiet {
            self.leases.quiet(shard).await;
        }
    }

    fn read(&self, shard: u8, after: Option<Cursor>, steps: &mut JoinSet<Done>) {
        let horizon = self.horizon.clone();
        steps.spawn(async move {
            let read = horizon.page(shard, after).await;
            Done::Read { shard, read, after }
        });
    }

    fn begin(&self, output: Output, steps: &mut JoinSet<Done>) {
        match output {
            Output::Claim { lane, claims } => {
                let commits = self.commits.clone();
                steps.spawn(async move {
                    let answer = commits.claim(claims.clone()).await.map_err(|_| StoreFailed);
                    Done::Claimed { lane, claims, answer }
                });
            }
            Output::Attempt { lane, attempts } => self.attempt(lane, attempts, steps),
            Output::Settle { settlements } => {
                let commits = self.commits.clone();
                steps.spawn(async move {
                    let answer = commits.settle(settlements.clone()).await.map_err(|_| StoreFailed);
                    Done::Settled { settlements, answer }
                });
            }
        }
    }

    fn attempt(&self, lane: Lane, attempts: Vec<Attempt>, steps: &mut JoinSet<Done>) {
        let Some(place) = Lanes::edge(lane) else {
            let (bus, leases) = (self.bus.clone(), self.leases.clone());
            steps.spawn(async move {
                let period = leases.period();
                let may_act =
                    |attempt: &Attempt| period.is_some() && leases.may_act(attempt.task.shard());
                let (attempts, late): (Vec<_>, Vec<_>) = attempts.into_iter().partition(may_act);
                let mut answers = match period {
                    Some(period) if !attempts.is_empty() => bus.publish_all(attempts, period).await,
                    _ => Vec::new(),
                };
                metrics::attempted(answers.iter().map(|(.., answer)| answer));
                answers.extend(late.iter().map(|it| (it.task, it.ticket, lease_is_over())));
                Done::Answered(answers)
            });
            return;
        };
        for attempt in attempts {
            let (edges, leases) = (self.edges.clone(), self.leases.clone());
            steps.spawn(async move {
                // Here, not before: the process may have stood still since.
                let answer = match leases.may_act(attempt.task.shard()) {
                    true => edges.perform(place, &attempt).await,
                    false => lease_is_over(),
                };
                metrics::attempted([&answer]);
                debug!(task_id = %attempt.task, call_id = attempt.effect.call_id(), ?answer, "attempt");
                Done::Answered(vec![(attempt.task, attempt.ticket, answer)])
            });
        }
    }

    fn finish(&mut self, done: Done, steps: &mut JoinSet<Done>) {
        let now = self.clock.now();
        match done {
            Done::Claimed { lane, claims, answer } => {
                self.agenda.handle_claimed(now, lane, &claims, answer);
            }
            Done::Answered(answers) => self.agenda.handle_answered(now, answers),
            Done::Settled { settlements, answer } => {
                if answer.is_ok() {
                    settlements.iter().for_each(|settlement| metrics::late(settlement.late_ms));
                }
                self.agenda.handle_settled(now, &settlements, answer);
            }
            Done::Read { shard, read: Ok((news, next)), .. } => {
                self.agenda.handle_news(now, news);
                self.read_first(shard);
                if next.is_some() {
                    self.read(shard, next, steps);
                }
            }
            Done::Read { shard, read: Err(e), after } => {
                warn!(shard, "failed to read tasks: {e}");
                self.read_first(shard); // The other shards do not wait for it.
                let again = self.horizon.clone();
                steps.spawn(async move {
                    tokio::time::sleep(READ_AGAIN).await;
                    Done::Read { shard, read: again.page(shard, after).await, after }
                });
            }
        }
    }

    /// The most urgent tasks of the shard are known.
    fn read_first(&mut self, shard: u8) {
        self.shards.unread.retain(|unread| *unread != shard);
        self.agenda.hold(!self.shards.unread.is_empty());
        self.agenda.handle_timeout(self.clock.now());
    }
}

fn lease_is_over() -> Answer {
    Answer::Unanswered("the lease is over".to_owned())
}

impl Shards {
    fn forget(&mut self, shard: u8) {
        self.leaving.retain(|leaving| *leaving != shard);
        self.unread.retain(|unread| *unread != shard);
    }
}

#[cfg(test)]
mod tests;
