//! Files: which are heard as what they hold, and which are refused and how.

use crate::phone::Phone;
use crate::service::{LIMIT, Service, spawn};
use crate::sound::{correlation, looped, melody, wav, with_header};
use media::{Codec, Encoder, Law};
use proto::media_relay::v1::{MediaEventType, Side, StopRequest};
use tokio::time::timeout;
use tonic::Code;

/// A length that no packet time divides.
const MS: u32 = 1_303;

/// One second of the melody each, made by sox, lame, oggenc and opusenc.
const TUNES: [(&str, &[u8]); 4] = [
    ("flac", include_bytes!("tunes/tune.flac")),
    ("mp3", include_bytes!("tunes/tune.mp3")),
    ("ogg", include_bytes!("tunes/tune.ogg")),
    ("opus", include_bytes!("tunes/tune.opus")),
];

#[tokio::test]
async fn a_loop_is_heard_as_its_source_in_both_laws_without_a_gap() {
    let service = Service::start(&[]).await;
    service.write("moh.wav", &wav(melody, MS, 44_100, 2));
    for codec in [Codec::Pcmu, Codec::Pcma] {
        let mut phone = Phone::new(codec).await;
        let session_id = codec.encoding_name();
        phone.join(&service, session_id, Side::A).await;
        let playing = service.play(session_id, "moh", true).await.unwrap();
        assert_eq!(playing.duration_ms, MS);
        let heard = phone.hear(200).await;
        for pair in heard.windows(2) {
            assert_eq!(pair[1].sequence, pair[0].sequence.wrapping_add(1));
            assert_eq!(pair[1].timestamp, pair[0].timestamp.wrapping_add(160));
            assert_eq!(pair[1].ssrc, pair[0].ssrc);
        }
        assert!(heard.iter().all(|it| it.payload_type == codec.static_payload_type().unwrap()));
        let codes = heard.iter().flat_map(|it| &it.payload);
        let samples: Vec<f64> =
            codes.map(|it| f64::from(codec.law().unwrap().decode(*it))).collect();
        let similarity = correlation(&samples, &looped(melody, MS, samples.len()));
        assert!(similarity >= 0.98, "{codec:?}: {similarity}");
    }
}

#[tokio::test]
async fn an_offer_can_ask_for_music_which_is_heard_from_its_beginning() {
    let service = Service::start(&[]).await;
    service.write("moh.wav", &wav(melody, MS, 16_000, 1));
    let mut watch = service.watch("edge").await;
    let mut phone = Phone::new(Codec::Pcmu).await;
    let offered = service.offer_with_music("s", Side::A, phone.sdp(), "moh").await.unwrap();
    phone.set_relay(&offered.sdp);
    let samples = phone.hear_samples(100).await;
    let similarity = correlation(&samples, &looped(melody, MS, samples.len()));
    assert!(similarity >= 0.98, "{similarity}");

    // Its play_id is that of a playing: it can be stopped.
    let stop = StopRequest {
        session_id: "s".into(),
        side: Side::A.into(),
        play_id: offered.play_id,
        leave_conference: false,
    };
    assert!(service.client.clone().stop(stop).await.unwrap().into_inner().stopped);

    // What cannot be played is told, and the side is there.
    let again = service.offer_with_music("s", Side::A, phone.sdp(), "nothing").await.unwrap_err();
    assert_eq!(again.code(), Code::NotFound, "{again}");
    assert!(again.message().starts_with("music \"nothing\" cannot be played: "), "{again}");
    service.play("s", "moh", false).await.unwrap();
    watch.next_of(MediaEventType::PlayFinished).await;
}

