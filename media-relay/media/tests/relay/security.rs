//! Remotes that want harm: media in circles, and the ports of others.

use crate::bench::{A, Bench, SESSION, rtp, sdp};
use media::sdp::Refusal;
use media::{Error, Side};

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
