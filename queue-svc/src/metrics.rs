//! The names of this service's metrics.

use boot::Metric;
use queue::{AgentState, Queues, UnixMs};
use std::collections::HashMap;
use std::time::Duration;

/// Queues that have gauges of their own, the first ones by id; more would be too many time series.
const QUEUES_MAX: usize = 200;

const AGENT_STATES: [AgentState; 6] = [
    AgentState::Offline,
    AgentState::Idle,
    AgentState::Ringing,
    AgentState::Busy,
    AgentState::WrapUp,
    AgentState::Paused,
];

/// Everything that queue-svc counts. What is counted of each queue has its name as the label `queue`.
pub(crate) const ALL: [Metric; 25] = [
    Metric::gauge("queue_callers", "Callers in all queues."),
    Metric::gauge("queue_assignments", "Callers that an agent is being rung for."),
    Metric::gauge("queue_owner", "1 if this process owns the queues, else 0."),
    Metric::counter(
        "queue_lease_failures_total",
        "Times that the database did not answer when it was asked for the lease on the queues.",
    ),
    Metric::counter(
        "queue_forwarded_total",
        "Requests that were handed to the replica that owns the queues.",
    ),
    Metric::counter("queue_joins_total", "Calls that got a place in a queue."),
    Metric::counter_by(
        "queue_refusals_total",
        "why",
        &["full", "no_such_queue", "no_agents", "refused", "store", "draining", "not_owner"],
        "Calls that did not get a place in a queue.",
    ),
    Metric::counter_by(
        "queue_assignments_total",
        "outcome",
        &[
            "connected",
            "no_answer",
            "busy",
            "declined",
            "unreachable",
            "caller_gone",
            "unavailable",
        ],
        "Callers given to an agent, by how that ended.",
    ),
    Metric::histogram("queue_wait_seconds", "From a caller's arrival until an agent answers."),
    Metric::histogram("queue_write_seconds", "One transaction of the database."),
    Metric::counter("queue_rows_written_total", "Rows that were to be written."),
    Metric::counter(
        "queue_write_failures_total",
        "Transactions that failed; they are tried again.",
    ),
    Metric::counter(
        "queue_changes_lost_total",
        "Changes that events do not tell of: the database was away for too long.",
    ),
    Metric::counter("queue_announcements_failed_total", "Announcements that were not played."),
    Metric::gauge("queue_waiting", "Callers waiting in the queue."),
    Metric::gauge("queue_leaving", "Callers of the queue that an agent is being rung for."),
    Metric::gauge("queue_longest_wait_seconds", "How long the caller at position 1 waits."),
    Metric::gauge(
        "queue_service_level_ratio",
        "Callers answered within the queue's target, of all that were answered or gave up; 1 if none.",
    ),
    Metric::counter("queue_joined_total", "Callers that came into the queue."),
    Metric::counter("queue_handled_total", "Callers of the queue that an agent has answered."),
    Metric::counter("queue_abandoned_total", "Callers that hung up while they waited."),
    Metric::counter(
        "queue_left_total",
        "Callers that left without an agent, but not by hanging up.",
    ),
    Metric::counter("queue_released_total", "Times that an agent did not take a caller."),
    Metric::counter("queue_talk_ms_total", "Milliseconds that agents talked with callers."),
    Metric::gauge("queue_agents", "Agents, by their state."),
];

/// Callers in all queues, and assignments under way.
pub(crate) fn set_present(callers: usize, assignments: usize) {
    metrics::gauge!("queue_callers").set(callers as f64);
    metrics::gauge!("queue_assignments").set(assignments as f64);
}

/// Whether this process owns the queues.
pub(crate) fn set_owner(owns: bool) {
    metrics::gauge!("queue_owner").set(f64::from(u8::from(owns)));
}

/// The database did not answer when it was asked for the lease on the queues.
pub(crate) fn count_lease_failure() {
    metrics::counter!("queue_lease_failures_total").increment(1);
}

/// A request was handed to the replica that owns the queues.
pub(crate) fn count_forwarded() {
    metrics::counter!("queue_forwarded_total").increment(1);
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

/// Changes were lost because the database was away for too long.
pub(crate) fn count_lost_changes(count: usize) {
    metrics::counter!("queue_changes_lost_total").increment(count as u64);
}

/// An announcement could not be played.
pub(crate) fn count_silent_announcement() {
    metrics::counter!("queue_announcements_failed_total").increment(1);
}

/// What has been counted of each queue in this time of owning it, by name.
pub(crate) type Counted = HashMap<String, [u64; 6]>;

/// What there is in each queue, and what has happened in it since it was counted last.
pub(crate) fn set_queues(queues: &Queues, now: UnixMs, counted: &mut Counted) {
    for (_, settings) in queues.queues().take(QUEUES_MAX) {
        let name = settings.name();
        let (Ok(count), Ok((tally, longest_ms))) = (queues.count(name), queues.tally(now, name))
        else {
            continue;
        };
        let gauge = |metric: &'static str, value: f64| {
            metrics::gauge!(metric, "queue" => name.to_owned()).set(value);
        };
        gauge("queue_waiting", f64::from(count.in_queue));
        gauge("queue_leaving", f64::from(count.leaving));
        gauge("queue_longest_wait_seconds", longest_ms as f64 / 1_000.0);
        gauge("queue_service_level_ratio", tally.service_level().unwrap_or(1.0));
        let counted = counted.entry(name.to_owned()).or_default();
        for ((metric, value), counted) in [
            ("queue_joined_total", tally.joined),
            ("queue_handled_total", tally.connected),
            ("queue_abandoned_total", tally.abandoned),
            ("queue_left_total", tally.left),
            ("queue_released_total", tally.released),
            ("queue_talk_ms_total", tally.talk_ms),
        ]
        .into_iter()
        .zip(counted)
        {
            let more = value.saturating_sub(*counted);
            metrics::counter!(metric, "queue" => name.to_owned()).increment(more);
            *counted = value;
        }
    }
}

/// Says that there is nothing here any more: it is another replica's to say what there is.
pub(crate) fn clear(queues: &Queues) {
    set_present(0, 0);
    for (_, settings) in queues.queues().take(QUEUES_MAX) {
        for metric in ["queue_waiting", "queue_leaving", "queue_longest_wait_seconds"] {
            metrics::gauge!(metric, "queue" => settings.name().to_owned()).set(0.0);
        }
    }
    for state in AGENT_STATES {
        metrics::gauge!("queue_agents", "state" => state.word()).set(0.0);
    }
}

/// How many agents are in each state.
pub(crate) fn set_agents(queues: &Queues) {
    let mut counts = AGENT_STATES.map(|state| (state, 0u32));
    for agent in queues.agents() {
        if let Some((_, count)) = counts.iter_mut().find(|(state, _)| *state == agent.state) {
            *count += 1;
        }
    }
    for (state, count) in counts {
        metrics::gauge!("queue_agents", "state" => state.word()).set(f64::from(count));
    }
}
