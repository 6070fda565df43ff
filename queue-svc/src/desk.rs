//! The loop around the core: requests in; rows to disk; then replies, ringing and events.
//!
//! Rows are written by one transaction at a time, with everything that has come meanwhile (group
//! commit). A reply waits for its rows. If they cannot be written, a new place and a new assignment
//! are taken back and refused; everything else has happened and its rows are written later.

mod handle;
mod request;
mod step;
mod table;

pub(crate) use handle::{Desk, Joined, Retrieved};
pub(crate) use request::{Connected, Failure};

use crate::grpc::{Edge, RingAnswer};
use crate::store::{Store, StoreError, Write};
use crate::{events, metrics};
use anyhow::Context as _;
use boot::{Publisher, unix_ms};
use queue::{AssignmentId, CallId, Output, Queues, UnixMs};
use request::Request;
use std::collections::{BTreeMap, HashMap, HashSet};
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
/// How often the table of queues is read for what people changed by hand.
const TABLE_EVERY: Duration = Duration::from_secs(5);
/// Questions to sip-edge whether a call is still there, at a time.
const CHECKS_MAX: usize = 32;
/// The longest sleep without anything to do.
const IDLE_MAX: Duration = Duration::from_secs(3600);

/// Loads what is on disk. The future is the loop; it never ends.
pub(crate) async fn open(
    max_calls: usize,
    store: Store,
    edge: Edge,
    publisher: Publisher,
    draining: watch::Receiver<bool>,
) -> anyhow::Result<(Desk, impl Future<Output = anyhow::Result<()>> + Send + 'static)> {
    let (requests, inbox) = mpsc::channel(REQUESTS_MAX);
    let busy = watch::Sender::new(false);
    let desk = Desk::new(requests, busy.subscribe());
    let mut work = Work {
        queues: Queues::new(max_calls),
        store,
        edge,
        publisher,
        draining,
        inbox,
        desk: desk.clone(),
        busy,
        waiters: HashMap::new(),
        unwritten: BTreeMap::new(),
        uncommitted: HashSet::new(),
        steps: Vec::new(),
        writing: None,
        store_failed_at: None,
        table_at: Instant::now(),
        table_is_fresh: false,
        bad_rows: HashMap::new(),
        checks: Arc::new(Semaphore::new(CHECKS_MAX)),
    };
    work.read_table().await.context("read the queues")?;
    let callers = work.store.load_callers().await.context("read the callers")?;
    info!(queues = work.queues.queues().count(), callers = callers.len(), "loaded");
    work.queues.restore(unix_ms(), callers);
    work.finish(Step::default());
    Ok((desk, work.run()))
}

/// One transaction on its way, and what it is about.
struct Flight {
    /// Goes on by itself: it holds the database's only write lock, which the loop may wait for.
    done: JoinHandle<(BTreeMap<CallId, Write>, Result<(), StoreError>)>,
    steps: Vec<Step>,
    began: Instant,
}

struct Work {
    queues: Queues,
    store: Store,
    edge: Edge,
    publisher: Publisher,
    draining: watch::Receiver<bool>,
    inbox: mpsc::Receiver<Request>,
    /// For what we spawn to report back.
    desk: Desk,
    /// An assignment is not decided or a row is not on disk, for who waits for us to have drained.
    busy: watch::Sender<bool>,
    /// Operators who wait for the outcome of an assignment.
    waiters: HashMap<AssignmentId, Waiter>,
    /// Rows that are not on disk as they are here; at most one for each caller, and one for each
    /// who left since the last transaction.
    unwritten: BTreeMap<CallId, Write>,
    /// Callers whose first row is not on disk yet.
    uncommitted: HashSet<CallId>,
    /// What waits for `unwritten`.
    steps: Vec<Step>,
    writing: Option<Flight>,
    /// When the last transaction failed; `None` if it did not.
    store_failed_at: Option<Instant>,
    /// When the table of queues was last read.
    table_at: Instant,
    /// It was read after the requests at hand had come.
    table_is_fresh: bool,
    /// Rows of the table that cannot be used, and why, so that each is logged once.
    bad_rows: HashMap<i64, String>,
    checks: Arc<Semaphore>,
}

impl Work {
    async fn run(mut self) -> anyhow::Result<()> {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        loop {
            let idle = self.until_due(unix_ms());
            tokio::select! {
                _ = self.inbox.recv_many(&mut batch, BATCH_MAX), if self.steps.len() < STEPS_MAX => (),
                (writes, written) = landed(&mut self.writing) => self.land(writes, written),
                () = sleep(idle) => (),
            }
            let now = unix_ms();
            if self.table_at.elapsed() >= TABLE_EVERY {
                self.read_table_if_possible().await;
            }
            self.queues.handle_timeout(now);
            self.finish(Step::default());
            self.table_is_fresh = false;
            for request in batch.drain(..) {
                self.handle(now, request).await;
            }
            self.take_off();
            metrics::set_present(self.queues.callers(), self.queues.assignments());
            let written = self.unwritten.is_empty() && self.writing.is_none();
            self.busy.send_replace(self.queues.assignments() > 0 || !written);
        }
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
        core.min(table).min(again).min(IDLE_MAX)
    }

