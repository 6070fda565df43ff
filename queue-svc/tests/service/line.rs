//! Joining, leaving, counting, and what is refused.

use crate::edge::Seen;
use crate::world::{World, abc, refused};
use proto::queue::v1::*;
use proto::sip_edge::v1::{CallState, RingOutcome};
use tonic::Code;

#[tokio::test]
async fn caller_enters_waits_and_leaves() {
    let mut world = World::with_queue(0).await;
    world.edge.call("a", CallState::Early);
    let entered = world.enqueue("a", false).await.unwrap();
    assert_eq!(entered.music, "/var/moh/music.wav");
    assert_eq!(entered.caller.unwrap().position, 0);
    assert_eq!(world.count().await, (1, 0, 0));

    let joined = world.enqueue("a", true).await.unwrap().caller.unwrap();
    assert_eq!((joined.position, joined.status()), (1, CallStatus::InQueue));
    assert_eq!(world.enqueue("a", true).await.unwrap().caller.unwrap().position, 1);
    assert_eq!(world.event_text().await, "JOINED a at 1 of 1: caller was answered");
    assert_eq!(world.count().await, (0, 1, 0));

    assert!(world.leave("a").await.existed);
    assert!(!world.leave("a").await.existed);
    assert_eq!(world.event_text().await, "LEFT a at 0 of 0: caller left: NORMAL_CLEARING");
    assert_eq!(world.count().await, (0, 0, 0));
}

#[tokio::test]
async fn queue_is_found_by_its_uri_however_it_is_written() {
    let mut world = World::with_queue(0).await;
    let by_uri = |call_id: &str, uri: &str| EnqueueRequest {
        call_id: call_id.into(),
        uri: uri.into(),
        ..EnqueueRequest::default()
    };
    let same = "sip:1008@Example.com:5060;transport=tcp";
    let entered = world.client.enqueue(by_uri("a", same)).await.unwrap().into_inner();
    assert_eq!(entered.caller.unwrap().queue, "abc");
    let other = world.client.enqueue(by_uri("b", "sip:1009@example.com")).await;
    refused(other, Code::NotFound, "sip:1009@example.com");
}

#[tokio::test]
async fn full_queue_refuses_at_once_and_counts_who_enters() {
    let mut world = World::with_queue(2).await;
    world.join("a").await;
    world.enqueue("b", false).await.unwrap();
    refused(world.enqueue("c", false).await, Code::ResourceExhausted, "abc is full: 2 callers");
    world.enqueue("b", true).await.unwrap(); // Who is in is not refused.
    world.leave("a").await;
    world.enqueue("c", false).await.unwrap();
}

#[tokio::test]
async fn thousand_joins_at_once_have_one_order_before_and_after_a_restart() {
    let mut world = World::with_queue(1000).await;
    let joins = (0..1000).map(|n| {
        let mut client = world.client.clone();
        let request = EnqueueRequest {
            call_id: format!("call-{n}"),
            queue: "abc".into(),
            answered: true,
            ..EnqueueRequest::default()
        };
        world.edge.call(&request.call_id, CallState::Answered);
        async move { client.enqueue(request).await.unwrap() }
    });
    futures::future::join_all(joins).await;
    let callers = list(&mut world).await;
    assert_eq!(callers.len(), 1000);
    assert!(callers.is_sorted_by_key(|it| it.arrived_unix_ms));
    assert!(callers.iter().map(|it| it.position).eq(1..=1000));
    world.restart().await;
    let ids = |callers: &[Caller]| callers.iter().map(|it| it.call_id.clone()).collect::<Vec<_>>();
    assert_eq!(ids(&list(&mut world).await), ids(&callers));
}

async fn list(world: &mut World) -> Vec<Caller> {
    let request = ListRequest { queue: "abc".into(), limit: 10_000 };
    world.client.list(request).await.unwrap().into_inner().callers
}

#[tokio::test]
async fn end_of_a_call_takes_the_caller_out() {
    let mut world = World::with_queue(0).await;
    world.join("a").await;
    world.join("b").await;
    world.event().await;
    world.event().await;
    world.publish_end("a").await;
    let left = "LEFT a at 0 of 1: call ended: NORMAL_CLEARING";
    assert_eq!(world.event_text().await, left);
    assert_eq!(world.list("abc").await, "1 b IN_QUEUE");
}

#[tokio::test]
async fn caller_connected_without_us_leaves_and_with_us_is_connected_once() {
    let mut world = World::with_queue(0).await;
    world.join("a").await;
    world.join("b").await;
    let retrieved = world.retrieve("user/1001");
    let (_, assignment_id) = world.edge.next_ring().await;
    for _ in 0..3 {
        world.event().await;
    }
    world.publish_connected("a", &assignment_id).await;
    world.publish_connected("b", "by hand").await;
    let left = "LEFT b at 0 of 0: connected without an assignment of the queue";
    assert_eq!(world.event_text().await, left);
    assert_eq!(world.list("abc").await, "1 a LEAVING");
    world.edge.end_ring(&assignment_id, RingOutcome::Connected, 200);
    assert_eq!(world.event_text().await, "CONNECTED a at 0 of 0: agent answered");
    retrieved.await.unwrap().unwrap();
    assert_eq!(world.list("abc").await, "");
}

