//! Evens out the arrival of one stream's sound, so that a mix or a recording can take it at a steady
//! pace.
//!
//! A ring of linear samples, indexed by RTP timestamp. Playout begins a delay behind the first
//! packet. What has not come by then is concealed for a mix, by what came before it, fading, and
//! silence in a recording. The reader's clock rules: if the writer falls behind, playout waits for
//! it; if it runs ahead for long, playout catches up, and jumps if it must.

use crate::comfort_noise::ComfortNoise;
use crate::concealment::Concealment;

/// Longest packet that is taken, in ms.
const PACKET_MS_MAX: u32 = 120;
/// Late packets in a row that make playout wait. Fewer are duplicates or stragglers.
const LATE_MAX: u32 = 3;
/// Packets after which playout may catch up a step.
const WATCHED_PACKETS: u32 = 256;
/// What playout catches up in one step, in ms; it does if it was never less than
/// [`SURPLUS_MS`] behind its delay.
const CATCH_UP_MS: u32 = 10;
const SURPLUS_MS: u32 = 20;
/// No sample: the one value of 16 bits that no encoder needs.
const ABSENT: i16 = i16::MIN;

/// Of the stream, and how it is played out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pace {
    pub clock_rate_hz: u32,
    /// A multiple of the clock rate.
    pub sample_rate_hz: u32,
    /// How far playout begins behind the first packet.
    pub delay_ms: u32,
    /// If playout falls further behind the newest packet, it jumps to the delay.
    pub depth_max_ms: u32,
    /// Fill gaps with what came before, and with comfort noise; else with silence.
    pub conceals: bool,
}

impl Pace {
    fn samples(self, ms: u32) -> u32 {
        ms * (self.sample_rate_hz / 1_000)
    }
}

#[derive(Debug)]
pub(crate) struct JitterBuffer {
    pace: Pace,
    /// A power of two of samples, by position modulo its length.
    ring: Box<[i16]>,
    /// Next position to play; none before the first packet and after it has run dry.
    playout: Option<u32>,
    /// One past the newest sample.
    end: u32,
    late_in_row: u32,
    watched: Watched,
    concealment: Option<Concealment>,
    noise: Option<ComfortNoise>,
}

/// How far playout was behind, at the least, of some packets.
#[derive(Clone, Copy, Debug)]
struct Watched {
    packets: u32,
    depth_min: u32,
    /// Catch up at the next read.
    surplus: bool,
}

impl Watched {
    const NEW: Self = Self { packets: 0, depth_min: u32::MAX, surplus: false };
}

impl JitterBuffer {
    pub(crate) fn new(pace: Pace) -> Self {
        let len = pace.samples(pace.depth_max_ms + PACKET_MS_MAX).next_power_of_two();
        Self {
            pace,
            ring: vec![ABSENT; len as usize].into(),
            playout: None,
            end: 0,
            late_in_row: 0,
            watched: Watched::NEW,
            concealment: pace.conceals.then(|| Concealment::new(pace.sample_rate_hz)),
            noise: None,
        }
    }

    pub(crate) fn pace(&self) -> Pace {
        self.pace
    }

    /// Takes a packet; false if it is too late, or longer than 120 ms.
    pub(crate) fn write(&mut self, timestamp: u32, samples: &[i16]) -> bool {
        self.write_between(timestamp, samples, 0)
    }

    /// The same for a reader that reads rarely, and last did so many samples ago: where playout
    /// begins does not depend on when it does.
    pub(crate) fn write_between(
        &mut self,
        timestamp: u32,
        samples: &[i16],
        since_read: u32,
    ) -> bool {
        let start = self.position(timestamp);
        let len = u32::try_from(samples.len()).unwrap_or(u32::MAX);
        if len > self.pace.samples(PACKET_MS_MAX) {
            return false;
        }
        let end = start.wrapping_add(len);
        let Some(playout) = self.playout_for(start, end, since_read) else { return false };
        self.playout = Some(playout);
        let mask = self.ring.len() - 1;
        for (n, sample) in (0..).zip(samples) {
            let at: u32 = start.wrapping_add(n);
            if !is_before(at, playout) {
                self.ring[at as usize & mask] = (*sample).max(ABSENT + 1);
            }
        }
        if is_before(self.end, end) {
            self.end = end;
        }
        self.watch(playout, len);
        self.noise = None;
        true
    }

