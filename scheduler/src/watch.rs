//! Watching tasks change: every change that is asked for, once, in the order of its shard.
//!
//! A watch reads the log of changes at its own pace, so that a slow reader costs nobody anything, and
//! can go on at any replica after the last change that it has read. One task of the process looks
//! how far the logs reach, for all watches: at once after a commit of this process, and now and then
//! for those of others.

use crate::store::{self, Changed, Reach, Store};
use proto::scheduler::v1::WatchResponse;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};
use wheel::{SHARDS, State};

/// Watches at a time; more are refused.
pub(crate) const WATCHES_MAX: usize = 64;
/// Changes that wait for one reader; then it is read no further.
const UNREAD_MAX: usize = 256;
/// Commits whose changes are read at a time.
const COMMITS_PER_READ: u32 = 16;
/// How often commits of other replicas are looked for.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// The shortest wait between two looks.
const LOOK_PAUSE: Duration = Duration::from_millis(20);
/// How often a watch is told how far it has come, if nothing is there for it.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);

/// Why there is no watch, or no longer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unwatched {
    #[error("{max} watches are the most at a time; try another replica")]
    TooMany { max: usize },
    #[error(
        "changes after resume_token are older than --retention and forgotten, or never were in this \
         database: begin anew with List, and Watch without a token"
    )]
    Forgotten,
    #[error("the database does not answer; watch again from the last resume_token: {0}")]
    Unreadable(#[from] store::Error),
    #[error("this replica drains; watch again from the last resume_token")]
    Draining,
}

/// Up to which change of each shard somebody has read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position([i64; SHARDS as usize]);

impl Position {
    /// As an opaque token: the same at all replicas.
    pub(crate) fn token(&self) -> String {
        self.0.iter().fold("1".to_owned(), |mut token, seq| {
            let _ = write!(token, ".{seq}"); // A string takes everything.
            token
        })
    }

    /// None if that is no token of ours.
    pub(crate) fn parse(token: &str) -> Option<Self> {
        let seq = |text: &str| {
            let canonical = text.len() <= 19 && (text == "0" || !text.starts_with(['0', '-', '+']));
            text.parse::<i64>().ok().filter(|_| canonical)
        };
        let seqs: Option<Vec<i64>> = token.strip_prefix("1.")?.split('.').map(seq).collect();
        seqs?.try_into().ok().map(Self)
    }
}

/// What a watch is asked for; everything else is passed over.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    /// Empty: any.
    pub(crate) call_id: String,
    /// Empty: any.
    pub(crate) group: String,
    /// Empty: any.
    pub(crate) tenant: String,
    /// Empty: any.
    pub(crate) states: Vec<State>,
}

impl Wanted {
    fn includes(&self, Changed { task, .. }: &Changed) -> bool {
        let any_or = |wanted: &str, got: &str| wanted.is_empty() || wanted == got;
        any_or(&self.call_id, &task.call_id)
            && any_or(&self.group, &task.group)
            && any_or(&self.tenant, &task.tenant)
            && (self.states.is_empty() || self.states.contains(&task.state))
    }
}

/// Who begins watches; cheap to clone.
#[derive(Clone)]
pub(crate) struct Watches {
    store: Store,
    room: Arc<Semaphore>,
    /// How far the logs reach, as was last seen.
    reach: watch::Receiver<Position>,
    draining: watch::Receiver<bool>,
}

/// What a watch hands on.
pub(crate) type Response = Result<WatchResponse, Unwatched>;

impl Watches {
    /// Watches, and the task that looks for changes; that never ends. `committed` changes with every
    /// commit of this process, `draining` turns true when it drains.
    pub(crate) fn new(
        store: Store,
        committed: watch::Receiver<u64>,
        draining: watch::Receiver<bool>,
    ) -> (Self, impl Future<Output = anyhow::Result<()>> + Send + 'static) {
        let (seen, reach) = watch::channel(Position([0; SHARDS as usize]));
        let room = Arc::new(Semaphore::new(WATCHES_MAX));
        let looking = look(store.clone(), committed, seen, room.clone());
        (Self { store, room, reach, draining }, looking)
    }

    /// A watch from `after`, or from now on, and what it hands on. It begins with where it begins,
    /// and ends with an error, or with its reader.
    ///
    /// # Errors
    /// See [`Unwatched`].
    pub(crate) async fn begin(
        &self,
        wanted: Wanted,
        after: Option<Position>,
        wire: fn(&Changed) -> proto::scheduler::v1::TaskEvent,
    ) -> Result<mpsc::Receiver<Response>, Unwatched> {
        let room = self.room.clone().try_acquire_owned();
        let room = room.map_err(|_| Unwatched::TooMany { max: WATCHES_MAX })?;
        let reach = self.store.reach(&all_shards()).await?;
        let position = match after {
            None => Position(reached(&reach)),
            Some(after) if is_kept(&after, &reach) => after,
            Some(_) => return Err(Unwatched::Forgotten),
        };
        let (responses, unread) = mpsc::channel(UNREAD_MAX);
        let watch = Watch {
            store: self.store.clone(),
            reach: self.reach.clone(),
            draining: self.draining.clone(),
            wanted,
            wire,
            position,
            untold: false,
            told_at: Instant::now(),
            responses,
            _room: room,
        };
        tokio::spawn(watch.run(Position(reached(&reach))));
        Ok(unread)
    }
}

struct Watch {
    store: Store,
    reach: watch::Receiver<Position>,
    draining: watch::Receiver<bool>,
    wanted: Wanted,
    wire: fn(&Changed) -> proto::scheduler::v1::TaskEvent,
    position: Position,
    /// The position is beyond what was told last.
    untold: bool,
    told_at: Instant,
    responses: mpsc::Sender<Response>,
    _room: OwnedSemaphorePermit,
}

