//! Conferences, recordings, digits and prompts among phones of unlike codecs and rates.

use crate::bench::{A, B, Bench, SESSION, rtp};
use crate::transcoding::{connected, decoded, number, offer, purity, tone};
use media::{Audio, Codec, Digit, Encoder, EventKind, PTIMES_MS, SendDigits, Side};
use std::sync::Arc;

/// What a phone says: 20 ms of its tone with each packet.
struct Voice {
    codec: Codec,
    pitch_hz: f64,
    encoder: Encoder,
}

impl Voice {
    fn new(codec: Codec, pitch_hz: f64) -> Self {
        Self { codec, pitch_hz, encoder: Encoder::new(codec) }
    }

    fn packet(&mut self, n: u16) -> Vec<u8> {
        let codec = self.codec;
        let frame = 20 * codec.samples_per_ms();
        let said = tone(codec, self.pitch_hz, 20 * (usize::from(n) + 1));
        // Quieter than a tone alone: several of them must fit into a mix.
        let said: Vec<i16> = said[said.len() - frame..].iter().map(|it| it / 3).collect();
        let mut payload = Vec::new();
        self.encoder.encode(&said, &mut payload);
        let timestamp = u32::from(n) * 20 * codec.ticks_per_ms();
        rtp(self.pitch_hz as u32, n, timestamp, number(codec), &payload)
    }
}

/// Amplitude of a pitch.
fn amplitude(rate_hz: u32, samples: &[i16], pitch_hz: f64) -> f64 {
    let step = std::f64::consts::TAU * pitch_hz / f64::from(rate_hz);
    let (mut sine, mut cosine) = (0.0, 0.0);
    for (n, sample) in samples.iter().enumerate() {
        sine += f64::from(*sample) * (n as f64 * step).sin();
        cosine += f64::from(*sample) * (n as f64 * step).cos();
    }
    sine.hypot(cosine) * 2.0 / samples.len() as f64
}

fn address(n: usize) -> String {
    format!("192.0.2.{}:4000", n + 1)
}

#[test]
fn in_a_conference_of_all_codecs_each_hears_all_the_others_and_not_itself() {
    let pitch_hz = |n: usize| 400.0 + 250.0 * n as f64;
    let mut bench = Bench::new();
    let mut voices = Vec::new();
    for (n, codec) in Codec::ALL.into_iter().enumerate() {
        let id = format!("session-{n}");
        bench.offer(&id, Side::A, Some(&offer(&address(n), codec, 20))).unwrap();
        let now = bench.now();
        bench.relay.join(now, &id, Side::A, "all").unwrap();
        voices.push((Voice::new(codec, pitch_hz(n)), bench.status(&id, Side::A).rtp_port));
    }
    for n in 0..100 {
        for (at, (voice, port)) in voices.iter_mut().enumerate() {
            assert_eq!(bench.receive_on(*port, &address(at), &voice.packet(n)), None);
        }
        bench.run(20);
    }
    for (listener, codec) in Codec::ALL.into_iter().enumerate() {
        let heard = bench.take_rtp(&address(listener));
        for pair in heard.windows(2) {
            assert_eq!(pair[1].sequence, pair[0].sequence.wrapping_add(1), "{codec:?}");
            let ticks = pair[1].timestamp.wrapping_sub(pair[0].timestamp);
            assert_eq!(ticks, 20 * codec.ticks_per_ms(), "{codec:?}");
        }
        let samples = decoded(codec, &heard);
        let settled = &samples[samples.len() / 4..samples.len() - samples.len() / 20];
        for speaker in 0..Codec::ALL.len() {
            let amplitude = amplitude(codec.sample_rate_hz(), settled, pitch_hz(speaker));
            let what = format!("{codec:?} hears {:?} at {amplitude}", Codec::ALL[speaker]);
            match speaker == listener {
                true => assert!(amplitude < 300.0, "{what}, itself"),
                false => assert!(amplitude > 1_000.0, "{what}, of 2,666"),
            }
        }
    }
}

