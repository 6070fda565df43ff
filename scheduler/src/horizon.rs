//! What comes near: reads the tasks that are due within the horizon from the shards of this process.

use crate::clock::Clock;
use crate::lanes::{Lanes, PUBLISH};
use crate::store::{self, Cursor, Live, Store};
use std::time::Duration;
use wheel::{News, Standing, TaskId};

/// Tasks that are read at a time.
pub(crate) const PAGE: u32 = 10_000;

/// Reads a shard, page by page.
#[derive(Clone)]
pub(crate) struct Horizon {
    pub(crate) store: Store,
    pub(crate) clock: Clock,
    pub(crate) lanes: Lanes,
    pub(crate) horizon_ms: i64,
}

impl Horizon {
    /// How often to look: what comes nearer meanwhile is within the horizon already.
    pub(crate) fn interval(&self) -> Duration {
        Duration::from_millis(u64::try_from(self.horizon_ms / 4).unwrap_or(1_000))
    }

    /// Up to when, in Unix ms, tasks are known to one who reads now.
    pub(crate) fn end_unix_ms(&self) -> i64 {
        self.clock.moment().horizon_end_unix_ms(self.horizon_ms)
    }

    /// Where to begin to read what has come nearer since tasks up to then were read. Not there, but
    /// earlier: a commit may have been under way for long.
    pub(crate) fn since(&self, read_unix_ms: i64) -> Cursor {
        let fires_at_unix_ms = read_unix_ms.saturating_sub(self.horizon_ms / 4);
        Cursor { fires_at_unix_ms, id: TaskId(0) }
    }

    /// The tasks of the shard that are due within the horizon, after `after`, in the order of their deadlines;
    /// and where to go on, unless these were the last.
    pub(crate) async fn page(
        &self,
        shard: u8,
        after: Option<Cursor>,
    ) -> store::Result<(Vec<News>, Option<Cursor>)> {
        let live = self.store.live(shard, after, self.end_unix_ms(), PAGE).await?;
        let last = live.last().filter(|_| live.len() == PAGE as usize);
        let last = last.map(|it| Cursor { fires_at_unix_ms: it.fires_at_unix_ms, id: it.id });
        let moment = self.clock.moment();
        let news = live.iter().map(|live| {
            let Live { id, firing, fires_at_unix_ms, pinned, revision, publishes, ref edge } =
                *live;
            let lane = if publishes { PUBLISH } else { self.lanes.of_edge(edge) };
            let due = moment.due(fires_at_unix_ms, pinned);
            let now = match firing {
                false => Standing::Waiting { due, lane },
                true => Standing::Firing { due, lane },
            };
            News { task: id, revision, now }
        });
        Ok((news.collect(), last))
    }
}
