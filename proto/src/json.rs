//! The JSON mapping of protobuf, for what people read and write: events on NATS, the dial plan.

use crate::DESCRIPTORS;
use prost::{Message, Name};
use prost_reflect::{DescriptorPool, DeserializeOptions, DynamicMessage, MessageDescriptor, Value};
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

/// The event that `json`, written by a service, is the mapping of. Fields that this build does not
/// know yet are passed over: services are not all replaced at the same moment.
///
/// # Errors
/// [`Malformed`] if it is no JSON, or a known field has another type.
pub fn event_from_json<M: Message + Name + Default>(json: &str) -> Result<M, Malformed> {
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
    let malformed = |reason: String| Malformed { message: M::full_name(), reason };
    let mut input = serde_json::Deserializer::from_str(json);
    let dynamic = DynamicMessage::deserialize_with_options(descriptor::<M>(), &mut input, options)
        .map_err(|e| malformed(e.to_string()))?;
    input.end().map_err(|e| malformed(e.to_string()))?;
    dynamic.transcode_to().map_err(|e| malformed(e.to_string()))
}

fn descriptor<M: Name>() -> MessageDescriptor {
    POOL.get_message_by_name(&M::full_name()).expect("every message of ours is in the pool")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::v1::{CreateQueueRequest, Queue, RetrieveRequest};
    use crate::sip_edge::v1::{CallEvent, CallEventType, CallPlan};

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
        let json = to_json(&event);
        assert_eq!(
            json,
            r##"{"event_id":"e","type":"CALL_EVENT_TYPE_DIGIT","at_unix_ms":"1700000000123","digit":"#"}"##
        );
        assert_eq!(from_json::<CallEvent>(&json).unwrap(), event);
    }

    #[test]
    fn an_event_of_a_newer_build_is_read() {
        let json = r#"{"event_id": "e", "mood": {"good": [1, 2]}, "call": {"hue": 3}}"#;
        let event: CallEvent = event_from_json(json).unwrap();
        assert_eq!(event.event_id, "e");
        assert!(event_from_json::<CallEvent>(r#"{"event_id": []}"#).is_err());
    }

    #[test]
    fn an_unknown_field_is_named() {
        let error = from_json::<CallPlan>(r#"{"action": []}"#).unwrap_err().to_string();
        assert!(error.contains("sip_edge.v1.CallPlan") && error.contains("action"), "{error}");
    }
}
