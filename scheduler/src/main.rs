//! The scheduler: what happens to a call at what time, once.
//!
//! `grpc.rs` takes requests, `commits.rs` puts them on disk in groups, `fire.rs` runs the agenda of
//! the core crate `wheel`, `edge.rs` and
//! `publish.rs` bring effects about, `events.rs` talks to the bus.

mod args;
mod checkpoint;
mod clock;
mod commits;
mod edge;
mod events;
mod fields;
mod fire;
mod grpc;
mod lanes;
mod metrics;
mod publish;
mod retention;
mod store;

use anyhow::Context as _;
use args::Args;
use clap::Parser as _;
use proto::scheduler::v1::scheduler_server::SchedulerServer;
use std::process::ExitCode;
use tokio::sync::watch;
use tonic::service::Routes;
use tracing::info;

fn main() -> ExitCode {
    let args = Args::parse();
    boot::run("scheduler", &args.common.clone(), |service| serve(service, args))
}

async fn serve(service: boot::Service, args: Args) -> anyhow::Result<()> {
    let grpc = service.bind_grpc().await?;
    let edges = edge::Edges::new(&args.sip_edge)?;
    let store = store::Store::open(&args.database_url).await?;
    let nats = service.connect_nats().await?;
    let (publisher, publishing) = nats.publisher();
    service.spawn_vital("publishing events", publishing);
    let (teller, telling) = events::Teller::new(publisher);
    service.spawn_vital("telling of tasks", telling);

    let clock = clock::Clock::start();
    let live = store.live().await.context("read tasks from --database-url")?;
    let lanes = lanes::Lanes::new(args.sip_edge.iter().map(|edge| edge.name.clone()));
    let agenda = fire::resume(clock, &live, &lanes, args.edge_rate);
    info!(tasks = live.len(), "resumed");
    let limits =
        commits::Limits { tasks_max: args.max_tasks, tasks_per_call_max: args.max_tasks_per_call };
    let (commits, writer, changes) = commits::open(store.clone(), limits, live.len());
    service.spawn_vital("writing tasks", writer.run());

    let (idle, mut is_idle) = watch::channel(false);
    let draining = service.draining();
    let firing = fire::Firing {
        agenda,
        lanes,
        clock,
        commits: commits.clone(),
        edges,
        bus: publish::Bus::new(nats.client()),
        teller,
        changes,
        draining,
        idle,
    };
    service.spawn_vital("firing tasks", firing.run());
    service.spawn_vital(
        "reading the ends of calls",
        events::expire_with_calls(nats, clock, commits.clone()),
    );
    service.spawn_vital("checkpointing", checkpoint::keep_up(store.clone()));
    let sweeping =
        retention::sweep(store.clone(), commits.clone(), clock, args.retention, args.max_tasks);
    service.spawn_vital("forgetting ended tasks", sweeping);

    let api = SchedulerServer::new(grpc::Api { clock, commits, store });
    let drained = async move { drop(is_idle.wait_for(|idle| *idle).await) };
    service.serve(grpc, &["scheduler.v1.Scheduler"], Routes::new(api), drained).await
}
