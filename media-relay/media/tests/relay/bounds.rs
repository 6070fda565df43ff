//! Whatever peers send: no panic, no growth, and a side that still works afterwards.

use crate::bench::{A, B, Bench, SESSION, audio, rtp, sdp};
use media::sdp::Remote;
use media::{Codec, Side};
use proptest::prelude::*;
use std::time::Duration;

/// Bytes that get past the first checks more often than chance would let them.
fn datagram() -> impl Strategy<Value = Vec<u8>> {
    let anything = prop::collection::vec(any::<u8>(), 0..300);
    let number = prop_oneof![Just(0u8), Just(8), Just(101), any::<u8>()];
    prop_oneof![
        anything.clone(),
        (number, any::<u8>(), anything).prop_map(|(number, first, mut bytes)| {
            bytes.splice(..0, [0x80 | first & 0x3f, number]);
            bytes
        }),
        (any::<u16>(), any::<u32>(), 0..2_000usize).prop_map(|(sequence, timestamp, len)| rtp(
            5,
            sequence,
            timestamp,
            0,
            &vec![1; len]
        )),
    ]
}

#[derive(Clone, Debug)]
enum Op {
    Receive { side: Side, rtcp: bool, bytes: Vec<u8> },
    Run(u64),
    Connect,
    Join(Side),
    Play(Side, bool),
    Stop(Side),
    Offer(Side, bool),
    Delete(Side),
}

