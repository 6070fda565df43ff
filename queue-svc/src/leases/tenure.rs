//! When this replica asks for the lease on the queues, and for how long it has it; decides, and does no
//! IO.
//!
//! | standing | input | next |
//! |---|---|---|
//! | without | the database gave us the lease | holding |
//! | without | it says that it is ours, as an answer that was lost would have said | without; renewed |
//! | holding | renewed | holding, for longer |
//! | holding | not renewed in time, or not ours | without, under the next name |
//! | holding | given up | without, for good |
//!
//! The lease counts from before it was asked for, on a clock that never steps, so that it is over here
//! before it is over for the database.

use crate::store::{Claimant, Fence, View, Wish};
use std::collections::VecDeque;

/// Milliseconds since the process began.
pub(super) type Tick = u64;

/// How long a lease is for the database.
pub(super) const LEASE_MS: u64 = 2_000;
/// So much earlier it is over for its holder: what was begun at the last moment needs time.
const MARGIN_MS: u64 = 100;
/// How often it is renewed, or asked for.
const ASK_MS: u64 = 250;

/// What the shell is to ask of the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ask {
    pub(super) me: Claimant,
    pub(super) wish: Wish,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Without,
    Holding { fence: Fence, until: Tick },
}

pub(super) struct Tenure {
    process: String,
    number: u32,
    address: String,
    standing: Standing,
    /// It wants the lease no more.
    resigned: bool,
    next_ask: Tick,
    /// What the database said last.
    view: View,
    asks: VecDeque<Ask>,
}

impl Tenure {
    pub(super) fn new(process: String, address: String, now: Tick) -> Self {
        Self {
            process,
            number: 1,
            address,
            standing: Standing::Without,
            resigned: false,
            next_ask: now,
            view: View::default(),
            asks: VecDeque::new(),
        }
    }

    pub(super) fn poll_output(&mut self) -> Option<Ask> {
        self.asks.pop_front()
    }

    pub(super) fn poll_timeout(&self) -> Tick {
        match self.standing {
            Standing::Holding { until, .. } => until.min(self.next_ask),
            Standing::Without => self.next_ask,
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Tick) {
        if let Standing::Holding { until, .. } = self.standing
            && now >= until
        {
            self.lapse();
        }
        if now < self.next_ask {
            return;
        }
        self.next_ask = now + ASK_MS;
        let wish = match self.standing {
            Standing::Holding { fence, .. } => Wish::Renew(fence),
            // The answer to its release was lost.
            Standing::Without if self.resigned && self.is_ours() => {
                Wish::Release(Fence(self.view.fence))
            }
            Standing::Without if self.resigned => Wish::Look,
            Standing::Without => Wish::Take,
        };
        self.ask(wish);
    }

    /// What the database answered to what was asked then.
    pub(super) fn handle_answer(&mut self, now: Tick, sent: Tick, asked: &Ask, view: View) {
        if asked.me.name != self.name() {
            return; // That lease is over here.
        }
        self.view = view;
        let (ours, given) = (self.is_ours(), Fence(self.view.fence));
        let lasts = self.view.done && matches!(asked.wish, Wish::Take | Wish::Renew(_));
        let until = sent + LEASE_MS - MARGIN_MS;
        match self.standing {
            Standing::Holding { fence, .. } if ours && fence == given && lasts => {
                self.standing = Standing::Holding { fence, until };
            }
            Standing::Holding { fence, .. } if ours && fence == given => (),
            Standing::Holding { .. } => self.lapse(),
            Standing::Without if self.resigned || !ours => (),
            Standing::Without if lasts => self.standing = Standing::Holding { fence: given, until },
            Standing::Without => self.ask(Wish::Renew(given)),
        }
        self.handle_timeout(now);
    }

    /// Gives the lease up, if it is ours, and asks for none any more.
    pub(super) fn resign(&mut self) {
        self.resigned = true;
        if let Standing::Holding { fence, .. } = self.standing {
            self.standing = Standing::Without;
            self.ask(Wish::Release(fence));
        }
    }

    /// It has resigned; the database may not know yet.
    pub(super) fn has_given_up(&self) -> bool {
        self.resigned
    }

    /// It has resigned, and the database knows.
    pub(super) fn has_resigned(&self) -> bool {
        self.resigned && !self.is_ours()
    }

    /// The token, and until when it is sure.
    pub(super) fn held(&self) -> Option<(Fence, Tick)> {
        match self.standing {
            Standing::Holding { fence, until } => Some((fence, until)),
            Standing::Without => None,
        }
    }

    /// Where another replica that owns the queues answers gRPC.
    pub(super) fn other(&self) -> Option<&str> {
        let other = self.view.alive && self.view.holder != self.name();
        other.then_some(self.view.address.as_str())
    }

    /// Counts the leases that were over before they were renewed.
    pub(super) fn number(&self) -> u32 {
        self.number
    }

    fn name(&self) -> String {
        format!("{}/{}", self.process, self.number)
    }

    fn is_ours(&self) -> bool {
        self.view.alive && self.view.holder == self.name()
    }

    fn ask(&mut self, wish: Wish) {
        let me = Claimant { name: self.name(), address: self.address.clone() };
        self.asks.push_back(Ask { me, wish });
    }

    /// The lease is over: nothing is ours, and never again under this name, so that what is still on
    /// its way under the old token stays without effect.
    fn lapse(&mut self) {
        self.standing = Standing::Without;
        self.number += 1;
        self.view = View::default();
        self.next_ask = 0;
    }
}

#[cfg(test)]
mod tests;
