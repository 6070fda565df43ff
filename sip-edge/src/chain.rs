//! Commands to other services: those of one call to one service go one after the other, all else at
//! the same time.

use crate::calls::CallId;
use call::{CommandNumber, Failure, FailureKind, Reply};
use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::time::Duration;
use tokio::sync::mpsc;
use tonic::{Code, Status};

/// How long a service may take to answer a command.
pub(crate) const DEADLINE: Duration = call::COMMAND_TIMEOUT;
/// Waits between the attempts of a command that must get through.
const RETRY_DELAYS: [Duration; 4] = [
    Duration::from_millis(250),
    Duration::from_secs(1),
    Duration::from_secs(3),
    Duration::from_secs(10),
];
/// Waits between the attempts of a command without which a caller is refused; in all well within
/// [`DEADLINE`].
const REPLACED_DELAYS: [Duration; 4] = [
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(400),
    Duration::from_millis(800),
];
/// What is said by a service that is going, and by a connection that ends under a request.
const PASSING: [Code; 4] = [Code::Unavailable, Code::Unknown, Code::Internal, Code::Cancelled];
/// Commands of one call that wait for one service. A call has few under way; only a peer that
/// floods us with digits gets here, and those are discarded.
const WAITING_MAX: usize = 64;

pub(crate) type Outcome = Result<Reply, Failure>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Service {
    MediaRelay,
    QueueSvc,
    Scheduler,
}

impl Service {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::MediaRelay => "media-relay",
            Self::QueueSvc => "queue-svc",
            Self::Scheduler => "scheduler",
        }
    }
}

/// A command that has been answered, or has failed.
#[derive(Debug)]
pub(crate) struct Performed {
    pub(crate) call: CallId,
    pub(crate) service: Service,
    pub(crate) number: CommandNumber,
    pub(crate) outcome: Outcome,
}

type Command = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// Who is waiting for what. A key that exists has one command under way.
pub(crate) struct Chains {
    waiting: HashMap<(CallId, Service), VecDeque<(CommandNumber, Command)>>,
    performed: mpsc::Sender<Performed>,
}

impl Chains {
    /// What has been done comes out of the receiver that belongs to `performed`.
    pub(crate) fn new(performed: mpsc::Sender<Performed>) -> Self {
        Self { waiting: HashMap::new(), performed }
    }

    /// Begins the command, or lets it wait for those before. False if too many wait and this one
    /// may be discarded.
    pub(crate) fn push(
        &mut self,
        call: &CallId,
        service: Service,
        number: CommandNumber,
        command: impl Future<Output = Outcome> + Send + 'static,
        discardable: bool,
    ) -> bool {
        match self.waiting.get_mut(&(call.clone(), service)) {
            Some(waiting) if waiting.len() >= WAITING_MAX && discardable => false,
            Some(waiting) => {
                waiting.push_back((number, Box::pin(command)));
                true
            }
            None => {
                self.waiting.insert((call.clone(), service), VecDeque::new());
                self.begin(call.clone(), service, number, Box::pin(command));
                true
            }
        }
    }

    /// Begins the next command after `performed`.
    pub(crate) fn advance(&mut self, performed: &Performed) {
        let key = (performed.call.clone(), performed.service);
        match self.waiting.get_mut(&key).and_then(VecDeque::pop_front) {
            Some((number, command)) => self.begin(key.0, key.1, number, command),
            None => drop(self.waiting.remove(&key)),
        }
    }

    /// Whether nothing is under way for a call.
    pub(crate) fn is_idle(&self, call: &CallId) -> bool {
        let all = [Service::MediaRelay, Service::QueueSvc, Service::Scheduler];
        all.into_iter().all(|service| !self.waiting.contains_key(&(call.clone(), service)))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    fn begin(&self, call: CallId, service: Service, number: CommandNumber, command: Command) {
        let sender = self.performed.clone();
        tokio::spawn(async move {
            let outcome = command.await;
            let performed = Performed { call, service, number, outcome };
            let _ = sender.send(performed).await; // Nobody reads when the process is ending.
        });
    }
}

/// Asks again for a moment while a service is replaced, or hands its work over. Only for what has one
/// effect however often it is asked.
pub(crate) async fn while_replaced<T, F>(ask: impl Fn() -> F) -> Result<T, Status>
where
    F: Future<Output = Result<T, Status>>,
{
    for delay in REPLACED_DELAYS {
        match ask().await {
            Err(status) if PASSING.contains(&status.code()) => tokio::time::sleep(delay).await,
            answered => return answered,
        }
    }
    ask().await
}

/// Tries again as long as the service is away, for some seconds; who is not told then reads it from
/// the events.
pub(crate) async fn persistently<F>(attempt: impl Fn() -> F) -> Outcome
where
    F: Future<Output = Outcome>,
{
    for delay in RETRY_DELAYS {
        match attempt().await {
            Err(failure) if failure.kind == FailureKind::Unavailable => {
                tokio::time::sleep(delay).await;
            }
            outcome => return outcome,
        }
    }
    attempt().await
}
