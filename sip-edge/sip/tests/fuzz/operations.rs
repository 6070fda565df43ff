//! Two user agents and a network between them that does what the input says: it delivers, loses,
//! repeats and damages messages, and both transaction users do anything at any time.
//!
//! Whatever it is, all legs end once and nothing is left.

use bytes::Bytes;
use sip::{
    Config, Event, Hangup, HostPort, LegId, Listener, OutboundInvite, OutboundRefer, Output, Peer,
    ReferTo, Rejection, Transport, UserAgent,
};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Operations of one input at most.
const OPERATIONS_MAX: usize = 400;
/// Messages on their way at most: older ones are lost.
const IN_FLIGHT_MAX: usize = 64;
/// Nothing takes longer once both have hung up: a BYE takes 64·T1, and what it crosses as long.
const END: Duration = Duration::from_secs(300);

pub(crate) fn check(input: &[u8]) {
    let mut world = World::new(input.first().is_some_and(|byte| byte & 1 == 1));
    for operation in input.chunks(3).take(OPERATIONS_MAX) {
        let byte = |at: usize| operation.get(at).copied().unwrap_or_default();
        world.perform(byte(0), byte(1), byte(2));
    }
    world.finish();
}

struct World {
    start: Instant,
    now: Instant,
    agents: [UserAgent; 2],
    transport: Transport,
    /// To whom, and what.
    in_flight: Vec<(usize, Bytes)>,
    /// Whether a leg has ended.
    legs: [HashMap<LegId, bool>; 2],
}

impl World {
    fn new(is_tcp: bool) -> Self {
        let agents = [0, 1].map(|side: u64| {
            let config = Config {
                session_interval: Some(Duration::from_secs(90)),
                ..Config::new(HostPort::new(format!("192.0.2.{}", side + 1), 5060))
            };
            UserAgent::new(config, side)
        });
        let now = Instant::now();
        let transport = if is_tcp { Transport::Tcp } else { Transport::Udp };
        let legs = [HashMap::new(), HashMap::new()];
        Self { start: now, now, agents, transport, in_flight: Vec::new(), legs }
    }

    fn perform(&mut self, operation: u8, a: u8, b: u8) {
        let by = usize::from(a & 1);
        let leg = LegId::from_u64(u64::from(a >> 1) % 6 + 1);
        let now = self.now;
        let agent = &mut self.agents[by];
        match operation % 16 {
            0 => self.invite(by),
            1 | 2 => self.deliver(b, true),
            3 => self.deliver(b, false),
            4 => drop(self.take(b)),
            5 => self.damage(a, b),
            6 => agent.ring(now, leg, 183, (b & 1 == 1).then(|| Bytes::from_static(b"v=0"))),
            7 => agent.answer(now, leg, Bytes::from_static(b"v=0")),
            8 => agent.reject(now, leg, Rejection { status: 300 + u16::from(b), headers: vec![] }),
            9 => agent.hangup(now, leg, hangup()),
            10 => drop(agent.reinvite(now, leg, Bytes::from_static(b"v=1"))),
            11 => self.refer(by, leg, b & 1 == 1),
            12 => match b % 3 {
                0 => agent.accept_refer(now, leg),
                1 => agent.reject_refer(now, leg, 603),
                _ => agent.notify_refer(now, leg, 100 + u16::from(b)),
            },
            13 => self.wait(Duration::from_millis(u64::from(b) * 100)),
            14 => self.agents[by].handle_transport_failed(now, self.peer(1 - by)),
            _ => self.wait_for_a_timer(),
        }
        self.drain();
    }

    fn peer(&self, side: usize) -> Peer {
        let addr = format!("192.0.2.{}:5060", side + 1).parse().expect("an address");
        Peer { transport: self.transport, addr, listener: Listener::default() }
    }

