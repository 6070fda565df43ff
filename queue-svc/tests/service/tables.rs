//! mohqueue's tables: rows by hand go in, rows for dashboards come out.

use crate::world::{World, abc, open, refused};
use proto::queue::v1::*;
use proto::sip_edge::v1::{CallState, RingOutcome};
use sqlx::Executor as _;
use tonic::Code;

#[tokio::test]
async fn queue_inserted_by_hand_takes_callers_at_once() {
    let mut world = World::empty().await;
    refused(world.enqueue("a", false).await, Code::NotFound, "abc");
    let mut other = world.database().await;
    let row = "INSERT INTO mohqueues (id, name, uri, mohdir, mohfile, debug) VALUES
        (7, 'abc', 'sip:1008@example.com', NULL, 'test.pcm', 0)";
    other.execute(row).await.unwrap();
    let entered = world.enqueue("a", false).await.unwrap();
    assert_eq!(
        (entered.music.as_str(), entered.caller.unwrap().queue.as_str()),
        ("test.pcm", "abc")
    );
    let queue = world.client.get_queue(GetQueueRequest { name: "abc".into() }).await.unwrap();
    assert_eq!((queue.get_ref().id, queue.get_ref().max_calls), (7, 50));
}

#[tokio::test]
async fn bad_row_by_hand_harms_nobody_else() {
    let mut world = World::empty().await;
    let mut other = world.database().await;
    let rows = "INSERT INTO mohqueues (id, name, uri, mohdir, mohfile, debug) VALUES
        (1, 'bad', 'not a uri', NULL, 'm', 0), (2, x'ff', 'sip:2@h', NULL, 'm', 0),
         (3, 'abc', 'sip:3@h', '', 'm', 0)";
    other.execute(rows).await.unwrap();
    world.enqueue("a", false).await.unwrap();
    refused(
        world.client.get_queue(GetQueueRequest { name: "bad".into() }).await,
        Code::NotFound,
        "bad",
    );
    let limit = std::time::Duration::from_secs(20);
    world
        .process
        .wait_for("which row is bad", limit, |line| {
            line.contains("uri is \\\"not a uri\\\"; wanted a SIP URI").then_some(())
        })
        .unwrap();
}

#[tokio::test]
async fn callers_stay_while_their_row_is_renamed_replaced_and_deleted() {
    let mut world = World::with_queue(0).await;
    world.join("a").await;
    world.join("b").await;
    let mut other = world.database().await;
    other.execute("UPDATE mohqueues SET name = 'sales', debug = 1").await.unwrap();
    assert_eq!(world.list("sales").await, "1 a IN_QUEUE, 2 b IN_QUEUE");
    other.execute("DELETE FROM mohqueues").await.unwrap();
    let row = "INSERT INTO mohqueues (id, name, uri, mohdir, mohfile, debug) VALUES
        (9, 'support', 'sip:1008@example.com', '', 'm', 0)";
    other.execute(row).await.unwrap();
    assert_eq!(world.list("support").await, "1 a IN_QUEUE, 2 b IN_QUEUE");
    other.execute("DELETE FROM mohqueues").await.unwrap();
    refused(world.enqueue("c", false).await, Code::NotFound, "abc");
    let retrieve = RetrieveRequest {
        queue: "support".into(),
        agent: "user/1".into(),
        ..RetrieveRequest::default()
    };
    let mut client = world.client.clone();
    let retrieved = tokio::spawn(async move { client.retrieve(retrieve).await });
    let (call_id, assignment_id) = world.edge.next_ring().await;
    assert_eq!(call_id, "a");
    world.edge.end_ring(&assignment_id, RingOutcome::Connected, 200);
    retrieved.await.unwrap().unwrap();
}

#[tokio::test]
async fn dashboards_read_what_mohqueue_would_have_written() {
    let mut world = World::with_queue(0).await;
    world.edge.call("a", CallState::Early);
    let from = format!("\"{}\" <sip:a@example.com>;tag=1", "ä".repeat(90));
    let enqueue = EnqueueRequest {
        call_id: "a".into(),
        queue: "abc".into(),
        from: from.clone(),
        contact: "<sip:a@10.0.0.1>".into(),
        ..EnqueueRequest::default()
    };
    let arrived = world.client.enqueue(enqueue).await.unwrap().into_inner().caller.unwrap();
    let mut other = world.database().await;
    let select = "SELECT q.name, c.call_status, c.call_from, c.call_contact,
        unixepoch(c.call_time), length(c.call_time) FROM mohqcalls c JOIN mohqueues q ON q.id = c.mohq_id";
    let mut rows = Vec::new();
    let row: (String, i64, String, String, i64, i64) =
        sqlx::query_as(select).fetch_one(&mut other).await.unwrap();
    rows.push(row.1);
    assert_eq!(row.0, "abc");
    assert_eq!(row.2, from.chars().take(100).collect::<String>());
    assert_eq!(row.3, "<sip:a@10.0.0.1>");
    assert_eq!((row.4, row.5), (arrived.arrived_unix_ms / 1000, 19));
    world.enqueue("a", true).await.unwrap();
    let status = "SELECT call_status FROM mohqcalls";
    rows.push(sqlx::query_scalar(status).fetch_one(&mut other).await.unwrap());
    let retrieved = world.retrieve("user/1");
    world.edge.call("a", CallState::Answered);
    let (_, assignment_id) = world.edge.next_ring().await;
    rows.push(sqlx::query_scalar(status).fetch_one(&mut other).await.unwrap());
    assert_eq!(rows, [1, 2, 3]);
    world.edge.end_ring(&assignment_id, RingOutcome::Connected, 200);
    retrieved.await.unwrap().unwrap();
    let left: i64 =
        sqlx::query_scalar("SELECT COUNT(*) FROM mohqcalls").fetch_one(&mut other).await.unwrap();
    assert_eq!(left, 0);
}

