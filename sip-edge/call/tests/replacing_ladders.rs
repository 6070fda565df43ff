//! Ladders of legs that take the place of others: transfers, pickups, bridges.

mod script;

use call::{Action, Plan};
use expect_test::expect;
use script::{Begin, check, queue_plan};

fn dial() -> Plan {
    Plan::new([Action::Dial { target: "user/agent".into(), ring: script::RING, otherwise: None }])
}

/// Legs A and B1 talk.
const TALK: &str = "1 b1 180\n 2 b1 200 sdp\n 2 a ack\n";

fn talking(script: &str) -> String {
    let log = script::play(Begin::Offer, dial(), &format!("{TALK}{script}"));
    log.split_once("event Connected\n").expect("they talk").1.to_owned()
}

#[test]
fn agent_transfers_blindly_and_is_hung_up_on_when_the_target_has_answered() {
    expect![[r#"
        03.000 > b1 refer sip:carol@h
        03.000 sip b1 202 REFER
        03.000 media offer B ours
        03.000 sip b2 INVITE sip:carol@h with headers
        04.000 > b2 180
        04.000 sip b1 NOTIFY 180
        05.000 > b2 200 sdp
        05.000 media answer B
        05.000 sip b1 NOTIFY 200
        05.000 sip b1 hangup Q.850;cause=16;text="BLIND_TRANSFER" or 480
        05.000 event Replaced
        06.000 > b1 hungup
        06.000 event Released B 200
        09.000 > a bye
        09.000 sip b2 hangup Q.850;cause=16;text="NORMAL_CLEARING" or 480
        09.000 media delete all
        09.000 event Ended NORMAL_CLEARING by Caller
    "#]]
    .assert_eq(&talking(
        "3 b1 refer sip:carol@h\n 4 b2 180\n 5 b2 200 sdp\n 6 b1 hungup\n 9 a bye",
    ));
}

#[test]
fn caller_transfers_the_agent_and_the_call_goes_on_with_the_target_as_leg_a() {
    expect![[r#"
        03.000 > a refer sip:carol@h
        03.000 sip a 202 REFER
        03.000 media offer A ours
        03.000 sip b2 INVITE sip:carol@h with headers
        05.000 > b2 200 sdp
        05.000 media answer A
        05.000 sip a NOTIFY 200
        05.000 sip a hangup Q.850;cause=16;text="BLIND_TRANSFER" or 480
        05.000 event Replaced
        06.000 > a hungup
        06.000 event Released A 200
        09.000 > b2 bye
        09.000 sip b1 hangup Q.850;cause=16;text="NORMAL_CLEARING" or 480
        09.000 media delete all
        09.000 event Ended NORMAL_CLEARING by Caller
        10.000 > b1 hungup unanswered
        10.000 event Released B no response
    "#]]
    .assert_eq(&talking(
        "3 a refer sip:carol@h\n 5 b2 200 sdp\n 6 a hungup\n 9 b2 bye\n 10 b1 hungup unanswered",
    ));
}

#[test]
fn who_hangs_up_after_its_refer_leaves_the_other_waiting_for_the_target() {
    expect![[r#"
        03.000 > b1 refer sip:carol@h
        03.000 sip b1 202 REFER
        03.000 media offer B ours
        03.000 sip b2 INVITE sip:carol@h with headers
        03.500 > b1 bye
        05.000 > b2 200 sdp
        05.000 media answer B
        05.000 event Replaced
        09.000 > b2 bye
        09.000 sip a hangup Q.850;cause=16;text="NORMAL_CLEARING" or 480
        09.000 media delete all
        09.000 event Ended NORMAL_CLEARING by Callee
    "#]]
    .assert_eq(&talking("3 b1 refer sip:carol@h\n 3.5 b1 bye\n 5 b2 200 sdp\n 9 b2 bye"));
    expect![[r#"
        03.000 > b1 refer sip:carol@h
        03.000 sip b1 202 REFER
        03.000 media offer B ours
        03.000 sip b2 INVITE sip:carol@h with headers
        03.500 > b1 bye
        05.000 > b2 486
        05.000 sip a hangup Q.850;cause=17;text="USER_BUSY" or 486
        05.000 media delete all
        05.000 event Ended USER_BUSY by Edge
    "#]]
    .assert_eq(&talking("3 b1 refer sip:carol@h\n 3.5 b1 bye\n 5 b2 486"));
}

#[test]
fn a_transfer_that_fails_leaves_both_talking() {
    expect![[r#"
        03.000 > b1 refer sip:carol@h
        03.000 sip b1 202 REFER
        03.000 media offer B ours
        03.000 sip b2 INVITE sip:carol@h with headers
        05.000 > b2 486
        05.000 sip b1 NOTIFY 486
        09.000 > b1 bye
        09.000 sip a hangup Q.850;cause=16;text="NORMAL_CLEARING" or 480
        09.000 media delete all
        09.000 event Ended NORMAL_CLEARING by Callee
    "#]]
    .assert_eq(&talking("3 b1 refer sip:carol@h\n 5 b2 486\n 9 b1 bye"));
    expect![[r#"
        03.000 > b1 refer sip:carol@h
        03.000 sip b1 202 REFER
        03.000 media offer B ours
        03.000 sip b2 INVITE sip:carol@h with headers
        33.000 sip b1 NOTIFY 408
        33.000 sip b2 hangup Q.850;cause=19;text="NO_ANSWER" or 480
        40.000 > b1 bye
        40.000 sip a hangup Q.850;cause=16;text="NORMAL_CLEARING" or 480
        40.000 media delete all
        40.000 event Ended NORMAL_CLEARING by Callee
    "#]]
    .assert_eq(&talking("3 b1 refer sip:carol@h\n 40 b1 bye"));
}

#[test]
fn the_end_of_the_other_leg_ends_a_transfer() {
    expect![[r#"
        03.000 > b1 refer sip:carol@h
        03.000 sip b1 202 REFER
        03.000 media offer B ours
        03.000 sip b2 INVITE sip:carol@h with headers
        04.000 > b2 180
        04.000 sip b1 NOTIFY 180
        05.000 > a bye
        05.000 sip b1 NOTIFY 480
        05.000 sip b2 hangup Q.850;cause=16;text="NORMAL_CLEARING" or 480
        05.000 sip b1 hangup Q.850;cause=16;text="NORMAL_CLEARING" or 480
        05.000 media delete all
        05.000 event Ended NORMAL_CLEARING by Caller
        06.000 > b1 hungup
        06.000 event Released B 200
        06.000 > b2 hungup
    "#]]
    .assert_eq(&talking("3 b1 refer sip:carol@h\n 4 b2 180\n 5 a bye\n 6 b1 hungup\n 6 b2 hungup"));
}

#[test]
fn one_transfer_at_a_time_and_none_by_who_is_alone() {
    expect![[r#"
        03.000 > b1 refer sip:carol@h
        03.000 sip b1 202 REFER
        03.000 media offer B ours
        03.000 sip b2 INVITE sip:carol@h with headers
        03.000 > a refer sip:dave@h
        03.000 sip a 603 REFER
        04.000 > a bye
        04.000 sip b1 NOTIFY 480
        04.000 sip b2 hangup Q.850;cause=16;text="NORMAL_CLEARING" or 480
        04.000 sip b1 hangup Q.850;cause=16;text="NORMAL_CLEARING" or 480
        04.000 media delete all
        04.000 event Ended NORMAL_CLEARING by Caller
    "#]]
    .assert_eq(&talking("3 b1 refer sip:carol@h\n 3 a refer sip:dave@h\n 4 a bye"));
    check(
        Begin::Offer,
        queue_plan(),
        "1 a ack\n 2 a refer sip:carol@h\n 3 a bye",
        expect![[r#"
            00.000 event Created
            00.000 event Action enqueue
            00.000 queue enqueue by URI
            00.000 media offer A offer with moh/abc
            00.000 sip a 200 relay
            01.000 > a ack
            01.000 event Answered
            01.000 queue enqueue abc answered
            02.000 > a refer sip:carol@h
            02.000 sip a 603 REFER
            03.000 > a bye
            03.000 media delete all
            03.000 queue leave NORMAL_CLEARING
            03.000 event Ended NORMAL_CLEARING by Caller
        "#]],
    );
}

#[test]
fn a_leg_that_called_takes_the_place_of_one_that_waits_in_a_queue() {
    check(
        Begin::Offer,
        queue_plan(),
        "1 a ack\n 2 replace a sdp\n 3 b1 ack\n 4 a hungup\n 9 b1 bye",
        expect![[r#"
            00.000 event Created
            00.000 event Action enqueue
            00.000 queue enqueue by URI
            00.000 media offer A offer with moh/abc
            00.000 sip a 200 relay
            01.000 > a ack
            01.000 event Answered
            01.000 queue enqueue abc answered
            02.000 > replace a sdp
            02.000 as Ok(LegNumber(1))
            02.000 media offer A sdp
            02.000 sip b1 200 relay
            03.000 > b1 ack
            03.000 sip a hangup Q.850;cause=26;text="PICKED_OFF" or 480
            03.000 event Replaced
            04.000 > a hungup
            04.000 event Released A 200
            09.000 > b1 bye
            09.000 media delete all
            09.000 queue leave NORMAL_CLEARING
            09.000 event Ended NORMAL_CLEARING by Caller
        "#]],
    );
}

#[test]
fn a_pickup_without_offer_is_negotiated_by_its_ack() {
    expect![[r#"
        03.000 > replace b1
        03.000 as Ok(LegNumber(2))
        03.000 media offer B ours
        03.000 sip b2 200 relay
        04.000 > b2 ack sdp
        04.000 media answer B
        04.000 sip b1 hangup Q.850;cause=26;text="PICKED_OFF" or 480
        04.000 event Replaced
        09.000 > a bye
        09.000 sip b2 hangup Q.850;cause=16;text="NORMAL_CLEARING" or 480
        09.000 media delete all
        09.000 event Ended NORMAL_CLEARING by Caller
    "#]]
    .assert_eq(&talking("3 replace b1\n 4 b2 ack sdp\n 9 a bye"));
}

#[test]
fn a_pickup_that_is_cancelled_or_has_no_codec_changes_nothing() {
    expect![[r#"
        03.000 > replace b1 sdp
        03.000 as Ok(LegNumber(2))
        03.000 media offer B sdp
        04.000 > media nocodec
        04.000 sip b2 hangup Q.850;cause=88;text="INCOMPATIBLE_DESTINATION" or 488
        09.000 > a bye
        09.000 sip b1 hangup Q.850;cause=16;text="NORMAL_CLEARING" or 480
        09.000 media delete all
        09.000 event Ended NORMAL_CLEARING by Caller
    "#]]
    .assert_eq(&talking("3 media silent\n 3 replace b1 sdp\n 4 media nocodec\n 9 a bye"));
    expect![[r#"
        03.000 > replace b1 sdp
        03.000 as Ok(LegNumber(2))
        03.000 media offer B sdp
        03.000 sip b2 200 relay
        04.000 > b2 bye
        09.000 > a bye
        09.000 sip b1 hangup Q.850;cause=16;text="NORMAL_CLEARING" or 480
        09.000 media delete all
        09.000 event Ended NORMAL_CLEARING by Caller
    "#]]
    .assert_eq(&talking("3 replace b1 sdp\n 4 b2 bye\n 9 a bye"));
}

#[test]
fn a_leg_of_another_call_is_taken_into_a_place_once_it_has_answered() {
    expect![[r#"
        03.000 > borrow 7 b1
        03.000 as Ok(LegNumber(2))
        03.000 media offer B ours
        03.000 sip b2 re-INVITE
        04.000 > b2 200 sdp
        04.000 media answer B
        04.000 sip b2 take
        04.000 sip b1 hangup Q.850;cause=16;text="BOWOUT" or 480
        04.000 event Replaced
        04.000 answer 7 bridged sip:caller@h and sip:other@h
        09.000 > b2 bye
        09.000 sip a hangup Q.850;cause=16;text="NORMAL_CLEARING" or 480
        09.000 media delete all
        09.000 event Ended NORMAL_CLEARING by Callee
    "#]]
    .assert_eq(&talking("3 borrow 7 b1\n 4 b2 200 sdp\n 9 b2 bye"));
    expect![[r#"
        03.000 > borrow 7 b1
        03.000 as Ok(LegNumber(2))
        03.000 media offer B ours
        03.000 sip b2 re-INVITE
        04.000 > b2 488
        04.000 answer 7 refused: the target did not answer: INCOMPATIBLE_DESTINATION (SIP status 488)
        09.000 > b1 bye
        09.000 sip a hangup Q.850;cause=16;text="NORMAL_CLEARING" or 480
        09.000 media delete all
        09.000 event Ended NORMAL_CLEARING by Callee
    "#]].assert_eq(&talking("3 borrow 7 b1\n 4 b2 488\n 9 b1 bye"));
}

#[test]
fn a_leg_of_another_call_is_connected_with_a_caller_who_waits() {
    check(
        Begin::Offer,
        queue_plan(),
        "1 a ack\n 2 borrow 7\n 3 b1 200 sdp\n 9 a bye",
        expect![[r#"
            00.000 event Created
            00.000 event Action enqueue
            00.000 queue enqueue by URI
            00.000 media offer A offer with moh/abc
            00.000 sip a 200 relay
            01.000 > a ack
            01.000 event Answered
            01.000 queue enqueue abc answered
            02.000 > borrow 7
            02.000 as Ok(LegNumber(1))
            02.000 media offer B ours
            02.000 sip b1 re-INVITE
            03.000 > b1 200 sdp
            03.000 media answer B
            03.000 media connect
            03.000 sip b1 take
            03.000 queue leave PICKED_OFF
            03.000 answer 7 bridged sip:caller@h and sip:other@h
            03.000 event Connected
            09.000 > a bye
            09.000 sip b1 hangup Q.850;cause=16;text="NORMAL_CLEARING" or 480
            09.000 media delete all
            09.000 event Ended NORMAL_CLEARING by Caller
        "#]],
    );
    check(
        Begin::Offer,
        queue_plan(),
        "1 a ack\n 2 borrow 7\n 3 b1 488\n 9 a bye",
        expect![[r#"
            00.000 event Created
            00.000 event Action enqueue
            00.000 queue enqueue by URI
            00.000 media offer A offer with moh/abc
            00.000 sip a 200 relay
            01.000 > a ack
            01.000 event Answered
            01.000 queue enqueue abc answered
            02.000 > borrow 7
            02.000 as Ok(LegNumber(1))
            02.000 media offer B ours
            02.000 sip b1 re-INVITE
            03.000 > b1 488
            03.000 media delete B
            03.000 event RingFailed INCOMPATIBLE_DESTINATION
            03.000 answer 7 refused: the target did not answer: INCOMPATIBLE_DESTINATION (SIP status 488)
            09.000 > a bye
            09.000 media delete all
            09.000 queue leave NORMAL_CLEARING
            09.000 event Ended NORMAL_CLEARING by Caller
        "#]],
    );
}

#[test]
fn a_call_whose_leg_is_taken_ends_without_touching_it() {
    expect![[r#"
        03.000 > taken b1
        03.000 sip a hangup Q.850;cause=16;text="ATTENDED_TRANSFER" or 480
        03.000 media delete all
        03.000 event Ended ATTENDED_TRANSFER by Edge
        04.000 > a hungup
        04.000 event Released A 200
    "#]]
    .assert_eq(&talking("3 taken b1\n 4 a hungup"));
    expect![[r#"
        03.000 > taken a
        03.000 sip b1 hangup Q.850;cause=16;text="ATTENDED_TRANSFER" or 480
        03.000 media delete all
        03.000 event Ended ATTENDED_TRANSFER by Edge
        04.000 > b1 hungup
        04.000 event Released B 200
    "#]]
    .assert_eq(&talking("3 taken a\n 4 b1 hungup"));
}
