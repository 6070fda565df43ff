//! Traces: what was done for one call, in all services, for OpenTelemetry.
//!
//! The id of a call has 128 bits, and so has that of a trace: they are the same. Nobody need be told
//! the trace of a call, and an operator who has the one has the other. The root span of a call is
//! sip-edge's, from its beginning to its end, and its id is the last 64 bits of the call's.
//!
//! A span is made for each gRPC call that says where it belongs, by `traceparent` (W3C Trace Context)
//! or by the `call_id` in its request, and for each event about a call that is handled.

use crate::otlp::{Exporter, Finished, Kind};
use proto::subjects;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tonic::codegen::http::HeaderMap;
use tonic::{Code, Status};
use uuid::Uuid;

/// The header that says where a call belongs.
pub(crate) const TRACEPARENT: &str = "traceparent";

static EXPORTER: OnceLock<Exporter> = OnceLock::new();

tokio::task_local! {
    /// What the task that runs now is part of.
    static CURRENT: Place;
}

/// A trace, and the span in it that others are part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) trace: [u8; 16],
    pub(crate) span: [u8; 8],
}

impl Place {
    /// The root span of a call; `None` if that is no UUID.
    fn of_call(call_id: &str) -> Option<Self> {
        let trace = *Uuid::try_parse(call_id).ok()?.as_bytes();
        let span = trace[8..].try_into().expect("the half of 16 is 8");
        Some(Self { trace, span })
    }

    /// The value of a `traceparent` header (W3C Trace Context §3.2).
    fn read(header: &str) -> Option<Self> {
        let mut parts = header.split('-');
        let (_version, trace, span) = (parts.next()?, parts.next()?, parts.next()?);
        let trace = u128::from_str_radix(trace, 16).ok().filter(|it| *it != 0 && trace.len() == 32);
        let span = u64::from_str_radix(span, 16).ok().filter(|it| *it != 0 && span.len() == 16);
        Some(Self { trace: trace?.to_be_bytes(), span: span?.to_be_bytes() })
    }

    fn written(self) -> String {
        let (trace, span) = (u128::from_be_bytes(self.trace), u64::from_be_bytes(self.span));
        format!("00-{trace:032x}-{span:016x}-01")
    }

    /// The value of the header for what the running task asks of others; `None`: it is part of none.
    pub(crate) fn current() -> Option<String> {
        CURRENT.try_with(|it| it.written()).ok()
    }
}

/// Takes spans from now on.
pub(crate) fn export_to(exporter: Exporter) {
    let _ = EXPORTER.set(exporter); // A process has one.
}

/// Waits until what was recorded has been sent, but not for long.
pub(crate) async fn flush() {
    if let Some(exporter) = EXPORTER.get() {
        exporter.flush().await;
    }
}

/// Does `work` as a part of a call: the gRPC calls that it makes say so.
pub fn of_call<F: Future>(call_id: &str, work: F) -> impl Future<Output = F::Output> + use<F> {
    let place = EXPORTER.get().and_then(|_| Place::of_call(call_id));
    async move {
        match place {
            Some(place) => CURRENT.scope(place, work).await,
            None => work.await,
        }
    }
}

