//! Events that JetStream is to keep: in order, many on their way at a time, again until it has them.
//!
//! The client library has a future, a timer and an inbox entry for each message that is on its way;
//! where there is an event for every change of every task, that costs more than the change. Here a
//! batch is written to a [`Line`], and its confirmations are read from it.

use crate::line::{Line, Message};
use crate::login::Login;
use crate::nats::Nats;
use anyhow::Context as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout};
use tracing::{debug, error};

/// Events on their way to NATS at a time.
pub const UNACKED_MAX: usize = 256;
/// How long NATS may take to confirm a batch before it is sent again.
const ACK_LIMIT: Duration = Duration::from_secs(2);
/// Wait before what failed is tried again.
const AGAIN: Duration = Duration::from_millis(250);
/// A connection that was not used for so long is not used again: the server may have given it up.
const UNUSED_LIMIT: Duration = Duration::from_secs(30);

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Printable ASCII without a space.
    pub subject: String,
    /// Repeats with the same id within two minutes are one event there. Printable ASCII.
    pub id: String,
    pub json: String,
}

/// Hands events to JetStream, by a connection of its own.
pub struct Journal {
    name: String,
    login: Login,
    nats: Nats,
    line: Option<(Line, Instant)>,
}

impl Journal {
    pub(crate) fn new(name: String, login: Login, nats: Nats) -> Self {
        Self { name, login, nats, line: None }
    }

    /// Returns true once JetStream has all of these events. What it does not confirm is sent again, as
    /// long as it takes: before that, `go_on` hears how many these are; false ends it. What is too long
    /// for NATS is passed over, with an error in the log: what comes after it would wait for ever.
    pub async fn keep(&mut self, events: &[Event], mut go_on: impl FnMut(usize) -> bool) -> bool {
        for window in events.chunks(UNACKED_MAX) {
            let mut left: Vec<&Event> = window.iter().collect();
            while !left.is_empty() {
                // The server may have closed a connection that was at rest: that is no failure yet.
                let was_there = self.line.is_some();
                if self.attempt(&mut left).await.is_err() && was_there && !left.is_empty() {
                    let _ = self.attempt(&mut left).await; // What is left says how it went.
                }
                if left.is_empty() {
                    break;
                }
                if !go_on(left.len()) {
                    return false;
                }
                if let Err(e) = self.nats.make_stream().await {
                    debug!("failed to make the stream of events: {e:#}");
                }
                tokio::time::sleep(AGAIN).await;
            }
        }
        true
    }

    /// Sends what is left, and takes out what needs not be sent again.
    async fn attempt(&mut self, left: &mut Vec<&Event>) -> anyhow::Result<()> {
        let line = self.line.take().filter(|(_, used)| used.elapsed() < UNUSED_LIMIT);
        let mut line = match line {
            Some((line, _)) => line,
            None => Line::connect(&self.name, &self.login, Arc::new(|| Some(0))).await?,
        };
        let messages: Vec<Message<'_>> = left.iter().map(|it| it.message()).collect();
        let mut done = Vec::with_capacity(left.len());
        let stored = timeout(ACK_LIMIT, line.store(&messages, &mut done)).await;
        let stored = stored
            .context("NATS does not confirm events")
            .and_then(|stored| stored.context("write events to NATS"));
        if let Ok(refused) = &stored {
            for it in refused {
                let Event { subject, id, .. } = left[it.at];
                let why = &it.why;
                if it.for_ever {
                    error!(subject, id, "an event is lost: {why}");
                    metrics::counter!("holdfast_events_dropped_total").increment(1);
                    done.push(it.at);
                } else {
                    debug!(subject, id, "NATS does not keep an event yet: {why}");
                }
            }
            self.line = Some((line, Instant::now()));
        }
        done.sort_unstable();
        let mut at = 0;
        left.retain(|_| {
            at += 1;
            done.binary_search(&(at - 1)).is_err()
        });
        stored.map(drop).inspect_err(|e| debug!("failed to hand events to NATS: {e:#}"))
    }
}

impl Event {
    fn message(&self) -> Message<'_> {
        let Self { subject, id, json } = self;
        Message { subject, id, payload: json.as_bytes() }
    }
}
