//! Who owns which shard, as the database knows it: leases of replicas, and the holders of shards.
//!
//! A replica's lease is one row of `replicas`, judged by the database's clock. A shard is its
//! holder's for as long as the holder's lease is not over. A lease that is over is never renewed: who
//! let it lapse comes back under another name. So taking over a shard and renewing a lease cannot
//! both succeed.

use super::{Error, Postgres, connect, late};
use crate::store::{Held, Result};
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{Connection as _, PgTransaction, Row as _};
use std::time::Duration;
use tokio::time::timeout;
use wheel::SHARDS;

/// How long one of these may take: a lease that is not renewed by then soon ends.
const LIMIT: Duration = Duration::from_millis(1_000);

/// A replica whose lease is not over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Replica {
    /// `PROCESS/NUMBER`: a process whose lease is over gets the next number.
    pub(crate) name: String,
    /// Where it answers gRPC.
    pub(crate) address: String,
    /// It wants no shards.
    pub(crate) draining: bool,
}

/// What the database says of replicas and shards.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct View {
    /// Whether our lease was renewed; if not, it was over.
    pub(crate) renewed: bool,
    pub(crate) alive: Vec<Replica>,
    /// For each shard its fencing token and holder, who need not be alive.
    pub(crate) shards: Vec<(i64, Option<String>)>,
}

/// A connection for leases only, so that a renewal waits for nothing.
pub(crate) struct Grip {
    postgres: Postgres,
    connection: Option<PgConnection>,
}

impl Postgres {
    /// The way to the leases.
    pub(crate) fn grip(&self) -> Grip {
        Grip { postgres: self.clone(), connection: None }
    }

    /// The name of this process, for as long as it lives.
    pub(crate) fn process(&self) -> &str {
        &self.process
    }
}

/// What the server calls the connections of this process.
pub(super) fn sessions_of(process: &str) -> String {
    format!("holdfast-{process}")
}

impl Grip {
    /// Renews the lease of `me`, or gives it its first, for `lease`; and looks around.
    pub(crate) async fn renew(&mut self, me: &Replica, lease: Duration) -> Result<View> {
        self.run(async |connection| {
            let renewed = sqlx::query(
                "INSERT INTO replicas (replica, address, draining, lease_until)
                 VALUES ($1, $2, $3, clock_timestamp() + $4 * interval '1 ms')
                 ON CONFLICT (replica) DO UPDATE
                     SET lease_until = excluded.lease_until, draining = excluded.draining
                     WHERE replicas.lease_until >= clock_timestamp()",
            )
            .bind(&me.name)
            .bind(&me.address)
            .bind(me.draining)
            .bind(lease.as_millis() as f64)
            .execute(&mut *connection)
            .await?;
            let alive = sqlx::query(
                "SELECT replica, address, draining FROM replicas
                 WHERE lease_until >= clock_timestamp() ORDER BY replica",
            )
            .try_map(|row: PgRow| {
                let (name, address) = (row.try_get(0)?, row.try_get(1)?);
                Ok(Replica { name, address, draining: row.try_get(2)? })
            })
            .fetch_all(&mut *connection)
            .await?;
            let shards = sqlx::query("SELECT fence, holder FROM shards ORDER BY shard")
                .try_map(|row: PgRow| Ok((row.try_get(0)?, row.try_get(1)?)))
                .fetch_all(connection)
                .await?;
            if shards.len() != usize::from(SHARDS) {
                let what = format!("{} shards, wanted {SHARDS}", shards.len());
                return Err(Error::Protocol(what));
            }
            Ok(View { renewed: renewed.rows_affected() == 1, alive, shards })
        })
        .await
    }

    /// Makes `me` the holder of those of the shards that nobody holds any more. Sessions of a holder
    /// whose lease is over are ended first: a process that stands still amid a transaction holds
    /// locks.
    pub(crate) async fn take(&mut self, me: &str, shards: &[u8]) -> Result<Vec<Held>> {
        let shards: Vec<i16> = shards.iter().copied().map(i16::from).collect();
        self.run(async |connection| {
            let mut transaction = connection.begin().await?;
            let dead = lock_dead(&mut transaction, &shards).await?;
            let process = |name: &String| sessions_of(name.split('/').next().unwrap_or(name));
            let sessions: Vec<String> = dead.iter().map(process).collect();
            sqlx::query(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                 WHERE application_name = ANY($1) AND usename = current_user
                   AND pid <> pg_backend_pid()",
            )
            .bind(sessions)
            .execute(&mut *transaction)
            .await?;
            let taken = sqlx::query(
                "UPDATE shards SET holder = $1, fence = fence + 1 WHERE shard IN (
                     SELECT shard FROM shards WHERE shard = ANY($2) AND (
                         holder IS NULL OR holder = ANY($3) OR NOT EXISTS (
                             SELECT 1 FROM replicas WHERE replica = holder))
                     ORDER BY shard FOR UPDATE)
                 AND EXISTS (SELECT 1 FROM replicas
                             WHERE replica = $1 AND lease_until >= clock_timestamp())
                 RETURNING shard, fence",
            )
            .bind(me)
            .bind(&shards)
            .bind(&dead)
            .try_map(|row: PgRow| {
                Ok(Held { shard: row.try_get::<i16, _>(0)? as u8, fence: row.try_get(1)? })
            })
            .fetch_all(&mut *transaction)
            .await?;
            sqlx::query(
                "DELETE FROM replicas WHERE lease_until < clock_timestamp() - interval '1 min'
                 AND NOT EXISTS (SELECT 1 FROM shards WHERE holder = replica)",
            )
            .execute(&mut *transaction)
            .await?;
            transaction.commit().await?;
            Ok(taken)
        })
        .await
    }

    /// Gives these shards up; nothing happens to those that are no longer held.
    pub(crate) async fn release(&mut self, me: &str, held: &[Held]) -> Result<()> {
        let shards: Vec<i16> = held.iter().map(|it| i16::from(it.shard)).collect();
        self.run(async |connection| {
            sqlx::query(
                "UPDATE shards SET holder = NULL WHERE holder = $1 AND shard IN (
                     SELECT shard FROM shards WHERE shard = ANY($2) ORDER BY shard FOR UPDATE)",
            )
            .bind(me)
            .bind(shards)
            .execute(connection)
            .await
            .map(drop)
        })
        .await
    }

    async fn run<T>(&mut self, ask: impl AsyncFnOnce(&mut PgConnection) -> Result<T>) -> Result<T> {
        let answer = timeout(LIMIT, async {
            let mut connection = match self.connection.take() {
                Some(connection) => connection,
                None => connect(&self.postgres.options).await?,
            };
            let answer = ask(&mut connection).await?;
            self.connection = Some(connection); // Only one that works is used again.
            Ok(answer)
        });
        answer.await.unwrap_or_else(|_| Err(late()))
    }
}

/// Of the holders of these shards those whose lease is over, locked so that it stays over.
async fn lock_dead(transaction: &mut PgTransaction<'_>, shards: &[i16]) -> Result<Vec<String>> {
    sqlx::query(
        "SELECT replica FROM replicas WHERE lease_until < clock_timestamp() AND replica IN (
             SELECT holder FROM shards WHERE shard = ANY($1)) ORDER BY replica FOR UPDATE",
    )
    .bind(shards)
    .try_map(|row: PgRow| row.try_get(0))
    .fetch_all(&mut **transaction)
    .await
}
