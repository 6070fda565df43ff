//! Calls to us, until they are answered or are over.

use super::bench::{Bench, Phone, WALL, tcp_phone};
use crate::header::Name;
use crate::peer::{Peer, Transport};
use crate::user_agent::LegId;
use expect_test::expect;

#[test]
fn call_is_answered_acknowledged_and_hung_up_by_the_phone() {
    let mut bench = Bench::new();
    bench.receive(Phone::invite()).until(1.0).ring(1).until(2.0).answer(1).until(2.1);
    let tag = bench.tag();
    bench.receive(Phone::sends("ACK").tag(&tag)).until(5.0);
    let bye = Phone::sends("BYE").tag(&tag).cseq(2).header("Reason: Q.850;cause=16");
    bench.receive(bye).check_over(expect![[r#"
        00.000 > 100 INVITE 1
        00.000 Invited 1 sdp
        01.000 > 180 INVITE 1
        02.000 > 200 INVITE 1
        02.100 Acknowledged 1
        05.000 > 200 BYE 2
        05.000 Ended 1 Bye { reason: Some("Q.850;cause=16") }
    "#]]);
}

#[test]
fn our_200_is_repeated_until_its_ack() {
    let mut bench = Bench::new();
    bench.receive(Phone::invite()).answer(1).until(4.0);
    let tag = bench.tag();
    bench.receive(Phone::sends("ACK").tag(&tag).branch("a"));
    bench.receive(Phone::sends("ACK").tag(&tag).branch("a")).until(20.0).check(expect![[r#"
        00.000 > 100 INVITE 1
        00.000 Invited 1 sdp
        00.000 > 200 INVITE 1
        00.500 > 200 INVITE 1
        01.500 > 200 INVITE 1
        03.500 > 200 INVITE 1
        04.000 Acknowledged 1
        04.000 discarded repeated_ack
    "#]]);
}

#[test]
fn our_200_is_repeated_by_tcp_too_and_without_ack_the_call_ends_with_bye() {
    let mut bench = Bench::new();
    bench.phone = tcp_phone();
    bench.receive(Phone::invite()).answer(1).until(32.0);
    bench.respond("BYE", 200, "").check_over(expect![[r#"
        00.000 > 100 INVITE 1
        00.000 Invited 1 sdp
        00.000 > 200 INVITE 1
        00.500 > 200 INVITE 1
        01.500 > 200 INVITE 1
        03.500 > 200 INVITE 1
        07.500 > 200 INVITE 1
        11.500 > 200 INVITE 1
        15.500 > 200 INVITE 1
        19.500 > 200 INVITE 1
        23.500 > 200 INVITE 1
        27.500 > 200 INVITE 1
        31.500 > 200 INVITE 1
        32.000 > BYE 1
        32.000 Ended 1 TimedOut
    "#]]);
}

#[test]
fn hangup_before_the_ack_waits_for_it() {
    let mut bench = Bench::new();
    bench.receive(Phone::invite()).answer(1).until(0.1).hangup(1).hangup(1).until(0.2);
    let tag = bench.tag();
    bench.receive(Phone::sends("ACK").tag(&tag)).until(0.3).respond("BYE", 200, "");
    bench.check_over(expect![[r#"
        00.000 > 100 INVITE 1
        00.000 Invited 1 sdp
        00.000 > 200 INVITE 1
        00.200 Acknowledged 1
        00.200 > BYE 1
        00.300 Ended 1 HungUp { bye_status: Some(200) }
    "#]]);
}

#[test]
fn hangup_whose_ack_never_comes_says_bye_all_the_same() {
    let mut bench = Bench::new();
    bench.receive(Phone::invite()).answer(1).until(20.0).check(expect![[r#"
        00.000 > 100 INVITE 1
        00.000 Invited 1 sdp
        00.000 > 200 INVITE 1
        00.500 > 200 INVITE 1
        01.500 > 200 INVITE 1
        03.500 > 200 INVITE 1
        07.500 > 200 INVITE 1
        11.500 > 200 INVITE 1
        15.500 > 200 INVITE 1
        19.500 > 200 INVITE 1
    "#]]);
    bench.hangup(1).until(32.1).respond("BYE", 481, "").check_over(expect![[r#"
        23.500 > 200 INVITE 1
        27.500 > 200 INVITE 1
        31.500 > 200 INVITE 1
        32.000 > BYE 1
        32.100 Ended 1 HungUp { bye_status: Some(481) }
    "#]]);
}

#[test]
fn cancel_gets_200_and_the_invite_487() {
    let mut bench = Bench::new();
    bench.receive(Phone::invite()).ring(1).until(1.0);
    let cancel = Phone::sends("CANCEL").branch("INVITE").header("Reason: SIP;cause=200");
    bench.receive(cancel).receive(Phone::sends("ACK").branch("INVITE"));
    bench.answer(1).ring(1).hangup(1).check_over(expect![[r#"
        00.000 > 100 INVITE 1
        00.000 Invited 1 sdp
        00.000 > 180 INVITE 1
        01.000 > 200 CANCEL 1
        01.000 > 487 INVITE 1
        01.000 Ended 1 Cancelled { reason: Some("SIP;cause=200") }
    "#]]);
}

#[test]
fn cancel_after_our_200_or_of_nothing_has_no_effect() {
    let mut bench = Bench::new();
    bench.receive(Phone::invite()).answer(1);
    let tag = bench.tag();
    bench.receive(Phone::sends("CANCEL").branch("INVITE"));
    assert_eq!(bench.tag(), tag, "RFC 3261 §9.2");
    bench.receive(Phone::sends("CANCEL").branch("other")).receive(Phone::sends("ACK").tag(&tag));
    bench.until(40.0).check(expect![[r#"
        00.000 > 100 INVITE 1
        00.000 Invited 1 sdp
        00.000 > 200 INVITE 1
        00.000 > 200 CANCEL 1
        00.000 > 481 CANCEL 1
        00.000 Acknowledged 1
    "#]]);
    assert_eq!(bench.ua.dialogs(), 1);
}

#[test]
fn retransmitted_invite_is_absorbed_and_gets_the_last_response_again() {
    let mut bench = Bench::new();
    let invite = Phone::invite();
    bench.receive(invite.clone()).until(0.5).receive(invite.clone()).until(1.0).ring(1);
    bench.until(1.5).receive(invite.clone()).until(2.0).reject(1, 486).until(2.1).receive(invite);
    bench.receive(Phone::sends("ACK").branch("INVITE")).check_over(expect![[r#"
        00.000 > 100 INVITE 1
        00.000 Invited 1 sdp
        00.500 > 100 INVITE 1
        01.000 > 180 INVITE 1
        01.500 > 180 INVITE 1
        02.000 > 486 INVITE 1
        02.000 Ended 1 HungUp { bye_status: None }
        02.100 > 486 INVITE 1
    "#]]);
}

#[test]
fn unanswered_call_repeats_its_180_every_minute() {
    let mut bench = Bench::new();
    bench.receive(Phone::invite()).ring(1).until(130.0).hangup(1);
    bench.receive(Phone::sends("ACK").branch("INVITE")).check_over(expect![[r#"
        00.000 > 100 INVITE 1
        00.000 Invited 1 sdp
        00.000 > 180 INVITE 1
        60.000 > 180 INVITE 1
        120.000 > 180 INVITE 1
        130.000 > 480 INVITE 1
        130.000 Ended 1 HungUp { bye_status: None }
    "#]]);
}

#[test]
fn merged_invite_is_refused_with_482() {
    let mut bench = Bench::new();
    bench.receive(Phone::invite()).receive(Phone::invite().branch("other-way"));
    bench.check(expect![[r#"
        00.000 > 100 INVITE 1
        00.000 Invited 1 sdp
        00.000 > 482 INVITE 1
    "#]]);
}

#[test]
fn refusals_name_what_is_wrong_and_leave_no_leg() {
    for (invite, expected) in [
        (
            Phone::invite().header("Max-Forwards: 0"),
            expect![[r#"
            00.000 > 483 INVITE 1
        "#]],
        ),
        (
            Phone::invite().header("Require: 100rel, foo"),
            expect![[r#"
                00.000 > 420 INVITE 1
                       Unsupported: foo
            "#]],
        ),
        (
            Phone::sends("INVITE").header("Content-Type: text/plain").body("hi"),
            expect![[r#"
            00.000 > 415 INVITE 1
                   Accept: application/sdp
                   Accept-Encoding: identity
        "#]],
        ),
        (
            Phone::invite().tag("unknown"),
            expect![[r#"
            00.000 > 481 INVITE 1
        "#]],
        ),
        (
            Phone::sends("BYE").tag("unknown"),
            expect![[r#"
            00.000 > 481 BYE 1
        "#]],
        ),
        (
            Phone::sends("INFO"),
            expect![[r#"
            00.000 > 481 INFO 1
        "#]],
        ),
        (
            Phone::sends("PRACK").tag("unknown"),
            expect![[r#"
                00.000 > 481 PRACK 1
            "#]],
        ),
        (
            Phone::sends("SUBSCRIBE"),
            expect![[r#"
                00.000 > 405 SUBSCRIBE 1
                       Allow: INVITE, ACK, BYE, CANCEL, OPTIONS, REGISTER, INFO, PRACK, UPDATE, REFER, NOTIFY
            "#]],
        ),
        (
            Phone::sends("FLY"),
            expect![[r#"
                00.000 > 501 FLY 1
                       Allow: INVITE, ACK, BYE, CANCEL, OPTIONS, REGISTER, INFO, PRACK, UPDATE, REFER, NOTIFY
            "#]],
        ),
        (
            Phone::sends("OPTIONS").header("Require: foo"),
            expect![[r#"
            00.000 > 420 OPTIONS 1
                   Unsupported: foo
        "#]],
        ),
        (
            Phone::sends("OPTIONS"),
            expect![[r#"
                00.000 > 200 OPTIONS 1
                       Allow: INVITE, ACK, BYE, CANCEL, OPTIONS, REGISTER, INFO, PRACK, UPDATE, REFER, NOTIFY
                       Accept: application/sdp
                       Supported: 100rel, timer, replaces, norefersub
            "#]],
        ),
        (
            Phone::sends("INVITE").header("CSeq: 4 INVITE"),
            expect![[r#"
            00.000 discarded malformed_request
            00.000 > 400 INVITE 1
        "#]],
        ),
        (
            Phone::sends("ACK").tag("unknown"),
            expect![[r#"
            00.000 discarded stray_ack
        "#]],
        ),
    ] {
        let mut bench = Bench::new();
        bench.receive(invite);
        let extra = bench.sent.last().map(|_| {
            let text = bench.last_text();
            let wanted = ["Retry-After", "Unsupported", "Accept", "Allow", "Supported"];
            let lines = text.lines().filter(|it| wanted.iter().any(|name| it.starts_with(name)));
            lines.map(|line| format!("       {line}\n")).collect::<String>()
        });
        bench.note(&extra.unwrap_or_default());
        bench.check(expected);
        assert_eq!(bench.ua.dialogs(), 0);
    }
}

#[test]
fn above_the_limit_of_dialogs_a_call_is_refused_with_503_and_retry_after() {
    let mut bench = Bench::with(|config| config.max_dialogs = 1);
    bench.receive(Phone::invite()).receive(Phone::invite().call_id("c2"));
    assert!(bench.last_text().contains("\r\nRetry-After: 5\r\n"));
    bench.check(expect![[r#"
        00.000 > 100 INVITE 1
        00.000 Invited 1 sdp
        00.000 > 503 INVITE 1
    "#]]);
}

#[test]
fn who_drains_says_so_to_options_and_goes_on_with_its_dialogs() {
    let mut bench = Bench::with(|_| {});
    bench.receive(Phone::invite()).answer(1);
    let tag = bench.tag();
    bench.ua.drain();
    bench.receive(Phone::sends("ACK").tag(&tag));
    bench.receive(Phone::sends("OPTIONS").call_id("c2"));
    assert!(bench.last_text().contains("\r\nRetry-After: 5\r\n"));
    bench.receive(Phone::sends("OPTIONS").tag(&tag).cseq(2)).check(expect![[r#"
        00.000 > 100 INVITE 1
        00.000 Invited 1 sdp
        00.000 > 200 INVITE 1
        00.000 Acknowledged 1
        00.000 > 503 OPTIONS 1
        00.000 > 200 OPTIONS 2
    "#]]);
}

#[test]
fn above_the_limit_of_transactions_a_request_is_refused_without_one() {
    let mut bench = Bench::with(|config| config.max_transactions = 1);
    bench.receive(Phone::invite());
    for _ in 0..2 {
        bench.receive(Phone::sends("OPTIONS").call_id("c2"));
    }
    let [.., (_, first), (_, second)] = &bench.sent[..] else { panic!("two responses") };
    assert_eq!(first, second, "RFC 3261 §8.2.7: the same To tag");
    bench.check(expect![[r#"
        00.000 > 100 INVITE 1
        00.000 Invited 1 sdp
        00.000 discarded transactions_full
        00.000 > 503 OPTIONS 1
        00.000 discarded transactions_full
        00.000 > 503 OPTIONS 1
    "#]]);
    assert_eq!(bench.ua.transactions(), 1);
}

#[test]
fn strangers_leave_room_for_the_calls_that_stand() {
    let mut bench = Bench::with(|config| config.max_transactions = 8);
    bench.receive(Phone::invite()).answer(1);
    let tag = bench.tag();
    bench.receive(Phone::invite().branch("pending").call_id("c2"));
    for other in ["c3", "c4", "c5", "c6", "c7"] {
        bench.receive(Phone::sends("OPTIONS").call_id(other));
    }
    bench.receive(Phone::sends("ACK").tag(&tag)).forget();
    bench.receive(Phone::sends("OPTIONS").call_id("c8")).check(expect![[r#"
        00.000 discarded transactions_full
        00.000 > 503 OPTIONS 1
    "#]]);
    bench.receive(Phone::sends("CANCEL").branch("pending").call_id("c2")).check(expect![[r#"
        00.000 > 200 CANCEL 1
        00.000 > 487 INVITE 1
        00.000 Ended 2 Cancelled { reason: None }
    "#]]);
    let mut bench = Bench::with(|config| config.max_transactions = 8);
    bench.receive(Phone::invite()).answer(1);
    let tag = bench.tag();
    for other in ["c2", "c3", "c4", "c5", "c6", "c7", "c8"] {
        bench.receive(Phone::sends("OPTIONS").call_id(other));
    }
    bench.forget().receive(Phone::sends("BYE").tag(&tag).cseq(2)).check(expect![[r#"
        00.000 > 200 BYE 2
        00.000 Ended 1 Bye { reason: None }
    "#]]);
}

#[test]
fn above_the_limit_of_bytes_strangers_are_refused_until_transactions_end() {
    let mut bench = Bench::with(|config| config.max_transaction_bytes = 8_000);
    let big = |call_id| Phone::sends("OPTIONS").call_id(call_id).header(&"X: y".repeat(1_000));
    bench.receive(big("c1")).receive(big("c2")).until(33.0).receive(big("c3"));
    bench.check(expect![[r#"
        00.000 > 200 OPTIONS 1
        00.000 discarded transactions_full
        00.000 > 503 OPTIONS 1
        33.000 > 200 OPTIONS 1
    "#]]);
}

#[test]
fn late_offer_takes_the_answer_out_of_the_ack() {
    let mut bench = Bench::new();
    bench.receive(Phone::sends("INVITE")).answer(1);
    let tag = bench.tag();
    bench.receive(Phone::sends("ACK").tag(&tag).sdp()).check(expect![[r#"
        00.000 > 100 INVITE 1
        00.000 Invited 1
        00.000 > 200 INVITE 1
        00.000 Acknowledged 1 sdp
    "#]]);
}

#[test]
fn response_goes_to_the_source_port_only_if_rport_asks_for_it() {
    let mut bench = Bench::new();
    let addr = "192.0.2.7:9999".parse().unwrap();
    let nat = Peer::new(Transport::Udp, addr);
    let text = String::from_utf8(Phone::sends("OPTIONS").text().to_vec()).unwrap();
    bench.receive_from(nat, text.clone());
    bench.receive_from(nat, text.replace("branch=", "rport;branch=x").replace("c1", "c2"));
    let response = bench.last_response();
    let via = response.headers.get(Name::Via).unwrap();
    assert_eq!(
        via,
        "SIP/2.0/UDP 192.0.2.1:5060;rport=9999;branch=xz9hG4bKOPTIONS;received=192.0.2.7"
    );
    bench.check(expect![[r#"
        00.000 > 200 OPTIONS 1 to udp:192.0.2.7:5060
        00.000 > 200 OPTIONS 1 to udp:192.0.2.7:9999
    "#]]);
}

#[test]
fn challenged_call_comes_again_with_the_name_it_proved() {
    let mut bench = Bench::new();
    bench.receive(Phone::invite());
    bench.order(|ua, now| ua.challenge(now, WALL, LegId(1)));
    let text = bench.last_text();
    let mut challenges = text.lines().filter_map(|it| it.strip_prefix("WWW-Authenticate: "));
    let challenge = challenges.next().unwrap().to_owned();
    bench.receive(Phone::sends("ACK").branch("INVITE"));
    let uri = "sip:1008@198.51.100.1";
    let value = crate::digest::authorize(&challenge, "anna", "secret", "INVITE", uri, 1);
    bench.receive(Phone::invite().cseq(2).header(&format!("Authorization: {value}")));
    bench.check(expect![[r#"
        00.000 > 100 INVITE 1
        00.000 Invited 1 sdp
        00.000 > 401 INVITE 1
        00.000 Ended 1 HungUp { bye_status: None }
        00.000 > 100 INVITE 2
        00.000 Invited 2 sdp by anna
    "#]]);
}

#[test]
fn peer_without_the_magic_cookie_is_matched_as_rfc_2543_did() {
    let mut bench = Bench::new();
    let plain = |message: Phone| {
        let text = String::from_utf8(message.text().to_vec()).unwrap();
        text.replace(";branch=z9hG4bKINVITE", "")
    };
    bench.receive(plain(Phone::invite())).receive(plain(Phone::invite())).reject(1, 486);
    bench.receive(plain(Phone::sends("ACK").branch("INVITE"))).check_over(expect![[r#"
        00.000 > 100 INVITE 1
        00.000 Invited 1 sdp
        00.000 > 100 INVITE 1
        00.000 > 486 INVITE 1
        00.000 Ended 1 HungUp { bye_status: None }
    "#]]);
}

#[test]
fn lost_connection_ends_a_call_that_waits_for_an_answer() {
    let mut bench = Bench::new();
    bench.phone = tcp_phone();
    bench.receive(Phone::invite());
    bench.order(|ua, now| ua.handle_transport_failed(now, tcp_phone())).check_over(expect![[r#"
        00.000 > 100 INVITE 1
        00.000 Invited 1 sdp
        00.000 Ended 1 TransportFailed
    "#]]);
}
