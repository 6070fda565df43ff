//! Which shards this replica takes, keeps and gives up; decides, and does no IO.
//!
//! The shell renews the lease when asked to ([`Order::Renew`]) and hands in what the database says.
//! The lease counts from before the renewal was sent, on a clock that never steps, so that it is over
//! here before it is over for the database. When it is over, all shards are lost at once, and the
//! replica comes back under another name. Each replica wants its part of the shards, rounded up;
//! who has more gives the rest up when nothing is in flight there.

use crate::store::{Held, Replica, View};
use std::collections::VecDeque;
use wheel::{SHARDS, Tick};

/// How long a lease is for the database.
pub(super) const LEASE_MS: u64 = 1_500;
/// So much earlier it is over for its holder: what was begun at the last moment needs time.
const MARGIN_MS: u64 = 100;
/// How often it is renewed, and looked for shards without an owner.
const RENEWAL_MS: u64 = 250;

/// What the shell is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Renew the lease of this replica, and look around.
    Renew(Replica),
    /// Take those of the shards that nobody holds any more.
    Take { me: String, shards: Vec<u8> },
    /// Give these up.
    Release { me: String, held: Vec<Held> },
    /// Tell the firing loop.
    Tell(Turn),
}

/// What has become of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It is ours.
    Gained(Held),
    /// It will be given up once nothing is in flight there: begin nothing more.
    Leaving(u8),
    /// It is no longer ours: forget it.
    Lost(u8),
}

/// How this replica stands to a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Elsewhere,
    Mine(Held),
    Leaving(Held),
    /// Given up, but the database does not know yet.
    Releasing(Held),
}

pub(super) struct Tenure {
    process: String,
    number: u32,
    address: String,
    draining: bool,
    shards: [Standing; SHARDS as usize],
    /// When the lease is over; none before the first.
    valid_until: Option<Tick>,
    next_renewal: Tick,
    /// What the database said last.
    view: View,
    orders: VecDeque<Order>,
}

impl Tenure {
    /// A replica without any shard, named after its process.
    pub(super) fn new(process: String, address: String, now: Tick) -> Self {
        Self {
            process,
            number: 1,
            address,
            draining: false,
            shards: [Standing::Elsewhere; SHARDS as usize],
            valid_until: None,
            next_renewal: now,
            view: View::default(),
            orders: VecDeque::new(),
        }
    }

    pub(super) fn poll_output(&mut self) -> Option<Order> {
        self.orders.pop_front()
    }

    pub(super) fn poll_timeout(&self) -> Tick {
        self.valid_until.map_or(self.next_renewal, |end| end.min(self.next_renewal))
    }

    pub(super) fn handle_timeout(&mut self, now: Tick) {
        if self.valid_until.is_some_and(|end| now >= end) {
            self.lapse();
        }
        if now >= self.next_renewal {
            self.next_renewal = now + RENEWAL_MS;
            self.orders.push_back(Order::Renew(self.me()));
        }
    }

    /// What the database answered to a renewal that was sent then.
    pub(super) fn handle_renewed(&mut self, now: Tick, sent: Tick, name: &str, view: View) {
        if name != self.name() {
            return; // Its lease is over here.
        }
        let valid_until = sent + LEASE_MS - MARGIN_MS;
        if !view.renewed || now >= valid_until {
            return self.lapse();
        }
        self.valid_until = Some(valid_until);
        self.view = view;
        for shard in 0..SHARDS {
            self.compare(shard);
        }
        self.balance();
    }

    /// The shards that a [`Order::Take`] under this name got.
    pub(super) fn handle_taken(&mut self, now: Tick, name: &str, taken: Vec<Held>) {
        if name != self.name() || self.valid_until.is_none_or(|end| now >= end) {
            return; // The database has given them to who we no longer are.
        }
        for held in taken {
            self.view.shards[usize::from(held.shard)] = (held.fence, Some(name.to_owned()));
            self.compare(held.shard);
        }
    }

    /// Nothing is in flight in a shard that was being left.
    pub(super) fn handle_quiet(&mut self, shard: u8) {
        if let Standing::Leaving(held) = self.shards[usize::from(shard)] {
            self.release(held);
        }
    }

    /// Wants no shards any more.
    pub(super) fn drain(&mut self) {
        self.draining = true;
        self.next_renewal = 0;
        self.balance();
    }

    pub(super) fn view(&self) -> &View {
        &self.view
    }

