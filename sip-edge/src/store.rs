//! The SQL: the table `call_records`, a row for each call that has ended, in SQLite, PostgreSQL, MariaDB
//! or MySQL. It is for people and their programs: nothing here is decided by it, and only `INSERT` and
//! the making of the table are needed.

use anyhow::{Context as _, bail};
use proto::sip_edge::v1::{Call, Leg};
use sqlx::ConnectOptions as _;
use sqlx::mysql::{MySqlConnectOptions, MySqlPool, MySqlPoolOptions};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::sqlite::SqliteSynchronous;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions};
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OnceCell;

/// How long a connection may take to be made, or to become free.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// Connections of PostgreSQL and MariaDB; SQLite has one that writes.
const CONNECTIONS: u32 = 2;

/// Columns in the order of the values; `?` of MariaDB and SQLite, `$1` of PostgreSQL come behind.
const INSERT: &str = "INSERT INTO call_records (call_id, edge, route, from_uri, to_uri, created_unix_ms, \
    answered_unix_ms, ended_unix_ms, cause, ended_by, ended_by_task, sip_call_id_a, sip_call_id_b) VALUES ";
/// A record that is there stays as it is: events can come twice.
const KEEP: &str = " ON CONFLICT (call_id) DO NOTHING";
const KEEP_MYSQL: &str = " ON DUPLICATE KEY UPDATE call_id = call_id";

/// What makes the table. Times are Unix ms, NULL if there was none.
macro_rules! create {
    ($end:literal) => {
        concat!(
            "CREATE TABLE IF NOT EXISTS call_records (
                call_id VARCHAR(128) NOT NULL PRIMARY KEY,
                edge TEXT NOT NULL,
                route TEXT NOT NULL,
                from_uri TEXT NOT NULL,
                to_uri TEXT NOT NULL,
                created_unix_ms BIGINT,
                answered_unix_ms BIGINT,
                ended_unix_ms BIGINT NOT NULL,
                cause TEXT NOT NULL,
                ended_by TEXT NOT NULL,
                ended_by_task TEXT NOT NULL,
                sip_call_id_a TEXT NOT NULL,
                sip_call_id_b TEXT NOT NULL",
            $end
        )
    };
}
const CREATE: &str =
    create!("); CREATE INDEX IF NOT EXISTS call_records_ended ON call_records (ended_unix_ms)");
/// MariaDB and MySQL make the index with the table: MySQL has no `IF NOT EXISTS` for one.
const CREATE_MYSQL: &str =
    create!(", INDEX call_records_ended (ended_unix_ms)) CHARACTER SET utf8mb4");

/// The database; cheap to clone.
#[derive(Clone)]
pub(crate) struct Store {
    database: Database,
    /// Set once the table is there.
    ready: Arc<OnceCell<()>>,
}

#[derive(Clone)]
enum Database {
    Sqlite(SqlitePool),
    Postgres(PgPool),
    Mysql(MySqlPool),
}

impl Store {
    /// The database at `url`, which need not be there yet: calls do not wait for it.
    ///
    /// # Errors
    /// If it is no URL of one. No message repeats a password.
    pub(crate) fn at(url: &str) -> anyhow::Result<Self> {
        let scheme = url.split(':').next().unwrap_or_default();
        let database = match scheme {
            "sqlite" => Database::Sqlite(sqlite(url)?),
            "postgres" | "postgresql" => Database::Postgres(postgres(url)?),
            "mysql" | "mariadb" => Database::Mysql(mysql(url)?),
            _ => bail!("got {scheme:?}, wanted `sqlite:FILE`, `postgres://…` or `mysql://…`"),
        };
        Ok(Self { database, ready: Arc::default() })
    }

