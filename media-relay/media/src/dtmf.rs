//! Digits: telephone-event in RTP (RFC 4733) and SIP INFO, each press reported once, at its first
//! packet.
//!
//! A press is one event however many packets tell of it. Packets belong to one event if they share
//! SSRC, timestamp and code; lost, reordered and repeated ones change nothing. An event longer than
//! 65,535 ticks goes on in segments, each with the timestamp at which the one before was full
//! (§2.5.1.3).

use smallvec::SmallVec;
use std::time::{Duration, Instant};

/// Events that are remembered, to know their late packets by.
const EVENTS_MAX: usize = 8;
/// A packet this long after an ended event's last one is a new press, even with equal numbers.
const ENDED_MEMORY: Duration = Duration::from_secs(2);
/// The same for an event whose end was lost.
const OPEN_MEMORY: Duration = Duration::from_secs(10);
/// Some gateways move the timestamp with each packet of one press (§2.5.1.2 forbids it). It is one
/// press while its duration grows and its packets are no further apart than this.
const MOVING_GAP_MAX: Duration = Duration::from_millis(100);
/// One press that arrives by RTP and by INFO does so within this time.
pub(crate) const TWO_WAYS_WINDOW: Duration = Duration::from_secs(2);
/// Presses that wait for their twin.
const UNPAIRED_MAX: usize = 16;
/// Ticks in a full segment of a long event.
const SEGMENT_TICKS: u32 = 0xffff;

/// One of 0-9 * # A-D.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digit(u8);

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("digit {0:?} is not one of 0-9 * # A-D")]
pub struct NotADigit(pub String);

impl Digit {
    const CHARS: [char; 16] =
        ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', '*', '#', 'A', 'B', 'C', 'D'];

    /// Event codes 0 to 15 (RFC 4733 §3.2); others, such as flash (16), are not digits.
    fn from_event_code(code: u8) -> Option<Self> {
        (code < 16).then_some(Self(code))
    }

    pub fn as_char(self) -> char {
        Self::CHARS[usize::from(self.0)]
    }
}

impl std::str::FromStr for Digit {
    type Err = NotADigit;

    /// Letters may be small.
    fn from_str(text: &str) -> Result<Self, NotADigit> {
        let position = |c: char| Self::CHARS.iter().position(|it| *it == c.to_ascii_uppercase());
        let mut chars = text.chars();
        match (chars.next().and_then(position), chars.next()) {
            (Some(code), None) => Ok(Self(code as u8)),
            _ => Err(NotADigit(text.chars().take(16).collect())),
        }
    }
}

/// The payload of a telephone-event packet (RFC 4733 §2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TelephoneEvent {
    pub code: u8,
    pub end: bool,
    pub duration: u16,
}

impl TelephoneEvent {
    /// None if it is shorter than 4 bytes.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let &[code, flags, high, low] = payload.first_chunk()?;
        Some(Self { code, end: flags & 0x80 != 0, duration: u16::from_be_bytes([high, low]) })
    }
}

/// The digits of one side.
#[derive(Debug, Default)]
pub(crate) struct DtmfReceiver {
    events: SmallVec<[Event; EVENTS_MAX]>,
    unpaired: SmallVec<[Press; UNPAIRED_MAX]>,
}

#[derive(Clone, Copy, Debug)]
struct Event {
    ssrc: u32,
    timestamp: u32,
    code: u8,
    ended: bool,
    /// In its newest packet, in ticks.
    duration: u16,
    last_packet: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Press {
    digit: Digit,
    way: Way,
    at: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Rtp,
    Info,
}

impl DtmfReceiver {
    /// The digit, if this packet is the first to tell of a press that INFO has not told of.
    pub(crate) fn receive(
        &mut self,
        now: Instant,
        ssrc: u32,
        timestamp: u32,
        event: TelephoneEvent,
    ) -> Option<Digit> {
        let digit = Digit::from_event_code(event.code)?;
        self.events.retain(|it| {
            let memory = if it.ended { ENDED_MEMORY } else { OPEN_MEMORY };
            now.saturating_duration_since(it.last_packet) < memory
        });
        let same = |it: &&mut Event| it.ssrc == ssrc && it.code == event.code;
        let known = self.events.iter_mut().filter(same).find(|it| {
            let later = timestamp.wrapping_sub(it.timestamp);
            let is_next_segment = (SEGMENT_TICKS..=SEGMENT_TICKS + 1).contains(&later);
            let goes_on = event.duration > it.duration
                && now.saturating_duration_since(it.last_packet) < MOVING_GAP_MAX;
            later == 0 || (!it.ended && (is_next_segment || goes_on))
        });
        if let Some(known) = known {
            known.timestamp = timestamp.max_wrapping(known.timestamp);
            known.ended |= event.end;
            known.duration = event.duration;
            known.last_packet = now;
            return None;
        }
        if self.events.len() == EVENTS_MAX {
            self.events.remove(0);
        }
        let TelephoneEvent { code, end: ended, duration } = event;
        self.events.push(Event { ssrc, timestamp, code, ended, duration, last_packet: now });
        self.count(now, digit, Way::Rtp).then_some(digit)
    }

    /// Takes a digit of a SIP INFO; false if RTP has told of the same press already.
    pub(crate) fn inject(&mut self, now: Instant, digit: Digit) -> bool {
        self.count(now, digit, Way::Info)
    }

