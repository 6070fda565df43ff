//! Media without IO: RTP, RTCP, SDP offer/answer, players, DTMF, transcoding and conferences.
//!
//! [`Relay`] is the whole of it, a value: commands and datagrams go in with the time at which they
//! came; datagrams to send, events and ports to close come out. It opens no socket and reads no
//! clock, so that every test runs in virtual time. The shell's loop is:
//!
//! 1. send [`Relay::transmits`] and clear them, then drain [`Relay::poll_output`];
//! 2. wait for a datagram, a command, or [`Relay::poll_timeout`];
//! 3. hand it over; repeat.
//!
//! A [`media session`](session) has two sides, A and B, matching the legs of a call. The relay is
//! an RTP endpoint to each of them: it negotiates each by itself and sends each one stream, whose
//! numbers go on through music, prompts, the other side and conferences.

mod audio;
mod codec;
mod comfort_noise;
mod concealment;
mod conference;
mod discard;
mod dtmf;
mod endpoint;
mod jitter_buffer;
mod latch;
mod listening;
mod mix;
mod negotiation;
mod outgoing;
mod packets;
mod player;
mod port_pool;
mod port_table;
mod prefetch;
mod reception;
mod recording;
mod recordings;
mod relay;
mod resampler;
mod rooms;
mod rtcp;
mod schedule;
pub mod sdp;
mod sending;
pub mod session;
mod sessions;
mod snapshot;
mod status;
mod timers;
mod tombstones;
mod transcoder;
mod transmit;
mod verbatim;

pub use audio::{Audio, AudioError, Encoded, Form, SAMPLES_MAX, SECONDS_MAX};
pub use codec::{
    CLOCK_RATE_HZ, Codec, Decoder, Encoder, Law, Malformed, PACKET_SAMPLES_MAX, PAYLOAD_BYTES_MAX,
    PTIMES_MS, TICKS_PER_MS, Unit,
};
pub use conference::{JoinError, PARTICIPANTS_MAX, SPEAKERS_MAX};
pub use discard::{Discard, Discards};
pub use dtmf::{DIGITS_MAX, Detection, Digit, NotADigit, SendDigits, SendDigitsError};
pub use dtmf::{TelephoneEvent, Transport};
pub use player::{Play, PlayError};
pub use port_pool::{PortError, PortPair};
pub use prefetch::PREFETCHED;
pub use recording::{RECORDINGS_MAX, RecordingError, RecordingFormat};
pub use relay::{Config, Described, Error, Event, EventKind, LeaveReason, Offer, Output, Relay};
pub use resampler::Resampler;
pub use rooms::{ConferenceStatus, Join, ParticipantStatus};
pub use session::Side;
pub use snapshot::{
    Changed, HearsSnapshot, LatchSnapshot, MemberSnapshot, OutgoingSnapshot, PlaySnapshot,
    RelayingSnapshot, RestoreError, Resumed, SNAPSHOT_VERSION, SentSnapshot, SessionSnapshot,
    SideSnapshot,
};
pub use status::{SessionStatus, SideStatus};
pub use transmit::Transmit;
pub use verbatim::{Attach, PAYLOAD_TYPES_MAX, Silence, Verbatim};
