//! What a side hears: files, the other side; the digits it is sent, and those of it that come by SIP.

use crate::audio::Form;
use crate::dtmf::{Detection, Digit, SendDigits, Transport};
use crate::endpoint::Hears;
use crate::player::Play;
use crate::relay::{Error, EventKind, LeaveReason, Relay};
use crate::session::Side;
use std::time::Instant;

impl Relay {
    /// Plays a file. Music takes the place of the other side or the conference; a prompt is played
    /// over them, and so is everything to a side that was attached.
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
        let endpoint = self.endpoint(key, session_id)?;
        let is_music = play.repeat && !endpoint.is_verbatim;
        endpoint.player.play(play)?;
        endpoint.outgoing.switch();
        if is_music {
            self.leave_conference(now, key, LeaveReason::Left);
            self.endpoint(key, session_id)?.set_hears(Hears::Nothing);
        }
        self.endpoint(key, session_id)?.wake_player(now);
        self.note_change(now, key);
        Ok(())
    }

    /// The form in which audio would be played to a side now; none before it is negotiated.
    ///
    /// # Errors
    /// [`Error::NoSession`] or [`Error::NoSide`].
    pub fn form(
        &mut self,
        session_id: &str,
        side: Side,
        repeat: bool,
    ) -> Result<Option<Form>, Error> {
        let key = self.key(session_id, side)?;
        let remote = self.endpoint(key, session_id)?.remote.as_ref();
        Ok(remote.map(|it| Form { codec: it.codec(), ptime_ms: it.audio.ptime_ms, repeat }))
    }

    /// Stops prompt and music; false if nothing played.
    ///
    /// # Errors
    /// [`Error::NoSession`] or [`Error::NoSide`].
    pub fn stop(&mut self, now: Instant, session_id: &str, side: Side) -> Result<bool, Error> {
        let key = self.key(session_id, side)?;
        let endpoint = self.endpoint(key, session_id)?;
        let stopped = endpoint.stop_player();
        self.note_change(now, key);
        Ok(stopped)
    }

    /// Stops one playing; music below a prompt goes on. False if it does not play.
    ///
    /// # Errors
    /// [`Error::NoSession`] or [`Error::NoSide`].
    pub fn stop_one(
        &mut self,
        now: Instant,
        session_id: &str,
        side: Side,
        play_id: &str,
    ) -> Result<bool, Error> {
        let key = self.key(session_id, side)?;
        let stopped = self.endpoint(key, session_id)?.stop_one(play_id);
        self.note_change(now, key);
        Ok(stopped)
    }

    /// Lets the two sides hear each other from the next packet on.
    ///
    /// # Errors
    /// [`Error::NotNegotiated`] if one has not been answered.
    pub fn connect(&mut self, now: Instant, session_id: &str) -> Result<(), Error> {
        self.check_negotiated(session_id)?;
        for side in Side::BOTH {
            self.hear_other_side(now, session_id, side)?;
        }
        Ok(())
    }

    /// As [`Relay::connect`], but side A goes on hearing what it hears until the first packet comes
    /// from side B, which hears A at once. True if that has been so already.
    ///
    /// # Errors
    /// [`Error::NotNegotiated`] if one has not been answered.
    pub fn connect_when_heard(&mut self, now: Instant, session_id: &str) -> Result<bool, Error> {
        self.check_negotiated(session_id)?;
        let b = self.key(session_id, Side::B)?;
        let was_heard = self.endpoint(b, session_id)?.packets_received > 0;
        self.hear_other_side(now, session_id, Side::B)?;
        if was_heard {
            self.hear_other_side(now, session_id, Side::A)?;
        } else {
            self.endpoint(b, session_id)?.heard_connects = true;
        }
        Ok(was_heard)
    }

    /// Waits for side B no longer, which hears nothing then. True if it was heard and both are
    /// connected.
    ///
    /// # Errors
    /// [`Error::NoSession`] or [`Error::NoSide`].
    pub fn stop_waiting(&mut self, now: Instant, session_id: &str) -> Result<bool, Error> {
        let b = self.key(session_id, Side::B)?;
        let endpoint = self.endpoint(b, session_id)?;
        if !std::mem::take(&mut endpoint.heard_connects) {
            return Ok(true);
        }
        endpoint.set_hears(Hears::Nothing);
        self.note_change(now, b);
        Ok(false)
    }

    fn check_negotiated(&mut self, session_id: &str) -> Result<(), Error> {
        for side in Side::BOTH {
            let key = self.key(session_id, side)?;
            if self.endpoint(key, session_id)?.remote.is_none() {
                return Err(Error::NotNegotiated { session_id: session_id.to_owned(), side });
            }
        }
        Ok(())
    }

    fn hear_other_side(&mut self, now: Instant, session_id: &str, side: Side) -> Result<(), Error> {
        let key = self.key(session_id, side)?;
        self.leave_conference(now, key, LeaveReason::Left);
        self.endpoint(key, session_id)?.hear_other_side();
        self.note_change(now, key);
        Ok(())
    }

    /// Takes a digit of a SIP INFO; false if the same press came another way within 2 s.
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
            self.emit(key, EventKind::Digit(digit, Transport::Info));
        }
        Ok(counted)
    }

    /// Sends digits to the remote, after those that it is being sent; returns in how many ms they
    /// will have been. What it hears pauses meanwhile.
    ///
    /// # Errors
    /// [`Error::SendDigits`] if telephone-event was not negotiated, or too many wait.
    pub fn send_dtmf(
        &mut self,
        now: Instant,
        session_id: &str,
        side: Side,
        digits: &SendDigits,
    ) -> Result<u32, Error> {
        let key = self.key(session_id, side)?;
        let done_in_ms = self.endpoint(key, session_id)?.send_digits(now, digits)?;
        self.arm(key);
        Ok(done_in_ms)
    }

    /// Switches whether tones are looked for in what a side says.
    ///
    /// # Errors
    /// [`Error::NoSession`] or [`Error::NoSide`].
    pub fn detect_dtmf(
        &mut self,
        session_id: &str,
        side: Side,
        detection: Detection,
    ) -> Result<(), Error> {
        let key = self.key(session_id, side)?;
        self.endpoint(key, session_id)?.dtmf.detection = detection;
        Ok(())
    }
}
