//! The names of this service's metrics.

use std::time::Duration;

/// Callers in all queues, and assignments under way.
pub(crate) fn set_present(callers: usize, assignments: usize) {
    metrics::gauge!("queue_callers").set(callers as f64);
    metrics::gauge!("queue_assignments").set(assignments as f64);
}

/// A call got a place.
pub(crate) fn count_join() {
    metrics::counter!("queue_joins_total").increment(1);
}

/// A call did not get a place; `why` is one word.
pub(crate) fn count_refusal(why: &'static str) {
    metrics::counter!("queue_refusals_total", "why" => why).increment(1);
}

/// An assignment was decided; `outcome` is one word. `waited_ms` is from arrival to now.
pub(crate) fn count_assignment(outcome: &'static str, waited_ms: u64) {
    metrics::counter!("queue_assignments_total", "outcome" => outcome).increment(1);
    if outcome == "connected" {
        let waited = Duration::from_millis(waited_ms);
        metrics::histogram!("queue_wait_seconds").record(waited.as_secs_f64());
    }
}

/// One transaction of `rows` rows took so long.
pub(crate) fn record_write(rows: usize, took: Duration, written: bool) {
    metrics::histogram!("queue_write_seconds").record(took.as_secs_f64());
    metrics::counter!("queue_rows_written_total").increment(rows as u64);
    if !written {
        metrics::counter!("queue_write_failures_total").increment(1);
    }
}
