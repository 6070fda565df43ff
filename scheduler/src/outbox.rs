//! What happened to tasks goes out to the bus.
//!
//! It is what the log of changes has: an outbox. Mostly it is still in memory. The owner of a shard publishes its
//! changes in order and remembers now and then how far it has come, so that an event may come twice
//! but never not at all, whoever dies. It yields: it reads many changes at a time, pauses, and is
//! behind when there is much else to do.

use crate::leases::Leases;
use crate::recent::Recent;
use crate::store::{self, Changed, Held, Store};
use crate::{grpc, metrics};
use boot::{Event, Journal, UNACKED_MAX};
use proto::subjects;
use proto::task_json::task_event_json;
use std::collections::HashMap;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::warn;

/// Commits whose changes are read at a time: one may have thousands, and memory for them is not all given
/// back.
const COMMITS_PER_READ: u32 = 2;
/// Events per second at most: more wait in the log.
const EVENTS_PER_S_MAX: u32 = 20_000;
/// How long a look at the log, and each window of events, waits for a herd that is firing.
const YIELD_LIMIT: Duration = Duration::from_secs(1);
/// How long all events may wait for who makes many changes; then they wait no more until all are told.
const HELD_BACK_LIMIT: Duration = Duration::from_secs(60);
/// How often it is looked whether many changes are still being made.
const STILL_MANY: Duration = Duration::from_millis(100);
/// The shortest wait between two looks at the log.
const LOOK_PAUSE: Duration = Duration::from_millis(10);
/// Wait before what failed is tried again.
const AGAIN: Duration = Duration::from_millis(250);
/// How often it is remembered how far the events have come.
const REMEMBER_INTERVAL: Duration = Duration::from_secs(1);

/// Tells the world what became of the tasks in the shards of this process.
pub(crate) struct Outbox {
    store: Store,
    recent: Recent,
    leases: Leases,
    journal: Journal,
    progress: HashMap<u8, Progress>,
    remembered_at: Instant,
    /// When the next events may go out.
    not_before: Instant,
    busy: watch::Receiver<bool>,
    draining: watch::Receiver<bool>,
    patience: Patience,
}

/// How long events wait for who makes many changes.
struct Patience {
    untold_max: i64,
    /// Since when they have been waiting, with or without pauses; until all are told.
    since: Option<Instant>,
}

/// What an [`Outbox`] is made of.
pub(crate) struct Parts {
    pub(crate) store: Store,
    pub(crate) recent: Recent,
    pub(crate) leases: Leases,
    pub(crate) journal: Journal,
    /// Whether tasks are firing in such numbers that events wait.
    pub(crate) busy: watch::Receiver<bool>,
    /// Events wait no longer then.
    pub(crate) draining: watch::Receiver<bool>,
    /// Changes of a shard that may wait for who makes many: well below what is kept of it.
    pub(crate) untold_max: i64,
}

#[derive(Clone, Copy)]
struct Progress {
    held: Held,
    /// Up to here the log reaches; under one token only this process makes it longer.
    last: i64,
    /// Up to here it is told.
    seq: i64,
    /// Up to here it is remembered.
    remembered: i64,
}

