//! Early dialogs of our INVITE: forks, and reliable provisional responses (RFC 3262 §4).

use super::bench::{Bench, SDP};
use crate::header::Name;
use expect_test::expect;

const RELIABLE: &str = "Require: 100rel\r\nRSeq: ";

#[test]
fn each_reliable_response_is_acknowledged_once_and_in_order() {
    let mut bench = Bench::new();
    bench.invite();
    let mut ring = |rseq: u32| {
        bench.respond_with("INVITE", 180, "t", &format!("{RELIABLE}{rseq}\r\n"), "");
    };
    [7, 7, 9, 8, 9, 8].into_iter().for_each(&mut ring);
    assert_eq!(bench.last_request("PRACK").headers.get(Name::RAck), Some("9 1 INVITE"));
    bench.respond("PRACK", 200, "t").respond_with("INVITE", 200, "t", "", SDP);
    assert_eq!(bench.last_request("ACK").headers.get(Name::CSeq), Some("1 ACK"));
    bench.until(0.4).hangup(1).check(expect![[r#"
        00.000 > INVITE 1
        00.000 > PRACK 2
        00.000 Ringing 1 180
        00.000 > PRACK 3
        00.000 Ringing 1 180
        00.000 > PRACK 4
        00.000 Ringing 1 180
        00.000 > ACK 1
        00.000 Answered 1 sdp
        00.400 > BYE 5
    "#]]);
}

#[test]
fn forks_have_their_own_rseq_route_and_cseq() {
    let mut bench = Bench::new();
    let route =
        |name: &str| format!("{RELIABLE}1\r\nRecord-Route: <sip:{name}.example.com;lr>\r\n");
    bench.invite().respond_with("INVITE", 183, "a", &route("p"), SDP);
    assert_eq!(
        bench.last_request("PRACK").headers.get(Name::Route),
        Some("<sip:p.example.com;lr>")
    );
    bench.respond_with("INVITE", 183, "b", &route("q"), SDP);
    assert_eq!(
        bench.last_request("PRACK").headers.get(Name::Route),
        Some("<sip:q.example.com;lr>")
    );
    bench.request_in("UPDATE", "a", 100, "").request_in("UPDATE", "b", 50, "");
    bench.request_in("UPDATE", "b", 49, "").request_in("UPDATE", "c", 1, "");
    bench.respond_with("INVITE", 200, "b", "Record-Route: <sip:q.example.com;lr>\r\n", SDP);
    bench.until(0.1).check(expect![[r#"
        00.000 > INVITE 1
        00.000 > PRACK 2
        00.000 Ringing 1 183 sdp
        00.000 > PRACK 2
        00.000 Ringing 1 183 sdp
        00.000 > 200 UPDATE 100
        00.000 > 200 UPDATE 50
        00.000 > 500 UPDATE 49
        00.000 > 200 UPDATE 1
        00.000 > ACK 1
        00.000 Answered 1 sdp
    "#]]);
    bench.hangup(1);
    let bye = bench.last_request("BYE");
    assert_eq!(bye.headers.get(Name::CSeq), Some("3 BYE"), "PRACK was 2 in this dialog");
    assert_eq!(bye.headers.get(Name::Route), Some("<sip:q.example.com;lr>"));
}

#[test]
fn a_prack_that_nobody_answers_leaves_the_ringing_alone() {
    let mut bench = Bench::new();
    bench.invite().respond_with("INVITE", 180, "t", &format!("{RELIABLE}1\r\n"), "").until(60.0);
    bench.forget().respond_with("INVITE", 200, "t", "", SDP).check(expect![[r#"
        60.000 > ACK 1
        60.000 Answered 1 sdp
    "#]]);
}

#[test]
fn more_early_dialogs_than_are_kept_are_told_but_not_acknowledged_reliably() {
    let mut bench = Bench::new();
    bench.invite();
    for fork in 0..17 {
        bench.respond_with("INVITE", 180, &format!("t{fork}"), &format!("{RELIABLE}1\r\n"), "");
    }
    bench.respond("INVITE", 180, "t18");
    let log = bench.sent.iter().filter(|(_, bytes)| bytes.starts_with(b"PRACK")).count();
    assert_eq!(log, 16);
}
