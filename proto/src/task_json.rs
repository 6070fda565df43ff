//! `scheduler.v1.TaskEvent` in the JSON mapping, written by hand.
//!
//! There is an event for every change of every task. [`crate::json::to_json`] finds each field in the
//! descriptors, which costs more than the change itself; this writes the same text directly. The
//! tests hold that it is the same.

use crate::json::to_json;
use crate::scheduler::v1::{Repeat, Task, TaskEvent, TaskState, task, transfer_call};
use crate::sip_edge::v1::Legs;

/// The same text as [`to_json`] of it.
pub fn task_event_json(event: &TaskEvent) -> String {
    let mut json = Object::new(String::with_capacity(512));
    json.text("event_id", &event.event_id);
    json.long("at_unix_ms", event.at_unix_ms);
    if let Some(task) = &event.task {
        json.key("task");
        json.0 = self::task(std::mem::take(&mut json.0), task);
    }
    json.end()
}

/// Fields in the order of their numbers, as the mapping has them.
fn task(out: String, task: &Task) -> String {
    let mut json = Object::new(out);
    json.text("task_id", &task.task_id);
    json.text("call_id", &task.call_id);
    json.enumeration("state", task.state, |n| {
        TaskState::try_from(n).ok().map(|it| it.as_str_name())
    });
    json.long("fires_at_unix_ms", task.fires_at_unix_ms);
    json.long("revision", task.revision);
    if let Some(task::Action::Hangup(hangup)) = &task.action {
        json.object("hangup", |json| {
            json.text("cause", &hangup.cause);
            json.legs(hangup.legs);
        });
    }
    json.text("group", &task.group);
    json.text("label", &task.label);
    json.long("created_unix_ms", task.created_unix_ms);
    json.long("ended_unix_ms", task.ended_unix_ms);
    json.long("late_ms", task.late_ms);
    json.text("result", &task.result);
    match &task.action {
        None | Some(task::Action::Hangup(_)) => (),
        Some(task::Action::Transfer(transfer)) => json.object("transfer", |json| {
            match &transfer.to {
                None => (),
                Some(transfer_call::To::Uri(uri)) => json.member("uri", uri),
                Some(transfer_call::To::Plan(plan)) => {
                    json.key("plan");
                    json.0.push_str(&to_json(plan)); // Plans are many things, and rare.
                }
            }
        }),
        Some(task::Action::Play(play)) => json.object("play", |json| {
            json.text("file", &play.file);
            json.legs(play.legs);
        }),
        Some(task::Action::Publish(publish)) => json.object("publish", |json| {
            json.text("subject", &publish.subject);
            json.bytes("payload", &publish.payload);
        }),
    }
    json.text("edge", &task.edge);
    json.text("tenant", &task.tenant);
    if let Some(Repeat { every_ms, count, until_unix_ms }) = task.repeat {
        json.object("repeat", |json| {
            json.long("every_ms", every_ms);
            json.int("count", count);
            json.long("until_unix_ms", until_unix_ms);
        });
    }
    json.int("occurrence", task.occurrence);
    json.int("missed", task.missed);
    json.long("remaining_ms", task.remaining_ms);
    if task.cancel_requested {
        json.key("cancel_requested");
        json.0.push_str("true");
    }
    json.end()
}

/// A JSON object that is being written; fields that have their default are left out.
struct Object(String);

impl Object {
    fn new(mut out: String) -> Self {
        out.push('{');
        Self(out)
    }

    fn end(mut self) -> String {
        self.0.push('}');
        self.0
    }

    /// Names are ours and need no escapes.
    fn key(&mut self, name: &str) {
        if !self.0.ends_with('{') {
            self.0.push(',');
        }
        self.0.push('"');
        self.0.push_str(name);
        self.0.push_str("\":");
    }

    fn object(&mut self, name: &str, fields: impl FnOnce(&mut Self)) {
        self.key(name);
        let mut inner = Self::new(std::mem::take(&mut self.0));
        fields(&mut inner);
        self.0 = inner.end();
    }

