//! Giving callers to agents: every way in which it ends.

use crate::edge::Seen;
use crate::world::{World, refused};
use proto::queue::v1::{RetrieveOutcome, RetrieveRequest, RetrieveResponse};
use proto::sip_edge::v1::{CallState, RingOutcome};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use tonic::{Code, Status};

#[tokio::test]
async fn oldest_caller_is_connected_and_leaves_the_line() {
    let mut world = World::with_queue(0).await;
    world.join("a").await;
    world.join("b").await;
    let retrieved = world.retrieve("sip:1001@10.0.0.5");
    let Seen::Ring { call_id, assignment_id, target } = world.edge.next().await else {
        panic!("no agent rang")
    };
    assert_eq!((call_id.as_str(), target.as_str()), ("a", "sip:1001@10.0.0.5"));
    assert_eq!(world.list("abc").await, "1 a LEAVING, 2 b IN_QUEUE");
    world.edge.end_ring(&assignment_id, RingOutcome::Connected, 200);
    let RetrieveResponse { outcome, call_id, assignment_id: named, sip_status, .. } =
        retrieved.await.unwrap().unwrap();
    assert_eq!(outcome, i32::from(RetrieveOutcome::Connected));
    assert_eq!((call_id.as_str(), named, sip_status), ("a", assignment_id, 200));
    assert_eq!(world.list("abc").await, "1 b IN_QUEUE");
    let events = [
        "JOINED a at 1 of 1: caller was answered",
        "JOINED b at 2 of 2: caller was answered",
        "RESERVED a at 1 of 1: first of abc for agent sip:1001@10.0.0.5",
        "CONNECTED a at 0 of 1: agent answered",
    ];
    for event in events {
        assert_eq!(world.event_text().await, event);
    }
}

#[tokio::test]
async fn whatever_an_agent_does_the_caller_keeps_the_place() {
    let mut world = World::with_queue(0).await;
    world.join("a").await;
    world.join("b").await;
    world.event().await;
    world.event().await;
    for (ring, sip_status, wanted, reason) in [
        (RingOutcome::NoAnswer, 0, RetrieveOutcome::NoAnswer, "agent did not answer in 30000 ms"),
        (RingOutcome::Busy, 486, RetrieveOutcome::Busy, "agent is busy (486)"),
        (RingOutcome::Declined, 603, RetrieveOutcome::Declined, "agent declined (603)"),
        (
            RingOutcome::Unreachable,
            404,
            RetrieveOutcome::Unreachable,
            "agent cannot be reached (404)",
        ),
    ] {
        let retrieved = world.retrieve("user/1001");
        let (call_id, assignment_id) = world.edge.next_ring().await;
        assert_eq!(call_id, "a");
        world.edge.end_ring(&assignment_id, ring, sip_status);
        let retrieved = retrieved.await.unwrap().unwrap();
        assert_eq!((retrieved.outcome(), retrieved.sip_status), (wanted, sip_status));
        assert_eq!(world.list("abc").await, "1 a IN_QUEUE, 2 b IN_QUEUE");
        world.event().await;
        assert_eq!(world.event_text().await, format!("RELEASED a at 1 of 2: {reason}"));
    }
}

