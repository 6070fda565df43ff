//! How late 10,000 tasks at random phase are, from their time to the arrival of what they publish.

use crate::bus::{self, now_ms};
use crate::fill::{When, fill};
use crate::rig::{Backend, Rig};
use anyhow::{Context as _, ensure};
use e2e::bench::{Percentiles, Report};
use std::time::Duration;

const TASKS: usize = 10_000;
/// From the last task added to the first that is due.
const LEAD_MS: i64 = 4_000;
const SPAN_MS: i64 = 30_000;
const LATE_LIMIT: Duration = Duration::from_secs(30);

pub(crate) async fn measure(backend: Backend, report: &mut Report) -> anyhow::Result<()> {
    let rig = Rig::start(backend)?;
    let arrivals = bus::listen(&rig.nats.url(), TASKS).await?;
    let first = now_ms() + LEAD_MS;
    // Numbers of a full period: every phase within the span, in no order.
    let phase = |number: usize| (number as i64 * 7_919) % SPAN_MS;
    let tasks = fill(&rig, TASKS, |number| When::AtUnixMs(first + phase(number))).await?;
    let limit = Duration::from_millis((LEAD_MS + SPAN_MS) as u64) + LATE_LIMIT;
    let arrivals = tokio::time::timeout(limit, arrivals).await.context("wait for all tasks")??;
    let late_ms = tasks.iter().zip(&arrivals.first).map(|(task, at)| {
        let at = at.expect("all have come");
        (at - task.fires_at_unix_ms * 1_000) as f64 / 1_000.0
    });
    let late_ms = Percentiles::new(late_ms.collect());
    eprintln!("lateness in ms, {backend:?}: {late_ms}");
    ensure!(arrivals.repeated == 0, "{} tasks had their effect twice", arrivals.repeated);
    ensure!(late_ms.min() >= 0.0, "a task was {} ms early", -late_ms.min());
    report.add(&backend.metric("lateness_p50_ms"), late_ms.at(50.0), "ms");
    report.add(&backend.metric("lateness_p99_ms"), late_ms.at(99.0), "ms");
    report.add(&backend.metric("lateness_max_ms"), late_ms.max(), "ms");
    Ok(())
}
