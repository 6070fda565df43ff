//! Request URIs that queue-svc has just said to be those of queues, so that it is not asked at each
//! INVITE.
//!
//! Only a yes is known, and not for long: a new queue is found by the next INVITE, and one that has gone
//! gives no place to who is still sent there.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How long a yes is good: far below what an operator waits between a change and a call.
const FRESH: Duration = Duration::from_secs(1);
/// URIs that are known at a time; callers write them, and may write one in many ways.
const URIS_MAX: usize = 1_024;

#[derive(Default)]
pub(crate) struct KnownQueues {
    /// When queue-svc was asked.
    asked: HashMap<String, Instant>,
}

impl KnownQueues {
    /// Whether it was that of a queue a moment ago.
    pub(crate) fn has(&self, now: Instant, request_uri: &str) -> bool {
        self.asked.get(request_uri).is_some_and(|asked| is_fresh(now, *asked))
    }

    /// queue-svc, asked then, has said so. Not noted if there are too many already.
    pub(crate) fn note(&mut self, now: Instant, request_uri: &str, asked: Instant) {
        if self.asked.len() >= URIS_MAX {
            self.asked.retain(|_, asked| is_fresh(now, *asked));
        }
        if self.asked.len() < URIS_MAX || self.asked.contains_key(request_uri) {
            self.asked.insert(request_uri.to_owned(), asked);
        }
    }
}

fn is_fresh(now: Instant, asked: Instant) -> bool {
    now.saturating_duration_since(asked) < FRESH
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_yes_is_good_for_a_second_from_the_question_on() {
        let (mut known, asked) = (KnownQueues::default(), Instant::now());
        assert!(!known.has(asked, "sip:1008@h"));
        known.note(asked + FRESH / 2, "sip:1008@h", asked);
        assert!(known.has(asked + FRESH - Duration::from_millis(1), "sip:1008@h"));
        assert!(!known.has(asked + FRESH, "sip:1008@h"));
        assert!(!known.has(asked, "sip:1009@h"));
    }

    #[test]
    fn many_ways_to_write_a_uri_do_not_fill_the_memory() {
        let (mut known, now) = (KnownQueues::default(), Instant::now());
        for number in 0..2 * URIS_MAX {
            known.note(now, &format!("sip:1008@h;x={number}"), now);
        }
        assert_eq!(known.asked.len(), URIS_MAX);
        known.note(now + FRESH, "sip:1008@h;x=0", now + FRESH);
        assert_eq!(known.asked.len(), 1);
    }
}