    /// Notes that the source is silent, but for noise (RFC 3389), until its next packet.
    pub(crate) fn write_noise(&mut self, noise: ComfortNoise) {
        if self.pace.conceals {
            self.noise = Some(noise);
        }
    }

    /// Moves the next samples to `frame`.
    pub(crate) fn read(&mut self, frame: &mut [i16]) {
        if std::mem::take(&mut self.watched.surplus) {
            self.catch_up(frame);
        } else {
            self.take(frame);
        }
        match (&mut self.noise, &mut self.concealment) {
            (Some(noise), _) => noise.fill(frame, ABSENT),
            (None, Some(concealment)) => concealment.fill(frame, ABSENT),
            (None, None) => {
                frame.iter_mut().filter(|it| **it == ABSENT).for_each(|it| *it = 0);
            }
        }
    }

    /// Moves what there is.
    fn take(&mut self, frame: &mut [i16]) {
        let Some(playout) = self.playout else {
            frame.fill(ABSENT);
            return;
        };
        let mask = self.ring.len() - 1;
        for (n, sample) in (0..).zip(frame.iter_mut()) {
            let slot = &mut self.ring[playout.wrapping_add(n) as usize & mask];
            *sample = std::mem::replace(slot, ABSENT);
        }
        let next = playout.wrapping_add(u32::try_from(frame.len()).expect("a frame is short"));
        // Dry for long (the source is silent): wait for a packet and start afresh.
        let dry = next.wrapping_sub(self.end) as i32;
        let dry_max = self.pace.samples(self.pace.depth_max_ms) as i32;
        self.playout = (dry < dry_max).then_some(next);
    }

    /// Moves the next samples, fading into those [`CATCH_UP_MS`] later.
    fn catch_up(&mut self, frame: &mut [i16]) {
        let mut skipped = [ABSENT; (CATCH_UP_MS * 48) as usize];
        let skipped = &mut skipped[..self.pace.samples(CATCH_UP_MS) as usize];
        self.take(skipped);
        self.take(frame);
        let len = frame.len().min(skipped.len());
        for (n, (sample, before)) in frame.iter_mut().zip(skipped).enumerate() {
            if *sample != ABSENT && *before != ABSENT {
                let (from, to) = (i64::from(*before), i64::from(*sample));
                *sample = (from + (to - from) * n as i64 / len as i64) as i16;
            }
        }
    }

    /// Where playout is if this packet is taken; none if it is too late.
    fn playout_for(&mut self, start: u32, end: u32, since_read: u32) -> Option<u32> {
        let Some(playout) = self.playout else {
            return Some(self.restart(start).wrapping_sub(since_read));
        };
        let depth_max = self.pace.samples(self.pace.depth_max_ms);
        let ring = self.ring.len() as u32;
        if is_before(start, playout) {
            if playout.wrapping_sub(end) as i32 > ring as i32 {
                return Some(self.restart(start)); // Much too late: the source has started again.
            }
            return self.wait_for(start, end, playout);
        }
        self.late_in_row = 0;
        if end.wrapping_sub(playout) <= depth_max {
            return Some(playout);
        }
        if start.wrapping_sub(self.end) as i32 > ring as i32 {
            return Some(self.restart(start));
        }
        Some(self.skip(playout, end.wrapping_sub(self.pace.samples(self.pace.delay_ms))))
    }

    /// A late packet: after some of them the network has become slower, or the writer's clock is,
    /// and playout steps back so that the next ones are in time.
    fn wait_for(&mut self, start: u32, end: u32, playout: u32) -> Option<u32> {
        self.late_in_row += 1;
        let back = start.wrapping_sub(self.pace.samples(CATCH_UP_MS));
        let fits = self.end.wrapping_sub(back) <= self.pace.samples(self.pace.depth_max_ms);
        if self.late_in_row >= LATE_MAX && fits {
            self.late_in_row = 0;
            self.watched = Watched::NEW;
            return Some(back);
        }
        is_before(playout, end).then_some(playout)
    }

    fn watch(&mut self, playout: u32, len: u32) {
        let target = self.pace.samples(self.pace.delay_ms + SURPLUS_MS) + len;
        let watched = &mut self.watched;
        watched.packets += 1;
        watched.depth_min = watched.depth_min.min(self.end.wrapping_sub(playout));
        if watched.packets == WATCHED_PACKETS {
            *watched = Watched { surplus: watched.depth_min > target, ..Watched::NEW };
        }
    }

