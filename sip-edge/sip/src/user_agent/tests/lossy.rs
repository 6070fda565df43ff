//! Two user agents over a network that loses, repeats and reorders, in virtual time, by seed.
//!
//! Whatever the network does, every leg ends exactly once on both sides, and nothing is left: in
//! calls with reliable ringing, re-INVITEs from both sides, REFERs, and session timers that fire.

use crate::HostPort;
use crate::peer::{Peer, Transport};
use crate::replaces::ReferTo;
use crate::user_agent::{
    Config, Event, Hangup, LegId, OutboundInvite, OutboundRefer, Output, Rejection, UserAgent,
};
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

const CALLS: u64 = 12;
const LAST_ORDER_MS: u64 = 60_000;

#[test]
fn every_leg_ends_once_on_both_sides_over_udp() {
    let mut seen = BTreeSet::new();
    for seed in 0..800 {
        let loss_percent = [0, 5, 20, 45, 100][seed as usize % 5];
        seen.extend(World::new(seed, Transport::Udp, loss_percent).run());
    }
    for wanted in ["PRACK", "UPDATE", "REFER", "NOTIFY", "Reanswered", "ReinviteFailed", "TimedOut"]
    {
        assert!(seen.contains(wanted), "the worlds had no {wanted}, only {seen:?}");
    }
}

#[test]
fn every_leg_ends_once_on_both_sides_over_tcp_that_breaks() {
    for seed in 0..200 {
        World::new(seed, Transport::Tcp, [0, 0, 10][seed as usize % 3]).run();
    }
}

/// What will happen, and to which of the two.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Deliver { to: usize, bytes: Bytes },
    Broken { at: usize },
    Invite { by: usize },
    Ring { by: usize, leg: LegId },
    Answer { by: usize, leg: LegId },
    Reject { by: usize, leg: LegId },
    HangUp { by: usize, leg: LegId },
    Reinvite { by: usize, leg: LegId },
    RejectOffer { by: usize, leg: LegId },
    Refer { by: usize, leg: LegId },
    AcceptRefer { by: usize, leg: LegId },
    RejectRefer { by: usize, leg: LegId },
    NotifyRefer { by: usize, leg: LegId, status: u16 },
}

struct World {
    seed: u64,
    rng: StdRng,
    start: Instant,
    agents: [UserAgent; 2],
    transport: Transport,
    loss_percent: u64,
    steps: BTreeSet<(Instant, u64, Step)>,
    number: u64,
    /// Legs of each side that were told, and whether they have ended.
    legs: [BTreeMap<LegId, bool>; 2],
    /// Methods that were sent, and names of events.
    seen: BTreeSet<String>,
}

impl World {
    fn new(seed: u64, transport: Transport, loss_percent: u64) -> Self {
        let agents = [0, 1].map(|side: u64| {
            let advertised = HostPort::new(format!("192.0.2.{}", side + 1), 5060);
            let session_interval = Some(Duration::from_secs(90)).filter(|_| seed.is_multiple_of(2));
            let config = Config { session_interval, ..Config::new(advertised) };
            UserAgent::new(config, seed * 2 + side)
        });
        let (rng, start) = (StdRng::seed_from_u64(seed), Instant::now());
        let (steps, legs) = (BTreeSet::new(), [BTreeMap::new(), BTreeMap::new()]);
        let (number, seen) = (0, BTreeSet::new());
        Self { seed, rng, start, agents, transport, loss_percent, steps, number, legs, seen }
    }

    fn below(&mut self, end: u64) -> u64 {
        self.rng.next_u64() % end
    }

    fn later(&mut self, now: Instant, most_ms: u64, step: Step) {
        let at = now + Duration::from_millis(self.below(most_ms));
        self.number += 1;
        self.steps.insert((at, self.number, step));
    }