/// A call from its beginning to its end; times are Unix ms.
pub struct CallTrace<'a> {
    pub call_id: &'a str,
    pub created_unix_ms: i64,
    pub ended_unix_ms: i64,
    /// What happened on the way, and when; those at 0 did not.
    pub events: [(&'static str, i64); 1],
    /// Nothing about people.
    pub attributes: [(&'static str, &'a str); 4],
}

/// Records the root span of a call that has ended.
pub fn call_ended(call: CallTrace<'_>) {
    let Some((exporter, place)) = EXPORTER.get().zip(Place::of_call(call.call_id)) else { return };
    let nanos = |ms: i64| u64::try_from(ms).unwrap_or_default() * 1_000_000;
    let events = call.events.into_iter().filter(|(_, at)| *at > 0);
    exporter.record(Finished {
        place,
        parent: None,
        kind: Kind::Internal,
        name: "call".to_owned(),
        start_unix_ns: nanos(call.created_unix_ms),
        end_unix_ns: nanos(call.ended_unix_ms),
        events: events.map(|(name, at)| (name, nanos(at))).collect(),
        attributes: std::iter::once(("call_id", call.call_id))
            .chain(call.attributes)
            .map(|(key, value)| (key, value.to_owned()))
            .collect(),
        failed: None,
    });
}

/// A span that has not ended.
pub(crate) struct Span {
    exporter: &'static Exporter,
    place: Place,
    parent: Place,
    kind: Kind,
    name: String,
    start_unix_ns: u64,
}

impl Span {
    /// Of a gRPC call to us of `path`; `about` tells the ids in its request. `None`: nobody wants it,
    /// or it belongs nowhere.
    pub(crate) fn of_request(
        path: &str,
        headers: &HeaderMap,
        about: impl FnOnce() -> String,
    ) -> Option<Self> {
        let exporter = EXPORTER.get()?;
        let parent = match headers.get(TRACEPARENT).and_then(|it| it.to_str().ok()) {
            Some(header) => Place::read(header)?,
            None => Place::of_call(call_in(&about())?)?,
        };
        let name = path.trim_start_matches('/').to_owned();
        Some(Self::begin(exporter, parent, Kind::Server, name))
    }

    /// Whether [`Span::of_request`] would look into the request.
    pub(crate) fn wants_request(headers: &HeaderMap) -> bool {
        EXPORTER.get().is_some() && !headers.contains_key(TRACEPARENT)
    }

    /// Of an event that is handled, if it is about a call.
    pub(crate) fn of_event(subject: &str) -> Option<Self> {
        let exporter = EXPORTER.get()?;
        let call_id = call_of(subject)?;
        let name = subject.trim_end_matches(call_id).trim_end_matches('.');
        Some(Self::begin(exporter, Place::of_call(call_id)?, Kind::Consumer, name.to_owned()))
    }

    fn begin(exporter: &'static Exporter, parent: Place, kind: Kind, name: String) -> Self {
        // The last half of a new id is random, but for two bits, and never 0.
        let random = Uuid::now_v7().into_bytes();
        let span = random[8..].try_into().expect("the half of 16 is 8");
        let place = Place { trace: parent.trace, span };
        Self { exporter, place, parent, kind, name, start_unix_ns: unix_ns() }
    }

    /// Does `work` as this span.
    pub(crate) async fn around<F: Future>(&self, work: F) -> F::Output {
        CURRENT.scope(self.place, work).await
    }

    /// `failed`: what went wrong.
    pub(crate) fn end(self, failed: Option<String>) {
        let Self { exporter, place, parent, kind, name, start_unix_ns } = self;
        exporter.record(Finished {
            place,
            parent: Some(parent.span),
            kind,
            name,
            start_unix_ns,
            end_unix_ns: unix_ns(),
            events: Vec::new(),
            attributes: Vec::new(),
            failed,
        });
    }

    /// Ends it by the headers of the response, which have the status of what failed at once.
    pub(crate) fn end_by(self, headers: &HeaderMap) {
        let status = Status::from_header_map(headers).filter(|it| it.code() != Code::Ok);
        self.end(status.map(|it| format!("{:?}", it.code())));
    }
}

/// The `call_id` among names as [`proto::json::names_in`] has them.
pub(crate) fn call_in(names: &str) -> Option<&str> {
    names.split(' ').find_map(|it| it.strip_prefix("call_id="))
}

/// The call that an event of ours is about, by its subject.
pub(crate) fn call_of(subject: &str) -> Option<&str> {
    let ours = subject.starts_with(subjects::ALL.trim_end_matches('>'));
    let (_, last) = subject.rsplit_once('.')?;
    Uuid::try_parse(last).ok().filter(|_| ours).map(|_| last)
}

fn unix_ns() -> u64 {
    let since: Duration = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALL: &str = "0193a1b2-c3d4-7e5f-8a6b-0123456789ab";

    #[test]
    fn the_trace_of_a_call_is_its_id_and_a_header_says_so() {
        let place = Place::of_call(CALL).unwrap();
        let header = "00-0193a1b2c3d47e5f8a6b0123456789ab-8a6b0123456789ab-01";
        assert_eq!(place.written(), header);
        assert_eq!(Place::read(header), Some(place));
        assert_eq!(Place::of_call("abc"), None);
    }

    #[test]
    fn what_is_no_traceparent_is_none() {
        for bad in [
            "",
            "00",
            "00-0-0-01",
            "00-00000000000000000000000000000000-8a6b0123456789ab-01",
            "00-0193a1b2c3d47e5f8a6b0123456789ab-0000000000000000-01",
            "00-0193a1b2c3d47e5f8a6b0123456789ab-8a6b-01",
            "00-+193a1b2c3d47e5f8a6b0123456789a-8a6b0123456789ab-01",
        ] {
            assert_eq!(Place::read(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_call_is_found_among_the_names_of_a_request() {
        assert_eq!(call_in(&format!("queue=abc call_id={CALL}")), Some(CALL));
        assert_eq!(call_in("media_session_id=x"), None);
    }

    #[test]
    fn the_call_of_an_event_is_the_end_of_its_subject() {
        assert_eq!(call_of(&format!("holdfast.call.ended.{CALL}")), Some(CALL));
        assert_eq!(call_of(&format!("billing.{CALL}")), None);
        assert_eq!(call_of("holdfast.queue.joined.abc"), None);
    }
}
