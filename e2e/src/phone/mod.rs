//! A SIP phone that sees everything: what it is sent, to the millisecond, and every RTP packet.
//!
//! It shares no code with the services (rsip reads and hashes for it). It answers BYE, INFO, OPTIONS,
//! UPDATE (whose Contact it follows) and CANCEL by itself, repeats what RFC 3261 repeats, and leaves the rest to the test. Calls block
//! for at most [`PATIENCE`]; one phone has one call at a time.

mod dialog;
mod message;
mod rtp;
mod wire;

pub use dialog::{Attempt, Bye, Dialog, Invitation};
pub use message::header;
pub use rtp::{Ear, Packet};

use crate::audio::Codec;
use anyhow::{Context as _, bail};
use message::{Request, status};
use rsip::headers::auth::Algorithm;
use rsip::services::DigestGenerator;
use rtp::RtpPort;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use wire::Wire;

/// How long a phone waits for what must come.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// What a phone takes.
const METHODS: &str = "INVITE, ACK, CANCEL, BYE, UPDATE, INFO, NOTIFY, OPTIONS";

pub struct Phone {
    user: String,
    codec: Codec,
    wire: Arc<Wire>,
    rtp: RtpPort,
}

impl Phone {
    /// A phone that offers and accepts only `codec` (and telephone-event), on free ports.
    pub fn start(user: &str, codec: Codec) -> anyhow::Result<Self> {
        let wire = Wire::bind().context("bind a phone's SIP port")?;
        let rtp = RtpPort::bind().context("bind a phone's RTP port")?;
        Ok(Self { user: user.to_owned(), codec, wire, rtp })
    }

    /// Where it can be called directly, without a registrar.
    pub fn uri(&self) -> String {
        format!("sip:{}@{}", self.user, self.wire.local)
    }

    pub fn rtp_address(&self) -> SocketAddr {
        self.rtp.local
    }

    /// What it has heard, packet by packet.
    pub fn ear(&self) -> &Ear {
        &self.rtp.ear
    }

    /// Binds itself to the address-of-record `user`, proving `password` with `algorithm`.
    ///
    /// # Errors
    /// If the registrar lets it in without a digest, or does not accept the right one.
    pub fn register(
        &self,
        edge: SocketAddr,
        password: &str,
        algorithm: Algorithm,
    ) -> anyhow::Result<()> {
        let registrar = format!("sip:{edge}");
        let aor = format!("<sip:{}@{edge}>", self.user);
        let mut request = Request::new("REGISTER", &registrar, &aor, &aor, &self.wire);
        request.header("Contact", &format!("<{}>", self.uri()));
        request.header("Expires", "300");
        let challenge = self.wire.transact(&request, edge)?;
        if status(&challenge) != 401 {
            bail!("a REGISTER without Authorization got {}, wanted 401", status(&challenge));
        }
        request.next();
        let answer = authorize(
            &challenge,
            algorithm,
            &self.user,
            password,
            rsip::Method::Register,
            &registrar,
        )?;
        request.header("Authorization", &answer);
        let response = self.wire.transact(&request, edge)?;
        match status(&response) {
            200 => Ok(()),
            status => bail!("a REGISTER with Authorization got {status}:\n{response}"),
        }
    }

