//! What happens to calls, told to NATS and to those who watch.

use boot::Publisher;
use call::{CallState, EndedBy, Event, LegNumber, LegStage, Side, View};
use proto::sip_edge::v1::{self as wire, CallEventType};
use proto::subjects;
use std::sync::Arc;
use tokio::sync::broadcast;

/// How far a watcher may fall behind, in events.
pub(crate) const BEHIND_MAX: usize = 1_024;

/// A call as others may see it, with what the shell knows of it.
#[derive(Clone, Debug)]
pub(crate) struct Shown {
    pub(crate) view: View,
    pub(crate) media_session_id: String,
    pub(crate) sip_call_ids: Vec<(LegNumber, String)>,
    /// Leg 0 has not proved to be who it says.
    pub(crate) unproven: bool,
}

/// Where events go.
#[derive(Clone)]
pub(crate) struct Events {
    publisher: Publisher,
    watchers: broadcast::Sender<Arc<wire::CallEvent>>,
    edge_name: Arc<str>,
}

impl Events {
    pub(crate) fn new(publisher: Publisher, edge_name: &str) -> Self {
        let (watchers, _) = broadcast::channel(BEHIND_MAX);
        Self { publisher, watchers, edge_name: edge_name.into() }
    }

    pub(crate) fn watch(&self) -> broadcast::Receiver<Arc<wire::CallEvent>> {
        self.watchers.subscribe()
    }

    /// The call on the wire.
    pub(crate) fn wire_call(&self, shown: Shown) -> wire::Call {
        wire_call(shown, &self.edge_name)
    }

    pub(crate) fn emit(&self, event: Event, shown: Shown) {
        let call = self.wire_call(shown);
        if event == Event::Ended {
            trace(&call);
        }
        let mut wire = wire::CallEvent { call: Some(call), ..Default::default() };
        let kind = match event {
            Event::Created => CallEventType::Created,
            Event::Answered => CallEventType::Answered,
            Event::Action => CallEventType::Action,
            Event::Held => CallEventType::Held,
            Event::Resumed => CallEventType::Resumed,
            Event::Ended => CallEventType::Ended,
            Event::Replaced => CallEventType::Replaced,
            Event::Released { side, status } => {
                wire.side = side_name(side).to_owned();
                wire.sip_status = status.unwrap_or(0).into();
                CallEventType::Released
            }
            Event::Parted => CallEventType::Parted,
            Event::Digit { digit } => {
                wire.digit = digit.to_string();
                CallEventType::Digit
            }
            Event::Ringing { assignment_id } => {
                wire.assignment_id = assignment_id.unwrap_or_default();
                CallEventType::Ringing
            }
            Event::Connected { assignment_id } => {
                wire.assignment_id = assignment_id.unwrap_or_default();
                CallEventType::Connected
            }
            Event::RingFailed { assignment_id, cause } => {
                wire.assignment_id = assignment_id.unwrap_or_default();
                wire.cause = cause.name().to_owned();
                CallEventType::RingFailed
            }
        };
        self.send(kind, wire);
    }

    /// Tells of a call that an earlier process left behind.
    pub(crate) fn emit_orphan(&self, call_id: String, media_session_id: String) {
        let now = boot::unix_ms();
        let call = wire::Call {
            call_id,
            media_session_id,
            state: wire::CallState::Ended.into(),
            ended_unix_ms: now,
            cause: call::Cause::Crash.name().to_owned(),
            ended_by: "edge".to_owned(),
            edge: self.edge_name.to_string(),
            ..Default::default()
        };
        let event = wire::CallEvent { call: Some(call), ..Default::default() };
        self.send(CallEventType::Ended, event);
    }

    fn send(&self, kind: CallEventType, mut event: wire::CallEvent) {
        event.event_id = boot::new_id();
        event.at_unix_ms = boot::unix_ms();
        event.set_type(kind);
        let call_id = event.call.as_ref().map_or("", |call| &call.call_id);
        self.publisher.publish(subjects::call(kind, call_id), &event.event_id, &event);
        let _ = self.watchers.send(Arc::new(event)); // Nobody may be watching.
    }
}

/// The root of the call's trace.
fn trace(call: &wire::Call) {
    boot::call_ended(boot::CallTrace {
        call_id: &call.call_id,
        created_unix_ms: call.created_unix_ms,
        ended_unix_ms: call.ended_unix_ms,
        events: [("answered", call.answered_unix_ms)],
        attributes: [
            ("cause", &call.cause),
            ("ended_by", &call.ended_by),
            ("edge", &call.edge),
            ("route", &call.route),
        ],
    });
}

fn wire_call(shown: Shown, edge_name: &str) -> wire::Call {
    let Shown { view, media_session_id, sip_call_ids, unproven } = shown;
    let state = match view.state {
        CallState::Early => wire::CallState::Early,
        CallState::Answered => wire::CallState::Answered,
        CallState::Connected => wire::CallState::Connected,
        CallState::Ended => wire::CallState::Ended,
    };
    let legs = view.legs.into_iter().map(|leg| {
        let sip_call_id = sip_call_ids.iter().find(|(number, _)| *number == leg.number);
        let state = match leg.stage {
            LegStage::Early => wire::LegState::Early,
            LegStage::Confirmed => wire::LegState::Confirmed,
            LegStage::Terminated => wire::LegState::Terminated,
        };
        wire::Leg {
            side: side_name(leg.side).to_owned(),
            state: state.into(),
            remote_uri: leg.remote_uri,
            sip_call_id: sip_call_id.map_or(String::new(), |(_, id)| id.clone()),
            held: leg.held,
            unproven: unproven && leg.number == LegNumber(0),
        }
    });
    wire::Call {
        legs: legs.collect(),
        call_id: view.call_id,
        state: state.into(),
        from_uri: view.from_uri,
        to_uri: view.to_uri,
        route: view.route,
        action: view.action.to_owned(),
        queue: view.queue,
        conference: view.conference,
        tasks: view.tasks.into_iter().collect(),
        media_session_id,
        created_unix_ms: view.created_unix_ms,
        answered_unix_ms: view.answered_unix_ms.unwrap_or(0),
        ended_unix_ms: view.ended_unix_ms.unwrap_or(0),
        cause: view.end.map_or(String::new(), |(cause, _)| cause.name().to_owned()),
        ended_by: view.end.map_or(String::new(), |(_, by)| ended_by(by).to_owned()),
        edge: edge_name.to_owned(),
        ended_by_task: view.ended_by_task.unwrap_or_default(),
    }
}

fn side_name(side: Side) -> &'static str {
    match side {
        Side::A => "A",
        Side::B => "B",
    }
}

fn ended_by(by: EndedBy) -> &'static str {
    match by {
        EndedBy::Caller => "caller",
        EndedBy::Callee => "callee",
        EndedBy::Api => "api",
        EndedBy::Task => "task",
        EndedBy::Plan => "plan",
        EndedBy::Edge => "edge",
    }
}
