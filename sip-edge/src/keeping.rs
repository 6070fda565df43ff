//! Keeping calls for when this process dies, going on with those of one that has died, and letting go
//! of those that another sip-edge has taken.
//!
//! A call is kept from our 200 to its leg A on, at once, and some milliseconds after each change of it
//! from then on, so that changes that belong together are written once. Some things wait until it is written, for a while, as
//! nobody could repeat them: a task is scheduled, so that it is made once; queue-svc is told that an
//! agent has answered, so that the caller is not put in line again; and a client is told that its call
//! is up, bridged, transferred or in another plan.

use crate::calls::{CallId, Entry, Slot};
use crate::edge::{Done, Edge, now};
use crate::media::Media;
use crate::metrics;
use crate::peers::Peers;
use crate::requests::{HandedOver, Unmet, Written};
use crate::snapshots::{Kept, Record, Snapshots};
use call::{
    Call, Cause, Failure, FailureKind, Input, LegEnd, LegNumber, LegSignal, Output, Refusal,
};
use futures::future::join_all;
use proto::sip_edge::v1::OriginateRequest;
use sip::{Credentials, Hangup, LegId};
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// How long changes are gathered before they are written.
const GATHER: Duration = Duration::from_millis(25);
/// How long NATS may hold up what waits until a call is written.
const WAIT_MAX: Duration = Duration::from_millis(500);
/// How long a call that was let go of waits to be taken.
const TAKE_WITHIN: Duration = Duration::from_secs(5);
/// Media-relays beside our own whose sessions we go on with.
const RELAYS_MAX: usize = 64;

/// Calls that have changed since they were kept.
pub(crate) struct Keeping {
    snapshots: Snapshots,
    pub(crate) peers: Peers,
    changed: HashSet<CallId>,
    due: Option<Instant>,
}

impl Keeping {
    pub(crate) fn new(snapshots: Snapshots, peers: Peers) -> Self {
        Self { snapshots, peers, changed: HashSet::new(), due: None }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }

    /// Whether somebody, perhaps another sip-edge, goes on with the call; also if nobody knows.
    pub(crate) fn is_kept(
        &self,
        call_id: String,
    ) -> impl Future<Output = bool> + Send + 'static + use<> {
        let snapshots = self.snapshots.clone();
        async move {
            match snapshots.owner_of(&call_id).await {
                Ok(owner) => owner.is_some(),
                Err(e) => {
                    warn!(call_id, "failed to {e:#}");
                    true
                }
            }
        }
    }
}

impl Edge {
    /// A call may have changed.
    pub(crate) fn note(&mut self, id: &CallId) {
        if self.calls.is_live(id) {
            let is_kept = self.calls.get(id).is_some_and(|entry| entry.kept.is_some());
            if !is_kept && self.keep_now(id).is_some() {
                return; // Its first: who was answered a moment ago must not be lost.
            }
            let keeping = &mut self.keeping;
            keeping.changed.insert(id.clone());
            keeping.due.get_or_insert_with(|| Instant::now() + GATHER);
        } else if self.calls.get(id).is_some() {
            let keeping = &mut self.keeping;
            keeping.changed.remove(id);
            keeping.snapshots.delete(id); // It has ended.
        }
    }

    /// Keeps all that has changed, if it is time.
    pub(crate) fn keep_due(&mut self, at: Instant) {
        if self.keeping.due.take_if(|due| *due <= at).is_some() {
            for id in std::mem::take(&mut self.keeping.changed) {
                self.keep_now(&id);
            }
        }
    }

