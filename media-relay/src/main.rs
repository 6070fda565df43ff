//! media-relay: RTP ports, SDP offer/answer, music, prompts, digits, relay and conferences.

mod args;
mod encoder;
mod grpc;
mod ingest;
mod library;
mod metrics;
mod packet_thread;
mod path;
mod recorder;
mod rtpproxy;
mod snapshots;

use anyhow::Context as _;
use args::Args;
use clap::Parser as _;
use grpc::Grpc;
use packet_thread::PacketThread;
use path::Path;
use proto::media_relay::v1::media_relay_server::MediaRelayServer;
use std::process::ExitCode;
use std::time::Duration;
use tonic::service::Routes;
use tracing::{info, warn};

/// Descriptors that are not for ports: connections, files, and the like.
const DESCRIPTORS_BESIDES: u64 = 4_096;
/// How long the last recordings may take to reach the disk at the end.
const RECORDINGS_PATIENCE: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let args = Args::parse();
    boot::run("media-relay", &args.common.clone(), |service| serve(service, args))
}

async fn serve(service: boot::Service, args: Args) -> anyhow::Result<()> {
    service.describe(&metrics::ALL);
    let config = args.config()?;
    let codecs = config.codecs.clone();
    raise_descriptor_limit(&args);
    let grpc = service.bind_grpc().await?;
    let rtpproxy = rtpproxy::bind(&args.rtpproxy_listen).await?;
    let path = Path::open(args.packet_path, args.rtp_address)?;
    let path_name = path.name();
    let (recorder, feed, recordings) = recorder::recorder(args.recordings_dir.as_deref())?;
    let (mut thread, packets) = PacketThread::new(config, path, args.gather, feed)?;
    let resumed = match &args.state_dir {
        Some(folder) => snapshots::restore(folder, &mut thread)?,
        None => Vec::new(),
    };
    service.spawn_vital("the packet thread", thread.run());
    info!(
        rtp_address = %args.rtp_address,
        rtp_ports = ?args.rtp_ports,
        packet_path = path_name,
        media_dir = %args.media_dir.display(),
        "relaying"
    );
    let told = packets.clone();
    std::thread::Builder::new()
        .name("recorder".to_owned())
        .spawn(move || recordings.run(|it| told.tell_recorded(it)))
        .context("start the recorder thread")?;
    let library = args.open_media_dir(&codecs);
    snapshots::resume(resumed, &library, &packets).await;
    tokio::spawn(library.clone().preload());
    let last_reply = if rtpproxy.is_empty() { Duration::ZERO } else { rtpproxy::LAST_REPLY };
    if !rtpproxy.is_empty() {
        let (packets, settings) = (packets.clone(), args.rtpproxy_settings());
        let server = rtpproxy::Server::new(
            packets,
            library.clone(),
            recorder.clone(),
            service.draining(),
            settings,
        );
        let serving = rtpproxy::serve(rtpproxy, args.rtpproxy_from.clone(), server);
        service.spawn_vital("the rtpproxy protocol", serving);
    }
    let relay = MediaRelayServer::new(Grpc::new(
        packets.clone(),
        library,
        recorder.clone(),
        service.draining(),
    ));
    let routes = Routes::new(relay);
    let drained = async move {
        packets.idle().await;
        tokio::time::sleep(last_reply).await;
    };
    service.serve(grpc, &["media_relay.v1.MediaRelay"], routes, drained).await?;
    if tokio::time::timeout(RECORDINGS_PATIENCE, recorder.idle()).await.is_err() {
        warn!("ended before all recordings were written");
    }
    Ok(())
}

/// Lets the process open a socket for each port and each connection, as far as it may.
fn raise_descriptor_limit(args: &Args) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let wanted = args.rtp_ports.len() as u64 + DESCRIPTORS_BESIDES;
    let most = limit.maximum.unwrap_or(u64::MAX);
    let raise = |current| {
        setrlimit(
            Resource::Nofile,
            Rlimit { current: Some(current), maximum: Some(most.max(current)) },
        )
    };
    // Beyond the hard limit only a privileged process may go.
    if raise(wanted.max(most)).or_else(|_| raise(most)).is_err() || most < wanted {
        tracing::warn!(wanted, limit = most, "failed to raise the limit of open files");
    }
}
