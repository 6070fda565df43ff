//! The JSON mapping of protobuf, for what people read and write: events on NATS, the dial plan.
//!
//! Events are many, so their mapping is code that is generated for each message. Everything else is
//! mapped by the descriptors, and what people write is read with errors that name the field.

use crate::DESCRIPTORS;
use prost::{Message, Name};
use prost_reflect::{DescriptorPool, DeserializeOptions, DynamicMessage, MessageDescriptor, Value};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::LazyLock;

static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    DescriptorPool::decode(DESCRIPTORS).expect("the descriptors of this build decode")
});

/// Text that is not the JSON mapping of the wanted message: what is wrong, and where.
#[derive(Debug, thiserror::Error)]
#[error("not a {message}: {reason}")]
pub struct Malformed {
    message: String,
    reason: String,
}

/// An event in the JSON mapping, fields named as in the `.proto` (`call_id`, not `callId`).
pub fn event_to_json<E: Message + Name + Serialize>(event: &E) -> String {
    // A value of an enumeration that this build has no name for is told by its number.
    serde_json::to_string(event).unwrap_or_else(|_| to_json(event))
}

/// The event that `json`, written by a service, is the mapping of. Fields that this build does not
/// know yet are passed over: services are not all replaced at the same moment.
///
/// # Errors
/// [`Malformed`] if it is no JSON, or a known field has another type.
pub fn event_from_json<E: Name + DeserializeOwned>(json: &[u8]) -> Result<E, Malformed> {
    let malformed = |e: serde_json::Error| Malformed::new::<E>(e.to_string());
    serde_json::from_slice(json).map_err(malformed)
}

impl Malformed {
    fn new<M: Name>(reason: String) -> Self {
        Self { message: M::full_name(), reason }
    }
}

/// `message` in the JSON mapping, fields named as in the `.proto` (`call_id`, not `callId`).
pub fn to_json<M: Message + Name>(message: &M) -> String {
    let mut dynamic = DynamicMessage::new(descriptor::<M>());
    dynamic.transcode_from(message).expect("a message fits its own descriptor");
    let options = prost_reflect::SerializeOptions::new().use_proto_field_name(true);
    let mut out = Vec::new();
    dynamic
        .serialize_with_options(&mut serde_json::Serializer::new(&mut out), &options)
        .expect("a message has a JSON mapping");
    String::from_utf8(out).expect("JSON is UTF-8")
}

/// The message that `json`, written by people, is the mapping of; `call_id` and `callId` are both read.
///
/// # Errors
/// [`Malformed`] for anything else, unknown fields included: a misspelt one must not go unnoticed.
pub fn from_json<M: Message + Name + Default>(json: &str) -> Result<M, Malformed> {
    read(json, &DeserializeOptions::new())
}

/// The message that `json`, written by a service of this build or another, is the mapping of. Fields
/// that this build does not know are passed over.
///
/// # Errors
/// [`Malformed`] if it is no JSON, or a known field has another type.
pub fn kept_from_json<M: Message + Name + Default>(json: &str) -> Result<M, Malformed> {
    read(json, &DeserializeOptions::new().deny_unknown_fields(false))
}

/// Most ids and names of one request that [`names_in`] tells, and the most characters of each.
const NAMES_MAX: usize = 8;
const NAME_MAX: usize = 64;
/// How deep [`names_in`] looks into a request.
const DEPTH_MAX: usize = 3;

/// Every method of every service, as gRPC has them in its paths: `/sip_edge.v1.SipEdge/Hangup`.
pub fn methods() -> Vec<String> {
    let methods = POOL.services().flat_map(|service| service.methods().collect::<Vec<_>>());
    let path = |it: prost_reflect::MethodDescriptor| {
        format!("/{}/{}", it.parent_service().full_name(), it.name())
    };
    methods.map(path).collect()
}

/// What a request to the method of `path` is about, for logs: its ids and names as `call_id=… queue=…`,
/// and nothing else of it, since the rest may be people's numbers. Empty if there are none, or
/// `message` is no such request.
pub fn names_in(path: &str, message: &[u8]) -> String {
    let Some((service, method)) = path.trim_start_matches('/').split_once('/') else {
        return String::new();
    };
    let service = POOL.get_service_by_name(service);
    let method = service.and_then(|it| it.methods().find(|it| it.name() == method));
    let request = method.and_then(|it| DynamicMessage::decode(it.input(), message).ok());
    let mut names = Vec::new();
    if let Some(request) = request {
        collect_names(&request, 0, &mut names);
    }
    names.join(" ")
}

fn collect_names(message: &DynamicMessage, depth: usize, names: &mut Vec<String>) {
    for (field, value) in message.fields() {
        let name = field.name();
        let telling =
            name.ends_with("_id") || ["queue", "group", "conference", "name"].contains(&name);
        match value {
            Value::String(value) if telling && names.len() < NAMES_MAX => {
                let value: String = value.chars().take(NAME_MAX).collect();
                names.push(format!("{name}={}", value.escape_default()));
            }
            Value::Message(inner) if depth < DEPTH_MAX => collect_names(inner, depth + 1, names),
            _ => (),
        }
    }
}

fn read<M>(json: &str, options: &DeserializeOptions) -> Result<M, Malformed>
where
    M: Message + Name + Default,
{
    let mut input = serde_json::Deserializer::from_str(json);
    let dynamic = DynamicMessage::deserialize_with_options(descriptor::<M>(), &mut input, options)
        .map_err(|e| Malformed::new::<M>(e.to_string()))?;
    input.end().map_err(|e| Malformed::new::<M>(e.to_string()))?;
    dynamic.transcode_to().map_err(|e| Malformed::new::<M>(e.to_string()))
}

