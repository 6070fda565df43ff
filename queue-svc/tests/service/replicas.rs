//! Two replicas on one database: whichever dies, hangs or is asked, nobody loses a place.

use crate::edge::Edge;
use crate::world::{LIMIT, abc, publish_end, refused, start};
use boot::Channel;
use e2e::{Cut, MariaDb, NatsServer, Postgres, Process};
use futures::StreamExt as _;
use proto::queue::v1::queues_client::QueuesClient;
use proto::queue::v1::*;
use proto::sip_edge::v1::{CallState, RingOutcome};
use std::collections::HashSet;
use std::process::Command;
use std::time::{Duration, Instant};
use tonic::{Code, Status};

/// Callers who wait when the owner is struck.
const WAITING: usize = 500;
/// Requests on their way at a time.
const AT_ONCE: usize = 50;
/// Between two looks at what no event tells of.
const LOOK: Duration = Duration::from_millis(50);
/// How long the database or NATS is away, if `HOLDFAST_AWAY_S` does not say it: longer than a lease.
const AWAY: Duration = Duration::from_secs(3);

fn away() -> Duration {
    let seconds = std::env::var("HOLDFAST_AWAY_S").ok().map(|it| it.parse().unwrap());
    seconds.map_or(AWAY, Duration::from_secs)
}

enum Database {
    Postgres(Postgres),
    MariaDb(MariaDb),
}

impl Database {
    fn addr(&self) -> std::net::SocketAddr {
        match self {
            Self::Postgres(server) => server.addr(),
            Self::MariaDb(server) => server.addr(),
        }
    }

    fn url_through(&self, cable: &Cut) -> String {
        match self {
            Self::Postgres(server) => server.url_through(cable.addr()),
            Self::MariaDb(server) => server.url_through(cable.addr()),
        }
    }

    fn sql(&self, sql: &str) -> String {
        match self {
            Self::Postgres(server) => server.psql(sql),
            Self::MariaDb(server) => server.sql(sql),
        }
        .unwrap()
    }

    fn crash(&mut self) {
        match self {
            Self::Postgres(server) => server.crash().unwrap(),
            Self::MariaDb(server) => server.crash(),
        }
    }

    fn start_again(&mut self) {
        match self {
            Self::Postgres(server) => server.start_again().unwrap(),
            Self::MariaDb(server) => server.start_again().unwrap(),
        }
    }
}

struct Replica {
    process: Process,
    client: QueuesClient<Channel>,
    address: String,
}

struct Pair {
    /// The owner first.
    replicas: Vec<Replica>,
    /// Between each replica and the database.
    cables: Vec<Cut>,
    edge: Edge,
    database: Database,
    nats: NatsServer,
}

impl Pair {
    async fn on_postgres() -> Self {
        Self::on(Database::Postgres(Postgres::start().unwrap())).await
    }

    async fn on_mariadb() -> Self {
        Self::on(Database::MariaDb(MariaDb::start().unwrap())).await
    }

    /// With queue abc.
    async fn on(database: Database) -> Self {
        let (nats, edge) = (NatsServer::start().unwrap(), Edge::start().await);
        let mut pair = Self { replicas: vec![], cables: vec![], edge, database, nats };
        for _ in 0..2 {
            pair.cables.push(Cut::before(pair.database.addr()).unwrap());
            let replica = pair.start(pair.replicas.len()).await;
            pair.replicas.push(replica);
            // The first to come owns the queues.
            pair.wait_for_owner(|owner| !owner.is_empty()).await;
        }
        let queue = Some(abc(1_000));
        pair.replicas[1].client.create_queue(CreateQueueRequest { queue }).await.unwrap();
        pair
    }

    async fn start(&self, nth: usize) -> Replica {
        let mut command = Command::new(env!("CARGO_BIN_EXE_queue-svc"));
        command
            .args(["--grpc", "127.0.0.1:0", "--nats-url", &self.nats.url()])
            .args(["--sip-edge", &self.edge.url()])
            .args(["--database-url", &self.database.url_through(&self.cables[nth])]);
        let (process, client, address) = start(command).await;
        Replica { process, client, address }
    }

