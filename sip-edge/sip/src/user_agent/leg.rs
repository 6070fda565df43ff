//! One leg: a dialog, what it waits for, and when it gives up.

use super::{Hangup, LegId};
use crate::dialog::Dialog;
use crate::message::Request;
use crate::peer::Peer;
use crate::transaction::TxId;
use bytes::Bytes;
use std::time::{Duration, Instant};

/// Where a leg stands. A leg that has ended is gone, so there is no state for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Their INVITE waits for our final response.
    Invited,
    /// Our INVITE has no response yet.
    Calling {
        tx: TxId,
    },
    /// Our INVITE has a provisional response.
    Proceeding {
        tx: TxId,
    },
    /// To be cancelled as soon as a provisional response allows it (RFC 3261 §9.1).
    CancelWaiting {
        tx: TxId,
        reason: Option<String>,
    },
    /// CANCEL is sent, the INVITE's final response awaited; the reason is for a BYE, if that is 2xx.
    Cancelling {
        reason: Option<String>,
    },
    Confirmed,
    /// Our BYE is sent, its final response awaited; the reason is for sending it another way.
    Closing {
        reason: Option<String>,
    },
}

/// A request that waits for our response.
#[derive(Clone, Debug)]
pub(super) struct Incoming {
    pub(super) tx: TxId,
    pub(super) request: Request,
    pub(super) source: Peer,
}

/// Our 2xx without its ACK (RFC 3261 §13.3.1.4): repeated by us, not by the transaction.
#[derive(Clone, Debug)]
pub(super) struct Unacked {
    pub(super) cseq: u32,
    pub(super) peer: Peer,
    pub(super) response: Bytes,
    /// Whether it answers the first INVITE, so that BYE must wait for the ACK (RFC 3261 §15).
    pub(super) is_initial: bool,
    pub(super) interval: Duration,
    pub(super) repeat_at: Instant,
    pub(super) give_up_at: Instant,
}

#[derive(Clone, Debug)]
pub(super) struct Leg {
    pub(super) id: LegId,
    pub(super) state: State,
    pub(super) dialog: Dialog,
    /// Their INVITE or re-INVITE.
    pub(super) pending: Option<Incoming>,
    pub(super) unacked: Option<Unacked>,
    /// BYE is due as soon as the ACK of our first 2xx came.
    pub(super) hangup: Option<Hangup>,
    /// When the last provisional response is sent again (RFC 3261 §13.3.1.1).
    pub(super) refresh_at: Option<Instant>,
    /// Their Authorization had a stale nonce.
    pub(super) is_stale: bool,
    /// What stands in the index of deadlines.
    pub(super) deadline: Option<Instant>,
}

impl Leg {
    pub(super) fn new(id: LegId, state: State, dialog: Dialog) -> Self {
        Self {
            id,
            state,
            dialog,
            pending: None,
            unacked: None,
            hangup: None,
            refresh_at: None,
            is_stale: false,
            deadline: None,
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let unacked = self.unacked.as_ref().map(|it| it.repeat_at.min(it.give_up_at));
        [unacked, self.refresh_at].into_iter().flatten().min()
    }
}
