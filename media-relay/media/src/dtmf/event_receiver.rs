//! telephone-events that we receive (RFC 4733 §2.5.2), each press reported at its first packet.
//!
//! A press is one event however many packets tell of it. Packets belong to one event if they share
//! SSRC, timestamp and code; lost, reordered and repeated ones change nothing. An event longer than
//! 65,535 ticks goes on in segments, each with the timestamp at which the one before was full
//! (§2.5.1.3). Nothing here depends on the clock rate.

use crate::dtmf::{Digit, TelephoneEvent};
use smallvec::SmallVec;
use std::time::{Duration, Instant};

/// Events that are remembered, to know their late packets by.
const EVENTS_MAX: usize = 8;
/// A packet this long after an ended event's last one is a new press, even with equal numbers.
const ENDED_MEMORY: Duration = Duration::from_secs(2);
/// The same for an event whose end was lost.
const OPEN_MEMORY: Duration = Duration::from_secs(10);
/// Some gateways move the timestamp with each packet of one press (§2.5.1.2 forbids it). It is one
/// press while its duration grows as its timestamp does and its packets are no further apart than
/// this.
const MOVING_GAP_MAX: Duration = Duration::from_millis(100);
/// Ticks in a full segment of a long event; some count from 1.
const SEGMENT_TICKS: std::ops::RangeInclusive<u32> = 0xffff..=0x1_0000;

/// The newest events of one side.
#[derive(Debug, Default)]
pub(crate) struct EventReceiver(SmallVec<[Event; 2]>);

#[derive(Clone, Copy, Debug)]
struct Event {
    ssrc: u32,
    code: u8,
    /// Of its first packet, and its newest.
    first: u32,
    newest: u32,
    ended: bool,
    /// In its newest packet, in ticks.
    duration: u16,
    last_packet: Instant,
}

impl EventReceiver {
    /// The digit, if this packet is the first to tell of a press.
    pub(crate) fn receive(
        &mut self,
        now: Instant,
        ssrc: u32,
        timestamp: u32,
        event: TelephoneEvent,
    ) -> Option<Digit> {
        let digit = Digit::from_event_code(event.code)?;
        self.0.retain(|it| {
            let memory = if it.ended { ENDED_MEMORY } else { OPEN_MEMORY };
            now.saturating_duration_since(it.last_packet) < memory
        });
        let same = |it: &&mut Event| it.ssrc == ssrc && it.code == event.code;
        let known = self.0.iter_mut().filter(same).find(|it| it.has(now, timestamp, event));
        if let Some(known) = known {
            if (timestamp.wrapping_sub(known.newest) as i32) >= 0 {
                known.newest = timestamp;
                known.duration = event.duration;
            }
            known.ended |= event.end;
            known.last_packet = now;
            return None;
        }
        if self.0.len() == EVENTS_MAX {
            self.0.remove(0);
        }
        let TelephoneEvent { code, end: ended, duration } = event;
        let (first, newest) = (timestamp, timestamp);
        self.0.push(Event { ssrc, code, first, newest, ended, duration, last_packet: now });
        Some(digit)
    }
}

