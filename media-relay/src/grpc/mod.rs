//! The API of `media_relay.proto`: requests become commands to the packet thread.

mod command;
mod conferences;
mod connecting;
mod fields;
mod messages;
mod playing;
mod recordings;
mod refusals;

use crate::library::Library;
use crate::metrics;
use crate::packet_thread::{EVENTS_BEHIND_MAX, Handle};
use crate::recorder::Recorder;
use boot::about_call;
use fields::{check_id, check_len, invalid, side};
use futures::stream::{self, BoxStream, StreamExt as _};
use media::sdp::Remote;
use media::{Audio, Detection, Digit, Error, LeaveReason, Offer, SendDigits};
use messages::{event, owner, session};
use playing::{Prepared, unplayable};
use proto::media_relay::v1 as wire;
use proto::media_relay::v1::media_relay_server::MediaRelay;
use refusals::{busy, failed, load_failed, offer_failed, refused};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::watch;
use tokio_stream::wrappers::BroadcastStream;
use tonic::{Request, Response, Status};
use tracing::{debug, info};

/// Sessions that a query returns, at most and by default.
const QUERY_LIMIT_MAX: u32 = 10_000;
const QUERY_LIMIT_DEFAULT: u32 = 1_000;
/// Sessions that a query takes from the packet thread at a time, so that packets are not delayed.
const QUERY_PAGE: usize = 100;
/// Longest digit of a SIP INFO, in ms.
const DIGIT_MS_MAX: u32 = 60_000;
/// How long a digit is sent, and the pause after it, unless the request says so, in ms.
const DIGIT_MS: u32 = 100;
const PAUSE_MS: u32 = 50;

pub(crate) struct Grpc {
    packets: Handle,
    files: Library,
    recorder: Recorder,
    draining: watch::Receiver<bool>,
}

impl Grpc {
    pub(crate) fn new(
        packets: Handle,
        files: Library,
        recorder: Recorder,
        draining: watch::Receiver<bool>,
    ) -> Self {
        Self { packets, files, recorder, draining }
    }

    /// What is in a file.
    async fn audio(&self, file: &str) -> Result<Arc<Audio>, Status> {
        self.files.load(file).await.map_err(|e| load_failed(&e))
    }
}

#[tonic::async_trait]
impl MediaRelay for Grpc {
    async fn offer(
        &self,
        request: Request<wire::OfferRequest>,
    ) -> Result<Response<wire::OfferResponse>, Status> {
        let request = request.into_inner();
        let side = side("side", request.side)?;
        check_id("session_id", &request.session_id)?;
        check_len("call_id", &request.call_id)?;
        check_len("owner", &request.owner)?;
        let remote = match request.sdp.as_slice() {
            [] => None,
            sdp => Some(Remote::parse(sdp).map_err(|e| refused(&e))?),
        };
        let source = request.signalling_source.parse().ok();
        let remote = remote.map(|it| it.signalled_from(source));
        let (session_id, call_id) = (request.session_id.clone(), request.call_id.clone());
        let music = self.prepare_music(side, &request.music).await;
        let (file, to_begin) = (request.music.clone(), music.clone().ok().flatten());
        let draining = *self.draining.borrow();
        let offered = self.packets.call(move |thread| {
            let session_id = request.session_id.as_str();
            if draining && !thread.relay.has_session(session_id) {
                return None;
            }
            let (call_id, owner) = (request.call_id.as_str(), request.owner.as_str());
            let described = thread.offer(Offer { session_id, call_id, owner, side, remote });
            let begin = |it: Prepared| it.begin(&mut thread.relay, session_id);
            Some(described.map(|it| (it, to_begin.map(begin).transpose())))
        });
        let (described, begun) = offered
            .await
            .map_err(busy)?
            .ok_or_else(|| Status::unavailable("draining: no new media sessions"))?
            .map_err(offer_failed)?;
        let codec = described.codec.map_or("", |it| it.rtpmap());
        info!(%session_id, %call_id, ?side, codec, held = described.held, "negotiated");
        debug!(%session_id, %call_id, ?side, signalling_source = %request.signalling_source, "offer's source");
        let mut play_id = String::new();
        if let Some(music) = music? {
            play_id = music.play.play_id.to_string();
            let missing = begun.map_err(failed).map_err(|e| unplayable(&file, e))?.flatten();
            let completed = self.complete(session_id.clone(), music, missing).await;
            completed.map_err(|e| unplayable(&file, e))?;
            info!(%session_id, %call_id, ?side, file, repeat = true, "playing");
        }
        Ok(Response::new(wire::OfferResponse {
            sdp: described.sdp,
            codec: codec.to_owned(),
            held: described.held,
            play_id,
        }))
    }

