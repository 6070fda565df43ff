//! Events reach their reader whatever happens to NATS, and in order.

use boot::{Event, Login, Nats};
use e2e::NatsServer;
use futures::StreamExt as _;
use proto::sip_edge::v1::{CallEvent, CallEventType};
use proto::subjects;
use std::time::Duration;
use tokio::sync::mpsc;

/// How long anything here may take before the test fails.
const LIMIT: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn events_published_while_nats_dies_arrive_after_it_is_back() {
    let mut server = NatsServer::start().unwrap();
    let nats = Nats::connect("test", &Login::at(&server.url()).unwrap()).await.unwrap();
    let (publisher, publishing) = nats.publisher();
    tokio::spawn(publishing);
    let (arrived, mut arrivals) = mpsc::channel(100);
    tokio::spawn(nats.consume("reader", subjects::CALLS_ENDED, move |json| {
        let arrived = arrived.clone();
        async move {
            let event: CallEvent = proto::json::event_from_json(&json)?;
            Ok(arrived.send(event.event_id).await?)
        }
    }));
    for round in 0..3 {
        let ids: Vec<_> = (0..5).map(|n| format!("{round}-{n}")).collect();
        let restarted = tokio::task::spawn_blocking(|| server.restart().unwrap());
        for event_id in &ids {
            let event = CallEvent { event_id: event_id.clone(), ..CallEvent::default() };
            publisher.publish(subjects::call(CallEventType::Ended, "c"), event_id, &event);
        }
        server = restarted.await.unwrap();
        let mut seen = Vec::new();
        while !ids.iter().all(|id| seen.contains(id)) {
            let id = tokio::time::timeout(LIMIT, arrivals.recv()).await.expect("an event is lost");
            seen.push(id.unwrap()); // At least once: repetitions are allowed.
        }
    }
}

#[tokio::test]
async fn events_of_one_moment_arrive_in_their_order() {
    let server = NatsServer::start().unwrap();
    let nats = Nats::connect("test", &Login::at(&server.url()).unwrap()).await.unwrap();
    let bus = async_nats::connect(server.url()).await.unwrap();
    let mut arrivals = bus.subscribe(subjects::CALLS_ENDED).await.unwrap();
    bus.flush().await.unwrap();
    let (publisher, publishing) = nats.publisher();
    let ids: Vec<_> = (0..250).map(|n| n.to_string()).collect();
    for event_id in &ids {
        let event = CallEvent { event_id: event_id.clone(), ..CallEvent::default() };
        publisher.publish(subjects::call(CallEventType::Ended, "c"), event_id, &event);
    }
    tokio::spawn(publishing);
    let mut seen = Vec::new();
    while seen.len() < ids.len() {
        let message = tokio::time::timeout(LIMIT, arrivals.next()).await.expect("an event is lost");
        let json = message.unwrap().payload;
        let event: CallEvent = proto::json::event_from_json(&json).unwrap();
        seen.push(event.event_id);
    }
    assert_eq!(seen, ids);
}

#[tokio::test]
async fn a_nats_that_forgot_everything_gets_its_stream_and_readers_again() {
    let server = NatsServer::start().unwrap();
    let nats = Nats::connect("test", &Login::at(&server.url()).unwrap()).await.unwrap();
    let (publisher, publishing) = nats.publisher();
    tokio::spawn(publishing);
    let (arrived, mut arrivals) = mpsc::channel(100);
    tokio::spawn(nats.consume("reader", subjects::CALLS_ENDED, move |json| {
        let arrived = arrived.clone();
        async move { Ok(arrived.send(json).await?) }
    }));
    let publish = |event_id| {
        publisher.publish(
            subjects::call(CallEventType::Ended, "c"),
            event_id,
            &CallEvent::default(),
        );
    };
    publish("before");
    let first = tokio::time::timeout(LIMIT, arrivals.recv()).await;
    assert!(first.is_ok(), "no event before");
    let client = async_nats::connect(server.url()).await.unwrap();
    async_nats::jetstream::new(client).delete_stream(subjects::STREAM).await.unwrap();
    publish("after");
    let second = tokio::time::timeout(LIMIT, arrivals.recv()).await;
    assert!(second.is_ok(), "no event after");
}

#[tokio::test]
async fn what_nats_can_never_take_does_not_hold_up_what_follows() {
    let server = NatsServer::start().unwrap();
    let nats = Nats::connect("test", &Login::at(&server.url()).unwrap()).await.unwrap();
    let event = |id: &str, len| Event {
        subject: subjects::call(CallEventType::Ended, "c"),
        id: id.to_owned(),
        json: "x".repeat(len),
    };
    let mut journal = nats.journal();
    let events = [event("first", 1), event("long", 2 << 20), event("last", 2)];
    assert!(journal.keep(&events, |left| panic!("{left} left")).await);
    // Again, as after an answer that got lost: the same events.
    assert!(journal.keep(&events, |left| panic!("{left} left")).await);
    let stream = nats.jetstream().get_stream(subjects::STREAM).await.unwrap();
    assert_eq!(stream.cached_info().state.messages, 2);
}

#[tokio::test]
async fn who_may_not_go_on_is_not_kept_waiting_for_nats() {
    let server = NatsServer::start().unwrap();
    let nats = Nats::connect("test", &Login::at(&server.url()).unwrap()).await.unwrap();
    drop(server);
    let event =
        Event { subject: "holdfast.x".to_owned(), id: "1".to_owned(), json: "{}".to_owned() };
    assert!(!nats.journal().keep(&[event], |left| left != 1).await);
}

#[tokio::test]
async fn a_failed_event_comes_again() {
    let server = NatsServer::start().unwrap();
    let nats = Nats::connect("test", &Login::at(&server.url()).unwrap()).await.unwrap();
    let (publisher, publishing) = nats.publisher();
    tokio::spawn(publishing);
    let (tried, mut tries) = mpsc::channel(100);
    tokio::spawn(nats.consume("reader", subjects::CALLS_ENDED, move |_| {
        let tried = tried.clone();
        async move {
            tried.send(()).await?;
            anyhow::bail!("try again")
        }
    }));
    publisher.publish(subjects::call(CallEventType::Ended, "c"), "e", &CallEvent::default());
    for attempt in ["first", "second"] {
        let again = tokio::time::timeout(LIMIT, tries.recv()).await;
        assert!(again.is_ok(), "no {attempt} delivery");
    }
}