    /// What was seen.
    fn run(mut self) -> BTreeSet<String> {
        for _ in 0..CALLS {
            let by = self.below(2) as usize;
            self.later(self.start, LAST_ORDER_MS, Step::Invite { by });
        }
        loop {
            let due = [0, 1].map(|side| self.agents[side].poll_timeout());
            let timer = due.into_iter().flatten().min();
            let step = self.steps.first().map(|(at, ..)| *at);
            let now = match (step, timer) {
                (Some(step), Some(timer)) => step.min(timer),
                (Some(now), None) | (None, Some(now)) => now,
                (None, None) => break,
            };
            assert!(now < self.start + Duration::from_secs(900), "seed {}: no end", self.seed);
            if step == Some(now) {
                let (_, _, step) = self.steps.pop_first().unwrap();
                self.perform(now, step);
            }
            for side in 0..2 {
                self.agents[side].handle_timeout(now);
                self.drain(now, side);
                assert!(self.agents[side].is_clean(), "seed {}: an index leaks", self.seed);
            }
        }
        for side in 0..2 {
            let agent = &self.agents[side];
            assert_eq!(agent.dialogs(), 0, "seed {}: legs of side {side}", self.seed);
            assert_eq!(agent.transactions(), 0, "seed {}: transactions of {side}", self.seed);
            let open: Vec<_> = self.legs[side].iter().filter(|(_, ended)| !**ended).collect();
            assert!(open.is_empty(), "seed {}: {open:?} of side {side} never ended", self.seed);
        }
        self.seen
    }

    fn perform(&mut self, now: Instant, step: Step) {
        let sdp = || Bytes::from_static(b"v=0");
        match step {
            Step::Deliver { to, bytes } => {
                let source = self.peer(1 - to);
                self.agents[to].handle_message(now, 0, source, bytes);
            }
            Step::Broken { at } => {
                let peer = self.peer(1 - at);
                self.agents[at].handle_transport_failed(now, peer);
            }
            Step::Invite { by } => {
                let invite = OutboundInvite {
                    max_forwards: 70,
                    target: format!("sip:b@192.0.2.{}", 2 - by),
                    peer: self.peer(1 - by),
                    from_uri: "sip:a@example.net".into(),
                    from_display: None,
                    sdp: sdp(),
                    headers: vec![],
                    credentials: None,
                    tcp_if_large: false,
                };
                let leg = self.agents[by].invite(now, invite).unwrap();
                self.legs[by].insert(leg, false);
                self.play(now, by, leg);
            }
            Step::Ring { by, leg } => {
                // With a body it is reliable: the other side supports 100rel.
                let sdp = (self.below(2) == 0).then(sdp);
                self.agents[by].ring(now, leg, 183, sdp);
            }
            Step::Answer { by, leg } => self.agents[by].answer(now, leg, sdp()),
            Step::Reject { by, leg } => {
                let rejection = Rejection { status: 486, headers: vec![] };
                self.agents[by].reject(now, leg, rejection);
            }
            Step::Reinvite { by, leg } => {
                self.agents[by].reinvite(now, leg, sdp());
            }
            Step::RejectOffer { by, leg } => {
                let rejection = Rejection { status: 488, headers: vec![] };
                self.agents[by].reject(now, leg, rejection);
            }
            Step::Refer { by, leg } => {
                let to = ReferTo { uri: "sip:c@192.0.2.9".to_owned(), replaces: None };
                let refer = OutboundRefer { to, referred_by: None, is_quiet: self.below(3) == 0 };
                self.agents[by].refer(now, leg, &refer);
            }
            Step::AcceptRefer { by, leg } => self.agents[by].accept_refer(now, leg),
            Step::RejectRefer { by, leg } => self.agents[by].reject_refer(now, leg, 603),
            Step::NotifyRefer { by, leg, status } => self.agents[by].notify_refer(now, leg, status),
            Step::HangUp { by, leg } => {
                let hangup = Hangup { reason: None, unanswered_status: 480 };
                self.agents[by].hangup(now, leg, hangup);
            }
        }
    }

    /// What one side does with a leg, whatever becomes of it: some of it comes too early or late.
    fn play(&mut self, now: Instant, by: usize, leg: LegId) {
        for _ in 0..self.below(3) {
            self.later(now, LAST_ORDER_MS, Step::Reinvite { by, leg });
        }
        self.later(now, LAST_ORDER_MS, Step::Refer { by, leg });
        let last_ms = [LAST_ORDER_MS, 4 * LAST_ORDER_MS][self.below(2) as usize];
        self.later(now, last_ms, Step::HangUp { by, leg });
    }

