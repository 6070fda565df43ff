//! The client of sip-edge: rings agents, hangs up, and asks whether a call is still there.

use crate::metrics;
use boot::Channel;
use proto::sip_edge::v1 as pb;
use proto::sip_edge::v1::sip_edge_client::SipEdgeClient;
use queue::{
    Address, Assignment, AssignmentId, CallId, CallSeen, Found, Missed, RingEnded, UnixMs,
};
use std::time::Duration;
use tokio::time::{sleep, timeout};
use tonic::{Code, Request, Status};
use tracing::{debug, warn};

/// How long sip-edge may take for what does not ring.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// How much longer than the ringing itself its outcome may take, in ms.
const RING_GRACE_MS: UnixMs = 10_000;
/// How long to go on asking for the outcome after the connection broke while an agent rang.
const BROKEN_LIMIT: Duration = Duration::from_secs(5);
/// How long to go on asking when sip-edge was not reached at all: a connection that breaks under many
/// requests is soon there again.
const UNREACHED_LIMIT: Duration = Duration::from_millis(500);
/// When to ask again.
const AGAIN: Duration = Duration::from_millis(250);
/// Calls that are looked at when we begin.
const LIVE_MAX: u32 = 10_000;
/// The shortest ringing that sip-edge takes, in ms.
const RING_MIN_MS: UnixMs = 1_000;

/// How ringing an agent ended, for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RingAnswer {
    Connected {
        sip_status: u32,
        /// At which address; not said if there was but one, or after a restart.
        answered: Option<String>,
    },
    NoAnswer {
        sip_status: u32,
        ring_ms: u32,
    },
    Busy {
        sip_status: u32,
    },
    Declined {
        sip_status: u32,
    },
    Unreachable {
        sip_status: u32,
    },
    /// Hung up while the agent rang.
    CallerGone,
    /// Had ended, or talked to somebody, before.
    Stale,
    BadAgent(String),
    Unavailable(String),
}

impl RingAnswer {
    /// The same for the core.
    pub(crate) fn ended(&self) -> RingEnded {
        let not_taken = |missed, why: String| RingEnded::NotTaken(missed, why);
        match self {
            Self::Connected { answered, .. } => RingEnded::Connected { answered: answered.clone() },
            Self::NoAnswer { ring_ms, .. } => {
                not_taken(Missed::NoAnswer, format!("agent did not answer in {ring_ms} ms"))
            }
            Self::Busy { sip_status } => {
                not_taken(Missed::Busy, format!("agent is busy ({sip_status})"))
            }
            Self::Declined { sip_status } => {
                not_taken(Missed::Declined, format!("agent declined ({sip_status})"))
            }
            Self::Unreachable { sip_status } => {
                let why = match sip_status {
                    0 => "agent cannot be reached or heard".to_owned(),
                    status => format!("agent cannot be reached ({status})"),
                };
                not_taken(Missed::Unreachable, why)
            }
            Self::CallerGone => RingEnded::HungUp,
            Self::Stale => RingEnded::Stale,
            Self::BadAgent(why) => not_taken(Missed::Unreachable, why.clone()),
            Self::Unavailable(why) => not_taken(Missed::Fault, why.clone()),
        }
    }

    /// For metrics and logs.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Connected { .. } => "connected",
            Self::NoAnswer { .. } => "no_answer",
            Self::Busy { .. } => "busy",
            Self::Declined { .. } => "declined",
            Self::Unreachable { .. } => "unreachable",
            Self::CallerGone => "caller_gone",
            Self::Stale => "stale",
            Self::BadAgent(_) => "bad_agent",
            Self::Unavailable(_) => "unavailable",
        }
    }
}

/// What sip-edge says of a call.
enum CallIs {
    /// Ended at this time, in Unix ms; 0 if it is not known any more.
    Over(UnixMs),
    Connected,
    /// Neither, with its state and what it is in.
    Alone(Box<pb::Call>),
}

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct Edge {
    client: SipEdgeClient<Channel>,
}

impl Edge {
    pub(crate) fn new(channel: Channel) -> Self {
        Self { client: SipEdgeClient::new(channel) }
    }

