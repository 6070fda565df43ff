//! Errors, as those who asked get them.

use crate::library::LoadError;
use crate::packet_thread::{Busy, OfferError};
use crate::recorder::OpenError;
use media::sdp::Refusal;
use media::{Error, JoinError, RecordingError, SendDigitsError};
use proto::media_relay::WARN_CODE;
use tonic::Status;

pub(super) fn busy(busy: Busy) -> Status {
    Status::resource_exhausted(busy.to_string())
}

pub(super) fn refused(refusal: &Refusal) -> Status {
    let Some(code) = refusal.warn_code() else {
        return Status::invalid_argument(format!("sdp: {refusal}"));
    };
    let message = format!("488 Not Acceptable Here: {refusal}");
    let mut status = Status::failed_precondition(message);
    status.metadata_mut().insert(WARN_CODE, code.into());
    status
}

pub(super) fn failed(error: Error) -> Status {
    let message = error.to_string();
    match error {
        Error::NoSession(_) | Error::NoSide { .. } => Status::not_found(message),
        Error::Missing(_) | Error::Play(_) => Status::invalid_argument(message),
        Error::SessionsUsedUp { .. }
        | Error::Ports(_)
        | Error::Join(JoinError::Full { .. })
        | Error::SendDigits(SendDigitsError::TooManyWait { .. })
        | Error::Recording(RecordingError::TooMany) => Status::resource_exhausted(message),
        Error::Join(JoinError::WrongPin) => Status::permission_denied(message),
        Error::SendDigits(SendDigitsError::NotNegotiated) | Error::NotInConference { .. } => {
            Status::failed_precondition(message)
        }
        Error::SendDigits(_) => Status::invalid_argument(message),
        Error::Recording(RecordingError::Exists(_)) => Status::already_exists(message),
        Error::Recording(RecordingError::Missing(_)) => Status::not_found(message),
        Error::Deleted(_) => Status::aborted(message),
        Error::NoOpenOffer { .. } | Error::NotNegotiated { .. } => {
            Status::failed_precondition(message)
        }
        Error::Refused(refusal) => refused(&refusal),
    }
}

pub(super) fn offer_failed(error: OfferError) -> Status {
    match error {
        OfferError::Relay(error) => failed(error),
        OfferError::Bind(_) | OfferError::PortsTaken => {
            Status::resource_exhausted(error.to_string())
        }
    }
}

pub(super) fn load_failed(error: &LoadError) -> Status {
    match error {
        LoadError::Name { .. } | LoadError::Unusable { .. } => {
            Status::invalid_argument(error.to_string())
        }
        LoadError::NotFound { .. } => Status::not_found(error.to_string()),
        LoadError::MemoryUsedUp { .. } => Status::resource_exhausted(error.to_string()),
    }
}

pub(super) fn open_failed(error: &OpenError) -> Status {
    match error {
        OpenError::NoFolder => Status::failed_precondition(error.to_string()),
        OpenError::Exists(_) => Status::already_exists(error.to_string()),
        OpenError::TooMany | OpenError::Io { .. } => Status::resource_exhausted(error.to_string()),
    }
}
