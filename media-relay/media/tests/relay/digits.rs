//! Digits: those that a side is sent, those in its sound, and one press by several ways.

use crate::bench::{A, B, Bench, Packet, SESSION, audio, rtp, sdp};
use expect_test::{Expect, expect};
use media::Transport;
use media::{Codec, Detection, Digit, Error, EventKind, Law, SendDigits, SendDigitsError, Side};
use std::fmt::Write as _;

fn send(bench: &mut Bench, side: Side, digits: &str) -> Result<u32, Error> {
    let digits: Vec<Digit> = digits.chars().map(|it| it.to_string().parse().unwrap()).collect();
    let now = bench.now();
    let send = SendDigits::new(digits, 60, 50).unwrap();
    bench.relay.send_dtmf(now, SESSION, side, &send)
}

/// When, sequence number and timestamp (both since the first), marker, and what it holds.
fn check(packets: &[Packet], expected: Expect) {
    let mut ladder = String::new();
    let first = &packets[0];
    for packet in packets {
        let held = match packet.payload.as_slice() {
            [code, flags, high, low] if packet.payload_type == 101 => {
                let end = if flags & 0x80 != 0 { " end" } else { "" };
                format!("event {code} of {}{end}", u16::from_be_bytes([*high, *low]))
            }
            payload => format!("{} bytes of sound", payload.len()),
        };
        writeln!(
            ladder,
            "{:03} {:2} {:5} {} {held}",
            (packet.at - first.at).as_millis(),
            packet.sequence.wrapping_sub(first.sequence),
            packet.timestamp.wrapping_sub(first.timestamp),
            if packet.marker { "M" } else { "-" },
        )
        .unwrap();
    }
    expected.assert_eq(&ladder);
}

