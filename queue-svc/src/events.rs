//! What comes from NATS (what sip-edge tells of calls), and what our changes are for others.

use crate::desk::Desk;
use crate::grpc::{seen, wire};
use crate::store::Change;
use prost::Message as _;
use proto::queue::v1 as pb;
use proto::sip_edge::v1::CallEvent;
use proto::subjects;
use queue::{AgentEvent, CallId, CallSeen, Event, EventKind};
use tracing::warn;

/// Our name as a reader of [`subjects::CALLS_ENDED`], across restarts.
const DURABLE: &str = "queue-svc";

/// Events of one kind that are in hand together: each waits for its commit, and their order does not
/// matter, because the core remembers which calls are over.
const AT_ONCE: usize = 64;

/// What else we read of, and our name as its reader: news of calls that may keep agents busy, and of
/// callers whom somebody rang an agent for without us.
pub(crate) const NEWS: [(&str, &str); 3] = [
    ("queue-svc-connected", subjects::CALLS_CONNECTED),
    ("queue-svc-ringing", subjects::CALLS_RINGING),
    ("queue-svc-parted", subjects::CALLS_PARTED),
];

/// Removes callers whose calls have ended, also those that ended while we were away.
pub(crate) async fn read_ends(nats: boot::Nats, desk: Desk) -> anyhow::Result<()> {
    let handle = |payload: Vec<u8>| {
        let desk = desk.clone();
        async move {
            match parse_end(&payload) {
                Ok((call_id, reason)) => desk.ended(call_id, reason).await?,
                Err(e) => warn!("ignored an end of a call: {e:#}"), // It would not get any better.
            }
            Ok(())
        }
    };
    nats.consume_together(DURABLE, subjects::CALLS_ENDED, AT_ONCE, handle).await
}

/// Takes in one kind of [`NEWS`].
pub(crate) async fn read_news(
    nats: boot::Nats,
    desk: Desk,
    (durable, subject): (&'static str, &'static str),
) -> anyhow::Result<()> {
    let handle = |payload: Vec<u8>| {
        let desk = desk.clone();
        async move {
            match parse_news(&payload) {
                Ok(seen) => desk.seen(seen).await?,
                Err(e) => warn!("ignored news of a call: {e:#}"),
            }
            Ok(())
        }
    };
    nats.consume_together(durable, subject, AT_ONCE, handle).await
}

fn parse_news(payload: &[u8]) -> anyhow::Result<CallSeen> {
    let event: CallEvent = proto::json::event_from_json(payload)?;
    Ok(seen(event.call.unwrap_or_default(), event.at_unix_ms, &event.assignment_id)?)
}

fn parse_end(payload: &[u8]) -> anyhow::Result<(CallId, String)> {
    let event: CallEvent = proto::json::event_from_json(payload)?;
    let call = event.call.unwrap_or_default();
    Ok((CallId::parse(&call.call_id)?, format!("call ended: {}", call.cause)))
}

/// What has happened to a caller, for the log.
pub(crate) fn of_caller(event: &Event) -> Change {
    let kind = match event.kind {
        EventKind::Joined => pb::QueueEventType::Joined,
        EventKind::Reserved => pb::QueueEventType::Reserved,
        EventKind::Released => pb::QueueEventType::Released,
        EventKind::Connected => pb::QueueEventType::Connected,
        EventKind::Left => pb::QueueEventType::Left,
        EventKind::Moved => pb::QueueEventType::Moved,
    };
    let gone = matches!(event.kind, EventKind::Connected | EventKind::Left);
    let mut caller = wire::caller(&event.caller, &event.queue, event.position, None, event.at);
    if gone {
        caller.set_status(pb::CallStatus::Unspecified);
    }
    let assignment = event.assignment.as_ref();
    caller.agent = assignment.map(queue::Assignment::addresses).unwrap_or_default();
    let message = pb::QueueEvent {
        event_id: boot::new_id(),
        r#type: kind.into(),
        at_unix_ms: event.at,
        caller: Some(caller),
        waiting: event.in_queue,
        assignment_id: assignment.map(|it| it.id.as_str().to_owned()).unwrap_or_default(),
        reason: event.reason.clone(),
        agent: None,
    };
    Change { at_unix_ms: event.at, event: message.encode_to_vec() }
}

/// What has happened to an agent, for the log.
pub(crate) fn of_agent(event: &AgentEvent) -> Change {
    let message = pb::QueueEvent {
        event_id: boot::new_id(),
        r#type: pb::QueueEventType::Agent.into(),
        at_unix_ms: event.at,
        reason: event.reason.clone(),
        agent: Some(wire::agent_status(event)),
        ..pb::QueueEvent::default()
    };
    Change { at_unix_ms: event.at, event: message.encode_to_vec() }
}

/// A change of the log as others read it.
///
/// # Errors
/// If the log holds something else: its database was written by hand.
pub(crate) fn read_change(event: &[u8]) -> Result<pb::QueueEvent, prost::DecodeError> {
    pb::QueueEvent::decode(event)
}

/// Where on NATS an event goes.
pub(crate) fn subject(event: &pb::QueueEvent) -> String {
    let agent = event.agent.as_ref().map(|it| it.name.as_str());
    let queue = event.caller.as_ref().map(|it| it.queue.as_str());
    subjects::queue(event.r#type(), agent.or(queue).unwrap_or_default())
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
