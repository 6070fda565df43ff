//! sip-edge as the scheduler sees it: the one that hangs up, and says what came of it.

use proto::sip_edge::v1::sip_edge_client::SipEdgeClient;
use proto::sip_edge::v1::{HangupRequest, HangupResponse};
use std::error::Error as _;
use std::time::Duration;
use tonic::transport::Channel;
use tonic::{Code, Request};
use wheel::{Answer, Effect, TaskId};

/// How long sip-edge may take to answer one attempt.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(2);
/// What is kept of sip-edge's words, in bytes.
const SAID_MAX: usize = 256;

#[derive(Clone)]
pub(crate) struct Edge(SipEdgeClient<Channel>);

impl Edge {
    pub(crate) fn new(channel: Channel) -> Self {
        Self(SipEdgeClient::new(channel))
    }

    /// Brings about the effect of a task, at most [`ATTEMPT_LIMIT`] long.
    pub(crate) async fn perform(mut self, task: TaskId, effect: Effect) -> Answer {
        let Effect::HangUp { call_id, cause, .. } = effect else {
            return Answer::Refused("this build can only hang up".to_owned());
        };
        let mut request = Request::new(HangupRequest {
            call_id,
            cause,
            task_id: task.to_string(),
            ..HangupRequest::default()
        });
        request.set_timeout(ATTEMPT_LIMIT);
        match tokio::time::timeout(ATTEMPT_LIMIT, self.0.hangup(request)).await {
            Ok(Ok(response)) => done(task, response.into_inner()),
            Ok(Err(status)) => {
                let why = said(format!("{:?}: {}", status.code(), status.message()));
                refusal(status.code(), status.source().is_some(), why)
            }
            Err(_) => Answer::Unanswered(format!("no answer in {ATTEMPT_LIMIT:?}")),
        }
    }
}

fn done(task: TaskId, HangupResponse { already_ended, call }: HangupResponse) -> Answer {
    let call = call.unwrap_or_default();
    let by_this_task = call.ended_by_task == task.to_string();
    let (cause, ended_by) = (call.cause, call.ended_by);
    match (already_ended, cause.as_str()) {
        (false, "") => Answer::Done("hung up".to_owned()),
        (false, cause) => Answer::Done(said(format!("hung up with {cause}"))),
        (true, "") => Answer::AlreadyEnded { said: "call had ended".to_owned(), by_this_task },
        (true, cause) => Answer::AlreadyEnded {
            said: said(format!("call had ended with {cause} by {ended_by}")),
            by_this_task,
        },
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
    use proto::sip_edge::v1::Call;

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
            let answer = done(task, HangupResponse { already_ended: true, call: Some(call) });
            let Answer::AlreadyEnded { by_this_task, .. } = answer else { panic!("{answer:?}") };
            assert_eq!(by_this_task, expected);
        }
    }

    #[test]
    fn a_long_answer_is_cut_between_characters() {
        assert_eq!(said("é".repeat(200)).len(), SAID_MAX);
        assert_eq!(said(format!("a{}", "é".repeat(200))).len(), SAID_MAX - 1);
    }
}
