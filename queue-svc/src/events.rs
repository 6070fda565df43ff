//! What comes from NATS (calls that ended, or talk to somebody) and what goes there (what happened in a queue).

use crate::desk::{Connected, Desk};
use crate::grpc::wire;
use proto::queue::v1 as pb;
use proto::sip_edge::v1::CallEvent;
use proto::subjects;
use queue::{AssignmentId, CallId, Event, EventKind};
use tracing::warn;

/// Our name as a reader of [`subjects::CALLS_ENDED`], across restarts.
const DURABLE: &str = "queue-svc";
/// Our name as a reader of [`subjects::CALLS_CONNECTED`].
const DURABLE_CONNECTED: &str = "queue-svc-connected";

/// Removes callers whose calls have ended, also those that ended while we were away.
pub(crate) async fn read_ends(nats: boot::Nats, desk: Desk) -> anyhow::Result<()> {
    let handle = |payload: Vec<u8>| {
        let desk = desk.clone();
        async move {
            match parse_end(&payload) {
                Ok((call_id, reason)) => {
                    desk.leave(call_id, reason).await?;
                }
                Err(e) => warn!("ignored an end of a call: {e:#}"), // It would not get any better.
            }
            Ok(())
        }
    };
    nats.consume(DURABLE, subjects::CALLS_ENDED, handle).await
}

/// Removes callers whom somebody rang an agent for without us.
pub(crate) async fn read_connections(nats: boot::Nats, desk: Desk) -> anyhow::Result<()> {
    let handle = |payload: Vec<u8>| {
        let desk = desk.clone();
        async move {
            match parse_connected(&payload) {
                Ok(connected) => desk.connected(connected).await?,
                Err(e) => warn!("ignored that a call was connected: {e:#}"),
            }
            Ok(())
        }
    };
    nats.consume(DURABLE_CONNECTED, subjects::CALLS_CONNECTED, handle).await
}

fn parse_connected(payload: &[u8]) -> anyhow::Result<Connected> {
    let event: CallEvent = proto::json::event_from_json(std::str::from_utf8(payload)?)?;
    Ok(Connected {
        call_id: CallId::parse(&event.call.unwrap_or_default().call_id)?,
        at: event.at_unix_ms,
        assignment_id: AssignmentId::new(&event.assignment_id),
    })
}

fn parse_end(payload: &[u8]) -> anyhow::Result<(CallId, String)> {
    let event: CallEvent = proto::json::event_from_json(std::str::from_utf8(payload)?)?;
    let call = event.call.unwrap_or_default();
    Ok((CallId::parse(&call.call_id)?, format!("call ended: {}", call.cause)))
}

pub(crate) fn publish(publisher: &boot::Publisher, now: queue::UnixMs, event: &Event) {
    let kind = match event.kind {
        EventKind::Joined => pb::QueueEventType::Joined,
        EventKind::Reserved => pb::QueueEventType::Reserved,
        EventKind::Released => pb::QueueEventType::Released,
        EventKind::Connected => pb::QueueEventType::Connected,
        EventKind::Left => pb::QueueEventType::Left,
    };
    let gone = matches!(event.kind, EventKind::Connected | EventKind::Left);
    let mut caller = wire::caller(&event.caller, &event.queue, event.position, now);
    if gone {
        caller.set_status(pb::CallStatus::Unspecified);
    }
    let assignment = event.assignment.as_ref();
    caller.agent = assignment.map(|it| it.agent.as_str().to_owned()).unwrap_or_default();
    let message = pb::QueueEvent {
        event_id: boot::new_id(),
        r#type: kind.into(),
        at_unix_ms: now,
        caller: Some(caller),
        waiting: event.in_queue,
        assignment_id: assignment.map(|it| it.id.as_str().to_owned()).unwrap_or_default(),
        reason: event.reason.clone(),
    };
    publisher.publish(subjects::queue(kind, &event.queue), &message.event_id, &message);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_without_a_call_is_refused() {
        let end = r#"{"type":"CALL_EVENT_TYPE_ENDED","call":{"call_id":"c1","cause":"USER_BUSY"}}"#;
        let (call_id, reason) = parse_end(end.as_bytes()).unwrap();
        assert_eq!((call_id.as_str(), reason.as_str()), ("c1", "call ended: USER_BUSY"));
        for bad in [&b"{}"[..], b"\xff", b"[", br#"{"call":{"call_id":"a b"}}"#] {
            parse_end(bad).unwrap_err();
        }
    }
}
