//! A small collector of traces: a receiver of OTLP that is made of OpenTelemetry's own messages.

use crate::free_port;
use anyhow::ensure;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tonic::{Request, Response, Status};

/// How long the last span may take to come.
const EXPORT_LIMIT: Duration = Duration::from_secs(30);

/// Spans, each with the service that sent it.
pub type Spans = Vec<(String, Span)>;

/// The value of an attribute of a span.
///
/// # Panics
/// If it is no text: ours all are.
pub fn attribute_text(attribute: &KeyValue) -> &str {
    match attribute.value.as_ref().and_then(|it| it.value.as_ref()) {
        Some(Value::StringValue(text)) => text,
        other => panic!("wanted text, got {other:?}"),
    }
}

/// Takes what is exported.
pub struct Collector {
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
            let name = name.map(|it| attribute_text(it).to_owned()).unwrap_or_default();
            let spans = of_one.scope_spans.into_iter().flat_map(|it| it.spans);
            self.0.send_modify(|all| all.extend(spans.map(|it| (name.clone(), it))));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    /// On a free port.
    ///
    /// # Errors
    /// If it cannot listen.
    pub async fn start() -> anyhow::Result<Self> {
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let listener = tokio::net::TcpListener::bind(addr).await?;
        let spans = Arc::new(watch::Sender::new(Spans::new()));
        let service = TraceServiceServer::new(Receiver(spans.clone()));
        let incoming = tonic::transport::server::TcpIncoming::from(listener);
        let server = tonic::transport::Server::builder().add_service(service);
        tokio::spawn(server.serve_with_incoming(incoming));
        Ok(Self { url: format!("http://{addr}"), spans })
    }

    /// Where services export to.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The spans of a trace, once all of `steps` (service and name) are among them.
    ///
    /// # Errors
    /// Names those that are missing after 30 s.
    pub async fn trace_with(&self, id: &str, steps: &[(&str, &str)]) -> anyhow::Result<Spans> {
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
