//! What we know of the RTP stream that a side sends: RFC 3550 A.1 (sequence), A.3 (loss) and A.8
//! (jitter), for the report blocks of our RTCP.

use std::time::{Duration, Instant};

/// Sequence numbers ahead of this are a restart (A.1).
const DROPOUT_MAX: u16 = 3_000;
/// Packets this late are still of the stream (A.1).
const MISORDER_MAX: u16 = 100;

/// One SSRC; make a new one when it changes.
#[derive(Debug)]
pub(crate) struct Reception {
    ssrc: u32,
    clock_rate_hz: u32,
    origin: Instant,
    base: u16,
    highest: u16,
    cycles: u32,
    /// The sequence number that would confirm a restart.
    restart: Option<u16>,
    received: u64,
    expected_prior: u64,
    received_prior: u64,
    last_timestamp: u32,
    transit: Option<u32>,
    /// In 1/16 of a tick, as in A.8.
    jitter_x16: u32,
}

/// The numbers of a report block (RFC 3550 §6.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reported {
    pub ssrc: u32,
    /// Of 256, since the last report.
    pub fraction_lost: u8,
    /// 24-bit signed, two's complement.
    pub cumulative_lost: u32,
    pub extended_highest_sequence: u32,
    /// In RTP ticks.
    pub jitter: u32,
}

impl Reception {
    pub(crate) fn new(now: Instant, ssrc: u32, clock_rate_hz: u32, sequence: u16) -> Self {
        Self {
            ssrc,
            clock_rate_hz,
            origin: now,
            base: sequence,
            highest: sequence,
            cycles: 0,
            restart: None,
            received: 0,
            expected_prior: 0,
            received_prior: 0,
            last_timestamp: 0,
            transit: None,
            jitter_x16: 0,
        }
    }

    pub(crate) fn ssrc(&self) -> u32 {
        self.ssrc
    }

    /// How many packets its sequence numbers tell of, and how many have come.
    pub(crate) fn expected_and_received(&self) -> (u64, u64) {
        let extended = self.cycles.wrapping_add(u32::from(self.highest));
        let expected = extended.wrapping_sub(u32::from(self.base)).wrapping_add(1);
        (expected.into(), self.received)
    }

    /// Interarrival jitter in µs.
    pub(crate) fn jitter_us(&self) -> u32 {
        let ticks_x16 = u64::from(self.jitter_x16);
        u32::try_from(ticks_x16 * 1_000_000 / 16 / u64::from(self.clock_rate_hz))
            .unwrap_or(u32::MAX)
    }

    /// The timestamps that come have this clock from now on: what was measured in another one says
    /// nothing of them.
    pub(crate) fn set_clock_rate(&mut self, clock_rate_hz: u32) {
        if self.clock_rate_hz != clock_rate_hz {
            (self.clock_rate_hz, self.transit, self.jitter_x16) = (clock_rate_hz, None, 0);
        }
    }

    /// Counts a packet of this SSRC.
    pub(crate) fn receive(&mut self, now: Instant, sequence: u16, timestamp: u32) {
        let ahead = sequence.wrapping_sub(self.highest);
        if ahead < DROPOUT_MAX {
            if sequence < self.highest {
                self.cycles = self.cycles.wrapping_add(0x1_0000);
            }
            self.highest = sequence;
        } else if ahead <= u16::MAX - MISORDER_MAX {
            if self.restart != Some(sequence) {
                self.restart = Some(sequence.wrapping_add(1));
                return;
            }
            let new = Self::new(now, self.ssrc, self.clock_rate_hz, sequence);
            *self = Self { jitter_x16: self.jitter_x16, ..new };
        }
        self.restart = None;
        self.received += 1;
        self.measure_jitter(now, timestamp);
    }

    /// A.8; packets that share a timestamp are one event or frame, and move nothing.
    fn measure_jitter(&mut self, now: Instant, timestamp: u32) {
        if self.transit.is_some() && timestamp == self.last_timestamp {
            return;
        }
        let passed = now.saturating_duration_since(self.origin);
        let arrival = ticks(passed, self.clock_rate_hz) as u32; // Wraps as RTP does.
        let transit = arrival.wrapping_sub(timestamp);
        if let Some(before) = self.transit {
            let deviation = (transit.wrapping_sub(before) as i32).unsigned_abs();
            // Bounded, so that a wild timestamp cannot overflow the sum.
            let deviation = deviation.min(self.clock_rate_hz * 10);
            self.jitter_x16 = self.jitter_x16 + deviation - ((self.jitter_x16 + 8) >> 4);
        }
        (self.transit, self.last_timestamp) = (Some(transit), timestamp);
    }

