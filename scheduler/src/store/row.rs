//! What both databases keep of a task in the same words: its action as JSON, and its repetition.

use super::{Error, Live, Result, Task};
use crate::clock::Pinned;
use serde_json::{Value, json};
use sqlx::{ColumnIndex, Decode, Row, Type};
use uuid::Uuid;
use wheel::{Effect, Legs, Repeat, State, TaskId, TransferTo};

/// The columns of a task, in the order in which both databases read and write them.
pub(super) const COLUMNS: &str = "task_id, call_id, state, fires_at_unix_ms, revision, action, \
    group_name, label, tenant, edge, created_unix_ms, ended_unix_ms, late_ms, result, \
    repeat_every_ms, repeat_count, repeat_until_unix_ms, occurrence, missed, remaining_ms, \
    cancel_requested, pinned_tick";

/// What begins the action of a task that is published; `LIVE_COLUMNS` looks for it.
#[cfg(test)]
pub(super) const PUBLISH: &str = "{\"publish\":";

/// The effect without its call: `{"hangup":{"cause":"ALLOTTED_TIMEOUT","legs":"both"}}`.
pub(super) fn action(effect: &Effect) -> String {
    let action = match effect {
        Effect::HangUp { cause, legs, .. } => {
            json!({ "hangup": { "cause": cause, "legs": legs_name(*legs) } })
        }
        Effect::Transfer { to: TransferTo::Uri(uri), .. } => json!({ "transfer": { "uri": uri } }),
        Effect::Transfer { to: TransferTo::Plan(plan), .. } => {
            json!({ "transfer": { "plan": plan } })
        }
        Effect::Play { file, legs, .. } => {
            json!({ "play": { "file": file, "legs": legs_name(*legs) } })
        }
        Effect::Publish { subject, payload } => match std::str::from_utf8(payload) {
            // A text column of PostgreSQL takes no NUL; JSON has it as \u0000.
            Ok(text) => json!({ "publish": { "subject": subject, "text": text } }),
            Err(_) => json!({ "publish": { "subject": subject, "hex": hex(payload) } }),
        },
    };
    action.to_string()
}

/// The effect on this call that an action is.
pub(super) fn effect(call_id: &str, action: &str) -> Result<Effect> {
    let bad = || Error::Decode(format!("action {action:?} is not one of ours").into());
    let value: Value = serde_json::from_str(action).map_err(|e| Error::Decode(e.into()))?;
    let (kind, of) = value.as_object().and_then(|it| it.iter().next()).ok_or_else(bad)?;
    let text = |name: &str| of[name].as_str().map(str::to_owned);
    let legs = || text("legs").as_deref().and_then(legs);
    let call_id = call_id.to_owned();
    let effect = match kind.as_str() {
        "hangup" => {
            text("cause").zip(legs()).map(|it| Effect::HangUp { call_id, cause: it.0, legs: it.1 })
        }
        "transfer" => text("uri")
            .map(TransferTo::Uri)
            .or_else(|| text("plan").map(TransferTo::Plan))
            .map(|to| Effect::Transfer { call_id, to }),
        "play" => {
            text("file").zip(legs()).map(|it| Effect::Play { call_id, file: it.0, legs: it.1 })
        }
        "publish" => text("text")
            .map(String::into_bytes)
            .or_else(|| text("hex").as_deref().and_then(unhex))
            .zip(text("subject"))
            .map(|(payload, subject)| Effect::Publish { subject, payload }),
        _ => None,
    };
    effect.ok_or_else(bad)
}

/// `every_ms`, `count` and `until_unix_ms` as stored: 0 for none.
pub(super) fn repeat_numbers(repeat: Option<Repeat>) -> (i64, i64, i64) {
    let Some(Repeat { every_ms, count, until_unix_ms }) = repeat else { return (0, 0, 0) };
    let every_ms = i64::try_from(every_ms).unwrap_or(i64::MAX);
    (every_ms, count.map_or(0, i64::from), until_unix_ms.unwrap_or(0))
}

pub(super) fn repeat((every_ms, count, until_unix_ms): (i64, i64, i64)) -> Option<Repeat> {
    let every_ms = u64::try_from(every_ms).ok().filter(|every_ms| *every_ms > 0)?;
    Some(Repeat {
        every_ms,
        count: u32::try_from(count).ok().filter(|count| *count > 0),
        until_unix_ms: Some(until_unix_ms).filter(|until| *until != 0),
    })
}

