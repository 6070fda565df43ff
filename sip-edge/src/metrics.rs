//! Names of the metrics of sip-edge.

use call::Cause;

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
