//! 300,000 tasks with one deadline, and whether the API answers meanwhile.

use crate::bus::{self, now_ms, now_us};
use crate::fill::{When, fill, request};
use crate::rig::{Backend, Rig};
use anyhow::{Context as _, ensure};
use e2e::bench::{Percentiles, Report};
use proto::scheduler::v1::{GetRequest, ListRequest, TaskState};
use std::time::{Duration, Instant};

const TASKS: usize = 300_000;
/// Time to add them all.
const LEAD_MS: i64 = 60_000;
const LATE_LIMIT: Duration = Duration::from_secs(60);
/// Between two probes of the API.
const PROBE_EVERY: Duration = Duration::from_millis(20);
/// Probes begin so long before the deadline.
const PROBE_LEAD_MS: i64 = 500;

pub(crate) async fn measure(backend: Backend, report: &mut Report) -> anyhow::Result<()> {
    let rig = Rig::start(backend)?;
    let arrivals = bus::listen(&rig.nats.url(), TASKS).await?;
    let due = now_ms() + LEAD_MS;
    let tasks = fill(&rig, TASKS, |_| When::AtUnixMs(due)).await?;
    let left_ms = due - now_ms();
    ensure!(left_ms > PROBE_LEAD_MS, "add {TASKS} tasks in time: {left_ms} ms are left");
    tokio::time::sleep(Duration::from_millis((left_ms - PROBE_LEAD_MS) as u64)).await;

    let (probes, mut latencies_ms) = (Instant::now(), Vec::new());
    let mut client = rig.replica.client()?;
    while !arrivals.is_finished() && probes.elapsed() < LATE_LIMIT {
        let begun = Instant::now();
        let far = request(TASKS + latencies_ms.len(), When::AfterMs(3_600_000));
        client.schedule(far).await.context("schedule while the herd fires")?;
        let task_id = tasks[latencies_ms.len() % TASKS].task_id.clone();
        client.get(GetRequest { task_id }).await.context("get while the herd fires")?;
        latencies_ms.push(begun.elapsed().as_secs_f64() * 1_000.0);
        tokio::time::sleep(PROBE_EVERY.saturating_sub(begun.elapsed())).await;
    }
    let arrivals =
        tokio::time::timeout(LATE_LIMIT, arrivals).await.context("wait for the herd")??;
    let late_ms =
        arrivals.first.iter().map(|at| (at.expect("all have come") - due * 1_000) as f64 / 1_000.0);
    let late_ms = Percentiles::new(late_ms.collect());
    eprintln!("herd's lateness in ms, {backend:?}: {late_ms}");
    ensure!(arrivals.repeated == 0, "{} tasks had their effect twice", arrivals.repeated);
    ensure!(late_ms.min() >= 0.0, "a task was {} ms early", -late_ms.min());
    let settled_ms = settled(&rig, due).await?;
    let probes = Percentiles::new(latencies_ms);
    report.add(&backend.metric("herd_first_ms"), late_ms.min(), "ms");
    report.add(&backend.metric("herd_fired_within_ms"), late_ms.max(), "ms");
    report.add(&backend.metric("herd_settled_within_ms"), settled_ms, "ms");
    report.add(&backend.metric("herd_api_p50_ms"), probes.at(50.0), "ms");
    report.add(&backend.metric("herd_api_max_ms"), probes.max(), "ms");
    Ok(())
}

/// When no task of the herd is pending or firing any more, after `due`.
async fn settled(rig: &Rig, due_unix_ms: i64) -> anyhow::Result<f64> {
    let mut client = rig.replica.client()?;
    let begun = Instant::now();
    loop {
        let request = ListRequest {
            states: vec![TaskState::Pending.into(), TaskState::Firing.into()],
            fires_before_unix_ms: due_unix_ms + 1,
            page_size: 1,
            ..ListRequest::default()
        };
        let left = client.list(request).await.context("list what is left")?.into_inner().tasks;
        if left.is_empty() {
            return Ok((now_us() - due_unix_ms * 1_000) as f64 / 1_000.0);
        }
        ensure!(begun.elapsed() < LATE_LIMIT, "the herd is not settled: {left:?}");
        tokio::time::sleep(PROBE_EVERY).await;
    }
}
