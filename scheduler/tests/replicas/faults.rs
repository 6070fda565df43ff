//! A replica dies, hangs, or loses the database, with tasks due around that moment: each has its
//! effect once, and soon.

use crate::cluster::{Cluster, LIMIT};
use std::time::Duration;

/// From the fault to the deadline, in ms.
const DUE_AFTER_FAULT_MS: [i64; 4] = [3_000, 300, 1, -1];
/// Tasks of each deadline: about half of them belong to the replica that is hit.
const TASKS: usize = 80;
/// The same of messages, beside those, which are on calls.
const MESSAGES: usize = 40;
/// Time to add them, if `HOLDFAST_FAULT_LEAD_MS` does not say otherwise.
const LEAD_MS: u64 = 2_500;
/// How late an effect may be after a take-over; only where the faults are repeated, since a machine
/// that tests also build on is not idle.
const LATE_MAX_MS: i64 = 3_000;

/// What is done to the first replica.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// SIGKILL.
    Killed,
    /// SIGSTOP, and SIGCONT later.
    Frozen,
    /// Its cable to the database is cut, and mended later.
    Cut,
    /// Its connections to the database end; new ones can be made.
    Reset,
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |it| it.parse().expect("a number"))
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_of_a_killed_replica_are_fired_once_by_the_other() {
    check(Fault::Killed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_of_a_frozen_replica_are_fired_once_and_it_does_nothing_when_it_wakes() {
    check(Fault::Frozen).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_of_a_replica_without_its_database_are_fired_once_by_the_other() {
    check(Fault::Cut).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_are_fired_once_while_connections_to_the_database_end() {
    check(Fault::Reset).await;
}

async fn check(fault: Fault) {
    let rounds = number("HOLDFAST_FAULT_ROUNDS", 1);
    let pairs = (0..number("HOLDFAST_FAULT_PAIRS", 1)).map(|pair| {
        tokio::spawn(async move {
            let mut cluster = Cluster::start(2).await;
            let mut late_ms = Vec::new();
            for round in 0..rounds {
                let late = one_round(&mut cluster, fault).await;
                let worst_ms = late.iter().max().copied().unwrap_or_default();
                late_ms.extend(late);
                let effects = late_ms.len();
                eprintln!(
                    "{fault:?}, pair {pair}, round {round}: {effects} effects, this time at most {worst_ms} ms late"
                );
            }
            late_ms
        })
    });
    let pairs = futures::future::join_all(pairs).await.into_iter();
    let mut late_ms: Vec<i64> = pairs.flat_map(Result::unwrap).collect();
    late_ms.sort_unstable();
    let [p50, p99] = [50, 99].map(|percent| late_ms[(late_ms.len() - 1) * percent / 100]);
    let (first, last) = (late_ms[0], late_ms[late_ms.len() - 1]);
    eprintln!("{fault:?}: lateness {first} to {last} ms, p50 {p50}, p99 {p99}");
    assert!(first >= 0, "{fault:?}: an effect was {} ms early", -first);
    if rounds > 1 {
        assert!(last <= LATE_MAX_MS, "{fault:?}: an effect was {last} ms late");
    }
}

/// Lateness of every effect, in ms.
async fn one_round(cluster: &mut Cluster, fault: Fault) -> Vec<i64> {
    let (earlier, published) = (cluster.edge.effects().len(), cluster.messages.arrived().len());
    let lead_ms = number("HOLDFAST_FAULT_LEAD_MS", LEAD_MS);
    let strikes_at = boot::unix_ms() + lead_ms as i64;
    let due: Vec<i64> =
        DUE_AFTER_FAULT_MS.iter().flat_map(|after| [strikes_at + after; TASKS]).collect();
    let tasks = cluster.schedule(0, &due).await;
    let message_due: Vec<i64> =
        DUE_AFTER_FAULT_MS.iter().flat_map(|after| [strikes_at + after; MESSAGES]).collect();
    let messages = cluster.schedule_messages(1, &message_due).await;
    let left_ms = strikes_at - boot::unix_ms();
    assert!(left_ms > 0, "{} tasks were not added in time", tasks.len());
    let strikes = tokio::time::Instant::now() + Duration::from_millis(left_ms as u64);
    tokio::time::sleep_until(strikes).await;
    strike(cluster, fault);

    let all = cluster.edge.wait_for_effects(earlier + tasks.len());
    let waited = tokio::time::timeout(LIMIT, all).await;
    let effects = cluster.edge.effects();
    let missing = || tasks.iter().filter(|id| !effects.contains_key(&((*id).clone(), 0))).count();
    assert!(waited.is_ok(), "{fault:?}: {} of {} had no effect", missing(), tasks.len());
    let all = cluster.messages.wait(published + messages.len());
    tokio::time::timeout(LIMIT, all).await.expect("all messages arrive");
    for task in tasks.iter().chain(messages.iter().map(|(task, _)| task)) {
        cluster.wait_fired(1, task).await;
    }
    // Whoever was hit comes back; nothing that is settled may be asked for or published again.
    let settled = (cluster.edge.requests(), cluster.messages.count().await);
    tokio::time::sleep_until(strikes + heals_after(fault)).await;
    heal(cluster, fault);
    cluster.wait_shared().await;
    let now = (cluster.edge.requests(), cluster.messages.count().await);
    assert_eq!(now, settled, "{fault:?}: it fired when it came back");

    let effects = cluster.edge.effects();
    assert_eq!(effects.len(), earlier + tasks.len(), "{fault:?}: an effect of no task");
    let late = |(task, due): (&String, &i64)| effects[&(task.clone(), 0)].at_unix_ms - due;
    let arrived = cluster.messages.arrived();
    assert_eq!(arrived.len(), published + messages.len(), "{fault:?}: a message of no task");
    let message_late =
        |((_, message), due): (&(String, String), &i64)| arrived[message].first_unix_ms - due;
    let messages = messages.iter().zip(&message_due).map(message_late);
    tasks.iter().zip(&due).map(late).chain(messages).collect()
}

fn strike(cluster: &mut Cluster, fault: Fault) {
    match fault {
        Fault::Killed => cluster.replicas[0].process.kill(),
        Fault::Frozen => cluster.replicas[0].process.signal("STOP").unwrap(),
        Fault::Cut => cluster.cables[0].cut(),
        Fault::Reset => cluster.cables[0].reset(),
    }
}

/// Later than the lease of the one that is hit can last.
fn heals_after(fault: Fault) -> Duration {
    match fault {
        Fault::Killed | Fault::Reset => Duration::ZERO,
        Fault::Frozen | Fault::Cut => Duration::from_secs(number("HOLDFAST_FROZEN_S", 5)),
    }
}

fn heal(cluster: &mut Cluster, fault: Fault) {
    match fault {
        Fault::Killed => cluster.restart(0),
        Fault::Frozen => cluster.replicas[0].process.signal("CONT").unwrap(),
        Fault::Cut => cluster.cables[0].mend(),
        Fault::Reset => (),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_due_while_the_database_is_away_fires_once_when_it_is_back() {
    let mut cluster = Cluster::start(2).await;
    let due = boot::unix_ms() + 1_500;
    let tasks = cluster.schedule(1, &[due; TASKS]).await;
    cluster.postgres.crash().unwrap();
    let left_ms = (due + 500 - boot::unix_ms()).max(0) as u64;
    let past_it = tokio::time::Instant::now() + Duration::from_millis(left_ms);
    tokio::time::sleep_until(past_it).await;
    assert_eq!(cluster.edge.requests(), 0, "an effect without a committed claim");
    cluster.postgres.start_again().unwrap();
    let all = cluster.edge.wait_for_effects(tasks.len());
    tokio::time::timeout(LIMIT, all).await.expect("all fire when the database is back");
    for task in &tasks {
        cluster.wait_fired(0, task).await;
    }
    assert_eq!(cluster.edge.effects().len(), tasks.len());
}
