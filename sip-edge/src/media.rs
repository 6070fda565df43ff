//! media-relay: its commands, each with a deadline, and the stream of what it hears.

use crate::chain::{DEADLINE, Outcome, persistently};
use anyhow::Context as _;
use boot::Channel;
use bytes::Bytes;
use call::{Failure, FailureKind, MediaCommand, Reply, Side};
use futures::StreamExt as _;
use proto::media_relay::WARN_CODE;
use proto::media_relay::v1 as wire;
use proto::media_relay::v1::media_relay_client::MediaRelayClient;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tonic::{Code, Request, Status};
use tracing::{info, warn};

/// How long the watch waits before it connects again: doubled each time, up to the second.
const RECONNECT_DELAYS: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(2)];
/// The longest wait for an agent to be heard: the answer has to come within [`DEADLINE`].
pub(crate) const HEARD_WITHIN_MAX: Duration = Duration::from_millis(2_500);
/// Sessions that are compared with our calls after the watch has begun.
const SESSIONS_MAX: u32 = 10_000;

/// A client of one media-relay; cheap to clone.
#[derive(Clone)]
pub(crate) struct Media {
    client: MediaRelayClient<Channel>,
    /// Where it is.
    pub(crate) url: Arc<str>,
    /// Owner of our sessions.
    edge_name: Arc<str>,
    /// How long an agent who has answered may take to be heard; 0 asks for nothing.
    heard_within_ms: u32,
}

/// What the watch tells the loop.
#[derive(Debug)]
pub(crate) enum Watched {
    Digit {
        session_id: String,
        side: Side,
        digit: char,
    },
    PlayFinished {
        session_id: String,
        play_id: String,
    },
    Kicked {
        session_id: String,
        conference: String,
    },
    Inactive {
        session_id: String,
    },
    /// All sessions that the media-relay at `url` has of ours, asked at `asked`; nothing is missed from
    /// then on.
    Sessions {
        url: Arc<str>,
        asked: Instant,
        sessions: Vec<Session>,
    },
}

#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) session_id: String,
    pub(crate) call_id: String,
}

/// The session a command is about.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    pub(crate) session_id: String,
    pub(crate) call_id: String,
    /// Where SDP of leg A came from.
    pub(crate) signalling_source: String,
}

impl Media {
    /// `heard_within` is at most [`HEARD_WITHIN_MAX`].
    pub(crate) fn new(url: &str, edge_name: &str, heard_within: Duration) -> anyhow::Result<Self> {
        let client = MediaRelayClient::new(boot::channel("--media-relay", url)?);
        let heard_within_ms = u32::try_from(heard_within.as_millis()).unwrap_or(u32::MAX);
        Ok(Self { client, url: url.into(), edge_name: edge_name.into(), heard_within_ms })
    }

    /// The same of another media-relay.
    ///
    /// # Errors
    /// If the URL is none.
    pub(crate) fn at(&self, url: &str) -> anyhow::Result<Self> {
        Self::new(url, &self.edge_name, Duration::from_millis(self.heard_within_ms.into()))
    }

    /// Does one command; a `Delete` is tried again for a while.
    pub(crate) async fn perform(self, subject: Subject, command: MediaCommand) -> Outcome {
        match command {
            MediaCommand::Delete { side } => {
                persistently(|| self.clone().delete(subject.session_id.clone(), side)).await
            }
            MediaCommand::Offer { side, sdp, music } => {
                let music = music.unwrap_or_default();
                self.offer(subject, wire_side(side), sdp.unwrap_or_default(), music).await
            }
            command => self.perform_once(subject, command).await.map_err(failure),
        }
    }

    async fn offer(mut self, subject: Subject, side: i32, sdp: Bytes, music: String) -> Outcome {
        let Subject { session_id, call_id, signalling_source } = subject;
        let request = wire::OfferRequest {
            session_id: session_id.clone(),
            call_id,
            side,
            sdp: sdp.to_vec(),
            owner: self.edge_name.to_string(),
            signalling_source,
            music: music.clone(),
        };
        let reply = self.client.offer(timed(request)).await.map_err(failure)?.into_inner();
        if !music.is_empty() && reply.play_id.is_empty() {
            // A media-relay that is older than `music`. What it cannot play is no fault of the offer.
            let play = wire::PlayRequest {
                session_id,
                side,
                file: music,
                r#loop: true,
                ..wire::PlayRequest::default()
            };
            let played = self.client.play(timed(play)).await.map_err(failure);
            played.map_err(|e| Failure { kind: FailureKind::NotFound, ..e })?;
        }
        Ok(Reply::Offered { sdp: reply.sdp.into(), held: reply.held })
    }

