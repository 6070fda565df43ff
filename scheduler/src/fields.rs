//! The fields of requests: what is allowed, and what to say about what is not.

use crate::store::Cursor;
use prost::Message as _;
use proto::scheduler::v1 as wire;
use proto::sip_edge::v1::{CallPlan, HangupCause, Legs as WireLegs};
use proto::subjects;
use uuid::Uuid;
use wheel::{Effect, Legs, Repeat, State, TaskId, TransferTo};

/// The farthest a task may be ahead, in ms: a year.
const AHEAD_MAX_MS: i64 = 31_536_000_000;
/// How far an absolute time may be past, in ms: what a slow client and its clock may cost.
const BEHIND_MAX_MS: i64 = 60_000;
pub(crate) const GROUP_MAX_BYTES: usize = 128;
pub(crate) const LABEL_MAX_BYTES: usize = 256;
pub(crate) const KEY_MAX_BYTES: usize = 128;
pub(crate) const BY_MAX_BYTES: usize = 128;
pub(crate) const TENANT_MAX_BYTES: usize = 64;
const EDGE_MAX_BYTES: usize = 64;
const URI_MAX_BYTES: usize = 1_024;
const FILE_MAX_BYTES: usize = 1_024;
const PAYLOAD_MAX_BYTES: usize = 65_536;
/// Of a plan, in the JSON mapping.
const PLAN_MAX_BYTES: usize = 65_536;
const EVERY_MIN_MS: i64 = 1_000;
const OCCURRENCES_MAX: u32 = 1_000_000;
/// How far the end of a repetition may be ahead, in ms: ten years.
const UNTIL_MAX_MS: i64 = 10 * AHEAD_MAX_MS;
const DEFAULT_CAUSE: HangupCause = HangupCause::AllottedTimeout;
const PAGE_MAX: u32 = 10_000;
const PAGE_DEFAULT: u32 = 1_000;
/// What is repeated of a bad value, in bytes.
const GOT_MAX_BYTES: usize = 64;

/// A field that is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} is {got}, wanted {wanted}")]
pub(crate) struct Bad {
    field: &'static str,
    got: String,
    wanted: String,
}

impl Bad {
    pub(crate) fn number(field: &'static str, got: i64, wanted: impl Into<String>) -> Self {
        Self { field, got: got.to_string(), wanted: wanted.into() }
    }

    pub(crate) fn text(field: &'static str, got: &str, wanted: impl Into<String>) -> Self {
        let got = match got.floor_char_boundary(GOT_MAX_BYTES) {
            end if end < got.len() => format!("{:?}… ({} bytes)", &got[..end], got.len()),
            _ => format!("{got:?}"),
        };
        Self { field, got, wanted: wanted.into() }
    }

    pub(crate) fn missing(field: &'static str, wanted: impl Into<String>) -> Self {
        Self { field, got: "missing".to_owned(), wanted: wanted.into() }
    }
}

pub(crate) fn task_id(text: &str) -> Result<TaskId, Bad> {
    uuid("task_id", text).map(|id| TaskId(id.as_u128()))
}

/// In lower case, as calls are known by.
pub(crate) fn call_id(text: &str) -> Result<String, Bad> {
    uuid("call_id", text).map(|id| id.to_string())
}

fn uuid(field: &'static str, text: &str) -> Result<Uuid, Bad> {
    let hyphenated = text.len() == uuid::fmt::Hyphenated::LENGTH; // Not one of the other spellings.
    let id = Uuid::parse_str(text).ok().filter(|_| hyphenated);
    id.ok_or_else(|| {
        Bad::text(field, text, "a UUID, e.g. \"0193f0a4-7d6c-7c1e-8a55-0242ac120002\"")
    })
}

/// At most `max_bytes` of it, and nothing that garbles a terminal.
pub(crate) fn text(field: &'static str, text: String, max_bytes: usize) -> Result<String, Bad> {
    if text.len() > max_bytes {
        return Err(Bad::text(field, &text, format!("at most {max_bytes} bytes")));
    }
    if text.contains(char::is_control) {
        return Err(Bad::text(field, &text, "text without control characters"));
    }
    Ok(text)
}

pub(crate) fn after_ms(ms: i64) -> Result<i64, Bad> {
    let allowed = (0..=AHEAD_MAX_MS).contains(&ms);
    allowed
        .then_some(ms)
        .ok_or_else(|| Bad::number("after_ms", ms, format!("0 to {AHEAD_MAX_MS} (a year)")))
}

