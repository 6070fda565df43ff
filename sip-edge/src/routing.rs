//! From an INVITE to a call: the dial plan, and who is refused before there is a call.

use crate::calls::{CallId, Entry, Slot};
use crate::dial_plan::{Match, Subject};
use crate::edge::{Done, Edge, unix_s};
use crate::metrics;
use crate::target::{SipUri, display_name};
use call::{Call, Facts, LegNumber, Now};
use sip::{Invited, LegId, Rejection, Suspicion};
use std::time::{Duration, Instant};
use tracing::{debug, info, warn};

/// When a caller who is refused for a passing reason may try again.
pub(crate) const RETRY_AFTER_S: u32 = 5;
/// How long queue-svc may take to list its queues.
const QUEUES_TIMEOUT: Duration = Duration::from_secs(3);

/// An INVITE whose route depends on queue-svc, and what queue-svc said.
pub(crate) struct Checked {
    /// When the INVITE came.
    arrived: Now,
    leg: LegId,
    invite: Box<Invited>,
    /// When queue-svc was asked.
    asked: Instant,
    /// Whether the request URI is that of a queue; `None` if queue-svc did not answer.
    queue_uri: Option<bool>,
}

impl Edge {
    /// Finds the route of an INVITE that arrived then; `queue_uri` once queue-svc has been asked.
    pub(crate) fn handle_invited(
        &mut self,
        arrived: Now,
        leg: LegId,
        invite: Invited,
        queue_uri: Option<bool>,
    ) {
        if self.draining {
            return self.refuse_invite(leg, 503, "draining");
        }
        if let Some(place) = invite.replaces {
            return self.pick_up(leg, place, invite);
        }
        if self.calls.live() >= self.settings.max_calls {
            return self.refuse_invite(leg, 503, "max-calls");
        }
        let ip = invite.source.addr.ip();
        let max = self.settings.max_source_calls;
        if !self.defence.is_trusted(ip) && self.calls.of_source(&ip.to_string()) >= max {
            return self.refuse_invite(leg, 503, "source-calls");
        }
        let dial_plan = self.settings.dial_plan.clone();
        let subject = Subject {
            request_uri: &invite.request_uri,
            source: invite.source.addr.ip(),
            authenticated: invite.user.is_some(),
            queue_uri,
        };
        match dial_plan.find(subject) {
            Match::Route(route) => {
                self.begin_call(arrived, leg, invite, &route.name, route.plan.clone());
            }
            Match::Challenge => self.user_agent.challenge(Instant::now(), unix_s(), leg),
            Match::AskQueues if self.known_queues.has(Instant::now(), &invite.request_uri) => {
                self.handle_invited(arrived, leg, invite, Some(true));
            }
            Match::AskQueues => self.ask_queues(arrived, leg, invite),
            Match::Nothing => {
                self.judge(invite.source, Suspicion::NoSuchPlace);
                self.refuse_invite(leg, 404, "no-route");
            }
        }
    }

    fn begin_call(
        &mut self,
        arrived: Now,
        leg: LegId,
        invite: Invited,
        route: &str,
        plan: call::Plan,
    ) {
        let id = CallId::from(boot::new_id());
        info!(call_id = %id, route, sip_call_id = invite.call_id, "call began");
        debug!(call_id = %id, from = invite.from_uri, to = invite.request_uri, "call began");
        metrics::call_began();
        let facts = Facts {
            call_id: id.to_string(),
            from_uri: invite.from_uri.clone(),
            to_uri: invite.request_uri,
            route: route.to_owned(),
        };
        let call = Call::inbound(arrived, facts, plan, invite.sdp);
        let our_uri = self.own_uri(&invite.from_uri);
        let mut entry = Entry::new(call, self.services.media.clone(), invite.from, our_uri);
        entry.our_display = display_name(&entry.from);
        entry.max_forwards = invite.max_forwards.saturating_sub(1);
        entry.contact = invite.contact.unwrap_or_default();
        entry.source = invite.source.addr.ip().to_string();
        entry.unproven = !self.defence.is_trusted(invite.source.addr.ip())
            && !is_proved(invite.user.as_deref(), &invite.from_uri);
        entry.sip_call_ids.push((LegNumber(0), invite.call_id));
        entry.history = invite.history;
        entry.legs.insert(LegNumber(0), Slot::Live(leg));
        self.legs.insert(leg, (id.clone(), LegNumber(0)));
        self.calls.insert(id.clone(), entry);
        self.mark(id);
    }

