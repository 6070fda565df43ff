//! What only a file of SQLite has: a full disk, a lock, and older versions.

use super::*;
use crate::store::Store;
use crate::store::tests::{caller, opened, saved};
use queue::{Assignment, CallerState};
use tempfile::TempDir;

fn url(folder: &TempDir) -> String {
    format!("sqlite:{}", folder.path().join("queue.db").display())
}

/// As if the disk were full at so many pages, for the connection that writes.
async fn limit_pages(sqlite: &Sqlite, pages: u32) {
    let mut tx = Transaction::begin(&sqlite.writer).await.unwrap();
    let sql = format!("PRAGMA max_page_count = {pages}");
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut *tx).await.unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn full_disk_does_nothing_and_writes_go_on_afterwards() {
    let folder = tempfile::tempdir().unwrap();
    let database = Sqlite::open(&url(&folder), Synchronous::Full).await.unwrap();
    let before = caller(1, CallerState::InQueue);
    database.write(&saved(std::slice::from_ref(&before)), None).await.unwrap();
    let from = "x".repeat(1 << 20);
    let large = Caller { from: from.clone(), ..caller(2, CallerState::Entering) };
    let large = saved(&[large]);
    let row = SettingsRow { name: "abc".into(), uri: "sip:1@h".into(), ..SettingsRow::default() };
    let large_row = SettingsRow { mohfile: from, ..row.clone() };
    for _ in 0..2 {
        limit_pages(&database, 1).await;
        assert!(matches!(database.write(&large, None).await, Err(StoreError::Away(_))));
        limit_pages(&database, 1).await;
        let refused = database.insert_queue(&large_row).await;
        assert!(matches!(refused, Err(StoreError::Away(_))));
    }
    let after = caller(2, CallerState::InQueue);
    for _ in 0..2 {
        database.write(&saved(std::slice::from_ref(&after)), None).await.unwrap();
    }
    database.insert_queue(&row).await.unwrap();
    assert_eq!(database.load_callers().await.unwrap(), [before, after]);
}

#[tokio::test]
async fn two_do_not_share_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&url(&folder), Synchronous::Normal).await.unwrap();
    let refused = Store::open(&url(&folder), Synchronous::Normal).await.err().unwrap();
    assert!(format!("{refused:#}").contains("another queue-svc uses it"), "{refused:#}");
    drop(store);
    opened(&url(&folder)).await;
}

#[tokio::test]
async fn database_of_the_first_version_keeps_its_callers_and_limits() {
    let folder = tempfile::tempdir().unwrap();
    let options = SqliteConnectOptions::from_str(&url(&folder)).unwrap().create_if_missing(true);
    let pool = SqlitePool::connect_with(options).await.unwrap();
    sqlx::raw_sql(FIRST).execute(&pool).await.unwrap();
    pool.close().await;
    let store = opened(&url(&folder)).await;
    let callers = store.load_callers().await.unwrap();
    let agent = callers[0].assignment().map(Assignment::addresses);
    assert_eq!(agent.as_deref(), Some("user/1001"));
    assert_eq!((callers[0].asked, callers[0].since), (QueueId(3), 1_700_000_000_123));
    assert_eq!(store.load_queues().await.unwrap()[&QueueId(3)].max_calls, 70);
    drop(store);
    let store = opened(&url(&folder)).await;
    assert_eq!(store.load_queues().await.unwrap()[&QueueId(3)].max_calls, 70);
}

/// As this service made it before there were agents.
const FIRST: &str = "
CREATE TABLE version (id INTEGER PRIMARY KEY NOT NULL, table_name VARCHAR(32) NOT NULL,
    table_version INTEGER DEFAULT 0 NOT NULL, CONSTRAINT version_table_name_idx UNIQUE (table_name));
INSERT INTO version (table_name, table_version) VALUES
    ('mohqueues', 1), ('mohqcalls', 1), ('queue_limits', 1), ('queue_callers', 1);
CREATE TABLE mohqueues (id INTEGER PRIMARY KEY NOT NULL, name VARCHAR(25) NOT NULL,
    uri VARCHAR(100) NOT NULL, mohdir VARCHAR(100), mohfile VARCHAR(100) NOT NULL,
    debug INTEGER NOT NULL);
INSERT INTO mohqueues VALUES (3, 'abc', 'sip:1008@example.com', '', 'm', 0);
CREATE TABLE mohqcalls (id INTEGER PRIMARY KEY NOT NULL, mohq_id INTEGER NOT NULL,
    call_id VARCHAR(100) NOT NULL, call_status INTEGER NOT NULL, call_from VARCHAR(100) NOT NULL,
    call_contact VARCHAR(100), call_time DATETIME NOT NULL,
    CONSTRAINT mohqcalls_mohqcalls_idx UNIQUE (call_id));
INSERT INTO mohqcalls VALUES (1, 3, 'a', 3, 'f', '', '2026-11-20 10:00:00');
CREATE TABLE queue_limits (mohq_id INTEGER PRIMARY KEY NOT NULL, max_calls INTEGER NOT NULL);
INSERT INTO queue_limits VALUES (3, 70);
CREATE TABLE queue_callers (call_id VARCHAR(100) PRIMARY KEY NOT NULL,
    arrival_sequence INTEGER NOT NULL, arrived_unix_ms INTEGER NOT NULL, call_from TEXT NOT NULL,
    call_contact TEXT NOT NULL, assignment_id VARCHAR(64), agent VARCHAR(255),
    reserved_unix_ms INTEGER, ring_ms INTEGER);
INSERT INTO queue_callers VALUES
    ('a', 1, 1700000000123, 'f', '', 'x', 'user/1001', 1700000000999, 30000);
";

/// Of SQLite's own log.
fn log_bytes(folder: &TempDir) -> u64 {
    folder.path().join("queue.db-wal").metadata().unwrap().len()
}

#[tokio::test]
async fn the_log_of_writes_is_used_again_and_does_not_grow_with_them() {
    let folder = tempfile::tempdir().unwrap();
    let database = Sqlite::open(&url(&folder), Synchronous::Normal).await.unwrap();
    let callers: Vec<Caller> = (1..=1_000).map(|it| caller(it, CallerState::InQueue)).collect();
    let batch = saved(&callers);
    let mut bytes = Vec::new();
    for _ in 0..60 {
        database.write(&batch, None).await.unwrap();
        database.checkpoint.wait().await;
        bytes.push(log_bytes(&folder));
    }
    assert_eq!(bytes[59], bytes[29], "{bytes:?}");
    assert_eq!(database.load_callers().await.unwrap(), callers);
}
