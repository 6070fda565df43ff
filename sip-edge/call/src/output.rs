//! What a call asks of its shell: SIP orders, commands to services, events, answers to the API.

use crate::{AgentOrder, Cause, CommandNumber, Conference, Later, LegNumber, RequestNumber, Side};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::{Duration, Instant};

#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    Sip {
        leg: LegNumber,
        order: SipOrder,
    },
    /// To be done in the order given, within a call.
    Media {
        number: CommandNumber,
        command: MediaCommand,
    },
    /// To be done in the order given, within a call.
    Queue {
        number: CommandNumber,
        command: QueueCommand,
    },
    /// To be done in the order given, within a call.
    Scheduler {
        number: CommandNumber,
        command: SchedulerCommand,
    },
    /// Something happened; `call` is the call after it.
    Event {
        event: Event,
        call: Box<View>,
    },
    Answer {
        request: RequestNumber,
        answer: Result<Answer, Refusal>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SipOrder {
    /// Call the target.
    Invite {
        target: String,
        sdp: Bytes,
        headers: Vec<(String, String)>,
    },
    /// Offer this in the dialog that stands, of a leg that is another call's still.
    Reinvite {
        sdp: Bytes,
    },
    /// That leg is this call's from now on.
    Take,
    /// Answer the REFER that waits; it hears what becomes of it.
    AcceptRefer,
    RejectRefer {
        status: u16,
    },
    /// Tell who sent the REFER how far it is; a final status is the last.
    NotifyRefer {
        status: u16,
    },
    /// Send this provisional response to the pending INVITE.
    Ring {
        status: u16,
    },
    /// Send 200 to the pending INVITE or re-INVITE.
    Answer {
        sdp: Bytes,
    },
    /// Refuse the pending INVITE or re-INVITE.
    Reject {
        status: u16,
        warning: Option<Warning>,
        retry_after_s: Option<u32>,
    },
    /// End the leg, whatever its state; `reason` is the value of a `Reason` header field.
    Hangup {
        reason: String,
        unanswered_status: u16,
    },
}

/// A code and text of the `Warning` header field (RFC 3261 §20.43).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Warning {
    pub code: u16,
    pub text: &'static str,
}

/// No address family in common.
pub(crate) const INCOMPATIBLE_NETWORK_ADDRESS_FORMATS: Warning =
    Warning { code: 301, text: "Incompatible network address formats" };