impl Outbox {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { store, recent, leases, journal, busy, draining, untold_max } = parts;
        let now = Instant::now();
        Self {
            store,
            recent,
            leases,
            journal,
            progress: HashMap::new(),
            remembered_at: now,
            not_before: now,
            busy,
            draining,
            patience: Patience { untold_max, since: None },
        }
    }

    /// Tells until the process ends. `committed` changes with every commit of this process; once
    /// `idle` is true and all is told, `told` turns true.
    pub(crate) async fn run(
        mut self,
        mut committed: watch::Receiver<u64>,
        mut idle: watch::Receiver<bool>,
        told: watch::Sender<bool>,
    ) -> anyhow::Result<()> {
        let mut owners = self.leases.changed();
        loop {
            committed.mark_unchanged();
            owners.mark_unchanged();
            let is_idle = *idle.borrow_and_update();
            let all_told = self.round(is_idle).await.inspect_err(|e| {
                warn!("failed to tell what became of tasks: {e}");
            });
            told.send_replace(is_idle && matches!(all_told, Ok(true)));
            if all_told.is_err() {
                sleep(AGAIN).await;
                continue;
            }
            let to_remember = self.progress.values().any(|it| it.seq > it.remembered);
            tokio::select! {
                Ok(()) = committed.changed() => (),
                Ok(()) = owners.changed() => (),
                Ok(()) = idle.changed() => (),
                () = sleep(REMEMBER_INTERVAL), if to_remember => (),
            }
            sleep(LOOK_PAUSE).await; // What else is committed meanwhile goes along.
        }
    }

    /// Lets tasks that are firing, and changes that are being made, in great numbers go first, but not
    /// for ever.
    async fn yield_to_others(&mut self) {
        let quiet = self.busy.wait_for(|busy| !busy);
        let _ = tokio::time::timeout(YIELD_LIMIT, quiet).await; // Either way it goes on.
        while self.recent.are_many()
            && !*self.draining.borrow()
            && self.patience.lasts(Instant::now(), self.untold())
        {
            sleep(STILL_MANY).await;
        }
    }

    /// Changes of a shard that the world is not told of: of the one that has most.
    fn untold(&self) -> i64 {
        let untold = self.progress.values().map(|it| {
            let last = self.recent.end(it.held).unwrap_or(it.last);
            last - it.seq
        });
        untold.max().unwrap_or(0)
    }

    /// Tells what is there now; whether that was all. `last`: remembers at once.
    async fn round(&mut self, last: bool) -> store::Result<bool> {
        let held = self.leases.all_held();
        self.progress.retain(|_, progress| held.contains(&progress.held));
        self.recent.retain(&held);
        for held in held.iter().copied() {
            let progress = self.progress(held).await?;
            self.progress.insert(held.shard, progress);
        }
        self.yield_to_others().await;
        for held in held.iter().copied() {
            let mut progress = self.progress(held).await?;
            while progress.seq < progress.last {
                self.yield_to_others().await;
                let Some(seq) = self.tell_some(progress).await? else {
                    break; // The shard is somebody else's now, and so is the rest.
                };
                progress.seq = seq;
                self.progress.insert(held.shard, progress);
                self.remember(false).await?;
                progress.remembered = self.progress[&held.shard].remembered;
            }
            self.progress.insert(held.shard, progress);
        }
        self.remember(last).await?;
        let told = |held: &Held| {
            let end = self.recent.end(*held);
            self.progress.get(&held.shard).is_some_and(|it| it.seq >= end.unwrap_or(it.last))
        };
        let all_told = held.iter().all(told);
        if all_told {
            self.patience.since = None;
        }
        Ok(all_told)
    }

    /// Tells the next changes; up to which, or `None` if the shard was lost before that.
    async fn tell_some(
        &mut self,
        Progress { held, seq, .. }: Progress,
    ) -> store::Result<Option<i64>> {
        let recent = self.recent.take(held.shard, seq, UNACKED_MAX);
        let changes = match recent.is_empty() {
            true => self.store.changes(held.shard, seq, COMMITS_PER_READ).await?,
            false => Some(recent),
        };
        let Some(changes) = changes else {
            let first = self.store.reach(&[held.shard]).await?[0].first;
            let (shard, untold) = (held.shard, first - 1 - seq);
            warn!(shard, untold, "what became of tasks was forgotten before NATS took it");
            metrics::events_forgotten(untold);
            return Ok(Some(first - 1));
        };
        let Some(last) = changes.last() else {
            return Ok(None); // Of a log that is shorter than it was: not ours to judge.
        };
        Ok(self.publish_all(held, &changes).await.then_some(last.seq))
    }

    /// How far it has come with the shard, and how far there is to go.
    async fn progress(&mut self, held: Held) -> store::Result<Progress> {
        let mut progress = match self.progress.get(&held.shard) {
            Some(progress) => *progress,
            None => {
                let last = self.store.reach(&[held.shard]).await?[0].last;
                let seq = self.store.published(held.shard).await?;
                Progress { held, last, seq, remembered: seq }
            }
        };
        progress.last = self.recent.end(held).unwrap_or(progress.last).max(progress.last);
        Ok(progress)
    }

    /// Remembers how far all shards are told, if it is time or `now`: with one write, because the tasks
    /// that are due meanwhile wait for it.
    async fn remember(&mut self, now: bool) -> store::Result<()> {
        if !now && self.remembered_at.elapsed() < REMEMBER_INTERVAL {
            return Ok(());
        }
        let further = self.progress.values().filter(|it| it.seq > it.remembered);
        let further: Vec<(Held, i64)> = further.map(|it| (it.held, it.seq)).collect();
        self.remembered_at = Instant::now();
        if !further.is_empty() {
            self.store.set_published(&further).await?;
            self.progress.values_mut().for_each(|it| it.remembered = it.seq);
        }
        Ok(())
    }

    /// Publishes these changes, as long as it takes; false if the shard was lost before that.
    async fn publish_all(&mut self, held: Held, changes: &[Changed]) -> bool {
        for window in changes.chunks(UNACKED_MAX) {
            self.yield_to_others().await;
            sleep_until(self.not_before).await;
            let pause = Duration::from_secs(1) * window.len() as u32 / EVENTS_PER_S_MAX;
            self.not_before = Instant::now() + pause;
            let events: Vec<Event> = window.iter().map(event).collect();
            let leases = &self.leases;
            let kept = self.journal.keep(&events, |left| {
                metrics::events_not_confirmed(left);
                leases.all_held().contains(&held)
            });
            if !kept.await {
                return false;
            }
        }
        true
    }
}

impl Patience {
    /// Whether they wait on at `now`, while so many changes of one shard are untold: the oldest must not
    /// be forgotten before they are.
    fn lasts(&mut self, now: Instant, untold: i64) -> bool {
        let since = *self.since.get_or_insert(now);
        now.saturating_duration_since(since) < HELD_BACK_LIMIT && untold <= self.untold_max
    }
}

/// The event that a change is.
fn event(change: &Changed) -> Event {
    let event = grpc::event(change);
    let task = event.task.as_ref().expect("an event has its task");
    let subject = subjects::task(task.state(), &task.call_id);
    let json = task_event_json(&event);
    Event { subject, id: event.event_id, json }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_wait_for_a_minute_at_most_and_not_until_they_are_forgotten() {
        let mut patience = Patience { untold_max: 100, since: None };
        let start = Instant::now();
        let mut lasts = |s, untold| patience.lasts(start + Duration::from_secs(s), untold);
        assert!(lasts(0, 0) && lasts(30, 100));
        assert!(!lasts(31, 101), "too many are untold");
        assert!(lasts(59, 100));
        assert!(!lasts(60, 0) && !lasts(200, 0), "not again before all are told");
    }
}
