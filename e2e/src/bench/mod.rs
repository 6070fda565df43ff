//! What the benchmarks have in common: how figures are reported, and what a process costs.

mod percentile;
mod report;
mod usage;

pub use percentile::Percentiles;
pub use report::{Better, Report};
pub use usage::{Usage, resident_bytes};
