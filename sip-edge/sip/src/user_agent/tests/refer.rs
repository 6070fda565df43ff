//! REFER both ways, and INVITE with Replaces (RFC 3515, 4488, 3891).

use super::bench::{Bench, Phone, SDP};
use crate::header::Name;
use crate::replaces::{ReferTo, Replaces};
use crate::user_agent::{LegId, OutboundRefer};
use expect_test::expect;

fn refer(tag: &str, cseq: u32, to: &str) -> Phone {
    Phone::sends("REFER").tag(tag).cseq(cseq).header(&format!("Refer-To: {to}"))
}

fn accept(bench: &mut Bench) -> &mut Bench {
    bench.order(|ua, now| ua.accept_refer(now, LegId(1)))
}

fn notify(bench: &mut Bench, status: u16) -> &mut Bench {
    bench.order(|ua, now| ua.notify_refer(now, LegId(1), status))
}

#[test]
fn a_refer_is_accepted_and_its_outcome_told() {
    let (mut bench, tag) = Bench::standing(Phone::invite());
    bench.receive(refer(&tag, 2, "<sip:carol@192.0.2.3>").header("Referred-By: <sip:anna@h>"));
    accept(&mut bench).respond("NOTIFY", 200, "");
    notify(&mut bench, 180).respond("NOTIFY", 200, "");
    notify(&mut bench, 200).respond("NOTIFY", 200, "");
    notify(&mut bench, 200).until(40.1).check(expect![[r#"
        40.000 Referred 1 to sip:carol@192.0.2.3 by <sip:anna@h>
        40.000 > 202 REFER 2
        40.000 > NOTIFY 1
        40.000 > NOTIFY 2
        40.000 > NOTIFY 3
    "#]]);
    let last = bench.last_request("NOTIFY");
    assert_eq!(last.body, "SIP/2.0 200 OK\r\n");
    assert_eq!(last.headers.get(Name::Event), Some("refer;id=2"));
    assert_eq!(last.headers.get(Name::SubscriptionState), Some("terminated;reason=noresource"));
    assert_eq!(last.headers.get(Name::ContentType), Some("message/sipfrag;version=2.0"));
}

#[test]
fn who_wants_no_notify_gets_none() {
    let (mut bench, tag) = Bench::standing(Phone::invite());
    let quiet =
        refer(&tag, 2, "sip:carol@h").header("Refer-Sub: false").header("Require: norefersub");
    accept(bench.receive(quiet));
    assert_eq!(bench.last_response().headers.get(Name::ReferSub), Some("false"));
    notify(&mut bench, 200).until(40.1).check(expect![[r#"
        40.000 Referred 1 to sip:carol@h
        40.000 > 202 REFER 2
    "#]]);
}

#[test]
fn bad_refers_are_refused_each_with_its_status() {
    let (mut bench, tag) = Bench::standing(Phone::invite());
    bench
        .receive(refer(&tag, 2, "tel").branch("a"))
        .receive(Phone::sends("REFER").tag(&tag).cseq(3));
    bench.receive(refer(&tag, 4, "<sip:c@h;method=BYE>").branch("b"));
    bench.receive(refer(&tag, 5, "sip:c@h").header("Refer-To: sip:d@h"));
    bench.receive(refer("", 6, "sip:c@h").branch("none"));
    bench.receive(refer(&tag, 7, "sip:c@h")).receive(refer(&tag, 8, "sip:d@h"));
    bench.order(|ua, now| ua.reject_refer(now, LegId(1), 486)).until(40.1);
    bench.check(expect![[r#"
        40.000 > 400 REFER 2
        40.000 > 400 REFER 3
        40.000 > 400 REFER 4
        40.000 > 400 REFER 5
        40.000 > 403 REFER 6
        40.000 Referred 1 to sip:c@h
        40.000 > 500 REFER 8
        40.000 > 486 REFER 7
    "#]]);
}

#[test]
fn a_hangup_ends_a_refer_that_waits_and_its_notifies() {
    let (mut bench, tag) = Bench::standing(Phone::invite());
    bench.receive(refer(&tag, 2, "sip:c@h")).hangup(1);
    accept(&mut bench).respond("BYE", 200, "").check_over(expect![[r#"
        40.000 Referred 1 to sip:c@h
        40.000 > 603 REFER 2
        40.000 > BYE 1
        40.000 Ended 1 HungUp { bye_status: Some(200) }
    "#]]);
    let (mut bench, tag) = Bench::standing(Phone::invite());
    accept(bench.receive(refer(&tag, 2, "sip:c@h"))).respond("NOTIFY", 481, "");
    notify(&mut bench, 200).check(expect![[r#"
        40.000 Referred 1 to sip:c@h
        40.000 > 202 REFER 2
        40.000 > NOTIFY 1
    "#]]);
}

fn send(bench: &mut Bench, is_quiet: bool) -> &mut Bench {
    let replaces = Replaces {
        call_id: "x@y".to_owned(),
        to_tag: "1".to_owned(),
        from_tag: "2".to_owned(),
        early_only: false,
    };
    let to = ReferTo { uri: "sip:agent@192.0.2.3".to_owned(), replaces: Some(replaces) };
    let refer = OutboundRefer { to, referred_by: Some("sip:queue@h".to_owned()), is_quiet };
    bench.order(|ua, now| assert!(ua.refer(now, LegId(1), &refer)))
}

const FRAGMENT: &str = "Event: refer\r\nSubscription-State: ";

fn fragment(state: &str, line: &str) -> String {
    let length = line.len();
    format!(
        "{FRAGMENT}{state}\r\nContent-Type: message/sipfrag\r\nContent-Length: {length}\r\n\r\n{line}"
    )
}

#[test]
fn our_refer_tells_what_became_of_it_until_it_is_over() {
    let mut bench = Bench::new();
    bench.invite().respond_with("INVITE", 200, "t", "", SDP).forget();
    send(&mut bench, false);
    let refer = bench.last_request("REFER");
    let wanted = "<sip:agent@192.0.2.3?Replaces=x%40y%3Bto-tag%3D1%3Bfrom-tag%3D2>";
    assert_eq!(refer.headers.get(Name::ReferTo), Some(wanted));
    assert_eq!(refer.headers.get(Name::ReferredBy), Some("<sip:queue@h>"));
    bench.respond("REFER", 202, "");
    bench.request_in("NOTIFY", "t", 1, &fragment("active", "SIP/2.0 100 Trying"));
    bench.request_in("NOTIFY", "t", 2, &fragment("active", "SIP/2.0 180 Ringing"));
    bench.request_in("NOTIFY", "t", 3, &fragment("terminated;reason=noresource", "SIP/2.0 200 OK"));
    bench.request_in("NOTIFY", "t", 4, &fragment("active", "SIP/2.0 200 OK"));
    bench.request_in("NOTIFY", "t", 5, "Event: presence\r\n");
    bench.check(expect![[r#"
        00.000 > REFER 2
        00.000 ReferProgress 1 202
        00.000 > 200 NOTIFY 1
        00.000 ReferProgress 1 100
        00.000 > 200 NOTIFY 2
        00.000 ReferProgress 1 180
        00.000 > 200 NOTIFY 3
        00.000 ReferProgress 1 200 over
        00.000 > 481 NOTIFY 4
        00.000 > 489 NOTIFY 5
    "#]]);
}

#[test]
fn a_notify_may_overtake_the_202() {
    let mut bench = Bench::new();
    bench.invite().respond_with("INVITE", 200, "t", "", SDP).forget();
    send(&mut bench, false).request_in("NOTIFY", "t", 1, &fragment("active", "SIP/2.0 100 Trying"));
    bench.respond("REFER", 202, "").request_in(
        "NOTIFY",
        "t",
        2,
        &fragment("terminated", "no line"),
    );
    bench.until(0.1).check(expect![[r#"
        00.000 > REFER 2
        00.000 > 200 NOTIFY 1
        00.000 ReferProgress 1 100
        00.000 > 200 NOTIFY 2
        00.000 ReferProgress 1 500 over
    "#]]);
}

#[test]
fn a_refer_that_is_refused_or_unanswered_or_quiet_is_over_at_once() {
    for (status, extra) in [(Some(603), ""), (None, ""), (Some(202), "Refer-Sub: false\r\n")] {
        let mut bench = Bench::new();
        bench.invite().respond_with("INVITE", 200, "t", "", SDP);
        send(&mut bench, true);
        match status {
            Some(status) => drop(bench.forget().respond_with("REFER", status, "", extra, "")),
            None => drop(bench.until(31.99).forget().until(32.0)),
        }
        bench.note("--\n");
        send(&mut bench, false);
        bench.check(match status {
            Some(603) => expect![[r#"
                00.000 ReferProgress 1 603 over
                --
                00.000 > REFER 3
            "#]],
            None => expect![[r#"
                32.000 ReferProgress 1 408 over
                --
                32.000 > REFER 3
            "#]],
            Some(_) => expect![[r#"
                00.000 ReferProgress 1 202 over
                --
                00.000 > REFER 3
            "#]],
        });
    }
}

#[test]
fn an_invite_with_replaces_names_the_leg_that_it_takes_the_place_of() {
    let (mut bench, tag) = Bench::standing(Phone::invite());
    let replacing = |call_id: &'static str, value: &str| {
        Phone::invite()
            .call_id(call_id)
            .header("Require: replaces")
            .header(&format!("Replaces: {value}"))
    };
    bench.receive(replacing("good", &format!("c1;to-tag={tag};from-tag=f1")));
    bench.receive(replacing("early", &format!("c1;from-tag=f1;to-tag={tag};early-only")));
    bench.receive(replacing("tag", &format!("c1;to-tag={tag};from-tag=f2")));
    bench.receive(replacing("call", &format!("c2;to-tag={tag};from-tag=f1")));
    bench.receive(replacing("broken", &format!("c1;to-tag={tag}")));
    bench.hangup(1).receive(replacing("over", &format!("c1;to-tag={tag};from-tag=f1")));
    bench.until(40.1).check(expect![[r#"
        40.000 > 100 INVITE 1
        40.000 Invited 2 sdp replacing 1
        40.000 > 486 INVITE 1
        40.000 > 481 INVITE 1
        40.000 > 481 INVITE 1
        40.000 > 400 INVITE 1
        40.000 > BYE 1
        40.000 > 603 INVITE 1
    "#]]);
}

#[test]
fn a_refer_with_replaces_of_another_leg_of_ours_says_which() {
    let (mut bench, tag) = Bench::standing(Phone::invite());
    bench.receive(Phone::invite().call_id("c2")).answer(2);
    let other = bench.tag();
    bench.receive(Phone::sends("ACK").call_id("c2").tag(&other)).forget();
    let to = format!("<sip:us@h?Replaces=c2%3Bto-tag%3D{other}%3Bfrom-tag%3Df1>");
    bench.receive(refer(&tag, 2, &to)).check(expect![[r#"
        40.000 Referred 1 to sip:us@h replacing 2
    "#]]);
}
