//! queue-svc: queues, who waits in them in which order, and which agent gets whom.
//!
//! The core crate `queue` decides. Here: `desk` is the loop around it, `store` the SQL, `grpc` the
//! API and the client of sip-edge, `events` what comes from and goes to NATS.

mod args;
mod desk;
mod events;
mod grpc;
mod metrics;
mod store;

use anyhow::Context as _;
use clap::Parser as _;
use proto::queue::v1::queues_server::QueuesServer;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args = args::Args::parse();
    boot::run("queue-svc", &args.common.clone(), |service| serve(service, args))
}

async fn serve(service: boot::Service, args: args::Args) -> anyhow::Result<()> {
    let listener = service.bind_grpc().await?;
    let edge = grpc::Edge::new(boot::channel("--sip-edge", &args.sip_edge)?);
    let store = store::Store::open(&args.database_url).await?;
    let nats = service.connect_nats().await?;
    let (publisher, publishing) = nats.publisher();
    service.spawn_vital("publishing events", publishing);

    let max_calls = usize::try_from(args.max_calls).expect("a u32 fits");
    let draining = service.draining();
    let (desk, working) = desk::open(max_calls, store, edge.clone(), publisher, draining)
        .await
        .context("open the queues")?;
    service.spawn_vital("the queues", working);
    service.spawn_vital("reading ends of calls", events::read_ends(nats.clone(), desk.clone()));
    let connections = events::read_connections(nats, desk.clone());
    service.spawn_vital("reading which calls are connected", connections);

    let drained = desk.drained();
    let routes = tonic::service::Routes::new(QueuesServer::new(grpc::Service::new(desk, edge)));
    service.serve(listener, &["queue.v1.Queues"], routes, drained).await
}
