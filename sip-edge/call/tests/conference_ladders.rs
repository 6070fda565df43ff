//! Conferences of a plan: the PIN, refusals, and being sent out.

mod script;

use call::{Action, Conference, Plan};
use expect_test::expect;
use script::{Begin, check, conference};
use std::sync::Arc;

/// With a PIN, and all the rest; parks when it is over.
fn guarded() -> Plan {
    let conference = Conference {
        name: "test1".into(),
        pin: "123".into(),
        pin_prompt: Some("pin.wav".into()),
        participants_max: 5,
        music: "moh/abc".into(),
    };
    Plan::new([Action::Conference(Arc::new(conference)), Action::Park])
}

#[test]
fn the_right_pin_admits_at_the_second_attempt() {
    check(
        Begin::Offer,
        guarded(),
        "0.1 a ack\n 1 digit a 1\n 1.1 digit a 2\n 1.2 digit a 4\n 1.3 digit a #\n 2 digit a 1\n 2.1 digit a 2\n 2.2 digit a 3\n 3 digit a 9\n 5 a bye",
        expect![[r#"
            00.000 event Created
            00.000 event Action conference
            00.000 media offer A offer
            00.000 sip a 200 relay
            00.100 > a ack
            00.100 event Answered
            00.100 media play A pin.wav
            01.000 > digit a 1
            01.000 event Digit 1
            01.000 media stop A
            01.100 > digit a 2
            01.100 event Digit 2
            01.200 > digit a 4
            01.200 event Digit 4
            01.200 media play A pin.wav
            01.300 > digit a #
            01.300 event Digit #
            02.000 > digit a 1
            02.000 event Digit 1
            02.000 media stop A
            02.100 > digit a 2
            02.100 event Digit 2
            02.200 > digit a 3
            02.200 event Digit 3
            02.200 media join A test1 123 of 5 moh/abc
            02.200 event Action conference
            03.000 > digit a 9
            03.000 event Digit 9
            05.000 > a bye
            05.000 media delete all
            05.000 event Ended NORMAL_CLEARING by Caller
        "#]],
    );
}

#[test]
fn after_three_wrong_pins_or_none_the_call_is_rejected() {
    check(
        Begin::Offer,
        guarded(),
        "0.1 a ack\n 1 digit a 1\n 1.1 digit a #\n 15 digit a 5\n 16 digit a 5\n 17 digit a 5",
        expect![[r#"
            00.000 event Created
            00.000 event Action conference
            00.000 media offer A offer
            00.000 sip a 200 relay
            00.100 > a ack
            00.100 event Answered
            00.100 media play A pin.wav
            01.000 > digit a 1
            01.000 event Digit 1
            01.000 media stop A
            01.100 > digit a #
            01.100 event Digit #
            01.100 media play A pin.wav
            15.000 > digit a 5
            15.000 event Digit 5
            16.000 > digit a 5
            16.000 event Digit 5
            17.000 > digit a 5
            17.000 event Digit 5
            17.000 media play A pin.wav
            32.000 sip a hangup Q.850;cause=21;text="CALL_REJECTED" or 603
            32.000 media delete all
            32.000 event Ended CALL_REJECTED by Plan
        "#]],
    );
}

#[test]
fn a_full_conference_is_busy() {
    let plan = Plan::new([conference("test1"), Action::Park]);
    check(
        Begin::Offer,
        plan,
        "0 media silent\n 0.1 media ok\n 0.2 a ack\n 0.3 media full",
        expect![[r#"
            00.000 event Created
            00.000 event Action conference
            00.000 media offer A offer
            00.100 > media ok
            00.100 sip a 200 relay
            00.200 > a ack
            00.200 event Answered
            00.200 media join A test1
            00.300 > media full
            00.300 sip a hangup Q.850;cause=17;text="USER_BUSY" or 486
            00.300 media delete all
            00.300 event Ended USER_BUSY by Edge
        "#]],
    );
}

#[test]
fn a_conference_with_another_pin_rejects_the_call() {
    let plan = Plan::new([conference("test1"), Action::Park]);
    check(
        Begin::Offer,
        plan,
        "0 media silent\n 0.1 media ok\n 0.2 a ack\n 0.3 media denied",
        expect![[r#"
            00.000 event Created
            00.000 event Action conference
            00.000 media offer A offer
            00.100 > media ok
            00.100 sip a 200 relay
            00.200 > a ack
            00.200 event Answered
            00.200 media join A test1
            00.300 > media denied
            00.300 sip a hangup Q.850;cause=21;text="CALL_REJECTED" or 603
            00.300 media delete all
            00.300 event Ended CALL_REJECTED by Edge
        "#]],
    );
}

#[test]
fn music_that_cannot_be_played_is_left_out() {
    let Action::Conference(all) = guarded().action(0).unwrap().clone() else { unreachable!() };
    let open = Conference { pin: String::new(), ..(*all).clone() };
    let plan = Plan::new([Action::Conference(Arc::new(open))]);
    check(
        Begin::Offer,
        plan,
        "0 media silent\n 0.1 media ok\n 0.2 a ack\n 0.3 media notfound\n 0.4 media ok\n 1 a bye",
        expect![[r#"
            00.000 event Created
            00.000 event Action conference
            00.000 media offer A offer
            00.100 > media ok
            00.100 sip a 200 relay
            00.200 > a ack
            00.200 event Answered
            00.200 media join A test1 of 5 moh/abc
            00.300 > media notfound
            00.300 media join A test1 of 5
            00.400 > media ok
            00.400 event Action conference
            01.000 > a bye
            01.000 media delete all
            01.000 event Ended NORMAL_CLEARING by Caller
        "#]],
    );
}

#[test]
fn who_is_sent_out_goes_on_with_the_plan() {
    let plan = Plan::new([conference("test1"), Action::Park]);
    check(
        Begin::Offer,
        plan,
        "0.1 a ack\n 1 kicked other\n 2 kicked test1\n 3 kicked test1\n 4 a bye",
        expect![[r#"
            00.000 event Created
            00.000 event Action conference
            00.000 media offer A offer
            00.000 sip a 200 relay
            00.100 > a ack
            00.100 event Answered
            00.100 media join A test1
            00.100 event Action conference
            01.000 > kicked other
            02.000 > kicked test1
            02.000 event Action park
            03.000 > kicked test1
            04.000 > a bye
            04.000 media delete all
            04.000 event Ended NORMAL_CLEARING by Caller
        "#]],
    );
}