/// The task in a row of [`COLUMNS`].
pub(super) fn task<R>(row: &R) -> Result<Task>
where
    R: Row,
    usize: ColumnIndex<R>,
    for<'r> i64: Decode<'r, R::Database> + Type<R::Database>,
    for<'r> bool: Decode<'r, R::Database> + Type<R::Database>,
    for<'r> &'r str: Decode<'r, R::Database> + Type<R::Database>,
    for<'r> Uuid: Decode<'r, R::Database> + Type<R::Database>,
{
    let number = |at: usize| row.try_get::<i64, _>(at);
    let text = |at: usize| row.try_get::<&str, _>(at).map(str::to_owned);
    let call_id = text(1)?;
    Ok(Task {
        id: TaskId(row.try_get::<Uuid, _>(0)?.as_u128()),
        state: state(number(2)?)?,
        fires_at_unix_ms: number(3)?,
        revision: number(4)?,
        effect: effect(&call_id, row.try_get(5)?)?.into(),
        call_id,
        group: text(6)?,
        label: text(7)?,
        tenant: text(8)?,
        edge: text(9)?,
        created_unix_ms: number(10)?,
        ended_unix_ms: number(11)?,
        late_ms: number(12)?,
        result: text(13)?,
        repeat: repeat((number(14)?, number(15)?, number(16)?)),
        occurrence: count(number(17)?)?,
        missed: count(number(18)?)?,
        remaining_ms: number(19)?,
        cancel_requested: row.try_get(20)?,
        pinned: Pinned(number(21)?),
    })
}

/// The columns of a [`Live`].
pub(super) const LIVE_COLUMNS: &str = "task_id, state, fires_at_unix_ms, revision, \
    substr(action, 1, 11) = '{\"publish\":', edge, pinned_tick";

pub(super) fn live<R>(row: &R) -> Result<Live>
where
    R: Row,
    usize: ColumnIndex<R>,
    for<'r> i64: Decode<'r, R::Database> + Type<R::Database>,
    for<'r> bool: Decode<'r, R::Database> + Type<R::Database>,
    for<'r> &'r str: Decode<'r, R::Database> + Type<R::Database>,
    for<'r> Uuid: Decode<'r, R::Database> + Type<R::Database>,
{
    Ok(Live {
        id: TaskId(row.try_get::<Uuid, _>(0)?.as_u128()),
        firing: state(row.try_get(1)?)? == State::Firing,
        fires_at_unix_ms: row.try_get(2)?,
        revision: row.try_get(3)?,
        publishes: row.try_get(4)?,
        edge: row.try_get::<&str, _>(5)?.to_owned(),
        pinned: Pinned(row.try_get(6)?),
    })
}

pub(super) fn state(number: i64) -> Result<State> {
    State::try_from(number)
        .map_err(|got| Error::Decode(format!("state {got} is not one of ours").into()))
}

pub(super) fn count(number: i64) -> Result<u32> {
    u32::try_from(number).map_err(|e| Error::Decode(e.into()))
}

fn legs_name(legs: Legs) -> &'static str {
    match legs {
        Legs::Both => "both",
        Legs::A => "a",
        Legs::B => "b",
    }
}

fn legs(name: &str) -> Option<Legs> {
    [Legs::Both, Legs::A, Legs::B].into_iter().find(|legs| legs_name(*legs) == name)
}

/// In lower case.
pub(super) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut digits = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        digits.push(char::from(DIGITS[usize::from(byte >> 4)]));
        digits.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    digits
}

fn unhex(digits: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        digits.chars().map(|it| it.to_digit(16).map(|digit| digit as u8)).collect();
    digits
        .map(|digits| digits.chunks(2).map(|pair| pair.iter().fold(0, |n, d| n << 4 | d)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_reads_as_it_was_written() {
        let call_id = "call".to_owned();
        for effect in [
            Effect::HangUp { call_id: call_id.clone(), cause: "X".to_owned(), legs: Legs::B },
            Effect::Transfer {
                call_id: call_id.clone(),
                to: TransferTo::Uri("sip:\"ü".to_owned()),
            },
            Effect::Transfer {
                call_id: call_id.clone(),
                to: TransferTo::Plan("{\"a\":1}".to_owned()),
            },
            Effect::Play { call_id: call_id.clone(), file: "a b.wav".to_owned(), legs: Legs::Both },
            Effect::Publish { subject: "s".to_owned(), payload: Vec::new() },
            Effect::Publish { subject: "s".to_owned(), payload: b"{\"x\": \0}".to_vec() },
            Effect::Publish { subject: "s".to_owned(), payload: (0..=255).collect() },
        ] {
            let stored = action(&effect);
            assert!(!stored.contains('\0'));
            assert_eq!(stored.starts_with(PUBLISH), matches!(effect, Effect::Publish { .. }));
            assert_eq!(self::effect(&call_id, &stored).unwrap(), effect);
        }
        for bad in ["", "{}", "[]", "{\"x\":{}}", "{\"play\":{\"file\":\"f\",\"legs\":\"C\"}}"] {
            assert!(self::effect("call", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_repetition_reads_as_it_was_written() {
        for repeat in [
            None,
            Some(Repeat { every_ms: 1_000, count: Some(3), until_unix_ms: None }),
            Some(Repeat { every_ms: 1_000, count: None, until_unix_ms: Some(5) }),
        ] {
            assert_eq!(self::repeat(repeat_numbers(repeat)), repeat);
        }
    }
}
