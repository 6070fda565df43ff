//! Random operations, repeats, lost writes and crashes: what must be true of agents after each.

use crate::run::{QUEUES, Setup, enqueue, table};
use proptest as prop;
use proptest::prelude::{Just, ProptestConfig, TestCaseError, any, prop_assert, prop_assert_eq};
use proptest::strategy::Strategy as Values;
use proptest::{prop_oneof, proptest};
use queue::{
    Address, Agent, AgentName, AgentSettings, AgentState, AssignmentId, CallId, CallSeen, Caller,
    CallerState, Departure, Found, Membership, Missed, Output, PresenceOrder, QueueId, Queues,
    Retrieve, RingEnded, Strategy, UnixMs,
};
use std::collections::{BTreeMap, BTreeSet};

const AGENTS: u8 = 4;
const CALLS: u8 = 8;

#[derive(Clone, Debug)]
enum Op {
    Join { call: u8, queue: usize, priority: u8 },
    Leave { call: u8 },
    End { call: u8 },
    Presence { agent: u8, order: PresenceOrder },
    RingEnded { nth: usize, ended: RingEnded },
    Retrieve { queue: usize, agent: u8 },
    Seen { call: u8, agent: u8, connected: bool, at_before: i64 },
    Checked { call: u8, found: Found },
    Pass { ms: i64 },
    Replace,
    Crash,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(384))]

    /// No agent is rung for two callers, and no caller for two assignments; nobody waits beside an
    /// agent who could be rung; the order of the line is that of priority and arrival; what is on disk
    /// is what is in memory, and an operation that did not get there has never happened.
    #[test]
    fn agents_and_callers_meet_and_nobody_is_lost(
        strategy in prop::sample::select(Strategy::ALL.to_vec()),
        ops in prop::collection::vec((op(), prop::bool::weighted(0.04)), 1..100),
    ) {
        let mut world = World::new(strategy);
        for (op, lost) in ops {
            let before = world.disk.clone();
            world.apply(&op);
            if lost && !matches!(op, Op::Replace) {
                while world.queues.poll_output().is_some() {}
                world.disk = before;
                world.restart();
            }
            world.write()?;
            world.holds()?;
        }
    }
}

/// What survives a crash.
#[derive(Clone, Default)]
struct Disk {
    callers: BTreeMap<CallId, Caller>,
    agents: BTreeMap<AgentName, Agent>,
}

struct World {
    setup: Setup,
    swapped: bool,
    queues: Queues,
    disk: Disk,
    now: UnixMs,
    runs: u32,
    made: Vec<AssignmentId>,
    /// What sip-edge rings: by assignment, the call and the addresses.
    ringing: BTreeMap<AssignmentId, (CallId, String)>,
    /// Of these it has been told that the caller is gone: the addresses.
    stopping: BTreeMap<AssignmentId, String>,
}

impl World {
    fn new(strategy: Strategy) -> Self {
        let setup = Setup { strategy, ..Setup::default() };
        let mut queues = Queues::new(64, "1");
        queues.handle_table(0, table(&setup));
        for agent in 0..AGENTS {
            queues.handle_put_agent(0, settings(agent)).unwrap();
        }
        let disk = Disk::default();
        let mut world = Self {
            setup,
            swapped: false,
            queues,
            disk,
            now: 1_000,
            runs: 1,
            made: Vec::new(),
            ringing: BTreeMap::new(),
            stopping: BTreeMap::new(),
        };
        world.write().unwrap();
        world
    }

