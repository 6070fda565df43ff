//! NATS: the connection, the stream of events, publishing without waiting, consuming at least once.

use crate::journal::{Event as Kept, Journal, UNACKED_MAX};
use crate::login::Login;
use crate::trace::{self, Span};
use anyhow::Context as _;
use async_nats::Event;
use async_nats::jetstream::consumer::{AckPolicy, PullConsumer, pull};
use async_nats::jetstream::stream::Stream;
use async_nats::jetstream::{self, AckKind, stream};
use futures::TryStreamExt as _;
use prost::{Message, Name};
use proto::subjects;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tracing::{debug, info, warn};

/// Events that wait for NATS while it is away; at about 1 KiB each, 64 MiB. More are dropped.
const UNPUBLISHED_MAX: usize = 65_536;
/// How long events are gathered, so that they share their way to NATS and back.
const GATHER: Duration = Duration::from_millis(5);
/// How long NATS may take to confirm an event before it is sent again.
const ACK_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a reader may take for an event before it comes again. Short, because an event that was
/// on its way to a process that was killed waits so long for the next one.
const HANDLE_LIMIT: Duration = Duration::from_secs(5);
/// How long a failed publish, delivery or fetch waits for its next attempt.
const RETRY_DELAY: Duration = Duration::from_millis(250);
/// How long NATS may take to answer at start.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// The longest wait between two attempts to connect again.
const RECONNECT_DELAY_MAX: Duration = Duration::from_secs(1);

/// A connection that comes back by itself.
#[derive(Clone)]
pub struct Nats {
    name: String,
    login: Login,
    context: jetstream::Context,
    /// Events that NATS has not confirmed yet.
    pub(crate) unpublished: watch::Sender<usize>,
}

/// Hands events to NATS without making the caller wait; cheap to clone.
#[derive(Clone)]
pub struct Publisher {
    events: mpsc::Sender<Kept>,
    unpublished: watch::Sender<usize>,
}

impl Nats {
    /// Connects, under `name` in the server's lists, and makes the stream of events if needed.
    ///
    /// # Errors
    /// If NATS does not answer within 3 s, does not let us in, or has no JetStream.
    pub async fn connect(name: &str, login: &Login) -> anyhow::Result<Self> {
        let connecting = login
            .options()
            .name(name)
            .connection_timeout(CONNECT_TIMEOUT)
            .reconnect_delay_callback(|attempt| {
                Duration::from_millis(50 * attempt as u64).min(RECONNECT_DELAY_MAX)
            })
            .event_callback(|event| async move {
                match event {
                    Event::Connected => info!("connected to NATS"),
                    Event::Disconnected => warn!("lost NATS; connecting again"),
                    other => debug!(%other, "NATS"),
                }
            })
            .connect(login.server().clone());
        let client = tokio::time::timeout(CONNECT_TIMEOUT, connecting)
            .await
            .map_err(|_| anyhow::anyhow!("no answer in {CONNECT_TIMEOUT:?}"))
            .and_then(|connected| connected.map_err(anyhow::Error::from))
            .with_context(|| format!("connect to NATS at {login} (--nats-url)"))?;
        let mut context = jetstream::new(client);
        context.set_timeout(ACK_TIMEOUT);
        stream(&context).await.with_context(|| {
            format!(
                "make stream {} at {login} (is JetStream on? `nats-server -js`)",
                subjects::STREAM
            )
        })?;
        let (name, login) = (name.to_owned(), login.clone());
        Ok(Self { name, login, context, unpublished: watch::Sender::new(0) })
    }

    /// JetStream on it, for buckets.
    pub fn jetstream(&self) -> jetstream::Context {
        self.context.clone()
    }

    /// Where events are kept, for who publishes them in an order or pace of its own.
    pub fn journal(&self) -> Journal {
        Journal::new(format!("{} events", self.name), self.login.clone(), self.clone())
    }

    /// Makes the stream of events again, if NATS has forgotten it.
    ///
    /// # Errors
    /// If NATS does not answer.
    pub async fn make_stream(&self) -> anyhow::Result<()> {
        stream(&self.context).await.map(drop)
    }

    /// A publisher and its task, which never ends; give it to [`crate::Service::spawn_vital`].
    pub fn publisher(
        &self,
    ) -> (Publisher, impl Future<Output = anyhow::Result<()>> + Send + 'static) {
        let (events, waiting) = mpsc::channel(UNPUBLISHED_MAX);
        let publishing = publish_all(self.journal(), waiting, self.unpublished.clone());
        (Publisher { events, unpublished: self.unpublished.clone() }, publishing)
    }