    pub(super) fn valid_until(&self) -> Option<Tick> {
        self.valid_until
    }

    /// What this replica may write to.
    pub(super) fn held(&self) -> impl Iterator<Item = Held> {
        self.shards.iter().filter_map(|standing| match standing {
            Standing::Mine(held) | Standing::Leaving(held) => Some(*held),
            Standing::Elsewhere | Standing::Releasing(_) => None,
        })
    }

    fn me(&self) -> Replica {
        Replica { name: self.name(), address: self.address.clone(), draining: self.draining }
    }

    pub(super) fn name(&self) -> String {
        format!("{}/{}", self.process, self.number)
    }

    /// How many times all was lost, and one.
    pub(super) fn number(&self) -> u32 {
        self.number
    }

    /// The lease is over: nothing is ours, and never again under this name.
    fn lapse(&mut self) {
        for shard in 0..SHARDS {
            self.lose(shard);
        }
        self.number += 1;
        self.valid_until = None;
        self.next_renewal = 0;
        self.view = View::default();
    }

    fn lose(&mut self, shard: u8) {
        let standing = &mut self.shards[usize::from(shard)];
        if matches!(standing, Standing::Mine(_) | Standing::Leaving(_)) {
            self.orders.push_back(Order::Tell(Turn::Lost(shard)));
        }
        *standing = Standing::Elsewhere;
    }

    fn release(&mut self, held: Held) {
        self.lose(held.shard);
        self.shards[usize::from(held.shard)] = Standing::Releasing(held);
        self.orders.push_back(Order::Release { me: self.name(), held: vec![held] });
    }

    /// Compares how we stand to a shard with what the database says.
    fn compare(&mut self, shard: u8) {
        let (fence, holder) = &self.view.shards[usize::from(shard)];
        let ours = holder.as_ref().is_some_and(|holder| *holder == self.name());
        let said = ours.then_some(Held { shard, fence: *fence });
        match (self.shards[usize::from(shard)], said) {
            (Standing::Mine(known) | Standing::Leaving(known), Some(said)) if known == said => {}
            (Standing::Elsewhere, None) => {}
            // The answer to its release was lost.
            (Standing::Releasing(known), Some(said)) if known == said => {
                self.orders.push_back(Order::Release { me: self.name(), held: vec![said] });
            }
            (_, None) => self.lose(shard),
            // Taken; perhaps the answer to that was lost.
            (_, Some(said)) => {
                self.lose(shard);
                self.shards[usize::from(shard)] = Standing::Mine(said);
                self.orders.push_back(Order::Tell(Turn::Gained(said)));
            }
        }
    }

    /// Takes what is missing to our part, or leaves what is above it.
    fn balance(&mut self) {
        let mine: Vec<Held> = self.mine().collect();
        let wanted = self.wanted();
        for held in mine.iter().skip(wanted) {
            self.shards[usize::from(held.shard)] = Standing::Leaving(*held);
            self.orders.push_back(Order::Tell(Turn::Leaving(held.shard)));
        }
        let missing = wanted.saturating_sub(mine.len());
        let free = |shard: &u8| {
            let Some((_, holder)) = self.view.shards.get(usize::from(*shard)) else { return false };
            let standing = self.shards[usize::from(*shard)];
            let alive = |name: &String| self.view.alive.iter().any(|it| it.name == *name);
            standing == Standing::Elsewhere && !holder.as_ref().is_some_and(alive)
        };
        // Each begins elsewhere, so that two rarely want the same.
        let first = self.process.bytes().fold(0, |sum: u8, byte| sum.wrapping_mul(31) ^ byte);
        let order = (0..SHARDS).map(|nth| first.wrapping_add(nth) % SHARDS);
        let shards: Vec<u8> = order.filter(free).take(missing).collect();
        if !shards.is_empty() {
            self.orders.push_back(Order::Take { me: self.name(), shards });
        }
    }

    fn mine(&self) -> impl Iterator<Item = Held> {
        self.shards.iter().filter_map(|standing| match standing {
            Standing::Mine(held) => Some(*held),
            _ => None,
        })
    }

    /// Our part of all shards, rounded up.
    fn wanted(&self) -> usize {
        if self.draining || self.valid_until.is_none() {
            return 0;
        }
        let others = |it: &&Replica| !it.draining && it.name != self.name();
        let replicas = 1 + self.view.alive.iter().filter(others).count();
        usize::from(SHARDS).div_ceil(replicas)
    }
}

#[cfg(test)]
mod tests;
