//! Spans on their way to a collector, by OTLP over gRPC (opentelemetry.proto.collector.trace.v1).
//!
//! Recording never waits. What the collector does not take in time is lost and counted: traces are for
//! looking, and nothing depends on them.

use crate::trace::Place;
use anyhow::Context as _;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tonic::Request;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tracing::{debug, warn};

/// Spans that wait; more are lost.
const WAITING_MAX: usize = 4_096;
/// Spans of one export, and how long the first of them waits for others.
const BATCH_MAX: usize = 512;
const BATCH_DELAY: Duration = Duration::from_secs(1);
/// How long the collector may take for a batch.
const EXPORT_LIMIT: Duration = Duration::from_secs(2);
const CONNECT_LIMIT: Duration = Duration::from_secs(1);
/// How long [`Exporter::flush`] waits.
const FLUSH_LIMIT: Duration = Duration::from_secs(2);

const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// What a span is to those beside it (OTLP's numbers).
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Internal = 1,
    Server = 2,
    Consumer = 5,
}

/// A span that has ended.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) place: Place,
    pub(crate) parent: Option<[u8; 8]>,
    pub(crate) kind: Kind,
    pub(crate) name: String,
    pub(crate) start_unix_ns: u64,
    pub(crate) end_unix_ns: u64,
    /// Names and Unix ns.
    pub(crate) events: Vec<(&'static str, u64)>,
    pub(crate) attributes: Vec<(&'static str, String)>,
    /// What went wrong.
    pub(crate) failed: Option<String>,
}

enum Order {
    Record(Finished),
    /// Answered when all that was recorded before has been sent, or could not be.
    Flush(oneshot::Sender<()>),
}

/// Takes spans; its task sends them.
pub(crate) struct Exporter {
    orders: mpsc::Sender<Order>,
}

impl Exporter {
    /// Sends what is recorded as `service` to the collector at `url`, which may be away.
    ///
    /// # Errors
    /// If `url` is not `http://HOST:PORT`.
    pub(crate) fn start(service: &'static str, url: &str) -> anyhow::Result<Self> {
        let wanted =
            || format!("read --otlp-endpoint {url:?} (wanted e.g. `http://127.0.0.1:4317`)");
        let endpoint = Endpoint::from_shared(url.to_owned()).ok();
        let endpoint = endpoint.filter(|it| it.uri().scheme_str() == Some("http"));
        let endpoint = endpoint.filter(|it| it.uri().port().is_some()).with_context(wanted)?;
        let channel = endpoint.connect_timeout(CONNECT_LIMIT).timeout(EXPORT_LIMIT).connect_lazy();
        let (orders, waiting) = mpsc::channel(WAITING_MAX);
        tokio::spawn(export_all(service, channel, waiting));
        Ok(Self { orders })
    }

    pub(crate) fn record(&self, span: Finished) {
        if self.orders.try_send(Order::Record(span)).is_err() {
            lost(1);
        }
    }

    pub(crate) async fn flush(&self) {
        let (done, flushed) = oneshot::channel();
        let flushing = async {
            if self.orders.send(Order::Flush(done)).await.is_ok() {
                let _ = flushed.await; // Gone only with the process.
            }
        };
        if tokio::time::timeout(FLUSH_LIMIT, flushing).await.is_err() {
            debug!("ending without having exported the last spans");
        }
    }
}

fn lost(spans: usize) {
    metrics::counter!("holdfast_spans_lost_total").increment(spans as u64);
}

async fn export_all(service: &'static str, channel: Channel, mut waiting: mpsc::Receiver<Order>) {
    let mut client = Grpc::new(channel);
    let mut away = false;
    while let Some(first) = waiting.recv().await {
        let (mut batch, mut flushes) = (Vec::new(), Vec::new());
        let deadline = Instant::now() + BATCH_DELAY;
        let mut next = Some(first);
        while let Some(order) = next {
            match order {
                Order::Record(span) => batch.push(span),
                Order::Flush(done) => flushes.push(done),
            }
            if batch.len() == BATCH_MAX || !flushes.is_empty() {
                break;
            }
            next = tokio::time::timeout_at(deadline, waiting.recv()).await.ok().flatten();
        }
        let spans = batch.len();
        if spans > 0 {
            match export(&mut client, wire::request(service, batch)).await {
                Ok(()) => away = false,
                Err(e) => {
                    lost(spans);
                    if !away {
                        warn!("failed to export spans (--otlp-endpoint): {e}");
                    }
                    away = true; // Said once, until it is back.
                }
            }
        }
        for done in flushes {
            let _ = done.send(()); // Who waited may have given up.
        }
    }
}

async fn export(client: &mut Grpc<Channel>, request: wire::Export) -> Result<(), tonic::Status> {
    let ready = client.ready().await;
    ready.map_err(|e| tonic::Status::unavailable(e.to_string()))?;
    let codec = tonic_prost::ProstCodec::<wire::Export, wire::Exported>::default();
    client.unary(Request::new(request), PathAndQuery::from_static(EXPORT), codec).await.map(drop)
}

/// The messages of OTLP (opentelemetry-proto, trace/v1), as far as we fill them.
mod wire {
    use super::Finished;

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Export {
        #[prost(message, repeated, tag = "1")]
        resource_spans: Vec<ResourceSpans>,
    }

    /// How much of it the collector took; what it did not is its affair.
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Exported {}

    #[derive(Clone, PartialEq, prost::Message)]
    struct ResourceSpans {
        #[prost(message, optional, tag = "1")]
        resource: Option<Resource>,
        #[prost(message, repeated, tag = "2")]
        scope_spans: Vec<ScopeSpans>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct Resource {
        #[prost(message, repeated, tag = "1")]
        attributes: Vec<KeyValue>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct ScopeSpans {
        #[prost(message, repeated, tag = "2")]
        spans: Vec<Span>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct Span {
        #[prost(bytes = "vec", tag = "1")]
        trace_id: Vec<u8>,
        #[prost(bytes = "vec", tag = "2")]
        span_id: Vec<u8>,
        #[prost(bytes = "vec", tag = "4")]
        parent_span_id: Vec<u8>,
        #[prost(string, tag = "5")]
        name: String,
        #[prost(int32, tag = "6")]
        kind: i32,
        #[prost(fixed64, tag = "7")]
        start_time_unix_nano: u64,
        #[prost(fixed64, tag = "8")]
        end_time_unix_nano: u64,
        #[prost(message, repeated, tag = "9")]
        attributes: Vec<KeyValue>,
        #[prost(message, repeated, tag = "11")]
        events: Vec<Event>,
        #[prost(message, optional, tag = "15")]
        status: Option<Status>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct Event {
        #[prost(fixed64, tag = "1")]
        time_unix_nano: u64,
        #[prost(string, tag = "2")]
        name: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct Status {
        #[prost(string, tag = "2")]
        message: String,
        #[prost(int32, tag = "3")]
        code: i32,
    }

    /// STATUS_CODE_ERROR.
    const ERROR: i32 = 2;

    #[derive(Clone, PartialEq, prost::Message)]
    struct KeyValue {
        #[prost(string, tag = "1")]
        key: String,
        #[prost(message, optional, tag = "2")]
        value: Option<AnyValue>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct AnyValue {
        /// The first of a oneof.
        #[prost(string, optional, tag = "1")]
        string_value: Option<String>,
    }

    impl KeyValue {
        fn text(key: &str, value: impl Into<String>) -> Self {
            let value = AnyValue { string_value: Some(value.into()) };
            Self { key: key.to_owned(), value: Some(value) }
        }
    }

    pub(super) fn request(service: &str, spans: Vec<Finished>) -> Export {
        let attributes = vec![
            KeyValue::text("service.name", service),
            KeyValue::text("service.namespace", "holdfast"),
            KeyValue::text("service.version", env!("CARGO_PKG_VERSION")),
        ];
        let spans = spans.into_iter().map(span).collect();
        Export {
            resource_spans: vec![ResourceSpans {
                resource: Some(Resource { attributes }),
                scope_spans: vec![ScopeSpans { spans }],
            }],
        }
    }

    fn span(span: Finished) -> Span {
        let events = span.events.into_iter();
        let attributes = span.attributes.into_iter();
        Span {
            trace_id: span.place.trace.to_vec(),
            span_id: span.place.span.to_vec(),
            parent_span_id: span.parent.map(Vec::from).unwrap_or_default(),
            name: span.name,
            kind: span.kind as i32,
            start_time_unix_nano: span.start_unix_ns,
            end_time_unix_nano: span.end_unix_ns,
            attributes: attributes.map(|(key, value)| KeyValue::text(key, value)).collect(),
            events: events
                .map(|(name, at)| Event { time_unix_nano: at, name: name.to_owned() })
                .collect(),
            status: span.failed.map(|message| Status { message, code: ERROR }),
        }
    }
}
