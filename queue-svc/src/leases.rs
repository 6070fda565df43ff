//! Whether this process owns the queues, who else does, and for how long that is sure.
//!
//! All queues have one owner, because an agent may serve any of them, and one core decides who gets an
//! agent. `tenure.rs` decides; this asks the database and tells everybody. With SQLite there is one
//! process, which owns them for ever.

mod tenure;

use crate::metrics;
use crate::store::{self, Fence, Store};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tenure::{Ask, LEASE_MS, Tenure, Tick};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, info, warn};

/// How long a request waits for the queues to have an owner: as long as a take-over lasts.
pub(crate) const OWNER_WAIT_LIMIT: Duration = Duration::from_secs(3);

/// Who owns the queues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    Mine,
    /// The replica that answers gRPC there.
    At(String),
    /// Nobody, for a moment.
    Nobody,
}

/// The right to write, until it is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lease {
    pub(crate) fence: Fence,
    pub(crate) since_unix_ms: i64,
    /// Counts how often this process has lost it.
    period: u32,
}

/// What is known at one moment.
#[derive(Clone, Debug, Default)]
struct Table {
    held: Option<Lease>,
    /// Until then it is sure; for ever if `None`.
    valid_until: Option<Instant>,
    other: Option<String>,
    /// It was given up, and the database knows.
    resigned: bool,
}

/// What this process knows of the owner; cheap to clone.
#[derive(Clone)]
pub(crate) struct Leases {
    table: Arc<Mutex<Table>>,
    changed: watch::Receiver<u64>,
    /// `None`: this process owns the queues for ever.
    resign: Option<Arc<Notify>>,
}

/// Keeps the lease, until the process ends.
pub(crate) struct Keeper {
    table: Arc<Mutex<Table>>,
    changes: watch::Sender<u64>,
    resign: Arc<Notify>,
    work: Option<(store::Leases, Tenure)>,
    began: Instant,
}

/// The lease of a process that answers gRPC at `address`, and who keeps it.
pub(crate) fn open(store: &Store, address: String) -> (Leases, Keeper) {
    let (changes, changed) = watch::channel(0);
    let resign = Arc::new(Notify::new());
    let work = store.leases().map(|leases| (leases, Tenure::new(boot::new_id(), address, 0)));
    let mut table = Table::default();
    if work.is_none() {
        table.held = Some(Lease { fence: Fence(0), since_unix_ms: boot::unix_ms(), period: 0 });
    } else {
        table.valid_until = Some(Instant::now());
    }
    let table = Arc::new(Mutex::new(table));
    let leases =
        Leases { table: table.clone(), changed, resign: work.is_some().then(|| resign.clone()) };
    (leases, Keeper { table, changes, resign, work, began: Instant::now() })
}

impl Leases {
    /// Whether there are no replicas, and cannot be any.
    pub(crate) fn is_sole(&self) -> bool {
        self.resign.is_none()
    }

    /// Open while this process owns the queues; another period after it lost them.
    pub(crate) fn gate(&self) -> boot::Gate {
        let leases = self.clone();
        Arc::new(move || leases.held().map(|it| it.period))
    }

    /// The lease that is ours now.
    pub(crate) fn held(&self) -> Option<Lease> {
        let table = self.table();
        table.held.filter(|_| table.valid_until.is_none_or(|end| Instant::now() < end))
    }

    pub(crate) fn owner(&self) -> Owner {
        match (self.held(), &self.table().other) {
            (Some(_), _) => Owner::Mine,
            (None, Some(address)) => Owner::At(address.clone()),
            (None, None) => Owner::Nobody,
        }
    }

    /// The owner, waited for if there is none; `Nobody` after [`OWNER_WAIT_LIMIT`].
    pub(crate) async fn wait_for_owner(&self) -> Owner {
        let mut changed = self.changed.clone();
        let wait = async {
            loop {
                let owner = self.owner();
                if owner != Owner::Nobody || changed.changed().await.is_err() {
                    return owner;
                }
            }
        };
        timeout(OWNER_WAIT_LIMIT, wait).await.unwrap_or(Owner::Nobody)
    }