#[tokio::test]
async fn every_common_wav_is_heard_as_what_it_holds() {
    let service = Service::start(&[]).await;
    let eight = |n: usize| (melody(n as f64 / 11_025.0) * 100.0 + 128.0) as u8;
    let float = |n: usize| (melody(n as f64 / 48_000.0) as f32).to_le_bytes();
    let law = |n: usize| Law::Pcma.encode((melody(n as f64 / 8_000.0) * 20_000.0) as i16);
    let three = |n: usize| {
        let [a, b, c, _] = ((melody(n as f64 / 16_000.0) * 8_000_000.0) as i32).to_le_bytes();
        [a, b, c]
    };
    let files = [
        ("8 kHz", wav(melody, 1_000, 8_000, 1)),
        ("96 kHz, 6 channels", wav(melody, 1_000, 96_000, 6)),
        ("8 bit", with_header(1, 8, 11_025, 1, &(0..11_025).map(eight).collect::<Vec<_>>())),
        ("24 bit", with_header(1, 24, 16_000, 1, &(0..16_000).flat_map(three).collect::<Vec<_>>())),
        ("44101 Hz", wav(melody, 1_000, 44_101, 1)),
        ("float", with_header(3, 32, 48_000, 1, &(0..48_000).flat_map(float).collect::<Vec<_>>())),
        ("A-law", with_header(6, 8, 8_000, 1, &(0..8_000).map(law).collect::<Vec<_>>())),
    ];
    for (name, bytes) in files {
        service.write(&format!("{name}.wav"), &bytes);
        let mut phone = Phone::new(Codec::Pcmu).await;
        phone.join(&service, name, Side::A).await;
        let playing = service.play(name, name, true).await.unwrap();
        assert_eq!(playing.duration_ms, 1_000, "{name}");
        let samples = phone.hear_samples(60).await;
        let similarity = correlation(&samples, &looped(melody, 1_000, samples.len()));
        assert!(similarity >= 0.99, "{name}: {similarity}");
    }
}

#[tokio::test]
async fn compressed_files_are_heard_as_their_source() {
    let service = Service::start(&[]).await;
    for (name, tune) in TUNES {
        service.write(&format!("tune.{name}"), tune);
        let mut phone = Phone::new(Codec::Pcmu).await;
        phone.join(&service, name, Side::A).await;
        let file = format!("tune.{name}");
        let playing = service.play(name, &file, true).await.unwrap();
        assert!(playing.duration_ms.abs_diff(1_000) <= 1, "{name}: {}", playing.duration_ms);
        let samples = phone.hear_samples(48).await; // Below a second: before any seam.
        let similarity = correlation(&samples, &looped(melody, 1_000, samples.len()));
        assert!(similarity >= 0.98, "{name}: {similarity}");
    }
}

#[tokio::test]
async fn raw_gsm_and_g722_are_heard_and_linear_pcm_is_repaired_if_asked() {
    let service = Service::start(&["--moh-repair"]).await;
    let samples = |rate: u32| -> Vec<i16> {
        let sample = |n: u32| (melody(f64::from(n) / f64::from(rate)) * 20_000.0) as i16;
        (0..rate).map(sample).collect()
    };
    for (name, codec) in [("gsm.3", Codec::Gsm), ("wide.9", Codec::G722)] {
        let mut bytes = Vec::new();
        Encoder::new(codec).encode(&samples(codec.sample_rate_hz()), &mut bytes);
        service.write(name, &bytes);
    }
    service.write("test.pcm.8", &wav(melody, 1_000, 8_000, 1)[44..]);
    for (name, floor, delay) in [("gsm.3", 0.85, 0), ("wide.9", 0.98, 11), ("test.pcm", 0.99, 0)] {
        let mut phone = Phone::new(Codec::Pcma).await;
        phone.join(&service, name, Side::A).await;
        service.play(name, name, true).await.unwrap();
        let heard = phone.hear_samples(45).await;
        let wanted = looped(melody, 1_000, heard.len());
        let heard = &heard[delay..];
        let similarity = correlation(heard, &wanted[..heard.len()]);
        assert!(similarity >= floor, "{name}: {similarity}");
    }
}

#[tokio::test]
async fn mohqueue_s_raw_files_are_played_byte_for_byte() {
    let service = Service::start(&[]).await;
    let codes: Vec<u8> = (0..16_000)
        .map(|n| Law::Pcma.encode((melody(f64::from(n) / 8_000.0) * 20_000.0) as i16))
        .collect();
    std::fs::create_dir(service.dir().join("moh")).unwrap();
    service.write("moh/abc.8", &codes);
    let mut phone = Phone::new(Codec::Pcma).await;
    phone.join(&service, "s", Side::A).await;
    service.play("s", "moh/abc", true).await.unwrap();
    let heard: Vec<u8> = phone.hear(10).await.into_iter().flat_map(|it| it.payload).collect();
    assert_eq!(heard, codes[..heard.len()]);
    let absolute = service.dir().canonicalize().unwrap().join("moh/abc.8");
    service.play("s", absolute.to_str().unwrap(), true).await.unwrap();
}

