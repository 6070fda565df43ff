//! A call of a phone: from the INVITE that it got or sent to the BYE.

use crate::phone::message::{Request, header, rtp_address, status, token, uri_of};
use crate::phone::wire::Heard;
use crate::phone::{METHODS, PATIENCE, Phone};
use anyhow::{Context as _, bail};
use rsip::headers::UntypedHeader as _;
use rsip::message::HeadersExt as _;
use std::net::SocketAddr;

/// An INVITE that this phone has received and not answered.
pub struct Invitation<'a> {
    phone: &'a Phone,
    heard: Heard,
    tag: String,
}

/// A BYE that this phone has received and answered.
#[derive(Clone, Debug)]
pub struct Bye {
    pub at_unix_ms: i64,
    /// The Reason header field (RFC 3326); empty if there was none.
    pub reason: String,
}

/// An INVITE that this phone has sent, with a provisional response and no final one.
pub struct Attempt<'a> {
    phone: &'a Phone,
    request: Request,
    peer: SocketAddr,
}

/// A call that was answered.
pub struct Dialog<'a> {
    phone: &'a Phone,
    peer: SocketAddr,
    call_id: String,
    local: String,
    remote: String,
    target: String,
    cseq: u32,
    /// Where the other side wants our RTP.
    pub remote_rtp: SocketAddr,
    /// The session description of the other side.
    pub remote_sdp: String,
}

impl<'a> Invitation<'a> {
    pub(crate) fn new(phone: &'a Phone, heard: Heard) -> Self {
        Self { phone, heard, tag: token() }
    }

    pub fn request(&self) -> &rsip::Request {
        self.heard.request().expect("an invitation is a request")
    }

    pub fn ring(&self) {
        self.respond("180 Ringing", "");
    }

    /// Refuses it, e.g. with "486 Busy Here".
    pub fn refuse(self, line: &str) {
        self.respond(line, "");
    }

    /// Answers with this phone's session description, waits for the ACK, and is heard for a moment, as
    /// real phones are.
    pub fn answer(self) -> anyhow::Result<Dialog<'a>> {
        self.respond("200 OK", &self.phone.sdp("sendrecv"));
        let request = self.request();
        let call_id = request.call_id_header()?.value().to_owned();
        let ack = self.phone.wire.wait_for("an ACK", PATIENCE, |heard| {
            heard.request().is_some_and(|it| {
                it.method == rsip::Method::Ack
                    && it.call_id_header().is_ok_and(|it| it.value() == call_id)
            })
        })?;
        let offer = String::from_utf8_lossy(&request.body).into_owned();
        let late = ack.request().map(|it| String::from_utf8_lossy(&it.body).into_owned());
        let remote_sdp = if offer.is_empty() { late.unwrap_or_default() } else { offer };
        let remote_rtp = rtp_address(&remote_sdp).context("an INVITE without audio")?;
        self.phone.rtp.talk_to(remote_rtp);
        self.phone.rtp.breathe(self.phone.codec);
        Ok(Dialog {
            phone: self.phone,
            peer: self.heard.from,
            call_id,
            local: format!("{};tag={}", request.to_header()?.value(), self.tag),
            remote: request.from_header()?.value().to_owned(),
            target: uri_of(request.contact_header()?.value()).to_owned(),
            cseq: 1,
            remote_rtp,
            remote_sdp,
        })
    }

    fn respond(&self, line: &str, sdp: &str) {
        let contact = format!("Contact: <{}>\r\n", self.phone.uri());
        let content_type = if sdp.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
        let headers = format!("{contact}Allow: {METHODS}\r\n{content_type}");
        self.phone.wire.respond(self.request(), self.heard.from, line, &self.tag, &headers, sdp);
    }
}

impl<'a> Attempt<'a> {
    pub(crate) fn start(
        phone: &'a Phone,
        request: Request,
        peer: SocketAddr,
    ) -> anyhow::Result<Self> {
        let first = phone.wire.send_until(&request, peer, |_| true)?;
        if status(&first) >= 200 {
            bail!("an INVITE was not left pending:\n{first}");
        }
        Ok(Self { phone, request, peer })
    }

    /// Gives up: the status of the CANCEL and that of the INVITE.
    pub fn cancel(self) -> anyhow::Result<(u16, u16)> {
        let cancel = self.request.cancel(&self.phone.wire);
        let cancelled = self.phone.wire.transact(&cancel, self.peer)?;
        let ended = self.phone.wire.wait_final(&self.request, self.peer)?;
        Ok((status(&cancelled), status(&ended)))
    }
}

impl Attempt<'_> {
    /// Gives up; the status of the CANCEL.
    pub fn give_up(self) -> anyhow::Result<u16> {
        let cancel = self.request.cancel(&self.phone.wire);
        Ok(status(&self.phone.wire.transact(&cancel, self.peer)?))
    }
}

