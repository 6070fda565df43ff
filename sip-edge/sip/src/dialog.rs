//! Dialog state (RFC 3261 §12): identifiers, sequence numbers, route set, remote target.

use crate::Advertised;
use crate::compose::Composer;
use crate::envelope::Envelope;
use crate::header::{Headers, Name};
use crate::message::{Request, Response};
use crate::name_addr::NameAddr;
use crate::peer::Peer;
use crate::registrar::Instance;
use crate::uri::{self, SipUri};
use crate::user_agent::Contact;
use crate::via;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Proxies on the path that a dialog remembers; further Record-Routes make no dialog.
pub(crate) const MAX_ROUTES: usize = 64;

/// So far a dialog that another process goes on with jumps ahead: more requests than one sends
/// between two moments at which it is kept (RFC 3261 §12.2.1.1 lets CSeq rise by any number).
const RESTORED_CSEQ_GAP: u32 = 10_000;

/// A request whose CSeq is not above the last: answered 500.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("CSeq {got} is not above {last} (RFC 3261 §12.2.2)")]
pub(crate) struct OutOfOrder {
    pub(crate) got: u32,
    pub(crate) last: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Dialog {
    pub(crate) call_id: String,
    pub(crate) local_tag: String,
    /// `None` before the first 2xx to our INVITE, and with peers of RFC 2543.
    pub(crate) remote_tag: Option<String>,
    /// From and To of our requests, whole values.
    local: String,
    remote: String,
    pub(crate) local_cseq: u32,
    remote_cseq: Option<u32>,
    /// URIs of Route, next hop first, each as it came in its Record-Route value.
    route_set: Vec<String>,
    remote_target: String,
    /// The device that the peer's Contact names (RFC 5626 §4.1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    remote_instance: Option<String>,
    /// Where the last message of the dialog came from.
    pub(crate) peer: Peer,
}

impl Dialog {
    /// By an INVITE to us (RFC 3261 §12.1.1).
    pub(crate) fn of_invite(
        request: &Request,
        envelope: &Envelope<'_>,
        local_tag: String,
        source: Peer,
    ) -> Self {
        let value = |name| request.headers.get(name).unwrap_or_default();
        let mut dialog = Self {
            call_id: envelope.call_id.to_owned(),
            remote_tag: envelope.from.tag().map(str::to_owned),
            local: format!("{};tag={local_tag}", value(Name::To)),
            remote: value(Name::From).to_owned(),
            local_tag,
            local_cseq: 0,
            remote_cseq: Some(envelope.cseq),
            route_set: values(&request.headers, Name::RecordRoute),
            remote_target: envelope.from.uri.to_owned(),
            remote_instance: None,
            peer: source,
        };
        dialog.refresh_target(&request.headers);
        dialog
    }

    /// By an INVITE of ours that went to `peer`; [`Dialog::confirm`] completes it.
    pub(crate) fn of_our_invite(request: &Request, envelope: &Envelope<'_>, peer: Peer) -> Self {
        let value = |name| request.headers.get(name).unwrap_or_default().to_owned();
        Self {
            call_id: envelope.call_id.to_owned(),
            local_tag: envelope.from.tag().unwrap_or_default().to_owned(),
            remote_tag: envelope.to.tag().map(str::to_owned),
            local: value(Name::From),
            remote: value(Name::To),
            local_cseq: envelope.cseq,
            remote_cseq: None,
            route_set: values(&request.headers, Name::Route),
            remote_target: request.uri().to_owned(),
            remote_instance: None,
            peer,
        }
    }

    /// A 1xx or 2xx to our INVITE (RFC 3261 §12.1.2). The route set of a dialog that stands stays.
    pub(crate) fn confirm(&mut self, response: &Response, envelope: &Envelope<'_>, source: Peer) {
        if self.remote_tag.is_none() || response.headers.count(Name::RecordRoute) > 0 {
            self.route_set = values(&response.headers, Name::RecordRoute);
            self.route_set.reverse();
        }
        self.remote_tag = envelope.to.tag().map(str::to_owned);
        self.remote = response.headers.get(Name::To).unwrap_or_default().to_owned();
        self.peer = source;
        self.refresh_target(&response.headers);
    }

    /// Whether a request with these tags is ours (RFC 3261 §12.2.2).
    pub(crate) fn matches(&self, envelope: &Envelope<'_>) -> bool {
        let tag = envelope.from.tag();
        envelope.call_id == self.call_id
            && (self.remote_tag.is_none() || tag == self.remote_tag.as_deref())
    }