    fn restart(&mut self, start: u32) -> u32 {
        self.ring.fill(ABSENT);
        self.end = start;
        self.late_in_row = 0;
        self.watched = Watched::NEW;
        start.wrapping_sub(self.pace.samples(self.pace.delay_ms))
    }

    /// Forgets what lies between, and returns the new playout.
    fn skip(&mut self, from: u32, to: u32) -> u32 {
        let mask = self.ring.len() - 1;
        for n in 0..to.wrapping_sub(from).min(self.ring.len() as u32) {
            self.ring[from.wrapping_add(n) as usize & mask] = ABSENT;
        }
        self.watched = Watched::NEW;
        to
    }

    /// Of the sample that an RTP timestamp names; wraps as it does.
    fn position(&self, timestamp: u32) -> u32 {
        timestamp.wrapping_mul(self.pace.sample_rate_hz / self.pace.clock_rate_hz)
    }
}

fn is_before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: Pace = Pace {
        clock_rate_hz: 8_000,
        sample_rate_hz: 8_000,
        delay_ms: 40,
        depth_max_ms: 120,
        conceals: false,
    };

    /// A packet of 160 samples that count from its timestamp + 1.
    fn packet(timestamp: u32) -> Vec<i16> {
        (0..160).map(|n| (timestamp as usize + n + 1) as i16).collect()
    }

    fn read(buffer: &mut JitterBuffer, samples: usize) -> Vec<i16> {
        let mut frame = vec![7; samples];
        buffer.read(&mut frame);
        frame
    }

    #[test]
    fn what_is_written_comes_out_forty_ms_later_in_order() {
        let mut buffer = JitterBuffer::new(PACE);
        assert_eq!(read(&mut buffer, 160), [0; 160]);
        assert!(buffer.write(0, &packet(0)));
        assert!(buffer.write(320, &packet(320))); // Reordered.
        assert!(buffer.write(160, &packet(160)));
        assert_eq!(read(&mut buffer, 320), [0; 320]);
        assert_eq!(read(&mut buffer, 480), (1..=480).collect::<Vec<_>>());
        assert_eq!(read(&mut buffer, 160), [0; 160], "never the same samples twice");
    }

    #[test]
    fn g722_has_two_samples_for_a_tick() {
        let mut buffer = JitterBuffer::new(Pace { sample_rate_hz: 16_000, ..PACE });
        for n in 0..4 {
            assert!(buffer.write(u32::MAX - 319 + n * 80, &packet(n * 160))); // Wraps.
        }
        assert_eq!(read(&mut buffer, 640), [0; 640]);
        assert_eq!(read(&mut buffer, 640), (1..=640).collect::<Vec<_>>());
    }

    #[test]
    fn a_lost_packet_is_silence_and_a_late_one_is_refused() {
        let mut buffer = JitterBuffer::new(PACE);
        buffer.write(0, &packet(0));
        buffer.write(320, &packet(320));
        read(&mut buffer, 320);
        let heard = read(&mut buffer, 480);
        assert_eq!(heard[159..161], [160, 0]);
        assert_eq!(heard[319..321], [0, 321]);
        assert!(!buffer.write(160, &packet(160)));
    }

    #[test]
    fn a_lost_packet_is_silence_also_when_the_ring_has_gone_round() {
        let mut buffer = JitterBuffer::new(PACE);
        let mut heard = Vec::new();
        for n in (0..40).filter(|n| *n != 30) {
            buffer.write(n * 160, &packet(n * 160));
            heard.extend(read(&mut buffer, if n == 29 { 320 } else { 160 }));
        }
        let lost = 320 + 30 * 160;
        assert_eq!(heard[lost..lost + 160], [0; 160]);
        assert_eq!(heard[lost + 160], 31 * 160 + 1);
    }

    #[test]
    fn a_mix_conceals_a_lost_packet_and_is_silent_after_some() {
        let mut buffer = JitterBuffer::new(Pace { conceals: true, ..PACE });
        let loud = vec![10_000; 160];
        for n in (0..20).filter(|n| *n != 10) {
            buffer.write(n * 160, &loud);
            read(&mut buffer, if n == 9 { 320 } else { 160 });
        }
        let mut heard = read(&mut buffer, 320);
        assert!(heard.iter().all(|it| *it == 10_000), "the rest of what came");
        heard = read(&mut buffer, 800);
        assert!(heard[..160].iter().all(|it| *it > 5_000), "goes on, {:?}", &heard[..160]);
        assert!(heard.windows(2).all(|it| it[0].abs_diff(it[1]) < 100), "without a step");
        assert!(heard[480..].iter().all(|it| *it == 0), "and fades out");
    }

    #[test]
    fn a_writer_that_runs_away_is_caught_up_with() {
        let mut buffer = JitterBuffer::new(PACE);
        for n in 0..20 {
            buffer.write(n * 160, &packet(n * 160));
        }
        let first = read(&mut buffer, 80)[0];
        assert!(i32::from(first) > 3_200 - 960, "plays sample {first} of 3200");
    }

    #[test]
    fn a_source_that_starts_again_is_heard() {
        let mut buffer = JitterBuffer::new(PACE);
        buffer.write(1_000_000, &packet(0));
        buffer.write(5, &packet(5));
        read(&mut buffer, 320);
        assert_eq!(read(&mut buffer, 2), [6, 7]);
        for _ in 0..20 {
            read(&mut buffer, 160);
        }
        buffer.write(700_000, &packet(0));
        read(&mut buffer, 320);
        assert_eq!(read(&mut buffer, 2), [1, 2]);
    }

    /// Samples that were silent, of those read while packets arrive with this delay each, in ms.
    fn gaps(delays_ms: impl Fn(u32) -> u32, packets: u32) -> Vec<u32> {
        let mut arrivals: Vec<_> = (0..packets).map(|n| (n * 20 + delays_ms(n), n)).collect();
        arrivals.sort_unstable();
        let mut arrivals = arrivals.into_iter().peekable();
        let mut buffer = JitterBuffer::new(PACE);
        let mut gaps = Vec::new();
        for ms in (0..packets * 20).step_by(10) {
            while let Some((_, n)) = arrivals.next_if(|it| it.0 <= ms) {
                buffer.write(n * 160, &[1; 160]);
            }
            if read(&mut buffer, 80).contains(&0) {
                gaps.push(ms);
            }
        }
        gaps
    }

    #[test]
    fn after_a_network_became_slower_playout_waits_and_there_are_no_gaps() {
        let gaps = gaps(|n| if n < 50 { 0 } else { 70 }, 500);
        let last = *gaps.last().unwrap();
        assert!(last < 1_300, "still gaps at {last} ms");
    }

    #[test]
    fn a_slow_writer_is_waited_for() {
        // 0.2 % slow: 40 ms are lost after 20 s.
        let gaps = gaps(|n| n / 25, 3_000);
        let steps = gaps.iter().filter(|it| **it > 100).count();
        assert!(steps < 60, "{steps} gaps in a minute");
    }

    #[test]
    fn a_delay_that_is_not_needed_any_more_is_caught_up() {
        let mut buffer = JitterBuffer::new(PACE);
        let mut depth = Vec::new();
        let mut arrived = 0;
        for tick in 0..6_000u32 {
            let due = if tick < 40 { tick / 2 } else { tick / 2 + 3 };
            while arrived < due {
                buffer.write(arrived * 160, &[1; 160]);
                arrived += 1;
            }
            read(&mut buffer, 80);
            depth.push(buffer.end.wrapping_sub(buffer.playout.unwrap_or(buffer.end)));
        }
        assert!(depth[60] > 700, "{} samples behind after the jump", depth[60]);
        assert!(
            *depth.last().unwrap() <= 640,
            "{} samples behind at the end",
            depth.last().unwrap()
        );
    }

    proptest::proptest! {
        #[test]
        fn no_order_of_packets_can_make_it_panic(
            ops in proptest::collection::vec((proptest::prelude::any::<u32>(), 0..1_500usize), 0..100),
            sample_rate_hz in proptest::prop_oneof![
                proptest::prelude::Just(8_000u32), proptest::prelude::Just(48_000)],
            conceals: bool,
        ) {
            let mut buffer = JitterBuffer::new(Pace { sample_rate_hz, conceals, ..PACE });
            for (timestamp, len) in ops {
                buffer.write(timestamp, &vec![1; len]);
                buffer.write((timestamp % 400).wrapping_sub(200), &vec![i16::MIN; len]);
                buffer.write(timestamp % 3_000, &[1; 160]);
                read(&mut buffer, 80);
            }
        }
    }
}
