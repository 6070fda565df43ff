//! What the core asks for, step by step.

use expect_test::{Expect, expect};
use queue::{
    Address, AssignmentId, CallId, CallSeen, CallerState, Departure, ENTER_MS, Enqueue, Found,
    Missed, Output, QueueId, Queues, Retrieve, RingEnded, Settings, SettingsRow, UnixMs, VERIFY_MS,
    Wanted,
};
use std::collections::BTreeMap;
use std::fmt::Write as _;

#[test]
fn agent_who_does_not_answer_leaves_the_caller_first() {
    check(
        "0 enqueue a | 5 answer a | 10 enqueue b | 10 answer b | 20 retrieve 1 | 50 decline 1 | 60 list",
        expect![[r#"
            0 save a entering
            5 save a in queue
            5 Joined a at 1 of 1: caller was answered
            10 save b entering
            10 save b in queue
            10 Joined b at 2 of 2: caller was answered
            20 save a leaving
            20 Reserved a at 1 of 1: first of abc for agent user/1
            20 ring 1 for a
            50 save a in queue
            50 Released a at 1 of 2: 486
            50 assignment 1: a waited 50 ms, NotTaken(Busy, "486")
            60 1 a, 2 b
        "#]],
    );
}

#[test]
fn two_operators_get_two_callers_and_the_third_is_told_that_nobody_waits() {
    check(
        "0 enqueue a | 0 enqueue b | 0 answer b | 1 answer a | 2 retrieve 1 | 2 retrieve 2 | 2 retrieve 3
         | 3 connect 2 | 4 connect 1 | 5 connect 1",
        expect![[r#"
            0 save a entering
            0 save b entering
            0 save b in queue
            0 Joined b at 1 of 1: caller was answered
            1 save a in queue
            1 Joined a at 1 of 2: caller was answered
            2 save a leaving
            2 Reserved a at 1 of 1: first of abc for agent user/1
            2 ring 1 for a
            2 save b leaving
            2 Reserved b at 2 of 0: first of abc for agent user/2
            2 ring 2 for b
            2 refused: nobody waits in queue abc (0 not answered yet, 2 being given to agents)
            3 delete b
            3 Connected b at 0 of 0: agent answered
            3 assignment 2: b waited 3 ms, Connected { answered: None }
            4 delete a
            4 Connected a at 0 of 0: agent answered
            4 assignment 1: a waited 4 ms, Connected { answered: None }
            5 assignment 1 is unknown
        "#]],
    );
}

#[test]
fn caller_who_hangs_up_stops_the_ringing_at_once() {
    check(
        "0 enqueue a | 0 answer a | 1 retrieve 1 | 2 leave a | 3 decline 1 | 4 leave a",
        expect![[r#"
            0 save a entering
            0 save a in queue
            0 Joined a at 1 of 1: caller was answered
            1 save a leaving
            1 Reserved a at 1 of 0: first of abc for agent user/1
            1 ring 1 for a
            2 delete a
            2 Left a at 0 of 0: caller hung up
            2 stop ringing 1 for a
            2 a waited 2 ms
            3 assignment 1: a waited 2 ms, HungUp
            4 a did not wait
        "#]],
    );
}

#[test]
fn agent_who_answers_as_the_caller_leaves_has_talked_to_them() {
    check(
        "0 enqueue a | 0 answer a | 1 retrieve 1 | 2 leave a | 3 connect 1",
        expect![[r#"
            0 save a entering
            0 save a in queue
            0 Joined a at 1 of 1: caller was answered
            1 save a leaving
            1 Reserved a at 1 of 0: first of abc for agent user/1
            1 ring 1 for a
            2 delete a
            2 Left a at 0 of 0: caller hung up
            2 stop ringing 1 for a
            2 a waited 2 ms
            3 Connected a at 0 of 0: agent answered as the caller left
            3 assignment 1: a waited 2 ms, Connected { answered: None }
        "#]],
    );
}

#[test]
fn full_queue_refuses_until_somebody_leaves_and_counts_who_enters() {
    check(
        "0 enqueue a | 0 enqueue b | 0 enqueue c | 0 enqueue d | 0 enqueue a | 1 leave b | 1 enqueue d",
        expect![[r#"
            0 save a entering
            0 save b entering
            0 save c entering
            0 refused: queue abc is full: 3 callers (its max_calls)
            0 a has a place already
            1 delete b
            1 b waited 1 ms
            1 save d entering
        "#]],
    );
}

#[test]
fn caller_who_is_never_confirmed_is_asked_about_after_a_minute() {
    assert_eq!((ENTER_MS, VERIFY_MS), (60_000, 60_000));
    check(
        "0 enqueue a | 59999 tick | 60000 tick | 60001 early a | 120001 tick | 120002 gone a | 120003 list",
        expect![[r#"
            0 save a entering
            60000 check a
            120001 check a
            120002 delete a
            120003 nobody
        "#]],
    );
}

#[test]
fn confirmation_that_got_lost_is_made_up_for_and_nobody_is_dropped_unasked() {
    check(
        "0 enqueue a | 60000 tick | 60010 unknown a | 65009 tick | 65010 tick | 65011 waiting a | 125010 tick | 125011 tick
         | 125012 waiting a | 125013 list",
        expect![[r#"
            0 save a entering
            60000 check a
            65010 check a
            65011 save a in queue
            65011 Joined a at 1 of 1: caller was answered
            125011 check a
            125013 1 a
        "#]],
    );
}

#[test]
fn nobody_asks_about_a_call_twice_at_a_time() {
    check(
        "0 enqueue a | 0 answer a | 60000 tick | 65000 tick | 600000 tick | 700000 unknown a | 704999 tick
         | 705000 tick | 705001 retrieve 1 | 705002 waiting a | 705003 decline 1 | 710002 tick",
        expect![[r#"
            0 save a entering
            0 save a in queue
            0 Joined a at 1 of 1: caller was answered
            60000 check a
            705000 check a
            705001 save a leaving
            705001 Reserved a at 1 of 0: first of abc for agent user/1
            705001 ring 1 for a
            705003 save a in queue
            705003 Released a at 1 of 1: 486
            705003 assignment 1: a waited 705003 ms, NotTaken(Busy, "486")
            710002 check a
        "#]],
    );
}

#[test]
fn restart_keeps_the_order_rings_again_and_asks_about_the_others() {
    check(
        "0 enqueue a | 0 enqueue b | 0 answer b | 0 answer a | 1 retrieve 1 | 1 enqueue c | 2 restart | 2 tick
         | 3 decline 1 | 3 list | 3 gone c | 4 enqueue d | 4 answer d | 4 list",
        expect![[r#"
            0 save a entering
            0 save b entering
            0 save b in queue
            0 Joined b at 1 of 1: caller was answered
            0 save a in queue
            0 Joined a at 1 of 2: caller was answered
            1 save a leaving
            1 Reserved a at 1 of 1: first of abc for agent user/1
            1 ring 1 for a
            1 save c entering
            2 ring 1 for a
            2 check b
            2 check c
            3 save a in queue
            3 Released a at 1 of 2: 486
            3 assignment 1: a waited 3 ms, NotTaken(Busy, "486")
            3 1 a, 2 b, 0 c
            3 delete c
            4 save d entering
            4 save d in queue
            4 Joined d at 3 of 3: caller was answered
            4 1 a, 2 b, 3 d
        "#]],
    );
}

#[test]
fn renamed_replaced_or_deleted_queue_keeps_its_callers() {
    check(
        "0 enqueue a | 0 answer a | 0 table 1=new | 1 list new | 2 table 9=new | 3 list new | 4 table | 5 list new
         | 6 enqueue b | 7 retrieve-new 1 | 8 connect 1 | 9 table | 10 list new",
        expect![[r#"
            0 save a entering
            0 save a in queue
            0 Joined a at 1 of 1: caller was answered
            1 1 a
            2 save a in queue
            3 1 a
            5 1 a
            6 refused: no such queue: "abc"
            7 save a leaving
            7 Reserved a at 1 of 0: first of new for agent user/1
            7 ring 1 for a
            8 delete a
            8 Connected a at 0 of 0: agent answered
            8 assignment 1: a waited 8 ms, Connected { answered: None }
            10 refused: no such queue: "new"
        "#]],
    );
}

#[test]
fn caller_connected_by_somebody_else_leaves_and_by_us_is_committed_once() {
    check(
        "5 enqueue a | 5 answer a | 6 connected 4 x | 7 retrieve 1 | 8 connected 8 1 | 9 connect 1
         | 9 connected 8 1",
        expect![[r#"
            5 save a entering
            5 save a in queue
            5 Joined a at 1 of 1: caller was answered
            6 nothing changed
            7 save a leaving
            7 Reserved a at 1 of 0: first of abc for agent user/1
            7 ring 1 for a
            8 nothing changed
            9 delete a
            9 Connected a at 0 of 0: agent answered
            9 assignment 1: a waited 4 ms, Connected { answered: None }
            9 nothing changed
        "#]],
    );
    check(
        "5 enqueue a | 5 answer a | 7 retrieve 1 | 8 connected 8 x | 8 connected 8 x | 9 decline 1",
        expect![[r#"
            5 save a entering
            5 save a in queue
            5 Joined a at 1 of 1: caller was answered
            7 save a leaving
            7 Reserved a at 1 of 0: first of abc for agent user/1
            7 ring 1 for a
            8 delete a
            8 Left a at 0 of 0: connected without an assignment of the queue
            8 stop ringing 1 for a
            8 a waited 3 ms
            8 nothing changed
            9 assignment 1: a waited 3 ms, HungUp
        "#]],
    );
}

/// Runs `ms step | …` against queue abc (id 1), which takes 3 callers.
#[track_caller]
fn check(script: &str, expected: Expect) {
    let mut run = Run { queues: Queues::new(10, "x"), rows: BTreeMap::new(), log: String::new() };
    run.queues.handle_table(0, table("1=abc"));
    for step in script.split('|') {
        let (ms, step) = step.trim().split_once(' ').unwrap();
        run.step(ms.parse().unwrap(), step);
    }
    expected.assert_eq(&run.log);
}

struct Run {
    queues: Queues,
    rows: BTreeMap<CallId, queue::Caller>,
    log: String,
}

impl Run {
    fn step(&mut self, now: UnixMs, step: &str) {
        let (verb, noun) = step.split_once(' ').unwrap_or((step, ""));
        let call = || CallId::parse(noun).unwrap();
        let mut said = String::new();
        match verb {
            "enqueue" => match self.queues.handle_enqueue(now, enqueue(noun, false)) {
                Ok(true) => (),
                Ok(false) => said = format!("{noun} has a place already"),
                Err(refusal) => said = format!("refused: {refusal}"),
            },
            "answer" => assert!(!self.queues.handle_enqueue(now, enqueue(noun, true)).unwrap()),
            "leave" => {
                said = match self.queues.handle_leave(
                    now,
                    &call(),
                    Departure::HungUp,
                    "caller hung up",
                ) {
                    Some(ms) => format!("{noun} waited {ms} ms"),
                    None => format!("{noun} did not wait"),
                }
            }
            "connected" => {
                let (at, by) = noun.split_once(' ').unwrap();
                let seen = CallSeen {
                    call_id: CallId::parse("a").unwrap(),
                    at: at.parse().unwrap(),
                    assignment_id: AssignmentId::new(&format!("x-{by}")),
                    connected: true,
                    remotes: Vec::new(),
                };
                said = match self.queues.handle_call(now, &seen) {
                    Some(ms) => format!("a waited {ms} ms"),
                    None => "nothing changed".into(),
                }
            }
            "retrieve" => said = self.retrieve(now, "abc", noun),
            "retrieve-new" => said = self.retrieve(now, "new", noun),
            "connect" => said = self.ring_ended(now, noun, RingEnded::Connected { answered: None }),
            "decline" => {
                said = self.ring_ended(now, noun, RingEnded::NotTaken(Missed::Busy, "486".into()))
            }
            "tick" => self.queues.handle_timeout(now),
            "early" => self.queues.handle_checked(now, &call(), Found::Early),
            "waiting" => self.queues.handle_checked(now, &call(), Found::Waiting),
            "talking" => self.queues.handle_checked(now, &call(), Found::Connected),
            "gone" => self.queues.handle_checked(now, &call(), Found::Gone),
            "unknown" => self.queues.handle_checked(now, &call(), Found::Unknown),
            "table" => self.queues.handle_table(now, table(noun)),
            "restart" => {
                self.queues = Queues::new(10, "y"); // Its assignments are others.
                self.queues.handle_table(now, table("1=abc"));
                self.queues.restore(now, self.rows.values().cloned());
            }
            "list" => said = self.list(if noun.is_empty() { "abc" } else { noun }),
            other => panic!("unknown step {other}"),
        }
        while let Some(output) = self.queues.poll_output() {
            let line = self.perform(output);
            writeln!(self.log, "{now} {line}").unwrap();
        }
        if !said.is_empty() {
            writeln!(self.log, "{now} {said}").unwrap();
        }
    }

    fn perform(&mut self, output: Output) -> String {
        match output {
            Output::Save(caller) => {
                let state = match caller.state {
                    CallerState::Entering => "entering",
                    CallerState::InQueue => "in queue",
                    CallerState::Leaving(_) => "leaving",
                };
                let line = format!("save {} {state}", caller.call_id);
                self.rows.insert(caller.call_id.clone(), caller);
                line
            }
            Output::Delete(call_id) => {
                self.rows.remove(&call_id);
                format!("delete {call_id}")
            }
            Output::Ring { call_id, assignment } => {
                format!("ring {} for {call_id}", short(&assignment.id))
            }
            Output::StopRinging { call_id, assignment_id } => {
                format!("stop ringing {} for {call_id}", short(&assignment_id))
            }
            Output::Check(call_id) => format!("check {call_id}"),
            Output::Publish(event) => format!(
                "{:?} {} at {} of {}: {}",
                event.kind, event.caller.call_id, event.position, event.in_queue, event.reason
            ),
            other => panic!("nobody has agents or announcements here: {other:?}"),
        }
    }

    /// The assignments are numbered by the core, from 1.
    fn retrieve(&mut self, now: UnixMs, queue: &str, id: &str) -> String {
        let address = Address::parse("agent", &format!("user/{id}")).unwrap();
        let retrieve = Retrieve { queue: queue.to_owned(), address, ring_ms: 30_000 };
        match self.queues.handle_retrieve(now, retrieve) {
            Ok(assignment) => {
                assert_eq!(short(&assignment), id);
                String::new()
            }
            Err(refusal) => format!("refused: {refusal}"),
        }
    }

    fn ring_ended(&mut self, now: UnixMs, id: &str, ended: RingEnded) -> String {
        match self.queues.handle_ring_ended(now, &AssignmentId::new(&format!("x-{id}")), ended) {
            Some(it) => {
                format!(
                    "assignment {id}: {} waited {} ms, {:?}",
                    it.call_id, it.waited_ms, it.ended
                )
            }
            None => format!("assignment {id} is unknown"),
        }
    }

    fn list(&self, queue: &str) -> String {
        match self.queues.list(0, queue) {
            Ok(views) => {
                let all: Vec<_> =
                    views.map(|it| format!("{} {}", it.position, it.caller.call_id)).collect();
                if all.is_empty() { "nobody".to_owned() } else { all.join(", ") }
            }
            Err(refusal) => format!("refused: {refusal}"),
        }
    }
}

fn enqueue(call_id: &str, answered: bool) -> Enqueue {
    Enqueue {
        call_id: CallId::parse(call_id).unwrap(),
        queue: Wanted::Name("abc".into()),
        from: String::new(),
        contact: String::new(),
        answered,
        priority: 0,
        asked_unix_us: None,
    }
}

/// Without what comes before the number.
fn short(id: &AssignmentId) -> &str {
    id.as_str().trim_start_matches("x-")
}

/// `ID=NAME`, or no queue at all.
fn table(text: &str) -> BTreeMap<QueueId, Settings> {
    let rows = text.split_whitespace().map(|row| {
        let (id, name) = row.split_once('=').unwrap();
        let row = SettingsRow {
            name: name.into(),
            uri: "sip:1008@example.com".into(),
            mohfile: "m.wav".into(),
            max_calls: 3,
            ..SettingsRow::default()
        };
        (QueueId(id.parse().unwrap()), Settings::parse(row).unwrap())
    });
    rows.collect()
}
