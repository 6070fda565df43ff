//! A media-relay dies by SIGKILL and comes back on the same host: who waits hears the music go on
//! where it would be, who talks goes on talking, and nobody is hung up on.

use e2e::audio::{Codec, Reference, tune};
use e2e::phone::{PATIENCE, Packet, Phone};
use e2e::{MUSIC, QUEUE_USER, Service, Stack};
use proto::queue::v1::RetrieveOutcome;
use std::time::{Duration, Instant};

/// From SIGKILL until the first packet of the next process.
const GAP_MAX: Duration = Duration::from_secs(2);
/// What a first snapshot may take; then the log has everything.
const SETTLED: Duration = Duration::from_secs(1);
const LIKENESS_MIN: f64 = 0.98;
/// How far the music may be from where it would be: an offset is kept in ms.
const OFFSET_MAX_MS: usize = 5;

/// The two packets around the longest gap in what a phone has heard.
fn around_the_gap(packets: &[Packet]) -> (&Packet, &Packet) {
    let pairs = packets.windows(2).map(|pair| (&pair[0], &pair[1]));
    pairs.max_by_key(|(a, b)| b.arrival - a.arrival).expect("it has heard something")
}

/// One RTP stream over the gap: its SSRC, sequence numbers that go on (what was not sent before the
/// session was taken up counts as lost, what was not until its music was decoded as a pause), and a
/// timestamp that says how much time has passed. Returns the gap.
fn assert_goes_on(who: &str, phone: &Phone) -> Duration {
    let packets = phone.ear().packets();
    let (before, after) = around_the_gap(&packets);
    let gap = after.arrival - before.arrival;
    assert_eq!(after.ssrc, before.ssrc, "{who}");
    let passed_ms = gap.as_millis() as i64;
    let ticks = after.timestamp.wrapping_sub(before.timestamp);
    let said_ms = i64::from(ticks) / 8;
    assert!((said_ms - passed_ms).abs() <= 60, "{who}: {said_ms} ms of RTP in {passed_ms} ms");
    let packets = i64::from(after.sequence.wrapping_sub(before.sequence));
    let missed = said_ms / 20;
    assert!((1..=missed + 5).contains(&packets), "{who}: {packets} of {missed} packets");
    gap
}

#[tokio::test(flavor = "multi_thread")]
async fn music_and_talk_go_on_after_a_media_relay_was_killed() -> anyhow::Result<()> {
    let mut stack = Stack::start()?;
    stack.create_queue().await?;
    let voices = [tune(31, 2_000), tune(32, 2_000)];
    let talker = Phone::start("talker", Codec::Pcmu)?;
    let agent = Phone::start("agent", Codec::Pcmu)?;
    let waiting = Phone::start("waiting", Codec::Pcma)?;
    let talk = talker.dial(stack.sip(), &stack.uri(QUEUE_USER))?;
    stack.wait_waiting(1).await?;
    talk.speak(&Reference::new(&voices[0]).into_samples());
    let retrieving = stack.start_retrieve(&agent.uri(), 10_000);
    let answered = agent.invited()?.answer()?;
    answered.speak(&Reference::new(&voices[1]).into_samples());
    assert_eq!(retrieving.await??.outcome(), RetrieveOutcome::Connected);
    let call = waiting.dial(stack.sip(), &stack.uri(QUEUE_USER))?;
    stack.wait_waiting(1).await?;
    for phone in [&talker, &agent, &waiting] {
        phone.ear().listen(SETTLED)?;
    }
    // The switch from music to talk took as long as an agent takes.
    talker.ear().clear();
    agent.ear().clear();
    talker.ear().listen(SETTLED)?;

    let killed = Instant::now();
    stack.kill(Service::MediaRelay);
    stack.start_service(Service::MediaRelay)?;
    let serving = killed.elapsed();
    for phone in [&talker, &agent, &waiting] {
        phone.ear().listen(Duration::from_secs(3))?;
    }
    let music_gap = assert_goes_on("music", &waiting);
    let talk_gap = assert_goes_on("talk", &talker).max(assert_goes_on("talk", &agent));
    println!("gap in the music {music_gap:?}, in the talk {talk_gap:?}; serving after {serving:?}");
    assert!(music_gap <= GAP_MAX && talk_gap <= GAP_MAX, "{music_gap:?}, {talk_gap:?}");

    // Before and after the gap it is the music, and by their timestamps in the same place of it.
    let music = Reference::new(&stack.media(MUSIC)?);
    let heard = waiting.ear().audio(Codec::Pcma);
    let packets = waiting.ear().packets();
    let (before, after) = around_the_gap(&packets);
    let at = |it: &Packet| it.timestamp.wrapping_sub(packets[0].timestamp) as usize;
    let (before, after) = (&heard[..at(before)], &heard[at(after)..]);
    for part in [before, after] {
        let span = music.longest_span(part);
        assert!(span.correlation >= LIKENESS_MIN, "{span:?}");
        assert!(
            span.duration_ms() + 300 >= part.len() as u64 / 8,
            "{span:?} of {}",
            part.len() / 8
        );
    }
    let place = |part: &[f32]| music.place(part).expect("it is the music");
    let turn = stack.media(MUSIC)?.duration_ms() as usize * 8;
    let moved = (place(after) + turn - (place(before) + heard.len() - after.len()) % turn) % turn;
    let moved_ms = moved.min(turn - moved) / 8;
    println!("the music is {moved_ms} ms from where it would be");
    assert!(moved_ms <= OFFSET_MAX_MS, "{moved_ms} ms");
    for (phone, voice) in [(&talker, &voices[1]), (&agent, &voices[0])] {
        let span = Reference::new(voice).longest_span(&phone.ear().audio(Codec::Pcmu));
        assert!(span.duration_ms() >= 2_000 && span.correlation >= LIKENESS_MIN, "{span:?}");
    }

    assert_eq!(stack.waiting().await?, 1);
    for phone in [&talker, &agent, &waiting] {
        assert!(!phone.has_bye(), "hung up on");
    }
    // And all that can be done with a call can be done with these.
    answered.bye()?;
    talker.wait_bye(PATIENCE)?;
    let retrieving = stack.start_retrieve(&agent.uri(), 10_000);
    let answered = agent.invited()?.answer()?;
    assert_eq!(retrieving.await??.outcome(), RetrieveOutcome::Connected);
    call.bye()?;
    agent.wait_bye(PATIENCE)?;
    drop((answered, talk));
    stack.wait_clean().await?;
    stack.stop()
}