    async fn delete(mut self, session_id: String, side: Option<Side>) -> Outcome {
        let side = side.map_or(0, wire_side);
        let request = wire::DeleteRequest { session_id, side };
        self.client.delete(timed(request)).await.map_err(failure)?;
        Ok(Reply::Done)
    }

    /// Makes us the owner of a session; tried again for a while.
    pub(crate) async fn adopt(self, session_id: String) -> Outcome {
        persistently(|| self.clone().adopt_once(session_id.clone())).await
    }

    async fn adopt_once(mut self, session_id: String) -> Outcome {
        let request = wire::AdoptRequest { session_id, owner: self.edge_name.to_string() };
        self.client.adopt(timed(request)).await.map_err(failure)?;
        Ok(Reply::Done)
    }

    async fn perform_once(
        mut self,
        subject: Subject,
        command: MediaCommand,
    ) -> Result<Reply, Status> {
        let Subject { session_id, .. } = subject;
        let client = &mut self.client;
        Ok(match command {
            MediaCommand::Answer { side, sdp } => {
                let side = wire_side(side);
                let request = wire::AnswerRequest { session_id, side, sdp: sdp.to_vec() };
                let reply = client.answer(timed(request)).await?.into_inner();
                Reply::Negotiated { held: reply.held }
            }
            MediaCommand::Play { side, file, looping } => {
                let side = wire_side(side);
                let request = wire::PlayRequest {
                    session_id,
                    side,
                    file,
                    r#loop: looping,
                    ..wire::PlayRequest::default()
                };
                let reply = client.play(timed(request)).await?.into_inner();
                let duration = Duration::from_millis(reply.duration_ms.into());
                Reply::Playing { play_id: reply.play_id, duration }
            }
            MediaCommand::Stop { side, leave_conference } => {
                let side = wire_side(side);
                let request = wire::StopRequest {
                    session_id,
                    side,
                    leave_conference,
                    ..wire::StopRequest::default()
                };
                client.stop(timed(request)).await?;
                Reply::Done
            }
            MediaCommand::Connect { when_heard } => {
                let heard_within_ms = if when_heard { self.heard_within_ms } else { 0 };
                let request = wire::ConnectRequest { session_id, heard_within_ms };
                let reply = client.connect(timed(request)).await?.into_inner();
                if reply.silent { Reply::Silent } else { Reply::Done }
            }
            MediaCommand::Join { side, conference } => {
                let side = wire_side(side);
                let request = wire::JoinRequest {
                    session_id,
                    side,
                    conference: conference.name.clone(),
                    pin: conference.pin.clone(),
                    max_participants: conference.participants_max,
                    music: conference.music.clone(),
                    ..wire::JoinRequest::default()
                };
                client.join(timed(request)).await?;
                Reply::Done
            }
            MediaCommand::InjectDtmf { side, digit, duration_ms } => {
                let (side, digit) = (wire_side(side), digit.to_string());
                let request = wire::InjectDtmfRequest { session_id, side, digit, duration_ms };
                client.inject_dtmf(timed(request)).await?;
                Reply::Done
            }
            MediaCommand::Offer { .. } | MediaCommand::Delete { .. } => {
                unreachable!("`perform` does these")
            }
        })
    }

    /// Tells `events` what media-relay hears in our sessions, for ever; connects again by itself.
    pub(crate) async fn watch(self, events: mpsc::Sender<Watched>) -> anyhow::Result<()> {
        let [mut delay, delay_max] = RECONNECT_DELAYS;
        let mut lost = false;
        loop {
            match self.clone().watch_until_lost(&events).await {
                Ok(()) => delay = RECONNECT_DELAYS[0],
                Err(e) if lost => tracing::debug!("failed to watch media-relay: {e:#}"),
                Err(e) => warn!("failed to watch media-relay, trying again: {e:#}"),
            }
            lost = true;
            tokio::time::sleep(delay).await;
            delay = (delay * 2).min(delay_max);
        }
    }

