//! Hold and resume (RFC 3264 §8.4).

use crate::bench::{A, B, Bench, SESSION, assert_continuous, audio, rtp, sdp, sdp_with};
use media::{Codec, EventKind, Side};

#[test]
fn every_way_to_hold_pauses_the_music_and_resume_goes_on_at_its_offset() {
    let holds =
        [sdp_with(A, "0", "sendonly"), sdp_with(A, "0", "inactive"), sdp("0.0.0.0:4000", "0")];
    for hold in holds {
        let mut bench = Bench::new();
        bench.offer(SESSION, Side::A, Some(&sdp(A, "0"))).unwrap();
        let music = audio(Codec::Pcmu, 1, 16_000);
        bench.play(Side::A, "music", &music, true);
        bench.run(90);
        let held = bench.offer(SESSION, Side::A, Some(&hold)).unwrap();
        assert!(held.held);
        bench.run(5_000);
        assert_eq!(bench.take_rtp(A).len(), 5, "{hold}");
        let resumed = bench.offer(SESSION, Side::A, Some(&sdp(A, "0"))).unwrap();
        assert!(!resumed.held);
        bench.run(100);
        let packets = bench.take_rtp(A);
        assert_eq!(packets[0].payload, music.codes(Codec::Pcmu)[800..960], "{hold}");
        assert!(packets[0].marker);
        assert_continuous(&packets);
    }
}

#[test]
fn ports_and_stream_stay_when_an_offer_comes_again() {
    let mut bench = Bench::one_side();
    bench.play(Side::A, "music", &audio(Codec::Pcmu, 1, 16_000), true);
    let port = bench.status(SESSION, Side::A).rtp_port;
    bench.run(100);
    bench.offer(SESSION, Side::A, Some(&sdp("192.0.2.9:4444", "0 101"))).unwrap();
    bench.run(100);
    let mut packets = bench.take_rtp(A);
    let moved = bench.take_rtp("192.0.2.9:4444");
    assert_eq!((packets.len(), moved.len()), (6, 5));
    packets.extend(moved);
    assert_continuous(&packets);
    assert_eq!(bench.status(SESSION, Side::A).rtp_port, port);
    assert_eq!(bench.closed, []);
}

#[test]
fn nothing_is_relayed_to_a_side_on_hold_and_nobody_is_due() {
    let holds = [
        sdp_with(B, "0 101", "inactive"),
        sdp_with(B, "0 101", "sendonly"),
        sdp("0.0.0.0:5000", "0 101"),
    ];
    for hold in holds {
        let mut bench = Bench::connected("0 101");
        bench.offer(SESSION, Side::B, Some(&hold)).unwrap();
        let voice = rtp(77, 1, 160, 0, &[1; 160]);
        assert_eq!(bench.receive(Side::A, A, &voice).as_deref(), Some("on_hold"));
        assert_eq!(bench.take_rtp(B), []);
        bench.run(600_000);
        assert_eq!(bench.count(&EventKind::Inactive), 0, "{hold}");
        bench.offer(SESSION, Side::B, Some(&sdp(B, "0 101"))).unwrap();
        bench.run(600_000);
        assert_eq!(bench.count(&EventKind::Inactive), 2, "both are due again: {hold}");
    }
}

#[test]
fn what_was_not_relayed_during_hold_does_not_look_lost() {
    let mut bench = Bench::connected("0 101");
    let speak = |bench: &mut Bench, packets: std::ops::Range<u16>| {
        for n in packets {
            bench.receive(Side::A, A, &rtp(77, n, u32::from(n) * 160, 0, &[1; 160]));
            bench.run(20);
        }
    };
    speak(&mut bench, 0..5);
    bench.offer(SESSION, Side::B, Some(&sdp_with(B, "0 101", "sendonly"))).unwrap();
    speak(&mut bench, 5..50);
    bench.offer(SESSION, Side::B, Some(&sdp(B, "0 101"))).unwrap();
    speak(&mut bench, 50..55);
    let packets = bench.take_rtp(B);
    assert_eq!(packets.len(), 10);
    assert_continuous(&packets);
}

#[test]
fn reports_go_on_during_hold() {
    let mut bench = Bench::one_side();
    bench.offer(SESSION, Side::A, Some(&sdp_with(A, "0 101", "sendonly"))).unwrap();
    bench.run(60_000);
    let reports = bench.take_rtcp("192.0.2.1:4001");
    assert!(reports.len() >= 8);
    assert!(reports.iter().all(|(_, bytes)| bytes[1] == 201), "RR: we send nothing");
}
