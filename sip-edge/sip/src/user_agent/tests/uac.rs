//! Calls from us, until they are answered or are over.

use super::bench::{Bench, SDP, tcp_phone, udp_phone};
use crate::header::Name;
use crate::user_agent::{InviteError, OutboundInvite, Output};
use expect_test::expect;

#[test]
fn unanswered_invite_backs_off_until_timer_b() {
    Bench::new().invite().check_over(expect![[r#"
        00.000 > INVITE 1
        00.500 > INVITE 1
        01.500 > INVITE 1
        03.500 > INVITE 1
        07.500 > INVITE 1
        15.500 > INVITE 1
        31.500 > INVITE 1
        32.000 Ended 1 TimedOut
    "#]]);
    let mut bench = Bench::new();
    bench.phone = tcp_phone();
    bench.invite().check_over(expect![[r#"
        00.000 > INVITE 1
        32.000 Ended 1 TimedOut
    "#]]);
}

#[test]
fn our_invite_is_this() {
    let mut bench = Bench::new();
    bench.invite();
    expect![[r#"
        INVITE sip:bob@192.0.2.1 SIP/2.0
        Via: SIP/2.0/UDP 198.51.100.1:5060;branch=z9hG4bK2cf33517376425d3;rport
        Max-Forwards: 70
        From: "The \"Queue\"" <sip:queue@198.51.100.1>;tag=412a4de2c53d7454
        To: <sip:bob@192.0.2.1>
        Call-ID: f66d22c18495153b637bcda8cac4cfec
        CSeq: 1 INVITE
        Contact: <sip:198.51.100.1:5060>
        Allow: INVITE, ACK, BYE, CANCEL, OPTIONS, REGISTER, INFO, PRACK, UPDATE, REFER, NOTIFY
        Supported: 100rel, timer, replaces, norefersub
        Accept: application/sdp
        Session-Expires: 1800
        Min-SE: 90
        User-Agent: Holdfast/0.1.0
        X-Call: 7
        Content-Type: application/sdp
        Content-Length: 3

        v=0"#]]
    .assert_eq(&bench.last_text().replace('\r', ""));
}

#[test]
fn answered_call_is_acknowledged_once_and_again_for_each_repeated_200() {
    let mut bench = Bench::new();
    bench.invite().until(0.1).respond("INVITE", 100, "").respond_with("INVITE", 180, "t", "", SDP);
    bench.until(3.0).respond_with("INVITE", 200, "t", "", SDP).until(3.5);
    bench.respond_with("INVITE", 200, "t", "", SDP).until(9.0).hangup(1);
    assert!(bench.last_text().contains("\r\nReason: Q.850;cause=16\r\n"));
    bench.respond("BYE", 200, "").check_over(expect![[r#"
        00.000 > INVITE 1
        00.100 Ringing 1 180 sdp
        03.000 > ACK 1
        03.000 Answered 1 sdp
        03.500 > ACK 1
        09.000 > BYE 2
        09.000 Ended 1 HungUp { bye_status: Some(200) }
    "#]]);
}

#[test]
fn by_tcp_every_outcome_is_told_although_its_transaction_is_over_at_once() {
    let mut bench = Bench::new();
    bench.phone = tcp_phone();
    bench.invite().respond_with("INVITE", 200, "t", "", SDP).hangup(1).respond("BYE", 200, "");
    bench.invite().respond("INVITE", 486, "t").check_over(expect![[r#"
        00.000 > INVITE 1
        00.000 > ACK 1
        00.000 Answered 1 sdp
        00.000 > BYE 2
        00.000 Ended 1 HungUp { bye_status: Some(200) }
        00.000 > INVITE 1
        00.000 > ACK 1
        00.000 Ended 2 Rejected { status: 486, phrase: "Phrase", reason: None, retry_after_s: None }
    "#]]);
}

#[test]
fn bye_that_nobody_answers_ends_the_leg_with_timer_f() {
    let mut bench = Bench::new();
    bench.invite().respond_with("INVITE", 200, "t", "", SDP).hangup(1).hangup(1);
    bench.until(1.0).check(expect![[r#"
        00.000 > INVITE 1
        00.000 > ACK 1
        00.000 Answered 1 sdp
        00.000 > BYE 2
        00.500 > BYE 2
    "#]]);
    bench.until(31.9).check(expect![[r#"
        01.500 > BYE 2
        03.500 > BYE 2
        07.500 > BYE 2
        11.500 > BYE 2
        15.500 > BYE 2
        19.500 > BYE 2
        23.500 > BYE 2
        27.500 > BYE 2
        31.500 > BYE 2
    "#]]);
    bench.check_over(expect![[r#"
        32.000 Ended 1 HungUp { bye_status: None }
    "#]]);
}

#[test]
fn rejection_is_acknowledged_and_told_with_its_reason() {
    let mut bench = Bench::new();
    let extra = "Reason: Q.850;cause=17\r\nRetry-After: 30 (busy);duration=3\r\n";
    bench.invite().respond_with("INVITE", 486, "t", extra, "").respond("INVITE", 486, "t");
    bench.check_over(expect![[r#"
        00.000 > INVITE 1
        00.000 > ACK 1
        00.000 Ended 1 Rejected { status: 486, phrase: "Phrase", reason: Some("Q.850;cause=17"), retry_after_s: Some(30) }
        00.000 > ACK 1
    "#]]);
}

#[test]
fn cancel_waits_for_the_first_provisional_response() {
    let mut bench = Bench::new();
    bench.invite().until(0.1).hangup(1).until(1.0).respond("INVITE", 100, "");
    assert!(bench.last_text().contains("\r\nReason: Q.850;cause=16\r\n"));
    assert_eq!(
        bench.last_request("CANCEL").headers.get(Name::Via),
        bench.last_request("INVITE").headers.get(Name::Via)
    );
    bench.respond("CANCEL", 200, "").until(1.1).respond("INVITE", 487, "t");
    bench.check_over(expect![[r#"
        00.000 > INVITE 1
        00.500 > INVITE 1
        01.000 > CANCEL 1
        01.100 > ACK 1
        01.100 Ended 1 HungUp { bye_status: None }
    "#]]);
}

#[test]
fn hangup_of_an_invite_that_nobody_answers_ends_with_timer_b() {
    let mut bench = Bench::new();
    bench.invite().until(20.0).hangup(1).check_over(expect![[r#"
        00.000 > INVITE 1
        00.500 > INVITE 1
        01.500 > INVITE 1
        03.500 > INVITE 1
        07.500 > INVITE 1
        15.500 > INVITE 1
        31.500 > INVITE 1
        32.000 Ended 1 HungUp { bye_status: None }
    "#]]);
}

#[test]
fn a_200_that_crosses_our_cancel_is_acknowledged_and_ended() {
    let mut bench = Bench::new();
    bench.invite().respond("INVITE", 180, "t").until(1.0).hangup(1);
    bench.respond_with("INVITE", 200, "t", "", SDP).respond("CANCEL", 481, "t");
    bench.until(1.1).respond("BYE", 200, "").until(1.5);
    bench.respond_with("INVITE", 200, "t", "", SDP).check_over(expect![[r#"
        00.000 > INVITE 1
        00.000 Ringing 1 180
        01.000 > CANCEL 1
        01.000 > ACK 1
        01.000 > BYE 2
        01.100 Ended 1 HungUp { bye_status: Some(200) }
        01.500 > ACK 1
    "#]]);
}

#[test]
fn cancelled_invite_without_a_final_response_is_over_after_64_t1() {
    let mut bench = Bench::new();
    bench.invite().respond("INVITE", 180, "t").hangup(1).respond("CANCEL", 200, "t");
    bench.check_over(expect![[r#"
        00.000 > INVITE 1
        00.000 Ringing 1 180
        00.000 > CANCEL 1
        32.000 Ended 1 HungUp { bye_status: None }
    "#]]);
}

#[test]
fn forked_200_of_another_phone_is_acknowledged_and_ended() {
    let mut bench = Bench::new();
    bench.invite().respond_with("INVITE", 200, "t", "", SDP);
    bench.respond_with("INVITE", 200, "u", "", SDP).respond_with("INVITE", 200, "u", "", SDP);
    let bye = bench.last_request("BYE");
    assert!(bye.headers.get(Name::To).unwrap().ends_with(";tag=u"));
    bench.respond("BYE", 200, "").until(60.0).check(expect![[r#"
        00.000 > INVITE 1
        00.000 > ACK 1
        00.000 Answered 1 sdp
        00.000 > ACK 1
        00.000 > BYE 2
        00.000 > ACK 1
    "#]]);
    assert_eq!(bench.ua.dialogs(), 1);
}

#[test]
fn more_forks_than_the_limit_are_discarded() {
    let mut bench = Bench::new();
    bench.invite();
    for fork in 0..16 {
        bench.respond_with("INVITE", 200, &format!("t{fork}"), "", SDP);
    }
    bench.forget().respond_with("INVITE", 200, "t16", "", SDP);
    bench.check(expect![[r#"
        00.000 discarded too_many_forks
    "#]]);
}

#[test]
fn refused_connection_ends_the_call_at_once() {
    let mut bench = Bench::new();
    bench.phone = tcp_phone();
    bench.invite().order(|ua, now| ua.handle_transport_failed(now, tcp_phone()));
    bench.check_over(expect![[r#"
        00.000 > INVITE 1
        00.000 Ended 1 TransportFailed
    "#]]);
}

#[test]
fn requests_follow_the_route_set_backwards_and_a_strict_router_gets_its_own_uri() {
    let mut bench = Bench::new();
    let extra = "Record-Route: <sip:192.0.2.20;lr>, <sip:192.0.2.21:5070;lr>\r\n";
    bench.invite().respond_with("INVITE", 200, "t", extra, SDP);
    let loose = bench.last_text();
    assert!(loose.starts_with("ACK sip:bob@192.0.2.1:5060 SIP/2.0\r\n"), "{loose}");
    let routes = "\r\nRoute: <sip:192.0.2.21:5070;lr>\r\nRoute: <sip:192.0.2.20;lr>\r\n";
    assert!(loose.contains(routes), "{loose}");
    bench.check(expect![[r#"
        00.000 > INVITE 1
        00.000 > ACK 1 to udp:192.0.2.21:5070
        00.000 Answered 1 sdp
    "#]]);

    let mut bench = Bench::new();
    let extra = "Record-Route: <sip:192.0.2.20>\r\n";
    bench.invite().respond_with("INVITE", 200, "t", extra, SDP);
    let strict = bench.last_text();
    assert!(strict.starts_with("ACK sip:192.0.2.20 SIP/2.0\r\n"), "{strict}");
    assert!(strict.contains("\r\nRoute: <sip:bob@192.0.2.1:5060>\r\n"), "{strict}");
}

#[test]
fn responses_that_are_not_ours_are_discarded() {
    let mut bench = Bench::new();
    bench.invite().check(expect![[r#"
        00.000 > INVITE 1
    "#]]);
    let invite = bench.last_text();
    let ok = |via: &str| {
        let rest = invite.split_once("\r\nMax-Forwards").unwrap().1.split_once("\r\n").unwrap().1;
        let head = rest.split_once("Contact").unwrap().0;
        format!("SIP/2.0 200 OK\r\nVia: {via}\r\n{head}Content-Length: 0\r\n\r\n")
    };
    bench.receive(ok("SIP/2.0/UDP 203.0.113.1;branch=z9hG4bK1"));
    bench.receive(ok("SIP/2.0/UDP 198.51.100.1:5060;branch=z9hG4bK1"));
    bench.receive("SIP/2.0 200 OK\r\nVia: nonsense\r\n\r\n");
    bench.receive("SIP/2.0 99 What\r\n\r\n");
    bench.check(expect![[r#"
        00.000 discarded foreign_via
        00.000 discarded stray_response
        00.000 discarded malformed_response
        00.000 discarded status_code
    "#]]);
}

#[test]
fn orders_that_cannot_stand_in_a_message_are_refused() {
    let good = OutboundInvite {
        credentials: None,
        tcp_if_large: false,
        max_forwards: 70,
        target: "sip:bob@192.0.2.1".into(),
        peer: udp_phone(),
        from_uri: "sip:queue@198.51.100.1".into(),
        from_display: None,
        sdp: SDP.into(),
        headers: vec![],
    };
    let mut ua = Bench::with(|config| config.max_dialogs = 1).ua;
    let now = std::time::Instant::now();
    for target in ["bob", "sip:", "sip:a b", "sip:b>\r\nX: y", "tel:+49", "sip:b:99999"] {
        let invite = OutboundInvite { target: target.into(), ..good.clone() };
        let wanted = InviteError::Uri { field: "target", got: target.into() };
        assert_eq!(ua.invite(now, invite), Err(wanted));
    }
    for (name, value) in [("X", "a\r\nVia: b"), ("X y", "a"), ("Via", "a"), ("v", "a"), ("", "")] {
        let headers = vec![(name.to_owned(), value.to_owned())];
        let wanted = InviteError::Header { name: name.into(), value: value.into() };
        assert_eq!(ua.invite(now, OutboundInvite { headers, ..good.clone() }), Err(wanted));
    }
    assert!(ua.invite(now, good.clone()).is_ok());
    assert_eq!(ua.invite(now, good), Err(InviteError::Full { max: 1 }));
}

#[test]
fn an_invite_has_the_hops_it_is_given() {
    let mut ua = Bench::with(|_| ()).ua;
    let invite = OutboundInvite {
        credentials: None,
        tcp_if_large: false,
        max_forwards: 7,
        target: "sip:bob@192.0.2.1".into(),
        peer: udp_phone(),
        from_uri: "sip:queue@198.51.100.1".into(),
        from_display: None,
        sdp: SDP.into(),
        headers: vec![],
    };
    ua.invite(std::time::Instant::now(), invite).unwrap();
    let Some(Output::Send { bytes, .. }) = ua.poll_output() else { panic!("nothing was sent") };
    assert!(String::from_utf8_lossy(&bytes).contains("\r\nMax-Forwards: 7\r\n"));
}
