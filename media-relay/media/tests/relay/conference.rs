//! Conferences, as their participants hear them.

use crate::bench::{Bench, SESSION, assert_continuous, audio, rtp, sdp};
use media::{Codec, EventKind, Law, Side};

/// Participant `n` of `codecs.len()`, each in a session of its own, all in one conference.
struct Room {
    bench: Bench,
    codecs: Vec<Codec>,
}

impl Room {
    fn new(codecs: &[Codec]) -> Self {
        let mut bench = Bench::new();
        for (n, codec) in codecs.iter().enumerate() {
            let format = codec.static_payload_type().unwrap();
            let phone = sdp(&address(n), &format!("{format} 101"));
            bench.offer(&id(n), Side::A, Some(&phone)).unwrap();
            let now = bench.now();
            assert_eq!(bench.relay.join(now, &id(n), Side::A, "test1"), Ok(n + 1));
        }
        Self { bench, codecs: codecs.to_vec() }
    }

    /// Each participant sends a tone of its own for `frames` × 20 ms; returns what each heard.
    fn speak(&mut self, frames: u16) -> Vec<Vec<i16>> {
        for frame in 0..frames {
            for (n, codec) in self.codecs.clone().into_iter().enumerate() {
                let sample =
                    |it| codec.law().unwrap().encode(tone(n, usize::from(frame) * 160 + it));
                let payload: Vec<u8> = (0..160).map(sample).collect();
                let (number, ssrc) = (codec.static_payload_type().unwrap(), n as u32 + 1);
                let packet = rtp(ssrc, frame, u32::from(frame) * 160, number, &payload);
                let port = self.bench.status(&id(n), Side::A).rtp_port;
                assert_eq!(self.bench.receive_on(port, &address(n), &packet), None);
            }
            self.bench.run(20);
        }
        let codecs = self.codecs.clone();
        let heard = codecs.into_iter().enumerate().map(|(n, codec)| {
            let packets = self.bench.take_rtp(&address(n));
            assert_continuous(&packets);
            packets
                .into_iter()
                .flat_map(|it| it.payload)
                .map(|it| codec.law().unwrap().decode(it))
                .collect()
        });
        heard.collect()
    }
}

fn id(n: usize) -> String {
    format!("session-{n}")
}

fn address(n: usize) -> String {
    format!("192.0.2.{}:4000", n + 1)
}

/// 300 Hz, 500 Hz, 700 Hz, …: whole periods in 80 ms.
fn pitch(n: usize) -> f64 {
    300.0 + 200.0 * n as f64
}

fn tone(n: usize, sample: usize) -> i16 {
    let t = sample as f64 / 8_000.0;
    ((t * pitch(n) * std::f64::consts::TAU).sin() * 3_000.0) as i16
}

/// Amplitude of one pitch in samples (Goertzel's question, asked plainly).
fn amplitude(samples: &[i16], pitch_hz: f64) -> f64 {
    let (mut sine, mut cosine) = (0.0, 0.0);
    for (n, sample) in samples.iter().enumerate() {
        let phase = n as f64 / 8_000.0 * pitch_hz * std::f64::consts::TAU;
        sine += f64::from(*sample) * phase.sin();
        cosine += f64::from(*sample) * phase.cos();
    }
    (sine.hypot(cosine)) * 2.0 / samples.len() as f64
}

#[test]
fn eight_participants_each_hear_all_the_others_and_not_themselves() {
    let codecs: Vec<_> = (0..8).map(|n| Codec::ALL[n % 2]).collect();
    let heard = Room::new(&codecs).speak(50);
    for (listener, samples) in heard.iter().enumerate() {
        let settled = &samples[1_600..6_400];
        for speaker in 0..8 {
            let amplitude = amplitude(settled, pitch(speaker));
            let wanted = if speaker == listener { 0.0 } else { 3_000.0 };
            assert!(
                (amplitude - wanted).abs() < 300.0,
                "{listener} hears {speaker} at {amplitude}, not {wanted}"
            );
        }
    }
}

#[test]
fn who_is_alone_hears_silence_at_a_steady_pace() {
    let heard = Room::new(&[Codec::Pcma]).speak(50).remove(0);
    assert_eq!(heard.len(), 50 * 160);
    assert!(heard.iter().all(|it| it.abs() <= 8));
}

