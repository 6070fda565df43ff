//! The relay: all sessions, and the commands about them.

use crate::codec::Codec;
use crate::conference::{Conference, Full};
use crate::dtmf::Digit;
use crate::endpoint::{Endpoint, Hears};
use crate::outgoing::Outgoing;
use crate::player::{Play, PlayError};
use crate::port_pool::{PortError, PortPair, PortPool};
use crate::sdp::{Local, Origin, Refusal, Remote};
use crate::session::{Session, SessionKey, Side, SideKey};
use crate::timers::Timers;
use crate::transmit::{Transmit, Transmits};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

#[derive(Clone, Debug)]
pub struct Config {
    /// The address in our session descriptions.
    pub address: IpAddr,
    pub rtp_ports: RangeInclusive<u16>,
    /// How long a port pair rests after use.
    pub port_quarantine: Duration,
    /// A side that is needed and silent for so long is reported; zero: never.
    pub inactivity: Duration,
    pub sessions_max: usize,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    #[error("no media session {0:?}")]
    NoSession(String),
    #[error("media session {session_id:?} has no {}", side.name())]
    NoSide { session_id: String, side: Side },
    #[error("{0} is missing: the first offer of a session must say it")]
    Missing(&'static str),
    #[error("all {max} media sessions are in use (--max-sessions)")]
    SessionsUsedUp { max: usize },
    #[error("{0} (--rtp-ports)")]
    Ports(#[from] PortError),
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("no offer of ours is open on {} of media session {session_id:?}", side.name())]
    NoOpenOffer { session_id: String, side: Side },
    #[error("{} of media session {session_id:?} has not been negotiated", side.name())]
    NotNegotiated { session_id: String, side: Side },
    #[error(transparent)]
    Play(#[from] PlayError),
    #[error(transparent)]
    ConferenceFull(#[from] Full),
}

/// An offer to or from a side. See `MediaRelay.Offer`.
#[derive(Debug)]
pub struct Offer<'a> {
    pub session_id: &'a str,
    /// Both are needed with the first offer of a session only.
    pub call_id: &'a str,
    pub owner: &'a str,
    pub side: Side,
    /// The remote's offer; none: we offer.
    pub remote: Option<Remote>,
}

/// Our session description, and what is now agreed.
#[derive(Debug, PartialEq, Eq)]
pub struct Described {
    /// Empty after an answer of the remote.
    pub sdp: Vec<u8>,
    /// What we send in; none while our first offer is open.
    pub codec: Option<Codec>,
    /// The remote does not want to hear us.
    pub held: bool,
}

/// Something has happened on a side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub session_id: Arc<str>,
    pub call_id: Arc<str>,
    pub owner: Arc<str>,
    pub side: Side,
    pub kind: EventKind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventKind {
    Digit(Digit),
    PlayFinished {
        play_id: Arc<str>,
    },
    /// Needed, and silent for the configured time.
    Inactive,
    /// Its first packet has come.
    Latched,
}

/// What the shell must do, besides sending datagrams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    Event(Event),
    ClosePorts(PortPair),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TimerKey {
    Side(SideKey),
    Conference(Arc<str>),
}

/// Sans-IO; see the crate's first page for the loop around it.
#[derive(Debug)]
pub struct Relay {
    pub(crate) config: Config,
    pub(crate) sessions: BTreeMap<SessionKey, Session>,
    pub(crate) by_id: HashMap<Arc<str>, SessionKey>,
    pub(crate) by_port: HashMap<PortPair, SideKey>,
    pub(crate) conferences: HashMap<Arc<str>, Room>,
    pub(crate) timers: Timers<TimerKey>,
    pub(crate) transmits: Transmits,
    pub(crate) outputs: VecDeque<Output>,
    pub(crate) rng: StdRng,
    ports: PortPool,
    next_key: u64,
    started: Instant,
    /// Wallclock at `started`, since the Unix epoch.
    epoch: Duration,
}

/// A conference and where the timers have it.
#[derive(Debug)]
pub(crate) struct Room {
    pub conference: Conference<SideKey>,
    pub armed: Option<Instant>,
}

impl Relay {
    /// `unix` is the wallclock at `now`, for RTCP; `seed` makes SSRCs and the like unpredictable.
    ///
    /// # Errors
    /// [`PortError::NoPair`] if the port range is too small.
    pub fn new(
        config: Config,
        seed: [u8; 32],
        now: Instant,
        unix: Duration,
    ) -> Result<Self, PortError> {
        let mut rng = StdRng::from_seed(seed);
        let start = usize::from(rng.random::<u16>());
        let ports = PortPool::new(config.rtp_ports.clone(), config.port_quarantine, start)?;
        Ok(Self {
            config,
            sessions: BTreeMap::new(),
            by_id: HashMap::new(),
            by_port: HashMap::new(),
            conferences: HashMap::new(),
            timers: Timers::default(),
            transmits: Transmits::default(),
            outputs: VecDeque::new(),
            rng,
            ports,
            next_key: 0,
            started: now,
            epoch: unix,
        })
    }

    /// The next datagram to send. Drain before [`Relay::poll_output`], which may close its port.
    pub fn poll_transmit(&mut self) -> Option<Transmit<'_>> {
        self.transmits.poll()
    }

    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Relay::handle_timeout`] must be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// True if an [`Relay::offer`] of this side must bring ports.
    pub fn needs_ports(&self, session_id: &str, side: Side) -> bool {
        let session = self.by_id.get(session_id).map(|key| &self.sessions[key]);
        session.is_none_or(|it| it.side(side).is_none())
    }

    pub fn has_session(&self, session_id: &str) -> bool {
        self.by_id.contains_key(session_id)
    }

    /// A pair to bind: for [`Relay::offer`], or for [`Relay::give_back_ports`] if that fails.
    ///
    /// # Errors
    /// If all are in use or in quarantine.
    pub fn take_ports(&mut self, now: Instant) -> Result<PortPair, Error> {
        Ok(self.ports.take(now)?)
    }

    /// Takes back a pair that could not be bound: another process has it.
    pub fn give_back_ports(&mut self, now: Instant, pair: PortPair) {
        self.ports.give_back(now, pair);
    }

    /// How many pairs there are.
    pub fn port_pairs(&self) -> usize {
        self.ports.pairs()
    }

    /// Negotiates a side; makes it, and the session, if needed, on `ports`. On an error nothing has
    /// changed, and ports that were brought are closed.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::SessionsUsedUp`], or [`Error::Refused`].
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
        let needs_ports = self.needs_ports(session_id, side);
        assert_eq!(needs_ports, ports.is_some(), "ports come with a new side, and only then");
        if let Some(remote) = &offer.remote {
            remote.check_family(self.config.address)?;
            if ports.is_some() && remote.audio.disabled {
                return Err(Refusal::NoAudio { got: "audio with port 0".to_owned() }.into());
            }
        }
        let key = match self.by_id.get(session_id) {
            Some(key) => *key,
            None => self.make_session(now, &offer)?,
        };
        let key = SideKey { session: key, side };
        if let Some(ports) = ports {
            self.make_side(now, key, ports);
        }
        let address = self.config.address;
        let endpoint = self.endpoint(key, session_id)?;
        let local = Local { address, rtp_port: endpoint.ports.rtp() };
        let described = match offer.remote {
            Some(remote) => {
                let sdp = local.answer(&mut endpoint.origin, &remote);
                let described = Described { sdp, codec: Some(remote.codec()), held: remote.held() };
                endpoint.open_offer = None;
                endpoint.negotiate(now, remote);
                described
            }
            None => {
                let (sdp, formats) = local.offer(&mut endpoint.origin, endpoint.remote.as_ref());
                endpoint.open_offer = Some(formats);
                let remote = endpoint.remote.as_ref();
                let held = remote.is_some_and(Remote::held);
                Described { sdp, codec: remote.map(Remote::codec), held }
            }
        };
        self.note_change(now, key);
        Ok(described)
    }

    fn make_session(&mut self, now: Instant, offer: &Offer<'_>) -> Result<SessionKey, Error> {
        let max = self.config.sessions_max;
        for (name, value) in [("call_id", offer.call_id), ("owner", offer.owner)] {
            if value.is_empty() {
                return Err(Error::Missing(name));
            }
        }
        if self.sessions.len() >= max {
            return Err(Error::SessionsUsedUp { max });
        }
        let key = SessionKey(self.next_key);
        self.next_key += 1;
        let id: Arc<str> = offer.session_id.into();
        self.sessions.insert(key, Session::new(id.clone(), offer.call_id, offer.owner, now));
        self.by_id.insert(id, key);
        Ok(key)
    }

    fn make_side(&mut self, now: Instant, key: SideKey, ports: PortPair) {
        let origin = Origin::new(self.rng.random());
        let outgoing = Outgoing::new(self.rng.random(), self.rng.random(), self.rng.random());
        let session = self.sessions.get_mut(&key.session).expect("it was just found or made");
        let before = session.slot_mut(key.side);
        assert!(before.is_none(), "ports for a side that has some");
        *before = Some(Endpoint::new(now, ports, origin, outgoing));
        self.by_port.insert(ports, key);
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
        remote: Remote,
    ) -> Result<Described, Error> {
        let address = self.config.address;
        let key = self.key(session_id, side)?;
        let endpoint = self.endpoint(key, session_id)?;
        if endpoint.open_offer.is_none() {
            return Err(Error::NoOpenOffer { session_id: session_id.to_owned(), side });
        }
        remote.check_family(address)?;
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
        let Some(session) = self.by_id.get(session_id).copied() else { return false };
        let sides = Side::BOTH.into_iter().filter(|it| side.is_none_or(|side| side == *it));
        let mut existed = side.is_none();
        for side in sides {
            existed |= self.delete_side(now, SideKey { session, side });
        }
        if self.sessions[&session].is_empty() {
            self.sessions.remove(&session);
            self.by_id.remove(session_id);
        }
        existed
    }

    fn delete_side(&mut self, now: Instant, key: SideKey) -> bool {
        self.leave_conference(key);
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

    fn close(&mut self, now: Instant, ports: PortPair) {
        self.ports.give_back(now, ports);
        self.outputs.push_back(Output::ClosePorts(ports));
    }

    /// Plays a file. Music takes the place of the other side or the conference; a prompt is played
    /// over them.
    ///
    /// # Errors
    /// [`Error::Play`] if it would begin after its end.
    pub fn play(
        &mut self,
        now: Instant,
        session_id: &str,
        side: Side,
        play: Play,
    ) -> Result<(), Error> {
        let key = self.key(session_id, side)?;
        let is_music = play.repeat;
        let endpoint = self.endpoint(key, session_id)?;
        endpoint.player.play(play)?;
        endpoint.outgoing.switch();
        if is_music {
            self.leave_conference(key);
            self.endpoint(key, session_id)?.set_hears(Hears::Nothing);
        }
        self.endpoint(key, session_id)?.wake_player(now);
        self.note_change(now, key);
        Ok(())
    }

    /// Stops prompt and music; false if nothing played.
    ///
    /// # Errors
    /// [`Error::NoSession`] or [`Error::NoSide`].
    pub fn stop(&mut self, now: Instant, session_id: &str, side: Side) -> Result<bool, Error> {
        let key = self.key(session_id, side)?;
        let endpoint = self.endpoint(key, session_id)?;
        let stopped = endpoint.player.stop();
        if stopped {
            endpoint.slot = None;
            endpoint.outgoing.switch();
        }
        self.note_change(now, key);
        Ok(stopped)
    }

    /// Lets the two sides hear each other from the next packet on.
    ///
    /// # Errors
    /// [`Error::NotNegotiated`] if one has not been answered.
    pub fn connect(&mut self, now: Instant, session_id: &str) -> Result<(), Error> {
        for side in Side::BOTH {
            let key = self.key(session_id, side)?;
            if self.endpoint(key, session_id)?.remote.is_none() {
                return Err(Error::NotNegotiated { session_id: session_id.to_owned(), side });
            }
        }
        for side in Side::BOTH {
            let key = self.key(session_id, side)?;
            self.leave_conference(key);
            let endpoint = self.endpoint(key, session_id)?;
            if endpoint.player.stop() || endpoint.hears != Hears::OtherSide {
                endpoint.slot = None;
                endpoint.set_hears(Hears::OtherSide);
            }
            self.note_change(now, key);
        }
        Ok(())
    }

    /// Puts a side into a conference, made if needed; returns how many are in it.
    ///
    /// # Errors
    /// [`Error::ConferenceFull`], or [`Error::NotNegotiated`].
    pub fn join(
        &mut self,
        now: Instant,
        session_id: &str,
        side: Side,
        name: &str,
    ) -> Result<usize, Error> {
        let key = self.key(session_id, side)?;
        let endpoint = self.endpoint(key, session_id)?;
        if endpoint.remote.is_none() {
            return Err(Error::NotNegotiated { session_id: session_id.to_owned(), side });
        }
        let hears = Hears::Conference(name.into());
        let is_in = endpoint.hears == hears;
        let room = self
            .conferences
            .entry(name.into())
            .or_insert_with(|| Room { conference: Conference::new(now), armed: None });
        room.conference.join(key)?;
        let participants = room.conference.len();
        let at = Some(room.conference.next_step());
        self.timers.arm(&TimerKey::Conference(name.into()), &mut room.armed, at);
        if !is_in {
            self.leave_conference(key);
        }
        let (endpoint, other) =
            self.session_mut(key).and_then(|it| it.facing(side)).expect("it was just found");
        if endpoint.player.stop() || !is_in {
            endpoint.slot = None;
            endpoint.set_hears(hears);
        }
        if let Some(other) = other.filter(|it| it.hears == Hears::OtherSide) {
            other.set_hears(Hears::Nothing);
        }
        self.note_change(now, key);
        Ok(participants)
    }

    /// Takes the side out of the conference that it hears, and ends that if it was the last.
    fn leave_conference(&mut self, key: SideKey) {
        let Some(endpoint) = self.session_mut(key).and_then(|it| it.side_mut(key.side)) else {
            return;
        };
        let Hears::Conference(name) = &endpoint.hears else { return };
        let name = name.clone();
        endpoint.set_hears(Hears::Nothing);
        let Some(room) = self.conferences.get_mut(&name) else { return };
        room.conference.leave(key);
        if room.conference.is_empty() {
            self.timers.arm(&TimerKey::Conference(name.clone()), &mut room.armed, None);
            self.conferences.remove(&name);
        }
    }

    /// Takes a digit of a SIP INFO; false if the same press came in RTP within 2 s.
    ///
    /// # Errors
    /// [`Error::NoSession`] or [`Error::NoSide`].
    pub fn inject_dtmf(
        &mut self,
        now: Instant,
        session_id: &str,
        side: Side,
        digit: Digit,
    ) -> Result<bool, Error> {
        let key = self.key(session_id, side)?;
        let counted = self.endpoint(key, session_id)?.dtmf.inject(now, digit);
        if counted {
            self.emit(key, EventKind::Digit(digit));
        }
        Ok(counted)
    }

    pub(crate) fn emit(&mut self, key: SideKey, kind: EventKind) {
        let Some(session) = self.sessions.get(&key.session) else { return };
        self.outputs.push_back(Output::Event(Event {
            session_id: session.id.clone(),
            call_id: session.call_id.clone(),
            owner: session.owner.clone(),
            side: key.side,
            kind,
        }));
    }

    pub(crate) fn wallclock(&self, now: Instant) -> Duration {
        self.epoch + now.saturating_duration_since(self.started)
    }

    pub(crate) fn session_mut(&mut self, key: SideKey) -> Option<&mut Session> {
        self.sessions.get_mut(&key.session)
    }

    fn key(&self, session_id: &str, side: Side) -> Result<SideKey, Error> {
        let session = self.by_id.get(session_id).copied();
        let session = session.ok_or_else(|| Error::NoSession(session_id.to_owned()))?;
        Ok(SideKey { session, side })
    }

    fn endpoint(&mut self, key: SideKey, session_id: &str) -> Result<&mut Endpoint, Error> {
        let endpoint = self.session_mut(key).and_then(|it| it.side_mut(key.side));
        let session_id = session_id.to_owned();
        endpoint.ok_or(Error::NoSide { session_id, side: key.side })
    }
}
