//! What is left of a session when the process dies: enough to go on where it was, on the same ports,
//! with the same SSRC, sequence numbers and timestamps, and the music at the same place.
//!
//! A snapshot is taken when something about a session changes, never while it just goes on: what
//! moves by itself is an anchor and a moment, from which the present follows. Music and a mix send
//! a packet every packet time; a relayed packet's numbers are the source's plus offsets that do not
//! change. What was sent since the anchor is therefore known at the restore, but for clocks that
//! were set meanwhile; so sequence numbers skip [`SKIPPED`] more, which the remote sees as as many
//! lost packets beside those that the dead process has not sent. From the restore on sequence
//! numbers count packets again: until its music is decoded a side hears a pause, which timestamps
//! count and the first packet after it marks (RFC 3550 §5.1, RFC 3551 §4.1), and which is no loss.
//!
//! Not kept: statistics of what was received (the remote's next packets begin them anew), digits
//! that were being pressed, recordings (their files end with the last second that was written), and
//! tombstones.

use crate::conference::PARTICIPANTS_MAX;
use crate::endpoint::{Endpoint, Hears};
use crate::outgoing::Outgoing;
use crate::player::Play;
use crate::port_pool::PortPair;
use crate::relay::{Config, Error, Relay};
use crate::rooms::Join;
use crate::sdp::{Local, Offered, Origin, Remote};
use crate::session::{Session, Side, SideKey};
use crate::verbatim::Verbatim;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Written into every snapshot; others are not read.
pub const SNAPSHOT_VERSION: u32 = 1;
/// Sequence numbers that are left out at a restore, beside those that were due meanwhile.
pub(crate) const SKIPPED: u64 = 2;
/// Packet time that is assumed of a stream whose relayed source has changed, in ms.
const RELAYED_PTIME_MS: u32 = 20;

/// A session as it was at `taken_unix_us`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionSnapshot {
    pub version: u32,
    pub session_id: String,
    pub call_id: String,
    pub owner: String,
    pub created_unix_us: u64,
    pub taken_unix_us: u64,
    /// A and B.
    pub sides: [Option<SideSnapshot>; 2],
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SideSnapshot {
    pub rtp_port: u16,
    /// Session id and version of our o= line.
    pub origin: (u64, u64),
    /// The remote's last session description, as far as we read it.
    pub remote: Option<String>,
    /// What is known of a remote that was attached.
    #[serde(default)]
    pub verbatim: Option<Verbatim>,
    /// That was its answer to an offer of ours.
    pub we_offered: bool,
    /// An offer of ours is not answered yet.
    pub offer_open: bool,
    pub rtp: LatchSnapshot,
    pub rtcp: LatchSnapshot,
    pub was_latched: bool,
    pub outgoing: OutgoingSnapshot,
    /// Packet time of what it is sent by our own clock, in ms; none while nothing is.
    pub sends_every_ms: Option<u32>,
    pub hears: HearsSnapshot,
    /// Music, then the prompt over it.
    pub plays: Vec<PlaySnapshot>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LatchSnapshot {
    pub latched: Option<SocketAddr>,
    /// Where the signalling came from.
    pub signalling: Option<IpAddr>,
    /// The next valid source is taken.
    pub open: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HearsSnapshot {
    Nothing,
    OtherSide,
    Conference(MemberSnapshot),
}

/// A participant, and the rules of its conference for who makes it anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberSnapshot {
    pub conference: String,
    pub pin: String,
    pub participants_max: usize,
    pub muted: bool,
    pub deaf: bool,
    /// For who is alone in it.
    #[serde(default)]
    pub music: Option<PlaySnapshot>,
}

/// A file that plays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlaySnapshot {
    pub play_id: String,
    pub file: String,
    pub repeat: bool,
    pub radio: bool,
    /// When the snapshot was taken.
    pub offset_ms: u32,
}

/// Numbers of the stream that we send.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutgoingSnapshot {
    pub ssrc: u32,
    pub next_sequence: u16,
    pub first_timestamp: u32,
    pub last: Option<SentSnapshot>,
    pub relaying: Option<RelayingSnapshot>,
    pub packets: u64,
    pub octets: u64,
}

