//! REGISTER from the wire to the bindings.

use super::bench::{Bench, Phone, WALL, tcp_phone, udp_phone};
use crate::digest::{Algorithm, authorize};
use crate::{Hangup, LegId, Peer, Suspicion, UserAgent};
use expect_test::expect;
use std::time::Instant;

#[test]
fn registration_is_challenged_with_sha_256_first_and_then_held() {
    for algorithm in [0, 1] {
        let both = vec![Algorithm::Sha256, Algorithm::Md5];
        let mut bench = Bench::with(|config| config.digest = both);
        bench.receive(Phone::sends("REGISTER"));
        let challenge = challenges(&bench).swap_remove(algorithm);
        assert!(challenge.contains(["algorithm=SHA-256", "algorithm=MD5"][algorithm]));
        bench.receive(register(&challenge, 2, 1));
        assert!(bench.last_text().starts_with("SIP/2.0 200 OK\r\n"));
        let contacts = bench.ua.lookup(WALL, "anna");
        assert_eq!(contacts[0].uri, "sip:anna@192.0.2.1:5060");
        assert_eq!(contacts[0].peer, bench.phone);
        assert_eq!(bench.ua.registrations(WALL)[0].user, "anna");
        assert!(bench.last_text().contains("Contact: <sip:anna@192.0.2.1:5060>;expires=3600\r\n"));
        assert_eq!(bench.ua.lookup(WALL + 3600, "anna"), []);
    }
}

#[test]
fn by_default_the_one_challenge_is_md5_which_every_phone_knows() {
    let mut bench = Bench::new();
    bench.receive(Phone::sends("REGISTER"));
    let [challenge] = &challenges(&bench)[..] else { panic!("one challenge") };
    assert!(challenge.contains("algorithm=MD5"));
}

