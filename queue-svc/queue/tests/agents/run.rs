//! A script of what happens at which ms, and what the core says to it.

use expect_test::Expect;
use queue::{
    Address, Agent, AgentName, AgentSettings, AssignmentId, CallId, CallSeen, Caller, CallerState,
    Departure, EmptyRule, Enqueue, Found, Membership, Missed, Output, Presence, PresenceOrder,
    QueueId, Queues, RingEnded, Settings, SettingsRow, Strategy, UnixMs, Wanted, Work,
};
use std::collections::BTreeMap;
use std::fmt::Write as _;

pub(crate) const QUEUES: [&str; 2] = ["abc", "def"];

/// What is not as by default.
#[derive(Clone, Debug, Default)]
pub(crate) struct Setup {
    pub(crate) strategy: Strategy,
    /// `NAME LEVEL ORDER WEIGHT-IN-ABC [WEIGHT-IN-DEF]`, separated by commas.
    pub(crate) agents: &'static str,
    pub(crate) wrap_up_ms: u32,
    pub(crate) max_missed: u32,
    pub(crate) abc: SettingsRow,
}

/// Runs `ms step | …` against queues abc and def; all agents are logged in at 0, in order.
#[track_caller]
pub(crate) fn check(setup: &Setup, script: &str, expected: Expect) {
    let mut run = Run::new(setup);
    for step in script.split('|') {
        let (ms, step) = step.trim().split_once(' ').unwrap();
        run.step(ms.parse().unwrap(), step);
    }
    expected.assert_eq(&run.log);
}

pub(crate) struct Run {
    setup: Setup,
    pub(crate) queues: Queues,
    callers: BTreeMap<CallId, Caller>,
    agents: BTreeMap<AgentName, Agent>,
    log: String,
}

impl Run {
    fn new(setup: &Setup) -> Self {
        let mut queues = Queues::new(20, "x");
        queues.handle_table(0, table(setup));
        for agent in setup.agents.split(", ") {
            queues.handle_put_agent(0, settings(setup, agent)).unwrap();
        }
        let names: Vec<AgentName> = queues.agents().map(|it| it.agent.name().clone()).collect();
        for name in &names {
            queues.handle_presence(0, name, PresenceOrder::Login).unwrap();
        }
        let (callers, agents, log) = (BTreeMap::new(), BTreeMap::new(), String::new());
        let mut run = Self { setup: setup.clone(), queues, callers, agents, log };
        run.drain(0);
        run.log.clear();
        run
    }

    fn step(&mut self, now: UnixMs, step: &str) {
        let words: Vec<&str> = step.split(' ').collect();
        let noun = words.get(1).copied().unwrap_or_default();
        let call = || CallId::parse(noun).unwrap();
        let presence = |order| Some((AgentName::parse(noun).unwrap(), order));
        let said = match words[0] {
            "login" => presence(PresenceOrder::Login),
            "logout" => presence(PresenceOrder::Logout),
            "pause" => presence(PresenceOrder::Pause { reason: "lunch".into() }),
            "unpause" => presence(PresenceOrder::Unpause),
            "toggle" => presence(PresenceOrder::Toggle),
            "ready" => presence(PresenceOrder::Ready),
            _ => None,
        };
        let queues = &mut self.queues;
        match words[0] {
            _ if said.is_some() => {
                let (name, order) = said.unwrap();
                queues.handle_presence(now, &name, order).unwrap();
            }
            "join" => {
                let queue = words.get(2).copied().unwrap_or("abc");
                let priority = words.get(3).map_or(0, |it| it.parse().unwrap());
                if let Err(refusal) = queues.handle_enqueue(now, enqueue(noun, queue, priority)) {
                    writeln!(self.log, "{now} refused: {refusal}").unwrap();
                }
            }
            "leave" => drop(queues.handle_leave(now, &call(), Departure::HungUp, "hung up")),
            "end" => drop(queues.handle_ended(now, &call(), "call ended")),
            "take" => {
                let answered = words.get(2).map(|it| (*it).to_owned());
                self.ring_ended(now, noun, RingEnded::Connected { answered });
            }
            "no-answer" => self.miss(now, noun, Missed::NoAnswer),
            "busy" => self.miss(now, noun, Missed::Busy),
            "decline" => self.miss(now, noun, Missed::Declined),
            "fault" => self.miss(now, noun, Missed::Fault),
            "hung-up" => self.ring_ended(now, noun, RingEnded::HungUp),
            "stale" => self.ring_ended(now, noun, RingEnded::Stale),
            "connected" | "ringing" | "parted" => {
                let seen = CallSeen {
                    call_id: call(),
                    at: now,
                    assignment_id: AssignmentId::new(""),
                    connected: words[0] == "connected",
                    remotes: words[2..].iter().map(|it| (*it).to_owned()).collect(),
                };
                queues.handle_call(now, &seen);
            }
            "tick" => queues.handle_timeout(now),
            "gone" => queues.handle_checked(now, &call(), Found::Gone),
            "waiting" => queues.handle_checked(now, &call(), Found::Waiting),
            "talking" => queues.handle_checked(now, &call(), Found::Connected),
            "delete" => {
                let name = AgentName::parse(noun).unwrap();
                if let Err(refusal) = queues.handle_delete_agent(now, &name) {
                    writeln!(self.log, "{now} refused: {refusal}").unwrap();
                }
            }
            "restart" => self.restart(now),
            "list" => self.list(now, if noun.is_empty() { "abc" } else { noun }),
            other => panic!("unknown step {other}"),
        }
        self.drain(now);
    }

