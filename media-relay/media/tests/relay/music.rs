//! What a listener hears: loops, prompts, timing.

use crate::bench::{A, B, Bench, SESSION, assert_continuous, audio, sdp, sdp_with};
use media::{Codec, EventKind, Side};
use std::time::Duration;

#[test]
fn a_loop_is_the_circular_source_in_the_offered_codec_without_a_gap() {
    for (formats, payload_type, codec) in [("0", 0, Codec::Pcmu), ("8", 8, Codec::Pcma)] {
        let mut bench = Bench::new();
        bench.offer(SESSION, Side::A, Some(&sdp(A, formats))).unwrap();
        let source = audio(Codec::Pcmu, 1, 1_234);
        bench.play(Side::A, "moh", &source, true);
        bench.run(10_000);
        let packets = bench.take_rtp(A);
        assert_eq!(packets.len(), 501);
        assert_continuous(&packets);
        for (n, packet) in packets.iter().enumerate() {
            assert_eq!(packet.at, Duration::from_millis(n as u64 * 20), "no drift");
            assert_eq!(packet.payload_type, payload_type);
            assert_eq!(packet.marker, n == 0);
        }
        let heard: Vec<u8> = packets.into_iter().flat_map(|it| it.payload).collect();
        let circular = source.codes(codec).iter().cycle().take(heard.len());
        assert!(heard.iter().eq(circular));
    }
}

#[test]
fn the_remote_s_packet_time_is_kept() {
    for (attributes, wanted) in
        [("ptime:10", 10), ("ptime:60", 60), ("ptime:200", 60), ("ptime:40 maxptime:30", 30)]
    {
        let mut bench = Bench::new();
        bench.offer(SESSION, Side::A, Some(&sdp_with(A, "0", attributes))).unwrap();
        bench.play(Side::A, "moh", &audio(Codec::Pcmu, 1, 999), true);
        bench.run(1_000);
        let packets = bench.take_rtp(A);
        assert_eq!(packets[0].payload.len(), wanted * 8, "{attributes}");
        assert_eq!(packets.len(), 1 + 1_000 / wanted, "{attributes}");
        assert_continuous(&packets);
    }
}

#[test]
fn music_resumes_at_its_offset_after_a_prompt() {
    let mut bench = Bench::one_side();
    let (music, prompt) = (audio(Codec::Pcmu, 1, 16_000), audio(Codec::Pcmu, 2, 1_000));
    bench.play(Side::A, "music", &music, true);
    bench.run(90); // Frames at 0, 20, 40, 60, 80.
    bench.play(Side::A, "prompt", &prompt, false);
    bench.run(300);
    let packets = bench.take_rtp(A);
    assert_continuous(&packets);
    let marks: Vec<_> = packets.iter().filter(|it| it.marker).map(|it| it.at.as_millis()).collect();
    assert_eq!(marks, [0, 100, 240], "the first packet of each");
    let heard: Vec<u8> = packets.into_iter().flat_map(|it| it.payload).collect();
    let music = music.codes(Codec::Pcmu);
    assert_eq!(heard[..800], music[..800]);
    assert_eq!(heard[800..1_800], *prompt.codes(Codec::Pcmu));
    assert_eq!(heard[1_800..], music[800..heard.len() - 1_000]);
    let finished = EventKind::PlayFinished { play_id: "prompt".into() };
    let ends: Vec<_> = bench.events.iter().filter(|(_, it)| it.kind == finished).collect();
    assert_eq!(ends.len(), 1);
    assert_eq!(ends[0].0.as_millis(), 240, "when its last frame has been heard, not when cut");
}

#[test]
fn stop_ends_prompt_and_music_and_says_whether_there_was_one() {
    let mut bench = Bench::one_side();
    let source = audio(Codec::Pcmu, 1, 8_000);
    bench.play(Side::A, "music", &source, true);
    bench.play(Side::A, "prompt", &source, false);
    bench.run(100);
    let now = bench.now();
    assert_eq!(bench.relay.stop(now, SESSION, Side::A), Ok(true));
    assert_eq!(bench.relay.stop(now, SESSION, Side::A), Ok(false));
    bench.take_rtp(A);
    bench.run(1_000);
    assert_eq!(bench.take_rtp(A), []);
    assert_eq!(bench.status(SESSION, Side::A).hears, "nothing");
    assert!(bench.events.iter().all(|(_, it)| !matches!(it.kind, EventKind::PlayFinished { .. })));
}

