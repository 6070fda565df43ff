//! The error of everything that is parsed: which field, what it was, what is wanted.

/// How much of a refused value an error repeats, in characters.
const GOT_MAX: usize = 120;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} is {got:?}; wanted {wanted}")]
pub struct Malformed {
    pub field: &'static str,
    /// At most 120 characters of the value.
    pub got: String,
    pub wanted: &'static str,
}

impl Malformed {
    pub fn new(field: &'static str, got: &str, wanted: &'static str) -> Self {
        Self { field, got: got.chars().take(GOT_MAX).collect(), wanted }
    }
}