    /// Hands every message on `subject` to `handle`, one after the other, at least once, also those
    /// that came while this process was away; `durable` names the reader across restarts. An error
    /// makes the message come again. Never ends: NATS may go away and come back.
    pub async fn consume<F>(
        self,
        durable: &'static str,
        subject: &'static str,
        handle: impl Fn(Vec<u8>) -> F,
    ) -> anyhow::Result<()>
    where
        F: Future<Output = anyhow::Result<()>>,
    {
        self.consume_together(durable, subject, 1, handle).await
    }

    /// As [`Nats::consume`], with up to `at_once` messages in hand together, in no order: for a
    /// handler that waits, most of its time, for what many can wait for.
    pub async fn consume_together<F>(
        self,
        durable: &'static str,
        subject: &'static str,
        at_once: usize,
        handle: impl Fn(Vec<u8>) -> F,
    ) -> anyhow::Result<()>
    where
        F: Future<Output = anyhow::Result<()>>,
    {
        loop {
            if let Err(e) = self.consume_until_lost(durable, subject, at_once, &handle).await {
                debug!("failed to read {subject}: {e:#}");
            }
            tokio::time::sleep(RETRY_DELAY).await;
        }
    }

    async fn consume_until_lost<F>(
        &self,
        durable: &str,
        subject: &str,
        at_once: usize,
        handle: impl Fn(Vec<u8>) -> F,
    ) -> anyhow::Result<()>
    where
        F: Future<Output = anyhow::Result<()>>,
    {
        let stream = stream(&self.context).await?;
        let config = pull::Config {
            durable_name: Some(durable.to_owned()),
            filter_subject: subject.to_owned(),
            ack_policy: AckPolicy::Explicit,
            ack_wait: HANDLE_LIMIT,
            ..pull::Config::default()
        };
        let consumer: PullConsumer = stream.get_or_create_consumer(durable, config).await?;
        let messages = consumer.messages().await?.map_err(anyhow::Error::from);
        let handled = messages.map_ok(|message| {
            let handled = handle(message.payload.to_vec());
            async move {
                let handled = match Span::of_event(&message.subject) {
                    Some(span) => {
                        let handled = span.around(handled).await;
                        span.end(handled.as_ref().err().map(|e| format!("{e:#}")));
                        handled
                    }
                    None => handled.await,
                };
                let done = match handled {
                    Ok(()) => message.ack().await,
                    Err(e) => {
                        let subject = message.subject.as_str();
                        let call_id = trace::call_of(subject);
                        warn!(call_id, subject, "failed to handle event: {e:#}");
                        message.ack_with(AckKind::Nak(Some(RETRY_DELAY))).await
                    }
                };
                done.map_err(|e| anyhow::anyhow!("acknowledge: {e}"))
            }
        });
        handled.try_buffer_unordered(at_once).try_for_each(async |()| Ok(())).await
    }
}

impl Publisher {
    /// Queues an event, in the JSON mapping, for NATS. Repeats with the same `event_id` within two
    /// minutes are one event there. When too many wait, it is dropped and counted.
    pub fn publish<E: Message + Name + serde::Serialize>(
        &self,
        subject: String,
        event_id: &str,
        event: &E,
    ) {
        let json = proto::json::event_to_json(event);
        let event = Kept { subject, id: event_id.to_owned(), json };
        self.unpublished.send_modify(|count| *count += 1);
        if self.events.try_send(event).is_err() {
            self.unpublished.send_modify(|count| *count -= 1);
            metrics::counter!("holdfast_events_dropped_total").increment(1);
        }
    }
}

/// The stream of events; made if it is not there, also after a NATS that forgot everything.
async fn stream(context: &jetstream::Context) -> anyhow::Result<Stream> {
    let config = stream::Config {
        name: subjects::STREAM.to_owned(),
        subjects: vec![subjects::ALL.to_owned()],
        max_age: Duration::from_secs(subjects::MAX_AGE_S),
        max_bytes: subjects::MAX_BYTES,
        discard: stream::DiscardPolicy::Old,
        ..stream::Config::default()
    };
    Ok(context.get_or_create_stream(config).await?)
}

async fn publish_all(
    mut journal: Journal,
    mut waiting: mpsc::Receiver<Kept>,
    unpublished: watch::Sender<usize>,
) -> anyhow::Result<()> {
    let mut batch = Vec::with_capacity(UNACKED_MAX);
    while waiting.recv_many(&mut batch, UNACKED_MAX).await > 0 {
        tokio::time::sleep(GATHER).await;
        while batch.len() < UNACKED_MAX
            && let Ok(next) = waiting.try_recv()
        {
            batch.push(next);
        }
        journal
            .keep(&batch, |left| {
                metrics::counter!("holdfast_event_publish_retries_total").increment(left as u64);
                true
            })
            .await;
        unpublished.send_modify(|count| *count -= batch.len());
        batch.clear();
    }
    // Every publisher is gone: the process is ending.
    std::future::pending().await
}