    /// Calls `uri` through `edge` and waits until it is answered.
    ///
    /// # Errors
    /// If it is refused; has the whole response.
    pub fn dial(&self, edge: SocketAddr, uri: &str) -> anyhow::Result<Dialog<'_>> {
        let mut request = self.invite(edge, uri);
        request.body("application/sdp", &self.sdp("sendrecv"));
        let response = self.wire.transact(&request, edge)?;
        if status(&response) != 200 {
            bail!("INVITE {uri} got:\n{response}");
        }
        Dialog::confirm_as_caller(self, &request, &response, edge, None)
    }

    /// As [`Phone::dial`], without an offer: the answer goes with the ACK (RFC 3261 §13.2.1).
    pub fn dial_without_offer(&self, edge: SocketAddr, uri: &str) -> anyhow::Result<Dialog<'_>> {
        let request = self.invite(edge, uri);
        let response = self.wire.transact(&request, edge)?;
        if status(&response) != 200 {
            bail!("INVITE {uri} without an offer got:\n{response}");
        }
        let answer = self.sdp("sendrecv");
        Dialog::confirm_as_caller(self, &request, &response, edge, Some(&answer))
    }

    /// Calls `uri` through `edge` and waits only until that is being tried.
    ///
    /// # Errors
    /// If it is answered or refused at once.
    pub fn start_dial(&self, edge: SocketAddr, uri: &str) -> anyhow::Result<Attempt<'_>> {
        let mut request = self.invite(edge, uri);
        request.body("application/sdp", &self.sdp("sendrecv"));
        Attempt::start(self, request, edge)
    }

    /// Sends a request outside a dialog; its final response.
    pub fn ask(&self, edge: SocketAddr, method: &str, uri: &str) -> anyhow::Result<rsip::Response> {
        let from = format!("<sip:{}@{edge}>", self.user);
        let request = Request::new(method, uri, &from, &format!("<{uri}>"), &self.wire);
        self.wire.transact(&request, edge)
    }

    /// Calls `uri` with a body of one's own and hands back the final response; a 200 is acknowledged.
    pub fn dial_with(
        &self,
        edge: SocketAddr,
        uri: &str,
        sdp: &str,
    ) -> anyhow::Result<rsip::Response> {
        let mut request = self.invite(edge, uri);
        request.body("application/sdp", sdp);
        let response = self.wire.transact(&request, edge)?;
        if status(&response) == 200 {
            Dialog::confirm_as_caller(self, &request, &response, edge, None)?;
        }
        Ok(response)
    }

    fn invite(&self, edge: SocketAddr, uri: &str) -> Request {
        let from = format!("<sip:{}@{edge}>", self.user);
        let mut request = Request::new("INVITE", uri, &from, &format!("<{uri}>"), &self.wire);
        request.header("Contact", &format!("<{}>", self.uri()));
        request.header("Allow", METHODS);
        request
    }

    /// Waits for an INVITE to this phone.
    pub fn invited(&self) -> anyhow::Result<Invitation<'_>> {
        self.invited_within(PATIENCE)
    }

    pub fn invited_within(&self, limit: Duration) -> anyhow::Result<Invitation<'_>> {
        let heard = self.wire.wait_for("an INVITE", limit, |heard| {
            heard.request().is_some_and(|it| it.method == rsip::Method::Invite)
        })?;
        Ok(Invitation::new(self, heard))
    }

    /// Waits for a BYE, which it has answered already.
    pub fn wait_bye(&self, limit: Duration) -> anyhow::Result<Bye> {
        let heard = self.wire.wait_for("a BYE", limit, |heard| {
            heard.request().is_some_and(|it| it.method == rsip::Method::Bye)
        })?;
        let reason =
            heard.request().and_then(|it| header(&it.headers, "Reason")).unwrap_or_default();
        Ok(Bye { at_unix_ms: heard.at_unix_ms, reason })
    }

    /// Waits for a NOTIFY whose body begins with this, e.g. "SIP/2.0 200"; it is answered already.
    pub fn wait_notify(&self, line: &str) -> anyhow::Result<()> {
        self.wire
            .wait_for(&format!("a NOTIFY of {line}"), PATIENCE, |heard| {
                heard.request().is_some_and(|it| {
                    it.method == rsip::Method::Notify && it.body.starts_with(line.as_bytes())
                })
            })
            .map(drop)
    }

    /// Waits for a CANCEL, which it has answered already, as well as the INVITE with 487; its Reason
    /// (RFC 3326), empty if there was none.
    pub fn wait_cancel(&self) -> anyhow::Result<String> {
        let heard = self.wire.wait_for("a CANCEL", PATIENCE, |heard| {
            heard.request().is_some_and(|it| it.method == rsip::Method::Cancel)
        })?;
        let reason = heard.request().and_then(|it| header(&it.headers, "Reason"));
        Ok(reason.unwrap_or_default())
    }

    /// Whether a BYE has come and was not waited for.
    pub fn has_bye(&self) -> bool {
        self.wire.has(|heard| heard.request().is_some_and(|it| it.method == rsip::Method::Bye))
    }

    /// This phone's session description, with the direction of RFC 3264 §5.1.
    pub fn sdp(&self, direction: &str) -> String {
        let (address, port) = (self.rtp.local.ip(), self.rtp.local.port());
        let (payload_type, rtpmap) = (self.codec.payload_type(), self.codec.rtpmap());
        format!(
            "v=0\r\no=- 1 1 IN IP4 {address}\r\ns=-\r\nc=IN IP4 {address}\r\nt=0 0\r\n\
             m=audio {port} RTP/AVP {payload_type} 101\r\na=rtpmap:{payload_type} {rtpmap}\r\n\
             a=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-15\r\na=ptime:20\r\na={direction}\r\n"
        )
    }
}

