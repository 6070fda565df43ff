//! Recordings, as they come out of the relay.

use crate::bench::{A, B, Bench, SESSION, rtp};
use media::{Error, Law, RecordingError, RecordingFormat, Side};
use std::time::Duration;

const STEREO: RecordingFormat = RecordingFormat { side: None, sample_rate_hz: 8_000 };

/// 20 ms of one value; side A in PCMU, side B in PCMA.
fn voice(side: Side, n: u16, value: i16) -> Vec<u8> {
    let (law, number) = if side == Side::A { (Law::Pcmu, 0) } else { (Law::Pcma, 8) };
    rtp(side as u32 + 7, n, u32::from(n) * 160, number, &[law.encode(value); 160])
}

fn start(bench: &mut Bench, side: Option<Side>) {
    let format = bench.relay.recording_format(SESSION, side).unwrap();
    assert_eq!(format, RecordingFormat { side, ..STEREO });
    let now = bench.now();
    bench.relay.start_recording(now, SESSION, "r", format).unwrap();
}

/// Both speak for `frames` × 20 ms.
fn talk(bench: &mut Bench, first: u16, frames: u16) {
    for n in first..first + frames {
        bench.receive(Side::A, A, &voice(Side::A, n, 1_000));
        bench.receive(Side::B, B, &voice(Side::B, n, -2_000));
        bench.run(20);
    }
}

fn near(sample: i16, wanted: i16) -> bool {
    sample.abs_diff(wanted) < 70
}

#[test]
fn a_talk_is_recorded_in_stereo_from_its_start_to_its_stop() {
    let mut bench = Bench::connected("8 101");
    talk(&mut bench, 0, 10);
    start(&mut bench, None);
    talk(&mut bench, 10, 50);
    bench.run(500); // Nobody says anything.
    talk(&mut bench, 85, 10);
    let now = bench.now();
    assert_eq!(&*bench.relay.stop_recording(now, SESSION).unwrap(), "r");
    talk(&mut bench, 95, 10);
    assert_eq!(bench.recordings_ended, 1);
    let (left, right): (Vec<i16>, Vec<i16>) =
        bench.recorded.chunks(2).map(|it| (it[0], it[1])).unzip();
    assert_eq!(left.len(), 8 * 1_700, "1.7 s");
    let at = |ms: usize| (left[ms * 8], right[ms * 8]);
    for ms in [30, 500, 990, 1_530, 1_690] {
        assert!(near(at(ms).0, 1_000) && near(at(ms).1, -2_000), "{:?} at {ms} ms", at(ms));
    }
    for ms in [1_010, 1_250, 1_490] {
        assert_eq!(at(ms), (0, 0), "silence has its place, {ms} ms");
    }
}

#[test]
fn one_side_is_recorded_in_mono_while_nobody_hears_it() {
    let mut bench = Bench::one_side();
    start(&mut bench, Some(Side::A));
    for n in 0..50 {
        assert_eq!(bench.receive(Side::A, A, &voice(Side::A, n, 1_000)), None);
        bench.run(20);
    }
    assert!(bench.relay.delete(bench.now(), SESSION, None));
    bench.run(0);
    assert_eq!(bench.recordings_ended, 1, "it ends with its session");
    assert_eq!(bench.recorded.len(), 8_000);
    assert!(near(bench.recorded[4_000], 1_000));
    assert_eq!(bench.relay.poll_timeout(), None, "no timer is left");
}

#[test]
fn it_ends_with_the_last_side_of_its_session() {
    let mut bench = Bench::connected("8 101");
    start(&mut bench, None);
    talk(&mut bench, 0, 50);
    let now = bench.now();
    assert!(bench.relay.delete(now, SESSION, Some(Side::A)));
    bench.run(0);
    assert_eq!(bench.recordings_ended, 0, "B is there still");
    let now = bench.now();
    assert!(bench.relay.delete(now, SESSION, Some(Side::B)));
    bench.run(0);
    assert_eq!(bench.recordings_ended, 1);
    assert_eq!(bench.relay.poll_timeout(), None, "no timer is left");
}

#[test]
fn a_recording_ends_after_its_longest_duration() {
    let mut bench = Bench::with(|it| it.recording_max = Duration::from_secs(3));
    bench.offer(SESSION, Side::A, Some(&crate::bench::sdp(A, "0"))).unwrap();
    start(&mut bench, Some(Side::A));
    bench.run(2_900);
    assert_eq!(bench.recordings_ended, 0);
    bench.run(3_000);
    assert_eq!(bench.recordings_ended, 1);
    assert_eq!(bench.recorded.len(), 3 * 8_000);
    let now = bench.now();
    let missing = Error::Recording(RecordingError::Missing(SESSION.into()));
    assert_eq!(bench.relay.stop_recording(now, SESSION), Err(missing));
    start(&mut bench, Some(Side::A));
}

#[test]
fn what_cannot_be_recorded_is_refused() {
    let mut bench = Bench::new();
    let format = |bench: &Bench, side| bench.relay.recording_format(SESSION, side);
    assert_eq!(format(&bench, None), Err(Error::NoSession(SESSION.into())));
    bench.offer(SESSION, Side::A, None).unwrap();
    let (session_id, side) = (SESSION.to_owned(), Side::A);
    assert_eq!(format(&bench, None), Err(Error::NotNegotiated { session_id, side }));
    let (session_id, side) = (SESSION.to_owned(), Side::B);
    assert_eq!(format(&bench, Some(side)), Err(Error::NoSide { session_id, side }));
    let mut bench = Bench::one_side();
    start(&mut bench, None);
    let exists = Error::Recording(RecordingError::Exists(SESSION.into()));
    assert_eq!(format(&bench, None), Err(exists));
}