    fn invite(&mut self, by: usize) {
        if self.legs[by].len() >= 6 {
            return;
        }
        let invite = OutboundInvite {
            target: format!("sip:b@192.0.2.{}", 2 - by),
            peer: self.peer(1 - by),
            from_uri: "sip:a@example.net".to_owned(),
            from_display: None,
            max_forwards: 70,
            sdp: Bytes::from_static(b"v=0"),
            headers: Vec::new(),
            credentials: None,
            tcp_if_large: false,
        };
        if let Ok(leg) = self.agents[by].invite(self.now, invite) {
            self.legs[by].insert(leg, false);
        }
    }

    fn refer(&mut self, by: usize, leg: LegId, is_quiet: bool) {
        let to = ReferTo { uri: "sip:c@192.0.2.9".to_owned(), replaces: None };
        let refer = OutboundRefer { to, referred_by: None, is_quiet };
        self.agents[by].refer(self.now, leg, &refer);
    }

    fn take(&mut self, which: u8) -> Option<(usize, Bytes)> {
        let len = self.in_flight.len();
        (len > 0).then(|| self.in_flight.remove(usize::from(which) % len))
    }

    fn deliver(&mut self, which: u8, once: bool) {
        let Some((to, bytes)) = self.take(which) else { return };
        if !once {
            self.in_flight.push((to, bytes.clone()));
        }
        let source = self.peer(1 - to);
        self.agents[to].handle_message(self.now, 0, source, bytes);
    }

    fn damage(&mut self, which: u8, with: u8) {
        let Some((to, bytes)) = self.take(which) else { return };
        let mut copy = bytes.to_vec();
        let at = usize::from(which) * 7 % copy.len();
        copy[at] = with;
        self.in_flight.push((to, copy.into()));
    }

    fn wait(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.next().is_some_and(|at| at <= end) {
            self.wait_for_a_timer();
        }
        self.now = end;
    }

    fn next(&self) -> Option<Instant> {
        self.agents.iter().filter_map(UserAgent::poll_timeout).min()
    }

    fn wait_for_a_timer(&mut self) {
        let Some(at) = self.next() else { return };
        self.now = self.now.max(at);
        for agent in &mut self.agents {
            agent.handle_timeout(self.now);
        }
        self.drain();
        let next = self.next();
        assert!(next.is_none_or(|next| next > self.now), "a timer does not rest");
    }

    fn drain(&mut self) {
        for side in 0..2 {
            while let Some(output) = self.agents[side].poll_output() {
                match output {
                    Output::Send { bytes, .. } => {
                        if self.in_flight.len() == IN_FLIGHT_MAX {
                            self.in_flight.remove(0);
                        }
                        self.in_flight.push((1 - side, bytes));
                    }
                    Output::Event(event) => self.note(side, event),
                    _ => (),
                }
            }
        }
    }

    fn note(&mut self, side: usize, event: Event) {
        let legs = &mut self.legs[side];
        match event {
            Event::Invited { leg, .. } => {
                assert_eq!(legs.insert(leg, false), None, "{leg:?} is told twice");
            }
            Event::Ended { leg, .. } => {
                assert_eq!(legs.insert(leg, true), Some(false), "{leg:?} ended twice, or unknown");
            }
            _ => (),
        }
    }

    /// Both hang up, the network loses all that is left, and time does the rest.
    fn finish(&mut self) {
        for side in 0..2 {
            for leg in self.legs[side].keys().copied().collect::<Vec<_>>() {
                self.agents[side].hangup(self.now, leg, hangup());
            }
        }
        self.drain();
        let begin = self.now;
        while self.next().is_some() {
            self.wait_for_a_timer();
            assert!(self.now < begin + END, "still busy after {:?}", self.now - self.start);
        }
        for (side, agent) in self.agents.iter().enumerate() {
            let left = (agent.dialogs(), agent.transactions());
            assert_eq!(left, (0, 0), "dialogs and transactions of side {side}");
            let open: Vec<_> = self.legs[side].iter().filter(|(_, ended)| !**ended).collect();
            assert!(open.is_empty(), "{open:?} of side {side} never ended");
        }
    }
}

fn hangup() -> Hangup {
    Hangup { reason: None, unanswered_status: 480 }
}
