//! queue-svc: queues, who waits in them in which order, and which agent gets whom.
//!
//! The core crate `queue` decides. Here: `desk` is the loop around it, `store` the SQL, `grpc` the
//! API and the client of sip-edge, `events` what comes from NATS and what our changes are for others,
//! who read them from the log: by `watch`, or on NATS, where `outbox` takes them. With replicas, `leases`
//! says who owns the queues, `owning` is what the owner does, and the others hand requests on to it.

mod args;
mod desk;
mod events;
mod grpc;
mod leases;
mod metrics;
mod outbox;
mod owning;
mod store;
mod watch;

use anyhow::Context as _;
use clap::Parser as _;
use proto::queue::v1::queues_server::QueuesServer;
use std::process::ExitCode;
use tokio::sync;

/// Each request is many small pieces of memory, taken in one thread and given back in another. It does
/// not take the place of libc's malloc, so that libraries which are preloaded go on working.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let args = args::Args::parse();
    boot::run("queue-svc", &args.common.clone(), |service| serve(service, args))
}

async fn serve(service: boot::Service, args: args::Args) -> anyhow::Result<()> {
    service.describe(&metrics::ALL);
    let listener = service.bind_grpc().await?;
    boot::channel("--sip-edge", &args.sip_edge)?; // It must be one that can be used.
    let store = store::Store::open(&args.database_url, args.sqlite_synchronous.into()).await?;
    let nats = service.connect_nats().await?;
    let address = match &args.advertise_grpc {
        Some(url) => {
            boot::channel("--advertise-grpc", url)?;
            url.clone()
        }
        None => format!("http://{}", listener.local_addr().context("read the port of --grpc")?),
    };
    let (leases, keeper) = leases::open(&store, address);
    service.spawn_vital("keeping the lease on the queues", keeper.run());

    let (logged, told) = (sync::watch::Sender::new(0), sync::watch::Sender::new(0));
    let (last, all_told) = (logged.subscribe(), told.subscribe());
    let busy = sync::watch::Sender::new(false);
    let (door, desk) = desk::Door::new(&busy);
    let parts = desk::Parts {
        max_calls: usize::try_from(args.max_calls).expect("a u32 fits"),
        store: store.clone(),
        leases: leases.clone(),
        sip_edge: args.sip_edge.clone(),
        prompts: args.prompts.trim_end_matches('/').to_owned(),
        retention: args.retention,
        draining: service.draining(),
        logged,
        busy,
    };
    let owning = owning::Owning { parts, leases: leases.clone(), nats, door, told };
    // Who is alone serves when all is loaded; a replica serves at once, through the owner.
    let opened = match leases.is_sole() {
        true => Some(owning.open(leases.gained().await).await?),
        false => None,
    };
    let handed_over = sync::watch::Sender::new(false);
    let mut is_handed_over = handed_over.subscribe();
    service.spawn_vital("owning the queues", owning.run(opened, handed_over));

    let watches = watch::Watches::new(store, leases.clone(), last.clone(), service.draining());
    let edge = grpc::Edge::new(boot::channel("--sip-edge", &args.sip_edge)?);
    let drained = outbox::drained(desk.drained(), last, all_told);
    let queues = QueuesServer::new(grpc::Service::new(desk, edge, watches, leases.clone()));
    let sole = leases.is_sole();
    let routes = tonic::service::Routes::new(grpc::Forwarding::new(queues, leases));
    let drained = async move {
        match sole {
            true => drained.await,
            false => drop(is_handed_over.wait_for(|handed_over| *handed_over).await),
        }
    };
    service.serve(listener, &["queue.v1.Queues"], routes, drained).await
}
