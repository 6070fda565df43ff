//! Branches, tags and Call-IDs: unguessable words from the seed of the caller (RFC 3261 §19.3).

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// A source of words that nobody outside can foresee and that never repeat.
pub(crate) struct Tokens(StdRng);

impl Tokens {
    pub(crate) fn new(seed: u64) -> Self {
        Self(StdRng::seed_from_u64(seed))
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// 64 random bits, as RFC 3261 §19.3 asks for 32 at least.
    pub(crate) fn tag(&mut self) -> String {
        format!("{:016x}", self.number())
    }

    pub(crate) fn branch(&mut self) -> String {
        format!("z9hG4bK{:016x}", self.number())
    }

    pub(crate) fn call_id(&mut self) -> String {
        format!("{:016x}{:016x}", self.number(), self.number())
    }
}
