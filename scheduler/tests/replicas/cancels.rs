//! Cancels within 5 ms of the deadline: CANCELLED if and only if the effect does not happen.
//!
//! `HOLDFAST_CANCELS` of them (default 2,000; 100,000 are what a release is held to).

use crate::cluster::{Cluster, LIMIT, LOOK};
use proto::scheduler::v1::scheduler_client::SchedulerClient;
use proto::scheduler::v1::*;
use std::collections::HashSet;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tonic::Code;
use tonic::transport::Channel;

/// Tasks of one wave, spread over [`WAVE_MS`].
const WAVE: usize = 1_000;
const WAVE_MS: i64 = 1_000;
/// Time to add a wave.
const LEAD_MS: i64 = 1_000;
/// Before and after the deadline.
const NEAR_MS: i64 = 5;

#[tokio::test(flavor = "multi_thread")]
async fn at_the_deadline_a_task_is_cancelled_or_has_its_effect_never_both_never_neither() {
    let count = std::env::var("HOLDFAST_CANCELS").ok().map_or(2_000, |it| it.parse().unwrap());
    let cluster = Cluster::start(2).await;
    let (mut cancelled, mut fired) = (HashSet::new(), HashSet::new());
    for wave in 0..usize::div_ceil(count, WAVE) {
        let first = boot::unix_ms() + LEAD_MS;
        let due: Vec<i64> = (0..WAVE).map(|nth| first + (nth as i64 * 7_919) % WAVE_MS).collect();
        let ids = cluster.schedule(wave % 2, &due).await;
        let clients = [0, 1].map(|nth: usize| cluster.replicas[nth].client().unwrap());
        let mut cancels = JoinSet::new();
        for (nth, (id, due)) in ids.into_iter().zip(due).enumerate() {
            // At either replica: one of them forwards.
            let client = clients[nth % 2].clone();
            let at = due - NEAR_MS + nth as i64 % (2 * NEAR_MS + 1);
            let left_ms = (at - boot::unix_ms()).max(0) as u64;
            let at = tokio::time::Instant::now() + Duration::from_millis(left_ms);
            cancels.spawn(async move {
                tokio::time::sleep_until(at).await;
                let outcome = cancel(client, &id).await;
                (id, outcome)
            });
        }
        while let Some(done) = cancels.join_next().await {
            match done.unwrap() {
                (id, CancelOutcome::Cancelled) => cancelled.insert(id),
                (id, CancelOutcome::AlreadyFiring | CancelOutcome::AlreadyFired) => {
                    fired.insert(id)
                }
                (id, other) => panic!("{id}: {other:?}"),
            };
        }
    }
    let all = cluster.edge.wait_for_effects(fired.len());
    tokio::time::timeout(LIMIT, all).await.expect("what was too late to cancel happens");
    for id in &fired {
        cluster.wait_fired(0, id).await;
    }
    eprintln!("{} cancelled, {} fired", cancelled.len(), fired.len());
    let effects = cluster.edge.effects();
    let both = cancelled.iter().filter(|id| effects.contains_key(&((*id).clone(), 0)));
    assert_eq!(both.collect::<Vec<_>>(), Vec::<&String>::new(), "cancelled and effected");
    let neither = fired.iter().filter(|id| !effects.contains_key(&((*id).clone(), 0)));
    assert_eq!(neither.collect::<Vec<_>>(), Vec::<&String>::new(), "neither");
    assert_eq!(effects.len(), fired.len());
}

/// What became of it, once it can be known: UNAVAILABLE and UNKNOWN say that it must be asked again.
async fn cancel(mut client: SchedulerClient<Channel>, id: &str) -> CancelOutcome {
    let deadline = Instant::now() + LIMIT;
    let mut looks = tokio::time::interval(LOOK);
    let mut in_doubt = false;
    loop {
        let request = CancelRequest { task_id: id.to_owned(), ..CancelRequest::default() };
        match client.cancel(request).await {
            Ok(response) => {
                let CancelResponse { task, .. } = response.get_ref();
                let ended = task.as_ref().map(|task| task.state());
                return match (response.get_ref().outcome(), ended) {
                    // By the one before, whose answer was lost.
                    (CancelOutcome::NotFound, Some(TaskState::Cancelled)) if in_doubt => {
                        CancelOutcome::Cancelled
                    }
                    (outcome, _) => outcome,
                };
            }
            Err(e) => {
                let again = matches!(e.code(), Code::Unavailable | Code::Unknown);
                assert!(again && Instant::now() < deadline, "cancel {id}: {e:?}");
                eprintln!("cancel {id} is asked again: {e:?}");
                in_doubt |= e.code() == Code::Unknown;
                looks.tick().await;
            }
        }
    }
}
