//! What a queue does for those who wait, and where they go who may not.

use crate::run::{Setup, check, leaving_when};
use expect_test::expect;
use queue::{EmptyRule, SettingsRow};

fn abc(row: SettingsRow) -> Setup {
    Setup { agents: "1 0 0 0", abc: row, ..Setup::default() }
}

#[test]
fn caller_who_waited_too_long_is_in_line_elsewhere_by_the_arrival_here() {
    let setup = abc(SettingsRow {
        max_wait_ms: 1_000,
        overflow: "queue/def".into(),
        ..SettingsRow::default()
    });
    check(
        &setup,
        "0 logout 1 | 1 join a | 2 join b def | 1000 tick | 1001 tick | 1002 list | 1003 list def",
        expect![[r#"
            0 agent 1 offline: logged out
            1 Joined a at 1 of 1 in abc: caller was answered
            2 Joined b at 1 of 1 in def: caller was answered
            1001 Left a at 0 of 0 in abc: to queue def: waited for 1000 ms, the queue's max_wait_ms
            1001 Moved a at 1 of 2 in def: from queue abc: waited for 1000 ms, the queue's max_wait_ms
            1001 a is in def: def.wav
            1002 abc: ; 1 offline
            1003 def: 1 a, 2 b; 1 offline
        "#]],
    );
}

#[test]
fn caller_who_waited_too_long_goes_on_with_the_plan_or_to_an_address_until_that_is_done() {
    let row = SettingsRow { max_wait_ms: 1_000, ..SettingsRow::default() };
    let script =
        "0 logout 1 | 1 join a | 1001 tick | 6000 tick | 6001 tick | 6002 leave a | 20000 tick";
    check(
        &abc(row.clone()),
        script,
        expect![[r#"
        0 agent 1 offline: logged out
        1 Joined a at 1 of 1 in abc: caller was answered
        1001 send a on with its plan
        6001 send a on with its plan
        6002 Left a at 0 of 0 in abc: hung up
    "#]],
    );
    let row = SettingsRow { overflow: "sip:911@example.com".into(), ..row };
    check(
        &abc(row),
        script,
        expect![[r#"
        0 agent 1 offline: logged out
        1 Joined a at 1 of 1 in abc: caller was answered
        1001 send a to sip:911@example.com
        6001 send a to sip:911@example.com
        6002 Left a at 0 of 0 in abc: hung up
    "#]],
    );
}

#[test]
fn longest_wait_lets_the_agent_who_rings_answer() {
    let setup = abc(SettingsRow { max_wait_ms: 1_000, ..SettingsRow::default() });
    check(
        &setup,
        "1 join a | 1001 tick | 2001 tick | 2002 no-answer 1 | 3001 tick",
        expect![[r#"
        1 Joined a at 1 of 1 in abc: caller was answered
        1 Reserved a at 1 of 0 in abc: agent 1: longest idle
        1 agent 1 ringing: agent 1: longest idle
        1 ring 1 at user/1 for a
        2002 Released a at 1 of 1 in abc: NoAnswer
        2002 agent 1 idle: NoAnswer
        3001 send a on with its plan
    "#]],
    );
}

#[test]
fn full_queue_sends_on_and_refuses_only_when_nobody_takes_the_caller() {
    let setup =
        abc(SettingsRow { max_calls: 1, overflow: "queue/def".into(), ..SettingsRow::default() });
    check(
        &setup,
        "0 logout 1 | 1 join a | 2 join b | 3 list def | 4 join b",
        expect![[r#"
        0 agent 1 offline: logged out
        1 Joined a at 1 of 1 in abc: caller was answered
        2 Joined b at 1 of 1 in def: caller was answered
        3 def: 1 b; 1 offline
    "#]],
    );
    let setup = abc(SettingsRow {
        max_calls: 1,
        overflow: "sip:1@example.com".into(),
        ..SettingsRow::default()
    });
    check(
        &setup,
        "0 logout 1 | 1 join a | 2 join b",
        expect![[r#"
        0 agent 1 offline: logged out
        1 Joined a at 1 of 1 in abc: caller was answered
        2 refused: queue abc is full: 1 callers (its max_calls)
    "#]],
    );
}

#[test]
fn nobody_joins_or_stays_in_a_queue_without_agents() {
    let setup = abc(SettingsRow { join_empty: EmptyRule::LoggedOut, ..SettingsRow::default() });
    check(
        &setup,
        "1 pause 1 | 2 join a | 3 logout 1 | 4 join b",
        expect![[r#"
        1 agent 1 paused (lunch): paused: lunch
        2 Joined a at 1 of 1 in abc: caller was answered
        3 agent 1 offline: logged out
        4 refused: queue abc has no agents who could serve it (its join_empty)
    "#]],
    );
    let setup = abc(leaving_when(EmptyRule::Unavailable));
    check(
        &setup,
        "1 join x | 2 join a | 3 pause 1 | 3 tick | 4 unpause 1 | 5003 tick",
        expect![[r#"
        1 Joined x at 1 of 1 in abc: caller was answered
        1 Reserved x at 1 of 0 in abc: agent 1: longest idle
        1 agent 1 ringing: agent 1: longest idle
        1 ring 1 at user/1 for x
        2 Joined a at 2 of 1 in abc: caller was answered
        3 send a on with its plan
    "#]],
    );
}

#[test]
fn position_and_wait_are_said_again_and_again_but_not_while_an_agent_rings() {
    let setup = abc(SettingsRow {
        announce_every_ms: 5_000,
        announce_first_ms: 6_000,
        announce_position: true,
        announce_wait: true,
        periodic_every_ms: 7_000,
        periodic: vec!["ads/one".into(), "ads/two".into()],
        ..SettingsRow::default()
    });
    check(
        &setup,
        "0 logout 1 | 1 join a | 6000 tick | 6001 tick | 7001 tick | 11001 tick | 14001 tick
         | 15000 login 1 | 16001 tick | 21001 tick",
        expect![[r#"
            0 agent 1 offline: logged out
            1 Joined a at 1 of 1 in abc: caller was answered
            6001 say to a: prompt:you-are-number prompt:number/1
            7001 say to a: ads/one
            11001 say to a: prompt:you-are-number prompt:number/1
            14001 say to a: ads/two
            15000 agent 1 idle: logged in
            15000 Reserved a at 1 of 0 in abc: agent 1: longest idle
            15000 agent 1 ringing: agent 1: longest idle
            15000 ring 1 at user/1 for a
        "#]],
    );
}

#[test]
fn expected_wait_is_said_once_it_is_known() {
    let setup = abc(SettingsRow {
        announce_every_ms: 5_000,
        announce_wait: true,
        ..SettingsRow::default()
    });
    let served: Vec<String> = (1..=5)
        .map(|nth| {
            let at = nth * 100_000;
            format!("{at} join c{nth} | {} take {nth} | {} end c{nth}", at + 70_000, at + 80_000)
        })
        .collect();
    let script = format!(
        "{} | 590000 logout 1 | 600000 join a | 605000 tick | 606000 join b | 611000 tick",
        served.join(" | ")
    );
    check(
        &setup,
        &script,
        expect![[r#"
        100000 Joined c1 at 1 of 1 in abc: caller was answered
        100000 Reserved c1 at 1 of 0 in abc: agent 1: longest idle
        100000 agent 1 ringing: agent 1: longest idle
        100000 ring 1 at user/1 for c1
        170000 Connected c1 at 0 of 0 in abc: agent answered
        170000 agent 1 busy: took the caller
        180000 agent 1 idle: call ended
        200000 Joined c2 at 1 of 1 in abc: caller was answered
        200000 Reserved c2 at 1 of 0 in abc: agent 1: longest idle
        200000 agent 1 ringing: agent 1: longest idle
        200000 ring 2 at user/1 for c2
        270000 Connected c2 at 0 of 0 in abc: agent answered
        270000 agent 1 busy: took the caller
        280000 agent 1 idle: call ended
        300000 Joined c3 at 1 of 1 in abc: caller was answered
        300000 Reserved c3 at 1 of 0 in abc: agent 1: longest idle
        300000 agent 1 ringing: agent 1: longest idle
        300000 ring 3 at user/1 for c3
        370000 Connected c3 at 0 of 0 in abc: agent answered
        370000 agent 1 busy: took the caller
        380000 agent 1 idle: call ended
        400000 Joined c4 at 1 of 1 in abc: caller was answered
        400000 Reserved c4 at 1 of 0 in abc: agent 1: longest idle
        400000 agent 1 ringing: agent 1: longest idle
        400000 ring 4 at user/1 for c4
        470000 Connected c4 at 0 of 0 in abc: agent answered
        470000 agent 1 busy: took the caller
        480000 agent 1 idle: call ended
        500000 Joined c5 at 1 of 1 in abc: caller was answered
        500000 Reserved c5 at 1 of 0 in abc: agent 1: longest idle
        500000 agent 1 ringing: agent 1: longest idle
        500000 ring 5 at user/1 for c5
        570000 Connected c5 at 0 of 0 in abc: agent answered
        570000 agent 1 busy: took the caller
        580000 agent 1 idle: call ended
        590000 agent 1 offline: logged out
        600000 Joined a at 1 of 1 in abc: caller was answered
        605000 say to a: prompt:wait-within prompt:number/2 prompt:minutes
        606000 Joined b at 2 of 2 in abc: caller was answered
        611000 say to a: prompt:wait-within prompt:number/2 prompt:minutes
        611000 say to b: prompt:wait-within prompt:number/3 prompt:minutes
    "#]],
    );
}
