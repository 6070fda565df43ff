//! Any replica answers: who does not own the queues hands a request to the owner, as it came, and the
//! response back.
//!
//! A request is handed on once at most. Who gets one that was handed on and does not own the queues
//! says so, and the first replica looks again. What was lost on the way to its decision is asked for
//! again if that has the same effect as asking once.

use crate::leases::{Leases, OWNER_WAIT_LIMIT, Owner};
use crate::metrics;
use boot::Channel;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use std::collections::HashMap;
use std::convert::Infallible;
use std::error::Error;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, timeout};
use tonic::body::Body;
use tonic::codegen::http::request::Parts;
use tonic::codegen::http::{HeaderValue, Request, Response, header};
use tonic::metadata::MetadataValue;
use tonic::server::NamedService;
use tonic::{ConnectError, Status};
use tower_service::Service;

/// In the headers of a request that another replica has handed on.
const FORWARDED: &str = "holdfast-forwarded";
/// In the headers of a refusal: nothing was done, because somebody else owns the queues.
const NOT_OWNER: &str = "holdfast-not-owner";
/// In the headers of a refusal: whether it was done is not known.
const LOST: &str = "holdfast-lost";
/// Wait before an owner that did not take a request is looked for again.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Longest request, in bytes: what tonic takes for a message, and its frame's header.
const REQUEST_MAX_BYTES: usize = 4 * 1024 * 1024 + 5;
/// Owners to which there are connections.
const CHANNELS_MAX: usize = 8;
/// Beginnings of methods that may be asked again although they may have been done.
const REPEATABLE: [&str; 5] = ["Enqueue", "Leave", "Count", "Get", "List"];

/// The service of the owner, or the way to it; cheap to clone.
#[derive(Clone)]
pub(crate) struct Forwarding<S> {
    here: S,
    leases: Leases,
    channels: Arc<Mutex<HashMap<String, Channel>>>,
}

impl<S> Forwarding<S> {
    pub(crate) fn new(here: S, leases: Leases) -> Self {
        Self { here, leases, channels: Arc::default() }
    }
}

impl<S: NamedService> NamedService for Forwarding<S> {
    const NAME: &'static str = S::NAME;
}

type Answer = Result<Response<Body>, Infallible>;

impl<S> Service<Request<Body>> for Forwarding<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Answer> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.here.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // The one that is ready is used, its copy is the next.
        let next = self.clone();
        let mut this = std::mem::replace(self, next);
        Box::pin(async move {
            match this.leases.is_sole() {
                true => this.here.call(request).await,
                false => this.decide(request).await,
            }
        })
    }
}

impl<S> Forwarding<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone,
{
    /// Lets the owner answer. One that turns out not to be it is looked for again, for
    /// [`OWNER_WAIT_LIMIT`].
    async fn decide(&mut self, request: Request<Body>) -> Answer {
        let (parts, body) = request.into_parts();
        let body = match Limited::new(body, REQUEST_MAX_BYTES).collect().await {
            Ok(body) => body.to_bytes(),
            Err(e) => {
                let status = Status::resource_exhausted(format!("read the request: {e}"));
                return Ok(status.into_http());
            }
        };
        let first = !parts.headers.contains_key(FORWARDED);
        let until = Instant::now() + OWNER_WAIT_LIMIT;
        loop {
            let response = match self.leases.wait_for_owner().await {
                Owner::Mine => self.here.call(again(&parts, &body)).await?,
                Owner::At(address) if first => self.hand_on(&address, &parts, &body).await,
                Owner::At(_) => {
                    not_owner("this replica does not own the queues".to_owned()).into_http()
                }
                Owner::Nobody => {
                    let message =
                        "no replica owned the queues for 3 s; nothing was done, try again";
                    return Ok(Status::unavailable(message).into_http());
                }
            };
            let headers = response.headers();
            let lost = headers.contains_key(LOST) && is_repeatable(parts.uri.path());
            let again = headers.contains_key(NOT_OWNER) || lost;
            if !first || !again || Instant::now() >= until {
                return Ok(response);
            }
            // What is known of the owner is as old as the last renewal.
            let mut changed = self.leases.changed();
            let _ = timeout(LOOK_AGAIN, changed.changed()).await; // Either will do.
        }
    }

