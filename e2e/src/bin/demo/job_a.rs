//! Job A: callers wait with music; an agent who does not answer changes nothing for them.

use crate::transcript::Transcript;
use anyhow::Context as _;
use e2e::audio::{longest_silence_ms, tune};
use e2e::{Account, Baresip, MUSIC, QUEUE_USER, Scenario, Sipp, Stack};
use proto::queue::v1::RetrieveResponse;
use std::path::Path;
use std::time::Duration;

/// How long the agent who does not answer is rung.
const RING_MS: u32 = 3_000;
/// Longer than the music, so that its seam is heard.
const LISTEN: Duration = Duration::from_millis(7_000);
/// Silence in the music that is heard as a gap.
const GAP_MAX_MS: u64 = 60;

pub(crate) async fn play(t: &mut Transcript, stack: &Stack, folder: &Path) -> anyhow::Result<()> {
    t.heading("Job A: a hold queue; callers are baresip, agents and one more caller are SIPp");
    stack.create_queue().await?;
    let voice = tune(11, 4_000);
    let agent_voice = tune(12, 4_000);
    let caller = |user, codec| {
        Baresip::start(&Account {
            user,
            registrar: stack.sip(),
            password: None,
            codec,
            voice: &voice,
        })
    };
    let (mut first, mut second) = (caller("first", "pcmu")?, caller("second", "pcma")?);
    let uri = stack.uri(QUEUE_USER);
    t.attempt(
        "the first caller (PCMU) calls the queue",
        "answered",
        first.dial(&uri).map(|()| &uri),
    )
    .context("go on without a caller")?;
    wait_count(t, stack, "callers who wait", 1).await;
    t.attempt("a second caller (PCMA) calls", "answered", second.dial(&uri).map(|()| &uri));
    wait_count(t, stack, "callers who wait", 2).await;
    let before = stack.line().await?;
    tokio::time::sleep(LISTEN).await;

    let silent = Sipp::start(&Scenario::agent_never_answers(), None)?;
    let outcome = stack.retrieve(&silent.uri(), RING_MS).await?;
    t.same("Retrieve to an agent who never answers", "NO_ANSWER".to_owned(), name_of(&outcome));
    let rung = silent.finish_without_failure().map(|()| "INVITE, 180, CANCEL, 487, ACK");
    t.attempt("that agent's phone saw", "ringing, then CANCEL", rung);
    let after = stack.line().await?;
    same_line(t, &before, &after);

    let busy = Sipp::start(&Scenario::agent_busy(), None)?;
    let outcome = stack.retrieve(&busy.uri(), RING_MS).await?;
    t.same(
        "Retrieve to an agent who is busy",
        "BUSY 486".to_owned(),
        format!("{} {}", name_of(&outcome), outcome.sip_status),
    );
    t.attempt(
        "that agent's phone saw",
        "INVITE, 486, ACK",
        busy.finish_without_failure().map(|()| "that"),
    );
    same_line(t, &before, &stack.line().await?);

    let agent = Sipp::start(&Scenario::agent_answers(), Some(&agent_voice))?;
    let outcome = stack.retrieve(&agent.uri(), RING_MS).await?;
    t.same("Retrieve to an agent who answers", "CONNECTED".to_owned(), name_of(&outcome));
    t.same("whom the agent got", before.first().cloned().unwrap_or_default(), outcome.call_id);
    wait_count(t, stack, "callers who wait", 1).await;
    tokio::time::sleep(Duration::from_secs(3)).await; // They talk.
    t.attempt("the first caller hangs up", "call closed", first.hang_up().map(|()| "closed"));
    let bye = agent.finish_without_failure().map(|()| "BYE");
    t.attempt("the agent's phone gets", "BYE", bye);
    t.attempt("the second caller hangs up", "call closed", second.hang_up().map(|()| "closed"));
    let clean = stack.wait_clean().await.map(|()| "nothing");
    t.attempt("left of calls, mohqcalls, media sessions, tasks", "nothing", clean);

    first.stop()?;
    second.stop()?;
    let music = stack.media(MUSIC)?;
    for (phone, codec) in [(&first, "pcmu"), (&second, "pcma")] {
        let heard = phone.heard(0)?;
        let step = format!("music through {codec}, over its seam and both agents");
        let name = format!("job-a-music-{codec}");
        let span = t.hear(&step, &heard, &music, 10_000, folder, &name)?;
        let of_music = &heard[(span.from_ms * 8) as usize..(span.to_ms * 8) as usize];
        let silence = longest_silence_ms(of_music);
        let expected = format!("≤ {GAP_MAX_MS} ms");
        t.check(
            &format!("longest gap in it ({codec})"),
            &expected,
            format!("{silence} ms"),
            silence <= GAP_MAX_MS,
        );
    }
    t.hear(
        "the agent's voice, after the music",
        &first.heard(0)?,
        &agent_voice,
        1_500,
        folder,
        "job-a-agent",
    )?;
    Ok(())
}

fn same_line(t: &mut Transcript, before: &[String], after: &[String]) {
    let places: Vec<String> = after
        .iter()
        .map(|it| {
            before
                .iter()
                .position(|was| was == it)
                .map_or("?".into(), |at| ["first", "second"][at].into())
        })
        .collect();
    t.same("the line afterwards", "first, second".to_owned(), places.join(", "));
}

fn name_of(response: &RetrieveResponse) -> String {
    let name = response.outcome().as_str_name();
    name.trim_start_matches("RETRIEVE_OUTCOME_").to_owned()
}

async fn wait_count(t: &mut Transcript, stack: &Stack, step: &str, wanted: u32) {
    let counted = stack.wait_waiting(wanted).await;
    t.attempt(&format!("Count: {step}"), &wanted.to_string(), counted);
}
