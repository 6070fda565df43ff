//! The sip-edges as the scheduler sees them: those that bring about what tasks ask for, and say what
//! came of it.
//!
//! An attempt goes to the edge of its lane. From the third attempt on, those that got no answer
//! there go to the others in turn: an edge that has taken the call over knows of it. That a call is
//! not known counts if its own edge says so, or all of them.

use crate::args::{EDGES_MAX, EdgeAddress};
use anyhow::ensure;
use boot::Channel;
use futures::future::join_all;
use proto::json::kept_from_json;
use proto::sip_edge::v1::sip_edge_client::SipEdgeClient;
use proto::sip_edge::v1::{
    Call, CallPlan, HangupRequest, Legs as WireLegs, PlayRequest, TransferRequest, transfer_request,
};
use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;
use tonic::{Code, Request, Status};
use wheel::{Answer, Attempt, Effect, Legs, TaskId, TransferTo};

const FLAG: &str = "--sip-edge";
/// How long one sip-edge may take to answer one attempt.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(2);
/// Attempts at the edge of a lane before others are asked.
const OWN_ATTEMPTS: u32 = 2;
/// What is kept of an edge's words, in bytes.
const SAID_MAX: usize = 256;

/// All edges, in the order of `--sip-edge`; cheap to clone.
#[derive(Clone)]
pub(crate) struct Edges(Arc<[Edge]>);

struct Edge {
    name: String,
    client: SipEdgeClient<Channel>,
}

/// Whether these edges can be asked.
///
/// # Errors
/// If an URL is none, two have the same name, or there are more than [`EDGES_MAX`].
pub(crate) fn check(addresses: &[EdgeAddress]) -> anyhow::Result<()> {
    ensure!(addresses.len() <= EDGES_MAX, "{FLAG} is given more than {EDGES_MAX} times");
    for (at, EdgeAddress { name, url }) in addresses.iter().enumerate() {
        let again = addresses[..at].iter().any(|other| other.name == *name);
        ensure!(!again, "{FLAG} is given twice with the name {name:?}");
        boot::channel(FLAG, url)?;
    }
    Ok(())
}

impl Edges {
    /// Connects when they are first needed; edges may start later. Asks them only while `gate` is open.
    ///
    /// # Errors
    /// Those of [`check`].
    pub(crate) fn new(addresses: &[EdgeAddress], gate: &boot::Gate) -> anyhow::Result<Self> {
        let edge = |address: &EdgeAddress| {
            let channel = boot::gated_channel(FLAG, &address.url, gate.clone())?;
            Ok(Edge { name: address.name.clone(), client: SipEdgeClient::new(channel) })
        };
        addresses.iter().map(edge).collect::<anyhow::Result<_>>().map(Self)
    }

    /// Brings about the effect of a task whose lane leads to the edge at `place`; at most twice
    /// [`ATTEMPT_LIMIT`] long.
    ///
    /// # Panics
    /// If there is no such edge, or the effect is not one on a call.
    pub(crate) async fn perform(&self, place: usize, attempt: &Attempt) -> Answer {
        let asked = asked(place, attempt.attempt, self.0.len());
        let answer = self.0[asked].perform(attempt).await;
        if answer != Answer::NoSuchCall || self.0.len() == 1 {
            return answer;
        }
        let others = self.0.iter().enumerate().filter(|(at, _)| *at != asked);
        let others = others.map(|(_, edge)| edge.perform(attempt));
        let certain = asked == place && !self.0[place].name.is_empty();
        of_unknown(certain, join_all(others).await)
    }
}

/// Which of `edges` is asked by this attempt, from 1, if the task's own is at `place`.
fn asked(place: usize, attempt: u32, edges: usize) -> usize {
    match (attempt.saturating_sub(OWN_ATTEMPTS), edges as u32) {
        (0, _) | (_, 1) => place,
        // Its own again, each time that all others have been asked.
        (turn, edges) => (place + (turn % edges) as usize) % edges as usize,
    }
}

