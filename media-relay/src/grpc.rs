//! The API of `media_relay.proto`: requests become commands to the packet thread.

use crate::library::{Library, LoadError};
use crate::metrics;
use crate::packet_thread::{Busy, EVENTS_BEHIND_MAX, Handle, Happened, OfferError};
use futures::stream::{self, BoxStream, StreamExt as _};
use media::sdp::{Refusal, Remote};
use media::{Digit, Error, EventKind, Offer, Play, SessionStatus, Side, SideStatus};
use proto::media_relay::v1 as wire;
use proto::media_relay::v1::media_relay_server::MediaRelay;
use std::time::Instant;
use tokio::sync::watch;
use tokio_stream::wrappers::BroadcastStream;
use tonic::{Request, Response, Status};
use tracing::{debug, info};

/// Longest id of a session, call or owner, in bytes.
const ID_BYTES_MAX: usize = 128;
/// Longest name of a conference.
const CONFERENCE_BYTES_MAX: usize = 64;
/// Sessions that a query returns, at most and by default.
const QUERY_LIMIT_MAX: u32 = 10_000;
const QUERY_LIMIT_DEFAULT: u32 = 1_000;
/// Sessions that a query takes from the packet thread at a time, so that packets are not delayed.
const QUERY_PAGE: usize = 100;
/// Longest digit of a SIP INFO, in ms.
const DIGIT_MS_MAX: u32 = 60_000;

pub(crate) struct Grpc {
    packets: Handle,
    library: Library,
    draining: watch::Receiver<bool>,
}

