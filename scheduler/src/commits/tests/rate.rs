//! How fast the databases take what the scheduler writes: not a test, but a measurement, by
//! `cargo test --release -p scheduler rates_of -- --ignored --nocapture`.

use super::*;
use std::time::Instant;

/// Tasks there are before it is measured.
const STANDING: u128 = if cfg!(debug_assertions) { 50_000 } else { 1_000_000 };
/// Tasks that are then added, cancelled, claimed and settled.
const MEASURED: u128 = if cfg!(debug_assertions) { 20_000 } else { 100_000 };
/// In one request.
const CHUNK: u128 = 1_000;

fn open_limits() -> Limits {
    let tasks_max = 100_000_000;
    Limits { tasks_max, tenant_quota: tasks_max, ..limits() }
}

async fn add(bench: &Bench, ids: std::ops::Range<u128>) {
    let chunks = ids.step_by(CHUNK as usize).map(|first| {
        let all = (first..first + CHUNK).map(|id| new(id << 4, &format!("call-{id}"), ""));
        bench.commits.schedule_many(all.collect())
    });
    let added: Vec<_> = stream::iter(chunks).buffer_unordered(4).collect().await;
    added.into_iter().flat_map(Result::unwrap).for_each(|it| drop(it.unwrap().unwrap()));
}

fn say(what: &str, since: Instant, count: u128) {
    println!("{what}: {:.0} per s", count as f64 / since.elapsed().as_secs_f64());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement of minutes"]
async fn rates_of_both_databases() {
    for database in Database::each() {
        println!("{}", database.url().split(':').next().unwrap());
        let mut bench = Bench::open(database.open().await, open_limits()).await;
        bench.owns(16).await;
        bench.discard_news();
        let since = Instant::now();
        add(&bench, 0..STANDING).await;
        say("filled", since, STANDING);
        let measured = STANDING..STANDING + MEASURED;
        let since = Instant::now();
        add(&bench, measured.clone()).await;
        say("schedule", since, MEASURED);
        let since = Instant::now();
        let cancels = measured.clone().step_by(2);
        let cancels = cancels.map(|id| bench.commits.cancel(TaskId(id << 4), me()));
        let done: Vec<_> = stream::iter(cancels).buffer_unordered(1_000).collect().await;
        say("cancel one by one", since, done.len() as u128);
        let rest: Vec<u128> = measured.clone().skip(1).step_by(2).collect();
        let since = Instant::now();
        for chunk in rest.chunks(CHUNK as usize) {
            let claim = |id: &u128| {
                let (task, fence) = (TaskId(id << 4), bench.fence(id << 4));
                Claim { task, revision: 1, again: false, ticket: 0, fence }
            };
            let claims: Vec<_> = chunk.iter().map(claim).collect();
            assert_eq!(bench.commits.claim(claims).await.unwrap().len(), chunk.len());
        }
        say("claim", since, rest.len() as u128);
        let since = Instant::now();
        for chunk in rest.chunks(CHUNK as usize) {
            let settle = |id: &u128| Settlement {
                fence: bench.fence(id << 4),
                ..settlement(id << 4, 0, Verdict::Done, None)
            };
            let settled = bench.commits.settle(chunk.iter().map(settle).collect()).await.unwrap();
            assert_eq!(settled.len(), chunk.len());
        }
        say("settle", since, rest.len() as u128);
    }
}