    async fn hand_on(&self, address: &str, parts: &Parts, body: &Bytes) -> Response<Body> {
        let Some(mut channel) = self.channel(address) else {
            let message = format!("read --advertise-grpc {address:?} of the owner of the queues");
            return Status::internal(message).into_http();
        };
        let mut request = again(parts, body);
        let headers = request.headers_mut();
        headers.insert(FORWARDED, HeaderValue::from_static("1"));
        headers.remove(header::USER_AGENT); // The first replica has it in its audit log.
        metrics::count_forwarded();
        if let Err(e) = poll_fn(|context| channel.poll_ready(context)).await {
            return of_other(&e).into_http();
        }
        tokio::select! {
            response = channel.call(request) => match response {
                Ok(response) => response.map(Body::new),
                Err(e) => of_other(&e).into_http(),
            },
            // It may stand still: who owns the queues now knows what was done.
            () = self.leases.moved_from(address) => lost(IN_DOUBT.to_owned()).into_http(),
        }
    }

    fn channel(&self, address: &str) -> Option<Channel> {
        let mut channels = self.channels.lock().expect("never poisoned");
        if let Some(channel) = channels.get(address) {
            return Some(channel.clone());
        }
        let channel = boot::channel("--advertise-grpc", address).ok()?;
        if channels.len() >= CHANNELS_MAX {
            channels.clear(); // Owners come and go with new addresses.
        }
        channels.insert(address.to_owned(), channel.clone());
        Some(channel)
    }
}

/// The request as it came.
fn again(parts: &Parts, body: &Bytes) -> Request<Body> {
    Request::from_parts(parts.clone(), Body::new(Full::new(body.clone())))
}

fn is_repeatable(path: &str) -> bool {
    let method = path.rsplit('/').next().unwrap_or(path);
    REPEATABLE.iter().any(|it| method.starts_with(it))
}

/// Says in a refusal that somebody else is the owner.
pub(super) fn not_owner(message: String) -> Status {
    let mut status = Status::unavailable(message);
    status.metadata_mut().insert(NOT_OWNER, MetadataValue::from_static("1"));
    status
}

/// Says in a refusal that it may have been done all the same.
pub(super) fn lost(message: String) -> Status {
    let mut status = Status::unknown(message);
    status.metadata_mut().insert(LOST, MetadataValue::from_static("1"));
    status
}

/// Why there is no response of the owner.
fn of_other(e: &(dyn Error + 'static)) -> Status {
    let mut cause = Some(e);
    while let Some(e) = cause {
        if e.is::<ConnectError>() {
            return not_owner(
                "the owner of the queues does not answer; nothing was done".to_owned(),
            );
        }
        cause = e.source();
    }
    lost(IN_DOUBT.to_owned())
}

const IN_DOUBT: &str =
    "the owner of the queues was lost while it decided; whether it was done is not known";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_has_the_same_effect_twice_is_repeated() {
        for (method, repeatable) in [
            ("Enqueue", true),
            ("Leave", true),
            ("GetStatistics", true),
            ("ListAgents", true),
            ("Retrieve", false),
            ("Drop", false),
            ("SetPresence", false),
            ("CreateQueue", false),
            ("Watch", false),
        ] {
            assert_eq!(
                is_repeatable(&format!("/queue.v1.Queues/{method}")),
                repeatable,
                "{method}"
            );
        }
    }

    #[test]
    fn an_owner_that_cannot_be_reached_has_done_nothing_and_one_that_is_lost_may_have() {
        let refused = std::io::Error::other("connection reset");
        let status = of_other(&refused);
        assert!(status.metadata().contains_key(LOST) && status.code() == tonic::Code::Unknown);
    }
}