/// The earliest and the latest time that a task may be given, in Unix ms.
pub(crate) fn at_limits(now_unix_ms: i64) -> (i64, i64) {
    (now_unix_ms - BEHIND_MAX_MS, now_unix_ms + AHEAD_MAX_MS)
}

pub(crate) fn at_unix_ms(ms: i64, now_unix_ms: i64) -> Result<i64, Bad> {
    let (first, last) = at_limits(now_unix_ms);
    (first..=last).contains(&ms).then_some(ms).ok_or_else(|| {
        let wanted = format!("Unix ms, {first} (a minute ago) to {last} (a year ahead)");
        Bad::number("at_unix_ms", ms, wanted)
    })
}

pub(crate) fn revision(revision: i64) -> Result<i64, Bad> {
    let wanted = "the task's revision, from 1, or 0 for any";
    (revision >= 0).then_some(revision).ok_or_else(|| Bad::number("revision", revision, wanted))
}

pub(crate) fn page_size(size: u32) -> Result<u32, Bad> {
    match size {
        0 => Ok(PAGE_DEFAULT),
        1..=PAGE_MAX => Ok(size),
        _ => Err(Bad::number("page_size", size.into(), format!("1 to {PAGE_MAX}"))),
    }
}

/// How much later, or earlier if below 0.
pub(crate) fn extend_ms(ms: i64) -> Result<i64, Bad> {
    let allowed = ms != 0 && (-AHEAD_MAX_MS..=AHEAD_MAX_MS).contains(&ms);
    let wanted = || format!("-{AHEAD_MAX_MS} to {AHEAD_MAX_MS} (a year), not 0");
    allowed.then_some(ms).ok_or_else(|| Bad::number("extend_ms", ms, wanted()))
}

/// What happens, to the call of this id; empty if it is of none.
pub(crate) fn effect(
    call_id: &str,
    action: Option<wire::schedule_request::Action>,
) -> Result<Effect, Bad> {
    use wire::schedule_request::Action as Wire;
    let wanted = "hangup, transfer, play or publish";
    let action = action.ok_or_else(|| Bad::missing("action", wanted))?;
    if call_id.is_empty() && !matches!(action, Wire::Publish(_)) {
        return Err(Bad::missing("call_id", "the call that it is done to"));
    }
    let call_id = call_id.to_owned();
    Ok(match action {
        Wire::Hangup(wire::HangupCall { cause, legs }) => {
            let legs = self::legs("hangup.legs", legs, Legs::Both)?;
            Effect::HangUp { call_id, cause: self::cause(cause)?, legs }
        }
        Wire::Transfer(wire::TransferCall { to }) => {
            Effect::Transfer { call_id, to: transfer_to(to)? }
        }
        Wire::Play(wire::PlayToCall { file, legs }) => {
            let legs = self::legs("play.legs", legs, Legs::A)?;
            let file = text("play.file", file, FILE_MAX_BYTES)?;
            if file.is_empty() {
                return Err(Bad::missing("play.file", "a file below media-relay's --media-dir"));
            }
            Effect::Play { call_id, file, legs }
        }
        Wire::Publish(wire::PublishMessage { subject, payload }) => {
            subjects::check_foreign(&subject)
                .map_err(|wanted| Bad::text("publish.subject", &subject, wanted))?;
            if payload.len() > PAYLOAD_MAX_BYTES {
                let got = payload.len() as i64;
                let wanted = format!("at most {PAYLOAD_MAX_BYTES} bytes");
                return Err(Bad::number("publish.payload's length", got, wanted));
            }
            Effect::Publish { subject, payload }
        }
    })
}

fn cause(name: String) -> Result<String, Bad> {
    if name.is_empty() {
        return Ok(DEFAULT_CAUSE.as_str_name().to_owned());
    }
    match HangupCause::from_str_name(&name) {
        Some(HangupCause::Unspecified) | None => {
            let wanted = "a name of sip_edge.v1.HangupCause, e.g. \"ALLOTTED_TIMEOUT\"";
            Err(Bad::text("hangup.cause", &name, wanted))
        }
        Some(_) => Ok(name),
    }
}

fn legs(field: &'static str, number: i32, default: Legs) -> Result<Legs, Bad> {
    match WireLegs::try_from(number) {
        Ok(WireLegs::Unspecified) => Ok(default),
        Ok(WireLegs::Both) => Ok(Legs::Both),
        Ok(WireLegs::A) => Ok(Legs::A),
        Ok(WireLegs::B) => Ok(Legs::B),
        Err(_) => Err(Bad::number(field, number.into(), "LEGS_BOTH, LEGS_A or LEGS_B")),
    }
}

