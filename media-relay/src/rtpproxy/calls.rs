//! Which media session a call's tags mean, and what the client wants of it. Holds no media: ports,
//! addresses and codecs are the core's.

use super::command::Party;
use super::tag::{Match, compare};
use media::Side;
use std::collections::{BTreeSet, HashMap};
use std::time::Instant;

/// A media session of a client: one media description of a call.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub session_id: String,
    pub call_id: String,
    /// Of who was first to say where it is: side A.
    pub tag: String,
    /// It goes when none of these is left: that of the session, and those of its sides.
    pub strong: bool,
    pub weak: [bool; 2],
    /// Where to tell when it is over without the client's doing.
    pub notify: Option<Notified>,
    /// Where to tell of digits of each side.
    pub digits: [Option<Notified>; 2],
    /// Of what each side is played, in ms.
    pub packet_time_ms: [Option<u32>; 2],
    /// How long it may be silent, if the client has said so.
    pub ttl_s: Option<u32>,
    /// When it is to be looked at.
    pub due: Instant,
}

/// Where to tell something, and by what name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Notified {
    pub socket: super::notifier::Socket,
    pub tag: String,
}

impl Call {
    pub(super) fn new(session_id: String, party: &Party, due: Instant) -> Self {
        Self {
            session_id,
            call_id: party.call_id.clone(),
            tag: party.from_tag.clone(),
            strong: false,
            weak: [false; 2],
            notify: None,
            digits: [None, None],
            packet_time_ms: [None; 2],
            ttl_s: None,
            due,
        }
    }

    /// What the core knows it by: no token has a blank.
    pub(super) fn name(&self) -> String {
        format!("{} {}", self.call_id, self.tag)
    }

    /// Side A, if the tag is the session's; side B, if its opposite is.
    fn side_of(&self, party: &Party) -> Option<(Side, Match)> {
        let from = compare(&self.tag, &party.from_tag).map(|it| (Side::A, it));
        let to = || Some((Side::B, compare(&self.tag, party.to_tag.as_deref()?)?));
        from.or_else(to)
    }

    fn is_wanted(&self) -> bool {
        self.strong || self.weak.contains(&true)
    }

    /// Takes a flag; true if none is left.
    fn take_flag(&mut self, side: Side, weak: bool) -> bool {
        match weak {
            true => self.weak[side as usize] = false,
            false => self.strong = false,
        }
        !self.is_wanted()
    }
}

/// All calls of all clients.
#[derive(Debug, Default)]
pub(super) struct Calls {
    by_session: HashMap<String, Call>,
    /// Sessions of a Call-ID, oldest first.
    by_call_id: HashMap<String, Vec<String>>,
    due: BTreeSet<(Instant, String)>,
}

impl Calls {
    pub(super) fn insert(&mut self, call: Call) {
        let session_id = call.session_id.clone();
        self.by_call_id.entry(call.call_id.clone()).or_default().push(session_id.clone());
        self.due.insert((call.due, session_id.clone()));
        self.by_session.insert(session_id, call);
    }

    pub(super) fn remove(&mut self, session_id: &str) -> Option<Call> {
        let call = self.by_session.remove(session_id)?;
        self.due.remove(&(call.due, call.session_id.clone()));
        if let Some(sessions) = self.by_call_id.get_mut(&call.call_id) {
            sessions.retain(|it| it != session_id);
            if sessions.is_empty() {
                self.by_call_id.remove(&call.call_id);
            }
        }
        Some(call)
    }

    pub(super) fn get(&self, session_id: &str) -> Option<&Call> {
        self.by_session.get(session_id)
    }

    pub(super) fn get_mut(&mut self, session_id: &str) -> Option<&mut Call> {
        self.by_session.get_mut(session_id)
    }

    /// The session whose tag is the party's, or its opposite's, and which side the party is; else the
    /// first of those that a tag without number means.
    pub(super) fn find(&self, party: &Party) -> Option<(&Call, Side)> {
        let found = |wanted| {
            self.all(party).find(|(_, _, it)| *it == wanted).map(|(call, side, _)| (call, side))
        };
        found(Match::Exact).or_else(|| found(Match::AllMedia))
    }

