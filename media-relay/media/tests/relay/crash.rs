//! What a killed process leaves in snapshots, and how the next one goes on with it.

use crate::bench::{A, B, Bench, Packet, SESSION, audio, rtp, sdp};
use media::{Audio, Changed, Codec, Discard, Join, Play, RestoreError, SessionSnapshot, Side};
use std::sync::Arc;
use std::time::Duration;

/// The newest snapshot of the session.
fn snapshot(bench: &mut Bench) -> SessionSnapshot {
    let now = bench.now();
    let mut newest = None;
    while let Some(changed) = bench.relay.poll_changed(now) {
        newest = Some(changed);
    }
    match newest {
        Some(Changed::Lives(snapshot)) => *snapshot,
        other => panic!("no snapshot, but {other:?}"),
    }
}

/// A process that starts `ms` after the first one did, and has the ports of `snapshot`.
fn restarted(ms: u64, snapshot: &SessionSnapshot) -> Bench {
    let mut bench = Bench::new();
    bench.run(ms);
    for side in snapshot.sides.iter().flatten() {
        bench.relay.reserve_ports(side.rtp_port).expect("it is free");
    }
    bench
}

/// Plays on what the snapshot played.
fn restore(bench: &mut Bench, snapshot: &SessionSnapshot, audio: &Arc<Audio>) {
    let now = bench.now();
    for resumed in bench.relay.restore(now, snapshot).unwrap() {
        let offset_ms = resumed.play.offset_after(resumed.age, audio.duration_ms()).unwrap();
        let play = play(&resumed.play.play_id, audio, resumed.play.repeat, offset_ms);
        let (session_id, side) = (resumed.session_id.as_str(), resumed.side);
        match resumed.is_conference_music {
            true => bench.relay.resume_conference_music(now, session_id, side, play),
            false => bench.relay.play(now, session_id, side, play),
        }
        .unwrap();
    }
}

fn play(name: &str, audio: &Arc<Audio>, repeat: bool, offset_ms: u32) -> Play {
    let (play_id, file, audio) = (name.into(), name.into(), audio.clone());
    Play { play_id, file, audio, repeat, offset_ms, radio: false }
}

fn voice(n: u16) -> Vec<u8> {
    let payload: Vec<u8> = (0..160).map(|it| (it + n * 3) as u8).collect();
    rtp(77, 1_000 + n, 5_000 + u32::from(n) * 160, 0, &payload)
}

/// One stream to the remote, of which it has lost something: at least what was not sent, and at
/// most `skipped` more sequence numbers.
fn assert_goes_on(before: &Packet, after: &Packet, skipped: u16) {
    assert_eq!(after.ssrc, before.ssrc);
    let passed_ms = u32::try_from((after.at - before.at).as_millis()).unwrap();
    let ticks = after.timestamp.wrapping_sub(before.timestamp);
    assert!(ticks.abs_diff(passed_ms * 8) <= 160, "{ticks} ticks in {passed_ms} ms");
    let packets = after.sequence.wrapping_sub(before.sequence);
    let due = (passed_ms / 20) as u16;
    assert!((due..=due + skipped + 1).contains(&packets), "{packets} packets in {passed_ms} ms");
}

#[test]
fn music_is_where_it_would_be_and_its_stream_goes_on() {
    let mut first = Bench::one_side();
    first.relay.note_changes();
    let music = audio(Codec::Pcmu, 1, 9_999);
    first.play(Side::A, "music", &music, true);
    let snapshot = snapshot(&mut first); // Before the first packet; nothing changes after it.
    first.run(2_010);
    let heard = first.take_rtp(A);

    let mut second = restarted(2_750, &snapshot);
    restore(&mut second, &snapshot, &music);
    second.run(500);
    let later = second.take_rtp(A);
    assert_eq!(later[0].at, Duration::from_millis(2_750), "at once");
    assert_goes_on(heard.last().unwrap(), &later[0], 2);
    crate::bench::assert_continuous(&later);
    let codes = music.codes(Codec::Pcmu);
    for packet in &later {
        let at = packet.timestamp.wrapping_sub(heard[0].timestamp) as usize;
        let wanted: Vec<u8> = (at..at + 160).map(|it| codes[it % codes.len()]).collect();
        assert_eq!(packet.payload, wanted, "its timestamp is its place in the music");
    }
    let [before, after] = [&first, &second].map(|it| it.status(SESSION, Side::A));
    assert_eq!((after.rtp_port, after.codec), (before.rtp_port, before.codec));
}

