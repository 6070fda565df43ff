//! SQLite's log of writes goes into its file beside the writes, not amid one of them.
//!
//! By itself SQLite does that in the commit after each 1,000 pages, which then waits for the disk, and
//! with it every reply that waits for a commit.

use sqlx::SqlitePool;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Semaphore;
use tracing::debug;

/// Rows after which the log is moved: some 20 MiB of it, which the writer then uses again.
const ROWS: usize = 5_000;

/// Above this the writer moves the log itself, so that it has a bound: 64 MiB.
pub(super) const LOG_PAGES_MAX: &str = "16384";

/// Cheap to clone.
#[derive(Clone)]
pub(super) struct Checkpoint {
    /// Written since the log was last moved.
    rows: Arc<AtomicUsize>,
    /// One at a time.
    room: Arc<Semaphore>,
}

impl Checkpoint {
    pub(super) fn new() -> Self {
        Self { rows: Arc::default(), room: Arc::new(Semaphore::new(1)) }
    }

    /// So many rows were written; moves the log if it is long.
    pub(super) fn note(&self, pool: &SqlitePool, rows: usize) {
        if self.rows.fetch_add(rows, Ordering::Relaxed) + rows < ROWS {
            return;
        }
        let Ok(room) = self.room.clone().try_acquire_owned() else { return };
        self.rows.store(0, Ordering::Relaxed);
        let pool = pool.clone();
        tokio::spawn(async move {
            let moved = sqlx::query("PRAGMA wal_checkpoint(PASSIVE)").execute(&pool).await;
            if let Err(e) = moved {
                debug!("failed to move SQLite's log into its file: {e}"); // It grows to its bound.
            }
            drop(room);
        });
    }

    /// Until none is under way.
    #[cfg(test)]
    pub(super) async fn wait(&self) {
        let _room = self.room.acquire().await.unwrap();
    }
}
