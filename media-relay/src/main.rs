//! media-relay: RTP ports, SDP offer/answer, music, prompts, digits, relay and conferences.

mod args;
mod grpc;
mod library;
mod metrics;
mod packet_thread;
mod raw;
mod sockets;
mod wav;

use args::Args;
use clap::Parser as _;
use grpc::Grpc;
use library::Library;
use packet_thread::PacketThread;
use proto::media_relay::v1::media_relay_server::MediaRelayServer;
use std::process::ExitCode;
use tonic::service::Routes;
use tracing::info;

fn main() -> ExitCode {
    let args = Args::parse();
    boot::run("media-relay", &args.common.clone(), |service| serve(service, args))
}

async fn serve(service: boot::Service, args: Args) -> anyhow::Result<()> {
    let config = args.config()?;
    sockets::raise_descriptor_limit();
    let grpc = service.bind_grpc().await?;
    let (thread, packets) = PacketThread::new(config, args.rtp_address)?;
    service.spawn_vital("the packet thread", thread.run());
    info!(
        rtp_address = %args.rtp_address,
        rtp_ports = ?args.rtp_ports,
        media_dir = %args.media_dir.display(),
        "relaying"
    );
    let library = Library::new(&args.media_dir);
    tokio::spawn(library.clone().preload());
    let relay = MediaRelayServer::new(Grpc::new(packets.clone(), library, service.draining()));
    let routes = Routes::new(relay);
    service.serve(grpc, &["media_relay.v1.MediaRelay"], routes, packets.idle()).await
}
