//! sip-edge: SIP transactions, dialogs, legs, calls and registrations, and the plans calls run.

mod args;
mod bindings;
mod calls;
mod chain;
mod defence;
mod dial_plan;
mod edge;
mod events;
mod failover;
mod forks;
mod grpc;
mod keeping;
mod known_queues;
mod locate;
mod media;
mod metrics;
mod orders;
mod peers;
mod plan;
mod queue;
mod records;
mod requests;
mod resolve;
mod routing;
mod scheduler;
mod snapshots;
mod store;
mod target;
mod transfer;
mod transport;
mod trunk;
mod trunks;
mod wall_clock;

use anyhow::Context as _;
use args::Args;
use bindings::Sharing;
use boot::Service;
use calls::Calls;
use clap::Parser as _;
use defence::Defence;
use dial_plan::DialPlan;
use edge::{Edge, INPUTS_MAX, Inputs, Parts, Services, Settings};
use events::Events;
use grpc::Replicated;
use keeping::Keeping;
use locate::Locator;
use peers::{Lease, Peers};
use proto::sip_edge::v1::sip_edge_server::SipEdgeServer;
use sip::{Advertised, UserAgent};
use snapshots::{Record, Snapshots};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::Store;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tonic::service::Routes;
use tracing::{info, warn};
use transport::{Tls, Transports};

/// How long BYEs and the like may take when the process ends with calls alive.
const SHUT_DOWN_LIMIT: Duration = Duration::from_secs(2);
/// How long NATS may take to say which calls we had, and the wait between attempts.
const READ_LIMIT: Duration = Duration::from_secs(15);
const READ_RETRY: Duration = Duration::from_millis(500);

/// Each message and each call is many small pieces of memory. It does not take the place of libc's
/// malloc, so that libraries which are preloaded go on working.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let args = Args::parse();
    boot::run("sip-edge", &args.common.clone(), |service| run(service, args))
}

async fn run(service: Service, args: Args) -> anyhow::Result<()> {
    service.describe(&metrics::ALL);
    let dial_plan = args.dial_plan.as_deref().map(DialPlan::read).transpose()?.unwrap_or_default();
    let users = args.all_users()?;
    let grpc = service.bind_grpc().await?;
    let tls = args.tls_files().map(Tls::load).transpose()?;
    let transports = Transports::bind(&args.listeners(), tls.as_ref())?;
    let advertised = transports.advertised().context("listen for SIP: give --sip or --listen")?;
    let services = Services {
        media: media::Media::new(&args.media_relay, &args.edge_name, args.agent_heard_within)?,
        queues: queue::Queues::new(&args.queue_svc)?,
        scheduler: scheduler::Scheduler::new(&args.scheduler, &args.edge_name)?,
        locator: Locator::new(&args.dns, spoken(&transports))?,
    };
    let records = args.cdr_database_url.as_deref().map(Store::at).transpose();
    let records = records.context("use --cdr-database-url")?;
    let nats = service.connect_nats().await?;
    if let Some(store) = records {
        service.spawn_vital("writing records of calls", records::write(nats.clone(), store));
    }
    let (publisher, publishing) = nats.publisher();
    service.spawn_vital("publishing events", publishing);
    for bound in transports.bound() {
        let (transport, addr) = (bound.transport.name(), bound.addr);
        info!(transport, sip = %addr, advertised = %bound.advertised, "listening");
    }
    if let Some(tls) = tls {
        service.spawn_vital("reading certificates", reload_at_sighup(tls));
    }
    let user_agent = user_agent(&args, users, advertised.clone());
    let events = Events::new(publisher, &args.edge_name);
    let max_calls = args.max_calls as usize;

    let (performed, performed_in) = mpsc::channel(INPUTS_MAX);
    let (done, done_in) = mpsc::channel(INPUTS_MAX);
    let (orders, requests) = mpsc::channel(INPUTS_MAX);
    let (watched, watched_in) = mpsc::channel(INPUTS_MAX);
    let (drained, mut drained_in) = watch::channel(false);
    let defence = Defence::new(Instant::now(), args.limits(dial_plan.trunks().sources()));
    let (sharing, unwritten) = Sharing::new();
    let shared = bindings::share(nats.jetstream(), unwritten, done.clone());
    service.spawn_vital("sharing bindings", shared);
    let snapshots = Snapshots::new(nats.jetstream(), &args.edge_name);
    service.spawn_vital("keeping calls", snapshots.clone().write(done.clone()));
    let peers = Peers::new(&args.edge_name);
    let lease = Lease {
        context: nats.jetstream(),
        peers: peers.clone(),
        snapshots: snapshots.clone(),
        url: grpc_url(&args, &grpc)?,
        done: done.clone(),
    };
    if let Err(e) = lease.announce().await {
        warn!("failed to {e:#}"); // Tried again every second.
    }
    let had = had_before(&snapshots).await?;
    let watching = services.media.clone().watch(watched.clone());
    let mut edge = Edge::new(Parts {
        settings: Settings {
            advertised,
            max_calls,
            max_source_calls: args.source_calls as usize,
            dial_plan: Arc::new(dial_plan),
        },
        user_agent,
        transports,
        services,
        events: events.clone(),
        calls: Calls::new(args.ended_retention),
        defence,
        sharing,
        keeping: Keeping::new(snapshots.clone(), peers.clone()),
        watched,
        performed,
        done,
        drained,
    });
    let inputs = Inputs {
        performed: performed_in,
        done: done_in,
        requests,
        watched: watched_in,
        draining: service.draining(),
    };
    had.into_iter().for_each(|record| edge.restore(record)); // Before media-relay's sessions are compared.
    service.spawn_vital("watching media-relay", watching);
    service.spawn_vital("running calls", edge.run(inputs));

    service.spawn_vital("holding a lease", lease.hold());
    let api = grpc::Api::new(orders.clone(), events);
    let api = SipEdgeServer::new(Replicated::new(api, peers, snapshots));
    let until_drained = async move {
        let _ = drained_in.wait_for(|drained| *drained).await; // Gone only if the loop died.
    };
    let routes = Routes::new(api);
    let served = service.serve(grpc, &["sip_edge.v1.SipEdge"], routes, until_drained).await;
    shut_down(orders).await;
    if let Err(e) = Lease::give_up(nats.jetstream(), &args.edge_name).await {
        warn!("failed to {e:#}"); // The others find out by themselves.
    }
    served
}

