//! Hangup causes: Q.850 names and FreeSWITCH's additional ones, and what SIP says for them.
//!
//! The `Reason` header field (RFC 3326) has room for a Q.850 number only up to 127. A cause above
//! that is written with the Q.850 number nearest in meaning and its own name as the text, e.g.
//! `Q.850;cause=102;text="ALLOTTED_TIMEOUT"`, so that every reader gets a valid number and one who
//! knows the name gets the whole truth.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The `Reason` for a phone that need not ring any more because another one was answered: it shows no
/// missed call (RFC 3326 §3.1).
pub const COMPLETED_ELSEWHERE: &str = "SIP;cause=200;text=\"Call completed elsewhere\"";

/// Makes the enum and its table: variant, name, number, Q.850 number, status of an unanswered leg.
macro_rules! causes {
    ($($variant:ident $name:ident $number:literal $q850:literal $status:literal)*) => {
        /// Why a call, or a leg of it, has ended.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Cause { $($variant),* }

        impl Serialize for Cause {
            /// Its name.
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                self.name().serialize(serializer)
            }
        }

        impl Cause {
            /// All causes, by number.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            fn row(self) -> (&'static str, u16, u8, u16) {
                match self { $(Self::$variant => (stringify!($name), $number, $q850, $status)),* }
            }
        }
    };
}

causes! {
    UnallocatedNumber UNALLOCATED_NUMBER 1 1 404
    NoRouteTransitNet NO_ROUTE_TRANSIT_NET 2 2 404
    NoRouteDestination NO_ROUTE_DESTINATION 3 3 404
    ChannelUnacceptable CHANNEL_UNACCEPTABLE 6 6 480
    CallAwardedDelivered CALL_AWARDED_DELIVERED 7 7 480
    NormalClearing NORMAL_CLEARING 16 16 480
    UserBusy USER_BUSY 17 17 486
    NoUserResponse NO_USER_RESPONSE 18 18 408
    NoAnswer NO_ANSWER 19 19 480
    SubscriberAbsent SUBSCRIBER_ABSENT 20 20 480
    CallRejected CALL_REJECTED 21 21 603
    NumberChanged NUMBER_CHANGED 22 22 410
    RedirectionToNewDestination REDIRECTION_TO_NEW_DESTINATION 23 23 410
    ExchangeRoutingError EXCHANGE_ROUTING_ERROR 25 25 483
    DestinationOutOfOrder DESTINATION_OUT_OF_ORDER 27 27 502
    InvalidNumberFormat INVALID_NUMBER_FORMAT 28 28 484
    FacilityRejected FACILITY_REJECTED 29 29 501
    ResponseToStatusEnquiry RESPONSE_TO_STATUS_ENQUIRY 30 30 480
    NormalUnspecified NORMAL_UNSPECIFIED 31 31 480
    NormalCircuitCongestion NORMAL_CIRCUIT_CONGESTION 34 34 503
    NetworkOutOfOrder NETWORK_OUT_OF_ORDER 38 38 503
    NormalTemporaryFailure NORMAL_TEMPORARY_FAILURE 41 41 503
    SwitchCongestion SWITCH_CONGESTION 42 42 503
    AccessInfoDiscarded ACCESS_INFO_DISCARDED 43 43 480
    RequestedChanUnavail REQUESTED_CHAN_UNAVAIL 44 44 503
    PreEmpted PRE_EMPTED 45 45 480
    FacilityNotSubscribed FACILITY_NOT_SUBSCRIBED 50 50 480
    OutgoingCallBarred OUTGOING_CALL_BARRED 52 52 403
    IncomingCallBarred INCOMING_CALL_BARRED 54 54 403
    BearercapabilityNotauth BEARERCAPABILITY_NOTAUTH 57 57 403
    BearercapabilityNotavail BEARERCAPABILITY_NOTAVAIL 58 58 503
    ServiceUnavailable SERVICE_UNAVAILABLE 63 63 480
    BearercapabilityNotimpl BEARERCAPABILITY_NOTIMPL 65 65 488
    ChanNotImplemented CHAN_NOT_IMPLEMENTED 66 66 480
    FacilityNotImplemented FACILITY_NOT_IMPLEMENTED 69 69 501
    ServiceNotImplemented SERVICE_NOT_IMPLEMENTED 79 79 501
    InvalidCallReference INVALID_CALL_REFERENCE 81 81 480
    IncompatibleDestination INCOMPATIBLE_DESTINATION 88 88 488
    InvalidMsgUnspecified INVALID_MSG_UNSPECIFIED 95 95 480
    MandatoryIeMissing MANDATORY_IE_MISSING 96 96 480
    MessageTypeNonexist MESSAGE_TYPE_NONEXIST 97 97 480
    WrongMessage WRONG_MESSAGE 98 98 480
    IeNonexist IE_NONEXIST 99 99 480
    InvalidIeContents INVALID_IE_CONTENTS 100 100 480
    WrongCallState WRONG_CALL_STATE 101 101 480
    RecoveryOnTimerExpire RECOVERY_ON_TIMER_EXPIRE 102 102 504
    MandatoryIeLengthError MANDATORY_IE_LENGTH_ERROR 103 103 480
    ProtocolError PROTOCOL_ERROR 111 111 480
    Interworking INTERWORKING 127 127 480
    Success SUCCESS 142 16 480
    OriginatorCancel ORIGINATOR_CANCEL 487 16 487
    Crash CRASH 700 41 480
    SystemShutdown SYSTEM_SHUTDOWN 701 41 480
    LoseRace LOSE_RACE 702 26 480
    ManagerRequest MANAGER_REQUEST 703 16 480
    BlindTransfer BLIND_TRANSFER 800 16 480
    AttendedTransfer ATTENDED_TRANSFER 801 16 480
    AllottedTimeout ALLOTTED_TIMEOUT 802 102 480
    UserChallenge USER_CHALLENGE 803 21 480
    MediaTimeout MEDIA_TIMEOUT 804 102 480
    PickedOff PICKED_OFF 805 26 480
    UserNotRegistered USER_NOT_REGISTERED 806 20 480
    ProgressTimeout PROGRESS_TIMEOUT 807 18 480
    InvalidGateway INVALID_GATEWAY 808 28 484
    GatewayDown GATEWAY_DOWN 809 38 503
    InvalidUrl INVALID_URL 810 28 484
    InvalidProfile INVALID_PROFILE 811 27 502
    NoPickup NO_PICKUP 812 19 480
    SrtpReadError SRTP_READ_ERROR 813 41 480
    Bowout BOWOUT 814 16 480
    BusyEverywhere BUSY_EVERYWHERE 815 17 600
    Decline DECLINE 816 21 603
    DoesNotExistAnywhere DOES_NOT_EXIST_ANYWHERE 817 1 604
    NotAcceptable NOT_ACCEPTABLE 818 88 606
    Unwanted UNWANTED 819 21 607
    RejectAll REJECT_ALL 825 21 603
}

