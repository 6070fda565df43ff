//! What queues with agents ask of a call: several phones at once, ways out of the queue, and agents who
//! dial a code.

mod script;

use call::{Action, AgentOrder, Cause, Enqueue, Plan};
use expect_test::expect;
use script::{Begin, check, check_waiting};
use std::collections::BTreeMap;
use std::sync::Arc;

fn hangup(cause: Cause) -> Plan {
    Plan::new([Action::Hangup { cause }])
}

/// Digit 1 leaves; who is let go by the queue is told by another cause.
fn with_exits() -> Plan {
    let enqueue = Enqueue {
        priority: 7,
        on: BTreeMap::from([('1', hangup(Cause::Success))]),
        otherwise: Some(hangup(Cause::NoPickup)),
        ..Enqueue::default()
    };
    Plan::new([Action::Enqueue(Arc::new(enqueue))])
}

#[test]
fn who_answers_first_has_the_caller_and_the_others_stop_ringing() {
    check_waiting(
        "5 ask 1 ring as1 user/2 user/3\n 6 b2 180\n 7 b1 180\n 8 b3 200 sdp\n 9 b1 hungup\n 9 b2 200 sdp\n 30 b3 bye",
        expect![[r#"
            05.000 > ask 1 ring as1 user/2 user/3
            05.000 media offer B ours
            05.000 sip b1 INVITE user/agent
            05.000 sip b2 INVITE user/2
            05.000 sip b3 INVITE user/3
            06.000 > b2 180
            06.000 event Ringing
            07.000 > b1 180
            08.000 > b3 200 sdp
            08.000 sip b1 hangup SIP;cause=200;text="Call completed elsewhere" or 480
            08.000 sip b2 hangup SIP;cause=200;text="Call completed elsewhere" or 480
            08.000 media answer B
            08.000 media connect when heard
            08.000 answer 1 Connected 200
            08.000 event Connected
            09.000 > b1 hungup
            09.000 > b2 200 sdp
            30.000 > b3 bye
            30.000 sip a hangup Q.850;cause=16;text="NORMAL_CLEARING" or 480
            30.000 media delete all
            30.000 event Ended NORMAL_CLEARING by Callee
        "#]],
    );
}

#[test]
fn one_whom_the_user_agent_has_given_up_is_not_hung_up_again() {
    check_waiting(
        "5 ask 1 ring as1 user/2 user/3\n 6 b2 hungup\n 7 a bye",
        expect![[r#"
            05.000 > ask 1 ring as1 user/2 user/3
            05.000 media offer B ours
            05.000 sip b1 INVITE user/agent
            05.000 sip b2 INVITE user/2
            05.000 sip b3 INVITE user/3
            06.000 > b2 hungup
            07.000 > a bye
            07.000 sip b3 hangup Q.850;cause=16;text="NORMAL_CLEARING" or 480
            07.000 sip b1 hangup Q.850;cause=16;text="NORMAL_CLEARING" or 480
            07.000 media delete all
            07.000 queue leave NORMAL_CLEARING
            07.000 event Ended NORMAL_CLEARING by Caller
            07.000 answer 1 CallerGone
        "#]],
    );
}

#[test]
fn one_who_declines_does_not_end_the_ringing_of_the_others() {
    check_waiting(
        "5 ask 1 ring as1 user/2 user/3\n 6 b1 603\n 7 b3 486\n 8 b2 180\n 9 b2 404\n 10 ask 2 ring as1",
        expect![[r#"
            05.000 > ask 1 ring as1 user/2 user/3
            05.000 media offer B ours
            05.000 sip b1 INVITE user/agent
            05.000 sip b2 INVITE user/2
            05.000 sip b3 INVITE user/3
            06.000 > b1 603
            07.000 > b3 486
            08.000 > b2 180
            08.000 event Ringing
            09.000 > b2 404
            09.000 media delete B
            09.000 event RingFailed UNALLOCATED_NUMBER
            09.000 answer 1 Unreachable 404
            10.000 > ask 2 ring as1
            10.000 answer 2 Unreachable 404
        "#]],
    );
}

#[test]
fn caller_who_hangs_up_stops_all_phones() {
    check_waiting(
        "5 ask 1 ring as1 user/2\n 6 b1 180\n 7 a bye",
        expect![[r#"
            05.000 > ask 1 ring as1 user/2
            05.000 media offer B ours
            05.000 sip b1 INVITE user/agent
            05.000 sip b2 INVITE user/2
            06.000 > b1 180
            06.000 event Ringing
            07.000 > a bye
            07.000 sip b2 hangup Q.850;cause=16;text="NORMAL_CLEARING" or 480
            07.000 sip b1 hangup Q.850;cause=16;text="NORMAL_CLEARING" or 480
            07.000 media delete all
            07.000 queue leave NORMAL_CLEARING
            07.000 event Ended NORMAL_CLEARING by Caller
            07.000 answer 1 CallerGone
        "#]],
    );
    check_waiting(
        "5 ask 1 ring as1 user/2\n 6 ask 2 stop as1\n 36 ask 3 ring as2 user/4",
        expect![[r#"
            05.000 > ask 1 ring as1 user/2
            05.000 media offer B ours
            05.000 sip b1 INVITE user/agent
            05.000 sip b2 INVITE user/2
            06.000 > ask 2 stop as1
            06.000 sip b2 hangup Q.850;cause=16;text="ORIGINATOR_CANCEL" or 487
            06.000 sip b1 hangup Q.850;cause=16;text="ORIGINATOR_CANCEL" or 487
            06.000 media delete B
            06.000 event RingFailed ORIGINATOR_CANCEL
            06.000 answer 1 Stopped
            06.000 answer 2 StoppedRinging { stopped: true }
            36.000 > ask 3 ring as2 user/4
            36.000 media offer B ours
            36.000 sip b3 INVITE user/agent
            36.000 sip b4 INVITE user/4
            66.000 sip b4 hangup Q.850;cause=19;text="NO_ANSWER" or 480
            66.000 sip b3 hangup Q.850;cause=19;text="NO_ANSWER" or 480
            66.000 media delete B
            66.000 event RingFailed NO_ANSWER
            66.000 answer 3 NoAnswer
        "#]],
    );
}

#[test]
fn nobody_who_answers_in_time_stops_all_phones() {
    check_waiting(
        "5 ask 1 ring as1 user/2\n 6 b2 180\n 35 b1 180\n 36 b2 hungup",
        expect![[r#"
            05.000 > ask 1 ring as1 user/2
            05.000 media offer B ours
            05.000 sip b1 INVITE user/agent
            05.000 sip b2 INVITE user/2
            06.000 > b2 180
            06.000 event Ringing
            35.000 > b1 180
            35.000 sip b1 hangup Q.850;cause=19;text="NO_ANSWER" or 480
            35.000 sip b2 hangup Q.850;cause=19;text="NO_ANSWER" or 480
            35.000 media delete B
            35.000 event RingFailed NO_ANSWER
            35.000 answer 1 NoAnswer
            36.000 > b2 hungup
        "#]],
    );
}

#[test]
fn digit_takes_the_caller_out_of_the_queue_unless_an_agent_has_answered() {
    check(
        Begin::Offer,
        with_exits(),
        "0.1 a ack\n 3 digit a 2\n 5 ask 1 ring as1\n 6 digit a 1",
        expect![[r#"
            00.000 event Created
            00.000 event Action enqueue
            00.000 queue enqueue by URI
            00.000 media offer A offer with moh/abc
            00.000 sip a 200 relay
            00.100 > a ack
            00.100 event Answered
            00.100 queue enqueue abc answered
            03.000 > digit a 2
            03.000 event Digit 2
            05.000 > ask 1 ring as1
            05.000 media offer B ours
            05.000 sip b1 INVITE user/agent
            06.000 > digit a 1
            06.000 event Digit 1
            06.000 queue leave PICKED_OFF
            06.000 sip b1 hangup Q.850;cause=26;text="PICKED_OFF" or 480
            06.000 media delete B
            06.000 event RingFailed PICKED_OFF
            06.000 answer 1 Stopped
            06.000 media stop A and leave
            06.000 event Action hangup
            06.000 sip a hangup Q.850;cause=16;text="SUCCESS" or 480
            06.000 media delete all
            06.000 event Ended SUCCESS by Plan
        "#]],
    );
    check(
        Begin::Offer,
        with_exits(),
        "0.1 a ack\n 5 media silent\n 5 ask 1 ring as1\n 5.1 media ok\n 6 b1 200 sdp\n 7 digit a 1",
        expect![[r#"
            00.000 event Created
            00.000 event Action enqueue
            00.000 queue enqueue by URI
            00.000 media offer A offer with moh/abc
            00.000 sip a 200 relay
            00.100 > a ack
            00.100 event Answered
            00.100 queue enqueue abc answered
            05.000 > ask 1 ring as1
            05.000 media offer B ours
            05.100 > media ok
            05.100 sip b1 INVITE user/agent
            06.000 > b1 200 sdp
            06.000 media answer B
            07.000 > digit a 1
            07.000 event Digit 1
            09.000 sip b1 hangup Q.850;cause=41;text="NORMAL_TEMPORARY_FAILURE" or 503
            09.000 media delete B
            09.000 event RingFailed NORMAL_TEMPORARY_FAILURE
            09.000 answer 1 Unreachable
        "#]],
    );
}

#[test]
fn caller_whom_the_queue_does_not_take_goes_on_with_the_plan() {
    check(
        Begin::Offer,
        with_exits(),
        "0 queue silent\n 1 queue full",
        expect![[r#"
            00.000 event Created
            00.000 event Action enqueue
            00.000 queue enqueue by URI
            01.000 > queue full
            01.000 event Action hangup
            01.000 sip a hangup Q.850;cause=19;text="NO_PICKUP" or 480
            01.000 event Ended NO_PICKUP by Plan
        "#]],
    );
}

#[test]
fn caller_whom_the_queue_lets_go_goes_on_with_the_plan_once() {
    check(
        Begin::Offer,
        with_exits(),
        "0.1 a ack\n 5 ask 1 transfer on\n 6 ask 2 transfer on",
        expect![[r#"
            00.000 event Created
            00.000 event Action enqueue
            00.000 queue enqueue by URI
            00.000 media offer A offer with moh/abc
            00.000 sip a 200 relay
            00.100 > a ack
            00.100 event Answered
            00.100 queue enqueue abc answered
            05.000 > ask 1 transfer on
            05.000 queue leave PICKED_OFF
            05.000 media stop A and leave
            05.000 event Action hangup
            05.000 sip a hangup Q.850;cause=19;text="NO_PICKUP" or 480
            05.000 media delete all
            05.000 event Ended NO_PICKUP by Plan
            05.000 answer 1 transferred, runs ""
            06.000 > ask 2 transfer on
            06.000 answer 2 refused: the call has ended with NO_PICKUP
        "#]],
    );
    check(
        Begin::Offer,
        Plan::new([Action::Enqueue(Arc::default()), Action::Park]),
        "0.1 a ack\n 4 ask 1 ring as1\n 5 ask 2 transfer on\n 6 ask 3 stop as1\n 7 ask 4 transfer on\n 8 ask 5 transfer on",
        expect![[r#"
            00.000 event Created
            00.000 event Action enqueue
            00.000 queue enqueue by URI
            00.000 media offer A offer with moh/abc
            00.000 sip a 200 relay
            00.100 > a ack
            00.100 event Answered
            00.100 queue enqueue abc answered
            04.000 > ask 1 ring as1
            04.000 media offer B ours
            04.000 sip b1 INVITE user/agent
            05.000 > ask 2 transfer on
            05.000 answer 2 transferred, runs "enqueue"
            06.000 > ask 3 stop as1
            06.000 sip b1 hangup Q.850;cause=16;text="ORIGINATOR_CANCEL" or 487
            06.000 media delete B
            06.000 event RingFailed ORIGINATOR_CANCEL
            06.000 answer 1 Stopped
            06.000 answer 3 StoppedRinging { stopped: true }
            07.000 > ask 4 transfer on
            07.000 queue leave PICKED_OFF
            07.000 media stop A and leave
            07.000 event Action park
            07.000 answer 4 transferred, runs "park"
            08.000 > ask 5 transfer on
            08.000 answer 5 transferred, runs "park"
        "#]],
    );
}

#[test]
fn caller_in_another_queue_hears_its_music() {
    check_waiting(
        "5 ask 1 transfer queue night\n 6 a bye",
        expect![[r#"
            05.000 > ask 1 transfer queue night
            05.000 media play A moh/night looping
            05.000 answer 1 transferred, runs "enqueue"
            06.000 > a bye
            06.000 media delete all
            06.000 queue leave NORMAL_CLEARING
            06.000 event Ended NORMAL_CLEARING by Caller
        "#]],
    );
}

#[test]
fn agent_who_dials_a_code_is_told_by_what_follows() {
    let login = |otherwise| Action::Agent { does: AgentOrder::Login, agent: None, otherwise };
    let script = "0 queue silent\n 1 queue ok";
    let then = || Action::Hangup { cause: Cause::Success };
    check(
        Begin::Offer,
        Plan::new([login(None), then()]),
        script,
        expect![[r#"
        00.000 event Created
        00.000 event Action agent
        00.000 queue agent of leg A Login
        01.000 > queue ok
        01.000 event Action hangup
        01.000 sip a hangup Q.850;cause=16;text="SUCCESS" or 480
        01.000 event Ended SUCCESS by Plan
    "#]],
    );
    let script = "0 queue silent\n 1 queue notfound";
    check(
        Begin::Offer,
        Plan::new([login(None), then()]),
        script,
        expect![[r#"
        00.000 event Created
        00.000 event Action agent
        00.000 queue agent of leg A Login
        01.000 > queue notfound
        01.000 sip a 404
        01.000 event Ended UNALLOCATED_NUMBER by Edge
    "#]],
    );
    let otherwise = Some(hangup(Cause::CallRejected));
    check(
        Begin::Offer,
        Plan::new([login(otherwise), then()]),
        script,
        expect![[r#"
        00.000 event Created
        00.000 event Action agent
        00.000 queue agent of leg A Login
        01.000 > queue notfound
        01.000 event Action hangup
        01.000 sip a hangup Q.850;cause=21;text="CALL_REJECTED" or 603
        01.000 event Ended CALL_REJECTED by Plan
    "#]],
    );
}
