//! Ladders of inputs and outputs.

use super::*;
use crate::active::{GIVE_UP_MS, RETRY_MAX_MS};
use crate::task::{Effect, Legs, Repeat, Verdict};
use expect_test::{Expect, expect};
use std::fmt::Write as _;

mod lanes;
mod model;

pub(super) fn hang_up(call: u128) -> Effect {
    let cause = "ALLOTTED_TIMEOUT".to_owned();
    Effect::HangUp { call_id: format!("call-{call}"), cause, legs: Legs::Both }
}

pub(super) fn said(what: &str) -> String {
    what.to_owned()
}

/// Limits that no ladder comes near.
pub(super) const WIDE: LaneLimits = LaneLimits { begun_max: 1_000, begun_per_s_max: None };

/// An agenda that owns every shard.
pub(super) fn agenda(lanes: &[LaneLimits]) -> Agenda {
    let mut agenda = Agenda::new(lanes);
    (0..SHARDS).for_each(|shard| agenda.own_shard(shard, 1));
    agenda
}

pub(super) fn waiting(task: u128, revision: i64, due: Tick) -> News {
    let now = Standing::Waiting { due, lane: Lane(0) };
    News { task: TaskId(task), revision, now }
}

pub(super) fn granted(task: u128) -> Granted {
    let (occurrence, fires_at_unix_ms, repeat) = (0, 0, None);
    let effect = hang_up(task).into();
    Granted { task: TaskId(task), occurrence, fires_at_unix_ms, effect, repeat }
}

/// What happens at a tick. Answers are to the last step of that kind of the task.
enum Happens {
    News(News),
    Claimed(Result<Vec<Granted>, StoreFailed>),
    Answered(u128, Answer),
    Settled(Result<Option<i64>, StoreFailed>),
    NotSettled,
    Drops(u8),
    Owns(u8),
    Releases(u8),
}

use Happens as H;

fn claimed(task: u128) -> Happens {
    H::Claimed(Ok(vec![granted(task)]))
}

pub(super) fn lost() -> Answer {
    Answer::Unanswered(said("no route"))
}

/// Feeds what happens to an agenda, lets it time out whenever it asks to in between and for a minute
/// afterwards, and compares what it wants done.
#[track_caller]
fn check(happens: Vec<(Tick, Happens)>, expected: Expect) {
    let mut agenda = agenda(&[WIDE, WIDE]);
    let mut happens = VecDeque::from(happens);
    let (mut claims, mut settlements) = (VecDeque::new(), VecDeque::new());
    let mut tickets = HashMap::new();
    let mut log = String::new();
    let mut now = 0;
    loop {
        while let Some(output) = agenda.poll_output() {
            log.push_str(&lines(now, &output));
            match output {
                Output::Claim { lane, claims: batch } => claims.push_back((lane, batch)),
                Output::Attempt { attempts, .. } => {
                    tickets.extend(attempts.iter().map(|it| (it.task, it.ticket)));
                }
                Output::Settle { settlements: batch } => settlements.push_back(batch),
            }
        }
        let timeout = agenda.poll_timeout().filter(|at| *at < 60_000);
        if happens.front().is_none_or(|(at, _)| timeout.is_some_and(|timeout| timeout <= *at)) {
            let Some(timeout) = timeout else { break };
            now = timeout.max(now);
            agenda.handle_timeout(now);
            continue;
        }
        let (at, what) = happens.pop_front().unwrap();
        now = at;
        match what {
            H::News(news) => agenda.handle_news(now, [news]),
            H::Claimed(answer) => {
                let (lane, batch) = claims.pop_front().expect("a claim to answer");
                agenda.handle_claimed(now, lane, &batch, answer);
            }
            H::Answered(task, answer) => {
                let task = TaskId(task);
                agenda.handle_answered(now, [(task, tickets[&task], answer)]);
            }
            H::Settled(pending) => {
                let batch = settlements.pop_front().expect("a settlement to answer");
                let settled = |pending| Settled { task: batch[0].task, pending };
                agenda.handle_settled(now, &batch, pending.map(|it| vec![settled(it)]));
            }
            H::NotSettled => {
                let batch = settlements.pop_front().expect("a settlement to answer");
                agenda.handle_settled(now, &batch, Ok(Vec::new()));
            }
            H::Drops(shard) => agenda.drop_shard(shard),
            H::Owns(shard) => agenda.own_shard(shard, 2),
            H::Releases(shard) => agenda.release_shard(shard),
        }
    }
    writeln!(log, "{} left, {} in flight", agenda.len(), agenda.in_flight()).unwrap();
    expected.assert_eq(&log);
}

