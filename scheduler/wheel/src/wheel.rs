//! Hierarchical timing wheel (Varghese & Lauck, SOSP 1987), in ticks of 1 ms.
//!
//! Eleven levels of 64 slots cover all of `u64`, so no deadline is too far. A bitmap per level says
//! which slots hold anything: time is never walked through, it jumps. Insert and cancel are O(1);
//! an entry moves down at most once per level. Time moves only as far as entries are taken out, so
//! they come out in the order of their deadlines however late [`Wheel::pop`] is called.

use crate::Tick;

const LEVELS: usize = 11;
const SLOTS: usize = 64;
/// Bits of a tick that choose the slot within a level.
const SLOT_BITS: u32 = 6;
/// No entry: the end of a list.
const NIL: u32 = u32::MAX;

/// Names one insertion: a handle of an entry that is gone cancels nothing, also when its place is
/// in use again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handle {
    index: u32,
    generation: u32,
}

/// The wheel holds as many entries as it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the wheel holds {max} entries, its limit")]
pub struct Full {
    pub max: u32,
}

pub struct Wheel<T> {
    /// No entry is due before this tick.
    elapsed: Tick,
    /// Bit `s` of `occupied[l]` is set if slot `s` of level `l` holds an entry.
    occupied: [u64; LEVELS],
    slots: Box<[[List; SLOTS]; LEVELS]>,
    entries: Vec<Entry<T>>,
    /// First of the free entries, which are linked by `next`.
    free: u32,
    len: u32,
    max: u32,
}

#[derive(Clone, Copy)]
struct List {
    first: u32,
    last: u32,
}

struct Entry<T> {
    at: Tick,
    item: Option<T>,
    previous: u32,
    next: u32,
    generation: u32,
    level: u8,
    slot: u8,
}

impl Handle {
    /// Where the entry is, for as long as it is there.
    pub(crate) fn index(self) -> u32 {
        self.index
    }
}

impl<T> Wheel<T> {
    /// An empty wheel for at most `max` entries, whose time begins at `start`.
    pub fn new(start: Tick, max: u32) -> Self {
        let empty = List { first: NIL, last: NIL };
        Self {
            elapsed: start,
            occupied: [0; LEVELS],
            slots: Box::new([[empty; SLOTS]; LEVELS]),
            entries: Vec::new(),
            free: NIL,
            len: 0,
            max,
        }
    }

