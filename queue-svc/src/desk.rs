//! The loop around the core: requests in; rows to disk; then replies, ringing and events.
//!
//! Rows are written by one transaction at a time, with everything that has come meanwhile (group
//! commit), and with what others are to be told of it: the log of changes. A reply waits for its
//! rows. If they cannot be written, a new place and an operator's new assignment are taken back and
//! refused; everything else has happened and its rows are written later. So callers go on reaching
//! agents while the database is away; if this process dies then, too, sip-edge knows who rings. With
//! replicas nothing is done without its rows, and a database that is away ends the lease on the queues,
//! and with it the loop.

mod handle;
mod order;
mod request;
mod step;
mod table;

pub(crate) use handle::{Desk, Door, Joined, Retrieved};
pub(crate) use request::{AgentDraft, Failure, PutAgent};

use crate::grpc::Edge;
use crate::leases::{Lease, Leases};
use crate::metrics;
use crate::store::{self, Batch, Store, StoreError};
use anyhow::Context as _;
use boot::unix_ms;
use queue::{AssignmentId, CallId, Queues, UnixMs};
use request::Request;
use std::collections::{HashMap, HashSet};
use std::mem::take;
use std::sync::Arc;
use std::time::{Duration, Instant};
use step::{Step, Waiter};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tracing::{info, warn};

/// Requests that wait for the loop; more make their senders wait.
const REQUESTS_MAX: usize = 1024;
/// Requests taken at a time.
const BATCH_MAX: usize = 256;
/// Replies that wait for their rows; above this no request is taken.
const STEPS_MAX: usize = 4096;
/// How often rows that could not be written are tried again.
const WRITE_AGAIN: Duration = Duration::from_millis(500);
/// The shortest time from the beginning of one transaction to that of the next: what comes meanwhile
/// shares it.
const GATHER: Duration = Duration::from_millis(5);
/// How often the table of queues is read for what people changed by hand.
const TABLE_EVERY: Duration = Duration::from_secs(5);
/// Questions to sip-edge whether a call is still there, at a time.
const CHECKS_MAX: usize = 32;
/// How long it may stay unwritten which changes NATS has.
const TOLD_EVERY: Duration = Duration::from_secs(1);
/// Changes that wait for the database; above this the oldest are lost, and counted.
const CHANGES_MAX: usize = 65_536;
/// The longest sleep without anything to do.
const IDLE_MAX: Duration = Duration::from_secs(3600);

/// What each loop is made of.
pub(crate) struct Parts {
    pub(crate) max_calls: usize,
    pub(crate) store: Store,
    pub(crate) leases: Leases,
    /// URL of sip-edge.
    pub(crate) sip_edge: String,
    /// The folder of prompts, on media-relay's disk.
    pub(crate) prompts: String,
    /// How long changes are kept.
    pub(crate) retention: Duration,
    pub(crate) draining: watch::Receiver<bool>,
    /// Gets the revision of the last change that is on disk.
    pub(crate) logged: watch::Sender<i64>,
    /// Gets whether an assignment is not decided or a row is not on disk.
    pub(crate) busy: watch::Sender<bool>,
}

/// Loads what is on disk. The future is the loop: it ends when the lease is lost, or, if there are
/// replicas, when the process drains and all is on disk.
///
/// # Errors
/// If it cannot be loaded.
pub(crate) async fn open(
    parts: &Parts,
    lease: Lease,
) -> anyhow::Result<(Desk, impl Future<Output = anyhow::Result<()>> + Send + 'static)> {
    let (requests, inbox) = mpsc::channel(REQUESTS_MAX);
    let desk = Desk::new(requests, parts.busy.subscribe());
    let id_prefix = boot::new_id();
    // Connections of its own: older ones break when they are used.
    let edge = match parts.leases.is_sole() {
        true => boot::channel("--sip-edge", &parts.sip_edge)?,
        false => boot::gated_channel("--sip-edge", &parts.sip_edge, parts.leases.gate())?,
    };
    let mut work = Work {
        queues: Queues::new(parts.max_calls, &id_prefix),
        id_prefix,
        store: parts.store.clone(),
        lease,
        leases: parts.leases.clone(),
        edge: Edge::new(edge),
        prompts: parts.prompts.clone(),
        retention: parts.retention,
        draining: parts.draining.clone(),
        logged: parts.logged.clone(),
        inbox,
        is_closed: false,
        desk: desk.clone(),
        busy: parts.busy.clone(),
        waiters: HashMap::new(),
        unwritten: Batch::default(),
        told: None,
        uncommitted: HashSet::new(),
        steps: Vec::new(),
        writing: None,
        not_before: Instant::now(),
        store_failed_at: None,
        table_at: Instant::now(),
        table_is_fresh: false,
        bad_rows: HashMap::new(),
        checks: Arc::new(Semaphore::new(CHECKS_MAX)),
        counted: metrics::Counted::default(),
    };
    work.load().await?;
    Ok((desk, work.run()))
}

