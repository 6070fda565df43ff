//! Whatever the legs, the services, the API and the clock do, in any order: nothing panics, and a
//! call that has ended has given back, once, all that it held.

mod script;

use call::{
    Action, Ask, Call, Cause, CommandNumber, Destination, Event, Failure, FailureKind, Input,
    LegEnd, LegNumber, LegSignal, Legs, MediaCommand, Now, Occurrence, Originated, Output, Plan,
    QueueCommand, Reply, RequestNumber, Side, SipOrder,
};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn a_call_that_has_ended_holds_nothing(
        begin in 0..3u8,
        plan in 0..PLANS,
        settled in 0..3u8,
        steps in prop::collection::vec(step(), 0..60),
    ) {
        let mut model = Model::begin(begin, plan);
        model.settle(settled);
        for step in steps {
            model.step(step);
        }
        model.input(Input::ShutDown);
        model.check_end();
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 300,
        max_global_rejects: 100_000,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_call_in_another_process_does_what_it_would_have_done_here(
        begin in 0..3u8,
        plan in 0..PLANS,
        settled in 1..3u8,
        before in prop::collection::vec(step(), 0..10),
        after in prop::collection::vec(step(), 0..40),
    ) {
        let (mut here, mut there) = (Model::begin(begin, plan), Model::begin(begin, plan));
        for model in [&mut here, &mut there] {
            model.settle(settled);
            for step in before.iter().filter_map(calm) {
                model.step(step);
                model.quiet(); // Or a command that nobody answers is given again some time.
            }
        }
        prop_assume!(here.is_at_rest());
        there.restart();
        there.quiet();
        (here.trace, there.trace) = (Vec::new(), Vec::new());
        for step in after {
            // What plays has other names.
            if !matches!(step, Step::Input(Input::PlayFinished { .. })) {
                here.step(step.clone());
                there.step(step);
            }
            prop_assert_eq!(&here.trace, &there.trace);
        }
    }
}

/// The step, if nothing of it is half done when all commands have been answered.
fn calm(step: &Step) -> Option<Step> {
    match step {
        Step::Signal(_, LegSignal::Reinvited { .. }) => None,
        Step::Reply { oldest, .. } => Some(Step::Reply { oldest: *oldest, failure: None }),
        step => Some(step.clone()),
    }
}

