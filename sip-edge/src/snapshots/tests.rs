//! Against a real nats-server: who has a call is decided once, the newest state is kept, and nothing is
//! left of a call that is over.

use super::*;
use crate::calls::Entry;
use crate::edge::{Done, now};
use crate::media::Media;
use call::{Action, Call, Facts, Input, LegNumber, LegSignal, MediaCommand, Output, Plan, Reply};
use e2e::NatsServer;
use tokio::sync::mpsc;

/// A sip-edge with its writer.
struct Edge {
    snapshots: Snapshots,
    done: mpsc::Receiver<Done>,
}

impl Edge {
    async fn start(nats: &NatsServer, name: &str) -> Self {
        let client = async_nats::connect(nats.url()).await.unwrap();
        let snapshots = Snapshots::new(jetstream::new(client), name);
        let (sender, done) = mpsc::channel(16);
        tokio::spawn(snapshots.clone().write(sender));
        Self { snapshots, done }
    }

    /// Keeps a call that was reached as `from`, and waits until that is written.
    async fn keep(&self, call_id: &str, from: &str) {
        let json = self.record(call_id, from).write().unwrap();
        self.snapshots.put(&call_id.into(), json).await.unwrap();
    }

    fn record(&self, call_id: &str, from: &str) -> Record {
        let media = Media::new("http://127.0.0.1:1", "edge", Duration::ZERO).unwrap();
        let entry = Entry::new(parked(call_id), media, from.to_owned(), "sip:us@h".to_owned());
        let kept = Kept { call: entry.call.snapshot(now()).unwrap(), legs: Vec::new() };
        Record::new(self.snapshots.us(), kept, &entry)
    }

    /// The calls that it takes from `owner`, as `CALL_ID FROM`, in order.
    async fn take(&self, owner: &str) -> Vec<String> {
        self.take_of(owner, "").await
    }

    /// As [`Edge::take`], of one process.
    async fn take_of(&self, owner: &str, process: &str) -> Vec<String> {
        let taken = self.snapshots.take_over(owner, process).await.unwrap();
        let mut taken: Vec<_> =
            taken.iter().map(|it| format!("{} {}", it.call_id(), it.from)).collect();
        taken.sort();
        taken
    }

    async fn messages(&self) -> u64 {
        let mut store = self.snapshots.open().await.unwrap();
        store.stream.info().await.unwrap().state.messages
    }
}

/// A call that has been answered and does nothing.
fn parked(call_id: &str) -> Call {
    let facts = Facts { call_id: call_id.to_owned(), ..Facts::default() };
    let plan = Plan::new([Action::Park]);
    let mut call = Call::inbound(now(), facts, plan, Some("offer".into()));
    while let Some(output) = call.poll_output() {
        if let Output::Media { number: command, command: MediaCommand::Offer { .. } } = output {
            let reply = Ok(Reply::Offered { sdp: "answer".into(), held: false });
            call.handle(now(), Input::Replied { command, reply });
        }
    }
    let signal = LegSignal::Acknowledged { sdp: None };
    call.handle(now(), Input::Leg { leg: LegNumber(0), signal });
    call
}

#[tokio::test]
async fn who_asks_after_a_state_was_given_hears_when_it_is_written() {
    let nats = NatsServer::start().unwrap();
    let edge = Edge::start(&nats, "edge").await;
    let id = "a".into();
    assert!(edge.snapshots.unwritten(&id).is_none());
    let json = edge.record("a", "alice").write().unwrap();
    drop(edge.snapshots.put(&id, json)); // Nobody waits.
    edge.snapshots.unwritten(&id).expect("it was given just now").await.unwrap();
    assert_eq!(edge.messages().await, 1);
    assert!(edge.snapshots.unwritten(&id).is_none());
}

#[tokio::test]
async fn the_newest_state_is_kept_and_nothing_of_a_call_that_is_over() {
    let nats = NatsServer::start().unwrap();
    let edge = Edge::start(&nats, "a").await;
    for nth in 0..20 {
        let json = edge.record("c", &format!("{nth}")).write().unwrap();
        drop(edge.snapshots.put(&"c".into(), json));
    }
    edge.keep("c", "last").await;
    edge.keep("d", "d").await;
    assert_eq!(edge.messages().await, 2);
    assert_eq!(edge.snapshots.owner_of("c").await.unwrap().as_deref(), Some("a"));
    edge.snapshots.delete(&"d".into());
    edge.keep("c", "later").await; // After it, or before: they go in batches.
    while edge.messages().await > 1 {
        tokio::task::yield_now().await;
    }
    assert_eq!(edge.snapshots.owner_of("d").await.unwrap(), None);
    let next = Edge::start(&nats, "a").await;
    assert_eq!(next.take("a").await, ["c later"]);
}

