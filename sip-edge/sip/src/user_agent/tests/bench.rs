//! One user agent, a phone made of text, and a clock that the test moves.

use crate::header::Name;
use crate::message::{Message, Request};
use crate::name_addr::NameAddr;
use crate::peer::{Peer, Transport};
use crate::user_agent::{
    Config, Event, Hangup, LegId, LegSnapshot, OutboundInvite, Output, RegistrantId, Rejection,
    Suspicion, UserAgent,
};
use crate::{Credentials, HostPort, Response};
use bytes::Bytes;
use expect_test::Expect;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

pub(super) const SDP: &str = "v=0";
/// Unix seconds at the start of every test.
pub(super) const WALL: u64 = 1_700_000_000;

pub(super) fn udp_phone() -> Peer {
    Peer::new(Transport::Udp, "192.0.2.1:5060".parse().unwrap())
}

pub(super) fn tcp_phone() -> Peer {
    Peer { transport: Transport::Tcp, ..udp_phone() }
}

pub(super) struct Bench {
    pub(super) ua: UserAgent,
    pub(super) phone: Peer,
    /// Of our INVITEs.
    pub(super) credentials: Option<Credentials>,
    start: Instant,
    pub(super) now: Instant,
    log: String,
    pub(super) sent: Vec<(Peer, Bytes)>,
    pub(super) registrants: Vec<RegistrantId>,
    pub(super) judged: Vec<Suspicion>,
}

impl Bench {
    pub(super) fn new() -> Self {
        Self::with(|_| ())
    }

    pub(super) fn with(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = config("198.51.100.1");
        change(&mut config);
        let (start, phone) = (Instant::now(), udp_phone());
        let ua = UserAgent::new(config, 1);
        Self {
            ua,
            phone,
            credentials: None,
            start,
            now: start,
            log: String::new(),
            sent: Vec::new(),
            registrants: Vec::new(),
            judged: Vec::new(),
        }
    }

    /// Lets another user agent, at `host`, go on with all legs that stand; they are 1, 2, … there.
    pub(super) fn restart(&mut self, host: &str) -> &mut Self {
        let mut legs: Vec<_> = self.ua.legs.keys().copied().collect();
        legs.sort_unstable();
        let mut next = UserAgent::new(config(host), 2);
        for snapshot in legs.into_iter().filter_map(|leg| self.ua.snapshot(leg)) {
            let text = serde_json::to_string(&snapshot).unwrap();
            let read: LegSnapshot = serde_json::from_str(&text).unwrap();
            assert_eq!(read, snapshot);
            next.restore(self.now, read, self.credentials.clone()).unwrap();
        }
        self.ua = next;
        self
    }

