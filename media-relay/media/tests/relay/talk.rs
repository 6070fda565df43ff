//! Two sides that are connected: relay, transcoding, digits, latching, silence.

use crate::bench::{A, B, Bench, SESSION, assert_continuous, audio, rtp, sdp};
use media::{Codec, EventKind, Law, Side};

/// What a phone sends in 20 ms.
fn voice(n: u16, payload_type: u8) -> Vec<u8> {
    let payload: Vec<u8> = (0..160).map(|it| (it + n * 3) as u8).collect();
    rtp(77, 1_000 + n, 5_000 + u32::from(n) * 160, payload_type, &payload)
}

#[test]
fn the_same_codec_is_forwarded_untouched() {
    let mut bench = Bench::connected("0 101");
    for n in 0..50 {
        assert_eq!(bench.receive(Side::A, A, &voice(n, 0)), None);
        bench.run(20);
    }
    let packets = bench.take_rtp(B);
    assert_eq!(packets.len(), 50);
    assert_continuous(&packets);
    for (n, packet) in (0..).zip(&packets) {
        assert_eq!(packet.payload, voice(n, 0)[12..]);
        assert_ne!(packet.ssrc, 77, "we are an endpoint, with an SSRC of our own");
    }
    assert_eq!(bench.status(SESSION, Side::B).hears, "side A");
}

#[test]
fn different_codecs_are_transcoded_both_ways() {
    let mut bench = Bench::connected("8 96");
    bench.receive(Side::A, A, &voice(1, 0));
    bench.receive(Side::B, B, &voice(1, 8));
    let code = |n: u16| (n + 3) as u8;
    let to_b = bench.take_rtp(B).remove(0);
    assert_eq!(to_b.payload_type, 8);
    let transcoded = |from: Law, to| move |n| from.transcode(to, code(n));
    let expected: Vec<u8> = (0..160).map(transcoded(Law::Pcmu, Law::Pcma)).collect();
    assert_eq!(to_b.payload, expected);
    let to_a = bench.take_rtp(A).remove(0);
    assert_eq!(to_a.payload_type, 0);
    let expected: Vec<u8> = (0..160).map(transcoded(Law::Pcma, Law::Pcmu)).collect();
    assert_eq!(to_a.payload, expected);
}

#[test]
fn events_cross_with_the_other_side_s_number_and_are_reported_at_the_first_packet() {
    let mut bench = Bench::connected("0 96");
    bench.receive(Side::A, A, &rtp(77, 1, 8_000, 101, &[5, 10, 0, 160]));
    assert_eq!(bench.digits(), "5");
    for n in 2..5 {
        bench.receive(Side::A, A, &rtp(77, n, 8_000, 101, &[5, 0x8a, 3, 32]));
    }
    assert_eq!(bench.digits(), "5");
    let packets = bench.take_rtp(B);
    assert_eq!(packets.len(), 4);
    assert!(packets.iter().all(|it| it.payload_type == 96));
    assert!(packets.iter().all(|it| it.timestamp == packets[0].timestamp));
}

#[test]
fn an_event_for_a_side_without_telephone_event_is_reported_but_not_forwarded() {
    let mut bench = Bench::connected("0");
    let event = rtp(77, 1, 8_000, 101, &[11, 10, 0, 160]);
    assert_eq!(bench.receive(Side::A, A, &event).as_deref(), Some("no_telephone_event"));
    assert_eq!(bench.digits(), "#");
    assert_eq!(bench.take_rtp(B), []);
}

#[test]
fn a_press_that_comes_by_rtp_and_info_counts_once() {
    let mut bench = Bench::one_side();
    let now = bench.now();
    let one = "1".parse().unwrap();
    bench.receive(Side::A, A, &rtp(77, 1, 8_000, 101, &[1, 10, 0, 160]));
    assert_eq!(bench.relay.inject_dtmf(now, SESSION, Side::A, one), Ok(false));
    assert_eq!(bench.relay.inject_dtmf(now, SESSION, Side::A, one), Ok(true));
    bench.run(0);
    assert_eq!(bench.digits(), "11");
}

#[test]
fn one_stream_goes_on_through_music_prompt_talk_and_music() {
    let mut bench = Bench::connected("0 101");
    let source = audio(Codec::Pcmu, 1, 8_000);
    bench.play(Side::B, "music", &source, true);
    bench.run(205);
    bench.play(Side::B, "prompt", &source, false);
    bench.run(300);
    let now = bench.now();
    bench.relay.connect(now, SESSION).unwrap();
    for n in 0..10 {
        bench.receive(Side::A, A, &voice(n, 0));
        bench.run(20);
    }
    bench.play(Side::B, "music", &source, true);
    bench.run(205);
    let packets = bench.take_rtp(B);
    assert_continuous(&packets);
    assert_eq!(packets.iter().filter(|it| it.marker).count(), 4);
}

