//! Calls that another process goes on with, at every place where that matters.

mod script;

use call::{Action, AgentOrder, Conference, Plan};
use expect_test::expect;
use script::{Begin, check, check_waiting, collect, conference, limit_plan, schedule};
use std::sync::Arc;

fn dial() -> Action {
    Action::Dial { target: "user/1".into(), ring: script::RING, otherwise: None }
}

#[test]
fn a_caller_who_waits_waits_on_and_an_agent_can_be_rung() {
    check_waiting(
        "1 restart
         2 ask 1 ring as
         3 b1 200 sdp
         4 b1 bye",
        expect![[r#"
            01.000 > restart
            01.000 media delete B
            01.000 queue enqueue abc answered
            02.000 > ask 1 ring as
            02.000 media offer B ours
            02.000 sip b1 INVITE user/agent
            03.000 > b1 200 sdp
            03.000 media answer B
            03.000 media connect when heard
            03.000 answer 1 Connected 200
            03.000 event Connected
            04.000 > b1 bye
            04.000 sip a hangup Q.850;cause=16;text="NORMAL_CLEARING" or 480
            04.000 media delete all
            04.000 event Ended NORMAL_CLEARING by Callee
        "#]],
    );
}

#[test]
fn an_agent_who_rang_is_rung_again_when_queue_svc_asks_again() {
    check_waiting(
        "1 ask 1 ring as
         2 b1 180
         3 restart
         4 ask 2 ring as
         5 a bye",
        expect![[r#"
            01.000 > ask 1 ring as
            01.000 media offer B ours
            01.000 sip b1 INVITE user/agent
            02.000 > b1 180
            02.000 event Ringing
            03.000 > restart
            03.000 media delete B
            03.000 queue enqueue abc answered
            04.000 > ask 2 ring as
            04.000 media offer B ours
            04.000 sip b2 INVITE user/agent
            05.000 > a bye
            05.000 sip b2 hangup Q.850;cause=16;text="NORMAL_CLEARING" or 480
            05.000 media delete all
            05.000 queue leave NORMAL_CLEARING
            05.000 event Ended NORMAL_CLEARING by Caller
            05.000 answer 2 CallerGone
        "#]],
    );
}

#[test]
fn legs_that_talk_talk_on_and_what_came_of_the_ringing_is_remembered() {
    check_waiting(
        "1 ask 1 ring as
         2 b1 200 sdp
         3 restart
         4 ask 2 ring as
         5 b1 reinvite sdp
         6 b1 ack
         7 ask 3 hangup ALLOTTED_TIMEOUT t1
         7 ask 4 hangup ALLOTTED_TIMEOUT t1
         8 b1 hungup",
        expect![[r#"
            01.000 > ask 1 ring as
            01.000 media offer B ours
            01.000 sip b1 INVITE user/agent
            02.000 > b1 200 sdp
            02.000 media answer B
            02.000 media connect when heard
            02.000 answer 1 Connected 200
            02.000 event Connected
            03.000 > restart
            04.000 > ask 2 ring as
            04.000 answer 2 Connected 200
            05.000 > b1 reinvite sdp
            05.000 media offer B sdp
            05.000 sip b1 200 relay
            06.000 > b1 ack
            07.000 > ask 3 hangup ALLOTTED_TIMEOUT t1
            07.000 sip a hangup Q.850;cause=102;text="ALLOTTED_TIMEOUT" or 480
            07.000 sip b1 hangup Q.850;cause=102;text="ALLOTTED_TIMEOUT" or 480
            07.000 media delete all
            07.000 event Ended ALLOTTED_TIMEOUT by Task
            07.000 answer 3 hung up by t1
            07.000 > ask 4 hangup ALLOTTED_TIMEOUT t1
            07.000 answer 4 hung up before by t1
            08.000 > b1 hungup
            08.000 event Released B 200
        "#]],
    );
}

#[test]
fn legs_of_which_nobody_knows_whether_they_were_connected_are_connected() {
    check_waiting(
        "1 ask 1 ring as
         2 b1 180
         2.5 media silent
         3 b1 200 sdp
         3 media ok
         4 restart
         4.1 media ok",
        expect![[r#"
            01.000 > ask 1 ring as
            01.000 media offer B ours
            01.000 sip b1 INVITE user/agent
            02.000 > b1 180
            02.000 event Ringing
            03.000 > b1 200 sdp
            03.000 media answer B
            03.000 > media ok
            03.000 media connect when heard
            04.000 > restart
            04.000 media connect when heard
            04.100 > media ok
            04.100 event Connected
        "#]],
    );
}

#[test]
fn a_task_whose_scheduling_had_no_answer_is_scheduled_once() {
    check(
        Begin::Offer,
        Plan::new([Action::Answer, schedule(9_000, "limit"), Action::Park]),
        "0 scheduler silent
         0.1 a ack
         1 restart
         2 scheduler ok
         3 ask 1 hangup",
        expect![[r#"
            00.000 event Created
            00.000 event Action answer
            00.000 media offer A offer
            00.000 sip a 200 relay
            00.100 > a ack
            00.100 event Answered
            00.100 event Action schedule
            00.100 scheduler schedule limit 9000 ALLOTTED_TIMEOUT
            01.000 > restart
            01.000 media delete B
            01.000 scheduler schedule limit 9000 ALLOTTED_TIMEOUT
            02.000 > scheduler ok
            02.000 event Action park
            03.000 > ask 1 hangup
            03.000 sip a hangup Q.850;cause=16;text="NORMAL_CLEARING" or 480
            03.000 media delete all
            03.000 scheduler cancel all
            03.000 event Ended NORMAL_CLEARING by Api
            03.000 answer 1 hung up
        "#]],
    );
}

#[test]
fn digits_before_the_restart_count_and_its_time_runs_on() {
    check(
        Begin::Offer,
        Plan::new([Action::Collect(Arc::new(collect(
            None,
            3,
            [("12", Plan::new([Action::Park]))],
        )))]),
        "0.1 a ack
         1 digit a 1
         2 digit a 2
         3 restart
         5 ask 1 hangup",
        expect![[r#"
            00.000 event Created
            00.000 event Action collect
            00.000 media offer A offer
            00.000 sip a 200 relay
            00.100 > a ack
            00.100 event Answered
            01.000 > digit a 1
            01.000 event Digit 1
            02.000 > digit a 2
            02.000 event Digit 2
            03.000 > restart
            03.000 media delete B
            04.000 event Action park
            05.000 > ask 1 hangup
            05.000 sip a hangup Q.850;cause=16;text="NORMAL_CLEARING" or 480
            05.000 media delete all
            05.000 event Ended NORMAL_CLEARING by Api
            05.000 answer 1 hung up
        "#]],
    );
}

#[test]
fn a_prompt_that_may_not_have_begun_begins_again() {
    check(
        Begin::Offer,
        limit_plan(),
        "0.1 media silent
         0.1 a ack
         1 restart
         1.5 media ok
         2 digit a 1
         2 media ok
         3 ask 1 hangup",
        expect![[r#"
            00.000 event Created
            00.000 event Action schedule
            00.000 scheduler schedule limit 20000 ALLOTTED_TIMEOUT
            00.000 event Action collect
            00.000 media offer A offer
            00.000 sip a 200 relay
            00.100 > a ack
            00.100 event Answered
            00.100 media play A prompt.wav
            01.000 > restart
            01.000 media delete B
            01.000 media play A prompt.wav
            01.500 > media ok
            02.000 > digit a 1
            02.000 event Digit 1
            02.000 media stop A
            02.000 event Action cancel
            02.000 scheduler cancel t0
            02.000 event Action conference
            02.000 media join A test1
            02.000 > media ok
            02.000 event Action conference
            03.000 > ask 1 hangup
            03.000 sip a hangup Q.850;cause=16;text="NORMAL_CLEARING" or 480
            03.000 media delete all
            03.000 event Ended NORMAL_CLEARING by Api
            03.000 answer 1 hung up
        "#]],
    );
}

#[test]
fn a_file_that_plays_ends_by_its_time() {
    check(
        Begin::Offer,
        Plan::new([
            Action::Play { file: "f".into() },
            Action::Hangup { cause: call::Cause::UserBusy },
        ]),
        "0.1 a ack
         1 restart",
        expect![[r#"
            00.000 event Created
            00.000 event Action play
            00.000 media offer A offer
            00.000 sip a 200 relay
            00.100 > a ack
            00.100 event Answered
            00.100 media play A f
            01.000 > restart
            01.000 media delete B
            05.100 event Action hangup
            05.100 sip a hangup Q.850;cause=17;text="USER_BUSY" or 486
            05.100 media delete all
            05.100 event Ended USER_BUSY by Plan
        "#]],
    );
}

#[test]
fn a_task_is_cancelled_whatever_was_said_before() {
    check(
        Begin::Offer,
        Plan::new([Action::Answer, schedule(9_000, "x"), Action::Cancel { name: "x".into() }]),
        "0.1 scheduler silent
         0.1 a ack
         0.2 scheduler ok
         1 restart
         2 scheduler firing
         3 a bye",
        expect![[r#"
            00.000 event Created
            00.000 event Action answer
            00.000 media offer A offer
            00.000 sip a 200 relay
            00.100 > a ack
            00.100 event Answered
            00.100 event Action schedule
            00.100 scheduler schedule x 9000 ALLOTTED_TIMEOUT
            00.200 > scheduler ok
            00.200 event Action cancel
            00.200 scheduler cancel t1
            01.000 > restart
            01.000 media delete B
            01.000 scheduler cancel t1
            02.000 > scheduler firing
            02.000 event Action park
            03.000 > a bye
            03.000 media delete all
            03.000 event Ended NORMAL_CLEARING by Caller
        "#]],
    );
}

#[test]
fn who_was_on_the_way_into_a_conference_joins_it_and_who_is_in_it_stays() {
    let pin = Conference { name: "c".into(), pin: "1".into(), ..Conference::default() };
    check(
        Begin::Offer,
        Plan::new([Action::Conference(Arc::new(pin)), conference("d")]),
        "0.1 a ack
         0.2 media silent
         1 digit a 1
         2 restart
         3 media ok
         4 restart
         5 kicked c
         6 a bye",
        expect![[r#"
            00.000 event Created
            00.000 event Action conference
            00.000 media offer A offer
            00.000 sip a 200 relay
            00.100 > a ack
            00.100 event Answered
            01.000 > digit a 1
            01.000 event Digit 1
            01.000 media join A c 1
            02.000 > restart
            02.000 media delete B
            02.000 media join A c 1
            03.000 > media ok
            03.000 event Action conference
            04.000 > restart
            04.000 media delete B
            05.000 > kicked c
            05.000 event Action conference
            05.000 media join A d
            06.000 > a bye
            06.000 media delete all
            06.000 event Ended NORMAL_CLEARING by Caller
        "#]],
    );
}

#[test]
fn a_call_whose_ack_has_not_come_goes_on_as_if_it_had() {
    check(
        Begin::Offer,
        script::queue_plan(),
        "0.05 restart
         1 a bye",
        expect![[r#"
            00.000 event Created
            00.000 event Action enqueue
            00.000 queue enqueue by URI
            00.000 media offer A offer with moh/abc
            00.000 sip a 200 relay
            00.050 > restart
            00.050 media delete B
            00.050 event Answered
            00.050 queue enqueue abc answered
            01.000 > a bye
            01.000 media delete all
            01.000 queue leave NORMAL_CLEARING
            01.000 event Ended NORMAL_CLEARING by Caller
        "#]],
    );
}

#[test]
fn somebody_whom_the_plan_dials_is_called_again() {
    check(
        Begin::Offer,
        Plan::new([Action::Answer, dial()]),
        "0.1 a ack
         1 b1 180
         2 restart
         3 a bye",
        expect![[r#"
            00.000 event Created
            00.000 event Action answer
            00.000 media offer A offer
            00.000 sip a 200 relay
            00.100 > a ack
            00.100 event Answered
            00.100 event Action dial
            00.100 media offer B ours
            00.100 sip b1 INVITE user/1
            01.000 > b1 180
            01.000 event Ringing
            02.000 > restart
            02.000 media delete B
            02.000 media offer B ours
            02.000 sip b2 INVITE user/1
            03.000 > a bye
            03.000 sip b2 hangup Q.850;cause=16;text="NORMAL_CLEARING" or 480
            03.000 media delete all
            03.000 event Ended NORMAL_CLEARING by Caller
        "#]],
    );
}

#[test]
fn what_an_agent_says_is_said_again_unless_that_would_take_it_back() {
    let says = |does| Action::Agent { does, agent: None, otherwise: None };
    check(
        Begin::Offer,
        Plan::new([
            Action::Answer,
            says(AgentOrder::Login),
            says(AgentOrder::Toggle),
            Action::Park,
        ]),
        "0.05 queue silent
         0.1 a ack
         1 restart
         2 queue ok
         3 restart
         4 a bye",
        expect![[r#"
            00.000 event Created
            00.000 event Action answer
            00.000 media offer A offer
            00.000 sip a 200 relay
            00.100 > a ack
            00.100 event Answered
            00.100 event Action agent
            00.100 queue agent of leg A Login
            01.000 > restart
            01.000 media delete B
            01.000 queue agent of leg A Login
            02.000 > queue ok
            02.000 event Action agent
            02.000 queue agent of leg A Toggle
            03.000 > restart
            03.000 media delete B
            03.000 event Action park
            04.000 > a bye
            04.000 media delete all
            04.000 event Ended NORMAL_CLEARING by Caller
        "#]],
    );
}
