//! What a call is told: by its legs, by the other services, and by those who ask over the API.

use crate::{Cause, Collect, Destination, Legs, Occurrence, Plan};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// The time, on both clocks: `instant` for timers, `unix_ms` for what is told to others.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    pub instant: Instant,
    pub unix_ms: i64,
}

/// A side of the media session: A is the leg that the call began with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    A,
    B,
}

/// A leg within its call, never used twice: leg A is 0, every attempt at a leg B has the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LegNumber(pub u32);

/// A command within its call, never used twice: the reply bears it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CommandNumber(pub u64);

/// A request of an API client, chosen by the shell; the answer bears it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestNumber(pub u64);

#[derive(Clone, Debug)]
pub enum Input {
    /// A leg has said something.
    Leg { leg: LegNumber, signal: LegSignal },
    /// A command of ours has been answered, or has failed.
    Replied { command: CommandNumber, reply: Result<Reply, Failure> },
    /// media-relay heard a digit.
    Digit { side: Side, digit: char },
    /// A file that does not loop has been played to its end.
    PlayFinished { play_id: String },
    /// Leg A was sent out of a conference.
    Kicked { conference: String },
    /// A side from which media is due has been silent for too long.
    MediaInactive,
    /// media-relay does not know our session any more.
    MediaLost,
    /// An API client asks for something.
    Asked { request: RequestNumber, ask: Ask },
    /// A leg of ours is another call's now.
    LegTaken { leg: LegNumber, cause: Cause },
    /// The process ends now.
    ShutDown,
}

/// What a leg can say, mirroring the user agent's events.
#[derive(Clone, Debug)]
pub enum LegSignal {
    /// The ACK of our 200, to the first or to a further INVITE.
    Acknowledged { sdp: Option<Bytes> },
    /// A provisional response other than 100 to our INVITE.
    Ringing { sdp: Option<Bytes> },
    /// The 2xx to our INVITE; it has been acknowledged.
    Answered { sdp: Option<Bytes> },
    /// A re-INVITE, which waits for our answer; without `sdp` it wants our offer.
    Reinvited { sdp: Option<Bytes> },
    /// A digit that came by INFO.
    Digit { digit: char, duration_ms: u32 },
    /// A REFER, which waits for our response: somebody else is to be called in this leg's place, with
    /// these header fields in the INVITE.
    Referred { target: String, headers: Vec<(String, String)> },
    /// The leg is over: the last signal of it.
    Ended(LegEnd),
}

#[derive(Clone, Debug)]
pub enum LegEnd {
    /// The remote's BYE, with the value of its `Reason`.
    Bye {
        reason: Option<String>,
    },
    /// The remote took its INVITE back.
    Cancelled {
        reason: Option<String>,
    },
    /// A final response of 300 or above to our INVITE.
    Rejected {
        status: u16,
        reason: Option<String>,
    },
    /// The name of a target stands for nobody: no binding, no such host.
    Unresolved {
        cause: Cause,
    },
    /// No response at all, or no ACK.
    TimedOut,
    TransportFailed,
    /// Our own hangup of it is done: `status` is that of the response to our BYE, if there was one.
    HungUp {
        status: Option<u16>,
    },
}

/// The good replies to commands.
#[derive(Clone, Debug)]
pub enum Reply {
    /// media-relay's answer to the remote's offer, or its own offer.
    Offered { sdp: Bytes, held: bool },
    /// media-relay has taken the remote's answer.
    Negotiated { held: bool },
    /// A file plays now.
    Playing { play_id: String, duration: Duration },
    /// Leg B has answered and is not heard; what leg A hears is as it was.
    Silent,
    /// Done, and nothing more to say.
    Done,
    /// There is a place in the queue of that name; `music` is a file for media-relay.
    Enqueued { queue: String, music: String },
    /// The task is on disk.
    Scheduled { task_id: String },
    /// What became of the task that was to be cancelled.
    Cancelled(CancelOutcome),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CancelOutcome {
    /// It will not happen, or there was nothing that could.
    Cancelled,
    /// Too late: it happens, or has happened.
    Firing,
}

/// Why a command has failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    pub kind: FailureKind,
    /// For people, from the service that refused.
    pub message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// No codec in common.
    NoCodec,
    /// No address family in common: it has IPv4, we have IPv6, or the other way round.
    NoAddressFamily,
    /// The service does not take it as it is: malformed SDP, a file that is no audio.
    Invalid,
    /// No such queue, file or session.
    NotFound,
    /// A limit is reached: the queue is full, no port is left.
    Full,
    /// It may not: the PIN is not the conference's.
    Denied,
    /// No answer in time, or "try again".
    Unavailable,
}

/// What an API client can ask of a call. Each is answered exactly once.
#[derive(Clone, Debug)]
pub enum Ask {
    Hangup {
        cause: Cause,
        legs: Legs,
        /// The task that asks, if it is not a person.
        task: Option<Occurrence>,
    },
    /// Sends leg A somewhere else, without leg B.
    Transfer {
        to: Destination,
        task: Option<Occurrence>,
    },
    Ring {
        assignment_id: String,
        target: String,
        /// Rung at the same time.
        also: Vec<String>,
        ring: Duration,
    },
    StopRinging {
        assignment_id: String,
    },
    Play {
        file: String,
        legs: Legs,
        task: Option<Occurrence>,
        /// Answer at the end of the file, not at its start.
        wait: bool,
    },
    Collect(Collect),
    RunPlan(Plan),
    /// An Originate that repeats the one that made the call.
    Originate,
}
