//! What dies, and what is still true afterwards.

use crate::edge::{Edge, Seen};
use crate::world::{World, refused};
use proto::queue::v1::{LeaveRequest, QueueEventType, RetrieveOutcome, RetrieveRequest};
use proto::sip_edge::v1::{CallState, RingOutcome};
use sqlx::Executor as _;
use std::time::Duration;
use tonic::Code;

#[tokio::test]
async fn killed_while_an_agent_rings_it_finds_out_how_that_ended() {
    let mut world = World::with_queue(0).await;
    for call_id in ["a", "b", "c"] {
        world.join(call_id).await;
    }
    let first = world.retrieve("user/1001");
    let (_, declined) = world.edge.next_ring().await;
    let second = world.retrieve("user/1002");
    let (_, accepted) = world.edge.next_ring().await;
    for _ in 0..5 {
        world.event().await;
    }
    world.kill().await;
    first.await.unwrap().unwrap_err();
    second.await.unwrap().unwrap_err();
    world.edge.end_ring(&declined, RingOutcome::Declined, 603);
    world.edge.end_ring(&accepted, RingOutcome::Connected, 200);
    world.restart().await;
    let mut again = [world.edge.next_ring().await, world.edge.next_ring().await];
    again.sort();
    assert_eq!(again, [("a".into(), declined), ("b".into(), accepted)]);
    let mut events = [world.event_text().await, world.event_text().await];
    events.sort();
    assert!(events[0].starts_with("CONNECTED b"), "{events:?}");
    assert!(events[1].starts_with("RELEASED a at 1"), "{events:?}");
    assert_eq!(world.list("abc").await, "1 a IN_QUEUE, 2 c IN_QUEUE");
}

#[tokio::test]
async fn calls_that_ended_meanwhile_are_gone_after_a_restart() {
    let mut world = World::with_queue(0).await;
    for call_id in ["a", "b", "c", "d"] {
        world.join(call_id).await;
        world.event().await;
    }
    world.kill().await;
    world.edge.forget("a");
    world.edge.call("b", CallState::Ended);
    world.publish_end("d").await;
    world.restart().await;
    let mut left =
        vec![world.event_text().await, world.event_text().await, world.event_text().await];
    left.sort();
    assert!(left[0].starts_with("LEFT a") && left[0].ends_with("call was gone before"), "{left:?}");
    assert!(left[1].starts_with("LEFT b"), "{left:?}");
    assert!(left[2].starts_with("LEFT d") && left[2].ends_with("NORMAL_CLEARING"), "{left:?}");
    assert_eq!(world.list("abc").await, "1 c IN_QUEUE");
}

#[tokio::test]
async fn nobody_is_dropped_because_sip_edge_is_away() {
    let mut world = World::with_queue(0).await;
    world.join("a").await;
    world.join("b").await;
    let addr = world.edge.addr();
    world.edge = Edge::start().await; // The old one is gone.
    let retrieved = world.retrieve("user/1001").await.unwrap();
    refused(retrieved, Code::Unavailable, "keeps the place");
    world.edge = Edge::start_at(addr).await;
    world.edge.call("a", CallState::Answered);
    let retrieved = world.retrieve("user/1001");
    let (call_id, assignment_id) = world.edge.next_ring().await;
    assert_eq!(call_id, "a");
    world.edge.end_ring(&assignment_id, RingOutcome::Connected, 200);
    assert_eq!(retrieved.await.unwrap().unwrap().outcome(), RetrieveOutcome::Connected);
    assert_eq!(world.list("abc").await, "1 b IN_QUEUE");
}

#[tokio::test]
async fn connection_that_breaks_while_an_agent_rings_does_not_lose_the_outcome() {
    let mut world = World::with_queue(0).await;
    world.join("a").await;
    let retrieved = world.retrieve("user/1001");
    let (_, assignment_id) = world.edge.next_ring().await;
    let addr = world.edge.addr();
    world.edge = Edge::start().await;
    world.edge = Edge::start_at(addr).await;
    world.edge.call("a", CallState::Connected);
    world.edge.end_ring(&assignment_id, RingOutcome::Connected, 200);
    assert_eq!(world.edge.next_ring().await, ("a".into(), assignment_id));
    assert_eq!(retrieved.await.unwrap().unwrap().outcome(), RetrieveOutcome::Connected);
}

