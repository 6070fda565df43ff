//! The user agent: the border to the transaction user, over the transactions and dialogs.

mod config;
mod event;

pub use config::Config;
pub use event::{
    Contact, End, Event, Hangup, InviteError, Invited, LegId, OutboundInvite, Output, Registration,
    Rejection,
};

use crate::Peer;
use bytes::Bytes;
use std::collections::VecDeque;
use std::time::Instant;

/// Every SIP leg of this process, both roles.
pub struct UserAgent {
    config: Config,
    outputs: VecDeque<Output>,
}

impl UserAgent {
    /// `seed` drives branches, tags, Call-IDs and nonces: take it from the system's randomness.
    pub fn new(config: Config, seed: u64) -> Self {
        let _ = seed;
        Self { config, outputs: VecDeque::new() }
    }

    /// One whole SIP message. `wall_unix_s` dates nonces and registrations.
    pub fn handle_message(&mut self, now: Instant, wall_unix_s: u64, source: Peer, bytes: Bytes) {
        let _ = (now, wall_unix_s, source, bytes, &self.config);
    }

    /// The connection to `peer` was lost or refused (RFC 3261 §17.1.4, §17.2.4).
    pub fn handle_transport_failed(&mut self, now: Instant, peer: Peer) {
        let _ = (now, peer);
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        let _ = now;
    }

    /// When [`UserAgent::handle_timeout`] is due; O(log n) in legs and transactions.
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Sends an INVITE; what becomes of it comes as events of the returned leg.
    ///
    /// # Errors
    /// A URI or header that cannot stand in a message, or too many dialogs.
    pub fn invite(&mut self, now: Instant, invite: OutboundInvite) -> Result<LegId, InviteError> {
        let _ = (now, invite);
        Err(InviteError::Full { max: 0 })
    }

    /// Sends 180 or 183 to the pending INVITE.
    pub fn ring(&mut self, now: Instant, leg: LegId, status: u16, sdp: Option<Bytes>) {
        let _ = (now, leg, status, sdp);
    }

    /// Sends 200 to the pending INVITE or re-INVITE.
    pub fn answer(&mut self, now: Instant, leg: LegId, sdp: Bytes) {
        let _ = (now, leg, sdp);
    }

    /// Refuses the pending INVITE (the leg ends) or re-INVITE (the leg lives).
    pub fn reject(&mut self, now: Instant, leg: LegId, rejection: Rejection) {
        let _ = (now, leg, rejection);
    }

    /// Sends 401 to the pending INVITE and ends the leg; the caller comes again with Authorization.
    pub fn challenge(&mut self, now: Instant, wall_unix_s: u64, leg: LegId) {
        let _ = (now, wall_unix_s, leg);
    }

    /// Ends the leg by what its state asks for: BYE, CANCEL or a final response. Idempotent.
    pub fn hangup(&mut self, now: Instant, leg: LegId, hangup: Hangup) {
        let _ = (now, leg, hangup);
    }

    /// Bindings of `user`, newest first.
    pub fn lookup(&self, wall_unix_s: u64, user: &str) -> Vec<Contact> {
        let _ = (wall_unix_s, user);
        Vec::new()
    }

    /// Every user with bindings, by name.
    pub fn registrations(&self, wall_unix_s: u64) -> Vec<Registration> {
        let _ = wall_unix_s;
        Vec::new()
    }

    /// Legs that have not ended.
    pub fn dialogs(&self) -> usize {
        0
    }
}
