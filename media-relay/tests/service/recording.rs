//! Recordings, digits and conferences of the real binary.

use crate::phone::Phone;
use crate::service::{LIMIT, Service};
use crate::sound::{amplitude, tone};
use media::Codec;
use proto::media_relay::v1::{
    ConnectRequest, DeleteRequest, JoinRequest, KickRequest, LeaveReason, ListConferencesRequest,
    MediaEventType, SendDtmfRequest, Side, StartRecordingRequest, StopRecordingRequest,
    UpdateParticipantRequest,
};
use std::path::Path;
use tokio::time::timeout;
use tonic::Code;

/// The channels of a WAV file, as far as its header says.
pub(crate) fn channels(path: &Path) -> Vec<Vec<f64>> {
    let bytes = std::fs::read(path).unwrap();
    assert_eq!(&bytes[36..40], b"data");
    let len = u32::from_le_bytes(bytes[40..44].try_into().unwrap()) as usize;
    let count = usize::from(bytes[22]);
    let samples: Vec<f64> = bytes[44..44 + len]
        .chunks(2)
        .map(|it| f64::from(i16::from_le_bytes([it[0], it[1]])))
        .collect();
    (0..count).map(|it| samples.iter().skip(it).step_by(count).copied().collect()).collect()
}

pub(crate) fn start(file: &str) -> StartRecordingRequest {
    StartRecordingRequest { session_id: "s".into(), file: file.into(), ..Default::default() }
}

/// Two phones that talk, and their relay with a folder for recordings.
async fn talking(folder: &Path) -> (Service, Phone, Phone) {
    let folder = folder.to_str().unwrap();
    let mut service = Service::start(&["--recordings-dir", folder]).await;
    let (mut a, mut b) = (Phone::new(Codec::Pcmu).await, Phone::new(Codec::Pcma).await);
    a.join(&service, "s", Side::A).await;
    b.join(&service, "s", Side::B).await;
    service
        .client
        .connect(ConnectRequest { session_id: "s".into(), ..Default::default() })
        .await
        .unwrap();
    (service, a, b)
}

#[tokio::test]
async fn a_talk_is_in_the_file_with_each_side_in_its_channel() {
    let folder = tempfile::tempdir().unwrap();
    let (mut service, mut a, mut b) = talking(folder.path()).await;
    let mut watch = service.watch("edge").await;
    let started = service.client.start_recording(start("2026/talk")).await.unwrap().into_inner();
    assert_eq!((started.file.as_str(), started.sample_rate_hz), ("2026/talk.wav", 8_000));
    let again = service.client.start_recording(start("other")).await.unwrap_err();
    assert_eq!(again.code(), Code::AlreadyExists);
    let ears = a.ears();
    tokio::select! {
        _ = ears.hear(100) => (), // Two seconds of B.
        () = a.speak(tone(400.0)) => unreachable!("it speaks for ever"),
        () = b.speak(tone(1_000.0)) => unreachable!("it speaks for ever"),
    }
    let stop = StopRecordingRequest { session_id: "s".into() };
    let stopped = service.client.stop_recording(stop.clone()).await.unwrap().into_inner();
    let recording = stopped.recording.unwrap();
    assert_eq!(recording.recording_id, started.recording_id);
    assert_eq!((recording.lost_ms, recording.error.as_str()), (0, ""));
    let event = watch.next_of(MediaEventType::RecordingFinished).await;
    assert_eq!((event.session_id.as_str(), event.side), ("s", 0));
    assert_eq!(event.recording, Some(recording.clone()));
    let channels = channels(&folder.path().join("2026/talk.wav"));
    assert_eq!(channels[0].len() as u32 / 8, recording.duration_ms);
    let settled = 4_000..12_000;
    for (channel, own, other) in [(0, 400.0, 1_000.0), (1, 1_000.0, 400.0)] {
        let sound = &channels[channel][settled.clone()];
        let (own, other) = (amplitude(sound, own), amplitude(sound, other));
        assert!(own > 20.0 * other, "{own} of its own and {other} of the other's in {channel}");
    }
    let gone = service.client.stop_recording(stop).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
}

#[tokio::test]
async fn a_killed_relay_leaves_a_file_that_can_be_heard() {
    let folder = tempfile::tempdir().unwrap();
    let (mut service, mut a, mut b) = talking(folder.path()).await;
    service.client.start_recording(start("crash.wav")).await.unwrap();
    let path = folder.path().join("crash.wav");
    let ears = a.ears();
    let grown = async {
        while channels(&path)[0].len() < 8_000 {
            ears.hear(5).await;
        }
    };
    tokio::select! {
        grown = timeout(LIMIT, grown) => grown.expect("a second on the disk"),
        () = a.speak(tone(400.0)) => unreachable!("it speaks for ever"),
        () = b.speak(tone(1_000.0)) => unreachable!("it speaks for ever"),
    }
    service.process.kill();
    let channels = channels(&path);
    assert!(amplitude(&channels[0][4_000..8_000], 400.0) > 1_000.0);
}

