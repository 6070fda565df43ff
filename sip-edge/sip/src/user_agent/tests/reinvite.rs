//! re-INVITE of ours, and glare (RFC 3261 §14.1).

use super::bench::{Bench, Phone, SDP};
use crate::header::Name;
use crate::user_agent::LegId;
use expect_test::expect;

#[test]
fn a_new_offer_is_answered_acknowledged_and_told() {
    let (mut bench, _) = Bench::standing(Phone::invite());
    bench.reinvite(1).until(40.1).respond("INVITE", 100, "");
    bench
        .respond_with("INVITE", 200, "", "", SDP)
        .until(41.0)
        .respond_with("INVITE", 200, "", "", SDP);
    assert_eq!(bench.last_request("INVITE").body, "v=1");
    bench.until(60.0).check(expect![[r#"
        40.000 > INVITE 1
        40.100 > ACK 1
        40.100 Moved 1
        40.100 Reanswered 1 sdp
        41.000 > ACK 1
    "#]]);
}

#[test]
fn who_is_refused_with_491_tries_again_by_its_role_until_it_works() {
    let (mut bench, _) = Bench::standing(Phone::invite());
    bench.reinvite(1).respond("INVITE", 491, "").until(42.0).respond("INVITE", 491, "").until(44.0);
    bench.respond_with("INVITE", 200, "", "", SDP).until(45.0).check(expect![[r#"
        40.000 > INVITE 1
        40.000 > ACK 1
        41.480 > INVITE 2
        41.980 > INVITE 2
        42.000 > ACK 2
        43.510 > INVITE 3
        44.000 > ACK 3
        44.000 Moved 1
        44.000 Reanswered 1 sdp
    "#]]);
    let mut bench = Bench::new();
    bench.invite().respond_with("INVITE", 200, "t", "", SDP).until(1.0).reinvite(1);
    bench.respond("INVITE", 491, "").forget().until(3.09).check(expect![""]);
    bench.until(5.01).check(expect![[r#"
        04.590 > INVITE 3
    "#]]);
}

#[test]
fn their_reinvite_meets_ours_with_491_and_ours_waits_for_theirs() {
    let (mut bench, tag) = Bench::standing(Phone::invite());
    bench.reinvite(1).receive(Phone::invite().tag(&tag).cseq(2));
    bench.respond_with("INVITE", 200, "", "", SDP).receive(Phone::invite().tag(&tag).cseq(3));
    bench.reinvite(1).answer(1).receive(Phone::sends("ACK").tag(&tag).cseq(3)).until(44.0);
    bench.respond_with("INVITE", 200, "", "", SDP).until(44.1).check(expect![[r#"
        40.000 > INVITE 1
        40.000 > 491 INVITE 2
        40.000 > ACK 1
        40.000 Moved 1
        40.000 Reanswered 1 sdp
        40.000 > 100 INVITE 3
        40.000 Reinvited 1 sdp
        40.000 > 200 INVITE 3
        40.000 Acknowledged 1
        40.500 > 491 INVITE 2
        41.500 > 491 INVITE 2
        43.500 > 491 INVITE 2
        44.000 > INVITE 2
        44.000 > ACK 2
        44.000 Moved 1
        44.000 Reanswered 1 sdp
    "#]]);
}

#[test]
fn a_refused_offer_is_told_and_the_call_stands() {
    let (mut bench, _) = Bench::standing(Phone::invite());
    bench.reinvite(1).respond("INVITE", 488, "").until(80.0).check(expect![[r#"
        40.000 > INVITE 1
        40.000 > ACK 1
        40.000 ReinviteFailed 1 488
    "#]]);
    assert_eq!(bench.ua.dialogs(), 1);
}

#[test]
fn an_offer_that_nobody_answers_or_whose_dialog_is_unknown_ends_the_call() {
    let (mut bench, _) = Bench::standing(Phone::invite());
    bench.reinvite(1).forget().until(71.99).forget().until(72.0).respond("BYE", 481, "");
    bench.check_over(expect![[r#"
        72.000 > BYE 2
        72.000 Ended 1 TimedOut
    "#]]);
    let (mut bench, _) = Bench::standing(Phone::invite());
    bench.reinvite(1).respond("INVITE", 481, "").respond("BYE", 481, "").check_over(expect![[r#"
            40.000 > INVITE 1
            40.000 > ACK 1
            40.000 > BYE 2
            40.000 Ended 1 TimedOut
        "#]]);
}

#[test]
fn a_second_offer_before_the_first_is_answered_is_refused() {
    let (mut bench, _) = Bench::standing(Phone::invite());
    bench.reinvite(1).order(|ua, now| assert!(!ua.reinvite(now, LegId(1), "v=2".into())));
    let mut bench = Bench::new();
    bench.receive(Phone::invite());
    bench.order(|ua, now| assert!(!ua.reinvite(now, LegId(1), "v=2".into()), "it is early"));
}

#[test]
fn an_offer_during_a_refresh_follows_it() {
    let (mut bench, _) = Bench::standing(Phone::invite());
    bench.until(900.0).reinvite(1).respond_with("INVITE", 200, "", "", SDP);
    bench.respond_with("INVITE", 200, "", "", SDP).until(901.0).check(expect![[r#"
        900.000 > INVITE 1
        900.000 > ACK 1
        900.000 Moved 1
        900.000 > INVITE 2
        900.000 > ACK 2
        900.000 Reanswered 1 sdp
    "#]]);
    assert_eq!(bench.last_request("INVITE").body, "v=1");
}

#[test]
fn a_hangup_during_an_offer_is_a_bye_and_the_late_200_is_acknowledged() {
    let (mut bench, _) = Bench::standing(Phone::invite());
    bench.reinvite(1).hangup(1).respond("BYE", 200, "").respond_with("INVITE", 200, "", "", SDP);
    bench.check_over(expect![[r#"
        40.000 > INVITE 1
        40.000 > BYE 2
        40.000 Ended 1 HungUp { bye_status: Some(200) }
        40.000 > ACK 1
    "#]]);
}

#[test]
fn the_route_set_of_the_dialog_stays() {
    let route = "Record-Route: <sip:192.0.2.7;lr>, <sip:p.example.com;lr>";
    let (mut bench, _) = Bench::standing(Phone::invite().header(route));
    let other = "Record-Route: <sip:192.0.2.8;lr>\r\n";
    bench.reinvite(1).respond_with("INVITE", 200, "", other, SDP);
    for method in ["INVITE", "ACK"] {
        let request = bench.last_request(method);
        let routes: Vec<_> = request.headers.all(Name::Route).collect();
        assert_eq!(routes, ["<sip:192.0.2.7;lr>", "<sip:p.example.com;lr>"], "{method}");
    }
}