#[test]
fn a_recording_holds_both_sides_at_the_wider_rate() {
    for (a, b, rate_hz) in [
        (Codec::Opus, Codec::Gsm, 48_000),
        (Codec::G722, Codec::Pcma, 16_000),
        (Codec::L16Narrow, Codec::L16Wide, 16_000),
    ] {
        let mut bench = connected(a, b, 20);
        let format = bench.relay.recording_format(SESSION, None).unwrap();
        assert_eq!(format.sample_rate_hz, rate_hz);
        let now = bench.now();
        bench.relay.start_recording(now, SESSION, "r", format).unwrap();
        let (mut left, mut right) = (Voice::new(a, 700.0), Voice::new(b, 1_150.0));
        for n in 0..100 {
            bench.receive(Side::A, A, &left.packet(n));
            bench.receive(Side::B, B, &right.packet(n));
            bench.run(20);
        }
        let now = bench.now();
        bench.relay.stop_recording(now, SESSION).unwrap();
        bench.run(0);
        assert_eq!(bench.recorded.len(), 2 * 2 * rate_hz as usize, "two seconds of two");
        for (channel, own, other) in [(0, 700.0, 1_150.0), (1, 1_150.0, 700.0)] {
            let samples: Vec<i16> =
                bench.recorded.iter().skip(channel).step_by(2).copied().collect();
            let settled = &samples[samples.len() / 10..samples.len() * 9 / 10];
            let said = amplitude(rate_hz, settled, own);
            assert!(said > 1_800.0, "{a:?} {b:?}, channel {channel}: {said} of 2,666");
            let said = amplitude(rate_hz, settled, other);
            assert!(said < 150.0, "{a:?} {b:?}, channel {channel}: {said} of the other side");
        }
    }
}

#[test]
fn digits_are_heard_and_sent_beside_every_codec_in_its_clock() {
    for codec in Codec::ALL {
        let mut bench = Bench::new();
        bench.offer(SESSION, Side::A, Some(&offer(A, codec, 20))).unwrap();
        for (sequence, ms, end) in [(1, 20, 0), (2, 40, 0), (4, 80, 0x80), (5, 80, 0x80)] {
            let [high, low] = (ms as u16 * codec.ticks_per_ms() as u16).to_be_bytes();
            bench.receive(Side::A, A, &rtp(7, sequence, 9_600, 101, &[7, end | 10, high, low]));
        }
        assert_eq!(bench.digits(), "7", "{codec:?}");
        let now = bench.now();
        let digits = vec!["5".parse::<Digit>().unwrap()];
        let send = SendDigits::new(digits, 100, 50).unwrap();
        bench.relay.send_dtmf(now, SESSION, Side::A, &send).unwrap();
        bench.run(500);
        let sent = bench.take_rtp(A);
        let last = sent.last().unwrap();
        let duration = u16::from_be_bytes([last.payload[2], last.payload[3]]);
        assert_eq!(u32::from(duration), 100 * codec.ticks_per_ms(), "{codec:?}");
        assert!(sent.iter().all(|it| it.timestamp == sent[0].timestamp && it.payload_type == 101));
        let ends = sent.iter().filter(|it| it.payload[1] & 0x80 != 0).count();
        assert_eq!((ends, sent[0].marker, sent[1].marker), (3, true, false), "{codec:?}");
    }
}

#[test]
fn a_prompt_is_heard_over_music_in_every_codec_and_packet_time() {
    let file =
        |pitch_hz, ms| Arc::new(Audio::new(48_000, tone(Codec::Opus, pitch_hz, ms)).unwrap());
    let (music, prompt) = (file(700.0, 1_000), file(1_150.0, 1_000));
    for codec in Codec::ALL {
        for ptime_ms in PTIMES_MS {
            let what = format!("{codec:?} at {ptime_ms} ms");
            let mut bench = Bench::new();
            bench.offer(SESSION, Side::A, Some(&offer(A, codec, ptime_ms))).unwrap();
            let ptime_ms = codec.ptime_ms(ptime_ms);
            bench.play(Side::A, "music", &music, true);
            bench.run(1_200);
            bench.play(Side::A, "prompt", &prompt, false);
            bench.run(2_400);
            let play_id = "prompt".into();
            assert_eq!(bench.count(&EventKind::PlayFinished { play_id }), 1, "{what}");
            let heard = bench.take_rtp(A);
            for pair in heard.windows(2) {
                assert_eq!(pair[1].sequence, pair[0].sequence.wrapping_add(1), "{what}");
                let ticks = pair[1].timestamp.wrapping_sub(pair[0].timestamp);
                let passed = (pair[1].at - pair[0].at).as_millis() as u32 * codec.ticks_per_ms();
                assert!(ticks >= ptime_ms * codec.ticks_per_ms(), "{what}: they overlap");
                assert!(ticks.abs_diff(passed) <= codec.ticks_per_ms(), "{what}");
                assert!(passed <= 2 * ptime_ms * codec.ticks_per_ms(), "{what}: a gap");
            }
            let samples = decoded(codec, &heard);
            let part = |from_ms: usize, to_ms: usize| {
                &samples[from_ms * codec.samples_per_ms()..to_ms * codec.samples_per_ms()]
            };
            for (pitch_hz, part) in [
                (700.0, part(200, 1_100)),
                (1_150.0, part(1_300, 2_100)),
                (700.0, part(2_400, 3_300)),
            ] {
                let purity = purity(codec, pitch_hz, part);
                assert!(purity > 0.95, "{what}: {pitch_hz} Hz, {purity}");
            }
        }
    }
}
