//! The tables in PostgreSQL, which replicas share: what they hold is written by the one that owns the
//! queues.
//!
//! Whatever fails or takes too long closes its connection, and with it the transaction.

mod lease;
mod rows;
mod schema;
mod transaction;

pub(super) use lease::Leases;

use super::{Batch, Fence, Logged, Reach, StoreError, Told};
use crate::store::columns::Columns as _;
use anyhow::{Context as _, bail};
use queue::{Agent, Caller, QueueId, SettingsRow};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions, PgRow};
use sqlx::{ConnectOptions as _, Connection as _, Error, Result};
use std::collections::BTreeMap;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::timeout;
use transaction::Transaction;

/// How long a connection may take to be made, or to become free.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// How long a transaction may take, and how long its commit.
const LIMIT: Duration = Duration::from_secs(5);
/// One that writes, and others so that reading does not wait for it.
const CONNECTIONS: u32 = 4;
/// What the server is told for each connection. A transaction whose process stands still is rolled
/// back long before its lease is over.
const SETTINGS: [(&str, &str); 4] = [
    ("idle_in_transaction_session_timeout", "1000"),
    ("statement_timeout", "5000"),
    ("synchronous_commit", "on"),
    ("jit", "off"),
];
/// Holds off other replicas that make the tables at the same moment.
const MIGRATION_LOCK: i64 = 0x686f_6c64_7175_6575;

/// Cheap to clone.
#[derive(Clone)]
pub(super) struct Postgres {
    options: Arc<PgConnectOptions>,
    pool: PgPool,
    /// Held from the beginning of a transaction until it is known how it ended.
    writing: Arc<Mutex<()>>,
}

impl Postgres {
    pub(super) async fn open(url: &str) -> anyhow::Result<Self> {
        let options = PgConnectOptions::from_str(url).context("read --database-url")?;
        let options = options.options(SETTINGS).application_name("holdfast-queue-svc");
        let options = options.disable_statement_logging();
        // The URL may hold a password: name only where it leads.
        let at = format!("{}:{}", options.get_host(), options.get_port());
        let context = || format!("open PostgreSQL of --database-url at {at}");
        let mut connection = connect(&options).await.with_context(context)?;
        migrate(&mut connection).await.with_context(context)?;
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(CONNECT_LIMIT)
            .connect_lazy_with(options.clone());
        Ok(Self { options: options.into(), pool, writing: Arc::default() })
    }

    pub(super) fn leases(&self) -> Leases {
        Leases::new(self.options.clone())
    }

    pub(super) async fn load_queues(&self) -> Result<BTreeMap<QueueId, SettingsRow>> {
        limited(rows::load_queues(&self.pool)).await
    }

    pub(super) async fn load_callers(&self) -> Result<Vec<Caller>> {
        limited(rows::load_callers(&self.pool)).await
    }

    pub(super) async fn load_agents(&self) -> Result<Vec<Agent>> {
        limited(rows::load_agents(&self.pool)).await
    }

    pub(super) async fn tidy(&self, fence: Fence) -> Result<(), StoreError> {
        let _alone = self.writing.lock().await;
        let mut tx = limited_write(Transaction::begin(&self.pool, fence)).await?;
        limited_write(tx.tidy()).await?;
        self.commit(tx).await.map(drop)
    }

    pub(super) async fn write(
        &self,
        fence: Fence,
        batch: &Batch,
        told: Option<Told>,
    ) -> Result<i64, StoreError> {
        let _alone = self.writing.lock().await;
        let mut tx = limited_write(Transaction::begin(&self.pool, fence)).await?;
        limited_write(tx.write(batch, told)).await?;
        self.commit(tx).await
    }

    pub(super) async fn insert_queue(
        &self,
        fence: Fence,
        row: &SettingsRow,
    ) -> Result<QueueId, StoreError> {
        let _alone = self.writing.lock().await;
        let mut tx = limited_write(Transaction::begin(&self.pool, fence)).await?;
        let id = limited_write(tx.insert_queue(row)).await?;
        self.commit(tx).await.map(|_| id)
    }

    pub(super) async fn update_queue(
        &self,
        fence: Fence,
        id: QueueId,
        row: &SettingsRow,
    ) -> Result<(), StoreError> {
        let _alone = self.writing.lock().await;
        let mut tx = limited_write(Transaction::begin(&self.pool, fence)).await?;
        if !limited_write(tx.update_queue(id, row)).await? {
            return Err(StoreError::Missing);
        }
        self.commit(tx).await.map(drop)
    }

