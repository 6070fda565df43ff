//! Packets that have not come, in a mix: what came before them is repeated, there and back, and
//! fades out; so there is no step, and no silence for the few ms that most losses last.

/// How much is repeated, in ms.
const REPEATED_MS: usize = 20;
/// After how long it has faded out, in ms.
const FADED_MS: usize = 60;
/// How long what comes again fades in over what was made up, in ms.
const RETURN_MS: usize = 3;

#[derive(Debug)]
pub(crate) struct Concealment {
    /// The newest samples that came, in a circle.
    heard: Box<[i16]>,
    /// Where the oldest of them is.
    oldest: usize,
    faded: usize,
    /// Samples made up since the last one that came.
    made_up: usize,
    /// Samples that came since then, while they fade in.
    returned: usize,
    fade_in: usize,
}

impl Concealment {
    pub(crate) fn new(sample_rate_hz: u32) -> Self {
        let per_ms = sample_rate_hz as usize / 1_000;
        Self {
            heard: vec![0; REPEATED_MS * per_ms].into(),
            oldest: 0,
            faded: FADED_MS * per_ms,
            made_up: FADED_MS * per_ms,
            returned: 0,
            fade_in: RETURN_MS * per_ms,
        }
    }

    /// Makes up each sample that is `absent`.
    pub(crate) fn fill(&mut self, frame: &mut [i16], absent: i16) {
        for sample in frame {
            if *sample == absent {
                *sample = self.make_up();
                self.made_up = (self.made_up + 1).min(self.faded);
                self.returned = 0;
                continue;
            }
            let came = *sample;
            if self.made_up > 0 {
                *sample = self.fade_in(came);
            }
            self.heard[self.oldest] = *sample;
            self.oldest = (self.oldest + 1) % self.heard.len();
        }
    }

    /// The next sample of what was heard, backwards, forwards, and so on.
    fn make_up(&self) -> i16 {
        if self.made_up >= self.faded {
            return 0;
        }
        let len = self.heard.len();
        let way = self.made_up % (2 * len);
        let back = if way < len { way } else { 2 * len - 1 - way };
        let sample = i32::from(self.heard[(self.oldest + 2 * len - 1 - back) % len]);
        let left = self.faded - self.made_up;
        (sample * left as i32 / self.faded as i32) as i16
    }

    fn fade_in(&mut self, came: i16) -> i16 {
        let (weight, whole) = (self.returned as i32, self.fade_in as i32);
        let (from, to) = (i32::from(self.make_up()), i32::from(came));
        self.returned += 1;
        if self.returned == self.fade_in {
            (self.made_up, self.returned) = (0, 0);
        } else if self.made_up < self.faded {
            self.made_up += 1;
        }
        (from + (to - from) * weight / whole) as i16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sine(n: usize) -> i16 {
        (8_000.0 * (n as f64 * std::f64::consts::TAU * 300.0 / 8_000.0).sin()) as i16
    }

    /// A tone of 300 Hz, without the samples of `lost`.
    fn heard(lost: std::ops::Range<usize>) -> Vec<i16> {
        let mut concealment = Concealment::new(8_000);
        let sample = |n| if lost.contains(&n) { i16::MIN } else { sine(n) };
        let mut samples: Vec<i16> = (0..1_600).map(sample).collect();
        samples.chunks_mut(80).for_each(|it| concealment.fill(it, i16::MIN));
        samples
    }

    #[test]
    fn what_came_is_not_changed() {
        assert!(heard(0..0).into_iter().enumerate().skip(24).all(|(n, it)| it == sine(n)));
        let heard = heard(400..560);
        assert!(heard[24..400].iter().enumerate().all(|(n, it)| *it == sine(n + 24)));
        assert!(heard[584..].iter().enumerate().all(|(n, it)| *it == sine(n + 584)));
    }

    #[test]
    fn a_gap_has_no_step_and_nearly_the_loudness_of_what_was_before() {
        let heard = heard(400..560);
        let steepest = heard[300..700].windows(2).map(|it| it[0].abs_diff(it[1])).max().unwrap();
        assert!(steepest < 2_600, "a step of {steepest}, where the tone's steepest is 1873");
        let power = |it: &[i16]| it.iter().map(|it| f64::from(*it).powi(2)).sum::<f64>();
        let kept = power(&heard[400..560]) / power(&heard[200..360]);
        assert!((0.5..1.0).contains(&kept), "{kept} of the power");
    }

    #[test]
    fn a_long_gap_is_silence_after_sixty_ms() {
        let heard = heard(400..1_200);
        assert!(heard[879] != 0 || heard[875] != 0);
        assert!(heard[880..1_200].iter().all(|it| *it == 0));
    }
}