#[tokio::test]
async fn what_cannot_be_recorded_is_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let (mut service, _a, _b) = talking(folder.path()).await;
    for (file, code, reason) in [
        ("../up", Code::InvalidArgument, "a path below --recordings-dir"),
        ("/etc/passwd", Code::InvalidArgument, "a path below --recordings-dir"),
        ("taken", Code::AlreadyExists, "choose another name"),
    ] {
        std::fs::write(folder.path().join("taken.wav"), "mine").unwrap();
        let refused = service.client.start_recording(start(file)).await.unwrap_err();
        assert_eq!(refused.code(), code, "{file}: {refused}");
        assert!(refused.message().contains(reason), "{file}: {refused}");
    }
    assert_eq!(std::fs::read(folder.path().join("taken.wav")).unwrap(), b"mine");
    let mut without = Service::start(&[]).await;
    let mut phone = Phone::new(Codec::Pcmu).await;
    phone.join(&without, "s", Side::A).await;
    let refused = without.client.start_recording(start("a")).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert_eq!(refused.message(), "the relay has no --recordings-dir");
}

#[tokio::test]
async fn digits_reach_the_phone_as_events() {
    let mut service = Service::start(&[]).await;
    let mut phone = Phone::new(Codec::Pcmu).await;
    phone.join(&service, "s", Side::A).await;
    let send = |digits: &str| SendDtmfRequest {
        session_id: "s".into(),
        side: Side::A.into(),
        digits: digits.into(),
        ..SendDtmfRequest::default()
    };
    let sent = service.client.send_dtmf(send("42")).await.unwrap().into_inner();
    assert_eq!(sent.done_in_ms, 320);
    let heard = phone.hear(14).await;
    assert!(heard.iter().all(|it| it.payload_type == 101));
    let codes: Vec<u8> = heard.iter().map(|it| it.payload[0]).collect();
    assert_eq!(codes, [[4; 7], [2; 7]].concat());
    let refused = service.client.send_dtmf(send("4x")).await.unwrap_err();
    assert_eq!(refused.message(), "digits is \"4x\"; wanted 1 to 64 of 0-9 * # A-D");
}

#[tokio::test]
async fn a_conference_has_a_pin_and_its_members_are_managed() {
    let mut service = Service::start(&[]).await;
    let mut phones = Vec::new();
    for session_id in ["p", "q"] {
        let mut phone = Phone::new(Codec::Pcmu).await;
        phone.join(&service, session_id, Side::A).await;
        phones.push(phone);
    }
    let mut watch = service.watch("edge").await;
    let side = Side::A.into();
    let join = |session_id: &str, pin: &str| JoinRequest {
        session_id: session_id.into(),
        side,
        conference: "team".into(),
        pin: pin.into(),
        max_participants: 2,
        ..JoinRequest::default()
    };
    service.client.join(join("p", "4711")).await.unwrap();
    let wrong = service.client.join(join("q", "1")).await.unwrap_err();
    assert_eq!(wrong.code(), Code::PermissionDenied);
    assert!(!wrong.message().contains("4711"));
    service.client.join(join("q", "4711")).await.unwrap();
    let update =
        UpdateParticipantRequest { session_id: "q".into(), side, muted: Some(true), deaf: None };
    service.client.update_participant(update).await.unwrap();
    let list = ListConferencesRequest::default();
    let listed = service.client.list_conferences(list).await.unwrap().into_inner().conferences;
    assert_eq!(listed.len(), 1);
    let muted: Vec<bool> = listed[0].participants.iter().map(|it| it.muted).collect();
    assert_eq!(
        (listed[0].name.as_str(), listed[0].has_pin, muted),
        ("team", true, vec![false, true])
    );
    let kick = KickRequest { session_id: "q".into(), side };
    assert!(service.client.kick(kick.clone()).await.unwrap().into_inner().kicked);
    assert!(!service.client.kick(kick).await.unwrap().into_inner().kicked);
    let left = watch.next_of(MediaEventType::ParticipantLeft).await;
    assert_eq!((left.session_id.as_str(), left.leave_reason()), ("q", LeaveReason::Kicked));
    assert_eq!((left.conference.as_str(), left.participants), ("team", 1));
}

/// Of a process, in clock ticks of 10 ms, in user and kernel mode.
fn cpu_ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// The figure of issue C: prints what a mix of fifty who all speak costs of a core.
#[tokio::test]
async fn fifty_in_one_mix_stay_under_one_core() {
    let mut service = Service::start(&[]).await;
    let mut phones = Vec::new();
    for n in 0..50 {
        let mut phone = Phone::new(Codec::Pcmu).await;
        let session_id = format!("s{n}");
        phone.join(&service, &session_id, Side::A).await;
        let (side, conference) = (Side::A.into(), "all".to_owned());
        let join = JoinRequest { session_id, side, conference, ..JoinRequest::default() };
        service.client.join(join).await.unwrap();
        phones.push(phone);
    }
    let ears = phones[0].ears();
    let speakers: Vec<_> = phones
        .into_iter()
        .enumerate()
        .map(|(n, mut phone)| {
            tokio::spawn(async move { phone.speak(tone(300.0 + 20.0 * n as f64)).await })
        })
        .collect();
    ears.hear(50).await;
    let before = cpu_ticks(service.process.pid());
    let packets = 200;
    ears.hear(packets).await; // One each 20 ms, by the relay's clock.
    let used_ms = (cpu_ticks(service.process.pid()) - before) * 10;
    speakers.iter().for_each(|it| it.abort());
    let passed_ms = packets as u64 * 20;
    println!("50 participants: {used_ms} ms of CPU in {passed_ms} ms");
    assert!(used_ms < passed_ms, "{used_ms} ms of CPU in {passed_ms} ms");
    service.client.delete(DeleteRequest { session_id: "s0".into(), side: 0 }).await.unwrap();
}
