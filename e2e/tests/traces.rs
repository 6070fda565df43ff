//! One call is one trace through all four services, as a receiver of OTLP sees it that is made of
//! OpenTelemetry's own messages.

use anyhow::Context as _;
use e2e::audio::Codec;
use e2e::phone::{PATIENCE, Phone};
use e2e::{Collector, Ports, QUEUE_USER, Setup, Stack, attribute_text};
use proto::scheduler::v1::schedule_request::{Action, When};
use proto::scheduler::v1::{HangupCall, ScheduleRequest};
use std::collections::BTreeSet;

/// What is expected of a call that waits in a queue until a task hangs up.
const STEPS: [(&str, &str); 7] = [
    ("sip-edge", "call"),
    ("media-relay", "media_relay.v1.MediaRelay/Offer"),
    ("media-relay", "media_relay.v1.MediaRelay/Delete"),
    ("queue-svc", "queue.v1.Queues/Enqueue"),
    ("scheduler", "scheduler.v1.Scheduler/Schedule"),
    ("sip-edge", "sip_edge.v1.SipEdge/Hangup"),
    ("scheduler", "holdfast.call.ended"),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_one_trace_through_all_four_services() -> anyhow::Result<()> {
    let collector = Collector::start().await?;
    let common_flags = vec!["--otlp-endpoint".to_owned(), collector.url().to_owned()];
    let stack = Stack::start_as(Setup { common_flags, ..Setup::on(Ports::free()?) })?;
    stack.create_queue().await?;
    let caller = Phone::start("alice", Codec::Pcmu)?;
    let _waiting = caller.dial(stack.sip(), &stack.uri(QUEUE_USER))?;
    stack.wait_waiting(1).await?;
    let call_id = stack.calls().await?.pop().context("find the call")?.call_id;
    let request = ScheduleRequest {
        call_id: call_id.clone(),
        action: Some(Action::Hangup(HangupCall::default())),
        when: Some(When::AfterMs(200)),
        ..ScheduleRequest::default()
    };
    stack.scheduler().schedule(request).await?;
    caller.wait_bye(PATIENCE)?;
    let ended = stack.wait_ended(&call_id).await?;

    let trace = collector.trace_with(&call_id.replace('-', ""), &STEPS).await?;
    let roots: Vec<_> = trace.iter().filter(|(_, it)| it.parent_span_id.is_empty()).collect();
    assert_eq!(roots.len(), 1, "{roots:?}");
    let (service, root) = roots[0];
    assert_eq!((service.as_str(), root.name.as_str()), ("sip-edge", "call"));
    let ms = |nanos: u64| nanos as i64 / 1_000_000;
    assert_eq!(ms(root.start_time_unix_nano), ended.created_unix_ms);
    assert_eq!(ms(root.end_time_unix_nano), ended.ended_unix_ms);
    assert_eq!(ms(root.events[0].time_unix_nano), ended.answered_unix_ms);
    for wanted in ["call_id", "cause", "ended_by"] {
        assert!(root.attributes.iter().any(|it| it.key == wanted), "{wanted}: {root:?}");
    }
    let ids: BTreeSet<&[u8]> = trace.iter().map(|(_, it)| it.span_id.as_slice()).collect();
    assert_eq!(ids.len(), trace.len(), "an id is there twice");
    for (service, span) in &trace {
        let has_parent = span.parent_span_id.is_empty() || ids.contains(&*span.parent_span_id);
        assert!(has_parent, "{service}: {span:?}");
        let nobody = span.attributes.iter().all(|it| !attribute_text(it).contains("sip:"));
        assert!(nobody, "a span tells of people: {span:?}");
    }
    stack.stop()
}