#[test]
fn challenges_leave_no_transaction_and_repeated_registers_that_were_right_are_absorbed() {
    let mut bench = Bench::new();
    bench.receive(Phone::sends("REGISTER")).receive(Phone::sends("REGISTER"));
    let [(_, first), (_, second)] = &bench.sent[..] else { panic!("two responses") };
    let to = |bytes: &[u8]| {
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        text.lines().find(|line| line.starts_with("To: ")).unwrap().to_owned()
    };
    assert_eq!(to(first), to(second), "RFC 3261 §8.2.7: the same To tag");
    assert_eq!(bench.ua.transactions(), 0);
    let challenge = challenges(&bench).swap_remove(0);
    bench.receive(register(&challenge, 2, 1)).receive(register(&challenge, 2, 1));
    bench.check_over(expect![[r#"
        00.000 > 401 REGISTER 1
        00.000 > 401 REGISTER 1
        00.000 > 200 REGISTER 2
        00.000 Registered anna 1
        00.000 > 200 REGISTER 2
    "#]]);
}

#[test]
fn old_nonce_is_called_stale_and_a_repeated_count_too() {
    let mut bench = Bench::new();
    bench.receive(Phone::sends("REGISTER"));
    let challenge = challenges(&bench).swap_remove(0);
    bench.receive(register(&challenge, 2, 1)).receive(register(&challenge, 3, 1));
    assert!(challenges(&bench).iter().all(|it| it.ends_with("stale=true")));
    bench.until(300.0).receive(register(&challenge, 4, 2));
    assert!(challenges(&bench).iter().all(|it| it.ends_with("stale=true")));
    bench.check(expect![[r#"
        00.000 > 401 REGISTER 1
        00.000 > 200 REGISTER 2
        00.000 Registered anna 1
        00.000 > 401 REGISTER 3
        300.000 > 401 REGISTER 4
    "#]]);
}

#[test]
fn wrong_password_is_challenged_again_and_a_foreign_record_forbidden() {
    let mut bench = Bench::new();
    bench.receive(Phone::sends("REGISTER"));
    let challenge = challenges(&bench).swap_remove(0);
    let wrong = authorize(&challenge, "anna", "guess", "REGISTER", "sip:h", 1);
    bench.receive(Phone::sends("REGISTER").cseq(2).header(&format!("Authorization: {wrong}")));
    let judged = std::mem::take(&mut bench.judged);
    assert_eq!(judged, [Suspicion::Unproven, Suspicion::WrongProof]);
    let text = String::from_utf8(register(&challenge, 3, 1).text().to_vec()).unwrap();
    bench.receive(text.replace("To: <sip:anna@", "To: <sip:boss@"));
    let why = "\r\nWarning: 399 holdfast \"The Proven User Is Not That of the To URI\"\r\n";
    assert!(bench.last_text().contains(why), "{}", bench.last_text());
    bench.check(expect![[r#"
        00.000 > 401 REGISTER 1
        00.000 > 401 REGISTER 2
        00.000 > 403 REGISTER 3
    "#]]);
    assert_eq!(bench.ua.registrations(WALL), []);
    assert_eq!(bench.judged, [Suspicion::Proven]);
    bench.receive("nonsense");
    assert_eq!(bench.judged[1..], [Suspicion::Malformed]);
}

#[test]
fn too_brief_registration_is_told_the_least() {
    let mut bench = Bench::new();
    bench.receive(Phone::sends("REGISTER"));
    let challenge = challenges(&bench).swap_remove(0);
    bench.receive(register(&challenge, 2, 1).header("Expires: 59"));
    assert!(bench.last_text().contains("\r\nMin-Expires: 60\r\n"));
    bench.check(expect![[r#"
        00.000 > 401 REGISTER 1
        00.000 > 423 REGISTER 2
    "#]]);
}

#[test]
fn binding_goes_with_its_connection_unless_its_contact_listens_there() {
    let mut bench = Bench::new();
    let connection = Peer { addr: "192.0.2.1:40001".parse().unwrap(), ..tcp_phone() };
    bench.phone = connection;
    bench.receive(Phone::sends("REGISTER"));
    let challenge = challenges(&bench).swap_remove(0);
    bench.receive(register(&challenge, 2, 1));
    let udp = Peer { addr: connection.addr, ..udp_phone() };
    for elsewhere in [udp, tcp_phone()] {
        bench.order(|ua, now| ua.handle_transport_failed(now, elsewhere));
        assert_eq!(bench.ua.lookup(WALL, "anna").len(), 1);
    }
    bench.order(|ua, now| ua.handle_transport_failed(now, connection));
    assert_eq!(bench.ua.lookup(WALL, "anna"), []);

    bench.phone = tcp_phone(); // Which is what the Contact says.
    bench.receive(register(&challenge, 3, 2));
    bench.order(|ua, now| ua.handle_transport_failed(now, tcp_phone()));
    assert_eq!(bench.ua.lookup(WALL, "anna").len(), 1);
}

#[test]
fn registration_tells_each_contact_with_the_device_behind_it() {
    let mut bench = Bench::new();
    bench.receive(Phone::sends("REGISTER"));
    let challenge = challenges(&bench).swap_remove(0);
    let contact = "Contact: <sip:anna@h>;reg-id=1;+sip.instance=\"<urn:uuid:f81d4fae>\"";
    bench.receive(register(&challenge, 2, 1).header(contact));
    let wanted = "Contact: <sip:anna@h>;expires=3600;\
                  +sip.instance=\"<urn:uuid:f81d4fae>\";reg-id=1\r\n";
    assert!(bench.last_text().contains(wanted), "{}", bench.last_text());
}

#[test]
fn bye_and_refresh_follow_a_device_that_has_registered_over_another_connection() {
    let at = |port| format!("<sip:anna@192.0.2.1:{port};transport=tcp>;+sip.instance=\"<urn:1>\"");
    let call = |end: fn(&mut UserAgent, Instant)| {
        let mut bench = Bench::new();
        let [old, new] =
            [40001, 40002].map(|port| Peer { addr: ([192, 0, 2, 1], port).into(), ..tcp_phone() });
        bench.phone = old;
        bench.receive(Phone::sends("REGISTER"));
        let challenge = challenges(&bench).swap_remove(0);
        let contact = format!("Contact: {}", at(40001));
        bench.receive(register(&challenge, 2, 1).header(&contact));
        bench.receive(Phone::invite().call_id("c2").header(&contact)).answer(1);
        let tag = bench.tag();
        bench.receive(Phone::sends("ACK").call_id("c2").tag(&tag)).until(40.0);
        bench.order(|ua, now| ua.handle_transport_failed(now, old));
        bench.phone = new;
        let contact = format!("Contact: {}", at(40002));
        bench.receive(register(&challenge, 3, 2).header(&contact)).forget();
        bench.order(end).order(|ua, now| ua.handle_transport_failed(now, old));
        assert!(bench.last_text().contains(" sip:anna@192.0.2.1:40002;transport=tcp SIP/2.0\r\n"));
        bench.order(|ua, now| ua.handle_transport_failed(now, new)); // There is no third.
        bench
    };
    call(|ua, now| ua.hangup(now, LegId(1), Hangup { reason: None, unanswered_status: 480 }))
        .check_over(expect![[r#"
            40.000 > BYE 1 to tcp:192.0.2.1:40001
            40.000 > BYE 2
            40.000 Ended 1 HungUp { bye_status: None }
        "#]]);
    call(|ua, now| assert!(ua.reinvite(now, LegId(1), "v=1".into()))).check_over(expect![[r#"
        40.000 > INVITE 1 to tcp:192.0.2.1:40001
        40.000 Moved 1
        40.000 > INVITE 2
        40.000 > BYE 3
        40.000 Ended 1 TimedOut
    "#]]);
}

fn register(challenge: &str, cseq: u32, nc: u32) -> Phone {
    let value = authorize(challenge, "anna", "secret", "REGISTER", "sip:h", nc);
    Phone::sends("REGISTER").cseq(cseq).header(&format!("Authorization: {value}"))
}

fn challenges(bench: &Bench) -> Vec<String> {
    let text = bench.last_text();
    let lines = text.lines().filter_map(|line| line.strip_prefix("WWW-Authenticate: "));
    lines.map(str::to_owned).collect()
}
