//! REFER and the NOTIFYs that tell what became of it, as who is asked and as who asks
//! (RFC 3515, RFC 4488, RFC 3891 §6).

use super::leg::{Incoming, State};
use super::{Event, LegId, OutboundRefer, Referred, UserAgent};
use crate::compose::phrase;
use crate::envelope::Envelope;
use crate::header::{Headers, Name};
use crate::message::Response;
use crate::method::Method;
use crate::param;
use crate::peer::Peer;
use crate::replaces::{ReferTo, Replaces};
use crate::transaction::{Key, OurRequest};
use crate::uri;
use bytes::Bytes;
use std::time::Instant;

/// How long who referred us may hear of it, in seconds: what Subscription-State says.
const SUBSCRIPTION_S: u32 = 300;
/// NOTIFYs of one subscription at most: each final response of what follows is one, and the rest
/// are provisional.
const MAX_NOTIFIES: u32 = 32;
const SIPFRAG: &str = "message/sipfrag;version=2.0";

/// Somebody who referred us and wants to hear of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subscription {
    /// CSeq of the REFER, which names it.
    id: u32,
    sent: u32,
}

/// A REFER of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Referring {
    Sent { is_quiet: bool },
    Accepted,
}

impl UserAgent {
    pub(super) fn receive_refer(&mut self, now: Instant, id: LegId, refer: Incoming) {
        if self.refuse_extensions(now, &refer) {
            return;
        }
        let headers = &refer.request.headers;
        let to = headers.get(Name::ReferTo).filter(|_| headers.count(Name::ReferTo) == 1);
        let Some(to) = to.and_then(ReferTo::parse) else {
            return self.refuse_because(now, &refer, 400, "Missing or Invalid Refer-To");
        };
        let referred_by = headers.get(Name::ReferredBy).map(str::to_owned);
        let replaced = to.replaces.as_ref().and_then(|it| self.leg_of(it));
        let Some(leg) = self.legs.get_mut(&id) else { return };
        if leg.state != State::Confirmed {
            return self.refuse(now, &refer, 403);
        }
        if leg.refer.is_some() || leg.subscription.is_some() {
            return self.refuse_for_a_while(now, &refer); // One at a time.
        }
        leg.refer = Some(Box::new(refer));
        self.tell(Event::Referred { leg: id, refer: Referred { to, replaced, referred_by } });
    }

    /// Our leg that a Replaces names.
    pub(super) fn leg_of(&self, replaces: &Replaces) -> Option<LegId> {
        let leg = self.legs.get(self.by_tag.get(&replaces.to_tag)?)?;
        let dialog = &leg.dialog;
        let is_peer = dialog.remote_tag.as_deref().unwrap_or("0") == replaces.from_tag;
        (dialog.call_id == replaces.call_id && is_peer).then_some(leg.id)
    }

