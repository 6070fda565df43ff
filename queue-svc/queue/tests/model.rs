//! The core against a plain list of callers, under random operations, repeats and crashes.

use proptest::prelude::*;
use queue::{
    Address, AssignmentId, CallId, CallSeen, Caller, Departure, Enqueue, Found, Missed, Output,
    QueueId, Queues, Retrieve, RingEnded, Settings, SettingsRow, Wanted,
};
use std::collections::{BTreeMap, BTreeSet};

const QUEUES: [&str; 2] = ["abc", "def"];
const QUEUE_MAX: usize = 5;
const ALL_MAX: usize = 8;

#[derive(Clone, Debug)]
enum Op {
    Enqueue {
        call: u8,
        queue: usize,
        answered: bool,
    },
    Leave {
        call: u8,
    },
    /// Under this assignment, of those ever tried.
    Connected {
        call: u8,
        nth: usize,
    },
    Retrieve {
        queue: usize,
    },
    /// Of the assignments ever tried, this one; so most have ended before.
    RingEnded {
        nth: usize,
        ended: RingEnded,
    },
    Checked {
        call: u8,
        found: Found,
    },
    /// The queue's row is deleted and written anew under another id.
    Replace {
        queue: usize,
    },
    Crash,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Same order, positions, states and answers as the list; what is on disk is what is in memory;
    /// an operation whose rows did not reach the disk has never happened.
    #[test]
    fn agrees_with_a_plain_list(ops in prop::collection::vec((op(), prop::bool::weighted(0.05)), 1..120)) {
        let mut real = Real::new();
        let mut model = Model::default();
        for (now, (op, lost)) in (1_000..).zip(ops) {
            if lost && !matches!(op, Op::Replace { .. }) {
                real.apply(now, &op);
                while real.queues.poll_output().is_some() {}
                real.restart(now);
                model.restart();
            } else {
                let got = real.apply(now, &op);
                real.write()?;
                let wanted = model.apply(now, &op, &real);
                prop_assert_eq!(got, wanted, "{:?}", op);
            }
            real.agrees_with(&model)?;
        }
    }
}

/// What an operation answers, in words.
type Answer = String;

struct Real {
    queues: Queues,
    rows: BTreeMap<CallId, Caller>,
    ids: [i64; QUEUES.len()],
    newest: Option<AssignmentId>,
    /// Agents that ring, by assignment.
    ringing: BTreeMap<AssignmentId, CallId>,
    /// Every assignment ever made, in order.
    made: Vec<AssignmentId>,
    /// Processes so far.
    runs: u32,
}

impl Real {
    fn new() -> Self {
        let mut queues = Queues::new(ALL_MAX, "1");
        queues.handle_table(0, table([1, 2]));
        Self {
            queues,
            rows: BTreeMap::new(),
            ids: [1, 2],
            newest: None,
            ringing: BTreeMap::new(),
            made: Vec::new(),
            runs: 1,
        }
    }

    fn apply(&mut self, now: i64, op: &Op) -> Answer {
        match op {
            Op::Enqueue { call, queue, answered } => {
                let enqueue = Enqueue {
                    call_id: call_id(*call),
                    queue: Wanted::Name(QUEUES[*queue].into()),
                    from: "f".into(),
                    contact: "c".into(),
                    answered: *answered,
                    priority: 0,
                    asked_unix_us: None,
                };
                match self.queues.handle_enqueue(now, enqueue) {
                    Ok(new) => format!("{new}"),
                    Err(_) => "refused".into(),
                }
            }
            Op::Leave { call } => {
                format!(
                    "{:?}",
                    self.queues.handle_leave(now, &call_id(*call), Departure::HungUp, "bye")
                )
            }
            Op::Connected { call, nth } => {
                let seen = CallSeen {
                    call_id: call_id(*call),
                    at: now,
                    assignment_id: self.nth(*nth),
                    connected: true,
                    remotes: Vec::new(),
                };
                format!("{:?}", self.queues.handle_call(now, &seen))
            }
            Op::Retrieve { queue } => {
                let retrieve = Retrieve {
                    queue: QUEUES[*queue].into(),
                    address: Address::parse("agent", "user/1").unwrap(),
                    ring_ms: 1_000,
                };
                match self.queues.handle_retrieve(now, retrieve) {
                    Ok(assignment_id) => {
                        self.made.push(assignment_id.clone());
                        self.newest = Some(assignment_id);
                        "reserved".into()
                    }
                    Err(_) => "refused".into(),
                }
            }
            Op::RingEnded { nth, ended } => {
                let id = self.nth(*nth);
                self.ringing.remove(&id);
                let resolution = self.queues.handle_ring_ended(now, &id, ended.clone());
                format!("{:?}", resolution.map(|it| (it.call_id, it.waited_ms)))
            }
            Op::Checked { call, found } => {
                self.queues.handle_checked(now, &call_id(*call), *found);
                String::new()
            }
            Op::Replace { queue } => {
                self.ids[*queue] = self.ids.iter().max().unwrap() + 1;
                self.queues.handle_table(now, table(self.ids));
                String::new()
            }
            Op::Crash => {
                self.restart(now);
                String::new()
            }
        }
    }