    /// Moves the clock, firing what is due on the way.
    pub(super) fn until(&mut self, seconds: f64) -> &mut Self {
        let end = self.start + Duration::from_secs_f64(seconds);
        while let Some(at) = self.ua.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.ua.handle_timeout(self.now);
            self.drain();
        }
        self.now = end;
        self
    }

    pub(super) fn receive(&mut self, message: impl Into<Bytes>) -> &mut Self {
        self.receive_from(self.phone, message)
    }

    pub(super) fn receive_from(&mut self, source: Peer, message: impl Into<Bytes>) -> &mut Self {
        let wall = WALL + (self.now - self.start).as_secs();
        self.ua.handle_message(self.now, wall, source, message.into());
        self.drain();
        self
    }

    pub(super) fn order(&mut self, order: impl FnOnce(&mut UserAgent, Instant)) -> &mut Self {
        order(&mut self.ua, self.now);
        self.drain();
        self
    }

    pub(super) fn ring(&mut self, leg: u64) -> &mut Self {
        self.order(|ua, now| ua.ring(now, LegId(leg), 180, None))
    }

    pub(super) fn answer(&mut self, leg: u64) -> &mut Self {
        self.order(|ua, now| ua.answer(now, LegId(leg), SDP.into()))
    }

    pub(super) fn reject(&mut self, leg: u64, status: u16) -> &mut Self {
        self.order(|ua, now| ua.reject(now, LegId(leg), Rejection { status, headers: vec![] }))
    }

    pub(super) fn hangup(&mut self, leg: u64) -> &mut Self {
        let reason = Some("Q.850;cause=16".to_owned());
        self.order(|ua, now| ua.hangup(now, LegId(leg), Hangup { reason, unanswered_status: 480 }))
    }

    pub(super) fn reinvite(&mut self, leg: u64) -> &mut Self {
        self.order(|ua, now| assert!(ua.reinvite(now, LegId(leg), "v=1".into())))
    }

    /// A call that the phone made, we answered, and the phone acknowledged, at 40 s; and our tag.
    pub(super) fn standing(invite: Phone) -> (Self, String) {
        let mut bench = Self::new();
        bench.receive(invite).answer(1);
        let tag = bench.tag();
        bench.receive(Phone::sends("ACK").tag(&tag)).until(40.0).forget();
        (bench, tag)
    }

    /// An INVITE of ours to the phone.
    pub(super) fn invite(&mut self) -> &mut Self {
        let invite = OutboundInvite {
            max_forwards: 70,
            target: "sip:bob@192.0.2.1".into(),
            peer: self.phone,
            from_uri: "sip:queue@198.51.100.1".into(),
            from_display: Some("The \"Queue\"".into()),
            sdp: SDP.into(),
            headers: vec![("X-Call".into(), "7".into())],
            credentials: self.credentials.clone(),
            tcp_if_large: false,
        };
        self.order(|ua, now| assert!(ua.invite(now, invite).is_ok()))
    }

    /// The phone's response to our last request of this method.
    pub(super) fn respond(&mut self, method: &str, status: u16, to_tag: &str) -> &mut Self {
        self.respond_with(method, status, to_tag, "", "")
    }

    /// As [`Bench::respond`], with further header lines (each with its CRLF) and a body.
    pub(super) fn respond_with(
        &mut self,
        method: &str,
        status: u16,
        to_tag: &str,
        extra: &str,
        sdp: &str,
    ) -> &mut Self {
        let request = self.last_request(method);
        let value = |name| request.headers.get(name).unwrap().to_owned();
        let to = match value(Name::To) {
            to if to_tag.is_empty() || to.contains(";tag=") => to,
            to => format!("{to};tag={to_tag}"),
        };
        let kind = if sdp.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
        let text = format!(
            "SIP/2.0 {status} Phrase\r\nVia: {}\r\nFrom: {}\r\nTo: {to}\r\nCall-ID: {}\r\n\
             CSeq: {}\r\nContact: <sip:bob@192.0.2.1:5060>\r\n{kind}{extra}Content-Length: {}\r\n\r\n{sdp}",
            value(Name::Via),
            value(Name::From),
            value(Name::CallId),
            value(Name::CSeq),
            sdp.len()
        );
        self.receive(text)
    }

    /// A request of the phone, tagged `from_tag`, inside a dialog of our last INVITE.
    pub(super) fn request_in(
        &mut self,
        method: &str,
        from_tag: &str,
        cseq: u32,
        rest: &str,
    ) -> &mut Self {
        let invite = self.last_request("INVITE");
        let value = |name| invite.headers.get(name).unwrap().to_owned();
        let text = format!(
            "{method} sip:198.51.100.1 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK{method}{from_tag}{cseq}\r\n\
             From: <sip:bob@192.0.2.1>;tag={from_tag}\r\nTo: {}\r\nCall-ID: {}\r\nCSeq: {cseq} {method}\r\n\
             Max-Forwards: 70\r\n{rest}",
            value(Name::From),
            value(Name::CallId),
        );
        let end = if rest.contains("\r\n\r\n") { "" } else { "\r\n" };
        self.receive(text + end)
    }

    pub(super) fn last_request(&self, method: &str) -> Request {
        let mut requests = self.sent.iter().rev().filter_map(|(_, bytes)| request_of(bytes));
        requests.find(|it| it.method_name() == method).expect("such a request was sent")
    }

    pub(super) fn last_response(&self) -> Response {
        let mut messages = self.sent.iter().rev().map(|(_, bytes)| Message::parse(bytes.clone()));
        messages
            .find_map(|it| if let Ok(Message::Response(it)) = it { Some(it) } else { None })
            .expect("a response was sent")
    }

    /// Our tag in the last response.
    pub(super) fn tag(&self) -> String {
        let response = self.last_response();
        let to = NameAddr::parse(response.headers.get(Name::To).unwrap()).unwrap();
        to.tag().expect("a To tag").to_owned()
    }

    pub(super) fn last_text(&self) -> String {
        String::from_utf8(self.sent.last().unwrap().1.to_vec()).unwrap()
    }

    /// Leaves what happened until now out of the next check.
    pub(super) fn forget(&mut self) -> &mut Self {
        self.log.clear();
        self
    }

    /// Adds lines to what is compared.
    pub(super) fn note(&mut self, lines: &str) {
        self.log.push_str(lines);
    }

    /// Compares what happened since the last check.
    #[track_caller]
    pub(super) fn check(&mut self, expected: Expect) -> &mut Self {
        expected.assert_eq(&std::mem::take(&mut self.log));
        self
    }

    /// Lets every timer run out and demands that nothing is left over.
    #[track_caller]
    pub(super) fn check_over(&mut self, expected: Expect) {
        let hour = (self.now - self.start).as_secs_f64() + 3600.0;
        self.until(hour);
        self.check(expected);
        assert_eq!((self.ua.dialogs(), self.ua.transactions()), (0, 0), "legs, transactions");
        assert!(self.ua.is_clean(), "an index leaks");
        assert_eq!(self.ua.poll_timeout(), None);
    }

    fn drain(&mut self) {
        let elapsed = (self.now - self.start).as_secs_f64();
        while let Some(output) = self.ua.poll_output() {
            if let Output::Judged { what, .. } = output {
                self.judged.push(what); // Not of the protocol: compared by those who care.
                continue;
            }
            write!(self.log, "{elapsed:06.3} ").unwrap();
            match output {
                Output::Send { peer, bytes } => {
                    self.log.push_str(&summary(&bytes));
                    if peer != self.phone {
                        write!(self.log, " to {peer}").unwrap();
                    }
                    self.sent.push((peer, bytes));
                }
                Output::Event(event) => self.log.push_str(&event_text(&event)),
                Output::Judged { .. } => unreachable!("is kept apart"),
                Output::Alias { peer, alias } => write!(self.log, "alias {peer} {alias}").unwrap(),
                Output::Discarded(reason) => write!(self.log, "discarded {reason}").unwrap(),
            }
            self.log.push('\n');
        }
    }
}