fn op() -> impl Strategy<Value = Op> {
    let side = || prop_oneof![Just(Side::A), Just(Side::B)];
    prop_oneof![
        6 => (side(), any::<bool>(), datagram())
            .prop_map(|(side, rtcp, bytes)| Op::Receive { side, rtcp, bytes }),
        3 => prop_oneof![Just(0), Just(20), 0..200u64, Just(61_000)].prop_map(Op::Run),
        1 => Just(Op::Connect),
        1 => side().prop_map(Op::Join),
        1 => (side(), any::<bool>()).prop_map(|(side, repeat)| Op::Play(side, repeat)),
        1 => side().prop_map(Op::Stop),
        1 => (side(), any::<bool>()).prop_map(|(side, held)| Op::Offer(side, held)),
        1 => side().prop_map(Op::Delete),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// In any order: nothing panics, time only goes forward, and what was made is gone at the end.
    #[test]
    fn operations_in_any_order_leave_nothing_behind(ops in prop::collection::vec(op(), 0..60)) {
        let mut bench = Bench::connected("8 101");
        let source = audio(Codec::Pcma, 3, 500);
        for op in ops {
            let now = bench.now();
            let exists = |bench: &Bench, side| !bench.relay.needs_ports(SESSION, side);
            match op {
                Op::Receive { side, rtcp, bytes } if exists(&bench, side) => {
                    let port = bench.status(SESSION, side).rtp_port + u16::from(rtcp);
                    bench.receive_on(port, A, &bytes);
                }
                Op::Run(ms) => bench.run(ms),
                Op::Connect => drop(bench.relay.connect(now, SESSION)),
                Op::Join(side) => drop(bench.relay.join(now, SESSION, side, "test1")),
                Op::Play(side, repeat) if exists(&bench, side) => {
                    bench.play(side, "file", &source, repeat);
                }
                Op::Stop(side) => drop(bench.relay.stop(now, SESSION, side)),
                Op::Offer(side, held) => {
                    let address = if held { "0.0.0.0:4000" } else { B };
                    bench.offer(SESSION, side, Some(&sdp(address, "0 8 101"))).unwrap();
                }
                Op::Delete(side) => drop(bench.relay.delete(now, SESSION, Some(side))),
                Op::Receive { .. } | Op::Play(..) => (),
            }
            bench.run(0);
            let due = bench.relay.poll_timeout();
            prop_assert!(due.is_none_or(|due| due > bench.now()), "what was due has been done");
        }
        let now = bench.now();
        bench.relay.delete(now, SESSION, None);
        prop_assert_eq!(bench.relay.sessions(), 0);
        prop_assert_eq!(bench.relay.poll_timeout(), None);
    }

    #[test]
    fn no_session_description_can_make_it_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        lines in prop::collection::vec("[vosctma]=[ -~]{0,40}", 0..30),
    ) {
        let _ = Remote::parse(&bytes);
        let _ = Remote::parse(format!("v=0\r\n{}\r\n", lines.join("\r\n")).as_bytes());
    }

    /// What parses can be answered, and the answer parses.
    #[test]
    fn every_usable_offer_gets_a_usable_answer(
        formats in prop::collection::vec(0..128u8, 1..8),
        direction in prop_oneof![
            Just("sendrecv"), Just("sendonly"), Just("recvonly"), Just("inactive")
        ],
        ptime in 0..300u32,
    ) {
        let formats: Vec<_> = formats.iter().map(u8::to_string).collect();
        let attributes = format!("{direction} ptime:{ptime}");
        let offer = crate::bench::sdp_with(A, &formats.join(" "), &attributes);
        let mut bench = Bench::new();
        if let Ok(described) = bench.offer(SESSION, Side::A, Some(&offer)) {
            let answer = Remote::parse(&described.sdp).unwrap();
            prop_assert_eq!(Some(answer.codec()), described.codec);
        }
    }

    /// One stream of several is answered: the first of our family that is on, over RTP/AVP and in a
    /// codec that we know.
    #[test]
    fn of_any_streams_the_first_that_can_be_used_is_answered_in_its_place(
        streams in prop::collection::vec(
            (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>()), 1..6),
        ours_is_v4 in any::<bool>(),
    ) {
        let line = |&(is_v4, on, is_avp, known): &(bool, bool, bool, bool)| format!(
            "m=audio {} {} {}\r\nc=IN {}\r\n",
            if on { 4_000 } else { 0 },
            if is_avp { "RTP/AVP" } else { "RTP/SAVP" },
            if known { 0 } else { 18 },
            if is_v4 { "IP4 192.0.2.1" } else { "IP6 2001:db8::1" },
        );
        let lines: String = streams.iter().map(line).collect();
        let offer = format!("v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nt=0 0\r\n{lines}");
        let ours = if ours_is_v4 { "198.51.100.1" } else { "2001:db8::2" };
        let mut bench = Bench::with(|it| it.address = ours.parse().unwrap());
        let answer = bench.offer(SESSION, Side::A, Some(&offer)).ok().map(|it| it.sdp);
        let is_on = |line: &str| !line.starts_with("m=audio 0 ");
        let answered: Option<Vec<bool>> = answer.map(|it| {
            let text = String::from_utf8(it).unwrap();
            text.lines().filter(|it| it.starts_with("m=")).map(is_on).collect()
        });
        let usable = |it: &(bool, bool, bool, bool)| *it == (ours_is_v4, true, true, true);
        let first = streams.iter().position(usable);
        let expected = first.map(|first| (0..streams.len()).map(|n| n == first).collect());
        prop_assert_eq!(answered, expected);
    }
}

#[test]
fn after_a_stall_what_leaves_at_once_is_bounded() {
    let mut bench = Bench::with(|it| (it.rtp_ports, it.sessions_max) = (20_000..=20_799, 300));
    let music = audio(Codec::Pcmu, 1, 8_000);
    for nth in 0..300 {
        let session_id = format!("session-{nth}");
        bench.offer(&session_id, Side::A, Some(&sdp(A, "0"))).unwrap();
        let (play_id, file) = ("music".into(), "music".into());
        let audio = music.clone();
        let play = media::Play { play_id, file, audio, repeat: true, offset_ms: 0, radio: false };
        bench.relay.play(bench.now(), &session_id, Side::A, play).unwrap();
    }
    bench.run(100);
    let now = bench.now() + Duration::from_millis(60);
    bench.relay.handle_timeout(now);
    assert_eq!(bench.relay.transmits().count(), 3 * 256, "of 300 listeners");
    assert!(bench.relay.poll_timeout().is_some_and(|it| it <= now), "the rest are due still");
    bench.stall(60);
    bench.run(0);
    assert_eq!(bench.take_rtp(A).len(), 300 * 9);
}
