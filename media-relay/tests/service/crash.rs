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

/// The packets before and after the jump that a crash is: at least two numbers are left out, however
/// quickly the next process is there.
fn around_the_jump(heard: &[Heard]) -> (&Heard, &Heard) {
    let pairs = heard.windows(2).map(|it| (&it[0], &it[1]));
    pairs.max_by_key(|pair| jump(*pair)).unwrap()
}

fn jump((before, after): (&Heard, &Heard)) -> u16 {
    after.sequence.wrapping_sub(before.sequence)
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
        service
            .client
            .connect(ConnectRequest { session_id: "s".into(), ..Default::default() })
            .await
            .unwrap();
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
        let mut heard = last;
        let gone_on = async {
            while heard.len() < 2 || jump(around_the_jump(&heard)) < 2 {
                heard.extend(waiting.hear(10).await);
            }
        };
        timeout(LIMIT, gone_on).await.expect("the music goes on");
        let (before, after) = around_the_jump(&heard);
        assert_eq!(before.ssrc, after.ssrc, "{path}");
        let missed = after.timestamp.wrapping_sub(before.timestamp) / 160;
        let numbers = u32::from(jump((before, after)));
        assert!(numbers <= missed + 5, "{path}: {numbers} of {missed}");

        // More than wait from before the kill. A quick restart may cost no packet of a talk at all.
        let talk = timeout(LIMIT, b.hear(400)).await.expect("the talk goes on");
        for (before, after) in talk.windows(2).map(|it| (&it[0], &it[1])) {
            assert_eq!(before.ssrc, after.ssrc, "{path}");
            assert!((1..=250).contains(&jump((before, after))), "{path}: {before:?} {after:?}");
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