fn descriptor<M: Name>() -> MessageDescriptor {
    POOL.get_message_by_name(&M::full_name()).expect("every message of ours is in the pool")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::v1::{AgentStatus, Caller, ExpectedWait, QueueEvent};
    use crate::queue::v1::{CreateQueueRequest, Queue, RetrieveRequest};
    use crate::sip_edge::v1::{Call, CallEvent, CallEventType, CallPlan, Leg};
    use std::collections::HashMap;

    #[test]
    fn what_a_request_is_about_has_ids_and_names_but_no_numbers_of_people() {
        let retrieve = RetrieveRequest {
            queue: "abc\n".into(),
            agent: "sip:+4930123456@example.com".into(),
            ..RetrieveRequest::default()
        };
        let names = names_in("/queue.v1.Queues/Retrieve", &retrieve.encode_to_vec());
        assert_eq!(names, r"queue=abc\n");
        let queue = Queue { name: "n".repeat(100), ..Queue::default() };
        let create = CreateQueueRequest { queue: Some(queue) };
        let names = names_in("/queue.v1.Queues/CreateQueue", &create.encode_to_vec());
        assert_eq!(names, format!("name={}", "n".repeat(NAME_MAX)));
        for (path, message) in [
            ("/queue.v1.Queues/Nothing", &b""[..]),
            ("", b""),
            ("/queue.v1.Queues/Retrieve", b"\xff"),
        ] {
            assert_eq!(names_in(path, message), "");
        }
    }

    #[test]
    fn an_event_reads_as_it_was_written() {
        let event = CallEvent {
            event_id: "e".into(),
            r#type: CallEventType::Digit.into(),
            at_unix_ms: 1_700_000_000_123,
            digit: "#".into(),
            ..CallEvent::default()
        };
        let json = event_to_json(&event);
        assert_eq!(
            json,
            r##"{"event_id":"e","type":"CALL_EVENT_TYPE_DIGIT","at_unix_ms":"1700000000123","digit":"#"}"##
        );
        assert_eq!(event_from_json::<CallEvent>(json.as_bytes()).unwrap(), event);
    }

    #[test]
    fn an_event_is_the_same_text_as_the_descriptors_make_of_it() {
        let text = || "\u{1}\"\\ ä".to_owned();
        let mut of_call = CallEvent::default();
        for n in [-1, 0, 1, i32::MAX] {
            let leg = Leg {
                side: text(),
                state: n,
                remote_uri: text(),
                sip_call_id: text(),
                held: n > 0,
                unproven: n > 1,
            };
            let call = Call {
                call_id: text(),
                state: n,
                legs: vec![leg; 2],
                from_uri: text(),
                to_uri: text(),
                route: text(),
                action: text(),
                queue: text(),
                conference: text(),
                tasks: HashMap::from([(text(), "t".to_owned())]),
                media_session_id: text(),
                created_unix_ms: n.into(),
                answered_unix_ms: i64::MIN,
                ended_unix_ms: i64::MAX,
                cause: text(),
                ended_by: text(),
                edge: text(),
                ended_by_task: text(),
            };
            of_call = CallEvent {
                event_id: text(),
                r#type: n,
                at_unix_ms: n.into(),
                call: Some(call),
                digit: text(),
                assignment_id: text(),
                cause: text(),
                side: text(),
                sip_status: 200,
            };
            assert_eq!(event_to_json(&of_call), to_json(&of_call));
            let caller = Caller {
                call_id: text(),
                queue: text(),
                position: 1,
                status: n,
                from: text(),
                contact: text(),
                arrived_unix_ms: n.into(),
                waited_ms: u64::MAX,
                agent: text(),
                priority: 100,
                expected_wait: Some(ExpectedWait::default()),
            };
            let agent = AgentStatus {
                name: text(),
                state: n,
                logged_in: true,
                paused: text(),
                call_id: text(),
            };
            let of_queue = QueueEvent {
                event_id: text(),
                r#type: n,
                at_unix_ms: n.into(),
                caller: Some(caller),
                waiting: u32::MAX,
                assignment_id: text(),
                reason: text(),
                agent: Some(agent),
            };
            assert_eq!(event_to_json(&of_queue), to_json(&of_queue));
        }
        assert!(event_to_json(&of_call).contains("\"type\":2147483647"), "told by its number");
    }

    #[test]
    fn an_event_of_a_newer_build_is_read() {
        let json = br#"{"event_id": "e", "mood": {"good": [1, 2]}, "type": "CALL_EVENT_TYPE_SUNG",
            "call": {"hue": 3, "state": 77}}"#;
        let event: CallEvent = event_from_json(json).unwrap();
        assert_eq!((event.event_id.as_str(), event.r#type), ("e", 0));
        for bad in [&br#"{"event_id": []}"#[..], b"\xff", b"", b"[]", b"{} {}"] {
            let error = event_from_json::<CallEvent>(bad).unwrap_err().to_string();
            assert!(error.starts_with("not a sip_edge.v1.CallEvent: "), "{error}");
        }
    }

    #[test]
    fn an_unknown_field_is_named() {
        let error = from_json::<CallPlan>(r#"{"action": []}"#).unwrap_err().to_string();
        assert!(error.contains("sip_edge.v1.CallPlan") && error.contains("action"), "{error}");
    }
}