#[tokio::test]
async fn locked_database_refuses_what_is_new_and_forgets_nothing_else() {
    let mut world = World::with_queue(0).await;
    world.join("a").await;
    world.join("b").await;
    let mut other = world.database().await;
    other.execute("BEGIN IMMEDIATE").await.unwrap();
    let lost = world.enqueue("c", false).await;
    refused(lost, Code::Unavailable, "nothing was done");
    refused(world.enqueue("c", false).await, Code::Unavailable, "nothing was done");
    refused(world.retrieve("user/1001").await.unwrap(), Code::Unavailable, "nothing was done");
    assert!(world.leave("a").await.existed);
    assert_eq!(world.list("abc").await, "1 b IN_QUEUE");
    other.execute("ROLLBACK").await.unwrap();
    while world.enqueue("c", true).await.is_err() {
        world
            .process
            .wait_for("that it writes again", Duration::from_secs(20), |line| {
                line.contains("the database is back").then_some(())
            })
            .unwrap();
    }
    world.edge.call("b", CallState::Answered);
    world.edge.call("c", CallState::Answered);
    world.restart().await;
    assert_eq!(world.list("abc").await, "1 b IN_QUEUE, 2 c IN_QUEUE");
}

#[tokio::test]
async fn database_that_is_locked_while_nobody_calls_is_back_before_somebody_does() {
    let mut world = World::with_queue(0).await;
    world.join("a").await;
    world.leave("a").await;
    while world.event().await.r#type() != QueueEventType::Left {}
    // All that is left to be written is that NATS has this.
    let mut other = world.database().await;
    other.execute("BEGIN IMMEDIATE").await.unwrap();
    let says = |world: &World, what: &str| {
        let limit = Duration::from_secs(20);
        let has = |line: &str| line.contains(what).then_some(());
        world.process.wait_for(what, limit, has).unwrap();
    };
    says(&world, "failed to write rows");
    refused(world.enqueue("b", false).await, Code::Unavailable, "nothing was done");
    other.execute("ROLLBACK").await.unwrap();
    says(&world, "the database is back");
    world.join("b").await;
}

#[tokio::test]
async fn caller_who_leaves_before_the_reservation_is_on_disk_is_not_rung_for() {
    let mut world = World::with_queue(0).await;
    world.join("a").await;
    let mut other = world.database().await;
    other.execute("BEGIN IMMEDIATE").await.unwrap();
    let retrieved = world.retrieve("user/1001");
    while world.count().await != (0, 0, 1) {
        assert!(!retrieved.is_finished(), "the lock was held for too long");
    }
    let mut client = world.client.clone();
    let left = tokio::spawn(async move {
        let request = LeaveRequest { call_id: "a".into(), ..LeaveRequest::default() };
        client.leave(request).await
    });
    let stopped = world.edge.next().await;
    assert!(matches!(stopped, Seen::StopRinging { call_id, .. } if call_id == "a"));
    other.execute("ROLLBACK").await.unwrap();
    let retrieved = retrieved.await.unwrap().unwrap();
    assert_eq!(retrieved.outcome(), RetrieveOutcome::CallerGone);
    assert!(left.await.unwrap().unwrap().into_inner().existed);
    world.join("b").await;
    let next = world.retrieve("user/1001");
    let (call_id, assignment_id) = world.edge.next_ring().await;
    assert_eq!(call_id, "b");
    world.edge.end_ring(&assignment_id, RingOutcome::Connected, 200);
    next.await.unwrap().unwrap();
}

#[tokio::test]
async fn draining_ends_assignments_and_takes_nothing_new() {
    let mut world = World::with_queue(0).await;
    world.join("a").await;
    world.join("b").await;
    let retrieved = world.retrieve("user/1001");
    let (_, assignment_id) = world.edge.next_ring().await;
    world.process.signal("TERM").unwrap();
    world
        .process
        .wait_for("that it drains", Duration::from_secs(20), |line| {
            line.contains(r#""message":"draining""#).then_some(())
        })
        .unwrap();
    refused(world.enqueue("c", false).await, Code::Unavailable, "drains");
    world.enqueue("b", true).await.unwrap();
    let request = RetrieveRequest {
        queue: "abc".into(),
        agent: "user/1002".into(),
        ..RetrieveRequest::default()
    };
    refused(world.client.retrieve(request).await, Code::Unavailable, "drains");
    assert!(world.leave("b").await.existed);
    world.edge.end_ring(&assignment_id, RingOutcome::Busy, 486);
    assert_eq!(retrieved.await.unwrap().unwrap().outcome(), RetrieveOutcome::Busy);
    let mut process = world.process;
    assert!(process.wait(Duration::from_secs(20)).unwrap().success());
}