    /// The report block since the last one (A.3).
    pub(crate) fn report(&mut self) -> Reported {
        let extended = self.cycles.wrapping_add(u32::from(self.highest));
        let expected = u64::from(extended.wrapping_sub(u32::from(self.base)).wrapping_add(1));
        let lost = expected as i64 - self.received as i64;
        let expected_interval = expected.saturating_sub(self.expected_prior);
        let received_interval = self.received - self.received_prior;
        (self.expected_prior, self.received_prior) = (expected, self.received);
        let lost_interval = expected_interval.saturating_sub(received_interval);
        let fraction = (lost_interval << 8).checked_div(expected_interval).unwrap_or(0);
        Reported {
            ssrc: self.ssrc,
            fraction_lost: u8::try_from(fraction).unwrap_or(u8::MAX),
            cumulative_lost: (lost.clamp(-0x80_0000, 0x7f_ffff) as u32) & 0xff_ffff,
            extended_highest_sequence: extended,
            jitter: self.jitter_x16 >> 4,
        }
    }
}

/// Ticks of the RTP clock, rounded down.
fn ticks(duration: Duration, clock_rate_hz: u32) -> u64 {
    let rate = u64::from(clock_rate_hz);
    duration.as_secs() * rate + u64::from(duration.subsec_nanos()) * rate / 1_000_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Receives `sequences`, 20 ms and 160 ticks apart, each with its delay in ms.
    fn receive(sequences: impl IntoIterator<Item = (u16, u64)>) -> Reception {
        let start = Instant::now();
        let mut sequences = sequences.into_iter().peekable();
        let first = sequences.peek().unwrap().0;
        let mut reception = Reception::new(start, 9, 8_000, first);
        for (sequence, delay_ms) in sequences {
            let n = sequence.wrapping_sub(first);
            let at = start + Duration::from_millis(u64::from(n) * 20 + delay_ms);
            reception.receive(at, sequence, u32::from(n) * 160);
        }
        reception
    }

    #[test]
    fn every_fourth_packet_lost_is_a_fraction_of_64() {
        let mut reception = receive((0..400).filter(|n| n % 4 != 1).map(|n| (n, 0)));
        let report = reception.report();
        assert_eq!((report.fraction_lost, report.cumulative_lost), (64, 100));
        assert_eq!((report.extended_highest_sequence, report.jitter), (399, 0));
        let again = reception.report();
        assert_eq!((again.fraction_lost, again.cumulative_lost), (0, 100));
    }

    #[test]
    fn sequence_numbers_are_extended_when_they_wrap() {
        let mut reception = receive((0..10).map(|n| (65_530u16.wrapping_add(n), 0)));
        let report = reception.report();
        assert_eq!((report.extended_highest_sequence, report.cumulative_lost), (65_539, 0));
        assert_eq!(receive([(0, 0), (1, 0)]).report().extended_highest_sequence, 1);
    }

    #[test]
    fn duplicates_make_the_loss_negative() {
        let report = receive([(5, 0), (6, 0), (6, 0), (7, 0)]).report();
        assert_eq!((report.fraction_lost, report.cumulative_lost), (0, 0xff_ffff));
    }

    #[test]
    fn jitter_converges_to_the_mean_deviation() {
        let reception = receive((0..500).map(|n| (n, u64::from(n % 2) * 10)));
        let us = reception.jitter_us();
        assert!((9_000..=10_100).contains(&us), "{us} µs of 10 ms");
    }

    #[test]
    fn jitter_is_measured_in_the_clock_of_the_stream() {
        let start = Instant::now();
        let mut reception = Reception::new(start, 9, 8_000, 0);
        reception.set_clock_rate(48_000);
        for n in 0..500u16 {
            let delay = Duration::from_millis(u64::from(n % 2) * 10);
            let at = start + Duration::from_millis(u64::from(n) * 20) + delay;
            reception.receive(at, n, u32::from(n) * 960);
        }
        let us = reception.jitter_us();
        assert!((9_000..=10_100).contains(&us), "{us} µs of 10 ms");
        assert!((430..=485).contains(&reception.report().jitter), "in ticks");
        reception.set_clock_rate(8_000);
        reception.receive(start + Duration::from_secs(10), 500, 80_000);
        assert_eq!(reception.jitter_us(), 0, "nothing is known of another clock");
    }

    #[test]
    fn a_restart_takes_two_packets_in_a_row() {
        let mut reception = receive([(5, 0), (6, 0), (30_000, 0), (7, 0)]);
        assert_eq!(reception.report().extended_highest_sequence, 7);
        let now = Instant::now();
        reception.receive(now, 30_000, 0);
        reception.receive(now, 30_001, 160);
        assert_eq!(reception.report().extended_highest_sequence, 30_001);
    }
}
