//! NATS: the connection, the stream of events, publishing without waiting, consuming at least once.

use anyhow::Context as _;
use async_nats::jetstream::consumer::{AckPolicy, PullConsumer, pull};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::{self, AckKind, stream};
use async_nats::{ConnectOptions, Event};
use futures::StreamExt as _;
use futures::future::join_all;
use prost::{Message, Name};
use proto::subjects;
use std::time::Duration;
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

/// Events that wait for NATS while it is away; at about 1 KiB each, 64 MiB. More are dropped.
const UNPUBLISHED_MAX: usize = 65_536;
/// Events on their way to NATS at a time.
const UNACKED_MAX: usize = 256;
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
    context: jetstream::Context,
}

/// Hands events to NATS without making the caller wait; cheap to clone.
#[derive(Clone)]
pub struct Publisher {
    events: mpsc::Sender<Unpublished>,
}

struct Unpublished {
    subject: String,
    event_id: String,
    json: String,
}

impl Nats {
    /// Connects, under `name` in the server's lists, and makes the stream of events if needed.
    ///
    /// # Errors
    /// If NATS does not answer within 3 s, or has no JetStream.
    pub async fn connect(name: &str, url: &str) -> anyhow::Result<Self> {
        let connecting = ConnectOptions::new()
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
            .connect(url);
        let client = tokio::time::timeout(CONNECT_TIMEOUT, connecting)
            .await
            .map_err(|_| anyhow::anyhow!("no answer in {CONNECT_TIMEOUT:?}"))
            .and_then(|connected| connected.map_err(anyhow::Error::from))
            .with_context(|| format!("connect to NATS at {url} (--nats-url)"))?;
        let mut context = jetstream::new(client);
        context.set_timeout(ACK_TIMEOUT);
        context
            .get_or_create_stream(stream::Config {
                name: subjects::STREAM.to_owned(),
                subjects: vec![subjects::ALL.to_owned()],
                max_age: Duration::from_secs(subjects::MAX_AGE_S),
                max_bytes: subjects::MAX_BYTES,
                discard: stream::DiscardPolicy::Old,
                ..stream::Config::default()
            })
            .await
            .with_context(|| {
                format!(
                    "make stream {} at {url} (is JetStream on? `nats-server -js`)",
                    subjects::STREAM
                )
            })?;
        Ok(Self { context })
    }

    /// A publisher and its task, which never ends; give it to [`crate::Service::spawn_vital`].
    pub fn publisher(
        &self,
    ) -> (Publisher, impl Future<Output = anyhow::Result<()>> + Send + 'static) {
        let (events, unpublished) = mpsc::channel(UNPUBLISHED_MAX);
        (Publisher { events }, publish_all(self.context.clone(), unpublished))
    }

    /// Hands every message on `subject` to `handle`, at least once, also those that came while this
    /// process was away; `durable` names the reader across restarts. An error makes the message come
    /// again. Never ends: NATS may go away and come back.
    pub async fn consume<F>(
        self,
        durable: &'static str,
        subject: &'static str,
        handle: impl Fn(Vec<u8>) -> F,
    ) -> anyhow::Result<()>
    where
        F: Future<Output = anyhow::Result<()>>,
    {
        loop {
            if let Err(e) = self.consume_until_lost(durable, subject, &handle).await {
                debug!("failed to read {subject}: {e:#}");
            }
            tokio::time::sleep(RETRY_DELAY).await;
        }
    }

    async fn consume_until_lost<F>(
        &self,
        durable: &str,
        subject: &str,
        handle: impl Fn(Vec<u8>) -> F,
    ) -> anyhow::Result<()>
    where
        F: Future<Output = anyhow::Result<()>>,
    {
        let stream = self.context.get_stream(subjects::STREAM).await?;
        let config = pull::Config {
            durable_name: Some(durable.to_owned()),
            filter_subject: subject.to_owned(),
            ack_policy: AckPolicy::Explicit,
            ack_wait: HANDLE_LIMIT,
            ..pull::Config::default()
        };
        let consumer: PullConsumer = stream.get_or_create_consumer(durable, config).await?;
        let mut messages = consumer.messages().await?;
        while let Some(message) = messages.next().await {
            let message = message?;
            let done = match handle(message.payload.to_vec()).await {
                Ok(()) => message.ack().await,
                Err(e) => {
                    warn!(subject = %message.subject, "failed to handle event: {e:#}");
                    message.ack_with(AckKind::Nak(Some(RETRY_DELAY))).await
                }
            };
            done.map_err(|e| anyhow::anyhow!("acknowledge: {e}"))?;
        }
        Ok(())
    }
}

impl Publisher {
    /// Queues an event, in the JSON mapping, for NATS. Repeats with the same `event_id` within two
    /// minutes are one event there. When too many wait, it is dropped and counted.
    pub fn publish<M: Message + Name>(&self, subject: String, event_id: &str, event: &M) {
        let json = proto::json::to_json(event);
        let event = Unpublished { subject, event_id: event_id.to_owned(), json };
        if self.events.try_send(event).is_err() {
            metrics::counter!("holdfast_events_dropped_total").increment(1);
        }
    }
}

async fn publish_all(
    context: jetstream::Context,
    mut unpublished: mpsc::Receiver<Unpublished>,
) -> anyhow::Result<()> {
    let mut batch = Vec::with_capacity(UNACKED_MAX);
    while unpublished.recv_many(&mut batch, UNACKED_MAX).await > 0 {
        while !batch.is_empty() {
            let sent = join_all(batch.iter().map(|event| publish(&context, event))).await;
            let mut confirmed = sent.into_iter();
            batch.retain(|_| !confirmed.next().unwrap_or(false));
            if !batch.is_empty() {
                metrics::counter!("holdfast_event_publish_retries_total")
                    .increment(batch.len() as u64);
                tokio::time::sleep(RETRY_DELAY).await;
            }
        }
    }
    // Every publisher is gone: the process is ending.
    std::future::pending().await
}

/// True once JetStream has confirmed the event.
async fn publish(context: &jetstream::Context, event: &Unpublished) -> bool {
    let message =
        PublishMessage::build().payload(event.json.clone().into()).message_id(&event.event_id);
    let sent = context.send_publish(event.subject.clone(), message).await;
    let confirmed = match sent {
        Ok(ack) => ack.await.map(drop).map_err(anyhow::Error::from),
        Err(e) => Err(e.into()),
    };
    confirmed.inspect_err(|e| debug!("failed to publish on {}: {e:#}", event.subject)).is_ok()
}
