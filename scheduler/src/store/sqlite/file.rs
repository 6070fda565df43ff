//! The file that a process has for itself: its lock, and its tables as this version knows them.

use crate::store::schema;
use anyhow::{Context as _, bail};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Row as _, SqlitePool};
use std::fs::File;

/// Takes the file for this process, for as long as it lives, however it dies.
pub(super) fn lock(options: &SqliteConnectOptions) -> anyhow::Result<File> {
    let mut path = options.get_filename().as_os_str().to_owned();
    path.push("-lock");
    let file = File::options().create(true).append(true).open(&path);
    let file = file.with_context(|| format!("open {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => bail!("another scheduler uses it"),
        Err(std::fs::TryLockError::Error(e)) => Err(e).context(format!("lock {}", path.display())),
    }
}

/// Brings the tables up to date.
pub(super) async fn migrate(writer: &SqlitePool) -> anyhow::Result<()> {
    let mut transaction = writer.begin_with("BEGIN IMMEDIATE").await.context("begin")?;
    sqlx::raw_sql("CREATE TABLE IF NOT EXISTS scheduler_schema (applied INTEGER NOT NULL) STRICT")
        .execute(&mut *transaction)
        .await
        .context("read its schema")?;
    let applied: i64 = sqlx::query("SELECT COALESCE(MAX(applied), 0) FROM scheduler_schema")
        .fetch_one(&mut *transaction)
        .await
        .and_then(|row| row.try_get(0))
        .context("read its schema")?;
    let known = schema::SQLITE.len();
    let applied = schema::applied_of(applied, known)?;
    for migration in &schema::SQLITE[applied..] {
        sqlx::raw_sql(*migration).execute(&mut *transaction).await.context("migrate it")?;
    }
    if applied < known {
        sqlx::query("INSERT INTO scheduler_schema (applied) VALUES (?1)")
            .bind(known as i64)
            .execute(&mut *transaction)
            .await
            .context("migrate it")?;
    }
    transaction.commit().await.context("migrate it")
}