    async fn answer(
        &self,
        request: Request<wire::AnswerRequest>,
    ) -> Result<Response<wire::AnswerResponse>, Status> {
        let request = request.into_inner();
        let side = side("side", request.side)?;
        check_id("session_id", &request.session_id)?;
        let remote = Remote::parse(&request.sdp).map_err(|e| refused(&e))?;
        let session_id = request.session_id;
        let answering = self.command(session_id.clone(), move |it, id| {
            it.relay.answer(Instant::now(), id, side, remote)
        });
        let (described, call_id) = answering.await?;
        let codec = described.codec.map_or("", |it| it.rtpmap());
        info!(%session_id, %call_id, ?side, codec, held = described.held, "answered");
        Ok(about_call(
            &call_id,
            wire::AnswerResponse { codec: codec.to_owned(), held: described.held },
        ))
    }

    async fn delete(
        &self,
        request: Request<wire::DeleteRequest>,
    ) -> Result<Response<wire::DeleteResponse>, Status> {
        let request = request.into_inner();
        check_id("session_id", &request.session_id)?;
        let side = match request.side {
            0 => None,
            number => Some(side("side", number)?),
        };
        let session_id = request.session_id;
        let id = session_id.clone();
        let deleting = self.packets.call(move |it| (it.relay.call_id(&id), it.delete(&id, side)));
        let (call_id, existed) = deleting.await.map_err(busy)?;
        let response = wire::DeleteResponse { existed };
        let Some(call_id) = call_id else { return Ok(Response::new(response)) };
        info!(%session_id, %call_id, ?side, existed, "deleted");
        Ok(about_call(&call_id, response))
    }

    async fn query(
        &self,
        request: Request<wire::QueryRequest>,
    ) -> Result<Response<wire::QueryResponse>, Status> {
        let wire::QueryRequest { session_id, owner, limit } = request.into_inner();
        let limit = match limit {
            0 => QUERY_LIMIT_DEFAULT,
            1..=QUERY_LIMIT_MAX => limit,
            _ => return Err(invalid("limit", limit, "1 to 10000")),
        };
        if !session_id.is_empty() {
            let name = session_id.clone();
            let found = self.packets.call(move |it| it.relay.session(Instant::now(), &session_id));
            let found = found.await.map_err(busy)?.ok_or(Error::NoSession(name)).map_err(failed)?;
            return Ok(Response::new(wire::QueryResponse {
                sessions: vec![session(found)],
                total: 1,
            }));
        }
        let (sessions, total) = self.query_all(owner, limit as usize).await?;
        Ok(Response::new(wire::QueryResponse { sessions, total }))
    }

