//! A media session: the two sides of a call.

use crate::endpoint::Endpoint;
use crate::recording::Recording;
use crate::relay::{Error, Relay};
use std::sync::Arc;
use std::time::Instant;

/// Matches the legs of the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    A,
    B,
}

impl Side {
    pub const BOTH: [Self; 2] = [Self::A, Self::B];

    pub fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::A => "side A",
            Self::B => "side B",
        }
    }
}

/// Counts up and is never used twice: an older session has the lower key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SessionKey(pub(crate) u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SideKey {
    pub session: SessionKey,
    pub side: Side,
}

/// In memory as listed: the first two are what each packet needs.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Session {
    /// Each by itself: who hears music has only one.
    sides: [Option<Box<Endpoint>>; 2],
    pub recording: Option<Box<Recording>>,
    /// A snapshot of it was taken, and must be taken back in the end.
    pub has_snapshot: bool,
    pub id: Arc<str>,
    pub call_id: Arc<str>,
    pub owner: Arc<str>,
    pub created: Instant,
}

impl Session {
    pub(crate) fn new(id: Arc<str>, call_id: &str, owner: &str, created: Instant) -> Self {
        let (call_id, owner) = (call_id.into(), owner.into());
        let sides = [None, None];
        Self { id, call_id, owner, created, recording: None, has_snapshot: false, sides }
    }

    pub(crate) fn side(&self, side: Side) -> Option<&Endpoint> {
        self.sides[side as usize].as_deref()
    }

    pub(crate) fn side_mut(&mut self, side: Side) -> Option<&mut Endpoint> {
        self.sides[side as usize].as_deref_mut()
    }

    pub(crate) fn slot_mut(&mut self, side: Side) -> &mut Option<Box<Endpoint>> {
        &mut self.sides[side as usize]
    }

    /// A side and the one across from it.
    pub(crate) fn facing(&mut self, side: Side) -> Option<(&mut Endpoint, Option<&mut Endpoint>)> {
        let [a, b] = &mut self.sides;
        let (this, other) = match side {
            Side::A => (a, b),
            Side::B => (b, a),
        };
        Some((this.as_deref_mut()?, other.as_deref_mut()))
    }

    /// The same, and what records them.
    pub(crate) fn facing_recorded(
        &mut self,
        side: Side,
    ) -> Option<(&mut Endpoint, Option<&mut Endpoint>, Option<&mut Recording>)> {
        let [a, b] = &mut self.sides;
        let (this, other) = match side {
            Side::A => (a, b),
            Side::B => (b, a),
        };
        let recording = self.recording.as_deref_mut().filter(|it| it.has(side));
        Some((this.as_deref_mut()?, other.as_deref_mut(), recording))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.sides.iter().all(Option::is_none)
    }
}

impl Relay {
    /// Gives a session to another owner.
    ///
    /// # Errors
    /// [`Error::NoSession`].
    pub fn adopt(&mut self, session_id: &str, owner: &str) -> Result<(), Error> {
        let key = self.key(session_id, Side::A)?;
        if let Some(session) = self.session_mut(key) {
            session.owner = owner.into();
        }
        self.note_snapshot(key);
        Ok(())
    }
}
