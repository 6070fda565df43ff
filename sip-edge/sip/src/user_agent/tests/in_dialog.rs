//! What happens in a call that stands: re-INVITE, INFO, BYE.

use super::bench::{Bench, Phone, SDP};
use crate::peer::{Peer, Transport};
use expect_test::expect;

fn standing() -> (Bench, String) {
    Bench::standing(Phone::invite())
}

#[test]
fn reinvite_is_answered_and_acknowledged_and_a_late_offer_too() {
    let (mut bench, tag) = standing();
    bench.receive(Phone::invite().tag(&tag).cseq(2)).answer(1);
    bench.receive(Phone::sends("ACK").tag(&tag).cseq(2));
    bench.receive(Phone::sends("INVITE").tag(&tag).cseq(3)).answer(1).until(41.0);
    bench.receive(Phone::sends("ACK").tag(&tag).cseq(2));
    bench.receive(Phone::sends("ACK").tag(&tag).cseq(3).sdp()).until(90.0).check(expect![[r#"
        40.000 > 100 INVITE 2
        40.000 Reinvited 1 sdp
        40.000 > 200 INVITE 2
        40.000 Acknowledged 1
        40.000 > 100 INVITE 3
        40.000 Reinvited 1
        40.000 > 200 INVITE 3
        40.500 > 200 INVITE 3
        41.000 discarded repeated_ack
        41.000 Acknowledged 1 sdp
    "#]]);
}

#[test]
fn rejected_reinvite_leaves_the_call_standing() {
    let (mut bench, tag) = standing();
    bench.receive(Phone::invite().tag(&tag).cseq(2).branch("r")).reject(1, 488);
    bench.receive(Phone::sends("ACK").tag(&tag).cseq(2).branch("r")).until(90.0);
    bench.check(expect![[r#"
        40.000 > 100 INVITE 2
        40.000 Reinvited 1 sdp
        40.000 > 488 INVITE 2
    "#]]);
    assert_eq!(bench.ua.dialogs(), 1);
}

#[test]
fn second_reinvite_is_refused_500_and_one_before_the_ack_491() {
    let (mut bench, tag) = standing();
    bench.receive(Phone::invite().tag(&tag).cseq(2));
    bench.receive(Phone::invite().tag(&tag).cseq(3));
    assert!(bench.last_text().contains("\r\nRetry-After: "));
    bench.answer(1).receive(Phone::invite().tag(&tag).cseq(4)).check(expect![[r#"
        40.000 > 100 INVITE 2
        40.000 Reinvited 1 sdp
        40.000 > 500 INVITE 3
        40.000 > 200 INVITE 2
        40.000 > 491 INVITE 4
    "#]]);
}

#[test]
fn cancelled_reinvite_leaves_the_call_standing() {
    let (mut bench, tag) = standing();
    bench.receive(Phone::invite().tag(&tag).cseq(2).branch("r"));
    bench.receive(Phone::sends("CANCEL").tag(&tag).branch("r")).answer(1).check(expect![[r#"
        40.000 > 100 INVITE 2
        40.000 Reinvited 1 sdp
        40.000 > 200 CANCEL 1
        40.000 > 487 INVITE 2
    "#]]);
    assert_eq!(bench.ua.dialogs(), 1);
}

#[test]
fn reinvite_whose_200_is_never_acknowledged_ends_the_call() {
    let (mut bench, tag) = standing();
    bench.receive(Phone::invite().tag(&tag).cseq(2)).answer(1).check(expect![[r#"
        40.000 > 100 INVITE 2
        40.000 Reinvited 1 sdp
        40.000 > 200 INVITE 2
    "#]]);
    bench
        .until(71.9)
        .check(expect![[r#"
        40.500 > 200 INVITE 2
        41.500 > 200 INVITE 2
        43.500 > 200 INVITE 2
        47.500 > 200 INVITE 2
        51.500 > 200 INVITE 2
        55.500 > 200 INVITE 2
        59.500 > 200 INVITE 2
        63.500 > 200 INVITE 2
        67.500 > 200 INVITE 2
        71.500 > 200 INVITE 2
    "#]])
        .until(72.0)
        .respond("BYE", 200, "");
    bench.check_over(expect![[r#"
        72.000 > BYE 1
        72.000 Ended 1 TimedOut
    "#]]);
}

#[test]
fn bye_ends_a_reinvite_that_waits() {
    let (mut bench, tag) = standing();
    bench.receive(Phone::invite().tag(&tag).cseq(2).branch("r"));
    bench.receive(Phone::sends("BYE").tag(&tag).cseq(3)).answer(1);
    bench.receive(Phone::sends("ACK").tag(&tag).cseq(2).branch("r")).check_over(expect![[r#"
        40.000 > 100 INVITE 2
        40.000 Reinvited 1 sdp
        40.000 > 200 BYE 3
        40.000 > 487 INVITE 2
        40.000 Ended 1 Bye { reason: None }
    "#]]);
}

#[test]
fn byes_that_cross_are_both_answered() {
    let (mut bench, tag) = standing();
    bench.hangup(1).receive(Phone::sends("BYE").tag(&tag).cseq(2));
    bench.receive(Phone::sends("INFO").tag(&tag).cseq(3)).until(40.1).respond("BYE", 481, "");
    bench.check_over(expect![[r#"
        40.000 > BYE 1
        40.000 > 200 BYE 2
        40.000 > 481 INFO 3
        40.100 Ended 1 HungUp { bye_status: Some(481) }
    "#]]);
}

#[test]
fn info_is_answered_and_told_and_a_cseq_that_is_not_above_the_last_is_refused() {
    let (mut bench, tag) = standing();
    let info = Phone::sends("INFO").header("Content-Type: application/dtmf-relay").body("Signal=1");
    bench.receive(info.clone().tag(&tag).cseq(5)).receive(info.clone().tag(&tag).cseq(5));
    bench.receive(info.clone().tag(&tag).branch("equal").cseq(5));
    bench.receive(info.clone().tag(&tag).branch("late").cseq(4));
    bench.receive(Phone::sends("OPTIONS").tag(&tag).cseq(6));
    bench.receive(info.tag(&tag).call_id("other").cseq(7)).check(expect![[r#"
        40.000 > 200 INFO 5
        40.000 Info 1 application/dtmf-relay b"Signal=1"
        40.000 > 200 INFO 5
        40.000 > 500 INFO 5
        40.000 > 500 INFO 4
        40.000 > 200 OPTIONS 6
        40.000 > 481 INFO 7
    "#]]);
}

#[test]
fn bye_of_the_caller_before_the_answer_ends_the_call() {
    let mut bench = Bench::new();
    bench.receive(Phone::invite()).ring(1);
    let tag = bench.tag();
    bench.receive(Phone::sends("BYE").tag(&tag).cseq(2));
    bench.receive(Phone::sends("ACK").branch("INVITE")).check_over(expect![[r#"
        00.000 > 100 INVITE 1
        00.000 Invited 1 sdp
        00.000 > 180 INVITE 1
        00.000 > 200 BYE 2
        00.000 > 487 INVITE 1
        00.000 Ended 1 Bye { reason: None }
    "#]]);
}

#[test]
fn bye_goes_to_the_contact_but_to_the_source_if_the_contact_cannot_be_reached() {
    for (contact, source, wanted) in [
        ("sip:a@192.0.2.1:5061", "192.0.2.1:5060", "udp:192.0.2.1:5061"),
        ("sip:a@192.0.2.9", "192.0.2.1:5060", "udp:192.0.2.9:5060"),
        ("sip:a@192.0.2.9;transport=tcp", "192.0.2.1:5060", "tcp:192.0.2.9:5060"),
        ("sip:a@10.0.0.1", "192.0.2.1:7000", "udp:192.0.2.1:7000"),
        ("sip:a@phone.example", "192.0.2.1:7000", "udp:192.0.2.1:7000"),
        ("sip:a@192.0.2.9;transport=tls", "192.0.2.1:7000", "tls:192.0.2.9:5061"),
        ("sip:a@192.0.2.9;transport=ws", "192.0.2.1:7000", "udp:192.0.2.1:7000"),
        ("sips:a@192.0.2.9", "192.0.2.1:7000", "udp:192.0.2.1:7000"),
        ("sip:a@10.0.0.1:9", "10.0.0.1:7000", "udp:10.0.0.1:9"),
    ] {
        let mut bench = Bench::new();
        let source = Peer::new(Transport::Udp, source.parse().unwrap());
        let invite = Phone::invite().header(&format!("Contact: <{contact}>"));
        bench.receive_from(source, invite).answer(1);
        let tag = bench.tag();
        bench.receive_from(source, Phone::sends("ACK").tag(&tag)).hangup(1);
        let (peer, bye) = bench.sent.last().unwrap();
        assert!(bye.starts_with(format!("BYE {contact} SIP/2.0\r\n").as_bytes()), "{contact}");
        assert_eq!(peer.to_string(), wanted, "{contact}");
    }
}

#[test]
fn reinvite_moves_the_contact_and_any_request_the_source() {
    let (mut bench, tag) = standing();
    let moved = Phone::invite().tag(&tag).cseq(2).header("Contact: <sip:anna@192.0.2.8:5080>");
    bench.receive(moved).answer(1).receive(Phone::sends("ACK").tag(&tag).cseq(2)).hangup(1);
    assert!(bench.last_text().starts_with("BYE sip:anna@192.0.2.8:5080 SIP/2.0\r\n"));
    assert_eq!(bench.sent.last().unwrap().0.to_string(), "udp:192.0.2.8:5080");

    let (mut bench, tag) = standing();
    let nat = Peer::new(Transport::Udp, "203.0.113.5:33000".parse().unwrap());
    let moved = Phone::invite().tag(&tag).cseq(2).header("Contact: <sip:anna@10.0.0.9>");
    bench.receive_from(nat, moved).answer(1);
    let nat = Peer { addr: "203.0.113.5:44000".parse().unwrap(), ..nat };
    bench.receive_from(nat, Phone::sends("ACK").tag(&tag).cseq(2)).hangup(1);
    assert_eq!(bench.sent.last().unwrap().0, nat, "the ACK came from there");
}

#[test]
fn bye_whose_connection_is_gone_goes_to_the_address_of_the_route() {
    let mut bench = Bench::new();
    let addr = "192.0.2.1:40000".parse().unwrap();
    bench.phone = Peer::new(Transport::Tcp, addr);
    let route = "Record-Route: <sip:192.0.2.1:5060;transport=tcp;lr>";
    bench.receive(Phone::invite().header(route)).answer(1);
    let tag = bench.tag();
    bench.receive(Phone::sends("ACK").tag(&tag)).until(200.0).forget().hangup(1);
    let gone = bench.phone;
    bench.order(|ua, now| ua.handle_transport_failed(now, gone));
    assert!(bench.last_text().contains("\r\nReason: Q.850;cause=16\r\n"));
    let listening = Peer::new(Transport::Tcp, "192.0.2.1:5060".parse().unwrap());
    bench.order(|ua, now| ua.handle_transport_failed(now, listening)).check_over(expect![[r#"
        200.000 > BYE 1
        200.000 > BYE 2 to tcp:192.0.2.1:5060
        200.000 Ended 1 HungUp { bye_status: None }
    "#]]);
}

/// BYE of the phone in the call that we made.
fn bye_of_the_callee(bench: &Bench) -> String {
    let invite = bench.last_request("INVITE");
    let header = |name| invite.headers.get(name).unwrap().to_owned();
    use crate::header::Name::{CallId, From, To};
    format!(
        "BYE sip:198.51.100.1 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKb\r\n\
         From: {};tag=t\r\nTo: {}\r\nCall-ID: {}\r\nCSeq: 9 BYE\r\n\r\n",
        header(To),
        header(From),
        header(CallId)
    )
}

#[test]
fn bye_of_the_callee_before_its_answer_ends_the_call_and_its_invite() {
    let mut bench = Bench::new();
    bench.invite().respond("INVITE", 180, "t");
    bench.receive(bye_of_the_callee(&bench)).respond("CANCEL", 200, "t");
    bench.check_over(expect![[r#"
        00.000 > INVITE 1
        00.000 Ringing 1 180
        00.000 > 200 BYE 9
        00.000 > CANCEL 1
        00.000 Ended 1 Bye { reason: None }
    "#]]);

    let mut bench = Bench::new();
    bench.invite();
    bench.receive(bye_of_the_callee(&bench)).respond("INVITE", 180, "t");
    bench.until(20.0).respond("INVITE", 180, "t").check_over(expect![[r#"
        00.000 > INVITE 1
        00.000 > 200 BYE 9
        00.000 Ended 1 Bye { reason: None }
        00.000 > CANCEL 1
        00.500 > CANCEL 1
        01.500 > CANCEL 1
        03.500 > CANCEL 1
        07.500 > CANCEL 1
        11.500 > CANCEL 1
        15.500 > CANCEL 1
        19.500 > CANCEL 1
        23.500 > CANCEL 1
        27.500 > CANCEL 1
        31.500 > CANCEL 1
    "#]]);
}

#[test]
fn bye_that_overtook_its_200_ends_the_call_and_the_200_is_ended_too() {
    let mut bench = Bench::new();
    bench.invite();
    bench.receive(bye_of_the_callee(&bench));
    bench.respond_with("INVITE", 200, "t", "", SDP).respond("BYE", 481, "");
    bench.check_over(expect![[r#"
        00.000 > INVITE 1
        00.000 > 200 BYE 9
        00.000 Ended 1 Bye { reason: None }
        00.000 > ACK 1
        00.000 > BYE 2
    "#]]);
}

#[test]
fn bye_of_the_callee_whom_we_cancel_waits_for_the_end_of_the_invite() {
    let mut bench = Bench::new();
    bench.invite().respond("INVITE", 180, "t").hangup(1).respond("CANCEL", 200, "t");
    bench.receive(bye_of_the_callee(&bench)).until(1.0).respond("INVITE", 487, "t");
    bench.check_over(expect![[r#"
        00.000 > INVITE 1
        00.000 Ringing 1 180
        00.000 > CANCEL 1
        00.000 > 200 BYE 9
        01.000 > ACK 1
        01.000 Ended 1 HungUp { bye_status: None }
    "#]]);
}

#[test]
fn reinvite_whose_connection_breaks_is_answered_to_nobody() {
    let (mut bench, tag) = standing();
    let addr = "192.0.2.1:40000".parse().unwrap();
    let tcp = Peer::new(Transport::Tcp, addr);
    bench.receive_from(tcp, Phone::invite().tag(&tag).cseq(2)).forget();
    bench.order(|ua, now| ua.handle_transport_failed(now, tcp)).answer(1).until(90.0);
    bench.check(expect![""]);
    bench.receive(Phone::invite().tag(&tag).cseq(3)).answer(1).check(expect![[r#"
        90.000 > 100 INVITE 3
        90.000 Reinvited 1 sdp
        90.000 > 200 INVITE 3
    "#]]);
}

#[test]
fn call_of_ours_is_ended_by_the_phone() {
    let mut bench = Bench::new();
    bench.invite().respond_with("INVITE", 200, "t", "", SDP);
    let bye = bye_of_the_callee(&bench);
    bench.receive(bye.replace("tag=t", "tag=x")).receive(bye.replace("z9hG4bKb", "z9hG4bKc"));
    bench.check_over(expect![[r#"
        00.000 > INVITE 1
        00.000 > ACK 1
        00.000 Answered 1 sdp
        00.000 > 481 BYE 9
        00.000 > 200 BYE 9
        00.000 Ended 1 Bye { reason: None }
    "#]]);
}
