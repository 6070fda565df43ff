//! The rows of the queues: `mohqueues`, which people also write by hand, and `queue_settings`.

use super::transaction::Transaction;
use queue::{EmptyRule, QueueId, SettingsRow, Strategy};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqlitePool};
use std::collections::BTreeMap;
use tracing::warn;

/// Casts, because SQLite keeps any type in any column and people write these rows by hand.
const LOAD: &str = "
SELECT q.id, CAST(q.name AS TEXT) AS name, CAST(q.uri AS TEXT) AS uri,
    CAST(COALESCE(q.mohdir, '') AS TEXT) AS mohdir, CAST(q.mohfile AS TEXT) AS mohfile,
    CAST(COALESCE(q.debug, 0) AS INTEGER) <> 0 AS debug,
    CAST(COALESCE(s.max_calls, 0) AS INTEGER) AS max_calls,
    CAST(COALESCE(s.strategy, '') AS TEXT) AS strategy,
    CAST(COALESCE(s.ring_ms, 0) AS INTEGER) AS ring_ms,
    CAST(COALESCE(s.service_level_ms, 0) AS INTEGER) AS service_level_ms,
    CAST(COALESCE(s.max_wait_ms, 0) AS INTEGER) AS max_wait_ms,
    CAST(COALESCE(s.join_empty, '') AS TEXT) AS join_empty,
    CAST(COALESCE(s.leave_empty, '') AS TEXT) AS leave_empty,
    CAST(COALESCE(s.overflow, '') AS TEXT) AS overflow,
    CAST(COALESCE(s.announce_every_ms, 0) AS INTEGER) AS announce_every_ms,
    CAST(COALESCE(s.announce_first_ms, 0) AS INTEGER) AS announce_first_ms,
    CAST(COALESCE(s.announce_position, 0) AS INTEGER) <> 0 AS announce_position,
    CAST(COALESCE(s.announce_wait, 0) AS INTEGER) <> 0 AS announce_wait,
    CAST(COALESCE(s.periodic_every_ms, 0) AS INTEGER) AS periodic_every_ms,
    CAST(COALESCE(s.periodic, '') AS TEXT) AS periodic
FROM mohqueues q LEFT JOIN queue_settings s ON s.mohq_id = q.id ORDER BY q.id";

const INSERT: &str =
    "INSERT INTO mohqueues (name, uri, mohdir, mohfile, debug) VALUES (?, ?, ?, ?, ?)";

const UPDATE: &str =
    "UPDATE mohqueues SET name = ?, uri = ?, mohdir = ?, mohfile = ?, debug = ? WHERE id = ?";

const SAVE_SETTINGS: &str = "
INSERT OR REPLACE INTO queue_settings (mohq_id, max_calls, strategy, ring_ms, service_level_ms,
    max_wait_ms, join_empty, leave_empty, overflow, announce_every_ms, announce_first_ms,
    announce_position, announce_wait, periodic_every_ms, periodic)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";

/// All queues as written, good or bad, by id. A row that cannot even be read is left out.
pub(super) async fn load(pool: &SqlitePool) -> Result<BTreeMap<QueueId, SettingsRow>, sqlx::Error> {
    let rows = sqlx::query(LOAD).fetch_all(pool).await?;
    let rows = rows.iter().filter_map(|row| {
        read(row).inspect_err(|e| warn!("failed to read a row of mohqueues: {e}")).ok()
    });
    Ok(rows.collect())
}

pub(super) async fn insert(
    tx: &mut Transaction,
    row: &SettingsRow,
) -> Result<QueueId, sqlx::Error> {
    let insert = sqlx::query(INSERT).bind(&row.name).bind(&row.uri).bind(&row.mohdir);
    let inserted = insert.bind(&row.mohfile).bind(row.debug).execute(&mut **tx).await?;
    let id = QueueId(inserted.last_insert_rowid());
    save_settings(tx, id, row).await?;
    Ok(id)
}

/// False if there is no such row.
pub(super) async fn update(
    tx: &mut Transaction,
    id: QueueId,
    row: &SettingsRow,
) -> Result<bool, sqlx::Error> {
    let update = sqlx::query(UPDATE).bind(&row.name).bind(&row.uri).bind(&row.mohdir);
    let update = update.bind(&row.mohfile).bind(row.debug).bind(id.0);
    if update.execute(&mut **tx).await?.rows_affected() == 0 {
        return Ok(false);
    }
    save_settings(tx, id, row).await?;
    Ok(true)
}

pub(super) async fn delete(tx: &mut Transaction, id: QueueId) -> Result<(), sqlx::Error> {
    for delete in [
        "DELETE FROM mohqueues WHERE id = ?",
        "DELETE FROM queue_settings WHERE mohq_id = ?",
        "DELETE FROM queue_members WHERE mohq_id = ?",
    ] {
        sqlx::query(delete).bind(id.0).execute(&mut **tx).await?;
    }
    Ok(())
}

async fn save_settings(
    tx: &mut Transaction,
    id: QueueId,
    row: &SettingsRow,
) -> Result<(), sqlx::Error> {
    sqlx::query(SAVE_SETTINGS)
        .bind(id.0)
        .bind(row.max_calls)
        .bind(row.strategy.words())
        .bind(row.ring_ms)
        .bind(row.service_level_ms)
        .bind(row.max_wait_ms)
        .bind(row.join_empty.words())
        .bind(row.leave_empty.words())
        .bind(&row.overflow)
        .bind(row.announce_every_ms)
        .bind(row.announce_first_ms)
        .bind(row.announce_position)
        .bind(row.announce_wait)
        .bind(row.periodic_every_ms)
        .bind(row.periodic.join(" "))
        .execute(&mut **tx)
        .await?;
    Ok(())
}

fn read(row: &SqliteRow) -> Result<(QueueId, SettingsRow), sqlx::Error> {
    // What is no u32 is refused as out of range.
    let number = |column| -> Result<u32, sqlx::Error> {
        Ok(u32::try_from(row.try_get::<i64, _>(column)?).unwrap_or(u32::MAX))
    };
    let strategy: String = row.try_get("strategy")?;
    let periodic: String = row.try_get("periodic")?;
    let queue = SettingsRow {
        name: row.try_get("name")?,
        uri: row.try_get("uri")?,
        mohdir: row.try_get("mohdir")?,
        mohfile: row.try_get("mohfile")?,
        debug: row.try_get("debug")?,
        max_calls: number("max_calls")?,
        strategy: read_strategy(&strategy),
        ring_ms: number("ring_ms")?,
        service_level_ms: number("service_level_ms")?,
        max_wait_ms: number("max_wait_ms")?,
        join_empty: read_rule(row.try_get("join_empty")?),
        leave_empty: read_rule(row.try_get("leave_empty")?),
        overflow: row.try_get("overflow")?,
        announce_every_ms: number("announce_every_ms")?,
        announce_first_ms: number("announce_first_ms")?,
        announce_position: row.try_get("announce_position")?,
        announce_wait: row.try_get("announce_wait")?,
        periodic_every_ms: number("periodic_every_ms")?,
        periodic: periodic.split_whitespace().map(str::to_owned).collect(),
    };
    Ok((QueueId(row.try_get("id")?), queue))
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
