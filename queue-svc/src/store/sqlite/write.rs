//! Rows of callers and changes of the log in one text of SQL, whatever their number: SQLite runs in a
//! thread of its own, and each text is one way there and back, which costs more than its rows.
//!
//! The rows come as JSON arrays, so that the text is always the same and is prepared once.

use super::Transaction;
use super::transaction::Writer;
use crate::store::Change;
use crate::store::callers::CallerRow;
use data_encoding::HEXLOWER;
use queue::Caller;
use serde::Serialize;
use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{Row as _, Sqlite};
use std::sync::LazyLock;

/// `$1`: callers, as [`of_caller`] has them; `$2`: call_ids of those who have gone; `$3`: changes, each
/// its time and its event in hexadecimal. Returns the newest change, those of this transaction included.
const WRITE: &str = "
INSERT INTO mohqcalls (mohq_id, call_id, call_status, call_from, call_contact, call_time)
SELECT value ->> 0, value ->> 1, value ->> 2, substr(value ->> 3, 1, 100),
    substr(value ->> 4, 1, 100), datetime((value ->> 6) / 1000, 'unixepoch')
FROM json_each($1) WHERE true
ON CONFLICT (call_id) DO UPDATE SET mohq_id = excluded.mohq_id, call_status = excluded.call_status;

INSERT INTO queue_callers (call_id, call_from, call_contact, arrival_sequence, arrived_unix_ms,
    assignment_id, agent, reserved_unix_ms, ring_ms, priority, since_unix_ms, asked_mohq_id,
    agent_names)
SELECT value ->> 1, value ->> 3, value ->> 4, value ->> 5, value ->> 6, value ->> 7, value ->> 8,
    value ->> 9, value ->> 10, value ->> 11, value ->> 12, value ->> 13, value ->> 14
FROM json_each($1) WHERE true
ON CONFLICT (call_id) DO UPDATE SET arrival_sequence = excluded.arrival_sequence,
    assignment_id = excluded.assignment_id, agent = excluded.agent,
    reserved_unix_ms = excluded.reserved_unix_ms, ring_ms = excluded.ring_ms,
    priority = excluded.priority, since_unix_ms = excluded.since_unix_ms,
    asked_mohq_id = excluded.asked_mohq_id, agent_names = excluded.agent_names;

DELETE FROM mohqcalls WHERE call_id IN (SELECT value FROM json_each($2));
DELETE FROM queue_callers WHERE call_id IN (SELECT value FROM json_each($2));

INSERT INTO queue_changes (at_unix_ms, event)
SELECT value ->> 0, unhex(value ->> 1) FROM json_each($3) ORDER BY key;

SELECT COALESCE((SELECT seq FROM sqlite_sequence WHERE name = 'queue_changes'), 0);
";

static WHOLE: LazyLock<String> = LazyLock::new(|| format!("BEGIN IMMEDIATE; {WRITE} COMMIT"));

/// What is to be written.
pub(super) struct Rows {
    saved: String,
    gone: String,
    changes: String,
}

impl Rows {
    pub(super) fn new(saved: &[&Caller], gone: &[&str], changes: &[Change]) -> Self {
        let saved = saved.iter().map(|it| of_caller(it)).collect::<Vec<_>>();
        let changes = changes.iter().map(|it| (it.at_unix_ms, HEXLOWER.encode(&it.event)));
        let changes = changes.collect::<Vec<_>>();
        Self { saved: json(&saved), gone: json(gone), changes: json(&changes) }
    }

    /// Within a transaction; the newest change.
    pub(super) async fn write(self, tx: &mut Transaction) -> sqlx::Result<i64> {
        newest(&self.bound_to(WRITE).fetch_all(&mut **tx).await?)
    }

    /// As a transaction; the newest change.
    pub(super) async fn commit(self, writer: &Writer) -> sqlx::Result<i64> {
        newest(&writer.run(self.bound_to(&WHOLE)).await?)
    }

    fn bound_to(self, sql: &'static str) -> Query<'static, Sqlite, SqliteArguments> {
        sqlx::query(sql).bind(self.saved).bind(self.gone).bind(self.changes)
    }
}

fn newest(rows: &[SqliteRow]) -> sqlx::Result<i64> {
    rows.first().ok_or(sqlx::Error::RowNotFound)?.try_get(0)
}

fn of_caller(caller: &Caller) -> impl Serialize {
    let row = CallerRow::from(caller);
    (
        row.mohq_id,
        row.call_id,
        row.call_status,
        row.call_from,
        row.call_contact,
        row.arrival_sequence,
        row.arrived_unix_ms,
        row.assignment_id,
        row.agent,
        row.reserved_unix_ms,
        row.ring_ms,
        row.priority,
        row.since_unix_ms,
        row.asked_mohq_id,
        row.agent_names,
    )
}

fn json(rows: &(impl Serialize + ?Sized)) -> String {
    serde_json::to_string(rows).expect("rows of numbers and texts have a JSON form")
}