    /// Rings the agent and returns the outcome, at the latest 10 s after the ringing should have
    /// ended. `resumed`: this assignment was begun before a restart, and may ring or be decided.
    pub(crate) async fn ring(
        &self,
        call_id: &CallId,
        assignment: &Assignment,
        resumed: bool,
    ) -> RingAnswer {
        let ring_until = assignment.reserved_at + UnixMs::from(assignment.ring_ms);
        let left = ring_until + RING_GRACE_MS - boot::unix_ms();
        let Ok(left) = u64::try_from(left) else { return self.settle(call_id, assignment).await };
        match timeout(Duration::from_millis(left), self.ring_on(call_id, assignment, resumed)).await
        {
            Ok(answer) => answer,
            Err(_) => self.settle(call_id, assignment).await,
        }
    }

    /// Asks until there is a clear answer. Asking again is safe: sip-edge knows the assignment.
    async fn ring_on(
        &self,
        call_id: &CallId,
        assignment: &Assignment,
        resumed: bool,
    ) -> RingAnswer {
        let (mut broken_since, mut unreached) = (None, true);
        loop {
            let ring_until = assignment.reserved_at + UnixMs::from(assignment.ring_ms);
            let ring_ms = (ring_until - boot::unix_ms()).max(RING_MIN_MS);
            let request = pb::RingRequest {
                call_id: call_id.as_str().to_owned(),
                assignment_id: assignment.id.as_str().to_owned(),
                target: assignment.targets[0].address.as_str().to_owned(),
                ring_timeout_ms: u32::try_from(ring_ms).unwrap_or(assignment.ring_ms),
                also: assignment.targets[1..]
                    .iter()
                    .map(|it| it.address.as_str().to_owned())
                    .collect(),
            };
            let begun = resumed || broken_since.is_some();
            let e = match self.client.clone().ring(request).await {
                Ok(response) => {
                    let answer = rung(&response.into_inner(), assignment.ring_ms);
                    return self.since_when(call_id, assignment, answer).await;
                }
                Err(e) => e,
            };
            match e.code() {
                Code::NotFound => return RingAnswer::Stale,
                Code::InvalidArgument => return RingAnswer::BadAgent(e.message().to_owned()),
                Code::FailedPrecondition => return self.not_possible(call_id, begun, &e).await,
                Code::ResourceExhausted if !begun => return unavailable(&e),
                _ => (),
            }
            unreached &= e.code() == Code::Unavailable;
            let limit = if unreached { UNREACHED_LIMIT } else { BROKEN_LIMIT };
            let since = *broken_since.get_or_insert_with(std::time::Instant::now);
            // After our own restart sip-edge may be restarting as well: until the deadline.
            if !resumed && since.elapsed() >= limit {
                warn!(%call_id, "failed to learn how ringing ended: {e}");
                return unavailable(&e);
            }
            debug!(%call_id, "failed to ring; asking again: {e}");
            sleep(AGAIN).await;
        }
    }

    /// A call that was over before it was reserved should not have been in line any more.
    async fn since_when(
        &self,
        call_id: &CallId,
        assignment: &Assignment,
        answer: RingAnswer,
    ) -> RingAnswer {
        if answer != RingAnswer::CallerGone {
            return answer;
        }
        match self.call(call_id).await {
            Ok(CallIs::Over(ended_at)) if ended_at < assignment.reserved_at => RingAnswer::Stale,
            _ => answer,
        }
    }

    /// The call is not one that can be rung for. If the attempt was begun before, the reason may be
    /// that it succeeded.
    async fn not_possible(&self, call_id: &CallId, begun: bool, e: &Status) -> RingAnswer {
        match self.call(call_id).await {
            Ok(CallIs::Over(_)) => RingAnswer::Stale,
            Ok(CallIs::Connected) if begun => {
                RingAnswer::Connected { sip_status: 0, answered: None }
            }
            Ok(CallIs::Connected) => RingAnswer::Stale,
            Ok(CallIs::Alone(_)) => RingAnswer::Unavailable(e.message().to_owned()),
            Err(e) => unavailable(&e),
        }
    }

