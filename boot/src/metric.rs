//! What a service counts: each metric with its help, on the page from the start.
//!
//! A counter that is on the page only once it has counted is of no use to Prometheus: from nothing to
//! 1 is no increase, so an alert would miss the first failure, and a dashboard would have no data.

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, histogram};

/// A metric on the page of `--metrics`. Its name ends in its unit, if it has one.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    name: &'static str,
    help: &'static str,
    kind: Kind,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Counter,
    /// By one label, with the values that are known before they are counted.
    CounterBy(&'static str, &'static [&'static str]),
    Gauge,
    Histogram,
}

/// What all services count.
const OURS: [Metric; 5] = [
    Metric::gauge("holdfast_build_info", "1; the label `version` is that of the program."),
    Metric::counter(
        "holdfast_event_publish_retries_total",
        "Events that NATS did not confirm at once; they are published again.",
    ),
    Metric::counter(
        "holdfast_events_dropped_total",
        "Events that were lost: too many wait for NATS, or one is too long for it.",
    ),
    Metric::counter("holdfast_grpc_refused_total", "gRPC calls without a valid token."),
    Metric::counter("holdfast_spans_lost_total", "Spans of traces that no collector has taken."),
];

impl Metric {
    /// One that only grows.
    pub const fn counter(name: &'static str, help: &'static str) -> Self {
        Self { name, help, kind: Kind::Counter }
    }

    /// One that only grows, for each value of a label; `values` are those that are on the page before
    /// they are counted.
    pub const fn counter_by(
        name: &'static str,
        label: &'static str,
        values: &'static [&'static str],
        help: &'static str,
    ) -> Self {
        Self { name, help, kind: Kind::CounterBy(label, values) }
    }

    /// One that goes up and down. It is on the page once it is set.
    pub const fn gauge(name: &'static str, help: &'static str) -> Self {
        Self { name, help, kind: Kind::Gauge }
    }

    /// One that has buckets.
    pub const fn histogram(name: &'static str, help: &'static str) -> Self {
        Self { name, help, kind: Kind::Histogram }
    }

    fn describe(self) {
        let Self { name, help, kind } = self;
        match kind {
            Kind::Counter => {
                describe_counter!(name, help);
                counter!(name).increment(0);
            }
            Kind::CounterBy(label, values) => {
                describe_counter!(name, help);
                values.iter().for_each(|value| counter!(name, label => *value).increment(0));
            }
            Kind::Gauge => describe_gauge!(name, help),
            Kind::Histogram => {
                describe_histogram!(name, help);
                drop(histogram!(name)); // It is on the page now, without a value.
            }
        }
    }
}

/// Puts a service's metrics on the page, beside those that all services have.
pub(crate) fn describe(metrics: &[Metric]) {
    OURS.iter().chain(metrics).for_each(|it| it.describe());
}
