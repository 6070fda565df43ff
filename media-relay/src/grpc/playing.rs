//! Playing files to a side: by itself, or with the offer that the side begins with.

use super::Grpc;
use super::fields::{check_id, invalid};
use super::refusals::{busy, failed};
use crate::packet_thread::PacketThread;
use media::{Audio, Error, Form, Play, Relay, Side};
use proto::media_relay::v1 as wire;
use std::sync::Arc;
use std::time::Instant;
use tonic::{Code, Status};

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
        let prepared = self.prepare(request, side).await?;
        let (session_id, at_once) = (request.session_id.clone(), prepared.clone());
        let begun =
            self.command(session_id.clone(), move |it, id| at_once.begin(&mut it.relay, id));
        let (missing, call_id) = begun.await?;
        let duration_ms = prepared.play.audio.duration_ms();
        let play_id = prepared.play.play_id.to_string();
        self.complete(session_id, prepared, missing).await?;
        Ok((wire::PlayResponse { play_id, duration_ms }, call_id))
    }

    /// Finds what the request says, and decodes it.
    async fn prepare(&self, request: &wire::PlayRequest, side: Side) -> Result<Prepared, Status> {
        let play = Play {
            audio: self.audio(&request.file).await?,
            play_id: boot::new_id().into(),
            file: request.file.as_str().into(),
            repeat: request.r#loop,
            offset_ms: request.offset_ms,
            radio: is_radio(request)?,
        };
        Ok(Prepared { side, play })
    }

    /// Finds music that an offer asks for; none if it asks for none.
    pub(super) async fn prepare_music(
        &self,
        side: Side,
        file: &str,
    ) -> Result<Option<Prepared>, Status> {
        if file.is_empty() {
            return Ok(None);
        }
        let (file, repeat) = (file.to_owned(), true);
        let request = wire::PlayRequest { file, r#loop: repeat, ..wire::PlayRequest::default() };
        let prepared = self.prepare(&request, side).await;
        prepared.map(Some).map_err(|e| unplayable(&request.file, e))
    }

    /// Plays what has been prepared, in the form that was missing, if one was.
    pub(super) async fn complete(
        &self,
        session_id: String,
        prepared: Prepared,
        missing: Option<Form>,
    ) -> Result<(), Status> {
        let Some(form) = missing else { return Ok(()) };
        encode(prepared.play.audio.clone(), form).await; // So that it is heard from the first packet on.
        let Prepared { side, play } = prepared;
        let playing =
            move |it: &mut PacketThread, id: &str| it.relay.play(Instant::now(), id, side, play);
        self.command(session_id, playing).await.map(drop)
    }
}

/// What is to be played to a side; its file has been found and decoded.
#[derive(Clone)]
pub(super) struct Prepared {
    side: Side,
    pub(super) play: Play,
}

impl Prepared {
    /// Plays it, or says in which form it must be encoded first.
    ///
    /// # Errors
    /// As [`Relay::play`].
    pub(super) fn begin(&self, relay: &mut Relay, session_id: &str) -> Result<Option<Form>, Error> {
        let Self { side, play } = self;
        let form = relay.form(session_id, *side, play.repeat)?;
        let missing = form.filter(|form| play.audio.encoded(*form).is_none());
        if missing.is_none() {
            relay.play(Instant::now(), session_id, *side, play.clone())?;
        }
        Ok(missing)
    }
}

/// What is said of music that an offer asks for; what may well go in a moment is said as it is.
pub(super) fn unplayable(file: &str, e: Status) -> Status {
    match e.code() {
        Code::InvalidArgument | Code::FailedPrecondition | Code::NotFound => {
            Status::not_found(format!("music {file:?} cannot be played: {}", e.message()))
        }
        _ => e,
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