fn transfer_to(to: Option<wire::transfer_call::To>) -> Result<TransferTo, Bad> {
    match to {
        None => Err(Bad::missing("transfer", "uri or plan")),
        Some(wire::transfer_call::To::Uri(uri)) => {
            let uri = text("transfer.uri", uri, URI_MAX_BYTES)?;
            match uri.starts_with("sip:") || uri.starts_with("user/") {
                true => Ok(TransferTo::Uri(uri)),
                false => Err(Bad::text("transfer.uri", &uri, "\"sip:…\" or \"user/NAME\"")),
            }
        }
        Some(wire::transfer_call::To::Plan(plan)) => plan_json(&plan).map(TransferTo::Plan),
    }
}

fn plan_json(plan: &CallPlan) -> Result<String, Bad> {
    if plan.actions.is_empty() {
        return Err(Bad::missing("transfer.plan.actions", "an action, e.g. {\"park\": {}}"));
    }
    let wanted = || format!("at most {PLAN_MAX_BYTES} bytes in the JSON mapping");
    let too_long = |bytes: usize| Bad::number("transfer.plan's length", bytes as i64, wanted());
    if plan.encoded_len() > PLAN_MAX_BYTES {
        return Err(too_long(plan.encoded_len())); // Its JSON is longer.
    }
    let json = proto::json::to_json(plan);
    if json.len() > PLAN_MAX_BYTES { Err(too_long(json.len())) } else { Ok(json) }
}

/// How a task that is due then repeats.
pub(crate) fn repeat(
    repeat: Option<wire::Repeat>,
    fires_at_unix_ms: i64,
) -> Result<Option<Repeat>, Bad> {
    let Some(wire::Repeat { every_ms, count, until_unix_ms }) = repeat else { return Ok(None) };
    if !(EVERY_MIN_MS..=AHEAD_MAX_MS).contains(&every_ms) {
        let wanted = format!("{EVERY_MIN_MS} to {AHEAD_MAX_MS} (a year)");
        return Err(Bad::number("repeat.every_ms", every_ms, wanted));
    }
    if count > OCCURRENCES_MAX {
        let wanted = format!("1 to {OCCURRENCES_MAX}, or 0 for until_unix_ms alone");
        return Err(Bad::number("repeat.count", count.into(), wanted));
    }
    let last = fires_at_unix_ms.saturating_add(UNTIL_MAX_MS);
    if until_unix_ms != 0 && !(fires_at_unix_ms..=last).contains(&until_unix_ms) {
        let wanted = format!("Unix ms, {fires_at_unix_ms} (the first time) to {last}, or 0");
        return Err(Bad::number("repeat.until_unix_ms", until_unix_ms, wanted));
    }
    if count == 0 && until_unix_ms == 0 {
        return Err(Bad::missing("repeat's end", "count or until_unix_ms"));
    }
    Ok(Some(Repeat {
        every_ms: every_ms.unsigned_abs(),
        count: Some(count).filter(|count| *count > 0),
        until_unix_ms: Some(until_unix_ms).filter(|until| *until != 0),
    }))
}

/// Name of a sip-edge; empty: not said.
pub(crate) fn edge(name: String) -> Result<String, Bad> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    if name.len() > EDGE_MAX_BYTES || !name.bytes().all(plain) {
        let wanted = format!("at most {EDGE_MAX_BYTES} of [A-Za-z0-9_.-]");
        return Err(Bad::text("edge", &name, wanted));
    }
    Ok(name)
}

/// The page from there, before there; 0 is no limit.
pub(crate) fn fires_between(from: i64, before: i64) -> Result<(Option<i64>, Option<i64>), Bad> {
    let some = |field, ms: i64| match ms {
        0 => Ok(None),
        1.. => Ok(Some(ms)),
        _ => Err(Bad::number(field, ms, "Unix ms, or 0 for any")),
    };
    Ok((some("fires_from_unix_ms", from)?, some("fires_before_unix_ms", before)?))
}

/// None: pending, firing and paused.
pub(crate) fn live_states(numbers: &[i32]) -> Result<Vec<State>, Bad> {
    match numbers {
        [] => Ok(vec![State::Pending, State::Firing, State::Paused]),
        numbers => states(numbers),
    }
}

/// Each once.
pub(crate) fn states(numbers: &[i32]) -> Result<Vec<State>, Bad> {
    let state = |number: &i32| {
        State::try_from(i64::from(*number)).map_err(|got| {
            Bad::number("states", got, "1 to 7 (TASK_STATE_PENDING to TASK_STATE_PAUSED)")
        })
    };
    let mut states = numbers.iter().map(state).collect::<Result<Vec<_>, _>>()?;
    states.sort_unstable();
    states.dedup();
    Ok(states)
}

