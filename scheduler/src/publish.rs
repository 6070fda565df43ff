//! What tasks publish on NATS: by the batch, confirmed, and only while this process may act.
//!
//! One task has the connection ([`Line`]) and publishes what waits, batch by batch. A batch is of the
//! period of leases in which its tasks were claimed: it goes out by a connection of that period or not
//! at all, so that a process which stood still past its leases publishes nothing when it wakes. A
//! message that is not confirmed is published again, with the same `Nats-Msg-Id`.

use boot::{Gate, Line, Login, Message, Refused};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::{debug, info, warn};
use wheel::{Answer, Attempt, Effect, TaskId, Ticket};

/// How long NATS may take to confirm a message, from when it is asked for.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(2);
/// Batches that wait; the firing loop has few under way, but for many that are tried again.
const BATCHES_WAITING_MAX: usize = 4_096;
/// Batches that go out together.
const BATCHES_TOGETHER: usize = 64;
/// Wait before NATS is connected to again, if nothing is to be published.
const CONNECT_INTERVAL: Duration = Duration::from_secs(1);

/// The way to NATS; cheap to clone.
#[derive(Clone)]
pub(crate) struct Bus(mpsc::Sender<Batch>);

/// The other end of a [`Bus`].
pub(crate) struct Publisher {
    name: &'static str,
    login: Login,
    gate: Gate,
    batches: mpsc::Receiver<Batch>,
    line: Option<Line>,
    connect_at: Instant,
}

struct Batch {
    messages: Vec<Attempt>,
    /// `Nats-Msg-Id` of each.
    ids: Vec<String>,
    /// Of the leases under which they were claimed.
    period: u32,
    until: Instant,
    answer: oneshot::Sender<Answers>,
}

/// What became of attempts, in their order.
pub(crate) type Answers = Vec<(TaskId, Ticket, Answer)>;

/// A bus to NATS by `login`, under `name` in its lists, and who publishes, while `gate` is open.
pub(crate) fn open(name: &'static str, login: Login, gate: Gate) -> (Bus, Publisher) {
    let (bus, batches) = mpsc::channel(BATCHES_WAITING_MAX);
    let connect_at = Instant::now();
    (Bus(bus), Publisher { name, login, gate, batches, line: None, connect_at })
}

impl Bus {
    /// Publishes the messages of these tasks, which were claimed in this period of leases; at most
    /// [`ATTEMPT_LIMIT`] long.
    ///
    /// # Panics
    /// If an effect is not a message.
    pub(crate) async fn publish_all(&self, messages: Vec<Attempt>, period: u32) -> Answers {
        let why = "too much waits to be published";
        let unanswered: Answers =
            messages.iter().map(|it| answer(it, Answer::Unanswered(why.to_owned()))).collect();
        let ids = messages.iter().map(|it| format!("{}/{}", it.task, it.occurrence)).collect();
        let (answer, answers) = oneshot::channel();
        let until = Instant::now() + ATTEMPT_LIMIT;
        match self.0.try_send(Batch { messages, ids, period, until, answer }) {
            Ok(()) => answers.await.unwrap_or(unanswered),
            Err(_) => unanswered,
        }
    }
}

impl Publisher {
    /// Publishes until nobody can ask any more.
    pub(crate) async fn run(mut self) -> anyhow::Result<()> {
        let mut batches = Vec::new();
        loop {
            if self.line.as_ref().is_some_and(|line| Some(line.period()) != (self.gate)()) {
                self.line = None;
            }
            tokio::select! {
                count = self.batches.recv_many(&mut batches, BATCHES_TOGETHER) => match count {
                    0 => return Ok(()),
                    _ => self.publish(std::mem::take(&mut batches)).await,
                },
                probed = probed(&mut self.line) => {
                    let here = match (probed, &mut self.line) {
                        (Ok(()), Some(line)) => line.here().await,
                        (probed, _) => probed,
                    };
                    here.unwrap_or_else(|e| self.lose(&e));
                }
                () = sleep_until(self.connect_at), if self.line.is_none() => self.connect().await,
            }
        }
    }