    /// Drains the core's outputs into `step`: rows are noted; what need not wait for them is done.
    fn finish(&mut self, mut step: Step) {
        while let Some(output) = self.queues.poll_output() {
            match output {
                Output::Save(caller) => {
                    let call_id = caller.call_id.clone();
                    self.unwritten.insert(call_id, Write::Save(caller));
                    step.has_rows = true;
                }
                Output::Delete(call_id) => {
                    self.unwritten.insert(call_id, Write::Delete);
                    step.has_rows = true;
                }
                Output::StopRinging { call_id, assignment_id } => {
                    let edge = self.edge.clone();
                    tokio::spawn(async move { edge.stop_ringing(&call_id, &assignment_id).await });
                }
                Output::Check(call_id) => self.check(call_id),
                Output::Ring { .. } | Output::Publish(_) => step.effects.push(output),
            }
        }
        let idle = self.unwritten.is_empty() && self.writing.is_none();
        let hopeless = self.store_failed_at.is_some() && step.undo.is_none();
        if step.is_empty() {
            return;
        }
        if idle || hopeless || !step.has_rows && step.undo.is_none() {
            self.complete(step);
        } else {
            self.steps.push(step);
        }
    }

    fn check(&self, call_id: CallId) {
        let (edge, desk, checks) = (self.edge.clone(), self.desk.clone(), self.checks.clone());
        tokio::spawn(async move {
            let _permit = checks.acquire_owned().await;
            let found = edge.check(&call_id).await;
            desk.checked(call_id, found).await;
        });
    }

    /// Starts writing what is unwritten, unless a transaction is on its way or failed just now.
    fn take_off(&mut self) {
        let too_soon = self.store_failed_at.is_some_and(|at| at.elapsed() < WRITE_AGAIN);
        if self.writing.is_some() || self.unwritten.is_empty() || too_soon {
            return;
        }
        let (store, writes) = (self.store.clone(), take(&mut self.unwritten));
        let done = tokio::spawn(async move {
            let written = store.write(&writes).await;
            (writes, written)
        });
        self.writing = Some(Flight { done, steps: take(&mut self.steps), began: Instant::now() });
    }

    fn land(&mut self, writes: BTreeMap<CallId, Write>, written: Result<(), StoreError>) {
        let Some(flight) = self.writing.take() else { return };
        metrics::record_write(writes.len(), flight.began.elapsed(), written.is_ok());
        match written {
            Ok(()) => {
                if self.store_failed_at.take().is_some() {
                    info!("the database is back");
                }
                for call_id in writes.keys() {
                    self.uncommitted.remove(call_id);
                }
                flight.steps.into_iter().for_each(|step| self.complete(step));
            }
            Err(e) => {
                if self.store_failed_at.replace(Instant::now()).is_none() {
                    warn!(rows = writes.len(), "failed to write rows; trying again: {e}");
                }
                for (call_id, write) in writes {
                    self.unwritten.entry(call_id).or_insert(write); // A newer one is truer.
                }
                let failure = e.to_string();
                let waiting = take(&mut self.steps);
                flight.steps.into_iter().chain(waiting).for_each(|step| self.fail(step, &failure));
            }
        }
    }

    /// The rows are on disk, or need not be.
    fn complete(&mut self, step: Step) {
        let now = unix_ms();
        for effect in step.effects {
            match effect {
                Output::Publish(event) => events::publish(&self.publisher, now, &event),
                Output::Ring { assignment, .. } if !self.queues.is_held(&assignment.id) => {
                    let desk = self.desk.clone(); // The caller left while the rows were written.
                    tokio::spawn(async move {
                        desk.ring_ended(assignment, RingAnswer::CallerGone).await;
                    });
                }
                Output::Ring { call_id, assignment } => {
                    let resumed = !self.waiters.contains_key(&assignment.id);
                    let (edge, desk) = (self.edge.clone(), self.desk.clone());
                    tokio::spawn(async move {
                        let answer = edge.ring(&call_id, &assignment, resumed).await;
                        desk.ring_ended(assignment, answer).await;
                    });
                }
                Output::Save(_)
                | Output::Delete(_)
                | Output::StopRinging { .. }
                | Output::Check(_) => {
                    unreachable!("done by `finish`")
                }
            }
        }
        if let Some(reply) = step.reply {
            reply(None);
        }
    }

    /// The rows could not be written: takes back what must not be without them.
    fn fail(&mut self, mut step: Step, why: &str) {
        let now = unix_ms();
        match step.undo.take() {
            None => return self.complete(step),
            Some(step::Undo::Join(call_id)) => {
                self.uncommitted.remove(&call_id);
                let _ = self.queues.handle_leave(now, &call_id, "not written");
            }
            Some(step::Undo::Reserve(assignment_id)) => {
                let ended = RingAnswer::Unavailable(why.to_owned()).ended();
                let _ = self.queues.handle_ring_ended(now, &assignment_id, ended);
                if let Some(waiter) = self.waiters.remove(&assignment_id) {
                    waiter.refuse(Failure::Store(why.to_owned()));
                }
            }
        }
        while let Some(output) = self.queues.poll_output() {
            match output {
                Output::Save(caller) => {
                    drop(self.unwritten.insert(caller.call_id.clone(), Write::Save(caller)));
                }
                Output::Delete(call_id) => drop(self.unwritten.insert(call_id, Write::Delete)),
                _ => (), // Nobody has heard of what is taken back.
            }
        }
        if let Some(reply) = step.reply {
            reply(Some(Failure::Store(why.to_owned())));
        }
    }
}

/// Waits for the transaction on its way; for ever, if there is none.
async fn landed(writing: &mut Option<Flight>) -> (BTreeMap<CallId, Write>, Result<(), StoreError>) {
    if let Some(flight) = writing {
        match (&mut flight.done).await {
            Ok(landed) => return landed,
            Err(_) => *writing = None, // The process ends: a panic would have aborted it.
        }
    }
    std::future::pending().await
}