#[tokio::test]
async fn drop_hangs_up_on_one_or_on_all() {
    let mut world = World::with_queue(0).await;
    for call_id in ["a", "b", "c"] {
        world.join(call_id).await;
    }
    let drop = |call_id: &str| DropRequest {
        queue: "abc".into(),
        call_id: call_id.into(),
        cause: "CALL_REJECTED".into(),
    };
    assert_eq!(world.client.drop(drop("b")).await.unwrap().into_inner().dropped, 1);
    let hung_up = Seen::Hangup { call_id: "b".into(), cause: "CALL_REJECTED".into() };
    assert_eq!(world.edge.next().await, hung_up);
    assert_eq!(world.list("abc").await, "1 a IN_QUEUE, 2 c IN_QUEUE");
    refused(world.client.drop(drop("b")).await, Code::NotFound, "b");
    assert_eq!(world.client.drop(drop("*")).await.unwrap().into_inner().dropped, 2);
    assert_eq!(world.list("abc").await, "");
    assert_eq!(world.client.drop(drop("*")).await.unwrap().into_inner().dropped, 0);
}

#[tokio::test]
async fn queues_are_made_changed_and_deleted() {
    let mut world = World::with_queue(0).await;
    let create = |queue: Queue| CreateQueueRequest { queue: Some(queue) };
    let name_taken =
        world.client.create_queue(create(Queue { uri: "sip:2@h".into(), ..abc(0) })).await;
    refused(name_taken, Code::AlreadyExists, "name \"abc\"");
    let uri = "sip:1008@EXAMPLE.com".into();
    let uri_taken =
        world.client.create_queue(create(Queue { name: "def".into(), uri, ..abc(0) })).await;
    refused(uri_taken, Code::AlreadyExists, "uri");

    world.join("a").await;
    let delete = DeleteQueueRequest { name: "abc".into() };
    let waits = world.client.delete_queue(delete.clone()).await;
    refused(waits, Code::FailedPrecondition, "1 callers");

    let found = world.client.get_queue(GetQueueRequest { name: "abc".into() }).await.unwrap();
    let found = found.into_inner();
    assert_eq!((found.max_calls, found.mohfile.as_str()), (50, "music.wav"));
    let renamed = Queue { name: "sales".into(), max_calls: 3, ..found };
    let request = UpdateQueueRequest { queue: Some(renamed.clone()) };
    assert_eq!(world.client.update_queue(request).await.unwrap().into_inner(), renamed);
    assert_eq!(world.list("sales").await, "1 a IN_QUEUE");
    refused(world.client.delete_queue(delete).await, Code::NotFound, "abc");

    world.leave("a").await;
    world.client.delete_queue(DeleteQueueRequest { name: "sales".into() }).await.unwrap();
    let queues = world.client.list_queues(ListQueuesRequest {}).await.unwrap().into_inner().queues;
    assert_eq!(queues, []);
}

#[tokio::test]
async fn bad_input_is_refused_with_field_value_and_what_is_allowed() {
    let mut world = World::with_queue(0).await;
    let client = &mut world.client;
    let long = "x".repeat(1025);
    let enqueue = EnqueueRequest { call_id: "a".into(), queue: "abc".into(), ..Default::default() };
    for (field, request) in [
        ("call_id is \"\"", EnqueueRequest { call_id: String::new(), ..enqueue.clone() }),
        ("call_id is \"a b\"", EnqueueRequest { call_id: "a b".into(), ..enqueue.clone() }),
        ("queue is \"\"", EnqueueRequest { queue: String::new(), ..enqueue.clone() }),
        (
            "uri is \"tel:1\"",
            EnqueueRequest { queue: String::new(), uri: "tel:1".into(), ..enqueue.clone() },
        ),
        ("from is", EnqueueRequest { from: long, ..enqueue.clone() }),
        ("contact is", EnqueueRequest { contact: "a\r\nb".into(), ..enqueue.clone() }),
    ] {
        refused(client.enqueue(request).await, Code::InvalidArgument, field);
    }
    let unknown = EnqueueRequest { queue: "nope".into(), ..enqueue };
    refused(client.enqueue(unknown).await, Code::NotFound, "nope");

    let retrieve =
        RetrieveRequest { queue: "abc".into(), agent: "user/1".into(), ring_timeout_ms: 0 };
    for (field, request) in [
        ("queue is \"\"", RetrieveRequest { queue: String::new(), ..retrieve.clone() }),
        (
            "agent is \"1001\"; wanted `sip:",
            RetrieveRequest { agent: "1001".into(), ..retrieve.clone() },
        ),
        (
            "ring_timeout_ms is \"999\"; wanted 1000",
            RetrieveRequest { ring_timeout_ms: 999, ..retrieve.clone() },
        ),
    ] {
        refused(client.retrieve(request).await, Code::InvalidArgument, field);
    }
    refused(client.retrieve(retrieve).await, Code::FailedPrecondition, "nobody waits in queue abc");

    let list = ListRequest { queue: "abc".into(), limit: 10_001 };
    refused(client.list(list).await, Code::InvalidArgument, "limit is \"10001\"");
    refused(client.count(CountRequest { queue: "nope".into() }).await, Code::NotFound, "nope");
    let leave = LeaveRequest { call_id: "a".into(), cause: "BORED".into() };
    refused(client.leave(leave).await, Code::InvalidArgument, "cause is \"BORED\"");
    refused(
        client.create_queue(CreateQueueRequest { queue: None }).await,
        Code::InvalidArgument,
        "queue",
    );
    let nameless = UpdateQueueRequest { queue: Some(Queue { id: 99, ..abc(0) }) };
    refused(client.update_queue(nameless).await, Code::NotFound, "id 99");
}