impl Event {
    /// Whether a packet of its source and code belongs to it.
    fn has(&self, now: Instant, timestamp: u32, packet: TelephoneEvent) -> bool {
        if timestamp.wrapping_sub(self.first) <= self.newest.wrapping_sub(self.first) {
            return true; // Its own timestamp, or late, of an earlier segment.
        }
        let later = timestamp.wrapping_sub(self.newest);
        let longer = u32::from(packet.duration.saturating_sub(self.duration));
        let moves = longer > 0
            && later.abs_diff(longer) <= longer / 2
            && now.saturating_duration_since(self.last_packet) < MOVING_GAP_MAX;
        !self.ended && (SEGMENT_TICKS.contains(&later) || moves)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Words are `<digit>@<timestamp>`, with `/<duration>` if it is not 160, `E` behind for the end
    /// bit; `+<ms>` lets time pass, which is 20 ms per word otherwise. Returns the digits reported.
    fn digits(script: &str) -> String {
        let mut receiver = EventReceiver::default();
        let mut now = Instant::now();
        let mut reported = String::new();
        for word in script.split_whitespace() {
            now += Duration::from_millis(20);
            if let Some(ms) = word.strip_prefix('+') {
                now += Duration::from_millis(ms.parse().unwrap());
                continue;
            }
            let (digit, rest) = word.split_once('@').unwrap();
            let code = digit.parse::<Digit>().unwrap().event_code();
            let end = rest.ends_with('E');
            let rest = rest.trim_end_matches('E');
            let (timestamp, duration) = rest.split_once('/').unwrap_or((rest, "160"));
            let (timestamp, duration) = (timestamp.parse().unwrap(), duration.parse().unwrap());
            let event = TelephoneEvent { code, end, duration };
            reported.extend(receiver.receive(now, 1, timestamp, event).map(Digit::as_char));
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
        assert_eq!(digits("1@0 1@640/320"), "11", "a short one, whose first packet was lost too");
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
    fn a_late_packet_of_an_earlier_segment_is_not_a_new_press() {
        assert_eq!(digits("9@0/64000 9@65535/160 9@0/65535 9@65535/320E"), "9");
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
    fn what_is_no_digit_is_not_reported() {
        let flash = TelephoneEvent { code: 16, end: false, duration: 0 };
        assert_eq!(EventReceiver::default().receive(Instant::now(), 1, 0, flash), None);
    }

    /// A packet that arrives: when it was sent, in ms, and what it says.
    #[derive(Clone, Debug)]
    struct Arrival {
        at_ms: u64,
        press: usize,
        timestamp: u32,
        event: TelephoneEvent,
    }

    /// The packets of presses `(digit, duration_ms, pause_ms)`, as RFC 4733 has them: one every
    /// 20 ms, segments, and each end three times.
    fn packets(presses: &[(u8, u64, u64)], clock_rate_hz: u32) -> Vec<Arrival> {
        let ticks = |ms: u64| (ms * u64::from(clock_rate_hz) / 1_000) as u32;
        let mut packets = Vec::new();
        let mut begin_ms = 0;
        for (press, (code, duration_ms, pause_ms)) in presses.iter().enumerate() {
            let begin = 0xffff_f000u32.wrapping_add(ticks(begin_ms));
            for ms in (20..*duration_ms + 60).step_by(20) {
                let elapsed = ticks(ms.min(*duration_ms));
                let segment = elapsed.saturating_sub(1) / 0xffff * 0xffff;
                let duration = (elapsed - segment) as u16;
                let end = ms >= *duration_ms;
                let event = TelephoneEvent { code: *code, end, duration };
                let timestamp = begin.wrapping_add(segment);
                packets.push(Arrival { at_ms: begin_ms + ms, press, timestamp, event });
            }
            begin_ms += duration_ms + pause_ms;
        }
        packets
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// At 30 % random loss, with repeats and packets that overtake each other, a press is
        /// reported once if any packet of it came, and not at all otherwise.
        #[test]
        fn each_press_is_reported_once_whatever_the_network_does(
            presses in prop::collection::vec(
                (0..3u8, prop_oneof![4 => 40..300u64, 1 => Just(10_000u64)], 40..400u64), 1..12),
            is_48_khz: bool,
            fates in prop::collection::vec((0..10u8, 0..10u8, 0..60u64), 7_000),
        ) {
            let rate = if is_48_khz { 48_000 } else { 8_000 };
            let mut arrivals = Vec::new();
            for (packet, (lost, repeated, delay_ms)) in packets(&presses, rate).into_iter().zip(fates) {
                let at_ms = packet.at_ms + delay_ms;
                if lost >= 3 {
                    arrivals.push(Arrival { at_ms, ..packet.clone() });
                    if repeated == 0 {
                        arrivals.push(Arrival { at_ms: at_ms + 40, ..packet });
                    }
                }
            }
            arrivals.sort_by_key(|it| it.at_ms);
            let start = Instant::now();
            let mut receiver = EventReceiver::default();
            let mut reported = vec![0; presses.len()];
            for Arrival { at_ms, press, timestamp, event } in arrivals.clone() {
                let now = start + Duration::from_millis(at_ms);
                if let Some(digit) = receiver.receive(now, 7, timestamp, event) {
                    prop_assert_eq!(digit.event_code(), event.code);
                    reported[press] += 1;
                }
            }
            for (press, count) in reported.iter().enumerate() {
                let came = arrivals.iter().any(|it| it.press == press);
                prop_assert_eq!(*count, u32::from(came), "press {} of {:?}", press, presses);
            }
        }

        #[test]
        fn nothing_makes_it_panic_or_grow(
            packets in prop::collection::vec((any::<u32>(), any::<[u8; 4]>(), 0..3_000u64), 0..200)
        ) {
            let mut receiver = EventReceiver::default();
            let mut now = Instant::now();
            for (timestamp, payload, ms) in packets {
                now += Duration::from_millis(ms);
                let event = TelephoneEvent::parse(&payload).unwrap();
                receiver.receive(now, timestamp % 3, timestamp, event);
                prop_assert!(receiver.0.len() <= EVENTS_MAX);
            }
        }
    }
}
