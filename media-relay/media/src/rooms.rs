//! Conferences of a relay: who comes, goes, is heard, and what one hears who is alone.

use crate::conference::{Conference, PARTICIPANTS_MAX, Rules};
use crate::endpoint::Hears;
use crate::player::Play;
use crate::relay::{Error, EventKind, LeaveReason, Relay, TimerKey};
use crate::session::{Side, SideKey};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A conference and where the timers have it.
#[derive(Debug)]
pub(crate) struct Room {
    pub conference: Conference<SideKey>,
    /// For who is alone in it.
    pub music: Option<Play>,
    pub armed: Option<Instant>,
}

/// How a side comes into a conference.
#[derive(Clone, Debug)]
pub struct Join<'a> {
    pub conference: &'a str,
    /// What it says; what the conference has, if it makes it.
    pub pin: &'a str,
    /// Of the conference, if it makes it; 1 to [`PARTICIPANTS_MAX`].
    pub participants_max: usize,
    /// For who is alone in it, if it makes it.
    pub music: Option<Play>,
    pub muted: bool,
    pub deaf: bool,
}

impl<'a> Join<'a> {
    /// Without PIN, limit or music.
    pub fn named(conference: &'a str) -> Self {
        let participants_max = PARTICIPANTS_MAX;
        Self { conference, pin: "", participants_max, music: None, muted: false, deaf: false }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConferenceStatus {
    pub name: String,
    /// Longest in it first.
    pub participants: Vec<ParticipantStatus>,
    pub participants_max: usize,
    pub has_pin: bool,
    /// The highest rate at which somebody hears, in Hz; 0 if nobody has a codec.
    pub sample_rate_hz: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParticipantStatus {
    pub session_id: Arc<str>,
    pub call_id: Arc<str>,
    pub side: Side,
    pub muted: bool,
    pub deaf: bool,
    /// The others hear it now.
    pub speaking: bool,
    /// For how long it has been in.
    pub joined: Duration,
}

impl Relay {
    /// [`Relay::join_with`], without PIN, limit or music.
    ///
    /// # Errors
    /// The same.
    pub fn join(
        &mut self,
        now: Instant,
        session_id: &str,
        side: Side,
        name: &str,
    ) -> Result<usize, Error> {
        self.join_with(now, session_id, side, Join::named(name))
    }

    /// Puts a side into a conference, made if needed; returns how many are in it.
    ///
    /// # Errors
    /// [`Error::Join`], or [`Error::NotNegotiated`].
    pub fn join_with(
        &mut self,
        now: Instant,
        session_id: &str,
        side: Side,
        join: Join<'_>,
    ) -> Result<usize, Error> {
        let key = self.key(session_id, side)?;
        let endpoint = self.endpoint(key, session_id)?;
        if endpoint.remote.is_none() {
            return Err(Error::NotNegotiated { session_id: session_id.to_owned(), side });
        }
        let name: Arc<str> = join.conference.into();
        let hears = Hears::Conference(name.clone());
        let is_in = endpoint.hears == hears;
        let room = self.conferences.entry(name.clone()).or_insert_with(|| {
            let (pin, participants_max) = (join.pin.to_owned(), join.participants_max);
            let rules =
                Rules { pin, participants_max: participants_max.clamp(1, PARTICIPANTS_MAX) };
            Room { conference: Conference::new(now, rules), music: join.music, armed: None }
        });
        room.conference.join(now, key, join.pin, join.muted, join.deaf)?;
        let participants = room.conference.len();
        let at = Some(room.conference.next_step());
        self.timers.arm(&TimerKey::Conference(name.clone()), &mut room.armed, at);
        if is_in {
            self.note_snapshot(key); // Muted or deaf, or not any more.
            return Ok(participants);
        }
        self.leave_conference(now, key, LeaveReason::Left);
        let (endpoint, other) =
            self.session_mut(key).and_then(|it| it.facing(side)).expect("it was just found");
        endpoint.stop_player();
        endpoint.set_hears(hears);
        if let Some(other) = other.filter(|it| it.hears == Hears::OtherSide) {
            other.set_hears(Hears::Nothing);
        }
        self.emit(key, EventKind::Joined { conference: name.clone(), participants });
        self.play_to_who_is_alone(now, &name);
        self.note_change(now, key);
        Ok(participants)
    }

    /// Gives the conference of a side its music back, unless it has some: that of who came first.
    ///
    /// # Errors
    /// [`Error::NotInConference`].
    pub fn resume_conference_music(
        &mut self,
        now: Instant,
        session_id: &str,
        side: Side,
        music: Play,
    ) -> Result<(), Error> {
        let key = self.key(session_id, side)?;
        let endpoint = self.endpoint(key, session_id)?;
        let none = || Error::NotInConference { session_id: session_id.to_owned(), side };
        let Hears::Conference(name) = &endpoint.hears else { return Err(none()) };
        let name = name.clone();
        let room = self.conferences.get_mut(&name).ok_or_else(none)?;
        if room.music.is_none() {
            room.music = Some(music);
            self.play_to_who_is_alone(now, &name);
            self.note_change(now, key);
        }
        Ok(())
    }

    /// Takes a side out of its conference, if it is in one; false if not.
    ///
    /// # Errors
    /// [`Error::NoSession`] or [`Error::NoSide`].
    pub fn leave(
        &mut self,
        now: Instant,
        session_id: &str,
        side: Side,
        reason: LeaveReason,
    ) -> Result<bool, Error> {
        let key = self.key(session_id, side)?;
        self.endpoint(key, session_id)?;
        let left = self.leave_conference(now, key, reason);
        self.note_change(now, key);
        Ok(left)
    }

    /// Mutes or deafens a participant, or takes that back; none: as it is.
    ///
    /// # Errors
    /// [`Error::NotInConference`].
    pub fn update_participant(
        &mut self,
        now: Instant,
        session_id: &str,
        side: Side,
        muted: Option<bool>,
        deaf: Option<bool>,
    ) -> Result<ParticipantStatus, Error> {
        let key = self.key(session_id, side)?;
        let endpoint = self.endpoint(key, session_id)?;
        let none = || Error::NotInConference { session_id: session_id.to_owned(), side };
        let Hears::Conference(name) = &endpoint.hears else { return Err(none()) };
        let name = name.clone();
        let room = self.conferences.get_mut(&name).ok_or_else(none)?;
        let participant = room.conference.participant_mut(key).ok_or_else(none)?;
        participant.muted = muted.unwrap_or(participant.muted);
        participant.deaf = deaf.unwrap_or(participant.deaf);
        self.note_snapshot(key);
        let status = self.conference(now, &name).and_then(|it| {
            let is = |it: &ParticipantStatus| *it.session_id == *session_id && it.side == side;
            it.participants.into_iter().find(is)
        });
        status.ok_or_else(none)
    }

    /// The names of all conferences, in order.
    pub fn conference_names(&self) -> Vec<Arc<str>> {
        let mut names: Vec<_> = self.conferences.keys().cloned().collect();
        names.sort_unstable();
        names
    }

    pub fn conference(&self, now: Instant, name: &str) -> Option<ConferenceStatus> {
        let room = self.conferences.get(name)?;
        let mut sample_rate_hz = 0;
        let participants = room.conference.participants().iter().filter_map(|it| {
            let session = self.sessions.get(&it.key.session)?;
            let endpoint = session.side(it.key.side)?;
            let codec = endpoint.remote.as_ref().map(|it| it.codec());
            sample_rate_hz = codec.map_or(0, |it| it.sample_rate_hz()).max(sample_rate_hz);
            Some(ParticipantStatus {
                session_id: session.id.clone(),
                call_id: session.call_id.clone(),
                side: it.key.side,
                muted: it.muted,
                deaf: it.deaf,
                speaking: it.is_speaking(),
                joined: now.saturating_duration_since(it.joined),
            })
        });
        let participants = participants.collect();
        let rules = room.conference.rules();
        Some(ConferenceStatus {
            name: name.to_owned(),
            participants,
            participants_max: rules.participants_max,
            has_pin: !rules.pin.is_empty(),
            sample_rate_hz,
        })
    }

    /// Takes the side out of the conference that it hears, and ends that if it was the last; false
    /// if it hears none.
    pub(crate) fn leave_conference(
        &mut self,
        now: Instant,
        key: SideKey,
        reason: LeaveReason,
    ) -> bool {
        let Some(endpoint) = self.session_mut(key).and_then(|it| it.side_mut(key.side)) else {
            return false;
        };
        let Hears::Conference(name) = &endpoint.hears else { return false };
        let name = name.clone();
        endpoint.set_hears(Hears::Nothing);
        let Some(room) = self.conferences.get_mut(&name) else { return false };
        room.conference.leave(key);
        if let (Some(music), Some(session)) = (&room.music, self.sessions.get_mut(&key.session))
            && let Some(endpoint) = session.side_mut(key.side)
        {
            endpoint.stop_one(&music.play_id);
        }
        let participants = room.conference.len();
        if participants == 0 {
            self.timers.arm(&TimerKey::Conference(name.clone()), &mut room.armed, None);
            self.conferences.remove(&name);
        }
        self.play_to_who_is_alone(now, &name);
        self.emit(key, EventKind::Left { conference: name, participants, reason });
        true
    }

    /// Begins the conference's music if one is alone in it, and ends it if not.
    fn play_to_who_is_alone(&mut self, now: Instant, name: &str) {
        let Some(Room { conference, music: Some(music), .. }) = self.conferences.get(name) else {
            return;
        };
        let music = music.clone();
        let keys: Vec<_> = conference.participants().iter().map(|it| it.key).collect();
        let is_alone = keys.len() == 1;
        for key in keys {
            let session = self.sessions.get_mut(&key.session);
            let Some(endpoint) = session.and_then(|it| it.side_mut(key.side)) else { continue };
            match is_alone {
                true if endpoint.player.play(music.clone()).is_ok() => {
                    endpoint.outgoing.switch();
                    endpoint.wake_player(now);
                }
                true => (),
                false => {
                    endpoint.stop_one(&music.play_id);
                }
            }
            self.arm(key);
        }
    }
}
