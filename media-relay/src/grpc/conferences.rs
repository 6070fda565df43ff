//! Conferences: `Join`, `UpdateParticipant`, `Kick`, `ListConferences`.

use super::Grpc;
use super::fields::{check_conference, check_id, check_pin, invalid, side};
use super::messages;
use super::refusals::busy;
use boot::about_call;
use media::{Join, LeaveReason, PARTICIPANTS_MAX, Play};
use proto::media_relay::v1 as wire;
use std::time::Instant;
use tonic::{Response, Status};
use tracing::info;

impl Grpc {
    pub(super) async fn join_conference(
        &self,
        request: wire::JoinRequest,
    ) -> Result<Response<wire::JoinResponse>, Status> {
        let side = side("side", request.side)?;
        check_id("session_id", &request.session_id)?;
        check_conference(&request.conference)?;
        check_pin(&request.pin)?;
        let participants_max = match request.max_participants as usize {
            0 => PARTICIPANTS_MAX,
            max @ 1..=PARTICIPANTS_MAX => max,
            _ => return Err(invalid("max_participants", request.max_participants, "1 to 64")),
        };
        let music = self.music_when_alone(&request.music).await?;
        if let Some(music) = &music {
            // Each who joins may be the one who is alone later.
            self.encode_for(&request.session_id, side, &music.audio, true).await?;
        }
        let (session_id, conference) = (request.session_id.clone(), request.conference.clone());
        let joining = self.command(session_id.clone(), move |it, id| {
            let join = Join {
                conference: &request.conference,
                pin: &request.pin,
                participants_max,
                music,
                muted: request.muted,
                deaf: request.deaf,
            };
            it.relay.join_with(Instant::now(), id, side, join)
        });
        let (participants, call_id) = joining.await?;
        info!(%session_id, %call_id, ?side, conference, participants, "joined");
        Ok(about_call(
            &call_id,
            wire::JoinResponse { participants: messages::number(participants) },
        ))
    }

    async fn music_when_alone(&self, file: &str) -> Result<Option<Play>, Status> {
        if file.is_empty() {
            return Ok(None);
        }
        let audio = self.audio(file).await?;
        Ok(Some(Play {
            play_id: boot::new_id().as_str().into(),
            file: file.into(),
            audio,
            repeat: true,
            offset_ms: 0,
            radio: false,
        }))
    }

    pub(super) async fn update_one(
        &self,
        request: wire::UpdateParticipantRequest,
    ) -> Result<Response<wire::UpdateParticipantResponse>, Status> {
        let side = side("side", request.side)?;
        check_id("session_id", &request.session_id)?;
        let wire::UpdateParticipantRequest { session_id, muted, deaf, .. } = request;
        let updating = self.command(session_id.clone(), move |it, id| {
            it.relay.update_participant(Instant::now(), id, side, muted, deaf)
        });
        let (updated, call_id) = updating.await?;
        info!(%session_id, %call_id, ?side, updated.muted, updated.deaf, "participant updated");
        let participant = Some(messages::participant(updated));
        Ok(about_call(&call_id, wire::UpdateParticipantResponse { participant }))
    }

    pub(super) async fn kick_one(
        &self,
        request: wire::KickRequest,
    ) -> Result<Response<wire::KickResponse>, Status> {
        let side = side("side", request.side)?;
        let session_id = request.session_id;
        check_id("session_id", &session_id)?;
        let kicking = self.command(session_id.clone(), move |it, id| {
            it.relay.leave(Instant::now(), id, side, LeaveReason::Kicked)
        });
        let (kicked, call_id) = kicking.await?;
        info!(%session_id, %call_id, ?side, kicked, "kicked");
        Ok(about_call(&call_id, wire::KickResponse { kicked }))
    }

    pub(super) async fn list(
        &self,
        request: wire::ListConferencesRequest,
    ) -> Result<Response<wire::ListConferencesResponse>, Status> {
        let names = match request.conference {
            name if name.is_empty() => {
                let names = self.packets.call(|it| it.relay.conference_names());
                names.await.map_err(busy)?
            }
            name => vec![name.into()],
        };
        let mut conferences = Vec::new();
        for name in names {
            // One at a time, so that packets are not delayed.
            let found = self.packets.call(move |it| it.relay.conference(Instant::now(), &name));
            conferences.extend(found.await.map_err(busy)?.map(messages::conference));
        }
        Ok(Response::new(wire::ListConferencesResponse { conferences }))
    }
}