    /// False if this press came the other way before; each twin is taken once.
    fn count(&mut self, now: Instant, digit: Digit, way: Way) -> bool {
        self.unpaired.retain(|it| now.saturating_duration_since(it.at) <= TWO_WAYS_WINDOW);
        let twin = self.unpaired.iter().position(|it| it.digit == digit && it.way != way);
        if let Some(twin) = twin {
            self.unpaired.remove(twin);
            return false;
        }
        if self.unpaired.len() == UNPAIRED_MAX {
            self.unpaired.remove(0);
        }
        self.unpaired.push(Press { digit, way, at: now });
        true
    }
}

trait MaxWrapping {
    /// The later of two RTP timestamps.
    fn max_wrapping(self, other: Self) -> Self;
}

impl MaxWrapping for u32 {
    fn max_wrapping(self, other: Self) -> Self {
        if (self.wrapping_sub(other) as i32) > 0 { self } else { other }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Words are `<digit>@<timestamp>`, with `/<duration>` if it is not 160, `E` behind for the end
    /// bit; `i<digit>` an INFO;
    /// `+<ms>` lets time pass, which is 20 ms per word otherwise. Returns the digits reported.
    fn digits(script: &str) -> String {
        let mut receiver = DtmfReceiver::default();
        let mut now = Instant::now();
        let mut reported = String::new();
        for word in script.split_whitespace() {
            now += Duration::from_millis(20);
            if let Some(ms) = word.strip_prefix('+') {
                now += Duration::from_millis(ms.parse().unwrap());
            } else if let Some(digit) = word.strip_prefix('i') {
                let digit: Digit = digit.parse().unwrap();
                if receiver.inject(now, digit) {
                    reported.push(digit.as_char());
                }
            } else {
                let (digit, rest) = word.split_once('@').unwrap();
                let code = digit.parse::<Digit>().unwrap().0;
                let end = rest.ends_with('E');
                let rest = rest.trim_end_matches('E');
                let (timestamp, duration) = rest.split_once('/').unwrap_or((rest, "160"));
                let (timestamp, duration) = (timestamp.parse().unwrap(), duration.parse().unwrap());
                let event = TelephoneEvent { code, end, duration };
                reported.extend(receiver.receive(now, 1, timestamp, event).map(Digit::as_char));
            }
        }
        reported
    }

    #[test]
    fn an_event_of_many_packets_is_one_digit() {
        assert_eq!(digits("5@0 5@0 5@0 5@0E 5@0E 5@0E"), "5");
    }

    #[test]
    fn the_same_digit_twice_is_two_even_if_every_end_was_lost() {
        assert_eq!(digits("1@0 1@0 1@1600 1@1600"), "11");
    }

    #[test]
    fn one_packet_of_an_event_is_enough() {
        assert_eq!(digits("1@0E 2@1600 3@3200E"), "123");
    }

    #[test]
    fn late_packets_of_an_older_event_are_not_a_new_press() {
        assert_eq!(digits("1@0 1@0 2@1600 1@0E 2@1600 1@0E 2@1600E"), "12");
    }

    #[test]
    fn a_digit_held_for_twenty_seconds_is_one() {
        let mut script = String::new();
        for segment in 0..3u32 {
            script.push_str(&format!("9@{} ", segment * 65_535).repeat(400));
        }
        assert_eq!(digits(&(script + "9@131070E")), "9");
    }

    #[test]
    fn a_timestamp_that_moves_with_each_packet_is_one_press_while_its_duration_grows() {
        let press = "1@0/160 1@160/320 1@320/480 1@480/640E 1@480/640E 1@480/640E";
        assert_eq!(digits(press), "1");
        assert_eq!(digits("1@0/160 1@160/320 1@1600/160 1@1760/320E"), "11", "shorter: a new one");
        assert_eq!(digits("1@0/160 +200 1@1600/320 1@1600/480E"), "11", "much later: a new one");
        assert_eq!(digits("1@0/160E 1@1600/320E"), "11", "after its end: a new one");
    }

    #[test]
    fn equal_numbers_are_a_new_press_after_a_while() {
        assert_eq!(digits("1@0 1@0E +1900 1@0E"), "1", "a very late repeat");
        assert_eq!(digits("1@0 1@0E +2100 1@0 1@0E"), "11", "the same recording, played again");
    }

    #[test]
    fn a_press_by_rtp_and_info_counts_once_in_either_order() {
        assert_eq!(digits("1@0 i1 1@0E"), "1");
        assert_eq!(digits("i1 1@0 1@0E"), "1");
        assert_eq!(digits("1@0E i1 1@1600E i1"), "11");
        assert_eq!(digits("1@0E 1@1600E i1 i1"), "11");
        assert_eq!(digits("i1 i1"), "11");
        assert_eq!(digits("1@0E i2"), "12");
        assert_eq!(digits("1@0E +1960 i1"), "1");
        assert_eq!(digits("1@0E +1961 i1"), "11");
    }

    #[test]
    fn only_the_sixteen_digits_are_digits() {
        assert_eq!("d".parse::<Digit>().unwrap().as_char(), 'D');
        for wrong in ["", "12", "E", "é"] {
            let error = wrong.parse::<Digit>().unwrap_err().to_string();
            assert_eq!(error, format!("digit {wrong:?} is not one of 0-9 * # A-D"));
        }
        let flash = TelephoneEvent { code: 16, end: false, duration: 0 };
        assert_eq!(DtmfReceiver::default().receive(Instant::now(), 1, 0, flash), None);
        assert_eq!(TelephoneEvent::parse(&[1, 0x8a, 3]), None);
    }
}