    /// Nobody said how it ended: ends it, and looks.
    async fn settle(&self, call_id: &CallId, assignment: &Assignment) -> RingAnswer {
        self.stop_ringing(call_id, &assignment.id).await;
        match self.call(call_id).await {
            Ok(CallIs::Over(_)) => RingAnswer::Stale,
            Ok(CallIs::Connected) => RingAnswer::Connected { sip_status: 0, answered: None },
            Ok(CallIs::Alone(_)) => {
                RingAnswer::NoAnswer { sip_status: 0, ring_ms: assignment.ring_ms }
            }
            Err(e) => unavailable(&e),
        }
    }

    /// Ends the ringing, if it lasts. If sip-edge cannot be reached, its own time-out does.
    pub(crate) async fn stop_ringing(&self, call_id: &CallId, assignment_id: &AssignmentId) {
        let request = pb::StopRingingRequest {
            call_id: call_id.as_str().to_owned(),
            assignment_id: assignment_id.as_str().to_owned(),
        };
        match self.client.clone().stop_ringing(soon(request)).await {
            Ok(_) => (),
            Err(e) if e.code() == Code::NotFound => (),
            Err(e) => warn!(%call_id, "failed to stop ringing: {e}"),
        }
    }

    /// Whether the caller is still one who waits.
    pub(crate) async fn check(&self, call_id: &CallId) -> Found {
        match self.call(call_id).await {
            Ok(CallIs::Over(_)) => Found::Gone,
            Ok(CallIs::Connected) => Found::Connected,
            Ok(CallIs::Alone(call)) if !call.conference.is_empty() => Found::Gone,
            Ok(CallIs::Alone(call)) if call.state() == pb::CallState::Early => Found::Early,
            Ok(CallIs::Alone(_)) => Found::Waiting,
            Err(e) => {
                debug!(%call_id, "failed to check a call: {e}");
                Found::Unknown
            }
        }
    }

    /// Sends a caller out of the queue: there, or on with the plan of the call. If that fails, the queue
    /// asks for it again.
    pub(crate) async fn send_on(&self, call_id: &CallId, to: Option<&Address>) {
        use pb::transfer_request::To;
        let to = match to {
            Some(address) => To::Uri(address.as_str().to_owned()),
            None => To::GoOn(pb::GoOn {}),
        };
        self.transfer(call_id, to).await;
    }

    /// Tells sip-edge in which queue a caller waits now.
    pub(crate) async fn move_to(&self, call_id: &CallId, queue: String, music: String) {
        let moved = pb::QueueMove { queue, music };
        self.transfer(call_id, pb::transfer_request::To::Moved(moved)).await;
    }

    async fn transfer(&self, call_id: &CallId, to: pb::transfer_request::To) {
        let request = pb::TransferRequest {
            call_id: call_id.as_str().to_owned(),
            to: Some(to),
            ..pb::TransferRequest::default()
        };
        match self.client.clone().transfer(soon(request)).await {
            Ok(_) => (),
            Err(e) if e.code() == Code::NotFound => (), // Its end will be told.
            Err(e) => warn!(%call_id, "failed to send a caller on: {e}"),
        }
    }

    /// Plays files over a caller's music. What cannot be played is not heard; nothing else changes.
    pub(crate) async fn announce(&self, call_id: &CallId, files: Vec<String>) {
        let request = pb::PlayRequest {
            call_id: call_id.as_str().to_owned(),
            file: files.join("&"),
            ..pb::PlayRequest::default()
        };
        if let Err(e) = self.client.clone().play(soon(request)).await {
            metrics::count_silent_announcement();
            debug!(%call_id, "failed to announce: {e}");
        }
    }

    /// What there is, as far as sip-edge says: for agents who are on a call when we begin.
    pub(crate) async fn live_calls(&self) -> Vec<CallSeen> {
        let request = pb::ListCallsRequest { limit: LIVE_MAX, ..pb::ListCallsRequest::default() };
        match self.client.clone().list_calls(soon(request)).await {
            Ok(response) => {
                let calls = response.into_inner().calls;
                calls.into_iter().filter_map(|call| seen(call, boot::unix_ms(), "").ok()).collect()
            }
            Err(e) => {
                debug!("failed to list the calls: {e}");
                Vec::new()
            }
        }
    }

