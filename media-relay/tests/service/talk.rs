//! Phones that talk: connected, in conference, and with digits.

use crate::phone::Phone;
use crate::service::Service;
use crate::sound::{amplitude, melody, tone, wav};
use media::Codec;
use proto::media_relay::v1::{
    AdoptRequest, ConnectRequest, InjectDtmfRequest, JoinRequest, MediaEventType, QueryRequest,
    Side, StopRequest,
};

/// Packets until a stream has settled, and then enough to judge: 1 s each.
const SETTLE: usize = 50;
const JUDGE: usize = 50;

#[tokio::test]
async fn two_connected_sides_hear_each_other_through_different_laws() {
    let mut service = Service::start(&[]).await;
    service.write("moh.wav", &wav(melody, 1_000, 16_000, 1));
    let mut a = Phone::new(Codec::Pcmu).await;
    let mut b = Phone::new(Codec::Pcma).await;
    a.join(&service, "s", Side::A).await;
    service.play("s", "moh", true).await.unwrap();
    let music = a.hear(10).await;
    b.join(&service, "s", Side::B).await;
    service
        .client
        .connect(ConnectRequest { session_id: "s".into(), ..Default::default() })
        .await
        .unwrap();

    let (ears_a, ears_b) = (a.ears(), b.ears());
    let (heard_a, heard_b) = tokio::select! {
        heard = async { tokio::join!(settled(&ears_a), settled(&ears_b)) } => heard,
        () = a.speak(tone(440.0)) => unreachable!("it speaks for ever"),
        () = b.speak(tone(1_000.0)) => unreachable!("it speaks for ever"),
    };
    assert!((amplitude(&heard_a.1, 1_000.0) - 5_000.0).abs() < 250.0);
    assert!(amplitude(&heard_a.1, 440.0) < 100.0);
    assert!((amplitude(&heard_b.1, 440.0) - 5_000.0).abs() < 250.0);
    assert_eq!(heard_a.0, music[0].ssrc, "one stream, from music to talk");
}

#[tokio::test]
async fn three_in_a_conference_each_hear_the_other_two() {
    let mut service = Service::start(&[]).await;
    let mut phones = Vec::new();
    for (n, codec) in [Codec::Pcmu, Codec::Pcma, Codec::Pcmu].into_iter().enumerate() {
        let mut phone = Phone::new(codec).await;
        let session_id = format!("s{n}");
        phone.join(&service, &session_id, Side::A).await;
        let conference = "test1".to_owned();
        let request =
            JoinRequest { session_id, side: Side::A.into(), conference, ..JoinRequest::default() };
        let joined = service.client.join(request).await.unwrap().into_inner();
        assert_eq!(joined.participants as usize, n + 1);
        phones.push(phone);
    }
    let pitches = [400.0, 700.0, 1_100.0];
    let ears: Vec<_> = phones.iter().map(Phone::ears).collect();
    let [p, q, r] = phones.as_mut_slice() else { unreachable!() };
    let heard = tokio::select! {
        heard = async { tokio::join!(settled(&ears[0]), settled(&ears[1]), settled(&ears[2])) } => heard,
        () = p.speak(tone(pitches[0])) => unreachable!("it speaks for ever"),
        () = q.speak(tone(pitches[1])) => unreachable!("it speaks for ever"),
        () = r.speak(tone(pitches[2])) => unreachable!("it speaks for ever"),
    };
    for (listener, (_, samples)) in [heard.0, heard.1, heard.2].iter().enumerate() {
        for (speaker, pitch) in pitches.into_iter().enumerate() {
            let amplitude = amplitude(samples, pitch);
            match speaker == listener {
                true => assert!(amplitude < 500.0, "{listener} hears itself at {amplitude}"),
                // Less than all of it: a phone on a busy machine may be late for the mix.
                false => assert!(amplitude > 3_000.0, "{listener} hears {speaker} at {amplitude}"),
            }
        }
    }
}

