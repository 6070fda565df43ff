//! The changes that this process has just committed, for who tells the world of them: to read them back
//! from the database costs more than to make them.
//!
//! There is room for so many; what is committed while it is full is read from the database, as is what
//! others have committed. Nothing here can be wrong: a change that is committed stays as it is.
//!
//! Who tells of changes costs the machine more than who makes them, so it also hears here when many are
//! being made.

use crate::commits::size;
use crate::store::{Changed, Held, LogRow};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use wheel::SHARDS;

/// Changes that wait here at a time: far more than are made until the next look. While more are made than
/// can be told, what is beyond is read from the database: its memory, once used, is not all given back.
const CHANGES_MAX: usize = 8_192;
/// What their long words may take, in bytes.
const BYTES_MAX: usize = 32 << 20;

/// Changes of a shard that have their room for good.
const CAPACITY_KEPT: usize = 64;

/// So many changes per second are many, counted for so long.
const MANY_PER_S: f64 = 5_000.0;
const COUNTED_FOR: Duration = Duration::from_millis(250);

/// Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Recent(Arc<Mutex<Waiting>>);

#[derive(Default)]
struct Waiting {
    shards: [Shard; SHARDS as usize],
    count: usize,
    bytes: usize,
    /// Changes that were made since then.
    made: Option<(Instant, i64)>,
    /// Until then many are taken to be made.
    many_until: Option<Instant>,
}

#[derive(Default)]
struct Shard {
    /// Where the log ends, as its holder here has written it.
    end: Option<(Held, i64)>,
    /// By sequence number; between two, some may be missing.
    changes: VecDeque<Changed>,
}

impl Recent {
    /// For how many changes there is room.
    pub(crate) fn room(&self) -> usize {
        CHANGES_MAX - self.waiting().count
    }

    /// These rows were committed; `changed` are some of what is in them, in order.
    pub(crate) fn committed(&self, rows: &[LogRow], changed: Vec<Changed>) {
        let mut waiting = self.waiting();
        waiting
            .count_made(Instant::now(), rows.iter().map(|row| row.seq - row.first_seq + 1).sum());
        for row in rows {
            let held = Held { shard: row.shard, fence: row.fence };
            waiting.shards[usize::from(row.shard)].end = Some((held, row.seq));
        }
        for change in changed {
            let bytes = size(&change.task);
            if waiting.count < CHANGES_MAX && waiting.bytes + bytes <= BYTES_MAX {
                waiting.count += 1;
                waiting.bytes += bytes;
                waiting.shards[usize::from(change.shard)].changes.push_back(change);
            }
        }
    }

    /// The last change of the shard that was made here under this token; `None`: not one.
    pub(crate) fn end(&self, held: Held) -> Option<i64> {
        let end = self.waiting().shards[usize::from(held.shard)].end;
        end.filter(|(of, _)| *of == held).map(|(_, seq)| seq)
    }

    /// Whether so many changes are being made that who makes them should go first.
    pub(crate) fn are_many(&self) -> bool {
        self.waiting().many_until.is_some_and(|until| Instant::now() < until)
    }

    /// Takes out the changes of the shard after the one with this number: those that follow it without
    /// a gap, at most so many. What is older is forgotten.
    pub(crate) fn take(&self, shard: u8, after_seq: i64, most: usize) -> Vec<Changed> {
        let mut waiting = self.waiting();
        let mut taken = Vec::new();
        while let Some(next) = waiting.shards[usize::from(shard)].changes.front() {
            let wanted = after_seq + 1 + taken.len() as i64;
            if next.seq > wanted || taken.len() == most {
                break;
            }
            let is_wanted = next.seq == wanted;
            taken.extend(waiting.pop(shard).filter(|_| is_wanted));
        }
        taken
    }