    /// Admits the CSeq of a request that is neither ACK nor CANCEL. An equal CSeq is wrong too:
    /// its transaction has absorbed retransmissions.
    pub(crate) fn admit(&mut self, cseq: u32) -> Result<(), OutOfOrder> {
        match self.remote_cseq {
            Some(last) if cseq <= last => Err(OutOfOrder { got: cseq, last }),
            _ => {
                self.remote_cseq = Some(cseq);
                Ok(())
            }
        }
    }

    /// Contact of an INVITE or its 2xx is where requests go from now on (RFC 3261 §12.2).
    pub(crate) fn refresh_target(&mut self, headers: &Headers) {
        let contact = headers.get(Name::Contact).and_then(|text| NameAddr::list(text).next());
        if let Some(contact) = contact.flatten().filter(|it| uri::is_uri(it.uri)) {
            self.remote_target = contact.uri.to_owned();
            self.remote_instance = Instance::read(contact.params).map(|it| it.id);
        }
    }

    /// The CSeq of the next request of ours (RFC 3261 §12.2.1.1).
    pub(crate) fn next_cseq(&mut self) -> u32 {
        self.local_cseq += 1;
        self.local_cseq
    }

    /// A request inside the dialog up to CSeq, and where it goes (RFC 3261 §12.2.1.1).
    pub(crate) fn request(
        &self,
        method: &str,
        cseq: u32,
        branch: &str,
        advertised: &Advertised,
    ) -> (Composer, Peer) {
        let peer = advertised.towards(self.next_hop(), self.peer.listener).unwrap_or(self.peer);
        let strict = self.route_set.first().and_then(|first| NameAddr::parse(first));
        let strict =
            strict.filter(|it| !SipUri::parse(it.uri).is_ok_and(|it| it.is_loose_router()));
        let uri = strict.map_or(self.remote_target.as_str(), |it| it.uri);
        let mut composer = Composer::request(method, uri);
        composer
            .header("Via", via::of_request(peer, advertised, branch))
            .header("Max-Forwards", 70);
        for route in self.route_set.iter().skip(usize::from(strict.is_some())) {
            composer.header("Route", route);
        }
        if strict.is_some() {
            composer.header("Route", format_args!("<{}>", self.remote_target));
        }
        composer.header("From", &self.local).header("To", &self.remote);
        composer.header("Call-ID", &self.call_id);
        composer.header("CSeq", format_args!("{cseq} {method}"));
        (composer, peer)
    }

    /// First route or remote target, if it is an address that can be reached from here; else where
    /// the last message came from: host names (no DNS yet), transports that we do not have, private
    /// addresses behind another one, and hosts that talk to us by a connection, unless their URI says UDP.
    fn next_hop(&self) -> Peer {
        let Some(target) = self.target_peer() else { return self.peer };
        let (wanted, seen) = (target.addr.ip(), self.peer.addr.ip());
        let may_be_same = target.transport == self.peer.transport || self.is_transport_open();
        let connected = self.peer.transport.is_reliable() && may_be_same && wanted == seen;
        if connected || (self.route_set.is_empty() && wanted != seen && is_private(wanted)) {
            return self.peer;
        }
        target
    }

    /// The connection `broken` is no way to the peer any more. Whether there is another: the
    /// address of the first route or remote target.
    pub(crate) fn abandon(&mut self, broken: Peer) -> bool {
        let target = self.target_peer().map(|target| {
            let transport = match self.is_transport_open() {
                true => broken.transport,
                false => target.transport,
            };
            Peer { transport, listener: broken.listener, ..target }
        });
        match target.filter(|target| *target != broken && self.peer == broken) {
            Some(target) => {
                self.peer = target;
                true
            }
            None => false,
        }
    }

    /// User and device of the peer, by which to find where it has registered since; `None` if it
    /// is reached by way of others.
    pub(crate) fn remote_device(&self) -> Option<(String, &str)> {
        let instance = self.remote_instance.as_deref().filter(|_| self.route_set.is_empty())?;
        let remote = NameAddr::parse(&self.remote)?;
        let user = SipUri::parse(remote.uri).ok()?.user?;
        Some((uri::unescape(user), instance))
    }

    /// The peer is at another contact now. Whether that is news.
    pub(crate) fn follow(&mut self, contact: Contact) -> bool {
        let is_news = contact.uri != self.remote_target;
        if is_news {
            (self.remote_target, self.peer) = (contact.uri, contact.peer);
        }
        is_news
    }

