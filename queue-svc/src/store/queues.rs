//! What the rows of the queues say: `mohqueues`, which people also write by hand, and
//! `queue_settings`.

use super::columns::Columns;
use queue::{EmptyRule, QueueId, SettingsRow, Strategy};
use std::collections::BTreeMap;
use tracing::warn;

/// All queues as written, good or bad, by id. A row that cannot even be read is left out.
pub(super) fn read_all(rows: &[impl Columns]) -> BTreeMap<QueueId, SettingsRow> {
    let rows = rows.iter().filter_map(|row| {
        read(row).inspect_err(|e| warn!("failed to read a row of mohqueues: {e}")).ok()
    });
    rows.collect()
}

fn read(row: &impl Columns) -> Result<(QueueId, SettingsRow), sqlx::Error> {
    let queue = SettingsRow {
        name: row.text("name")?,
        uri: row.text("uri")?,
        mohdir: row.text("mohdir")?,
        mohfile: row.text("mohfile")?,
        debug: row.flag("debug")?,
        max_calls: row.small("max_calls")?,
        strategy: read_strategy(&row.text("strategy")?),
        ring_ms: row.small("ring_ms")?,
        service_level_ms: row.small("service_level_ms")?,
        max_wait_ms: row.small("max_wait_ms")?,
        join_empty: read_rule(&row.text("join_empty")?),
        leave_empty: read_rule(&row.text("leave_empty")?),
        overflow: row.text("overflow")?,
        announce_every_ms: row.small("announce_every_ms")?,
        announce_first_ms: row.small("announce_first_ms")?,
        announce_position: row.flag("announce_position")?,
        announce_wait: row.flag("announce_wait")?,
        periodic_every_ms: row.small("periodic_every_ms")?,
        periodic: row.text("periodic")?.split_whitespace().map(str::to_owned).collect(),
    };
    Ok((QueueId(row.number("id")?), queue))
}

/// A word that is not known is no reason to close a queue.
fn read_strategy(words: &str) -> Strategy {
    let known = Strategy::ALL.into_iter().find(|it| it.words() == words);
    if known.is_none() && !words.is_empty() {
        warn!(words, "queue_settings has a strategy that is not known; taking the default");
    }
    known.unwrap_or_default()
}

fn read_rule(words: &str) -> EmptyRule {
    let known = EmptyRule::ALL.into_iter().find(|it| it.words() == words);
    if known.is_none() && !words.is_empty() {
        warn!(words, "queue_settings has a rule that is not known; taking `never`");
    }
    known.unwrap_or_default()
}
