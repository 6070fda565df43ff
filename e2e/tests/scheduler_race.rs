//! Digit 1 at the very deadline of job B: the call is hung up or saved, never both, never neither.
//!
//! `HOLDFAST_RACE_CALLS` calls (default 75; 500 are what a release is held to).

use e2e::Stack;
use e2e::audio::Codec;
use e2e::phone::{PATIENCE, Phone};
use proto::scheduler::v1::TaskState;
use proto::sip_edge::v1::CallState;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::runtime::Handle;
use tokio::task::JoinSet;

const AT_A_TIME: usize = 25;
/// Before and after the deadline, in ms. A digit in RTP takes a packet or two to be one.
const BY_INFO_MS: (i64, i64) = (-6, 6);
const BY_RTP_MS: (i64, i64) = (-46, 6);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    HungUp,
    Saved,
}

#[tokio::test(flavor = "multi_thread")]
async fn each_call_is_either_hung_up_or_saved_and_its_task_says_which() -> anyhow::Result<()> {
    let calls = std::env::var("HOLDFAST_RACE_CALLS").ok().map_or(Ok(75), |it| it.parse())?;
    let stack = Arc::new(Stack::start()?);
    let mut outcomes = Vec::with_capacity(calls);
    for first in (0..calls).step_by(AT_A_TIME) {
        let mut racing = JoinSet::new();
        for nth in first..calls.min(first + AT_A_TIME) {
            let (stack, handle) = (stack.clone(), Handle::current());
            racing.spawn_blocking(move || race(&stack, nth, &handle));
        }
        while let Some(outcome) = racing.join_next().await {
            outcomes.push(outcome??);
        }
    }
    let hung_up = outcomes.iter().filter(|it| **it == Outcome::HungUp).count();
    eprintln!("{calls} calls: {hung_up} hung up, {} saved", calls - hung_up);
    assert_eq!(outcomes.len(), calls);
    let stack = Arc::into_inner(stack).expect("all calls are over");
    stack.wait_clean().await?;
    stack.stop()
}

/// One call of job B with digit 1 around its deadline.
fn race(stack: &Stack, nth: usize, handle: &Handle) -> anyhow::Result<Outcome> {
    let phone = Phone::start("bob", Codec::Pcmu)?;
    let plan = format!(
        r#"{{"actions": [
            {{"schedule": {{"after_ms": "900", "hangup": {{}}, "as": "limit"}}}},
            {{"collect": {{"timeout_ms": 60000, "on": {{"1": {{"actions": [
                {{"cancel": {{"name": "limit"}}}}, {{"conference": {{"name": "race{nth}"}}}}]}}}}}}}}]}}"#
    );
    let _entered = handle.enter();
    let originating = stack.start_originate(&phone.uri(), &plan);
    let mut dialog = phone.invited()?.answer()?;
    let call = handle.block_on(originating)??;
    let task_id = call.tasks["limit"].clone();
    let fires_at_unix_ms = handle.block_on(stack.task(&task_id))?.fires_at_unix_ms;
    let by_info = nth.is_multiple_of(2);
    let (from_ms, to_ms) = if by_info { BY_INFO_MS } else { BY_RTP_MS };
    let offset_ms = from_ms + (nth as i64 * 7) % (to_ms - from_ms + 1);
    handle.block_on(wait_until(fires_at_unix_ms + offset_ms));
    if by_info {
        // Hung up meanwhile, it is in no dialog any more: also an answer.
        let _ = dialog.press_by_info('1');
    } else {
        dialog.press('1');
    }
    let ended = |state: TaskState| [TaskState::Cancelled, TaskState::Fired].contains(&state);
    let task = loop {
        let task = handle.block_on(stack.task(&task_id))?;
        if ended(task.state()) {
            break task;
        }
        let firing = [TaskState::Pending, TaskState::Firing].contains(&task.state());
        anyhow::ensure!(firing, "call {nth}: {task:?}");
        handle.block_on(wait_until(now_ms() + 20));
    };
    if task.state() == TaskState::Fired {
        let bye = phone.wait_bye(PATIENCE)?;
        anyhow::ensure!(bye.reason.contains("ALLOTTED_TIMEOUT"), "call {nth}: {:?}", bye.reason);
        let call = handle.block_on(stack.wait_ended(&call.call_id))?;
        anyhow::ensure!(call.ended_by_task == task_id, "call {nth}: {call:?}");
        anyhow::ensure!(call.conference.is_empty(), "call {nth} is saved as well: {call:?}");
        return Ok(Outcome::HungUp);
    }
    let conference = format!("race{nth}");
    let saved = |call: &proto::sip_edge::v1::Call| call.conference == conference;
    handle.block_on(stack.wait_call(&call.call_id, saved))?;
    // Late enough for any effect that should not be.
    handle.block_on(wait_until(fires_at_unix_ms + 500));
    anyhow::ensure!(!phone.has_bye(), "call {nth}: cancelled, and hung up nevertheless");
    let call = handle.block_on(stack.call(&call.call_id))?;
    anyhow::ensure!(call.state() == CallState::Answered, "call {nth}: {call:?}");
    dialog.bye()?;
    Ok(Outcome::Saved)
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is set").as_millis() as i64
}

async fn wait_until(unix_ms: i64) {
    let left_ms = (unix_ms - now_ms()).max(0) as u64;
    let due = tokio::time::Instant::now() + Duration::from_millis(left_ms);
    tokio::time::sleep_until(due).await;
}
