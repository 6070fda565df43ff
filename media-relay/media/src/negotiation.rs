//! Offers, answers and deletions: how sessions and sides come and go.

use crate::endpoint::{Endpoint, Hears};
use crate::outgoing::Outgoing;
use crate::port_pool::PortPair;
use crate::relay::{Config, Described, Error, LeaveReason, Offer, Output, Relay, TimerKey};
use crate::sdp::{Local, Offered, Origin, Refusal, Remote};
use crate::session::{Session, SessionKey, Side, SideKey};
use rand::RngExt as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

/// Sessions of ours that media may go through one after the other.
const RELAYED_MAX: usize = 8;

impl Relay {
    /// Refuses what [`Relay::offer`] would refuse, so that no ports are bound, and then put into
    /// quarantine, for nothing.
    ///
    /// # Errors
    /// As [`Relay::offer`].
    pub fn check_offer(&self, offer: &Offer<'_>) -> Result<(), Error> {
        if let Some(remote) = &offer.remote {
            let mut remote = remote.clone();
            remote.choose(self.config.address, &self.config.codecs)?;
            self.check_loop(offer.session_id, remote.audio.rtp)?;
            if remote.audio.disabled && self.needs_ports(offer.session_id, offer.side) {
                return Err(Refusal::NoAudio { got: "audio with port 0".to_owned() }.into());
            }
        }
        if self.has_session(offer.session_id) {
            return Ok(());
        }
        for (name, value) in [("call_id", offer.call_id), ("owner", offer.owner)] {
            if value.is_empty() {
                return Err(Error::Missing(name));
            }
        }
        if self.tombstones.has(offer.session_id) {
            return Err(Error::Deleted(offer.session_id.to_owned()));
        }
        let max = self.config.sessions_max;
        if self.sessions.len() >= max {
            return Err(Error::SessionsUsedUp { max });
        }
        Ok(())
    }

    /// Refuses an address that is a port of ours from which packets would come back to the session,
    /// directly or through others: they would go round as fast as we can send. A call may well come
    /// back to this relay once; only a circle has no end.
    pub(crate) fn check_loop(
        &self,
        session_id: &str,
        signalled: Option<SocketAddr>,
    ) -> Result<(), Refusal> {
        let Some(signalled) = signalled else { return Ok(()) };
        let mut next = Some(signalled);
        for _ in 0..RELAYED_MAX {
            let Some(key) = next.and_then(|it| self.side_at(it)) else { return Ok(()) };
            let Some(session) = self.sessions.get(&key.session) else { return Ok(()) };
            if *session.id == *session_id {
                return Err(Refusal::Loop { address: signalled });
            }
            next = session.side(key.side.other()).and_then(|it| it.rtp.signalled());
        }
        Err(Refusal::Loop { address: signalled })
    }

    /// The side that receives at an address of ours.
    pub(crate) fn side_at(&self, address: SocketAddr) -> Option<SideKey> {
        let Config { address: told, bound, .. } = self.config;
        let ip = address.ip();
        let is_ours = ip == told || ip == bound || bound.is_unspecified() && ip.is_loopback();
        if !is_ours {
            return None; // As most are: the table is not read for them.
        }
        self.by_port.get(&PortPair::of(address.port())).copied()
    }

    /// Negotiates a side; makes it, and the session, if needed, on `ports`. On an error nothing has
    /// changed, and ports that were brought are closed.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::Deleted`], [`Error::SessionsUsedUp`], or [`Error::Refused`].
    pub fn offer(
        &mut self,
        now: Instant,
        offer: Offer<'_>,
        ports: Option<PortPair>,
    ) -> Result<Described, Error> {
        let result = self.negotiate(now, offer, ports);
        if let (Err(_), Some(ports)) = (&result, ports) {
            self.close(now, ports);
        }
        result
    }

    fn negotiate(
        &mut self,
        now: Instant,
        offer: Offer<'_>,
        ports: Option<PortPair>,
    ) -> Result<Described, Error> {
        let Offer { session_id, side, .. } = offer;
        self.tombstones.forget(now);
        self.check_offer(&offer)?;
        let key = self.key_or_new(now, &offer, ports);
        let address = self.config.address;
        let codecs = self.config.codecs.clone();
        let across = self.sessions[&key.session].side(side.other());
        let first = across.and_then(|it| it.remote.as_ref()).map(Remote::codec);
        let endpoint = self.endpoint(key, session_id)?;
        let local = Local { address, rtp_port: endpoint.ports.rtp() };
        let described = match offer.remote {
            Some(mut remote) => {
                remote.choose(address, &codecs)?;
                let sdp = local.answer(&mut endpoint.origin, &remote);
                let described = Described { sdp, codec: Some(remote.codec()), held: remote.held() };
                endpoint.open_offer = None;
                endpoint.negotiate(now, remote);
                described
            }
            None => {
                let offered = Offered { all: &codecs, first };
                let (sdp, formats) =
                    local.offer(&mut endpoint.origin, endpoint.remote.as_ref(), &offered);
                endpoint.open_offer = Some(formats);
                let remote = endpoint.remote.as_ref();
                let held = remote.is_some_and(Remote::held);
                Described { sdp, codec: remote.map(Remote::codec), held }
            }
        };
        self.note_change(now, key);
        Ok(described)
    }