#[test]
fn a_prompt_is_played_over_the_other_side_which_is_back_after_it() {
    let mut bench = Bench::connected("0 101");
    bench.receive(Side::A, A, &voice(0, 0));
    bench.play(Side::B, "prompt", &audio(Codec::Pcmu, 1, 400), false);
    bench.run(10);
    assert_eq!(bench.receive(Side::A, A, &voice(1, 0)).as_deref(), Some("no_listener"));
    assert_eq!(bench.receive(Side::B, B, &voice(1, 0)), None, "it is still heard");
    bench.run(100);
    assert_eq!(bench.receive(Side::A, A, &voice(7, 0)), None);
    let packets = bench.take_rtp(B);
    assert_continuous(&packets);
    assert_eq!(packets.last().unwrap().payload, voice(7, 0)[12..]);
}

#[test]
fn a_side_latches_to_its_first_source_and_strangers_are_counted() {
    let mut bench = Bench::connected("0 101");
    let (nat, stranger) = ("203.0.113.9:61000", "203.0.113.10:61000");
    assert_eq!(bench.receive(Side::A, nat, &voice(0, 0)), None);
    assert_eq!(bench.receive(Side::A, stranger, &voice(1, 0)).as_deref(), Some("stranger"));
    bench.receive(Side::B, B, &voice(0, 0));
    assert_eq!(bench.take_rtp(nat).len(), 1, "B's voice goes where A really is");
    let status = bench.status(SESSION, Side::A);
    assert_eq!(status.latched, Some(nat.parse().unwrap()));
    assert_eq!(status.discards.get(media::Discard::Stranger), 1);
    assert_eq!(bench.count(&EventKind::Latched), 2, "once for each side");
    let refresh = crate::bench::sdp(A, "0 101");
    bench.offer(SESSION, Side::A, Some(&refresh)).unwrap();
    assert_eq!(bench.receive(Side::A, stranger, &voice(2, 0)), None, "an offer opens the latch");
    assert_eq!(bench.count(&EventKind::Latched), 2);
}

#[test]
fn a_side_that_moves_is_followed_although_its_last_packets_come_from_the_old_address() {
    let mut bench = Bench::connected("0 101");
    let moved = "192.0.2.99:7000";
    bench.receive(Side::A, A, &voice(0, 0));
    bench.offer(SESSION, Side::A, Some(&crate::bench::sdp(moved, "0 101"))).unwrap();
    assert_eq!(bench.receive(Side::A, A, &voice(1, 0)), None, "on its way since before");
    assert_eq!(bench.receive(Side::A, moved, &voice(2, 0)), None);
    bench.receive(Side::B, B, &voice(0, 0));
    assert_eq!((bench.take_rtp(A).len(), bench.take_rtp(moved).len()), (0, 1));
}

#[test]
fn who_is_needed_and_silent_is_reported_once_per_silence() {
    let mut bench = Bench::connected("0 101");
    bench.receive(Side::B, B, &voice(0, 0));
    bench.run(59_000);
    bench.receive(Side::B, B, &voice(1, 0));
    bench.run(2_000);
    let silent: Vec<_> =
        bench.events.iter().filter(|(_, it)| it.kind == EventKind::Inactive).collect();
    assert_eq!(silent.len(), 1);
    assert_eq!((silent[0].0.as_secs(), silent[0].1.side), (60, Side::A));
    bench.run(600_000);
    assert_eq!(bench.count(&EventKind::Inactive), 2, "A and B, once");
    bench.receive(Side::A, A, &voice(5, 0));
    bench.run(60_000);
    assert_eq!(bench.count(&EventKind::Inactive), 3, "a new silence");
}

#[test]
fn a_listener_to_music_may_be_silent_for_hours() {
    let mut bench = Bench::one_side();
    bench.play(Side::A, "music", &audio(Codec::Pcmu, 1, 8_000), true);
    bench.run(600_000);
    assert_eq!(bench.count(&EventKind::Inactive), 0);
}

