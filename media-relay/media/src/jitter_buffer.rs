//! Evens out the arrival of one participant's audio, so that a mix can take it at a steady pace.
//!
//! A ring of linear samples, indexed by RTP timestamp. Playout begins [`DELAY`] behind the first
//! packet; what has not come by then is silence. The reader's clock rules: if the writer runs away
//! or falls behind, playout jumps.

/// How far playout is behind the newest sample at the start, in samples: 40 ms.
const DELAY: u32 = 320;
/// If playout falls further behind, it jumps to [`DELAY`]: 120 ms.
const DEPTH_MAX: u32 = 960;
/// Samples kept; a power of two above [`DEPTH_MAX`] and the longest packet.
const RING: usize = 2_048;
/// Longest packet that is taken, in samples: 60 ms.
const PACKET_MAX: usize = 480;

#[derive(Debug)]
pub(crate) struct JitterBuffer {
    ring: Box<[i16; RING]>,
    /// Next timestamp to play; none before the first packet and after it has run dry.
    playout: Option<u32>,
    /// One past the newest sample.
    end: u32,
}

impl Default for JitterBuffer {
    fn default() -> Self {
        Self { ring: Box::new([0; RING]), playout: None, end: 0 }
    }
}

impl JitterBuffer {
    /// Takes a packet; false if it is too late, or longer than 60 ms.
    pub(crate) fn write(
        &mut self,
        timestamp: u32,
        samples: impl ExactSizeIterator<Item = i16>,
    ) -> bool {
        if samples.len() > PACKET_MAX {
            return false;
        }
        let end = timestamp.wrapping_add(samples.len() as u32);
        let playout = match self.playout {
            Some(playout) if (end.wrapping_sub(playout) as i32) <= 0 => {
                // Late; but much too late is a source that has started again.
                if playout.wrapping_sub(end) < RING as u32 {
                    return false;
                }
                self.restart(timestamp)
            }
            Some(playout) if end.wrapping_sub(playout) > DEPTH_MAX => {
                if timestamp.wrapping_sub(self.end) as usize > RING {
                    self.restart(timestamp)
                } else {
                    self.skip(playout, end.wrapping_sub(DELAY))
                }
            }
            Some(playout) => playout,
            None => self.restart(timestamp),
        };
        self.playout = Some(playout);
        for (n, sample) in (0..).zip(samples) {
            let at = timestamp.wrapping_add(n);
            if (at.wrapping_sub(playout) as i32) >= 0 {
                self.ring[at as usize % RING] = sample;
            }
        }
        if (end.wrapping_sub(self.end) as i32) > 0 {
            self.end = end;
        }
        true
    }

    /// Moves the next samples to `frame`; silence where there are none.
    pub(crate) fn read(&mut self, frame: &mut [i16]) {
        let Some(playout) = self.playout else {
            frame.fill(0);
            return;
        };
        for (n, sample) in (0..).zip(frame.iter_mut()) {
            let slot = &mut self.ring[playout.wrapping_add(n) as usize % RING];
            *sample = std::mem::take(slot);
        }
        let next = playout.wrapping_add(frame.len() as u32);
        // Dry for long (the participant is silent): wait for a packet and start afresh.
        let dry = next.wrapping_sub(self.end) as i32;
        self.playout = (dry < DEPTH_MAX as i32).then_some(next);
    }

    fn restart(&mut self, timestamp: u32) -> u32 {
        self.ring.fill(0);
        self.end = timestamp;
        timestamp.wrapping_sub(DELAY)
    }

    /// Forgets what lies between, and returns the new playout.
    fn skip(&mut self, from: u32, to: u32) -> u32 {
        for n in 0..to.wrapping_sub(from).min(RING as u32) {
            self.ring[from.wrapping_add(n) as usize % RING] = 0;
        }
        to
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A packet of 160 samples that count from its timestamp + 1.
    fn packet(timestamp: u32) -> impl ExactSizeIterator<Item = i16> {
        (0..160usize).map(move |n| (timestamp as usize + n + 1) as i16)
    }

    fn read(buffer: &mut JitterBuffer, samples: usize) -> Vec<i16> {
        let mut frame = vec![7; samples];
        buffer.read(&mut frame);
        frame
    }

    #[test]
    fn what_is_written_comes_out_forty_ms_later_in_order() {
        let mut buffer = JitterBuffer::default();
        assert_eq!(read(&mut buffer, 160), [0; 160]);
        assert!(buffer.write(0, packet(0)));
        assert!(buffer.write(320, packet(320))); // Reordered.
        assert!(buffer.write(160, packet(160)));
        assert_eq!(read(&mut buffer, 320), [0; 320]);
        assert_eq!(read(&mut buffer, 480), (1..=480).collect::<Vec<_>>());
        assert_eq!(read(&mut buffer, 160), [0; 160], "never the same samples twice");
    }

    #[test]
    fn a_lost_packet_is_silence_and_a_late_one_is_refused() {
        let mut buffer = JitterBuffer::default();
        buffer.write(0, packet(0));
        buffer.write(320, packet(320));
        read(&mut buffer, 320);
        let heard = read(&mut buffer, 480);
        assert_eq!(heard[159..161], [160, 0]);
        assert_eq!(heard[319..321], [0, 321]);
        assert!(!buffer.write(160, packet(160)));
    }

    #[test]
    fn a_lost_packet_is_silence_also_when_the_ring_has_gone_round() {
        let mut buffer = JitterBuffer::default();
        let mut heard = Vec::new();
        for n in (0..40).filter(|n| *n != 30) {
            buffer.write(n * 160, packet(n * 160));
            heard.extend(read(&mut buffer, if n == 29 { 320 } else { 160 }));
        }
        let lost = 320 + 30 * 160;
        assert_eq!(heard[lost..lost + 160], [0; 160]);
        assert_eq!(heard[lost + 160], 31 * 160 + 1);
    }

    #[test]
    fn a_writer_that_runs_away_is_caught_up_with() {
        let mut buffer = JitterBuffer::default();
        for n in 0..20 {
            buffer.write(n * 160, packet(n * 160));
        }
        let first = read(&mut buffer, 80)[0];
        assert!(i32::from(first) > 3_200 - 960, "plays sample {first} of 3200");
    }

    #[test]
    fn a_source_that_starts_again_is_heard() {
        let mut buffer = JitterBuffer::default();
        buffer.write(1_000_000, packet(0));
        buffer.write(5, packet(5));
        read(&mut buffer, 320);
        assert_eq!(read(&mut buffer, 2), [6, 7]);
        for _ in 0..20 {
            read(&mut buffer, 160);
        }
        buffer.write(700_000, packet(0));
        read(&mut buffer, 320);
        assert_eq!(read(&mut buffer, 2), [1, 2]);
    }

    proptest::proptest! {
        #[test]
        fn no_order_of_packets_can_make_it_panic(
            ops in proptest::collection::vec((proptest::prelude::any::<u32>(), 0..500usize), 0..100)
        ) {
            let mut buffer = JitterBuffer::default();
            for (timestamp, len) in ops {
                buffer.write(timestamp, (0..len).map(|_| 1));
                buffer.write((timestamp % 400).wrapping_sub(200), (0..len).map(|_| 1));
                read(&mut buffer, 80);
            }
        }
    }
}
