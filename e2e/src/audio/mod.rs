//! Sound: made for tests, and judged without any code of the services.

mod g711;
mod likeness;
mod tone;
mod tune;
mod wav;

pub use g711::Codec;
pub use likeness::{Reference, Span, longest_silence_ms};
pub use tone::{TONE_STEP_HZ, tone, tone_amplitude};
pub use tune::tune;
pub use wav::Wav;

/// The rate that phones of this crate talk and record at.
pub const PHONE_RATE_HZ: u32 = 8000;