#[test]
fn what_a_listener_says_goes_nowhere_and_never_back() {
    let mut bench = Bench::one_side();
    bench.play(Side::A, "music", &audio(Codec::Pcmu, 1, 8_000), true);
    for n in 0..50 {
        assert_eq!(bench.receive(Side::A, A, &voice(n, 0)).as_deref(), Some("no_listener"));
        bench.run(20);
    }
    let packets = bench.take_rtp(A);
    assert_eq!(packets.len(), 51, "the music and nothing else");
    assert_continuous(&packets);
    bench.take_raw("192.0.2.1:4001"); // Reports.
    assert_eq!(bench.left(), 0, "to anybody else");
}

#[test]
fn who_hears_music_hears_it_until_the_first_word_of_the_other() {
    let mut bench = Bench::one_side();
    let music = audio(Codec::Pcmu, 1, 8_000);
    bench.play(Side::A, "music", &music, true);
    bench.run(200);
    bench.offer(SESSION, Side::B, Some(&sdp(B, "0 101"))).unwrap();
    let now = bench.now();
    assert_eq!(bench.relay.connect_when_heard(now, SESSION), Ok(false));
    for n in 0..10 {
        assert_eq!(bench.receive(Side::A, A, &voice(n, 0)), None, "B hears A at once");
        bench.run(20);
    }
    assert_eq!(bench.take_rtp(B).len(), 10);
    for n in 0..10 {
        assert_eq!(bench.receive(Side::B, B, &voice(n, 0)), None);
        bench.run(20);
    }
    assert_eq!(bench.relay.stop_waiting(bench.now(), SESSION), Ok(true));
    assert_eq!(bench.relay.connect_when_heard(bench.now(), SESSION), Ok(true), "heard before");
    let packets = bench.take_rtp(A);
    assert_continuous(&packets);
    let heard: Vec<u8> = packets.into_iter().flat_map(|it| it.payload).collect();
    let spoken: Vec<u8> = (0..10).flat_map(|n| voice(n, 0)[12..].to_vec()).collect();
    let (before, after) = heard.split_at(heard.len() - spoken.len());
    assert_eq!(before, &music.codes(Codec::Pcmu)[..before.len()]);
    assert_eq!(after, spoken);
    assert!(before.len() >= 20 * 160, "400 ms of music");
}

#[test]
fn who_never_says_a_word_leaves_the_other_with_the_music() {
    let mut bench = Bench::one_side();
    let music = audio(Codec::Pcmu, 1, 8_000);
    bench.play(Side::A, "music", &music, true);
    bench.offer(SESSION, Side::B, Some(&sdp(B, "0 101"))).unwrap();
    bench.relay.connect_when_heard(bench.now(), SESSION).unwrap();
    bench.run(2_000);
    assert_eq!(bench.relay.stop_waiting(bench.now(), SESSION), Ok(false));
    assert_eq!(bench.receive(Side::A, A, &voice(0, 0)).as_deref(), Some("no_listener"));
    assert_eq!(bench.receive(Side::B, B, &voice(0, 0)).as_deref(), Some("no_listener"));
    bench.run(500);
    let packets = bench.take_rtp(A);
    assert_continuous(&packets);
    let heard: Vec<u8> = packets.into_iter().flat_map(|it| it.payload).collect();
    let circular = music.codes(Codec::Pcmu).iter().cycle().take(heard.len());
    assert!(heard.iter().eq(circular));
    assert!(heard.len() >= 2_480 * 8);
}

#[test]
fn rtcp_keeps_a_side_alive() {
    let mut bench = Bench::connected("0 101");
    let rtcp_port = bench.status(SESSION, Side::A).rtp_port + 1;
    let receiver_report = [0x80, 201, 0, 1, 0, 0, 0, 77];
    for _ in 0..10 {
        assert_eq!(bench.receive_on(rtcp_port, "192.0.2.1:4001", &receiver_report), None);
        bench.receive(Side::B, B, &voice(0, 0));
        bench.run(30_000);
    }
    assert_eq!(bench.count(&EventKind::Inactive), 0);
}

#[test]
fn a_side_whose_other_side_is_deleted_hears_nothing_and_is_not_due() {
    let mut bench = Bench::connected("0 101");
    let now = bench.now();
    assert!(bench.relay.delete(now, SESSION, Some(Side::B)));
    assert_eq!(bench.receive(Side::A, A, &voice(0, 0)).as_deref(), Some("no_listener"));
    bench.run(600_000);
    assert_eq!(bench.count(&EventKind::Inactive), 0);
    assert_eq!(bench.status(SESSION, Side::A).hears, "nothing");
}