    /// Publishes what may still go out, and answers.
    async fn publish(&mut self, batches: Vec<Batch>) {
        if self.line.is_none() {
            self.connect().await;
        }
        let period = self.line.as_ref().map(Line::period);
        let now = Instant::now();
        let (batches, late): (Vec<_>, Vec<_>) =
            batches.into_iter().partition(|it| it.until > now && Some(it.period) == period);
        let why = match period {
            None => "NATS is not connected",
            Some(_) => "it came too late to be published",
        };
        late.into_iter().for_each(|batch| batch.fail(why));
        let Some(until) = batches.iter().map(|it| it.until).min() else { return };
        let Some(mut line) = self.line.take() else { return };
        let messages = batches.iter().flat_map(Batch::messages);
        // Dropped when its time is over, it is of no use any more.
        match timeout_at(until, line.publish(messages)).await {
            Ok(Ok(refused)) => {
                self.line = Some(line);
                succeed(batches, refused);
            }
            Ok(Err(e)) => {
                self.lose(&e);
                let why = format!("the connection to NATS was lost: {e}");
                batches.into_iter().for_each(|batch| batch.fail(&why));
            }
            Err(_) => {
                self.lose(&"it does not answer");
                let why = format!("NATS did not confirm it in {ATTEMPT_LIMIT:?}");
                batches.into_iter().for_each(|batch| batch.fail(&why));
            }
        }
    }

    async fn connect(&mut self) {
        self.connect_at = Instant::now() + CONNECT_INTERVAL;
        if (self.gate)().is_none() {
            return;
        }
        match Line::connect(self.name, &self.login, self.gate.clone()).await {
            Ok(line) => {
                info!("connected to NATS for what tasks publish");
                self.line = Some(line);
            }
            Err(e) => debug!("failed to connect to NATS for what tasks publish: {e:#}"),
        }
    }

    fn lose(&mut self, why: &dyn std::fmt::Display) {
        warn!("lost NATS for what tasks publish: {why}");
        self.line = None;
    }
}

impl Batch {
    fn messages(&self) -> impl Iterator<Item = Message<'_>> + Clone {
        self.messages.iter().zip(&self.ids).map(|(attempt, id)| match &*attempt.effect {
            Effect::Publish { subject, payload } => Message { subject, id, payload },
            _ => unreachable!("only messages go by this lane"),
        })
    }

    fn fail(self, why: &str) {
        self.reply(|_| Answer::Unanswered(why.to_owned()));
    }

    /// Says of each, by its place, what became of it.
    fn reply(self, mut what: impl FnMut(usize) -> Answer) {
        let answers = self.messages.iter().enumerate().map(|(at, it)| answer(it, what(at)));
        let _ = self.answer.send(answers.collect()); // Who asked may have gone.
    }
}

/// All went out, but for what NATS refuses, by its place among them all.
fn succeed(batches: Vec<Batch>, refused: Vec<Refused>) {
    let mut refused = refused.into_iter().peekable();
    let mut first = 0;
    for batch in batches {
        let count = batch.messages.len();
        batch.reply(|at| match refused.next_if(|it| it.at == first + at) {
            Some(Refused { why, .. }) => Answer::Refused(why),
            None => Answer::Done("published".to_owned()),
        });
        first += count;
    }
}

fn answer(attempt: &Attempt, answer: Answer) -> (TaskId, Ticket, Answer) {
    (attempt.task, attempt.ticket, answer)
}

