//! Fifty new calls a second, without a failure, and nothing left over.

use e2e::{QUEUE_USER, Scenario, Sipp, Stack, Tally};

const CALLS: u32 = 2_000;
const CALLS_PER_SECOND: u32 = 50;
/// How long each call lasts.
const STAY_MS: u32 = 2_000;

async fn run(user: &str, scenario: impl Fn(&Stack) -> Scenario) -> anyhow::Result<()> {
    let stack = Stack::start()?;
    stack.create_queue().await?;
    let callers = Sipp::start(&scenario(&stack).repeat(CALLS, CALLS_PER_SECOND), None)?;
    let tally = tokio::task::spawn_blocking(|| callers.finish()).await??;
    assert_eq!(tally, Tally { successful: CALLS, failed: 0 }, "calls to {user}");
    stack.wait_clean().await?;
    stack.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_calls_of_sipps_own_uac_go_well() -> anyhow::Result<()> {
    run("service", |stack| Scenario::built_in_uac(stack.sip(), "service", STAY_MS)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_callers_join_and_leave_the_queue() -> anyhow::Result<()> {
    run(QUEUE_USER, |stack| Scenario::caller(stack.sip(), QUEUE_USER, STAY_MS)).await
}