    /// The user of `uri` at our own address: From of the legs that we call for somebody.
    pub(crate) fn own_uri(&self, uri: &str) -> String {
        let advertised = self.settings.advertised.first();
        match SipUri::parse(uri).and_then(|uri| uri.user) {
            Some(user) => format!("sip:{user}@{advertised}"),
            None => format!("sip:holdfast@{advertised}"),
        }
    }

    pub(crate) fn refuse_invite(&mut self, leg: LegId, status: u16, reason: &'static str) {
        metrics::invite_refused(reason);
        let retry_after = ("Retry-After".to_owned(), RETRY_AFTER_S.to_string());
        let headers = if status == 503 { vec![retry_after] } else { Vec::new() };
        self.user_agent.reject(Instant::now(), leg, Rejection { status, headers });
    }

    fn ask_queues(&mut self, arrived: Now, leg: LegId, invite: Invited) {
        self.checking.insert(leg);
        let queues = self.services.queues.clone();
        let done = self.done.clone();
        let asked = Instant::now();
        tokio::spawn(async move {
            let listed = tokio::time::timeout(QUEUES_TIMEOUT, queues.uris()).await;
            let wanted = SipUri::parse(&invite.request_uri);
            let is_queue = |uris: Vec<String>| {
                let mut uris = uris.iter().filter_map(|uri| SipUri::parse(uri));
                wanted.is_some_and(|wanted| uris.any(|uri| uri.means(&wanted)))
            };
            let queue_uri = match listed {
                Ok(Ok(uris)) => Some(is_queue(uris)),
                Ok(Err(e)) => {
                    warn!(sip_call_id = invite.call_id, "failed to route an INVITE: {e:#}");
                    None
                }
                Err(_) => {
                    let why = "queue-svc did not answer in time";
                    warn!(sip_call_id = invite.call_id, "failed to route an INVITE: {why}");
                    None
                }
            };
            let checked = Checked { arrived, leg, invite: Box::new(invite), asked, queue_uri };
            let _ = done.send(Done::Checked(checked)).await; // The process is ending.
        });
    }

    pub(crate) fn handle_checked(&mut self, checked: Checked) {
        if checked.queue_uri == Some(true) {
            let uri = &checked.invite.request_uri;
            self.known_queues.note(Instant::now(), uri, checked.asked);
        }
        if !self.checking.remove(&checked.leg) {
            return; // The caller has given up.
        }
        match checked.queue_uri {
            Some(is_queue) => {
                let Checked { arrived, leg, invite, .. } = checked;
                self.handle_invited(arrived, leg, *invite, Some(is_queue));
            }
            None => self.refuse_invite(checked.leg, 503, "queue-svc-away"),
        }
    }
}

/// Whether the one who proved to be `user` is the one of From.
fn is_proved(user: Option<&str>, from_uri: &str) -> bool {
    let claimed = SipUri::parse(from_uri).and_then(|uri| uri.user);
    user.is_some() && user == claimed.as_deref()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_proves_one_name_and_no_password_none() {
        assert!(is_proved(Some("1001"), "sip:1001@example.com"));
        assert!(!is_proved(Some("1002"), "sip:1001@example.com"));
        assert!(!is_proved(None, "sip:1001@example.com"));
        assert!(!is_proved(None, "sip:example.com"));
    }
}
