//! What the owner of the queues does, for as long as it is the owner: runs the loop around the core,
//! publishes the log, and reads what happens to calls.
//!
//! Each time it becomes the owner it begins anew with what the database and sip-edge say, as after a
//! restart. What it still has on its way from an earlier time stays without effect: writes by the
//! fencing token, requests to sip-edge by the gate, reports to the loop because that has gone.

use crate::desk::{self, Desk, Door};
use crate::leases::{Lease, Leases};
use crate::{events, outbox};
use anyhow::Context as _;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::warn;

/// Wait before the queues are loaded again.
const AGAIN: Duration = Duration::from_millis(250);

/// Waits for the right to own the queues, and uses it.
pub(crate) struct Owning {
    pub(crate) parts: desk::Parts,
    pub(crate) leases: Leases,
    pub(crate) nats: boot::Nats,
    /// Through which requests reach the loop, while there is one.
    pub(crate) door: Door,
    /// Gets the revision of the last change that NATS has.
    pub(crate) told: watch::Sender<i64>,
}

/// The loop of one time, before it runs.
type Working = std::pin::Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send>>;

impl Owning {
    /// Loads what is on disk, and lets requests in.
    pub(crate) async fn open(&self, lease: Lease) -> anyhow::Result<(Desk, Working)> {
        let (desk, working) = desk::open(&self.parts, lease).await.context("open the queues")?;
        Ok((desk, Box::pin(working)))
    }

    /// Owns the queues again and again until the process ends. `opened`: the first time has begun.
    pub(crate) async fn run(
        self,
        mut opened: Option<(Desk, Working)>,
        handed_over: watch::Sender<bool>,
    ) -> anyhow::Result<()> {
        let mut draining = self.parts.draining.clone();
        loop {
            if *draining.borrow() && !self.leases.is_sole() {
                self.leases.resign().await;
                handed_over.send_replace(true);
                return std::future::pending().await;
            }
            let lease = tokio::select! {
                lease = self.leases.gained() => lease,
                _ = draining.changed() => continue, // Its sender ends with the process.
            };
            let begun = match opened.take() {
                Some(begun) => begun,
                None => {
                    let begun = tokio::select! {
                        begun = self.open(lease) => begun,
                        () = self.leases.lost(lease) => continue,
                    };
                    match begun {
                        Ok(begun) => begun,
                        Err(e) => {
                            warn!("failed to {e:#}; trying again");
                            sleep(AGAIN).await;
                            continue;
                        }
                    }
                }
            };
            self.own(lease, begun).await?;
        }
    }

    /// Returns when the queues are no longer ours, or can be handed over.
    async fn own(&self, lease: Lease, (desk, working): (Desk, Working)) -> anyhow::Result<()> {
        self.door.open(&desk);
        let logged = self.parts.logged.subscribe();
        let outbox = outbox::run(
            self.parts.store.clone(),
            self.nats.journal(),
            desk.clone(),
            logged,
            &self.told,
        );
        let news =
            events::NEWS.map(|news| events::read_news(self.nats.clone(), desk.clone(), news));
        let [first, second, third] = news;
        let ended = tokio::select! {
            biased;
            () = self.leases.lost(lease) => Ok(()),
            ended = working => ended.context("keep the queues running"),
            ended = outbox => ended.context("keep publishing changes"),
            ended = events::read_ends(self.nats.clone(), desk.clone()) => ended,
            ended = first => ended,
            ended = second => ended,
            ended = third => ended,
        };
        self.door.close();
        ended
    }
}
