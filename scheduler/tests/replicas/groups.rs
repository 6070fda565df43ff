//! What is about many tasks is done in every shard, whoever owns it at that moment.

use crate::cluster::{Cluster, LIMIT, LOOK};
use proto::scheduler::v1::*;
use std::time::Instant;
use tonic::Code;

/// Enough that every shard has some.
const TASKS: usize = 200;

fn of_group(nth: usize) -> ScheduleRequest {
    ScheduleRequest {
        call_id: boot::new_id(),
        action: Some(schedule_request::Action::Hangup(HangupCall::default())),
        when: Some(schedule_request::When::AfterMs(3_600_000)),
        group: "campaign".to_owned(),
        label: format!("{nth}"),
        ..ScheduleRequest::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_is_cancelled_whole_while_one_of_its_owners_is_dead() {
    let mut cluster = Cluster::start(2).await;
    let mut client = cluster.replicas[1].client().unwrap();
    let requests = (0..TASKS).map(of_group).collect();
    let many = client.schedule_many(ScheduleManyRequest { requests }).await.unwrap().into_inner();
    let of_request = many.results.iter().map(|it| match &it.result {
        Some(schedule_result::Result::Task(task)) => task.label.clone(),
        other => panic!("wanted a task: {other:?}"),
    });
    assert!(of_request.eq((0..TASKS).map(|nth| format!("{nth}"))), "results are out of order");

    cluster.replicas[0].process.kill();
    let deadline = Instant::now() + LIMIT;
    let mut looks = tokio::time::interval(LOOK);
    loop {
        let request =
            CancelGroupRequest { group: "campaign".to_owned(), ..CancelGroupRequest::default() };
        match client.cancel_group(request).await {
            Ok(_) => break,
            Err(e) => {
                let again = matches!(e.code(), Code::Unavailable | Code::Unknown);
                assert!(again && Instant::now() < deadline, "{e:?}");
                looks.tick().await;
            }
        }
    }
    let states = vec![TaskState::Pending.into(), TaskState::Cancelled.into()];
    let request = ListRequest { group: "campaign".to_owned(), states, ..ListRequest::default() };
    let tasks = client.list(request).await.unwrap().into_inner().tasks;
    let left = tasks.iter().filter(|task| task.state() != TaskState::Cancelled);
    assert_eq!((tasks.len(), left.count()), (TASKS, 0), "it said that all are cancelled");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_are_scheduled_whole_while_their_shards_change_hands() {
    let mut cluster = Cluster::start(1).await;
    cluster.join();
    let due = [boot::unix_ms() + 3_600_000; TASKS];
    let deadline = Instant::now() + LIMIT;
    while !cluster.is_shared() {
        assert!(Instant::now() < deadline, "the new replica has not got its share");
        cluster.schedule(0, &due).await; // It wants a task for each.
    }
    cluster.schedule(1, &due).await;
}