/// One transaction on its way, and what it is about.
struct Flight {
    /// Goes on by itself: it holds the database's only write lock, which the loop may wait for.
    done: JoinHandle<Landed>,
    steps: Vec<Step>,
    /// How many of its changes are of no step that could be taken back.
    carried: usize,
    told: Option<Told>,
    began: Instant,
}

/// What was to be written, and the last revision there is then.
type Landed = (Batch, Result<i64, StoreError>);

/// Why rows are not on disk.
struct Unwritten {
    why: String,
    /// They may be, all the same.
    in_doubt: bool,
}

/// Which changes NATS has, and since when that is not written.
#[derive(Clone, Copy)]
struct Told {
    revision: i64,
    since: Instant,
}

struct Work {
    queues: Queues,
    /// Of the assignments that this process begins.
    id_prefix: String,
    store: Store,
    lease: Lease,
    leases: Leases,
    edge: Edge,
    prompts: String,
    retention: Duration,
    draining: watch::Receiver<bool>,
    logged: watch::Sender<i64>,
    inbox: mpsc::Receiver<Request>,
    /// Nothing will come any more.
    is_closed: bool,
    /// For what we spawn to report back, to this loop only.
    desk: Desk,
    /// An assignment is not decided or a row is not on disk, for who waits for us to have drained.
    busy: watch::Sender<bool>,
    /// Operators who wait for the outcome of an assignment.
    waiters: HashMap<AssignmentId, Waiter>,
    /// Rows that are not on disk as they are here; at most one for each caller, and one for each
    /// who left since the last transaction.
    unwritten: Batch,
    told: Option<Told>,
    /// Callers whose first row is not on disk yet.
    uncommitted: HashSet<CallId>,
    /// What waits for `unwritten`.
    steps: Vec<Step>,
    writing: Option<Flight>,
    /// When the next transaction may begin.
    not_before: Instant,
    /// When the last transaction failed; `None` if it did not.
    store_failed_at: Option<Instant>,
    /// When the table of queues was last read.
    table_at: Instant,
    /// It was read after the requests at hand had come.
    table_is_fresh: bool,
    /// Rows of the table that cannot be used, and why, so that each is logged once.
    bad_rows: HashMap<i64, String>,
    checks: Arc<Semaphore>,
    counted: metrics::Counted,
}

impl Drop for Work {
    fn drop(&mut self) {
        metrics::clear(&self.queues);
        metrics::count_lost_changes(self.unwritten.changes.len());
    }
}

impl Work {
    async fn load(&mut self) -> anyhow::Result<()> {
        self.store.tidy(self.lease.fence).await.context("tidy the callers")?;
        let reach = self.store.reach().await.context("read the log of changes")?;
        self.logged.send_replace(reach.last);
        self.read_table().await.context("read the queues")?;
        let agents = self.store.load_agents().await.context("read the agents")?;
        let callers = self.store.load_callers().await.context("read the callers")?;
        let queues = self.queues.queues().count();
        info!(queues, agents = agents.len(), callers = callers.len(), "loaded");
        let now = unix_ms();
        if !agents.is_empty() {
            self.queues.restore_agents(now, agents);
            for seen in self.edge.live_calls().await {
                self.queues.handle_call(now, &seen);
            }
        }
        self.queues.restore(now, callers);
        self.finish(Step::default());
        Ok(())
    }

    async fn run(mut self) -> anyhow::Result<()> {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        loop {
            let idle = self.until_due(unix_ms());
            let drains = *self.draining.borrow();
            if drains && !self.leases.is_sole() {
                self.inbox.close();
                if self.inbox.is_empty() && self.all_is_written() {
                    return Ok(());
                }
            }
            tokio::select! {
                got = self.inbox.recv_many(&mut batch, BATCH_MAX), if self.takes_requests() => {
                    if got == 0 {
                        self.is_closed = true;
                    }
                }
                (written, result) = landed(&mut self.writing) => self.land(written, result),
                _ = self.draining.changed(), if !drains => (),
                () = sleep(idle) => (),
            }
            if self.leases.held() != Some(self.lease) {
                return Ok(()); // Perhaps we stood still: nothing of this is true any more.
            }
            let now = unix_ms();
            if *self.draining.borrow() {
                self.queues.close();
            }
            if self.table_at.elapsed() >= TABLE_EVERY {
                self.read_table_if_possible().await;
                self.report(now);
            }
            self.queues.handle_timeout(now);
            self.finish(Step::default());
            self.table_is_fresh = false;
            for request in batch.drain(..) {
                self.handle(now, request).await;
            }
            self.take_off();
            metrics::set_present(self.queues.callers(), self.queues.assignments());
            let written = self.all_is_written();
            self.busy.send_replace(self.queues.assignments() > 0 || !written);
        }
    }

