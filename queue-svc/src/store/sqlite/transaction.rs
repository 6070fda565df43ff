//! Changes that are made together or not at all.
//!
//! Not sqlx's own transaction: on a full disk SQLite rolls back by itself, and sqlx goes on believing
//! that a transaction is open, so that the connection can begin none any more.

use sqlx::pool::PoolConnection;
use sqlx::{Sqlite, SqliteConnection, SqlitePool};
use std::ops::{Deref, DerefMut};

/// A transaction that no other writer can disturb. Dropped without commit, it did nothing.
pub(super) struct Transaction {
    connection: PoolConnection<Sqlite>,
    committed: bool,
}

impl Transaction {
    pub(super) async fn begin(pool: &SqlitePool) -> sqlx::Result<Self> {
        // Before BEGIN: who is cancelled while it waits must not leave it open.
        let mut begun = Self { connection: pool.acquire().await?, committed: false };
        sqlx::query("BEGIN IMMEDIATE").execute(&mut *begun).await?;
        Ok(begun)
    }

    pub(super) async fn commit(mut self) -> sqlx::Result<()> {
        sqlx::query("COMMIT").execute(&mut *self).await?;
        self.committed = true;
        Ok(())
    }
}

impl Drop for Transaction {
    /// What is not committed is rolled back, whatever state it is in, by closing the connection.
    fn drop(&mut self) {
        if !self.committed {
            self.connection.close_on_drop();
        }
    }
}

impl Deref for Transaction {
    type Target = SqliteConnection;

    fn deref(&self) -> &SqliteConnection {
        &self.connection
    }
}

impl DerefMut for Transaction {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        &mut self.connection
    }
}
