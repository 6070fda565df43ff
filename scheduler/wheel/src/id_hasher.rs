//! Hashing of task ids, which a million tasks are looked up by.

use crate::task::TaskId;
use std::hash::Hasher;

/// Hashes a [`TaskId`], and nothing else. Ids are random already: it only spreads what is not. They
/// are ours, so nobody can choose them to collide.
#[derive(Default)]
pub struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u128(&mut self, id: u128) {
        self.0 = hash(TaskId(id));
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("a task's id is one u128")
    }
}

/// Ids are ours and random in most of their bits; a multiplication spreads what is not.
pub(crate) fn hash(id: TaskId) -> u64 {
    let [high, low] = halves(id);
    let product =
        u128::from(high ^ 0x9e37_79b9_7f4a_7c15) * u128::from(low ^ 0xd1b5_4a32_d192_ed03);
    (product >> 64) as u64 ^ product as u64
}

pub(crate) fn halves(TaskId(id): TaskId) -> [u64; 2] {
    [(id >> 64) as u64, id as u64]
}

pub(crate) fn whole([high, low]: [u64; 2]) -> TaskId {
    TaskId(u128::from(high) << 64 | u128::from(low))
}