/// What is known of a call that one edge does not know; `certain` if that one is its owner.
fn of_unknown(certain: bool, others: Vec<Answer>) -> Answer {
    let mut unanswered = None;
    for answer in others {
        match answer {
            Answer::NoSuchCall => (),
            Answer::Unanswered(why) => unanswered = Some(Answer::Unanswered(why)),
            answer => return answer,
        }
    }
    unanswered.filter(|_| !certain).unwrap_or(Answer::NoSuchCall)
}

impl Edge {
    async fn perform(&self, attempt: &Attempt) -> Answer {
        let task_id = attempt.task.to_string();
        let answered = tokio::time::timeout(ATTEMPT_LIMIT, self.ask(attempt, task_id));
        match answered.await {
            Ok(Ok(answer)) => answer,
            Ok(Err(status)) => {
                let why = said(format!("{:?}: {}", status.code(), status.message()));
                refusal(status.code(), status.source().is_some(), why)
            }
            Err(_) => Answer::Unanswered(format!("no answer in {ATTEMPT_LIMIT:?}")),
        }
    }

    async fn ask(&self, attempt: &Attempt, task_id: String) -> Result<Answer, Status> {
        let (mut client, occurrence) = (self.client.clone(), attempt.occurrence);
        match (*attempt.effect).clone() {
            Effect::HangUp { call_id, cause, legs } => {
                let legs = wire_legs(legs).into();
                let request = HangupRequest { call_id, cause, legs, task_id, occurrence };
                let response = client.hangup(timed(request)).await?.into_inner();
                Ok(hung_up(attempt.task, legs, response.already_ended, response.call))
            }
            Effect::Transfer { call_id, to } => {
                let to = match to {
                    TransferTo::Uri(uri) => transfer_request::To::Uri(uri),
                    TransferTo::Plan(json) => match kept_from_json::<CallPlan>(&json) {
                        Ok(plan) => transfer_request::To::Plan(plan),
                        Err(e) => return Ok(Answer::Refused(said(e.to_string()))),
                    },
                };
                let request = TransferRequest { call_id, to: Some(to), task_id, occurrence };
                let response = client.transfer(timed(request)).await?.into_inner();
                Ok(match response.already_ended {
                    false => Answer::Done("transferred".to_owned()),
                    true => ended_before(response.call),
                })
            }
            Effect::Play { call_id, file, legs } => {
                let (legs, wait) = (wire_legs(legs).into(), false);
                let request = PlayRequest { call_id, file, wait, legs, task_id, occurrence };
                let response = client.play(timed(request)).await?.into_inner();
                Ok(match (response.already_ended, response.duration_ms) {
                    (true, _) => ended_before(response.call),
                    (false, 0) => Answer::Done("played".to_owned()),
                    (false, ms) => Answer::Done(format!("plays for {ms} ms")),
                })
            }
            Effect::Publish { .. } => unreachable!("messages have a lane of their own"),
        }
    }
}

fn timed<T>(request: T) -> Request<T> {
    let mut request = Request::new(request);
    request.set_timeout(ATTEMPT_LIMIT);
    request
}

fn wire_legs(legs: Legs) -> WireLegs {
    match legs {
        Legs::Both => WireLegs::Both,
        Legs::A => WireLegs::A,
        Legs::B => WireLegs::B,
    }
}

fn hung_up(task: TaskId, legs: i32, already_ended: bool, call: Option<Call>) -> Answer {
    let call = call.unwrap_or_default();
    match (already_ended, call.cause.as_str()) {
        (false, _) if legs == i32::from(WireLegs::B) => Answer::Done("hung up leg B".to_owned()),
        (false, "") => Answer::Done("hung up".to_owned()),
        (false, cause) => Answer::Done(said(format!("hung up with {cause}"))),
        (true, _) if call.ended_by_task == task.to_string() => {
            Answer::AlreadyEnded { said: how_ended(&call), by_this_task: true }
        }
        (true, _) => ended_before(Some(call)),
    }
}