    /// Keeps the call as it is now. The receiver hears when it is written; `None` if it is, or is not
    /// to be kept.
    pub(crate) fn keep_now(&mut self, id: &CallId) -> Option<Written> {
        let entry = self.calls.get(id).filter(|entry| !entry.call.has_ended())?;
        let call = entry.call.snapshot(now())?;
        let live = entry.legs.iter().filter_map(|(number, slot)| match slot {
            Slot::Live(leg) => Some((*number, self.user_agent.snapshot(*leg)?)),
            Slot::Resolving | Slot::Borrowed(_) => None,
        });
        let kept = Kept { call, legs: live.collect() };
        let json = match Record::new(self.keeping.snapshots.us(), kept, entry).write() {
            Ok(json) => json,
            Err(e) => {
                metrics::snapshot_too_large();
                warn!(call_id = %id, "failed to keep the call: {e:#}");
                if let Some(entry) = self.calls.get_mut(id) {
                    entry.kept.get_or_insert(0); // Not at once again.
                }
                return None;
            }
        };
        let mut hasher = DefaultHasher::new();
        json.hash(&mut hasher);
        let hash = Some(hasher.finish());
        let entry = self.calls.get_mut(id)?;
        let is_news = std::mem::replace(&mut entry.kept, hash) != hash;
        match is_news {
            true => Some(self.keeping.snapshots.put(id, json)),
            false => self.keeping.snapshots.unwritten(id),
        }
    }

    /// Keeps a call before it is handed over, as if it had never been: that NATS takes it shows that it
    /// is there.
    ///
    /// # Errors
    /// If the call cannot go on elsewhere.
    pub(crate) fn keep(&mut self, call_id: &str) -> Result<Option<Written>, Unmet> {
        let id = self.movable(call_id)?;
        if let Some(entry) = self.calls.get_mut(&id) {
            entry.kept = None;
        }
        Ok(self.keep_now(&id))
    }

    /// Lets go of a call that is kept as it is: whoever wants it takes it from its entry. If nobody has
    /// after [`TAKE_WITHIN`], it goes on here, like one of a dead sip-edge: it is never nobody's.
    ///
    /// # Errors
    /// If the call cannot go on elsewhere.
    pub(crate) fn let_go_of(&mut self, call_id: &str) -> Result<HandedOver, Unmet> {
        let id = self.movable(call_id)?;
        if let Some(written) = self.keep_now(&id) {
            return Ok(HandedOver::NotYet(written));
        }
        let snapshots = self.keeping.snapshots.clone();
        let revision = snapshots.revision(&id).ok_or(Unmet::Underway)?;
        info!(call_id = %id, revision, "leaving the call to another sip-edge");
        self.keeping.changed.remove(&id);
        snapshots.forget(&id);
        self.leave(&id);
        let done = self.done.clone();
        tokio::spawn(async move {
            tokio::time::sleep(TAKE_WITHIN).await;
            if let Some(record) = snapshots.take_at(&id, revision).await {
                warn!(call_id = %id, "no other sip-edge has taken the call");
                let _ = done.send(Done::CallTaken(Box::new(record))).await; // The process is ending.
            }
        });
        Ok(HandedOver::At(revision))
    }

    /// A call of which another sip-edge loses nothing: all its legs stand, nothing is under way, and its
    /// phones can be reached from elsewhere.
    fn movable(&self, call_id: &str) -> Result<CallId, Unmet> {
        let id = self.calls.id_of(call_id).ok_or(Unmet::NoSuchCall)?;
        let entry = self.calls.get(&id).ok_or(Unmet::NoSuchCall)?;
        if entry.call.has_ended() || entry.call.snapshot(now()).is_none() {
            return Err(Unmet::Refused(Refusal::NotAnsweredYet));
        }
        let mut bound = false;
        for slot in entry.legs.values() {
            let Slot::Live(leg) = slot else { return Err(Unmet::Underway) };
            if self.borrowed.contains_key(leg) || !self.user_agent.is_at_rest(*leg) {
                return Err(Unmet::Underway);
            }
            bound |= !self.user_agent.is_reachable_elsewhere(*leg);
        }
        match bound {
            _ if !self.chains.is_idle(&id) => Err(Unmet::Underway),
            true => Err(Unmet::Bound),
            false => Ok(id),
        }
    }

