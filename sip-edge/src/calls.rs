//! The calls of this process: the live ones with what the shell knows of them, and for a while the
//! ended ones.

use crate::events::Shown;
use crate::media::Media;
use call::{Call, LegNumber, View};
use sip::LegId;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A `call_id`.
pub(crate) type CallId = Arc<str>;

/// Ended calls that are kept at most; the oldest go first.
const ENDED_MAX: usize = 20_000;

/// A call and what belongs to it outside of its core.
pub(crate) struct Entry {
    pub(crate) call: Call,
    pub(crate) session_id: String,
    /// The media-relay that has the session.
    pub(crate) media: Media,
    /// The From header field of an inbound leg A; our From URI of an originated one.
    pub(crate) from: String,
    pub(crate) contact: String,
    /// Address that the INVITE came from; empty for an originated call.
    pub(crate) source: String,
    /// Leg 0 has called, and has not proved to be who it says.
    pub(crate) unproven: bool,
    /// From URI and display name of the legs that we call.
    pub(crate) our_uri: String,
    pub(crate) our_display: Option<String>,
    /// Max-Forwards of the legs that we call.
    pub(crate) max_forwards: u8,
    pub(crate) legs: BTreeMap<LegNumber, Slot>,
    pub(crate) sip_call_ids: Vec<(LegNumber, String)>,
    /// P-Asserted-Identity, Diversion and History-Info of leg A, for the legs that we call.
    pub(crate) history: Vec<(String, String)>,
    /// Further header fields of the INVITEs of the leg that a REFER wanted last.
    pub(crate) leg_headers: Option<(LegNumber, Vec<(String, String)>)>,
    /// When media-relay first answered.
    pub(crate) media_since: Option<Instant>,
    /// The Originate that made it, to know it again.
    pub(crate) originate: Option<proto::sip_edge::v1::OriginateRequest>,
    /// Of the state that was kept last.
    pub(crate) kept: Option<u64>,
    deadline: Option<Instant>,
}

/// Where a leg is at SIP.
#[derive(Clone, Debug)]
pub(crate) enum Slot {
    /// The next hop is being looked up.
    Resolving,
    Live(LegId),
    /// It is another call's until it has answered our re-INVITE.
    Borrowed(LegId),
}

impl Entry {
    pub(crate) fn new(call: Call, media: Media, from: String, our_uri: String) -> Self {
        Self {
            call,
            session_id: boot::new_id(),
            media,
            from,
            contact: String::new(),
            source: String::new(),
            unproven: false,
            our_uri,
            our_display: None,
            max_forwards: sip::MAX_FORWARDS,
            legs: BTreeMap::new(),
            sip_call_ids: Vec::new(),
            history: Vec::new(),
            leg_headers: None,
            media_since: None,
            originate: None,
            kept: None,
            deadline: None,
        }
    }

    /// Further header fields of an INVITE of ours.
    pub(crate) fn invite_headers(&self, number: LegNumber) -> Vec<(String, String)> {
        let own = self.leg_headers.iter().filter(|(leg, _)| *leg == number);
        self.history.iter().chain(own.flat_map(|(_, headers)| headers)).cloned().collect()
    }

    /// Keeps the Call-ID of a leg, and those of the legs that are shown.
    pub(crate) fn name_leg(&mut self, number: LegNumber, sip_call_id: String) {
        let legs = self.call.view().legs;
        self.sip_call_ids
            .retain(|(other, _)| *other != number && legs.iter().any(|leg| leg.number == *other));
        self.sip_call_ids.push((number, sip_call_id));
    }

    pub(crate) fn show(&self, view: View) -> Shown {
        let session = if view.has_media { self.session_id.clone() } else { String::new() };
        let (sip_call_ids, unproven) = (self.sip_call_ids.clone(), self.unproven);
        Shown { view, media_session_id: session, sip_call_ids, unproven }
    }
}

/// Entries are large: a map that grows must not move them.
pub(crate) struct Calls {
    live: HashMap<CallId, Box<Entry>>,
    /// When the timers of which call are due.
    deadlines: BTreeSet<(Instant, CallId)>,
    sessions: HashMap<String, CallId>,
    /// Live calls by the address that their INVITE came from.
    sources: HashMap<String, usize>,
    ended: HashMap<CallId, Box<Entry>>,
    /// In the order of their ends.
    ended_at: VecDeque<(Instant, CallId)>,
    retention: Duration,
}