    fn restart(&mut self, now: UnixMs) {
        self.queues = Queues::new(20, "y");
        self.queues.handle_table(now, table(&self.setup));
        self.queues.restore_agents(now, self.agents.values().cloned());
        let mut callers: Vec<Caller> = self.callers.values().cloned().collect();
        callers.sort_by_key(|it| it.place.sequence);
        self.queues.restore(now, callers);
    }

    fn miss(&mut self, now: UnixMs, id: &str, missed: Missed) {
        let why = format!("{missed:?}");
        self.ring_ended(now, id, RingEnded::NotTaken(missed, why));
    }

    fn ring_ended(&mut self, now: UnixMs, id: &str, ended: RingEnded) {
        let id = AssignmentId::new(&format!("x-{id}"));
        if self.queues.handle_ring_ended(now, &id, ended).is_none() {
            writeln!(self.log, "{now} assignment is unknown").unwrap();
        }
    }

    fn list(&mut self, now: UnixMs, queue: &str) {
        let all = self.queues.list(now, queue).unwrap();
        let all: Vec<_> = all.map(|it| format!("{} {}", it.position, it.caller.call_id)).collect();
        let states =
            self.queues.agents().map(|it| format!("{} {}", it.agent.name(), it.state.word()));
        let states: Vec<_> = states.collect();
        writeln!(self.log, "{now} {queue}: {}; {}", all.join(", "), states.join(", ")).unwrap();
    }

    fn drain(&mut self, now: UnixMs) {
        while let Some(output) = self.queues.poll_output() {
            if let Some(line) = self.perform(output) {
                writeln!(self.log, "{now} {line}").unwrap();
            }
        }
    }

    fn perform(&mut self, output: Output) -> Option<String> {
        Some(match output {
            Output::Save(caller) => {
                self.callers.insert(caller.call_id.clone(), caller);
                return None;
            }
            Output::Delete(call_id) => {
                self.callers.remove(&call_id);
                return None;
            }
            Output::SaveAgent { agent, .. } => {
                assert!(!matches!(agent.work, Work::Ringing { .. }), "is in the caller's row");
                self.agents.insert(agent.name().clone(), *agent);
                return None;
            }
            Output::DeleteAgent(name) => {
                self.agents.remove(&name);
                return None;
            }
            Output::Ring { call_id, assignment } => {
                let saved = self.callers[&call_id].state.clone();
                assert_eq!(saved, CallerState::Leaving(assignment.clone()), "rung before saved");
                format!(
                    "ring {} at {} for {call_id}",
                    short(&assignment.id),
                    assignment.addresses()
                )
            }
            Output::StopRinging { assignment_id, .. } => {
                format!("stop ringing {}", short(&assignment_id))
            }
            Output::Check(call_id) => format!("check {call_id}"),
            Output::Exit { call_id, to: None } => format!("send {call_id} on with its plan"),
            Output::Exit { call_id, to: Some(to) } => format!("send {call_id} to {}", to.as_str()),
            Output::Move { call_id, queue, music } => format!("{call_id} is in {queue}: {music}"),
            Output::Announce { call_id, files } => format!("say to {call_id}: {}", files.join(" ")),
            Output::Publish(event) => format!(
                "{:?} {} at {} of {} in {}: {}",
                event.kind,
                event.caller.call_id,
                event.position,
                event.in_queue,
                event.queue,
                event.reason
            ),
            Output::PublishAgent(event) => {
                let paused = match event.presence {
                    Presence::Paused(why) => format!(" ({why})"),
                    _ => String::new(),
                };
                format!("agent {} {}{paused}: {}", event.agent, event.state.word(), event.reason)
            }
        })
    }
}

fn short(id: &AssignmentId) -> &str {
    id.as_str().trim_start_matches("x-")
}

pub(crate) fn enqueue(call_id: &str, queue: &str, priority: u8) -> Enqueue {
    Enqueue {
        call_id: CallId::parse(call_id).unwrap(),
        queue: Wanted::Name(queue.into()),
        from: String::new(),
        contact: String::new(),
        answered: true,
        priority,
        asked_unix_us: None,
    }
}

fn settings(setup: &Setup, agent: &str) -> AgentSettings {
    let words: Vec<&str> = agent.split(' ').collect();
    let (level, order) = (words[1].parse().unwrap(), words[2].parse().unwrap());
    let memberships = (1..).zip(&words[3..]).map(|(id, weight)| {
        let weight = weight.parse().unwrap();
        Membership { queue: QueueId(id), level, order, weight }
    });
    AgentSettings {
        name: AgentName::parse(words[0]).unwrap(),
        address: Address::parse("address", &format!("user/{}", words[0])).unwrap(),
        wrap_up_ms: setup.wrap_up_ms,
        reject_delay_ms: 3_000,
        busy_delay_ms: 2_000,
        no_answer_delay_ms: 1_000,
        max_missed: setup.max_missed,
        memberships: memberships.collect(),
    }
    .check()
    .unwrap()
}

pub(crate) fn table(setup: &Setup) -> BTreeMap<QueueId, Settings> {
    let rows = (1..).zip(QUEUES).map(|(id, name)| {
        let row = if name == "abc" { setup.abc.clone() } else { SettingsRow::default() };
        let row = SettingsRow {
            name: name.into(),
            uri: format!("sip:{name}@example.com"),
            mohfile: format!("{name}.wav"),
            strategy: setup.strategy,
            ..row
        };
        (QueueId(id), Settings::parse(row).unwrap())
    });
    rows.collect()
}

/// Rules are words of the scripts, too.
pub(crate) fn leaving_when(leave_empty: EmptyRule) -> SettingsRow {
    SettingsRow { leave_empty, ..SettingsRow::default() }
}