#[test]
fn talk_goes_on_with_the_same_numbers_as_if_the_packets_between_were_lost() {
    let mut first = Bench::connected("0 101");
    first.relay.note_changes();
    first.receive(Side::A, A, &voice(0));
    first.receive(Side::B, B, &rtp(99, 60_000, 1, 0, &[7; 160]));
    let snapshot = snapshot(&mut first);
    for n in 1..200 {
        first.run(20);
        first.receive(Side::A, A, &voice(n));
    }
    let heard = first.take_rtp(B);

    let mut second = restarted(4_700, &snapshot);
    second.relay.note_changes();
    restore(&mut second, &snapshot, &audio(Codec::Pcmu, 1, 1));
    second.receive(Side::A, A, &voice(235));
    second.run(20);
    second.receive(Side::A, A, &voice(236));
    let later = second.take_rtp(B);
    crate::bench::assert_continuous(&later);
    let last = heard.last().unwrap();
    assert_eq!(later[0].ssrc, last.ssrc);
    assert_eq!(later[0].sequence, last.sequence.wrapping_add(36));
    assert_eq!(later[0].timestamp, last.timestamp.wrapping_add(36 * 160));
    assert_eq!(later[0].payload, voice(235)[12..]);
}

#[test]
fn a_source_that_changed_meanwhile_is_joined_on_after_what_was_sent() {
    let mut first = Bench::connected("0 101");
    first.relay.note_changes();
    first.receive(Side::A, A, &voice(0));
    let snapshot = snapshot(&mut first);
    for n in 1..100 {
        first.run(20);
        first.receive(Side::A, A, &voice(n));
    }
    let heard = first.take_rtp(B);
    let mut second = restarted(3_000, &snapshot);
    restore(&mut second, &snapshot, &audio(Codec::Pcmu, 1, 1));
    second.receive(Side::A, A, &rtp(78, 5, 5, 0, &[1; 160]));
    assert_goes_on(heard.last().unwrap(), &second.take_rtp(B)[0], 2);
}

#[test]
fn a_stranger_does_not_become_the_remote_by_a_restart() {
    let mut first = Bench::connected("0 101");
    first.relay.note_changes();
    let nat = "203.0.113.9:61000";
    first.receive(Side::A, nat, &voice(0));
    let snapshot = snapshot(&mut first);
    let mut second = restarted(1_000, &snapshot);
    restore(&mut second, &snapshot, &audio(Codec::Pcmu, 1, 1));
    assert_eq!(
        second.receive(Side::A, "203.0.113.10:61000", &voice(9)).as_deref(),
        Some(Discard::Stranger.label())
    );
    assert_eq!(second.receive(Side::A, nat, &voice(10)), None);
    second.receive(Side::B, B, &voice(0));
    assert_eq!(second.take_rtp(nat).len(), 1, "and what it hears goes where it is");
    let again = second.events.iter().filter(|(_, it)| it.side == Side::A);
    assert_eq!(again.count(), 0, "it does not latch anew");
}

#[test]
fn a_session_that_was_on_hold_or_half_offered_is_so_again() {
    let mut first = Bench::one_side();
    first.relay.note_changes();
    let music = audio(Codec::Pcmu, 1, 8_000);
    first.play(Side::A, "music", &music, true);
    first.run(100);
    first.offer(SESSION, Side::A, Some(&crate::bench::sdp_with(A, "0 101", "inactive"))).unwrap();
    let offered = first.offer(SESSION, Side::B, None).unwrap();
    let snapshot = snapshot(&mut first);
    first.take_rtp(A);

    let mut second = restarted(60_000, &snapshot);
    restore(&mut second, &snapshot, &music);
    second.run(1_000);
    assert_eq!(second.take_rtp(A), [], "on hold");
    let resumed = second.offer(SESSION, Side::A, Some(&sdp(A, "0 101"))).unwrap();
    second.run(10);
    assert_eq!(second.take_rtp(A).len(), 1, "resumed");
    second.answer(Side::B, &sdp(B, "8")).unwrap();
    let origin = |sdp: &[u8]| -> Vec<u64> {
        let text = String::from_utf8_lossy(sdp).into_owned();
        let line = text.lines().find(|it| it.starts_with("o=")).unwrap().to_owned();
        line.split(' ').skip(1).take(2).map(|it| it.parse().unwrap()).collect()
    };
    let again = second.offer(SESSION, Side::B, None).unwrap();
    assert_eq!(origin(&again.sdp)[0], origin(&offered.sdp)[0], "the same session");
    assert!(origin(&again.sdp)[1] > origin(&offered.sdp)[1], "and a later version of it");
    assert!(!resumed.held);
}

#[test]
fn what_was_chosen_of_a_description_is_chosen_again() {
    let offer = "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nt=0 0\r\n\
         m=audio 4000 RTP/AVP 9\r\nc=IN IP6 2001:db8::1\r\n\
         m=audio 4000 RTP/AVP 0 8\r\nc=IN IP4 192.0.2.1\r\n";
    let only_pcma = || Bench::with(|it| it.codecs = vec![Codec::Pcma]);
    let mut first = only_pcma();
    first.relay.note_changes();
    first.offer(SESSION, Side::A, Some(offer)).unwrap();
    let snapshot = snapshot(&mut first);
    let mut second = only_pcma();
    second.relay.reserve_ports(snapshot.sides[0].as_ref().unwrap().rtp_port).unwrap();
    restore(&mut second, &snapshot, &audio(Codec::Pcma, 1, 100));
    for bench in [&first, &second] {
        let status = bench.status(SESSION, Side::A);
        assert_eq!((status.signalled, status.codec), (A.parse().ok(), Some(Codec::Pcma)));
    }
}