    /// Performs the outputs as a shell would.
    fn write(&mut self) -> Result<(), TestCaseError> {
        while let Some(output) = self.queues.poll_output() {
            match output {
                Output::Save(caller) => drop(self.rows.insert(caller.call_id.clone(), caller)),
                Output::Delete(call) => drop(self.rows.remove(&call)),
                Output::Ring { call_id, assignment } => {
                    prop_assert!(self.ringing.values().all(|it| *it != call_id), "rung twice");
                    let saved = self.rows.get(&call_id).and_then(Caller::assignment);
                    prop_assert_eq!(saved, Some(&assignment), "rung before it was written");
                    self.ringing.insert(assignment.id, call_id);
                }
                Output::StopRinging { call_id, assignment_id } => {
                    prop_assert_eq!(self.ringing.remove(&assignment_id), Some(call_id));
                }
                Output::Check(_) | Output::Publish(_) => (),
                other => prop_assert!(false, "there are no agents here: {:?}", other),
            }
        }
        Ok(())
    }

    fn restart(&mut self, now: i64) {
        self.runs += 1;
        self.queues = Queues::new(ALL_MAX, &self.runs.to_string());
        self.queues.handle_table(now, table(self.ids));
        self.ringing.clear();
        self.queues.restore(now, self.rows.values().cloned());
        self.write().unwrap();
    }

    /// Of the assignments ever made, this one, or one that never was.
    fn nth(&self, nth: usize) -> AssignmentId {
        self.made.get(nth).cloned().unwrap_or_else(|| AssignmentId::new("never"))
    }

    fn agrees_with(&self, model: &Model) -> Result<(), TestCaseError> {
        for (index, name) in QUEUES.iter().enumerate() {
            let listed: Vec<_> = self.queues.list(0, name).unwrap().collect();
            let got: Vec<_> =
                listed.iter().map(|it| (it.position, it.caller.call_id.clone())).collect();
            prop_assert_eq!(got, model.list(index));
            let count = self.queues.count(name).unwrap();
            prop_assert_eq!(count.total() as usize, listed.len());
            for view in listed {
                prop_assert_eq!(self.rows.get(&view.caller.call_id), Some(view.caller));
            }
        }
        prop_assert_eq!(self.rows.len(), model.waiting.len());
        let rung: BTreeSet<_> = self.ringing.values().cloned().collect();
        let held = self.rows.values().filter(|it| it.assignment().is_some());
        let held: BTreeSet<_> = held.map(|it| it.call_id.clone()).collect();
        prop_assert_eq!(rung, held, "rings for exactly those who are given to an agent");
        Ok(())
    }
}

/// Everybody who waits, in order of arrival; nothing else.
#[derive(Default)]
struct Model {
    waiting: Vec<Waiting>,
    /// Left while an agent rang: assignment, call and ms waited.
    abandoned: Vec<(AssignmentId, CallId, u64)>,
}

struct Waiting {
    call: CallId,
    queue: usize,
    since: i64,
    state: State,
}

#[derive(PartialEq)]
enum State {
    Entering,
    InQueue,
    Leaving(AssignmentId),
}

impl Model {
    fn apply(&mut self, now: i64, op: &Op, real: &Real) -> Answer {
        match op {
            Op::Enqueue { call, queue, answered } => self.enqueue(now, *call, *queue, *answered),
            Op::Leave { call } => self.leave(now, *call),
            Op::Connected { call, nth } => {
                let ours = State::Leaving(real.nth(*nth));
                match self.find(*call) {
                    Some(at) if self.waiting[at].state == ours => "None".into(),
                    _ => self.leave(now, *call),
                }
            }
            Op::Retrieve { queue } => {
                let held = |it: &&Waiting| matches!(it.state, State::Leaving(_));
                let rung = self.waiting.iter().filter(held).count() + self.abandoned.len();
                if rung >= ALL_MAX {
                    return "refused".into();
                }
                let mut in_line = self.waiting.iter_mut();
                let next = in_line.find(|it| it.queue == *queue && it.state == State::InQueue);
                let Some(next) = next else { return "refused".into() };
                next.state =
                    State::Leaving(real.newest.clone().expect("the core reserved somebody"));
                "reserved".into()
            }
            Op::RingEnded { nth, ended } => self.ring_ended(now, real.nth(*nth), ended),
            Op::Checked { call, found } => {
                let Some(at) = self.find(*call) else { return String::new() };
                match (&self.waiting[at].state, found) {
                    (State::Leaving(_), _) => (),
                    (_, Found::Gone | Found::Connected) => drop(self.waiting.remove(at)),
                    (State::Entering, Found::Waiting) => self.waiting[at].state = State::InQueue,
                    _ => (),
                }
                String::new()
            }
            Op::Replace { .. } => String::new(),
            Op::Crash => {
                self.restart();
                String::new()
            }
        }
    }

