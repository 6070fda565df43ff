//! Who owns the queues, as PostgreSQL knows it: one row, judged by the clock of the database.
//!
//! A lease that is over is never renewed, and who takes it gets the next fencing token, so that taking
//! over and renewing cannot both succeed. The token is put into `queue_log` in the same transaction:
//! from then on nobody writes under the old one.

use super::{connect, late};
use crate::store::columns::Columns as _;
use crate::store::lease::{Claimant, LIMIT, View, Wish};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{Connection as _, Result, Row as _};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

const RENEW: &str = "
UPDATE queue_owner SET until_unix_ms = (extract(epoch FROM clock_timestamp()) * 1000)::bigint + $3
WHERE id = 1 AND holder = $1 AND fence = $2
    AND until_unix_ms >= (extract(epoch FROM clock_timestamp()) * 1000)::bigint";

const TAKE: &str = "
UPDATE queue_owner SET holder = $1, address = $2, fence = fence + 1,
    until_unix_ms = (extract(epoch FROM clock_timestamp()) * 1000)::bigint + $3
WHERE id = 1 AND until_unix_ms < (extract(epoch FROM clock_timestamp()) * 1000)::bigint
RETURNING fence";

const RELEASE: &str =
    "UPDATE queue_owner SET until_unix_ms = 0 WHERE id = 1 AND holder = $1 AND fence = $2";

const LOOK: &str = "
SELECT fence, holder, address, CASE WHEN
    until_unix_ms >= (extract(epoch FROM clock_timestamp()) * 1000)::bigint THEN 1::bigint ELSE 0
    END AS alive
FROM queue_owner WHERE id = 1";

/// A connection for the lease only, so that a renewal waits for nothing.
pub(in crate::store) struct Leases {
    options: Arc<PgConnectOptions>,
    connection: Option<PgConnection>,
}

impl Leases {
    pub(super) fn new(options: Arc<PgConnectOptions>) -> Self {
        Self { options, connection: None }
    }

    pub(in crate::store) async fn ask(
        &mut self,
        me: &Claimant,
        wish: Wish,
        lease: Duration,
    ) -> Result<View> {
        let answer = timeout(LIMIT, async {
            let mut connection = match self.connection.take() {
                Some(connection) => connection,
                None => connect(&self.options).await?,
            };
            let view = ask(&mut connection, me, wish, lease).await?;
            self.connection = Some(connection); // Only one that works is used again.
            Ok(view)
        });
        answer.await.unwrap_or_else(|_| Err(late()))
    }
}

async fn ask(
    connection: &mut PgConnection,
    me: &Claimant,
    wish: Wish,
    lease: Duration,
) -> Result<View> {
    let lease_ms = i64::try_from(lease.as_millis()).unwrap_or(i64::MAX);
    let done = match wish {
        Wish::Look => true,
        Wish::Renew(fence) => {
            let renew = sqlx::query(RENEW).bind(&me.name).bind(fence.0).bind(lease_ms);
            renew.execute(&mut *connection).await?.rows_affected() == 1
        }
        Wish::Release(fence) => {
            let release = sqlx::query(RELEASE).bind(&me.name).bind(fence.0);
            release.execute(&mut *connection).await?.rows_affected() == 1
        }
        Wish::Take => {
            let mut tx = connection.begin().await?;
            let take = sqlx::query(TAKE).bind(&me.name).bind(&me.address).bind(lease_ms);
            let taken = take.fetch_optional(&mut *tx).await?;
            if let Some(taken) = &taken {
                let fence: i64 = taken.try_get("fence")?;
                let bar = sqlx::query("UPDATE queue_log SET fence = $1 WHERE id = 1").bind(fence);
                bar.execute(&mut *tx).await?;
            }
            tx.commit().await?;
            taken.is_some()
        }
    };
    let row = sqlx::query(LOOK).fetch_one(connection).await?;
    Ok(View {
        done,
        fence: row.number("fence")?,
        holder: row.text("holder")?,
        address: row.text("address")?,
        alive: row.flag("alive")?,
    })
}
