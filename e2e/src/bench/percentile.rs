//! Percentiles of what was measured, by nearest rank.

use std::fmt::{Display, Formatter};

/// Values in order.
#[derive(Clone, Debug)]
pub struct Percentiles(Vec<f64>);

impl Percentiles {
    /// # Panics
    /// If there is no value, or one is not a number: a benchmark that has measured nothing has failed.
    pub fn new(mut values: Vec<f64>) -> Self {
        assert!(!values.is_empty(), "nothing was measured");
        values.sort_by(|a, b| a.partial_cmp(b).expect("figures are numbers"));
        Self(values)
    }

    /// The lowest value that at least `percent` of the values do not exceed.
    pub fn at(&self, percent: f64) -> f64 {
        let rank = (percent / 100.0 * self.0.len() as f64).ceil() as usize;
        self.0[rank.clamp(1, self.0.len()) - 1]
    }

    pub fn min(&self) -> f64 {
        self.0[0]
    }

    pub fn max(&self) -> f64 {
        self.0[self.0.len() - 1]
    }
}

impl Display for Percentiles {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let (min, max) = (self.min(), self.max());
        let [p50, p90, p99] = [50.0, 90.0, 99.0].map(|percent| self.at(percent));
        let count = self.0.len();
        write!(f, "{count} values: {min:.2} to {max:.2}, p50 {p50:.2}, p90 {p90:.2}, p99 {p99:.2}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_rank_is_taken() {
        let of_100 = Percentiles::new((1..=100).rev().map(f64::from).collect());
        let seen = [0.0, 50.0, 99.0, 99.1, 100.0].map(|percent| of_100.at(percent));
        assert_eq!(seen, [1.0, 50.0, 99.0, 100.0, 100.0]);
        assert_eq!(Percentiles::new(vec![7.0]).at(99.0), 7.0);
    }
}
