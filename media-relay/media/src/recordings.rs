//! Recordings of a relay: how they begin, go on and end.

use crate::recording::{RECORDINGS_MAX, Recording, RecordingError, RecordingFormat};
use crate::relay::{Error, Output, Relay, TimerKey};
use crate::session::{SessionKey, Side, SideKey};
use std::sync::Arc;
use std::time::Instant;

impl Relay {
    /// How a recording of a side, or both, would be now.
    ///
    /// # Errors
    /// As [`Relay::start_recording`].
    pub fn recording_format(
        &self,
        session_id: &str,
        side: Option<Side>,
    ) -> Result<RecordingFormat, Error> {
        let key = self.key(session_id, Side::A)?.session;
        let session = &self.sessions[&key];
        if session.recording.is_some() {
            return Err(RecordingError::Exists(session_id.to_owned()).into());
        }
        if self.recordings >= RECORDINGS_MAX {
            return Err(RecordingError::TooMany.into());
        }
        if let Some(side) = side.filter(|it| session.side(*it).is_none()) {
            return Err(Error::NoSide { session_id: session_id.to_owned(), side });
        }
        let sides = Side::BOTH.into_iter().filter(|it| side.is_none_or(|side| side == *it));
        let remotes = sides.filter_map(|it| session.side(it)?.remote.as_ref());
        let sample_rate_hz = remotes.map(|it| it.codec().sample_rate_hz()).max();
        let not_negotiated = || {
            let side = side.unwrap_or(Side::A);
            Error::NotNegotiated { session_id: session_id.to_owned(), side }
        };
        Ok(RecordingFormat { side, sample_rate_hz: sample_rate_hz.ok_or_else(not_negotiated)? })
    }

    /// Records in `format` from now on, as [`Output::Recorded`], until it is stopped, the session is
    /// deleted, or it has its longest duration.
    ///
    /// # Errors
    /// [`Error::Recording`] if the session is being recorded, or too many are;
    /// [`Error::NotNegotiated`], [`Error::NoSession`], [`Error::NoSide`].
    pub fn start_recording(
        &mut self,
        now: Instant,
        session_id: &str,
        recording_id: &str,
        format: RecordingFormat,
    ) -> Result<(), Error> {
        self.recording_format(session_id, format.side)?;
        let key = self.key(session_id, Side::A)?.session;
        let longest = self.config.recording_max;
        let recording = Recording::new(now, recording_id.into(), format, longest);
        let session = self.session_mut(SideKey { session: key, side: Side::A });
        session.expect("it was just found").recording = Some(Box::new(recording));
        self.recordings += 1;
        self.arm_recording(key);
        Ok(())
    }

    /// Ends the recording of a session, and returns its id. What is left of it comes out first.
    ///
    /// # Errors
    /// [`Error::Recording`] if it is not being recorded, or [`Error::NoSession`].
    pub fn stop_recording(&mut self, now: Instant, session_id: &str) -> Result<Arc<str>, Error> {
        let key = self.key(session_id, Side::A)?.session;
        let ended = self.end_recording(now, key);
        ended.ok_or_else(|| RecordingError::Missing(session_id.to_owned()).into())
    }

    pub(crate) fn end_recording(&mut self, now: Instant, key: SessionKey) -> Option<Arc<str>> {
        let mut recording = self.sessions.get_mut(&key)?.recording.take()?;
        self.timers.arm(&TimerKey::Recording(key), &mut recording.armed, None);
        self.recordings -= 1;
        let recording_id = recording.id.clone();
        let samples = recording.finish(now);
        self.outputs.push_back(Output::Recorded { recording_id: recording_id.clone(), samples });
        self.outputs.push_back(Output::RecordingEnded { recording_id: recording_id.clone() });
        Some(recording_id)
    }

    pub(crate) fn handle_recording_timeout(&mut self, now: Instant, key: SessionKey) {
        let session = self.sessions.get_mut(&key);
        let Some(recording) = session.and_then(|it| it.recording.as_mut()) else { return };
        recording.armed = None;
        if recording.is_over(now) {
            self.end_recording(now, key);
            return;
        }
        if let Some(samples) = recording.record(now) {
            let recording_id = recording.id.clone();
            self.outputs.push_back(Output::Recorded { recording_id, samples });
        }
        self.arm_recording(key);
    }

    fn arm_recording(&mut self, key: SessionKey) {
        let session = self.sessions.get_mut(&key);
        if let Some(recording) = session.and_then(|it| it.recording.as_mut()) {
            let at = Some(recording.next_step());
            self.timers.arm(&TimerKey::Recording(key), &mut recording.armed, at);
        }
    }
}
