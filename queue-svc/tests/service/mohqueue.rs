//! Faults of mohqueue that are of its tables and of its RPC; `docs/from-mohqueue.md` lists all.

use crate::world::{World, abc};
use proto::queue::v1::*;
use proto::sip_edge::v1::RingOutcome;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use std::mem::MaybeUninit;
use std::time::Duration;

/// Connections that the service may open, whatever comes.
const CONNECTIONS_MAX: usize = 4;
const LIMIT: Duration = Duration::from_secs(20);

#[tokio::test]
async fn debug_is_switched_while_callers_wait_and_nothing_stops() {
    let mut world = World::with_queue(0).await;
    world.join("before").await;
    for (debug, call_id) in [(true, "seen"), (false, "unseen")] {
        let request = UpdateQueueRequest { queue: Some(Queue { debug, ..abc(0) }) };
        assert_eq!(world.client.update_queue(request).await.unwrap().into_inner().debug, debug);
        let mut database = world.database().await;
        let column = "SELECT debug FROM mohqueues";
        let row: i64 = sqlx::query_scalar(column).fetch_one(&mut database).await.unwrap();
        assert_eq!(row, i64::from(debug));
        world.join(call_id).await;
    }
    let retrieved = world.retrieve("user/1001");
    let (call_id, assignment_id) = world.edge.next_ring().await;
    assert_eq!(call_id, "before");
    world.edge.end_ring(&assignment_id, RingOutcome::Connected, 200);
    retrieved.await.unwrap().unwrap();
    assert!(world.leave("seen").await.existed);
    assert_eq!(world.list("abc").await, "1 unseen IN_QUEUE");

    let decided =
        |line: &str| (line.contains("assignment decided") && line.contains("before")).then_some(());
    world.process.wait_for("the end of the assignment", LIMIT, decided).unwrap();
    let output = world.process.output();
    let logged: Vec<&str> =
        output.lines().filter(|line| line.contains("debug of a queue")).collect();
    assert!(matches!(logged[..], [line] if line.contains("seen") && line.contains("Joined")));
}

#[tokio::test]
async fn who_is_dropped_is_gone_from_the_table_and_the_next_drop_is_answered() {
    let mut world = World::with_queue(0).await;
    for call_id in ["a", "b", "c"] {
        world.join(call_id).await;
    }
    let drop = |call_id: &str| DropRequest {
        queue: "abc".into(),
        call_id: call_id.into(),
        ..DropRequest::default()
    };
    let mut database = world.database().await;
    for (call_id, dropped, left) in [("b", 1, 2), ("*", 2, 0), ("*", 0, 0)] {
        assert_eq!(world.client.drop(drop(call_id)).await.unwrap().into_inner().dropped, dropped);
        let count = "SELECT COUNT(*) FROM mohqcalls";
        let rows: i64 = sqlx::query_scalar(count).fetch_one(&mut database).await.unwrap();
        assert_eq!(rows, left, "after a drop of {call_id}");
    }
}

#[tokio::test]
async fn the_database_is_not_opened_for_each_request() {
    let mut world = World::with_queue(0).await;
    let watch = inotify::init(CreateFlags::NONBLOCK).unwrap();
    let path = world.folder().join("queue.db");
    // Ends, too, because beginnings that follow each other are told as one.
    inotify::add_watch(&watch, &path, WatchFlags::OPEN | WatchFlags::CLOSE).unwrap();
    for nth in 0..50 {
        let call_id = format!("call-{nth}");
        world.join(&call_id).await;
        world.count().await;
        assert!(world.leave(&call_id).await.existed);
    }
    let mut buffer = [MaybeUninit::uninit(); 4_096];
    let mut reader = Reader::new(&watch, &mut buffer);
    let mut opened = 0;
    while let Ok(event) = reader.next() {
        opened += usize::from(event.events().contains(ReadFlags::OPEN));
    }
    assert!(opened <= CONNECTIONS_MAX, "opened {opened} times in 200 requests");
}
