//! The call flows of RFC 3665 between two user agents, as ladders in virtual time; each message
//! takes 10 ms. What goes through proxies there is one hop here: a route set is tested elsewhere.

use bytes::Bytes;
use expect_test::{Expect, expect};
use sip::{
    Config, Credentials, Event, Hangup, HostPort, LegId, Listener, Message, OutboundInvite,
    OutboundRegistration, Output, Peer, Rejection, Transport, UserAgent,
};
use std::fmt::Write as _;
use std::time::{Duration, Instant};

const ALICE: usize = 0;
const BOB: usize = 1;
const NAMES: [&str; 2] = ["alice", "bob"];
const HOP: Duration = Duration::from_millis(10);

struct Flow {
    agents: [UserAgent; 2],
    start: Instant,
    now: Instant,
    in_flight: Vec<(Instant, usize, Bytes)>,
    /// Bob does not hear anything.
    is_deaf: bool,
    log: String,
}

impl Flow {
    fn new() -> Self {
        let agents = [0, 1].map(|side: u64| {
            let mut config = Config::new(HostPort::new(format!("192.0.2.{}", side + 1), 5060));
            config.users = [("bob".to_owned(), "zanzibar".to_owned())].into();
            UserAgent::new(config, side)
        });
        let now = Instant::now();
        Self { agents, start: now, now, in_flight: Vec::new(), is_deaf: false, log: String::new() }
    }

    fn peer(side: usize) -> Peer {
        let addr = format!("192.0.2.{}:5060", side + 1).parse().unwrap();
        Peer { transport: Transport::Udp, addr, listener: Listener::default() }
    }

    /// Lets things happen until `seconds`.
    fn until(&mut self, seconds: f64) -> &mut Self {
        let end = self.start + Duration::from_secs_f64(seconds);
        loop {
            self.drain();
            let arrival = self.in_flight.iter().map(|(at, ..)| *at).min();
            let timer = self.agents.iter().filter_map(UserAgent::poll_timeout).min();
            let Some(at) = arrival.into_iter().chain(timer).min().filter(|at| *at <= end) else {
                self.now = end;
                return self;
            };
            self.now = at;
            if let Some(first) = self.in_flight.iter().position(|(due, ..)| *due == at) {
                let (_, to, bytes) = self.in_flight.remove(first);
                if to == ALICE || !self.is_deaf {
                    self.agents[to].handle_message(at, 1_000, Self::peer(1 - to), bytes);
                }
            }
            for agent in &mut self.agents {
                agent.handle_timeout(at);
            }
        }
    }

    fn order(&mut self, by: usize, order: impl FnOnce(&mut UserAgent, Instant)) -> &mut Self {
        order(&mut self.agents[by], self.now);
        self.drain();
        self
    }

    fn drain(&mut self) {
        let at = (self.now - self.start).as_secs_f64();
        for (side, name) in NAMES.into_iter().enumerate() {
            while let Some(output) = self.agents[side].poll_output() {
                match output {
                    Output::Send { bytes, .. } => {
                        writeln!(self.log, "{at:06.3} {name} > {}", first_words(&bytes)).unwrap();
                        self.in_flight.push((self.now + HOP, 1 - side, bytes));
                    }
                    Output::Event(event) => {
                        writeln!(self.log, "{at:06.3} {name}: {}", told(&event)).unwrap();
                    }
                    _ => (),
                }
            }
        }
    }

    fn invite(&mut self, by: usize) -> &mut Self {
        let invite = OutboundInvite {
            target: format!("sip:{}@192.0.2.{}", NAMES[1 - by], 2 - by),
            peer: Self::peer(1 - by),
            from_uri: format!("sip:{}@192.0.2.{}", NAMES[by], by + 1),
            from_display: None,
            max_forwards: 70,
            sdp: "v=0".into(),
            headers: vec![],
            credentials: None,
            tcp_if_large: false,
        };
        self.order(by, |ua, now| assert!(ua.invite(now, invite).is_ok()))
    }

