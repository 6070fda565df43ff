//! One press that arrives by several transports is one digit.

use crate::dtmf::Digit;
use smallvec::SmallVec;
use std::time::{Duration, Instant};

/// One press that arrives by several transports does so within this time.
const WINDOW: Duration = Duration::from_secs(2);
/// Presses that are remembered.
const PRESSES_MAX: usize = 16;

/// How a digit came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// telephone-event.
    Rtp,
    /// SIP INFO.
    Info,
    /// Tones in the sound.
    Inband,
}

/// The newest presses of one side.
#[derive(Debug, Default)]
pub(crate) struct Presses(SmallVec<[Press; 4]>);

#[derive(Clone, Copy, Debug)]
struct Press {
    digit: Digit,
    at: Instant,
    /// One bit for each transport that has told of it.
    told: u8,
}

impl Presses {
    /// True if this is a press of its own; false if another transport has told of it before. A
    /// transport tells of one press once, so its second report is a second press.
    pub(crate) fn note(&mut self, now: Instant, digit: Digit, transport: Transport) -> bool {
        let by = 1u8 << transport as u8;
        self.0.retain(|it| now.saturating_duration_since(it.at) <= WINDOW);
        if let Some(press) = self.0.iter_mut().find(|it| it.digit == digit && it.told & by == 0) {
            press.told |= by;
            return false;
        }
        if self.0.len() == PRESSES_MAX {
            self.0.remove(0);
        }
        self.0.push(Press { digit, at: now, told: by });
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Words are a digit and `r`, `i` or `b` for its transport, 20 ms apart; `+<ms>` lets time
    /// pass. Returns the digits counted.
    fn counted(script: &str) -> String {
        let mut presses = Presses::default();
        let mut now = Instant::now();
        let mut counted = String::new();
        for word in script.split_whitespace() {
            now += Duration::from_millis(20);
            if let Some(ms) = word.strip_prefix('+') {
                now += Duration::from_millis(ms.parse().unwrap());
                continue;
            }
            let (digit, transport) = word.split_at(1);
            let transport = match transport {
                "r" => Transport::Rtp,
                "i" => Transport::Info,
                _ => Transport::Inband,
            };
            let digit: Digit = digit.parse().unwrap();
            if presses.note(now, digit, transport) {
                counted.push(digit.as_char());
            }
        }
        counted
    }

    #[test]
    fn a_press_by_all_three_transports_counts_once_in_any_order() {
        for script in ["1r 1i 1b", "1i 1b 1r", "1b 1r 1i", "1r 1b", "1b 1i"] {
            assert_eq!(counted(script), "1", "{script}");
        }
    }

    #[test]
    fn two_presses_by_all_three_transports_are_two() {
        assert_eq!(counted("1r 1b 1r 1i 1b 1i"), "11");
        assert_eq!(counted("1r 1r 1i 1i 1b 1b"), "11");
        assert_eq!(counted("1i 1i"), "11");
        assert_eq!(counted("1r 2i 1b 2b"), "12");
    }

    #[test]
    fn after_two_seconds_it_is_another_press() {
        assert_eq!(counted("1r +1960 1i"), "1");
        assert_eq!(counted("1r +1961 1i"), "11");
    }

    #[test]
    fn the_memory_is_bounded() {
        let mut presses = Presses::default();
        let now = Instant::now();
        for _ in 0..1_000 {
            assert!(presses.note(now, "5".parse().unwrap(), Transport::Info));
        }
        assert_eq!(presses.0.len(), PRESSES_MAX);
    }
}
