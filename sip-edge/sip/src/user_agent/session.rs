//! Session timers of legs, and the UPDATE that keeps a session alive or changes it
//! (RFC 4028, RFC 3311).

use super::leg::{Incoming, State};
use super::{End, Event, LegId, UserAgent};
use crate::body;
use crate::compose::Composer;
use crate::header::{Headers, Name};
use crate::message::Response;
use crate::method::Method;
use crate::param;
use crate::session_timer::{Agreed, Refresher, SessionTimer, Wish, seconds};
use crate::transaction::{Key, OurRequest};
use bytes::Bytes;
use std::time::{Duration, Instant};

/// After a refresh that was refused for a passing reason, the next one is tried not sooner.
const RETRY_REFRESH: Duration = Duration::from_secs(2);
/// Longest wait that a peer can impose on a refresh by Retry-After.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(30);

impl UserAgent {
    pub(super) fn wish(&self) -> Wish {
        let least = self.config.min_session_interval;
        let interval = self.config.session_interval.map(|interval| interval.max(least));
        Wish { interval, least }
    }

    /// Refuses a request whose session interval is too small; true if that was so.
    pub(super) fn refuse_interval(&mut self, now: Instant, incoming: &Incoming) -> bool {
        let is_too_small = Agreed::of_request(&incoming.request.headers, self.wish()).is_err();
        if is_too_small {
            let tag = self.tokens.tag();
            let mut response = self.compose(incoming, 422, Some(&tag));
            response.header("Min-SE", self.config.min_session_interval.as_secs());
            self.send(now, incoming, 422, response.empty());
        }
        is_too_small
    }

    /// Puts into a 2xx what it agrees to, and starts the timer of the leg.
    pub(super) fn agree_as_uas(
        &mut self,
        now: Instant,
        id: LegId,
        request: &Headers,
        response: &mut Composer,
    ) {
        let agreed = Agreed::of_request(request, self.wish()).ok().flatten();
        let Some(leg) = self.legs.get_mut(&id) else { return };
        leg.takes_update = takes_update(request, leg.takes_update);
        leg.session = agreed.map(|it| SessionTimer::start(now, it, Refresher::Uas));
        let Some(agreed) = agreed else { return };
        if agreed.refresher == Refresher::Uac {
            response.header("Require", "timer");
        }
        if agreed.is_known_to_uac {
            response.header("Session-Expires", agreed.header());
        }
    }

    /// Starts the timer of the leg from a 2xx to our INVITE or UPDATE.
    pub(super) fn agree_as_uac(&mut self, now: Instant, id: LegId, response: &Headers) {
        let wish = self.wish();
        let Some(leg) = self.legs.get_mut(&id) else { return };
        // What was agreed before goes on if the peer does not repeat it.
        let interval = leg.session.map(|session| session.interval).or(wish.interval);
        let agreed = Agreed::of_response(response, Wish { interval, ..wish });
        leg.takes_update = takes_update(response, leg.takes_update);
        leg.session = agreed.map(|it| SessionTimer::start(now, it, Refresher::Uac));
        leg.is_refreshing = false;
        self.reschedule(id);
    }

    /// Headers of an INVITE or UPDATE of ours inside the dialog.
    pub(super) fn ask_for_session(&self, id: LegId, request: &mut Composer) {
        let Some(session) = self.legs.get(&id).and_then(|leg| leg.session) else { return };
        let refresher = if session.is_ours { "uac" } else { "uas" };
        let seconds = session.interval.as_secs();
        request.header("Session-Expires", format_args!("{seconds};refresher={refresher}"));
        request.header("Min-SE", self.config.min_session_interval.as_secs());
    }

