//! The names of this service's metrics.

use boot::Metric;
use metrics::{counter, gauge, histogram};
use std::collections::BTreeMap;
use wheel::{Answer, State};

/// Everything that the scheduler counts.
pub(crate) const ALL: [Metric; 13] = [
    Metric::gauge(
        "holdfast_scheduler_tasks",
        "Tasks that have not ended, of this replica's shards.",
    ),
    Metric::gauge("holdfast_scheduler_tasks_in_flight", "Tasks that are firing."),
    Metric::counter_by(
        "holdfast_scheduler_task_changes_total",
        "state",
        &["pending", "firing", "fired", "cancelled", "expired", "failed", "paused"],
        "Tasks that reached a state.",
    ),
    Metric::histogram(
        "holdfast_scheduler_lateness_seconds",
        "How long after its time an effect was begun.",
    ),
    Metric::counter_by(
        "holdfast_scheduler_attempts_total",
        "answer",
        &["done", "already_ended", "no_such_call", "refused", "unanswered"],
        "Attempts at an effect, by what came back.",
    ),
    Metric::counter("holdfast_scheduler_commits_total", "Transactions that are on disk."),
    Metric::counter("holdfast_scheduler_writes_total", "Changes of tasks in these transactions."),
    Metric::counter(
        "holdfast_scheduler_commit_failures_total",
        "Transactions that failed; who asked was told so.",
    ),
    Metric::counter(
        "holdfast_scheduler_events_malformed_total",
        "Events that were not what their subject promises.",
    ),
    Metric::counter(
        "holdfast_scheduler_events_forgotten_total",
        "Changes of tasks that were forgotten before NATS had taken them.",
    ),
    Metric::counter(
        "holdfast_scheduler_checkpoint_failures_total",
        "Times that SQLite's log was not moved into its file; it is tried again.",
    ),
    Metric::gauge("holdfast_scheduler_shards", "Shards that this process owns, of 16."),
    Metric::counter(
        "holdfast_scheduler_renewal_failures_total",
        "Times that a lease on shards was not renewed; it is tried again.",
    ),
];

/// Tasks that have not ended.
pub(crate) fn tasks(live: usize, in_flight: usize) {
    gauge!("holdfast_scheduler_tasks").set(live as f64);
    gauge!("holdfast_scheduler_tasks_in_flight").set(in_flight as f64);
}

/// So many tasks reached this state.
pub(crate) fn changed(state: State, count: u64) {
    let state = match state {
        State::Pending => "pending",
        State::Firing => "firing",
        State::Fired => "fired",
        State::Cancelled => "cancelled",
        State::Expired => "expired",
        State::Failed => "failed",
        State::Paused => "paused",
    };
    counter!("holdfast_scheduler_task_changes_total", "state" => state).increment(count);
}

/// How long after its time an effect was begun.
pub(crate) fn late(ms: u64) {
    histogram!("holdfast_scheduler_lateness_seconds").record(ms as f64 / 1_000.0);
}

/// Attempts were answered like this.
pub(crate) fn attempted<'a>(answers: impl IntoIterator<Item = &'a Answer>) {
    let mut counts = BTreeMap::new();
    for answer in answers {
        let answer = match answer {
            Answer::Done(_) => "done",
            Answer::AlreadyEnded { .. } => "already_ended",
            Answer::NoSuchCall => "no_such_call",
            Answer::Refused(_) => "refused",
            Answer::Unanswered(_) => "unanswered",
        };
        *counts.entry(answer).or_default() += 1;
    }
    for (answer, count) in counts {
        counter!("holdfast_scheduler_attempts_total", "answer" => answer).increment(count);
    }
}

/// A transaction with so many writes is on disk.
pub(crate) fn committed(writes: usize) {
    counter!("holdfast_scheduler_commits_total").increment(1);
    counter!("holdfast_scheduler_writes_total").increment(writes as u64);
}

pub(crate) fn commit_failed() {
    counter!("holdfast_scheduler_commit_failures_total").increment(1);
}

/// An event on the bus was not what its subject promises.
pub(crate) fn event_malformed() {
    counter!("holdfast_scheduler_events_malformed_total").increment(1);
}

/// So many changes of tasks were not confirmed by the bus; they are told again.
pub(crate) fn events_not_confirmed(count: usize) {
    counter!("holdfast_event_publish_retries_total").increment(count as u64);
}

/// So many changes of tasks were forgotten before the bus had taken them.
pub(crate) fn events_forgotten(count: i64) {
    counter!("holdfast_scheduler_events_forgotten_total").increment(count.unsigned_abs());
}

/// Moving the log of commits into the database failed; it is tried again.
pub(crate) fn checkpoint_failed() {
    counter!("holdfast_scheduler_checkpoint_failures_total").increment(1);
}

/// Shards that this process owns.
pub(crate) fn shards(count: usize) {
    gauge!("holdfast_scheduler_shards").set(count as f64);
}

/// The lease could not be renewed; it is tried again.
pub(crate) fn renewal_failed() {
    counter!("holdfast_scheduler_renewal_failures_total").increment(1);
}
