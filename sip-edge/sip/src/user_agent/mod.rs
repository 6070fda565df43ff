//! The user agent: the border to the transaction user, over the transactions and dialogs.
//!
//! This file has the value itself, its inputs and its clock; `uas` answers requests, `uac` sends
//! them and reads the responses, `in_dialog` is what both do once a dialog stands, `register` is
//! the registrar's side. One file each: `early` and `reliable` for provisional responses, `session`
//! for session timers and UPDATE, `reinvite`, `refer`, `proof` for challenges of ours, and
//! `snapshot` for legs that outlive this process.

mod config;
mod early;
mod event;
mod in_dialog;
mod leg;
mod proof;
mod refer;
mod register;
mod registrant;
mod reinvite;
mod reliable;
mod session;
mod sharing;
mod snapshot;
#[cfg(test)]
mod tests;
mod uac;
mod uas;

pub use config::Config;
pub use event::{
    Contact, End, Event, Hangup, InviteError, Invited, LegId, MAX_FORWARDS, OutboundInvite,
    OutboundRefer, Output, Referred, Registration, Rejection, Suspicion,
};
pub use registrant::{OutboundRegistration, RegisterError, RegistrantId, RegistrantState};
pub use snapshot::{AlreadyHere, LegSnapshot};

use crate::deadlines::Deadlines;
use crate::digest::Authenticator;
use crate::message::Message;
use crate::method::Method;
use crate::peer::{Peer, Transport};
use crate::registrar::Registrar;
use crate::tokens::Tokens;
use crate::transaction::{Failed, Failure, Room, Timing, Transactions};
use bytes::Bytes;
use leg::{Leg, State};
use registrant::Registrant;
use std::collections::{HashMap, VecDeque};
use std::time::Instant;

/// Every SIP leg of this process, both roles.
pub struct UserAgent {
    config: Config,
    timing: Timing,
    tokens: Tokens,
    authenticator: Authenticator,
    registrar: Registrar,
    transactions: Transactions,
    legs: HashMap<LegId, Leg>,
    /// Local tag → leg. Tags are ours and random, so that one names one dialog.
    by_tag: HashMap<String, LegId>,
    leg_deadlines: Deadlines<LegId>,
    /// Registrations of ours; their ids are those of legs that never were.
    registrants: HashMap<LegId, Registrant>,
    registrant_deadlines: Deadlines<LegId>,
    last_leg: u64,
    /// Makes the To tags of stateless responses unguessable.
    stateless_salt: u64,
    /// It takes no new calls, and says so to who asks by OPTIONS.
    draining: bool,
    outputs: VecDeque<Output>,
}

impl UserAgent {
    /// `seed` drives branches, tags, Call-IDs and nonces: take it from the system's randomness.
    pub fn new(config: Config, seed: u64) -> Self {
        let timing = Timing { t1: config.t1, t2: config.t2, t4: config.t4 };
        let mut tokens = Tokens::new(seed);
        let authenticator = Authenticator::new(
            config.realm.clone(),
            config.users.clone(),
            config.digest.clone(),
            config.nonce_life,
            [tokens.number(), tokens.number()],
        );
        let room = Room {
            transactions: config.max_transactions,
            request_bytes: config.max_transaction_bytes,
        };
        Self {
            timing,
            stateless_salt: tokens.number(),
            tokens,
            authenticator,
            registrar: Registrar::new(config.max_bindings_per_user),
            transactions: Transactions::new(timing, room),
            legs: HashMap::new(),
            by_tag: HashMap::new(),
            leg_deadlines: Deadlines::new(),
            registrants: HashMap::new(),
            registrant_deadlines: Deadlines::new(),
            last_leg: 0,
            draining: false,
            outputs: VecDeque::new(),
            config,
        }
    }

    /// One whole SIP message. `wall_unix_s` dates nonces and registrations.
    pub fn handle_message(&mut self, now: Instant, wall_unix_s: u64, source: Peer, bytes: Bytes) {
        match Message::parse(bytes) {
            Ok(Message::Request(request)) => {
                self.receive_request(now, wall_unix_s, source, request);
            }
            Ok(Message::Response(response)) => self.receive_response(now, source, &response),
            Err(error) => {
                self.judge(source, Suspicion::Malformed);
                self.discard(error.label());
            }
        }
    }