    /// The session timer of a leg that stands has fired.
    pub(super) fn session_is_due(&mut self, now: Instant, id: LegId) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let Some(session) = &mut leg.session else { return };
        if !session.is_ours || leg.is_refreshing {
            return self.peer_is_gone(now, id);
        }
        leg.is_refreshing = true;
        session.at = now + session.interval / 2; // The end of the session.
        match leg.takes_update {
            true => self.send_update(now, id),
            false => self.refresh_by_reinvite(now, id),
        }
    }

    /// The dialog is dead: BYE for form's sake, and the end (RFC 3261 §12.2.1.2, RFC 4028 §10).
    pub(super) fn peer_is_gone(&mut self, now: Instant, id: LegId) {
        let Some(leg) = self.legs.get(&id) else { return };
        let mut dialog = leg.dialog.clone();
        self.finish_pending(now, id, 487, |_| ());
        self.reject_refer(now, id, 487);
        self.send_bye(now, &mut dialog, None, None);
        self.end(id, End::TimedOut);
    }

    /// The connection broke under our re-INVITE or UPDATE: it goes another way, if there is one.
    pub(super) fn refresh_another_way(&mut self, now: Instant, id: LegId) -> bool {
        let Some(leg) = self.legs.get(&id) else { return false };
        let (broken, is_reinvite) = (leg.dialog.peer, leg.ours.is_some());
        let before = leg.dialog.remote_target().to_owned();
        let is_other = self.turn_from(id, broken);
        self.tell_of_move(id, &before);
        if is_other && is_reinvite {
            self.send_reinvite(now, id);
        } else if is_other {
            self.send_update(now, id);
        }
        is_other
    }

    pub(super) fn send_update(&mut self, now: Instant, id: LegId) {
        let branch = self.tokens.branch();
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let cseq = leg.dialog.next_cseq();
        let (mut update, peer) =
            leg.dialog.request("UPDATE", cseq, &branch, &self.config.advertised);
        update.header("Contact", self.contact(peer)).supported();
        self.ask_for_session(id, &mut update);
        update.header("User-Agent", &self.config.user_agent);
        let key = Key::client(&branch, "UPDATE");
        let bytes = update.empty();
        let request = OurRequest { key, method: Method::Update, peer, bytes, leg: Some(id) };
        self.transactions.open_client(now, request, &mut self.outputs);
    }

    pub(super) fn update_answered(&mut self, now: Instant, id: LegId, response: &Response) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        if leg.state != State::Confirmed {
            return;
        }
        match response.status {
            200..=299 => {
                let before = leg.dialog.remote_target().to_owned();
                leg.dialog.refresh_target(&response.headers);
                self.agree_as_uac(now, id, &response.headers);
                self.tell_of_move(id, &before);
            }
            405 | 501 => {
                leg.takes_update = false;
                self.refresh_by_reinvite(now, id);
            }
            408 | 481 => self.peer_is_gone(now, id),
            _ => self.refresh_refused(now, id, response),
        }
    }

    pub(super) fn tell_of_move(&mut self, id: LegId, before: &str) {
        let target = self.legs.get(&id).map(|leg| leg.dialog.remote_target());
        if target.is_some_and(|target| target != before) {
            self.tell(Event::Moved { leg: id });
        }
    }

    /// The refresh is tried again; a longer interval is taken over (RFC 4028 §7.3).
    pub(super) fn refresh_refused(&mut self, now: Instant, id: LegId, response: &Response) {
        let asked = seconds(response.headers.get(Name::RetryAfter));
        let wait = asked.unwrap_or_default().clamp(RETRY_REFRESH, MAX_RETRY_AFTER);
        let Some(leg) = self.legs.get_mut(&id) else { return };
        leg.is_refreshing = false;
        if let Some(session) = &mut leg.session {
            let least = seconds(response.headers.get(Name::MinSe)).unwrap_or_default();
            session.interval = session.interval.max(least);
            session.at = now + wait;
        }
        self.reschedule(id);
    }

    pub(super) fn receive_update(&mut self, now: Instant, id: LegId, update: Incoming) {
        if self.refuse_extensions(now, &update) || self.refuse_interval(now, &update) {
            return;
        }
        let Ok(sdp) = body::sdp(&update.request.headers, &update.request.body) else {
            return self.refuse(now, &update, 415);
        };
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let is_ours = leg.ours.as_ref().is_some_and(|ours| ours.tx.is_some());
        match (sdp, leg.pending.is_some(), leg.state == State::Confirmed) {
            (None, ..) => self.refresh_by_update(now, id, &update),
            (Some(_), true, _) => self.refuse_for_a_while(now, &update), // RFC 3311 §5.2
            (Some(_), _, false) => self.refuse(now, &update, 491),
            (Some(_), ..) if is_ours || leg.unacked.is_some() => self.refuse(now, &update, 491),
            (Some(sdp), ..) => {
                leg.dialog.refresh_target(&update.request.headers);
                self.transactions.set_leg(update.tx, id);
                leg.pending = Some(update);
                self.tell(Event::Reinvited { leg: id, sdp: Some(sdp) });
            }
        }
    }

    /// An UPDATE without offer: a sign of life, and perhaps a new Contact.
    fn refresh_by_update(&mut self, now: Instant, id: LegId, update: &Incoming) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let tag =
            crate::NameAddr::parse(update.request.headers.get(Name::From).unwrap_or_default());
        let tag = tag.and_then(|from| from.tag());
        let before = leg.dialog.remote_target().to_owned();
        leg.dialog_mut(tag).refresh_target(&update.request.headers);
        let is_confirmed = leg.state == State::Confirmed;
        self.tell_of_move(id, &before);
        let mut response = self.compose(update, 200, None);
        response.header("Contact", self.contact(update.source)).allow().supported();
        if is_confirmed {
            self.agree_as_uas(now, id, &update.request.headers, &mut response);
        }
        self.send(now, update, 200, response.empty());
        self.reschedule(id);
    }

    /// Our 200 to an UPDATE with an offer.
    pub(super) fn answer_update(
        &mut self,
        now: Instant,
        id: LegId,
        update: &Incoming,
        sdp: &Bytes,
    ) {
        let mut response = self.compose(update, 200, None);
        response.header("Contact", self.contact(update.source)).allow().supported();
        self.agree_as_uas(now, id, &update.request.headers, &mut response);
        self.send(now, update, 200, response.sdp(sdp));
        if let Some(leg) = self.legs.get_mut(&id) {
            leg.pending = None;
            leg.local_sdp = sdp.clone();
        }
        self.reschedule(id);
        self.tell(Event::Acknowledged { leg: id, sdp: None });
    }
}

/// Whether the peer takes UPDATE, by its Allow if it has one.
fn takes_update(headers: &Headers, before: bool) -> bool {
    if headers.count(Name::Allow) == 0 {
        return before;
    }
    let mut methods = headers.all(Name::Allow).flat_map(|text| param::split(text, b','));
    methods.any(|method| method.trim() == "UPDATE")
}