#[test]
fn a_stalled_process_does_not_send_a_burst() {
    let mut bench = Bench::one_side();
    bench.play(Side::A, "music", &audio(Codec::Pcmu, 1, 8_000), true);
    bench.run(100);
    bench.take_rtp(A);
    bench.stall(90);
    assert_eq!(bench.take_rtp(A).len(), 4, "a short delay is caught up with");
    bench.stall(5_000);
    let late = bench.take_rtp(A);
    assert_eq!(late.len(), 1, "a long one is not");
    assert!(late[0].marker);
    bench.run(100);
    assert_eq!(bench.take_rtp(A).len(), 5);
}

#[test]
fn listeners_keep_their_places_in_time_when_the_process_stalls() {
    let mut bench = Bench::one_side();
    let source = audio(Codec::Pcmu, 1, 8_000);
    bench.play(Side::A, "music", &source, true);
    bench.run(7);
    bench.offer(SESSION, Side::B, Some(&sdp(B, "0"))).unwrap();
    bench.play(Side::B, "music", &source, true);
    bench.run(100);
    bench.stall(250);
    bench.take_rtp(A);
    bench.take_rtp(B);
    bench.run(100);
    let offsets = |packets: Vec<crate::bench::Packet>| -> Vec<_> {
        packets.iter().map(|it| it.at.as_millis() % 20).collect()
    };
    assert_eq!(offsets(bench.take_rtp(A)), [0; 5]);
    assert_eq!(offsets(bench.take_rtp(B)), [7; 5]);
}

#[test]
fn sender_reports_go_out_every_five_seconds_or_so() {
    let mut bench = Bench::one_side();
    bench.play(Side::A, "music", &audio(Codec::Pcmu, 1, 8_000), true);
    bench.run(60_000);
    let reports = bench.take_rtcp("192.0.2.1:4001");
    assert!((8..=24).contains(&reports.len()), "{} in a minute", reports.len());
    assert!(reports.iter().all(|(_, bytes)| bytes[1] == 200), "SR first");
    for pair in reports.windows(2) {
        let ms = (pair[1].0 - pair[0].0).as_millis();
        assert!((2_500..=7_500).contains(&ms), "{ms} ms");
    }
}

#[test]
fn five_thousand_listeners_are_each_served_on_time() {
    let mut bench = Bench::with(|config| {
        config.rtp_ports = 20_000..=40_000;
        config.sessions_max = 5_000;
    });
    let source = audio(Codec::Pcmu, 1, 8_000);
    for n in 0..5_000 {
        let id = format!("s{n}");
        let phone = format!("192.0.2.1:{}", 10_000 + n * 2);
        bench.offer(&id, Side::A, Some(&sdp(&phone, "0"))).unwrap();
        let play = media::Play {
            play_id: "m".into(),
            file: "m".into(),
            audio: source.clone(),
            repeat: true,
            radio: false,
            offset_ms: n,
        };
        let now = bench.now();
        bench.relay.play(now, &id, Side::A, play).unwrap();
    }
    bench.run(1_000);
    for n in [0, 2_499, 4_999] {
        assert_eq!(bench.take_rtp(&format!("192.0.2.1:{}", 10_000 + n * 2)).len(), 51);
    }
}

#[test]
fn listeners_to_a_radio_hear_one_place_of_it_also_after_hold() {
    let mut bench = Bench::one_side();
    bench.offer(SESSION, Side::B, Some(&sdp(B, "0"))).unwrap();
    let source = audio(Codec::Pcmu, 1, 8_000);
    for side in Side::BOTH {
        let (play_id, file, now) = ("m".into(), "m".into(), bench.now());
        let play = media::Play {
            play_id,
            file,
            audio: source.clone(),
            repeat: true,
            offset_ms: 0,
            radio: true,
        };
        bench.relay.play(now, SESSION, side, play).unwrap();
        bench.run(340);
    }
    let held = sdp(A, "0") + "a=inactive\r\n";
    bench.offer(SESSION, Side::A, Some(&held)).unwrap();
    bench.run(260);
    bench.offer(SESSION, Side::A, Some(&sdp(A, "0"))).unwrap();
    bench.run(100);
    let (a, b) = (bench.take_rtp(A).pop().unwrap(), bench.take_rtp(B).pop().unwrap());
    assert_eq!(a.at, b.at);
    assert_eq!(a.payload, b.payload);
}
