//! Legs that outlive this process: what is kept of one that stands, and how another process goes on
//! with it. A dialog is what both sides remember of it (RFC 3261 §12), so that nobody is asked.

use super::leg::{Leg, State};
use super::{LegId, UserAgent};
use crate::Credentials;
use crate::dialog::Dialog;
use crate::session_timer::{Agreed, Refresher, SessionTimer};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What another process needs to go on with a leg that stands. Transactions are not in it: what was
/// under way is repeated by the peer, or runs out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LegSnapshot {
    dialog: Dialog,
    is_outbound: bool,
    /// Text that media-relay made: what a refresh offers.
    local_sdp: String,
    takes_update: bool,
    session: Option<Session>,
    /// Who we are for challenges; the password is not kept.
    user: Option<String>,
}

/// An agreed session timer (RFC 4028), without the time of the next refresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Session {
    interval_s: u64,
    is_ours: bool,
}

impl LegSnapshot {
    /// The user as whom this leg answers challenges, if it does.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// Call-ID of the leg.
    pub fn call_id(&self) -> &str {
        &self.dialog.call_id
    }
}

/// Why a leg cannot be gone on with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the dialog of Call-ID {call_id:?} is here already")]
pub struct AlreadyHere {
    pub call_id: String,
}

impl UserAgent {
    /// What is to be kept of a leg; `None` if it does not stand, or is being hung up.
    pub fn snapshot(&self, leg: LegId) -> Option<LegSnapshot> {
        let leg = self.legs.get(&leg)?;
        if leg.state != State::Confirmed || leg.hangup.is_some() {
            return None;
        }
        let session = leg
            .session
            .map(|it| Session { interval_s: it.interval.as_secs(), is_ours: it.is_ours });
        Some(LegSnapshot {
            dialog: leg.dialog.clone(),
            is_outbound: leg.is_outbound,
            local_sdp: String::from_utf8_lossy(&leg.local_sdp).into_owned(),
            takes_update: leg.takes_update,
            session,
            user: leg.credentials.as_ref().map(|it| it.user.clone()),
        })
    }

    /// Whether a leg stands and nothing is under way on it: what another process goes on with is then all
    /// that there is.
    pub fn is_at_rest(&self, leg: LegId) -> bool {
        self.legs.get(&leg).is_some_and(|leg| {
            leg.state == State::Confirmed
                && leg.hangup.is_none()
                && leg.pending.is_none()
                && leg.unacked.is_none()
                && leg.ours.is_none()
                && leg.refer.is_none()
                && leg.subscription.is_none()
                && leg.referring.is_none()
                && !leg.is_refreshing
        })
    }

    /// Whether another process on another host can reach the peer of a leg as we do: by a proxy, or
    /// where its Contact says, over UDP and without NAT.
    pub fn is_reachable_elsewhere(&self, leg: LegId) -> bool {
        self.legs.get(&leg).is_some_and(|leg| leg.dialog.is_reachable_elsewhere())
    }

    /// Goes on with a leg of another process, as if its session had been refreshed just now. Limits
    /// do not hold it up: the call is there.
    ///
    /// # Errors
    /// If the leg is here already.
    pub fn restore(
        &mut self,
        now: Instant,
        snapshot: LegSnapshot,
        credentials: Option<Credentials>,
    ) -> Result<LegId, AlreadyHere> {
        let LegSnapshot { dialog, is_outbound, local_sdp, takes_update, session, user: _ } =
            snapshot;
        if self.by_tag.contains_key(&dialog.local_tag) {
            return Err(AlreadyHere { call_id: dialog.call_id });
        }
        let session = session.map(|Session { interval_s, is_ours }| {
            let refresher = if is_ours { Refresher::Uac } else { Refresher::Uas };
            let interval = Duration::from_secs(interval_s);
            let agreed = Agreed { interval, refresher, is_known_to_uac: true };
            SessionTimer::start(now, agreed, Refresher::Uac)
        });
        let id = self.next_leg_id();
        let dialog = dialog.restore(&self.config.advertised);
        let leg = Leg {
            is_outbound,
            local_sdp: Bytes::from(local_sdp),
            takes_update,
            session,
            credentials: credentials.map(Arc::new),
            ..Leg::new(id, State::Confirmed, dialog)
        };
        self.insert(leg);
        self.reschedule(id);
        Ok(id)
    }

    /// Refreshes the session now: the peer learns our Contact, and who is not there any more is found
    /// out (RFC 3311, RFC 4028 §10). Nothing happens if the leg does not stand, or does that already.
    pub fn refresh(&mut self, now: Instant, id: LegId) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        if leg.state != State::Confirmed || leg.is_refreshing {
            return;
        }
        leg.is_refreshing = true;
        match leg.takes_update {
            true => self.send_update(now, id),
            false => self.refresh_by_reinvite(now, id),
        }
    }

    /// Another process goes on with this leg: nobody is told, and nothing is sent.
    pub fn forget(&mut self, id: LegId) {
        let Some(leg) = self.legs.remove(&id) else { return };
        self.by_tag.remove(&leg.dialog.local_tag);
        self.leg_deadlines.shift(id, leg.deadline, None);
    }
}