    /// `Ok` if it had begun.
    async fn watch_until_lost(mut self, events: &mpsc::Sender<Watched>) -> anyhow::Result<()> {
        let request = wire::WatchMediaRequest { owner: self.edge_name.to_string() };
        let stream = self.client.watch_media(request).await.context("watch media-relay")?;
        let mut stream = stream.into_inner();
        while let Some(event) = stream.next().await {
            let event = match event {
                Ok(event) => event,
                Err(e) => {
                    warn!(code = ?e.code(), "lost media-relay: {}", e.message());
                    break;
                }
            };
            let watched = match event.r#type() {
                wire::MediaEventType::Watching => {
                    info!("watching media-relay");
                    self.sessions().await?
                }
                _ => read(event),
            };
            if let Some(watched) = watched {
                let _ = events.send(watched).await; // Nobody reads when the process is ending.
            }
        }
        Ok(())
    }

    /// `None` if there are more than can be compared.
    async fn sessions(&mut self) -> anyhow::Result<Option<Watched>> {
        let asked = Instant::now();
        let request = wire::QueryRequest {
            session_id: String::new(),
            owner: self.edge_name.to_string(),
            limit: SESSIONS_MAX,
        };
        let reply = self.client.query(timed(request)).await.context("query media-relay")?;
        let reply = reply.into_inner();
        if reply.sessions.len() >= SESSIONS_MAX as usize {
            warn!("media-relay has {} sessions: too many to look for orphans", reply.total);
            return Ok(None);
        }
        let ours = reply.sessions.into_iter().filter(|it| it.owner == *self.edge_name);
        let sessions =
            ours.map(|it| Session { session_id: it.session_id, call_id: it.call_id }).collect();
        let url = self.url.clone();
        Ok(Some(Watched::Sessions { url, asked, sessions }))
    }
}

fn read(event: wire::MediaEvent) -> Option<Watched> {
    let side = match event.side() {
        wire::Side::A => Side::A,
        wire::Side::B => Side::B,
        wire::Side::Unspecified => return None,
    };
    let session_id = event.session_id.clone();
    match event.r#type() {
        wire::MediaEventType::Digit => {
            let digit = event.digit.chars().next()?;
            Some(Watched::Digit { session_id, side, digit })
        }
        wire::MediaEventType::PlayFinished => {
            Some(Watched::PlayFinished { session_id, play_id: event.play_id })
        }
        wire::MediaEventType::Inactive => Some(Watched::Inactive { session_id }),
        wire::MediaEventType::ParticipantLeft
            if side == Side::A && event.leave_reason() == wire::LeaveReason::Kicked =>
        {
            Some(Watched::Kicked { session_id, conference: event.conference })
        }
        _ => None, // LATCHED is for those who look for a fault.
    }
}

fn wire_side(side: Side) -> i32 {
    match side {
        Side::A => wire::Side::A.into(),
        Side::B => wire::Side::B.into(),
    }
}

fn timed<T>(request: T) -> Request<T> {
    let mut request = Request::new(request);
    request.set_timeout(DEADLINE);
    request
}

fn failure(status: Status) -> Failure {
    let warn_code = status.metadata().get(WARN_CODE);
    let kind = match status.code() {
        Code::FailedPrecondition if warn_code.is_some_and(|it| it == "301") => {
            FailureKind::NoAddressFamily
        }
        Code::FailedPrecondition => FailureKind::NoCodec,
        Code::InvalidArgument => FailureKind::Invalid,
        Code::NotFound => FailureKind::NotFound,
        Code::ResourceExhausted => FailureKind::Full,
        Code::PermissionDenied => FailureKind::Denied,
        _ => FailureKind::Unavailable,
    };
    Failure { kind, message: status.message().to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_acceptable_is_told_apart_by_its_warn_code() {
        let kind = |warn_code: Option<&str>| {
            let mut status = Status::failed_precondition("488 Not Acceptable Here: ...");
            if let Some(code) = warn_code {
                status.metadata_mut().insert(WARN_CODE, code.parse().unwrap());
            }
            failure(status).kind
        };
        assert_eq!(kind(Some("301")), FailureKind::NoAddressFamily);
        assert_eq!(kind(Some("305")), FailureKind::NoCodec);
        assert_eq!(kind(None), FailureKind::NoCodec, "a media-relay that is older");
    }
}
