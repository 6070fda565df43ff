//! The lease on the queues: who asks for it, for what, and what the database says.

use super::{Fence, mysql, postgres};
use std::time::Duration;

/// How long one question may take: a lease that is not renewed by then soon ends.
pub(super) const LIMIT: Duration = Duration::from_secs(1);

/// A replica, for as long as it holds no lease that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claimant {
    /// `PROCESS/NUMBER`: a process whose lease is over gets the next number.
    pub(crate) name: String,
    /// Where it answers gRPC.
    pub(crate) address: String,
}

/// What is asked of the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Nothing but to say who owns the queues.
    Look,
    /// The lease, if nobody has one that lasts.
    Take,
    /// Our lease for longer; nothing happens to one that is over.
    Renew(Fence),
    /// An end of our lease, now.
    Release(Fence),
}

/// What the database says after it did, or did not do, what was asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct View {
    /// What was asked for has been done.
    pub(crate) done: bool,
    /// The last fencing token that was given.
    pub(crate) fence: i64,
    /// Whose it is.
    pub(crate) holder: String,
    pub(crate) address: String,
    /// The lease is not over.
    pub(crate) alive: bool,
}

/// The way to the lease, beside the connections that read and write rows.
pub(crate) struct Leases(pub(super) Way);

pub(super) enum Way {
    Postgres(postgres::Leases),
    Mysql(mysql::Leases),
}

impl Leases {
    /// Asks for this; a lease that is given lasts for `lease` from now.
    ///
    /// # Errors
    /// If the database does not answer within a second. It may have done what was asked.
    pub(crate) async fn ask(
        &mut self,
        me: &Claimant,
        wish: Wish,
        lease: Duration,
    ) -> sqlx::Result<View> {
        match &mut self.0 {
            Way::Postgres(leases) => leases.ask(me, wish, lease).await,
            Way::Mysql(leases) => leases.ask(me, wish, lease).await,
        }
    }
}
