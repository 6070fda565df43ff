//! The tasks that wait for their time: a wheel per lane, and where in them a task is.
//!
//! This is what a million tasks cost, so it holds nothing but what decides: id, time, revision.

use crate::step::Lane;
use crate::task::TaskId;
use crate::{Handle, Tick, Wheel};
use hashbrown::HashTable;

pub(crate) struct Waiting {
    /// By lane.
    wheels: Vec<Wheel<Entry>>,
    /// Every entry of every wheel, by the hash of its id.
    places: HashTable<Place>,
}

struct Entry {
    /// An `u128` would be aligned to 16 bytes.
    id: [u64; 2],
    revision: i64,
    again: bool,
}

#[derive(Clone, Copy)]
struct Place {
    handle: Handle,
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
        Some(self.entry(place).revision)
    }

    /// # Panics
    /// If the task waits already, or there is no such lane.
    pub(crate) fn insert(&mut self, lane: Lane, task: Due) {
        let Due { id, due, revision, again } = task;
        assert!(self.revision(id).is_none(), "{id} waits already");
        let entry = Entry { id: halves(id), revision, again };
        let handle = self.wheels[usize::from(lane.0)].insert(due, entry);
        let handle = handle.expect("the store admits no more than the wheel can count");
        let wheels = &self.wheels;
        let rehash = |place: &Place| hash(whole(entry_of(wheels, place).id));
        self.places.insert_unique(hash(id), Place { handle, lane }, rehash);
    }

    /// Whether it waited.
    pub(crate) fn remove(&mut self, id: TaskId) -> bool {
        let Some(Place { handle, lane }) = self.unplace(id) else { return false };
        self.wheels[usize::from(lane.0)].cancel(handle);
        true
    }

    /// The next task of a lane that is due at `now`, in the order of deadlines.
    pub(crate) fn pop(&mut self, lane: Lane, now: Tick) -> Option<Due> {
        let wheel = &mut self.wheels[usize::from(lane.0)];
        let Entry { id, .. } = *wheel.peek(now)?;
        self.unplace(whole(id));
        let (due, Entry { revision, again, .. }) = self.wheels[usize::from(lane.0)].pop(now)?;
        Some(Due { id: whole(id), due, revision, again })
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
                wheels[usize::from(place.lane.0)].cancel(place.handle);
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
    wheels[usize::from(place.lane.0)].get(place.handle).expect("what has a place is in its wheel")
}

fn halves(TaskId(id): TaskId) -> [u64; 2] {
    [(id >> 64) as u64, id as u64]
}

fn whole([high, low]: [u64; 2]) -> TaskId {
    TaskId(u128::from(high) << 64 | u128::from(low))
}

/// Ids are ours and random in most of their bits; a multiplication spreads what is not.
pub(crate) fn hash(id: TaskId) -> u64 {
    let [high, low] = halves(id);
    let product =
        u128::from(high ^ 0x9e37_79b9_7f4a_7c15) * u128::from(low ^ 0xd1b5_4a32_d192_ed03);
    (product >> 64) as u64 ^ product as u64
}
