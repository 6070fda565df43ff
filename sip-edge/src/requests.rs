//! What API clients ask the loop, and how their answers find them.

use crate::calls::{CallId, Entry};
use crate::edge::{Edge, now};
use crate::events::Shown;
use crate::keeping;
use crate::metrics;
use crate::snapshots::Record;
use crate::transfer::Bridge;
use call::{Answer, Ask, Call, Facts, Originated, Plan, Refusal, RequestNumber, RingOutcome};
use proto::sip_edge::v1 as wire;
use sip::Registration;
use std::collections::HashMap;
use std::time::Duration;
use tokio::sync::oneshot;
use tracing::info;

/// One request; its answer goes into `reply`, whose other end may be gone.
pub(crate) enum Request {
    Ask { call_id: String, ask: Ask, reply: oneshot::Sender<Result<Answered, Unmet>> },
    Originate { originate: Box<Originate>, reply: oneshot::Sender<Result<Answered, Unmet>> },
    Bridge { bridge: Bridge, reply: oneshot::Sender<Result<Answered, Unmet>> },
    Keep { call_id: String, reply: oneshot::Sender<Result<Option<Written>, Unmet>> },
    HandOver { call_id: String, reply: oneshot::Sender<Result<HandedOver, Unmet>> },
    TakeOver { record: Box<Record>, reply: oneshot::Sender<()> },
    Get { call_id: String, reply: oneshot::Sender<Option<Shown>> },
    List { list: List, reply: oneshot::Sender<Listed> },
    Registrations { reply: oneshot::Sender<Vec<Registration>> },
    ShutDown { reply: oneshot::Sender<()> },
}

/// Completes when a call is kept as it was.
pub(crate) type Written = oneshot::Receiver<()>;

/// What came of letting go of a call.
#[derive(Debug)]
pub(crate) enum HandedOver {
    /// It goes on from this revision of its entry.
    At(u64),
    /// It has changed, and is being written.
    NotYet(Written),
}

/// An answer of a call, and the call after it as the shell can show it.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) answer: Answer,
    pub(crate) call: Shown,
}

/// Why a request was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unmet {
    #[error("no call has this call_id, and none has ended within --ended-retention")]
    NoSuchCall,
    #[error("call_id is in use by a different request")]
    CallIdInUse,
    #[error("another sip-edge goes on with the call: ask again")]
    Moved,
    #[error("something is under way on the call: try again")]
    Underway,
    #[error("a phone of the call can be reached from its sip-edge alone")]
    Bound,
    #[error("sip-edge drains and takes no new calls")]
    Draining,
    #[error("{max} live calls are the most (--max-calls)")]
    TooManyCalls { max: usize },
    #[error(transparent)]
    Refused(Refusal),
}

#[derive(Debug)]
pub(crate) struct Originate {
    pub(crate) call_id: String,
    pub(crate) target: String,
    pub(crate) plan: Plan,
    pub(crate) from_uri: Option<String>,
    pub(crate) from_display: Option<String>,
    pub(crate) ring: Duration,
    pub(crate) return_at_once: bool,
    /// As it came, to know it again.
    pub(crate) request: wire::OriginateRequest,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct List {
    pub(crate) after_created_unix_ms: i64,
    pub(crate) limit: usize,
    pub(crate) include_ended: bool,
}

#[derive(Debug)]
pub(crate) struct Listed {
    pub(crate) calls: Vec<Shown>,
    pub(crate) live: usize,
}

/// Requests that calls have not answered yet.
#[derive(Default)]
pub(crate) struct Waiting {
    replies: HashMap<RequestNumber, oneshot::Sender<Result<Answered, Unmet>>>,
    next: u64,
}

impl Waiting {
    fn admit(&mut self, reply: oneshot::Sender<Result<Answered, Unmet>>) -> RequestNumber {
        let number = RequestNumber(self.next);
        self.next += 1;
        self.replies.insert(number, reply);
        number
    }

    /// A request that nobody answers any more.
    pub(crate) fn refuse(&mut self, request: RequestNumber, unmet: Unmet) {
        if let Some(reply) = self.replies.remove(&request) {
            drop(reply.send(Err(unmet))); // The client may have gone.
        }
    }
}

impl Edge {
    pub(crate) fn handle_request(&mut self, request: Request) {
        match request {
            Request::Ask { call_id, ask, reply } => match self.calls.id_of(&call_id) {
                Some(id) => {
                    let number = self.waiting.admit(reply);
                    self.ask(&id, number, ask);
                }
                None => drop(reply.send(Err(Unmet::NoSuchCall))),
            },
            Request::Originate { originate, reply } => self.originate(*originate, reply),
            Request::Bridge { bridge, reply } => self.bridge(&bridge, reply),
            // Whoever does not wait any more does not take it.
            Request::Keep { reply, .. } if reply.is_closed() => (),
            Request::HandOver { reply, .. } if reply.is_closed() => (),
            Request::Keep { call_id, reply } => drop(reply.send(self.keep(&call_id))),
            Request::HandOver { call_id, reply } => drop(reply.send(self.let_go_of(&call_id))),
            Request::TakeOver { record, reply } => {
                self.take_over(*record);
                let _ = reply.send(()); // Who brought it may have gone.
            }
            Request::Get { call_id, reply } => {
                let entry = self.calls.get(&call_id);
                drop(reply.send(entry.map(|entry| entry.show(entry.call.view()))));
            }
            Request::List { list, reply } => drop(reply.send(self.list(list))),
            Request::Registrations { reply } => {
                drop(reply.send(self.user_agent.registrations(crate::edge::unix_s())));
            }
            Request::ShutDown { reply } => self.shut_down(reply),
        }
    }