    /// A side, which is made if it is not there, and so is its session. Its offer was checked.
    pub(crate) fn key_or_new(
        &mut self,
        now: Instant,
        offer: &Offer<'_>,
        ports: Option<PortPair>,
    ) -> SideKey {
        let &Offer { session_id, side, .. } = offer;
        let needs_ports = self.needs_ports(session_id, side);
        assert_eq!(needs_ports, ports.is_some(), "ports come with a new side, and only then");
        let session = match self.by_id.get(session_id) {
            Some(key) => *key,
            None => self.make_session(now, offer),
        };
        let key = SideKey { session, side };
        if let Some(ports) = ports {
            self.make_side(now, key, ports);
        }
        key
    }

    fn make_session(&mut self, now: Instant, offer: &Offer<'_>) -> SessionKey {
        let id: Arc<str> = offer.session_id.into();
        let session = Session::new(id.clone(), offer.call_id, offer.owner, now);
        let key = self.sessions.insert(session);
        self.by_id.insert(id, key);
        key
    }

    fn make_side(&mut self, now: Instant, key: SideKey, ports: PortPair) {
        let origin = Origin::new(self.rng.random());
        let outgoing = Outgoing::new(self.rng.random(), self.rng.random(), self.rng.random());
        let session = self.sessions.get_mut(&key.session).expect("it was just found or made");
        let before = session.slot_mut(key.side);
        assert!(before.is_none(), "ports for a side that has some");
        *before = Some(Box::new(Endpoint::new(now, ports, origin, outgoing)));
        self.by_port.insert(ports, key);
    }

    /// Puts a side of an earlier process in its place.
    pub(crate) fn restore_endpoint(&mut self, key: SideKey, endpoint: Endpoint) {
        self.by_port.insert(endpoint.ports, key);
        let session = self.sessions.get_mut(&key.session).expect("it was just made");
        *session.slot_mut(key.side) = Some(Box::new(endpoint));
    }

    /// Takes the remote's answer to our offer.
    ///
    /// # Errors
    /// [`Error::NoOpenOffer`], or [`Error::Refused`], which leaves the offer open.
    pub fn answer(
        &mut self,
        now: Instant,
        session_id: &str,
        side: Side,
        mut remote: Remote,
    ) -> Result<Described, Error> {
        let address = self.config.address;
        let codecs = self.config.codecs.clone();
        let key = self.key(session_id, side)?;
        let endpoint = self.endpoint(key, session_id)?;
        if endpoint.open_offer.is_none() {
            return Err(Error::NoOpenOffer { session_id: session_id.to_owned(), side });
        }
        remote.choose(address, &codecs)?;
        self.check_loop(session_id, remote.audio.rtp)?;
        let endpoint = self.endpoint(key, session_id)?;
        if remote.audio.disabled {
            return Err(Refusal::NoAudio { got: "audio with port 0".to_owned() }.into());
        }
        let described =
            Described { sdp: Vec::new(), codec: Some(remote.codec()), held: remote.held() };
        endpoint.negotiate(now, remote);
        self.note_change(now, key);
        Ok(described)
    }

    /// Frees a side, or the session with all its ports; false if it was gone.
    pub fn delete(&mut self, now: Instant, session_id: &str, side: Option<Side>) -> bool {
        let Some(session) = self.by_id.get(session_id).copied() else {
            if side.is_none() {
                self.tombstones.bury(now, session_id); // The deletion has overtaken its offer.
            }
            return false;
        };
        let sides = Side::BOTH.into_iter().filter(|it| side.is_none_or(|side| side == *it));
        let mut existed = side.is_none();
        for side in sides {
            existed |= self.delete_side(now, SideKey { session, side });
        }
        self.note_snapshot(SideKey { session, side: Side::A });
        if self.sessions[&session].is_empty() {
            self.end_recording(now, session);
            if !self.sessions[&session].has_snapshot {
                self.forget_change(session_id);
            }
            self.sessions.remove(&session);
            self.by_id.remove(session_id);
        }
        existed
    }

    fn delete_side(&mut self, now: Instant, key: SideKey) -> bool {
        self.leave_conference(now, key, LeaveReason::Deleted);
        let wallclock = self.wallclock(now);
        let session = self.sessions.get_mut(&key.session).expect("the caller has its key");
        let Some(mut endpoint) = session.slot_mut(key.side).take() else { return false };
        endpoint.send_report(now, wallclock, true, &mut self.transmits);
        self.timers.arm(&TimerKey::Side(key), &mut endpoint.armed, None);
        if let Some(other) = session.side_mut(key.side.other()) {
            if other.hears == Hears::OtherSide {
                other.set_hears(Hears::Nothing);
            }
            self.note_change(now, SideKey { side: key.side.other(), ..key });
        }
        self.by_port.remove(&endpoint.ports);
        self.close(now, endpoint.ports);
        true
    }

    pub(crate) fn close(&mut self, now: Instant, ports: PortPair) {
        self.give_back_ports(now, ports);
        self.outputs.push_back(Output::ClosePorts(ports));
    }
}