    pub(super) async fn delete_queue(&self, fence: Fence, id: QueueId) -> Result<(), StoreError> {
        let _alone = self.writing.lock().await;
        let mut tx = limited_write(Transaction::begin(&self.pool, fence)).await?;
        limited_write(tx.delete_queue(id)).await?;
        self.commit(tx).await.map(drop)
    }

    /// The last revision there is then. An answer that is lost is asked for again.
    async fn commit(&self, tx: Transaction) -> Result<i64, StoreError> {
        let (fence, number, revision) = (tx.fence(), tx.number(), tx.revision());
        let Err(e) = limited(tx.commit()).await else { return Ok(revision) };
        match limited(self.last_commit(fence)).await {
            Ok(None) => Err(StoreError::Lost),
            Ok(Some(last)) if last == number => Ok(revision),
            Ok(Some(_)) => Err(StoreError::Away(e)),
            Err(_) => Err(StoreError::InDoubt(e)),
        }
    }

    /// The number of the last transaction under this token, once none is under way.
    async fn last_commit(&self, fence: Fence) -> Result<Option<i64>> {
        let mut tx = self.pool.begin().await?;
        let select = "SELECT commits FROM queue_log WHERE id = 1 AND fence = $1 FOR UPDATE";
        let last = sqlx::query_scalar(select).bind(fence.0).fetch_optional(&mut *tx).await?;
        tx.rollback().await?;
        Ok(last)
    }

    pub(super) async fn changes(&self, after: i64, limit: u32) -> Result<Vec<Logged>> {
        let select = "SELECT revision, event FROM queue_changes WHERE revision > $1
                      ORDER BY revision LIMIT $2";
        let rows = sqlx::query(select).bind(after).bind(i64::from(limit)).fetch_all(&self.pool);
        let logged = |row: &PgRow| {
            Ok(Logged { revision: row.number("revision")?, event: row.bytes("event")? })
        };
        limited(rows).await?.iter().map(logged).collect()
    }

    pub(super) async fn reach(&self) -> Result<Reach> {
        let select = "SELECT revision AS last, told,
            COALESCE((SELECT MIN(revision) FROM queue_changes), revision + 1) AS first
            FROM queue_log WHERE id = 1";
        let row = limited(sqlx::query(select).fetch_one(&self.pool)).await?;
        let (first, last) = (row.number("first")?, row.number("last")?);
        Ok(Reach { first, last, told: row.number("told")? })
    }

    /// As somebody else writes.
    #[cfg(test)]
    pub(super) fn pool(&self) -> &PgPool {
        &self.pool
    }
}

fn late() -> Error {
    Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, "PostgreSQL does not answer"))
}

async fn limited<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    timeout(LIMIT, work).await.unwrap_or_else(|_| Err(late()))
}

async fn limited_write<T>(
    work: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    timeout(LIMIT, work).await.unwrap_or_else(|_| Err(late().into()))
}

async fn connect(options: &PgConnectOptions) -> Result<PgConnection> {
    timeout(CONNECT_LIMIT, options.connect()).await.unwrap_or_else(|_| Err(late()))
}

/// Makes what tables are missing, all or nothing; refuses tables that it does not know.
async fn migrate(connection: &mut PgConnection) -> anyhow::Result<()> {
    let mut tx = connection.begin().await.context("begin")?;
    let wait = sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(MIGRATION_LOCK);
    wait.execute(&mut *tx).await.context("wait for who makes its tables")?;
    let versions = "SELECT to_regclass('version') IS NOT NULL";
    if sqlx::query_scalar(versions).fetch_one(&mut *tx).await.context("look for its tables")? {
        for (table, wanted) in super::SHARED_TABLES {
            let version = "SELECT table_version::bigint FROM version WHERE table_name = $1";
            let found: Option<i64> = sqlx::query_scalar(version)
                .bind(table)
                .fetch_optional(&mut *tx)
                .await
                .context("read table `version`")?;
            if let Some(found) = found.filter(|found| *found != wanted) {
                bail!("table {table} has version {found} in table `version`, wanted {wanted}");
            }
        }
    }
    sqlx::raw_sql(schema::CREATE).execute(&mut *tx).await.context("make its tables")?;
    for (table, version) in super::SHARED_TABLES {
        let insert = "INSERT INTO version (table_name, table_version) SELECT $1, $2
                      WHERE NOT EXISTS (SELECT 1 FROM version WHERE table_name = $1)";
        let insert = sqlx::query(insert).bind(table).bind(version);
        insert.execute(&mut *tx).await.context("write table `version`")?;
    }
    tx.commit().await.context("make its tables")
}