    fn enqueue(&mut self, now: i64, call: u8, queue: usize, answered: bool) -> Answer {
        let state = if answered { State::InQueue } else { State::Entering };
        if let Some(at) = self.find(call) {
            if self.waiting[at].queue != queue {
                return "refused".into();
            }
            if answered && self.waiting[at].state == State::Entering {
                self.waiting[at].state = State::InQueue;
            }
            return "false".into();
        }
        let here = self.waiting.iter().filter(|it| it.queue == queue).count();
        if here >= QUEUE_MAX || self.waiting.len() >= ALL_MAX {
            return "refused".into();
        }
        self.waiting.push(Waiting { call: call_id(call), queue, since: now, state });
        "true".into()
    }

    fn leave(&mut self, now: i64, call: u8) -> Answer {
        let Some(at) = self.find(call) else { return "None".into() };
        let gone = self.waiting.remove(at);
        let waited_ms = (now - gone.since) as u64;
        if let State::Leaving(id) = gone.state {
            self.abandoned.push((id, gone.call, waited_ms));
        }
        format!("{:?}", Some(waited_ms))
    }

    fn ring_ended(&mut self, now: i64, id: AssignmentId, ended: &RingEnded) -> Answer {
        if let Some(at) = self.abandoned.iter().position(|(it, ..)| *it == id) {
            let (_, call, waited_ms) = self.abandoned.remove(at);
            return format!("{:?}", Some((call, waited_ms)));
        }
        let given = |it: &Waiting| matches!(&it.state, State::Leaving(it) if *it == id);
        let Some(at) = self.waiting.iter().position(given) else {
            return "None".into();
        };
        let answer = (self.waiting[at].call.clone(), (now - self.waiting[at].since) as u64);
        match ended {
            RingEnded::NotTaken(..) => self.waiting[at].state = State::InQueue,
            RingEnded::Connected { .. } | RingEnded::HungUp | RingEnded::Stale => {
                self.waiting.remove(at);
            }
        }
        format!("{:?}", Some(answer))
    }

    /// Nobody who waits notices; who had left while an agent rang is forgotten.
    fn restart(&mut self) {
        self.abandoned.clear();
    }

    fn list(&self, queue: usize) -> Vec<(u32, CallId)> {
        let here = || self.waiting.iter().filter(|it| it.queue == queue);
        let answered = here().filter(|it| it.state != State::Entering);
        let entering = here().filter(|it| it.state == State::Entering);
        let answered = (1..).zip(answered).map(|(position, it)| (position, it.call.clone()));
        answered.chain(entering.map(|it| (0, it.call.clone()))).collect()
    }

    fn find(&self, call: u8) -> Option<usize> {
        self.waiting.iter().position(|it| it.call == call_id(call))
    }
}

fn op() -> impl Strategy<Value = Op> {
    let call = 0..12u8;
    let queue = 0..QUEUES.len();
    prop_oneof![
        6 => (call.clone(), queue.clone(), any::<bool>())
            .prop_map(|(call, queue, answered)| Op::Enqueue { call, queue, answered }),
        2 => call.clone().prop_map(|call| Op::Leave { call }),
        2 => (call.clone(), 0..20usize).prop_map(|(call, nth)| Op::Connected { call, nth }),
        4 => queue.clone().prop_map(|queue| Op::Retrieve { queue }),
        6 => (0..20usize, ended()).prop_map(|(nth, ended)| Op::RingEnded { nth, ended }),
        2 => (call, found()).prop_map(|(call, found)| Op::Checked { call, found }),
        1 => queue.prop_map(|queue| Op::Replace { queue }),
        1 => Just(Op::Crash),
    ]
}

fn ended() -> impl Strategy<Value = RingEnded> {
    prop_oneof![
        Just(RingEnded::Connected { answered: None }),
        Just(RingEnded::NotTaken(Missed::Busy, "486".into())),
        Just(RingEnded::NotTaken(Missed::NoAnswer, "no answer".into())),
        Just(RingEnded::HungUp),
        Just(RingEnded::Stale),
    ]
}

fn found() -> impl Strategy<Value = Found> {
    prop_oneof![
        Just(Found::Early),
        Just(Found::Waiting),
        Just(Found::Connected),
        Just(Found::Gone),
        Just(Found::Unknown),
    ]
}

fn call_id(call: u8) -> CallId {
    CallId::parse(&format!("call-{call}")).unwrap()
}

fn table(ids: [i64; QUEUES.len()]) -> BTreeMap<QueueId, Settings> {
    let rows = ids.into_iter().zip(QUEUES).map(|(id, name)| {
        let row = SettingsRow {
            name: name.into(),
            uri: format!("sip:{name}@example.com"),
            mohfile: "m.wav".into(),
            max_calls: QUEUE_MAX as u32,
            ..SettingsRow::default()
        };
        (QueueId(id), Settings::parse(row).unwrap())
    });
    rows.collect()
}
