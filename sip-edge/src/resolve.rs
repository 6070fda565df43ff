//! From a target to the next hops (RFC 3263): registered contacts, addresses, host names, trunks.

use crate::calls::CallId;
use crate::edge::{Done, Edge, unix_s};
use crate::failover::TRIED_MAX;
use crate::forks::BINDINGS_MAX;
use crate::locate::{Place, Wanted};
use crate::target::{SipUri, Target};
use crate::trunk::Trunk;
use bytes::Bytes;
use call::{Cause, LegNumber};
use sip::{Advertised, Listener, Peer, Transport};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

/// Where an INVITE goes.
#[derive(Clone, Debug)]
pub(crate) struct NextHop {
    /// Request URI.
    pub(crate) uri: String,
    pub(crate) peer: Peer,
    /// Whose certificate it must have by TLS; without it, its address's.
    pub(crate) name: Option<String>,
    /// By TCP, if the INVITE is large: nobody has said that it must be UDP.
    pub(crate) tcp_if_large: bool,
    pub(crate) trunk: Option<Arc<Trunk>>,
}

/// The ways to one callee; there is at least one.
#[derive(Clone, Debug)]
pub(crate) enum NextHops {
    /// Each is there for when those before are dead.
    InTurn(VecDeque<NextHop>),
    /// The phones of one user: all of them ring.
    AtOnce(Vec<NextHop>),
}

/// The next hops of a leg that waited for a lookup.
pub(crate) struct Resolved {
    pub(crate) call: CallId,
    pub(crate) leg: LegNumber,
    pub(crate) sdp: Bytes,
    pub(crate) next_hops: Result<NextHops, Cause>,
}

/// A request URI, where it is served, and by which trunk it is reached.
struct Way {
    uri: String,
    wanted: Wanted,
    trunk: Option<Arc<Trunk>>,
}

impl Edge {
    /// The next hops, or `None` if a lookup has begun that ends with [`Done::Resolved`].
    pub(crate) fn resolve(
        &self,
        call: &CallId,
        leg: LegNumber,
        target: &str,
        sdp: &Bytes,
    ) -> Option<Result<NextHops, Cause>> {
        let way = match Target::parse(target) {
            Ok(Target::User(name)) => {
                return Some(self.contacts(&name).ok_or(Cause::UserNotRegistered));
            }
            Ok(Target::Uri(uri)) => {
                if let Some(contacts) = self.own_user(&uri).and_then(|user| self.contacts(user)) {
                    return Some(Ok(contacts));
                }
                let trunk = self.settings.dial_plan.trunks().at(&uri.host_port);
                Some(Way { trunk, wanted: Wanted::of(&uri), uri: uri.text })
            }
            Ok(Target::Trunk { trunk, number }) => {
                let trunk = self.settings.dial_plan.trunks().named(&trunk);
                trunk.map(|trunk| Way::through(trunk, &number))
            }
            Ok(Target::Number(number)) => {
                let trunk = self.settings.dial_plan.trunks().for_number(&number);
                trunk.map(|trunk| Way::through(trunk, &number))
            }
            Err(_) => return Some(Err(Cause::InvalidUrl)),
        };
        let Some(way) = way else { return Some(Err(Cause::NoRouteDestination)) };
        let advertised = self.settings.advertised.clone();
        if let Some(place) = way.wanted.place() {
            return Some(way.next_hops(&[place], &advertised));
        }
        let (call, sdp, done) = (call.clone(), sdp.clone(), self.done.clone());
        let locator = self.services.locator.clone();
        tokio::spawn(async move {
            let places = locator.locate(&way.wanted).await;
            let next_hops = way.next_hops(&places, &advertised);
            let resolved = Resolved { call, leg, sdp, next_hops };
            let _ = done.send(Done::Resolved(resolved)).await; // The process is ending.
        });
        None
    }

    /// The bindings of a user, newest first; `None` if there are none.
    fn contacts(&self, user: &str) -> Option<NextHops> {
        let contacts = self.user_agent.lookup(unix_s(), user).into_iter().take(BINDINGS_MAX);
        let next_hop = |it: sip::Contact| NextHop {
            uri: it.uri,
            peer: it.peer,
            name: None,
            tcp_if_large: false, // It is reached as it has registered, or not at all.
            trunk: None,
        };
        let next_hops: Vec<_> = contacts.map(next_hop).collect();
        match next_hops.len() {
            0 => None,
            1 => Some(NextHops::InTurn(next_hops.into())),
            _ => Some(NextHops::AtOnce(next_hops)),
        }
    }

    /// The user, if the URI is one of ours.
    fn own_user<'a>(&self, uri: &'a SipUri) -> Option<&'a str> {
        let is_ours = self.settings.advertised.is_ours(&uri.host_port);
        uri.user.as_deref().filter(|_| is_ours)
    }
}

impl Way {
    fn through(trunk: Arc<Trunk>, number: &str) -> Self {
        Self { uri: trunk.uri_of(number), wanted: trunk.wanted().clone(), trunk: Some(trunk) }
    }

    /// Those of the places that our listeners can talk to.
    fn next_hops(&self, places: &[Place], advertised: &Advertised) -> Result<NextHops, Cause> {
        let peers = places.iter().filter_map(|place| towards(*place, advertised));
        let hops: VecDeque<_> = peers.flat_map(|peer| self.hops(peer)).take(TRIED_MAX).collect();
        match hops.is_empty() {
            true => Err(Cause::NoRouteDestination),
            false => Ok(NextHops::InTurn(hops)),
        }
    }

    /// One peer; by UDP that nobody has asked for, a large INVITE goes by TCP, and by UDP if that
    /// fails (RFC 3261 §18.1.1).
    fn hops(&self, peer: Peer) -> impl Iterator<Item = NextHop> {
        let is_open = self.wanted.transport.is_none() && peer.transport == Transport::Udp;
        let is_name = self.wanted.host.parse::<std::net::IpAddr>().is_err();
        let name = Some(self.wanted.host.clone()).filter(|_| is_name);
        let (uri, trunk) = (self.uri.clone(), self.trunk.clone());
        let plain = NextHop { uri, peer, name, tcp_if_large: false, trunk };
        let first = is_open.then(|| NextHop { tcp_if_large: true, ..plain.clone() });
        first.into_iter().chain([plain])
    }
}

/// The peer there, at the listener of ours that speaks to it.
pub(crate) fn towards(place: Place, advertised: &Advertised) -> Option<Peer> {
    advertised.towards(Peer::new(place.transport, place.addr), Listener::default())
}

impl Wanted {
    fn of(uri: &SipUri) -> Self {
        let (host, port) = (uri.host_port.host.clone(), uri.host_port.port);
        Self { host, port, transport: uri.transport }
    }

    /// Where it is, if that is said by an address.
    pub(crate) fn place(&self) -> Option<Place> {
        let transport = self.transport.unwrap_or(Transport::Udp);
        let port = self.port.unwrap_or(transport.default_port());
        Some(Place { transport, addr: SocketAddr::new(self.host.parse().ok()?, port) })
    }
}