/// The packet with the newest timestamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentSnapshot {
    /// How long before the snapshot, in µs.
    pub age_us: u64,
    pub timestamp: u32,
    pub ticks: u32,
}

/// How the numbers of a relayed source become ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayingSnapshot {
    pub ssrc: u32,
    pub sequence_offset: u16,
    pub timestamp_offset: u32,
}

/// What has become of a session since the last time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    Lives(Box<SessionSnapshot>),
    /// The id of one that was deleted.
    Gone(Arc<str>),
}

/// A playing to be taken up again, by [`Relay::play`], or by [`Relay::resume_conference_music`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resumed {
    pub session_id: String,
    pub call_id: String,
    pub side: Side,
    pub play: PlaySnapshot,
    /// How long ago it was at its offset.
    pub age: Duration,
    /// It is the music of the side's conference, for who is alone in it.
    pub is_conference_music: bool,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RestoreError {
    #[error("version {got} of a snapshot; wanted {SNAPSHOT_VERSION}")]
    Version { got: u32 },
    #[error("media session {0:?} exists")]
    Exists(String),
    #[error("port {0} is not a free even port of --rtp-ports")]
    Port(u16),
    #[error("{0}")]
    Relay(#[from] Error),
}

impl PlaySnapshot {
    pub(crate) fn of(play: &Play, offset_ms: u32) -> Self {
        Self {
            play_id: play.play_id.to_string(),
            file: play.file.to_string(),
            repeat: play.repeat,
            radio: play.radio,
            offset_ms,
        }
    }

    /// Where it would be `age` later; none if it is a prompt of `duration_ms`, which is over. Music
    /// is not brought below its length here, which is no whole number of ms.
    pub fn offset_after(&self, age: Duration, duration_ms: u32) -> Option<u32> {
        let offset_ms = u128::from(self.offset_ms) + age.as_millis();
        let offset_ms = u32::try_from(offset_ms).unwrap_or(u32::MAX); // 49 days.
        Some(offset_ms).filter(|it| self.repeat || *it < duration_ms)
    }
}

impl Relay {
    /// From now on changes are noted for [`Relay::poll_changed`], which must then be drained.
    pub fn note_changes(&mut self) {
        self.changed.get_or_insert_default();
    }

    /// Takes up a session where it was, but for what it plays, which is returned. All its `ports`,
    /// from [`Relay::reserve_ports`], must be bound.
    ///
    /// # Errors
    /// [`RestoreError`]; nothing has changed then, except that the ports are closed.
    pub fn restore(
        &mut self,
        now: Instant,
        snapshot: &SessionSnapshot,
    ) -> Result<Vec<Resumed>, RestoreError> {
        let result = self.restore_here(now, snapshot);
        if result.is_err() {
            for side in snapshot.sides.iter().flatten() {
                self.close(now, PortPair::of(side.rtp_port));
            }
        }
        result
    }

    fn restore_here(
        &mut self,
        now: Instant,
        snapshot: &SessionSnapshot,
    ) -> Result<Vec<Resumed>, RestoreError> {
        if snapshot.version != SNAPSHOT_VERSION {
            return Err(RestoreError::Version { got: snapshot.version });
        }
        let session_id = snapshot.session_id.as_str();
        if self.has_session(session_id) {
            return Err(RestoreError::Exists(session_id.to_owned()));
        }
        let unix = self.wallclock(now);
        let age = unix.saturating_sub(Duration::from_micros(snapshot.taken_unix_us));
        let mut endpoints = Vec::new();
        for (side, it) in Side::BOTH.into_iter().zip(&snapshot.sides) {
            let Some(it) = it else { continue };
            endpoints.push((side, it, restore_side(&self.config, now, age, it)?));
        }
        let id: Arc<str> = session_id.into();
        let since = unix.saturating_sub(Duration::from_micros(snapshot.created_unix_us));
        let created = now.checked_sub(since).unwrap_or(now);
        let mut session = Session::new(id.clone(), &snapshot.call_id, &snapshot.owner, created);
        session.has_snapshot = true;
        let key = self.sessions.insert(session);
        self.by_id.insert(id, key);
        let mut resumed = Vec::new();
        for (side, it, endpoint) in endpoints {
            self.restore_endpoint(SideKey { session: key, side }, endpoint);
            let music = match &it.hears {
                HearsSnapshot::Conference(member) => member.music.as_ref(),
                HearsSnapshot::Nothing | HearsSnapshot::OtherSide => None,
            };
            let plays = it.plays.iter().map(|it| (it, false)).chain(music.map(|it| (it, true)));
            resumed.extend(plays.map(|(play, is_conference_music)| Resumed {
                session_id: session_id.to_owned(),
                call_id: snapshot.call_id.clone(),
                side,
                play: play.clone(),
                age,
                is_conference_music,
            }));
        }
        for (side, it) in Side::BOTH.into_iter().zip(&snapshot.sides) {
            let Some(it) = it else { continue };
            match &it.hears {
                HearsSnapshot::Conference(member) => {
                    let join = Join {
                        pin: &member.pin,
                        participants_max: member.participants_max,
                        muted: member.muted,
                        deaf: member.deaf,
                        ..Join::named(&member.conference)
                    };
                    // If that is full by now, it hears nothing: its call can still be ended or moved.
                    let _ = self.join_with(now, session_id, side, join);
                }
                HearsSnapshot::Nothing | HearsSnapshot::OtherSide => {
                    self.note_change(now, SideKey { session: key, side });
                }
            }
        }
        Ok(resumed)
    }

    /// What has changed and was not told yet, as it is at `now`.
    pub fn poll_changed(&mut self, now: Instant) -> Option<Changed> {
        let id = self.changed.as_mut()?.pop_first()?;
        let Some(key) = self.by_id.get(&id) else { return Some(Changed::Gone(id)) };
        if let Some(session) = self.sessions.get_mut(key) {
            session.has_snapshot = true;
        }
        let session = &self.sessions[key];
        let unix_us = |it: Instant| u64::try_from(self.wallclock(it).as_micros()).unwrap_or(0);
        let key = *key;
        let side = |side| {
            let hears = self.hears_snapshot(SideKey { session: key, side }, session.side(side)?);
            Some(side_snapshot(now, session.side(side)?, hears))
        };
        Some(Changed::Lives(Box::new(SessionSnapshot {
            version: SNAPSHOT_VERSION,
            session_id: id.to_string(),
            call_id: session.call_id.to_string(),
            owner: session.owner.to_string(),
            created_unix_us: unix_us(session.created),
            taken_unix_us: unix_us(now),
            sides: Side::BOTH.map(side),
        })))
    }

    fn hears_snapshot(&self, key: SideKey, endpoint: &Endpoint) -> HearsSnapshot {
        let name = match &endpoint.hears {
            Hears::Nothing => return HearsSnapshot::Nothing,
            Hears::OtherSide => return HearsSnapshot::OtherSide,
            Hears::Conference(name) => name,
        };
        let room = self.conferences.get(name);
        let conference = room.map(|it| &it.conference);
        let music = room.and_then(|it| it.music.as_ref()).map(|music| {
            let is_heard = |it: &PlaySnapshot| *it.play_id == *music.play_id;
            let heard = endpoint.player.layers().find(is_heard);
            heard.unwrap_or_else(|| PlaySnapshot::of(music, music.offset_ms))
        });
        let participants = conference.map_or(&[][..], |it| it.participants());
        let member = participants.iter().find(|it| it.key == key);
        HearsSnapshot::Conference(MemberSnapshot {
            conference: name.to_string(),
            pin: conference.map_or_else(String::new, |it| it.rules().pin.clone()),
            participants_max: conference.map_or(PARTICIPANTS_MAX, |it| it.rules().participants_max),
            muted: member.is_some_and(|it| it.muted),
            deaf: member.is_some_and(|it| it.deaf),
            music,
        })
    }

    /// There is nothing to be taken back of a session that no snapshot was taken of: however long
    /// nobody asks for them, no more is noted than sessions that live and snapshots that were taken.
    pub(crate) fn forget_change(&mut self, session_id: &str) {
        if let Some(changed) = &mut self.changed {
            changed.remove(session_id);
        }
    }

    pub(crate) fn note_snapshot(&mut self, key: SideKey) {
        if let (Some(changed), Some(session)) = (&mut self.changed, self.sessions.get(&key.session))
        {
            changed.insert(session.id.clone());
        }
    }
}

fn side_snapshot(now: Instant, endpoint: &Endpoint, hears: HearsSnapshot) -> SideSnapshot {
    // A player is where its next packet begins.
    let ahead =
        endpoint.sending.next().map_or(0, |it| it.saturating_duration_since(now).as_millis());
    let ahead_ms = u32::try_from(ahead).unwrap_or(0);
    let mut plays: Vec<_> = endpoint.player.layers().collect();
    for play in &mut plays {
        play.offset_ms = play.offset_ms.saturating_sub(ahead_ms);
    }
    let by_clock = !plays.is_empty() || matches!(endpoint.hears, Hears::Conference(_));
    if let HearsSnapshot::Conference(MemberSnapshot { music: Some(music), .. }) = &hears {
        plays.retain(|it| it.play_id != music.play_id); // It is the conference's.
    }
    let route = endpoint.route().filter(|_| by_clock);
    let described = endpoint.remote.as_ref().filter(|it| it.verbatim.is_none());
    SideSnapshot {
        rtp_port: endpoint.ports.rtp(),
        origin: endpoint.origin.numbers(),
        remote: described.map(|it| it.text.to_string()),
        verbatim: endpoint.remote.as_ref().and_then(|it| it.verbatim.as_deref().cloned()),
        we_offered: endpoint.we_offered(),
        offer_open: endpoint.open_offer.is_some(),
        rtp: endpoint.rtp.snapshot(),
        rtcp: endpoint.rtcp.snapshot(),
        was_latched: endpoint.was_latched,
        outgoing: endpoint.outgoing.snapshot(now),
        sends_every_ms: route.map(|it| it.ptime_ms),
        hears,
        plays,
    }
}

fn restore_side(
    config: &Config,
    now: Instant,
    age: Duration,
    snapshot: &SideSnapshot,
) -> Result<Endpoint, RestoreError> {
    let ports = PortPair::of(snapshot.rtp_port);
    let (session, version) = snapshot.origin;
    let ptime_ms = match (&snapshot.hears, snapshot.outgoing.relaying) {
        (HearsSnapshot::OtherSide, Some(_)) => Some(RELAYED_PTIME_MS),
        _ => snapshot.sends_every_ms,
    };
    let every = ptime_ms.map(|it| Duration::from_millis(it.max(1).into()));
    let outgoing = Outgoing::restore(now, age, every, &snapshot.outgoing);
    let origin = Origin::resume(session, version);
    let mut endpoint = Endpoint::new(now, ports, origin, outgoing);
    let local = Local { address: config.address, rtp_port: ports.rtp() };
    let offered = Offered { all: &config.codecs, first: None };
    if let Some(text) = &snapshot.remote {
        let remote = Remote::parse(text.as_bytes()).map_err(Error::from)?;
        let mut remote = remote.signalled_from(snapshot.rtp.signalling);
        // If it cannot be reached any more, our flags are others now: then it stays as it was.
        let _ = remote.choose(config.address, &config.codecs);
        if snapshot.we_offered {
            endpoint.open_offer = Some(local.offer(&mut endpoint.origin, None, &offered).1);
        }
        endpoint.negotiate(now, remote);
    }
    if let Some(verbatim) = &snapshot.verbatim {
        endpoint.attach(now, verbatim.clone());
    }
    if snapshot.offer_open {
        let remote = endpoint.remote.as_ref();
        let formats = local.offer(&mut endpoint.origin, remote, &offered).1;
        endpoint.open_offer = Some(formats);
    }
    endpoint.restore_latches(snapshot.rtp, snapshot.rtcp);
    endpoint.was_latched = snapshot.was_latched;
    if snapshot.hears == HearsSnapshot::OtherSide {
        endpoint.hears = Hears::OtherSide; // Without a switch: the relayed numbers go on.
    }
    Ok(endpoint)
}
