//! The audit log: who changed what by gRPC, and how that ended.
//!
//! One line (target `audit`) per call of a method that is not only asking: of operators at `info`, of
//! the services among themselves at `debug`. It has the ids and names in the request, not the rest:
//! that could be people's numbers.

use crate::credentials::Caller;
use crate::trace;
use http_body_util::{BodyExt as _, Full, Limited};
use std::net::SocketAddr;
use tonic::body::Body;
use tonic::codegen::Bytes;
use tonic::codegen::http::{HeaderMap, Request, Response};
use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo};
use tonic::{Code, Status};
use tracing::{Level, debug, enabled, info};

/// Largest request, as tonic has it for messages, and its frame's header.
const REQUEST_MAX: usize = 4 * 1024 * 1024 + FRAME_HEADER;
/// A flag and a length come before each message (gRPC over HTTP/2, "Length-Prefixed-Message").
const FRAME_HEADER: usize = 5;
/// What our own clients begin their `user-agent` with.
pub(crate) const USER_AGENT: &str = "holdfast";

/// Beginnings of methods that only ask.
const ASKING: [&str; 5] = ["Get", "List", "Count", "Query", "Watch"];
/// Services that change nothing.
const HARMLESS: [&str; 2] = ["/grpc.health.", "/grpc.reflection."];

/// A call under way that will be in the log.
pub(crate) struct Entry {
    level: Level,
    method: String,
    caller: String,
    peer: Option<SocketAddr>,
    about: String,
}

/// Whether a call of `path` (`/PACKAGE.SERVICE/METHOD`) can change anything.
pub(crate) fn changes(path: &str) -> bool {
    let method = path.rsplit('/').next().unwrap_or(path);
    let harmless = HARMLESS.iter().any(|it| path.starts_with(it));
    !harmless && !ASKING.iter().any(|it| method.starts_with(it))
}

/// Begins the entry of a call, and gives the request back; no entry if none will be written.
///
/// # Errors
/// If the request cannot be read, or is too large.
pub(crate) async fn begin(
    request: Request<Body>,
    caller: Caller<'_>,
) -> Result<(Request<Body>, Option<Entry>), Status> {
    let path = request.uri().path().to_owned();
    let level = match is_service(caller, request.headers()) {
        true if enabled!(target: "audit", Level::DEBUG) => Level::DEBUG,
        false if enabled!(target: "audit", Level::INFO) => Level::INFO,
        _ => return Ok((request, None)),
    };
    if !changes(&path) {
        return Ok((request, None));
    }
    let (request, message) = read(request).await?;
    let tcp = request.extensions().get::<TcpConnectInfo>();
    let tls = request.extensions().get::<TlsConnectInfo<TcpConnectInfo>>();
    let entry = Entry {
        level,
        caller: match caller {
            Caller::Named(name) => name.to_owned(),
            _ => agent(request.headers()).to_owned(),
        },
        peer: tcp.or(tls.map(TlsConnectInfo::get_ref)).and_then(TcpConnectInfo::remote_addr),
        about: proto::json::names_in(&path, &message),
        method: path,
    };
    Ok((request, Some(entry)))
}

/// The message in a request, and the request as it was.
///
/// # Errors
/// If it cannot be read, or is too large.
pub(crate) async fn read(request: Request<Body>) -> Result<(Request<Body>, Bytes), Status> {
    let (parts, body) = request.into_parts();
    let read = Limited::new(body, REQUEST_MAX).collect().await;
    let read = read.map_err(|e| Status::resource_exhausted(format!("read the request: {e}")))?;
    let bytes = read.to_bytes();
    let message = bytes.slice(bytes.len().min(FRAME_HEADER)..);
    Ok((Request::from_parts(parts, Body::new(Full::new(bytes))), message))
}

/// A response about a call that its request did not name, for the audit log.
pub fn about_call<T>(call_id: &str, message: T) -> tonic::Response<T> {
    let mut response = tonic::Response::new(message);
    response.extensions_mut().insert(AboutCall(call_id.into()));
    response
}

#[derive(Clone)]
struct AboutCall(Box<str>);

impl Entry {
    /// Writes it; the headers of a response have its status if it failed before its first message.
    pub(crate) fn end(self, response: &Response<Body>) {
        let outcome = Status::from_header_map(response.headers());
        let outcome = outcome.map_or(Code::Ok, |it| it.code());
        let Self { level, method, caller, peer, about } = self;
        let peer = peer.map(|it| it.to_string()).unwrap_or_default();
        let answered = response.extensions().get::<AboutCall>().map(|it| &*it.0);
        let call_id = trace::call_in(&about).or(answered); // A field that is left out if there is none.
        match level {
            Level::DEBUG => {
                debug!(target: "audit", call_id, method, caller, peer, about, ?outcome, "changed")
            }
            _ => info!(target: "audit", call_id, method, caller, peer, about, ?outcome, "changed"),
        }
    }
}

/// Without tokens it is only what the caller says of itself.
fn is_service(caller: Caller<'_>, headers: &HeaderMap) -> bool {
    match caller {
        Caller::Service => true,
        Caller::Anyone => agent(headers).starts_with(USER_AGENT),
        Caller::Named(_) | Caller::Nobody => false,
    }
}

fn agent(headers: &HeaderMap) -> &str {
    let agent = headers.get("user-agent").and_then(|it| it.to_str().ok());
    agent.unwrap_or_default().split(' ').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_something_is_audited_and_what_asks_is_not() {
        let methods = proto::json::methods();
        let (changing, asking): (Vec<&String>, Vec<&String>) =
            methods.iter().partition(|it| changes(it));
        let has = |methods: &[&String], wanted: &str| methods.iter().any(|it| *it == wanted);
        for wanted in
            ["sip_edge.v1.SipEdge/GetCall", "scheduler.v1.Scheduler/Watch", "queue.v1.Queues/Count"]
        {
            assert!(has(&asking, &format!("/{wanted}")), "{asking:?}");
        }
        for wanted in
            ["sip_edge.v1.SipEdge/Hangup", "scheduler.v1.Scheduler/Cancel", "queue.v1.Queues/Drop"]
        {
            assert!(has(&changing, &format!("/{wanted}")), "{changing:?}");
        }
        assert!(!changes("/grpc.health.v1.Health/Check"));
    }
}
