//! 200 real calls, hung up by their tasks: how late the BYE is on the wire.

use anyhow::{Context as _, ensure};
use e2e::Stack;
use e2e::audio::Codec;
use e2e::bench::{Percentiles, Report};
use e2e::phone::{PATIENCE, Phone};
use std::sync::Arc;
use tokio::task::JoinSet;

const CALLS: usize = 200;
/// Calls at a time: so many phones disturb the clock little.
const AT_A_TIME: usize = 25;
/// The first of a batch is hung up so long after its answer, and the last so much later.
const FIRST_MS: usize = 2_000;
const SPAN_MS: usize = 1_500;

pub(crate) async fn measure(report: &mut Report) -> anyhow::Result<()> {
    let stack = Arc::new(Stack::start()?);
    let mut late_ms = Vec::with_capacity(CALLS);
    for batch in 0..CALLS / AT_A_TIME {
        let mut calls = JoinSet::new();
        for nth in 0..AT_A_TIME {
            let number = batch * AT_A_TIME + nth;
            let after_ms = FIRST_MS + (number * 7_919) % SPAN_MS;
            calls.spawn(hung_up(stack.clone(), after_ms));
        }
        while let Some(call) = calls.join_next().await {
            late_ms.push(call?? as f64);
        }
    }
    let late_ms = Percentiles::new(late_ms);
    eprintln!("lateness of BYE in ms: {late_ms}");
    ensure!(late_ms.min() >= 0.0, "a call was hung up {} ms early", -late_ms.min());
    report.add("call_lateness_p50_ms", late_ms.at(50.0), "ms");
    report.add("call_lateness_p99_ms", late_ms.at(99.0), "ms");
    report.add("call_lateness_max_ms", late_ms.max(), "ms");
    let stack = Arc::into_inner(stack).context("stop the stack: a call still has it")?;
    stack.wait_clean().await?;
    stack.stop()
}

/// Makes a call that is hung up `after_ms` after its answer; how late the BYE was, in whole ms.
async fn hung_up(stack: Arc<Stack>, after_ms: usize) -> anyhow::Result<i64> {
    let phone = Arc::new(Phone::start("bob", Codec::Pcmu)?);
    let plan = format!(
        r#"{{"actions": [{{"schedule": {{"after_ms": "{after_ms}", "hangup": {{}}, "as": "limit"}}}}, {{"park": {{}}}}]}}"#
    );
    let originating = stack.start_originate(&phone.uri(), &plan);
    let answering = phone.clone();
    let answering = tokio::task::spawn_blocking(move || answering.invited()?.answer().map(drop));
    let (call, answered) = tokio::join!(originating, answering);
    let call = call??; // Why there was nothing to answer, if there was not.
    answered??;
    let task_id = call.tasks.get("limit").context("find the task in the reply")?;
    let fires_at_unix_ms = stack.task(task_id).await?.fires_at_unix_ms;
    let bye = tokio::task::spawn_blocking(move || phone.wait_bye(PATIENCE)).await??;
    Ok(bye.at_unix_ms - fires_at_unix_ms)
}
