//! A media-relay process with a folder of its own.

use e2e::Process;
use proto::media_relay::v1::media_relay_client::MediaRelayClient;
use proto::media_relay::v1::{
    MediaEvent, MediaEventType, OfferRequest, OfferResponse, PlayRequest, PlayResponse, Side,
    WatchMediaRequest,
};
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};

/// How long anything may take.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

pub(crate) struct Service {
    pub process: Process,
    pub client: MediaRelayClient<Channel>,
    media_dir: TempDir,
}

impl Service {
    pub(crate) async fn start(flags: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), flags).await
    }

    /// SIGKILL; another process follows it, with the same media.
    pub(crate) async fn kill_and_start(mut self, flags: &[&str]) -> Self {
        self.process.kill();
        Self::start_in(self.media_dir, flags).await
    }

    async fn start_in(media_dir: TempDir, flags: &[&str]) -> Self {
        let process = spawn(media_dir.path(), flags);
        let grpc = process
            .wait_for("that it serves", LIMIT, |line| {
                let serving = line.contains("\"serving\"").then_some(line)?;
                Some(serving.split_once("\"grpc\":\"")?.1.split_once('"')?.0.to_owned())
            })
            .unwrap();
        let channel = Endpoint::from_shared(format!("http://{grpc}")).unwrap().connect_lazy();
        let client = MediaRelayClient::new(channel);
        Self { process, client, media_dir }
    }

    pub(crate) fn dir(&self) -> &Path {
        self.media_dir.path()
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.dir().join(name), bytes).unwrap();
    }

    pub(crate) async fn offer(
        &self,
        session_id: &str,
        side: Side,
        sdp: String,
    ) -> Result<OfferResponse, Status> {
        self.offer_with_music(session_id, side, sdp, "").await
    }

    pub(crate) async fn offer_with_music(
        &self,
        session_id: &str,
        side: Side,
        sdp: String,
        music: &str,
    ) -> Result<OfferResponse, Status> {
        let request = OfferRequest {
            session_id: session_id.into(),
            call_id: format!("call of {session_id}"),
            side: side.into(),
            sdp: sdp.into_bytes(),
            owner: "edge".into(),
            music: music.into(),
            ..OfferRequest::default()
        };
        self.client.clone().offer(request).await.map(tonic::Response::into_inner)
    }

    pub(crate) async fn play(
        &self,
        session_id: &str,
        file: &str,
        repeat: bool,
    ) -> Result<PlayResponse, Status> {
        let request = PlayRequest {
            session_id: session_id.into(),
            side: Side::A.into(),
            file: file.into(),
            r#loop: repeat,
            ..PlayRequest::default()
        };
        self.client.clone().play(request).await.map(tonic::Response::into_inner)
    }

    pub(crate) async fn watch(&self, owner: &str) -> Watch {
        let request = WatchMediaRequest { owner: owner.into() };
        let events = self.client.clone().watch_media(request).await.unwrap().into_inner();
        let mut watch = Watch(events);
        assert_eq!(watch.next().await.r#type(), MediaEventType::Watching);
        watch
    }
}

pub(crate) struct Watch(Streaming<MediaEvent>);

impl Watch {
    pub(crate) async fn next(&mut self) -> MediaEvent {
        timeout(LIMIT, self.0.message()).await.expect("an event in time").unwrap().unwrap()
    }

    /// The next one of a type.
    pub(crate) async fn next_of(&mut self, wanted: MediaEventType) -> MediaEvent {
        loop {
            let event = self.next().await;
            if event.r#type() == wanted {
                return event;
            }
        }
    }
}

pub(crate) fn spawn(media_dir: &Path, flags: &[&str]) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_media-relay"));
    command.args(["--grpc", "127.0.0.1:0", "--media-dir"]).arg(media_dir).args(flags);
    Process::spawn("media-relay", &mut command).unwrap()
}
