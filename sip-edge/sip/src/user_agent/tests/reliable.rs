//! Reliable provisional responses of ours (RFC 3262 §3).

use super::bench::{Bench, Phone, SDP};
use crate::header::Name;
use crate::user_agent::LegId;
use expect_test::expect;

fn demanding() -> Phone {
    Phone::invite().header("Require: 100rel")
}

fn prack(tag: &str, cseq: u32, rack: &str) -> Phone {
    Phone::sends("PRACK").tag(tag).cseq(cseq).header(&format!("RAck: {rack}"))
}

/// RSeq of our last response.
fn rseq(bench: &Bench) -> u32 {
    bench.last_response().headers.get(Name::RSeq).expect("a reliable one").parse().unwrap()
}

fn early_media(bench: &mut Bench) -> &mut Bench {
    bench.order(|ua, now| ua.ring(now, LegId(1), 183, Some(SDP.into())))
}

#[test]
fn a_reliable_180_is_repeated_until_its_prack_and_never_after() {
    let mut bench = Bench::new();
    bench.receive(demanding()).ring(1).until(2.0);
    let (tag, rseq) = (bench.tag(), rseq(&bench));
    bench.receive(prack(&tag, 2, &format!("{rseq} 1 INVITE"))).until(10.0).answer(1);
    bench.receive(Phone::sends("ACK").tag(&tag)).check(expect![[r#"
        00.000 > 100 INVITE 1
        00.000 Invited 1 sdp
        00.000 > 180 INVITE 1
        00.500 > 180 INVITE 1
        01.500 > 180 INVITE 1
        02.000 > 200 PRACK 2
        10.000 > 200 INVITE 1
        10.000 Acknowledged 1
    "#]]);
}

#[test]
fn a_prack_of_another_response_is_refused_and_acknowledges_nothing() {
    let mut bench = Bench::new();
    bench.receive(demanding()).ring(1);
    let (tag, rseq) = (bench.tag(), rseq(&bench));
    for (cseq, rack) in [(2, "1 1"), (3, ""), (4, "1 1 BYE")] {
        bench.receive(prack(&tag, cseq, rack));
    }
    bench.receive(prack(&tag, 5, &format!("{} 1 INVITE", rseq + 1)));
    bench.receive(prack(&tag, 6, &format!("{rseq} 2 INVITE"))).until(1.0).check(expect![[r#"
        00.000 > 100 INVITE 1
        00.000 Invited 1 sdp
        00.000 > 180 INVITE 1
        00.000 > 481 PRACK 2
        00.000 > 481 PRACK 3
        00.000 > 481 PRACK 4
        00.000 > 481 PRACK 5
        00.000 > 481 PRACK 6
        00.500 > 180 INVITE 1
    "#]]);
}

#[test]
fn without_prack_the_invite_is_refused_after_64_t1() {
    let mut bench = Bench::new();
    bench.receive(demanding()).ring(1).until(32.0);
    let tag = bench.tag();
    bench.receive(Phone::sends("ACK").branch("INVITE").tag(&tag)).check_over(expect![[r#"
        00.000 > 100 INVITE 1
        00.000 Invited 1 sdp
        00.000 > 180 INVITE 1
        00.500 > 180 INVITE 1
        01.500 > 180 INVITE 1
        03.500 > 180 INVITE 1
        07.500 > 180 INVITE 1
        15.500 > 180 INVITE 1
        31.500 > 180 INVITE 1
        32.000 > 504 INVITE 1
        32.000 Ended 1 TimedOut
    "#]]);
}

#[test]
fn a_200_waits_for_the_prack_of_early_media_but_not_of_a_bare_180() {
    let mut bench = Bench::new();
    bench.receive(Phone::invite().header("Supported: 100rel, timer"));
    early_media(&mut bench).answer(1).until(0.4);
    let (tag, rseq) = (bench.tag(), rseq(&bench));
    bench.receive(prack(&tag, 2, &format!("{rseq} 1 INVITE"))).check(expect![[r#"
        00.000 > 100 INVITE 1
        00.000 Invited 1 sdp
        00.000 > 183 INVITE 1
        00.400 > 200 PRACK 2
        00.400 > 200 INVITE 1
    "#]]);
    let mut bench = Bench::new();
    bench.receive(demanding()).ring(1).answer(1).until(0.4).check(expect![[r#"
        00.000 > 100 INVITE 1
        00.000 Invited 1 sdp
        00.000 > 180 INVITE 1
        00.000 > 200 INVITE 1
    "#]]);
}

#[test]
fn the_next_reliable_response_waits_for_the_prack_and_has_the_next_rseq() {
    let mut bench = Bench::new();
    bench.receive(demanding()).ring(1);
    let (tag, first) = (bench.tag(), rseq(&bench));
    early_media(&mut bench).receive(prack(&tag, 2, &format!("{first} 1 INVITE")));
    assert_eq!(rseq(&bench), first + 1);
    bench.check(expect![[r#"
        00.000 > 100 INVITE 1
        00.000 Invited 1 sdp
        00.000 > 180 INVITE 1
        00.000 > 200 PRACK 2
        00.000 > 183 INVITE 1
    "#]]);
}

#[test]
fn a_caller_who_only_supports_it_gets_a_plain_180_and_a_late_offer_none_at_all() {
    let mut bench = Bench::new();
    bench.receive(Phone::invite().header("Supported: 100rel")).ring(1);
    assert_eq!(bench.last_response().headers.get(Name::RSeq), None);
    let mut bench = Bench::new();
    bench.receive(Phone::sends("INVITE").header("Require: 100rel")).ring(1).check(expect![[r#"
        00.000 > 100 INVITE 1
        00.000 Invited 1
    "#]]);
}

#[test]
fn an_offer_in_prack_is_refused_and_the_response_counts_as_acknowledged() {
    let mut bench = Bench::new();
    bench.receive(demanding());
    early_media(&mut bench);
    let (tag, rseq) = (bench.tag(), rseq(&bench));
    bench.receive(prack(&tag, 2, &format!("{rseq} 1 INVITE")).sdp()).until(5.0);
    bench.check(expect![[r#"
        00.000 > 100 INVITE 1
        00.000 Invited 1 sdp
        00.000 > 183 INVITE 1
        00.000 > 488 PRACK 2
    "#]]);
}

#[test]
fn cancel_and_rejection_end_the_repetition() {
    let mut bench = Bench::new();
    bench.receive(demanding()).ring(1).until(0.6).reject(1, 486);
    let tag = bench.tag();
    bench.receive(Phone::sends("ACK").branch("INVITE").tag(&tag)).check_over(expect![[r#"
        00.000 > 100 INVITE 1
        00.000 Invited 1 sdp
        00.000 > 180 INVITE 1
        00.500 > 180 INVITE 1
        00.600 > 486 INVITE 1
        00.600 Ended 1 HungUp { bye_status: None }
    "#]]);
}
