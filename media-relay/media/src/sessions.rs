//! All sessions: each at a place that its key names, and in the order of their age.

use crate::session::{Session, SessionKey};
use std::collections::BTreeSet;
use std::ops::Index;

/// Bits of a key that are the place; those above count sessions, so that no key is used twice.
const PLACE_BITS: u32 = 24;

#[derive(Debug, Default)]
pub(crate) struct Sessions {
    places: Vec<Option<(SessionKey, Session)>>,
    free: Vec<usize>,
    by_age: BTreeSet<SessionKey>,
    made: u64,
}

impl Sessions {
    /// # Panics
    /// At 16 million sessions: `--max-sessions` is far below.
    pub(crate) fn insert(&mut self, session: Session) -> SessionKey {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            self.places.len() - 1
        });
        assert!(place >> PLACE_BITS == 0, "{place} sessions");
        let key = SessionKey(self.made << PLACE_BITS | place as u64);
        self.made += 1;
        self.places[place] = Some((key, session));
        self.by_age.insert(key);
        key
    }

    pub(crate) fn remove(&mut self, key: &SessionKey) {
        if self.by_age.remove(key) {
            self.places[place(*key)] = None;
            self.free.push(place(*key));
        }
    }

    pub(crate) fn get(&self, key: &SessionKey) -> Option<&Session> {
        let (held, session) = self.places.get(place(*key))?.as_ref()?;
        (held == key).then_some(session)
    }

    pub(crate) fn get_mut(&mut self, key: &SessionKey) -> Option<&mut Session> {
        let (held, session) = self.places.get_mut(place(*key))?.as_mut()?;
        (held == key).then_some(session)
    }

    pub(crate) fn len(&self) -> usize {
        self.by_age.len()
    }

    /// Oldest first.
    pub(crate) fn values(&self) -> impl Iterator<Item = &Session> {
        self.younger_than(None).map(|(_, session)| session)
    }

    /// Oldest first, those that are younger than `key`, or all.
    pub(crate) fn younger_than(
        &self,
        key: Option<SessionKey>,
    ) -> impl Iterator<Item = (SessionKey, &Session)> {
        let first = key.map_or(SessionKey(0), |it| SessionKey(it.0 + 1));
        self.by_age.range(first..).filter_map(|key| Some((*key, self.get(key)?)))
    }
}

impl Index<&SessionKey> for Sessions {
    type Output = Session;

    /// # Panics
    /// If there is none.
    fn index(&self, key: &SessionKey) -> &Session {
        self.get(key).expect("a session of this key")
    }
}

fn place(key: SessionKey) -> usize {
    (key.0 & ((1 << PLACE_BITS) - 1)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn a_place_is_used_again_but_a_key_is_not() {
        let session = |id: &str| Session::new(id.into(), "call", "edge", Instant::now());
        let mut sessions = Sessions::default();
        let [a, b] = ["a", "b"].map(|it| sessions.insert(session(it)));
        sessions.remove(&a);
        sessions.remove(&a);
        let c = sessions.insert(session("c"));
        assert_eq!((place(c), sessions.len()), (place(a), 2));
        assert!(sessions.get(&a).is_none() && sessions.get_mut(&a).is_none());
        let ids = |key| sessions.younger_than(key).map(|(_, it)| &*it.id).collect::<String>();
        assert_eq!((ids(None).as_str(), ids(Some(b)).as_str()), ("bc", "c"));
    }
}
