//! Recordings: `StartRecording`, `StopRecording`.

use super::Grpc;
use super::fields::{check_id, recording_file, side};
use super::messages;
use super::refusals::{busy, failed, open_failed};
use crate::packet_thread::{Handle, What};
use crate::recorder::{About, Recorder};
use media::{Error, RecordingFormat, Side};
use proto::media_relay::v1 as wire;
use std::time::Instant;
use tokio::sync::broadcast::error::RecvError;
use tonic::{Response, Status};
use tracing::info;

impl Grpc {
    pub(super) async fn start(
        &self,
        request: wire::StartRecordingRequest,
    ) -> Result<Response<wire::StartRecordingResponse>, Status> {
        let session_id = request.session_id;
        check_id("session_id", &session_id)?;
        let side = match request.side {
            0 => None,
            number => Some(side("side", number)?),
        };
        let file = recording_file(&request.file, &session_id)?;
        let (packets, recorder) = (self.packets.clone(), self.recorder.clone());
        // A task of its own: who gives up meanwhile must not leave a file that nobody ends.
        let starting = tokio::spawn(start(packets, recorder, session_id, side, file));
        starting.await.expect("a panic ends the process")
    }

    pub(super) async fn stop_one_recording(
        &self,
        session_id: String,
    ) -> Result<Response<wire::StopRecordingResponse>, Status> {
        check_id("session_id", &session_id)?;
        let mut events = self.packets.watch();
        let id = session_id.clone();
        let stopped = self.packets.call(move |it| it.relay.stop_recording(Instant::now(), &id));
        let recording_id = stopped.await.map_err(busy)?.map_err(failed)?;
        loop {
            match events.recv().await {
                Ok(happened) => {
                    if let What::Recorded(finished) = happened.what
                        && *finished.about.recording_id == *recording_id
                    {
                        let recording = Some(messages::recording(&finished));
                        let response = wire::StopRecordingResponse { recording };
                        return Ok(boot::about_call(&finished.about.call_id, response));
                    }
                }
                Err(RecvError::Lagged(_) | RecvError::Closed) => {
                    let message =
                        "the recording was stopped; too much happened to say how it ended";
                    return Err(Status::aborted(message));
                }
            }
        }
    }
}

async fn start(
    packets: Handle,
    recorder: Recorder,
    session_id: String,
    side: Option<Side>,
    file: String,
) -> Result<Response<wire::StartRecordingResponse>, Status> {
    let id = session_id.clone();
    let asked = packets.call(move |it| {
        let format = it.relay.recording_format(&id, side)?;
        let session = it.relay.session(Instant::now(), &id).ok_or(Error::NoSession(id))?;
        Ok((format, session.call_id, session.owner))
    });
    let (format, call_id, owner): (RecordingFormat, _, _) =
        asked.await.map_err(busy)?.map_err(failed)?;
    let recording_id = boot::new_id();
    let about = About {
        recording_id: recording_id.clone(),
        session_id: session_id.clone(),
        call_id: call_id.clone(),
        owner,
        side,
        file: file.clone(),
    };
    let opener = recorder.clone();
    let opened = tokio::task::spawn_blocking(move || opener.open(about, format));
    opened.await.expect("a panic ends the process").map_err(|e| open_failed(&e))?;
    let (session, recording) = (session_id.clone(), recording_id.clone());
    let started = packets
        .call(move |it| it.relay.start_recording(Instant::now(), &session, &recording, format));
    let started = started.await.map_err(busy).and_then(|it| it.map_err(failed));
    started.inspect_err(|_| recorder.discard(&recording_id))?;
    info!(%session_id, call_id, ?side, file, recording_id, "recording");
    let sample_rate_hz = format.sample_rate_hz;
    let response = wire::StartRecordingResponse { recording_id, file, sample_rate_hz };
    Ok(boot::about_call(&call_id, response))
}
