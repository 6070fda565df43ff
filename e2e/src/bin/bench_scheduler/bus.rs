//! What the tasks of a benchmark publish, and when it arrives.

use anyhow::Context as _;
use futures::StreamExt as _;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::task::JoinHandle;

/// Messages that wait for this process; more than any part expects.
const WAITING_MAX: usize = 1_000_000;

/// Subject of what tasks publish.
pub(crate) const SUBJECT: &str = "bench.task";

/// Arrivals of messages numbered from 0, in Unix µs.
#[derive(Debug)]
pub(crate) struct Arrivals {
    /// The first arrival of each; None: it has not come.
    pub(crate) first: Vec<Option<i64>>,
    /// Messages that had come before.
    pub(crate) repeated: usize,
}

/// Collects messages on [`SUBJECT`] until `count` different ones have come.
pub(crate) async fn listen(url: &str, count: usize) -> anyhow::Result<JoinHandle<Arrivals>> {
    let options = async_nats::ConnectOptions::new().subscription_capacity(WAITING_MAX);
    let client = options.connect(url).await.context("connect to NATS")?;
    let mut messages = client.subscribe(SUBJECT).await.context("subscribe")?;
    client.flush().await.context("subscribe")?;
    Ok(tokio::spawn(async move {
        let _client = client;
        let mut arrivals = Arrivals { first: vec![None; count], repeated: 0 };
        let mut left = count;
        while left > 0
            && let Some(message) = messages.next().await
        {
            let at = now_us();
            let number = std::str::from_utf8(&message.payload).ok().and_then(|it| it.parse().ok());
            let Some(slot) = number.and_then(|it: usize| arrivals.first.get_mut(it)) else {
                continue;
            };
            match slot {
                Some(_) => arrivals.repeated += 1,
                None => {
                    *slot = Some(at);
                    left -= 1;
                }
            }
        }
        arrivals
    }))
}

pub(crate) fn now_us() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is set");
    now.as_micros() as i64
}

pub(crate) fn now_ms() -> i64 {
    now_us() / 1_000
}
