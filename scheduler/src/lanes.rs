//! Which lane a task goes by: one per sip-edge, in the order of `--sip-edge`, and one for what is
//! published.

use std::sync::Arc;
use wheel::{Effect, Lane};

/// The lane of what is published.
pub(crate) const PUBLISH: Lane = Lane(0);

/// Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Lanes {
    /// The edges' names; the lane of the first is the one after [`PUBLISH`].
    edges: Arc<[String]>,
}

impl Lanes {
    /// Lanes to edges of these names, at least one; the first is for tasks that name none, or one
    /// that is not known.
    pub(crate) fn new(edges: impl IntoIterator<Item = String>) -> Self {
        let edges: Arc<[String]> = edges.into_iter().collect();
        assert!(!edges.is_empty(), "no --sip-edge");
        Self { edges }
    }

    /// How many lanes there are; their numbers are below this.
    pub(crate) fn count(&self) -> u16 {
        1 + u16::try_from(self.edges.len()).expect("not above args::EDGES_MAX")
    }

    /// The lane of a task with this effect and this name of an edge (empty: any).
    pub(crate) fn of(&self, effect: &Effect, edge: &str) -> Lane {
        match effect {
            Effect::Publish { .. } => PUBLISH,
            _ => self.of_edge(edge),
        }
    }

    /// The lane to the edge of this name, or else to the first.
    pub(crate) fn of_edge(&self, edge: &str) -> Lane {
        let at = self.edges.iter().position(|name| name == edge).unwrap_or(0);
        Lane(PUBLISH.0 + 1 + at as u16)
    }

    /// The place in `--sip-edge`, from 0, of the edge that the lane leads to; none for [`PUBLISH`].
    pub(crate) fn edge(lane: Lane) -> Option<usize> {
        lane.0.checked_sub(PUBLISH.0 + 1).map(usize::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_names_no_known_edge_goes_to_the_first_and_messages_to_none() {
        let lanes = Lanes::new(["".to_owned(), "b".to_owned()]);
        assert_eq!(["", "a", "b"].map(|edge| lanes.of_edge(edge).0), [1, 1, 2]);
        let message = Effect::Publish { subject: "s".to_owned(), payload: Vec::new() };
        assert_eq!(lanes.of(&message, "b"), PUBLISH);
        assert_eq!(lanes.count(), 3);
        assert_eq!([0, 1, 2].map(|lane| Lanes::edge(Lane(lane))), [None, Some(0), Some(1)]);
    }
}
