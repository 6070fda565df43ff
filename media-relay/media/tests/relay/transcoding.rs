//! Talk between sides that speak unlike codecs, and music in each of them.

use crate::bench::{A, B, Bench, Packet, SESSION, rtp, sdp};
use media::{Audio, Codec, Decoder, Encoder, Side};
use std::sync::Arc;

const PACKETS: usize = 100;

/// An offer of one codec, with its number, and telephone-event at its clock as 101.
pub(crate) fn offer(address: &str, codec: Codec, ptime_ms: u32) -> String {
    let number = number(codec);
    let attributes = format!(
        "rtpmap:{number} {}\r\na=rtpmap:101 telephone-event/{}\r\na=ptime:{ptime_ms}",
        codec.rtpmap(),
        codec.clock_rate_hz()
    );
    let sdp = sdp(address, &format!("{number} 101"));
    let lines = sdp.lines().filter(|it| !it.starts_with("a=rtpmap"));
    let lines: Vec<_> = lines.map(str::to_owned).chain([format!("a={attributes}")]).collect();
    lines.join("\r\n") + "\r\n"
}

pub(crate) fn number(codec: Codec) -> u8 {
    codec.static_payload_type().unwrap_or(96)
}

pub(crate) fn tone(codec: Codec, pitch_hz: f64, ms: usize) -> Vec<i16> {
    let rate = f64::from(codec.sample_rate_hz());
    let sample = |n: usize| (std::f64::consts::TAU * pitch_hz * n as f64 / rate).sin() * 8_000.0;
    (0..ms * codec.samples_per_ms()).map(|n| sample(n) as i16).collect()
}

/// The share of the power that is this tone, after the first quarter.
pub(crate) fn purity(codec: Codec, pitch_hz: f64, samples: &[i16]) -> f64 {
    let samples = &samples[samples.len() / 4..];
    let step = std::f64::consts::TAU * pitch_hz / f64::from(codec.sample_rate_hz());
    let (mut sine, mut cosine, mut power) = (0.0, 0.0, 0.0);
    for (n, sample) in samples.iter().enumerate() {
        let (sample, phase) = (f64::from(*sample), n as f64 * step);
        sine += sample * phase.sin();
        cosine += sample * phase.cos();
        power += sample * sample;
    }
    (sine * sine + cosine * cosine) * 2.0 / samples.len() as f64 / power
}

pub(crate) fn decoded(codec: Codec, packets: &[Packet]) -> Vec<i16> {
    let mut decoder = Decoder::new(codec);
    let mut samples = Vec::new();
    for packet in packets {
        decoder.decode(&packet.payload, &mut samples).unwrap();
    }
    samples
}

pub(crate) fn connected(a: Codec, b: Codec, ptime_ms: u32) -> Bench {
    let mut bench = Bench::new();
    bench.offer(SESSION, Side::A, Some(&offer(A, a, 20))).unwrap();
    bench.offer(SESSION, Side::B, Some(&offer(B, b, ptime_ms))).unwrap();
    let now = bench.now();
    bench.relay.connect(now, SESSION).unwrap();
    bench
}

#[test]
fn every_codec_is_heard_in_every_other_one() {
    for from in Codec::ALL {
        for to in Codec::ALL {
            for ptime_ms in [20, 60] {
                let mut bench = connected(from, to, ptime_ms);
                let mut encoder = Encoder::new(from);
                let sound = tone(from, 700.0, PACKETS * 20);
                for (n, frame) in sound.chunks(20 * from.samples_per_ms()).enumerate() {
                    let mut payload = Vec::new();
                    encoder.encode(frame, &mut payload);
                    let timestamp = n as u32 * 20 * from.ticks_per_ms();
                    let packet = rtp(7, n as u16, timestamp, number(from), &payload);
                    bench.receive(Side::A, A, &packet);
                    bench.run(20);
                }
                let heard = bench.take_rtp(B);
                let what = format!("{from:?} to {to:?} at {ptime_ms} ms");
                for pair in heard.windows(2) {
                    assert_eq!(pair[1].sequence, pair[0].sequence.wrapping_add(1), "{what}");
                    let ticks = to.ticks_of(&pair[0].payload).unwrap();
                    assert_eq!(pair[1].timestamp.wrapping_sub(pair[0].timestamp), ticks, "{what}");
                }
                let samples = decoded(to, &heard);
                assert!(samples.len() >= 1_900 * to.samples_per_ms(), "{what}");
                let purity = purity(to, 700.0, &samples);
                assert!(purity > 0.9, "{what}: {purity}");
            }
        }
    }
}

#[test]
fn the_same_codec_is_forwarded_untouched_whatever_the_packet_times() {
    for codec in Codec::ALL {
        let mut bench = connected(codec, codec, 60);
        let mut payload = Vec::new();
        Encoder::new(codec).encode(&tone(codec, 300.0, 20), &mut payload);
        bench.receive(Side::A, A, &rtp(7, 1, 500, number(codec), &payload));
        bench.run(0);
        assert_eq!(bench.take_rtp(B)[0].payload, payload, "{codec:?}");
    }
}

