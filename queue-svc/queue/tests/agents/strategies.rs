//! Which agent is rung, and for whom.

use crate::run::{Setup, check, enqueue};
use expect_test::expect;
use queue::{Enqueue, QueueId, Queues, Settings, SettingsRow, Strategy};

#[test]
fn caller_is_rung_through_to_the_agent_who_has_been_idle_for_the_longest_time() {
    let setup = Setup { agents: "1 0 0 0, 2 0 0 0", wrap_up_ms: 500, ..Setup::default() };
    check(
        &setup,
        "10 join a | 20 take 1 | 30 join b | 40 take 2 | 50 join c | 60 end b | 70 end a | 559 tick
         | 560 tick | 570 take 3 | 580 join d | 580 tick",
        expect![[r#"
            10 Joined a at 1 of 1 in abc: caller was answered
            10 Reserved a at 1 of 0 in abc: agent 1: longest idle
            10 agent 1 ringing: agent 1: longest idle
            10 ring 1 at user/1 for a
            20 Connected a at 0 of 0 in abc: agent answered
            20 agent 1 busy: took the caller
            30 Joined b at 1 of 1 in abc: caller was answered
            30 Reserved b at 1 of 0 in abc: agent 2: longest idle
            30 agent 2 ringing: agent 2: longest idle
            30 ring 2 at user/2 for b
            40 Connected b at 0 of 0 in abc: agent answered
            40 agent 2 busy: took the caller
            50 Joined c at 1 of 1 in abc: caller was answered
            60 agent 2 wrap-up: call ended
            70 agent 1 wrap-up: call ended
            560 agent 2 idle: wrap-up is over
            560 Reserved c at 1 of 0 in abc: agent 2: longest idle
            560 agent 2 ringing: agent 2: longest idle
            560 ring 3 at user/2 for c
            570 Connected c at 0 of 0 in abc: agent answered
            570 agent 2 busy: took the caller
            580 Joined d at 1 of 1 in abc: caller was answered
            580 agent 1 idle: wrap-up is over
            580 Reserved d at 1 of 0 in abc: agent 1: longest idle
            580 agent 1 ringing: agent 1: longest idle
            580 ring 4 at user/1 for d
        "#]],
    );
}

#[test]
fn round_robin_takes_turns_and_linear_begins_with_the_first() {
    let agents = "1 0 0 0, 2 0 1 0, 3 0 2 0";
    let script = "1 join a | 2 take 1 | 3 end a | 4 join b | 5 take 2 | 6 end b | 7 join c";
    let setup = Setup { strategy: Strategy::RoundRobin, agents, ..Setup::default() };
    check(
        &setup,
        script,
        expect![[r#"
        1 Joined a at 1 of 1 in abc: caller was answered
        1 Reserved a at 1 of 0 in abc: agent 1: round robin
        1 agent 1 ringing: agent 1: round robin
        1 ring 1 at user/1 for a
        2 Connected a at 0 of 0 in abc: agent answered
        2 agent 1 busy: took the caller
        3 agent 1 idle: call ended
        4 Joined b at 1 of 1 in abc: caller was answered
        4 Reserved b at 1 of 0 in abc: agent 2: round robin
        4 agent 2 ringing: agent 2: round robin
        4 ring 2 at user/2 for b
        5 Connected b at 0 of 0 in abc: agent answered
        5 agent 2 busy: took the caller
        6 agent 2 idle: call ended
        7 Joined c at 1 of 1 in abc: caller was answered
        7 Reserved c at 1 of 0 in abc: agent 3: round robin
        7 agent 3 ringing: agent 3: round robin
        7 ring 3 at user/3 for c
    "#]],
    );
    let setup = Setup { strategy: Strategy::Linear, agents, ..Setup::default() };
    check(
        &setup,
        script,
        expect![[r#"
        1 Joined a at 1 of 1 in abc: caller was answered
        1 Reserved a at 1 of 0 in abc: agent 1: linear
        1 agent 1 ringing: agent 1: linear
        1 ring 1 at user/1 for a
        2 Connected a at 0 of 0 in abc: agent answered
        2 agent 1 busy: took the caller
        3 agent 1 idle: call ended
        4 Joined b at 1 of 1 in abc: caller was answered
        4 Reserved b at 1 of 0 in abc: agent 1: linear
        4 agent 1 ringing: agent 1: linear
        4 ring 2 at user/1 for b
        5 Connected b at 0 of 0 in abc: agent answered
        5 agent 1 busy: took the caller
        6 agent 1 idle: call ended
        7 Joined c at 1 of 1 in abc: caller was answered
        7 Reserved c at 1 of 0 in abc: agent 1: linear
        7 agent 1 ringing: agent 1: linear
        7 ring 3 at user/1 for c
    "#]],
    );
}

#[test]
fn all_ring_for_one_caller_and_who_answers_has_it() {
    let agents = "1 0 0 0, 2 0 0 0, 3 1 0 0";
    let setup = Setup { strategy: Strategy::RingAll, agents, ..Setup::default() };
    check(
        &setup,
        "1 join a | 2 join b | 3 take 1 user/2 | 4 join c | 5 end a | 6 no-answer 2",
        expect![[r#"
            1 Joined a at 1 of 1 in abc: caller was answered
            1 Reserved a at 1 of 0 in abc: 2 agents, 1 first: ring all
            1 agent 1 ringing: 2 agents, 1 first: ring all
            1 agent 2 ringing: 2 agents, 1 first: ring all
            1 ring 1 at user/1 user/2 for a
            2 Joined b at 2 of 1 in abc: caller was answered
            2 Reserved b at 2 of 0 in abc: agent 3: ring all
            2 agent 3 ringing: agent 3: ring all
            2 ring 2 at user/3 for b
            3 Connected a at 0 of 0 in abc: agent answered
            3 agent 1 idle: another agent answered
            3 agent 2 busy: took the caller
            4 Joined c at 2 of 1 in abc: caller was answered
            4 Reserved c at 2 of 0 in abc: agent 1: ring all
            4 agent 1 ringing: agent 1: ring all
            4 ring 3 at user/1 for c
            5 agent 2 idle: call ended
            6 Released b at 1 of 1 in abc: NoAnswer
            6 agent 3 idle: NoAnswer
            6 Reserved b at 1 of 0 in abc: agent 2: ring all
            6 agent 2 ringing: agent 2: ring all
            6 ring 4 at user/2 for b
        "#]],
    );
}

#[test]
fn agents_of_a_higher_level_are_rung_when_nobody_below_is_free() {
    let setup = Setup { agents: "1 0 0 0, 2 1 0 0", ..Setup::default() };
    check(
        &setup,
        "1 join a | 2 join b | 3 take 1 | 4 take 2 | 5 end b | 6 end a | 7 join c",
        expect![[r#"
        1 Joined a at 1 of 1 in abc: caller was answered
        1 Reserved a at 1 of 0 in abc: agent 1: longest idle
        1 agent 1 ringing: agent 1: longest idle
        1 ring 1 at user/1 for a
        2 Joined b at 2 of 1 in abc: caller was answered
        2 Reserved b at 2 of 0 in abc: agent 2: longest idle
        2 agent 2 ringing: agent 2: longest idle
        2 ring 2 at user/2 for b
        3 Connected a at 0 of 0 in abc: agent answered
        3 agent 1 busy: took the caller
        4 Connected b at 0 of 0 in abc: agent answered
        4 agent 2 busy: took the caller
        5 agent 2 idle: call ended
        6 agent 1 idle: call ended
        7 Joined c at 1 of 1 in abc: caller was answered
        7 Reserved c at 1 of 0 in abc: agent 1: longest idle
        7 agent 1 ringing: agent 1: longest idle
        7 ring 3 at user/1 for c
    "#]],
    );
}

#[test]
fn freed_agent_serves_the_weightier_queue_and_then_who_came_first() {
    let setup = Setup { agents: "1 0 0 1 5", ..Setup::default() };
    check(
        &setup,
        "1 join x | 2 take 1 | 3 join a | 4 join b def | 5 join c def | 6 end x | 7 take 2 | 8 end b",
        expect![[r#"
            1 Joined x at 1 of 1 in abc: caller was answered
            1 Reserved x at 1 of 0 in abc: agent 1: longest idle
            1 agent 1 ringing: agent 1: longest idle
            1 ring 1 at user/1 for x
            2 Connected x at 0 of 0 in abc: agent answered
            2 agent 1 busy: took the caller
            3 Joined a at 1 of 1 in abc: caller was answered
            4 Joined b at 1 of 1 in def: caller was answered
            5 Joined c at 2 of 2 in def: caller was answered
            6 agent 1 idle: call ended
            6 Reserved b at 1 of 1 in def: agent 1: longest idle
            6 agent 1 ringing: agent 1: longest idle
            6 ring 2 at user/1 for b
            7 Connected b at 0 of 1 in def: agent answered
            7 agent 1 busy: took the caller
            8 agent 1 idle: call ended
            8 Reserved c at 1 of 0 in def: agent 1: longest idle
            8 agent 1 ringing: agent 1: longest idle
            8 ring 3 at user/1 for c
        "#]],
    );
    let setup = Setup { agents: "1 0 0 1 1", ..Setup::default() };
    check(
        &setup,
        "1 join x | 2 take 1 | 3 join b def | 4 join a | 5 end x",
        expect![[r#"
        1 Joined x at 1 of 1 in abc: caller was answered
        1 Reserved x at 1 of 0 in abc: agent 1: longest idle
        1 agent 1 ringing: agent 1: longest idle
        1 ring 1 at user/1 for x
        2 Connected x at 0 of 0 in abc: agent answered
        2 agent 1 busy: took the caller
        3 Joined b at 1 of 1 in def: caller was answered
        4 Joined a at 1 of 1 in abc: caller was answered
        5 agent 1 idle: call ended
        5 Reserved b at 1 of 0 in def: agent 1: longest idle
        5 agent 1 ringing: agent 1: longest idle
        5 ring 2 at user/1 for b
    "#]],
    );
}

#[test]
fn who_asked_first_goes_first_whoever_is_told_of_first() {
    let now = 90_000_000;
    let mut queues = Queues::new(10, "x");
    let row = SettingsRow {
        name: "abc".into(),
        uri: "sip:abc@h".into(),
        mohfile: "m.wav".into(),
        ..SettingsRow::default()
    };
    queues.handle_table(now, [(QueueId(1), Settings::parse(row).unwrap())].into());
    let day_us = 86_400_000_000;
    for (call_id, asked_unix_us) in [
        ("third", Some(now * 1_000 - 10)),
        ("second", Some(now * 1_000 - 11)),
        ("fourth", Some(now * 1_000 - 10)), // In the same µs, told of later.
        ("fifth", None),
        ("sixth", Some(now * 2_000)),              // Tomorrow.
        ("first", Some(now * 1_000 - day_us - 5)), // Before yesterday.
    ] {
        let enqueue = Enqueue { asked_unix_us, ..enqueue(call_id, "abc", 0) };
        queues.handle_enqueue(now, enqueue).unwrap();
    }
    let callers: Vec<_> = queues.list(now, "abc").unwrap().map(|it| it.caller.clone()).collect();
    let line: Vec<&str> = callers.iter().map(|it| it.call_id.as_str()).collect();
    assert_eq!(line, ["first", "second", "third", "fourth", "fifth", "sixth"]);
    let waited_ms: Vec<u64> = callers.iter().map(|it| it.waited_ms(now)).collect();
    assert_eq!(waited_ms, [86_400_000, 1, 1, 1, 0, 0]);
}

#[test]
fn priority_goes_before_arrival() {
    let setup = Setup { agents: "1 0 0 1", ..Setup::default() };
    check(
        &setup,
        "1 join x | 2 take 1 | 3 join a | 4 join b abc 10 | 5 join c abc 10 | 6 list | 7 end x",
        expect![[r#"
            1 Joined x at 1 of 1 in abc: caller was answered
            1 Reserved x at 1 of 0 in abc: agent 1: longest idle
            1 agent 1 ringing: agent 1: longest idle
            1 ring 1 at user/1 for x
            2 Connected x at 0 of 0 in abc: agent answered
            2 agent 1 busy: took the caller
            3 Joined a at 1 of 1 in abc: caller was answered
            4 Joined b at 1 of 2 in abc: caller was answered
            5 Joined c at 2 of 3 in abc: caller was answered
            6 abc: 1 b, 2 c, 3 a; 1 busy
            7 agent 1 idle: call ended
            7 Reserved b at 1 of 2 in abc: agent 1: longest idle
            7 agent 1 ringing: agent 1: longest idle
            7 ring 2 at user/1 for b
        "#]],
    );
}
