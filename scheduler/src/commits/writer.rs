//! The one who writes: takes what waits, has a batch of it made, and answers after the commit.

use super::ahead::Ahead;
use super::batch::{Batch, Made};
use super::counts::{Counts, Limits};
use super::kept::Kept;
use super::seen::Seen;
use super::{Unwritten, Waiting, Write};
use crate::clock::Clock;
use crate::lanes::Lanes;
use crate::leases::Leases;
use crate::metrics;
use crate::recent::Recent;
use crate::store::{self, CommitError, Held, LogRow, Store};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tracing::warn;
use wheel::News;

/// Writes of clients in one transaction.
const WRITES_PER_COMMIT: usize = 1_024;
/// Tasks that are claimed and settled in one transaction, before it begins no further batch of them.
const FIRING_PER_COMMIT: usize = 8_192;
/// The same if clients wait for that transaction, at a few µs for each task.
const FIRING_BESIDE_WRITES: usize = 2_048;
/// Bytes that are scheduled in one transaction, about.
const KIB_PER_COMMIT: usize = 4_096;
/// Settlements make a commit of their own so often: a task that is due would wait for it. Mostly they
/// go along with what others wait for.
const SETTLE_INTERVAL: Duration = Duration::from_millis(20);
/// How often replicas say how many tasks they have.
const TALLY_INTERVAL: Duration = Duration::from_secs(1);
/// Wait before the database is asked again what became of a commit.
const RESOLVE_INTERVAL: Duration = Duration::from_millis(100);
/// How long those who wait for a commit in doubt are left without an answer.
const IN_DOUBT_LIMIT: Duration = Duration::from_secs(5);

/// What the writer works with.
#[derive(Clone)]
pub(crate) struct Desk {
    pub(crate) store: Store,
    pub(crate) leases: Leases,
    pub(crate) limits: Limits,
    pub(crate) clock: Clock,
    pub(crate) lanes: Lanes,
    pub(crate) recent: Recent,
    /// The firing loop hears of tasks that are due within it.
    pub(crate) horizon_ms: i64,
}

/// The other end of [`super::Commits`].
pub(crate) struct Writer {
    desk: Desk,
    counts: Counts,
    kept: Kept,
    ahead: Ahead,
    queues: Queues,
    news: mpsc::Sender<Vec<News>>,
    committed: watch::Sender<u64>,
    tallied: Instant,
    /// When settlements were last taken.
    settled: Instant,
}

/// What waits, by who waits.
pub(super) struct Queues {
    /// Clients.
    pub(super) writes: mpsc::Receiver<Waiting>,
    /// Tasks that are due.
    pub(super) claims: mpsc::Receiver<Waiting>,
    /// Nobody.
    pub(super) settlements: mpsc::Receiver<Waiting>,
}

impl Writer {
    pub(super) fn new(
        desk: Desk,
        queues: Queues,
        news: mpsc::Sender<Vec<News>>,
        committed: watch::Sender<u64>,
    ) -> Self {
        let (counts, kept, now) = (Counts::default(), Kept::default(), Instant::now());
        let ahead = Ahead::new(desk.store.clone());
        Self { desk, counts, kept, ahead, queues, news, committed, tallied: now, settled: now }
    }

    /// Writes whatever is asked for. A failure of the database is the answer to those who wait, not
    /// the end.
    pub(crate) async fn run(mut self) -> anyhow::Result<()> {
        let replicated = self.desk.store.replicas().is_some();
        let mut waiting = Vec::with_capacity(WRITES_PER_COMMIT);
        loop {
            let tally = tokio::time::sleep_until(self.tallied + TALLY_INTERVAL);
            let held = self.desk.leases.all_held();
            self.kept.retain(&held);
            self.ahead.read_on(self.desk.clock.moment().unix_ms(), &self.kept, &held);
            tokio::select! {
                biased;
                first = self.queues.claims.recv() => waiting.extend(first),
                first = self.queues.writes.recv() => waiting.extend(first),
                first = settlement(&mut self.queues.settlements, self.settled) => {
                    waiting.extend(first);
                }
                () = tally, if replicated => {}
                page = self.ahead.ready(&self.kept) => {
                    page.into_iter().for_each(|page| self.ahead.keep(page, &mut self.kept));
                    continue;
                }
            }
            if waiting.is_empty() && !replicated {
                return Ok(()); // Nobody can ask any more.
            }
            self.collect(&mut waiting);
            if replicated && self.tallied.elapsed() >= TALLY_INTERVAL {
                self.tallied = Instant::now();
                if let Err(e) = self.tally().await {
                    warn!("failed to tell other replicas how many tasks there are: {e}");
                }
            }
            if waiting.is_empty() {
                continue;
            }
            let count = waiting.len();
            let (writes, room): (Vec<_>, Vec<_>) =
                waiting.drain(..).map(|it| (it.write, it._room)).unzip();
            if let Err(e) = self.write(writes).await {
                self.kept.clear();
                metrics::commit_failed();
                warn!(writes = count, "failed to commit: {e}");
            }
            drop(room);
        }
    }