    /// 202, and the first NOTIFY, unless the peer wants none (RFC 4488).
    pub fn accept_refer(&mut self, now: Instant, id: LegId) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let Some(refer) = leg.refer.take() else { return };
        let Ok(envelope) = Envelope::of_request(&refer.request) else { return };
        let is_quiet = is_quiet(&refer.request.headers);
        if !is_quiet {
            leg.subscription = Some(Subscription { id: envelope.cseq, sent: 0 });
        }
        let mut response = self.compose(&refer, 202, None);
        response.header("Contact", self.contact(refer.source));
        if is_quiet {
            response.header("Refer-Sub", "false");
        }
        self.send(now, &refer, 202, response.empty());
        self.notify_refer(now, id, 100);
    }

    /// Refuses the REFER: 300 to 699, else 603.
    pub fn reject_refer(&mut self, now: Instant, id: LegId, status: u16) {
        let refer = self.legs.get_mut(&id).and_then(|leg| leg.refer.take());
        let status = if (300..=699).contains(&status) { status } else { 603 };
        if let Some(refer) = refer {
            self.refuse(now, &refer, status);
        }
    }

    /// Tells who referred us what became of it so far: 100 to 699; a final status is the last.
    pub fn notify_refer(&mut self, now: Instant, id: LegId, status: u16) {
        let branch = self.tokens.branch();
        let Some(leg) = self.legs.get_mut(&id).filter(|it| it.state == State::Confirmed) else {
            return;
        };
        let Some(subscription) = &mut leg.subscription else { return };
        subscription.sent += 1;
        if subscription.sent > MAX_NOTIFIES && status < 200 {
            return;
        }
        let event = format!("refer;id={}", subscription.id);
        if status >= 200 {
            leg.subscription = None;
        }
        let cseq = leg.dialog.next_cseq();
        let (mut notify, peer) =
            leg.dialog.request("NOTIFY", cseq, &branch, &self.config.advertised);
        notify.header("Contact", self.contact(peer)).header("Event", event);
        match status {
            ..200 => {
                notify.header("Subscription-State", format_args!("active;expires={SUBSCRIPTION_S}"))
            }
            _ => notify.header("Subscription-State", "terminated;reason=noresource"),
        };
        notify.header("User-Agent", &self.config.user_agent);
        let fragment = format!("SIP/2.0 {status} {}\r\n", phrase(status));
        let bytes = notify.body(SIPFRAG, fragment.as_bytes());
        self.open_request(now, id, Method::Notify, &branch, peer, bytes);
    }

    /// Who is not there any more needs no further NOTIFY (RFC 6665 §4.2.2).
    pub(super) fn notify_answered(&mut self, id: LegId, status: u16) {
        if let Some(leg) = self.legs.get_mut(&id).filter(|_| matches!(status, 408 | 481)) {
            leg.subscription = None;
        }
    }

    /// Asks the remote to call somebody else. False if the leg does not stand, another REFER is under
    /// way, or a URI is none.
    pub fn refer(&mut self, now: Instant, id: LegId, refer: &OutboundRefer) -> bool {
        let branch = self.tokens.branch();
        let by_is_sound = refer.referred_by.as_deref().is_none_or(uri::is_uri);
        let Some(leg) = self.legs.get_mut(&id) else { return false };
        let is_free = leg.state == State::Confirmed && leg.referring.is_none();
        if !is_free || !refer.to.is_sound() || !by_is_sound {
            return false;
        }
        leg.referring = Some(Referring::Sent { is_quiet: refer.is_quiet });
        let cseq = leg.dialog.next_cseq();
        let (mut request, peer) =
            leg.dialog.request("REFER", cseq, &branch, &self.config.advertised);
        request.header("Contact", self.contact(peer)).allow();
        request.header("Refer-To", refer.to.header());
        if let Some(by) = &refer.referred_by {
            request.header("Referred-By", format_args!("<{by}>"));
        }
        if refer.is_quiet {
            request.header("Refer-Sub", "false").header("Supported", "norefersub");
        }
        request.header("User-Agent", &self.config.user_agent);
        let bytes = request.empty();
        self.open_request(now, id, Method::Refer, &branch, peer, bytes);
        true
    }

    pub(super) fn refer_answered(&mut self, id: LegId, response: &Response) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let Some(Referring::Sent { is_quiet }) = leg.referring else { return };
        let is_good = (200..300).contains(&response.status);
        let is_over = !is_good || (is_quiet && self::is_quiet(&response.headers));
        leg.referring = Some(Referring::Accepted).filter(|_| !is_over);
        self.tell(Event::ReferProgress { leg: id, status: response.status, is_over });
    }

    /// The remote does not answer our REFER.
    pub(super) fn refer_failed(&mut self, id: LegId) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        if leg.referring.take_if(|it| *it != Referring::Accepted).is_some() {
            self.tell(Event::ReferProgress { leg: id, status: 408, is_over: true });
        }
    }

    /// A NOTIFY may overtake the 202 of its REFER.
    pub(super) fn receive_notify(&mut self, now: Instant, id: LegId, notify: &Incoming) {
        let headers = &notify.request.headers;
        let event = headers.get(Name::Event).unwrap_or_default();
        let package = event.split(';').next().unwrap_or_default().trim();
        if !package.eq_ignore_ascii_case("refer") {
            return self.refuse(now, notify, 489);
        }
        let Some(leg) = self.legs.get_mut(&id).filter(|leg| leg.referring.is_some()) else {
            return self.refuse(now, notify, 481);
        };
        let state = headers.get(Name::SubscriptionState).unwrap_or_default();
        let is_over = state.split(';').next().unwrap_or_default().trim() == "terminated";
        leg.referring = Some(Referring::Accepted).filter(|_| !is_over);
        let status = sipfrag_status(&notify.request.body);
        let response = self.compose(notify, 200, None);
        self.send(now, notify, 200, response.empty());
        // Without a status that can be read, its end is as good as none.
        let status = status.unwrap_or(if is_over { 500 } else { 100 });
        self.tell(Event::ReferProgress { leg: id, status, is_over });
    }

    pub(super) fn open_request(
        &mut self,
        now: Instant,
        id: LegId,
        method: Method,
        branch: &str,
        peer: Peer,
        bytes: Bytes,
    ) {
        let name = if method == Method::Refer { "REFER" } else { "NOTIFY" };
        let key = Key::client(branch, name);
        let request = OurRequest { key, method, peer, bytes, leg: Some(id) };
        self.transactions.open_client(now, request, &mut self.outputs);
    }
}

fn is_quiet(headers: &Headers) -> bool {
    let value = headers.get(Name::ReferSub).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("false")
}

/// Status of the line that a message/sipfrag begins with.
fn sipfrag_status(body: &[u8]) -> Option<u16> {
    let line = body.split(|byte| *byte == b'\r' || *byte == b'\n').next()?;
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
    let is_sip = words.next()?.eq_ignore_ascii_case("SIP/2.0");
    words.next()?.parse().ok().filter(|status| is_sip && (100..=699).contains(status))
}

/// The one Replaces of an INVITE: `Err` is the status that refuses it (RFC 3891 §3).
pub(super) fn replaces(headers: &Headers) -> Result<Option<Replaces>, u16> {
    let mut values = headers.all(Name::Replaces);
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(text), None) if param::split(text, b',').count() == 1 => {
            Replaces::parse(text).map(Some).ok_or(400)
        }
        _ => Err(400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_of_a_fragment_is_that_of_its_first_line() {
        for (body, wanted) in [
            ("SIP/2.0 200 OK\r\n", Some(200)),
            ("SIP/2.0 603 Declined\r\nX: y\r\n", Some(603)),
            ("sip/2.0 180", Some(180)),
            ("SIP/2.0 99 X", None),
            ("HTTP/1.1 200 OK", None),
            ("", None),
        ] {
            assert_eq!(sipfrag_status(body.as_bytes()), wanted, "{body}");
        }
    }
}
