//! What crosses on its way: replies that belong to what was before, commands that were done although
//! their reply was lost, requests that replace each other.

mod script;

use call::{Action, Plan};
use expect_test::expect;
use script::{Begin, check, conference, limit_plan};

#[test]
fn a_plan_that_replaces_another_waits_for_its_own_task() {
    check(
        Begin::Originate,
        limit_plan(),
        "1 scheduler silent\n 2 a 200 sdp\n 3 ask 1 limit\n 3.1 scheduler ok\n 3.2 scheduler full",
        expect![[r#"
            00.000 event Created
            00.000 media offer A ours
            00.000 sip a INVITE user/1000
            02.000 > a 200 sdp
            02.000 media answer A
            02.000 event Answered
            02.000 event Action schedule
            02.000 scheduler schedule limit 20000 ALLOTTED_TIMEOUT
            03.000 > ask 1 limit
            03.000 answer 0 originated, tasks []
            03.000 media stop A and leave
            03.000 event Action schedule
            03.000 scheduler schedule limit 20000 ALLOTTED_TIMEOUT
            03.000 answer 1 runs schedule
            03.100 > scheduler ok
            03.200 > scheduler full
            03.200 sip a hangup Q.850;cause=41;text="NORMAL_TEMPORARY_FAILURE" or 503
            03.200 media delete all
            03.200 event Ended NORMAL_TEMPORARY_FAILURE by Edge
        "#]],
    );
}

#[test]
fn a_task_that_nobody_confirmed_is_cancelled_with_the_call() {
    check(
        Begin::Originate,
        limit_plan(),
        "1 scheduler silent\n 2 a 200 sdp",
        expect![[r#"
        00.000 event Created
        00.000 media offer A ours
        00.000 sip a INVITE user/1000
        02.000 > a 200 sdp
        02.000 media answer A
        02.000 event Answered
        02.000 event Action schedule
        02.000 scheduler schedule limit 20000 ALLOTTED_TIMEOUT
        05.000 answer 0 refused: scheduler failed: no answer in 3s
        05.000 sip a hangup Q.850;cause=41;text="NORMAL_TEMPORARY_FAILURE" or 503
        05.000 media delete all
        05.000 scheduler cancel all
        05.000 event Ended NORMAL_TEMPORARY_FAILURE by Edge
    "#]],
    );
}

#[test]
fn an_originate_that_failed_after_the_answer_fails_again() {
    check(
        Begin::Originate,
        limit_plan(),
        "1 scheduler silent\n 2 a 200 sdp\n 2.1 scheduler full\n 3 ask 1 originate",
        expect![[r#"
            00.000 event Created
            00.000 media offer A ours
            00.000 sip a INVITE user/1000
            02.000 > a 200 sdp
            02.000 media answer A
            02.000 event Answered
            02.000 event Action schedule
            02.000 scheduler schedule limit 20000 ALLOTTED_TIMEOUT
            02.100 > scheduler full
            02.100 answer 0 refused: scheduler failed: full
            02.100 sip a hangup Q.850;cause=41;text="NORMAL_TEMPORARY_FAILURE" or 503
            02.100 media delete all
            02.100 event Ended NORMAL_TEMPORARY_FAILURE by Edge
            03.000 > ask 1 originate
            03.000 answer 1 refused: the call has ended with NORMAL_TEMPORARY_FAILURE
        "#]],
    );
}

#[test]
fn an_agent_who_takes_a_call_ends_the_wait_of_its_originate() {
    check(
        Begin::Originate,
        limit_plan(),
        "1 scheduler silent\n 2 a 200 sdp\n 2.1 ask 1 ring as1\n 2.2 b1 200 sdp\n 2.3 scheduler ok\n 3 a bye",
        expect![[r#"
            00.000 event Created
            00.000 media offer A ours
            00.000 sip a INVITE user/1000
            02.000 > a 200 sdp
            02.000 media answer A
            02.000 event Answered
            02.000 event Action schedule
            02.000 scheduler schedule limit 20000 ALLOTTED_TIMEOUT
            02.100 > ask 1 ring as1
            02.100 media offer B ours
            02.100 sip b1 INVITE user/agent
            02.200 > b1 200 sdp
            02.200 media answer B
            02.200 media connect when heard
            02.200 answer 0 originated, tasks []
            02.200 answer 1 Connected 200
            02.200 event Connected
            02.300 > scheduler ok
            03.000 > a bye
            03.000 sip b1 hangup Q.850;cause=16;text="NORMAL_CLEARING" or 480
            03.000 media delete all
            03.000 event Ended NORMAL_CLEARING by Callee
        "#]],
    );
}

#[test]
fn who_could_not_be_connected_is_in_the_conference_again() {
    check(
        Begin::Offer,
        Plan::new([conference("test1")]),
        "0.1 a ack\n 1 ask 1 ring as1\n 1.1 media silent\n 2 b1 200 sdp\n 2.1 media ok\n 2.2 media away\n 2.3 media ok\n 3 a bye",
        expect![[r#"
            00.000 event Created
            00.000 event Action conference
            00.000 media offer A offer
            00.000 sip a 200 relay
            00.100 > a ack
            00.100 event Answered
            00.100 media join A test1
            00.100 event Action conference
            01.000 > ask 1 ring as1
            01.000 media offer B ours
            01.000 sip b1 INVITE user/agent
            02.000 > b1 200 sdp
            02.000 media answer B
            02.100 > media ok
            02.100 media connect when heard
            02.200 > media away
            02.200 sip b1 hangup Q.850;cause=41;text="NORMAL_TEMPORARY_FAILURE" or 503
            02.200 media delete B
            02.200 event RingFailed NORMAL_TEMPORARY_FAILURE
            02.200 answer 1 Unreachable
            02.200 media join A test1
            02.300 > media ok
            02.300 event Action conference
            03.000 > a bye
            03.000 media delete all
            03.000 event Ended NORMAL_CLEARING by Caller
        "#]],
    );
}

#[test]
fn another_plan_leaves_the_conference() {
    check(
        Begin::Offer,
        Plan::new([conference("test1")]),
        "0.1 a ack\n 1 ask 1 park\n 3 a bye",
        expect![[r#"
            00.000 event Created
            00.000 event Action conference
            00.000 media offer A offer
            00.000 sip a 200 relay
            00.100 > a ack
            00.100 event Answered
            00.100 media join A test1
            00.100 event Action conference
            01.000 > ask 1 park
            01.000 media stop A and leave
            01.000 event Action park
            01.000 answer 1 runs park
            03.000 > a bye
            03.000 media delete all
            03.000 event Ended NORMAL_CLEARING by Caller
        "#]],
    );
}

#[test]
fn the_edge_ends_what_the_callee_did_not() {
    let plan = || {
        let target = "user/1".to_owned();
        Plan::new([Action::Dial { target, ring: script::RING, otherwise: None }])
    };
    check(
        Begin::Offer,
        plan(),
        "0.1 b1 unresolved",
        expect![[r#"
        00.000 event Created
        00.000 event Action dial
        00.000 media offer A offer
        00.000 media offer B ours
        00.000 sip b1 INVITE user/1
        00.100 > b1 unresolved
        00.100 media delete B
        00.100 event RingFailed USER_NOT_REGISTERED
        00.100 sip a hangup Q.850;cause=20;text="USER_NOT_REGISTERED" or 480
        00.100 media delete all
        00.100 event Ended USER_NOT_REGISTERED by Edge
    "#]],
    );
    check(
        Begin::Offer,
        plan(),
        "0.1 b1 486",
        expect![[r#"
        00.000 event Created
        00.000 event Action dial
        00.000 media offer A offer
        00.000 media offer B ours
        00.000 sip b1 INVITE user/1
        00.100 > b1 486
        00.100 media delete B
        00.100 event RingFailed USER_BUSY
        00.100 sip a hangup Q.850;cause=17;text="USER_BUSY" or 486
        00.100 media delete all
        00.100 event Ended USER_BUSY by Callee
    "#]],
    );
    check(
        Begin::Offer,
        plan(),
        "0.1 b1 timeout",
        expect![[r#"
        00.000 event Created
        00.000 event Action dial
        00.000 media offer A offer
        00.000 media offer B ours
        00.000 sip b1 INVITE user/1
        00.100 > b1 timeout
        00.100 media delete B
        00.100 event RingFailed RECOVERY_ON_TIMER_EXPIRE
        00.100 sip a hangup Q.850;cause=102;text="RECOVERY_ON_TIMER_EXPIRE" or 504
        00.100 media delete all
        00.100 event Ended RECOVERY_ON_TIMER_EXPIRE by Edge
    "#]],
    );
}
