//! Session descriptions: reading the remote's (RFC 8866) and writing ours (RFC 3264).

mod offer_answer;
mod remote;

pub(crate) use offer_answer::{Local, Origin};
pub use remote::{Direction, Refusal, Remote};
pub(crate) use remote::{Formats, PTIME_DEFAULT_MS};

/// Longest session description, in bytes; that of a UDP datagram.
pub const SDP_BYTES_MAX: usize = 65_535;
/// Most media descriptions (m= sections) in one.
pub const MEDIA_MAX: usize = 32;

/// The codecs that are negotiated.
const NEGOTIATED: [crate::Codec; 2] = [crate::Codec::Pcmu, crate::Codec::Pcma];