#[test]
fn who_leaves_is_not_heard_and_the_last_one_ends_the_conference() {
    let mut room = Room::new(&[Codec::Pcmu, Codec::Pcmu]);
    room.speak(20);
    let now = room.bench.now();
    assert!(room.bench.relay.delete(now, &id(0), None));
    room.bench.run(500);
    let packets = room.bench.take_rtp(&address(1));
    let tail: Vec<i16> =
        packets[10..].iter().flat_map(|it| &it.payload).map(|it| Law::Pcmu.decode(*it)).collect();
    assert!(tail.iter().all(|it| *it == 0), "its last words are not repeated");
    assert!(room.bench.relay.delete(now, &id(1), None));
    assert_eq!(room.bench.relay.poll_timeout(), None, "no timer is left");
}

#[test]
fn who_leaves_by_order_is_not_heard_and_keeps_its_session() {
    let mut room = Room::new(&[Codec::Pcmu; 2]);
    room.speak(20);
    let now = room.bench.now();
    room.bench.relay.leave(now, &id(1), Side::A, media::LeaveReason::Left).unwrap();
    room.bench.relay.leave(now, &id(1), Side::A, media::LeaveReason::Left).unwrap(); // Twice changes nothing.
    let status = room.bench.status(&id(1), Side::A);
    assert_eq!(status.hears, "nothing");
    let packet = rtp(2, 20, 20 * 160, 0, &[0; 160]);
    let discarded = room.bench.receive_on(status.rtp_port, &address(1), &packet);
    assert_eq!(discarded.as_deref(), Some("no_listener"));
    assert_eq!(room.bench.relay.join(now, &id(0), Side::A, "test1"), Ok(1));
}

#[test]
fn digits_are_reported_and_not_mixed() {
    let mut room = Room::new(&[Codec::Pcmu, Codec::Pcmu]);
    let port = room.bench.status(&id(0), Side::A).rtp_port;
    let event = rtp(1, 1, 0, 101, &[9, 0x8a, 3, 32]);
    assert_eq!(room.bench.receive_on(port, &address(0), &event), None);
    room.bench.run(500);
    assert_eq!(room.bench.digits(), "9");
    let packets = room.bench.take_rtp(&address(1));
    assert!(packets.iter().all(|it| it.payload_type == 0 && it.payload == [0xff; 160]));
}

#[test]
fn a_stall_is_a_pause_in_time_and_not_a_delay_for_ever() {
    let mut room = Room::new(&[Codec::Pcmu]);
    room.bench.run(100);
    let before = room.bench.take_rtp(&address(0)).pop().unwrap();
    room.bench.stall(1_000);
    room.bench.run(100);
    let after = room.bench.take_rtp(&address(0));
    assert!(after.len() <= 6, "no burst");
    let passed = (after[0].at - before.at).as_millis() as u32 * 8;
    let ticks = after[0].timestamp.wrapping_sub(before.timestamp);
    assert!(ticks.abs_diff(passed) <= 320, "{ticks} ticks in the time of {passed}");
    assert!(after[0].marker);
}

#[test]
fn the_sixty_fifth_participant_is_refused_and_stays_where_it_was() {
    let mut bench = Bench::with(|config| {
        config.rtp_ports = 20_000..=20_399;
        config.sessions_max = 100;
    });
    for n in 0..65 {
        bench.offer(&id(n), Side::A, Some(&sdp(&address(n), "0"))).unwrap();
        let now = bench.now();
        let joined = bench.relay.join(now, &id(n), Side::A, "big");
        match n {
            64 => assert_eq!(
                joined.unwrap_err().to_string(),
                "the conference has 64 participants, and takes no more"
            ),
            n => assert_eq!(joined, Ok(n + 1)),
        }
    }
    assert_eq!(bench.status(&id(64), Side::A).hears, "nothing");
    assert_eq!(bench.status(&id(63), Side::A).hears, "conference big");
}

#[test]
fn a_silent_participant_is_reported() {
    let mut room = Room::new(&[Codec::Pcmu, Codec::Pcmu]);
    room.bench.run(61_000);
    assert_eq!(room.bench.count(&EventKind::Inactive), 2);
}

#[test]
fn joining_ends_the_prompt_and_the_connection() {
    let mut bench = Bench::connected("0 101");
    bench.play(Side::A, "prompt", &audio(Codec::Pcmu, 1, 80_000), false);
    let now = bench.now();
    bench.relay.join(now, SESSION, Side::A, "test1").unwrap();
    assert_eq!(bench.status(SESSION, Side::A).hears, "conference test1");
    assert_eq!(bench.status(SESSION, Side::B).hears, "nothing");
    bench.relay.join(now, SESSION, Side::A, "test2").unwrap();
    assert_eq!(bench.relay.join(now, SESSION, Side::B, "test1"), Ok(1), "A has moved on");
    bench.relay.connect(now, SESSION).unwrap();
    assert_eq!(bench.relay.join(now, SESSION, Side::B, "test2"), Ok(1));
}
