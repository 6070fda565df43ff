//! Agents who are silent, refuse, or die: the caller keeps the place, the waited time and the music.

use e2e::audio::{Codec, Reference};
use e2e::phone::{PATIENCE, Phone};
use e2e::{MUSIC, QUEUE, QUEUE_USER, Scenario, Sipp, Stack};
use proto::queue::v1::{CallStatus, ListRequest, RetrieveOutcome};
use proto::sip_edge::v1::{CallEventType, CallState, LegState, WatchCallsRequest};
use std::time::{Duration, Instant};

/// A gap between two packets that is heard; and one that a busy machine makes, but not one that lost the
/// music.
const GAP_MAX: Duration = Duration::from_millis(60);
const STALL_MAX: Duration = Duration::from_millis(1_000);
const LIKENESS_MIN: f64 = 0.98;
/// How long an agent is rung who does not answer, in ms.
const SILENT_MS: u32 = 1_500;

/// Who waits, in order, and since when.
async fn line(stack: &Stack) -> anyhow::Result<Vec<(String, i64)>> {
    let request = ListRequest { queue: QUEUE.into(), ..ListRequest::default() };
    let callers = stack.queues().list(request).await?.into_inner().callers;
    assert!(callers.iter().all(|it| it.status() == CallStatus::InQueue), "{callers:?}");
    assert!(callers.iter().map(|it| it.position).eq(1..=callers.len() as u32), "{callers:?}");
    Ok(callers.into_iter().map(|it| (it.call_id, it.arrived_unix_ms)).collect())
}

/// What an agent does to whom the first caller is given, and what the operator is told.
struct Case {
    agent: Scenario,
    dies: Dies,
    ring_ms: u32,
    outcome: RetrieveOutcome,
    sip_status: u32,
}

/// When the agent's phone is killed.
#[derive(PartialEq)]
enum Dies {
    Not,
    Ringing,
    Answered,
}

impl Case {
    fn new(agent: Scenario, outcome: RetrieveOutcome, sip_status: u32) -> Self {
        Self { agent, dies: Dies::Not, ring_ms: 10_000, outcome, sip_status }
    }
}

async fn run(stack: &Stack, case: Case, call_id: &str) -> anyhow::Result<()> {
    let mut watch = stack.sip_edge().watch_calls(WatchCallsRequest::default()).await?.into_inner();
    let agent = Sipp::start(&case.agent, None)?;
    let retrieving = stack.start_retrieve(&agent.uri(), case.ring_ms);
    match case.dies {
        Dies::Not => (),
        Dies::Ringing => loop {
            let event = tokio::time::timeout(PATIENCE, watch.message()).await??;
            if event.unwrap_or_default().r#type() == CallEventType::Ringing {
                break;
            }
        },
        Dies::Answered => {
            let has_answered = |leg: &proto::sip_edge::v1::Leg| {
                leg.side == "B" && leg.state() == LegState::Confirmed
            };
            stack.wait_call(call_id, |it| it.legs.iter().any(has_answered)).await?;
        }
    }
    match case.dies {
        Dies::Not => agent.finish_without_failure()?,
        _ => drop(agent), // SIGKILL.
    }
    let outcome = retrieving.await??;
    assert_eq!((outcome.outcome(), outcome.sip_status), (case.outcome, case.sip_status));
    assert_eq!(outcome.call_id, call_id);
    Ok(())
}

/// `HOLDFAST_SILENT_S` says how long the agent is rung who does not answer; then the machine is taken for
/// idle, too, and no gap may be heard.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_becomes_of_an_agents_phone_the_caller_keeps_place_time_and_music()
-> anyhow::Result<()> {
    let silent_s = std::env::var("HOLDFAST_SILENT_S").ok().map(|it| it.parse::<u32>());
    let gap_max = if silent_s.is_some() { GAP_MAX } else { STALL_MAX };
    let silent_ms = silent_s.transpose()?.map_or(SILENT_MS, |it| it * 1_000);
    let stack = Stack::start_with(&["--agent-heard-within", "2s"])?;
    stack.create_queue().await?;
    let (first, second) = (Phone::start("alice", Codec::Pcmu)?, Phone::start("bob", Codec::Pcma)?);
    let _first_call = first.dial(stack.sip(), &stack.uri(QUEUE_USER))?;
    stack.wait_waiting(1).await?;
    let second_call = second.dial(stack.sip(), &stack.uri(QUEUE_USER))?;
    stack.wait_waiting(2).await?;
    let (began, waiting) = (Instant::now(), line(&stack).await?);
    let call_id = waiting[0].0.clone();

    use RetrieveOutcome::{Busy, Declined, NoAnswer, Unreachable};
    let ringing = Scenario::agent_never_answers;
    for case in [
        Case { ring_ms: silent_ms, ..Case::new(ringing(), NoAnswer, 0) },
        Case::new(Scenario::agent_busy(), Busy, 486),
        Case::new(Scenario::agent_by("agent_declines.xml"), Declined, 603),
        Case { dies: Dies::Ringing, ring_ms: 2_000, ..Case::new(ringing(), NoAnswer, 0) },
        Case {
            dies: Dies::Answered,
            ..Case::new(Scenario::agent_by("agent_is_mute.xml"), Unreachable, 0)
        },
        Case::new(Scenario::agent_by("agent_is_mute.xml"), Unreachable, 0),
    ] {
        run(&stack, case, &call_id).await?;
        assert_eq!(line(&stack).await?, waiting);
        assert_eq!(stack.call(&call_id).await?.state(), CallState::Answered);
    }

    let lasted = began.elapsed();
    let music = Reference::new(&stack.media(MUSIC)?);
    for (caller, codec) in [(&first, Codec::Pcmu), (&second, Codec::Pcma)] {
        let span = music.longest_span(&caller.ear().audio(codec));
        println!("{codec:?}: {span:?}, longest gap {:?}", caller.ear().longest_gap());
        assert!(span.correlation >= LIKENESS_MIN, "{span:?}");
        assert!(u128::from(span.duration_ms()) + 500 >= lasted.as_millis(), "{span:?}");
        assert_eq!(caller.ear().discontinuity(), None);
        assert!(caller.ear().longest_gap() <= gap_max, "{:?}", caller.ear().longest_gap());
        assert!(!caller.has_bye());
    }

    // At last somebody takes the call, who is told how long the caller has waited in all.
    let agent = Phone::start("agent", Codec::Pcmu)?;
    let retrieving = stack.start_retrieve(&agent.uri(), 10_000);
    let answered = agent.invited()?.answer()?;
    let taken = retrieving.await??;
    assert_eq!((taken.outcome(), &taken.call_id), (RetrieveOutcome::Connected, &call_id));
    assert!(u128::from(taken.waited_ms) >= lasted.as_millis(), "{taken:?}");
    answered.bye()?;
    first.wait_bye(PATIENCE)?;
    second_call.bye()?;
    stack.wait_clean().await?;
    stack.stop()
}
