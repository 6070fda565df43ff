//! Sides whose descriptions somebody else negotiates: what comes goes on as it came.

use crate::bench::{A, B, Bench, SESSION, audio, rtp};
use media::sdp::Refusal;
use media::{Attach, Changed, Codec, Error, EventKind, Side, Verbatim};
use std::time::Duration;

fn remote(address: Option<&str>) -> Verbatim {
    Verbatim {
        rtp: address.map(|it| it.parse().unwrap()),
        payload_types: vec![18, 8, 0, 101],
        ptime_ms: 20,
        symmetric: true,
        telephone_event: None,
        plays_in: None,
        copied_to: None,
    }
}

fn attach(bench: &mut Bench, side: Side, remote: Option<Verbatim>) -> Result<u16, Error> {
    let (session_id, call_id, owner) = (SESSION, "call-1", "proxy");
    let now = bench.now();
    let attach = Attach { session_id, call_id, owner, side, remote };
    bench.relay.check_attach(&attach)?;
    let ports = bench.relay.needs_ports(SESSION, side).then(|| bench.relay.take_ports(now));
    bench.relay.attach(now, attach, ports.transpose()?)
}

fn connected() -> Bench {
    let mut bench = Bench::new();
    attach(&mut bench, Side::A, Some(remote(Some(A)))).unwrap();
    attach(&mut bench, Side::B, Some(remote(Some(B)))).unwrap();
    bench
}

/// What was sent to `to`, byte for byte.
fn sent(bench: &mut Bench, to: &str) -> Vec<Vec<u8>> {
    bench.take_raw(to)
}

#[test]
fn whatever_comes_goes_on_byte_for_byte() {
    let mut bench = connected();
    let long = vec![7; 1_800];
    let rtcp = [0x80, 200, 0, 1, 1, 2, 3, 4];
    let datagrams: [&[u8]; 5] =
        [&rtp(77, 1, 160, 18, &[1; 20]), &rtp(78, 9, 0, 126, &[2; 33]), b"udptl", &long, &rtcp];
    for datagram in datagrams {
        assert_eq!(bench.receive(Side::A, A, datagram), None);
        assert_eq!(sent(&mut bench, B), [datagram]);
        assert_eq!(bench.receive(Side::B, B, datagram), None);
        assert_eq!(sent(&mut bench, A), [datagram]);
    }
    let port = bench.status(SESSION, Side::A).rtp_port + 1;
    assert_eq!(bench.receive_on(port, "192.0.2.1:4001", &rtcp), None);
    assert_eq!(sent(&mut bench, "192.0.2.2:5001"), [rtcp]);
    bench.run(60_000);
    assert_eq!(
        sent(&mut bench, "192.0.2.2:5001"),
        [[0; 0]; 0],
        "no reports of ours between theirs"
    );
    assert!(bench.events.iter().all(|(_, it)| it.kind != EventKind::Inactive));
}

#[test]
fn a_side_that_is_not_known_yet_is_neither_heard_nor_sent_to() {
    let mut bench = Bench::new();
    attach(&mut bench, Side::A, Some(remote(Some(A)))).unwrap();
    attach(&mut bench, Side::B, None).unwrap();
    let voice = rtp(77, 1, 160, 0, &[1; 160]);
    assert_eq!(bench.receive(Side::A, A, &voice).as_deref(), Some("on_hold"));
    assert_eq!(bench.receive(Side::B, B, &voice).as_deref(), Some("payload_type"));
    attach(&mut bench, Side::B, Some(remote(None))).unwrap();
    assert_eq!(bench.receive(Side::A, A, &voice).as_deref(), Some("on_hold"));
    attach(&mut bench, Side::B, Some(remote(Some(B)))).unwrap();
    assert_eq!(bench.receive(Side::A, A, &voice), None);
}