/// No codec in common.
pub(crate) const INCOMPATIBLE_MEDIA_FORMAT: Warning =
    Warning { code: 305, text: "Incompatible media format" };

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MediaCommand {
    /// Take the remote's offer, or make ours if there is no `sdp`; then play `music`, for ever.
    Offer {
        side: Side,
        sdp: Option<Bytes>,
        music: Option<String>,
    },
    /// Take the remote's answer to our offer.
    Answer {
        side: Side,
        sdp: Bytes,
    },
    Play {
        side: Side,
        file: String,
        looping: bool,
    },
    /// Stop the file that plays.
    Stop {
        side: Side,
        leave_conference: bool,
    },
    /// Connect sides A and B; `when_heard`: A is to hear what it hears until B is heard.
    Connect {
        when_heard: bool,
    },
    Join {
        side: Side,
        conference: Arc<Conference>,
    },
    InjectDtmf {
        side: Side,
        digit: char,
        duration_ms: u32,
    },
    /// Free a side, or with `None` the whole session. Must get through: try again.
    Delete {
        side: Option<Side>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueueCommand {
    /// Give us a place, or confirm that the caller is `answered`; `queue: None`: by request URI.
    /// `since`: when the caller asked for it.
    Enqueue { queue: Option<String>, answered: bool, priority: u8, since: Instant },
    /// An agent says this; `None`: the one who has the address of leg A.
    Agent { does: AgentOrder, agent: Option<String> },
    /// The caller has gone. Must get through: try again.
    Leave { cause: Cause },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SchedulerCommand {
    /// Do that then. The command number makes it idempotent.
    Schedule {
        after_ms: u64,
        what: Later,
        name: String,
    },
    Cancel {
        task_id: String,
    },
    /// Cancel whatever the call has: it ended while a `Schedule` was on its way.
    CancelAll,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Created,
    Ringing {
        assignment_id: Option<String>,
    },
    Answered,
    Action,
    Digit {
        digit: char,
    },
    Connected {
        assignment_id: Option<String>,
    },
    /// Leg B is gone, and leg A goes on with something else.
    Parted,
    RingFailed {
        assignment_id: Option<String>,
        cause: Cause,
    },
    Held,
    Resumed,
    /// A leg has taken the place of another one.
    Replaced,
    Ended,
    /// After the end of the leg that we hung up on: the status of the response to our BYE, if there
    /// was one. It may come after the call's end.
    Released {
        side: Side,
        status: Option<u16>,
    },
}

/// The good answers to API requests.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Originate: the target has answered and the leading tasks are on disk.
    Originated(Box<View>),
    HungUp {
        already_ended: bool,
        call: Box<View>,
    },
    Ring(RingResult),
    StoppedRinging {
        stopped: bool,
    },
    /// The file plays, or has been played.
    Playing {
        duration: Duration,
    },
    Collected {
        outcome: CollectOutcome,
        digits: String,
    },
    PlanRuns(Box<View>),
    /// Both legs talk.
    Bridged(Box<View>),
    /// The plan runs, or the target is dialled.
    Transferred(Box<View>),
    /// A task asked for something that cannot be done to a call that is over.
    TooLate(Box<View>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RingResult {
    pub outcome: RingOutcome,
    /// Status of leg B's final response, if there was one.
    pub status: Option<u16>,
    /// Why it failed; `None` when connected.
    pub cause: Option<Cause>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RingOutcome {
    Connected,
    NoAnswer,
    Busy,
    Declined,
    Unreachable,
    CallerGone,
    Stopped,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CollectOutcome {
    Complete,
    Terminated,
    TimedOut,
}

/// Why an API request is not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the call has ended with {}", cause.name())]
    Ended { cause: Cause },
    #[error(
        "the target did not answer: {}{}", cause.name(),
        status.map_or(String::new(), |status| format!(" (SIP status {status})"))
    )]
    NotAnswered { cause: Cause, status: Option<u16> },
    #[error("leg A is not answered yet")]
    NotAnsweredYet,
    #[error("the call runs `{action}`; wanted: `park`")]
    Busy { action: &'static str },
    #[error("the call runs `{action}`, which a prompt would disturb")]
    Disturbed { action: &'static str },
    #[error("there is no leg B")]
    NoLegB,
    #[error("legs A and B are connected")]
    Connected,
    #[error("something else was asked of the call meanwhile")]
    Replaced,
    #[error("another attempt rings already")]
    Rings,
    #[error("{max} requests wait for this already")]
    TooMany { max: usize },
    #[error("{service} failed: {failure}")]
    Failed { service: &'static str, failure: crate::Failure },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallState {
    Early,
    Answered,
    Connected,
    Ended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LegStage {
    Early,
    Confirmed,
    Terminated,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndedBy {
    Caller,
    Callee,
    Api,
    Task,
    Plan,
    Edge,
}

/// A call as others may see it, at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    pub call_id: String,
    pub state: CallState,
    /// Leg A first.
    pub legs: Vec<LegView>,
    pub from_uri: String,
    pub to_uri: String,
    pub route: String,
    /// Name of the running action; empty if none.
    pub action: &'static str,
    /// Queue in which leg A waits: its name, or the URI it was reached by; empty if none.
    pub queue: String,
    /// Empty if none.
    pub conference: String,
    /// Name and task id, in the order they were made.
    pub tasks: Vec<(String, String)>,
    /// False before the first media.
    pub has_media: bool,
    pub created_unix_ms: i64,
    pub answered_unix_ms: Option<i64>,
    pub ended_unix_ms: Option<i64>,
    pub end: Option<(Cause, EndedBy)>,
    /// The task whose hangup ended it.
    pub ended_by_task: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct LegView {
    pub number: LegNumber,
    pub side: Side,
    pub stage: LegStage,
    pub remote_uri: String,
    pub held: bool,
}
