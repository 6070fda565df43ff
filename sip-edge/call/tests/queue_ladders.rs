//! Job A, once the caller waits: agents are rung, and whatever can go wrong on the way.

mod script;

use call::{Action, Plan};
use expect_test::expect;
use script::{Begin, check, check_waiting, queue_plan};

#[test]
fn an_agent_takes_the_caller_and_either_bye_ends_both() {
    check_waiting(
        "5 ask 1 ring as1\n 6 b1 180\n 6.1 b1 180\n 8 b1 200 sdp\n 30 b1 bye Q.850;cause=21\n 31 ask 2 ring as1\n 32 ask 3 ring as9",
        expect![[r#"
            05.000 > ask 1 ring as1
            05.000 media offer B ours
            05.000 sip b1 INVITE user/agent
            06.000 > b1 180
            06.000 event Ringing
            06.100 > b1 180
            08.000 > b1 200 sdp
            08.000 media answer B
            08.000 media connect when heard
            08.000 answer 1 Connected 200
            08.000 event Connected
            30.000 > b1 bye Q.850;cause=21
            30.000 sip a hangup Q.850;cause=21 or 603
            30.000 media delete all
            30.000 event Ended CALL_REJECTED by Callee
            31.000 > ask 2 ring as1
            31.000 answer 2 Connected 200
            32.000 > ask 3 ring as9
            32.000 answer 3 CallerGone
        "#]],
    );
}

#[test]
fn an_agent_who_does_not_answer_leaves_the_caller_where_he_was() {
    check_waiting(
        "5 ask 1 ring as1\n 6 b1 180\n 36 b1 hungup\n 37 ask 2 ring as2\n 38 b2 486\n 39 ask 3 ring as3\n 39 ask 4 ring as4\n 40 ask 5 stop as3\n 41 ask 6 stop as3\n 42 a bye",
        expect![[r#"
            05.000 > ask 1 ring as1
            05.000 media offer B ours
            05.000 sip b1 INVITE user/agent
            06.000 > b1 180
            06.000 event Ringing
            35.000 sip b1 hangup Q.850;cause=19;text="NO_ANSWER" or 480
            35.000 media delete B
            35.000 event RingFailed NO_ANSWER
            35.000 answer 1 NoAnswer
            36.000 > b1 hungup
            37.000 > ask 2 ring as2
            37.000 media offer B ours
            37.000 sip b2 INVITE user/agent
            38.000 > b2 486
            38.000 media delete B
            38.000 event RingFailed USER_BUSY
            38.000 answer 2 Busy 486
            39.000 > ask 3 ring as3
            39.000 media offer B ours
            39.000 sip b3 INVITE user/agent
            39.000 > ask 4 ring as4
            39.000 answer 4 refused: another attempt rings already
            40.000 > ask 5 stop as3
            40.000 sip b3 hangup Q.850;cause=16;text="ORIGINATOR_CANCEL" or 487
            40.000 media delete B
            40.000 event RingFailed ORIGINATOR_CANCEL
            40.000 answer 3 Stopped
            40.000 answer 5 StoppedRinging { stopped: true }
            41.000 > ask 6 stop as3
            41.000 answer 6 StoppedRinging { stopped: false }
            42.000 > a bye
            42.000 media delete all
            42.000 queue leave NORMAL_CLEARING
            42.000 event Ended NORMAL_CLEARING by Caller
        "#]],
    );
}

#[test]
fn a_caller_who_hangs_up_while_the_agent_rings_cancels_the_agent() {
    check_waiting(
        "5 ask 1 ring as1\n 5 ask 2 ring as1\n 6 b1 180\n 7 a bye\n 7.1 b1 hungup",
        expect![[r#"
            05.000 > ask 1 ring as1
            05.000 media offer B ours
            05.000 sip b1 INVITE user/agent
            05.000 > ask 2 ring as1
            06.000 > b1 180
            06.000 event Ringing
            07.000 > a bye
            07.000 sip b1 hangup Q.850;cause=16;text="NORMAL_CLEARING" or 480
            07.000 media delete all
            07.000 queue leave NORMAL_CLEARING
            07.000 event Ended NORMAL_CLEARING by Caller
            07.000 answer 1 CallerGone
            07.000 answer 2 CallerGone
            07.100 > b1 hungup
        "#]],
    );
}

#[test]
fn a_caller_who_hangs_up_while_the_agent_answers_ends_the_agents_leg() {
    check_waiting(
        "5 ask 1 ring as1\n 5.5 media silent\n 6 b1 200 sdp\n 6.1 a bye\n 6.2 media ok",
        expect![[r#"
            05.000 > ask 1 ring as1
            05.000 media offer B ours
            05.000 sip b1 INVITE user/agent
            06.000 > b1 200 sdp
            06.000 media answer B
            06.100 > a bye
            06.100 sip b1 hangup Q.850;cause=16;text="NORMAL_CLEARING" or 480
            06.100 media delete all
            06.100 queue leave NORMAL_CLEARING
            06.100 event Ended NORMAL_CLEARING by Caller
            06.100 answer 1 CallerGone
            06.200 > media ok
        "#]],
    );
}

#[test]
fn an_agent_whose_media_cannot_be_connected_is_let_go_and_the_music_goes_on() {
    check_waiting(
        "5 ask 1 ring as1\n 5.5 media silent\n 6 b1 200 sdp\n 6.1 media ok\n 6.2 media away\n 6.3 media ok\n 9 a bye",
        expect![[r#"
            05.000 > ask 1 ring as1
            05.000 media offer B ours
            05.000 sip b1 INVITE user/agent
            06.000 > b1 200 sdp
            06.000 media answer B
            06.100 > media ok
            06.100 media connect when heard
            06.200 > media away
            06.200 sip b1 hangup Q.850;cause=41;text="NORMAL_TEMPORARY_FAILURE" or 503
            06.200 media delete B
            06.200 event RingFailed NORMAL_TEMPORARY_FAILURE
            06.200 answer 1 Unreachable
            06.200 media play A moh/abc looping
            06.300 > media ok
            09.000 > a bye
            09.000 media delete all
            09.000 queue leave NORMAL_CLEARING
            09.000 event Ended NORMAL_CLEARING by Caller
        "#]],
    );
}

#[test]
fn an_agent_who_answers_and_is_not_heard_leaves_the_caller_where_he_was() {
    check_waiting(
        "5 ask 1 ring as1\n 5.5 media silent\n 6 b1 200 sdp\n 6.1 media ok\n 8.1 media unheard\n 9 ask 2 ring as2\n 9.1 a bye",
        expect![[r#"
            05.000 > ask 1 ring as1
            05.000 media offer B ours
            05.000 sip b1 INVITE user/agent
            06.000 > b1 200 sdp
            06.000 media answer B
            06.100 > media ok
            06.100 media connect when heard
            08.100 > media unheard
            08.100 sip b1 hangup Q.850;cause=102;text="MEDIA_TIMEOUT" or 480
            08.100 media delete B
            08.100 event RingFailed MEDIA_TIMEOUT
            08.100 answer 1 Unreachable
            09.000 > ask 2 ring as2
            09.000 media offer B ours
            09.100 > a bye
            09.100 media delete all
            09.100 queue leave NORMAL_CLEARING
            09.100 event Ended NORMAL_CLEARING by Caller
            09.100 answer 2 CallerGone
        "#]],
    );
}

#[test]
fn a_media_relay_that_is_away_keeps_an_agent_from_ringing_and_the_caller_where_he_was() {
    check_waiting(
        "4 media silent\n 5 ask 1 ring as1\n 5.5 media away\n 6 ask 2 ring as2\n 9 a bye",
        expect![[r#"
            05.000 > ask 1 ring as1
            05.000 media offer B ours
            05.500 > media away
            05.500 media delete B
            05.500 event RingFailed NORMAL_TEMPORARY_FAILURE
            05.500 answer 1 Unreachable
            06.000 > ask 2 ring as2
            06.000 media offer B ours
            09.000 > a bye
            09.000 media delete all
            09.000 queue leave NORMAL_CLEARING
            09.000 event Ended NORMAL_CLEARING by Caller
            09.000 answer 2 CallerGone
        "#]],
    );
}

#[test]
fn a_caller_keeps_his_music_while_queue_svc_is_away() {
    check(
        Begin::Offer,
        queue_plan(),
        "0.05 queue silent\n 0.1 a ack\n 0.2 queue away\n 2.5 queue away\n 5 queue ok\n 60 a bye",
        expect![[r#"
            00.000 event Created
            00.000 event Action enqueue
            00.000 queue enqueue by URI
            00.000 media offer A offer with moh/abc
            00.000 sip a 200 relay
            00.100 > a ack
            00.100 event Answered
            00.100 queue enqueue abc answered
            00.200 > queue away
            02.200 queue enqueue abc answered
            02.500 > queue away
            04.500 queue enqueue abc answered
            05.000 > queue ok
            60.000 > a bye
            60.000 media delete all
            60.000 queue leave NORMAL_CLEARING
            60.000 event Ended NORMAL_CLEARING by Caller
        "#]],
    );
}

#[test]
fn hold_and_resume_are_told_and_a_refused_reinvite_changes_nothing() {
    check_waiting(
        "1 media silent\n 2 a reinvite sdp\n 2.1 media held\n 2.2 a ack\n 3 a reinvite\n 3.1 media ok\n 3.2 a ack sdp\n 3.3 media ok\n 4 a reinvite sdp\n 4.1 a reinvite sdp\n 4.2 media nocodec\n 4.3 a reinvite sdp\n 4.4 media nofamily\n 5 a bye",
        expect![[r#"
            02.000 > a reinvite sdp
            02.000 media offer A sdp
            02.100 > media held
            02.100 sip a 200 relay
            02.100 event Held
            02.200 > a ack
            03.000 > a reinvite
            03.000 media offer A ours
            03.100 > media ok
            03.100 sip a 200 relay
            03.200 > a ack sdp
            03.200 media answer A
            03.300 > media ok
            03.300 event Resumed
            04.000 > a reinvite sdp
            04.000 media offer A sdp
            04.100 > a reinvite sdp
            04.100 sip a 491
            04.200 > media nocodec
            04.200 sip a 488 Warning 305
            04.300 > a reinvite sdp
            04.300 media offer A sdp
            04.400 > media nofamily
            04.400 sip a 488 Warning 301
            05.000 > a bye
            05.000 media delete all
            05.000 queue leave NORMAL_CLEARING
            05.000 event Ended NORMAL_CLEARING by Caller
        "#]],
    );
}

#[test]
fn a_cancelled_invite_gives_everything_back() {
    check(
        Begin::Offer,
        queue_plan(),
        "0 media silent\n 0.1 a cancel\n 0.2 media ok",
        expect![[r#"
            00.000 event Created
            00.000 event Action enqueue
            00.000 queue enqueue by URI
            00.000 media offer A offer with moh/abc
            00.100 > a cancel
            00.100 media delete all
            00.100 queue leave ORIGINATOR_CANCEL
            00.100 event Ended ORIGINATOR_CANCEL by Caller
            00.200 > media ok
        "#]],
    );
}

#[test]
fn silence_of_the_peer_and_of_the_relay_end_the_call() {
    check_waiting(
        "9 inactive",
        expect![[r#"
        09.000 > inactive
        09.000 sip a hangup Q.850;cause=102;text="MEDIA_TIMEOUT" or 480
        09.000 media delete all
        09.000 queue leave MEDIA_TIMEOUT
        09.000 event Ended MEDIA_TIMEOUT by Edge
    "#]],
    );
    check(
        Begin::Offer,
        queue_plan(),
        "32 a timeout",
        expect![[r#"
            00.000 event Created
            00.000 event Action enqueue
            00.000 queue enqueue by URI
            00.000 media offer A offer with moh/abc
            00.000 sip a 200 relay
            32.000 > a timeout
            32.000 media delete all
            32.000 queue leave RECOVERY_ON_TIMER_EXPIRE
            32.000 event Ended RECOVERY_ON_TIMER_EXPIRE by Edge
        "#]],
    );
}

#[test]
fn hanging_up_twice_is_answered_twice_and_done_once() {
    check_waiting(
        "1 ask 1 hangup\n 2 ask 2 hangup",
        expect![[r#"
            01.000 > ask 1 hangup
            01.000 sip a hangup Q.850;cause=16;text="NORMAL_CLEARING" or 480
            01.000 media delete all
            01.000 queue leave NORMAL_CLEARING
            01.000 event Ended NORMAL_CLEARING by Api
            01.000 answer 1 hung up
            02.000 > ask 2 hangup
            02.000 answer 2 hung up before
        "#]],
    );
}

#[test]
fn a_plan_can_take_a_caller_out_of_the_queue() {
    check_waiting(
        "1 ask 1 ring as1\n 2 ask 2 park\n 3 shutdown",
        expect![[r#"
            01.000 > ask 1 ring as1
            01.000 media offer B ours
            01.000 sip b1 INVITE user/agent
            02.000 > ask 2 park
            02.000 queue leave PICKED_OFF
            02.000 sip b1 hangup Q.850;cause=16;text="ORIGINATOR_CANCEL" or 487
            02.000 media delete B
            02.000 event RingFailed ORIGINATOR_CANCEL
            02.000 answer 1 Stopped
            02.000 media stop A and leave
            02.000 event Action park
            02.000 answer 2 runs park
            03.000 > shutdown
            03.000 sip a hangup Q.850;cause=41;text="SYSTEM_SHUTDOWN" or 480
            03.000 media delete all
            03.000 event Ended SYSTEM_SHUTDOWN by Edge
        "#]],
    );
}

#[test]
fn dialling_answers_the_caller_only_when_the_callee_does() {
    let dial = || {
        let target = "user/1000".to_owned();
        Plan::new([Action::Dial { target, ring: script::RING, otherwise: None }])
    };
    check(
        Begin::Offer,
        dial(),
        "1 b1 180\n 2 b1 200 sdp\n 2.1 a ack\n 9 a bye",
        expect![[r#"
        00.000 event Created
        00.000 event Action dial
        00.000 media offer A offer
        00.000 media offer B ours
        00.000 sip b1 INVITE user/1000
        01.000 > b1 180
        01.000 event Ringing
        01.000 sip a 180
        02.000 > b1 200 sdp
        02.000 media answer B
        02.000 sip a 200 relay
        02.100 > a ack
        02.100 event Answered
        02.100 media connect
        02.100 event Connected
        09.000 > a bye
        09.000 sip b1 hangup Q.850;cause=16;text="NORMAL_CLEARING" or 480
        09.000 media delete all
        09.000 event Ended NORMAL_CLEARING by Caller
    "#]],
    );
    check(
        Begin::Offer,
        dial(),
        "1 b1 603",
        expect![[r#"
        00.000 event Created
        00.000 event Action dial
        00.000 media offer A offer
        00.000 media offer B ours
        00.000 sip b1 INVITE user/1000
        01.000 > b1 603
        01.000 media delete B
        01.000 event RingFailed CALL_REJECTED
        01.000 sip a hangup Q.850;cause=21;text="CALL_REJECTED" or 603
        01.000 media delete all
        01.000 event Ended CALL_REJECTED by Callee
    "#]],
    );
    check(
        Begin::Offer,
        dial(),
        "1 b1 unresolved",
        expect![[r#"
            00.000 event Created
            00.000 event Action dial
            00.000 media offer A offer
            00.000 media offer B ours
            00.000 sip b1 INVITE user/1000
            01.000 > b1 unresolved
            01.000 media delete B
            01.000 event RingFailed USER_NOT_REGISTERED
            01.000 sip a hangup Q.850;cause=20;text="USER_NOT_REGISTERED" or 480
            01.000 media delete all
            01.000 event Ended USER_NOT_REGISTERED by Edge
        "#]],
    );
}