#[test]
fn what_cannot_be_restored_is_refused_and_leaves_nothing() {
    let mut first = Bench::one_side();
    first.relay.note_changes();
    first.play(Side::A, "music", &audio(Codec::Pcmu, 1, 100), true);
    let good = snapshot(&mut first);
    let mut other_version = good.clone();
    other_version.version += 1;
    let mut no_sdp = good.clone();
    no_sdp.sides[0].as_mut().unwrap().remote = Some("m=nothing".to_owned());
    for bad in [other_version, no_sdp] {
        let mut second = restarted(1_000, &bad);
        let now = second.now();
        assert!(second.relay.restore(now, &bad).is_err());
        second.run(0);
        assert_eq!((second.relay.sessions(), second.closed.len()), (0, 1));
    }
    let mut second = restarted(1_000, &good);
    let now = second.now();
    second.relay.restore(now, &good).unwrap();
    assert_eq!(
        second.relay.restore(now, &good).unwrap_err(),
        RestoreError::Exists(SESSION.to_owned())
    );
}

#[test]
fn a_session_that_is_deleted_is_gone_from_the_snapshots() {
    let mut bench = Bench::one_side();
    bench.relay.note_changes();
    bench.play(Side::A, "music", &audio(Codec::Pcmu, 1, 100), true);
    snapshot(&mut bench);
    let now = bench.now();
    bench.relay.delete(now, SESSION, None);
    assert_eq!(bench.relay.poll_changed(now), Some(Changed::Gone(SESSION.into())));
    assert_eq!(bench.relay.poll_changed(now), None);
}

#[test]
fn sessions_that_come_and_go_while_the_disk_stands_still_leave_nothing() {
    let mut bench = Bench::with(|it| it.port_quarantine = Duration::ZERO);
    bench.relay.note_changes();
    let now = bench.now();
    for n in 0..1_000 {
        let id = format!("session-{n}");
        bench.offer(&id, Side::A, Some(&sdp(A, "0"))).unwrap();
        assert!(bench.relay.delete(now, &id, None));
        bench.run(0);
    }
    assert_eq!(bench.relay.poll_changed(now), None, "nobody was told that they lived");
}

#[test]
fn a_session_that_was_taken_up_is_gone_from_the_snapshots_when_it_is_deleted() {
    let mut first = Bench::one_side();
    first.relay.note_changes();
    first.play(Side::A, "music", &audio(Codec::Pcmu, 1, 100), true);
    let snapshot = snapshot(&mut first);
    let mut second = restarted(1_000, &snapshot);
    second.relay.note_changes();
    let now = second.now();
    second.relay.restore(now, &snapshot).unwrap();
    second.relay.delete(now, SESSION, None);
    assert_eq!(second.relay.poll_changed(now), Some(Changed::Gone(SESSION.into())));
}

#[test]
fn who_is_alone_in_a_conference_is_in_it_still_and_hears_its_music() {
    let music = audio(Codec::Pcmu, 1, 9_999);
    let mut first = Bench::one_side();
    first.relay.note_changes();
    let now = first.now();
    let join = Join { music: Some(play("alone", &music, true, 0)), ..Join::named("red") };
    first.relay.join_with(now, SESSION, Side::A, join).unwrap();
    first.run(500);
    let snapshot = snapshot(&mut first);
    let mut second = restarted(1_000, &snapshot);
    restore(&mut second, &snapshot, &music);
    let now = second.now();
    assert_eq!(second.relay.conference(now, "red").expect("it is one").participants.len(), 1);
    second.run(500);
    let codes = music.codes(Codec::Pcmu);
    let heard = second.take_rtp(A);
    let is_music = |it: &&Packet| codes.windows(160).any(|codes| codes == it.payload);
    assert!(heard.iter().filter(is_music).count() >= 24, "of {} packets", heard.len());
    second.offer("other", Side::A, Some(&sdp(B, "0"))).unwrap();
    second.relay.join(now, "other", Side::A, "red").unwrap();
    second.run(100);
    second.take_rtp(A);
    second.run(100);
    assert_eq!(second.take_rtp(A).iter().filter(is_music).count(), 0, "not alone any more");
}

#[test]
fn a_participant_stays_muted_and_the_pin_is_asked_for_still() {
    let mut first = Bench::one_side();
    first.relay.note_changes();
    let now = first.now();
    let join = || Join { pin: "1234", participants_max: 2, muted: true, ..Join::named("red") };
    first.relay.join_with(now, SESSION, Side::A, join()).unwrap();
    let snapshot = snapshot(&mut first);
    let mut second = restarted(1_000, &snapshot);
    restore(&mut second, &snapshot, &audio(Codec::Pcmu, 1, 1));
    let now = second.now();
    let red = second.relay.conference(now, "red").unwrap();
    assert_eq!((red.has_pin, red.participants_max), (true, 2));
    assert!(red.participants[0].muted && !red.participants[0].deaf);
    second.offer("other", Side::A, Some(&sdp(B, "0"))).unwrap();
    assert!(second.relay.join(now, "other", Side::A, "red").is_err(), "without the PIN");
}
