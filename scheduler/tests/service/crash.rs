//! SIGKILL at every stage of a task's life: nothing is lost, nothing has its effect twice.

use crate::edge::Manner;
use crate::stack::{Stack, request};
use futures::future::join_all;
use proto::scheduler::v1::*;
use std::collections::{HashMap, HashSet};

/// Lets time pass for a scheduler that is not running: its pending tasks are due so much earlier.
async fn pass_ms(stack: &Stack, ms: i64) {
    let database = sqlx::SqlitePool::connect(&stack.database_url()).await.unwrap();
    sqlx::query("UPDATE tasks SET fires_at_unix_ms = fires_at_unix_ms - ?1 WHERE state = 1")
        .bind(ms)
        .execute(&database)
        .await
        .unwrap();
    database.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pending_overdue_and_firing_tasks_survive_a_kill_and_fire_once() {
    let mut stack = Stack::start(&[]).await;
    let lost_answer = boot::new_id();
    stack.edge.behave_to(&lost_answer, Manner::ObeySilently);
    let firing = stack.schedule(&lost_answer, 0).await;
    let undone = boot::new_id();
    stack.edge.behave_to(&undone, Manner::Refuse(tonic::Status::unavailable("later")));
    let unavailable = stack.schedule(&undone, 0).await;
    let overdue = stack.schedule(&boot::new_id(), 60_000).await;
    let pending = stack.schedule(&boot::new_id(), 60_000 + 300).await;
    let far = stack.schedule(&boot::new_id(), 3_600_000).await;
    let cancelled = stack.schedule(&boot::new_id(), 60_000).await;
    assert_eq!(stack.cancel(&cancelled.task_id).await.0, CancelOutcome::Cancelled);
    stack.edge.wait_for_call(&lost_answer).await;
    stack.edge.wait_for_call(&undone).await;
    stack.kill();

    pass_ms(&stack, 60_000).await;
    stack.edge.behave_to(&lost_answer, Manner::Obey);
    stack.edge.behave_to(&undone, Manner::Obey);
    stack.restart();
    for task in [&firing, &unavailable, &overdue, &pending] {
        let ended = stack.ended(&task.task_id).await;
        assert_eq!(ended.state(), TaskState::Fired, "{ended:?}");
        assert_eq!(stack.edge.ended_by(&task.call_id).as_ref(), Some(&task.task_id));
        let requests = stack.edge.requests();
        let mut of_call = requests.iter().filter(|request| request.call_id == task.call_id);
        assert!(of_call.all(|request| request.task_id == task.task_id));
    }
    assert_eq!(stack.get(&far.task_id).await.state(), TaskState::Pending);
    assert_eq!(stack.get(&cancelled.task_id).await.state(), TaskState::Cancelled);
    assert_eq!(stack.edge.ended_by(&cancelled.call_id), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn overdue_tasks_fire_in_the_order_of_their_deadlines() {
    const TASKS: usize = 600;
    /// Tasks of one sip-edge between claim and answer.
    const IN_FLIGHT_MAX: usize = 64;
    let mut stack = Stack::start(&[]).await;
    let mut expected = Vec::new();
    for nth in 0..TASKS as i64 {
        // Made in another order than they are due.
        let after_ms = 600_000 + (nth * 7) % TASKS as i64 * 10;
        expected.push(stack.schedule(&boot::new_id(), after_ms).await);
    }
    expected.sort_by_key(|task| task.fires_at_unix_ms);
    stack.kill();
    pass_ms(&stack, 3_600_000).await;
    stack.restart();
    stack.edge.wait_for_requests(TASKS).await;
    let place: HashMap<_, _> =
        expected.iter().enumerate().map(|(nth, task)| (task.task_id.clone(), nth)).collect();
    for (nth, request) in stack.edge.requests().iter().enumerate() {
        // As many as are in flight at once may overtake each other on the way.
        let place = place[&request.task_id];
        assert!(place < nth + IN_FLIGHT_MAX, "the {place}th came as the {nth}th");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_cancelled_if_and_only_if_its_effect_never_happens_whenever_it_is_killed() {
    const ROUNDS: usize = 8;
    const TASKS: usize = 60;
    let mut stack = Stack::start(&[]).await;
    let mut tasks = Vec::new();
    let mut said_cancelled = HashSet::new();
    for round in 0..ROUNDS {
        let seen = stack.edge.requests().len();
        let asks = (0..TASKS as i64).map(|nth| {
            let mut client = stack.client.clone();
            let request = request(&boot::new_id(), 200 + (nth * 11) % 120);
            async move { client.schedule(request).await.unwrap().into_inner() }
        });
        let made = join_all(asks).await;
        // Half are cancelled while the first fire, and the kill races with both.
        stack.edge.wait_for_requests(seen + 1).await;
        let cancels = made.iter().step_by(2).map(|task| {
            let (mut client, task_id) = (stack.client.clone(), task.task_id.clone());
            tokio::spawn(async move {
                let request = CancelRequest { task_id: task_id.clone(), by: String::new() };
                let response = client.cancel(request).await.ok()?.into_inner();
                (response.outcome() == CancelOutcome::Cancelled).then_some(task_id)
            })
        });
        let cancels: Vec<_> = cancels.collect();
        stack.edge.wait_for_requests(seen + 2 + 2 * round).await; // More will come.
        stack.kill();
        said_cancelled.extend(join_all(cancels).await.into_iter().filter_map(Result::unwrap));
        stack.restart();
        for task in made {
            tasks.push(stack.ended(&task.task_id).await);
        }
    }
    let (mut fired, mut cancelled) = (0, 0);
    for ended in &tasks {
        let ended_by = stack.edge.ended_by(&ended.call_id);
        match ended.state() {
            TaskState::Fired => assert_eq!(ended_by.as_ref(), Some(&ended.task_id)),
            TaskState::Cancelled => assert_eq!(ended_by, None),
            _ => panic!("{ended:?}"),
        }
        fired += usize::from(ended.state() == TaskState::Fired);
        cancelled += usize::from(ended.state() == TaskState::Cancelled);
        if said_cancelled.contains(&ended.task_id) {
            assert_eq!(ended.state(), TaskState::Cancelled);
        }
    }
    println!("{fired} fired, {cancelled} cancelled, {} told so", said_cancelled.len());
    assert_eq!(fired + cancelled, ROUNDS * TASKS);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_call_while_the_scheduler_is_down_is_not_missed() {
    let mut stack = Stack::start(&[]).await;
    let task = stack.schedule(&boot::new_id(), 600_000).await;
    stack.kill();
    stack.end_call(&task.call_id).await;
    stack.restart();
    assert_eq!(stack.ended(&task.task_id).await.state(), TaskState::Expired);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_was_replied_is_on_disk() {
    let mut stack = Stack::start(&[]).await;
    let asks = (0..200).map(|_| {
        let mut client = stack.client.clone();
        tokio::spawn(async move { client.schedule(request(&boot::new_id(), 600_000)).await })
    });
    let asks: Vec<_> = asks.collect();
    let mut replied = Vec::new();
    let mut killed = false;
    for ask in asks {
        if let Ok(reply) = ask.await.unwrap() {
            replied.push(reply.into_inner());
        }
        if !killed && replied.len() == 50 {
            stack.kill();
            killed = true;
        }
    }
    stack.restart();
    for task in &replied {
        assert_eq!(stack.get(&task.task_id).await, *task);
    }
    println!("{} of 200 replied before the kill", replied.len());
}
