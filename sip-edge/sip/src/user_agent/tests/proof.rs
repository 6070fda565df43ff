//! Challenges to requests of ours (RFC 3261 §22.2, §22.3).

use super::bench::{Bench, SDP};
use crate::Credentials;
use crate::header::Name;
use expect_test::expect;

const WWW: &str = "WWW-Authenticate: Digest realm=\"r\", nonce=\"n\", qop=\"auth\"\r\n";
const PROXY: &str = "Proxy-Authenticate: Digest realm=\"r\", nonce=\"p\", algorithm=SHA-256\r\n";

fn bench() -> Bench {
    let mut bench = Bench::new();
    let (user, password) = ("trunk".to_owned(), "secret".to_owned());
    bench.credentials = Some(Credentials { user, password });
    bench
}

#[test]
fn a_challenged_invite_is_sent_again_with_proof_in_the_same_call() {
    let mut bench = bench();
    let first = bench.invite().last_request("INVITE");
    bench.respond_with("INVITE", 401, "x", WWW, "").respond_with("INVITE", 407, "y", PROXY, "");
    let last = bench.last_request("INVITE");
    for name in [Name::From, Name::To, Name::CallId] {
        assert_eq!(last.headers.get(name), first.headers.get(name));
    }
    let proof = last.headers.get(Name::Authorization).unwrap();
    assert!(
        proof.starts_with("Digest username=\"trunk\", realm=\"r\", nonce=\"n\", uri="),
        "{proof}"
    );
    assert!(last.headers.get(Name::ProxyAuthorization).unwrap().contains("algorithm=SHA-256"));
    bench.respond_with("INVITE", 200, "t", "", SDP).hangup(1).respond_with("BYE", 401, "", WWW, "");
    assert!(bench.last_request("BYE").headers.get(Name::Authorization).is_some());
    bench.respond("BYE", 200, "").check_over(expect![[r#"
        00.000 > INVITE 1
        00.000 > ACK 1
        00.000 > INVITE 2
        00.000 > ACK 2
        00.000 > INVITE 3
        00.000 > ACK 3
        00.000 Answered 1 sdp
        00.000 > BYE 4
        00.000 > BYE 5
        00.000 Ended 1 HungUp { bye_status: Some(200) }
    "#]]);
}

#[test]
fn wrong_credentials_are_tried_once_and_stale_nonces_again() {
    let mut bench = bench();
    let stale = WWW.replace("qop", "stale=true, qop");
    bench
        .invite()
        .respond_with("INVITE", 401, "x", WWW, "")
        .respond_with("INVITE", 401, "x", &stale, "");
    bench.respond_with("INVITE", 401, "x", WWW, "").check_over(expect![[r#"
        00.000 > INVITE 1
        00.000 > ACK 1
        00.000 > INVITE 2
        00.000 > ACK 2
        00.000 > INVITE 3
        00.000 > ACK 3
        00.000 Ended 1 Rejected { status: 401, phrase: "Phrase", reason: None, retry_after_s: None }
    "#]]);
}

#[test]
fn a_peer_that_only_challenges_does_so_eight_times_at_most() {
    let mut bench = bench();
    let stale = WWW.replace("qop", "stale=true, qop");
    bench.invite();
    for _ in 0..9 {
        bench.respond_with("INVITE", 401, "x", &stale, "");
    }
    assert_eq!(bench.ua.dialogs(), 0);
    let invites = bench.sent.iter().filter(|(_, bytes)| bytes.starts_with(b"INVITE")).count();
    assert_eq!(invites, 9);
}

#[test]
fn a_challenge_is_the_last_word_without_credentials_or_after_a_hangup() {
    let mut plain = Bench::new();
    plain.invite().respond_with("INVITE", 401, "x", WWW, "").check_over(expect![[r#"
        00.000 > INVITE 1
        00.000 > ACK 1
        00.000 Ended 1 Rejected { status: 401, phrase: "Phrase", reason: None, retry_after_s: None }
    "#]]);
    let mut bench = bench();
    bench.invite().respond("INVITE", 100, "").hangup(1).respond("CANCEL", 200, "");
    bench.respond_with("INVITE", 401, "x", WWW, "").check_over(expect![[r#"
        00.000 > INVITE 1
        00.000 > CANCEL 1
        00.000 > ACK 1
        00.000 Ended 1 HungUp { bye_status: None }
    "#]]);
}

#[test]
fn a_challenged_reinvite_is_proved_too() {
    let mut bench = bench();
    bench.invite().respond_with("INVITE", 200, "t", "", SDP).reinvite(1);
    bench.respond_with("INVITE", 407, "", PROXY, "").respond_with("INVITE", 200, "", "", SDP);
    bench.until(0.1).check(expect![[r#"
        00.000 > INVITE 1
        00.000 > ACK 1
        00.000 Answered 1 sdp
        00.000 > INVITE 2
        00.000 > ACK 2
        00.000 > INVITE 3
        00.000 > ACK 3
        00.000 Reanswered 1 sdp
    "#]]);
    assert_eq!(bench.last_request("INVITE").body, "v=1");
}

#[test]
fn a_carrier_that_challenges_each_refresh_is_answered_each_time() {
    let mut bench = bench();
    let timer = "Allow: INVITE, BYE, UPDATE\r\nRequire: timer\r\n\
                 Session-Expires: 600;refresher=uac\r\n";
    bench.invite().respond_with("INVITE", 200, "t", timer, SDP);
    let stale = WWW.replace("qop", "stale=true, qop");
    for refresh in 1..=20 {
        bench.until(f64::from(refresh) * 300.0).respond_with("UPDATE", 401, "", &stale, "");
        bench.respond_with("UPDATE", 200, "", timer, "");
    }
    let updates = bench.sent.iter().filter(|(_, bytes)| bytes.starts_with(b"UPDATE")).count();
    assert_eq!((updates, bench.ua.dialogs()), (40, 1));
}
