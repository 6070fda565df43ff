//! What media-relay counts. The packet thread keeps its handles, so that counting is cheap.

use boot::Metric;
use media::Discard;
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

/// Everything that media-relay counts.
pub(crate) const ALL: [Metric; 15] = [
    Metric::gauge(
        "holdfast_media_packet_path",
        "1; the label `path` is the one that packets take.",
    ),
    Metric::counter("holdfast_media_packets_received_total", "Datagrams received."),
    Metric::counter("holdfast_media_packets_sent_total", "Datagrams sent."),
    Metric::counter(
        "holdfast_media_send_failures_total",
        "Datagrams that the kernel did not take.",
    ),
    Metric::counter_by(
        "holdfast_media_packets_discarded_total",
        "reason",
        &[],
        "Datagrams received and not forwarded.",
    ),
    Metric::gauge("holdfast_media_sessions", "Media sessions: one for each call with sound."),
    Metric::gauge("holdfast_media_streams", "Sides of all sessions: each has one stream each way."),
    Metric::histogram(
        "holdfast_media_send_lateness_seconds",
        "How much later than planned music, prompts and mixes leave: of each batch, the latest.",
    ),
    Metric::counter_by(
        "holdfast_media_sessions_restored_total",
        "result",
        &["restored", "lost"],
        "Sessions of an earlier process that were taken up, or could not be.",
    ),
    Metric::counter(
        "holdfast_media_snapshot_failures_total",
        "Times that snapshots of sessions could not be written.",
    ),
    Metric::counter(
        "holdfast_media_watchers_lost_total",
        "Readers of events that fell behind and were ended.",
    ),
    Metric::counter_by(
        "holdfast_media_rtpproxy_commands_total",
        "result",
        &["ok", "error"],
        "Commands of the rtpproxy protocol.",
    ),
    Metric::counter_by(
        "holdfast_media_rtpproxy_refused_total",
        "reason",
        &["source", "cookie", "connections"],
        "Datagrams and connections of the rtpproxy protocol that were not taken.",
    ),
    Metric::counter_by(
        "holdfast_media_rtpproxy_notifications_total",
        "result",
        &["told", "lost"],
        "Notifications of the rtpproxy protocol.",
    ),
    Metric::counter(
        "holdfast_media_recording_samples_lost_total",
        "Samples of recordings that the disk was too slow for; they are silence.",
    ),
];

pub(crate) struct Metrics {
    pub received: Counter,
    pub sent: Counter,
    /// Datagrams that the kernel did not take.
    pub send_failures: Counter,
    pub sessions: Gauge,
    /// Sides: each has one stream each way.
    pub streams: Gauge,
    /// How much later than planned music, prompts and mixes leave: of each batch, the latest.
    pub lateness: Histogram,
    discarded: Vec<Counter>,
}

impl Metrics {
    /// `path` is the one that packets take.
    pub(crate) fn new(path: &'static str) -> Self {
        gauge!("holdfast_media_packet_path", "path" => path).set(1.0);
        let discarded = |it: &Discard| counter!("holdfast_media_packets_discarded_total", "reason" => it.label());
        Self {
            received: counter!("holdfast_media_packets_received_total"),
            sent: counter!("holdfast_media_packets_sent_total"),
            send_failures: counter!("holdfast_media_send_failures_total"),
            sessions: gauge!("holdfast_media_sessions"),
            streams: gauge!("holdfast_media_streams"),
            lateness: histogram!("holdfast_media_send_lateness_seconds"),
            discarded: Discard::ALL.iter().map(discarded).collect(),
        }
    }

    pub(crate) fn count_discard(&self, reason: Discard) {
        self.discarded[reason as usize].increment(1);
    }
}

/// Sessions of an earlier process that were taken up, and those that could not be.
pub(crate) fn count_restored(restored: usize, lost: usize) {
    for (result, sessions) in [("restored", restored), ("lost", lost)] {
        counter!("holdfast_media_sessions_restored_total", "result" => result)
            .increment(sessions as u64);
    }
}

/// Snapshots of sessions could not be written.
pub(crate) fn count_snapshot_failure() {
    counter!("holdfast_media_snapshot_failures_total").increment(1);
}

/// A watcher fell behind and was ended.
pub(crate) fn count_watcher_lost() {
    counter!("holdfast_media_watchers_lost_total").increment(1);
}

/// A command of the rtpproxy protocol was done, or answered with an error.
pub(crate) fn count_rtpproxy_command(result: &'static str) {
    counter!("holdfast_media_rtpproxy_commands_total", "result" => result).increment(1);
}

/// A datagram or connection of the rtpproxy protocol was not taken.
pub(crate) fn count_rtpproxy_refused(reason: &'static str) {
    counter!("holdfast_media_rtpproxy_refused_total", "reason" => reason).increment(1);
}

/// A notification of the rtpproxy protocol was told, or lost because too many wait.
pub(crate) fn count_notification(result: &'static str) {
    counter!("holdfast_media_rtpproxy_notifications_total", "result" => result).increment(1);
}

/// Samples of recordings that the disk was too slow for.
pub(crate) fn count_recording_lost(samples: u64) {
    counter!("holdfast_media_recording_samples_lost_total").increment(samples);
}