    /// Forgets what is in shards that are not held any more.
    pub(crate) fn retain(&self, held: &[Held]) {
        let mut waiting = self.waiting();
        for shard in 0..SHARDS {
            let is_held = held.iter().any(|it| it.shard == shard);
            while !is_held && waiting.pop(shard).is_some() {}
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn count_made(&mut self, now: Instant, changes: i64) {
        let (since, made) = self.made.get_or_insert((now, 0));
        *made += changes;
        let counted_for = now.saturating_duration_since(*since);
        if counted_for >= COUNTED_FOR {
            let per_s = *made as f64 / counted_for.as_secs_f64();
            self.many_until = (per_s >= MANY_PER_S).then(|| now + 2 * COUNTED_FOR);
            self.made = None;
        }
    }

    fn pop(&mut self, shard: u8) -> Option<Changed> {
        let changes = &mut self.shards[usize::from(shard)].changes;
        let change = changes.pop_front()?;
        if changes.is_empty() && changes.capacity() > CAPACITY_KEPT {
            *changes = VecDeque::new(); // The room of many is not needed every day.
        }
        self.count -= 1;
        self.bytes -= size(&change.task);
        Some(change)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commits::tests::sample;
    use crate::store::{LogWriter, Task};
    use std::ops::RangeInclusive;
    use wheel::Effect;

    const HELD: Held = Held { shard: 3, fence: 7 };

    fn changes(seqs: RangeInclusive<i64>) -> Vec<Changed> {
        let change = |seq| Changed { shard: 3, seq, at_unix_ms: 1, task: sample(seq as u128, "c") };
        seqs.map(change).collect()
    }

    fn row(last_seq: i64) -> LogRow {
        let mut log = LogWriter::new(HELD, last_seq - 1);
        log.push(&sample(1, "c"));
        log.finish(1)
    }

    fn seqs(changes: &[Changed]) -> Vec<i64> {
        changes.iter().map(|it| it.seq).collect()
    }

    #[test]
    fn what_follows_without_a_gap_is_taken_once() {
        let recent = Recent::default();
        recent.committed(&[row(4)], changes(1..=4));
        recent.committed(&[row(9)], changes(8..=9));
        assert_eq!(recent.end(HELD), Some(9));
        assert_eq!(recent.end(Held { fence: 8, ..HELD }), None, "another one has written since");
        assert_eq!(seqs(&recent.take(3, 0, 2)), [1, 2]);
        assert_eq!(seqs(&recent.take(3, 3, 9)), [4], "the third was told otherwise");
        assert_eq!(seqs(&recent.take(3, 4, 9)), [] as [i64; 0], "5 to 7 are in the database alone");
        assert_eq!(seqs(&recent.take(3, 7, 9)), [8, 9]);
        assert_eq!(recent.room(), CHANGES_MAX);
    }

    #[test]
    fn many_are_made_while_a_quarter_of_a_second_has_so_many() {
        let mut waiting = Waiting::default();
        let start = Instant::now();
        for (at_ms, changes, many) in [
            (0, 1_000, false),
            (100, 1_000, false),
            (250, 1, true),
            (300, 1_248, true),
            (550, 1, false),
            (600, 9_000, false),
            (850, 0, true),
            (60_000, 9_000, true),
            (120_000, 0, false),
        ] {
            waiting.count_made(start + Duration::from_millis(at_ms), changes);
            assert_eq!(waiting.many_until.is_some(), many, "at {at_ms} ms");
        }
    }

    #[test]
    fn there_is_room_for_so_many_and_for_what_is_lost_no_longer() {
        let recent = Recent::default();
        recent.committed(&[row(40_000)], changes(1..=40_000));
        assert_eq!(recent.room(), 0);
        recent.retain(&[HELD]);
        assert_eq!(recent.room(), 0);
        recent.retain(&[Held { shard: 4, fence: 1 }]);
        assert_eq!(recent.room(), CHANGES_MAX);
        let long = Effect::Publish { subject: String::new(), payload: vec![0; 20 << 20] };
        let task = Task { effect: long.into(), ..sample(1, "c") };
        let long = |seq| Changed { shard: 3, seq, at_unix_ms: 1, task: task.clone() };
        recent.committed(&[], vec![long(1), long(2)]);
        assert_eq!(seqs(&recent.take(3, 0, 9)), [1]);
        assert_eq!(recent.waiting().bytes, 0);
    }
}