impl<'de> Deserialize<'de> for Cause {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Self::from_name(&name).ok_or_else(|| D::Error::custom("wanted the name of a hangup cause"))
    }
}

impl Cause {
    /// Its name, e.g. "NORMAL_CLEARING".
    pub fn name(self) -> &'static str {
        self.row().0
    }

    /// Its number: Q.850's below 128, FreeSWITCH's above.
    pub fn number(self) -> u16 {
        self.row().1
    }

    /// The Q.850 number nearest to it; its own if it is one of Q.850's.
    pub fn q850(self) -> u8 {
        self.row().2
    }

    /// The final response to an INVITE that is refused for this cause; 300 to 699.
    pub fn status(self) -> u16 {
        self.row().3
    }

    /// The cause of that name; `None` if there is no such name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|cause| cause.name() == name)
    }

    fn from_number(number: u16) -> Option<Self> {
        Self::ALL.iter().copied().find(|cause| cause.number() == number)
    }

    /// The cause that a final response to our INVITE stands for, as FreeSWITCH maps it.
    pub fn from_status(status: u16) -> Self {
        match status {
            200..=299 => Self::NormalClearing,
            400 | 481 | 500 | 503 => Self::NormalTemporaryFailure,
            401 | 402 | 403 | 407 | 603 | 608 => Self::CallRejected,
            404 => Self::UnallocatedNumber,
            405 => Self::ServiceUnavailable,
            406 | 415 | 501 => Self::ServiceNotImplemented,
            408 | 504 => Self::RecoveryOnTimerExpire,
            410 => Self::NumberChanged,
            413 | 414 | 416 | 420 | 421 | 423 | 505 | 513 => Self::Interworking,
            480 => Self::NoUserResponse,
            482 | 483 => Self::ExchangeRoutingError,
            484 => Self::InvalidNumberFormat,
            485 | 604 => Self::NoRouteDestination,
            486 | 600 => Self::UserBusy,
            487 => Self::OriginatorCancel,
            488 | 606 => Self::IncompatibleDestination,
            502 => Self::NetworkOutOfOrder,
            607 => Self::Unwanted,
            _ => Self::NormalUnspecified,
        }
    }

    /// The value of a `Reason` header field that says this cause (RFC 3326).
    pub fn reason(self) -> String {
        format!("Q.850;cause={};text=\"{}\"", self.q850(), self.name())
    }

    /// The cause that the value of a `Reason` header field says: the first of its reasons that we
    /// understand; `None` if there is none.
    pub fn from_reason(value: &str) -> Option<Self> {
        value.split(',').find_map(|reason| {
            let mut parts = reason.split(';').map(str::trim);
            let protocol = parts.next()?;
            let parameter = |name: &str| {
                reason.split(';').skip(1).find_map(|part| {
                    let (key, value) = part.split_once('=')?;
                    key.trim().eq_ignore_ascii_case(name).then(|| value.trim().trim_matches('"'))
                })
            };
            let number: u16 = parameter("cause")?.parse().ok()?;
            let named = parameter("text").and_then(Self::from_name);
            if protocol.eq_ignore_ascii_case("Q.850") {
                let named = named.filter(|cause| u16::from(cause.q850()) == number);
                named.or_else(|| Self::from_number(number).filter(|it| it.number() < 128))
            } else if protocol.eq_ignore_ascii_case("SIP") {
                let named = named.filter(|cause| cause.number() == number); // FreeSWITCH's way.
                named.or_else(|| (200..=699).contains(&number).then(|| Self::from_status(number)))
            } else {
                None
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_survives_its_reason() {
        for &cause in Cause::ALL {
            assert_eq!(Cause::from_reason(&cause.reason()), Some(cause), "{}", cause.reason());
            assert_eq!(Cause::from_name(cause.name()), Some(cause));
            assert!(cause.q850() < 128 && (300..700).contains(&cause.status()), "{cause:?}");
        }
        assert_eq!(Cause::AllottedTimeout.reason(), r#"Q.850;cause=102;text="ALLOTTED_TIMEOUT""#);
    }

    #[test]
    fn reasons_of_others_are_read() {
        let read = Cause::from_reason;
        assert_eq!(read("Q.850;cause=17"), Some(Cause::UserBusy));
        assert_eq!(read(r#"q.850 ; Cause=16 ;text="Terminated""#), Some(Cause::NormalClearing));
        assert_eq!(read(r#"SIP;cause=802;text="ALLOTTED_TIMEOUT""#), Some(Cause::AllottedTimeout));
        assert_eq!(read("SIP;cause=600, Q.850;cause=16"), Some(Cause::UserBusy));
        assert_eq!(read("preemption;cause=1, Q.850;cause=21;text=x"), Some(Cause::CallRejected));
        for nonsense in ["", "Q.850", "Q.850;cause=", "Q.850;cause=x", "Q.850;cause=700", ";;,=,"] {
            assert_eq!(read(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn statuses_are_those_of_freeswitch() {
        for (cause, status) in [
            (Cause::UnallocatedNumber, 404),
            (Cause::UserBusy, 486),
            (Cause::NoUserResponse, 408),
            (Cause::CallRejected, 603),
            (Cause::NormalTemporaryFailure, 503),
            (Cause::IncompatibleDestination, 488),
            (Cause::NormalClearing, 480),
            (Cause::AllottedTimeout, 480),
        ] {
            assert_eq!(cause.status(), status, "{cause:?}");
        }
        assert_eq!(Cause::from_status(486), Cause::UserBusy);
        assert_eq!(Cause::from_status(408), Cause::RecoveryOnTimerExpire);
        assert_eq!(Cause::from_status(699), Cause::NormalUnspecified);
    }
}
