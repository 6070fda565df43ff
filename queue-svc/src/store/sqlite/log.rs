//! The log of changes, `queue_changes`: what each commit has made known, in the commit itself.
//!
//! Revisions count up without gaps and are never used again. What a change says is the business of
//! `events.rs`; here it is bytes.

use super::Transaction;
use crate::store::{FORGOTTEN_AT_A_TIME, Logged, Reach};
use sqlx::{Row as _, SqlitePool};

pub(super) async fn read(
    pool: &SqlitePool,
    after: i64,
    limit: u32,
) -> Result<Vec<Logged>, sqlx::Error> {
    let select =
        "SELECT revision, event FROM queue_changes WHERE revision > ? ORDER BY revision LIMIT ?";
    let rows = sqlx::query(select).bind(after).bind(limit).fetch_all(pool).await?;
    let logged = rows
        .iter()
        .map(|row| Ok(Logged { revision: row.try_get("revision")?, event: row.try_get("event")? }));
    logged.collect()
}

pub(super) async fn reach(pool: &SqlitePool) -> Result<Reach, sqlx::Error> {
    let select = "SELECT
        COALESCE((SELECT seq FROM sqlite_sequence WHERE name = 'queue_changes'), 0) AS last,
        (SELECT MIN(revision) FROM queue_changes) AS first,
        (SELECT revision FROM queue_told WHERE id = 1) AS told";
    let row = sqlx::query(select).fetch_one(pool).await?;
    let last = row.try_get("last")?;
    let first = row.try_get::<Option<i64>, _>("first")?.unwrap_or(last + 1);
    Ok(Reach { first, last, told: row.try_get("told")? })
}

pub(super) async fn set_told(tx: &mut Transaction, revision: i64) -> Result<(), sqlx::Error> {
    let update = sqlx::query("UPDATE queue_told SET revision = ? WHERE id = 1 AND revision < ?");
    update.bind(revision).bind(revision).execute(&mut **tx).await?;
    Ok(())
}

/// Forgets changes that are older and that NATS has, at most [`FORGOTTEN_AT_A_TIME`].
pub(super) async fn forget(tx: &mut Transaction, before_unix_ms: i64) -> Result<(), sqlx::Error> {
    // Of the oldest alone it is asked how old they are: there may be millions, in the order of time.
    let delete = "DELETE FROM queue_changes WHERE revision IN (
        SELECT revision FROM (
            SELECT revision, at_unix_ms FROM queue_changes
            WHERE revision <= (SELECT revision FROM queue_told WHERE id = 1)
            ORDER BY revision LIMIT ?)
        WHERE at_unix_ms < ?)";
    let delete = sqlx::query(delete).bind(FORGOTTEN_AT_A_TIME).bind(before_unix_ms);
    delete.execute(&mut **tx).await?;
    Ok(())
}
