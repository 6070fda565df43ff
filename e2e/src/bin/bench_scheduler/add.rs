//! 1,000,000 pending tasks: how fast they are added beside the database's own bulk insert, what they
//! cost in memory and at rest, and how long adding more takes.

use crate::bulk;
use crate::bus::now_ms;
use crate::fill::{When, call_id, fill, request};
use crate::rig::{Backend, Rig};
use anyhow::{Context as _, ensure};
use e2e::bench::{Better, Percentiles, Report, Usage, resident_bytes};
use proto::scheduler::v1::scheduler_client::SchedulerClient;
use proto::scheduler::v1::*;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tonic::transport::Channel;

const PENDING: usize = 1_000_000;
/// All are due within a day, so within the horizon, but not soon.
const FAR_MS: i64 = 3_600_000;
const SPAN_MS: i64 = 86_400_000;
const IDLE: Duration = Duration::from_secs(10);
/// It is at rest once it has told the bus of all tasks: so little of a core, over so long.
const REST_PERCENT: f64 = 3.0;
const REST: Duration = Duration::from_secs(2);
const REST_LIMIT: Duration = Duration::from_secs(240);
/// Open loop: so many adds a second are meant, however long they take.
const ADDS_PER_S: usize = 20_000;
const LOAD: Duration = Duration::from_secs(10);
const CONNECTIONS: usize = 4;
/// Requests on their way at a time; what is due beyond that counts as refused, by the client itself.
const IN_FLIGHT_MAX: usize = 4_096;
const TICK: Duration = Duration::from_millis(1);

pub(crate) async fn measure(
    backend: Backend,
    with_load: bool,
    report: &mut Report,
) -> anyhow::Result<()> {
    let mut rig = Rig::start(backend)?;
    let metric = |name: &str| backend.metric(name);
    let before = resident_bytes(rig.replica.pid())?;
    let (begun, from) = (Instant::now(), now_ms() + FAR_MS);
    let when = |number: usize| When::AtUnixMs(from + (number as i64 * 7_919) % SPAN_MS);
    fill(&rig, PENDING, when).await?;
    let add_per_s = PENDING as f64 / begun.elapsed().as_secs_f64();
    eprintln!("{PENDING} tasks added, {add_per_s:.0} a second");
    come_to_rest(&rig).await?;
    let per_task = (resident_bytes(rig.replica.pid())? - before) as f64 / PENDING as f64;
    report.add(&metric("bytes_per_task"), per_task, "B");
    let usage = Usage::of(rig.replica.pid())?;
    tokio::time::sleep(IDLE).await;
    report.add(&metric("idle_cpu_percent"), usage.percent_since()?, "% of core");

    if with_load {
        for many in [false, true] {
            let name = if many { "add_many" } else { "add" };
            let Loaded {
                latencies_ms: latencies,
                adds_per_s,
                refused,
                scheduler_percent,
                client_percent,
            } = load(&rig, many).await?;
            eprintln!("{name} in ms, {backend:?}, at {adds_per_s:.0} a second: {latencies}");
            report.add(&metric(&format!("{name}_refused")), refused as f64, "requests");
            report.add(&metric(&format!("{name}_per_s")), adds_per_s, "1/s");
            report.add(&metric(&format!("{name}_cpu_percent")), scheduler_percent, "% of core");
            report.add(&metric(&format!("{name}_client_cpu_percent")), client_percent, "% of core");
            report.add(&metric(&format!("{name}_p50_ms")), latencies.at(50.0), "ms");
            report.add(&metric(&format!("{name}_p99_ms")), latencies.at(99.0), "ms");
        }
    }
    let begun = Instant::now();
    rig.restart()?;
    report.add(&metric("restart_ms"), begun.elapsed().as_secs_f64() * 1_000.0, "ms");

    let bulk = bulk::inserts_per_s(&rig, PENDING)?;
    report.compare(&metric("fill_per_s"), add_per_s, "1/s", Better::Higher, ("bulk insert", bulk));
    report.ratio(&metric("add_vs_bulk_insert"), add_per_s, ("bulk insert", bulk));
    Ok(())
}

/// Waits until it has nothing to do any more.
async fn come_to_rest(rig: &Rig) -> anyhow::Result<()> {
    let begun = Instant::now();
    loop {
        let usage = Usage::of(rig.replica.pid())?;
        tokio::time::sleep(REST).await;
        let percent = usage.percent_since()?;
        if percent < REST_PERCENT {
            eprintln!("at rest after {:.0} s", begun.elapsed().as_secs_f64());
            return Ok(());
        }
        ensure!(begun.elapsed() < REST_LIMIT, "come to rest: it uses {percent:.1} % of a core");
    }
}

