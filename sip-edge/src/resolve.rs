//! From a target to the next hop (RFC 3263 without NAPTR and SRV): registered contacts, addresses,
//! host names.

use crate::bindings::BINDINGS_MAX;
use crate::calls::CallId;
use crate::edge::{Done, Edge, unix_s};
use crate::target::{SipUri, Target};
use bytes::Bytes;
use call::{Cause, LegNumber};
use sip::{Listener, Peer, Transport};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::lookup_host;

/// How long the lookup of a host name may take.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(2);

/// Where an INVITE goes.
#[derive(Clone, Debug)]
pub(crate) struct NextHop {
    /// Request URI.
    pub(crate) uri: String,
    pub(crate) peer: Peer,
    /// Whose certificate it must have by TLS; without it, its address's.
    pub(crate) name: Option<String>,
}

/// The next hop of a leg that waited for a lookup.
pub(crate) struct Resolved {
    pub(crate) call: CallId,
    pub(crate) leg: LegNumber,
    pub(crate) sdp: Bytes,
    /// More than one for a user with several bindings: each is there for when those before are dead.
    pub(crate) next_hops: Result<VecDeque<NextHop>, Cause>,
}

impl Edge {
    /// The next hops, or `None` if a lookup has begun that ends with [`Done::Resolved`].
    pub(crate) fn resolve(
        &self,
        call: &CallId,
        leg: LegNumber,
        target: &str,
        sdp: &Bytes,
    ) -> Option<Result<VecDeque<NextHop>, Cause>> {
        let uri = match Target::parse(target) {
            Ok(Target::User(name)) => {
                return Some(self.contacts(&name).ok_or(Cause::UserNotRegistered));
            }
            Ok(Target::Uri(uri)) => uri,
            Err(_) => return Some(Err(Cause::InvalidUrl)),
        };
        if let Some(contacts) = self.own_user(&uri).and_then(|user| self.contacts(user)) {
            return Some(Ok(contacts));
        }
        let port = uri.host_port.port.unwrap_or(uri.transport.default_port());
        let transport = uri.transport;
        if let Some(ip) = uri.host_port.ip() {
            let peer = self.towards(transport, SocketAddr::new(ip, port));
            let hop = |peer| [NextHop { uri: uri.text, peer, name: None }].into();
            return Some(peer.map(hop).ok_or(Cause::NoRouteDestination));
        }
        let (call, sdp, done) = (call.clone(), sdp.clone(), self.done.clone());
        let advertised = self.settings.advertised.clone();
        tokio::spawn(async move {
            let host = uri.host_port.host.clone();
            let found = tokio::time::timeout(LOOKUP_TIMEOUT, lookup_host((host, port))).await;
            let addr = found.ok().and_then(Result::ok).and_then(|mut addrs| addrs.next());
            let next_hops = match addr {
                Some(addr) => {
                    let peer = Peer::new(transport, addr);
                    let peer = advertised.towards(peer, Listener::default());
                    let name = Some(uri.host_port.host);
                    let hop = |peer| [NextHop { uri: uri.text, peer, name }].into();
                    peer.map(hop).ok_or(Cause::NoRouteDestination)
                }
                None => Err(Cause::NoRouteDestination),
            };
            let resolved = Resolved { call, leg, sdp, next_hops };
            let _ = done.send(Done::Resolved(resolved)).await; // The process is ending.
        });
        None
    }

    /// The peer there, at the listener of ours that speaks to it.
    fn towards(&self, transport: Transport, addr: SocketAddr) -> Option<Peer> {
        self.settings.advertised.towards(Peer::new(transport, addr), Listener::default())
    }

    /// The bindings of a user, newest first; `None` if there are none.
    fn contacts(&self, user: &str) -> Option<VecDeque<NextHop>> {
        let contacts = self.user_agent.lookup(unix_s(), user).into_iter().take(BINDINGS_MAX);
        let next_hops: VecDeque<_> =
            contacts.map(|it| NextHop { uri: it.uri, peer: it.peer, name: None }).collect();
        (!next_hops.is_empty()).then_some(next_hops)
    }

    /// The user, if the URI is one of ours.
    fn own_user<'a>(&self, uri: &'a SipUri) -> Option<&'a str> {
        let is_ours = self.settings.advertised.is_ours(&uri.host_port);
        uri.user.as_deref().filter(|_| is_ours)
    }
}