/// The calls that a process before this one had. Without them their media would be taken for nobody's,
/// so that it is better not to start.
async fn had_before(snapshots: &Snapshots) -> anyhow::Result<Vec<Record>> {
    let until = Instant::now() + READ_LIMIT;
    loop {
        match snapshots.take_over(&snapshots.us().owner, "").await {
            Err(e) if Instant::now() < until => {
                warn!("failed to {e:#}; trying again");
                tokio::time::sleep(READ_RETRY).await;
            }
            had => return had.context("read the calls of the process before"),
        }
    }
}

/// Where the other sip-edges reach us; empty if nobody has said so and --grpc is any address.
fn grpc_url(args: &Args, grpc: &TcpListener) -> anyhow::Result<String> {
    if let Some(url) = &args.advertise_grpc {
        boot::channel("--advertise-grpc", url)?; // It must be one that others can use.
        return Ok(url.clone());
    }
    let addr = grpc.local_addr().context("read the port of --grpc")?;
    let scheme = if args.common.grpc_cert.is_some() { "https" } else { "http" };
    let is_any = addr.ip().is_unspecified();
    Ok(if is_any { String::new() } else { format!("{scheme}://{addr}") })
}

/// Leaves calls to other sip-edges or hangs up whatever still lives, and waits a moment for the others to hear of it.
async fn shut_down(orders: mpsc::Sender<requests::Request>) {
    let (reply, done) = oneshot::channel();
    if orders.send(requests::Request::ShutDown { reply }).await.is_ok() {
        let _ = tokio::time::timeout(SHUT_DOWN_LIMIT, done).await; // Best effort.
    }
}

/// Takes a renewed certificate when SIGHUP says that there is one.
async fn reload_at_sighup(tls: Tls) -> anyhow::Result<()> {
    let mut hang_ups = signal(SignalKind::hangup()).context("listen for SIGHUP")?;
    while hang_ups.recv().await.is_some() {
        match tls.reload() {
            Ok(()) => info!("read the certificate again"),
            Err(e) => warn!("failed to {e:#}; the former certificate stays"),
        }
    }
    Ok(())
}

/// What our listeners speak.
fn spoken(transports: &Transports) -> Vec<sip::Transport> {
    transports.bound().iter().map(|bound| bound.transport).collect()
}

fn user_agent(
    args: &Args,
    users: std::collections::HashMap<String, String>,
    advertised: Advertised,
) -> UserAgent {
    let max_dialogs = args.max_calls as usize * 2 + 1; // So that --max-calls is what is met first.
    let defaults = sip::Config::new(advertised);
    let (realm, digest) = (args.realm.clone(), args.digest.clone());
    UserAgent::new(sip::Config { realm, digest, users, max_dialogs, ..defaults }, rand::random())
}