    /// As another process goes on with it, which has none of our connections: above any CSeq that
    /// was used after the dialog was kept, and by the address in the route set or Contact.
    pub(crate) fn restore(mut self, advertised: &Advertised) -> Self {
        self.local_cseq = self.local_cseq.saturating_add(RESTORED_CSEQ_GAP);
        if self.peer.transport.is_reliable() {
            self.abandon(self.peer);
        }
        self.peer = advertised.towards(self.peer, self.peer.listener).unwrap_or(self.peer);
        self
    }

    /// Whether the peer can be reached by others as by us: by a proxy, or because its messages come
    /// from where its Contact says. A name is that of a server.
    pub(crate) fn is_reachable_elsewhere(&self) -> bool {
        if self.peer.transport.is_reliable() && self.target_peer().is_none() {
            return false; // Names are not looked up within a dialog.
        }
        !self.route_set.is_empty()
            || self.target_peer().is_none_or(|target| {
                !self.peer.transport.is_reliable() && target.addr == self.peer.addr
            })
    }

    /// Contact of the peer.
    pub(crate) fn remote_target(&self) -> &str {
        &self.remote_target
    }

    /// URI of the first route, or else the remote target.
    fn next_uri(&self) -> Option<SipUri<'_>> {
        let route = self.route_set.first().and_then(|route| NameAddr::parse(route));
        SipUri::parse(route.map_or(self.remote_target.as_str(), |route| route.uri)).ok()
    }

    fn target_peer(&self) -> Option<Peer> {
        self.next_uri()?.peer()
    }

    /// Whether the URI leaves the transport open.
    fn is_transport_open(&self) -> bool {
        self.next_uri().is_some_and(|uri| uri.params.get("transport").is_none())
    }
}

/// Route or Record-Route values in the order of the message.
fn values(headers: &Headers, name: Name) -> Vec<String> {
    let fields = headers.all(name);
    let values = fields.flat_map(|text| crate::param::split(text, b','));
    let values = values.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    values.take(MAX_ROUTES).collect()
}

/// Addresses that mean nothing outside of their own network (RFC 1918, 6598, 3927, 4193).
fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            ip.is_private()
                || ip.is_loopback()
                || ip.is_link_local()
                || ip.is_unspecified()
                || (a == 100 && (64..128).contains(&b))
        }
        IpAddr::V6(ip) => {
            ip.is_loopback()
                || ip.is_unspecified()
                || ip.is_unique_local()
                || ip.is_unicast_link_local()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::Transport;

    /// A dialog with who sends from `addr` and says `contact` and these Routes.
    fn dialog(transport: Transport, addr: &str, contact: &str, routes: &[&str]) -> Dialog {
        Dialog {
            call_id: "c".to_owned(),
            local_tag: "l".to_owned(),
            remote_tag: Some("r".to_owned()),
            local: "<sip:us@h>;tag=l".to_owned(),
            remote: "<sip:them@h>;tag=r".to_owned(),
            local_cseq: 1,
            remote_cseq: None,
            route_set: routes.iter().map(|it| (*it).to_owned()).collect(),
            remote_target: contact.to_owned(),
            remote_instance: None,
            peer: Peer::new(transport, addr.parse().unwrap()),
        }
    }

    #[test]
    fn who_is_reached_by_its_own_connection_or_behind_nat_is_bound_to_this_process() {
        let at = "192.0.2.7:5060";
        let of = |transport, contact: &str, routes: &[&str]| {
            dialog(transport, at, contact, routes).is_reachable_elsewhere()
        };
        assert!(of(Transport::Udp, "sip:them@192.0.2.7", &[]));
        assert!(of(Transport::Udp, "sip:them@carrier.example", &[]), "a server's name");
        assert!(!of(Transport::Udp, "sip:them@10.0.0.2", &[]), "behind NAT");
        assert!(!of(Transport::Udp, "sip:them@192.0.2.7:5062", &[]), "behind NAT of ports");
        assert!(!of(Transport::Tcp, "sip:them@192.0.2.7;transport=tcp", &[]));
        let by_name = ["sip:them@phone.invalid;transport=tcp", "sip:them@carrier.example"];
        assert!(by_name.iter().all(|contact| !of(Transport::Tcp, contact, &[])));
        let named = ["<sip:proxy.example;transport=tcp;lr>"];
        assert!(!of(Transport::Tcp, "sip:them@192.0.2.7", &named));
        for transport in [Transport::Udp, Transport::Tcp] {
            assert!(of(transport, "sip:them@10.0.0.2", &["<sip:192.0.2.1;lr>"]), "by a proxy");
        }
    }
}
