//! One of the four machines, for the table.

use super::Output;
use super::client_invite::{self, ClientInvite};
use super::client_non_invite::{self, ClientNonInvite};
use super::server_invite::{self, ServerInvite};
use super::server_non_invite::{self, ServerNonInvite};
use std::time::Instant;

#[derive(Debug)]
#[allow(clippy::enum_variant_names)] // The names of the RFC end so.
pub(super) enum Machine {
    ClientInvite(ClientInvite),
    ClientNonInvite(ClientNonInvite),
    ServerInvite(ServerInvite),
    ServerNonInvite(ServerNonInvite),
}

impl Machine {
    pub(super) fn poll_output(&mut self) -> Option<Output> {
        match self {
            Machine::ClientInvite(tx) => tx.poll_output(),
            Machine::ClientNonInvite(tx) => tx.poll_output(),
            Machine::ServerInvite(tx) => tx.poll_output(),
            Machine::ServerNonInvite(tx) => tx.poll_output(),
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        match self {
            Machine::ClientInvite(tx) => tx.poll_timeout(),
            Machine::ClientNonInvite(tx) => tx.poll_timeout(),
            Machine::ServerInvite(tx) => tx.poll_timeout(),
            Machine::ServerNonInvite(tx) => tx.poll_timeout(),
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        match self {
            Machine::ClientInvite(tx) => tx.handle_timeout(now),
            Machine::ClientNonInvite(tx) => tx.handle_timeout(now),
            Machine::ServerInvite(tx) => tx.handle_timeout(now),
            Machine::ServerNonInvite(tx) => tx.handle_timeout(now),
        }
    }

    pub(super) fn handle_transport_failed(&mut self, now: Instant) {
        match self {
            Machine::ClientInvite(tx) => tx.handle(now, client_invite::Input::TransportFailed),
            Machine::ClientNonInvite(tx) => {
                tx.handle(now, client_non_invite::Input::TransportFailed);
            }
            Machine::ServerInvite(tx) => tx.handle(now, server_invite::Input::TransportFailed),
            Machine::ServerNonInvite(tx) => {
                tx.handle(now, server_non_invite::Input::TransportFailed);
            }
        }
    }

    pub(super) fn is_terminated(&self) -> bool {
        match self {
            Machine::ClientInvite(tx) => tx.is_terminated(),
            Machine::ClientNonInvite(tx) => tx.is_terminated(),
            Machine::ServerInvite(tx) => tx.is_terminated(),
            Machine::ServerNonInvite(tx) => tx.is_terminated(),
        }
    }

    pub(super) fn is_client(&self) -> bool {
        matches!(self, Machine::ClientInvite(_) | Machine::ClientNonInvite(_))
    }

    pub(super) fn is_invite(&self) -> bool {
        matches!(self, Machine::ClientInvite(_) | Machine::ServerInvite(_))
    }
}