impl Grpc {
    pub(crate) fn new(packets: Handle, library: Library, draining: watch::Receiver<bool>) -> Self {
        Self { packets, library, draining }
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
        let draining = *self.draining.borrow();
        let (session_id, call_id) = (request.session_id.clone(), request.call_id.clone());
        let offered = self.packets.call(move |thread| {
            let session_id = request.session_id.as_str();
            if draining && !thread.relay.has_session(session_id) {
                return None;
            }
            let (call_id, owner) = (request.call_id.as_str(), request.owner.as_str());
            Some(thread.offer(Offer { session_id, call_id, owner, side, remote }))
        });
        let described = offered
            .await
            .map_err(busy)?
            .ok_or_else(|| Status::unavailable("draining: no new media sessions"))?
            .map_err(offer_failed)?;
        let codec = described.codec.map_or("", |it| it.rtpmap());
        info!(%session_id, %call_id, ?side, codec, held = described.held, "negotiated");
        debug!(%session_id, ?side, signalling_source = %request.signalling_source, "offer's source");
        Ok(Response::new(wire::OfferResponse {
            sdp: described.sdp,
            codec: codec.to_owned(),
            held: described.held,
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
        let session_id = request.session_id.clone();
        let described = self
            .packets
            .call(move |it| it.relay.answer(Instant::now(), &request.session_id, side, remote))
            .await
            .map_err(busy)?
            .map_err(failed)?;
        let codec = described.codec.map_or("", |it| it.rtpmap());
        info!(%session_id, ?side, codec, held = described.held, "answered");
        Ok(Response::new(wire::AnswerResponse { codec: codec.to_owned(), held: described.held }))
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
        let session_id = request.session_id.clone();
        let existed = self
            .packets
            .call(move |it| it.delete(&request.session_id, side))
            .await
            .map_err(busy)?;
        info!(%session_id, ?side, existed, "deleted");
        Ok(Response::new(wire::DeleteResponse { existed }))
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
        check_id("session_id", &request.session_id)?;
        let audio = self.library.load(&request.file).await.map_err(|e| load_failed(&e))?;
        let duration_ms = audio.duration_ms();
        let play_id = boot::new_id();
        let play = Play {
            play_id: play_id.as_str().into(),
            file: request.file.as_str().into(),
            audio,
            repeat: request.r#loop,
            offset_ms: request.offset_ms,
        };
        let session_id = request.session_id.clone();
        self.packets
            .call(move |it| it.relay.play(Instant::now(), &request.session_id, side, play))
            .await
            .map_err(busy)?
            .map_err(failed)?;
        info!(%session_id, ?side, file = request.file, repeat = request.r#loop, "playing");
        Ok(Response::new(wire::PlayResponse { play_id, duration_ms }))
    }

    async fn stop(
        &self,
        request: Request<wire::StopRequest>,
    ) -> Result<Response<wire::StopResponse>, Status> {
        let request = request.into_inner();
        let side = side("side", request.side)?;
        check_id("session_id", &request.session_id)?;
        let session_id = request.session_id.clone();
        let stopped = self
            .packets
            .call(move |it| {
                let now = Instant::now();
                if request.leave_conference {
                    it.relay.leave(now, &request.session_id, side)?;
                }
                it.relay.stop(now, &request.session_id, side)
            })
            .await
            .map_err(busy)?
            .map_err(failed)?;
        info!(%session_id, ?side, stopped, "stopped playing");
        Ok(Response::new(wire::StopResponse { stopped }))
    }

    async fn connect(
        &self,
        request: Request<wire::ConnectRequest>,
    ) -> Result<Response<wire::ConnectResponse>, Status> {
        let session_id = request.into_inner().session_id;
        check_id("session_id", &session_id)?;
        let id = session_id.clone();
        self.packets
            .call(move |it| it.relay.connect(Instant::now(), &id))
            .await
            .map_err(busy)?
            .map_err(failed)?;
        info!(%session_id, "connected");
        Ok(Response::new(wire::ConnectResponse {}))
    }

    async fn join(
        &self,
        request: Request<wire::JoinRequest>,
    ) -> Result<Response<wire::JoinResponse>, Status> {
        let wire::JoinRequest { session_id, side: number, conference, .. } = request.into_inner();
        let side = side("side", number)?;
        check_id("session_id", &session_id)?;
        let is_plain = |it: u8| it.is_ascii_alphanumeric() || b"_.-".contains(&it);
        if !(1..=CONFERENCE_BYTES_MAX).contains(&conference.len())
            || !conference.bytes().all(is_plain)
        {
            return Err(invalid("conference", conference, "1 to 64 of [A-Za-z0-9_.-]"));
        }
        let (id, name) = (session_id.clone(), conference.clone());
        let participants = self
            .packets
            .call(move |it| it.relay.join(Instant::now(), &id, side, &name))
            .await
            .map_err(busy)?
            .map_err(failed)?;
        info!(%session_id, ?side, conference, participants, "joined");
        let participants = u32::try_from(participants).unwrap_or(u32::MAX);
        Ok(Response::new(wire::JoinResponse { participants }))
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
        _: Request<wire::UpdateParticipantRequest>,
    ) -> Result<Response<wire::UpdateParticipantResponse>, Status> {
        Err(Status::unimplemented("not yet"))
    }

    async fn kick(
        &self,
        _: Request<wire::KickRequest>,
    ) -> Result<Response<wire::KickResponse>, Status> {
        Err(Status::unimplemented("not yet"))
    }

    async fn list_conferences(
        &self,
        _: Request<wire::ListConferencesRequest>,
    ) -> Result<Response<wire::ListConferencesResponse>, Status> {
        Err(Status::unimplemented("not yet"))
    }

    async fn send_dtmf(
        &self,
        _: Request<wire::SendDtmfRequest>,
    ) -> Result<Response<wire::SendDtmfResponse>, Status> {
        Err(Status::unimplemented("not yet"))
    }

    async fn detect_dtmf(
        &self,
        _: Request<wire::DetectDtmfRequest>,
    ) -> Result<Response<wire::DetectDtmfResponse>, Status> {
        Err(Status::unimplemented("not yet"))
    }

    async fn start_recording(
        &self,
        _: Request<wire::StartRecordingRequest>,
    ) -> Result<Response<wire::StartRecordingResponse>, Status> {
        Err(Status::unimplemented("not yet"))
    }

    async fn stop_recording(
        &self,
        _: Request<wire::StopRecordingRequest>,
    ) -> Result<Response<wire::StopRecordingResponse>, Status> {
        Err(Status::unimplemented("not yet"))
    }

    type WatchMediaStream = BoxStream<'static, Result<wire::MediaEvent, Status>>;

    async fn watch_media(
        &self,
        request: Request<wire::WatchMediaRequest>,
    ) -> Result<Response<Self::WatchMediaStream>, Status> {
        let owner = request.into_inner().owner;
        let watching = wire::MediaEvent {
            r#type: wire::MediaEventType::Watching.into(),
            at_unix_ms: boot::unix_ms(),
            ..wire::MediaEvent::default()
        };
        let events = BroadcastStream::new(self.packets.watch());
        let events = events.filter_map(move |happened| {
            let event = match happened {
                Ok(it) if owner.is_empty() || *it.event.owner == *owner => Some(Ok(event(it))),
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

fn side(field: &'static str, number: i32) -> Result<Side, Status> {
    match wire::Side::try_from(number) {
        Ok(wire::Side::A) => Ok(Side::A),
        Ok(wire::Side::B) => Ok(Side::B),
        Ok(wire::Side::Unspecified) | Err(_) => Err(invalid(field, number, "SIDE_A or SIDE_B")),
    }
}

fn wire_side(side: Side) -> i32 {
    match side {
        Side::A => wire::Side::A.into(),
        Side::B => wire::Side::B.into(),
    }
}

fn check_id(field: &'static str, value: &str) -> Result<(), Status> {
    match value {
        "" => Err(invalid(field, value, "a UUID")),
        value => check_len(field, value),
    }
}

fn check_len(field: &'static str, value: &str) -> Result<(), Status> {
    if value.len() > ID_BYTES_MAX {
        return Err(invalid(field, &value[..value.floor_char_boundary(40)], "at most 128 bytes"));
    }
    Ok(())
}

fn invalid(field: &str, got: impl std::fmt::Debug, wanted: &str) -> Status {
    Status::invalid_argument(format!("{field} is {got:?}; wanted {wanted}"))
}

fn busy(busy: Busy) -> Status {
    Status::resource_exhausted(busy.to_string())
}

fn refused(refusal: &Refusal) -> Status {
    match refusal.is_not_acceptable() {
        true => Status::failed_precondition(format!("488 Not Acceptable Here: {refusal}")),
        false => Status::invalid_argument(format!("sdp: {refusal}")),
    }
}

fn failed(error: Error) -> Status {
    let message = error.to_string();
    match error {
        Error::NoSession(_) | Error::NoSide { .. } => Status::not_found(message),
        Error::Missing(_) | Error::Play(_) => Status::invalid_argument(message),
        Error::SessionsUsedUp { .. } | Error::Ports(_) | Error::ConferenceFull(_) => {
            Status::resource_exhausted(message)
        }
        Error::Deleted(_) => Status::aborted(message),
        Error::NoOpenOffer { .. } | Error::NotNegotiated { .. } => {
            Status::failed_precondition(message)
        }
        Error::Refused(refusal) => refused(&refusal),
    }
}

fn offer_failed(error: OfferError) -> Status {
    match error {
        OfferError::Relay(error) => failed(error),
        OfferError::Bind(_) | OfferError::PortsTaken => {
            Status::resource_exhausted(error.to_string())
        }
    }
}

fn load_failed(error: &LoadError) -> Status {
    match error {
        LoadError::Name { .. } | LoadError::Unusable { .. } => {
            Status::invalid_argument(error.to_string())
        }
        LoadError::NotFound { .. } => Status::not_found(error.to_string()),
        LoadError::MemoryUsedUp { .. } => Status::resource_exhausted(error.to_string()),
    }
}

fn event(happened: Happened) -> wire::MediaEvent {
    let Happened { event, at_unix_ms } = happened;
    let (r#type, digit, play_id) = match event.kind {
        EventKind::Digit(digit) => {
            (wire::MediaEventType::Digit, digit.as_char().to_string(), String::new())
        }
        EventKind::PlayFinished { play_id } => {
            (wire::MediaEventType::PlayFinished, String::new(), play_id.to_string())
        }
        EventKind::Inactive => (wire::MediaEventType::Inactive, String::new(), String::new()),
        EventKind::Latched => (wire::MediaEventType::Latched, String::new(), String::new()),
    };
    wire::MediaEvent {
        r#type: r#type.into(),
        session_id: event.session_id.to_string(),
        call_id: event.call_id.to_string(),
        side: wire_side(event.side),
        digit,
        play_id,
        at_unix_ms,
        ..wire::MediaEvent::default()
    }
}

fn session(status: SessionStatus) -> wire::Session {
    wire::Session {
        session_id: status.session_id,
        call_id: status.call_id,
        owner: status.owner,
        sides: status.sides.into_iter().map(side_status).collect(),
        created_unix_ms: i64::try_from(status.created.as_millis()).unwrap_or(i64::MAX),
    }
}

fn side_status(status: SideStatus) -> wire::SideStatus {
    let address = |it: Option<std::net::SocketAddr>| it.map_or(String::new(), |it| it.to_string());
    let discarded = status.discards.iter().map(|(it, count)| (it.label().to_owned(), count));
    let (file, offset_ms) = status.file.unwrap_or_default();
    wire::SideStatus {
        side: wire_side(status.side),
        rtp_port: status.rtp_port.into(),
        codec: status.codec.map_or("", |it| it.rtpmap()).to_owned(),
        signalled_address: address(status.signalled),
        latched_address: address(status.latched),
        hears: status.hears,
        file,
        offset_ms,
        packets_received: status.packets_received,
        packets_sent: status.packets_sent,
        discarded: discarded.collect(),
        remote_fraction_lost: status.remote_fraction_lost.into(),
        jitter_us: status.jitter_us,
        silent_ms: u32::try_from(status.silent.as_millis()).unwrap_or(u32::MAX),
        ..wire::SideStatus::default()
    }
}