fn lines(now: Tick, output: &Output) -> String {
    let mut log = String::new();
    let mut line = |what: std::fmt::Arguments| writeln!(log, "{now:5} {what}").unwrap();
    match output {
        Output::Claim { claims, .. } => claims.iter().for_each(|claim| {
            let again = ["", " again"][usize::from(claim.again)];
            line(format_args!("claim {} revision {}{again}", claim.task.0, claim.revision));
        }),
        Output::Attempt { attempts, .. } => attempts.iter().for_each(|it| {
            line(format_args!("attempt {} at {}/{}", it.attempt, it.task.0, it.occurrence));
        }),
        Output::Settle { settlements } => settlements.iter().for_each(|it| {
            let Settlement { task, occurrence, verdict, late_ms, result, next, .. } = it;
            let next = next.map(|it| format!(", next in {} missed {}", it.after_ms, it.missed));
            let next = next.unwrap_or_default();
            line(format_args!(
                "settle {}/{occurrence}: {verdict:?}, {late_ms} ms late, {result:?}{next}",
                task.0
            ));
        }),
    }
    log
}

#[test]
fn a_due_task_is_claimed_then_attempted_then_settled() {
    check(
        vec![
            (10, H::News(waiting(1, 1, 1_000))),
            (1_002, claimed(1)),
            (1_005, H::Answered(1, Answer::Done(said("ended")))),
            (1_007, H::Settled(Ok(None))),
        ],
        expect![[r#"
             1000 claim 1 revision 1
             1002 attempt 1 at 1/0
             1005 settle 1/0: Done, 2 ms late, "ended"
            0 left, 0 in flight
        "#]],
    );
}

#[test]
fn a_cancelled_task_is_not_even_claimed() {
    let gone = News { task: TaskId(1), revision: 2, now: Standing::Gone };
    check(
        vec![(10, H::News(waiting(1, 1, 1_000))), (999, H::News(gone))],
        expect![[r#"
        0 left, 0 in flight
    "#]],
    );
}

#[test]
fn a_claim_that_the_store_does_not_grant_has_no_effect() {
    check(
        vec![(10, H::News(waiting(1, 1, 1_000))), (1_002, H::Claimed(Ok(vec![])))],
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
            (10, H::News(waiting(1, 1, 1_000))),
            (1_001, H::News(waiting(1, 2, 5_000))),
            (1_002, H::Claimed(Ok(vec![]))),
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
        vec![(10, H::News(waiting(1, 1, 1_000))), (20, H::News(waiting(1, 2, 500)))],
        expect![[r#"
              500 claim 1 revision 2
            1 left, 1 in flight
        "#]],
    );
}

#[test]
fn news_that_come_late_or_twice_change_nothing() {
    check(
        vec![
            (10, H::News(waiting(1, 2, 1_000))),
            (20, H::News(waiting(1, 1, 500))),
            (20, H::News(waiting(1, 2, 600))),
        ],
        expect![[r#"
             1000 claim 1 revision 2
            1 left, 1 in flight
        "#]],
    );
}

#[test]
fn an_unanswered_effect_is_tried_again_with_growing_waits_and_delays_nobody() {
    let by_this_task = true;
    check(
        vec![
            (0, H::News(waiting(1, 1, 1_000))),
            (0, H::News(waiting(2, 1, 1_100))),
            (1_000, claimed(1)),
            (1_000, H::Answered(1, lost())),
            (1_050, H::Answered(1, lost())),
            (1_100, claimed(2)),
            (1_100, H::Answered(2, Answer::NoSuchCall)),
            (1_100, H::Settled(Ok(None))),
            (1_150, H::Answered(1, lost())),
            (1_350, H::Answered(1, Answer::AlreadyEnded { said: said("x"), by_this_task })),
            (1_350, H::Settled(Ok(None))),
        ],
        expect![[r#"
             1000 claim 1 revision 1
             1000 attempt 1 at 1/0
             1050 attempt 2 at 1/0
             1100 claim 2 revision 1
             1100 attempt 1 at 2/0
             1100 settle 2/0: CallGone, 0 ms late, "no such call"
             1150 attempt 3 at 1/0
             1350 attempt 4 at 1/0
             1350 settle 1/0: Done, 0 ms late, "x"
            0 left, 0 in flight
        "#]],
    );
}

#[test]
fn a_call_that_another_task_ended_is_gone() {
    let by_this_task = false;
    check(
        vec![
            (0, H::News(waiting(1, 1, 0))),
            (1, claimed(1)),
            (2, H::Answered(1, Answer::AlreadyEnded { said: said("over"), by_this_task })),
            (3, H::Settled(Ok(None))),
        ],
        expect![[r#"
                0 claim 1 revision 1
                1 attempt 1 at 1/0
                2 settle 1/0: CallGone, 1 ms late, "over"
            0 left, 0 in flight
        "#]],
    );
}

#[test]
fn a_task_found_firing_is_attempted_again_and_knows_its_first_attempt() {
    let firing = Standing::Firing { due: 5, lane: Lane(1) };
    let by_this_task = true;
    check(
        vec![
            (9, H::News(News { task: TaskId(1), revision: 2, now: firing })),
            (10, claimed(1)),
            (11, H::Answered(1, Answer::AlreadyEnded { said: said("over"), by_this_task })),
            (12, H::Settled(Ok(None))),
        ],
        expect![[r#"
                9 claim 1 revision 2 again
               10 attempt 1 at 1/0
               11 settle 1/0: Done, 5 ms late, "over"
            0 left, 0 in flight
        "#]],
    );
}

#[test]
fn a_store_that_fails_is_left_alone_for_a_while_and_nothing_is_attempted_meanwhile() {
    check(
        vec![
            (0, H::News(waiting(1, 1, 1_000))),
            (0, H::News(waiting(2, 1, 1_020))),
            (1_010, H::Claimed(Err(StoreFailed))),
            (1_260, claimed(1)),
            (1_261, H::Answered(1, Answer::Refused(said("no")))),
            (1_270, H::Settled(Err(StoreFailed))),
            (1_520, H::Settled(Ok(None))),
        ],
        expect![[r#"
             1000 claim 1 revision 1
             1260 claim 1 revision 1 again
             1260 claim 2 revision 1
             1260 attempt 1 at 1/0
             1261 settle 1/0: Refused, 260 ms late, "no"
             1520 settle 1/0: Refused, 260 ms late, "no"
            0 left, 0 in flight
        "#]],
    );
}

#[test]
fn a_repeated_task_keeps_its_grid_and_counts_what_it_missed() {
    let repeat = Repeat { every_ms: 1_000, count: Some(3), until_unix_ms: None };
    let occurrence = |occurrence, fires_at_unix_ms| {
        let repeat = Some(repeat);
        H::Claimed(Ok(vec![Granted { occurrence, fires_at_unix_ms, repeat, ..granted(1) }]))
    };
    let done = || H::Answered(1, Answer::Done(said("played")));
    check(
        vec![
            (0, H::News(waiting(1, 1, 1_000))),
            (1_005, occurrence(0, 1_000)),
            (1_010, done()),
            (1_020, H::Settled(Ok(Some(3)))),
            (2_001, occurrence(1, 2_000)),
            (4_500, done()), // Its edge was slow: two points of the grid are past.
            (4_501, H::Settled(Ok(Some(5)))),
            (5_000, occurrence(2, 5_000)),
            (5_001, done()),
            (5_002, H::Settled(Ok(None))),
        ],
        expect![[r#"
             1000 claim 1 revision 1
             1005 attempt 1 at 1/0
             1010 settle 1/0: Done, 5 ms late, "played", next in 1000 missed 0
             2000 claim 1 revision 3
             2001 attempt 1 at 1/1
             4500 settle 1/1: Done, 1 ms late, "played", next in 3000 missed 2
             5000 claim 1 revision 5
             5000 attempt 1 at 1/2
             5001 settle 1/2: Done, 0 ms late, "played"
            0 left, 0 in flight
        "#]],
    );
}

#[test]
fn a_repeated_task_that_was_moved_before_its_settlement_was_known_waits_where_it_was_moved() {
    let repeat = Some(Repeat { every_ms: 1_000, count: None, until_unix_ms: None });
    check(
        vec![
            (0, H::News(waiting(1, 1, 1_000))),
            (1_000, H::Claimed(Ok(vec![Granted { repeat, ..granted(1) }]))),
            (1_001, H::Answered(1, Answer::Done(said("played")))),
            (1_002, H::News(waiting(1, 4, 9_000))),
            (1_003, H::Settled(Ok(Some(3)))),
        ],
        expect![[r#"
             1000 claim 1 revision 1
             1000 attempt 1 at 1/0
             1001 settle 1/0: Done, 0 ms late, "played", next in 1000 missed 0
             9000 claim 1 revision 4
            1 left, 1 in flight
        "#]],
    );
}

#[test]
fn a_repetition_ends_with_its_call_and_with_a_refusal() {
    let repeat = Some(Repeat { every_ms: 1_000, count: None, until_unix_ms: None });
    for answer in [Answer::NoSuchCall, Answer::Refused(said("no such file"))] {
        let mut agenda = agenda(&[WIDE]);
        agenda.handle_news(0, [waiting(1, 1, 0)]);
        let Some(Output::Claim { lane, claims }) = agenda.poll_output() else { panic!() };
        agenda.handle_claimed(0, lane, &claims, Ok(vec![Granted { repeat, ..granted(1) }]));
        let Some(Output::Attempt { attempts, .. }) = agenda.poll_output() else { panic!() };
        agenda.handle_answered(0, [(TaskId(1), attempts[0].ticket, answer)]);
        let Some(Output::Settle { settlements }) = agenda.poll_output() else { panic!() };
        assert_eq!(settlements[0].next, None);
    }
}

#[test]
fn what_was_dropped_with_its_shard_is_not_changed_by_late_answers() {
    check(
        vec![
            (0, H::News(waiting(1, 1, 1_000))),
            (0, H::News(waiting(2, 1, 2_000))),
            (1_000, H::Drops(1)),
            (1_001, H::News(waiting(17, 1, 1_500))), // Not ours any more.
            (1_002, H::Owns(1)),
            (1_003, H::News(waiting(1, 1, 1_000))),
            (1_004, H::Claimed(Ok(vec![]))), // To the claim of before.
            (1_005, claimed(1)),
            (1_006, H::Answered(1, Answer::Done(said("ended")))),
            (1_007, H::NotSettled),
        ],
        expect![[r#"
             1000 claim 1 revision 1
             1003 claim 1 revision 1
             1005 attempt 1 at 1/0
             1006 settle 1/0: Done, 5 ms late, "ended"
             2000 claim 2 revision 1
            1 left, 1 in flight
        "#]],
    );
}

#[test]
fn a_released_shard_ends_what_is_in_flight_and_begins_nothing() {
    check(
        vec![
            (0, H::News(waiting(1, 1, 1_000))),
            (0, H::News(waiting(17, 1, 1_000))),
            (0, H::News(waiting(33, 1, 1_500))),
            (1_000, H::Claimed(Ok(vec![granted(1), granted(17)]))),
            (1_001, H::Releases(1)),
            (1_002, H::Answered(17, lost())),
            (1_003, H::Answered(1, Answer::Done(said("ended")))),
            (1_004, H::Settled(Ok(None))),
        ],
        expect![[r#"
             1000 claim 1 revision 1
             1000 claim 17 revision 1
             1000 attempt 1 at 1/0
             1000 attempt 1 at 17/0
             1003 settle 1/0: Done, 0 ms late, "ended"
            0 left, 0 in flight
        "#]],
    );
}

#[test]
fn draining_finishes_what_is_in_flight_and_begins_nothing() {
    let mut agenda = agenda(&[WIDE]);
    agenda.handle_news(0, [waiting(1, 1, 1), waiting(2, 1, 2)]);
    agenda.handle_timeout(1);
    let Some(Output::Claim { lane, claims }) = agenda.poll_output() else { panic!() };
    agenda.drain();
    agenda.handle_claimed(2, lane, &claims, Ok(vec![granted(1)]));
    let Some(Output::Attempt { attempts, .. }) = agenda.poll_output() else { panic!() };
    agenda.handle_answered(3, [(TaskId(1), attempts[0].ticket, Answer::NoSuchCall)]);
    let Some(Output::Settle { settlements }) = agenda.poll_output() else { panic!() };
    agenda.handle_settled(4, &settlements, Ok(vec![Settled { task: TaskId(1), pending: None }]));
    assert_eq!(agenda.poll_output(), None);
    assert_eq!((agenda.in_flight(), agenda.len(), agenda.poll_timeout()), (0, 1, None));
}

#[test]
fn after_a_day_without_an_answer_the_task_fails() {
    let mut agenda = agenda(&[WIDE]);
    agenda.handle_news(0, [waiting(1, 1, 0)]);
    let (mut now, mut count) = (0, 0);
    loop {
        match agenda.poll_output() {
            Some(Output::Claim { lane, claims }) => {
                agenda.handle_claimed(now, lane, &claims, Ok(vec![granted(1)]));
            }
            Some(Output::Attempt { attempts, .. }) => {
                count += 1;
                agenda.handle_answered(now, [(TaskId(1), attempts[0].ticket, lost())]);
            }
            Some(Output::Settle { settlements }) => {
                let Settlement { verdict, result, .. } = &settlements[0];
                assert_eq!(*verdict, Verdict::Refused);
                assert_eq!(*result, format!("given up after {count} attempts in a day: no route"));
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
