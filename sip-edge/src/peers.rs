//! The other sip-edges: each says every second that it is there, and where, in a JetStream key-value
//! bucket. Who has not said so for [`LEASE`] is dead, and its calls are free to be taken.
//!
//! Time is the steady clock of the one who looks, from when it has heard something; what is in the
//! bucket has none. Who does not hear itself has lost NATS, and takes nobody for dead.

mod lease;

pub(crate) use lease::Lease;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How often a sip-edge says that it is there.
pub(crate) const RENEW: Duration = Duration::from_secs(1);
/// How long one may be silent.
pub(crate) const LEASE: Duration = Duration::from_secs(5);
/// Sip-edges that are known at a time; of more the calls are not taken over.
const PEERS_MAX: usize = 256;

/// What is known of all sip-edges, ourselves among them. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Peers {
    own_name: Arc<str>,
    known: Arc<Mutex<Known>>,
}

#[derive(Default)]
struct Known {
    edges: HashMap<String, Peer>,
    /// Since when we have heard ourselves without a pause, and when last.
    heard: Option<(Instant, Instant)>,
}

struct Peer {
    /// Where its gRPC is; empty if nobody can reach it there.
    url: String,
    /// Which process of that name; empty if an older version said so.
    process: String,
    heard: Instant,
    is_dead: bool,
}

impl Peers {
    pub(crate) fn new(own_name: &str) -> Self {
        Self { own_name: own_name.into(), known: Arc::default() }
    }

    pub(crate) fn own_name(&self) -> &str {
        &self.own_name
    }

    /// The sip-edge `name`, perhaps ourselves, has said that it is there: at `url`, as `process`.
    pub(crate) fn handle_renewed(&self, now: Instant, name: &str, url: &str, process: &str) {
        let mut known = self.known.lock().expect("never poisoned");
        if name == &*self.own_name {
            let since = known.heard.filter(|(_, last)| now - *last < LEASE / 2);
            known.heard = Some((since.map_or(now, |(since, _)| since), now));
        }
        let is_known = known.edges.contains_key(name);
        if is_known || known.edges.len() < PEERS_MAX {
            let (url, process) = (url.to_owned(), process.to_owned());
            let peer = Peer { url, process, heard: now, is_dead: false };
            known.edges.insert(name.to_owned(), peer);
        }
    }

    /// A sip-edge has said that it goes.
    pub(crate) fn handle_gone(&self, now: Instant, name: &str) {
        let mut known = self.known.lock().expect("never poisoned");
        if let (Some(peer), Some(long_ago)) = (known.edges.get_mut(name), now.checked_sub(LEASE)) {
            peer.heard = long_ago;
        }
    }

    /// Those that have died since this was asked last: name and process. Nobody is, as long as we have
    /// not heard ourselves for the whole of a lease.
    pub(crate) fn poll_dead(&self, now: Instant) -> Vec<(String, String)> {
        let mut known = self.known.lock().expect("never poisoned");
        let hears = |(since, last)| now - since >= LEASE && now - last < LEASE / 2;
        if !known.heard.is_some_and(hears) {
            return Vec::new();
        }
        let others = known.edges.iter_mut().filter(|(name, _)| ***name != *self.own_name);
        let silent = others.filter(|(_, it)| !it.is_dead && now - it.heard >= LEASE);
        let dead = silent.map(|(name, peer)| {
            peer.is_dead = true;
            (name.clone(), peer.process.clone())
        });
        dead.collect()
    }

    /// The calls of one that is dead could not be taken: it is told of again.
    pub(crate) fn look_again(&self, name: &str) {
        if let Some(peer) = self.known.lock().expect("never poisoned").edges.get_mut(name) {
            peer.is_dead = false;
        }
    }

    /// Where the gRPC of another sip-edge is, that lives.
    pub(crate) fn url(&self, name: &str) -> Option<String> {
        let known = self.known.lock().expect("never poisoned");
        let peer = known.edges.get(name).filter(|it| !it.is_dead && !it.url.is_empty())?;
        (*name != *self.own_name).then(|| peer.url.clone())
    }

    /// Where the others are that live.
    pub(crate) fn urls(&self) -> Vec<String> {
        let known = self.known.lock().expect("never poisoned");
        let others = known.edges.iter().filter(|(name, _)| ***name != *self.own_name);
        let living = others.filter(|(_, it)| !it.is_dead && !it.url.is_empty());
        living.map(|(_, it)| it.url.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds at which each is heard; who is dead at the end of each of `ends` seconds.
    fn dead(heard: &[(&str, std::ops::Range<u64>)], ends: std::ops::Range<u64>) -> Vec<String> {
        let peers = Peers::new("us");
        let start = Instant::now() + LEASE;
        let mut dead = Vec::new();
        for second in 0..ends.end {
            let now = start + Duration::from_secs(second);
            for (name, _) in heard.iter().filter(|(_, seconds)| seconds.contains(&second)) {
                peers.handle_renewed(now, name, "http://h", "p");
            }
            if ends.contains(&second) {
                let found = peers.poll_dead(now).into_iter();
                dead.extend(found.map(|(name, _)| format!("{name} at {second}")));
            }
        }
        dead
    }

    #[test]
    fn who_is_silent_for_a_lease_is_dead_and_that_is_told_once() {
        assert_eq!(dead(&[("us", 0..30), ("a", 0..10), ("b", 0..30)], 0..30), ["a at 14"]);
    }

    #[test]
    fn who_comes_back_can_die_again() {
        let heard = [("us", 0..40), ("a", 0..5), ("a", 20..25)];
        assert_eq!(dead(&heard, 0..40), ["a at 9", "a at 29"]);
    }

    #[test]
    fn who_does_not_hear_itself_takes_nobody_for_dead() {
        let heard = [("us", 0..10), ("a", 0..10), ("us", 20..40), ("a", 22..40)];
        assert_eq!(dead(&heard, 0..40), Vec::<String>::new(), "NATS was away for both");
        assert_eq!(dead(&[("us", 0..10), ("a", 0..8), ("us", 20..40)], 0..40), ["a at 25"]);
    }

    #[test]
    fn who_goes_is_dead_at_once_and_has_no_address() {
        let (peers, start) = (Peers::new("us"), Instant::now() + 2 * LEASE);
        for second in 0..6 {
            let now = start + Duration::from_secs(second);
            peers.handle_renewed(now, "us", "http://us", "p");
            peers.handle_renewed(now, "a", "http://a", &format!("p{second}"));
        }
        let now = start + Duration::from_secs(5);
        assert_eq!((peers.url("a").as_deref(), peers.url("us")), (Some("http://a"), None));
        peers.handle_gone(now, "a");
        let dead = [("a".to_owned(), "p5".to_owned())];
        assert_eq!(peers.poll_dead(now), dead);
        assert_eq!((peers.url("a"), peers.urls()), (None, Vec::new()));
        assert_eq!(peers.poll_dead(now), []);
        peers.look_again("a");
        assert_eq!(peers.poll_dead(now), dead);
    }
}
