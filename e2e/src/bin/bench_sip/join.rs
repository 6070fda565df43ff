//! Joining and leaving the queue through all four services: the highest rate without a failed call, how
//! long the answer takes, and what a call costs each process.

use anyhow::{Context as _, ensure};
use e2e::bench::{Percentiles, Report, Usage};
use e2e::{
    Databases, Ports, Postgres, QUEUE_USER, SERVICES, Scenario, Service, Setup, Sipp, Stack, Tally,
};

/// Calls a second; what is told by itself is told at [`AT`], or at the highest rate if that is lower.
const RATES: [u32; 8] = [100, 200, 300, 400, 500, 600, 800, 1_000];
const AT: u32 = 400;
/// How long new callers come at each rate.
const SECONDS: u32 = 10;
/// How long callers stay, with music.
const STAY_MS: u32 = 2_000;

/// On SQLite, then on PostgreSQL, whose figures have its name in theirs.
pub(crate) async fn measure(report: &mut Report) -> anyhow::Result<()> {
    measure_on(false, "", report).await?;
    measure_on(true, "postgres_", report).await
}

async fn measure_on(postgres: bool, prefix: &str, report: &mut Report) -> anyhow::Result<()> {
    let (stack, _servers) = start(postgres).await?;
    let mut highest = 0;
    for rate in RATES {
        let run = run(&stack, rate, STAY_MS).await?;
        let ms = &run.answered_ms;
        println!("{rate} calls/s: {:?}; INVITE to 200, ms: {ms}", run.tally);
        if rate == AT {
            report.add(&format!("{prefix}join_400_answer_p50_ms"), ms.at(50.0), "ms");
            report.add(&format!("{prefix}join_400_answer_p99_ms"), ms.at(99.0), "ms");
            run.report(prefix, "with_music", report);
        }
        if run.tally.failed > 0 {
            break;
        }
        highest = rate;
        stack.wait_clean().await?;
    }
    report.add(&format!("{prefix}join_calls_per_s_without_failure"), f64::from(highest), "1/s");
    stack.stop()?;

    // Who leaves at once hears no music: what is left is what SIP, the queue and the media session take.
    let (stack, _servers) = start(postgres).await?;
    ensure!(highest > 0, "serve {} calls/s without a failure", RATES[0]);
    let run = run(&stack, AT.min(highest), 0).await?;
    ensure!(run.tally.failed == 0, "serve callers who leave at once: {:?}", run.tally);
    run.report(prefix, "without_music", report);
    stack.stop()
}

/// With databases that are new: a queue has the port of its stack in its URI.
async fn start(postgres: bool) -> anyhow::Result<(Stack, Vec<Postgres>)> {
    let (mut databases, mut servers) = (Databases::default(), Vec::new());
    if postgres {
        servers = vec![Postgres::start()?, Postgres::start()?];
        databases = Databases { scheduler: servers[0].url(), queue: servers[1].url() };
    }
    let stack = Stack::start_as(Setup { databases, ..Setup::on(Ports::free()?) })?;
    stack.create_queue().await?;
    Ok((stack, servers))
}

struct Run {
    tally: Tally,
    answered_ms: Percentiles,
    /// CPU of each service for a call, in ms.
    cost_ms: Vec<(Service, f64)>,
}

impl Run {
    fn report(&self, prefix: &str, which: &str, report: &mut Report) {
        for (service, ms) in &self.cost_ms {
            report.add(&format!("{prefix}call_cpu_{which}_{}_ms", service.name()), *ms, "ms");
        }
        let all = self.cost_ms.iter().map(|(_, ms)| ms).sum();
        report.add(&format!("{prefix}call_cpu_{which}_ms"), all, "ms");
    }
}

async fn run(stack: &Stack, rate: u32, stay_ms: u32) -> anyhow::Result<Run> {
    let usages = SERVICES.map(|service| {
        let pid = stack.pid(service).context("find a service")?;
        Ok::<_, anyhow::Error>((service, Usage::of(pid)?))
    });
    let calls = rate * SECONDS;
    let scenario = Scenario::caller(stack.sip(), QUEUE_USER, stay_ms).repeat(calls, rate).timed();
    let callers = Sipp::start(&scenario, None)?;
    let (tally, answered_ms) = tokio::task::spawn_blocking(|| callers.finish_timed()).await??;
    let cost_ms = usages.into_iter().map(|usage| {
        let (service, usage) = usage?;
        Ok((service, usage.cpu_since()?.as_secs_f64() * 1e3 / f64::from(calls)))
    });
    let cost_ms = cost_ms.collect::<anyhow::Result<_>>()?;
    Ok(Run { tally, answered_ms: Percentiles::new(answered_ms), cost_ms })
}
