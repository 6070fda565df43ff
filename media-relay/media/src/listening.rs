//! What a side hears: files, the other side, a conference; and its digits that come by SIP.

use crate::conference::Conference;
use crate::dtmf::Digit;
use crate::endpoint::Hears;
use crate::player::Play;
use crate::relay::{Error, EventKind, Relay, Room, TimerKey};
use crate::session::{Side, SideKey};
use std::time::Instant;

impl Relay {
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

    /// Takes a side out of its conference, if it is in one.
    ///
    /// # Errors
    /// [`Error::NoSession`] or [`Error::NoSide`].
    pub fn leave(&mut self, now: Instant, session_id: &str, side: Side) -> Result<(), Error> {
        let key = self.key(session_id, side)?;
        self.leave_conference(key);
        self.note_change(now, key);
        Ok(())
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
    pub(crate) fn leave_conference(&mut self, key: SideKey) {
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
}