impl Calls {
    pub(crate) fn new(retention: Duration) -> Self {
        Self {
            live: HashMap::new(),
            deadlines: BTreeSet::new(),
            sessions: HashMap::new(),
            sources: HashMap::new(),
            ended: HashMap::new(),
            ended_at: VecDeque::new(),
            retention,
        }
    }

    pub(crate) fn insert(&mut self, id: CallId, entry: Entry) {
        self.sessions.insert(entry.session_id.clone(), id.clone());
        if !entry.source.is_empty() {
            *self.sources.entry(entry.source.clone()).or_default() += 1;
        }
        self.live.insert(id, Box::new(entry));
    }

    pub(crate) fn live(&self) -> usize {
        self.live.len()
    }

    /// Live calls whose INVITE came from this address.
    pub(crate) fn of_source(&self, source: &str) -> usize {
        self.sources.get(source).copied().unwrap_or_default()
    }

    pub(crate) fn live_ids(&self) -> Vec<CallId> {
        self.live.keys().cloned().collect()
    }

    pub(crate) fn iter_live(&self) -> impl Iterator<Item = (&CallId, &Entry)> {
        self.live.iter().map(|(id, entry)| (id, &**entry))
    }

    pub(crate) fn iter_ended(&self) -> impl Iterator<Item = &Entry> {
        self.ended.values().map(|entry| &**entry)
    }

    /// A live call, or one that ended within the retention time.
    pub(crate) fn get_mut(&mut self, id: &str) -> Option<&mut Entry> {
        match self.live.get_mut(id) {
            Some(entry) => Some(entry),
            None => self.ended.get_mut(id).map(|entry| &mut **entry),
        }
    }

    pub(crate) fn get(&self, id: &str) -> Option<&Entry> {
        self.live.get(id).or_else(|| self.ended.get(id)).map(|entry| &**entry)
    }

    pub(crate) fn id_of(&self, id: &str) -> Option<CallId> {
        let live = self.live.get_key_value(id);
        live.or_else(|| self.ended.get_key_value(id)).map(|(id, _)| id.clone())
    }

    /// The live call that has this media session.
    pub(crate) fn of_session(&self, session_id: &str) -> Option<&CallId> {
        self.sessions.get(session_id)
    }

    /// After a call has changed: when its timers are due now, and whether it has ended.
    pub(crate) fn settle(&mut self, now: Instant, id: &CallId) {
        let Some(entry) = self.live.get_mut(id) else { return };
        let deadline = entry.call.poll_timeout();
        if let Some(old) = entry.deadline.take_if(|old| Some(*old) != deadline) {
            self.deadlines.remove(&(old, id.clone()));
        }
        match deadline {
            Some(at) if entry.deadline.is_none() => {
                entry.deadline = Some(at);
                self.deadlines.insert((at, id.clone()));
            }
            _ => (),
        }
        if entry.call.has_ended()
            && let Some(entry) = self.remove(id)
        {
            self.ended.insert(id.clone(), entry);
            self.ended_at.push_back((now, id.clone()));
            self.forget_ended(now);
        }
    }

    /// Takes a live call out, with what leads to it.
    pub(crate) fn remove(&mut self, id: &CallId) -> Option<Box<Entry>> {
        let entry = self.live.remove(id)?;
        self.sessions.remove(&entry.session_id);
        if let Some(at) = entry.deadline {
            self.deadlines.remove(&(at, id.clone()));
        }
        if let Some(count) = self.sources.get_mut(&entry.source) {
            *count -= 1;
            if *count == 0 {
                self.sources.remove(&entry.source);
            }
        }
        Some(entry)
    }

    pub(crate) fn is_live(&self, id: &str) -> bool {
        self.live.contains_key(id)
    }

    /// A call whose timers are due.
    pub(crate) fn take_due(&mut self, now: Instant) -> Option<CallId> {
        let (_, id) = self.deadlines.first().filter(|(at, _)| *at <= now)?.clone();
        self.deadlines.pop_first();
        if let Some(entry) = self.live.get_mut(&id) {
            entry.deadline = None;
        }
        Some(id)
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let forget = self.ended_at.front().map(|(at, _)| *at + self.retention);
        self.deadlines.first().map(|(at, _)| *at).into_iter().chain(forget).min()
    }

    /// Forgets the calls whose retention time is over, and those that are too many.
    pub(crate) fn forget_ended(&mut self, now: Instant) {
        while let Some((at, _)) = self.ended_at.front() {
            if *at + self.retention > now && self.ended_at.len() <= ENDED_MAX {
                return;
            }
            if let Some((_, id)) = self.ended_at.pop_front() {
                self.ended.remove(&id);
            }
        }
    }
}