    fn answer(&mut self, by: usize) -> &mut Self {
        self.order(by, |ua, now| ua.answer(now, LegId::from_u64(1), "v=0".into()))
    }

    fn ring(&mut self, by: usize) -> &mut Self {
        self.order(by, |ua, now| ua.ring(now, LegId::from_u64(1), 180, None))
    }

    fn reject(&mut self, by: usize, status: u16) -> &mut Self {
        let rejection = Rejection { status, headers: vec![] };
        self.order(by, |ua, now| ua.reject(now, LegId::from_u64(1), rejection))
    }

    fn hangup(&mut self, by: usize) -> &mut Self {
        let hangup = Hangup { reason: None, unanswered_status: 480 };
        self.order(by, |ua, now| ua.hangup(now, LegId::from_u64(1), hangup))
    }

    fn check(&mut self, expected: Expect) -> &mut Self {
        expected.assert_eq(&std::mem::take(&mut self.log));
        self
    }

    /// After all timers nothing is left on either side.
    fn check_over(&mut self, expected: Expect) {
        let later = (self.now - self.start).as_secs_f64() + 100.0;
        self.until(later).check(expected);
        for agent in &self.agents {
            assert_eq!((agent.dialogs(), agent.transactions()), (0, 0));
        }
    }
}

fn first_words(bytes: &Bytes) -> String {
    match Message::parse(bytes.clone()).unwrap() {
        Message::Request(request) => request.method_name().to_owned(),
        Message::Response(response) => {
            let cseq = response.headers.get(sip::Name::CSeq).unwrap_or_default();
            let method = cseq.split(' ').next_back().unwrap_or_default();
            format!("{} {method}", response.status)
        }
    }
}

fn told(event: &Event) -> String {
    let text = format!("{event:?}");
    let end = text.find([' ', '(']).unwrap_or(text.len());
    match event {
        Event::Ended { end, .. } => format!("Ended {end:?}"),
        Event::Registered { user, contacts } => format!("Registered {user} {contacts}"),
        Event::Registrant { state, .. } => format!("Registrant {state:?}"),
        _ => text[..end].to_owned(),
    }
}

fn registration(password: &str) -> OutboundRegistration {
    OutboundRegistration {
        registrar: "sip:192.0.2.1".to_owned(),
        record: "sip:bob@192.0.2.1".to_owned(),
        contact_user: "bob".to_owned(),
        peer: Flow::peer(ALICE),
        credentials: Some(Credentials { user: "bob".to_owned(), password: password.to_owned() }),
        expires_s: 3_600,
    }
}

