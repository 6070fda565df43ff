//! Which shards this process owns, who owns the others, and for how long that is sure.
//!
//! `tenure.rs` decides; this asks the database and tells everybody. With SQLite there is one process,
//! which owns all.

mod tenure;

pub(crate) use tenure::Turn;

use crate::metrics;
use crate::store::{Grip, Held, Store};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tenure::{LEASE_MS, Order, Tenure};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tracing::{debug, info, warn};
use wheel::{SHARDS, Tick};

/// Turns that the firing loop has not taken yet; who owns what waits when there are more.
const TURNS_WAITING_MAX: usize = 256;
/// How long a request waits for a shard to have an owner: as long as a take-over lasts.
pub(crate) const OWNER_WAIT_LIMIT: Duration = Duration::from_secs(3);

/// Who owns a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    Mine,
    /// The replica that answers gRPC there.
    At(String),
    /// Nobody, for a moment.
    Nobody,
}

/// What is known at one moment.
#[derive(Clone, Debug, Default)]
struct Table {
    held: [Option<Held>; SHARDS as usize],
    /// Until then what is held is sure; for ever if `None`.
    valid_until: Option<Instant>,
    /// Where the others' owners are.
    addresses: [Option<String>; SHARDS as usize],
    /// Counts how often all leases were lost.
    period: u32,
    /// It was asked to drain, and holds nothing any more, for the database either.
    drained: bool,
}

/// What this process owns; cheap to clone.
#[derive(Clone)]
pub(crate) struct Leases {
    table: Arc<Mutex<Table>>,
    changed: watch::Receiver<u64>,
    asks: Option<mpsc::Sender<Ask>>,
}

#[derive(Clone, Copy, Debug)]
enum Ask {
    Quiet(u8),
    Drain,
}

/// Keeps the leases, until the process ends.
pub(crate) struct Keeper {
    table: Arc<Mutex<Table>>,
    changes: watch::Sender<u64>,
    asks: mpsc::Receiver<Ask>,
    turns: mpsc::Sender<Turn>,
    /// None: this process owns all.
    work: Option<(Grip, Tenure)>,
    began: Instant,
}

/// The leases of a process that answers gRPC at `address`, who keeps them, and what the firing loop
/// hears of them.
pub(crate) fn open(store: &Store, address: String) -> (Leases, Keeper, mpsc::Receiver<Turn>) {
    let (turns, turns_end) = mpsc::channel(TURNS_WAITING_MAX);
    let (changes, changed) = watch::channel(0);
    let (ask, asks) = mpsc::channel(TURNS_WAITING_MAX);
    let began = Instant::now();
    let mut table = Table::default();
    let work = store.replicas().map(|postgres| {
        let process = postgres.process().to_owned();
        (postgres.grip(), Tenure::new(process, address, 0))
    });
    if work.is_none() {
        for shard in 0..SHARDS {
            let held = Held { shard, fence: 0 };
            table.held[usize::from(shard)] = Some(held);
            turns.try_send(Turn::Gained(held)).expect("there is room for all shards");
        }
    }
    let table = Arc::new(Mutex::new(table));
    let leases = Leases { table: table.clone(), changed, asks: work.is_some().then_some(ask) };
    (leases, Keeper { table, changes, asks, turns, work, began }, turns_end)
}

impl Leases {
    /// Whether an effect in this shard may be begun at this moment.
    pub(crate) fn may_act(&self, shard: u8) -> bool {
        let table = self.table();
        table.is_valid() && table.held[usize::from(shard)].is_some()
    }

    /// Open while what is held is sure; another period after all of it was lost.
    pub(crate) fn gate(&self) -> boot::Gate {
        let leases = self.clone();
        Arc::new(move || leases.period())
    }

    /// The present period, if what is held is sure.
    pub(crate) fn period(&self) -> Option<u32> {
        let table = self.table();
        table.is_valid().then_some(table.period)
    }

    /// The shards that this process holds, in their order. The database checks the tokens.
    pub(crate) fn all_held(&self) -> Vec<Held> {
        self.table().held.iter().copied().flatten().collect()
    }

    pub(crate) fn owner(&self, shard: u8) -> Owner {
        let table = self.table();
        match (&table.held[usize::from(shard)], &table.addresses[usize::from(shard)]) {
            (Some(_), _) if table.is_valid() => Owner::Mine,
            (None, Some(address)) => Owner::At(address.clone()),
            _ => Owner::Nobody,
        }
    }

    /// The owner of the shard, waited for if it has none; `Nobody` after [`OWNER_WAIT_LIMIT`].
    pub(crate) async fn wait_for_owner(&self, shard: u8) -> Owner {
        let mut changed = self.changed.clone();
        let wait = async {
            loop {
                let owner = self.owner(shard);
                if owner != Owner::Nobody || changed.changed().await.is_err() {
                    return owner;
                }
            }
        };
        tokio::time::timeout(OWNER_WAIT_LIMIT, wait).await.unwrap_or(Owner::Nobody)
    }

