//! Playing files to a side: by itself, or with the offer that the side begins with.

use super::Grpc;
use super::fields::{check_id, invalid};
use super::refusals::{busy, failed};
use media::{Audio, Form, Play, Side};
use proto::media_relay::v1 as wire;
use std::sync::Arc;
use std::time::Instant;
use tonic::{Code, Status};
use tracing::info;

impl Grpc {
    /// Encodes audio in the form that a side wants, so that it is heard from the first packet on.
    pub(super) async fn encode_for(
        &self,
        session_id: &str,
        side: Side,
        audio: &Arc<Audio>,
        repeat: bool,
    ) -> Result<(), Status> {
        let id = session_id.to_owned();
        let form = self.packets.call(move |it| it.relay.form(&id, side, repeat)).await;
        if let Some(form) = form.map_err(busy)?.map_err(failed)?
            && audio.encoded(form).is_none()
        {
            encode(audio.clone(), form).await;
        }
        Ok(())
    }

    /// Plays to a side what the request says; the `call_id` of the session, too.
    pub(super) async fn begin_playing(
        &self,
        request: &wire::PlayRequest,
        side: Side,
    ) -> Result<(wire::PlayResponse, Arc<str>), Status> {
        check_id("session_id", &request.session_id)?;
        let audio = self.audio(&request.file).await?;
        let (repeat, session_id) = (request.r#loop, request.session_id.clone());
        let duration_ms = audio.duration_ms();
        let play_id = boot::new_id();
        let play = Play {
            play_id: play_id.as_str().into(),
            file: request.file.as_str().into(),
            audio: audio.clone(),
            repeat,
            offset_ms: request.offset_ms,
            radio: is_radio(request)?,
        };
        let at_once = play.clone();
        let begun = self.command(session_id.clone(), move |it, id| {
            match it
                .relay
                .form(id, side, repeat)?
                .filter(|form| at_once.audio.encoded(*form).is_none())
            {
                Some(form) => Ok(Some(form)),
                None => it.relay.play(Instant::now(), id, side, at_once).map(|()| None),
            }
        });
        let (missing, call_id) = begun.await?;
        if let Some(form) = missing {
            encode(audio, form).await; // So that it is heard from the first packet on.
            let playing = self
                .command(session_id, move |it, id| it.relay.play(Instant::now(), id, side, play));
            playing.await?;
        }
        Ok((wire::PlayResponse { play_id, duration_ms }, call_id))
    }

    /// Plays music that an offer asks for; its `play_id`.
    pub(super) async fn play_music(
        &self,
        session_id: &str,
        side: Side,
        file: &str,
    ) -> Result<String, Status> {
        let request = wire::PlayRequest {
            session_id: session_id.to_owned(),
            file: file.to_owned(),
            r#loop: true,
            ..wire::PlayRequest::default()
        };
        let (response, call_id) =
            self.begin_playing(&request, side).await.map_err(|e| match e.code() {
                Code::InvalidArgument | Code::FailedPrecondition | Code::NotFound => {
                    let why = e.message();
                    Status::not_found(format!("music {file:?} cannot be played: {why}"))
                }
                _ => e, // It may well go in a moment.
            })?;
        info!(session_id, %call_id, ?side, file, repeat = true, "playing");
        Ok(response.play_id)
    }
}

/// Encodes audio away from the packet thread.
async fn encode(audio: Arc<Audio>, form: Form) {
    let encoding = tokio::task::spawn_blocking(move || {
        audio.encode(form);
    });
    encoding.await.expect("a panic ends the process");
}

fn is_radio(request: &wire::PlayRequest) -> Result<bool, Status> {
    match (wire::PlayMode::try_from(request.mode), request.r#loop) {
        (Ok(wire::PlayMode::Unspecified | wire::PlayMode::FromStart), _) => Ok(false),
        (Ok(wire::PlayMode::Radio), true) => Ok(true),
        (Ok(wire::PlayMode::Radio), false) => {
            Err(invalid("mode", "PLAY_MODE_RADIO", "it only with loop: a prompt has a beginning"))
        }
        (Err(_), _) => Err(invalid("mode", request.mode, "PLAY_MODE_FROM_START or _RADIO")),
    }
}
