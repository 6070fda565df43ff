//! Ladders of inputs and outputs, and a world in which anything may fail at any step.

use super::*;
use crate::State;
use expect_test::{Expect, expect};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fmt::Write as _;

fn hang_up(call: u128) -> Effect {
    let cause = "ALLOTTED_TIMEOUT".to_owned();
    Effect::HangUp { call_id: format!("call-{call}"), cause, legs: crate::Legs::Both }
}

fn armed(due: Tick) -> Input {
    Input::Armed { revision: 1, due }
}

fn said(what: &str) -> String {
    what.to_owned()
}

/// Feeds `(tick, task, input)` to an agenda, lets it time out whenever it asks to in between and
/// for a minute afterwards, and compares what it wants done.
#[track_caller]
fn check(inputs: Vec<(Tick, u128, Input)>, expected: Expect) {
    let mut agenda = Agenda::new(0, 100);
    let mut inputs = VecDeque::from(inputs);
    let mut log = String::new();
    let mut now = 0;
    loop {
        while let Some(output) = agenda.poll_output() {
            let line = match output {
                Output::Claim { task, revision, again } => {
                    format!(
                        "claim {} revision {revision}{}",
                        task.0,
                        ["", " again"][again as usize]
                    )
                }
                Output::Perform { task, effect: Effect::HangUp { call_id, cause, .. } } => {
                    format!("perform {}: hang up {call_id} {cause}", task.0)
                }
                Output::Perform { task, effect } => format!("perform {}: {effect:?}", task.0),
                Output::Settle { task, verdict, late_ms, result } => {
                    format!("settle {}: {verdict:?}, {late_ms} ms late, {result:?}", task.0)
                }
            };
            writeln!(log, "{now:5} {line}").unwrap();
        }
        let timeout = agenda.poll_timeout().filter(|at| *at < 60_000);
        match inputs.front() {
            Some((at, ..)) if timeout.is_none_or(|timeout| *at < timeout) => {
                let (at, task, input) = inputs.pop_front().unwrap();
                now = at;
                agenda.handle(now, TaskId(task), input);
            }
            _ => match timeout {
                Some(at) => {
                    now = at.max(now);
                    agenda.handle_timeout(now);
                }
                None => break,
            },
        }
    }
    writeln!(log, "{} left, {} in flight", agenda.len(), agenda.in_flight()).unwrap();
    expected.assert_eq(&log);
}

