//! Two replicas on one PostgreSQL, and a database that is lost at the wrong moment.

use super::*;
use crate::leases::Owner;

/// An id in each shard, not used before: the n-th row of them.
fn row_of_ids(nth: u128) -> impl Iterator<Item = u128> {
    (0..16).map(move |shard| nth * 256 + shard)
}

/// Two replicas that have shared the shards between them.
async fn pair(database: &Database) -> [Bench; 2] {
    let mut first = Bench::start(database).await;
    first.owns(16).await;
    let mut second = Bench::start(database).await;
    for bench in [&mut first, &mut second] {
        bench.discard_news();
    }
    first.owns(8).await;
    second.owns(8).await;
    [first, second]
}

/// The place in `pair` of the owner of the shard.
fn owner(pair: &[Bench; 2], shard: u8) -> usize {
    usize::from(pair[1].leases.owner(shard) == Owner::Mine)
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_share_the_shards_and_each_writes_only_to_its_own() {
    let database = Database::server();
    let pair = pair(&database).await;
    for id in row_of_ids(0) {
        let at = owner(&pair, id as u8);
        let call = format!("call-{id}");
        pair[at].schedule(id, &call, "").await.unwrap();
        let refused = pair[1 - at].commits.schedule(new(id + 256, &call, "")).await;
        assert_eq!(refused, Err(Unwritten::NotOwner));
        let refused = pair[1 - at].commits.cancel(TaskId(id), me()).await;
        assert_eq!(refused, Err(Unwritten::NotOwner));
        assert_eq!(pair[1 - at].claim_one(id, 1, false).await, None);
        assert!(pair[at].claim_one(id, 1, false).await.is_some());
        assert_eq!(pair[1 - at].get(id).await.state, State::Firing);
    }
    // A group is everywhere: each does its part.
    for id in row_of_ids(1) {
        pair[owner(&pair, id as u8)].schedule(id, "another", "").await.ok();
    }
    let group = Scope::Group("g".to_owned());
    let mut ended = 0;
    for bench in &pair {
        let held = ShardSet::of(bench.leases.all_held().iter().map(|held| held.shard));
        ended += bench.commits.sweep(&group, &cancel_all(), held).await.unwrap().0;
    }
    assert!(ended > 0);
    let (mut live, mut firing) = (0, 0);
    for shard in 0..16 {
        for task in pair[0].store.live(shard, None, i64::MAX, 99).await.unwrap() {
            live += 1;
            firing += u32::from(task.firing);
        }
    }
    assert_eq!((live, firing), (16, 16));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_key_at_two_replicas_at_once_is_one_task() {
    let database = Database::server();
    let pair = pair(&database).await;
    let shards = [0, 1].map(|at| (0..16u8).find(|shard| owner(&pair, *shard) == at).unwrap());
    for round in 1..50u128 {
        // Different calls have different owners; the key is the same.
        let asks = [0, 1].map(|at| {
            let id = round * 256 + u128::from(shards[at]);
            pair[at].commits.schedule(new(id, &format!("call-{id}"), &format!("key-{round}")))
        });
        let [first, second] = asks;
        let (first, second) = tokio::join!(first, second);
        match (first.unwrap(), second.unwrap()) {
            (Ok(task), Err(Declined::KeyTaken(id))) | (Err(Declined::KeyTaken(id)), Ok(task)) => {
                assert_eq!(task.id, id);
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_stands_still_past_its_lease_does_nothing_when_it_wakes() {
    let database = Database::server();
    // Its leases stand still, its writer does not: as if it woke right after its checks.
    let mut zombie = Bench::start(&database).await;
    zombie.owns(16).await;
    zombie.discard_news();
    for id in row_of_ids(0) {
        zombie.schedule(id, &format!("call-{id}"), "").await.unwrap();
    }
    zombie.claim_one(0, 1, false).await.unwrap();
    zombie.keeper.abort();
    let since = std::time::Instant::now();
    let other = Bench::alone(&database).await;
    println!("taken over {:?} after the last renewal", since.elapsed());
    assert!(since.elapsed() < Duration::from_secs(3));
    assert_eq!(zombie.leases.all_held().len(), 16, "it does not know yet");
    assert!((0..16).all(|shard| !zombie.leases.may_act(shard)));
    // Between its claim and its settlement, and with whatever else, it writes nothing.
    assert_eq!(zombie.settle_one(0, Verdict::Done, None).await, None);
    for id in row_of_ids(0) {
        assert_eq!(zombie.claim_one(id, 1, true).await, None);
        let refused = zombie.commits.cancel(TaskId(id), me()).await;
        assert_eq!(refused, Err(Unwritten::NotOwner));
        assert_eq!(other.get(id).await.state, if id == 0 { State::Firing } else { State::Pending });
    }
    let group = Scope::Group("g".to_owned());
    // Not "none were there": nobody has looked.
    let refused = zombie.commits.sweep(&group, &cancel_all(), ShardSet::of([3])).await;
    assert_eq!(refused, Err(Unwritten::NotOwner));
    // The new owner finds what was firing, and ends it.
    assert!(other.claim_one(0, 0, true).await.is_some());
    assert!(other.settle_one(0, Verdict::Done, None).await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_is_lost_is_looked_up_before_anybody_is_answered() {
    let database = Database::server();
    let Database::Server(server, name) = &database else { unreachable!() };
    let cut = e2e::Cut::before(server.addr()).unwrap();
    let url = server.url_through(cut.addr()).replace("/postgres", &format!("/{name}"));
    let mut bench = Bench::open(Store::open(&url).await.unwrap(), limits()).await;
    bench.owns(16).await;
    bench.discard_news();
    // The connection is lost in whatever moment of the commit.
    for round in 1..60u128 {
        let id = round * 256;
        let new = new(id, &format!("call-{id}"), &format!("key-{id}"));
        let commits = bench.commits.clone();
        let asked = tokio::spawn(async move { commits.schedule(new).await });
        for _ in 0..round {
            tokio::task::yield_now().await;
        }
        cut.reset();
        let answer = asked.await.unwrap();
        let stored = bench.store.get(TaskId(id)).await;
        let stored = match stored {
            Ok(stored) => stored,
            Err(_) => bench.store.get(TaskId(id)).await.unwrap(), // That connection was lost too.
        };
        match answer {
            Ok(Ok(task)) => assert_eq!(stored, Some(task)),
            Err(Unwritten::Failed) => assert_eq!(stored, None),
            Err(Unwritten::NotOwner) => assert_eq!(stored, None),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_comes_back_is_written_to_again() {
    let server = std::sync::Arc::new(e2e::Postgres::start().unwrap());
    let database = Database::Server(server, "postgres".to_owned());
    let bench = Bench::alone(&database).await;
    bench.schedule(1, "call", "").await.unwrap();
    let Database::Server(server, name) = database else { unreachable!() };
    let mut server = std::sync::Arc::into_inner(server).unwrap();
    server.crash().unwrap();
    let refused = bench.commits.schedule(new(2, "call", "")).await.unwrap_err();
    assert!(matches!(refused, Unwritten::Failed | Unwritten::NotOwner), "{refused:?}");
    server.start_again().unwrap();
    let _database = Database::Server(std::sync::Arc::new(server), name);
    // Its lease may be over by now: then it takes the shards again, under another name.
    let mut changed = bench.leases.changed();
    while !(0..16).all(|shard| bench.leases.may_act(shard)) {
        changed.changed().await.unwrap();
    }
    bench.schedule(3, "call", "").await.unwrap();
    assert_eq!(bench.get(1).await.state, State::Pending);
    assert_eq!(bench.store.get(TaskId(2)).await.unwrap(), None);
}