    fn takes_requests(&self) -> bool {
        self.steps.len() < STEPS_MAX && !self.is_closed
    }

    fn all_is_written(&self) -> bool {
        !self.has_rows() && self.writing.is_none()
    }

    fn until_due(&self, now: UnixMs) -> Duration {
        let core = self.queues.poll_timeout().map_or(IDLE_MAX, |at| {
            Duration::from_millis(u64::try_from(at.saturating_sub(now)).unwrap_or(0))
        });
        let table = TABLE_EVERY.saturating_sub(self.table_at.elapsed());
        let again = match self.store_failed_at {
            Some(at) if self.writing.is_none() => WRITE_AGAIN.saturating_sub(at.elapsed()),
            _ => IDLE_MAX,
        };
        let told = match &self.told {
            Some(told) if self.writing.is_none() => {
                TOLD_EVERY.saturating_sub(told.since.elapsed()).max(WRITE_AGAIN.min(again))
            }
            _ => IDLE_MAX,
        };
        let gathered = match self.store_failed_at.is_none() && self.writing.is_none() {
            true if self.has_rows() => self.not_before.saturating_duration_since(Instant::now()),
            _ => IDLE_MAX,
        };
        core.min(table).min(again).min(told).min(gathered)
    }

    fn has_rows(&self) -> bool {
        !self.unwritten.is_empty() || !self.steps.is_empty()
    }

    /// Starts writing what is unwritten, unless a transaction is on its way, or began or failed just
    /// now.
    fn take_off(&mut self) {
        let now = Instant::now();
        let too_soon = self.store_failed_at.is_some_and(|at| at.elapsed() < WRITE_AGAIN);
        if self.writing.is_some() || too_soon || now < self.not_before {
            return;
        }
        // Not with every transaction: each time the oldest changes are looked at, too.
        let drains = *self.draining.borrow();
        let told = self.told.take_if(|it| drains || it.since.elapsed() >= TOLD_EVERY);
        if !self.has_rows() && told.is_none() {
            return;
        }
        self.not_before = now + GATHER;
        let (mut written, steps) = (take(&mut self.unwritten), take(&mut self.steps));
        let carried = written.changes.len();
        written.changes.extend(steps.iter().flat_map(|step| step.changes.iter().cloned()));
        let keep_ms = UnixMs::try_from(self.retention.as_millis()).unwrap_or(UnixMs::MAX);
        let old_unix_ms = unix_ms().saturating_sub(keep_ms);
        let to_write = told.map(|it| store::Told { revision: it.revision, old_unix_ms });
        let (store, fence) = (self.store.clone(), self.lease.fence);
        let done = tokio::spawn(async move {
            let result = store.write(fence, &written, to_write).await;
            (written, result)
        });
        self.writing = Some(Flight { done, steps, carried, told, began: now });
    }

    fn land(&mut self, written: Batch, result: Result<i64, StoreError>) {
        let Some(flight) = self.writing.take() else { return };
        metrics::record_write(written.rows(), flight.began.elapsed(), result.is_ok());
        match result {
            Ok(revision) => {
                if self.store_failed_at.take().is_some() {
                    info!("the database is back");
                }
                for call_id in written.callers.keys() {
                    self.uncommitted.remove(call_id);
                }
                self.logged.send_if_modified(|last| std::mem::replace(last, revision) != revision);
                flight.steps.into_iter().for_each(|step| self.complete(step));
            }
            Err(e) => {
                if self.store_failed_at.replace(Instant::now()).is_none() {
                    warn!(rows = written.rows(), "failed to write rows; trying again: {e}");
                }
                // Tried again also if there is nothing else: only what succeeds tells that it is back.
                if let Some(Told { revision, since }) = flight.told {
                    let newer = self.told.map_or(revision, |it| it.revision);
                    self.told = Some(Told { revision: newer, since });
                }
                let failure =
                    Unwritten { why: e.to_string(), in_doubt: matches!(e, StoreError::InDoubt(_)) };
                let mut older = written;
                older.changes.truncate(flight.carried);
                self.unwritten.put_back(older); // What is newer is truer.
                let mut kept = Vec::new();
                for step in flight.steps.into_iter().chain(take(&mut self.steps)) {
                    // Without its row another owner would not know of it: it waits, or ends with the
                    // lease.
                    match step.undo.is_none() && !self.leases.is_sole() {
                        true => kept.push(step),
                        false => self.fail(step, &failure),
                    }
                }
                kept.append(&mut self.steps);
                self.steps = kept;
            }
        }
    }
}

/// Waits for the transaction on its way; for ever, if there is none.
async fn landed(writing: &mut Option<Flight>) -> Landed {
    if let Some(flight) = writing {
        match (&mut flight.done).await {
            Ok(landed) => return landed,
            Err(_) => *writing = None, // The process ends: a panic would have aborted it.
        }
    }
    std::future::pending().await
}