/// Waits until NATS looks whether we are there; for ever without a connection.
async fn probed(line: &mut Option<Line>) -> std::io::Result<()> {
    match line {
        Some(line) => line.probed().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use e2e::NatsServer;
    use futures::StreamExt as _;
    use std::sync::Arc;

    /// The period in which the gate is open.
    const PERIOD: u32 = 3;

    fn attempt(task: u128, subject: &str, payload: &[u8]) -> Attempt {
        let effect = Effect::Publish { subject: subject.to_owned(), payload: payload.to_vec() };
        let effect = Arc::new(effect);
        Attempt { task: TaskId(task), occurrence: 3, effect, attempt: 1, ticket: task as Ticket }
    }

    fn bus(nats: &NatsServer) -> Bus {
        let (bus, publisher) =
            open("scheduler", Login::at(&nats.url()).unwrap(), Arc::new(|| Some(PERIOD)));
        tokio::spawn(publisher.run());
        bus
    }

    #[tokio::test]
    async fn a_batch_is_confirmed_when_others_have_heard_it() {
        let nats = NatsServer::start().unwrap();
        let client = async_nats::connect(nats.url()).await.unwrap();
        let mut heard = client.subscribe("billing.>").await.unwrap();
        client.flush().await.unwrap();
        let attempts: Vec<_> = (0..1_000).map(|n| attempt(n, "billing.warn", b"1.50")).collect();
        let answers = bus(&nats).publish_all(attempts, PERIOD).await;
        assert_eq!(answers.len(), 1_000);
        for (n, (task, ticket, answer)) in (0..).zip(answers) {
            assert_eq!((task, ticket), (TaskId(n), n as Ticket));
            assert_eq!(answer, Answer::Done("published".to_owned()));
            let message = heard.next().await.unwrap();
            assert_eq!(&*message.payload, b"1.50");
            let headers = message.headers.unwrap();
            let id = headers.get("Nats-Msg-Id").unwrap().as_str();
            assert_eq!(id, format!("{task}/3"));
        }
    }

    #[tokio::test]
    async fn what_nats_will_never_take_does_not_hinder_the_rest_of_any_batch() {
        let nats = NatsServer::start().unwrap();
        let bus = bus(&nats);
        let first =
            vec![attempt(1, "a", b""), attempt(2, "b", &[0; 2 << 20]), attempt(3, "c", b"")];
        let second = vec![attempt(4, "d", &[0; 2 << 20]), attempt(5, "e", b"")];
        let (first, second) =
            tokio::join!(bus.publish_all(first, PERIOD), bus.publish_all(second, PERIOD));
        let refused =
            |(task, _, answer): (TaskId, _, Answer)| (task.0, matches!(answer, Answer::Refused(_)));
        let answers: Vec<_> = first.into_iter().chain(second).map(refused).collect();
        assert_eq!(answers, [(1, false), (2, true), (3, false), (4, true), (5, false)]);
    }

    #[tokio::test]
    async fn what_was_claimed_in_another_period_is_not_published() {
        let nats = NatsServer::start().unwrap();
        let client = async_nats::connect(nats.url()).await.unwrap();
        let mut heard = client.subscribe(">").await.unwrap();
        client.flush().await.unwrap();
        let bus = bus(&nats);
        let [old, new] = [(1, PERIOD - 1), (2, PERIOD)].map(|(n, period)| {
            let bus = bus.clone();
            async move { bus.publish_all(vec![attempt(n, "a", b"")], period).await }
        });
        let old = old.await;
        assert!(matches!(old[..], [(TaskId(1), 1, Answer::Unanswered(_))]), "{old:?}");
        assert!(matches!(new.await[..], [(TaskId(2), 2, Answer::Done(_))]));
        let message = heard.next().await.unwrap();
        let id = message.headers.unwrap().get("Nats-Msg-Id").unwrap().to_string();
        assert_eq!(id, format!("{}/3", TaskId(2)), "the first that was published");
    }

    #[tokio::test]
    async fn a_batch_is_not_confirmed_while_nats_is_away() {
        let nats = NatsServer::start().unwrap();
        let bus = bus(&nats);
        assert!(matches!(
            bus.publish_all(vec![attempt(1, "a", b"")], PERIOD).await[..],
            [(TaskId(1), 1, Answer::Done(_))]
        ));
        drop(nats);
        let answers = bus.publish_all(vec![attempt(1, "a", b"")], PERIOD).await;
        assert!(matches!(answers[..], [(TaskId(1), 1, Answer::Unanswered(_))]), "{answers:?}");
    }
}
