//! A burst of callers comes out of a queue in the order in which it came.

use anyhow::Context as _;
use e2e::phone::PATIENCE;
use e2e::{QUEUE, QUEUE_USER, Scenario, Sipp, Stack};
use futures::StreamExt as _;
use proto::queue::v1::{
    Caller, ListRequest, QueueEventType, RetrieveOutcome, WatchRequest, WatchResponse,
};
use tonic::Streaming;

/// Callers, who come at a thousand a second.
const CALLERS: u32 = 100;
const CALLERS_PER_S: u32 = 1_000;
/// Operators who ask at the same time.
const OPERATORS: usize = 8;

/// SIPp writes into its From how many calls it made before.
fn number(caller: &Caller) -> anyhow::Result<u32> {
    let number = caller.from.split("<sip:caller").nth(1).and_then(|it| it.split('@').next());
    number.and_then(|it| it.parse().ok()).with_context(|| format!("no number in {caller:?}"))
}

/// Who are given to agents, in that order.
async fn reserved(watch: &mut Streaming<WatchResponse>, count: usize) -> anyhow::Result<Vec<u32>> {
    let mut numbers = Vec::new();
    while numbers.len() < count {
        let next = tokio::time::timeout(PATIENCE, watch.message()).await??;
        let event = next.and_then(|it| it.event).unwrap_or_default();
        if event.r#type() == QueueEventType::Reserved {
            numbers.push(number(&event.caller.unwrap_or_default())?);
        }
    }
    Ok(numbers)
}

/// `HOLDFAST_BURST` says how many, 1,000 at most.
#[tokio::test(flavor = "multi_thread")]
async fn callers_of_one_second_come_out_in_their_order() -> anyhow::Result<()> {
    let count = std::env::var("HOLDFAST_BURST").ok().map_or(Ok(CALLERS), |it| it.parse())?;
    let stack = Stack::start()?;
    stack.create_queue().await?;
    let mut watch = stack.queues().watch(WatchRequest::default()).await?.into_inner();
    let burst = Scenario::caller_is_hung_up(stack.sip(), QUEUE_USER).repeat(count, CALLERS_PER_S);
    let burst = burst.stand_together();
    let callers = Sipp::start(&burst, None)?;
    stack.wait_waiting(count).await?;

    let came: Vec<u32> = (1..=count).collect();
    let request = ListRequest { queue: QUEUE.into(), limit: count };
    let line = stack.queues().list(request).await?.into_inner().callers;
    let listed: Vec<u32> = line.iter().map(number).collect::<Result<_, _>>()?;
    assert_eq!(listed, came);
    let first = line.first().context("nobody")?.arrived_unix_ms;
    let last = line.last().context("nobody")?.arrived_unix_ms;
    println!("{count} callers came within {} ms", last - first);

    let agents =
        Sipp::start(&Scenario::agent_by("agent_hangs_up.xml").repeat(count, CALLERS_PER_S), None)?;
    let uri = agents.uri();
    let operators = futures::stream::iter(0..count)
        .map(|_| stack.start_retrieve(&uri, 20_000))
        .buffer_unordered(OPERATORS)
        .map(|it| anyhow::Ok(it??.outcome()));
    let outcomes: Vec<_> = operators.collect().await;
    for outcome in outcomes {
        assert_eq!(outcome?, RetrieveOutcome::Connected);
    }
    assert_eq!(reserved(&mut watch, came.len()).await?, came);
    agents.finish_without_failure()?;
    callers.finish_without_failure()?;
    stack.wait_clean().await?;
    stack.stop()
}