fn config(host: &str) -> Config {
    let mut config = Config::new(HostPort::new(host, 5060));
    config.users = [("anna".to_owned(), "secret".to_owned())].into();
    config
}

fn request_of(bytes: &Bytes) -> Option<Request> {
    match Message::parse(bytes.clone()) {
        Ok(Message::Request(request)) => Some(request),
        _ => None,
    }
}

/// `> INVITE 1` or `> 200 INVITE 1`.
fn summary(bytes: &Bytes) -> String {
    match Message::parse(bytes.clone()).expect("we send proper messages") {
        Message::Request(request) => {
            let cseq = request.headers.get(Name::CSeq).unwrap().split(' ').next().unwrap();
            format!("> {} {cseq}", request.method_name())
        }
        Message::Response(response) => {
            let cseq = response.headers.get(Name::CSeq).unwrap();
            let (number, method) = cseq.split_once(' ').unwrap();
            format!("> {} {method} {number}", response.status)
        }
    }
}

fn event_text(event: &Event) -> String {
    let sdp = |sdp: &Option<Bytes>| if sdp.is_some() { " sdp" } else { "" };
    match event {
        Event::Invited { leg, invite } => {
            let user = invite.user.as_ref().map(|user| format!(" by {user}"));
            let replaces = invite.replaces.map(|leg| format!(" replacing {}", leg.0));
            let (user, replaces) = (user.unwrap_or_default(), replaces.unwrap_or_default());
            format!("Invited {}{}{user}{replaces}", leg.0, sdp(&invite.sdp))
        }
        Event::Acknowledged { leg, sdp: it } => format!("Acknowledged {}{}", leg.0, sdp(it)),
        Event::Ringing { leg, status, sdp: it } => {
            format!("Ringing {} {status}{}", leg.0, sdp(it))
        }
        Event::Answered { leg, sdp: it } => format!("Answered {}{}", leg.0, sdp(it)),
        Event::Reinvited { leg, sdp: it } => format!("Reinvited {}{}", leg.0, sdp(it)),
        Event::Reanswered { leg, sdp: it } => format!("Reanswered {}{}", leg.0, sdp(it)),
        Event::ReinviteFailed { leg, status } => format!("ReinviteFailed {} {status}", leg.0),
        Event::Moved { leg } => format!("Moved {}", leg.0),
        Event::Referred { leg, refer } => {
            let by = refer.referred_by.as_ref().map(|by| format!(" by {by}")).unwrap_or_default();
            let replaced = refer.replaced.map(|leg| format!(" replacing {}", leg.0));
            format!("Referred {} to {}{}{by}", leg.0, refer.to.uri, replaced.unwrap_or_default())
        }
        Event::ReferProgress { leg, status, is_over } => {
            format!("ReferProgress {} {status}{}", leg.0, if *is_over { " over" } else { "" })
        }
        Event::Info { leg, content_type, body } => {
            format!("Info {} {content_type} {:?}", leg.0, body)
        }
        Event::Ended { leg, end } => format!("Ended {} {end:?}", leg.0),
        Event::Registrant { state, .. } => format!("Registrant {state:?}"),
        Event::Registered { user, contacts } => format!("Registered {user} {contacts}"),
    }
}