/// The Authorization header for one of the challenges in a 401 (RFC 7616).
fn authorize(
    challenge: &rsip::Response,
    algorithm: Algorithm,
    user: &str,
    password: &str,
    method: rsip::Method,
    uri: &str,
) -> anyhow::Result<String> {
    let name = match algorithm {
        Algorithm::Md5 => "MD5",
        Algorithm::Sha256 => "SHA-256",
        other => bail!("this phone does not do {other}"),
    };
    let challenges: Vec<String> = message::headers(&challenge.headers, "WWW-Authenticate");
    let parameter = |challenge: &str, key: &str| {
        let after = challenge.split([',', ' ']).find_map(|it| it.strip_prefix(&format!("{key}=")));
        after.map(|value| value.trim_matches('"').to_owned())
    };
    let offered =
        |challenge: &&String| parameter(challenge, "algorithm").unwrap_or("MD5".into()) == name;
    let chosen = challenges
        .iter()
        .find(offered)
        .with_context(|| format!("{name} is not in {challenges:?}"))?;
    let realm = parameter(chosen, "realm").context("a challenge without realm")?;
    let nonce = parameter(chosen, "nonce").context("a challenge without nonce")?;
    let qop = rsip::headers::auth::AuthQop::Auth { cnonce: "0a4f113b".into(), nc: 1 };
    let response = DigestGenerator {
        username: user,
        password,
        nonce: &nonce,
        uri: &rsip::Uri::try_from(uri)?,
        realm: &realm,
        method: &method,
        qop: Some(&qop),
        algorithm,
    }
    .compute();
    let opaque =
        parameter(chosen, "opaque").map_or(String::new(), |it| format!(", opaque=\"{it}\""));
    Ok(format!(
        "Digest username=\"{user}\", realm=\"{realm}\", nonce=\"{nonce}\", uri=\"{uri}\", \
         response=\"{response}\", algorithm={name}, qop=auth, cnonce=\"0a4f113b\", nc=00000001{opaque}"
    ))
}

/// Phones with these names, which speak PCMU.
pub fn phones<const N: usize>(names: [&str; N]) -> anyhow::Result<[Phone; N]> {
    let phones: Result<Vec<_>, _> =
        names.into_iter().map(|name| Phone::start(name, Codec::Pcmu)).collect();
    Ok(phones?.try_into().unwrap_or_else(|_| unreachable!("one for each name")))
}

/// Packets that somebody has to hear of a talk: half a second.
const TALK_PACKETS: usize = 25;

/// Waits until each hears the other, who speaks only then: no music plays in a talk.
pub fn wait_talk(a: (&Phone, &Dialog<'_>), b: (&Phone, &Dialog<'_>)) -> anyhow::Result<()> {
    for ((speaker, dialog), (listener, _)) in [(a, b), (b, a)] {
        speaker.ear().clear();
        listener.ear().clear();
        let tone: Vec<f32> = (0..800).map(|n| (n as f32 * 0.35).sin() * 0.3).collect();
        dialog.speak(&tone);
        listener.ear().wait_for_packets(TALK_PACKETS, PATIENCE)?;
        dialog.hush();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::{Reference, tune};

    #[test]
    fn two_phones_hear_each_other_and_the_keys() {
        let (alice, bob) = (
            Phone::start("alice", Codec::Pcmu).unwrap(),
            Phone::start("bob", Codec::Pcmu).unwrap(),
        );
        let voice = tune(5, 1_000);
        std::thread::scope(|scope| {
            let answering = scope.spawn(|| {
                let invitation = bob.invited().unwrap();
                invitation.ring();
                invitation.answer().unwrap()
            });
            let calling = alice.dial(bob.wire.local, &bob.uri()).unwrap();
            let answered = answering.join().unwrap();
            answered.speak(&Reference::new(&voice).into_samples());
            alice.ear().listen(Duration::from_millis(1_500)).unwrap();
            calling.press('#');
            bob.ear().wait_for_packets(8, PATIENCE).unwrap();
            calling.bye().unwrap();
        });
        assert_eq!(bob.wait_bye(PATIENCE).unwrap().reason, "");
        let span = Reference::new(&voice).longest_span(&alice.ear().audio(Codec::Pcmu));
        assert!(span.duration_ms() >= 1_400 && span.correlation > 0.99, "{span:?}");
        assert_eq!(alice.ear().discontinuity(), None);
        let events = bob.ear().packets();
        assert!(events.iter().all(|it| it.payload[0] == 11), "{events:?}");
        assert_eq!(events.iter().filter(|it| it.payload[1] & 0x80 != 0).count(), 3);
    }

    #[test]
    fn a_refusal_is_told_with_its_response() {
        let (alice, bob) = (
            Phone::start("alice", Codec::Pcma).unwrap(),
            Phone::start("bob", Codec::Pcma).unwrap(),
        );
        std::thread::scope(|scope| {
            scope.spawn(|| bob.invited().unwrap().refuse("486 Busy Here"));
            let refused = alice.dial(bob.wire.local, &bob.uri()).err().unwrap().to_string();
            assert!(refused.contains(" 486 "), "{refused}");
        });
    }
}
