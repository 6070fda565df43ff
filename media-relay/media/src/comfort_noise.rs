//! Comfort noise (RFC 3389): what a source sends in place of silence, so that it does not sound dead.
//!
//! Its level is followed, its spectrum is not: the noise is white.

/// Payload type without an rtpmap, at 8 kHz (RFC 3389 §4).
pub(crate) const PAYLOAD_TYPE: u8 = 13;

/// Noise of one level.
#[derive(Clone, Debug)]
pub(crate) struct ComfortNoise {
    /// Of the uniform distribution that the samples are drawn from.
    amplitude: i32,
    /// Noise needs no secret: any seed will do.
    state: u32,
}

impl ComfortNoise {
    /// Reads a payload: the level in −dBov, and coefficients, which are ignored (§3). None if it is
    /// empty.
    pub(crate) fn parse(payload: &[u8]) -> Option<Self> {
        let level = payload.first()? & 0x7f;
        // 0 dBov is a square wave of full scale; a uniform distribution of ±a has a mean square of
        // a²/3.
        let rms = 32_768.0 * 10f32.powf(f32::from(level) / -20.0);
        Some(Self { amplitude: (rms * 3f32.sqrt()).min(32_767.0) as i32, state: 0x9e37_79b9 })
    }

    /// Makes noise of each sample that is `absent`.
    pub(crate) fn fill(&mut self, frame: &mut [i16], absent: i16) {
        for sample in frame.iter_mut().filter(|it| **it == absent) {
            // Xorshift (Marsaglia 2003).
            self.state ^= self.state << 13;
            self.state ^= self.state >> 17;
            self.state ^= self.state << 5;
            let random = (self.state >> 16) as i32 - 32_768;
            *sample = (random * self.amplitude / 32_768) as i16;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_noise_has_the_level_that_was_said() {
        for (level, wanted) in [(20, 3_276.8), (40, 327.68), (60, 32.768)] {
            let mut noise = ComfortNoise::parse(&[level, 1, 2, 3]).unwrap();
            let mut frame = [7; 8_000];
            noise.fill(&mut frame, 7);
            let power: f64 = frame.iter().map(|it| f64::from(*it).powi(2)).sum();
            let rms = (power / 8_000.0).sqrt();
            assert!((rms / wanted - 1.0).abs() < 0.05, "{rms} of {wanted}");
        }
    }

    #[test]
    fn sound_is_left_alone_and_no_level_overflows() {
        let mut frame = [5, 7, 5];
        ComfortNoise::parse(&[0]).unwrap().fill(&mut frame, 7);
        assert_eq!((frame[0], frame[2]), (5, 5));
        ComfortNoise::parse(&[255]).unwrap().fill(&mut frame, 5);
        assert_eq!(frame[0], 0);
        assert!(ComfortNoise::parse(&[]).is_none());
    }
}
