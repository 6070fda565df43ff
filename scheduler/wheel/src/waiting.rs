//! The tasks that wait for their time: a wheel per lane, and where in them a task is.
//!
//! This is what a million tasks cost, so it holds nothing but what decides: id, time, revision.

use crate::id_hasher::{halves, hash, whole};
use crate::step::Lane;
use crate::task::TaskId;
use crate::{Tick, Wheel};
use hashbrown::HashTable;
use std::num::NonZeroU64;

pub(crate) struct Waiting {
    /// By lane.
    wheels: Vec<Wheel<Entry>>,
    /// Every entry of every wheel, by the hash of its id.
    places: HashTable<Place>,
}

struct Entry {
    /// An `u128` would be aligned to 16 bytes.
    id: [u64; 2],
    known: Known,
}

/// A revision, 0 or more, and whether it is claimed again; in 8 bytes, of which the wheel uses 0.
#[derive(Clone, Copy)]
struct Known(NonZeroU64);

impl Known {
    fn new(revision: i64, again: bool) -> Self {
        let revision = revision.max(0) as u64 + 1;
        Self(NonZeroU64::new(revision << 1 | u64::from(again)).expect("1 is added"))
    }

    fn revision(self) -> i64 {
        (self.0.get() >> 1) as i64 - 1
    }

    fn again(self) -> bool {
        self.0.get() & 1 == 1
    }
}

/// Where in its lane's wheel a task is. It is gone from here before the task is gone from there, so the
/// wheel's handle, which would cost half as much again, is not needed.
#[derive(Clone, Copy)]
struct Place {
    index: u32,
    lane: Lane,
}

/// A task that has been taken out because its time has come.
pub(crate) struct Due {
    pub(crate) id: TaskId,
    pub(crate) due: Tick,
    pub(crate) revision: i64,
    /// As in [`crate::Claim`].
    pub(crate) again: bool,
}

impl Waiting {
    pub(crate) fn new(lanes: usize) -> Self {
        // Time begins at 0, so that what is overdue comes out in the order of its deadlines.
        let wheel = || Wheel::new(0, u32::MAX - 1);
        let wheels = std::iter::repeat_with(wheel).take(lanes).collect();
        Self { wheels, places: HashTable::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    /// The revision in which a task waits; `None` if it does not.
    pub(crate) fn revision(&self, id: TaskId) -> Option<i64> {
        let place = self.places.find(hash(id), |place| self.is_at(id, place))?;
        Some(self.entry(place).known.revision())
    }

    /// # Panics
    /// If the task waits already, or there is no such lane.
    pub(crate) fn insert(&mut self, lane: Lane, task: Due) {
        let Due { id, due, revision, again } = task;
        assert!(self.revision(id).is_none(), "{id} waits already");
        let entry = Entry { id: halves(id), known: Known::new(revision, again) };
        let handle = self.wheels[usize::from(lane.0)].insert(due, entry);
        let handle = handle.expect("the store admits no more than the wheel can count");
        let wheels = &self.wheels;
        let rehash = |place: &Place| hash(whole(entry_of(wheels, place).id));
        self.places.insert_unique(hash(id), Place { index: handle.index(), lane }, rehash);
    }

    /// Whether it waited.
    pub(crate) fn remove(&mut self, id: TaskId) -> bool {
        let Some(Place { index, lane }) = self.unplace(id) else { return false };
        self.wheels[usize::from(lane.0)].cancel_at(index);
        true
    }

    /// The next task of a lane that is due at `now`, in the order of deadlines.
    pub(crate) fn pop(&mut self, lane: Lane, now: Tick) -> Option<Due> {
        let wheel = &mut self.wheels[usize::from(lane.0)];
        let Entry { id, .. } = *wheel.peek(now)?;
        self.unplace(whole(id));
        let (due, Entry { known, .. }) = self.wheels[usize::from(lane.0)].pop(now)?;
        Some(Due { id: whole(id), due, revision: known.revision(), again: known.again() })
    }

    /// As [`Wheel::poll_timeout`].
    pub(crate) fn poll_timeout(&self, lane: Lane) -> Option<Tick> {
        self.wheels[usize::from(lane.0)].poll_timeout()
    }

    /// Forgets all of a shard; looks at every task.
    pub(crate) fn drop_shard(&mut self, shard: u8) {
        let wheels = &mut self.wheels;
        self.places.retain(|place| {
            let keep = whole(entry_of(wheels, place).id).shard() != shard;
            if !keep {
                wheels[usize::from(place.lane.0)].cancel_at(place.index);
            }
            keep
        });
    }

    fn unplace(&mut self, id: TaskId) -> Option<Place> {
        let wheels = &self.wheels;
        let found =
            self.places.find_entry(hash(id), |place| entry_of(wheels, place).id == halves(id));
        Some(found.ok()?.remove().0)
    }

    fn is_at(&self, id: TaskId, place: &Place) -> bool {
        self.entry(place).id == halves(id)
    }

    fn entry(&self, place: &Place) -> &Entry {
        entry_of(&self.wheels, place)
    }
}

fn entry_of<'a>(wheels: &'a [Wheel<Entry>], place: &Place) -> &'a Entry {
    wheels[usize::from(place.lane.0)].at(place.index).expect("what has a place is in its wheel")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_of_a_task_comes_out_as_it_went_in_and_costs_8_bytes() {
        for revision in [0, 1, 2, i64::MAX >> 1] {
            for again in [false, true] {
                let known = Known::new(revision, again);
                assert_eq!((known.revision(), known.again()), (revision, again));
            }
        }
        assert_eq!(size_of::<Option<Entry>>(), 24);
        assert_eq!(size_of::<Place>(), 8);
    }
}