#[tokio::test]
async fn digits_and_ends_of_prompts_are_told_to_who_watches_their_owner() {
    let mut service = Service::start(&[]).await;
    service.write("short.wav", &wav(melody, 100, 8_000, 1));
    let mut watch = service.watch("edge").await;
    let mut phone = Phone::new(Codec::Pcmu).await;
    phone.join(&service, "s", Side::A).await;
    phone.press(5, 1_600).await;
    phone.press(11, 8_000).await;
    let latched = watch.next().await;
    assert_eq!(latched.r#type(), MediaEventType::Latched);
    for digit in ["5", "#"] {
        let event = watch.next().await;
        assert_eq!((event.r#type(), event.digit.as_str()), (MediaEventType::Digit, digit));
        assert_eq!((event.session_id.as_str(), event.call_id.as_str()), ("s", "call of s"));
        assert_eq!(event.side(), Side::A);
    }
    let inject = |digit: &str| InjectDtmfRequest {
        session_id: "s".into(),
        side: Side::A.into(),
        digit: digit.into(),
        duration_ms: 0,
    };
    assert!(service.client.inject_dtmf(inject("d")).await.unwrap().into_inner().counted);
    assert_eq!(watch.next().await.digit, "D");
    let mut others = service.watch("another edge").await;
    let playing = service.play("s", "short", false).await.unwrap();
    let finished = watch.next_of(MediaEventType::PlayFinished).await;
    assert_eq!(finished.play_id, playing.play_id);
    let stop = StopRequest { session_id: "s".into(), side: Side::A.into(), ..Default::default() };
    assert!(!service.client.stop(stop).await.unwrap().into_inner().stopped);
    let mut other = Phone::new(Codec::Pcmu).await;
    let request = proto::media_relay::v1::OfferRequest {
        session_id: "o".into(),
        call_id: "c".into(),
        side: Side::A.into(),
        sdp: other.sdp().into_bytes(),
        owner: "another edge".into(),
        ..Default::default()
    };
    let sdp = service.client.offer(request).await.unwrap().into_inner().sdp;
    other.set_relay(&sdp);
    other.press(1, 0).await;
    assert_eq!(others.next().await.session_id, "o", "only its own");
}

#[tokio::test]
async fn a_session_that_is_adopted_is_its_new_owners_alone() {
    let mut service = Service::start(&[]).await;
    let mut before = service.watch("edge").await;
    let mut after = service.watch("another edge").await;
    let mut phone = Phone::new(Codec::Pcmu).await;
    phone.join(&service, "s", Side::A).await;
    phone.press(1, 0).await;
    assert_eq!(before.next_of(MediaEventType::Digit).await.digit, "1");
    let adopt =
        |session: &str| AdoptRequest { session_id: session.into(), owner: "another edge".into() };
    service.client.adopt(adopt("s")).await.unwrap();
    service.client.adopt(adopt("s")).await.unwrap();
    phone.press(2, 8_000).await;
    assert_eq!(after.next_of(MediaEventType::Digit).await.digit, "2");
    let owned = |owner: &str| QueryRequest { owner: owner.into(), ..Default::default() };
    for (owner, count) in [("edge", 0), ("another edge", 1)] {
        let found = service.client.query(owned(owner)).await.unwrap().into_inner();
        assert_eq!(found.sessions.len(), count, "{owner}");
    }
    let refused = service.client.adopt(adopt("x")).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::NotFound);
}

#[tokio::test]
async fn a_side_that_is_needed_and_silent_is_told_of() {
    let mut service = Service::start(&["--inactivity", "300ms"]).await;
    let mut watch = service.watch("").await;
    let (mut a, mut b) = (Phone::new(Codec::Pcmu).await, Phone::new(Codec::Pcmu).await);
    a.join(&service, "s", Side::A).await;
    b.join(&service, "s", Side::B).await;
    service
        .client
        .connect(ConnectRequest { session_id: "s".into(), ..Default::default() })
        .await
        .unwrap();
    let silent = [watch.next().await, watch.next().await];
    assert!(silent.iter().all(|it| it.r#type() == MediaEventType::Inactive));
    assert_ne!(silent[0].side(), silent[1].side());
}

/// SSRC and samples of a stream, once it has settled.
async fn settled(ears: &Phone) -> (u32, Vec<f64>) {
    let before = ears.hear(SETTLE).await;
    (before[0].ssrc, ears.hear_samples(JUDGE).await)
}
