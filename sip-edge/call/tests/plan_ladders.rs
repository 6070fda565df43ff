//! Job B: a limit that can be taken back, digits, conferences, and plans step by step.

mod script;

use call::{Action, Cause, Plan};
use expect_test::expect;
use script::{Begin, check, collect, limit_plan};
use std::sync::Arc;

#[test]
fn digit_1_takes_the_limit_back_and_joins_the_conference() {
    check(
        Begin::Originate,
        limit_plan(),
        "1 a 180\n 2 a 200 sdp\n 4 digit a 1\n 5 digit a 2\n 9 a bye",
        expect![[r#"
            00.000 event Created
            00.000 media offer A ours
            00.000 sip a INVITE user/1000
            01.000 > a 180
            01.000 event Ringing
            02.000 > a 200 sdp
            02.000 media answer A
            02.000 event Answered
            02.000 event Action schedule
            02.000 scheduler schedule limit 20000 ALLOTTED_TIMEOUT
            02.000 event Action collect
            02.000 answer 0 originated, tasks [("limit", "t2")]
            02.000 media play A prompt.wav
            04.000 > digit a 1
            04.000 event Digit 1
            04.000 media stop A
            04.000 event Action cancel
            04.000 scheduler cancel t2
            04.000 event Action conference
            04.000 media join A test1
            04.000 event Action conference
            05.000 > digit a 2
            05.000 event Digit 2
            09.000 > a bye
            09.000 media delete all
            09.000 event Ended NORMAL_CLEARING by Callee
        "#]],
    );
}

#[test]
fn without_a_digit_the_task_hangs_up() {
    check(
        Begin::Originate,
        limit_plan(),
        "2 a 200 sdp\n 5 finished p3\n 22 ask 1 hangup ALLOTTED_TIMEOUT task\n 22.1 a hungup",
        expect![[r#"
            00.000 event Created
            00.000 media offer A ours
            00.000 sip a INVITE user/1000
            02.000 > a 200 sdp
            02.000 media answer A
            02.000 event Answered
            02.000 event Action schedule
            02.000 scheduler schedule limit 20000 ALLOTTED_TIMEOUT
            02.000 event Action collect
            02.000 answer 0 originated, tasks [("limit", "t2")]
            02.000 media play A prompt.wav
            05.000 > finished p3
            09.000 event Action park
            22.000 > ask 1 hangup ALLOTTED_TIMEOUT task
            22.000 sip a hangup Q.850;cause=102;text="ALLOTTED_TIMEOUT" or 480
            22.000 media delete all
            22.000 event Ended ALLOTTED_TIMEOUT by Task
            22.000 answer 1 hung up by task
            22.100 > a hungup
            22.100 event Released A 200
        "#]],
    );
}

#[test]
fn a_digit_that_loses_the_race_leaves_the_call_to_its_task() {
    check(
        Begin::Originate,
        limit_plan(),
        "2 a 200 sdp\n 2.5 scheduler silent\n 4 digit a 1\n 4.1 scheduler firing\n 4.2 ask 1 hangup ALLOTTED_TIMEOUT task",
        expect![[r#"
            00.000 event Created
            00.000 media offer A ours
            00.000 sip a INVITE user/1000
            02.000 > a 200 sdp
            02.000 media answer A
            02.000 event Answered
            02.000 event Action schedule
            02.000 scheduler schedule limit 20000 ALLOTTED_TIMEOUT
            02.000 event Action collect
            02.000 answer 0 originated, tasks [("limit", "t2")]
            02.000 media play A prompt.wav
            04.000 > digit a 1
            04.000 event Digit 1
            04.000 media stop A
            04.000 event Action cancel
            04.000 scheduler cancel t2
            04.100 > scheduler firing
            04.100 event Action park
            04.200 > ask 1 hangup ALLOTTED_TIMEOUT task
            04.200 sip a hangup Q.850;cause=102;text="ALLOTTED_TIMEOUT" or 480
            04.200 media delete all
            04.200 event Ended ALLOTTED_TIMEOUT by Task
            04.200 answer 1 hung up by task
        "#]],
    );
}

#[test]
fn a_cancel_without_an_answer_is_asked_again_until_it_is_known() {
    check(
        Begin::Originate,
        limit_plan(),
        "2 a 200 sdp\n 2.5 scheduler silent\n 4 digit a 1\n 4.1 scheduler away\n 5.2 scheduler away\n 6.3 scheduler ok\n 10 ask 1 hangup",
        expect![[r#"
            00.000 event Created
            00.000 media offer A ours
            00.000 sip a INVITE user/1000
            02.000 > a 200 sdp
            02.000 media answer A
            02.000 event Answered
            02.000 event Action schedule
            02.000 scheduler schedule limit 20000 ALLOTTED_TIMEOUT
            02.000 event Action collect
            02.000 answer 0 originated, tasks [("limit", "t2")]
            02.000 media play A prompt.wav
            04.000 > digit a 1
            04.000 event Digit 1
            04.000 media stop A
            04.000 event Action cancel
            04.000 scheduler cancel t2
            04.100 > scheduler away
            05.100 scheduler cancel t2
            05.200 > scheduler away
            06.200 scheduler cancel t2
            06.300 > scheduler ok
            06.300 event Action conference
            06.300 media join A test1
            06.300 event Action conference
            10.000 > ask 1 hangup
            10.000 sip a hangup Q.850;cause=16;text="NORMAL_CLEARING" or 480
            10.000 media delete all
            10.000 event Ended NORMAL_CLEARING by Api
            10.000 answer 1 hung up
        "#]],
    );
}

#[test]
fn a_task_that_hangs_up_while_the_target_rings_cancels_the_invite() {
    check(
        Begin::Originate,
        limit_plan(),
        "1 a 180\n 2 ask 1 hangup ALLOTTED_TIMEOUT task\n 2.1 ask 2 originate",
        expect![[r#"
            00.000 event Created
            00.000 media offer A ours
            00.000 sip a INVITE user/1000
            01.000 > a 180
            01.000 event Ringing
            02.000 > ask 1 hangup ALLOTTED_TIMEOUT task
            02.000 sip a hangup Q.850;cause=102;text="ALLOTTED_TIMEOUT" or 480
            02.000 media delete all
            02.000 event Ended ALLOTTED_TIMEOUT by Task
            02.000 answer 0 refused: the target did not answer: ALLOTTED_TIMEOUT
            02.000 answer 1 hung up by task
            02.100 > ask 2 originate
            02.100 answer 2 refused: the target did not answer: ALLOTTED_TIMEOUT
        "#]],
    );
}

#[test]
fn a_target_that_does_not_answer_is_told_to_all_who_asked() {
    check(
        Begin::Originate,
        limit_plan(),
        "1 a 180\n 2 ask 1 originate",
        expect![[r#"
        00.000 event Created
        00.000 media offer A ours
        00.000 sip a INVITE user/1000
        01.000 > a 180
        01.000 event Ringing
        02.000 > ask 1 originate
        30.000 sip a hangup Q.850;cause=19;text="NO_ANSWER" or 480
        30.000 media delete all
        30.000 event Ended NO_ANSWER by Edge
        30.000 answer 0 refused: the target did not answer: NO_ANSWER
        30.000 answer 1 refused: the target did not answer: NO_ANSWER
    "#]],
    );
    check(
        Begin::Originate,
        limit_plan(),
        "1 a 486",
        expect![[r#"
        00.000 event Created
        00.000 media offer A ours
        00.000 sip a INVITE user/1000
        01.000 > a 486
        01.000 media delete all
        01.000 event Ended USER_BUSY by Callee
        01.000 answer 0 refused: the target did not answer: USER_BUSY (SIP status 486)
    "#]],
    );
    check(
        Begin::Originate,
        limit_plan(),
        "1 a unresolved",
        expect![[r#"
        00.000 event Created
        00.000 media offer A ours
        00.000 sip a INVITE user/1000
        01.000 > a unresolved
        01.000 media delete all
        01.000 event Ended USER_NOT_REGISTERED by Edge
        01.000 answer 0 refused: the target did not answer: USER_NOT_REGISTERED
    "#]],
    );
    check(
        Begin::Originate,
        limit_plan(),
        "0 media silent\n 1 media away",
        expect![[r#"
        00.000 event Created
        00.000 media offer A ours
        01.000 > media away
        01.000 answer 0 refused: media-relay failed: away
        01.000 media delete all
        01.000 event Ended NORMAL_TEMPORARY_FAILURE by Edge
    "#]],
    );
}

#[test]
fn a_limit_that_cannot_be_armed_ends_the_call() {
    check(
        Begin::Originate,
        limit_plan(),
        "1 scheduler silent\n 2 a 200 sdp\n 2.1 scheduler away",
        expect![[r#"
            00.000 event Created
            00.000 media offer A ours
            00.000 sip a INVITE user/1000
            02.000 > a 200 sdp
            02.000 media answer A
            02.000 event Answered
            02.000 event Action schedule
            02.000 scheduler schedule limit 20000 ALLOTTED_TIMEOUT
            02.100 > scheduler away
            02.100 answer 0 refused: scheduler failed: away
            02.100 sip a hangup Q.850;cause=41;text="NORMAL_TEMPORARY_FAILURE" or 503
            02.100 media delete all
            02.100 scheduler cancel all
            02.100 event Ended NORMAL_TEMPORARY_FAILURE by Edge
        "#]],
    );
}

#[test]
fn a_task_that_is_on_its_way_when_the_call_ends_is_cancelled() {
    check(
        Begin::Originate,
        limit_plan(),
        "1 scheduler silent\n 2 a 200 sdp\n 2.1 a bye\n 2.2 scheduler ok",
        expect![[r#"
            00.000 event Created
            00.000 media offer A ours
            00.000 sip a INVITE user/1000
            02.000 > a 200 sdp
            02.000 media answer A
            02.000 event Answered
            02.000 event Action schedule
            02.000 scheduler schedule limit 20000 ALLOTTED_TIMEOUT
            02.100 > a bye
            02.100 media delete all
            02.100 scheduler cancel all
            02.100 event Ended NORMAL_CLEARING by Callee
            02.100 answer 0 refused: the call has ended with NORMAL_CLEARING
            02.200 > scheduler ok
        "#]],
    );
}

#[test]
fn the_time_for_a_digit_counts_from_the_end_of_the_prompt() {
    let plan = || {
        let after = [("12", Plan::new([Action::Hangup { cause: Cause::UserBusy }]))];
        Plan::new([Action::Collect(Arc::new(collect(Some("p.wav"), 3, after))), Action::Park])
    };
    // The prompt's end is told, or is known by its length; two digits and then silence.
    check(
        Begin::Offer,
        plan(),
        "0.1 a ack\n 3 finished p1\n 8 a bye",
        expect![[r#"
        00.000 event Created
        00.000 event Action collect
        00.000 media offer A offer
        00.000 sip a 200 relay
        00.100 > a ack
        00.100 event Answered
        00.100 media play A p.wav
        03.000 > finished p1
        07.000 event Action park
        08.000 > a bye
        08.000 media delete all
        08.000 event Ended NORMAL_CLEARING by Caller
    "#]],
    );
    check(
        Begin::Offer,
        plan(),
        "0.1 a ack\n 20 a bye",
        expect![[r#"
        00.000 event Created
        00.000 event Action collect
        00.000 media offer A offer
        00.000 sip a 200 relay
        00.100 > a ack
        00.100 event Answered
        00.100 media play A p.wav
        09.100 event Action park
        20.000 > a bye
        20.000 media delete all
        20.000 event Ended NORMAL_CLEARING by Caller
    "#]],
    );
    check(
        Begin::Offer,
        plan(),
        "0.1 a ack\n 1 digit a 1\n 2 digit a 2",
        expect![[r#"
        00.000 event Created
        00.000 event Action collect
        00.000 media offer A offer
        00.000 sip a 200 relay
        00.100 > a ack
        00.100 event Answered
        00.100 media play A p.wav
        01.000 > digit a 1
        01.000 event Digit 1
        01.000 media stop A
        02.000 > digit a 2
        02.000 event Digit 2
        04.000 event Action hangup
        04.000 sip a hangup Q.850;cause=17;text="USER_BUSY" or 486
        04.000 media delete all
        04.000 event Ended USER_BUSY by Plan
    "#]],
    );
    check(
        Begin::Offer,
        plan(),
        "0.1 a ack\n 1 digit a 1\n 2 digit a #\n 3 a bye",
        expect![[r#"
            00.000 event Created
            00.000 event Action collect
            00.000 media offer A offer
            00.000 sip a 200 relay
            00.100 > a ack
            00.100 event Answered
            00.100 media play A p.wav
            01.000 > digit a 1
            01.000 event Digit 1
            01.000 media stop A
            02.000 > digit a #
            02.000 event Digit #
            02.000 event Action park
            03.000 > a bye
            03.000 media delete all
            03.000 event Ended NORMAL_CLEARING by Caller
        "#]],
    );
}

#[test]
fn a_digit_at_the_very_deadline_counts_once_and_one_after_it_does_not() {
    let plan = || {
        let on = [("1", Plan::new([Action::Hangup { cause: Cause::UserBusy }]))];
        Plan::new([Action::Collect(Arc::new(collect(None, 1, on))), Action::Park])
    };
    check(
        Begin::Offer,
        plan(),
        "0.1 a ack\n 4.1 digit a 1",
        expect![[r#"
        00.000 event Created
        00.000 event Action collect
        00.000 media offer A offer
        00.000 sip a 200 relay
        00.100 > a ack
        00.100 event Answered
        04.100 > digit a 1
        04.100 event Digit 1
        04.100 event Action hangup
        04.100 sip a hangup Q.850;cause=17;text="USER_BUSY" or 486
        04.100 media delete all
        04.100 event Ended USER_BUSY by Plan
    "#]],
    );
    check(
        Begin::Offer,
        plan(),
        "0.1 a ack\n 4.101 digit a 1\n 5 a bye",
        expect![[r#"
        00.000 event Created
        00.000 event Action collect
        00.000 media offer A offer
        00.000 sip a 200 relay
        00.100 > a ack
        00.100 event Answered
        04.100 event Action park
        04.101 > digit a 1
        04.101 event Digit 1
        05.000 > a bye
        05.000 media delete all
        05.000 event Ended NORMAL_CLEARING by Caller
    "#]],
    );
}

#[test]
fn a_prompt_that_ends_before_its_reply_is_here_is_over() {
    let plan = Plan::new([Action::Play { file: "f.wav".into() }]);
    check(
        Begin::Offer,
        plan,
        "0.1 media silent\n 0.2 a ack\n 0.3 finished p1\n 0.4 media ok",
        expect![[r#"
            00.000 event Created
            00.000 event Action play
            00.000 media offer A offer
            00.000 sip a 200 relay
            00.200 > a ack
            00.200 event Answered
            00.200 media play A f.wav
            00.300 > finished p1
            00.400 > media ok
            00.400 sip a hangup Q.850;cause=16;text="NORMAL_CLEARING" or 480
            00.400 media delete all
            00.400 event Ended NORMAL_CLEARING by Plan
        "#]],
    );
}

#[test]
fn a_digit_by_info_goes_to_media_relay_and_is_not_counted_here() {
    let plan = Plan::new([Action::Park]);
    check(
        Begin::Offer,
        plan,
        "0.1 a ack\n 1 a info 5\n 2 a bye",
        expect![[r#"
        00.000 event Created
        00.000 event Action park
        00.000 media offer A offer
        00.000 sip a 200 relay
        00.100 > a ack
        00.100 event Answered
        01.000 > a info 5
        01.000 media inject A 5
        02.000 > a bye
        02.000 media delete all
        02.000 event Ended NORMAL_CLEARING by Caller
    "#]],
    );
}

#[test]
fn a_parked_call_takes_orders_one_at_a_time() {
    let plan = Plan::new([Action::Park]);
    check(
        Begin::Offer,
        plan,
        "0.05 ask 1 play\n 0.1 a ack\n 1 ask 2 play wait\n 2 ask 3 play\n 3 ask 4 collect\n 4 ask 5 play\n 4.1 digit a 7\n 4.2 digit b 8\n 5 digit a 9\n 6 ask 6 collect\n 7 a bye",
        expect![[r#"
            00.000 event Created
            00.000 event Action park
            00.000 media offer A offer
            00.000 sip a 200 relay
            00.050 > ask 1 play
            00.050 answer 1 refused: leg A is not answered yet
            00.100 > a ack
            00.100 event Answered
            01.000 > ask 2 play wait
            01.000 media play A f.wav
            02.000 > ask 3 play
            02.000 answer 2 Playing { duration: 3s }
            02.000 media play A f.wav
            02.000 answer 3 Playing { duration: 3s }
            03.000 > ask 4 collect
            04.000 > ask 5 play
            04.000 answer 5 refused: the call runs `collect`, which a prompt would disturb
            04.100 > digit a 7
            04.100 event Digit 7
            04.200 > digit b 8
            04.200 event Digit 8
            05.000 > digit a 9
            05.000 event Digit 9
            05.000 answer 4 Collected { outcome: Complete, digits: "79" }
            06.000 > ask 6 collect
            07.000 > a bye
            07.000 media delete all
            07.000 event Ended NORMAL_CLEARING by Caller
            07.000 answer 6 refused: the call has ended with NORMAL_CLEARING
        "#]],
    );
}

#[test]
fn early_media_is_answered_with_the_sdp_that_came_first() {
    let plan = Plan::new([Action::Park]);
    check(
        Begin::Originate,
        plan,
        "1 a 183 sdp\n 2 a 200\n 3 a bye",
        expect![[r#"
        00.000 event Created
        00.000 media offer A ours
        00.000 sip a INVITE user/1000
        01.000 > a 183 sdp
        01.000 event Ringing
        02.000 > a 200
        02.000 media answer A
        02.000 event Answered
        02.000 event Action park
        02.000 answer 0 originated, tasks []
        03.000 > a bye
        03.000 media delete all
        03.000 event Ended NORMAL_CLEARING by Callee
    "#]],
    );
}

#[test]
fn a_task_that_takes_the_name_of_another_takes_its_place() {
    let limit = |after_ms| script::schedule(after_ms, "limit");
    check(
        Begin::Originate,
        Plan::new([limit(20_000), limit(30_000), Action::Park]),
        "2 a 200 sdp",
        expect![[r#"
            00.000 event Created
            00.000 media offer A ours
            00.000 sip a INVITE user/1000
            02.000 > a 200 sdp
            02.000 media answer A
            02.000 event Answered
            02.000 event Action schedule
            02.000 scheduler schedule limit 20000 ALLOTTED_TIMEOUT
            02.000 event Action schedule
            02.000 scheduler schedule limit 30000 ALLOTTED_TIMEOUT
            02.000 scheduler cancel t2
            02.000 event Action park
            02.000 answer 0 originated, tasks [("limit", "t3")]
        "#]],
    );
}
