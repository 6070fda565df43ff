//! Digits that we send, as telephone-events (RFC 4733 §2.5.1).
//!
//! One packet every [`STEP`]: all packets of a digit have the timestamp of its beginning, the first
//! has the marker, the duration grows, and the last one, with the end bit, is sent three times.

use crate::dtmf::{Digit, TelephoneEvent};
use std::collections::VecDeque;
use std::time::Duration;

/// Between the packets of a digit.
pub(crate) const STEP: Duration = Duration::from_millis(STEP_MS as u64);
const STEP_MS: u32 = 20;
/// How often the last packet of a digit is sent (§2.5.1.4).
const ENDS: u32 = 3;
/// Digits of one side that wait to be sent.
pub const DIGITS_MAX: usize = 64;
/// Shortest and longest digit, in ms. The longest is one segment at 48 kHz too (§2.5.1.3).
const DURATION_MS: std::ops::RangeInclusive<u32> = 40..=1_000;
/// Shortest and longest pause between digits, in ms.
const PAUSE_MS: std::ops::RangeInclusive<u32> = 40..=1_000;

/// Digits to send.
#[derive(Clone, Debug)]
pub struct SendDigits {
    digits: Vec<Digit>,
    duration_ms: u32,
    pause_ms: u32,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SendDigitsError {
    #[error("digits are {got}; wanted 1 to {DIGITS_MAX}")]
    Count { got: usize },
    #[error("duration_ms is {got}; wanted 40 to 1000")]
    Duration { got: u32 },
    #[error("pause_ms is {got}; wanted 40 to 1000")]
    Pause { got: u32 },
    #[error("{waiting} digits wait already, and {DIGITS_MAX} is the limit")]
    TooManyWait { waiting: usize },
    #[error("telephone-event was not negotiated: send SIP INFO instead")]
    NotNegotiated,
}

impl SendDigits {
    /// # Errors
    /// [`SendDigitsError`] if there are no digits, more than [`DIGITS_MAX`], or a time is out of
    /// its range.
    pub fn new(
        digits: Vec<Digit>,
        duration_ms: u32,
        pause_ms: u32,
    ) -> Result<Self, SendDigitsError> {
        match () {
            () if !(1..=DIGITS_MAX).contains(&digits.len()) => {
                Err(SendDigitsError::Count { got: digits.len() })
            }
            () if !DURATION_MS.contains(&duration_ms) => {
                Err(SendDigitsError::Duration { got: duration_ms })
            }
            () if !PAUSE_MS.contains(&pause_ms) => Err(SendDigitsError::Pause { got: pause_ms }),
            () => Ok(Self { digits, duration_ms, pause_ms }),
        }
    }
}

/// The digits that wait, and the one that is being sent.
#[derive(Debug, Default)]
pub(crate) struct EventSender {
    waiting: VecDeque<Tone>,
    /// Steps done of the first of them.
    step: u32,
}

#[derive(Clone, Copy, Debug)]
struct Tone {
    digit: Digit,
    duration_ms: u32,
    pause_ms: u32,
}

/// What one step sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A packet; the first one of a digit begins it.
    Event { event: TelephoneEvent, first: bool },
    /// Nothing: the pause between two digits.
    Pause,
}

impl EventSender {
    /// Lets digits wait; returns in how many ms all will have been sent.
    ///
    /// # Errors
    /// [`SendDigitsError::TooManyWait`], and none of them is sent.
    pub(crate) fn push(&mut self, send: &SendDigits) -> Result<u32, SendDigitsError> {
        let waiting = self.waiting.len();
        if waiting + send.digits.len() > DIGITS_MAX {
            return Err(SendDigitsError::TooManyWait { waiting });
        }
        let SendDigits { duration_ms, pause_ms, .. } = *send;
        let tones = send.digits.iter().map(|it| Tone { digit: *it, duration_ms, pause_ms });
        self.waiting.extend(tones);
        let steps: u32 = self.waiting.iter().map(|it| it.steps()).sum();
        Ok((steps - self.step) * STEP_MS)
    }

