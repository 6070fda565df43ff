//! queue-svc: queues, who waits in them in which order, and which agent gets whom.
//!
//! The core crate `queue` decides. Here: `desk` is the loop around it, `store` the SQL, `grpc` the
//! API and the client of sip-edge, `events` what comes from NATS and what our changes are for others,
//! who read them from the log: by `watch`, or on NATS, where `outbox` takes them.

mod args;
mod desk;
mod events;
mod grpc;
mod metrics;
mod outbox;
mod store;
mod watch;

use anyhow::Context as _;
use clap::Parser as _;
use proto::queue::v1::queues_server::QueuesServer;
use std::process::ExitCode;
use tokio::sync;

fn main() -> ExitCode {
    let args = args::Args::parse();
    boot::run("queue-svc", &args.common.clone(), |service| serve(service, args))
}

async fn serve(service: boot::Service, args: args::Args) -> anyhow::Result<()> {
    let listener = service.bind_grpc().await?;
    let edge = grpc::Edge::new(boot::channel("--sip-edge", &args.sip_edge)?);
    let store = store::Store::open(&args.database_url, args.sqlite_synchronous.into()).await?;
    let nats = service.connect_nats().await?;

    let (logged, told) = (sync::watch::Sender::new(0), sync::watch::Sender::new(0));
    let last = logged.subscribe();
    let parts = desk::Parts {
        max_calls: usize::try_from(args.max_calls).expect("a u32 fits"),
        store: store.clone(),
        edge: edge.clone(),
        prompts: args.prompts.trim_end_matches('/').to_owned(),
        retention: args.retention,
        draining: service.draining(),
        logged,
    };
    let (desk, working) = desk::open(parts).await.context("open the queues")?;
    service.spawn_vital("the queues", working);
    let (all_told, drained) = (told.subscribe(), desk.drained());
    let outbox = outbox::run(store.clone(), nats.clone(), desk.clone(), last.clone(), told);
    service.spawn_vital("publishing changes", outbox);
    service.spawn_vital("reading ends of calls", events::read_ends(nats.clone(), desk.clone()));
    for news in events::NEWS {
        let reading = events::read_news(nats.clone(), desk.clone(), news);
        service.spawn_vital("reading news of calls", reading);
    }

    let watches = watch::Watches::new(store, last.clone(), service.draining());
    let queues = QueuesServer::new(grpc::Service::new(desk, edge, watches));
    let drained = outbox::drained(drained, last, all_told);
    let routes = tonic::service::Routes::new(queues);
    service.serve(listener, &["queue.v1.Queues"], routes, drained).await
}
