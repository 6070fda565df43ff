//! One leg: a dialog, what it waits for, and when it gives up.

use super::early::Early;
use super::refer::{Referring, Subscription};
use super::reinvite::OurReinvite;
use super::reliable::Unpracked;
use super::{Hangup, LegId};
use crate::Credentials;
use crate::dialog::Dialog;
use crate::message::Request;
use crate::peer::Peer;
use crate::session_timer::SessionTimer;
use crate::transaction::TxId;
use bytes::Bytes;
use std::sync::Arc;
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
    /// We made the first INVITE, and so the Call-ID.
    pub(super) is_outbound: bool,
    /// Their INVITE, re-INVITE or UPDATE with an offer.
    pub(super) pending: Option<Incoming>,
    pub(super) unacked: Option<Unacked>,
    /// BYE is due as soon as the ACK of our first 2xx came.
    pub(super) hangup: Option<Hangup>,
    /// When the last provisional response is sent again (RFC 3261 §13.3.1.1).
    pub(super) refresh_at: Option<Instant>,
    /// A reliable provisional response of ours without its PRACK.
    pub(super) unpracked: Option<Box<Unpracked>>,
    /// RSeq of our last reliable provisional response.
    pub(super) rseq: u32,
    /// What came of our INVITE before its 2xx, by To tag.
    pub(super) early: Vec<Early>,
    /// The last session description that we sent: a refresh offers it again.
    pub(super) local_sdp: Bytes,
    /// The remote's Allow has UPDATE.
    pub(super) takes_update: bool,
    pub(super) session: Option<SessionTimer>,
    /// A refresh of ours waits for its response.
    pub(super) is_refreshing: bool,
    pub(super) ours: Option<Box<OurReinvite>>,
    pub(super) credentials: Option<Arc<Credentials>>,
    /// Challenges that we answered.
    pub(super) challenges: u8,
    /// Their REFER that waits for our response.
    pub(super) refer: Option<Box<Incoming>>,
    /// They hear what becomes of their REFER.
    pub(super) subscription: Option<Subscription>,
    /// Our REFER.
    pub(super) referring: Option<Referring>,
    /// Their Authorization had a stale nonce.
    pub(super) is_stale: bool,
    /// What stands in the index of deadlines.
    pub(super) deadline: Option<Instant>,
}

impl Leg {
    pub(super) fn new(id: LegId, state: State, dialog: Dialog) -> Self {
        Self {
            id,
            is_outbound: matches!(state, State::Calling { .. }),
            state,
            dialog,
            pending: None,
            unacked: None,
            hangup: None,
            refresh_at: None,
            unpracked: None,
            rseq: 0,
            early: Vec::new(),
            local_sdp: Bytes::new(),
            takes_update: false,
            session: None,
            is_refreshing: false,
            ours: None,
            credentials: None,
            challenges: 0,
            refer: None,
            subscription: None,
            referring: None,
            is_stale: false,
            deadline: None,
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let unacked = self.unacked.as_ref().map(|it| it.repeat_at.min(it.give_up_at));
        let unpracked = self.unpracked.as_ref().map(|it| it.repeat_at.min(it.give_up_at));
        let session = self.session.filter(|_| self.state == State::Confirmed).map(|it| it.at);
        let ours = self.ours.as_ref().and_then(|ours| ours.at);
        [unacked, self.refresh_at, unpracked, session, ours].into_iter().flatten().min()
    }

    /// The dialog with this remote tag: an early one, or the leg's own.
    pub(super) fn dialog_mut(&mut self, remote_tag: Option<&str>) -> &mut Dialog {
        let early = self.early.iter_mut().find(|it| it.dialog.remote_tag.as_deref() == remote_tag);
        early.map_or(&mut self.dialog, |early| &mut early.dialog)
    }
}
