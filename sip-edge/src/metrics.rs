//! Names of the metrics of sip-edge.

use boot::Metric;
use call::Cause;

/// Everything that sip-edge counts.
pub(crate) const ALL: [Metric; 16] = [
    Metric::gauge("holdfast_calls_live", "Calls that have not ended."),
    Metric::counter("holdfast_calls_total", "Calls that began, of phones and originated."),
    Metric::counter_by(
        "holdfast_calls_ended_total",
        "cause",
        &["NORMAL_CLEARING", "ALLOTTED_TIMEOUT", "NETWORK_OUT_OF_ORDER", "CRASH"],
        "Calls that ended, by hangup cause.",
    ),
    Metric::counter_by(
        "holdfast_invites_refused_total",
        "reason",
        &["draining", "max-calls", "source-calls", "no-route", "queue-svc-away", "replaces"],
        "INVITEs that got a 4xx to 6xx before they were calls.",
    ),
    Metric::counter_by(
        "holdfast_commands_failed_total",
        "service",
        &["media-relay", "scheduler", "queue-svc"],
        "Commands to another service that failed or timed out.",
    ),
    Metric::counter_by(
        "holdfast_sip_discarded_total",
        "reason",
        &["malformed_request", "malformed_response", "banned", "source_rate"],
        "SIP messages that were not handled.",
    ),
    Metric::counter_by(
        "holdfast_sources_banned_total",
        "reason",
        &["scanner", "unproven", "malformed", "wrong_password", "no_such_place"],
        "Sources that are not heard for --ban.",
    ),
    Metric::gauge("holdfast_trunk_registered", "1 if we are registered with the trunk, else 0."),
    Metric::counter("holdfast_digits_discarded_total", "Digits that came to a call too fast."),
    Metric::counter(
        "holdfast_orphans_deleted_total",
        "Media sessions that an earlier process left behind.",
    ),
    Metric::counter(
        "holdfast_snapshots_failed_total",
        "Times that NATS did not take the newest state of a call; it is written again.",
    ),
    Metric::counter("holdfast_snapshots_too_large_total", "Calls that are too large to be kept."),
    Metric::counter(
        "holdfast_calls_restored_total",
        "Calls that went on here after another process.",
    ),
    Metric::counter("holdfast_calls_taken_over_total", "Calls that went on at another sip-edge."),
    Metric::counter_by(
        "holdfast_call_records_total",
        "result",
        &["written", "failed"],
        "Rows of call_records (--cdr-database-url); what failed is tried again.",
    ),
    Metric::counter(
        "holdfast_bindings_unshared_total",
        "Registrations that other replicas do not hear of, because too many wait for NATS.",
    ),
];

pub(crate) fn sip_discarded(reason: &'static str) {
    metrics::counter!("holdfast_sip_discarded_total", "reason" => reason).increment(1);
}

/// A binding that other replicas do not hear of, because too many wait for NATS.
pub(crate) fn binding_unshared() {
    metrics::counter!("holdfast_bindings_unshared_total").increment(1);
}

/// Whether our registration with a trunk stands.
pub(crate) fn trunk_registered(trunk: &str, is_registered: bool) {
    let gauge = metrics::gauge!("holdfast_trunk_registered", "trunk" => trunk.to_owned());
    gauge.set(f64::from(u8::from(is_registered)));
}

/// A source is not heard for a while.
pub(crate) fn source_banned(reason: &'static str) {
    metrics::counter!("holdfast_sources_banned_total", "reason" => reason).increment(1);
}

pub(crate) fn invite_refused(reason: &'static str) {
    metrics::counter!("holdfast_invites_refused_total", "reason" => reason).increment(1);
}

pub(crate) fn live_calls(calls: usize) {
    metrics::gauge!("holdfast_calls_live").set(calls as f64);
}

pub(crate) fn call_began() {
    metrics::counter!("holdfast_calls_total").increment(1);
}

pub(crate) fn call_ended(cause: Cause) {
    metrics::counter!("holdfast_calls_ended_total", "cause" => cause.name()).increment(1);
}

pub(crate) fn command_failed(service: &'static str) {
    metrics::counter!("holdfast_commands_failed_total", "service" => service).increment(1);
}

pub(crate) fn digit_discarded() {
    metrics::counter!("holdfast_digits_discarded_total").increment(1);
}

/// Media sessions that an earlier process left behind.
pub(crate) fn orphan_deleted() {
    metrics::counter!("holdfast_orphans_deleted_total").increment(1);
}

/// Calls whose newest state NATS has not taken.
pub(crate) fn snapshots_unwritten(calls: usize) {
    metrics::counter!("holdfast_snapshots_failed_total").increment(calls as u64);
}

/// A call is too large to be kept.
pub(crate) fn snapshot_too_large() {
    metrics::counter!("holdfast_snapshots_too_large_total").increment(1);
}

/// Calls that went on here after another process.
pub(crate) fn call_restored() {
    metrics::counter!("holdfast_calls_restored_total").increment(1);
}

/// A call goes on at another sip-edge.
pub(crate) fn call_lost() {
    metrics::counter!("holdfast_calls_taken_over_total").increment(1);
}

/// The record of a call was inserted, or is to be tried again.
pub(crate) fn record(is_written: bool) {
    let result = if is_written { "written" } else { "failed" };
    metrics::counter!("holdfast_call_records_total", "result" => result).increment(1);
}
