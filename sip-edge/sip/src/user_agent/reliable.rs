//! Our reliable provisional responses: repeated until their PRACK comes (RFC 3262 §3).

use super::leg::{Incoming, State};
use super::{End, LegId, Output, UserAgent};
use crate::compose::Composer;
use crate::envelope::Envelope;
use crate::header::{Headers, Name};
use crate::peer::Peer;
use crate::session_timer::has_option;
use bytes::Bytes;
use std::time::{Duration, Instant};

/// A reliable provisional response that is out, and what waits for its PRACK.
#[derive(Clone, Debug)]
pub(super) struct Unpracked {
    rseq: u32,
    /// CSeq of the INVITE.
    cseq: u32,
    peer: Peer,
    response: Bytes,
    /// It has the answer, so that a 2xx must wait for the PRACK (§3).
    has_sdp: bool,
    interval: Duration,
    pub(super) repeat_at: Instant,
    pub(super) give_up_at: Instant,
    /// The last one that was asked for meanwhile.
    next: Option<(u16, Option<Bytes>)>,
    answer: Option<Bytes>,
}

/// How a provisional response goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reliability {
    Plain,
    Reliable,
    /// The caller wants it reliable, and we have no offer to put into it: it is left out.
    Impossible,
}

impl Reliability {
    /// Reliable if the caller demands it, or can have it and there is an answer to bring across.
    pub(super) fn of(invite: &Headers, has_offer: bool, has_sdp: bool) -> Self {
        let required = has_option(invite, Name::Require, "100rel");
        let supported = has_option(invite, Name::Supported, "100rel");
        match (has_offer, required, supported && has_sdp) {
            (true, true, _) | (true, _, true) => Reliability::Reliable,
            (false, true, _) => Reliability::Impossible,
            _ => Reliability::Plain,
        }
    }
}

impl UserAgent {
    /// Makes the response reliable before it is sent; false if an earlier one has no PRACK yet,
    /// which this one waits for.
    pub(super) fn number_reliably(
        &mut self,
        id: LegId,
        status: u16,
        sdp: Option<&Bytes>,
        response: &mut Composer,
    ) -> bool {
        let first = (self.tokens.number() % ((1 << 31) - 1)) as u32 + 1; // RFC 3262 §3: 1 to 2³¹ − 1.
        let Some(leg) = self.legs.get_mut(&id) else { return false };
        if let Some(unpracked) = &mut leg.unpracked {
            unpracked.next = Some((status, sdp.cloned()));
            return false;
        }
        leg.rseq = if leg.rseq == 0 { first } else { leg.rseq + 1 };
        response.header("Require", "100rel").header("RSeq", leg.rseq);
        true
    }

    pub(super) fn await_prack(
        &mut self,
        now: Instant,
        id: LegId,
        incoming: &Incoming,
        response: Bytes,
        has_sdp: bool,
    ) {
        let Ok(envelope) = Envelope::of_request(&incoming.request) else { return };
        let Some(leg) = self.legs.get_mut(&id) else { return };
        leg.unpracked = Some(Box::new(Unpracked {
            rseq: leg.rseq,
            cseq: envelope.cseq,
            peer: envelope.via.response_peer(incoming.source),
            response,
            has_sdp,
            interval: self.timing.t1,
            repeat_at: now + self.timing.t1,
            give_up_at: now + self.timing.timeout(),
            next: None,
            answer: None,
        }));
    }

    /// Whether the 2xx has to wait; it is sent when the PRACK comes.
    pub(super) fn defer_answer(&mut self, id: LegId, sdp: &Bytes) -> bool {
        let Some(leg) = self.legs.get_mut(&id) else { return false };
        match leg.unpracked.as_deref_mut().filter(|it| it.has_sdp) {
            Some(unpracked) => {
                unpracked.answer = Some(sdp.clone());
                true
            }
            None => {
                leg.unpracked = None;
                false
            }
        }
    }

    pub(super) fn receive_prack(&mut self, now: Instant, id: LegId, prack: &Incoming) {
        if self.refuse_extensions(now, prack) {
            return;
        }
        let acknowledged = prack.request.headers.get(Name::RAck).and_then(rack);
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let unpracked = leg.unpracked.take_if(|it| Some((it.rseq, it.cseq)) == acknowledged);
        let Some(unpracked) = unpracked else { return self.refuse(now, prack, 481) };
        if !prack.request.body.is_empty() {
            // Our response had the answer already; a new offer has to come by UPDATE.
            self.refuse_because(now, prack, 488, "No Offer Is Taken in PRACK");
        } else {
            let response = self.compose(prack, 200, None);
            self.send(now, prack, 200, response.empty());
        }
        self.reschedule(id);
        if let Some(sdp) = unpracked.answer {
            return self.answer(now, id, sdp);
        }
        if let Some((status, sdp)) = unpracked.next {
            self.ring(now, id, status, sdp);
        }
    }

    /// Repeats a reliable response at T1, 2·T1 and so on, up to 64·T1.
    pub(super) fn prack_is_late(&mut self, now: Instant, id: LegId) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let Some(unpracked) = leg.unpracked.as_deref_mut() else { return };
        if unpracked.give_up_at <= now {
            leg.unpracked = None;
            if leg.state == State::Invited {
                self.finish_pending(now, id, 504, |_| ());
                self.end(id, End::TimedOut);
            }
            return;
        }
        if unpracked.repeat_at <= now {
            unpracked.interval *= 2;
            unpracked.repeat_at = now + unpracked.interval;
            let (peer, bytes) = (unpracked.peer, unpracked.response.clone());
            self.outputs.push_back(Output::Send { peer, bytes });
        }
    }
}

/// RSeq and CSeq of a RAck for an INVITE.
fn rack(value: &str) -> Option<(u32, u32)> {
    let mut words = value.split_ascii_whitespace();
    let (rseq, cseq, method) = (words.next()?, words.next()?, words.next()?);
    let is_whole = method == "INVITE" && words.next().is_none();
    is_whole.then_some((rseq.parse().ok()?, cseq.parse().ok()?))
}