    /// The number under which a call answers this request.
    pub(crate) fn admit(
        &mut self,
        reply: oneshot::Sender<Result<Answered, Unmet>>,
    ) -> RequestNumber {
        self.waiting.admit(reply)
    }

    /// A call has answered a request.
    pub(crate) fn answer_waiting(
        &mut self,
        id: &CallId,
        request: RequestNumber,
        answer: Result<Answer, Refusal>,
    ) {
        let reply = self.waiting.replies.remove(&request);
        if let (Some(reply), Some(entry)) = (reply, self.calls.get(id)) {
            let answered = answer.map_err(Unmet::Refused).map(|answer| {
                let view = match &answer {
                    Answer::Originated(call)
                    | Answer::Bridged(call)
                    | Answer::PlanRuns(call)
                    | Answer::Transferred(call)
                    | Answer::TooLate(call) => *call.clone(),
                    Answer::HungUp { call, .. } => *call.clone(),
                    _ => entry.call.view(),
                };
                Answered { answer, call: entry.show(view) }
            });
            let is_to_last = |it: &Answered| match &it.answer {
                Answer::Ring(result) => result.outcome == RingOutcome::Connected,
                Answer::Originated(_)
                | Answer::Bridged(_)
                | Answer::PlanRuns(_)
                | Answer::Transferred(_) => true,
                Answer::HungUp { .. }
                | Answer::StoppedRinging { .. }
                | Answer::Playing { .. }
                | Answer::Collected { .. }
                | Answer::TooLate(_) => false,
            };
            let kept = answered.as_ref().is_ok_and(is_to_last).then(|| self.keep_now(id)).flatten();
            // The client may have gone; the work is done all the same.
            match kept {
                None => drop(reply.send(answered)),
                kept => {
                    let tell = async { drop(reply.send(answered)) };
                    tokio::spawn(keeping::after(kept, tell));
                }
            }
        }
    }

    fn originate(&mut self, originate: Originate, reply: oneshot::Sender<Result<Answered, Unmet>>) {
        if let Some(id) = self.calls.id_of(&originate.call_id) {
            let same = self.calls.get(&id).and_then(|entry| entry.originate.as_ref());
            if same != Some(&originate.request) {
                return drop(reply.send(Err(Unmet::CallIdInUse)));
            }
            let number = self.waiting.admit(reply);
            return self.ask(&id, number, Ask::Originate);
        }
        if self.draining {
            return drop(reply.send(Err(Unmet::Draining)));
        }
        let max = self.settings.max_calls;
        if self.calls.live() >= max {
            return drop(reply.send(Err(Unmet::TooManyCalls { max })));
        }
        let request = self.waiting.admit(reply);
        self.begin_originate(originate, request);
    }

    fn begin_originate(&mut self, originate: Originate, request: RequestNumber) {
        let id = CallId::from(originate.call_id.as_str());
        info!(call_id = %id, "call originated");
        metrics::call_began();
        let our_uri = match originate.from_uri {
            Some(uri) => uri,
            None => format!("sip:holdfast@{}", self.settings.advertised.first()),
        };
        let facts = Facts {
            call_id: originate.call_id,
            from_uri: our_uri.clone(),
            to_uri: originate.target,
            route: String::new(),
        };
        let originated =
            Originated { request, ring: originate.ring, return_at_once: originate.return_at_once };
        let call = Call::originate(now(), facts, originate.plan, originated);
        let mut entry =
            Entry::new(call, self.services.media.clone(), format!("<{our_uri}>"), our_uri);
        entry.our_display = originate.from_display;
        entry.originate = Some(originate.request);
        self.calls.insert(id.clone(), entry);
        self.mark(id);
    }

    fn list(&self, list: List) -> Listed {
        let live = self.calls.iter_live().map(|(_, entry)| entry);
        let ended = self.calls.iter_ended().filter(|_| list.include_ended);
        let found = live
            .chain(ended)
            .map(|entry| (entry.call.created_unix_ms(), &*entry.call.facts().call_id, entry))
            .filter(|(created, ..)| *created > list.after_created_unix_ms)
            .collect();
        let page = page(found, list.limit);
        let calls = page.into_iter().map(|(.., entry)| entry.show(entry.call.view())).collect();
        Listed { calls, live: self.calls.live() }
    }
}

/// The first `limit` of what was found, by time and id, and all that have the time of the last: the
/// next page begins after that time.
fn page<T>(mut found: Vec<(i64, &str, T)>, limit: usize) -> Vec<(i64, &str, T)> {
    found.sort_unstable_by_key(|(created, call_id, _)| (*created, *call_id));
    if let Some((last, ..)) = limit.checked_sub(1).and_then(|last| found.get(last)) {
        let last = *last;
        found.truncate(found.partition_point(|(created, ..)| *created <= last));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_does_not_end_within_a_millisecond() {
        let found = || vec![(2, "b", ()), (3, "d", ()), (2, "c", ()), (1, "a", ())];
        let ids = |limit| {
            page(found(), limit).into_iter().map(|(_, id, ())| id).collect::<Vec<_>>().concat()
        };
        assert_eq!([ids(1), ids(2), ids(3), ids(4), ids(9)], ["a", "abc", "abc", "abcd", "abcd"]);
    }
}
