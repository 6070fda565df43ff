//! Early dialogs of our INVITE, which may fork, and their reliable provisional responses
//! (RFC 3261 §12.1.2, §13.2.2.1; RFC 3262 §4).

use super::{LegId, UserAgent};
use crate::dialog::Dialog;
use crate::envelope::Envelope;
use crate::header::Name;
use crate::message::Response;
use crate::method::Method;
use crate::peer::Peer;
use crate::session_timer::has_option;
use crate::transaction::{Key, OurRequest, TxId};
use std::time::Instant;

/// Early dialogs that one INVITE may make; what comes of further ones is told, but not acknowledged.
const MAX_EARLY: usize = 16;

/// A dialog that a tagged 1xx has made.
#[derive(Clone, Debug)]
pub(super) struct Early {
    pub(super) dialog: Dialog,
    /// RSeq of the last reliable response.
    rseq: Option<u32>,
}

impl UserAgent {
    /// Keeps the early dialog of a provisional response, and acknowledges a reliable one. False if
    /// that is a repetition, or one before it is missing: then it is as if it had not come.
    pub(super) fn receive_early(
        &mut self,
        now: Instant,
        tx: TxId,
        id: LegId,
        source: Peer,
        response: &Response,
        envelope: &Envelope<'_>,
    ) -> bool {
        let rseq = response.headers.get(Name::RSeq).and_then(|text| text.parse::<u32>().ok());
        let is_reliable = has_option(&response.headers, Name::Require, "100rel");
        let rseq = rseq.filter(|_| is_reliable);
        let tag = envelope.to.tag();
        let Some(leg) = self.legs.get(&id) else { return false };
        let known = leg.early.iter().position(|it| it.dialog.remote_tag.as_deref() == tag);
        let at = match known {
            Some(at) => at,
            None if tag.is_none() || leg.early.len() >= MAX_EARLY => return rseq.is_none(),
            None => {
                let Some((invite, peer)) = self.transactions.request(tx) else { return false };
                let Some(mut dialog) = super::uac::our_dialog(&invite, peer) else { return false };
                dialog.confirm(response, envelope, source);
                let Some(leg) = self.legs.get_mut(&id) else { return false };
                leg.early.push(Early { dialog, rseq: None });
                leg.early.len() - 1
            }
        };
        let Some(early) = self.legs.get_mut(&id).and_then(|leg| leg.early.get_mut(at)) else {
            return false;
        };
        match (rseq, early.rseq) {
            (None, _) => true,
            (Some(rseq), Some(last)) if last.checked_add(1) != Some(rseq) => false,
            (Some(rseq), _) => {
                early.rseq = Some(rseq);
                self.send_prack(now, id, at, rseq, envelope.cseq);
                true
            }
        }
    }

    fn send_prack(&mut self, now: Instant, id: LegId, early: usize, rseq: u32, cseq: u32) {
        let branch = self.tokens.branch();
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let Some(early) = leg.early.get_mut(early) else { return };
        let own = early.dialog.next_cseq();
        let advertised = &self.config.advertised;
        let (mut prack, peer) = early.dialog.request("PRACK", own, &branch, advertised);
        prack.header("User-Agent", &self.config.user_agent);
        prack.header("RAck", format_args!("{rseq} {cseq} INVITE"));
        let key = Key::client(&branch, "PRACK");
        let bytes = prack.empty();
        let request = OurRequest { key, method: Method::Prack, peer, bytes, leg: Some(id) };
        self.transactions.open_client(now, request, &mut self.outputs);
    }
}
