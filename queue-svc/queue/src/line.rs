//! The order of one queue: who is next, and at which position somebody is.

use crate::Place;
use std::collections::{BTreeSet, VecDeque};

/// How many are in a queue, by mohqueue's `call_status`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    pub entering: u32,
    pub in_queue: u32,
    pub leaving: u32,
}

impl Count {
    pub fn total(self) -> u32 {
        self.entering + self.in_queue + self.leaving
    }
}

/// Positions by binary search; who leaves moves at most half of the line, 8 bytes each.
#[derive(Debug, Default)]
pub(crate) struct Line {
    entering: BTreeSet<Place>,
    /// Answered callers in order: in queue or leaving.
    answered: VecDeque<Place>,
    /// Those of `answered` for whom nobody is rung.
    in_queue: BTreeSet<Place>,
}

impl Line {
    pub(crate) fn enter(&mut self, place: Place) {
        self.entering.insert(place);
    }

    /// An answered caller takes the place, which may be before others who were answered sooner.
    pub(crate) fn join(&mut self, place: Place) {
        self.entering.remove(&place);
        if let Err(at) = self.answered.binary_search(&place) {
            self.answered.insert(at, place);
        }
        self.in_queue.insert(place);
    }

    /// Who is next.
    pub(crate) fn first(&self) -> Option<Place> {
        self.in_queue.first().copied()
    }

    pub(crate) fn reserve(&mut self, place: Place) {
        self.in_queue.remove(&place);
    }

    pub(crate) fn remove(&mut self, place: Place) {
        self.entering.remove(&place);
        self.in_queue.remove(&place);
        if let Ok(at) = self.answered.binary_search(&place) {
            self.answered.remove(at);
        }
    }

    /// From 1; 0 while entering.
    pub(crate) fn position(&self, place: Place) -> u32 {
        self.answered.binary_search(&place).map_or(0, |at| u32_of(at + 1))
    }

    /// Answered callers, first in line first, then those who enter.
    pub(crate) fn places(&self) -> impl Iterator<Item = Place> {
        self.answered.iter().chain(&self.entering).copied()
    }

    /// Answered callers, first in line first.
    pub(crate) fn answered(&self) -> impl Iterator<Item = Place> {
        self.answered.iter().copied()
    }

    pub(crate) fn count(&self) -> Count {
        let in_queue = u32_of(self.in_queue.len());
        Count {
            entering: u32_of(self.entering.len()),
            in_queue,
            leaving: u32_of(self.answered.len()) - in_queue,
        }
    }

    /// Whether an answered caller is in line.
    pub(crate) fn has_answered(&self) -> bool {
        !self.answered.is_empty()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entering.is_empty() && self.answered.is_empty()
    }
}

fn u32_of(len: usize) -> u32 {
    u32::try_from(len).expect("a queue is limited to far less than 2³² callers")
}