#[tokio::test]
async fn database_of_kamailio_is_taken_over_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let mut other = open(&folder).await;
    other.execute(KAMAILIO).await.unwrap();
    let mut world = World::in_folder(folder).await;
    world.enqueue("new", false).await.unwrap();
    assert_eq!(world.event_text().await, "LEFT old@kamailio at 0 of 0: call was gone before");
    let left: Vec<String> =
        sqlx::query_scalar("SELECT call_id FROM mohqcalls").fetch_all(&mut other).await.unwrap();
    assert_eq!(left, ["new"]);
    let versions: Vec<(String, i64)> =
        sqlx::query_as("SELECT table_name, table_version FROM version ORDER BY table_name LIMIT 3")
            .fetch_all(&mut other)
            .await
            .unwrap();
    assert_eq!(versions, [("acc".into(), 5), ("mohqcalls".into(), 1), ("mohqueues".into(), 1)]);
}

/// As Kamailio's scripts for SQLite make them, with a caller that its last run left behind.
const KAMAILIO: &str = "
CREATE TABLE version (
    id INTEGER PRIMARY KEY NOT NULL, table_name VARCHAR(32) NOT NULL,
    table_version INTEGER DEFAULT 0 NOT NULL, CONSTRAINT version_table_name_idx UNIQUE (table_name));
INSERT INTO version (table_name, table_version) VALUES ('acc', 5), ('mohqcalls', 1), ('mohqueues', 1);
CREATE TABLE mohqcalls (
    id INTEGER PRIMARY KEY NOT NULL, mohq_id INTEGER NOT NULL, call_id VARCHAR(100) NOT NULL,
    call_status INTEGER NOT NULL, call_from VARCHAR(100) NOT NULL, call_contact VARCHAR(100),
    call_time TIMESTAMP WITHOUT TIME ZONE NOT NULL, CONSTRAINT mohqcalls_mohqcalls_idx UNIQUE (call_id));
CREATE TABLE mohqueues (
    id INTEGER PRIMARY KEY NOT NULL, name VARCHAR(25) NOT NULL, uri VARCHAR(100) NOT NULL,
    mohdir VARCHAR(100), mohfile VARCHAR(100) NOT NULL, debug INTEGER NOT NULL,
    CONSTRAINT mohqueues_mohqueue_uri_idx UNIQUE (uri), CONSTRAINT mohqueues_mohqueue_name_idx UNIQUE (name));
INSERT INTO mohqueues VALUES (3, 'abc', 'sip:1008@example.com', '/var/moh', 'test.pcm', 0);
INSERT INTO mohqcalls VALUES (1, 3, 'old@kamailio', 2, 'sip:x@y', NULL, '2026-11-20 10:00:00');
";

#[tokio::test(flavor = "multi_thread")]
async fn table_is_changed_while_callers_come_and_go() {
    let mut world = World::with_queue(100).await;
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let callers: Vec<_> = (0..8)
        .map(|nth| {
            let (mut client, stop) = (world.client.clone(), stop.clone());
            tokio::spawn(async move {
                let call_id = format!("call-{nth}");
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let (call_id, queue) = (call_id.clone(), "abc".into());
                    let enter =
                        EnqueueRequest { call_id: call_id.clone(), queue, ..Default::default() };
                    client.enqueue(enter).await?;
                    client.leave(LeaveRequest { call_id, ..Default::default() }).await?;
                }
                Ok::<_, tonic::Status>(())
            })
        })
        .collect();
    for max_calls in 101..120 {
        let request = UpdateQueueRequest { queue: Some(abc(max_calls)) };
        assert_eq!(
            world.client.update_queue(request).await.unwrap().into_inner().max_calls,
            max_calls
        );
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    for caller in callers {
        caller.await.unwrap().unwrap();
    }
}