    /// Takes what else is there; claims last, so that a cancel which came in time is not overtaken.
    fn collect(&mut self, waiting: &mut Vec<Waiting>) {
        let mut kib = 0;
        while waiting.len() < WRITES_PER_COMMIT
            && kib < KIB_PER_COMMIT
            && let Ok(next) = self.queues.writes.try_recv()
        {
            kib += next._room.as_ref().map_or(0, |room| room.num_permits());
            waiting.push(next);
        }
        let clients = waiting.iter().any(|it| it._room.is_some());
        let most = if clients { FIRING_BESIDE_WRITES } else { FIRING_PER_COMMIT };
        let mut tasks = waiting.iter().map(|it| it.write.firing()).sum::<usize>();
        while tasks < most
            && let Some(next) = self.queues.firing()
        {
            tasks += next.write.firing();
            waiting.push(next);
        }
        if waiting.iter().any(|it| matches!(it.write, Write::Settle { .. })) {
            self.settled = Instant::now();
        }
    }

    async fn write(&mut self, writes: Vec<Write>) -> store::Result<()> {
        let held = self.desk.leases.all_held();
        self.counts.retain(&held);
        let (transaction, held) = match self.desk.store.begin(&held).await {
            Ok(begun) => begun,
            // The connection may have been cut while it was idle: it gets a second one.
            Err(_) if self.desk.store.replicas().is_some() => self.desk.store.begin(&held).await?,
            Err(e) => return Err(e),
        };
        let mut batch = Batch::new(transaction, held, &self.desk);
        self.kept.retain(batch.held());
        batch.prepare(&mut self.counts).await?;
        batch.apply(&self.counts, &mut self.kept, writes).await?;
        let (transaction, made) = batch.flush().await?;
        match transaction.commit().await {
            Ok(()) => self.tell(made).await,
            Err(CommitError::Failed(e)) => return Err(e),
            Err(CommitError::InDoubt(e)) => self.resolve(made, e).await?,
        }
        Ok(())
    }

    /// Asks the database what became of a commit, however long it takes: nothing can be written
    /// before that is known. Those who wait are answered in time.
    async fn resolve(&mut self, mut made: Made, e: store::Error) -> store::Result<()> {
        let Some(row) = made.log.first().cloned() else {
            return Err(e); // It changed nothing.
        };
        warn!(writes = made.replies.len(), "lost the database during a commit: {e}");
        let since = Instant::now();
        loop {
            match self.was_committed(&row).await {
                Ok(true) => {
                    self.tell(made).await;
                    return Ok(());
                }
                Ok(false) => return Err(e),
                Err(e) if since.elapsed() > IN_DOUBT_LIMIT && !made.replies.is_empty() => {
                    warn!(writes = made.replies.len(), "cannot say what became of a commit: {e}");
                    made.replies.drain(..).for_each(|reply| reply(Some(Unwritten::InDoubt)));
                }
                Err(_) => {}
            }
            tokio::time::sleep(RESOLVE_INTERVAL).await;
        }
    }

    async fn was_committed(&self, row: &LogRow) -> store::Result<bool> {
        self.desk.store.was_committed(row).await
    }

    /// What was committed.
    async fn tell(&mut self, made: Made) {
        metrics::committed(made.replies.len());
        self.counts.apply(&made.deltas);
        for row in &made.log {
            self.counts.advance(row.shard, row.seq);
        }
        self.desk.recent.committed(&made.log, made.recent);
        made.touched.iter().for_each(|id| drop(self.kept.take(*id)));
        self.ahead.changes(made.touched);
        self.kept.keep(made.kept);
        Seen::tell(&made.ends);
        if !made.news.is_empty() {
            let _ = self.news.send(made.news).await; // The firing loop ends with the process.
        }
        if !made.log.is_empty() {
            self.committed.send_modify(|commits| *commits += 1);
        }
        made.replies.into_iter().for_each(|reply| reply(None));
    }

    /// Says how many tasks there are in our shards, and hears how many in others.
    async fn tally(&mut self) -> store::Result<()> {
        let held: Vec<Held> = self.desk.leases.all_held();
        self.counts.retain(&held);
        let (transaction, held) = self.desk.store.begin(&held).await?;
        let mut batch = Batch::new(transaction, held, &self.desk);
        batch.prepare(&mut self.counts).await?;
        let shards: Vec<u8> = batch.held().iter().map(|held| held.shard).collect();
        let mut transaction = batch.into_transaction();
        transaction.tell_counts(&shards, &self.counts.told()).await?;
        let elsewhere = transaction.counts_elsewhere(&shards).await?;
        self.counts.hear(elsewhere);
        transaction.commit().await.map_err(|e| match e {
            CommitError::Failed(e) | CommitError::InDoubt(e) => e,
        })
    }
}

impl Queues {
    /// The next claim, or else the next settlement.
    fn firing(&mut self) -> Option<Waiting> {
        self.claims.try_recv().or_else(|_| self.settlements.try_recv()).ok()
    }
}

/// The next settlement, but not before [`SETTLE_INTERVAL`] after the last ones.
async fn settlement(waiting: &mut mpsc::Receiver<Waiting>, last: Instant) -> Option<Waiting> {
    tokio::time::sleep_until(last + SETTLE_INTERVAL).await;
    waiting.recv().await
}