#[tokio::test]
async fn a_file_that_has_changed_is_read_again() {
    let service = Service::start(&[]).await;
    service.write("a.wav", &wav(melody, 500, 8_000, 1));
    let mut phone = Phone::new(Codec::Pcmu).await;
    phone.join(&service, "s", Side::A).await;
    assert_eq!(service.play("s", "a", true).await.unwrap().duration_ms, 500);
    service.write("a.wav", &wav(melody, 700, 8_000, 1));
    let changed = async { while service.play("s", "a", true).await.unwrap().duration_ms != 700 {} };
    timeout(LIMIT, changed).await.expect("it is looked for again after a moment");
}

#[tokio::test]
async fn what_a_file_is_not_is_said_with_the_remedy() {
    let service = Service::start(&[]).await;
    let good = wav(melody, 1_000, 8_000, 1);
    service.write("song.wav", b"ID3\x04\0\0\0\0\0\0\0\0");
    service.write("nothing.wav", b"");
    service.write("cut.wav", &good[..good.len() / 2]);
    service.write("silent.wav", &with_header(1, 16, 8_000, 1, &[]));
    service.write("test.pcm.8", &good[44..]);
    service.write("renamed.0", &good);
    service.write("tune.music", b"\xff\xfb\x90\0");
    service.write("empty.0", b"");
    service.write("gsm.wav", &with_header(49, 0, 8_000, 1, &[1; 650]));
    service.write("wide.wav", &with_header(1, 16, 8_000, 33, &[0; 660]));
    service.write("voice.18", &[0x78; 800]);
    service.write("voice.3", &[0x11; 825]);
    for (name, tune) in TUNES {
        service.write(&format!("cut.{name}"), &tune[..tune.len() / 2]);
    }
    let mut damaged = TUNES[0].1.to_vec();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 0x10;
    service.write("damaged.flac", &damaged);
    service.write("really.ogg", TUNES[0].1);
    let linear_16_khz = wav(melody, 1_000, 16_000, 1);
    service.write("linear.9", &linear_16_khz[44..]);
    let outside = tempfile::NamedTempFile::new().unwrap();
    std::os::unix::fs::symlink(outside.path(), service.dir().join("link.wav")).unwrap();
    let mut phone = Phone::new(Codec::Pcmu).await;
    phone.join(&service, "s", Side::A).await;
    let refusals = [
        ("song", "not a WAV file: it looks like an MP3 file; name it .mp3"),
        ("nothing", "looks like an empty file"),
        ("cut", "is truncated: 7978 bytes of samples, 16000 promised"),
        ("silent", "holds no samples"),
        ("test.pcm", "named as raw PCMA but looks like 16-bit linear PCM (little-endian)"),
        ("test.pcm", "`sox -t raw -r 8000 -e signed -b 16 --endian little -c 1 IN -t al OUT`, or"),
        ("linear", "named as raw G722 but looks like 16-bit linear PCM (little-endian)"),
        ("wide", "channel"),
        ("voice.18", "raw G.729, for which there is no free decoder"),
        ("voice.3", "byte 0 does not begin a frame"),
        ("cut.flac", "truncated"),
        ("cut.mp3", "truncated"),
        ("cut.ogg", "truncated"),
        ("cut.opus", "truncated"),
        ("damaged.flac", "d"),
        ("really", "not a .ogg file: it looks like a FLAC file; name it .flac"),
        ("renamed", "named as raw PCMU but looks like a WAV file"),
        ("tune.music", "an extension that is not .wav, .flac, .mp3, .ogg, .oga, .opus, or .0, .3"),
        ("empty", "holds no samples"),
        ("gsm", "cannot be decoded"),
        ("../etc/passwd", "it contains `..`"),
        ("/etc/passwd", "it leads outside"),
        ("link", "it leads outside"),
        ("", "wanted 1 to 1024 bytes"),
    ];
    for (name, wanted) in refusals {
        let status = service.play("s", name, false).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{name}: {status}");
        assert!(status.message().contains(wanted), "{name}: {}", status.message());
    }
    let status = service.play("s", "missing", false).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
}

#[tokio::test]
async fn bad_files_are_told_of_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("moh")).unwrap();
    std::fs::write(dir.path().join("moh/good.wav"), wav(melody, 1_000, 8_000, 1)).unwrap();
    std::fs::write(dir.path().join("moh/bad.wav"), b"hello").unwrap();
    let process = spawn(dir.path(), &[]);
    process
        .wait_for("which file is bad", LIMIT, |it| {
            it.contains("file \\\"bad.wav\\\" is not a WAV file").then_some(())
        })
        .unwrap();
    process
        .wait_for("how many are good", LIMIT, |it| {
            (it.contains("audio ready") && it.contains("\"files\":1")).then_some(())
        })
        .unwrap();
}