/// `next_page_token` of a page that ends with this task.
pub(crate) fn page_token(last: Cursor) -> String {
    format!("{}.{}", last.fires_at_unix_ms, last.id)
}

/// Empty: the first page.
pub(crate) fn cursor(token: &str) -> Result<Option<Cursor>, Bad> {
    if token.is_empty() {
        return Ok(None);
    }
    let parsed = token.split_once('.').and_then(|(ms, id)| {
        Some(Cursor { fires_at_unix_ms: ms.parse().ok()?, id: task_id(id).ok()? })
    });
    let wanted = "next_page_token of the page before, or nothing";
    parsed.map(Some).ok_or_else(|| Bad::text("page_token", token, wanted))
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use std::fmt::Debug;

    #[test]
    fn times_are_from_now_to_a_year_ahead_and_a_minute_behind() {
        for ms in [0, 1, 31_536_000_000] {
            assert_eq!(after_ms(ms), Ok(ms));
        }
        let now = 1_700_000_000_000;
        for ms in [now - 60_000, now, now + 31_536_000_000] {
            assert_eq!(at_unix_ms(ms, now), Ok(ms));
        }
        check(after_ms(-5), expect!["after_ms is -5, wanted 0 to 31536000000 (a year)"]);
        check(
            after_ms(1 << 53),
            expect!["after_ms is 9007199254740992, wanted 0 to 31536000000 (a year)"],
        );
        for ms in [i64::MIN, 0, 1 << 31, now - 60_001, now + 31_536_000_001, i64::MAX] {
            assert!(at_unix_ms(ms, now).is_err(), "{ms}");
        }
        check(
            at_unix_ms(1, now),
            expect![
                "at_unix_ms is 1, wanted Unix ms, 1699999940000 (a minute ago) to 1731536000000 (a year ahead)"
            ],
        );
    }

    #[test]
    fn ids_are_hyphenated_uuids() {
        let id = "0193F0A4-7d6c-7c1e-8a55-0242ac120002";
        assert_eq!(call_id(id).unwrap(), id.to_lowercase());
        assert_eq!(task_id(id).unwrap().to_string(), id.to_lowercase());
        let odd = ["", "7", "0193f0a47d6c7c1e8a550242ac120002", &format!("{{{id}}}"), "é"];
        for bad in odd {
            assert!(task_id(bad).is_err(), "{bad}");
        }
        check(
            call_id("1"),
            expect![[
                r#"call_id is "1", wanted a UUID, e.g. "0193f0a4-7d6c-7c1e-8a55-0242ac120002""#
            ]],
        );
    }

    #[test]
    fn texts_are_short_and_plain() {
        assert_eq!(text("label", "ü".repeat(128), 256), Ok("ü".repeat(128)));
        check(
            text("label", "ü".repeat(129), 256),
            expect![[
                r#"label is "üüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüü"… (258 bytes), wanted at most 256 bytes"#
            ]],
        );
        check(
            text("by", "a\u{1b}[2J".to_owned(), 128),
            expect![[r#"by is "a\u{1b}[2J", wanted text without control characters"#]],
        );
    }

    #[test]
    fn pages_and_states_are_what_they_say() {
        let last = Cursor { fires_at_unix_ms: -1, id: TaskId(7) };
        assert_eq!(cursor(&page_token(last)), Ok(Some(last)));
        assert_eq!(cursor(""), Ok(None));
        for bad in [".", "1", "x.0193f0a4-7d6c-7c1e-8a55-0242ac120002", "1.1"] {
            assert!(cursor(bad).is_err(), "{bad}");
        }
        assert_eq!((page_size(0), page_size(10_000)), (Ok(1_000), Ok(10_000)));
        check(page_size(10_001), expect!["page_size is 10001, wanted 1 to 10000"]);
        assert_eq!(states(&[3, 1, 3]), Ok(vec![State::Pending, State::Fired]));
        check(
            states(&[0]),
            expect!["states is 0, wanted 1 to 7 (TASK_STATE_PENDING to TASK_STATE_PAUSED)"],
        );
    }

    #[test]
    fn an_action_is_whole_or_its_field_is_named() {
        use wire::schedule_request::Action;
        let hangup = |cause: &str, legs| {
            Some(Action::Hangup(wire::HangupCall { cause: cause.to_owned(), legs }))
        };
        let (call_id, cause) = ("c".to_owned(), "ALLOTTED_TIMEOUT".to_owned());
        let both = Effect::HangUp { call_id, cause, legs: Legs::Both };
        assert_eq!(effect("c", hangup("", 0)), Ok(both));
        check(
            effect("c", None),
            expect!["action is missing, wanted hangup, transfer, play or publish"],
        );
        check(
            effect("", hangup("", 0)),
            expect!["call_id is missing, wanted the call that it is done to"],
        );
        check(
            effect("c", hangup("BORED", 0)),
            expect![[
                r#"hangup.cause is "BORED", wanted a name of sip_edge.v1.HangupCause, e.g. "ALLOTTED_TIMEOUT""#
            ]],
        );
        check(
            effect("c", hangup("", -5)),
            expect!["hangup.legs is -5, wanted LEGS_BOTH, LEGS_A or LEGS_B"],
        );
        let play = Action::Play(wire::PlayToCall::default());
        check(
            effect("c", Some(play)),
            expect!["play.file is missing, wanted a file below media-relay's --media-dir"],
        );
        let transfer = |to| Some(Action::Transfer(wire::TransferCall { to }));
        check(effect("c", transfer(None)), expect!["transfer is missing, wanted uri or plan"]);
        let uri = |uri: &str| transfer(Some(wire::transfer_call::To::Uri(uri.to_owned())));
        check(
            effect("c", uri("tel:1")),
            expect![[r#"transfer.uri is "tel:1", wanted "sip:…" or "user/NAME""#]],
        );
        let plan = transfer(Some(wire::transfer_call::To::Plan(CallPlan::default())));
        check(
            effect("c", plan),
            expect![[r#"transfer.plan.actions is missing, wanted an action, e.g. {"park": {}}"#]],
        );
        let publish = |subject: &str, bytes| {
            let (subject, payload) = (subject.to_owned(), vec![0; bytes]);
            Some(Action::Publish(wire::PublishMessage { subject, payload }))
        };
        assert!(effect("", publish("a.b", 65_536)).is_ok());
        check(
            effect("", publish("a.b", 65_537)),
            expect!["publish.payload's length is 65537, wanted at most 65536 bytes"],
        );
        check(
            effect("", publish("holdfast.task.x", 0)),
            expect![[
                r#"publish.subject is "holdfast.task.x", wanted a subject of 1 to 256 printable ASCII bytes without wildcards, not below `holdfast.`, not beginning with `$` or `_`"#
            ]],
        );
    }

    #[test]
    fn a_repetition_has_a_step_of_a_second_and_an_end() {
        let (none, first) = (wire::Repeat::default(), 1_700_000_000_000);
        let ok = wire::Repeat { every_ms: 1_000, count: 1, until_unix_ms: first };
        let expected = Repeat { every_ms: 1_000, count: Some(1), until_unix_ms: Some(first) };
        assert_eq!(repeat(Some(ok), first), Ok(Some(expected)));
        assert_eq!(repeat(None, first), Ok(None));
        check(
            repeat(Some(none), first),
            expect!["repeat.every_ms is 0, wanted 1000 to 31536000000 (a year)"],
        );
        let endless = wire::Repeat { every_ms: 1_000, ..none };
        check(
            repeat(Some(endless), first),
            expect!["repeat's end is missing, wanted count or until_unix_ms"],
        );
        let many = wire::Repeat { count: 1_000_001, ..ok };
        check(
            repeat(Some(many), first),
            expect!["repeat.count is 1000001, wanted 1 to 1000000, or 0 for until_unix_ms alone"],
        );
        let over = wire::Repeat { until_unix_ms: first - 1, ..ok };
        check(
            repeat(Some(over), first),
            expect![
                "repeat.until_unix_ms is 1699999999999, wanted Unix ms, 1700000000000 (the first time) to 2015360000000, or 0"
            ],
        );
        check(
            extend_ms(0),
            expect!["extend_ms is 0, wanted -31536000000 to 31536000000 (a year), not 0"],
        );
        check(
            edge("a b".to_owned()),
            expect![[r#"edge is "a b", wanted at most 64 of [A-Za-z0-9_.-]"#]],
        );
        check(
            fires_between(-5, 0),
            expect!["fires_from_unix_ms is -5, wanted Unix ms, or 0 for any"],
        );
    }

    #[track_caller]
    fn check<T: Debug>(result: Result<T, Bad>, expected: Expect) {
        expected.assert_eq(&result.unwrap_err().to_string());
    }
}