#[test]
fn music_takes_the_other_side_s_place_until_it_stops() {
    let mut bench = connected();
    let music = audio(Codec::Pcma, 1, 8_000);
    let voice = rtp(77, 1, 160, 8, &[1; 160]);
    assert_eq!(bench.relay.play_in(SESSION, Side::A, 96, 20), Ok(false), "it means nothing alone");
    assert_eq!(bench.relay.play_in(SESSION, Side::A, 8, 30), Ok(true));
    bench.play(Side::A, "music", &music, true);
    bench.run(2_000);
    let heard = bench.take_rtp(A);
    assert_eq!(heard.len(), 67);
    let codes: Vec<u8> = heard.iter().flat_map(|it| it.payload.clone()).collect();
    assert!(codes.iter().eq(music.codes(Codec::Pcma).iter().cycle().take(codes.len())));
    assert!(heard.iter().all(|it| it.payload_type == 8 && it.payload.len() == 240));
    assert_eq!(bench.receive(Side::B, B, &voice).as_deref(), Some("no_listener"));
    assert_eq!(bench.receive(Side::A, A, &voice), None, "B hears A all the time");
    let now = bench.now();
    assert_eq!(bench.relay.stop(now, SESSION, Side::A), Ok(true));
    assert_eq!(bench.receive(Side::B, B, &voice), None);
}

#[test]
fn a_side_is_where_its_packets_come_from_unless_it_is_asymmetric() {
    let mut bench = connected();
    let voice = rtp(77, 1, 160, 0, &[1; 160]);
    let (nat, stranger) = ("192.0.2.1:9999", "203.0.113.66:1");
    assert_eq!(bench.receive(Side::A, nat, &voice), None);
    assert_eq!(bench.receive(Side::A, stranger, &voice).as_deref(), Some("stranger"));
    bench.receive(Side::B, B, &voice);
    assert_eq!((sent(&mut bench, nat).len(), sent(&mut bench, A).len()), (1, 0));
    let asymmetric = Verbatim { symmetric: false, ..remote(Some(A)) };
    attach(&mut bench, Side::A, Some(asymmetric)).unwrap();
    assert_eq!(bench.receive(Side::A, nat, &voice), None);
    assert_eq!(bench.receive(Side::A, stranger, &voice).as_deref(), Some("stranger"));
    bench.receive(Side::B, B, &voice);
    assert_eq!((sent(&mut bench, nat).len(), sent(&mut bench, A).len()), (0, 1));
}

#[test]
fn addresses_of_another_family_and_our_own_are_refused_and_nothing_is_left() {
    let mut bench = Bench::new();
    let error = attach(&mut bench, Side::A, Some(remote(Some("[2001:db8::1]:4000")))).unwrap_err();
    let family = Refusal::AddressFamily { got: "IPv6", ours: "IPv4" };
    assert_eq!((error, bench.relay.sessions()), (family.into(), 0));
    let port = attach(&mut bench, Side::A, Some(remote(Some(A)))).unwrap();
    let own = format!("198.51.100.1:{port}");
    let loops = attach(&mut bench, Side::B, Some(remote(Some(&own)))).unwrap_err();
    assert!(matches!(loops, Error::Refused(Refusal::Loop { .. })), "{loops}");
    let copied = bench.relay.copy_to(SESSION, Side::A, Some(own.parse().unwrap()));
    assert!(matches!(copied, Err(Error::Refused(Refusal::Loop { .. }))), "{copied:?}");
}

#[test]
fn a_copy_goes_to_who_was_named_until_it_is_taken_back() {
    let mut bench = connected();
    let to = "192.0.2.77:7000";
    let copied = bench.relay.copy_to(SESSION, Side::A, Some(to.parse().unwrap()));
    assert_eq!(copied, Ok(Some(bench.status(SESSION, Side::A).rtp_port)));
    let voice = rtp(77, 1, 160, 0, &[1; 160]);
    bench.receive(Side::A, A, &voice);
    bench.receive(Side::B, B, &voice);
    assert_eq!(sent(&mut bench, to), std::slice::from_ref(&voice));
    assert_eq!(sent(&mut bench, B), std::slice::from_ref(&voice));
    assert!(bench.relay.copy_to(SESSION, Side::A, None).is_ok());
    bench.receive(Side::A, A, &voice);
    assert_eq!(sent(&mut bench, to), [[0; 0]; 0]);
}

