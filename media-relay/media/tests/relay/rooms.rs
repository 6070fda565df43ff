//! Rules of conferences: mute, deaf, kick, PIN, limit, music for who is alone, comfort noise.

use crate::bench::{Bench, audio, rtp, sdp};
use media::{Codec, Error, EventKind, Join, JoinError, Law, LeaveReason, Play, Side};

fn id(n: usize) -> String {
    format!("session-{n}")
}

fn address(n: usize) -> String {
    format!("192.0.2.{}:4000", n + 1)
}

/// So many negotiated in PCMU, each in a session of its own.
fn phones(count: usize) -> Bench {
    let mut bench = Bench::new();
    for n in 0..count {
        bench.offer(&id(n), Side::A, Some(&sdp(&address(n), "0 101"))).unwrap();
    }
    bench
}

fn join(bench: &mut Bench, n: usize, join: Join<'_>) -> Result<usize, Error> {
    let now = bench.now();
    let joined = bench.relay.join_with(now, &id(n), Side::A, join);
    bench.run(0);
    joined
}

/// Each says its own value for `frames` × 20 ms; returns the last sample that each heard.
fn talk(bench: &mut Bench, values: &[i16], first: u16, frames: u16) -> Vec<i16> {
    for frame in first..first + frames {
        for (n, value) in values.iter().enumerate() {
            let payload = [Law::Pcmu.encode(*value); 160];
            let packet = rtp(n as u32 + 1, frame, u32::from(frame) * 160, 0, &payload);
            let port = bench.status(&id(n), Side::A).rtp_port;
            let _ = bench.receive_on(port, &address(n), &packet);
        }
        bench.run(20);
    }
    let last = |n: usize| bench.take_rtp(&address(n)).pop().map_or(0, |it| it.payload[159]);
    (0..values.len()).map(last).map(|it| Law::Pcmu.decode(it)).collect()
}

fn near(heard: &[i16], wanted: &[i16]) -> bool {
    heard.iter().zip(wanted).all(|(a, b)| a.abs_diff(*b) <= 100)
}

#[test]
fn the_muted_and_the_deaf_can_be_set_at_joining_and_changed() {
    let mut bench = phones(3);
    let values = [50, 1_000, 3_000];
    join(&mut bench, 0, Join { muted: true, ..Join::named("c") }).unwrap();
    join(&mut bench, 1, Join { deaf: true, ..Join::named("c") }).unwrap();
    join(&mut bench, 2, Join::named("c")).unwrap();
    let heard = talk(&mut bench, &values, 0, 20);
    assert!(near(&heard, &[4_000, 0, 1_000]), "{heard:?}");
    let now = bench.now();
    let mut update =
        |n, muted, deaf| bench.relay.update_participant(now, &id(n), Side::A, muted, deaf).unwrap();
    let updated = update(0, Some(false), None);
    assert!(!updated.muted && !updated.deaf);
    assert!(update(1, Some(true), Some(false)).muted);
    let heard = talk(&mut bench, &values, 20, 20);
    assert!(near(&heard, &[3_000, 3_050, 50]), "{heard:?}");
    let status = bench.relay.conference(bench.now(), "c").unwrap();
    let speaking: Vec<bool> = status.participants.iter().map(|it| it.speaking).collect();
    assert_eq!(speaking, [false, false, true], "50 is silence, and the muted do not speak");
    assert_eq!(status.sample_rate_hz, 8_000);
}

#[test]
fn who_is_kicked_hears_nothing_and_all_are_told_why() {
    let mut bench = phones(2);
    for n in 0..2 {
        join(&mut bench, n, Join::named("c")).unwrap();
    }
    let now = bench.now();
    let mut leave = |n, reason| bench.relay.leave(now, &id(n), Side::A, reason);
    assert_eq!(leave(1, LeaveReason::Kicked), Ok(true));
    assert_eq!(leave(1, LeaveReason::Kicked), Ok(false), "twice changes nothing");
    bench.relay.delete(now, &id(0), None);
    bench.run(0);
    let conference: std::sync::Arc<str> = "c".into();
    let joined = |participants| EventKind::Joined { conference: conference.clone(), participants };
    let left = |participants, reason| EventKind::Left {
        conference: conference.clone(),
        participants,
        reason,
    };
    let told: Vec<_> = bench.events.iter().map(|(_, it)| it.kind.clone()).collect();
    assert_eq!(
        told,
        [joined(1), joined(2), left(1, LeaveReason::Kicked), left(0, LeaveReason::Deleted)]
    );
    assert_eq!(bench.status(&id(1), Side::A).hears, "nothing");
    assert_eq!(bench.relay.conference_names(), []);
    let none = bench.relay.update_participant(now, &id(1), Side::A, None, None);
    assert_eq!(
        none.unwrap_err().to_string(),
        "side A of media session \"session-1\" is in no conference"
    );
}

