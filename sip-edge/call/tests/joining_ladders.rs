//! Job A, its beginning: a caller gets a place and music, or is refused before anything is answered.

mod script;

use expect_test::expect;
use script::{Begin, check, queue_plan};

#[test]
fn a_caller_has_a_place_and_music_before_the_200() {
    check(
        Begin::Offer,
        queue_plan(),
        "0.1 a ack\n 60 a bye",
        expect![[r#"
            00.000 event Created
            00.000 event Action enqueue
            00.000 queue enqueue by URI
            00.000 media offer A offer with moh/abc
            00.000 sip a 200 relay
            00.100 > a ack
            00.100 event Answered
            00.100 queue enqueue abc answered
            60.000 > a bye
            60.000 media delete all
            60.000 queue leave NORMAL_CLEARING
            60.000 event Ended NORMAL_CLEARING by Caller
        "#]],
    );
}

#[test]
fn a_late_offer_gets_music_once_its_answer_is_here() {
    check(
        Begin::LateOffer,
        queue_plan(),
        "0.1 a ack sdp\n 60 a bye",
        expect![[r#"
        00.000 event Created
        00.000 event Action enqueue
        00.000 media offer A ours
        00.000 queue enqueue by URI
        00.000 sip a 200 relay
        00.100 > a ack sdp
        00.100 media answer A
        00.100 event Answered
        00.100 media play A moh/abc looping
        00.100 queue enqueue abc answered
        60.000 > a bye
        60.000 media delete all
        60.000 queue leave NORMAL_CLEARING
        60.000 event Ended NORMAL_CLEARING by Caller
    "#]],
    );
}

#[test]
fn an_address_of_the_other_family_is_488_with_a_warning_of_its_own() {
    check(
        Begin::Offer,
        queue_plan(),
        "0 media silent\n 0.1 media nofamily",
        expect![[r#"
            00.000 event Created
            00.000 event Action enqueue
            00.000 queue enqueue by URI
            00.000 media offer A offer with moh/abc
            00.100 > media nofamily
            00.100 sip a 488 Warning 301
            00.100 media delete all
            00.100 queue leave INCOMPATIBLE_DESTINATION
            00.100 event Ended INCOMPATIBLE_DESTINATION by Edge
        "#]],
    );
}

#[test]
fn no_codec_in_common_is_488_and_gives_the_place_back() {
    check(
        Begin::Offer,
        queue_plan(),
        "0 media silent\n 0.1 media nocodec",
        expect![[r#"
            00.000 event Created
            00.000 event Action enqueue
            00.000 queue enqueue by URI
            00.000 media offer A offer with moh/abc
            00.100 > media nocodec
            00.100 sip a 488 Warning 305
            00.100 media delete all
            00.100 queue leave INCOMPATIBLE_DESTINATION
            00.100 event Ended INCOMPATIBLE_DESTINATION by Edge
        "#]],
    );
}

#[test]
fn a_full_queue_is_486_before_anything_is_answered() {
    check(
        Begin::Offer,
        queue_plan(),
        "0 queue silent\n 0.1 queue full",
        expect![[r#"
            00.000 event Created
            00.000 event Action enqueue
            00.000 queue enqueue by URI
            00.100 > queue full
            00.100 sip a 486
            00.100 event Ended USER_BUSY by Edge
        "#]],
    );
}

#[test]
fn an_unknown_queue_is_404() {
    check(
        Begin::Offer,
        queue_plan(),
        "0 queue silent\n 0.1 queue notfound",
        expect![[r#"
            00.000 event Created
            00.000 event Action enqueue
            00.000 queue enqueue by URI
            00.100 > queue notfound
            00.100 sip a 404
            00.100 event Ended UNALLOCATED_NUMBER by Edge
        "#]],
    );
}

#[test]
fn a_service_that_does_not_answer_is_503_with_retry_after() {
    check(
        Begin::Offer,
        queue_plan(),
        "0 queue silent",
        expect![[r#"
            00.000 event Created
            00.000 event Action enqueue
            00.000 queue enqueue by URI
            03.000 sip a 503 Retry-After 5
            03.000 queue leave NORMAL_TEMPORARY_FAILURE
            03.000 event Ended NORMAL_TEMPORARY_FAILURE by Edge
        "#]],
    );
    check(
        Begin::Offer,
        queue_plan(),
        "0 media silent",
        expect![[r#"
            00.000 event Created
            00.000 event Action enqueue
            00.000 queue enqueue by URI
            00.000 media offer A offer with moh/abc
            03.000 sip a 503 Retry-After 5
            03.000 media delete all
            03.000 queue leave NORMAL_TEMPORARY_FAILURE
            03.000 event Ended NORMAL_TEMPORARY_FAILURE by Edge
        "#]],
    );
}

#[test]
fn music_that_cannot_be_played_is_503_and_no_answer_into_silence() {
    check(
        Begin::Offer,
        queue_plan(),
        "0 media silent\n 0.1 media notfound",
        expect![[r#"
            00.000 event Created
            00.000 event Action enqueue
            00.000 queue enqueue by URI
            00.000 media offer A offer with moh/abc
            00.100 > media notfound
            00.100 sip a 503 Retry-After 5
            00.100 media delete all
            00.100 queue leave NORMAL_TEMPORARY_FAILURE
            00.100 event Ended NORMAL_TEMPORARY_FAILURE by Edge
        "#]],
    );
}