#[tokio::test]
async fn of_many_that_want_a_call_one_gets_it_and_who_had_it_hears_of_that() {
    let nats = NatsServer::start().unwrap();
    let mut edge = Edge::start(&nats, "a").await;
    for nth in 0..30 {
        edge.keep(&format!("c{nth:02}"), "f").await;
    }
    let (b, c) = (Edge::start(&nats, "b").await, Edge::start(&nats, "c").await);
    let (by_b, by_c) = tokio::join!(b.take("a"), c.take("a"));
    let mut all = [by_b, by_c].concat();
    all.sort();
    assert_eq!(all, (0..30).map(|nth| format!("c{nth:02} f")).collect::<Vec<_>>());
    assert_eq!(b.take("a").await, Vec::<String>::new());
    assert_eq!(edge.snapshots.lost().await.unwrap().len(), 30);

    let json = edge.record("c00", "a dead one's word").write().unwrap();
    drop(edge.snapshots.put(&"c00".into(), json));
    let Some(Done::CallLost(lost)) = edge.done.recv().await else { panic!("it is not told") };
    assert_eq!(&*lost, "c00");
    let owner = b.snapshots.owner_of("c00").await.unwrap().unwrap();
    assert!(["b", "c"].contains(&owner.as_str()), "{owner}");
    let taker = if owner == "b" { &b } else { &c };
    taker.keep("c00", "new").await; // It goes on from the revision that it took.
    assert_eq!(Edge::start(&nats, "d").await.take(&owner).await[0], "c00 new");
}

#[tokio::test]
async fn a_call_that_is_let_go_of_is_taken_once_by_whoever_is_first() {
    let nats = NatsServer::start().unwrap();
    let (mut a, b) = (Edge::start(&nats, "a").await, Edge::start(&nats, "b").await);
    a.keep("c", "before").await;
    let old = a.snapshots.revision(&"c".into()).unwrap();
    a.keep("c", "let go of").await;
    let revision = a.snapshots.revision(&"c".into()).unwrap();
    a.snapshots.forget(&"c".into());
    assert!(b.snapshots.take_at("c", old).await.is_none(), "it has changed since");
    let (by_a, by_b) =
        tokio::join!(a.snapshots.take_at("c", revision), b.snapshots.take_at("c", revision));
    assert_eq!([&by_a, &by_b].into_iter().flatten().count(), 1);
    let taken = by_a.as_ref().or(by_b.as_ref()).unwrap();
    let (taker, name) = if by_a.is_some() { (&a, "a") } else { (&b, "b") };
    assert_eq!((taken.from.as_str(), taken.owner.as_str()), ("let go of", name));
    assert!(taker.snapshots.take_at("c", revision).await.is_none(), "it has it already");
    taker.keep("c", "on").await; // It goes on from the revision that it took.
    taker.snapshots.forget(&"c".into());
    assert!(taker.snapshots.take_at("c", revision).await.is_none(), "it did not take it there");
    let again = taker.snapshots.take_tried("c", revision, true).await;
    assert_eq!(again.unwrap().from, "on", "it did not hear that it had taken it");
    assert!(a.done.try_recv().is_err());
}

#[tokio::test]
async fn what_the_next_process_of_a_name_has_is_not_taken_for_that_of_the_dead_one() {
    let nats = NatsServer::start().unwrap();
    let (dead, next) = (Edge::start(&nats, "a").await, Edge::start(&nats, "a").await);
    dead.keep("old", "f").await;
    next.keep("new", "f").await;
    let other = Edge::start(&nats, "b").await;
    assert_eq!(other.take_of("a", &dead.snapshots.us().process).await, ["old f"]);
    assert_eq!(next.snapshots.owner_of("new").await.unwrap().as_deref(), Some("a"));
}

#[tokio::test]
async fn what_nats_did_not_take_is_written_when_it_is_back() {
    let nats = NatsServer::start().unwrap();
    let edge = Edge::start(&nats, "a").await;
    edge.keep("c", "before").await;
    let mut nats = nats;
    nats.process().kill();
    let json = edge.record("c", "meanwhile").write().unwrap();
    drop(edge.snapshots.put(&"c".into(), json));
    let json = edge.record("c", "at last").write().unwrap();
    let written = edge.snapshots.put(&"c".into(), json);
    let nats = nats.restart().unwrap();
    written.await.unwrap();
    assert_eq!(Edge::start(&nats, "b").await.take("a").await, ["c at last"]);
}

#[tokio::test]
async fn what_a_later_version_has_written_stays_where_it_is() {
    let nats = NatsServer::start().unwrap();
    let edge = Edge::start(&nats, "a").await;
    let json = String::from_utf8(edge.record("c", "f").write().unwrap()).unwrap();
    let later = json.replacen("\"version\":1", "\"version\":2", 1);
    assert_ne!(json, later);
    edge.snapshots.put(&"c".into(), later.into()).await.unwrap();
    let other = Edge::start(&nats, "b").await;
    assert_eq!(other.take("a").await, Vec::<String>::new());
    assert_eq!(other.snapshots.owner_of("c").await.unwrap().as_deref(), Some("a"));
}