#[test]
fn the_pin_and_the_limit_are_held_and_end_with_the_conference() {
    let mut bench = phones(3);
    let closed = |pin| Join { pin, participants_max: 2, ..Join::named("c") };
    assert_eq!(join(&mut bench, 0, closed("12")), Ok(1));
    assert_eq!(join(&mut bench, 1, closed("21")), Err(Error::Join(JoinError::WrongPin)));
    assert_eq!(bench.status(&id(1), Side::A).hears, "nothing");
    assert_eq!(join(&mut bench, 1, closed("12")), Ok(2));
    assert_eq!(join(&mut bench, 2, closed("12")), Err(Error::Join(JoinError::Full { max: 2 })));
    let status = bench.relay.conference(bench.now(), "c").unwrap();
    assert!(status.has_pin);
    assert_eq!((status.participants_max, status.participants.len()), (2, 2));
    for n in 0..2 {
        bench.relay.delete(bench.now(), &id(n), None);
    }
    assert_eq!(join(&mut bench, 2, Join::named("c")), Ok(1), "the next one makes its own");
}

#[test]
fn who_is_alone_hears_music_until_somebody_comes() {
    let mut bench = phones(2);
    let source = audio(Codec::Pcmu, 1, 8_000);
    let (play_id, file) = ("m".into(), "moh".into());
    let music =
        Play { play_id, file, audio: source.clone(), repeat: true, offset_ms: 0, radio: false };
    join(&mut bench, 0, Join { music: Some(music), ..Join::named("c") }).unwrap();
    bench.run(200);
    let heard: Vec<u8> =
        bench.take_rtp(&address(0)).into_iter().flat_map(|it| it.payload).collect();
    assert_eq!(heard, source.codes(Codec::Pcmu)[..heard.len()]);
    assert!(heard.len() >= 1_600);
    join(&mut bench, 1, Join::named("c")).unwrap();
    let heard = talk(&mut bench, &[100, 1_000], 0, 20);
    assert!(near(&heard, &[1_000, 100]), "{heard:?}");
    bench.relay.leave(bench.now(), &id(0), Side::A, LeaveReason::Left).unwrap();
    bench.take_rtp(&address(1));
    bench.run(200);
    let heard: Vec<u8> =
        bench.take_rtp(&address(1)).into_iter().flat_map(|it| it.payload).collect();
    assert!(heard.starts_with(&source.codes(Codec::Pcmu)[..800]), "the other one is alone now");
    assert_eq!(bench.status(&id(0), Side::A).hears, "nothing");
    bench.take_rtp(&address(0));
    bench.run(200);
    assert_eq!(bench.take_rtp(&address(0)), [], "who has left hears no music");
}

#[test]
fn a_prompt_is_heard_over_the_conference_which_is_back_after_it() {
    let mut bench = phones(2);
    for n in 0..2 {
        join(&mut bench, n, Join::named("c")).unwrap();
    }
    talk(&mut bench, &[100, 1_000], 0, 20);
    let (play_id, file, now) = ("p".into(), "p".into(), bench.now());
    let audio = audio(Codec::Pcmu, 1, 3_200);
    let prompt = Play { play_id, file, audio, repeat: false, offset_ms: 0, radio: false };
    bench.relay.play(now, &id(0), Side::A, prompt).unwrap();
    talk(&mut bench, &[100, 1_000], 20, 10);
    assert_eq!(bench.status(&id(0), Side::A).hears, "prompt");
    let heard = talk(&mut bench, &[100, 1_000], 30, 40);
    assert!(near(&heard, &[1_000, 100]), "{heard:?}");
    assert_eq!(bench.status(&id(0), Side::A).hears, "conference c");
}

#[test]
fn comfort_noise_is_heard_as_noise_of_its_level() {
    let mut bench = phones(2);
    for n in 0..2 {
        join(&mut bench, n, Join::named("c")).unwrap();
    }
    talk(&mut bench, &[3_000, 0], 0, 20);
    let port = bench.status(&id(0), Side::A).rtp_port;
    let noise = rtp(1, 20, 20 * 160, 13, &[40]);
    assert_eq!(bench.receive_on(port, &address(0), &noise), None, "it is not unknown");
    bench.run(500);
    bench.take_rtp(&address(1));
    bench.run(1_000);
    let packets = bench.take_rtp(&address(1));
    let heard = packets.iter().flat_map(|it| &it.payload).map(|it| Law::Pcmu.decode(*it));
    let (mut power, mut count) = (0.0, 0.0);
    for sample in heard {
        power += f64::from(sample).powi(2);
        count += 1.0;
    }
    let rms = f64::sqrt(power / count);
    assert!((250.0..400.0).contains(&rms), "{rms} of 328");
    assert_eq!(bench.status(&id(0), Side::A).comfort_noise_received, 1);
}
