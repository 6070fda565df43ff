//! The relay: all sessions and what they share. Its commands are in `negotiation.rs` and
//! `listening.rs`, its datagrams in `packets.rs`, its time in `schedule.rs`.

use crate::audio::{Audio, Form};
use crate::codec::Codec;
use crate::conference::JoinError;
use crate::dtmf::{Digit, SendDigitsError, Transport};
use crate::endpoint::Endpoint;
use crate::player::PlayError;
use crate::port_pool::{PortError, PortPair, PortPool};
use crate::port_table::PortTable;
use crate::recording::RecordingError;
use crate::rooms::Room;
use crate::sdp::{Refusal, Remote};
use crate::session::{Session, SessionKey, Side, SideKey};
use crate::sessions::Sessions;
use crate::timers::Timers;
use crate::tombstones::Tombstones;
use crate::transmit::{Transmit, Transmits};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

#[derive(Clone, Debug)]
pub struct Config {
    /// The address in our session descriptions.
    pub address: IpAddr,
    /// The address that packets come to and go out from, as hosts beside us see it; unspecified: all
    /// that this host has.
    pub bound: IpAddr,
    pub rtp_ports: RangeInclusive<u16>,
    /// How long a port pair rests after use.
    pub port_quarantine: Duration,
    /// A side that is needed and silent for so long is reported; zero: never.
    pub inactivity: Duration,
    /// A recording ends after it.
    pub recording_max: Duration,
    pub sessions_max: usize,
    /// What we offer, in this order, and take; at least one.
    pub codecs: Vec<Codec>,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    #[error("no media session {0:?}")]
    NoSession(String),
    #[error("media session {session_id:?} has no {}", side.name())]
    NoSide { session_id: String, side: Side },
    #[error("media session {0:?} was deleted before this offer of it came")]
    Deleted(String),
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
    Join(#[from] JoinError),
    #[error("{} of media session {session_id:?} is in no conference", side.name())]
    NotInConference { session_id: String, side: Side },
    #[error(transparent)]
    SendDigits(#[from] SendDigitsError),
    #[error(transparent)]
    Recording(#[from] RecordingError),
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
    /// A press, and the way in which it came first.
    Digit(Digit, Transport),
    /// The end of a press, from a side that was attached, and asked for.
    DigitReleased {
        digit: Digit,
        duration_ms: u32,
        /// In −dBm0.
        volume: u8,
    },
    PlayFinished {
        play_id: Arc<str>,
    },
    /// Needed, and silent for the configured time.
    Inactive,
    /// Its first packet has come.
    Latched,
    /// It has come into a conference, which has so many participants now.
    Joined {
        conference: Arc<str>,
        participants: usize,
    },
    /// It is in the conference no more.
    Left {
        conference: Arc<str>,
        participants: usize,
        reason: LeaveReason,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaveReason {
    /// It was asked to hear something else.
    Left,
    Kicked,
    Deleted,
}

/// What the shell must do, besides sending datagrams.
#[derive(Clone, Debug)]
pub enum Output {
    Event(Event),
    ClosePorts(PortPair),
    /// Interleaved samples for the file of a recording, in order.
    Recorded {
        recording_id: Arc<str>,
        samples: Vec<i16>,
    },
    /// They were the last ones.
    RecordingEnded {
        recording_id: Arc<str>,
    },
    /// To be encoded away from this thread: somebody who is to hear it hears nothing until then.
    Encode(Arc<Audio>, Form),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TimerKey {
    Side(SideKey),
    Conference(Arc<str>),
    Recording(SessionKey),
}

/// Sans-IO; see the crate's first page for the loop around it.
#[derive(Debug)]
pub struct Relay {
    pub(crate) config: Config,
    pub(crate) sessions: Sessions,
    pub(crate) by_id: HashMap<Arc<str>, SessionKey>,
    pub(crate) by_port: PortTable,
    pub(crate) conferences: HashMap<Arc<str>, Room>,
    pub(crate) timers: Timers<TimerKey>,
    pub(crate) transmits: Transmits,
    pub(crate) outputs: VecDeque<Output>,
    /// Of the packet that is being received; kept for its memory.
    pub(crate) sound: Vec<i16>,
    /// Recordings that are being made.
    pub(crate) recordings: usize,
    pub(crate) rng: StdRng,
    ports: PortPool,
    pub(crate) tombstones: Tombstones,
    /// Sessions whose snapshot is out of date, if somebody wants them.
    pub(crate) changed: Option<BTreeSet<Arc<str>>>,
    started: Instant,
    /// Wallclock at `started`, since the Unix epoch.
    epoch: Duration,
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
            sessions: Sessions::default(),
            by_id: HashMap::new(),
            by_port: PortTable::new(&config.rtp_ports),
            conferences: HashMap::new(),
            timers: Timers::new(now),
            transmits: Transmits::default(),
            outputs: VecDeque::new(),
            sound: Vec::new(),
            recordings: 0,
            rng,
            ports,
            tombstones: Tombstones::default(),
            changed: None,
            started: now,
            epoch: unix,
            config,
        })
    }

    /// The datagrams to send, in order. Send them before [`Relay::poll_output`], which may close
    /// their ports, and then call [`Relay::clear_transmits`].
    pub fn transmits(&self) -> impl Iterator<Item = Transmit<'_>> + Clone {
        self.transmits.iter()
    }

    pub fn clear_transmits(&mut self) {
        self.transmits.clear();
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

    /// Sides of all sessions: each has one stream each way.
    pub fn sides(&self) -> usize {
        self.by_port.len()
    }

    /// True if an [`Relay::offer`] of this side must bring ports.
    pub fn needs_ports(&self, session_id: &str, side: Side) -> bool {
        let session = self.by_id.get(session_id).map(|key| &self.sessions[key]);
        session.is_none_or(|it| it.side(side).is_none())
    }

    /// Where a side receives RTP; none if it is not there.
    pub fn rtp_port(&self, session_id: &str, side: Side) -> Option<u16> {
        let session = &self.sessions[self.by_id.get(session_id)?];
        Some(session.side(side)?.ports.rtp())
    }

    pub fn has_session(&self, session_id: &str) -> bool {
        self.by_id.contains_key(session_id)
    }

    /// The call that a session is of; none if there is no such session.
    pub fn call_id(&self, session_id: &str) -> Option<Arc<str>> {
        Some(self.sessions[self.by_id.get(session_id)?].call_id.clone())
    }

    /// A pair to bind: for [`Relay::offer`], or for [`Relay::give_back_ports`] if that fails.
    ///
    /// # Errors
    /// If all are in use or in quarantine.
    pub fn take_ports(&mut self, now: Instant) -> Result<PortPair, Error> {
        Ok(self.ports.take(now)?)
    }

    /// Takes the pair of a port for [`Relay::restore`]; none if it is not free or not ours.
    pub fn reserve_ports(&mut self, rtp_port: u16) -> Option<PortPair> {
        self.ports.reserve(rtp_port)
    }

    /// Takes back a pair that could not be bound: another process has it.
    pub fn give_back_ports(&mut self, now: Instant, pair: PortPair) {
        self.ports.give_back(now, pair);
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

    pub(crate) fn key(&self, session_id: &str, side: Side) -> Result<SideKey, Error> {
        let session = self.by_id.get(session_id).copied();
        let session = session.ok_or_else(|| Error::NoSession(session_id.to_owned()))?;
        Ok(SideKey { session, side })
    }

    pub(crate) fn endpoint(
        &mut self,
        key: SideKey,
        session_id: &str,
    ) -> Result<&mut Endpoint, Error> {
        let endpoint = self.session_mut(key).and_then(|it| it.side_mut(key.side));
        let session_id = session_id.to_owned();
        endpoint.ok_or(Error::NoSide { session_id, side: key.side })
    }
}
