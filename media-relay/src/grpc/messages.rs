//! What the core says, as messages.

use super::fields::wire_side;
use crate::packet_thread::{Happened, What};
use crate::recorder::Finished;
use media::Transport;
use media::{
    ConferenceStatus, EventKind, LeaveReason, ParticipantStatus, SessionStatus, SideStatus,
};
use proto::media_relay::v1 as wire;

/// Whom an event is for.
pub(super) fn owner(happened: &Happened) -> &str {
    match &happened.what {
        What::Media(event) => &event.owner,
        What::Recorded(finished) => &finished.about.owner,
    }
}

pub(super) fn event(happened: Happened) -> wire::MediaEvent {
    let at_unix_ms = happened.at_unix_ms;
    match happened.what {
        What::Media(event) => wire::MediaEvent {
            session_id: event.session_id.to_string(),
            call_id: event.call_id.to_string(),
            side: wire_side(event.side),
            at_unix_ms,
            ..event_of(event.kind)
        },
        What::Recorded(finished) => wire::MediaEvent {
            r#type: wire::MediaEventType::RecordingFinished.into(),
            session_id: finished.about.session_id.clone(),
            call_id: finished.about.call_id.clone(),
            side: finished.about.side.map_or(0, wire_side),
            at_unix_ms,
            recording: Some(recording(&finished)),
            ..wire::MediaEvent::default()
        },
    }
}

fn event_of(kind: EventKind) -> wire::MediaEvent {
    let none = wire::MediaEvent::default();
    let of = |r#type: wire::MediaEventType| wire::MediaEvent { r#type: r#type.into(), ..none };
    match kind {
        EventKind::Digit(digit, transport) => wire::MediaEvent {
            digit: digit.as_char().to_string(),
            transport: wire_transport(transport).into(),
            ..of(wire::MediaEventType::Digit)
        },
        // Its press was not told: see `EventKind`.
        EventKind::DigitReleased { digit, .. } => wire::MediaEvent {
            digit: digit.as_char().to_string(),
            transport: wire_transport(Transport::Rtp).into(),
            ..of(wire::MediaEventType::Digit)
        },
        EventKind::PlayFinished { play_id } => wire::MediaEvent {
            play_id: play_id.to_string(),
            ..of(wire::MediaEventType::PlayFinished)
        },
        EventKind::Inactive => of(wire::MediaEventType::Inactive),
        EventKind::Latched => of(wire::MediaEventType::Latched),
        EventKind::Joined { conference, participants } => wire::MediaEvent {
            conference: conference.to_string(),
            participants: number(participants),
            ..of(wire::MediaEventType::ParticipantJoined)
        },
        EventKind::Left { conference, participants, reason } => wire::MediaEvent {
            conference: conference.to_string(),
            participants: number(participants),
            leave_reason: wire_reason(reason).into(),
            ..of(wire::MediaEventType::ParticipantLeft)
        },
    }
}

fn wire_transport(transport: Transport) -> wire::DtmfTransport {
    match transport {
        Transport::Rtp => wire::DtmfTransport::Rtp,
        Transport::Info => wire::DtmfTransport::Info,
        Transport::Inband => wire::DtmfTransport::Inband,
    }
}

fn wire_reason(reason: LeaveReason) -> wire::LeaveReason {
    match reason {
        LeaveReason::Left => wire::LeaveReason::Left,
        LeaveReason::Kicked => wire::LeaveReason::Kicked,
        LeaveReason::Deleted => wire::LeaveReason::Deleted,
    }
}

pub(super) fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

pub(super) fn recording(finished: &Finished) -> wire::Recording {
    wire::Recording {
        recording_id: finished.about.recording_id.clone(),
        file: finished.about.file.clone(),
        duration_ms: finished.duration_ms,
        lost_ms: finished.lost_ms,
        error: finished.error.clone(),
    }
}

pub(super) fn conference(status: ConferenceStatus) -> wire::Conference {
    wire::Conference {
        name: status.name,
        participants: status.participants.into_iter().map(participant).collect(),
        max_participants: number(status.participants_max),
        has_pin: status.has_pin,
        sample_rate_hz: status.sample_rate_hz,
    }
}

pub(super) fn participant(status: ParticipantStatus) -> wire::Participant {
    wire::Participant {
        session_id: status.session_id.to_string(),
        call_id: status.call_id.to_string(),
        side: wire_side(status.side),
        muted: status.muted,
        deaf: status.deaf,
        speaking: status.speaking,
        joined_ms: u64::try_from(status.joined.as_millis()).unwrap_or(u64::MAX),
    }
}

pub(super) fn session(status: SessionStatus) -> wire::Session {
    wire::Session {
        session_id: status.session_id,
        call_id: status.call_id,
        owner: status.owner,
        sides: status.sides.into_iter().map(side_status).collect(),
        created_unix_ms: i64::try_from(status.created.as_millis()).unwrap_or(i64::MAX),
    }
}

pub(super) fn side_status(status: SideStatus) -> wire::SideStatus {
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
        detects_dtmf: status.detects_dtmf,
        comfort_noise_received: status.comfort_noise_received,
    }
}