fn ended_before(call: Option<Call>) -> Answer {
    Answer::AlreadyEnded { said: how_ended(&call.unwrap_or_default()), by_this_task: false }
}

fn how_ended(call: &Call) -> String {
    match call.cause.as_str() {
        "" => "call had ended".to_owned(),
        cause => said(format!("call had ended with {cause} by {}", call.ended_by)),
    }
}

/// An answer other than OK. `broken` if the connection failed, whatever code that was given.
fn refusal(code: Code, broken: bool, why: String) -> Answer {
    match code {
        _ if broken => Answer::Unanswered(why),
        Code::NotFound => Answer::NoSuchCall,
        Code::Unavailable
        | Code::DeadlineExceeded
        | Code::Cancelled
        | Code::Unknown
        | Code::Aborted
        | Code::ResourceExhausted => Answer::Unanswered(why),
        _ => Answer::Refused(why),
    }
}

fn said(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(SAID_MAX));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_answer_of_sip_edge_itself_ends_a_task() {
        let refusal = |code, broken| refusal(code, broken, "why".to_owned());
        assert_eq!(refusal(Code::NotFound, false), Answer::NoSuchCall);
        for code in [Code::NotFound, Code::Internal, Code::Unknown, Code::Unavailable] {
            assert_eq!(refusal(code, true), Answer::Unanswered("why".to_owned()), "{code:?}");
        }
        for code in [Code::InvalidArgument, Code::Unimplemented, Code::Internal] {
            assert_eq!(refusal(code, false), Answer::Refused("why".to_owned()), "{code:?}");
        }
    }

    #[test]
    fn only_the_task_that_ended_the_call_has_fired() {
        let task = TaskId(7);
        for (ended_by_task, expected) in
            [(task.to_string(), true), (TaskId(8).to_string(), false), ("".into(), false)]
        {
            let (cause, ended_by) = ("ALLOTTED_TIMEOUT".to_owned(), "task".to_owned());
            let call = Call { cause, ended_by, ended_by_task, ..Call::default() };
            let answer = hung_up(task, 0, true, Some(call));
            let Answer::AlreadyEnded { by_this_task, .. } = answer else { panic!("{answer:?}") };
            assert_eq!(by_this_task, expected);
        }
    }

    #[test]
    fn an_edge_that_does_not_answer_twice_is_passed_over_for_the_others_in_turn() {
        let of_three = |place| (1..=8).map(move |attempt| asked(place, attempt, 3));
        assert!(of_three(1).eq([1, 1, 2, 0, 1, 2, 0, 1]));
        assert!((1..=4).all(|attempt| asked(0, attempt, 1) == 0));
        assert_eq!(asked(1, u32::MAX, 2), 0);
    }

    #[test]
    fn a_call_is_gone_if_its_own_edge_says_so_or_all_do() {
        let away = || Answer::Unanswered("away".to_owned());
        let done = || Answer::Done("hung up".to_owned());
        for (certain, others, expected) in [
            (true, vec![Answer::NoSuchCall, away()], Answer::NoSuchCall),
            (false, vec![Answer::NoSuchCall, away()], away()),
            (false, vec![Answer::NoSuchCall, Answer::NoSuchCall], Answer::NoSuchCall),
            (true, vec![Answer::NoSuchCall, done()], done()),
            (false, vec![away(), done()], done()),
        ] {
            assert_eq!(of_unknown(certain, others), expected);
        }
    }

    #[test]
    fn a_long_answer_is_cut_between_characters() {
        assert_eq!(said("é".repeat(200)).len(), SAID_MAX);
        assert_eq!(said(format!("a{}", "é".repeat(200))).len(), SAID_MAX - 1);
    }
}