#[test]
fn music_pauses_while_digits_are_sent_and_goes_on_where_it_was() {
    let mut bench = Bench::one_side();
    let music = audio(Codec::Pcmu, 1, 8_000);
    bench.play(Side::A, "music", &music, true);
    bench.run(30);
    assert_eq!(send(&mut bench, Side::A, "5#"), Ok(240));
    bench.run(300);
    let packets = bench.take_rtp(A);
    check(
        &packets,
        expect![[r#"
            000  0     0 M 160 bytes of sound
            020  1   160 - 160 bytes of sound
            030  2   320 M event 5 of 160
            050  3   320 - event 5 of 320
            070  4   320 - event 5 of 480 end
            090  5   320 - event 5 of 480 end
            110  6   320 - event 5 of 480 end
            150  7  1280 M event 11 of 160
            170  8  1280 - event 11 of 320
            190  9  1280 - event 11 of 480 end
            210 10  1280 - event 11 of 480 end
            230 11  1280 - event 11 of 480 end
            270 12  2240 M 160 bytes of sound
            290 13  2400 - 160 bytes of sound
            310 14  2560 - 160 bytes of sound
            330 15  2720 - 160 bytes of sound
        "#]],
    );
    let sound: Vec<u8> =
        packets.into_iter().filter(|it| it.payload_type == 0).flat_map(|it| it.payload).collect();
    assert_eq!(sound, music.codes(Codec::Pcmu)[..sound.len()], "nothing of it is missing");
}

#[test]
fn talk_is_not_heard_while_digits_are_sent_and_is_back_after_them() {
    let mut bench = Bench::connected("0 101");
    let speak = |bench: &mut Bench, n: u16| {
        let voice = rtp(77, n, u32::from(n) * 160, 0, &[0x55; 160]);
        bench.receive(Side::A, A, &voice)
    };
    assert_eq!(speak(&mut bench, 1), None);
    assert_eq!(send(&mut bench, Side::B, "1"), Ok(120));
    assert_eq!(speak(&mut bench, 2).as_deref(), Some("sending_digits"));
    bench.run(121);
    assert_eq!(speak(&mut bench, 8), None);
    check(
        &bench.take_rtp(B),
        expect![[r#"
            000  0     0 M 160 bytes of sound
            000  1   160 M event 1 of 160
            020  2   160 - event 1 of 320
            040  3   160 - event 1 of 480 end
            060  4   160 - event 1 of 480 end
            080  5   160 - event 1 of 480 end
            121  6  1128 M 160 bytes of sound
        "#]],
    );
}

#[test]
fn digits_are_refused_without_telephone_event_and_forgotten_on_hold() {
    let mut bench = Bench::new();
    bench.offer(SESSION, Side::A, Some(&sdp(A, "0"))).unwrap();
    assert_eq!(
        send(&mut bench, Side::A, "1"),
        Err(Error::SendDigits(SendDigitsError::NotNegotiated))
    );
    bench.offer(SESSION, Side::A, Some(&sdp(A, "0 101"))).unwrap();
    assert_eq!(send(&mut bench, Side::A, &"1".repeat(64)), Ok(64 * 120));
    assert_eq!(
        send(&mut bench, Side::A, "1"),
        Err(Error::SendDigits(SendDigitsError::TooManyWait { waiting: 64 }))
    );
    bench.run(500);
    bench.take_rtp(A);
    let held = sdp(A, "0 101") + "a=inactive\r\n";
    bench.offer(SESSION, Side::A, Some(&held)).unwrap();
    bench.run(500);
    bench.offer(SESSION, Side::A, Some(&sdp(A, "0 101"))).unwrap();
    bench.run(500);
    assert_eq!(bench.take_rtp(A), [], "nobody is dialled at later");
}

/// 20 ms of the tones of digit 5, in PCMU.
fn tones(n: u16) -> Vec<u8> {
    let sample = |at: u32| {
        let tone = |hz: f64| (f64::from(at) * hz * std::f64::consts::TAU / 8_000.0).sin() * 6_000.0;
        Law::Pcmu.encode((tone(770.0) + tone(1_336.0)) as i16)
    };
    let payload: Vec<u8> = (0..160).map(|it| sample(u32::from(n) * 160 + it)).collect();
    rtp(77, n, u32::from(n) * 160, 0, &payload)
}

fn press(bench: &mut Bench) {
    for n in 0..5 {
        let _ = bench.receive(Side::A, A, &tones(n)); // Nobody may hear it.
        bench.run(20);
    }
}

fn transports(bench: &Bench) -> Vec<Transport> {
    let transport = |it: &EventKind| match it {
        EventKind::Digit(_, transport) => Some(*transport),
        _ => None,
    };
    bench.events.iter().filter_map(|(_, it)| transport(&it.kind)).collect()
}

#[test]
fn tones_are_digits_where_telephone_event_is_not_negotiated() {
    let mut bench = Bench::new();
    bench.offer(SESSION, Side::A, Some(&sdp(A, "0"))).unwrap();
    press(&mut bench);
    assert_eq!((bench.digits().as_str(), transports(&bench)), ("5", vec![Transport::Inband]));
    let mut bench = Bench::one_side();
    press(&mut bench);
    assert_eq!(bench.digits(), "", "they may be in a voice");
}

#[test]
fn detection_is_switched_for_each_side() {
    let mut bench = Bench::one_side();
    bench.relay.detect_dtmf(SESSION, Side::A, Detection::On).unwrap();
    assert!(bench.status(SESSION, Side::A).detects_dtmf);
    press(&mut bench);
    assert_eq!(bench.digits(), "5");
    let mut bench = Bench::new();
    bench.offer(SESSION, Side::A, Some(&sdp(A, "0"))).unwrap();
    bench.relay.detect_dtmf(SESSION, Side::A, Detection::Off).unwrap();
    press(&mut bench);
    assert_eq!(bench.digits(), "");
}

/// Sides A and B, both without telephone-event.
fn without_events() -> Bench {
    let mut bench = Bench::new();
    bench.offer(SESSION, Side::A, Some(&sdp(A, "0"))).unwrap();
    bench.offer(SESSION, Side::B, Some(&sdp(B, "0"))).unwrap();
    bench
}

#[test]
fn in_talk_tones_are_for_the_other_side_until_a_prompt_asks() {
    let mut bench = without_events();
    let now = bench.now();
    bench.relay.connect(now, SESSION).unwrap();
    assert!(!bench.status(SESSION, Side::A).detects_dtmf);
    press(&mut bench);
    assert_eq!(bench.digits(), "", "B heard them");
    bench.play(Side::A, "prompt", &audio(Codec::Pcmu, 1, 80_000), false);
    assert!(bench.status(SESSION, Side::A).detects_dtmf);
    press(&mut bench);
    assert_eq!(bench.digits(), "5");
}

#[test]
fn a_press_that_talk_has_cut_short_does_not_hide_the_next_one() {
    let mut bench = without_events();
    press(&mut bench);
    let now = bench.now();
    bench.relay.connect(now, SESSION).unwrap();
    bench.receive(Side::A, A, &rtp(77, 900, 90_000, 0, &[0xff; 160]));
    bench.play(Side::A, "prompt", &audio(Codec::Pcmu, 1, 80_000), false);
    press(&mut bench);
    assert_eq!(bench.digits(), "55");
}

#[test]
fn a_press_by_event_tones_and_info_is_one_digit() {
    let mut bench = Bench::one_side();
    bench.relay.detect_dtmf(SESSION, Side::A, Detection::On).unwrap();
    bench.receive(Side::A, A, &rtp(77, 100, 8_000, 101, &[5, 10, 0, 160]));
    press(&mut bench);
    let now = bench.now();
    let five = "5".parse().unwrap();
    assert_eq!(bench.relay.inject_dtmf(now, SESSION, Side::A, five), Ok(false));
    assert_eq!((bench.digits().as_str(), transports(&bench)), ("5", vec![Transport::Rtp]));
}