    /// The session of exactly these tags, for who sets it up.
    pub(super) fn find_exact(&self, party: &Party) -> Option<(&Call, Side)> {
        let mut all = self.all(party);
        all.find(|(_, _, it)| *it == Match::Exact).map(|(call, side, _)| (call, side))
    }

    /// All that the party's tags mean, and which side it is.
    pub(super) fn all(&self, party: &Party) -> impl Iterator<Item = (&Call, Side, Match)> {
        let sessions = self.by_call_id.get(&party.call_id).map_or(&[][..], Vec::as_slice);
        sessions.iter().filter_map(|it| {
            let call = self.by_session.get(it)?;
            let (side, matched) = call.side_of(party)?;
            Some((call, side, matched))
        })
    }

    /// Takes a flag of all that the party's tags mean. None if there are none of them; else those
    /// sessions that nobody wants any more, which are still here.
    pub(super) fn release(&mut self, party: &Party, weak: bool) -> Option<Vec<String>> {
        let meant: Vec<(String, Side)> =
            self.all(party).map(|(call, side, _)| (call.session_id.clone(), side)).collect();
        if meant.is_empty() {
            return None;
        }
        let unwanted = meant.into_iter().filter(|(session_id, side)| {
            self.by_session.get_mut(session_id).is_some_and(|it| it.take_flag(*side, weak))
        });
        Some(unwanted.map(|(session_id, _)| session_id).collect())
    }

    pub(super) fn session_ids(&self) -> Vec<String> {
        self.by_session.keys().cloned().collect()
    }

    /// When the next session is to be looked at.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Those that are to be looked at now, at most `limit`, each with how long it may be silent.
    pub(super) fn due(&self, now: Instant, limit: usize) -> Vec<(String, Option<u32>)> {
        let due = self.due.iter().take_while(|(at, _)| *at <= now).take(limit);
        let call = |(_, it): &(Instant, String)| Some((it.clone(), self.by_session.get(it)?.ttl_s));
        due.filter_map(call).collect()
    }

    pub(super) fn look_again(&mut self, session_id: &str, at: Instant) {
        if let Some(call) = self.by_session.get_mut(session_id) {
            self.due.remove(&(call.due, session_id.to_owned()));
            call.due = at;
            self.due.insert((at, session_id.to_owned()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn party(from_tag: &str, to_tag: Option<&str>) -> Party {
        let (call_id, from_tag) = ("call".to_owned(), from_tag.to_owned());
        Party { call_id, from_tag, to_tag: to_tag.map(str::to_owned) }
    }

    fn calls(tags: &[&str]) -> Calls {
        let mut calls = Calls::default();
        for (n, tag) in tags.iter().enumerate() {
            let mut call = Call::new(n.to_string(), &party(tag, None), Instant::now());
            call.strong = true;
            calls.insert(call);
        }
        calls
    }

    fn found(calls: &Calls, from_tag: &str, to_tag: Option<&str>) -> Option<(String, Side)> {
        let (call, side) = calls.find(&party(from_tag, to_tag))?;
        Some((call.session_id.clone(), side))
    }

    #[test]
    fn who_was_first_is_side_a_whichever_tag_it_comes_in() {
        let calls = calls(&["a;1", "a;2"]);
        assert_eq!(found(&calls, "a;2", None), Some(("1".into(), Side::A)));
        assert_eq!(found(&calls, "b;2", Some("a;2")), Some(("1".into(), Side::B)));
        assert_eq!(found(&calls, "a", Some("b")), Some(("0".into(), Side::A)), "any media");
        assert_eq!(found(&calls, "b;1", None), None);
        assert_eq!(found(&calls, "a;3", Some("b;3")), None);
    }

    #[test]
    fn a_call_goes_with_its_last_flag() {
        let mut calls = calls(&["a;1", "a;2"]);
        calls.get_mut("0").unwrap().weak = [true, true];
        assert_eq!(calls.release(&party("x", None), false), None);
        assert_eq!(calls.release(&party("a", None), false), Some(vec!["1".into()]));
        calls.remove("1");
        assert_eq!(calls.release(&party("a", None), true), Some(vec![]));
        assert_eq!(calls.release(&party("b", Some("a")), true), Some(vec!["0".into()]));
        calls.remove("0");
        assert_eq!((calls.session_ids().len(), calls.next_due()), (0, None));
        assert!(calls.by_call_id.is_empty());
    }
}
