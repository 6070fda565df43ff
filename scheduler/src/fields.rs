//! The fields of requests: what is allowed, and what to say about what is not.

use crate::store::Cursor;
use uuid::Uuid;
use wheel::{State, TaskId};

/// The farthest a task may be ahead, in ms: a year.
const AHEAD_MAX_MS: i64 = 31_536_000_000;
/// How far an absolute time may be past, in ms: what a slow client and its clock may cost.
const BEHIND_MAX_MS: i64 = 60_000;
pub(crate) const GROUP_MAX_BYTES: usize = 128;
pub(crate) const LABEL_MAX_BYTES: usize = 256;
pub(crate) const KEY_MAX_BYTES: usize = 128;
pub(crate) const BY_MAX_BYTES: usize = 128;
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

pub(crate) fn at_unix_ms(ms: i64, now_unix_ms: i64) -> Result<i64, Bad> {
    let (first, last) = (now_unix_ms - BEHIND_MAX_MS, now_unix_ms + AHEAD_MAX_MS);
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

/// None: pending and firing.
pub(crate) fn states(numbers: &[i32]) -> Result<Vec<State>, Bad> {
    if numbers.is_empty() {
        return Ok(vec![State::Pending, State::Firing]);
    }
    let state = |number: &i32| {
        State::try_from(i64::from(*number)).map_err(|got| {
            Bad::number("states", got, "1 to 6 (TASK_STATE_PENDING to TASK_STATE_FAILED)")
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
            expect!["states is 0, wanted 1 to 6 (TASK_STATE_PENDING to TASK_STATE_FAILED)"],
        );
    }

    #[track_caller]
    fn check<T: Debug>(result: Result<T, Bad>, expected: Expect) {
        expected.assert_eq(&result.unwrap_err().to_string());
    }
}