#[test]
fn a_digit_is_told_once_at_its_release() {
    let mut bench = connected();
    let release = |payload_type| rtp(77, 5, 8_000, payload_type, &[11, 0x8a, 3, 32]);
    bench.receive(Side::A, A, &release(101));
    let telling = Verbatim { telephone_event: Some(101), ..remote(Some(A)) };
    attach(&mut bench, Side::A, Some(telling)).unwrap();
    bench.receive(Side::A, A, &rtp(77, 4, 8_000, 101, &[11, 10, 0, 160]));
    for _ in 0..3 {
        assert_eq!(bench.receive(Side::A, A, &release(101)), None);
    }
    bench.receive(Side::B, B, &release(101));
    let digit = "#".parse().unwrap();
    let released = EventKind::DigitReleased { digit, duration_ms: 100, volume: 10 };
    assert_eq!((bench.count(&released), bench.digits().as_str()), (1, ""));
    assert_eq!(sent(&mut bench, B).len(), 5, "and goes on all the same");
}

#[test]
fn it_is_recorded_in_what_its_numbers_mean() {
    let mut bench = connected();
    let format = bench.relay.recording_format(SESSION, Some(Side::A)).unwrap();
    let now = bench.now();
    bench.relay.start_recording(now, SESSION, "r", format).unwrap();
    for n in 0..100u16 {
        let code = Codec::Pcmu.law().unwrap().encode(8_000);
        bench.receive(Side::A, A, &rtp(77, n, u32::from(n) * 160, 0, &[code; 160]));
        bench.run(20);
    }
    let now = bench.now();
    bench.relay.stop_recording(now, SESSION).unwrap();
    bench.run(0);
    let loud = bench.recorded.iter().filter(|it| (7_800..8_200).contains(*it)).count();
    assert!(loud > 14_000, "{loud} of {} samples", bench.recorded.len());
    assert_eq!(sent(&mut bench, B).len(), 100);
}

#[test]
fn silence_is_counted_from_the_last_packet_or_the_last_word_of_its_proxy() {
    let mut bench = connected();
    bench.run(30_000);
    bench.receive(Side::B, B, b"anything");
    bench.run(10_000);
    let silence = |bench: &Bench| bench.relay.silence(bench.now(), SESSION).unwrap();
    assert_eq!(silence(&bench).silent, Duration::from_secs(10));
    attach(&mut bench, Side::A, Some(remote(Some(A)))).unwrap();
    assert_eq!(silence(&bench).silent, Duration::ZERO);
    assert!(!silence(&bench).playing);
    bench.play(Side::A, "music", &audio(Codec::Pcma, 1, 800), true);
    assert!(silence(&bench).playing);
    assert_eq!(bench.relay.silence(bench.now(), "other"), None);
}

#[test]
fn it_goes_on_after_a_crash() {
    let mut bench = Bench::new();
    bench.relay.note_changes();
    let asymmetric = Verbatim { symmetric: false, ..remote(Some(A)) };
    attach(&mut bench, Side::A, Some(asymmetric.clone())).unwrap();
    attach(&mut bench, Side::B, Some(remote(Some(B)))).unwrap();
    let Some(Changed::Lives(snapshot)) = bench.relay.poll_changed(bench.now()) else { panic!() };
    let mut next = Bench::new();
    for side in snapshot.sides.iter().flatten() {
        next.relay.reserve_ports(side.rtp_port).unwrap();
    }
    let now = next.now();
    next.relay.restore(now, &snapshot).unwrap();
    assert_eq!(next.relay.attached(SESSION, Side::A), Some(&asymmetric));
    let voice = rtp(77, 1, 160, 126, &[1; 160]);
    assert_eq!(next.receive(Side::A, A, &voice), None);
    assert_eq!(sent(&mut next, B), std::slice::from_ref(&voice));
    assert_eq!(next.receive(Side::B, B, &voice), None);
    assert_eq!(sent(&mut next, A), [voice]);
}