    pub fn len(&self) -> usize {
        self.len as usize
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Files `item` to come out at `at`. A deadline before the tick that [`Wheel::pop`] has reached
    /// is due at once, after those of that tick.
    ///
    /// # Errors
    /// [`Full`] if the limit given to [`Wheel::new`] is reached.
    pub fn insert(&mut self, at: Tick, item: T) -> Result<Handle, Full> {
        if self.len == self.max {
            return Err(Full { max: self.max });
        }
        let index = self.allocate(at, item);
        self.len += 1;
        self.link(index);
        Ok(Handle { index, generation: self.entries[index as usize].generation })
    }

    /// An entry that has not been taken out.
    pub fn get(&self, handle: Handle) -> Option<&T> {
        let entry = self.entries.get(handle.index as usize)?;
        entry.item.as_ref().filter(|_| entry.generation == handle.generation)
    }

    /// Takes an entry out before it is due; `None` if it is out already.
    pub fn cancel(&mut self, handle: Handle) -> Option<T> {
        self.get(handle)?;
        self.cancel_at(handle.index)
    }

    /// The entry in this place, for who knows without a handle whose it is; `None` if it is free.
    pub(crate) fn at(&self, index: u32) -> Option<&T> {
        self.entries.get(index as usize)?.item.as_ref()
    }

    /// As [`Wheel::cancel`], as [`Wheel::at`].
    pub(crate) fn cancel_at(&mut self, index: u32) -> Option<T> {
        self.at(index)?;
        self.unlink(index);
        Some(self.release(index).1)
    }

    /// The next entry whose deadline is not after `now`, earliest first; among equal deadlines, the
    /// one inserted first.
    pub fn pop(&mut self, now: Tick) -> Option<(Tick, T)> {
        let index = self.earliest(now)?;
        self.unlink(index);
        Some(self.release(index))
    }

    /// What [`Wheel::pop`] would take out.
    pub fn peek(&mut self, now: Tick) -> Option<&T> {
        let index = self.earliest(now)?;
        self.entries[index as usize].item.as_ref()
    }

    /// Moves time to the next deadline that is not after `now`; the first entry there.
    fn earliest(&mut self, now: Tick) -> Option<u32> {
        loop {
            let (level, slot, begins) = self.earliest_slot()?;
            if begins > now {
                return None;
            }
            self.elapsed = begins;
            if level == 0 {
                return Some(self.slots[0][slot].first);
            }
            self.move_down(level, slot);
        }
    }

    /// The tick at which [`Wheel::pop`] has something to do: the earliest deadline, or a tick before
    /// it at which entries move to a finer level. `None` if the wheel is empty.
    pub fn poll_timeout(&self) -> Option<Tick> {
        self.earliest_slot().map(|(.., begins)| begins)
    }

    /// Level, slot and first tick of the earliest slot that is not empty. All of a level is earlier
    /// than all of the next: their entries differ from `elapsed` in a higher digit.
    fn earliest_slot(&self) -> Option<(usize, usize, Tick)> {
        let level = self.occupied.iter().position(|occupied| *occupied != 0)?;
        let slot = self.occupied[level].trailing_zeros();
        let shift = SLOT_BITS * level as u32;
        // Ticks above this slot's digit are those of `elapsed`, below it 0.
        let above = self.elapsed.checked_shr(shift + SLOT_BITS).unwrap_or(0);
        let above = above.checked_shl(shift + SLOT_BITS).unwrap_or(0);
        Some((level, slot as usize, above | (Tick::from(slot) << shift)))
    }

    /// Files every entry of a slot again, now that time has reached the slot; order is kept.
    fn move_down(&mut self, level: usize, slot: usize) {
        let mut index = self.slots[level][slot].first;
        self.slots[level][slot] = List { first: NIL, last: NIL };
        self.occupied[level] &= !(1 << slot);
        while index != NIL {
            let next = self.entries[index as usize].next;
            self.link(index);
            index = next;
        }
    }

    /// Appends an entry to its slot. The level is the highest base-64 digit in which the deadline
    /// differs from `elapsed`.
    fn link(&mut self, index: u32) {
        let at = self.entries[index as usize].at.max(self.elapsed);
        let level = (((self.elapsed ^ at) | 63).ilog2() / SLOT_BITS) as usize;
        let slot = (at >> (SLOT_BITS * level as u32)) as usize % SLOTS;
        let list = &mut self.slots[level][slot];
        let previous = std::mem::replace(&mut list.last, index);
        match previous {
            NIL => list.first = index,
            previous => self.entries[previous as usize].next = index,
        }
        self.occupied[level] |= 1 << slot;
        let entry = &mut self.entries[index as usize];
        (entry.previous, entry.next) = (previous, NIL);
        (entry.level, entry.slot) = (level as u8, slot as u8);
    }

    fn unlink(&mut self, index: u32) {
        let Entry { previous, next, level, slot, .. } = self.entries[index as usize];
        let (level, slot) = (usize::from(level), usize::from(slot));
        match previous {
            NIL => self.slots[level][slot].first = next,
            previous => self.entries[previous as usize].next = next,
        }
        match next {
            NIL => self.slots[level][slot].last = previous,
            next => self.entries[next as usize].previous = previous,
        }
        if self.slots[level][slot].first == NIL {
            self.occupied[level] &= !(1 << slot);
        }
    }

    fn allocate(&mut self, at: Tick, item: T) -> u32 {
        if self.free == NIL {
            let (previous, next) = (NIL, NIL);
            let item = Some(item);
            let new = Entry { at, item, previous, next, generation: 0, level: 0, slot: 0 };
            self.entries.push(new);
            return (self.entries.len() - 1) as u32; // `max` is not above u32::MAX.
        }
        let index = self.free;
        let entry = &mut self.entries[index as usize];
        self.free = entry.next;
        (entry.at, entry.item) = (at, Some(item));
        index
    }

    /// Frees an unlinked entry.
    fn release(&mut self, index: u32) -> (Tick, T) {
        let entry = &mut self.entries[index as usize];
        entry.generation = entry.generation.wrapping_add(1);
        entry.next = std::mem::replace(&mut self.free, index);
        self.len -= 1;
        (entry.at, entry.item.take().expect("a linked entry holds an item"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[derive(Clone, Debug)]
    enum Op {
        /// Insert at now + the first − the second.
        Insert(u64, u64),
        /// Insert at this very tick.
        InsertAt(u64),
        /// Cancel the n-th insertion, whatever has become of it.
        Cancel(usize),
        /// Let time pass and take out at most so many.
        Pop(u64, usize),
    }

    proptest! {
        /// The wheel gives out exactly what a sorted map would, in its order, and never later than
        /// at the tick that it asks to be woken at.
        #[test]
        fn agrees_with_a_sorted_map(
            start in prop_oneof![Just(0), Just(63), ticks(), borders()],
            ops in prop::collection::vec(op(), 1..80),
        ) {
            let mut wheel = Wheel::new(start, 1_000);
            let mut model = BTreeMap::new(); // (effective deadline, id) → (deadline, handle)
            let mut handles = Vec::new();
            let mut now = start;
            for op in ops {
                match op {
                    Op::Insert(..) | Op::InsertAt(_) => {
                        let at = match op {
                            Op::Insert(ahead, behind) => {
                                now.saturating_add(ahead).saturating_sub(behind)
                            }
                            Op::InsertAt(at) => at,
                            _ => unreachable!(),
                        };
                        let id = handles.len();
                        let effective = at.max(wheel.elapsed);
                        handles.push((effective, wheel.insert(at, id).unwrap()));
                        model.insert((effective, id), at);
                    }
                    Op::Cancel(nth) if !handles.is_empty() => {
                        let id = nth % handles.len();
                        let (at, handle) = handles[id];
                        let expected = model.remove(&(at, id)).map(|_| id);
                        prop_assert_eq!(wheel.get(handle).copied(), expected);
                        prop_assert_eq!(wheel.cancel(handle), expected);
                    }
                    Op::Cancel(_) => (),
                    Op::Pop(step, most) => {
                        now = now.saturating_add(step);
                        for _ in 0..most {
                            let due = model.first_key_value().map(|(key, _)| *key);
                            let due = due.filter(|(at, _)| *at <= now);
                            let expected = due.map(|key| (model.remove(&key).unwrap(), key.1));
                            prop_assert_eq!(wheel.peek(now).copied(), expected.map(|it| it.1));
                            prop_assert_eq!(wheel.pop(now), expected);
                        }
                    }
                }
                let earliest = model.keys().next().map(|(at, _)| *at);
                prop_assert!(wheel.elapsed <= now);
                prop_assert_eq!(wheel.poll_timeout().is_some(), earliest.is_some());
                prop_assert!(wheel.poll_timeout() <= earliest);
                prop_assert_eq!(wheel.len(), model.len());
            }
        }
    }

    /// Half of the draws sit on a level's edge, where wheels break.
    fn ticks() -> impl Strategy<Value = u64> {
        let year = 31_536_000_000u64;
        prop_oneof![
            0..3u64,
            62..67u64,
            126..130u64,
            4_094..4_099u64,
            262_142..262_147u64,
            0..9_000u64,
            0..300_000u64,
            year - 1..=year,
        ]
    }

    /// The first and last ticks of the slots where a level begins, and of all time.
    fn borders() -> impl Strategy<Value = u64> {
        let border = (0..LEVELS as u32).prop_flat_map(|level| {
            let first = 1u64 << (SLOT_BITS * level);
            prop_oneof![Just(first - 1), Just(first), Just(first + 1)]
        });
        prop_oneof![border, Just(u64::MAX - 64), Just(u64::MAX - 1), Just(u64::MAX)]
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            1 => borders().prop_map(Op::InsertAt),
            3 => (ticks(), Just(0)).prop_map(|(ahead, behind)| Op::Insert(ahead, behind)),
            1 => (Just(0), ticks()).prop_map(|(ahead, behind)| Op::Insert(ahead, behind)),
            1 => any::<usize>().prop_map(Op::Cancel),
            2 => (prop_oneof![4 => ticks(), 1 => borders()], 0..5usize)
                .prop_map(|(step, most)| Op::Pop(step, most)),
        ]
    }

    #[test]
    fn waking_only_when_asked_takes_at_most_one_step_per_level() {
        let mut wheel = Wheel::new(1, 10);
        let at = 31_536_000_001;
        wheel.insert(at, ()).unwrap();
        let mut wakes = 0;
        while let Some(now) = wheel.poll_timeout() {
            wakes += 1;
            assert!(now <= at);
            if wheel.pop(now).is_some() {
                assert_eq!(now, at);
            }
        }
        assert!(wakes <= LEVELS, "woken {wakes} times for one deadline");
    }

    #[test]
    fn a_stale_handle_does_not_cancel_the_next_entry_in_its_place() {
        let mut wheel = Wheel::new(0, 1);
        let first = wheel.insert(5, 'a').unwrap();
        assert_eq!(wheel.cancel(first), Some('a'));
        let second = wheel.insert(5, 'b').unwrap();
        assert_eq!(wheel.cancel(first), None);
        assert_eq!(wheel.insert(6, 'c'), Err(Full { max: 1 }));
        assert_eq!(wheel.cancel(second), Some('b'));
        assert_eq!(wheel.poll_timeout(), None);
    }

    #[test]
    fn the_last_tick_of_all_is_a_deadline_like_any_other() {
        let mut wheel = Wheel::new(0, 2);
        wheel.insert(u64::MAX, ()).unwrap();
        assert_eq!(wheel.pop(u64::MAX - 1), None);
        assert_eq!(wheel.pop(u64::MAX), Some((u64::MAX, ())));
    }

    /// An entry is one slab place: the budget of a million tasks depends on it.
    #[test]
    fn an_entry_is_at_most_64_bytes() {
        assert!(size_of::<Entry<u128>>() <= 64);
    }
}
