//! Adding many tasks as fast as the scheduler takes them.

use crate::bus::{SUBJECT, now_ms};
use crate::rig::Rig;
use anyhow::{Context as _, bail};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use proto::scheduler::v1::*;
use std::sync::atomic::{AtomicU64, Ordering};

/// Requests of one message: as many as the contract allows.
const BATCH: usize = 1_000;
/// Messages on their way at a time.
const IN_FLIGHT: usize = 8;

/// When a task is due.
pub(crate) type When = schedule_request::When;

/// A task that publishes its `number`.
pub(crate) fn request(number: usize, when: When) -> ScheduleRequest {
    let payload = number.to_string().into_bytes();
    let publish = PublishMessage { subject: SUBJECT.into(), payload };
    ScheduleRequest {
        call_id: call_id(),
        action: Some(schedule_request::Action::Publish(publish)),
        when: Some(when),
        ..ScheduleRequest::default()
    }
}

/// As the ids of calls are: UUIDv7, so one after the other in an index.
pub(crate) fn call_id() -> String {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let (ms, a) = (now_ms() as u64, number >> 52);
    let (b, c) = (number >> 40 & 0xfff, number & 0xff_ffff_ffff);
    format!("{:08x}-{:04x}-7{a:03x}-8{b:03x}-{c:012x}", ms >> 16, ms & 0xffff)
}

/// Adds tasks `0..count`, each due as `when` says; the tasks, in this order.
pub(crate) async fn fill(
    rig: &Rig,
    count: usize,
    when: impl Fn(usize) -> When + Copy,
) -> anyhow::Result<Vec<Task>> {
    let clients: Vec<_> = (0..2).map(|_| rig.replica.client()).collect::<Result<_, _>>()?;
    let batches = (0..count).step_by(BATCH).map(|first| {
        let mut client = clients[first / BATCH % clients.len()].clone();
        let numbers = first..count.min(first + BATCH);
        async move {
            let requests = numbers.map(|number| request(number, when(number))).collect();
            let request = ScheduleManyRequest { requests };
            let response = client.schedule_many(request).await.context("add many")?;
            let results = response.into_inner().results.into_iter().map(task);
            results.collect::<anyhow::Result<Vec<_>>>()
        }
    });
    let added: Vec<Vec<Task>> = stream::iter(batches).buffered(IN_FLIGHT).try_collect().await?;
    Ok(added.into_iter().flatten().collect())
}

fn task(result: ScheduleResult) -> anyhow::Result<Task> {
    match result.result {
        Some(schedule_result::Result::Task(task)) => Ok(*task),
        other => bail!("add one of many: {other:?}"),
    }
}