    fn apply(&mut self, op: &Op) {
        self.now += 1;
        let now = self.now;
        match op {
            Op::Join { call, queue, priority } => {
                let enqueue = enqueue(&format!("c{call}"), QUEUES[*queue], *priority);
                let _ = self.queues.handle_enqueue(now, enqueue); // It may wait elsewhere.
            }
            Op::Leave { call } => {
                self.queues.handle_leave(now, &call_id(*call), Departure::HungUp, "bye");
            }
            Op::End { call } => drop(self.queues.handle_ended(now, &call_id(*call), "ended")),
            Op::Presence { agent, order } => {
                self.queues.handle_presence(now, &name(*agent), order.clone()).unwrap();
            }
            Op::RingEnded { nth, ended } => {
                if let Some(id) = self.made.get(*nth).cloned() {
                    self.ringing.remove(&id);
                    self.stopping.remove(&id);
                    self.queues.handle_ring_ended(now, &id, ended.clone());
                }
            }
            Op::Retrieve { queue, agent } => {
                let address = settings(*agent).address;
                let retrieve = Retrieve { queue: QUEUES[*queue].into(), address, ring_ms: 1_000 };
                let _ = self.queues.handle_retrieve(now, retrieve); // Nobody may wait.
            }
            Op::Seen { call, agent, connected, at_before } => {
                let seen = CallSeen {
                    call_id: call_id(*call),
                    at: now - at_before,
                    assignment_id: AssignmentId::new(""),
                    connected: *connected,
                    remotes: vec![format!("user/{agent}")],
                };
                self.queues.handle_call(now, &seen);
            }
            Op::Checked { call, found } => {
                self.queues.handle_checked(now, &call_id(*call), *found);
            }
            Op::Pass { ms } => {
                self.now += ms;
                self.queues.handle_timeout(self.now);
            }
            Op::Replace => {
                self.swapped = !self.swapped;
                self.queues.handle_table(now, self.table());
            }
            Op::Crash => self.restart(),
        }
    }

    /// Queue abc is deleted and written anew under another id, and back.
    fn table(&self) -> BTreeMap<QueueId, queue::Settings> {
        let rename = |(id, settings)| match id {
            QueueId(1) if self.swapped => (QueueId(9), settings),
            id => (id, settings),
        };
        table(&self.setup).into_iter().map(rename).collect()
    }

    fn restart(&mut self) {
        self.runs += 1;
        self.queues = Queues::new(64, &self.runs.to_string());
        self.queues.handle_table(self.now, self.table());
        self.ringing.clear();
        self.stopping.clear();
        self.queues.restore_agents(self.now, self.disk.agents.values().cloned());
        let mut callers: Vec<Caller> = self.disk.callers.values().cloned().collect();
        callers.sort_by_key(|it| it.place.sequence);
        self.queues.restore(self.now, callers);
    }

    /// Performs the outputs as a shell would.
    fn write(&mut self) -> Result<(), TestCaseError> {
        while let Some(output) = self.queues.poll_output() {
            match output {
                Output::Save(caller) => {
                    self.disk.callers.insert(caller.call_id.clone(), caller);
                }
                Output::Delete(call_id) => drop(self.disk.callers.remove(&call_id)),
                Output::SaveAgent { agent, .. } => {
                    self.disk.agents.insert(agent.name().clone(), *agent);
                }
                Output::DeleteAgent(name) => drop(self.disk.agents.remove(&name)),
                Output::Ring { call_id, assignment } => {
                    let rung = self.ringing.values().any(|(it, _)| *it == call_id);
                    prop_assert!(!rung, "{} is rung for twice", call_id);
                    let saved = self.disk.callers.get(&call_id).and_then(Caller::assignment);
                    prop_assert_eq!(saved, Some(&assignment), "rung before it was written");
                    if !self.made.contains(&assignment.id) {
                        self.made.push(assignment.id.clone());
                    }
                    self.ringing.insert(assignment.id.clone(), (call_id, assignment.addresses()));
                }
                Output::StopRinging { assignment_id, .. } => {
                    let rang = self.ringing.remove(&assignment_id);
                    let (_, addresses) = rang.expect("only who rings is stopped");
                    self.stopping.insert(assignment_id, addresses);
                }
                Output::Check(_) | Output::Publish(_) | Output::PublishAgent(_) => (),
                other => prop_assert!(false, "nothing of the kind was set: {:?}", other),
            }
        }
        Ok(())
    }

    fn holds(&self) -> Result<(), TestCaseError> {
        let ringing = self.ringing.values().map(|(_, addresses)| addresses);
        let addresses = ringing.chain(self.stopping.values());
        let addresses: Vec<&str> = addresses.flat_map(|it| it.split(' ')).collect();
        let distinct: BTreeSet<&str> = addresses.iter().copied().collect();
        prop_assert_eq!(distinct.len(), addresses.len(), "an agent is rung twice: {:?}", addresses);
        let mut free = Vec::new();
        for view in self.queues.agents() {
            let address = view.agent.settings.address.as_str();
            prop_assert_eq!(view.state == AgentState::Ringing, distinct.contains(address));
            let stored = &self.disk.agents[view.agent.name()];
            prop_assert_eq!(stored, &view.agent.stored(), "on disk as in memory");
            if view.state == AgentState::Idle && view.agent.rest_until <= self.now {
                free.extend(view.agent.settings.memberships.iter().map(|it| it.queue));
            }
        }
        let mut seen = 0;
        for name in QUEUES {
            let (id, _) = self.queues.queue(name).unwrap();
            let callers: Vec<&Caller> =
                self.queues.list(self.now, name).unwrap().map(|it| it.caller).collect();
            let mut sorted = callers.clone();
            sorted.sort_by_key(|it| (std::cmp::Reverse(it.place.priority.0), it.place.sequence));
            prop_assert_eq!(&callers, &sorted, "in order of priority and arrival");
            let waits = callers.iter().any(|it| it.state == CallerState::InQueue);
            prop_assert!(!waits || !free.contains(&id), "somebody waits beside a free agent");
            for caller in callers {
                prop_assert_eq!(self.disk.callers.get(&caller.call_id), Some(caller));
                seen += 1;
            }
        }
        prop_assert_eq!(self.disk.callers.len(), seen, "everybody is in a line");
        Ok(())
    }
}

