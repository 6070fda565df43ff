//! Changes that are made together or not at all, and the connection that makes them.
//!
//! Not sqlx's own transaction: on a full disk SQLite rolls back by itself, and sqlx goes on believing
//! that a transaction is open, so that the connection can begin none any more.

use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteConnectOptions, SqliteRow};
use sqlx::{ConnectOptions as _, Sqlite, SqliteConnection};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use tokio::sync::{Mutex, OwnedMutexGuard};

/// The connection that writes: always the same, because what a connection knows of the file it forgets
/// when another one has written.
#[derive(Clone)]
pub(super) struct Writer {
    options: Arc<SqliteConnectOptions>,
    /// Empty before the first transaction, and after one that was not committed.
    connection: Arc<Mutex<Option<SqliteConnection>>>,
}

impl Writer {
    pub(super) fn new(options: SqliteConnectOptions) -> Self {
        Self { options: options.into(), connection: Arc::default() }
    }

    /// Runs a text that is a transaction, from its BEGIN to its COMMIT. If that fails, or is cancelled,
    /// it did nothing, unless it had committed.
    pub(super) async fn run(
        &self,
        transaction: Query<'static, Sqlite, SqliteArguments>,
    ) -> sqlx::Result<Vec<SqliteRow>> {
        let mut home = self.connection.clone().lock_owned().await;
        let mut connection = self.connect(&mut home).await?;
        let rows = transaction.fetch_all(&mut connection).await?;
        *home = Some(connection);
        Ok(rows)
    }

    /// The one that is there, or a new one.
    async fn connect(&self, home: &mut Option<SqliteConnection>) -> sqlx::Result<SqliteConnection> {
        match home.take() {
            Some(connection) => Ok(connection),
            None => self.options.connect().await,
        }
    }
}

/// A transaction that no other writer can disturb. Dropped without commit, it did nothing: its
/// connection is closed, whatever state it is in.
pub(super) struct Transaction {
    connection: SqliteConnection,
    home: OwnedMutexGuard<Option<SqliteConnection>>,
}

impl Transaction {
    pub(super) async fn begin(writer: &Writer) -> sqlx::Result<Self> {
        let mut home = writer.connection.clone().lock_owned().await;
        let connection = writer.connect(&mut home).await?;
        // Before BEGIN: who is cancelled while it waits must not leave it open.
        let mut begun = Self { connection, home };
        sqlx::query("BEGIN IMMEDIATE").execute(&mut *begun).await?;
        Ok(begun)
    }

    pub(super) async fn commit(mut self) -> sqlx::Result<()> {
        sqlx::query("COMMIT").execute(&mut *self).await?;
        let Self { connection, mut home } = self;
        *home = Some(connection);
        Ok(())
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