/// A request of the phone.
#[derive(Clone)]
pub(super) struct Phone {
    method: &'static str,
    branch: String,
    cseq: u32,
    call_id: &'static str,
    to_tag: String,
    extra: String,
    body: &'static str,
}

impl Phone {
    pub(super) fn sends(method: &'static str) -> Self {
        let branch = format!("z9hG4bK{method}");
        let (to_tag, extra) = (String::new(), String::new());
        Self { method, branch, cseq: 1, call_id: "c1", to_tag, extra, body: "" }
    }

    /// An INVITE with an offer.
    pub(super) fn invite() -> Self {
        Self::sends("INVITE").sdp()
    }

    pub(super) fn branch(self, branch: &str) -> Self {
        Self { branch: format!("z9hG4bK{branch}"), ..self }
    }

    pub(super) fn cseq(self, cseq: u32) -> Self {
        let branch = format!("{}{cseq}", self.branch);
        Self { cseq, branch, ..self }
    }

    pub(super) fn call_id(self, call_id: &'static str) -> Self {
        Self { call_id, branch: format!("{}{call_id}", self.branch), ..self }
    }

    pub(super) fn tag(self, tag: &str) -> Self {
        Self { to_tag: format!(";tag={tag}"), ..self }
    }

    /// A further header line, without its CRLF.
    pub(super) fn header(mut self, line: &str) -> Self {
        write!(self.extra, "{line}\r\n").unwrap();
        self
    }

    pub(super) fn sdp(self) -> Self {
        Self { body: SDP, ..self }.header("Content-Type: application/sdp")
    }

    pub(super) fn body(self, body: &'static str) -> Self {
        Self { body, ..self }
    }

    pub(super) fn text(&self) -> Bytes {
        let Self { method, branch, cseq, call_id, to_tag, extra, body } = self;
        let hops = if extra.contains("Max-Forwards") { "" } else { "Max-Forwards: 70\r\n" };
        let contact =
            if extra.contains("Contact") { "" } else { "Contact: <sip:anna@192.0.2.1:5060>\r\n" };
        let text = format!(
            "{method} sip:1008@198.51.100.1 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1:5060;branch={branch}\r\n\
             From: \"Anna\" <sip:anna@holdfast>;tag=f1\r\nTo: <sip:anna@holdfast>{to_tag}\r\n\
             Call-ID: {call_id}\r\nCSeq: {cseq} {method}\r\n{contact}{hops}{extra}\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        text.into()
    }
}

impl From<Phone> for Bytes {
    fn from(phone: Phone) -> Self {
        phone.text()
    }
}
