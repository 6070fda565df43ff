//! Remotes that want harm: media in circles, and the ports of others.

use crate::bench::{A, Bench, SESSION, rtp, sdp};
use media::sdp::Refusal;
use media::{Discard, Error, Side};

/// Where our `side` of a session receives.
fn ours(bench: &Bench, session_id: &str, side: Side) -> String {
    format!("198.51.100.1:{}", bench.status(session_id, side).rtp_port)
}

fn is_loop(result: Result<media::Described, Error>) -> bool {
    matches!(result, Err(Error::Refused(Refusal::Loop { .. })))
}

#[test]
fn media_that_would_come_back_for_ever_are_refused() {
    let mut bench = Bench::one_side();
    let own = sdp(&ours(&bench, SESSION, Side::A), "0");
    assert!(is_loop(bench.offer(SESSION, Side::A, Some(&own))), "to itself");
    assert!(is_loop(bench.offer(SESSION, Side::B, Some(&own))), "to the other side");
    assert_eq!(bench.relay.session(bench.now(), SESSION).unwrap().sides.len(), 1);

    // A circle of two sessions: the offer or answer that closes it.
    let to_first = sdp(&ours(&bench, SESSION, Side::A), "0");
    bench.offer("session-2", Side::A, Some(&to_first)).unwrap();
    bench.offer("session-2", Side::B, Some(&sdp("192.0.2.3:4000", "0"))).unwrap();
    let to_second = sdp(&ours(&bench, "session-2", Side::B), "0");
    bench.offer(SESSION, Side::B, None).unwrap();
    assert!(is_loop(bench.answer(Side::B, &to_second)));
    assert!(bench.answer(Side::B, &sdp("192.0.2.4:4000", "0")).is_ok(), "the offer is open still");
}

#[test]
fn a_call_that_comes_back_to_this_relay_is_carried() {
    let mut bench = Bench::connected("0 101");
    let to_first = sdp(&ours(&bench, SESSION, Side::B), "0");
    bench.offer("session-2", Side::A, Some(&to_first)).unwrap();
    let to_second = sdp(&ours(&bench, "session-2", Side::A), "0");
    bench.offer(SESSION, Side::B, Some(&to_second)).unwrap();
    bench.receive(Side::A, A, &rtp(77, 1, 1, 0, &[5; 160]));
    let address = ours(&bench, "session-2", Side::A);
    assert_eq!(bench.take_rtp(&address).len(), 1);
}

#[test]
fn an_address_of_ours_is_known_behind_nat_too() {
    for (bound, told) in [("10.0.0.5", "10.0.0.5"), ("0.0.0.0", "127.0.0.1")] {
        let mut bench = Bench::with(|it| it.bound = bound.parse().unwrap());
        bench.offer(SESSION, Side::A, Some(&sdp(A, "0"))).unwrap();
        let port = bench.status(SESSION, Side::A).rtp_port;
        let own = sdp(&format!("{told}:{port}"), "0");
        assert!(is_loop(bench.offer(SESSION, Side::B, Some(&own))), "{bound}");
        let phone = sdp(&format!("{told}:4000"), "0"); // On this host, but not one of our ports.
        assert!(bench.offer(SESSION, Side::B, Some(&phone)).is_ok(), "{bound}");
    }
}

#[test]
fn a_forged_source_does_not_turn_two_calls_into_a_circle() {
    let mut bench = Bench::connected("0 101");
    for (side, address) in [(Side::A, "192.0.2.8:4000"), (Side::B, "192.0.2.9:4000")] {
        bench.offer("session-2", side, Some(&sdp(address, "0 101"))).unwrap();
    }
    for session_id in [SESSION, "session-2"] {
        let port = bench.status(session_id, Side::B).rtp_port;
        for odd in [0, 1] {
            let forged = format!("198.51.100.1:{}", port + odd);
            let heard = bench.receive(Side::A, &forged, &rtp(77, 1, 1, 0, &[5; 160]));
            assert_eq!(heard.as_deref(), Some(Discard::Stranger.label()), "{session_id}");
        }
    }
    assert_eq!(bench.receive(Side::A, A, &rtp(77, 1, 1, 0, &[5; 160])), None);
}

#[test]
fn a_chain_of_sessions_has_a_limit() {
    let mut bench = Bench::new();
    bench.offer("session-0", Side::A, Some(&sdp(A, "0"))).unwrap();
    let mut refused = None;
    for nth in 1..20 {
        let before = ours(&bench, &format!("session-{}", nth - 1), Side::A);
        let id = format!("session-{nth}");
        if is_loop(bench.offer(&id, Side::B, Some(&sdp(&before, "0")))) {
            refused = Some(nth);
            break;
        }
        bench.offer(&id, Side::A, Some(&sdp("192.0.2.9:4000", "0"))).unwrap();
    }
    assert_eq!(refused, Some(8), "more than a call that lost its way would take");
}