/// The reader of a watch has gone.
struct Gone;

impl Watch {
    /// Hands changes on until the reader goes or something fails. At the beginning the logs reach to
    /// `until`.
    async fn run(mut self, mut until: Position) {
        if self.tell_position().await.is_err() {
            return;
        }
        loop {
            match self.read(until).await {
                Ok(Ok(())) => (),
                Ok(Err(Gone)) => return,
                Err(e) => {
                    let _ = self.responses.send(Err(e)).await; // It may have gone.
                    return;
                }
            }
            let progress_at = self.told_at + PROGRESS_INTERVAL;
            if self.untold && Instant::now() >= progress_at && self.tell_position().await.is_err() {
                return;
            }
            let untold = self.untold;
            let draining = tokio::select! {
                changed = self.reach.changed() => match changed {
                    Ok(()) => false,
                    Err(_) => return, // The process ends.
                },
                drains = self.draining.wait_for(|draining| *draining) => drains.is_ok(),
                () = self.responses.closed() => return,
                () = sleep_until(progress_at), if untold => false,
            };
            if draining {
                let _ = self.responses.send(Err(Unwatched::Draining)).await; // It may have gone.
                return;
            }
            until = *self.reach.borrow_and_update();
        }
    }

    /// Hands on what is wanted up to there, shard by shard.
    async fn read(&mut self, until: Position) -> Result<Result<(), Gone>, Unwatched> {
        let mut passed_over = self.untold;
        for shard in 0..SHARDS {
            let at = usize::from(shard);
            while self.position.0[at] < until.0[at] {
                let after = self.position.0[at];
                let changes = self.store.changes(shard, after, COMMITS_PER_READ).await?;
                let changes = changes.ok_or(Unwatched::Forgotten)?;
                if changes.is_empty() {
                    break; // Of a log that is shorter than it was: not ours to judge.
                }
                for change in changes {
                    self.position.0[at] = change.seq;
                    passed_over = !self.wanted.includes(&change);
                    if passed_over {
                        continue;
                    }
                    let event = Some((self.wire)(&change));
                    let resume_token = self.position.token();
                    let response = WatchResponse { event, resume_token };
                    if self.responses.send(Ok(response)).await.is_err() {
                        return Ok(Err(Gone));
                    }
                }
            }
        }
        self.untold = passed_over;
        Ok(Ok(()))
    }

    async fn tell_position(&mut self) -> Result<(), Gone> {
        (self.untold, self.told_at) = (false, Instant::now());
        let response = WatchResponse { event: None, resume_token: self.position.token() };
        self.responses.send(Ok(response)).await.map_err(|_| Gone)
    }
}

/// Looks how far the logs reach while somebody watches, and says so in `seen`.
async fn look(
    store: Store,
    mut committed: watch::Receiver<u64>,
    seen: watch::Sender<Position>,
    room: Arc<Semaphore>,
) -> anyhow::Result<()> {
    let mut last = Instant::now();
    loop {
        tokio::select! {
            changed = committed.changed() => if changed.is_err() {
                sleep(LOOK_INTERVAL).await; // Nobody commits here any more; others may.
            },
            () = sleep(LOOK_INTERVAL) => (),
        }
        if room.available_permits() == WATCHES_MAX {
            continue; // Nobody watches.
        }
        sleep_until(last + LOOK_PAUSE).await;
        last = Instant::now();
        committed.mark_unchanged();
        match store.reach(&all_shards()).await {
            Ok(reach) => {
                let reach = Position(reached(&reach));
                seen.send_if_modified(|seen| std::mem::replace(seen, reach) != reach);
            }
            Err(e) => tracing::debug!("failed to look for changes: {e}"), // The watches will tell.
        }
    }
}

fn all_shards() -> [u8; SHARDS as usize] {
    std::array::from_fn(|shard| shard as u8)
}

fn reached(reach: &[Reach]) -> [i64; SHARDS as usize] {
    std::array::from_fn(|shard| reach[shard].last)
}

/// Whether all changes after this position are there.
fn is_kept(after: &Position, reach: &[Reach]) -> bool {
    let kept = |(after, reach): (&i64, &Reach)| *after + 1 >= reach.first && *after <= reach.last;
    after.0.iter().zip(reach).all(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_reads_as_it_was_written_and_nothing_else_is_one() {
        let position = Position(std::array::from_fn(|shard| shard as i64 * 1_000_000_007));
        assert_eq!(Position::parse(&position.token()), Some(position));
        let zeros = format!("1{}", ".0".repeat(16));
        assert_eq!(Position::parse(&zeros), Some(Position([0; 16])));
        let long = format!("1{}.9223372036854775808", ".0".repeat(15));
        let more = format!("{zeros}.0");
        for bad in ["", "1", "2.0", &zeros[..zeros.len() - 2], &more, &long, "1.-1", "1.+1", "1.00"]
        {
            assert_eq!(Position::parse(bad), None, "{bad}");
        }
        for odd in ["-1", "+1", "01", "", " 1", "1e3"] {
            assert_eq!(Position::parse(&format!("1{}.{odd}", ".0".repeat(15))), None, "{odd}");
        }
    }

    #[test]
    fn a_position_is_kept_if_nothing_after_it_is_forgotten_or_unheard_of() {
        let reach = [Reach { first: 5, last: 9 }; 16];
        for (seq, kept) in [(3, false), (4, true), (9, true), (10, false)] {
            assert_eq!(is_kept(&Position([seq; 16]), &reach), kept, "{seq}");
        }
        let empty = [Reach { first: 1, last: 0 }; 16];
        assert!(is_kept(&Position([0; 16]), &empty));
    }
}
