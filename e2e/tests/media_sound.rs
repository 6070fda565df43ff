//! Music as other people's phones hear it: every format that is read, in every codec of a phone that
//! is not ours, compared with its source.

use e2e::audio::{Codec, Reference, Wav};
use e2e::{Account, Baresip, Stack};
use proto::queue::v1::{CreateQueueRequest, Queue};
use std::f32::consts::TAU;
use std::net::SocketAddr;
use std::time::Duration;

/// One second of the melody each, made by sox, lame, oggenc and opusenc.
const TUNES: [(&str, &[u8]); 4] = [
    ("flac", include_bytes!("../../media-relay/tests/service/tunes/tune.flac")),
    ("mp3", include_bytes!("../../media-relay/tests/service/tunes/tune.mp3")),
    ("ogg", include_bytes!("../../media-relay/tests/service/tunes/tune.ogg")),
    ("opus", include_bytes!("../../media-relay/tests/service/tunes/tune.opus")),
];
/// Codecs of baresip, and the least correlation with the source that is asked of each.
const CODECS: [(&str, f64); 4] = [("pcmu", 0.98), ("pcma", 0.98), ("g722", 0.98), ("opus", 0.95)];
const WAV_RATE_HZ: u32 = 44_100;
const RAW_RATE_HZ: u32 = 8_000;
/// How long a phone listens, over several seams of the loop, and how much of it must be the source.
const LISTENING: Duration = Duration::from_millis(3_500);
const SPAN_MIN_MS: u64 = 2_500;

/// What the files hold: tones that glide, all below 3 kHz.
fn melody(rate_hz: u32) -> Vec<f32> {
    let sample = |n: u32| {
        let t = n as f32 / rate_hz as f32;
        let glide = (TAU * (300.0 * t + 400.0 * t * t)).sin();
        let chord = (TAU * 523.0 * t).sin() + (TAU * 1_318.5 * t).sin();
        (0.3 * glide + 0.2 * chord * (0.6 + 0.4 * (TAU * 3.0 * t).sin())) * 0.6
    };
    (0..rate_hz).map(sample).collect()
}

/// Writes the files into the stack's media folder, and makes a queue for each; returns the users of
/// their URIs.
async fn queues(stack: &Stack) -> anyhow::Result<Vec<String>> {
    let folder = stack.folder().join("media/sound");
    std::fs::create_dir_all(&folder)?;
    Wav::mono(WAV_RATE_HZ, melody(WAV_RATE_HZ)).write(&folder.join("tune.wav"))?;
    for (extension, codec) in [("0", Codec::Pcmu), ("8", Codec::Pcma)] {
        std::fs::write(
            folder.join(format!("tune.{extension}")),
            codec.encode(&melody(RAW_RATE_HZ)),
        )?;
    }
    for (extension, tune) in TUNES {
        std::fs::write(folder.join(format!("tune.{extension}")), tune)?;
    }
    let mut users = Vec::new();
    for extension in ["wav", "0", "8"].into_iter().chain(TUNES.map(|it| it.0)) {
        let user = format!("queue-{extension}");
        let queue = Queue {
            name: user.clone(),
            uri: stack.uri(&user),
            mohdir: "sound".into(),
            mohfile: format!("tune.{extension}"),
            max_calls: 10,
            ..Queue::default()
        };
        stack.queues().create_queue(CreateQueueRequest { queue: Some(queue) }).await?;
        users.push(user);
    }
    Ok(users)
}

/// Calls each of `uris`, one after the other; returns what it has heard there.
fn listen(codec: &str, edge: SocketAddr, uris: &[String]) -> anyhow::Result<Vec<Vec<f32>>> {
    let voice = Wav::mono(RAW_RATE_HZ, melody(RAW_RATE_HZ));
    let account = Account { user: codec, registrar: edge, password: None, codec, voice: &voice };
    let mut phone = Baresip::start(&account)?;
    for uri in uris {
        phone.dial(uri)?;
        assert!(phone.wait_closed(LISTENING).is_err(), "{codec}: hung up by {uri}");
        phone.hang_up()?;
    }
    phone.stop()?;
    (0..uris.len()).map(|nth| phone.heard(nth)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_format_is_heard_as_its_source_in_every_codec_of_a_phone() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    let users = queues(&stack).await?;
    let uris: Vec<String> = users.iter().map(|it| stack.uri(it)).collect();
    let (edge, source) =
        (stack.sip(), Reference::new(&Wav::mono(WAV_RATE_HZ, melody(WAV_RATE_HZ))));
    let listening = CODECS.map(|(codec, _)| {
        let uris = uris.clone();
        tokio::task::spawn_blocking(move || listen(codec, edge, &uris))
    });
    let mut faults = Vec::new();
    for ((codec, likeness_min), heard) in CODECS.into_iter().zip(listening) {
        for (user, heard) in users.iter().zip(heard.await??) {
            let span = source.longest_span(&heard);
            println!("{codec} {user}: {:.4} over {} ms", span.correlation, span.duration_ms());
            if span.correlation < likeness_min || span.duration_ms() < SPAN_MIN_MS {
                faults.push(format!("{codec} {user}: {span:?} of {} samples", heard.len()));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    stack.wait_clean().await?;
    stack.stop()
}
