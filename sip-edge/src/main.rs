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
mod locate;
mod media;
mod metrics;
mod orders;
mod plan;
mod queue;
mod requests;
mod resolve;
mod routing;
mod scheduler;
mod target;
mod transfer;
mod transport;
mod trunk;
mod trunks;

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
use locate::Locator;
use proto::sip_edge::v1::sip_edge_server::SipEdgeServer;
use sip::{Advertised, UserAgent};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tonic::service::Routes;
use tracing::{info, warn};
use transport::{Tls, Transports};

/// How long BYEs and the like may take when the process ends with calls alive.
const SHUT_DOWN_LIMIT: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let args = Args::parse();
    boot::run("sip-edge", &args.common.clone(), |service| run(service, args))
}

async fn run(service: Service, args: Args) -> anyhow::Result<()> {
    let dial_plan = args.dial_plan.as_deref().map(DialPlan::read).transpose()?.unwrap_or_default();
    let users = args.all_users()?;
    let grpc = service.bind_grpc().await?;
    let tls = args.tls_files().map(Tls::load).transpose()?;
    let transports = Transports::bind(&args.listeners(), tls.as_ref())?;
    let advertised = transports.advertised().context("listen for SIP: give --sip or --listen")?;
    let services = Services {
        media: media::Media::new(&args.media_relay, &args.edge_name)?,
        queues: queue::Queues::new(&args.queue_svc)?,
        scheduler: scheduler::Scheduler::new(&args.scheduler, &args.edge_name)?,
        locator: Locator::new(&args.dns, spoken(&transports))?,
    };
    let nats = service.connect_nats().await?;
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
    service.spawn_vital("watching media-relay", services.media.clone().watch(watched));
    let defence = Defence::new(Instant::now(), args.limits(dial_plan.trunks().sources()));
    let (sharing, unwritten) = Sharing::new();
    let shared = bindings::share(nats.jetstream(), unwritten, done.clone());
    service.spawn_vital("sharing bindings", shared);
    let edge = Edge::new(Parts {
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
    service.spawn_vital("running calls", edge.run(inputs));

    let api = SipEdgeServer::new(grpc::Api::new(orders.clone(), events));
    let until_drained = async move {
        let _ = drained_in.wait_for(|drained| *drained).await; // Gone only if the loop died.
    };
    let routes = Routes::new(api);
    let served = service.serve(grpc, &["sip_edge.v1.SipEdge"], routes, until_drained).await;
    shut_down(orders).await;
    served
}

/// Hangs up whatever still lives, and waits a moment for the others to hear of it.
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
