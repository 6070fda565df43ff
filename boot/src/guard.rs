//! What stands before every gRPC method: who may call, the audit log, and the span of a trace.

use crate::audit;
use crate::credentials::{Caller, Credentials};
use crate::trace::Span;
use metrics::counter;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response, header};
use tower_layer::Layer;
use tower_service::Service;
use tracing::debug;

/// May be asked by anyone: probes have no token.
const OPEN: &str = "/grpc.health.v1.Health/";

#[derive(Clone, Copy)]
pub(crate) struct Guard {
    pub(crate) credentials: &'static Credentials,
}

impl<S> Layer<S> for Guard {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded { inner, credentials: self.credentials }
    }
}

#[derive(Clone)]
pub(crate) struct Guarded<S> {
    inner: S,
    credentials: &'static Credentials,
}

impl<S> Service<Request<Body>> for Guarded<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // The one that is ready is used, its copy is the next.
        let next = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, next);
        let credentials = self.credentials;
        Box::pin(async move {
            if request.uri().path().starts_with(OPEN) {
                return inner.call(request).await;
            }
            let authorization = request.headers().get(header::AUTHORIZATION);
            let caller = credentials.caller(authorization.map(|it| it.as_bytes()));
            if caller == Caller::Nobody {
                counter!("holdfast_grpc_refused_total").increment(1);
                debug!(path = request.uri().path(), "refused a gRPC call without a valid token");
                let wanted =
                    "wanted `authorization: Bearer TOKEN` with a token of --grpc-token-file";
                return Ok(Status::unauthenticated(wanted).into_http());
            }
            let (request, entry) = match audit::begin(request, caller).await {
                Ok(begun) => begun,
                Err(status) => return Ok(status.into_http()),
            };
            let (request, span) = match traced(request).await {
                Ok(traced) => traced,
                Err(status) => return Ok(status.into_http()),
            };
            let response = match &span {
                Some(span) => span.around(inner.call(request)).await?,
                None => inner.call(request).await?,
            };
            if let Some(span) = span {
                span.end_by(response.headers());
            }
            if let Some(entry) = entry {
                entry.end(&response);
            }
            Ok(response)
        })
    }
}

/// Begins the span of a request, and gives the request back.
///
/// # Errors
/// If the request cannot be read, or is too large.
async fn traced(request: Request<Body>) -> Result<(Request<Body>, Option<Span>), Status> {
    let path = request.uri().path().to_owned();
    if !audit::changes(&path) || !Span::wants_request(request.headers()) {
        let span = Span::of_request(&path, request.headers(), String::new);
        return Ok((request, span));
    }
    let (request, message) = audit::read(request).await?;
    let about = || proto::json::names_in(&path, &message);
    let span = Span::of_request(&path, request.headers(), about);
    Ok((request, span))
}