    fn text(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            self.member(name, value);
        }
    }

    /// Of a `oneof`, which is there also when it is empty.
    fn member(&mut self, name: &str, value: &str) {
        self.key(name);
        self.string(value);
    }

    fn string(&mut self, value: &str) {
        self.0.push('"');
        for c in value.chars() {
            match c {
                '"' => self.0.push_str("\\\""),
                '\\' => self.0.push_str("\\\\"),
                '\n' => self.0.push_str("\\n"),
                '\r' => self.0.push_str("\\r"),
                '\t' => self.0.push_str("\\t"),
                '\u{8}' => self.0.push_str("\\b"),
                '\u{c}' => self.0.push_str("\\f"),
                '\0'..='\u{1f}' => {
                    self.0.push_str("\\u00");
                    self.hex(c as u8 >> 4);
                    self.hex(c as u8 & 15);
                }
                c => self.0.push(c),
            }
        }
        self.0.push('"');
    }

    fn hex(&mut self, digit: u8) {
        self.0.push(char::from(b"0123456789abcdef"[usize::from(digit)]));
    }

    /// 64 bits are a string, because JavaScript's numbers are not so long.
    fn long(&mut self, name: &str, value: i64) {
        if value != 0 {
            self.key(name);
            self.0.push('"');
            self.0.push_str(&value.to_string());
            self.0.push('"');
        }
    }

    fn int(&mut self, name: &str, value: u32) {
        if value != 0 {
            self.key(name);
            self.0.push_str(&value.to_string());
        }
    }

    /// One that this build does not know is its number.
    fn enumeration(&mut self, field: &str, value: i32, name: impl Fn(i32) -> Option<&'static str>) {
        if value != 0 {
            self.key(field);
            match name(value) {
                Some(name) => self.string(name),
                None => self.0.push_str(&value.to_string()),
            }
        }
    }

    fn legs(&mut self, value: i32) {
        self.enumeration("legs", value, |n| Legs::try_from(n).ok().map(|it| it.as_str_name()));
    }

    /// Base64 (RFC 4648 §4), padded.
    fn bytes(&mut self, name: &str, value: &[u8]) {
        const DIGITS: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        if value.is_empty() {
            return;
        }
        self.key(name);
        self.0.push('"');
        for group in value.chunks(3) {
            let of = |at: usize| u32::from(group.get(at).copied().unwrap_or(0)) << (16 - 8 * at);
            let bits = of(0) | of(1) | of(2);
            for digit in 0..4 {
                self.0.push(match digit <= group.len() {
                    true => char::from(DIGITS[(bits >> (18 - 6 * digit)) as usize & 63]),
                    false => '=',
                });
            }
        }
        self.0.push('"');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::v1::{HangupCall, PlayToCall, PublishMessage, TransferCall};
    use crate::sip_edge::v1::{Action, CallPlan, ConferenceAction, action};
    use proptest::prelude::*;

    fn text() -> impl Strategy<Value = String> {
        prop_oneof![
            Just(String::new()),
            any::<String>(),
            "[\\x00-\\x1f\"\\\\/\u{7f}-\u{9f}\u{2028}]{0,8}"
        ]
    }

    fn long() -> impl Strategy<Value = i64> {
        prop_oneof![Just(0), Just(i64::MIN), Just(i64::MAX), Just(1 << 53), any::<i64>()]
    }

    fn int() -> impl Strategy<Value = u32> {
        prop_oneof![Just(0), Just(u32::MAX), any::<u32>()]
    }

    fn action() -> impl Strategy<Value = Option<task::Action>> {
        let hangup = (text(), -1..6).prop_map(|(cause, legs)| HangupCall { cause, legs });
        let play = (text(), -1..6).prop_map(|(file, legs)| PlayToCall { file, legs });
        let publish = (text(), prop::collection::vec(any::<u8>(), 0..10))
            .prop_map(|(subject, payload)| PublishMessage { subject, payload });
        let plan = text().prop_map(|name| {
            let conference = ConferenceAction { name, ..ConferenceAction::default() };
            let action = action::Action::Conference(conference);
            CallPlan { actions: vec![Action { action: Some(action) }] }
        });
        let to = prop_oneof![
            Just(None),
            text().prop_map(|uri| Some(transfer_call::To::Uri(uri))),
            plan.prop_map(|plan| Some(transfer_call::To::Plan(plan))),
        ];
        prop_oneof![
            Just(None),
            hangup.prop_map(|it| Some(task::Action::Hangup(it))),
            to.prop_map(|to| Some(task::Action::Transfer(TransferCall { to }))),
            play.prop_map(|it| Some(task::Action::Play(it))),
            publish.prop_map(|it| Some(task::Action::Publish(it))),
        ]
    }

    fn repeat() -> impl Strategy<Value = Option<Repeat>> {
        let some = (long(), int(), long()).prop_map(|(every_ms, count, until_unix_ms)| Repeat {
            every_ms,
            count,
            until_unix_ms,
        });
        prop_oneof![Just(None), some.prop_map(Some)]
    }

    prop_compose! {
        fn any_task()(
            texts in prop::array::uniform8(text()),
            longs in prop::array::uniform6(long()),
            (occurrence, missed) in (int(), int()),
            state in -1..9,
            action in action(),
            repeat in repeat(),
            cancel_requested in any::<bool>(),
        ) -> Task {
            let [task_id, call_id, group, label, result, edge, tenant, _] = texts;
            let [fires_at_unix_ms, revision, created_unix_ms, ended_unix_ms, late_ms, remaining_ms] =
                longs;
            Task {
                task_id, call_id, state, fires_at_unix_ms, revision, group, label, created_unix_ms,
                ended_unix_ms, late_ms, result, edge, tenant, repeat, occurrence, missed,
                remaining_ms, cancel_requested, action,
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

        #[test]
        fn it_is_what_the_descriptors_say(
            event_id in text(),
            at_unix_ms in long(),
            task in prop::option::weighted(0.95, any_task()),
        ) {
            let event = TaskEvent { event_id, at_unix_ms, task };
            prop_assert_eq!(task_event_json(&event), to_json(&event));
        }
    }
}
