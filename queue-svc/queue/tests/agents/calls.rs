//! What agents do to calls, and calls to agents.

use crate::run::{Setup, check};
use expect_test::expect;

const TWO: &str = "1 0 0 0, 2 0 0 0";

#[test]
fn agent_who_does_not_take_a_caller_is_left_alone_and_the_other_is_rung_at_once() {
    let setup = Setup { agents: TWO, ..Setup::default() };
    check(
        &setup,
        "1 join a | 2 no-answer 1 | 3 busy 2 | 4 list | 1001 tick | 1002 tick | 1003 decline 3
         | 2003 tick | 2004 fault 4 | 3004 tick",
        expect![[r#"
            1 Joined a at 1 of 1 in abc: caller was answered
            1 Reserved a at 1 of 0 in abc: agent 1: longest idle
            1 agent 1 ringing: agent 1: longest idle
            1 ring 1 at user/1 for a
            2 Released a at 1 of 1 in abc: NoAnswer
            2 agent 1 idle: NoAnswer
            2 Reserved a at 1 of 0 in abc: agent 2: longest idle
            2 agent 2 ringing: agent 2: longest idle
            2 ring 2 at user/2 for a
            3 Released a at 1 of 1 in abc: Busy
            3 agent 2 idle: Busy
            4 abc: 1 a; 1 idle, 2 idle
            1002 Reserved a at 1 of 0 in abc: agent 1: longest idle
            1002 agent 1 ringing: agent 1: longest idle
            1002 ring 3 at user/1 for a
            1003 Released a at 1 of 1 in abc: Declined
            1003 agent 1 idle: Declined
            2003 Reserved a at 1 of 0 in abc: agent 2: longest idle
            2003 agent 2 ringing: agent 2: longest idle
            2003 ring 4 at user/2 for a
            2004 Released a at 1 of 1 in abc: Fault
            2004 agent 2 idle: Fault
            3004 Reserved a at 1 of 0 in abc: agent 2: longest idle
            3004 agent 2 ringing: agent 2: longest idle
            3004 ring 5 at user/2 for a
        "#]],
    );
}

#[test]
fn agent_who_misses_too_many_is_paused_until_it_says_otherwise() {
    let setup = Setup { agents: "1 0 0 0", max_missed: 2, ..Setup::default() };
    check(
        &setup,
        "1 join a | 2 no-answer 1 | 1002 tick | 1003 busy 2 | 3003 tick | 3004 no-answer 3
         | 9000 tick | 9001 unpause 1",
        expect![[r#"
            1 Joined a at 1 of 1 in abc: caller was answered
            1 Reserved a at 1 of 0 in abc: agent 1: longest idle
            1 agent 1 ringing: agent 1: longest idle
            1 ring 1 at user/1 for a
            2 Released a at 1 of 1 in abc: NoAnswer
            2 agent 1 idle: NoAnswer
            1002 Reserved a at 1 of 0 in abc: agent 1: longest idle
            1002 agent 1 ringing: agent 1: longest idle
            1002 ring 2 at user/1 for a
            1003 Released a at 1 of 1 in abc: Busy
            1003 agent 1 idle: Busy
            3003 Reserved a at 1 of 0 in abc: agent 1: longest idle
            3003 agent 1 ringing: agent 1: longest idle
            3003 ring 3 at user/1 for a
            3004 Released a at 1 of 1 in abc: NoAnswer
            3004 agent 1 paused (missed 2 calls one after the other): NoAnswer
            9001 agent 1 idle: unpaused
            9001 Reserved a at 1 of 0 in abc: agent 1: longest idle
            9001 agent 1 ringing: agent 1: longest idle
            9001 ring 4 at user/1 for a
        "#]],
    );
}

#[test]
fn caller_who_hangs_up_frees_the_agent_for_the_next_one() {
    let setup = Setup { agents: "1 0 0 0", ..Setup::default() };
    check(
        &setup,
        "1 join a | 2 join b | 3 leave a | 4 hung-up 1 | 5 take 2",
        expect![[r#"
        1 Joined a at 1 of 1 in abc: caller was answered
        1 Reserved a at 1 of 0 in abc: agent 1: longest idle
        1 agent 1 ringing: agent 1: longest idle
        1 ring 1 at user/1 for a
        2 Joined b at 2 of 1 in abc: caller was answered
        3 Left a at 0 of 1 in abc: hung up
        3 stop ringing 1
        4 agent 1 idle: caller hung up
        4 Reserved b at 1 of 0 in abc: agent 1: longest idle
        4 agent 1 ringing: agent 1: longest idle
        4 ring 2 at user/1 for b
        5 Connected b at 0 of 0 in abc: agent answered
        5 agent 1 busy: took the caller
    "#]],
    );
}

#[test]
fn agent_on_another_call_is_not_rung_until_that_is_over() {
    let setup = Setup { agents: "1 0 0 0", ..Setup::default() };
    check(
        &setup,
        "1 connected z sip:99@elsewhere sip:1@phone.example | 2 join a | 3 list | 60001 tick
         | 60002 talking z | 60003 end z",
        expect![[r#"
            1 agent 1 busy: on another call
            2 Joined a at 1 of 1 in abc: caller was answered
            3 abc: 1 a; 1 busy
            60001 check z
            60003 agent 1 idle: call ended
            60003 Reserved a at 1 of 0 in abc: agent 1: longest idle
            60003 agent 1 ringing: agent 1: longest idle
            60003 ring 1 at user/1 for a
        "#]],
    );
    check(
        &setup,
        "1 ringing z sip:99@elsewhere user/1 | 2 join a | 3 parted z sip:99@elsewhere",
        expect![[r#"
            1 agent 1 busy: on another call
            2 Joined a at 1 of 1 in abc: caller was answered
            3 agent 1 idle: left another call
            3 Reserved a at 1 of 0 in abc: agent 1: longest idle
            3 agent 1 ringing: agent 1: longest idle
            3 ring 1 at user/1 for a
        "#]],
    );
}

#[test]
fn end_of_a_call_that_is_told_before_its_beginning_keeps_nobody_busy() {
    let setup = Setup { agents: "1 0 0 0", ..Setup::default() };
    check(
        &setup,
        "1 end z | 2 connected z user/1 | 3 join a",
        expect![[r#"
        3 Joined a at 1 of 1 in abc: caller was answered
        3 Reserved a at 1 of 0 in abc: agent 1: longest idle
        3 agent 1 ringing: agent 1: longest idle
        3 ring 1 at user/1 for a
    "#]],
    );
    check(
        &setup,
        "1 join a | 2 end a | 3 take 1 | 4 join b",
        expect![[r#"
        1 Joined a at 1 of 1 in abc: caller was answered
        1 Reserved a at 1 of 0 in abc: agent 1: longest idle
        1 agent 1 ringing: agent 1: longest idle
        1 ring 1 at user/1 for a
        2 Left a at 0 of 0 in abc: call ended
        2 stop ringing 1
        3 Connected a at 0 of 0 in abc: agent answered as the caller left
        3 agent 1 busy: took the caller
        3 agent 1 idle: call ended as it was answered
        4 Joined b at 1 of 1 in abc: caller was answered
        4 Reserved b at 1 of 0 in abc: agent 1: longest idle
        4 agent 1 ringing: agent 1: longest idle
        4 ring 2 at user/1 for b
    "#]],
    );
}

#[test]
fn talk_ends_when_the_agent_has_parted_from_the_caller() {
    let setup = Setup { agents: "1 0 0 0", wrap_up_ms: 100, ..Setup::default() };
    check(
        &setup,
        "1 join a | 2 take 1 | 3 connected a sip:a@b user/1 | 4 parted a sip:a@b | 5 join b
         | 104 tick",
        expect![[r#"
            1 Joined a at 1 of 1 in abc: caller was answered
            1 Reserved a at 1 of 0 in abc: agent 1: longest idle
            1 agent 1 ringing: agent 1: longest idle
            1 ring 1 at user/1 for a
            2 Connected a at 0 of 0 in abc: agent answered
            2 agent 1 busy: took the caller
            4 agent 1 wrap-up: parted from the caller
            5 Joined b at 1 of 1 in abc: caller was answered
            104 agent 1 idle: wrap-up is over
            104 Reserved b at 1 of 0 in abc: agent 1: longest idle
            104 agent 1 ringing: agent 1: longest idle
            104 ring 2 at user/1 for b
        "#]],
    );
    check(
        &setup,
        "1 join a | 2 take 1 | 60002 tick | 60003 waiting a | 60004 ready 1",
        expect![[r#"
        1 Joined a at 1 of 1 in abc: caller was answered
        1 Reserved a at 1 of 0 in abc: agent 1: longest idle
        1 agent 1 ringing: agent 1: longest idle
        1 ring 1 at user/1 for a
        2 Connected a at 0 of 0 in abc: agent answered
        2 agent 1 busy: took the caller
        60002 check a
        60003 agent 1 wrap-up: parted from the caller
        60004 agent 1 idle: ready
    "#]],
    );
}

#[test]
fn who_logs_out_or_pauses_while_talking_gets_no_more_callers() {
    let setup = Setup { agents: TWO, ..Setup::default() };
    check(
        &setup,
        "1 join a | 2 take 1 | 3 logout 1 | 4 pause 2 | 5 end a | 6 join b | 7 toggle 2 | 8 login 1",
        expect![[r#"
            1 Joined a at 1 of 1 in abc: caller was answered
            1 Reserved a at 1 of 0 in abc: agent 1: longest idle
            1 agent 1 ringing: agent 1: longest idle
            1 ring 1 at user/1 for a
            2 Connected a at 0 of 0 in abc: agent answered
            2 agent 1 busy: took the caller
            4 agent 2 paused (lunch): paused: lunch
            5 agent 1 offline: call ended
            6 Joined b at 1 of 1 in abc: caller was answered
            7 agent 2 idle: unpaused
            7 Reserved b at 1 of 0 in abc: agent 2: longest idle
            7 agent 2 ringing: agent 2: longest idle
            7 ring 2 at user/2 for b
            8 agent 1 idle: logged in
        "#]],
    );
}

#[test]
fn agent_who_rings_or_talks_cannot_be_deleted_and_a_free_one_can() {
    let setup = Setup { agents: "1 0 0 0", ..Setup::default() };
    check(
        &setup,
        "1 join a | 2 delete 1 | 3 take 1 | 4 delete 1 | 5 end a | 6 delete 1 | 7 join b",
        expect![[r#"
        1 Joined a at 1 of 1 in abc: caller was answered
        1 Reserved a at 1 of 0 in abc: agent 1: longest idle
        1 agent 1 ringing: agent 1: longest idle
        1 ring 1 at user/1 for a
        2 refused: agent 1 is ringing; wanted: one without a call
        3 Connected a at 0 of 0 in abc: agent answered
        3 agent 1 busy: took the caller
        4 refused: agent 1 is busy; wanted: one without a call
        5 agent 1 idle: call ended
        7 Joined b at 1 of 1 in abc: caller was answered
    "#]],
    );
}

#[test]
fn restart_goes_on_with_who_rang_and_asks_about_who_talked() {
    let setup = Setup { agents: TWO, wrap_up_ms: 100, ..Setup::default() };
    check(
        &setup,
        "1 join a | 2 take 1 | 3 join b | 4 join c | 5 restart | 5 list | 5 tick | 6 gone a | 7 take 2
         | 106 tick",
        expect![[r#"
            1 Joined a at 1 of 1 in abc: caller was answered
            1 Reserved a at 1 of 0 in abc: agent 1: longest idle
            1 agent 1 ringing: agent 1: longest idle
            1 ring 1 at user/1 for a
            2 Connected a at 0 of 0 in abc: agent answered
            2 agent 1 busy: took the caller
            3 Joined b at 1 of 1 in abc: caller was answered
            3 Reserved b at 1 of 0 in abc: agent 2: longest idle
            3 agent 2 ringing: agent 2: longest idle
            3 ring 2 at user/2 for b
            4 Joined c at 2 of 1 in abc: caller was answered
            5 ring 2 at user/2 for b
            5 agent 2 ringing: rang before the restart
            5 abc: 1 b, 2 c; 1 busy, 2 ringing
            5 check c
            5 check a
            6 agent 1 wrap-up: call was gone before
            7 Connected b at 0 of 1 in abc: agent answered
            7 agent 2 busy: took the caller
            106 agent 1 idle: wrap-up is over
            106 Reserved c at 1 of 0 in abc: agent 1: longest idle
            106 agent 1 ringing: agent 1: longest idle
            106 ring y-1 at user/1 for c
        "#]],
    );
}