#[derive(Clone, Debug)]
enum Step {
    Signal(u8, LegSignal),
    /// Answers the oldest open command, or the newest: as hoped for, or with a failure.
    Reply {
        oldest: bool,
        failure: Option<FailureKind>,
    },
    Ask(Ask),
    Wait(u64),
    Input(Input),
    Replace {
        place: u8,
        has_offer: bool,
    },
    Borrow {
        place: Option<u8>,
    },
    Taken(u8),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let sdp = || prop_oneof![Just(None), Just(Some("sdp".into()))];
    let end = prop_oneof![
        Just(LegEnd::Bye { reason: None }),
        Just(LegEnd::Cancelled { reason: None }),
        Just(LegEnd::Rejected { status: 486, reason: None }),
        Just(LegEnd::TimedOut),
        Just(LegEnd::HungUp { status: Some(200) }),
    ];
    let signal = prop_oneof![
        3 => sdp().prop_map(|sdp| LegSignal::Acknowledged { sdp }),
        2 => sdp().prop_map(|sdp| LegSignal::Ringing { sdp }),
        3 => sdp().prop_map(|sdp| LegSignal::Answered { sdp }),
        2 => sdp().prop_map(|sdp| LegSignal::Reinvited { sdp }),
        1 => Just(LegSignal::Digit { digit: '5', duration_ms: 100 }),
        1 => Just(LegSignal::Referred { target: "user/3".into(), headers: vec![] }),
        1 => end.prop_map(LegSignal::Ended),
    ];
    let failure = prop_oneof![
        20 => Just(None),
        1 => Just(Some(FailureKind::NoCodec)),
        1 => Just(Some(FailureKind::NoAddressFamily)),
        1 => Just(Some(FailureKind::NotFound)),
        1 => Just(Some(FailureKind::Full)),
        1 => Just(Some(FailureKind::Denied)),
        1 => Just(Some(FailureKind::Unavailable)),
    ];
    let ask = prop_oneof![
        4 => (0..3u8).prop_map(|id| Ask::Ring {
            assignment_id: id.to_string(),
            target: "user/1".into(),
            also: if id == 2 { vec!["user/2".into(), "user/3".into()] } else { Vec::new() },
            ring: script::RING,
        }),
        2 => (0..3u8).prop_map(|id| Ask::StopRinging { assignment_id: id.to_string() }),
        3 => (legs(), task(), any::<bool>())
            .prop_map(|(legs, task, wait)| Ask::Play { file: "f".into(), legs, task, wait }),
        2 => (0..PLANS, task())
            .prop_map(|(plan, task)| Ask::Transfer { to: Destination::Plan(plan_of(plan)), task }),
        2 => task()
            .prop_map(|task| Ask::Transfer { to: Destination::Target("user/2".into()), task }),
        2 => task()
            .prop_map(|task| Ask::Hangup { cause: Cause::AllottedTimeout, legs: Legs::B, task }),
        2 => Just(Ask::Collect(script::collect(None, 2, []))),
        2 => (0..PLANS).prop_map(|plan| Ask::RunPlan(plan_of(plan))),
        1 => Just(Ask::Originate),
        1 => task()
            .prop_map(|task| Ask::Hangup { cause: Cause::NormalClearing, legs: Legs::Both, task }),
    ];
    let side = prop_oneof![Just(Side::A), Just(Side::B)];
    let input = prop_oneof![
        6 => (side, prop_oneof![Just('1'), Just('#'), Just('x')])
            .prop_map(|(side, digit)| Input::Digit { side, digit }),
        6 => (0..20u64).prop_map(|n| Input::PlayFinished { play_id: format!("p{n}") }),
        1 => Just(Input::MediaInactive),
        1 => Just(Input::MediaLost),
    ];
    // Half of the waits sit on a timeout of ours.
    let wait = prop_oneof![
        Just(0),
        Just(1),
        Just(1_000),
        Just(2_000),
        Just(3_000),
        Just(4_000),
        Just(30_000),
        0..5_000u64,
    ];
    prop_oneof![
        8 => (prop_oneof![0..2u8, 0..4u8], signal).prop_map(|(leg, signal)| Step::Signal(leg, signal)),
        12 => (any::<bool>(), failure)
            .prop_map(|(oldest, failure)| Step::Reply { oldest, failure }),
        4 => ask.prop_map(Step::Ask),
        4 => wait.prop_map(Step::Wait),
        3 => input.prop_map(Step::Input),
        1 => (0..3u8, any::<bool>())
            .prop_map(|(place, has_offer)| Step::Replace { place, has_offer }),
        1 => prop::option::of(0..3u8).prop_map(|place| Step::Borrow { place }),
        1 => (0..3u8).prop_map(Step::Taken),
        1 => Just(Step::Restart),
    ]
}

fn legs() -> impl Strategy<Value = Legs> {
    prop_oneof![Just(Legs::Both), Just(Legs::A), Just(Legs::B)]
}

/// Few, so that some come twice.
fn task() -> impl Strategy<Value = Option<Occurrence>> {
    let occurrence = (0..2u8, 1..3u32)
        .prop_map(|(task, number)| Occurrence { task_id: task.to_string(), number });
    prop_oneof![Just(None), occurrence.prop_map(Some)]
}

const PLANS: u8 = 6;

fn plan_of(plan: u8) -> Plan {
    let target = "user/1".to_owned();
    match plan {
        0 => script::queue_plan(),
        1 => script::limit_plan(),
        2 => Plan::new([Action::Play { file: "f".into() }]),
        3 => Plan::new([Action::Dial {
            target,
            ring: script::RING,
            otherwise: Some(script::queue_plan()),
        }]),
        4 => Plan::new([Action::Dial { target, ring: script::RING, otherwise: None }]),
        _ => Plan::new([Action::Answer, Action::Park]),
    }
}

/// What must be true, kept apart from how the call does it.
struct Model {
    call: Call,
    now: Now,
    open_commands: BTreeMap<CommandNumber, Reply>,
    /// Legs that live at SIP.
    legs: BTreeSet<LegNumber>,
    /// Leg A's own INVITE is not answered.
    invite_pending: bool,
    has_session: bool,
    sessions_deleted: usize,
    /// The request for the place that we may have.
    place: Option<CommandNumber>,
    requests: BTreeSet<RequestNumber>,
    next_request: u64,
    ended: usize,
    /// A place may be asked for again.
    restarted: bool,
    trace: Vec<String>,
}

