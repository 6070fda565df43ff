//! What tasks publish on NATS: by the batch, and confirmed.
//!
//! A NATS server handles what comes by one connection in order. So a message to ourselves behind a
//! batch says, when it is back, that the server has the whole batch; unless the connection was
//! another one before, for then some of it may be lost. A message that is not confirmed is published
//! again, with the same `Nats-Msg-Id`.

use async_nats::client::PublishErrorKind;
use async_nats::{Client, HeaderMap, header};
use futures::StreamExt as _;
use std::sync::atomic::Ordering;
use std::time::Duration;
use wheel::{Answer, Attempt, Effect, TaskId, Ticket};

/// How long NATS may take to confirm a batch.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(2);

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct Bus(Client);

impl Bus {
    pub(crate) fn new(client: Client) -> Self {
        Self(client)
    }

    /// Publishes the messages of these tasks, at most [`ATTEMPT_LIMIT`] long; the answers are in the
    /// order of the attempts.
    ///
    /// # Panics
    /// If an effect is not a message.
    pub(crate) async fn publish_all(&self, attempts: &[Attempt]) -> Vec<(TaskId, Ticket, Answer)> {
        let mut refused = Vec::new();
        let published = self.publish_and_confirm(attempts, &mut refused);
        let confirmed = match tokio::time::timeout(ATTEMPT_LIMIT, published).await {
            Ok(Ok(())) => Answer::Done("published".to_owned()),
            Ok(Err(why)) => Answer::Unanswered(why),
            Err(_) => Answer::Unanswered(format!("NATS did not confirm it in {ATTEMPT_LIMIT:?}")),
        };
        let mut refused = refused.into_iter().peekable();
        let answer = |(at, attempt): (usize, &Attempt)| {
            let why = refused.next_if(|(refused, _)| *refused == at).map(|(_, why)| why);
            (attempt.task, attempt.ticket, why.map_or(confirmed.clone(), Answer::Refused))
        };
        attempts.iter().enumerate().map(answer).collect()
    }

    /// `refused` gets the places of those that NATS will never take, and why.
    async fn publish_and_confirm(
        &self,
        attempts: &[Attempt],
        refused: &mut Vec<(usize, String)>,
    ) -> Result<(), String> {
        let connections = self.connections();
        let mark = self.0.new_inbox();
        let mut marks = self.0.subscribe(mark.clone()).await.map_err(|e| e.to_string())?;
        for (at, attempt) in attempts.iter().enumerate() {
            let Effect::Publish { subject, payload } = &*attempt.effect else {
                unreachable!("only messages go by this lane");
            };
            let id = format!("{}/{}", attempt.task, attempt.occurrence);
            let mut headers = HeaderMap::new();
            headers.insert(header::NATS_MESSAGE_ID, id);
            let payload = payload.clone().into();
            let sent = self.0.publish_with_headers(subject.clone(), headers, payload).await;
            if let Err(e) = sent {
                match e.kind() {
                    PublishErrorKind::Send => return Err(e.to_string()),
                    _ => refused.push((at, e.to_string())),
                }
            }
        }
        self.0.publish(mark, "".into()).await.map_err(|e| e.to_string())?;
        self.0.flush().await.map_err(|e| e.to_string())?;
        marks.next().await.ok_or("NATS ended the connection")?;
        match self.connections() == connections {
            true => Ok(()),
            false => Err("the connection to NATS was lost".to_owned()),
        }
    }

    /// How often we were connected.
    fn connections(&self) -> u64 {
        self.0.statistics().connects.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use e2e::NatsServer;
    use std::sync::Arc;

    fn attempt(task: u128, subject: &str, payload: &[u8]) -> Attempt {
        let effect = Effect::Publish { subject: subject.to_owned(), payload: payload.to_vec() };
        let effect = Arc::new(effect);
        Attempt { task: TaskId(task), occurrence: 3, effect, attempt: 1, ticket: task as Ticket }
    }

    #[tokio::test]
    async fn a_batch_is_confirmed_when_others_have_heard_it() {
        let nats = NatsServer::start().unwrap();
        let client = async_nats::connect(nats.url()).await.unwrap();
        let mut heard = client.subscribe("billing.>").await.unwrap();
        let bus = Bus::new(async_nats::connect(nats.url()).await.unwrap());
        client.flush().await.unwrap();
        let attempts: Vec<_> = (0..1_000).map(|n| attempt(n, "billing.warn", b"1.50")).collect();
        let answers = bus.publish_all(&attempts).await;
        for (n, (task, ticket, answer)) in (0..).zip(answers) {
            assert_eq!((task, ticket), (TaskId(n), n as Ticket));
            assert_eq!(answer, Answer::Done("published".to_owned()));
            let message = heard.next().await.unwrap();
            assert_eq!(&*message.payload, b"1.50");
            let headers = message.headers.unwrap();
            let id = headers.get(header::NATS_MESSAGE_ID).unwrap().as_str();
            assert_eq!(id, format!("{task}/3"));
        }
    }

    #[tokio::test]
    async fn what_nats_will_never_take_does_not_hinder_the_rest() {
        let nats = NatsServer::start().unwrap();
        let bus = Bus::new(async_nats::connect(nats.url()).await.unwrap());
        let attempts = [attempt(1, "a", b""), attempt(2, "b", &[0; 2 << 20]), attempt(3, "c", b"")];
        let answers = bus.publish_all(&attempts).await;
        let refused = |(.., answer): &(_, _, Answer)| matches!(answer, Answer::Refused(_));
        assert_eq!(answers.iter().map(refused).collect::<Vec<_>>(), [false, true, false]);
    }

    #[tokio::test]
    async fn a_batch_is_not_confirmed_while_nats_is_away() {
        let nats = NatsServer::start().unwrap();
        let bus = Bus::new(async_nats::connect(nats.url()).await.unwrap());
        drop(nats);
        let answers = bus.publish_all(&[attempt(1, "a", b"")]).await;
        assert!(matches!(answers[..], [(TaskId(1), 1, Answer::Unanswered(_))]), "{answers:?}");
    }
}
