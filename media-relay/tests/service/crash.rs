//! SIGKILL and a new process: on every path of packets, music and talk go on, and of a recording all
//! but its last second is left.

use crate::paths::paths;
use crate::phone::{Heard, Phone};
use crate::recording::{channels, start};
use crate::service::{LIMIT, Service};
use crate::sound::{melody, tone, wav};
use media::Codec;
use proto::media_relay::v1::{ConnectRequest, QueryRequest, Side, StopRecordingRequest};
use tokio::time::timeout;
use tonic::Code;

/// The packets before and after the jump in time that a crash is.
fn around_the_jump(heard: &[Heard]) -> (&Heard, &Heard) {
    let pairs = heard.windows(2).map(|it| (&it[0], &it[1]));
    pairs.max_by_key(|(a, b)| b.timestamp.wrapping_sub(a.timestamp)).unwrap()
}

#[tokio::test]
async fn a_killed_relay_is_followed_by_one_that_goes_on() {
    for path in paths() {
        let (state, recordings) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let flags = [
            ("--packet-path", path),
            ("--state-dir", state.path().to_str().unwrap()),
            ("--recordings-dir", recordings.path().to_str().unwrap()),
        ];
        let flags: Vec<&str> = flags.into_iter().flat_map(|(flag, value)| [flag, value]).collect();
        let mut service = Service::start(&flags).await;
        service.write("moh.wav", &wav(melody, 1_000, 8_000, 1));
        let mut waiting = Phone::new(Codec::Pcmu).await;
        waiting.join(&service, "waits", Side::A).await;
        service.play("waits", "moh", true).await.unwrap();
        let (mut a, mut b) = (Phone::new(Codec::Pcmu).await, Phone::new(Codec::Pcma).await);
        a.join(&service, "s", Side::A).await;
        b.join(&service, "s", Side::B).await;
        service.client.connect(ConnectRequest { session_id: "s".into() }).await.unwrap();
        service.client.start_recording(start("crash.wav")).await.unwrap();
        let (speaking_a, speaking_b) = (
            tokio::spawn(async move { a.speak(tone(400.0)).await }),
            tokio::spawn({
                let mut mouth = b.ears();
                async move { mouth.speak(tone(1_000.0)).await }
            }),
        );
        let recording = recordings.path().join("crash.wav");
        let grown = async {
            while channels(&recording)[0].len() < 8_000 {
                waiting.hear(5).await;
            }
        };
        timeout(LIMIT, grown).await.expect("a second on the disk");

        let last = waiting.hear(1).await; // What came before the kill may all have been heard.
        let mut service = service.kill_and_start(&flags).await;
        let mut query = service.client.query(QueryRequest::default()).await.unwrap().into_inner();
        query.sessions.sort_by(|a, b| a.session_id.cmp(&b.session_id));
        let found: Vec<_> =
            query.sessions.iter().map(|it| (it.session_id.as_str(), it.sides.len())).collect();
        assert_eq!(found, [("s", 2), ("waits", 1)], "{path}");
        for (who, phone, mut heard) in [("music", &waiting, last), ("talk", &b, Vec::new())] {
            heard.extend(phone.hear(50).await);
            let is_after = |heard: &[Heard]| {
                let (before, after) = around_the_jump(heard);
                after.timestamp.wrapping_sub(before.timestamp) > 160
            };
            let gone_on = async {
                while !is_after(&heard) {
                    heard.extend(phone.hear(10).await);
                }
            };
            timeout(LIMIT, gone_on).await.expect("it goes on");
            let (before, after) = around_the_jump(&heard);
            assert_eq!(before.ssrc, after.ssrc, "{path}: {who}");
            let missed = after.timestamp.wrapping_sub(before.timestamp) / 160;
            let numbers = u32::from(after.sequence.wrapping_sub(before.sequence));
            assert!((1..=missed + 5).contains(&numbers), "{path}: {who}: {numbers} of {missed}");
        }
        speaking_a.abort();
        speaking_b.abort();

        let stop = StopRecordingRequest { session_id: "s".into() };
        let status = service.client.stop_recording(stop).await.unwrap_err();
        assert_eq!(status.code(), Code::NotFound, "{path}: it is over");
        assert!(channels(&recording)[1].len() >= 8_000, "{path}");
        let again = service.client.start_recording(start("again.wav")).await;
        assert!(again.is_ok(), "{path}: {again:?}");
    }
}
