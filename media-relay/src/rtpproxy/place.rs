//! Parties and their ports, in the core's terms: which side is attached where.

use crate::packet_thread::{OfferError, PacketThread};
use media::{Attach, Side, Verbatim};
use std::net::SocketAddr;
use std::time::Instant;

/// Owner of our sessions in the core.
pub(super) const OWNER: &str = "rtpproxy";
/// Of what is played, unless the client says otherwise, in ms.
pub(super) const PACKET_TIME_MS: u32 = 20;

/// Where a party of a session is.
#[derive(Clone, Debug)]
pub(super) struct Placing {
    pub session_id: String,
    /// Call-ID and tag.
    pub name: String,
    pub side: Side,
    pub remote: Option<SocketAddr>,
    pub symmetric: bool,
    /// None: as before.
    pub payload_types: Option<Vec<u8>>,
    pub telephone_event: Option<u8>,
}

/// Tells the core where a party is; makes its session and the ports of both sides if needed. Returns
/// the RTP ports of sides A and B.
///
/// # Errors
/// If there is no port or session left, or the address is not possible. What was there before stays,
/// what was not is gone.
pub(super) fn place(thread: &mut PacketThread, placing: Placing) -> Result<[u16; 2], OfferError> {
    let Placing { session_id, name, side, remote, symmetric, payload_types, telephone_event } =
        placing;
    let before = thread.relay.attached(&session_id, side);
    let verbatim = Verbatim {
        rtp: remote,
        payload_types: payload_types
            .or_else(|| before.map(|it| it.payload_types.clone()))
            .unwrap_or_default(),
        ptime_ms: before.map_or(PACKET_TIME_MS, |it| it.ptime_ms),
        symmetric,
        telephone_event: telephone_event.or(before.and_then(|it| it.telephone_event)),
        plays_in: before.and_then(|it| it.plays_in),
        copied_to: before.and_then(|it| it.copied_to),
    };
    let is_new = !thread.relay.has_session(&session_id);
    let attach = |thread: &mut PacketThread, side, remote| {
        let session_id = session_id.as_str();
        let attach = Attach { session_id, call_id: &name, owner: OWNER, side, remote };
        thread.attach(attach)
    };
    let own = attach(thread, side, Some(verbatim))?;
    let other = match thread.relay.rtp_port(&session_id, side.other()) {
        Some(port) => port,
        None => attach(thread, side.other(), None).inspect_err(|_| {
            if is_new {
                thread.delete(&session_id, None);
            }
        })?,
    };
    Ok(match side {
        Side::A => [own, other],
        Side::B => [other, own],
    })
}

impl PacketThread {
    /// Attaches a side, on a port pair of its own if it is new.
    fn attach(&mut self, attach: Attach<'_>) -> Result<u16, OfferError> {
        let now = Instant::now();
        self.relay.check_attach(&attach)?;
        let ports = match self.relay.needs_ports(attach.session_id, attach.side) {
            true => Some(self.bind_pair(now)?),
            false => None,
        };
        Ok(self.relay.attach(now, attach, ports)?)
    }
}