    /// # Errors
    /// As sip-edge says; a call that has ended or is unknown is none.
    pub(super) async fn hang_up(&self, call_id: &CallId, cause: &str) -> Result<(), Status> {
        let call_id = call_id.as_str().to_owned();
        let request = pb::HangupRequest { call_id, cause: cause.to_owned(), ..Default::default() };
        match self.client.clone().hangup(soon(request)).await {
            Ok(_) => Ok(()),
            Err(e) if e.code() == Code::NotFound => Ok(()),
            Err(e) if e.code() == Code::InvalidArgument => Err(e),
            Err(e) => {
                Err(Status::unavailable(format!("sip-edge did not hang up: {}", e.message())))
            }
        }
    }

    async fn call(&self, call_id: &CallId) -> Result<CallIs, Status> {
        let request = pb::GetCallRequest { call_id: call_id.as_str().to_owned() };
        match self.client.clone().get_call(soon(request)).await {
            Ok(response) => {
                let call = response.into_inner();
                Ok(match call.state() {
                    pb::CallState::Ended => CallIs::Over(call.ended_unix_ms),
                    pb::CallState::Connected => CallIs::Connected,
                    _ => CallIs::Alone(Box::new(call)),
                })
            }
            Err(e) if e.code() == Code::NotFound => Ok(CallIs::Over(0)),
            Err(e) => Err(e),
        }
    }
}

/// What a call means to agents and queues. Who only claims to be somebody counts as nobody.
///
/// # Errors
/// If its id is none.
pub(crate) fn seen(
    call: pb::Call,
    at: UnixMs,
    assignment_id: &str,
) -> Result<CallSeen, queue::Malformed> {
    let live = |leg: &pb::Leg| leg.state() != pb::LegState::Terminated && !leg.unproven;
    Ok(CallSeen {
        call_id: CallId::parse(&call.call_id)?,
        at,
        assignment_id: AssignmentId::new(assignment_id),
        connected: call.state() == pb::CallState::Connected,
        remotes: call.legs.into_iter().filter(live).map(|leg| leg.remote_uri).collect(),
    })
}

/// A request that fails when there is no answer within [`ASK_TIMEOUT`].
fn soon<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(ASK_TIMEOUT);
    request
}

fn unavailable(e: &Status) -> RingAnswer {
    RingAnswer::Unavailable(format!("sip-edge did not ring the agent: {}", e.message()))
}

fn rung(response: &pb::RingResponse, ring_ms: u32) -> RingAnswer {
    let sip_status = response.sip_status;
    match response.outcome() {
        pb::RingOutcome::Connected => {
            let answered = Some(response.answered.clone()).filter(|it| !it.is_empty());
            RingAnswer::Connected { sip_status, answered }
        }
        pb::RingOutcome::Busy => RingAnswer::Busy { sip_status },
        pb::RingOutcome::Declined => RingAnswer::Declined { sip_status },
        pb::RingOutcome::Unreachable => RingAnswer::Unreachable { sip_status },
        pb::RingOutcome::CallerGone => RingAnswer::CallerGone,
        pb::RingOutcome::NoAnswer | pb::RingOutcome::Stopped | pb::RingOutcome::Unspecified => {
            RingAnswer::NoAnswer { sip_status, ring_ms }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_only_claims_to_be_an_agent_keeps_nobody_busy() {
        let leg = |unproven| pb::Leg {
            remote_uri: "sip:1001@h".into(),
            state: pb::LegState::Confirmed.into(),
            unproven,
            ..pb::Leg::default()
        };
        let call = pb::Call { call_id: "c".into(), legs: vec![leg(true)], ..pb::Call::default() };
        assert_eq!(seen(call.clone(), 0, "").unwrap().remotes, Vec::<String>::new());
        let call = pb::Call { legs: vec![leg(true), leg(false)], ..call };
        assert_eq!(seen(call, 0, "").unwrap().remotes, ["sip:1001@h"]);
    }
}