    /// Changes with everything that this says.
    pub(crate) fn changed(&self) -> watch::Receiver<u64> {
        self.changed.clone()
    }

    /// Nothing is in flight in a shard that is being left.
    pub(crate) async fn quiet(&self, shard: u8) {
        if let Some(asks) = &self.asks {
            let _ = asks.send(Ask::Quiet(shard)).await; // The keeper ends with the process.
        }
    }

    /// Gives all shards up; each once nothing is in flight there.
    pub(crate) async fn drain(&self) {
        if let Some(asks) = &self.asks {
            let _ = asks.send(Ask::Drain).await;
        }
    }

    /// Completes when all are given up after [`Leases::drain`]; at once if this process owns all for
    /// itself.
    pub(crate) async fn drained(&self) {
        let mut changed = self.changed.clone();
        while self.asks.is_some() && !self.table().drained {
            if changed.changed().await.is_err() {
                return;
            }
        }
    }

    fn table(&self) -> std::sync::MutexGuard<'_, Table> {
        self.table.lock().expect("never poisoned")
    }
}

impl Table {
    fn is_valid(&self) -> bool {
        self.valid_until.is_none_or(|end| Instant::now() < end)
    }
}

impl Keeper {
    /// Keeps the leases until the process ends.
    pub(crate) async fn run(mut self) -> anyhow::Result<()> {
        let Some((mut grip, mut tenure)) = self.work.take() else {
            metrics::shards(SHARDS.into());
            return std::future::pending().await;
        };
        let mut drained = false;
        loop {
            while let Some(order) = tenure.poll_output() {
                self.publish(&tenure, drained);
                self.follow(&mut grip, &mut tenure, order).await;
            }
            self.publish(&tenure, drained);
            let timeout = self.began + Duration::from_millis(tenure.poll_timeout());
            tokio::select! {
                ask = self.asks.recv() => match ask {
                    Some(Ask::Quiet(shard)) => tenure.handle_quiet(shard),
                    Some(Ask::Drain) => (tenure.drain(), drained = true).0,
                    None => return Ok(()), // Nobody is left to ask.
                },
                () = tokio::time::sleep_until(timeout) => tenure.handle_timeout(self.now()),
            }
        }
    }

    async fn follow(&mut self, grip: &mut Grip, tenure: &mut Tenure, order: Order) {
        let sent = self.now();
        match order {
            Order::Renew(me) => match grip.renew(&me, Duration::from_millis(LEASE_MS)).await {
                Ok(view) => tenure.handle_renewed(self.now(), sent, &me.name, view),
                Err(e) => {
                    metrics::renewal_failed();
                    debug!("failed to renew the lease: {e}");
                }
            },
            Order::Take { me, shards } => match grip.take(&me, &shards).await {
                Ok(taken) => tenure.handle_taken(self.now(), &me, taken),
                Err(e) => debug!(?shards, "failed to take shards: {e}"),
            },
            Order::Release { me, held } => {
                if let Err(e) = grip.release(&me, &held).await {
                    debug!(?held, "failed to release shards: {e}");
                }
                // What became of it is seen with the next renewal.
            }
            Order::Tell(turn) => {
                match turn {
                    Turn::Gained(Held { shard, fence }) => info!(shard, fence, "owns a shard"),
                    Turn::Leaving(shard) => debug!(shard, "leaves a shard"),
                    Turn::Lost(shard) => warn_lost(shard, tenure.valid_until().is_none()),
                }
                let _ = self.turns.send(turn).await; // The firing loop ends with the process.
            }
        }
        tenure.handle_timeout(self.now());
    }

    /// Says to everybody what is so now.
    fn publish(&self, tenure: &Tenure, draining: bool) {
        let mut table = Table {
            valid_until: Some(
                tenure
                    .valid_until()
                    .map_or(self.began, |end| self.began + Duration::from_millis(end)),
            ),
            period: tenure.number(),
            ..Table::default()
        };
        for held in tenure.held() {
            table.held[usize::from(held.shard)] = Some(held);
        }
        let view = tenure.view();
        let me = tenure.name();
        for (address, (_, holder)) in table.addresses.iter_mut().zip(&view.shards) {
            let others = view.alive.iter().filter(|it| it.name != me);
            let owner = others.into_iter().find(|it| holder.as_ref() == Some(&it.name));
            *address = owner.map(|it| it.address.clone());
        }
        let ours = |(_, holder): &(i64, Option<String>)| holder.as_ref() == Some(&me);
        table.drained = draining && !view.shards.iter().any(ours);
        metrics::shards(table.held.iter().flatten().count());
        *self.table.lock().expect("never poisoned") = table;
        self.changes.send_modify(|changes| *changes += 1);
    }

    fn now(&self) -> Tick {
        Tick::try_from(self.began.elapsed().as_millis()).unwrap_or(Tick::MAX)
    }
}

fn warn_lost(shard: u8, lapsed: bool) {
    if lapsed {
        warn!(shard, "lost a shard: the lease was over before it was renewed");
    } else {
        info!(shard, "gave up a shard");
    }
}