    /// The connection to `peer` was lost or refused (RFC 3261 §17.1.4, §17.2.4).
    pub fn handle_transport_failed(&mut self, now: Instant, peer: Peer) {
        if peer.transport.is_reliable() {
            self.registrar.forget_connection(peer);
            self.registrants_lost(now, peer);
        }
        let failed = self.transactions.handle_transport_failed(now, peer, &mut self.outputs);
        for failed in failed {
            let is_request = failed.is_client && !failed.is_invite && failed.method == Method::Bye;
            match failed.leg.filter(|_| is_request) {
                Some(leg) if self.close_another_way(now, leg, peer) => (),
                _ => self.transaction_failed(now, failed),
            }
        }
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(failed) = self.transactions.handle_timeout(now, &mut self.outputs) {
            self.transaction_failed(now, failed);
        }
        while let Some(registrant) = self.registrant_deadlines.due(now) {
            self.registrant_timed_out(now, registrant);
        }
        while let Some(leg) = self.leg_deadlines.due(now) {
            self.leg_timed_out(now, leg);
        }
    }

    /// When [`UserAgent::handle_timeout`] is due; O(log n) in legs and transactions.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let own = [self.leg_deadlines.next(), self.registrant_deadlines.next()];
        let due = own.into_iter().chain([self.transactions.poll_timeout()]);
        due.flatten().min()
    }

    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Contacts of `user`, newest first, behind them those whose connection is gone.
    pub fn lookup(&self, wall_unix_s: u64, user: &str) -> Vec<Contact> {
        self.registrar.lookup(wall_unix_s, user)
    }

    /// Every user with bindings, by name.
    pub fn registrations(&self, wall_unix_s: u64) -> Vec<Registration> {
        self.registrar.registrations(wall_unix_s)
    }

    /// Call-ID of a leg that has not ended.
    pub fn call_id(&self, leg: LegId) -> Option<&str> {
        self.legs.get(&leg).map(|leg| leg.dialog.call_id.as_str())
    }

    /// What carries a leg that has not ended: of an INVITE of ours, what it went by.
    pub fn transport(&self, leg: LegId) -> Option<Transport> {
        self.legs.get(&leg).map(|leg| leg.dialog.peer.transport)
    }

    /// Whether there has been no response at all to our INVITE, not even 100.
    pub fn is_silent(&self, leg: LegId) -> bool {
        self.legs.get(&leg).is_some_and(|leg| matches!(leg.state, State::Calling { .. }))
    }

    /// Legs that have not ended.
    pub fn dialogs(&self) -> usize {
        self.legs.len()
    }

    /// Transactions that have not terminated, those that only absorb retransmissions included.
    pub fn transactions(&self) -> usize {
        self.transactions.len()
    }

    /// Whether no index holds a leg or transaction that is gone.
    #[cfg(test)]
    fn is_clean(&self) -> bool {
        self.transactions.is_clean()
            && self.by_tag.len() == self.legs.len()
            && self.leg_deadlines.len() <= self.legs.len()
    }

    /// What a transaction's end without success means for its leg.
    fn transaction_failed(&mut self, now: Instant, failed: Failed) {
        if let Some(registrant) = failed.leg.filter(|it| self.is_registrant(*it)) {
            return self.register_transaction_failed(now, registrant);
        }
        if self.request_failed(now, &failed) {
            return;
        }
        let Some(leg) = failed.leg.and_then(|leg| self.legs.get_mut(&leg)) else { return };
        let end = match failed.failure {
            Failure::TimedOut => End::TimedOut,
            Failure::Transport => End::TransportFailed,
        };
        let pending = leg.pending.take_if(|pending| pending.tx == failed.tx).is_some();
        leg.refresh_at = leg.refresh_at.filter(|_| !pending);
        let id = leg.id;
        match (&leg.state, failed.is_invite, failed.is_client) {
            (State::Invited, true, false) if pending => self.end(id, end),
            (State::Calling { .. } | State::Proceeding { .. }, true, true) => self.end(id, end),
            (State::CancelWaiting { .. } | State::Cancelling { .. }, true, true) => {
                self.end(id, End::HungUp { bye_status: None });
            }
            (State::Closing { .. }, false, true) if failed.method == Method::Bye => {
                self.end(id, End::HungUp { bye_status: None })
            }
            _ => (), // A CANCEL, or a response of ours: the dialog lives, its own timers watch it.
        }
    }

    /// A request of ours inside a dialog that stands had no response; true if that was it.
    fn request_failed(&mut self, now: Instant, failed: &Failed) -> bool {
        let Some(id) = failed.leg.filter(|_| failed.is_client) else { return false };
        let Some(leg) = self.legs.get(&id) else { return false };
        match (failed.method, &leg.state) {
            (Method::Invite, State::Confirmed) if !self.is_reinvite(Some(id), failed.tx) => (),
            (Method::Invite | Method::Update, State::Confirmed) => match failed.failure {
                Failure::Transport if self.refresh_another_way(now, id) => (),
                Failure::Transport | Failure::TimedOut => self.peer_is_gone(now, id),
            },
            (Method::Refer, _) => self.refer_failed(id),
            (Method::Notify, _) => self.notify_answered(id, 408),
            (Method::Prack, _) => (), // The remote repeats its response, or gives up.
            _ => return false,
        }
        true
    }

    /// One of the leg's own deadlines has come.
    fn leg_timed_out(&mut self, now: Instant, id: LegId) {
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        let leg = self.legs.get_mut(&id).expect("every deadline has its leg");
        if due(leg.refresh_at) {
            leg.refresh_at = Some(now + uas::REFRESH_PROVISIONAL);
            if let Some(pending) = &leg.pending {
                let tx = pending.tx;
                // A reliable one is said anew: repeating is for those without PRACK (RFC 3262 §3).
                match leg.rseq > 0 {
                    true => self.ring(now, id, 180, None),
                    false => self.transactions.repeat_provisional(now, tx, &mut self.outputs),
                }
            }
        }
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let is_prack_due =
            leg.unpracked.as_ref().is_some_and(|it| it.repeat_at.min(it.give_up_at) <= now);
        let is_session_due = due(leg.session.map(|it| it.at)) && leg.state == State::Confirmed;
        let is_reinvite_due = due(leg.ours.as_ref().and_then(|ours| ours.at));
        match &mut leg.unacked {
            Some(unacked) if unacked.give_up_at <= now => return self.never_acknowledged(now, id),
            Some(unacked) if unacked.repeat_at <= now => {
                unacked.interval = (unacked.interval * 2).min(self.timing.t2);
                unacked.repeat_at = now + unacked.interval;
                let (peer, bytes) = (unacked.peer, unacked.response.clone());
                self.outputs.push_back(Output::Send { peer, bytes });
            }
            _ => (),
        }
        if is_prack_due {
            self.prack_is_late(now, id);
        }
        if is_reinvite_due {
            self.reinvite_is_due(now, id);
        }
        if is_session_due {
            self.session_is_due(now, id);
        }
        self.reschedule(id);
    }

    /// Brings the index of deadlines up to date after a change of the leg.
    fn reschedule(&mut self, id: LegId) {
        if let Some(leg) = self.legs.get_mut(&id) {
            let deadline = leg.next_deadline();
            let old = std::mem::replace(&mut leg.deadline, deadline);
            self.leg_deadlines.shift(id, old, deadline);
        }
    }

    fn insert(&mut self, leg: Leg) {
        self.by_tag.insert(leg.dialog.local_tag.clone(), leg.id);
        self.legs.insert(leg.id, leg);
    }

    /// The last event of a leg.
    fn end(&mut self, id: LegId, end: End) {
        let Some(leg) = self.legs.remove(&id) else { return };
        self.by_tag.remove(&leg.dialog.local_tag);
        self.leg_deadlines.shift(id, leg.deadline, None);
        self.tell(Event::Ended { leg: id, end });
    }

    fn next_leg_id(&mut self) -> LegId {
        self.last_leg += 1;
        LegId(self.last_leg)
    }

    fn tell(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }

    fn judge(&mut self, source: Peer, what: Suspicion) {
        self.outputs.push_back(Output::Judged { source, what });
    }

    fn discard(&mut self, reason: &'static str) {
        self.outputs.push_back(Output::Discarded(reason));
    }
}