    /// Completes when the replica at `address` owns the queues no more, as far as is known here.
    pub(crate) async fn moved_from(&self, address: &str) {
        let mut changed = self.changed.clone();
        while self.owner() == Owner::At(address.to_owned()) {
            if changed.changed().await.is_err() {
                return std::future::pending().await; // The process ends.
            }
        }
    }

    /// Completes when this process owns the queues.
    pub(crate) async fn gained(&self) -> Lease {
        let mut changed = self.changed.clone();
        loop {
            if let Some(lease) = self.held() {
                return lease;
            }
            if changed.changed().await.is_err() {
                return std::future::pending().await; // The process ends.
            }
        }
    }

    /// Completes when this lease is ours no more.
    pub(crate) async fn lost(&self, lease: Lease) {
        let mut changed = self.changed.clone();
        while self.held() == Some(lease) {
            let end = self.table().valid_until;
            let over = async {
                match end {
                    Some(end) => sleep_until(end).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = changed.changed() => if changed.is_err() { return std::future::pending().await },
                () = over => (),
            }
        }
    }

    /// Changes with everything that this says.
    pub(crate) fn changed(&self) -> watch::Receiver<u64> {
        self.changed.clone()
    }

    /// Gives the queues up, if they are ours, and takes them no more; returns when the database knows.
    pub(crate) async fn resign(&self) {
        let Some(resign) = &self.resign else { return };
        let mut changed = self.changed.clone();
        resign.notify_one();
        while !self.table().resigned && changed.changed().await.is_ok() {}
    }

    fn table(&self) -> std::sync::MutexGuard<'_, Table> {
        self.table.lock().expect("never poisoned")
    }
}

impl Keeper {
    /// Keeps the lease until the process ends.
    pub(crate) async fn run(mut self) -> anyhow::Result<()> {
        let Some((mut leases, mut tenure)) = self.work.take() else {
            metrics::set_owner(true);
            return std::future::pending().await;
        };
        loop {
            while let Some(ask) = tenure.poll_output() {
                self.publish(&tenure);
                self.ask(&mut leases, &mut tenure, ask).await;
            }
            self.publish(&tenure);
            let timeout = self.began + Duration::from_millis(tenure.poll_timeout());
            tokio::select! {
                () = self.resign.notified() => tenure.resign(),
                () = sleep_until(timeout) => tenure.handle_timeout(self.now()),
            }
        }
    }

    async fn ask(&self, leases: &mut store::Leases, tenure: &mut Tenure, ask: Ask) {
        let sent = self.now();
        match leases.ask(&ask.me, ask.wish, Duration::from_millis(LEASE_MS)).await {
            Ok(view) => tenure.handle_answer(self.now(), sent, &ask, view),
            Err(e) => {
                metrics::count_lease_failure();
                debug!("failed to ask for the lease on the queues: {e}");
                tenure.handle_timeout(self.now());
            }
        }
    }

    /// Says to everybody what is so now.
    fn publish(&self, tenure: &Tenure) {
        let held = tenure.held();
        let until = held.map_or(0, |(_, until)| until);
        let before = self.table.lock().expect("never poisoned").held;
        let lease = held.map(|(fence, _)| {
            let period = tenure.number();
            let since = before.filter(|it| it.period == period).map(|it| it.since_unix_ms);
            Lease { fence, since_unix_ms: since.unwrap_or_else(boot::unix_ms), period }
        });
        match (before, lease) {
            (None, Some(lease)) => info!(fence = lease.fence.0, "owns the queues"),
            (Some(_), None) if tenure.has_given_up() => info!("gave the queues up"),
            (Some(_), None) => warn!("lost the queues: the lease was over before it was renewed"),
            _ => (),
        }
        metrics::set_owner(lease.is_some());
        *self.table.lock().expect("never poisoned") = Table {
            held: lease,
            valid_until: Some(self.began + Duration::from_millis(until)),
            other: tenure.other().map(str::to_owned),
            resigned: tenure.has_resigned(),
        };
        self.changes.send_modify(|changes| *changes += 1);
    }

    fn now(&self) -> Tick {
        Tick::try_from(self.began.elapsed().as_millis()).unwrap_or(Tick::MAX)
    }
}
