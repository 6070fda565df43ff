//! The tables in MariaDB or MySQL, which replicas share: what they hold is written by the one that owns
//! the queues.
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
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection, MySqlPool, MySqlPoolOptions, MySqlRow};
use sqlx::{ConnectOptions as _, Error, Result};
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
/// What the server is told for each connection.
const SETTINGS: [&str; 2] = [
    "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
    "SET SESSION innodb_lock_wait_timeout = 2",
];
/// The same for what only MariaDB knows: a transaction whose process stands still is rolled back long
/// before its lease is over. With MySQL it holds up who takes over.
const IDLE_LIMIT: &str = "SET SESSION idle_transaction_timeout = 1";
/// Holds off other replicas that make the tables at the same moment, in seconds.
const MIGRATION_LOCK: &str = "SELECT GET_LOCK('holdfast-queue-svc', 30)";

/// Cheap to clone.
#[derive(Clone)]
pub(super) struct Mysql {
    options: Arc<MySqlConnectOptions>,
    pool: MySqlPool,
    /// What the columns of `mohqcalls` can hold.
    charset: Arc<str>,
    /// Held from the beginning of a transaction until it is known how it ended.
    writing: Arc<Mutex<()>>,
}

impl Mysql {
    pub(super) async fn open(url: &str) -> anyhow::Result<Self> {
        let options = MySqlConnectOptions::from_str(url).context("read --database-url")?;
        let options = options.disable_statement_logging();
        // The URL may hold a password: name only where it leads.
        let at = format!("{}:{}", options.get_host(), options.get_port());
        let context = || format!("open MariaDB or MySQL of --database-url at {at}");
        let mut connection = connect(&options).await.with_context(context)?;
        migrate(&mut connection).await.with_context(context)?;
        let charset = charset(&mut connection).await.with_context(context)?;
        let pool = MySqlPoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(CONNECT_LIMIT)
            .after_connect(|connection, _| Box::pin(set_up(connection)))
            .connect_lazy_with(options.clone());
        Ok(Self { options: options.into(), pool, charset: charset.into(), writing: Arc::default() })
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
        limited_write(tx.write(batch, told, &self.charset)).await?;
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
        let select = "SELECT commits FROM queue_log WHERE id = 1 AND fence = ? FOR UPDATE";
        let last = sqlx::query_scalar(select).bind(fence.0).fetch_optional(&mut *tx).await?;
        tx.rollback().await?;
        Ok(last)
    }

    pub(super) async fn changes(&self, after: i64, limit: u32) -> Result<Vec<Logged>> {
        let select = "SELECT revision, event FROM queue_changes WHERE revision > ?
                      ORDER BY revision LIMIT ?";
        let rows = sqlx::query(select).bind(after).bind(limit).fetch_all(&self.pool);
        let logged = |row: &MySqlRow| {
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
    pub(super) fn pool(&self) -> &MySqlPool {
        &self.pool
    }
}

fn late() -> Error {
    Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, "the database does not answer"))
}

async fn limited<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    timeout(LIMIT, work).await.unwrap_or_else(|_| Err(late()))
}

async fn limited_write<T>(
    work: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    timeout(LIMIT, work).await.unwrap_or_else(|_| Err(late().into()))
}

async fn connect(options: &MySqlConnectOptions) -> Result<MySqlConnection> {
    let connect = async {
        let mut connection = options.connect().await?;
        set_up(&mut connection).await?;
        Ok(connection)
    };
    timeout(CONNECT_LIMIT, connect).await.unwrap_or_else(|_| Err(late()))
}

async fn set_up(connection: &mut MySqlConnection) -> Result<()> {
    for setting in SETTINGS {
        sqlx::raw_sql(setting).execute(&mut *connection).await?;
    }
    match sqlx::raw_sql(IDLE_LIMIT).execute(&mut *connection).await {
        Err(Error::Io(e)) => Err(Error::Io(e)),
        _ => Ok(()), // MySQL does not know it.
    }
}

/// Of the text in `mohqcalls`, which others may have made for fewer letters than SIP has: what it cannot
/// hold is a question mark there, and whole in `queue_callers`.
async fn charset(connection: &mut MySqlConnection) -> anyhow::Result<String> {
    let select = "SELECT CAST(character_set_name AS CHAR) FROM information_schema.columns
        WHERE table_schema = DATABASE() AND table_name = 'mohqcalls' AND column_name = 'call_from'";
    let charset: String =
        sqlx::query_scalar(select).fetch_one(connection).await.context("read mohqcalls")?;
    let plain = charset.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    anyhow::ensure!(plain, "read mohqcalls: character set {charset:?}");
    Ok(charset)
}

/// Makes what tables are missing, one after the other, since MySQL has no way to make them together;
/// refuses tables that it does not know.
async fn migrate(connection: &mut MySqlConnection) -> anyhow::Result<()> {
    let lock: Option<i64> = sqlx::query_scalar(MIGRATION_LOCK)
        .fetch_one(&mut *connection)
        .await
        .context("wait for who makes its tables")?;
    if lock != Some(1) {
        bail!("wait for who makes its tables: nobody was ready for 30 s");
    }
    let engines = "SELECT CAST(table_name AS CHAR) AS name, CAST(engine AS CHAR) AS engine
        FROM information_schema.tables WHERE table_schema = DATABASE()";
    let tables =
        sqlx::query(engines).fetch_all(&mut *connection).await.context("list its tables")?;
    let mut has_versions = false;
    for table in &tables {
        let (name, engine) = (table.text("name")?, table.maybe_text("engine")?);
        has_versions |= name == "version";
        let ours = super::SHARED_TABLES.iter().any(|(ours, _)| *ours == name);
        if let Some(engine) = engine.filter(|engine| ours && engine != "InnoDB") {
            bail!(
                "table {name} is of engine {engine}, which has no transactions; wanted InnoDB: run \
                 `ALTER TABLE {name} ENGINE = InnoDB`"
            );
        }
    }
    for (table, wanted) in super::SHARED_TABLES.into_iter().filter(|_| has_versions) {
        let version = "SELECT CAST(table_version AS SIGNED) FROM version WHERE table_name = ?";
        let found: Option<i64> = sqlx::query_scalar(version)
            .bind(table)
            .fetch_optional(&mut *connection)
            .await
            .context("read table `version`")?;
        if let Some(found) = found.filter(|found| *found != wanted) {
            bail!("table {table} has version {found} in table `version`, wanted {wanted}");
        }
    }
    sqlx::raw_sql(schema::CREATE).execute(&mut *connection).await.context("make its tables")?;
    for (table, version) in super::SHARED_TABLES {
        let insert = "INSERT INTO version (table_name, table_version) SELECT ?, ? FROM DUAL
                      WHERE NOT EXISTS (SELECT 1 FROM version WHERE table_name = ?)";
        let insert = sqlx::query(insert).bind(table).bind(version).bind(table);
        insert.execute(&mut *connection).await.context("write table `version`")?;
    }
    // The lock ends with this connection.
    Ok(())
}
