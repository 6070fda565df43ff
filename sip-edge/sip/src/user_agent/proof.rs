//! Requests of ours that are sent again, because a response asks for proof of who we are, or for a
//! longer session interval (RFC 3261 §22.2, §22.3; RFC 4028 §7.3).

use super::leg::State;
use super::{LegId, UserAgent};
use crate::client_digest::Challenge;
use crate::compose;
use crate::header::Name;
use crate::message::{Message, Request, Response};
use crate::method::Method;
use crate::peer::Peer;
use crate::session_timer::seconds;
use crate::transaction::{Key, OurRequest};
use bytes::Bytes;
use std::time::Instant;

/// Times that the requests of one leg are sent again in a row.
const MAX_CHALLENGES: u8 = 8;

/// What is changed in a request that is sent again.
type Changes = Vec<(&'static str, String)>;

impl UserAgent {
    /// Sends the request of a 401, 407 or 422 again; false if there is no reason to expect more of
    /// that, and the response is the last word.
    pub(super) fn prove_or_lengthen(
        &mut self,
        now: Instant,
        leg: Option<LegId>,
        request: Option<(Bytes, Peer)>,
        response: &Response,
    ) -> bool {
        if !matches!(response.status, 401 | 407 | 422) {
            return false;
        }
        let (Some(id), Some((bytes, peer))) = (leg, request) else { return false };
        let Ok(Message::Request(sent)) = Message::parse(bytes.clone()) else { return false };
        let changes = match response.status {
            422 => self.lengthen(id, &sent, response),
            _ => self.prove(id, &sent, response),
        };
        let Some(changes) = changes else { return false };
        self.send_again(now, id, &sent, &bytes, peer, &changes)
    }

    fn prove(&mut self, id: LegId, sent: &Request, response: &Response) -> Option<Changes> {
        let (challenged, proof, name) = match response.status {
            401 => (Name::WwwAuthenticate, Name::Authorization, "Authorization"),
            _ => (Name::ProxyAuthenticate, Name::ProxyAuthorization, "Proxy-Authorization"),
        };
        let cnonce = format!("{:016x}", self.tokens.number());
        let leg = self.legs.get(&id)?;
        let credentials = leg.credentials.as_ref()?;
        let challenge = Challenge::choose(response.headers.all(challenged))?;
        let was_wrong = sent.headers.count(proof) > 0 && !challenge.is_stale;
        let answer = challenge.answer(credentials, sent.method_name(), sent.uri(), &cnonce);
        (!was_wrong).then(|| vec![(name, answer)])
    }

    /// Only a first INVITE: refreshes have their own way.
    fn lengthen(&self, id: LegId, sent: &Request, response: &Response) -> Option<Changes> {
        let state = &self.legs.get(&id)?.state;
        let least = seconds(response.headers.get(Name::MinSe))?;
        let asked = seconds(sent.headers.get(Name::SessionExpires))?;
        let is_first = matches!(state, State::Calling { .. } | State::Proceeding { .. });
        let is_longer = sent.method == Method::Invite && is_first && least > asked;
        let least = least.as_secs().to_string();
        is_longer.then(|| vec![("Session-Expires", least.clone()), ("Min-SE", least)])
    }

    fn send_again(
        &mut self,
        now: Instant,
        id: LegId,
        sent: &Request,
        bytes: &Bytes,
        peer: Peer,
        changes: &[(&str, String)],
    ) -> bool {
        let branch = self.tokens.branch();
        let Some(leg) = self.legs.get_mut(&id).filter(|leg| leg.challenges < MAX_CHALLENGES) else {
            return false;
        };
        let is_wanted = match (sent.method, &leg.state) {
            (Method::Invite, State::Calling { .. } | State::Proceeding { .. }) => true,
            (Method::Invite, State::Confirmed) => leg.ours.is_some(),
            (Method::Update | Method::Refer | Method::Notify, State::Confirmed) => true,
            (Method::Bye, State::Closing { .. }) => true,
            _ => false, // PRACK is of an early dialog; its response is repeated anyway.
        };
        if !is_wanted {
            return false;
        }
        leg.challenges += 1;
        let cseq = leg.dialog.next_cseq();
        let Some(bytes) = compose::again(bytes, &branch, cseq, changes) else { return false };
        if sent.method == Method::Invite && leg.state == State::Confirmed {
            self.open_reinvite(now, id, &branch, peer, bytes);
            return true;
        }
        let key = Key::client(&branch, sent.method_name());
        let request = OurRequest { key, method: sent.method, peer, bytes, leg: Some(id) };
        let tx = self.transactions.open_client(now, request, &mut self.outputs);
        if let Some(leg) = self.legs.get_mut(&id).filter(|_| sent.method == Method::Invite) {
            leg.state = State::Calling { tx };
            leg.early.clear();
        }
        true
    }
}
