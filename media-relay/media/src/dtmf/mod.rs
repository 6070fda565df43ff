//! Digits: telephone-events in RTP both ways (RFC 4733), tones in the sound (ITU-T Q.23, Q.24), and
//! SIP INFO. However it comes, each key press is reported once.

mod digit;
mod event;
mod event_receiver;
mod event_sender;
mod presses;
mod receiver;
mod tones;

pub use digit::{Digit, NotADigit};
pub use event::TelephoneEvent;
pub use event_sender::{DIGITS_MAX, SendDigits, SendDigitsError};
pub use presses::Transport;
pub use receiver::Detection;

pub(crate) use event_sender::{EventSender, STEP, Step};
pub(crate) use receiver::DtmfReceiver;

use event_receiver::EventReceiver;
use presses::Presses;
use tones::ToneDetector;
