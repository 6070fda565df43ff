//! Strategies: which of a queue's free agents are rung for the next caller.
//!
//! A strategy is one function from those who are free, and who was rung last, to those who are rung
//! now. To add one: write the function, name it in [`Strategy`] and in `choose`.

use crate::{AgentName, UnixMs};

/// How many agents are rung for one caller at the most.
pub const RING_ALL_MAX: usize = 16;

/// How a queue chooses among its free agents. All look at the lowest level at which somebody is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// Whoever has had nothing to do for the longest time.
    #[default]
    LongestIdle,
    /// The next one in order after whoever was rung last.
    RoundRobin,
    /// The first one in order.
    Linear,
    /// Everybody; who answers first has the caller.
    RingAll,
}

impl Strategy {
    pub const ALL: [Self; 4] = [Self::LongestIdle, Self::RoundRobin, Self::Linear, Self::RingAll];

    /// For reasons, and on disk.
    pub fn words(self) -> &'static str {
        match self {
            Self::LongestIdle => "longest idle",
            Self::RoundRobin => "round robin",
            Self::Linear => "linear",
            Self::RingAll => "ring all",
        }
    }
}

/// A free agent as a strategy sees one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seat {
    pub(crate) agent: AgentName,
    pub(crate) level: u32,
    pub(crate) order: u32,
    pub(crate) idle_since: UnixMs,
}

/// Where an agent stands among those of a level.
pub(crate) type Rank = (u32, AgentName);

/// Whom to ring, at most [`RING_ALL_MAX`]; nobody only if nobody is free. `last` was rung last.
pub(crate) fn choose(strategy: Strategy, free: &[Seat], last: Option<&Rank>) -> Vec<AgentName> {
    let Some(level) = free.iter().map(|it| it.level).min() else { return Vec::new() };
    let level: Vec<&Seat> = free.iter().filter(|it| it.level == level).collect();
    match strategy {
        Strategy::LongestIdle => longest_idle(&level),
        Strategy::RoundRobin => round_robin(&level, last),
        Strategy::Linear => linear(&level),
        Strategy::RingAll => ring_all(level),
    }
}

fn longest_idle(level: &[&Seat]) -> Vec<AgentName> {
    first(level.iter().min_by_key(|it| (it.idle_since, rank(it))))
}

fn round_robin(level: &[&Seat], last: Option<&Rank>) -> Vec<AgentName> {
    let after = level.iter().filter(|it| last.is_none_or(|last| rank(it) > *last));
    let next = after.min_by_key(|it| rank(it));
    first(next.or_else(|| level.iter().min_by_key(|it| rank(it))))
}

fn linear(level: &[&Seat]) -> Vec<AgentName> {
    first(level.iter().min_by_key(|it| rank(it)))
}

/// If they are too many, those who have been idle for the longest time.
fn ring_all(mut level: Vec<&Seat>) -> Vec<AgentName> {
    level.sort_by_key(|it| (it.idle_since, rank(it)));
    level.into_iter().take(RING_ALL_MAX).map(|it| it.agent.clone()).collect()
}

fn first(seat: Option<&&Seat>) -> Vec<AgentName> {
    seat.map(|it| it.agent.clone()).into_iter().collect()
}

fn rank(seat: &Seat) -> Rank {
    (seat.order, seat.agent.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `name level order idle_since`, and who is chosen.
    fn chosen(strategy: Strategy, free: &str, last: Option<(u32, &str)>) -> String {
        let seat = |text: &str| {
            let words: Vec<&str> = text.split(' ').collect();
            Seat {
                agent: AgentName::parse(words[0]).unwrap(),
                level: words[1].parse().unwrap(),
                order: words[2].parse().unwrap(),
                idle_since: words[3].parse().unwrap(),
            }
        };
        let free: Vec<Seat> = free.split(", ").filter(|it| !it.is_empty()).map(seat).collect();
        let last = last.map(|(order, name)| (order, AgentName::parse(name).unwrap()));
        let chosen = choose(strategy, &free, last.as_ref());
        chosen.iter().map(AgentName::as_str).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn each_strategy_chooses_at_the_lowest_level_that_has_somebody() {
        let free = "a 1 0 5, b 1 1 3, c 1 2 4, d 2 0 1";
        assert_eq!(chosen(Strategy::LongestIdle, free, None), "b");
        assert_eq!(chosen(Strategy::Linear, free, Some((0, "a"))), "a");
        assert_eq!(chosen(Strategy::RingAll, free, None), "b c a");
        for strategy in Strategy::ALL {
            assert_eq!(chosen(strategy, "d 2 0 1", None), "d");
            assert_eq!(chosen(strategy, "", None), "");
        }
    }

    #[test]
    fn round_robin_goes_on_after_whoever_was_rung_last_also_if_gone_or_busy() {
        let free = "a 0 0 5, b 0 1 3, c 0 2 4";
        for (last, next) in [
            (None, "a"),
            (Some((0, "a")), "b"),
            (Some((1, "b")), "c"),
            (Some((2, "c")), "a"),
            (Some((1, "x")), "c"),
            (Some((9, "z")), "a"),
        ] {
            assert_eq!(chosen(Strategy::RoundRobin, free, last), next, "{last:?}");
        }
    }

    #[test]
    fn equals_are_told_apart_by_order_and_name() {
        assert_eq!(chosen(Strategy::LongestIdle, "b 0 1 7, c 0 0 7, a 0 1 7", None), "c");
        assert_eq!(chosen(Strategy::Linear, "b 0 1 7, a 0 1 9", None), "a");
    }

    #[test]
    fn ring_all_rings_no_more_than_its_limit() {
        let free: Vec<String> = (0..40).map(|nth| format!("a{nth} 0 0 {}", 40 - nth)).collect();
        let rung = chosen(Strategy::RingAll, &free.join(", "), None);
        assert_eq!(rung.split(' ').count(), RING_ALL_MAX);
        assert!(rung.starts_with("a39 a38 "), "{rung}");
    }
}
