//! REGISTER, wholly answered here (RFC 3261 §10.3).

use super::leg::Incoming;
use super::{Event, Suspicion, UserAgent};
use crate::compose;
use crate::digest::Proof;
use crate::envelope::Envelope;
use crate::header::Name;
use crate::message::Request;
use crate::peer::Peer;
use crate::registrar::{Binding, Instance, MIN_EXPIRES_S, Order, Refusal, Sender};
use crate::uri::{self, SipUri};
use std::time::Instant;

impl UserAgent {
    /// Who sends this REGISTER. All others are challenged without a transaction, so that they cost
    /// no memory (RFC 3261 §26.3.2.4).
    pub(super) fn registering_user(
        &mut self,
        wall_unix_s: u64,
        source: Peer,
        peer: Peer,
        request: &Request,
    ) -> Option<String> {
        let values = request.headers.all(Name::Authorization);
        let stale = match self.authenticator.verify(wall_unix_s, "REGISTER", values) {
            Proof::Valid(user) => {
                self.judge(source, Suspicion::Proven);
                return Some(user);
            }
            Proof::Stale => true,
            Proof::Absent => {
                self.judge(source, Suspicion::Unproven);
                false
            }
            Proof::Wrong => {
                self.judge(source, Suspicion::WrongProof);
                false
            }
        };
        let challenges = self.authenticator.challenge(wall_unix_s, stale);
        self.respond_stateless(source, peer, request, 401, compose::phrase(401), |response| {
            for challenge in &challenges {
                response.header("WWW-Authenticate", challenge);
            }
        });
        None
    }

    pub(super) fn receive_register(
        &mut self,
        now: Instant,
        wall_unix_s: u64,
        incoming: &Incoming,
        envelope: &Envelope<'_>,
        user: String,
    ) {
        if self.refuse_extensions(now, incoming) {
            return;
        }
        let headers = &incoming.request.headers;
        let record = SipUri::parse(envelope.to.uri).ok().and_then(|uri| uri.user);
        if record.map(uri::unescape).as_deref() != Some(user.as_str()) {
            let why = "The Proven User Is Not That of the To URI";
            return self.refuse_because(now, incoming, 403, why);
        }
        let (call_id, cseq) = (envelope.call_id, envelope.cseq);
        let sender = Sender { peer: incoming.source, call_id, cseq };
        let order = Order::read(headers);
        let is_fetch = order == Ok(Order::Fetch);
        let applied =
            order.and_then(|order| self.registrar.apply(wall_unix_s, &user, &sender, order));
        match applied {
            Ok(()) => self.tell_bindings(now, wall_unix_s, incoming, user, is_fetch),
            Err(refusal) => self.refuse_register(now, incoming, &refusal),
        }
    }

    fn tell_bindings(
        &mut self,
        now: Instant,
        wall_unix_s: u64,
        incoming: &Incoming,
        user: String,
        is_fetch: bool,
    ) {
        let tag = self.tokens.tag();
        let mut response = self.compose(incoming, 200, Some(&tag));
        let bindings = self.registrar.bindings(wall_unix_s, &user);
        for Binding { contact, instance, .. } in &bindings {
            let left_s = contact.expires_unix_s.saturating_sub(wall_unix_s);
            let instance = instance.as_ref().map(Instance::to_string).unwrap_or_default();
            let value = format_args!("<{}>;expires={left_s}{instance}", contact.uri);
            response.header("Contact", value);
        }
        self.send(now, incoming, 200, response.empty());
        if !is_fetch {
            self.tell(Event::Registered { user, contacts: bindings.len() });
        }
    }

    fn refuse_register(&mut self, now: Instant, incoming: &Incoming, refusal: &Refusal) {
        let (tag, status) = (self.tokens.tag(), refusal.status());
        let mut response = self.compose(incoming, status, Some(&tag));
        if *refusal == Refusal::TooBrief {
            response.header("Min-Expires", MIN_EXPIRES_S);
        }
        response.warning(refusal);
        self.send(now, incoming, status, response.empty());
    }
}