    /// Inserts the record of a call that has ended; does nothing if there is one.
    ///
    /// # Errors
    /// If the database does not answer, or refuses it.
    pub(crate) async fn insert(&self, call: &Call) -> sqlx::Result<()> {
        self.ready.get_or_try_init(|| self.create()).await?;
        match &self.database {
            Database::Sqlite(pool) => {
                let mut query = sqlx::QueryBuilder::<sqlx::Sqlite>::new(INSERT);
                values(&mut query, call);
                query.push(KEEP).build().execute(pool).await.map(drop)
            }
            Database::Postgres(pool) => {
                let mut query = sqlx::QueryBuilder::<sqlx::Postgres>::new(INSERT);
                values(&mut query, call);
                query.push(KEEP).build().execute(pool).await.map(drop)
            }
            Database::Mysql(pool) => {
                let mut query = sqlx::QueryBuilder::<sqlx::MySql>::new(INSERT);
                values(&mut query, call);
                query.push(KEEP_MYSQL).build().execute(pool).await.map(drop)
            }
        }
    }

    async fn create(&self) -> sqlx::Result<()> {
        match &self.database {
            Database::Sqlite(pool) => sqlx::raw_sql(CREATE).execute(pool).await.map(drop),
            Database::Postgres(pool) => sqlx::raw_sql(CREATE).execute(pool).await.map(drop),
            Database::Mysql(pool) => sqlx::raw_sql(CREATE_MYSQL).execute(pool).await.map(drop),
        }
    }
}

/// The values of a row, in the order of [`INSERT`].
fn values<DB: sqlx::Database>(query: &mut sqlx::QueryBuilder<DB>, call: &Call)
where
    String: sqlx::Type<DB> + for<'q> sqlx::Encode<'q, DB>,
    Option<i64>: sqlx::Type<DB> + for<'q> sqlx::Encode<'q, DB>,
{
    let text = |it: &str| it.replace('\0', ""); // PostgreSQL takes none.
    let time = |unix_ms: i64| (unix_ms > 0).then_some(unix_ms);
    let leg = |side: &str| call.legs.iter().find(|it| it.side == side).map(leg_id);
    query.push("(");
    let mut values = query.separated(", ");
    for it in [&call.call_id, &call.edge, &call.route, &call.from_uri, &call.to_uri] {
        values.push_bind(text(it));
    }
    values.push_bind(time(call.created_unix_ms)).push_bind(time(call.answered_unix_ms));
    values.push_bind(Some(call.ended_unix_ms));
    for it in [&call.cause, &call.ended_by, &call.ended_by_task] {
        values.push_bind(text(it));
    }
    for side in ["A", "B"] {
        values.push_bind(text(leg(side).unwrap_or_default()));
    }
    query.push(")");
}

fn leg_id(leg: &Leg) -> &str {
    &leg.sip_call_id
}

fn sqlite(url: &str) -> anyhow::Result<SqlitePool> {
    let options = SqliteConnectOptions::from_str(url).context("read the URL of SQLite")?;
    let options = options
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full) // The event is forgotten after the commit.
        .busy_timeout(CONNECT_LIMIT)
        .disable_statement_logging();
    let pool = SqlitePoolOptions::new().max_connections(1).acquire_timeout(CONNECT_LIMIT);
    Ok(pool.connect_lazy_with(options))
}

fn postgres(url: &str) -> anyhow::Result<PgPool> {
    let options = PgConnectOptions::from_str(url).ok().context("read the URL of PostgreSQL")?;
    let options = options.application_name("holdfast-sip-edge").disable_statement_logging();
    let pool = PgPoolOptions::new().max_connections(CONNECTIONS).acquire_timeout(CONNECT_LIMIT);
    Ok(pool.connect_lazy_with(options))
}

fn mysql(url: &str) -> anyhow::Result<MySqlPool> {
    let url = url.replacen("mariadb:", "mysql:", 1);
    let options = MySqlConnectOptions::from_str(&url).ok().context("read the URL of MariaDB")?;
    let pool = MySqlPoolOptions::new().max_connections(CONNECTIONS).acquire_timeout(CONNECT_LIMIT);
    Ok(pool.connect_lazy_with(options.disable_statement_logging()))
}