    /// Forgets them all.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// The next step; none if all is sent. Durations count ticks of `clock_rate_hz`.
    pub(crate) fn next(&mut self, clock_rate_hz: u32) -> Option<Step> {
        let tone = *self.waiting.front()?;
        let step = self.step;
        self.step += 1;
        if self.step == tone.steps() {
            self.waiting.pop_front();
            self.step = 0;
        }
        let elapsed_ms = ((step + 1) * STEP_MS).min(tone.duration_ms);
        let ticks = u16::try_from(elapsed_ms * (clock_rate_hz / 1_000)).unwrap_or(u16::MAX);
        let last = tone.duration_ms.div_ceil(STEP_MS) - 1;
        Some(match step < last + ENDS {
            true => {
                let event = TelephoneEvent::of(tone.digit, ticks, step >= last);
                Step::Event { event, first: step == 0 }
            }
            false => Step::Pause,
        })
    }
}

impl Tone {
    /// The digit and what follows it: the repeats of its end lie in the pause.
    fn steps(self) -> u32 {
        let pause = self.pause_ms.div_ceil(STEP_MS).max(ENDS - 1);
        self.duration_ms.div_ceil(STEP_MS) + pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use std::fmt::Write as _;

    fn send(digits: &str, duration_ms: u32, pause_ms: u32) -> Result<SendDigits, SendDigitsError> {
        let digits = digits.chars().map(|it| it.to_string().parse().unwrap()).collect();
        SendDigits::new(digits, duration_ms, pause_ms)
    }

    fn check(digits: &str, duration_ms: u32, clock_rate_hz: u32, expected: Expect) {
        let mut sender = EventSender::default();
        let done_ms = sender.push(&send(digits, duration_ms, 50).unwrap()).unwrap();
        let mut ladder = String::new();
        let mut ms = 0;
        while let Some(step) = sender.next(clock_rate_hz) {
            match step {
                Step::Pause => writeln!(ladder, "{ms:03} -"),
                Step::Event { event: TelephoneEvent { code, end, duration }, first } => {
                    let (mark, end) = (if first { " M" } else { "" }, if end { " E" } else { "" });
                    writeln!(ladder, "{ms:03} {code} {duration}{mark}{end}")
                }
            }
            .unwrap();
            ms += STEP_MS;
        }
        assert_eq!(ms, done_ms, "it is done when it said");
        expected.assert_eq(&ladder);
    }

    #[test]
    fn durations_grow_from_the_marker_to_three_ends() {
        check(
            "5#",
            60,
            8_000,
            expect![[r#"
                000 5 160 M
                020 5 320
                040 5 480 E
                060 5 480 E
                080 5 480 E
                100 -
                120 11 160 M
                140 11 320
                160 11 480 E
                180 11 480 E
                200 11 480 E
                220 -
            "#]],
        );
    }

    #[test]
    fn a_duration_between_two_steps_is_exact_also_at_48_khz() {
        check(
            "D",
            50,
            48_000,
            expect![[r#"
                000 15 960 M
                020 15 1920
                040 15 2400 E
                060 15 2400 E
                080 15 2400 E
                100 -
            "#]],
        );
    }

    #[test]
    fn what_cannot_be_sent_is_refused_with_what_can() {
        assert_eq!(send("", 100, 50).unwrap_err().to_string(), "digits are 0; wanted 1 to 64");
        let short = send("1", 39, 50).unwrap_err();
        assert_eq!(short.to_string(), "duration_ms is 39; wanted 40 to 1000");
        let long = send("1", 100, 1_001).unwrap_err();
        assert_eq!(long.to_string(), "pause_ms is 1001; wanted 40 to 1000");
        let mut sender = EventSender::default();
        sender.push(&send(&"1".repeat(60), 100, 50).unwrap()).unwrap();
        assert_eq!(
            sender.push(&send("12345", 100, 50).unwrap()),
            Err(SendDigitsError::TooManyWait { waiting: 60 })
        );
        assert!(sender.push(&send("1234", 100, 50).unwrap()).is_ok());
    }

    #[test]
    fn the_longest_digit_fits_one_segment_at_48_khz() {
        let ticks = DURATION_MS.end() * 48;
        assert!(u16::try_from(ticks).is_ok());
    }
}