fn settings(agent: u8) -> AgentSettings {
    let membership = |id: i64| {
        let weight = u32::from(agent) * id as u32 % 3;
        Membership { queue: QueueId(id), level: u32::from(agent / 2), order: 0, weight }
    };
    AgentSettings {
        name: name(agent),
        address: Address::parse("address", &format!("user/{agent}")).unwrap(),
        wrap_up_ms: u32::from(agent) * 1_000,
        reject_delay_ms: 1_000,
        busy_delay_ms: 1_000,
        no_answer_delay_ms: 1_000,
        max_missed: u32::from(agent),
        memberships: if agent == 0 {
            vec![membership(1)]
        } else {
            vec![membership(1), membership(2)]
        },
    }
    .check()
    .unwrap()
}

fn name(agent: u8) -> AgentName {
    AgentName::parse(&agent.to_string()).unwrap()
}

fn call_id(call: u8) -> CallId {
    CallId::parse(&format!("c{call}")).unwrap()
}

fn op() -> impl Values<Value = Op> {
    let (call, agent, queue) = (0..CALLS, 0..AGENTS, 0..QUEUES.len());
    prop_oneof![
        8 => (call.clone(), queue.clone(), 0..3u8)
            .prop_map(|(call, queue, priority)| Op::Join { call, queue, priority }),
        2 => call.clone().prop_map(|call| Op::Leave { call }),
        3 => call.clone().prop_map(|call| Op::End { call }),
        6 => (agent.clone(), presence()).prop_map(|(agent, order)| Op::Presence { agent, order }),
        8 => (0..40usize, ended()).prop_map(|(nth, ended)| Op::RingEnded { nth, ended }),
        2 => (queue, agent.clone()).prop_map(|(queue, agent)| Op::Retrieve { queue, agent }),
        2 => (call.clone(), agent, any::<bool>(), 0..5i64).prop_map(
            |(call, agent, connected, at_before)| Op::Seen { call, agent, connected, at_before }
        ),
        3 => (call, found()).prop_map(|(call, found)| Op::Checked { call, found }),
        4 => prop::sample::select(vec![1, 999, 1_000, 60_000]).prop_map(|ms| Op::Pass { ms }),
        1 => Just(Op::Replace),
        1 => Just(Op::Crash),
    ]
}

fn presence() -> impl Values<Value = PresenceOrder> {
    prop_oneof![
        4 => Just(PresenceOrder::Login),
        1 => Just(PresenceOrder::Logout),
        1 => Just(PresenceOrder::Pause { reason: "lunch".into() }),
        1 => Just(PresenceOrder::Unpause),
        1 => Just(PresenceOrder::Toggle),
        1 => Just(PresenceOrder::Ready),
    ]
}

fn ended() -> impl Values<Value = RingEnded> {
    let missed =
        vec![Missed::NoAnswer, Missed::Busy, Missed::Declined, Missed::Unreachable, Missed::Fault];
    prop_oneof![
        3 => (0..AGENTS).prop_map(|agent| {
            RingEnded::Connected { answered: Some(format!("user/{agent}")) }
        }),
        4 => prop::sample::select(missed).prop_map(|it| RingEnded::NotTaken(it, "no".into())),
        1 => Just(RingEnded::HungUp),
        1 => Just(RingEnded::Stale),
    ]
}

fn found() -> impl Values<Value = Found> {
    prop::sample::select(vec![
        Found::Early,
        Found::Waiting,
        Found::Connected,
        Found::Gone,
        Found::Unknown,
    ])
}