#[test]
fn a_due_task_is_claimed_then_performed_then_settled() {
    check(
        vec![
            (10, 1, armed(1_000)),
            (1_002, 1, Input::Claimed(hang_up(1))),
            (1_005, 1, Input::Answered(Answer::Done(said("ended")))),
            (1_007, 1, Input::Settled),
        ],
        expect![[r#"
             1000 claim 1 revision 1
             1002 perform 1: hang up call-1 ALLOTTED_TIMEOUT
             1005 settle 1: Done, 2 ms late, "ended"
            0 left, 0 in flight
        "#]],
    );
}

#[test]
fn a_cancelled_task_is_not_even_claimed() {
    check(
        vec![(10, 1, armed(1_000)), (999, 1, Input::Ended)],
        expect![[r#"
        0 left, 0 in flight
    "#]],
    );
}

#[test]
fn a_claim_that_the_store_does_not_grant_has_no_effect() {
    check(
        vec![(10, 1, armed(1_000)), (1_001, 1, Input::Ended), (1_002, 1, Input::NotClaimed)],
        expect![[r#"
             1000 claim 1 revision 1
            0 left, 0 in flight
        "#]],
    );
}

#[test]
fn a_task_moved_while_it_is_claimed_is_claimed_at_its_new_time() {
    check(
        vec![
            (10, 1, armed(1_000)),
            (1_001, 1, Input::Armed { revision: 2, due: 5_000 }),
            (1_002, 1, Input::NotClaimed),
        ],
        expect![[r#"
             1000 claim 1 revision 1
             5000 claim 1 revision 2
            1 left, 1 in flight
        "#]],
    );
}

#[test]
fn a_task_moved_earlier_is_due_earlier_and_only_once() {
    check(
        vec![(10, 1, armed(1_000)), (20, 1, Input::Armed { revision: 2, due: 500 })],
        expect![[r#"
              500 claim 1 revision 2
            1 left, 1 in flight
        "#]],
    );
}

#[test]
fn an_unanswered_effect_is_tried_again_with_growing_waits_and_delays_nobody() {
    let lost = || Input::Answered(Answer::Unanswered(said("no route")));
    check(
        vec![
            (0, 1, armed(1_000)),
            (0, 2, armed(1_100)),
            (1_000, 1, Input::Claimed(hang_up(1))),
            (1_000, 1, lost()),
            (1_050, 1, lost()),
            (1_100, 2, Input::Claimed(hang_up(2))),
            (1_100, 2, Input::Answered(Answer::NoSuchCall)),
            (1_100, 2, Input::Settled),
            (1_150, 1, lost()),
            (
                1_350,
                1,
                Input::Answered(Answer::AlreadyEnded { said: said("x"), by_this_task: true }),
            ),
            (1_350, 1, Input::Settled),
        ],
        expect![[r#"
             1000 claim 1 revision 1
             1000 perform 1: hang up call-1 ALLOTTED_TIMEOUT
             1050 perform 1: hang up call-1 ALLOTTED_TIMEOUT
             1100 claim 2 revision 1
             1100 perform 2: hang up call-2 ALLOTTED_TIMEOUT
             1100 settle 2: CallGone, 0 ms late, "no such call"
             1150 perform 1: hang up call-1 ALLOTTED_TIMEOUT
             1350 perform 1: hang up call-1 ALLOTTED_TIMEOUT
             1350 settle 1: Done, 0 ms late, "x"
            0 left, 0 in flight
        "#]],
    );
}

#[test]
fn a_call_that_another_task_ended_is_gone() {
    check(
        vec![
            (0, 1, armed(0)),
            (1, 1, Input::Claimed(hang_up(1))),
            (
                2,
                1,
                Input::Answered(Answer::AlreadyEnded { said: said("over"), by_this_task: false }),
            ),
            (3, 1, Input::Settled),
        ],
        expect![[r#"
                0 claim 1 revision 1
                1 perform 1: hang up call-1 ALLOTTED_TIMEOUT
                2 settle 1: CallGone, 1 ms late, "over"
            0 left, 0 in flight
        "#]],
    );
}

#[test]
fn a_task_found_firing_at_the_start_is_performed_again_and_knows_its_first_attempt() {
    check(
        vec![
            (9, 1, Input::Resumed { revision: 2, due: 5 }),
            (10, 1, Input::Claimed(hang_up(1))),
            (
                11,
                1,
                Input::Answered(Answer::AlreadyEnded { said: said("over"), by_this_task: true }),
            ),
            (12, 1, Input::Settled),
        ],
        expect![[r#"
                9 claim 1 revision 2 again
               10 perform 1: hang up call-1 ALLOTTED_TIMEOUT
               11 settle 1: Done, 5 ms late, "over"
            0 left, 0 in flight
        "#]],
    );
}

#[test]
fn a_store_that_fails_is_asked_again_for_claim_and_settlement() {
    check(
        vec![
            (0, 1, armed(1_000)),
            (1_010, 1, Input::StoreFailed),
            (1_260, 1, Input::Claimed(hang_up(1))),
            (1_261, 1, Input::Answered(Answer::Refused(said("no")))),
            (1_270, 1, Input::StoreFailed),
            (1_520, 1, Input::Settled),
        ],
        expect![[r#"
             1000 claim 1 revision 1
             1260 claim 1 revision 1
             1260 perform 1: hang up call-1 ALLOTTED_TIMEOUT
             1261 settle 1: Refused, 260 ms late, "no"
             1520 settle 1: Refused, 260 ms late, "no"
            0 left, 0 in flight
        "#]],
    );
}

#[test]
fn a_herd_is_begun_in_the_order_of_deadlines_and_within_the_limit() {
    let mut agenda = Agenda::new(0, 10_000);
    for task in 0..1_000u128 {
        let due = 5_000 - (task as Tick % 500);
        agenda.handle(0, TaskId(task), armed(due));
    }
    agenda.handle_timeout(5_000);
    let (mut begun, mut last) = (0, 0);
    while let Some(Output::Claim { task, .. }) = agenda.poll_output() {
        assert!(agenda.in_flight() <= IN_FLIGHT_MAX);
        let due = 5_000 - (task.0 as Tick % 500);
        assert!(last <= due, "due {due} after {last}");
        (begun, last) = (begun + 1, due);
        agenda.handle(5_000, task, Input::NotClaimed);
    }
    assert_eq!((begun, agenda.len()), (1_000, 0));
}

#[test]
fn a_herd_that_gets_no_answer_is_tried_again_at_a_bounded_rate() {
    const TASKS: u64 = 10_000;
    let mut agenda = Agenda::new(0, TASKS as u32);
    for task in 0..TASKS {
        agenda.handle(0, TaskId(task.into()), armed(0));
    }
    let (mut now, mut attempts) = (0, 0);
    while now < 60_000 {
        match agenda.poll_output() {
            Some(Output::Claim { task, .. }) => {
                agenda.handle(now, task, Input::Claimed(hang_up(task.0)));
            }
            Some(Output::Perform { task, .. }) => {
                attempts += 1;
                agenda.handle(now, task, Input::Answered(Answer::Unanswered(said("away"))));
            }
            Some(settle) => panic!("{settle:?}"),
            None => {
                now = agenda.poll_timeout().unwrap();
                agenda.handle_timeout(now);
            }
        }
    }
    let most = TASKS * 2 + RETRIES_PER_MS * 60_000; // The first ones know of few others.
    assert!((TASKS * 10..=most).contains(&attempts), "{attempts} attempts");
}

#[test]
fn draining_finishes_what_is_in_flight_and_begins_nothing() {
    let mut agenda = Agenda::new(0, 10);
    agenda.handle(0, TaskId(1), armed(1));
    agenda.handle(0, TaskId(2), armed(2));
    agenda.handle_timeout(1);
    agenda.drain();
    agenda.handle(2, TaskId(1), Input::Claimed(hang_up(1)));
    agenda.handle(3, TaskId(1), Input::Answered(Answer::NoSuchCall));
    agenda.handle(4, TaskId(1), Input::Settled);
    let outputs: Vec<_> = std::iter::from_fn(|| agenda.poll_output()).collect();
    assert!(matches!(
        outputs[..],
        [Output::Claim { .. }, Output::Perform { .. }, Output::Settle { .. }]
    ));
    assert_eq!((agenda.in_flight(), agenda.len(), agenda.poll_timeout()), (0, 1, None));
}

#[test]
fn after_a_day_without_an_answer_the_task_fails() {
    let mut agenda = Agenda::new(0, 10);
    agenda.handle(0, TaskId(1), armed(0));
    agenda.handle(0, TaskId(1), Input::Claimed(hang_up(1)));
    let mut now = 0;
    let mut attempts = 0;
    loop {
        match agenda.poll_output() {
            Some(Output::Claim { .. }) => (),
            Some(Output::Perform { task, .. }) => {
                attempts += 1;
                let answer = Answer::Unanswered(said("refused"));
                agenda.handle(now, task, Input::Answered(answer));
            }
            Some(Output::Settle { verdict, result, .. }) => {
                assert_eq!(verdict, Verdict::Refused);
                assert_eq!(result, format!("given up after {attempts} attempts in a day: refused"));
                assert!((GIVE_UP_MS..GIVE_UP_MS + RETRY_MAX_MS).contains(&now));
                return;
            }
            None => {
                now = agenda.poll_timeout().unwrap();
                agenda.handle_timeout(now);
            }
        }
    }
}

/// A step of the world around the agenda.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// A client adds a task, due so many ms from now.
    Add(u64),
    /// A client cancels the n-th task.
    Cancel(usize),
    /// A client moves the n-th task to so many ms from now.
    Move(usize, u64),
    /// The oldest news of a commit reaches the agenda.
    News,
    /// The n-th outstanding output is carried out, and answered this way.
    Perform(usize, Fate),
    /// Time passes.
    Pass(u64),
    /// The process is killed and starts again from the store.
    Crash,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Ok,
    /// It is not done, and the agenda hears of it.
    Fails,
    /// It is done, but the agenda hears that it failed.
    ReplyLost,
    /// It is done, but the process dies before it hears.
    Dies,
}

/// The store and sip-edge, as far as the agenda can tell.
#[derive(Default)]
struct World {
    now: Tick,
    /// State, revision, due.
    rows: BTreeMap<TaskId, (State, i64, Tick)>,
    /// When the effect of a task was asked for, each time.
    effects: BTreeMap<TaskId, Vec<Tick>>,
    news: VecDeque<(TaskId, Input)>,
    outputs: Vec<Output>,
}

impl World {
    fn change(&mut self, id: TaskId, event: crate::Event) -> bool {
        let row = self.rows.get_mut(&id).unwrap();
        match row.0.next(event) {
            Ok(next) => {
                (row.0, row.1) = (next, row.1 + 1);
                true
            }
            Err(_) => false,
        }
    }

    /// What the shell would do with an output.
    fn perform(&mut self, output: Output, fate: Fate) -> Option<(TaskId, Input)> {
        let done = fate != Fate::Fails;
        let (id, truth, failure) = match output {
            Output::Claim { task, revision, again } => {
                let (state, at, _) = self.rows[&task];
                let granted = done
                    && match again {
                        true => state == State::Firing,
                        false => at == revision && self.change(task, crate::Event::Claimed),
                    };
                let truth =
                    if granted { Input::Claimed(hang_up(task.0)) } else { Input::NotClaimed };
                // The writer answers truthfully or not at all, so a lost reply is a crash; else it failed.
                match fate {
                    Fate::ReplyLost => return Some((task, truth)),
                    _ => (task, truth, Input::StoreFailed),
                }
            }
            Output::Perform { task, .. } => {
                let performed = self.effects.entry(task).or_default();
                let first = performed.is_empty();
                if done {
                    performed.push(self.now);
                }
                let truth = match first {
                    true => Answer::Done(said("ended")),
                    false => Answer::AlreadyEnded { said: said("over"), by_this_task: true },
                };
                (task, Input::Answered(truth), Input::Answered(Answer::Unanswered(said("?"))))
            }
            Output::Settle { task, verdict, .. } => {
                let firing = self.rows[&task].0 == State::Firing;
                assert!(!done || firing, "{task} is settled twice");
                if done {
                    assert!(self.change(task, crate::Event::Answered(verdict)));
                }
                match fate {
                    Fate::ReplyLost => return Some((task, Input::Settled)),
                    _ => (task, Input::Settled, Input::StoreFailed),
                }
            }
        };
        match fate {
            Fate::Ok => Some((id, truth)),
            Fate::Fails | Fate::ReplyLost => Some((id, failure)),
            Fate::Dies => None,
        }
    }

    /// A new process.
    fn restart(&mut self) -> Agenda {
        self.news.clear();
        self.outputs.clear();
        let mut agenda = Agenda::new(0, 1_000);
        for (id, (state, revision, due)) in &self.rows {
            let (revision, due) = (*revision, *due);
            match state {
                State::Pending => agenda.handle(self.now, *id, Input::Armed { revision, due }),
                State::Firing => agenda.handle(self.now, *id, Input::Resumed { revision, due }),
                _ => (),
            }
        }
        agenda
    }

    fn step(&mut self, agenda: &mut Agenda, step: Step) {
        match step {
            Step::Add(ms) => {
                let (id, due) = (TaskId(self.rows.len() as u128), self.now + ms);
                self.rows.insert(id, (State::Pending, 1, due));
                self.news.push_back((id, Input::Armed { revision: 1, due }));
            }
            Step::Cancel(nth) if !self.rows.is_empty() => {
                let id = TaskId((nth % self.rows.len()) as u128);
                if self.change(id, crate::Event::Cancelled) {
                    self.news.push_back((id, Input::Ended));
                }
            }
            Step::Move(nth, ms) if !self.rows.is_empty() => {
                let (id, due) = (TaskId((nth % self.rows.len()) as u128), self.now + ms);
                if self.change(id, crate::Event::Rescheduled) {
                    self.rows.get_mut(&id).unwrap().2 = due;
                    let revision = self.rows[&id].1;
                    self.news.push_back((id, Input::Armed { revision, due }));
                }
            }
            Step::News => {
                if let Some((id, input)) = self.news.pop_front() {
                    agenda.handle(self.now, id, input);
                }
            }
            Step::Perform(nth, fate) if !self.outputs.is_empty() => {
                let output = self.outputs.remove(nth % self.outputs.len());
                match self.perform(output, fate) {
                    Some((id, input)) => agenda.handle(self.now, id, input),
                    None => *agenda = self.restart(),
                }
            }
            Step::Pass(ms) => {
                self.now += ms;
                agenda.handle_timeout(self.now);
            }
            Step::Crash => *agenda = self.restart(),
            Step::Cancel(_) | Step::Move(..) | Step::Perform(..) => (),
        }
        self.outputs.extend(std::iter::from_fn(|| agenda.poll_output()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever is added, moved, cancelled, lost, delayed or killed at whichever step: every task
    /// ends, it is cancelled if and only if its effect did not happen, and nothing is early.
    #[test]
    fn every_task_ends_once_and_is_cancelled_only_without_effect(
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut world = World::default();
        let mut agenda = world.restart();
        for step in steps {
            world.step(&mut agenda, step);
        }
        // From now on all goes well.
        while !(agenda.is_empty() && world.news.is_empty()) {
            world.step(&mut agenda, Step::News);
            world.step(&mut agenda, Step::Perform(0, Fate::Ok));
            if world.outputs.is_empty() && world.news.is_empty() {
                let ahead = agenda.poll_timeout().map_or(0, |at| at.saturating_sub(world.now));
                world.step(&mut agenda, Step::Pass(ahead));
            }
        }
        prop_assert_eq!(agenda.in_flight(), 0);
        for (id, (state, _, due)) in &world.rows {
            let effects = world.effects.get(id).map(Vec::as_slice).unwrap_or_default();
            prop_assert!(state.has_ended(), "{id} is {state:?}");
            prop_assert_eq!(*state == State::Cancelled, effects.is_empty(), "{} {:?}", id, state);
            prop_assert_eq!(*state == State::Fired, !effects.is_empty(), "{} {:?}", id, state);
            prop_assert!(effects.iter().all(|at| at >= due), "{id} due {due} begun {effects:?}");
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    let ms = || prop_oneof![0..3u64, 60..70u64, 0..1_000u64];
    let fate = prop_oneof![
        4 => Just(Fate::Ok),
        1 => Just(Fate::Fails),
        1 => Just(Fate::ReplyLost),
        1 => Just(Fate::Dies),
    ];
    prop_oneof![
        3 => ms().prop_map(Step::Add),
        2 => (0..20usize).prop_map(Step::Cancel),
        1 => (0..20usize, ms()).prop_map(|(nth, ms)| Step::Move(nth, ms)),
        6 => Just(Step::News),
        8 => (0..20usize, fate).prop_map(|(nth, fate)| Step::Perform(nth, fate)),
        4 => ms().prop_map(Step::Pass),
        1 => Just(Step::Crash),
    ]
}
