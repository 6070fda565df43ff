//! The log of changes: what each commit has done to the tasks of a shard, one row for all of them.
//!
//! A row has the sequence numbers `first_seq` to `seq`, and a JSON array with an array for each
//! change: what of a task can change, as it is afterwards. The rest is read from the task's row,
//! which is kept for as long as its changes are.

use super::{Error, Held, Result, Task, row};
use std::collections::HashMap;
use wheel::{State, TaskId};

/// What one commit has changed in one shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogRow {
    pub(crate) shard: u8,
    /// Of the first change and of the last.
    pub(crate) first_seq: i64,
    pub(crate) seq: i64,
    /// Under which the shard was held.
    pub(crate) fence: i64,
    pub(crate) at_unix_ms: i64,
    /// JSON, see above.
    pub(super) changes: String,
}

/// Which changes of a shard may be forgotten.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Old {
    /// Those that are older, if the world was told of them.
    pub(crate) before_unix_ms: i64,
    pub(crate) told_seq: i64,
    /// Those with a lower number, in any case.
    pub(crate) before_seq: i64,
}

impl Old {
    pub(super) fn includes(&self, row: &LogRow) -> bool {
        let aged = row.at_unix_ms < self.before_unix_ms && row.seq <= self.told_seq;
        aged || row.seq < self.before_seq
    }
}

/// A change that was committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Changed {
    pub(crate) shard: u8,
    pub(crate) seq: i64,
    pub(crate) at_unix_ms: i64,
    /// As it was after the change.
    pub(crate) task: Task,
}

/// Id, state, revision, fires_at, ended, late, occurrence, missed, remaining, cancel requested, result.
type Words<'a> = (
    std::borrow::Cow<'a, str>,
    u8,
    i64,
    i64,
    i64,
    i64,
    u32,
    u32,
    i64,
    bool,
    std::borrow::Cow<'a, str>,
);

/// What a transaction has changed in one shard so far.
#[derive(Debug)]
pub(crate) struct LogWriter {
    /// Without its changes.
    row: LogRow,
    /// Those, but for the last bracket.
    json: Vec<u8>,
}

impl LogWriter {
    /// A row that goes on after `last_seq`.
    pub(crate) fn new(Held { shard, fence }: Held, last_seq: i64) -> Self {
        let (first_seq, seq, changes) = (last_seq + 1, last_seq, String::new());
        let row = LogRow { shard, first_seq, seq, fence, at_unix_ms: 0, changes };
        Self { row, json: b"[".to_vec() }
    }

    /// The task as it is after a change; the number that the change gets.
    pub(crate) fn push(&mut self, task: &Task) -> i64 {
        if self.row.seq >= self.row.first_seq {
            self.json.push(b',');
        }
        let id = row::hex(&task.id.0.to_be_bytes());
        serde_json::to_writer(&mut self.json, &words(&id, task)).expect("numbers and strings");
        self.row.seq += 1;
        self.row.seq
    }

    pub(crate) fn finish(mut self, at_unix_ms: i64) -> LogRow {
        self.json.push(b']');
        let changes = String::from_utf8(self.json).expect("JSON is text");
        LogRow { at_unix_ms, changes, ..self.row }
    }
}

impl LogRow {
    /// The ids of the tasks that have changed, in order, and whether they have ended with it.
    pub(super) fn ids(&self) -> Result<Vec<(TaskId, bool)>> {
        let words: Vec<Words<'_>> = self.words()?;
        words.iter().map(|it| Ok((id(&it.0)?, it.4 > 0))).collect()
    }

    /// The changes after `after_seq`; `tasks` has the rows of all that have changed.
    pub(super) fn changed(
        &self,
        after_seq: i64,
        tasks: &HashMap<TaskId, Task>,
    ) -> Result<Vec<Changed>> {
        let mut changed = Vec::new();
        for (seq, words) in (self.first_seq..).zip(self.words()?) {
            if seq <= after_seq {
                continue;
            }
            let task = tasks.get(&id(&words.0)?);
            let task = task.ok_or_else(|| bad(format!("no task {} of the log", words.0)))?;
            let task = overlay(task, words)?;
            changed.push(Changed { shard: self.shard, seq, at_unix_ms: self.at_unix_ms, task });
        }
        Ok(changed)
    }

    fn words(&self) -> Result<Vec<Words<'_>>> {
        serde_json::from_str(&self.changes)
            .map_err(|e| bad(format!("changes {}/{}: {e}", self.shard, self.seq)))
    }
}

fn words<'a>(id: &'a str, task: &'a Task) -> Words<'a> {
    (
        id.into(),
        task.state as u8,
        task.revision,
        task.fires_at_unix_ms,
        task.ended_unix_ms,
        task.late_ms,
        task.occurrence,
        task.missed,
        task.remaining_ms,
        task.cancel_requested,
        task.result.as_str().into(),
    )
}

fn overlay(task: &Task, words: Words<'_>) -> Result<Task> {
    let (_, state, revision, fires, ended, late, occurrence, missed, remaining, cancel, result) =
        words;
    let state = State::try_from(i64::from(state)).map_err(|got| bad(format!("state {got}")))?;
    Ok(Task {
        state,
        revision,
        fires_at_unix_ms: fires,
        ended_unix_ms: ended,
        late_ms: late,
        occurrence,
        missed,
        remaining_ms: remaining,
        cancel_requested: cancel,
        result: result.into_owned(),
        ..task.clone()
    })
}

fn id(hex: &str) -> Result<TaskId> {
    u128::from_str_radix(hex, 16).map(TaskId).map_err(|_| bad(format!("task id {hex:?}")))
}

fn bad(what: String) -> Error {
    Error::Decode(what.into())
}
