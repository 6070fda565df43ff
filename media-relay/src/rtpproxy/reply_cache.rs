//! Replies by cookie: a command that comes again, because its reply was lost, is not done again.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Longest cookie, in bytes.
pub(super) const COOKIE_BYTES_MAX: usize = 128;
/// How long a reply is kept: a client that has waited longer has given up.
const KEPT_FOR: Duration = Duration::from_secs(35);
/// What all may take, in bytes; the oldest go first.
const BYTES_MAX: usize = 64 << 20;
/// What one takes beside its texts, about.
const ENTRY_BYTES: usize = 160;

/// Cookies are the client's: two may choose the same one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub client: SocketAddr,
    pub cookie: Arc<str>,
}

/// What is known of a cookie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// Its command is being done: the reply will go out by itself.
    UnderWay,
    Reply(Arc<str>),
}

#[derive(Debug, Default)]
pub(super) struct ReplyCache {
    replies: HashMap<Key, Known>,
    /// Oldest first, each with its bytes.
    order: VecDeque<(Instant, Key, usize)>,
    bytes: usize,
}

impl ReplyCache {
    /// What is known of a cookie; if nothing, its command is under way from now on.
    pub(super) fn begin(&mut self, now: Instant, key: &Key) -> Option<Known> {
        self.forget(now);
        if let Some(known) = self.replies.get(key) {
            return Some(known.clone());
        }
        self.replies.insert(key.clone(), Known::UnderWay);
        self.keep(now, key, 0);
        None
    }

    /// Keeps the reply to a command that was under way.
    pub(super) fn finish(&mut self, now: Instant, key: &Key, reply: Arc<str>) {
        let len = reply.len();
        if let Some(known) = self.replies.get_mut(key) {
            *known = Known::Reply(reply);
            if let Some((.., bytes)) = self.order.iter_mut().rev().find(|(_, it, _)| it == key) {
                *bytes += len;
                self.bytes += len;
            }
        }
        self.forget(now);
    }

    fn keep(&mut self, now: Instant, key: &Key, len: usize) {
        let bytes = ENTRY_BYTES + 2 * key.cookie.len() + len;
        self.order.push_back((now + KEPT_FOR, key.clone(), bytes));
        self.bytes += bytes;
    }

    fn forget(&mut self, now: Instant) {
        let is_over = |it: &Instant| *it <= now;
        while let Some((until, ..)) = self.order.front()
            && (is_over(until) || self.bytes > BYTES_MAX)
            && let Some((_, key, bytes)) = self.order.pop_front()
        {
            self.replies.remove(&key);
            self.bytes -= bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(cookie: &str) -> Key {
        Key { client: "127.0.0.1:9".parse().unwrap(), cookie: cookie.into() }
    }

    #[test]
    fn a_cookie_is_new_once_in_35_seconds() {
        let now = Instant::now();
        let mut cache = ReplyCache::default();
        assert_eq!(cache.begin(now, &key("1")), None);
        assert_eq!(cache.begin(now, &key("1")), Some(Known::UnderWay));
        cache.finish(now, &key("1"), "0".into());
        let late = now + KEPT_FOR - Duration::from_millis(1);
        assert_eq!(cache.begin(late, &key("1")), Some(Known::Reply("0".into())));
        let other = Key { client: "127.0.0.1:10".parse().unwrap(), ..key("1") };
        assert_eq!(cache.begin(late, &other), None, "of another client");
        assert_eq!(cache.begin(now + KEPT_FOR, &key("1")), None);
    }

    #[test]
    fn its_memory_is_bounded() {
        let now = Instant::now();
        let mut cache = ReplyCache::default();
        let reply: Arc<str> = "x".repeat(1_024).into();
        for n in 0..2 * BYTES_MAX / 1_024 {
            let key = key(&n.to_string());
            assert_eq!(cache.begin(now, &key), None);
            cache.finish(now, &key, reply.clone());
        }
        assert!(cache.bytes <= BYTES_MAX);
        assert!(cache.order.len() == cache.replies.len() && cache.replies.len() > 30_000);
        assert_eq!(cache.bytes, cache.order.iter().map(|it| it.2).sum::<usize>());
    }
}