#[test]
fn section_2_1_successful_new_registration() {
    let mut flow = Flow::new();
    flow.order(BOB, |ua, now| assert!(ua.register(now, registration("zanzibar")).is_ok()));
    flow.until(1.0).check(expect![[r#"
        00.000 bob > REGISTER
        00.010 alice > 401 REGISTER
        00.020 bob > REGISTER
        00.030 alice > 200 REGISTER
        00.030 alice: Registered bob 1
        00.040 bob: Registrant Registered { expires_s: 3600 }
    "#]]);
}

#[test]
fn section_2_5_unsuccessful_registration() {
    let mut flow = Flow::new();
    flow.order(BOB, |ua, now| assert!(ua.register(now, registration("wrong")).is_ok()));
    flow.until(1.0).check(expect![[r#"
        00.000 bob > REGISTER
        00.010 alice > 401 REGISTER
        00.020 bob > REGISTER
        00.030 alice > 401 REGISTER
        00.040 bob: Registrant Failed { status: Some(401) }
    "#]]);
}

#[test]
fn section_3_1_session_establishment_and_its_end_by_the_callee() {
    let mut flow = Flow::new();
    flow.invite(ALICE).until(0.1).ring(BOB).until(2.0).answer(BOB).until(10.0).hangup(BOB);
    flow.check_over(expect![[r#"
        00.000 alice > INVITE
        00.010 bob > 100 INVITE
        00.010 bob: Invited
        00.100 bob > 180 INVITE
        00.110 alice: Ringing
        02.000 bob > 200 INVITE
        02.010 alice > ACK
        02.010 alice: Answered
        02.020 bob: Acknowledged
        10.000 bob > BYE
        10.010 alice > 200 BYE
        10.010 alice: Ended Bye { reason: None }
        10.020 bob: Ended HungUp { bye_status: Some(200) }
    "#]]);
}

#[test]
fn section_3_7_session_with_a_reinvite() {
    let mut flow = Flow::new();
    flow.invite(ALICE).until(0.1).answer(BOB).until(5.0);
    flow.order(BOB, |ua, now| assert!(ua.reinvite(now, LegId::from_u64(1), "v=1".into())));
    flow.until(5.1).answer(ALICE).until(10.0).hangup(ALICE).check_over(expect![[r#"
        00.000 alice > INVITE
        00.010 bob > 100 INVITE
        00.010 bob: Invited
        00.100 bob > 200 INVITE
        00.110 alice > ACK
        00.110 alice: Answered
        00.120 bob: Acknowledged
        05.000 bob > INVITE
        05.010 alice > 100 INVITE
        05.010 alice: Reinvited
        05.100 alice > 200 INVITE
        05.110 bob > ACK
        05.110 bob: Reanswered
        05.120 alice: Acknowledged
        10.000 alice > BYE
        10.010 bob > 200 BYE
        10.010 bob: Ended Bye { reason: None }
        10.020 alice: Ended HungUp { bye_status: Some(200) }
    "#]]);
}

#[test]
fn section_3_8_unsuccessful_no_answer() {
    let mut flow = Flow::new();
    flow.invite(ALICE).until(0.1).ring(BOB).until(20.0).hangup(ALICE);
    flow.check_over(expect![[r#"
        00.000 alice > INVITE
        00.010 bob > 100 INVITE
        00.010 bob: Invited
        00.100 bob > 180 INVITE
        00.110 alice: Ringing
        20.000 alice > CANCEL
        20.010 bob > 200 CANCEL
        20.010 bob > 487 INVITE
        20.010 bob: Ended Cancelled { reason: None }
        20.020 alice > ACK
        20.020 alice: Ended HungUp { bye_status: None }
    "#]]);
}

#[test]
fn section_3_9_unsuccessful_busy() {
    let mut flow = Flow::new();
    flow.invite(ALICE).until(0.1).reject(BOB, 486).check_over(expect![[r#"
        00.000 alice > INVITE
        00.010 bob > 100 INVITE
        00.010 bob: Invited
        00.100 bob > 486 INVITE
        00.100 bob: Ended HungUp { bye_status: None }
        00.110 alice > ACK
        00.110 alice: Ended Rejected { status: 486, phrase: "Busy Here", reason: None, retry_after_s: None }
    "#]]);
}

#[test]
fn section_3_10_unsuccessful_no_response() {
    let mut flow = Flow::new();
    flow.is_deaf = true;
    flow.invite(ALICE).check_over(expect![[r#"
        00.000 alice > INVITE
        00.500 alice > INVITE
        01.500 alice > INVITE
        03.500 alice > INVITE
        07.500 alice > INVITE
        15.500 alice > INVITE
        31.500 alice > INVITE
        32.000 alice: Ended TimedOut
    "#]]);
}

#[test]
fn section_3_11_unsuccessful_temporarily_unavailable() {
    let mut flow = Flow::new();
    flow.invite(ALICE).until(0.1).ring(BOB).until(1.0).reject(BOB, 480);
    flow.check_over(expect![[r#"
        00.000 alice > INVITE
        00.010 bob > 100 INVITE
        00.010 bob: Invited
        00.100 bob > 180 INVITE
        00.110 alice: Ringing
        01.000 bob > 480 INVITE
        01.000 bob: Ended HungUp { bye_status: None }
        01.010 alice > ACK
        01.010 alice: Ended Rejected { status: 480, phrase: "Temporarily Unavailable", reason: None, retry_after_s: None }
    "#]]);
}