    /// Address of the owner, as the database says; looked for again and again, because it tells nobody.
    async fn wait_for_owner(&self, wanted: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + LIMIT;
        let mut looks = tokio::time::interval(LOOK);
        loop {
            let owner =
                self.database.sql("SELECT address FROM queue_owner WHERE until_unix_ms > 0");
            if wanted(&owner) {
                return owner;
            }
            assert!(Instant::now() < deadline, "{owner:?} owns the queues");
            looks.tick().await;
        }
    }

    /// Calls that are answered and wait in abc, many at a time, each asked for at the next replica; in
    /// the order of the line.
    async fn join(&mut self, numbers: std::ops::Range<usize>) -> Vec<String> {
        let mut joins = tokio::task::JoinSet::new();
        for number in numbers {
            let (call_id, mut client) = (call_id(number), self.replicas[number % 2].client.clone());
            self.edge.call(&call_id, CallState::Answered);
            joins.spawn(async move { client.enqueue(enqueue(&call_id, true)).await });
            if joins.len() >= AT_ONCE {
                joins.join_next().await.unwrap().unwrap().unwrap();
            }
        }
        for joined in joins.join_all().await {
            joined.unwrap();
        }
        self.list(1).await
    }

    /// One call more, as soon as the queues take callers.
    async fn join_late(&mut self, nth: usize, call_id: &str) {
        let began = Instant::now();
        self.edge.call(call_id, CallState::Answered);
        while let Err(e) = self.replicas[nth].client.enqueue(enqueue(call_id, true)).await {
            assert!(began.elapsed() < LIMIT && e.code() == Code::Unavailable, "{e}");
        }
    }

    /// Who waits, first in line first, as this replica says.
    async fn list(&mut self, nth: usize) -> Vec<String> {
        let request = ListRequest { queue: "abc".into(), limit: 10_000 };
        let callers = self.replicas[nth].client.list(request).await.unwrap().into_inner().callers;
        callers.into_iter().map(|it| it.call_id).collect()
    }

    /// Looks again and again: what a phone said is on its way.
    async fn wait_until_nobody_is_given_away(&mut self, nth: usize) {
        let deadline = Instant::now() + LIMIT;
        let mut looks = tokio::time::interval(LOOK);
        loop {
            let request = CountRequest { queue: "abc".into() };
            let count = self.replicas[nth].client.count(request).await.unwrap().into_inner();
            if count.leaving == 0 {
                return;
            }
            assert!(Instant::now() < deadline, "{count:?}");
            looks.tick().await;
        }
    }

    fn retrieve(&self, nth: usize) -> tokio::task::JoinHandle<Result<RetrieveResponse, Status>> {
        let mut client = self.replicas[nth].client.clone();
        let request = RetrieveRequest {
            queue: "abc".into(),
            agent: "sip:1001@10.0.0.1".into(),
            ..RetrieveRequest::default()
        };
        tokio::spawn(async move { Ok(client.retrieve(request).await?.into_inner()) })
    }

    /// Takes so many callers, each from the next replica of those that are there; who they were.
    async fn take(&mut self, replicas: &[usize], count: usize) -> Vec<String> {
        let mut taken = Vec::new();
        for nth in 0..count {
            let retrieved = self.retrieve(replicas[nth % replicas.len()]);
            let (call_id, assignment_id) = self.edge.next_ring().await;
            self.edge.end_ring(&assignment_id, RingOutcome::Connected, 200);
            let retrieved = retrieved.await.unwrap().unwrap();
            assert_eq!(retrieved.outcome(), RetrieveOutcome::Connected);
            assert_eq!(retrieved.call_id, call_id);
            taken.push(call_id);
        }
        taken
    }

