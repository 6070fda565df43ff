//! Tests of the four machines as ladders: `seconds input | …` in, what they did and when out.

use super::Output;
use super::timers::Timing;
use expect_test::Expect;
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

pub(super) const TIMING: Timing = Timing {
    t1: Duration::from_millis(500),
    t2: Duration::from_secs(4),
    t4: Duration::from_secs(5),
};

pub(super) trait Machine {
    fn input(&mut self, now: Instant, word: &str);
    fn output(&mut self) -> Option<Output>;
    fn timeout(&self) -> Option<Instant>;
    fn fire(&mut self, now: Instant);
    fn over(&self) -> bool;
}

/// Runs one transaction in virtual time until nothing more can happen.
#[track_caller]
pub(super) fn run(mut tx: impl Machine, start: Instant, script: &str, expected: Expect) {
    let mut inputs: VecDeque<(Instant, &str)> = script
        .split('|')
        .filter_map(|step| step.trim().split_once(' '))
        .map(|(at, word)| (start + Duration::from_secs_f64(at.parse().unwrap()), word))
        .collect();
    let mut now = start;
    let mut log = String::new();
    loop {
        let elapsed = (now - start).as_secs_f64();
        while let Some(output) = tx.output() {
            writeln!(log, "{elapsed:06.3} {output:?}").unwrap();
        }
        if tx.over() {
            writeln!(log, "{elapsed:06.3} Terminated").unwrap();
            break;
        }
        match (inputs.front().copied(), tx.timeout()) {
            (Some((at, word)), due) if due.is_none_or(|due| at <= due) => {
                inputs.pop_front();
                now = at;
                tx.input(now, word);
            }
            (_, Some(due)) => {
                now = due;
                tx.fire(now);
            }
            (_, None) => break,
        }
    }
    expected.assert_eq(&log);
}