/// What came of a load.
struct Loaded {
    /// Of what was added: from the moment at which it was meant to be sent.
    latencies_ms: Percentiles,
    adds_per_s: f64,
    /// Requests that were refused or not sent, because more came than the scheduler can take.
    refused: usize,
    /// Of a core: what the scheduler took, and what this process took to ask it.
    scheduler_percent: f64,
    client_percent: f64,
}

/// Adds at [`ADDS_PER_S`] for [`LOAD`], half of which are cancelled once they are there.
async fn load(rig: &Rig, many: bool) -> anyhow::Result<Loaded> {
    let clients: Vec<_> =
        (0..CONNECTIONS).map(|_| rig.replica.client()).collect::<Result<_, _>>()?;
    let latencies = Arc::new(Mutex::new(Vec::with_capacity(ADDS_PER_S * 12)));
    let (scheduler, client) = (Usage::of(rig.replica.pid())?, Usage::of(std::process::id())?);
    let begun = tokio::time::Instant::now();
    let mut ticks = tokio::time::interval_at(begun, TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let adds_per_tick = ADDS_PER_S / 1_000;
    let (mut running, mut refused) = (JoinSet::new(), 0);
    while begun.elapsed() < LOAD {
        let meant = ticks.tick().await.into_std();
        if running.len() + adds_per_tick > IN_FLIGHT_MAX {
            refused += if many { 1 } else { adds_per_tick };
        } else if many {
            let client = clients[running.len() % CONNECTIONS].clone();
            running.spawn(campaign(client, adds_per_tick, meant, latencies.clone()));
        } else {
            for nth in 0..adds_per_tick {
                let client = clients[nth % CONNECTIONS].clone();
                running.spawn(one(client, nth % 2 == 0, meant, latencies.clone()));
            }
        }
        while let Some(done) = running.try_join_next() {
            refused += usize::from(is_refused(done?)?);
        }
    }
    while let Some(done) = running.join_next().await {
        refused += usize::from(is_refused(done?)?);
    }
    let elapsed = begun.elapsed().as_secs_f64();
    let (scheduler_percent, client_percent) = (scheduler.percent_since()?, client.percent_since()?);
    let latencies = std::mem::take(&mut *latencies.lock().unwrap());
    ensure!(!latencies.is_empty(), "nothing was added");
    let adds_per_s = latencies.len() as f64 / elapsed;
    let latencies_ms = Percentiles::new(latencies);
    Ok(Loaded { latencies_ms, adds_per_s, refused, scheduler_percent, client_percent })
}

/// Whether it was refused for want of room, which is an honest answer; any other failure is none.
fn is_refused(done: anyhow::Result<()>) -> anyhow::Result<bool> {
    let Err(e) = done else { return Ok(false) };
    match e.downcast_ref::<tonic::Status>().map(tonic::Status::code) {
        Some(tonic::Code::ResourceExhausted | tonic::Code::Unavailable) => Ok(true),
        _ => Err(e),
    }
}

type Latencies = Arc<Mutex<Vec<f64>>>;

/// One task by itself.
async fn one(
    mut client: SchedulerClient<Channel>,
    cancel: bool,
    meant: Instant,
    latencies: Latencies,
) -> anyhow::Result<()> {
    let added = client.schedule(request(0, When::AfterMs(FAR_MS))).await.context("add")?;
    latencies.lock().unwrap().push(meant.elapsed().as_secs_f64() * 1_000.0);
    if cancel {
        let task_id = added.into_inner().task_id;
        let request = CancelRequest { task_id, ..CancelRequest::default() };
        let outcome = client.cancel(request).await.context("cancel")?.into_inner().outcome();
        ensure!(outcome == CancelOutcome::Cancelled, "cancel what was added: {outcome:?}");
    }
    Ok(())
}

/// `count` tasks in one message, half of them of one call, whose tasks are then cancelled.
async fn campaign(
    mut client: SchedulerClient<Channel>,
    count: usize,
    meant: Instant,
    latencies: Latencies,
) -> anyhow::Result<()> {
    let cancelled = call_id();
    let requests = (0..count).map(|nth| {
        let task = request(0, When::AfterMs(FAR_MS));
        match nth % 2 {
            0 => ScheduleRequest { call_id: cancelled.clone(), ..task },
            _ => task,
        }
    });
    let requests = requests.collect();
    let added = client.schedule_many(ScheduleManyRequest { requests }).await.context("add many")?;
    let late_ms = meant.elapsed().as_secs_f64() * 1_000.0;
    latencies.lock().unwrap().extend(added.into_inner().results.iter().map(|_| late_ms));
    let request = CancelGroupRequest { call_id: cancelled, ..CancelGroupRequest::default() };
    let response = client.cancel_group(request).await.context("cancel a call's")?.into_inner();
    ensure!(response.cancelled as usize == count / 2, "cancel {} of {count}", response.cancelled);
    Ok(())
}
