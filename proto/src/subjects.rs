//! The NATS subjects, and the JetStream stream that keeps their messages.
//!
//! Events are the JSON mapping of `sip_edge.v1.CallEvent`, `queue.v1.QueueEvent` and
//! `scheduler.v1.TaskEvent`; an event can come twice, with the same `event_id`.

use crate::queue::v1::QueueEventType;
use crate::scheduler::v1::TaskState;
use crate::sip_edge::v1::CallEventType;

/// The JetStream stream that keeps all events.
pub const STREAM: &str = "HOLDFAST";

/// Everything that [`STREAM`] keeps.
pub const ALL: &str = "holdfast.>";

/// How long [`STREAM`] keeps an event: longer than any service may be away.
pub const MAX_AGE_S: u64 = 24 * 3600;

/// How much [`STREAM`] keeps at most, in bytes; the oldest events go first.
pub const MAX_BYTES: i64 = 1 << 30;

/// The JetStream key-value bucket of the bindings of registered users; written by sip-edge only.
pub const BINDINGS_BUCKET: &str = "holdfast_bindings";

/// How much [`BINDINGS_BUCKET`] keeps at most, in bytes.
pub const BINDINGS_MAX_BYTES: i64 = 256 << 20;

/// The JetStream key-value bucket of calls that outlive their sip-edge; written by sip-edge only.
pub const CALLS_BUCKET: &str = "holdfast_calls";

/// How much [`CALLS_BUCKET`] keeps at most, in bytes; a call takes some 3,000.
pub const CALLS_MAX_BYTES: i64 = 512 << 20;

/// The JetStream key-value bucket in which each sip-edge says that it lives; written by sip-edge only.
pub const EDGES_BUCKET: &str = "holdfast_edges";

/// How much [`EDGES_BUCKET`] keeps at most, in bytes.
pub const EDGES_MAX_BYTES: i64 = 4 << 20;

/// Ends of all calls, for those who clean up after them.
pub const CALLS_ENDED: &str = "holdfast.call.ended.*";

/// Calls that talk to somebody now, for those who took them for waiting.
pub const CALLS_CONNECTED: &str = "holdfast.call.connected.*";

/// Calls of which leg B rings, for those who must not ring it as well.
pub const CALLS_RINGING: &str = "holdfast.call.ringing.*";

/// Calls that have lost their leg B and go on.
pub const CALLS_PARTED: &str = "holdfast.call.parted.*";

/// `holdfast.call.<type>.<call_id>`, e.g. `holdfast.call.answered.0193…`.
pub fn call(event: CallEventType, call_id: &str) -> String {
    let event = event.as_str_name().trim_start_matches("CALL_EVENT_TYPE_").to_ascii_lowercase();
    format!("holdfast.call.{event}.{}", token(call_id))
}

/// `holdfast.queue.<type>.<queue>`, e.g. `holdfast.queue.joined.abc`.
pub fn queue(event: QueueEventType, queue: &str) -> String {
    let event = event.as_str_name().trim_start_matches("QUEUE_EVENT_TYPE_").to_ascii_lowercase();
    format!("holdfast.queue.{event}.{}", token(queue))
}

/// `holdfast.task.<state>.<call_id>`, e.g. `holdfast.task.fired.0193…`.
pub fn task(state: TaskState, call_id: &str) -> String {
    let state = state.as_str_name().trim_start_matches("TASK_STATE_").to_ascii_lowercase();
    format!("holdfast.task.{state}.{}", token(call_id))
}

/// Longest subject that a task may publish on, in bytes.
pub const FOREIGN_MAX_BYTES: usize = 256;

/// Whether others may be given a message on this subject by a task: not ours, so that nobody takes
/// it for an event, and not NATS's own.
///
/// # Errors
/// What is wanted instead.
pub fn check_foreign(subject: &str) -> Result<(), &'static str> {
    let plain = |byte: u8| byte.is_ascii_graphic() && !b"*>".contains(&byte);
    let tokens = subject.split('.').all(|token| !token.is_empty() && token.bytes().all(plain));
    let reserved = subject.starts_with(['$', '_']) || subject.split('.').next() == Some("holdfast");
    if !tokens || reserved || subject.len() > FOREIGN_MAX_BYTES {
        return Err("a subject of 1 to 256 printable ASCII bytes without wildcards, not below \
                    `holdfast.`, not beginning with `$` or `_`");
    }
    Ok(())
}

/// One subject token: what NATS would read as structure becomes `_`.
fn token(text: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '_' };
    match text {
        "" => "_".to_owned(),
        text => text.chars().map(plain).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_are_four_tokens_whatever_the_name() {
        assert_eq!(call(CallEventType::RingFailed, "0193-a"), "holdfast.call.ring_failed.0193-a");
        assert_eq!(queue(QueueEventType::Joined, "a.b *>"), "holdfast.queue.joined.a_b___");
        assert_eq!(task(TaskState::Fired, ""), "holdfast.task.fired._");
        let ended = call(CallEventType::Ended, "x");
        assert!(ended.starts_with(CALLS_ENDED.trim_end_matches('*')));
        let connected = call(CallEventType::Connected, "x");
        assert!(connected.starts_with(CALLS_CONNECTED.trim_end_matches('*')));
    }

    #[test]
    fn a_task_publishes_neither_our_events_nor_to_everybody() {
        for good in [
            "billing.warn",
            "a",
            "holdfasting.x",
            "x.holdfast.y",
            "a.$b-_/:é".trim_end_matches('é'),
        ] {
            assert_eq!(check_foreign(good), Ok(()), "{good}");
        }
        let long = "a".repeat(257);
        for bad in [
            "",
            ".",
            "a.",
            "a..b",
            "a.*",
            "a.>",
            "a b",
            "a\n",
            "ü",
            "holdfast",
            "holdfast.task.x",
            "$JS.API",
            "_INBOX.x",
            &long,
        ] {
            assert!(check_foreign(bad).is_err(), "{bad}");
        }
    }
}