    /// Until a replica answers; for how long that was, in words.
    async fn answers_again(&mut self, nth: usize, since: Instant) -> String {
        let request = CountRequest { queue: "abc".into() };
        while let Err(e) = self.replicas[nth].client.count(request.clone()).await {
            assert!(since.elapsed() < LIMIT, "{e}");
        }
        format!("{} ms", since.elapsed().as_millis())
    }
}

fn call_id(number: usize) -> String {
    format!("call-{number}")
}

fn enqueue(call_id: &str, answered: bool) -> EnqueueRequest {
    let (call_id, queue) = (call_id.into(), "abc".into());
    EnqueueRequest { call_id, queue, answered, ..EnqueueRequest::default() }
}

async fn owner_is_killed(mut pair: Pair) {
    let mut line = pair.join(0..WAITING).await;
    let killed_at = Instant::now();
    pair.replicas[0].process.kill();
    let took = pair.answers_again(1, killed_at).await;
    eprintln!("the owner was killed with {WAITING} waiting: the other answered after {took}");
    assert_eq!(pair.list(1).await, line);
    assert_eq!(pair.take(&[1], 10).await, line[..10]);

    // It comes back as the one that hands requests on.
    pair.replicas[0] = pair.start(0).await;
    pair.join_late(0, "late").await;
    line.push("late".to_owned());
    assert_eq!(pair.list(0).await, line[10..]);
    assert_eq!(pair.take(&[0, 1], 10).await, line[10..20]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_loses_a_place_when_the_owner_is_killed() {
    owner_is_killed(Pair::on_postgres().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_loses_a_place_when_the_owner_is_killed_on_mariadb() {
    owner_is_killed(Pair::on_mariadb().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_owner_is_followed_and_does_nothing_when_it_wakes() {
    let mut pair = Pair::on_postgres().await;
    let mut line = pair.join(0..WAITING).await;
    let first = pair.retrieve(1);
    let (call_id, assignment_id) = pair.edge.next_ring().await;
    assert_eq!(call_id, line[0]);
    let frozen_at = Instant::now();
    pair.replicas[0].process.signal("STOP").unwrap();
    let took = pair.answers_again(1, frozen_at).await;
    eprintln!("the owner was frozen with {WAITING} waiting: the other answered after {took}");
    // The phone that rings is asked about under the same assignment.
    assert_eq!(pair.edge.next_ring().await, (call_id, assignment_id.clone()));
    pair.edge.end_ring(&assignment_id, RingOutcome::Declined, 603);
    pair.wait_until_nobody_is_given_away(1).await;
    assert_eq!(pair.take(&[1], 5).await, line[..5]);

    pair.replicas[0].process.signal("CONT").unwrap();
    refused(first.await.unwrap(), Code::Unknown, "whether it was done is not known");
    let other = pair.replicas[1].address.clone();
    pair.wait_for_owner(|owner| owner == other).await;
    assert_eq!(pair.list(0).await, line[5..]);
    pair.join_late(0, "late").await;
    line.push("late".to_owned());
    assert_eq!(pair.list(1).await, line[5..]);
    assert_eq!(pair.take(&[0, 1], 4).await, line[5..9]);
    // All that was asked for was awaited above: the one that woke asked for nothing.
    assert_eq!(pair.edge.next_now(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn joins_in_flight_while_the_owner_dies_are_kept_if_they_were_confirmed() {
    let mut pair = Pair::on_postgres().await;
    let line = pair.join(0..10).await;
    let mut joins = tokio::task::JoinSet::new();
    let mut ended = Vec::new();
    for number in 10..300 {
        let (call_id, mut client) = (call_id(number), pair.replicas[1].client.clone());
        pair.edge.call(&call_id, CallState::Answered);
        joins.spawn(async move {
            let joined = client.enqueue(enqueue(&call_id, true)).await;
            joined.map(|_| call_id)
        });
        if number == 150 {
            pair.replicas[0].process.kill();
        }
        if joins.len() >= AT_ONCE {
            ended.push(joins.join_next().await.unwrap().unwrap());
        }
    }
    ended.extend(joins.join_all().await);
    pair.answers_again(1, Instant::now()).await;
    let list = pair.list(1).await;
    assert_eq!(list[..10], line);
    let mut there = list.clone();
    there.sort();
    there.dedup();
    assert_eq!(there.len(), list.len(), "somebody is there twice");
    let mut refused = 0;
    for joined in ended {
        match joined {
            Ok(call_id) => assert!(there.binary_search(&call_id).is_ok(), "{call_id} was lost"),
            Err(e) if [Code::Unavailable, Code::Unknown].contains(&e.code()) => refused += 1,
            Err(e) => panic!("{e}"),
        }
    }
    eprintln!("of 290 joins while the owner was killed {refused} were refused");
}

async fn database_goes_away(mut pair: Pair) {
    let mut line = pair.join(0..20).await;
    pair.database.crash();
    let (crashed_at, mut looks) = (Instant::now(), tokio::time::interval(LOOK));
    let mut refused = 0;
    while crashed_at.elapsed() < away() {
        for nth in [0, 1] {
            let joined = pair.replicas[nth].client.enqueue(enqueue("call-late", false)).await;
            assert_eq!(joined.unwrap_err().code(), Code::Unavailable, "replica {nth}");
            refused += 1;
        }
        looks.tick().await;
    }
    eprintln!("the database was away for {:?}: {refused} joins refused", crashed_at.elapsed());
    pair.edge.forget(&line[3]);
    let bus = async_nats::connect(pair.nats.url()).await.unwrap();
    publish_end(&bus, &line[3]).await;
    pair.database.start_again();
    pair.join_late(0, "later").await;
    // Who hung up meanwhile is gone once that is on disk.
    line.push("later".to_owned());
    line.remove(3);
    let deadline = Instant::now() + LIMIT;
    let mut looks = tokio::time::interval(LOOK);
    while pair.list(1).await != line {
        assert!(Instant::now() < deadline, "{:?} and not {line:?}", pair.list(1).await);
        looks.tick().await;
    }
    assert_eq!(pair.take(&[0, 1], 4).await, line[..4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn order_is_that_of_arrival_after_the_database_was_away() {
    database_goes_away(Pair::on_postgres().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn order_is_that_of_arrival_after_mariadb_was_away() {
    database_goes_away(Pair::on_mariadb().await).await;
}

/// Who is told to have joined, in that order; NATS may tell twice.
async fn told_of_joins(events: &mut async_nats::Subscriber, count: usize) -> Vec<String> {
    let (mut seen, mut joined) = (HashSet::new(), Vec::new());
    while joined.len() < count {
        let message = tokio::time::timeout(LIMIT, events.next()).await;
        let message = message.expect("an event comes in time").unwrap();
        let json = std::str::from_utf8(&message.payload).unwrap();
        let event: QueueEvent = proto::json::from_json(json).unwrap();
        if event.r#type() == QueueEventType::Joined && seen.insert(event.event_id) {
            joined.push(event.caller.unwrap().call_id);
        }
    }
    joined
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_come_and_reach_agents_while_nats_is_away_and_it_is_told_of_all_in_order() {
    let mut pair = Pair::on_postgres().await;
    let bus = async_nats::connect(pair.nats.url()).await.unwrap();
    let mut events = bus.subscribe("holdfast.queue.>").await.unwrap();
    bus.flush().await.unwrap();
    let mut line = pair.join(0..20).await;
    let mut taken = Vec::new();
    pair.nats.process().signal("STOP").unwrap();
    let (frozen_at, mut looks) = (Instant::now(), tokio::time::interval(LOOK));
    while frozen_at.elapsed() < away() {
        let number = line.len();
        line.push(call_id(number));
        assert_eq!(pair.join(number..number + 1).await, line[taken.len()..]);
        if number % 2 == 0 {
            taken.extend(pair.take(&[number / 2 % 2], 1).await);
        }
        looks.tick().await;
    }
    let (came, went) = (line.len() - 20, taken.len());
    eprintln!("NATS was away for {:?}: {came} joined, {went} talked", frozen_at.elapsed());
    assert_eq!(taken, line[..went]);
    pair.nats.process().signal("CONT").unwrap();
    assert_eq!(told_of_joins(&mut events, line.len()).await, line);
    assert_eq!(pair.list(0).await, line[went..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_is_cut_off_from_the_database_is_followed() {
    let mut pair = Pair::on_postgres().await;
    let line = pair.join(0..20).await;
    pair.cables[0].cut();
    let other = pair.replicas[1].address.clone();
    pair.wait_for_owner(|owner| owner == other).await;
    pair.answers_again(1, Instant::now()).await;
    assert_eq!(pair.take(&[1], 3).await, line[..3]);
    // What it was asked for meanwhile, it has not done.
    let joined = pair.replicas[0].client.enqueue(enqueue("call-late", false)).await;
    joined.unwrap_err();
    pair.cables[0].mend();
    pair.answers_again(0, Instant::now()).await;
    assert_eq!(pair.list(0).await, line[3..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_is_told_to_end_hands_the_queues_over_at_once() {
    let mut pair = Pair::on_postgres().await;
    let line = pair.join(0..20).await;
    let mut watched = pair.replicas[1].client.watch(WatchRequest::default()).await.unwrap();
    let began = watched.get_mut().message().await.unwrap().unwrap();
    pair.replicas[0].process.signal("TERM").unwrap();
    let ended = pair.replicas[0].process.wait(LIMIT).unwrap();
    assert!(ended.success());
    assert_eq!(pair.list(1).await, line);
    pair.join_late(1, "call-20").await;
    pair.join_late(1, "call-21").await;

    // Who watches goes on where the first owner stopped.
    let broken = watched.get_mut().message().await.unwrap_err();
    assert!([Code::Unavailable, Code::Unknown].contains(&broken.code()), "{broken}");
    let request = WatchRequest { resume_token: began.resume_token, ..WatchRequest::default() };
    let mut watched = pair.replicas[1].client.watch(request).await.unwrap();
    watched.get_mut().message().await.unwrap().unwrap();
    for wanted in ["call-20", "call-21"] {
        let event = watched.get_mut().message().await.unwrap().unwrap().event.unwrap();
        assert_eq!(
            (event.r#type(), event.caller.unwrap().call_id.as_str()),
            (QueueEventType::Joined, wanted)
        );
    }
}

async fn rows_are_put_in_by_hand(mut pair: Pair) {
    let row = "INSERT INTO mohqueues (name, uri, mohdir, mohfile, debug)
        VALUES ('sales', 'sip:2000@example.com', NULL, 'test.pcm', 0)";
    pair.database.sql(row);
    for (nth, call_id) in ["a", "b"].into_iter().enumerate() {
        pair.edge.call(call_id, CallState::Answered);
        let request = EnqueueRequest { queue: "sales".into(), ..enqueue(call_id, true) };
        let joined = pair.replicas[nth].client.enqueue(request).await.unwrap().into_inner();
        assert_eq!(joined.music, "test.pcm");
        assert_eq!(joined.caller.unwrap().position, nth as u32 + 1);
    }
    pair.database.sql("UPDATE mohqueues SET name = 'renamed' WHERE name = 'sales'");
    let request = ListRequest { queue: "renamed".into(), limit: 10 };
    let callers = pair.replicas[1].client.list(request).await.unwrap().into_inner().callers;
    let callers: Vec<_> = callers.iter().map(|it| it.call_id.as_str()).collect();
    assert_eq!(callers, ["a", "b"]);
    let statuses = "SELECT call_status FROM mohqcalls ORDER BY id";
    assert_eq!(pair.database.sql(statuses), "2\n2");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_by_hand_in_postgresql_are_used_at_once() {
    rows_are_put_in_by_hand(Pair::on_postgres().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_by_hand_in_mariadb_are_used_at_once() {
    rows_are_put_in_by_hand(Pair::on_mariadb().await).await;
}
