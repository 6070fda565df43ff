//! Our registrations with others, in virtual time.

use super::bench::Bench;
use crate::{Credentials, OutboundRegistration, RegisterError};
use expect_test::expect;

const CHALLENGE: &str =
    "WWW-Authenticate: Digest realm=\"carrier\", nonce=\"n1\", qop=\"auth\"\r\n";

#[test]
fn registration_is_proved_and_renewed_before_it_runs_out() {
    let mut bench = Bench::new();
    register(&mut bench).respond_with("REGISTER", 401, "t", CHALLENGE, "");
    let text = bench.last_text();
    assert!(text.starts_with("REGISTER sip:carrier.example SIP/2.0\r\n"), "{text}");
    assert!(text.contains("\r\nContact: <sip:trunk@198.51.100.1:5060>\r\nExpires: 600\r\n"));
    assert!(
        text.contains("\r\nAuthorization: Digest username=\"me\", realm=\"carrier\""),
        "{text}"
    );
    bench.respond_with("REGISTER", 200, "t", "Expires: 120\r\n", "");
    bench.until(100.0).respond_with("REGISTER", 200, "t", "", "");
    assert!(!bench.last_text().contains("Authorization"), "{}", bench.last_text());
    bench.until(599.0).check(expect![[r#"
        00.000 > REGISTER 1
        00.000 > REGISTER 2
        00.000 Registrant Registered { expires_s: 120 }
        100.000 > REGISTER 3
        100.000 Registrant Registered { expires_s: 600 }
    "#]]);
    bench.until(600.0).check(expect![[r#"
        600.000 > REGISTER 4
    "#]]);
}

#[test]
fn a_wrong_password_is_not_tried_again_at_once_and_a_stale_nonce_is() {
    let mut bench = Bench::new();
    let stale = CHALLENGE.replace("nonce", "stale=true, nonce");
    register(&mut bench).respond_with("REGISTER", 401, "t", CHALLENGE, "");
    bench.respond_with("REGISTER", 401, "t", &stale, "");
    bench.respond_with("REGISTER", 401, "t", &stale, "").check(expect![[r#"
        00.000 > REGISTER 1
        00.000 > REGISTER 2
        00.000 > REGISTER 3
        00.000 Registrant Failed { status: Some(401) }
    "#]]);
    bench.until(14.0).check(expect![""]);
    bench.until(30.0).respond_with("REGISTER", 401, "t", CHALLENGE, "");
    bench.respond_with("REGISTER", 401, "t", CHALLENGE, "");
    bench.check(expect![[r#"
        18.223 > REGISTER 4
        18.723 > REGISTER 4
        19.723 > REGISTER 4
        21.723 > REGISTER 4
        25.723 > REGISTER 4
        29.723 > REGISTER 4
        30.000 > REGISTER 5
        30.000 Registrant Failed { status: Some(401) }
    "#]]);
}

#[test]
fn a_registrar_that_wants_a_longer_interval_gets_it() {
    let mut bench = Bench::new();
    register(&mut bench).respond_with("REGISTER", 423, "t", "Min-Expires: 1800\r\n", "");
    assert!(bench.last_text().contains("\r\nExpires: 1800\r\n"), "{}", bench.last_text());
    bench.respond_with("REGISTER", 423, "t", "Min-Expires: 1800\r\n", "").check(expect![[r#"
        00.000 > REGISTER 1
        00.000 > REGISTER 2
        00.000 Registrant Failed { status: Some(423) }
    "#]]);
}

#[test]
fn a_registrar_that_is_silent_is_tried_again_and_elsewhere_if_there_is_one() {
    let mut bench = Bench::new();
    register(&mut bench).until(31.0).forget();
    bench.until(32.0).check(expect![[r#"
        31.500 > REGISTER 1
        32.000 Registrant Failed { status: None }
    "#]]);
    let other = "192.0.2.2:5060".parse().unwrap();
    let peer = crate::Peer { addr: other, ..bench.phone };
    let id = bench.registrants[0];
    bench.order(|ua, now| ua.reroute(now, id, peer, true));
    bench.respond("REGISTER", 200, "t").check(expect![[r#"
        32.000 > REGISTER 2 to udp:192.0.2.2:5060
        32.000 Registrant Registered { expires_s: 600 }
    "#]]);
    bench.order(|ua, now| ua.reroute(now, id, peer, true)).check(expect![""]);
}

#[test]
fn a_lost_connection_is_made_again() {
    let mut bench = Bench::new();
    bench.phone = super::bench::tcp_phone();
    register(&mut bench).respond("REGISTER", 200, "t").forget();
    let phone = bench.phone;
    bench.order(|ua, now| ua.handle_transport_failed(now, phone));
    bench.until(30.0).check(expect![[r#"
        00.000 Registrant Failed { status: None }
        28.330 > REGISTER 2
    "#]]);
}

#[test]
fn what_is_no_uri_is_not_registered() {
    let mut bench = Bench::new();
    let order = OutboundRegistration { record: "me@carrier".into(), ..order(&bench) };
    let refused = bench.ua.register(bench.now, order).unwrap_err();
    assert!(matches!(refused, RegisterError::Uri { field: "record", .. }), "{refused}");
}

fn register(bench: &mut Bench) -> &mut Bench {
    let order = order(bench);
    let mut id = None;
    bench.order(|ua, now| id = ua.register(now, order).ok());
    bench.registrants.extend(id);
    bench
}

fn order(bench: &Bench) -> OutboundRegistration {
    OutboundRegistration {
        registrar: "sip:carrier.example".into(),
        record: "sip:me@carrier.example".into(),
        contact_user: "trunk".into(),
        peer: bench.phone,
        credentials: Some(Credentials { user: "me".into(), password: "secret".into() }),
        expires_s: 600,
    }
}
