//! One call is one trace through all four services, as a receiver of OTLP sees it that is made of
//! OpenTelemetry's own messages.

use anyhow::{Context as _, ensure};
use e2e::audio::Codec;
use e2e::phone::{PATIENCE, Phone};
use e2e::{Ports, QUEUE_USER, Setup, Stack, free_port};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use proto::scheduler::v1::schedule_request::{Action, When};
use proto::scheduler::v1::{HangupCall, ScheduleRequest};
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tonic::{Request, Response, Status};

/// How long the last span may take to come.
const EXPORT_LIMIT: Duration = Duration::from_secs(30);

/// Spans, each with the service that sent it.
type Spans = Vec<(String, Span)>;

/// What is expected of a call that waits in a queue until a task hangs up.
const STEPS: [(&str, &str); 7] = [
    ("sip-edge", "call"),
    ("media-relay", "media_relay.v1.MediaRelay/Offer"),
    ("media-relay", "media_relay.v1.MediaRelay/Delete"),
    ("queue-svc", "queue.v1.Queues/Enqueue"),
    ("scheduler", "scheduler.v1.Scheduler/Schedule"),
    ("sip-edge", "sip_edge.v1.SipEdge/Hangup"),
    ("scheduler", "holdfast.call.ended"),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_one_trace_through_all_four_services() -> anyhow::Result<()> {
    let collector = Collector::start().await?;
    let common_flags = vec!["--otlp-endpoint".to_owned(), collector.url.clone()];
    let stack = Stack::start_as(Setup { common_flags, ..Setup::on(Ports::free()?) })?;
    stack.create_queue().await?;
    let caller = Phone::start("alice", Codec::Pcmu)?;
    let _waiting = caller.dial(stack.sip(), &stack.uri(QUEUE_USER))?;
    stack.wait_waiting(1).await?;
    let call_id = stack.calls().await?.pop().context("find the call")?.call_id;
    let request = ScheduleRequest {
        call_id: call_id.clone(),
        action: Some(Action::Hangup(HangupCall::default())),
        when: Some(When::AfterMs(200)),
        ..ScheduleRequest::default()
    };
    stack.scheduler().schedule(request).await?;
    caller.wait_bye(PATIENCE)?;
    let ended = stack.wait_ended(&call_id).await?;

    let trace = collector.trace_with(&call_id.replace('-', ""), &STEPS).await?;
    let roots: Vec<_> = trace.iter().filter(|(_, it)| it.parent_span_id.is_empty()).collect();
    assert_eq!(roots.len(), 1, "{roots:?}");
    let (service, root) = roots[0];
    assert_eq!((service.as_str(), root.name.as_str()), ("sip-edge", "call"));
    let ms = |nanos: u64| nanos as i64 / 1_000_000;
    assert_eq!(ms(root.start_time_unix_nano), ended.created_unix_ms);
    assert_eq!(ms(root.end_time_unix_nano), ended.ended_unix_ms);
    assert_eq!(ms(root.events[0].time_unix_nano), ended.answered_unix_ms);
    for wanted in ["call_id", "cause", "ended_by"] {
        assert!(root.attributes.iter().any(|it| it.key == wanted), "{wanted}: {root:?}");
    }
    let ids: BTreeSet<&[u8]> = trace.iter().map(|(_, it)| it.span_id.as_slice()).collect();
    assert_eq!(ids.len(), trace.len(), "an id is there twice");
    for (service, span) in &trace {
        let has_parent = span.parent_span_id.is_empty() || ids.contains(&*span.parent_span_id);
        assert!(has_parent, "{service}: {span:?}");
        let nobody = span.attributes.iter().all(|it| !text(it).contains("sip:"));
        assert!(nobody, "a span tells of people: {span:?}");
    }
    stack.stop()
}

fn text(attribute: &KeyValue) -> &str {
    match attribute.value.as_ref().and_then(|it| it.value.as_ref()) {
        Some(Value::StringValue(text)) => text,
        other => panic!("wanted text, got {other:?}"),
    }
}

/// Takes what is exported.
struct Collector {
    url: String,
    spans: Arc<watch::Sender<Spans>>,
}

struct Receiver(Arc<watch::Sender<Spans>>);

#[tonic::async_trait]
impl TraceService for Receiver {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for of_one in request.into_inner().resource_spans {
            let resource = of_one.resource.unwrap_or_default();
            let name = resource.attributes.iter().find(|it| it.key == "service.name");
            let name = name.map(|it| text(it).to_owned()).unwrap_or_default();
            let spans = of_one.scope_spans.into_iter().flat_map(|it| it.spans);
            self.0.send_modify(|all| all.extend(spans.map(|it| (name.clone(), it))));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    async fn start() -> anyhow::Result<Self> {
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let listener = tokio::net::TcpListener::bind(addr).await?;
        let spans = Arc::new(watch::Sender::new(Spans::new()));
        let service = TraceServiceServer::new(Receiver(spans.clone()));
        let incoming = tonic::transport::server::TcpIncoming::from(listener);
        let server = tonic::transport::Server::builder().add_service(service);
        tokio::spawn(server.serve_with_incoming(incoming));
        Ok(Self { url: format!("http://{addr}"), spans })
    }

    /// The spans of a trace, once all of `steps` are among them.
    async fn trace_with(&self, id: &str, steps: &[(&str, &str)]) -> anyhow::Result<Spans> {
        let mut seen = self.spans.subscribe();
        let of_trace = |all: &Spans| -> Spans {
            let hex = |it: &Span| it.trace_id.iter().map(|byte| format!("{byte:02x}")).collect();
            all.iter()
                .filter(|(_, it)| {
                    let hex: String = hex(it);
                    hex == id
                })
                .cloned()
                .collect()
        };
        let has = |trace: &Spans, step: &(&str, &str)| {
            trace.iter().any(|(service, it)| service == step.0 && it.name == step.1)
        };
        let whole = seen.wait_for(|all| {
            let trace = of_trace(all);
            steps.iter().all(|step| has(&trace, step))
        });
        let whole = tokio::time::timeout(EXPORT_LIMIT, whole).await.is_ok();
        let trace = of_trace(&self.spans.borrow());
        let missing: Vec<_> = steps.iter().filter(|step| !has(&trace, step)).collect();
        ensure!(whole, "missing in trace {id}: {missing:?}; there is {:?}", names(&trace));
        Ok(trace)
    }
}

fn names(trace: &Spans) -> Vec<String> {
    trace.iter().map(|(service, it)| format!("{service} {}", it.name)).collect()
}