impl Model {
    fn begin(begin: u8, plan: u8) -> Self {
        let now = Now { instant: Instant::now(), unix_ms: 0 };
        let (facts, plan) = (script::facts("sip:1@h"), plan_of(plan));
        let originated =
            Originated { request: RequestNumber(0), ring: script::RING, return_at_once: false };
        let call = match begin {
            0 => Call::inbound(now, facts, plan, Some("offer".into())),
            1 => Call::inbound(now, facts, plan, None),
            _ => Call::originate(now, facts, plan, originated),
        };
        let inbound = begin < 2;
        let mut model = Self {
            call,
            now,
            open_commands: BTreeMap::new(),
            legs: inbound.then_some(LegNumber(0)).into_iter().collect(),
            invite_pending: inbound,
            has_session: false,
            sessions_deleted: 0,
            place: None,
            requests: (!inbound).then_some(RequestNumber(0)).into_iter().collect(),
            next_request: 1,
            ended: 0,
            restarted: false,
            trace: Vec::new(),
        };
        model.drain();
        model
    }

    /// Goes the good way first: to a leg A that is answered (1), and to a leg B that rings (2).
    fn settle(&mut self, stage: u8) {
        let signal = |leg, signal| Step::Signal(leg, signal);
        let mut steps = Vec::new();
        if stage >= 1 {
            steps.push(signal(1, LegSignal::Answered { sdp: Some("sdp".into()) }));
            steps.push(signal(0, LegSignal::Answered { sdp: Some("sdp".into()) }));
            steps.push(signal(0, LegSignal::Acknowledged { sdp: Some("sdp".into()) }));
        }
        if stage >= 2 {
            let assignment_id = "0".to_owned();
            let target = "user/1".to_owned();
            steps.push(Step::Ask(Ask::Ring {
                assignment_id,
                target,
                also: Vec::new(),
                ring: script::RING,
            }));
        }
        for step in steps {
            while !self.open_commands.is_empty() {
                self.reply(true, None);
            }
            self.step(step);
        }
        while stage > 0 && !self.open_commands.is_empty() {
            self.reply(true, None);
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Signal(leg, signal) => {
                let leg = LegNumber(leg.into());
                if !self.legs.contains(&leg) {
                    return; // The user agent says nothing of legs that it does not have.
                }
                if matches!(signal, LegSignal::Ended(_)) {
                    self.legs.remove(&leg);
                }
                self.input(Input::Leg { leg, signal });
            }
            Step::Reply { oldest, failure } => self.reply(oldest, failure),
            Step::Ask(ask) => {
                let request = RequestNumber(self.next_request);
                self.next_request += 1;
                self.requests.insert(request);
                self.input(Input::Asked { request, ask });
            }
            Step::Wait(ms) => self.wait(Duration::from_millis(ms)),
            Step::Input(input) => self.input(input),
            Step::Replace { place, has_offer } => {
                let (place, sdp) = (LegNumber(place.into()), has_offer.then(|| "sdp".into()));
                let number = self.call.replace(self.now, place, "sip:new@h".to_owned(), sdp);
                self.legs.extend(number);
                self.drain();
            }
            Step::Borrow { place } => {
                let request = RequestNumber(self.next_request);
                self.next_request += 1;
                let place = place.map(|place| LegNumber(place.into()));
                let (uri, cause) = ("sip:other@h".to_owned(), Cause::Bowout);
                let number = self.call.borrow_leg(self.now, place, uri, cause, Some(request));
                if let Ok(number) = number {
                    self.requests.insert(request);
                    self.legs.insert(number);
                }
                self.drain();
            }
            Step::Restart => self.restart(),
            Step::Taken(leg) => {
                let leg = LegNumber(leg.into());
                let cause = Cause::AttendedTransfer;
                // Only legs that stand in their place can be lent.
                let stands = [Side::A, Side::B].map(|side| self.call.leg_at(side));
                if stands.into_iter().flatten().any(|(number, _)| number == leg) {
                    self.legs.remove(&leg);
                    self.input(Input::LegTaken { leg, cause });
                }
            }
        }
    }

    /// Lets another process go on, if it is a call that can be kept.
    fn restart(&mut self) {
        let Some(call) = script::restarted(self.now, &self.call) else { return };
        let kept = self.call.snapshot(self.now).expect("it was kept");
        self.legs = kept.legs().collect(); // The shell ends all others.
        self.open_commands.clear();
        self.requests.clear(); // Who waited is told nothing.
        (self.call, self.restarted) = (call, true);
        self.drain();
    }

    /// Lets the services answer everything.
    fn quiet(&mut self) {
        while !self.open_commands.is_empty() {
            self.reply(true, None);
        }
    }