    /// Goes on with a call of another sip-edge, which is dead or has left it to us.
    pub(crate) fn take_over(&mut self, record: Record) {
        let (call, session_id) = (record.call_id(), record.session_id.clone());
        let url = record.media_relay.clone();
        let is_live = self.calls.is_live(&call);
        if is_live || self.calls.get(&call).is_some_and(|it| it.session_id == session_id) {
            if !is_live {
                self.keeping.snapshots.delete(&call); // It has come before, and ended.
            }
            return;
        }
        self.restore(record);
        if let Some(entry) = self.calls.get_mut(&call) {
            entry.media_since = None; // Until media-relay counts the session as ours.
        }
        let (media, done) = (self.relay(&call, &url), self.done.clone());
        tokio::spawn(async move {
            let adopted = media.adopt(session_id).await;
            let is_missing = |e: &Failure| e.kind == FailureKind::NotFound;
            let is_there = !adopted.as_ref().is_err_and(is_missing);
            if let Err(e) = adopted {
                warn!(call_id = %call, "failed to adopt the media session: {e}");
            }
            let _ = done.send(Done::Adopted { call, is_there }).await; // The process is ending.
        });
    }

    /// From now on media-relay's list of our sessions has that of the call, or never will.
    pub(crate) fn handle_adopted(&mut self, id: &CallId, is_there: bool) {
        match self.calls.get_mut(id) {
            Some(entry) if is_there => entry.media_since = Some(Instant::now()),
            _ => self.feed(id, Input::MediaLost),
        }
    }

    /// Goes on with a call that another process had, and lets its phones know where we are.
    pub(crate) fn restore(&mut self, record: Record) {
        let (id, at) = (record.call_id(), Instant::now());
        if self.calls.is_live(&id) {
            return;
        }
        info!(call_id = %id, "going on with a call");
        metrics::call_restored();
        let wanted: Vec<LegNumber> = record.call.legs().collect();
        let legs = record.legs.clone();
        self.insert_restored(id.clone(), record);
        let mut missing: HashSet<_> = wanted.iter().copied().collect();
        for (number, snapshot) in legs {
            let credentials = snapshot.user().and_then(|user| self.credentials(user));
            match self.user_agent.restore(at, snapshot, credentials) {
                Ok(leg) if missing.remove(&number) => self.seat(&id, number, leg),
                Ok(leg) => self.user_agent.hangup(at, leg, unwanted()),
                Err(e) => warn!(call_id = %id, "failed to go on with a leg: {e}"),
            }
        }
        for leg in missing {
            let signal = LegSignal::Ended(LegEnd::TransportFailed);
            self.feed(&id, Input::Leg { leg, signal });
        }
    }

    fn insert_restored(&mut self, id: CallId, record: Record) {
        let call = Call::restore(now(), record.call);
        let originate = record.originate.as_deref();
        let originate = originate.map(proto::json::kept_from_json::<OriginateRequest>);
        let media = self.relay(&id, &record.media_relay);
        let mut entry = Entry::new(call, media, record.from, record.our_uri);
        entry.session_id = record.session_id;
        entry.contact = record.contact;
        entry.source = record.source;
        entry.our_display = record.our_display;
        entry.max_forwards = record.max_forwards;
        entry.sip_call_ids = record.sip_call_ids;
        entry.history = record.history;
        entry.media_since = Some(Instant::now());
        entry.originate = originate.and_then(Result::ok);
        self.calls.insert(id.clone(), entry);
        self.mark(id);
    }

    /// The media-relay of a call, at this URL; one that is not ours is watched from now on.
    pub(crate) fn relay(&mut self, call_id: &str, url: &str) -> Media {
        let own = &self.services.media;
        if *own.url == *url {
            return own.clone();
        }
        if let Some(relay) = self.relays.get(url) {
            return relay.clone();
        }
        match own.at(url) {
            Ok(relay) if self.relays.len() < RELAYS_MAX => {
                self.relays.insert(url.into(), relay.clone());
                tokio::spawn(relay.clone().watch(self.watched.clone()));
                relay
            }
            Ok(_) => own.clone(), // It has no such session, and says so.
            Err(e) => {
                warn!(call_id, url, "failed to use the media-relay of the call: {e:#}");
                own.clone()
            }
        }
    }