#[tokio::test]
async fn operators_at_the_same_moment_get_different_callers() {
    let mut world = World::with_queue(0).await;
    for call_id in ["a", "b"] {
        world.join(call_id).await;
    }
    let operators = ["user/1", "user/2", "user/3"].map(|agent| world.retrieve(agent));
    let (first, assignment_1) = world.edge.next_ring().await;
    let (second, assignment_2) = world.edge.next_ring().await;
    let mut rung = [first, second];
    rung.sort();
    assert_eq!(rung, ["a", "b"]);
    world.edge.end_ring(&assignment_1, RingOutcome::Connected, 200);
    world.edge.end_ring(&assignment_2, RingOutcome::Connected, 200);
    let mut got = Vec::new();
    for operator in operators {
        match operator.await.unwrap() {
            Ok(retrieved) => got.push(retrieved.call_id),
            Err(status) => assert_eq!(status.code(), Code::FailedPrecondition),
        }
    }
    got.sort();
    assert_eq!(got, ["a", "b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn racing_operators_get_every_caller_once_and_nobody_twice() {
    let callers = std::env::var("HOLDFAST_RETRIEVES").map_or(1_000, |it| it.parse().unwrap());
    let operators = callers + callers / 10;
    let mut world = World::with_limit(callers).await;
    for first in (0..callers).step_by(500) {
        let batch = first..callers.min(first + 500);
        let joins = batch.map(|nth| world.start_join(&format!("call-{nth}")));
        for joined in joins.collect::<Vec<_>>() {
            joined.await.unwrap().unwrap();
        }
    }
    world.edge.answer_all();
    let mut racing = VecDeque::new();
    for nth in 0..operators {
        if nth % 500 == 0 {
            world.connect_anew(); // As operators do, who have a connection each.
        }
        racing.push_back(world.retrieve("user/1"));
    }
    let mut got = BTreeSet::new();
    let (mut empty_handed, mut asked_again) = (0, 0);
    while let Some(operator) = racing.pop_front() {
        match operator.await.unwrap() {
            Ok(retrieved) => assert!(got.insert(retrieved.call_id)),
            // All that ring share one connection to sip-edge. If it breaks, the caller is still there.
            Err(status) if status.code() == Code::Unavailable => {
                asked_again += 1;
                racing.push_back(world.retrieve("user/1"));
            }
            Err(status) => {
                assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
                empty_handed += 1;
            }
        }
    }
    assert!(asked_again <= operators / 100, "{asked_again} of {operators} did not reach sip-edge");
    assert_eq!((got.len(), empty_handed), (callers as usize, operators - callers));
    // Who does not hear from sip-edge in time asks again, with the same assignment.
    let mut rung = BTreeMap::new();
    while rung.len() < got.len() {
        let (call_id, assignment_id) = world.edge.next_ring().await;
        assert!(got.contains(&call_id), "{call_id} was rung for, and nobody has it");
        let first = rung.entry(call_id).or_insert_with(|| assignment_id.clone());
        assert_eq!(*first, assignment_id, "somebody was rung for twice");
    }
    assert_eq!(world.count().await, (0, 0, 0));
}

#[tokio::test]
async fn caller_who_hangs_up_stops_the_agents_phone() {
    let mut world = World::with_queue(0).await;
    world.join("a").await;
    let retrieved = world.retrieve("user/1001");
    let (call_id, assignment_id) = world.edge.next_ring().await;
    assert!(world.leave("a").await.existed);
    assert_eq!(world.edge.next().await, Seen::StopRinging { call_id, assignment_id });
    let retrieved = retrieved.await.unwrap().unwrap();
    assert_eq!(retrieved.outcome(), RetrieveOutcome::CallerGone);
    assert_eq!(world.count().await, (0, 0, 0));
}

#[tokio::test]
async fn call_that_is_over_is_passed_by_for_the_next_caller() {
    let mut world = World::with_queue(0).await;
    for call_id in ["a", "b", "c"] {
        world.join(call_id).await;
    }
    world.edge.forget("a");
    world.edge.call("b", CallState::Ended);
    let retrieved = world.retrieve("user/1001");
    let rung = [world.edge.next_ring().await, world.edge.next_ring().await];
    assert_eq!([rung[0].0.as_str(), rung[1].0.as_str()], ["a", "b"]);
    let (call_id, assignment_id) = world.edge.next_ring().await;
    world.edge.end_ring(&assignment_id, RingOutcome::Connected, 200);
    let retrieved = retrieved.await.unwrap().unwrap();
    assert_eq!((retrieved.call_id, call_id.as_str()), (call_id.clone(), "c"));
    assert_eq!(world.list("abc").await, "");
}

#[tokio::test]
async fn edge_that_cannot_ring_leaves_everything_as_it_was() {
    let mut world = World::with_queue(0).await;
    world.join("a").await;
    world.edge.refuse_rings(Some(Status::unavailable("it drains")));
    let retrieved = world.retrieve("user/1001").await.unwrap();
    refused(retrieved, Code::Unavailable, "it drains; caller a keeps the place");
    assert_eq!(world.list("abc").await, "1 a IN_QUEUE");
    world.edge.refuse_rings(Some(Status::invalid_argument("target is bad")));
    refused(world.retrieve("user/1001").await.unwrap(), Code::InvalidArgument, "target is bad");
    world.edge.refuse_rings(Some(Status::failed_precondition("another attempt rings")));
    refused(world.retrieve("user/1001").await.unwrap(), Code::Unavailable, "another attempt rings");
    assert_eq!(world.list("abc").await, "1 a IN_QUEUE");

    // A caller who talks to somebody already is not one who waits.
    world.edge.call("a", CallState::Connected);
    refused(world.retrieve("user/1001").await.unwrap(), Code::FailedPrecondition, "nobody waits");
    assert_eq!(world.list("abc").await, "");
}

#[tokio::test]
async fn assignment_goes_on_when_the_operator_goes_away() {
    let mut world = World::with_queue(0).await;
    world.join("a").await;
    let retrieved = world.retrieve("user/1001");
    let (_, assignment_id) = world.edge.next_ring().await;
    retrieved.abort();
    retrieved.await.unwrap_err();
    world.edge.end_ring(&assignment_id, RingOutcome::Connected, 200);
    world.event().await;
    world.event().await;
    assert_eq!(world.event_text().await, "CONNECTED a at 0 of 0: agent answered");
}

#[tokio::test]
async fn edge_that_never_answers_is_given_up_and_looked_at() {
    let mut world = World::with_queue(0).await;
    world.join("a").await;
    world.edge.ignore_stops();
    let request =
        RetrieveRequest { queue: "abc".into(), agent: "user/1001".into(), ring_timeout_ms: 1000 };
    let retrieved = world.client.retrieve(request).await.unwrap().into_inner();
    let (call_id, assignment_id) = world.edge.next_ring().await;
    assert_eq!(world.edge.next().await, Seen::StopRinging { call_id, assignment_id });
    assert_eq!(retrieved.outcome(), RetrieveOutcome::NoAnswer);
    assert_eq!(world.list("abc").await, "1 a IN_QUEUE");
}