    /// Whether a restart loses nothing: all that is there can be kept.
    fn is_at_rest(&self) -> bool {
        let kept = self.call.snapshot(self.now).filter(|it| !it.is_being_answered());
        self.requests.is_empty() && kept.is_some_and(|it| it.legs().eq(self.legs.iter().copied()))
    }

    fn reply(&mut self, oldest: bool, failure: Option<FailureKind>) {
        let open = &mut self.open_commands;
        let first = if oldest { open.pop_first() } else { open.pop_last() };
        let Some((command, reply)) = first else { return };
        if matches!(failure, Some(FailureKind::Full | FailureKind::NotFound))
            && self.place == Some(command)
        {
            self.place = None; // If nobody waits for the reply any more, the place was left before.
        }
        let message = String::new();
        let reply = failure.map_or(Ok(reply), |kind| Err(Failure { kind, message }));
        self.input(Input::Replied { command, reply });
    }

    fn wait(&mut self, duration: Duration) {
        let to = self.now.instant + duration;
        while let Some(at) = self.call.poll_timeout().filter(|at| *at <= to) {
            assert!(at >= self.now.instant, "a timeout in the past");
            self.now.instant = at;
            self.call.handle_timeout(self.now);
            self.drain();
            assert!(self.call.poll_timeout().is_none_or(|next| next > at), "a timeout twice");
        }
        self.now.instant = to;
    }

    fn input(&mut self, input: Input) {
        self.call.handle(self.now, input);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(output) = self.call.poll_output() {
            if let Some((_, number, reply)) = script::hoped_for(&output) {
                self.open_commands.insert(number, reply);
            }
            self.trace.push(nameless(&script::describe(&output)));
            self.check_output(output);
        }
        assert!(!self.call.has_ended() || self.call.poll_timeout().is_none());
    }

    fn check_output(&mut self, output: Output) {
        match output {
            Output::Sip { leg, order: SipOrder::Invite { .. } } => {
                assert!(self.legs.insert(leg), "{leg:?} is called twice");
            }
            Output::Sip { leg, order } => {
                assert!(self.legs.contains(&leg), "{leg:?} is gone: {order:?}");
                match order {
                    SipOrder::Answer { .. } if leg.0 == 0 => self.invite_pending = false,
                    SipOrder::Hangup { .. } => drop(self.legs.remove(&leg)),
                    // To the INVITE it ends the leg, to a re-INVITE it ends nothing.
                    SipOrder::Reject { .. } if leg.0 == 0 && self.invite_pending => {
                        self.legs.remove(&leg);
                    }
                    _ => (),
                }
            }
            Output::Media { command, .. } => {
                assert_eq!(self.sessions_deleted, 0, "{command:?} after the session");
                match command {
                    MediaCommand::Delete { side: None } => self.sessions_deleted += 1,
                    MediaCommand::Offer { .. } => self.has_session = true,
                    _ => assert!(self.has_session, "{command:?} before the session"),
                }
            }
            Output::Queue { number, command } => match command {
                QueueCommand::Enqueue { answered: false, .. } => {
                    let before = self.place.replace(number);
                    assert!(before.is_none() || self.restarted, "a second place");
                }
                QueueCommand::Enqueue { answered: true, .. } => assert!(self.place.is_some()),
                QueueCommand::Agent { .. } => (),
                QueueCommand::Leave { .. } => {
                    assert!(self.place.take().is_some(), "left without a place");
                }
            },
            Output::Event { event, .. } => {
                assert_eq!(self.ended, 0, "{event:?} after the end");
                match event {
                    Event::Ended => self.ended += 1,
                    Event::Connected { .. } => self.place = None, // queue-svc commits.
                    _ => (),
                }
            }
            Output::Answer { request, .. } => {
                assert!(self.requests.remove(&request), "{request:?} is answered twice");
            }
            Output::Scheduler { .. } => (),
        }
    }

    fn check_end(&self) {
        assert!(self.call.has_ended());
        assert_eq!(self.ended, 1, "ends told");
        assert_eq!(self.requests, BTreeSet::new(), "requests without an answer");
        assert_eq!(self.legs, BTreeSet::new(), "legs that live on");
        assert_eq!(self.place, None, "a place that is kept");
        assert_eq!(self.sessions_deleted, usize::from(self.has_session), "sessions deleted");
    }
}

/// Without the numbers of commands, after which the script's scheduler names its tasks.
fn nameless(line: &str) -> String {
    let mut words: Vec<&str> = line.split('t').collect();
    for word in words.iter_mut().skip(1) {
        *word = word.trim_start_matches(|letter: char| letter.is_ascii_digit());
    }
    words.join("t")
}
