//! Session descriptions: reading the remote's (RFC 8866) and writing ours (RFC 3264).

mod formats;
mod offer_answer;
mod remote;

pub(crate) use formats::{Formats, TelephoneEvents};
pub(crate) use offer_answer::{Local, Offered, Origin};
pub(crate) use remote::PTIME_DEFAULT_MS;
pub use remote::{Direction, Refusal, Remote};

/// Longest session description, in bytes; that of a UDP datagram.
pub const SDP_BYTES_MAX: usize = 65_535;
/// Most media descriptions (m= sections) in one.
pub const MEDIA_MAX: usize = 32;
