//! SIP by TCP: the same calls, over one connection and over one for each.

use e2e::audio::Codec;
use e2e::phone::Phone;
use e2e::{QUEUE_USER, Scenario, Sipp, Stack, Tally, Transport};
use proto::queue::v1::RetrieveOutcome;

const CALLS: u32 = 200;
const CALLS_PER_SECOND: u32 = 20;
/// How long each caller waits in the queue.
const STAY_MS: u32 = 500;

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_by_tcp_joins_the_queue_and_leaves() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    stack.create_queue().await?;
    let caller = Scenario::caller(stack.sip(), QUEUE_USER, 2_000).by(Transport::Tcp);
    let caller = Sipp::start(&caller, None)?;
    stack.wait_waiting(1).await?;
    tokio::task::spawn_blocking(|| caller.finish_without_failure()).await??;
    stack.wait_clean().await?;
    stack.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_by_tcp_is_hung_up_over_its_own_connection() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    stack.create_queue().await?;
    let caller = Scenario::caller_is_hung_up(stack.sip(), QUEUE_USER).by(Transport::Tcp);
    let caller = Sipp::start(&caller, None)?;
    stack.wait_waiting(1).await?;
    let agent = Phone::start("agent", Codec::Pcmu)?;
    let retrieving = stack.start_retrieve(&agent.uri(), 10_000);
    let answered = agent.invited()?.answer()?;
    assert_eq!(retrieving.await??.outcome(), RetrieveOutcome::Connected);
    answered.bye()?;
    tokio::task::spawn_blocking(|| caller.finish_without_failure()).await??;
    stack.wait_clean().await?;
    stack.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_calls_over_one_connection_go_well() -> anyhow::Result<()> {
    run(Transport::Tcp).await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_calls_over_a_connection_each_go_well() -> anyhow::Result<()> {
    run(Transport::TcpPerCall).await
}

async fn run(transport: Transport) -> anyhow::Result<()> {
    let stack = Stack::start()?;
    stack.create_queue().await?;
    let scenario = Scenario::caller(stack.sip(), QUEUE_USER, STAY_MS).by(transport);
    let callers = Sipp::start(&scenario.repeat(CALLS, CALLS_PER_SECOND), None)?;
    let tally = tokio::task::spawn_blocking(|| callers.finish()).await??;
    assert_eq!(tally, Tally { successful: CALLS, failed: 0 }, "{transport:?}");
    stack.wait_clean().await?;
    stack.stop()
}
