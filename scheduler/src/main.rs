//! The scheduler: what happens to a call at what time, once.
//!
//! `grpc.rs` takes requests, `commits.rs` puts them on disk in groups, `fire.rs` runs the agenda of
//! the core crate `wheel`, `edge.rs` and
//! `publish.rs` bring effects about, `outbox.rs` and `ends.rs` talk to the bus.

mod args;
mod checkpoint;
mod clock;
mod commits;
mod edge;
mod ends;
mod fields;
mod fire;
mod grpc;
mod horizon;
mod lanes;
mod leases;
mod metrics;
mod outbox;
mod publish;
mod recent;
mod retention;
mod shard_set;
mod store;
mod watch;

use anyhow::Context as _;
use args::Args;
use clap::Parser as _;
use proto::scheduler::v1::scheduler_server::SchedulerServer;
use std::process::ExitCode;
use tonic::service::Routes;

/// Most of what a task costs is many small pieces of memory, which are taken in one thread and given
/// back in another. It does not take the place of libc's malloc: beside libraries that are preloaded,
/// such as libfaketime, the process did not start.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let args = Args::parse();
    boot::run("scheduler", &args.common.clone(), |service| serve(service, args))
}

async fn serve(service: boot::Service, args: Args) -> anyhow::Result<()> {
    service.describe(&metrics::ALL);
    let grpc = service.bind_grpc().await?;
    edge::check(&args.sip_edge)?;
    let store = store::Store::open(&args.database_url).await?;
    let nats = service.connect_nats().await?;
    let clock = clock::Clock::start();
    let lanes = lanes::Lanes::new(args.sip_edge.iter().map(|edge| edge.name.clone()));
    let agenda = fire::agenda(&lanes, args.edge_rate);
    let horizon_ms = i64::try_from(args.horizon.as_millis()).unwrap_or(i64::MAX);
    let address = match &args.advertise_grpc {
        Some(url) => {
            boot::channel("--advertise-grpc", url)?; // It must be one that others can use.
            url.clone()
        }
        None => format!("http://{}", grpc.local_addr().context("read the port of --grpc")?),
    };
    let (leases, keeper, turns) = leases::open(&store, address);
    let edges = edge::Edges::new(&args.sip_edge, &leases.gate())?;
    service.spawn_vital("keeping leases", keeper.run());
    let (tenant_quota, tenant_quotas) = args.tenant_quotas();
    let limits = commits::Limits {
        tasks_max: args.max_tasks,
        tasks_per_call_max: args.max_tasks_per_call,
        tenant_quota,
        tenant_quotas,
    };
    let recent = recent::Recent::default();
    let (commits, writer, news) = commits::open(commits::Desk {
        store: store.clone(),
        leases: leases.clone(),
        limits,
        clock,
        lanes: lanes.clone(),
        recent: recent.clone(),
        horizon_ms,
    });
    service.spawn_vital("writing tasks", writer.run());

    let (bus, publisher) =
        publish::open("scheduler", boot::Login::read(&args.common)?, leases.gate());
    service.spawn_vital("publishing messages", publisher.run());

    let (idle, mut is_idle) = tokio::sync::watch::channel(false);
    let (busy, is_busy) = tokio::sync::watch::channel(false);
    let draining = service.draining();
    let horizon = horizon::Horizon { store: store.clone(), clock, lanes, horizon_ms };
    let firing = fire::Firing {
        agenda,
        clock,
        commits: commits.clone(),
        edges,
        bus,
        leases: leases.clone(),
        horizon,
        news,
        turns,
        shards: fire::Shards::default(),
        draining,
        idle,
        busy,
    };
    service.spawn_vital("firing tasks", firing.run());
    let outbox = outbox::Outbox::new(outbox::Parts {
        store: store.clone(),
        recent,
        leases: leases.clone(),
        journal: nats.journal(),
        busy: is_busy.clone(),
        draining: service.draining(),
        untold_max: retention::kept(args.max_tasks) / 4,
    });
    let (told, mut all_told) = tokio::sync::watch::channel(false);
    let telling = outbox.run(commits.committed(), is_idle.clone(), told);
    service.spawn_vital("telling of tasks", telling);
    let (watches, looking) =
        watch::Watches::new(store.clone(), commits.committed(), service.draining());
    service.spawn_vital("looking for changes", looking);
    let forward = grpc::Forward::new(leases.clone());
    let draining_leases = leases.clone();
    let api = grpc::Api { clock, commits: commits.clone(), store: store.clone(), forward, watches };
    let expiring = ends::expire_with_calls(nats, store.clone(), commits.clone(), api.clone());
    service.spawn_vital("reading the ends of calls", expiring);
    service.spawn_vital("checkpointing", checkpoint::keep_up(store.clone(), is_busy));
    let retention = retention::Retention {
        store: store.clone(),
        commits: commits.clone(),
        leases: leases.clone(),
        clock,
        retention: args.retention,
        tasks_max: args.max_tasks,
    };
    service.spawn_vital("forgetting ended tasks", retention.sweep());

    let drained = async move {
        drop(is_idle.wait_for(|idle| *idle).await);
        drop(all_told.wait_for(|told| *told).await);
        // Others need not wait until the leases are over.
        draining_leases.drain().await;
        draining_leases.drained().await;
    };
    let routes = Routes::new(SchedulerServer::new(api));
    service.serve(grpc, &["scheduler.v1.Scheduler"], routes, drained).await
}
