//! Who owns the queues, as MariaDB or MySQL knows it: one row, judged by the clock of the database.
//!
//! A lease that is over is never renewed, and who takes it gets the next fencing token, so that taking
//! over and renewing cannot both succeed. The token is put into `queue_log` in the same transaction:
//! from then on nobody writes under the old one. What waits for a lock is judged by when it was asked,
//! which is never too early for who takes over.

use super::{connect, late};
use crate::store::columns::Columns as _;
use crate::store::lease::{Claimant, LIMIT, View, Wish};
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection};
use sqlx::{Connection as _, Result};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

const RENEW: &str = "
UPDATE queue_owner SET until_unix_ms = CAST(UNIX_TIMESTAMP(NOW(6)) * 1000 AS SIGNED) + ?
WHERE id = 1 AND holder = ? AND fence = ?
    AND until_unix_ms >= CAST(UNIX_TIMESTAMP(NOW(6)) * 1000 AS SIGNED)";

const TAKE: &str = "
UPDATE queue_owner SET holder = ?, address = ?, fence = fence + 1,
    until_unix_ms = CAST(UNIX_TIMESTAMP(NOW(6)) * 1000 AS SIGNED) + ?
WHERE id = 1 AND until_unix_ms < CAST(UNIX_TIMESTAMP(NOW(6)) * 1000 AS SIGNED)";

const BAR: &str =
    "UPDATE queue_log SET fence = (SELECT fence FROM queue_owner WHERE id = 1) WHERE id = 1";

const RELEASE: &str =
    "UPDATE queue_owner SET until_unix_ms = 0 WHERE id = 1 AND holder = ? AND fence = ?";

const LOOK: &str = "
SELECT fence, holder, address,
    CAST(until_unix_ms >= CAST(UNIX_TIMESTAMP(NOW(6)) * 1000 AS SIGNED) AS SIGNED) AS alive
FROM queue_owner WHERE id = 1";

/// A connection for the lease only, so that a renewal waits for nothing.
pub(in crate::store) struct Leases {
    options: Arc<MySqlConnectOptions>,
    connection: Option<MySqlConnection>,
}

impl Leases {
    pub(super) fn new(options: Arc<MySqlConnectOptions>) -> Self {
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
    connection: &mut MySqlConnection,
    me: &Claimant,
    wish: Wish,
    lease: Duration,
) -> Result<View> {
    let lease_ms = i64::try_from(lease.as_millis()).unwrap_or(i64::MAX);
    let done = match wish {
        Wish::Look => true,
        Wish::Renew(fence) => {
            let renew = sqlx::query(RENEW).bind(lease_ms).bind(&me.name).bind(fence.0);
            renew.execute(&mut *connection).await?.rows_affected() == 1
        }
        Wish::Release(fence) => {
            let release = sqlx::query(RELEASE).bind(&me.name).bind(fence.0);
            release.execute(&mut *connection).await?.rows_affected() == 1
        }
        Wish::Take => {
            let mut tx = connection.begin().await?;
            let take = sqlx::query(TAKE).bind(&me.name).bind(&me.address).bind(lease_ms);
            let taken = take.execute(&mut *tx).await?.rows_affected() == 1;
            if taken {
                sqlx::raw_sql(BAR).execute(&mut *tx).await?;
            }
            tx.commit().await?;
            taken
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