impl<'a> Dialog<'a> {
    /// Acknowledges a 200; with `answer`, if its body was the offer.
    pub(crate) fn confirm_as_caller(
        phone: &'a Phone,
        request: &Request,
        response: &rsip::Response,
        peer: SocketAddr,
        answer: Option<&str>,
    ) -> anyhow::Result<Self> {
        let remote_sdp = String::from_utf8_lossy(&response.body).into_owned();
        let remote_rtp = rtp_address(&remote_sdp).context("a 200 without audio")?;
        let mut dialog = Self {
            phone,
            peer,
            call_id: request.call_id.clone(),
            local: request.from.clone(),
            remote: header(&response.headers, "To").context("a 200 without To")?,
            target: uri_of(response.contact_header()?.value()).to_owned(),
            cseq: request.cseq,
            remote_rtp,
            remote_sdp,
        };
        dialog.acknowledge(answer);
        phone.rtp.talk_to(remote_rtp);
        Ok(dialog)
    }

    pub fn sip_call_id(&self) -> &str {
        &self.call_id
    }

    /// Speaks `samples` (8 kHz, looped) from now until the next of these or [`Dialog::hush`].
    pub fn speak(&self, samples: &[f32]) {
        let payload = self.phone.codec.encode(samples);
        self.phone.rtp.speak(self.phone.codec.payload_type(), payload);
    }

    /// Sends no more RTP.
    pub fn hush(&self) {
        self.phone.rtp.hush();
    }

    /// Presses a digit for 100 ms (RFC 4733), with the end repeated as it demands.
    pub fn press(&self, digit: char) {
        self.phone.rtp.press(digit);
    }

    /// Presses a digit by SIP INFO (application/dtmf-relay); its response's status.
    pub fn press_by_info(&mut self, digit: char) -> anyhow::Result<u16> {
        let mut request = self.request("INFO");
        request.body("application/dtmf-relay", &format!("Signal={digit}\r\nDuration=100\r\n"));
        Ok(status(&self.phone.wire.transact(&request, self.peer())?))
    }

    /// Offers again with `direction` (hold: "sendonly", resume: "sendrecv"); the answer's SDP.
    pub fn offer(&mut self, direction: &str) -> anyhow::Result<String> {
        let mut request = self.request("INVITE");
        request.header("Contact", &format!("<{}>", self.phone.uri()));
        request.body("application/sdp", &self.phone.sdp(direction));
        let response = self.phone.wire.transact(&request, self.peer())?;
        if status(&response) != 200 {
            bail!("a re-INVITE got:\n{response}");
        }
        self.acknowledge(None);
        Ok(String::from_utf8_lossy(&response.body).into_owned())
    }

    /// Asks for `uri` to be called in this phone's place (RFC 3515); the response's status.
    pub fn refer(&mut self, uri: &str) -> anyhow::Result<u16> {
        let mut request = self.request("REFER");
        request.header("Contact", &format!("<{}>", self.phone.uri()));
        request.header("Refer-To", &format!("<{uri}>"));
        Ok(status(&self.phone.wire.transact(&request, self.peer())?))
    }

    /// This dialog as the other side knows it, as the value of a Replaces header (RFC 3891).
    pub fn replaces_header(&self) -> String {
        let tag = |value: &str| value.rsplit_once(";tag=").map(|it| it.1.to_owned());
        let (to, from) = (tag(&self.remote), tag(&self.local));
        let (to, from) = (to.unwrap_or_default(), from.unwrap_or_default());
        format!("{};to-tag={to};from-tag={from}", self.call_id)
    }

    /// The same, escaped for a URI.
    pub fn replaces(&self) -> String {
        let escape = |text: String, (plain, escaped)| text.replace(plain, escaped);
        [("@", "%40"), (";", "%3B"), ("=", "%3D")].into_iter().fold(self.replaces_header(), escape)
    }

    /// Hangs up.
    pub fn bye(mut self) -> anyhow::Result<()> {
        let request = self.request("BYE");
        let response = self.phone.wire.transact(&request, self.peer())?;
        self.phone.rtp.hush();
        match status(&response) {
            200 => Ok(()),
            status => bail!("BYE got {status}, wanted 200"),
        }
    }

    /// Waits until the other side says by UPDATE that it is at `addr` now.
    pub fn wait_moved(&self, addr: SocketAddr) -> anyhow::Result<()> {
        self.phone.wire.wait_moved(&self.call_id, addr)
    }

    /// Ends it without a word, as a phone does that is switched off and on.
    pub fn forget(self) {
        self.phone.wire.forget(&self.call_id);
        self.phone.rtp.hush();
    }

    fn peer(&self) -> SocketAddr {
        self.phone.wire.moved(&self.call_id).map_or(self.peer, |(_, addr)| addr)
    }

    fn acknowledge(&mut self, answer: Option<&str>) {
        let mut ack = self.within("ACK");
        if let Some(sdp) = answer {
            ack.body("application/sdp", sdp);
        }
        self.phone.wire.acknowledge(&ack, self.peer());
    }

    fn request(&mut self, method: &str) -> Request {
        self.cseq += 1;
        self.within(method)
    }

    fn within(&self, method: &str) -> Request {
        let Self { phone, call_id, local, remote, target, cseq, .. } = self;
        let moved = phone.wire.moved(call_id).map(|(target, _)| target);
        let target = moved.as_ref().unwrap_or(target);
        Request::within(method, target, local, remote, call_id, *cseq, &phone.wire)
    }
}
