//! What tasks do to a call: hangup of one leg, transfer, prompts over what the call does; each
//! occurrence once.

mod script;

use call::{Action, Plan};
use expect_test::expect;
use script::{Begin, RING, check, queue_plan};

fn dial(otherwise: Option<Plan>) -> Action {
    Action::Dial { target: "user/1".into(), ring: RING, otherwise }
}

fn dial_then_play() -> Plan {
    Plan::new([Action::Answer, dial(None), Action::Play { file: "f".into() }])
}

#[test]
fn a_hangup_of_leg_b_lets_leg_a_go_on_with_its_plan() {
    check(
        Begin::Offer,
        dial_then_play(),
        "1 a ack
        2 b1 200 sdp
        3 ask 1 hangup B t1
        3.1 b1 hungup
        3.2 ask 2 hangup B t1
        9 a bye",
        expect![[r#"
            00.000 event Created
            00.000 event Action answer
            00.000 media offer A offer
            00.000 sip a 200 relay
            01.000 > a ack
            01.000 event Answered
            01.000 event Action dial
            01.000 media offer B ours
            01.000 sip b1 INVITE user/1
            02.000 > b1 200 sdp
            02.000 media answer B
            02.000 media connect
            02.000 event Connected
            03.000 > ask 1 hangup B t1
            03.000 sip b1 hangup Q.850;cause=102;text="ALLOTTED_TIMEOUT" or 480
            03.000 media delete B
            03.000 event Parted
            03.000 event Action play
            03.000 media play A f
            03.000 answer 1 hung up
            03.100 > b1 hungup
            03.100 event Released B 200
            03.200 > ask 2 hangup B t1
            03.200 answer 2 hung up
            08.000 sip a hangup Q.850;cause=16;text="NORMAL_CLEARING" or 480
            08.000 media delete all
            08.000 event Ended NORMAL_CLEARING by Plan
            09.000 > a bye
        "#]],
    );
}

#[test]
fn a_hangup_of_leg_b_at_the_end_of_the_plan_ends_the_call() {
    check(
        Begin::Offer,
        Plan::new([dial(None)]),
        "1 b1 200 sdp
        2 a ack
        3 ask 1 hangup B t1
        4 ask 2 hangup B t1",
        expect![[r#"
            00.000 event Created
            00.000 event Action dial
            00.000 media offer A offer
            00.000 media offer B ours
            00.000 sip b1 INVITE user/1
            01.000 > b1 200 sdp
            01.000 media answer B
            01.000 sip a 200 relay
            02.000 > a ack
            02.000 event Answered
            02.000 media connect
            02.000 event Connected
            03.000 > ask 1 hangup B t1
            03.000 sip b1 hangup Q.850;cause=102;text="ALLOTTED_TIMEOUT" or 480
            03.000 media delete B
            03.000 event Parted
            03.000 sip a hangup Q.850;cause=16;text="NORMAL_CLEARING" or 480
            03.000 media delete all
            03.000 event Ended NORMAL_CLEARING by Plan
            03.000 answer 1 hung up
            04.000 > ask 2 hangup B t1
            04.000 answer 2 hung up
        "#]],
    );
}

#[test]
fn a_hangup_of_a_leg_b_that_rings_is_a_dial_without_answer() {
    check(
        Begin::Offer,
        Plan::new([Action::Answer, dial(Some(Plan::new([Action::Park])))]),
        "1 a ack
        2 b1 180
        3 ask 1 hangup B t1
        4 ask 2 hangup B t2
        5 ask 3 hangup B",
        expect![[r#"
            00.000 event Created
            00.000 event Action answer
            00.000 media offer A offer
            00.000 sip a 200 relay
            01.000 > a ack
            01.000 event Answered
            01.000 event Action dial
            01.000 media offer B ours
            01.000 sip b1 INVITE user/1
            02.000 > b1 180
            02.000 event Ringing
            03.000 > ask 1 hangup B t1
            03.000 sip b1 hangup Q.850;cause=102;text="ALLOTTED_TIMEOUT" or 480
            03.000 media delete B
            03.000 event RingFailed ALLOTTED_TIMEOUT
            03.000 event Action park
            03.000 answer 1 hung up
            04.000 > ask 2 hangup B t2
            04.000 answer 2 refused: there is no leg B
            05.000 > ask 3 hangup B
            05.000 answer 3 refused: there is no leg B
        "#]],
    );
}

#[test]
fn a_task_whose_hangup_of_a_ringing_leg_b_ends_the_call_has_ended_it() {
    check(
        Begin::Offer,
        Plan::new([Action::Answer, dial(None)]),
        "1 a ack
        2 b1 180
        3 ask 1 hangup B t1",
        expect![[r#"
            00.000 event Created
            00.000 event Action answer
            00.000 media offer A offer
            00.000 sip a 200 relay
            01.000 > a ack
            01.000 event Answered
            01.000 event Action dial
            01.000 media offer B ours
            01.000 sip b1 INVITE user/1
            02.000 > b1 180
            02.000 event Ringing
            03.000 > ask 1 hangup B t1
            03.000 sip b1 hangup Q.850;cause=102;text="ALLOTTED_TIMEOUT" or 480
            03.000 media delete B
            03.000 event RingFailed ALLOTTED_TIMEOUT
            03.000 sip a hangup Q.850;cause=102;text="ALLOTTED_TIMEOUT" or 480
            03.000 media delete all
            03.000 event Ended ALLOTTED_TIMEOUT by Task
            03.000 answer 1 hung up by t1
        "#]],
    );
}

#[test]
fn a_transfer_of_a_talking_call_ends_leg_b_and_dials_once() {
    check(
        Begin::Offer,
        Plan::new([dial(None), Action::Play { file: "f".into() }]),
        "1 b1 200 sdp
        2 a ack
        3 ask 1 transfer sip:x@h t1
        3.1 ask 2 transfer sip:x@h t1
        3.2 b1 hungup
        4 b2 200 sdp
        5 ask 3 transfer park t2
        6 a bye
        7 ask 4 transfer park t2
        8 ask 5 transfer park t3
        9 ask 6 transfer park",
        expect![[r#"
            00.000 event Created
            00.000 event Action dial
            00.000 media offer A offer
            00.000 media offer B ours
            00.000 sip b1 INVITE user/1
            01.000 > b1 200 sdp
            01.000 media answer B
            01.000 sip a 200 relay
            02.000 > a ack
            02.000 event Answered
            02.000 media connect
            02.000 event Connected
            03.000 > ask 1 transfer sip:x@h t1
            03.000 sip b1 hangup Q.850;cause=16;text="BLIND_TRANSFER" or 480
            03.000 media delete B
            03.000 event Parted
            03.000 media stop A and leave
            03.000 event Action dial
            03.000 media offer B ours
            03.000 answer 1 transferred, runs "dial"
            03.000 sip b2 INVITE sip:x@h
            03.100 > ask 2 transfer sip:x@h t1
            03.100 answer 2 transferred, runs "dial"
            03.200 > b1 hungup
            03.200 event Released B 200
            04.000 > b2 200 sdp
            04.000 media answer B
            04.000 media connect
            04.000 event Connected
            05.000 > ask 3 transfer park t2
            05.000 sip b2 hangup Q.850;cause=16;text="BLIND_TRANSFER" or 480
            05.000 media delete B
            05.000 event Parted
            05.000 media stop A and leave
            05.000 event Action park
            05.000 answer 3 transferred, runs "park"
            06.000 > a bye
            06.000 media delete all
            06.000 event Ended NORMAL_CLEARING by Caller
            07.000 > ask 4 transfer park t2
            07.000 answer 4 transferred, runs ""
            08.000 > ask 5 transfer park t3
            08.000 answer 5 too late, Ended
            09.000 > ask 6 transfer park
            09.000 answer 6 refused: the call has ended with NORMAL_CLEARING
        "#]],
    );
}

#[test]
fn a_caller_who_is_transferred_leaves_the_queue_first() {
    check(
        Begin::Offer,
        queue_plan(),
        "1 a ack
        2 ask 9 ring q1
        3 ask 1 transfer sip:x@h t1
        4 b2 486",
        expect![[r#"
            00.000 event Created
            00.000 event Action enqueue
            00.000 queue enqueue by URI
            00.000 media offer A offer with moh/abc
            00.000 sip a 200 relay
            01.000 > a ack
            01.000 event Answered
            01.000 queue enqueue abc answered
            02.000 > ask 9 ring q1
            02.000 media offer B ours
            02.000 sip b1 INVITE user/agent
            03.000 > ask 1 transfer sip:x@h t1
            03.000 queue leave PICKED_OFF
            03.000 sip b1 hangup Q.850;cause=16;text="BLIND_TRANSFER" or 480
            03.000 media delete B
            03.000 event RingFailed BLIND_TRANSFER
            03.000 answer 9 Stopped
            03.000 media stop A and leave
            03.000 event Action dial
            03.000 media offer B ours
            03.000 answer 1 transferred, runs "dial"
            03.000 sip b2 INVITE sip:x@h
            04.000 > b2 486
            04.000 media delete B
            04.000 event RingFailed USER_BUSY
            04.000 sip a hangup Q.850;cause=17;text="USER_BUSY" or 486
            04.000 media delete all
            04.000 event Ended USER_BUSY by Callee
        "#]],
    );
}

#[test]
fn a_call_that_is_not_answered_is_not_transferred() {
    check(
        Begin::Offer,
        Plan::new([Action::Dial { target: "user/1".into(), ring: RING, otherwise: None }]),
        "1 ask 1 transfer park t1
        2 a cancel",
        expect![[r#"
            00.000 event Created
            00.000 event Action dial
            00.000 media offer A offer
            00.000 media offer B ours
            00.000 sip b1 INVITE user/1
            01.000 > ask 1 transfer park t1
            01.000 answer 1 refused: leg A is not answered yet
            02.000 > a cancel
            02.000 sip b1 hangup Q.850;cause=16;text="ORIGINATOR_CANCEL" or 487
            02.000 media delete all
            02.000 event Ended ORIGINATOR_CANCEL by Caller
        "#]],
    );
}

#[test]
fn a_warning_is_played_over_the_talk_to_either_leg_or_both_once() {
    check(
        Begin::Offer,
        Plan::new([dial(None)]),
        "1 b1 200 sdp
        2 a ack
        3 ask 1 play A t1
        4 ask 2 play A t1
        5 ask 3 play Both t2 1 wait
        6 finished p5
        6.5 finished p6
        7 ask 4 play Both t2 1
        8 ask 5 play B t2 2
        9 a bye
        10 ask 6 play A t2 1
        11 ask 7 play A t3",
        expect![[r#"
            00.000 event Created
            00.000 event Action dial
            00.000 media offer A offer
            00.000 media offer B ours
            00.000 sip b1 INVITE user/1
            01.000 > b1 200 sdp
            01.000 media answer B
            01.000 sip a 200 relay
            02.000 > a ack
            02.000 event Answered
            02.000 media connect
            02.000 event Connected
            03.000 > ask 1 play A t1
            03.000 media play A f.wav
            03.000 answer 1 Playing { duration: 3s }
            04.000 > ask 2 play A t1
            04.000 answer 2 Playing { duration: 0ns }
            05.000 > ask 3 play Both t2 1 wait
            05.000 media play A f.wav
            05.000 media play B f.wav
            06.000 > finished p5
            06.500 > finished p6
            06.500 answer 3 Playing { duration: 3s }
            07.000 > ask 4 play Both t2 1
            07.000 answer 4 Playing { duration: 0ns }
            08.000 > ask 5 play B t2 2
            08.000 media play B f.wav
            08.000 answer 5 Playing { duration: 3s }
            09.000 > a bye
            09.000 sip b1 hangup Q.850;cause=16;text="NORMAL_CLEARING" or 480
            09.000 media delete all
            09.000 event Ended NORMAL_CLEARING by Caller
            10.000 > ask 6 play A t2 1
            10.000 answer 6 Playing { duration: 0ns }
            11.000 > ask 7 play A t3
            11.000 answer 7 too late, Ended
        "#]],
    );
}

#[test]
fn a_warning_that_waits_ends_by_its_time_if_nobody_tells() {
    check(
        Begin::Offer,
        Plan::new([dial(None)]),
        "1 b1 200 sdp
        2 a ack
        3 ask 1 play Both t1 1 wait",
        expect![[r#"
            00.000 event Created
            00.000 event Action dial
            00.000 media offer A offer
            00.000 media offer B ours
            00.000 sip b1 INVITE user/1
            01.000 > b1 200 sdp
            01.000 media answer B
            01.000 sip a 200 relay
            02.000 > a ack
            02.000 event Answered
            02.000 media connect
            02.000 event Connected
            03.000 > ask 1 play Both t1 1 wait
            03.000 media play A f.wav
            03.000 media play B f.wav
            08.000 answer 1 Playing { duration: 3s }
        "#]],
    );
}

#[test]
fn a_warning_that_cannot_be_played_is_not_done() {
    check(
        Begin::Offer,
        Plan::new([dial(None)]),
        "1 b1 200 sdp
        2 a ack
        3 media silent
        3 ask 1 play Both t1
        4 media notfound
        4 media ok
        5 ask 2 play B t2
        6 media notfound
        7 ask 3 play B t2
        7.1 ask 4 play B t2
        8 media ok",
        expect![[r#"
            00.000 event Created
            00.000 event Action dial
            00.000 media offer A offer
            00.000 media offer B ours
            00.000 sip b1 INVITE user/1
            01.000 > b1 200 sdp
            01.000 media answer B
            01.000 sip a 200 relay
            02.000 > a ack
            02.000 event Answered
            02.000 media connect
            02.000 event Connected
            03.000 > ask 1 play Both t1
            03.000 media play A f.wav
            03.000 media play B f.wav
            04.000 > media notfound
            04.000 > media ok
            04.000 answer 1 Playing { duration: 3s }
            05.000 > ask 2 play B t2
            05.000 media play B f.wav
            06.000 > media notfound
            06.000 answer 2 refused: media-relay failed: notfound
            07.000 > ask 3 play B t2
            07.000 media play B f.wav
            07.100 > ask 4 play B t2
            08.000 > media ok
            08.000 answer 3 Playing { duration: 3s }
            08.000 answer 4 Playing { duration: 3s }
        "#]],
    );
}

#[test]
fn a_caller_who_waits_hears_a_warning_over_the_music() {
    check(
        Begin::Offer,
        queue_plan(),
        "1 a ack
        2 ask 1 play Both t1
        3 ask 2 play B t2",
        expect![[r#"
            00.000 event Created
            00.000 event Action enqueue
            00.000 queue enqueue by URI
            00.000 media offer A offer with moh/abc
            00.000 sip a 200 relay
            01.000 > a ack
            01.000 event Answered
            01.000 queue enqueue abc answered
            02.000 > ask 1 play Both t1
            02.000 media play A f.wav
            02.000 answer 1 Playing { duration: 3s }
            03.000 > ask 2 play B t2
            03.000 answer 2 refused: there is no leg B
        "#]],
    );
}

#[test]
fn an_end_of_a_warning_that_comes_before_its_reply_is_no_other() {
    check(
        Begin::Offer,
        Plan::new([dial(None)]),
        "1 b1 200 sdp
        2 a ack
        3 media silent
        3 ask 1 play A t1 1 wait
        3.1 finished p4
        4 media ok",
        expect![[r#"
            00.000 event Created
            00.000 event Action dial
            00.000 media offer A offer
            00.000 media offer B ours
            00.000 sip b1 INVITE user/1
            01.000 > b1 200 sdp
            01.000 media answer B
            01.000 sip a 200 relay
            02.000 > a ack
            02.000 event Answered
            02.000 media connect
            02.000 event Connected
            03.000 > ask 1 play A t1 1 wait
            03.000 media play A f.wav
            03.100 > finished p4
            04.000 > media ok
            04.000 answer 1 Playing { duration: 3s }
        "#]],
    );
}

#[test]
fn a_prompt_is_not_disturbed_by_a_warning() {
    check(
        Begin::Offer,
        Plan::new([Action::Answer, Action::Play { file: "f".into() }]),
        "1 a ack
        2 ask 1 play A t1",
        expect![[r#"
            00.000 event Created
            00.000 event Action answer
            00.000 media offer A offer
            00.000 sip a 200 relay
            01.000 > a ack
            01.000 event Answered
            01.000 event Action play
            01.000 media play A f
            02.000 > ask 1 play A t1
            02.000 answer 1 refused: the call runs `play`, which a prompt would disturb
            06.000 sip a hangup Q.850;cause=16;text="NORMAL_CLEARING" or 480
            06.000 media delete all
            06.000 event Ended NORMAL_CLEARING by Plan
        "#]],
    );
}

#[test]
fn a_warning_that_a_transfer_stops_is_not_waited_for() {
    check(
        Begin::Offer,
        Plan::new([Action::Answer, Action::Park]),
        "1 a ack
        2 ask 1 play A t1 1 wait
        3 ask 2 transfer park t2
        4 media silent
        5 ask 3 play A t3
        6 ask 4 transfer park t4",
        expect![[r#"
            00.000 event Created
            00.000 event Action answer
            00.000 media offer A offer
            00.000 sip a 200 relay
            01.000 > a ack
            01.000 event Answered
            01.000 event Action park
            02.000 > ask 1 play A t1 1 wait
            02.000 media play A f.wav
            03.000 > ask 2 transfer park t2
            03.000 answer 1 Playing { duration: 3s }
            03.000 media stop A and leave
            03.000 event Action park
            03.000 answer 2 transferred, runs "park"
            05.000 > ask 3 play A t3
            05.000 media play A f.wav
            06.000 > ask 4 transfer park t4
            06.000 answer 3 refused: something else was asked of the call meanwhile
            06.000 media stop A and leave
            06.000 event Action park
            06.000 answer 4 transferred, runs "park"
        "#]],
    );
}