#[test]
fn a_lost_packet_costs_its_time_and_a_late_one_is_not_sent_twice() {
    let mut bench = connected(Codec::Pcmu, Codec::Opus, 20);
    let send = |bench: &mut Bench, n: u16| {
        bench.receive(Side::A, A, &rtp(7, n, u32::from(n) * 160, 0, &[0x55; 160]))
    };
    for n in [0, 1, 2, 4, 5] {
        assert_eq!(send(&mut bench, n), None);
    }
    assert_eq!(send(&mut bench, 3).as_deref(), Some("late"));
    assert_eq!(send(&mut bench, 5).as_deref(), Some("late"));
    bench.run(0);
    assert_eq!(bench.take_rtp(B).len(), 6, "what was lost is concealed");
    assert_eq!(send(&mut bench, 56), None, "after a second of silence");
    bench.run(0);
    let after = bench.take_rtp(B);
    assert!(after[0].marker);
    assert_eq!(after.len(), 1);
}

#[test]
fn a_digit_keeps_its_length_in_another_clock() {
    let mut bench = connected(Codec::Pcmu, Codec::Opus, 20);
    bench.receive(Side::A, A, &rtp(7, 1, 160, 0, &[0x55; 160]));
    for (sequence, duration) in [(2, 160u16), (3, 320), (4, 800)] {
        let [high, low] = duration.to_be_bytes();
        bench.receive(Side::A, A, &rtp(7, sequence, 320, 101, &[5, 10, high, low]));
    }
    bench.receive(Side::A, A, &rtp(7, 5, 1_120, 0, &[0x55; 160]));
    bench.run(0);
    assert_eq!(bench.digits(), "5");
    let heard = bench.take_rtp(B);
    let events: Vec<_> = heard.iter().filter(|it| it.payload_type == 101).collect();
    let durations: Vec<_> =
        events.iter().map(|it| u16::from_be_bytes([it.payload[2], it.payload[3]])).collect();
    assert_eq!(durations, [960, 1_920, 4_800]);
    assert!(events.iter().all(|it| it.timestamp == heard[0].timestamp.wrapping_add(960)));
    let last = heard.last().unwrap();
    assert_eq!(last.timestamp.wrapping_sub(heard[0].timestamp), 960 + 4_800);
    assert!(heard.windows(2).all(|it| it[1].sequence == it[0].sequence.wrapping_add(1)));
}

#[test]
fn music_is_heard_in_every_codec_and_packet_time_from_the_first_packet() {
    let source = tone(Codec::Opus, 700.0, 1_000);
    for codec in Codec::ALL {
        for ptime_ms in [10, 20, 60] {
            let audio = Arc::new(Audio::new(48_000, source.clone()).unwrap());
            let ptime_ms = codec.ptime_ms(ptime_ms);
            let mut bench = Bench::new();
            bench.offer(SESSION, Side::A, Some(&offer(A, codec, ptime_ms))).unwrap();
            bench.play(Side::A, "music", &audio, true);
            bench.run(3_000);
            let heard = bench.take_rtp(A);
            assert!(heard.len() as u32 >= 2_900 / ptime_ms, "{codec:?}: {}", heard.len());
            for pair in heard.windows(2).skip(2) {
                let ticks = pair[1].timestamp.wrapping_sub(pair[0].timestamp);
                assert_eq!(ticks, ptime_ms * codec.ticks_per_ms(), "{codec:?}");
            }
            let purity = purity(codec, 700.0, &decoded(codec, &heard));
            assert!(purity > 0.97, "{codec:?} at {ptime_ms} ms: {purity}");
        }
    }
}

#[test]
fn a_peer_that_changes_its_source_with_each_packet_gets_no_transcoder_for_each() {
    let mut bench = connected(Codec::Pcmu, Codec::Opus, 20);
    let send = |bench: &mut Bench, n: u16| {
        bench.receive(Side::A, A, &rtp(u32::from(n), n, u32::from(n) * 160, 0, &[0x55; 160]))
    };
    assert_eq!(send(&mut bench, 0), None);
    for n in 1..50 {
        assert_eq!(send(&mut bench, n).as_deref(), Some("codec_changed"));
    }
    bench.run(20);
    assert_eq!(send(&mut bench, 50), None, "another source after a while is one");
    assert_eq!(send(&mut bench, 51).as_deref(), Some("codec_changed"));
}

#[test]
fn comfort_noise_goes_to_who_negotiated_it_and_to_nobody_else() {
    for (formats, goes) in [("0 13 101", true), ("8 13 101", true), ("0 101", false)] {
        let mut bench = Bench::connected(formats);
        bench.receive(Side::A, A, &rtp(7, 1, 160, 0, &[0x55; 160]));
        assert_eq!(bench.receive(Side::A, A, &rtp(7, 2, 320, 13, &[40])), None);
        bench.run(0);
        let heard = bench.take_rtp(B);
        let numbers: Vec<_> = heard.iter().map(|it| it.payload_type).collect();
        let audio = formats[..1].parse().unwrap();
        assert_eq!(numbers, if goes { vec![audio, 13] } else { vec![audio] }, "{formats}");
        if goes {
            assert_eq!(heard[1].payload, [40]);
            assert_eq!(heard[1].sequence, heard[0].sequence.wrapping_add(1));
            assert_eq!(heard[1].timestamp, heard[0].timestamp.wrapping_add(160));
        }
    }
}
