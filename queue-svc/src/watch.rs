//! Watching the queues: every change, once and in order, from any position that is still kept.
//!
//! A watch reads the log at its own pace, so that a slow reader costs nobody anything.

use crate::events;
use crate::leases::{Lease, Leases};
use crate::store::{Reach, Store, StoreError};
use proto::queue::v1::{QueueEvent, WatchResponse};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};

/// Watches at a time; more are refused.
pub(crate) const WATCHES_MAX: usize = 64;
/// Changes that wait for one reader; then it is read no further.
const UNREAD_MAX: usize = 256;
/// Changes that are read at a time.
const CHANGES_PER_READ: u32 = 256;

/// Why there is no watch, or no longer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unwatched {
    #[error("{max} watches are the most at a time")]
    TooMany { max: usize },
    #[error(
        "changes after resume_token are older than --retention and forgotten, or never were in this \
         database: begin anew with List, and Watch without a token"
    )]
    Forgotten,
    #[error("the database does not answer; watch again from the last resume_token: {0}")]
    Unreadable(#[from] StoreError),
    #[error("the log holds something that is no change (revision {revision})")]
    NoChange { revision: i64 },
    #[error("queue-svc drains; watch again from the last resume_token")]
    Draining,
    #[error("this replica does not own the queues; watch again from the last resume_token")]
    NotOwner,
}

/// After which change somebody goes on; opaque to others, so that what it is made of can change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position(i64);

impl Position {
    fn token(self) -> String {
        format!("1.{}", self.0)
    }

    /// None if that is no token of ours.
    pub(crate) fn parse(token: &str) -> Option<Self> {
        let digits = token.strip_prefix("1.")?;
        let plain = digits.len() <= 19 && digits.bytes().all(|byte| byte.is_ascii_digit());
        digits.parse().ok().filter(|_| plain).map(Self)
    }
}

/// Who begins watches; cheap to clone.
#[derive(Clone)]
pub(crate) struct Watches {
    store: Store,
    room: Arc<Semaphore>,
    leases: Leases,
    logged: watch::Receiver<i64>,
    draining: watch::Receiver<bool>,
}

/// What a watch hands on.
pub(crate) type Response = Result<WatchResponse, Unwatched>;

impl Watches {
    /// `logged` has the revision of the last change on disk, `draining` turns true when we drain.
    pub(crate) fn new(
        store: Store,
        leases: Leases,
        logged: watch::Receiver<i64>,
        draining: watch::Receiver<bool>,
    ) -> Self {
        Self { store, room: Arc::new(Semaphore::new(WATCHES_MAX)), leases, logged, draining }
    }

    /// A watch from `after`, or from now on, of one queue, or of all if its name is empty.
    ///
    /// # Errors
    /// See [`Unwatched`].
    pub(crate) async fn begin(
        &self,
        queue: String,
        after: Option<Position>,
    ) -> Result<mpsc::Receiver<Response>, Unwatched> {
        let room = self.room.clone().try_acquire_owned();
        let room = room.map_err(|_| Unwatched::TooMany { max: WATCHES_MAX })?;
        let lease = self.leases.held().ok_or(Unwatched::NotOwner)?;
        let reach = self.store.reach().await?;
        let at = match after {
            None => Position(reach.last),
            Some(after) if is_kept(after, reach) => after,
            Some(_) => return Err(Unwatched::Forgotten),
        };
        let (responses, unread) = mpsc::channel(UNREAD_MAX);
        let watch = Watch {
            store: self.store.clone(),
            lease,
            leases: self.leases.clone(),
            logged: self.logged.clone(),
            draining: self.draining.clone(),
            queue,
            at,
            responses,
            _room: room,
        };
        tokio::spawn(watch.run());
        Ok(unread)
    }
}

struct Watch {
    store: Store,
    /// Changes of others are not told of here.
    lease: Lease,
    leases: Leases,
    logged: watch::Receiver<i64>,
    draining: watch::Receiver<bool>,
    queue: String,
    at: Position,
    responses: mpsc::Sender<Response>,
    _room: OwnedSemaphorePermit,
}

impl Watch {
    async fn run(mut self) {
        if let Err(Some(e)) = self.hand_on().await {
            let _ = self.responses.send(Err(e)).await; // The reader may have gone.
        }
    }

    /// Ends with why, or without if the reader, or the process, has gone.
    async fn hand_on(&mut self) -> Result<(), Option<Unwatched>> {
        self.send(None).await?;
        loop {
            let after = self.at.0;
            tokio::select! {
                logged = self.logged.wait_for(|last| *last > after) => drop(logged.map_err(|_| None)?),
                drains = self.draining.wait_for(|draining| *draining) => {
                    drop(drains.map_err(|_| None)?);
                    return Err(Some(Unwatched::Draining));
                }
                () = self.responses.closed() => return Err(None),
                () = self.leases.lost(self.lease) => return Err(Some(Unwatched::NotOwner)),
            }
            let changes = self.store.changes(after, CHANGES_PER_READ).await;
            let changes = changes.map_err(|e| Some(e.into()))?;
            if changes.first().is_none_or(|it| it.revision != after + 1) {
                return Err(Some(Unwatched::Forgotten)); // This reader was too slow.
            }
            for change in changes {
                let revision = change.revision;
                let event = events::read_change(&change.event);
                let event = event.map_err(|_| Some(Unwatched::NoChange { revision }))?;
                self.at = Position(revision);
                if self.wants(&event) {
                    self.send(Some(event)).await?;
                }
            }
        }
    }

    /// Of an agent, everybody wants to know.
    fn wants(&self, event: &QueueEvent) -> bool {
        let queue = event.caller.as_ref().map(|it| it.queue.as_str());
        self.queue.is_empty() || queue.is_none_or(|queue| queue == self.queue)
    }

    async fn send(&self, event: Option<QueueEvent>) -> Result<(), Option<Unwatched>> {
        let response = WatchResponse { event, resume_token: self.at.token() };
        self.responses.send(Ok(response)).await.map_err(|_| None)
    }
}

/// Whether all changes after this position are there.
fn is_kept(after: Position, reach: Reach) -> bool {
    after.0 + 1 >= reach.first && after.0 <= reach.last
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_reads_as_it_was_written_and_nothing_else_is_one() {
        for revision in [0, 1, i64::MAX] {
            assert_eq!(Position::parse(&Position(revision).token()), Some(Position(revision)));
        }
        for bad in ["", "1", "1.", "2.5", "1.-1", "1.+1", "1.9223372036854775808", "1.1.1"] {
            assert_eq!(Position::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_position_is_kept_if_nothing_after_it_is_forgotten_or_unheard_of() {
        let reach = Reach { first: 5, last: 9, told: 9 };
        for (after, kept) in [(3, false), (4, true), (9, true), (10, false)] {
            assert_eq!(is_kept(Position(after), reach), kept, "{after}");
        }
        assert!(is_kept(Position(0), Reach { first: 1, last: 0, told: 0 }));
    }
}
