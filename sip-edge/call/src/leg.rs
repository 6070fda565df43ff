//! One leg: how far its dialog and the negotiation of its media have come (RFC 3261 §13, RFC 3264).

use crate::output::LegStage;
use crate::{LegNumber, LegView, Side};
use bytes::Bytes;

#[derive(Clone, Debug)]
pub(crate) struct Leg {
    pub(crate) number: LegNumber,
    pub(crate) side: Side,
    pub(crate) remote_uri: String,
    pub(crate) state: LegState,
    /// The INVITE came without an offer, so that the answer comes with the ACK.
    pub(crate) late_offer: bool,
    /// The remote has put us on hold.
    pub(crate) held: bool,
    pub(crate) reinvite: Reinvite,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LegState {
    /// An INVITE came in; media-relay has not been asked. Without `sdp`: a late offer.
    Invited {
        sdp: Option<Bytes>,
    },
    /// media-relay makes our offer or our answer.
    Offering,
    /// media-relay has made it; our 200 waits for the plan.
    Offered {
        sdp: Bytes,
    },
    /// Our INVITE is out. `early_sdp` came with a provisional response.
    Calling {
        rang: bool,
        early_sdp: Option<Bytes>,
    },
    /// Our 200 is out.
    AwaitingAck,
    /// media-relay takes the remote's answer.
    Negotiating,
    Confirmed,
    Terminated,
}

/// Where a re-INVITE of the remote is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reinvite {
    None,
    /// media-relay makes our offer (`late`) or answer.
    Offering {
        late: bool,
    },
    /// Our 200 is out.
    AwaitingAck {
        late: bool,
    },
    /// media-relay takes the answer that came with the ACK.
    Negotiating,
}

impl Leg {
    pub(crate) fn inbound(remote_uri: String, sdp: Option<Bytes>) -> Self {
        let late_offer = sdp.is_none();
        let state = LegState::Invited { sdp };
        Self { state, late_offer, ..Self::outbound(LegNumber(0), Side::A, remote_uri) }
    }

    pub(crate) fn outbound(number: LegNumber, side: Side, remote_uri: String) -> Self {
        Self {
            number,
            side,
            remote_uri,
            state: LegState::Offering,
            late_offer: false,
            held: false,
            reinvite: Reinvite::None,
        }
    }

    pub(crate) fn is_confirmed(&self) -> bool {
        self.state == LegState::Confirmed
    }

    pub(crate) fn view(&self) -> LegView {
        let stage = match self.state {
            LegState::Confirmed => LegStage::Confirmed,
            LegState::Terminated => LegStage::Terminated,
            _ => LegStage::Early,
        };
        let (number, side, held) = (self.number, self.side, self.held);
        LegView { number, side, stage, remote_uri: self.remote_uri.clone(), held }
    }
}