    fn saw(&mut self, what: &str, by: usize, leg: LegId) {
        self.seen.insert(what.to_owned());
        let ended = self.legs[by].get(&leg).copied();
        assert_eq!(ended, Some(false), "seed {}: {leg:?} has {what} after its end", self.seed);
    }

    fn peer(&self, side: usize) -> Peer {
        let addr = format!("192.0.2.{}:5060", side + 1).parse().unwrap();
        Peer::new(self.transport, addr)
    }

    fn drain(&mut self, now: Instant, side: usize) {
        while let Some(output) = self.agents[side].poll_output() {
            match output {
                Output::Send { peer, bytes } => {
                    assert_eq!(peer, self.peer(1 - side), "seed {}", self.seed);
                    self.carry(now, side, bytes);
                }
                Output::Event(event) => self.react(now, side, event),
                Output::Alias { .. } | Output::Judged { .. } | Output::Discarded(_) => (),
            }
        }
    }

    fn carry(&mut self, now: Instant, from: usize, bytes: Bytes) {
        let word = bytes.split(|byte| *byte == b' ').next().unwrap_or_default();
        self.seen.insert(String::from_utf8_lossy(word).into_owned());
        let lost = self.below(100) < self.loss_percent;
        match self.transport {
            Transport::Tcp | Transport::Tls if lost => {
                self.later(now, 50, Step::Broken { at: from })
            }
            // One second keeps no order by TCP either: harder than the real thing.
            Transport::Tcp | Transport::Tls => {
                self.later(now, 1_000, Step::Deliver { to: 1 - from, bytes })
            }
            Transport::Udp if lost => (),
            Transport::Udp => {
                let copies = if self.below(10) == 0 { 2 } else { 1 };
                for _ in 0..copies {
                    let bytes = bytes.clone();
                    self.later(now, 1_500, Step::Deliver { to: 1 - from, bytes });
                }
            }
        }
    }

    fn react(&mut self, now: Instant, by: usize, event: Event) {
        let (seed, wait_ms) = (self.seed, self.below(20_000) + 1);
        match event {
            Event::Invited { leg, .. } => {
                assert_eq!(self.legs[by].insert(leg, false), None, "seed {seed}: {leg:?} twice");
                self.later(now, wait_ms, Step::Ring { by, leg });
                let step = match self.below(4) {
                    0 => Step::Reject { by, leg },
                    _ => Step::Answer { by, leg },
                };
                self.later(now, wait_ms, step);
                self.play(now, by, leg);
            }
            Event::Ended { leg, end } => {
                self.seen.insert(format!("{end:?}"));
                let open = self.legs[by].insert(leg, true);
                assert_eq!(open, Some(false), "seed {seed}: {leg:?} ended twice or unknown");
            }
            Event::Reinvited { leg, .. } => {
                let step = match self.below(4) {
                    0 => Step::RejectOffer { by, leg },
                    _ => Step::Answer { by, leg },
                };
                self.later(now, wait_ms / 8 + 1, step);
            }
            Event::Referred { leg, .. } => {
                let step = match self.below(4) {
                    0 => Step::RejectRefer { by, leg },
                    _ => Step::AcceptRefer { by, leg },
                };
                self.later(now, wait_ms, step);
                for status in [180, 200] {
                    self.later(now, 2 * wait_ms, Step::NotifyRefer { by, leg, status });
                }
            }
            Event::Reanswered { leg, .. } => self.saw("Reanswered", by, leg),
            Event::ReinviteFailed { leg, .. } => self.saw("ReinviteFailed", by, leg),
            Event::Acknowledged { leg, .. }
            | Event::Ringing { leg, .. }
            | Event::Answered { leg, .. }
            | Event::Moved { leg }
            | Event::ReferProgress { leg, .. }
            | Event::Info { leg, .. } => {
                let ended = self.legs[by].get(&leg).copied();
                assert_eq!(ended, Some(false), "seed {seed}: {leg:?} has an event after its end");
            }
            Event::Registered { .. } | Event::Registrant { .. } => {
                unreachable!("nobody registers")
            }
        }
    }
}
