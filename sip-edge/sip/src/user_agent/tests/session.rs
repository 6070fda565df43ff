//! Session timers and UPDATE (RFC 4028, RFC 3311).

use super::bench::{Bench, Phone, SDP};
use crate::header::Name;
use expect_test::expect;
use std::time::Duration;

/// A phone that knows UPDATE and wants `session` as Session-Expires.
fn phone(session: &str) -> Phone {
    let allow = Phone::invite().header("Allow: INVITE, ACK, BYE, UPDATE");
    allow.header("Supported: timer").header(&format!("Session-Expires: {session}"))
}

#[test]
fn we_refresh_by_update_at_half_time_for_ever() {
    let (mut bench, _) = Bench::standing(phone("600;refresher=uas"));
    bench.until(300.0).respond_with(
        "UPDATE",
        200,
        "",
        "Session-Expires: 600;refresher=uac\r\n",
        "",
    );
    assert_eq!(
        bench.last_request("UPDATE").headers.get(Name::SessionExpires),
        Some("600;refresher=uac")
    );
    bench.until(600.0).respond("UPDATE", 200, "").until(890.0).check(expect![[r#"
        300.000 > UPDATE 1
        300.000 Moved 1
        600.000 > UPDATE 2
    "#]]);
}

#[test]
fn we_refresh_by_reinvite_whom_does_not_know_update_with_the_same_description() {
    let (mut bench, _) = Bench::standing(Phone::invite());
    bench.until(900.0).respond_with("INVITE", 200, "", "", SDP).check(expect![[r#"
        900.000 > INVITE 1
        900.000 > ACK 1
        900.000 Moved 1
    "#]]);
    assert_eq!(bench.last_request("INVITE").body, SDP);
    bench.until(1800.0).respond("INVITE", 488, "").until(1801.0).check(expect![[r#"
        1800.000 > INVITE 2
        1800.000 > ACK 2
    "#]]);
    bench.until(1802.0).respond_with("INVITE", 200, "", "", SDP).until(2000.0).check(expect![[
        r#"
            1802.000 > INVITE 3
            1802.000 > ACK 3
        "#
    ]]);
}

#[test]
fn a_refresh_that_nobody_answers_or_knows_ends_the_call() {
    for status in [None, Some(408), Some(481)] {
        let (mut bench, _) = Bench::standing(phone("600;refresher=uas"));
        bench.until(300.0);
        match status {
            Some(status) => drop(bench.respond("UPDATE", status, "")),
            None => drop(bench.until(332.0)),
        }
        bench.respond("BYE", 481, "");
        bench.forget();
        bench.check_over(expect![""]);
    }
}

#[test]
fn an_update_that_is_refused_is_tried_again_or_becomes_a_reinvite() {
    let (mut bench, _) = Bench::standing(phone("600;refresher=uas"));
    bench.until(300.0).respond_with("UPDATE", 500, "", "Retry-After: 5\r\n", "").until(305.0);
    bench.respond("UPDATE", 405, "").respond_with("INVITE", 200, "", "Allow: INVITE, BYE\r\n", SDP);
    bench.until(310.0).check(expect![[r#"
        300.000 > UPDATE 1
        305.000 > UPDATE 2
        305.000 > INVITE 3
        305.000 > ACK 3
        305.000 Moved 1
    "#]]);
}

#[test]
fn a_peer_who_does_not_refresh_in_time_is_hung_up_on_before_the_end() {
    let (mut bench, _) = Bench::standing(phone("600;refresher=uac"));
    bench.until(567.0).check(expect![[r#""#]]);
    bench.until(568.0).respond("BYE", 200, "").check_over(expect![[r#"
        568.000 > BYE 1
        568.000 Ended 1 TimedOut
    "#]]);
}

#[test]
fn a_refresh_of_the_peer_starts_the_timer_again() {
    let (mut bench, tag) = Bench::standing(phone("600;refresher=uac"));
    let update = |cseq| {
        let update = Phone::sends("UPDATE").tag(&tag).cseq(cseq).header("Supported: timer");
        update.header("Session-Expires: 600;refresher=uac")
    };
    bench.until(500.0).receive(update(2));
    assert_eq!(bench.last_response().headers.get(Name::SessionExpires), Some("600;refresher=uac"));
    bench.until(1000.0).receive(update(3)).until(1567.0).check(expect![[r#"
        500.000 > 200 UPDATE 2
        1000.000 > 200 UPDATE 3
    "#]]);
}

#[test]
fn too_small_an_interval_is_refused_with_422_in_every_request() {
    let mut bench = Bench::with(|config| config.min_session_interval = Duration::from_secs(120));
    bench.receive(phone("119").branch("small"));
    assert_eq!(bench.last_response().headers.get(Name::MinSe), Some("120"));
    bench.receive(phone("120").cseq(2)).answer(1);
    assert_eq!(bench.last_response().headers.get(Name::SessionExpires), Some("120;refresher=uac"));
    assert_eq!(bench.last_response().headers.get(Name::Require), Some("timer"));
    let tag = bench.tag();
    bench.receive(Phone::sends("ACK").tag(&tag).cseq(2)).receive(phone("100").tag(&tag).cseq(3));
    let update = Phone::sends("UPDATE").tag(&tag).cseq(4).header("Supported: timer");
    bench.receive(update.header("Session-Expires: 100")).check(expect![[r#"
        00.000 > 422 INVITE 1
        00.000 > 100 INVITE 2
        00.000 Invited 1 sdp
        00.000 > 200 INVITE 2
        00.000 Acknowledged 1
        00.000 > 422 INVITE 3
        00.000 > 422 UPDATE 4
    "#]]);
}

#[test]
fn our_invite_that_is_too_short_for_the_callee_is_sent_again_longer() {
    let mut bench = Bench::new();
    bench.invite().respond_with("INVITE", 422, "t", "Min-SE: 3600\r\n", "");
    let again = bench.last_request("INVITE");
    assert_eq!(again.headers.get(Name::SessionExpires), Some("3600"));
    assert_eq!(again.headers.get(Name::MinSe), Some("3600"));
    bench.respond_with("INVITE", 422, "t", "Min-SE: 3600\r\n", "").check(expect![[r#"
        00.000 > INVITE 1
        00.000 > ACK 1
        00.000 > INVITE 2
        00.000 > ACK 2
        00.000 Ended 1 Rejected { status: 422, phrase: "Phrase", reason: None, retry_after_s: None }
    "#]]);
}

#[test]
fn without_a_wish_of_ours_only_peers_who_ask_have_a_timer() {
    let mut bench = Bench::with(|config| config.session_interval = None);
    bench.receive(Phone::invite().header("Supported: timer")).answer(1);
    assert_eq!(bench.last_response().headers.get(Name::SessionExpires), None);
    let tag = bench.tag();
    bench.receive(Phone::sends("ACK").tag(&tag)).forget().until(10_000.0).check(expect![""]);
}

#[test]
fn an_update_with_an_offer_is_for_the_tu_and_needs_no_ack() {
    let (mut bench, tag) = Bench::standing(Phone::invite());
    bench.receive(Phone::sends("UPDATE").sdp().tag(&tag).cseq(2));
    bench.receive(Phone::sends("UPDATE").sdp().tag(&tag).cseq(3).branch("second")).answer(1);
    bench.receive(Phone::sends("UPDATE").sdp().tag(&tag).cseq(4)).reject(1, 488);
    bench.reinvite(1).receive(Phone::sends("UPDATE").sdp().tag(&tag).cseq(5));
    bench.until(40.1).check(expect![[r#"
        40.000 Reinvited 1 sdp
        40.000 > 500 UPDATE 3
        40.000 > 200 UPDATE 2
        40.000 Acknowledged 1
        40.000 Reinvited 1 sdp
        40.000 > 488 UPDATE 4
        40.000 > INVITE 1
        40.000 > 491 UPDATE 5
    "#]]);
}

#[test]
fn an_update_moves_the_target_of_the_dialog() {
    let (mut bench, tag) = Bench::standing(Phone::invite());
    let update = Phone::sends("UPDATE").tag(&tag).cseq(2);
    bench.receive(update.header("Contact: <sip:anna@203.0.113.9:7000>")).hangup(1);
    bench.until(40.1).check(expect![[r#"
        40.000 Moved 1
        40.000 > 200 UPDATE 2
        40.000 > BYE 1 to udp:203.0.113.9:7000
    "#]]);
}

#[test]
fn an_offer_by_update_before_the_answer_is_refused() {
    let mut bench = Bench::new();
    bench.receive(Phone::invite()).ring(1);
    let tag = bench.tag();
    bench.receive(Phone::sends("UPDATE").sdp().tag(&tag).cseq(2)).check(expect![[r#"
        00.000 > 100 INVITE 1
        00.000 Invited 1 sdp
        00.000 > 180 INVITE 1
        00.000 > 500 UPDATE 2
    "#]]);
    let mut bench = Bench::new();
    bench.invite().respond("INVITE", 180, "t");
    let offer = "Content-Type: application/sdp\r\nContent-Length: 3\r\n\r\nv=0";
    bench.request_in("UPDATE", "t", 1, offer).check(expect![[r#"
        00.000 > INVITE 1
        00.000 Ringing 1 180
        00.000 > 491 UPDATE 1
    "#]]);
}