    fn seat(&mut self, id: &CallId, number: LegNumber, leg: LegId) {
        if let Some(entry) = self.calls.get_mut(id) {
            entry.legs.insert(number, Slot::Live(leg));
        }
        self.legs.insert(leg, (id.clone(), number));
        self.user_agent.refresh(Instant::now(), leg);
    }

    /// What we answer challenges of a trunk with.
    fn credentials(&self, user: &str) -> Option<Credentials> {
        let trunks = self.settings.dial_plan.trunks();
        let mut known = trunks.iter().filter_map(|trunk| trunk.credentials.clone());
        known.find(|it| it.user == user)
    }

    /// Another sip-edge has taken the call over.
    pub(crate) fn lose(&mut self, id: &CallId) {
        self.keeping.changed.remove(id);
        self.keeping.snapshots.forget(id);
        if self.calls.is_live(id) {
            warn!(call_id = %id, "another sip-edge has taken the call over");
            metrics::call_lost();
            self.leave(id);
        }
    }

    /// Leaves all calls that can be kept to the other sip-edges, because the process ends. The future
    /// is done when they can take them.
    pub(crate) fn hand_over(&mut self) -> impl Future<Output = ()> + Send + 'static + use<> {
        let mut written = Vec::new();
        for id in self.calls.live_ids() {
            let Some(entry) = self.calls.get_mut(&id) else { continue };
            let is_kept = entry.call.snapshot(now()).is_some();
            entry.kept = None;
            if let Some(waiting) = self.keep_now(&id).filter(|_| is_kept) {
                info!(call_id = %id, "leaving the call to another sip-edge");
                written.push(waiting);
                self.keeping.changed.remove(&id);
                self.leave(&id);
            }
        }
        async move {
            let written = tokio::time::timeout(WAIT_MAX, join_all(written)).await;
            if written.is_err() {
                warn!("NATS has not taken all calls in {WAIT_MAX:?}");
            }
        }
    }

    /// The call goes on elsewhere: here it is over, and nobody is told but those who wait.
    fn leave(&mut self, id: &CallId) {
        self.feed(id, Input::ShutDown);
        while let Some(output) = self.calls.get_mut(id).and_then(|it| it.call.poll_output()) {
            if let Output::Answer { request, .. } = output {
                self.waiting.refuse(request, Unmet::Moved);
            }
        }
        let Some(entry) = self.calls.remove(id) else { return };
        for (number, slot) in entry.legs {
            match slot {
                Slot::Live(leg) => {
                    self.tell_borrower(leg, LegSignal::Ended(LegEnd::TransportFailed));
                    for leg in self.branches(id, number, leg) {
                        self.let_go(leg);
                    }
                }
                Slot::Borrowed(leg) => self.give_back(leg, 480),
                Slot::Resolving => (),
            }
        }
    }

    /// A leg that stands is the other sip-edge's; it knows nothing of one that still rings.
    fn let_go(&mut self, leg: LegId) {
        self.forget_others(leg);
        self.legs.remove(&leg);
        match self.user_agent.snapshot(leg) {
            Some(_) => self.user_agent.forget(leg),
            None => self.user_agent.hangup(Instant::now(), leg, unwanted()),
        }
    }
}

/// How a leg is ended that stood, but that its call does not go on with.
fn unwanted() -> Hangup {
    let cause = Cause::NormalTemporaryFailure;
    Hangup { reason: Some(cause.reason()), unanswered_status: cause.status() }
}

/// Does the work once the call is written, or NATS has had its time.
pub(crate) async fn after<T>(written: Option<Written>, work: impl Future<Output = T>) -> T {
    if let Some(written) = written {
        let _ = tokio::time::timeout(WAIT_MAX, written).await; // Calls do not depend on NATS.
    }
    work.await
}
