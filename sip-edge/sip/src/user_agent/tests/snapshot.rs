//! Legs that another process goes on with.

use super::bench::{Bench, Phone, SDP, tcp_phone};
use crate::header::Name;
use crate::user_agent::LegId;
use crate::{Credentials, Params};
use expect_test::expect;

const HERE: &str = "198.51.100.1";
const ELSEWHERE: &str = "198.51.100.2";

#[test]
fn a_bye_after_the_restart_ends_the_leg() {
    let (mut bench, tag) = Bench::standing(Phone::invite());
    bench.restart(HERE).receive(Phone::sends("BYE").tag(&tag).cseq(2)).check(expect![[r#"
        40.000 > 200 BYE 2
        40.000 Ended 1 Bye { reason: None }
    "#]]);
    bench.check_over(expect![""]);
}

#[test]
fn our_bye_has_the_dialogs_identity_and_a_cseq_above_all_that_were_used() {
    let mut bench = Bench::new();
    bench.invite().respond_with("INVITE", 200, "t", "Record-Route: <sip:p.example;lr>\r\n", SDP);
    let ack = bench.last_request("ACK");
    bench.restart(HERE).forget().hangup(1);
    let bye = bench.last_request("BYE");
    for name in [Name::From, Name::To, Name::CallId, Name::Route] {
        assert_eq!(bye.headers.get(name), ack.headers.get(name), "{name:?}");
    }
    assert_eq!(bye.uri(), ack.uri());
    assert_eq!(bye.headers.get(Name::CSeq), Some("10002 BYE"));
    bench.respond("BYE", 200, "").check(expect![[r#"
        00.000 > BYE 10002
        00.000 Ended 1 HungUp { bye_status: Some(200) }
    "#]]);
    bench.check_over(expect![""]);
}

#[test]
fn a_reinvite_after_the_restart_is_answered_and_an_old_cseq_refused() {
    let (mut bench, tag) = Bench::standing(Phone::invite());
    bench.restart(HERE).receive(Phone::invite().tag(&tag).cseq(2)).answer(1);
    bench.receive(Phone::sends("ACK").tag(&tag).cseq(2));
    bench.receive(Phone::sends("INFO").tag(&tag).branch("i").cseq(1)).check(expect![[r#"
        40.000 > 100 INVITE 2
        40.000 Reinvited 1 sdp
        40.000 > 200 INVITE 2
        40.000 Acknowledged 1
        40.000 > 500 INFO 1
    "#]]);
}

#[test]
fn a_phone_learns_of_the_new_place_by_update_if_it_takes_that() {
    let allow = Phone::invite().header("Allow: INVITE, ACK, BYE, UPDATE");
    let (mut bench, _) = Bench::standing(allow);
    bench.restart(ELSEWHERE).order(|ua, now| ua.refresh(now, LegId(1)));
    let contact = bench.last_request("UPDATE").headers.get(Name::Contact).unwrap().to_owned();
    assert!(contact.contains(ELSEWHERE), "{contact}");
    bench.respond("UPDATE", 200, "").until(41.0).check(expect![[r#"
        40.000 > UPDATE 10001
        40.000 Moved 1
    "#]]);
}

#[test]
fn a_phone_learns_of_the_new_place_by_reinvite_with_the_description_that_it_knows() {
    let (mut bench, tag) = Bench::standing(Phone::invite());
    bench.restart(ELSEWHERE).order(|ua, now| ua.refresh(now, LegId(1)));
    bench.order(|ua, now| ua.refresh(now, LegId(1))); // Once is enough.
    let request = bench.last_request("INVITE");
    assert!(request.headers.get(Name::Contact).unwrap().contains(ELSEWHERE));
    assert_eq!(request.body, SDP);
    bench.respond_with("INVITE", 200, "", "", SDP);
    bench.receive(Phone::sends("BYE").tag(&tag).cseq(2)).check(expect![[r#"
        40.000 > INVITE 10001
        40.000 > ACK 10001
        40.000 Moved 1
        40.000 > 200 BYE 2
        40.000 Ended 1 Bye { reason: None }
    "#]]);
    bench.check_over(expect![""]);
}

#[test]
fn a_phone_that_has_gone_meanwhile_is_found_out() {
    let (mut bench, _) = Bench::standing(Phone::invite());
    bench.restart(HERE).order(|ua, now| ua.refresh(now, LegId(1))).respond("INVITE", 481, "");
    bench.respond("BYE", 481, "").check(expect![[r#"
        40.000 > INVITE 10001
        40.000 > ACK 10001
        40.000 > BYE 10002
        40.000 Ended 1 TimedOut
    "#]]);
    bench.check_over(expect![""]);
}

#[test]
fn who_came_by_a_connection_that_is_lost_is_called_at_its_contact() {
    let mut bench = Bench::new();
    let mut connected = tcp_phone();
    connected.addr.set_port(40_000);
    let contact = "Contact: <sip:anna@192.0.2.1:5070;transport=tcp>";
    bench.phone = connected;
    bench.receive(Phone::invite().header(contact)).answer(1);
    let tag = bench.tag();
    bench.receive(Phone::sends("ACK").tag(&tag)).forget().restart(HERE).hangup(1);
    bench.check(expect![[r#"
        00.000 > BYE 10001 to tcp:192.0.2.1:5070
    "#]]);
}

#[test]
fn a_session_goes_on_from_the_restart() {
    let refreshed = Phone::invite().header("Supported: timer");
    let (mut bench, _) = Bench::standing(refreshed.header("Session-Expires: 600;refresher=uac"));
    bench.restart(HERE).until(607.0).check(expect![""]);
    bench.until(608.0).check(expect![[r#"
        608.000 > BYE 10001
        608.000 Ended 1 TimedOut
    "#]]);
    let (mut bench, _) = Bench::standing(Phone::invite());
    bench.restart(HERE).until(939.0).check(expect![""]);
    bench.until(940.0).check(expect![[r#"
        940.000 > INVITE 10001
    "#]]);
}

#[test]
fn a_challenge_after_the_restart_is_answered_with_the_password_that_is_not_kept() {
    let mut bench = Bench::new();
    bench.credentials = Some(Credentials { user: "us".into(), password: "hush".into() });
    bench.invite().respond_with("INVITE", 200, "t", "", SDP);
    let snapshot = bench.ua.snapshot(LegId(1)).unwrap();
    assert_eq!(snapshot.user(), Some("us"));
    assert!(!serde_json::to_string(&snapshot).unwrap().contains("hush"));
    bench.restart(HERE).hangup(1);
    let challenge = "WWW-Authenticate: Digest realm=\"r\", nonce=\"n\"\r\n";
    bench.respond_with("BYE", 401, "", challenge, "");
    let bye = bench.last_request("BYE");
    let proof = bye.headers.get(Name::Authorization).expect("a proof");
    assert_eq!(Params(&proof.replace(", ", ";")).get("Digest username"), Some("\"us\""));
}

#[test]
fn only_legs_that_stand_are_kept_and_none_comes_twice() {
    let mut bench = Bench::new();
    bench.receive(Phone::invite());
    assert_eq!(bench.ua.snapshot(LegId(1)), None, "it is early");
    bench.answer(1).hangup(1);
    assert_eq!(bench.ua.snapshot(LegId(1)), None, "it is hung up");
    let (mut bench, _) = Bench::standing(Phone::invite());
    let snapshot = bench.ua.snapshot(LegId(1)).unwrap();
    assert!(bench.ua.restore(bench.now, snapshot.clone(), None).is_err());
    bench.ua.forget(LegId(1));
    assert_eq!((bench.ua.dialogs(), bench.ua.is_clean()), (0, true));
    bench.ua.restore(bench.now, snapshot, None).unwrap();
    assert_eq!((bench.ua.dialogs(), bench.ua.is_clean()), (1, true));
}

#[test]
fn a_phone_that_moves_without_an_offer_is_told_of() {
    let (mut bench, tag) = Bench::standing(Phone::invite());
    let moved = "Contact: <sip:anna@192.0.2.1:5099>";
    bench.receive(Phone::sends("UPDATE").tag(&tag).header(moved).cseq(2));
    bench.receive(Phone::sends("UPDATE").tag(&tag).header(moved).cseq(3)).check(expect![[r#"
        40.000 Moved 1
        40.000 > 200 UPDATE 2
        40.000 > 200 UPDATE 3
    "#]]);
}