    async fn play(
        &self,
        request: Request<wire::PlayRequest>,
    ) -> Result<Response<wire::PlayResponse>, Status> {
        let request = request.into_inner();
        let side = side("side", request.side)?;
        let (response, call_id) = self.begin_playing(&request, side).await?;
        let wire::PlayRequest { session_id, file, r#loop: repeat, .. } = request;
        info!(%session_id, %call_id, ?side, file, repeat, "playing");
        Ok(about_call(&call_id, response))
    }

    async fn stop(
        &self,
        request: Request<wire::StopRequest>,
    ) -> Result<Response<wire::StopResponse>, Status> {
        let request = request.into_inner();
        let side = side("side", request.side)?;
        check_id("session_id", &request.session_id)?;
        let wire::StopRequest { session_id, play_id, leave_conference, .. } = request;
        let stopping = self.command(session_id.clone(), move |it, id| {
            let now = Instant::now();
            if leave_conference {
                it.relay.leave(now, id, side, LeaveReason::Left)?;
            }
            match play_id.as_str() {
                "" => it.relay.stop(now, id, side),
                play_id => it.relay.stop_one(now, id, side, play_id),
            }
        });
        let (stopped, call_id) = stopping.await?;
        info!(%session_id, %call_id, ?side, stopped, "stopped playing");
        Ok(about_call(&call_id, wire::StopResponse { stopped }))
    }

    async fn adopt(
        &self,
        request: Request<wire::AdoptRequest>,
    ) -> Result<Response<wire::AdoptResponse>, Status> {
        let wire::AdoptRequest { session_id, owner } = request.into_inner();
        check_id("session_id", &session_id)?;
        check_id("owner", &owner)?;
        let new = owner.clone();
        let adopting = self.command(session_id.clone(), move |it, id| it.relay.adopt(id, &new));
        let ((), call_id) = adopting.await?;
        info!(%session_id, %call_id, %owner, "has another owner");
        Ok(about_call(&call_id, wire::AdoptResponse {}))
    }

    async fn connect(
        &self,
        request: Request<wire::ConnectRequest>,
    ) -> Result<Response<wire::ConnectResponse>, Status> {
        let wire::ConnectRequest { session_id, heard_within_ms } = request.into_inner();
        check_id("session_id", &session_id)?;
        if heard_within_ms > 0 {
            return self.connect_when_heard(session_id, heard_within_ms).await;
        }
        let connecting =
            self.command(session_id.clone(), |it, id| it.relay.connect(Instant::now(), id));
        let ((), call_id) = connecting.await?;
        info!(%session_id, %call_id, "connected");
        Ok(about_call(&call_id, wire::ConnectResponse { silent: false }))
    }

    async fn join(
        &self,
        request: Request<wire::JoinRequest>,
    ) -> Result<Response<wire::JoinResponse>, Status> {
        self.join_conference(request.into_inner()).await
    }

    async fn inject_dtmf(
        &self,
        request: Request<wire::InjectDtmfRequest>,
    ) -> Result<Response<wire::InjectDtmfResponse>, Status> {
        let request = request.into_inner();
        let side = side("side", request.side)?;
        check_id("session_id", &request.session_id)?;
        let digit: Digit = request
            .digit
            .parse()
            .map_err(|_| invalid("digit", &request.digit, "one of 0-9 * # A-D"))?;
        if request.duration_ms > DIGIT_MS_MAX {
            return Err(invalid("duration_ms", request.duration_ms, "0 to 60000"));
        }
        let counted = self
            .packets
            .call(move |it| it.relay.inject_dtmf(Instant::now(), &request.session_id, side, digit))
            .await
            .map_err(busy)?
            .map_err(failed)?;
        Ok(Response::new(wire::InjectDtmfResponse { counted }))
    }

    async fn update_participant(
        &self,
        request: Request<wire::UpdateParticipantRequest>,
    ) -> Result<Response<wire::UpdateParticipantResponse>, Status> {
        self.update_one(request.into_inner()).await
    }

    async fn kick(
        &self,
        request: Request<wire::KickRequest>,
    ) -> Result<Response<wire::KickResponse>, Status> {
        self.kick_one(request.into_inner()).await
    }

    async fn list_conferences(
        &self,
        request: Request<wire::ListConferencesRequest>,
    ) -> Result<Response<wire::ListConferencesResponse>, Status> {
        self.list(request.into_inner()).await
    }

    async fn send_dtmf(
        &self,
        request: Request<wire::SendDtmfRequest>,
    ) -> Result<Response<wire::SendDtmfResponse>, Status> {
        let wire::SendDtmfRequest { session_id, side: number, digits, duration_ms, pause_ms } =
            request.into_inner();
        let side = side("side", number)?;
        check_id("session_id", &session_id)?;
        check_len("digits", &digits)?;
        let parsed: Result<Vec<Digit>, _> =
            digits.chars().map(|it| it.encode_utf8(&mut [0; 4]).parse()).collect();
        let parsed = parsed.map_err(|_| invalid("digits", &digits, "1 to 64 of 0-9 * # A-D"))?;
        let or = |ms: u32, default: u32| if ms == 0 { default } else { ms };
        let (duration_ms, pause_ms) = (or(duration_ms, DIGIT_MS), or(pause_ms, PAUSE_MS));
        let send = SendDigits::new(parsed, duration_ms, pause_ms)
            .map_err(|e| Status::invalid_argument(e.to_string()))?;
        let sending = self.command(session_id.clone(), move |it, id| {
            it.relay.send_dtmf(Instant::now(), id, side, &send)
        });
        let (done_in_ms, call_id) = sending.await?;
        info!(%session_id, %call_id, ?side, done_in_ms, "sending digits");
        Ok(about_call(&call_id, wire::SendDtmfResponse { done_in_ms }))
    }

    async fn detect_dtmf(
        &self,
        request: Request<wire::DetectDtmfRequest>,
    ) -> Result<Response<wire::DetectDtmfResponse>, Status> {
        let wire::DetectDtmfRequest { session_id, side: number, detection } = request.into_inner();
        let side = side("side", number)?;
        check_id("session_id", &session_id)?;
        let detection = match wire::DtmfDetection::try_from(detection) {
            Ok(wire::DtmfDetection::Auto) => Detection::Auto,
            Ok(wire::DtmfDetection::Off) => Detection::Off,
            Ok(wire::DtmfDetection::On) => Detection::On,
            Ok(wire::DtmfDetection::Unspecified) | Err(_) => {
                let wanted = "DTMF_DETECTION_AUTO, _OFF or _ON";
                return Err(invalid("detection", detection, wanted));
            }
        };
        let detected =
            self.packets.call(move |it| it.relay.detect_dtmf(&session_id, side, detection));
        detected.await.map_err(busy)?.map_err(failed)?;
        Ok(Response::new(wire::DetectDtmfResponse {}))
    }

    async fn start_recording(
        &self,
        request: Request<wire::StartRecordingRequest>,
    ) -> Result<Response<wire::StartRecordingResponse>, Status> {
        self.start(request.into_inner()).await
    }

    async fn stop_recording(
        &self,
        request: Request<wire::StopRecordingRequest>,
    ) -> Result<Response<wire::StopRecordingResponse>, Status> {
        self.stop_one_recording(request.into_inner().session_id).await
    }

    type WatchMediaStream = BoxStream<'static, Result<wire::MediaEvent, Status>>;

    async fn watch_media(
        &self,
        request: Request<wire::WatchMediaRequest>,
    ) -> Result<Response<Self::WatchMediaStream>, Status> {
        let wanted = request.into_inner().owner;
        let watching = wire::MediaEvent {
            r#type: wire::MediaEventType::Watching.into(),
            at_unix_ms: boot::unix_ms(),
            ..wire::MediaEvent::default()
        };
        let events = BroadcastStream::new(self.packets.watch());
        let events = events.filter_map(move |happened| {
            let event = match happened {
                Ok(it) if wanted.is_empty() || owner(&it) == wanted => Some(Ok(event(it))),
                Ok(_) => None,
                Err(_lagged) => {
                    metrics::count_watcher_lost();
                    let behind = format!("fell more than {EVENTS_BEHIND_MAX} events behind");
                    Some(Err(Status::resource_exhausted(behind)))
                }
            };
            std::future::ready(event)
        });
        let events = stream::once(async { Ok(watching) }).chain(events);
        Ok(Response::new(until_first_error(events).boxed()))
    }
}

impl Grpc {
    /// The oldest sessions, page by page; and how many there are.
    async fn query_all(
        &self,
        owner: String,
        limit: usize,
    ) -> Result<(Vec<wire::Session>, u32), Status> {
        let mut sessions: Vec<wire::Session> = Vec::new();
        let mut cursor = None;
        loop {
            let page = QUERY_PAGE.min(limit - sessions.len());
            let name = owner.clone();
            let found = self
                .packets
                .call(move |it| it.relay.sessions_after(Instant::now(), cursor, &name, page));
            let found = found.await.map_err(busy)?;
            let is_last = found.len() < page || sessions.len() + found.len() == limit;
            cursor = found.last().map(|it| it.cursor);
            sessions.extend(found.into_iter().map(session));
            if is_last {
                break;
            }
        }
        let counted = self.packets.call(move |it| it.relay.count_sessions(&owner));
        let total = counted.await.map_err(busy)?;
        Ok((sessions, u32::try_from(total).unwrap_or(u32::MAX)))
    }
}

/// Ends a stream after its first error: the reader has missed something.
fn until_first_error<T: Send + 'static>(
    events: impl futures::Stream<Item = Result<T, Status>> + Send + 'static,
) -> impl futures::Stream<Item = Result<T, Status>> + Send + 'static {
    events.scan(false, |failed, event| {
        let ended = std::mem::replace(failed, event.is_err());
        std::future::ready((!ended).then_some(event))
    })
}
