//! Lanes: order, numbers in flight, pace, and that none waits for another.

use super::*;

const EDGE: LaneLimits = LaneLimits { begun_max: 64, begun_per_s_max: Some(2_000) };
const BUS: LaneLimits = LaneLimits { begun_max: 16_384, begun_per_s_max: None };

fn in_lane(lane: u16, task: u128, due: Tick) -> News {
    News { task: TaskId(task), revision: 1, now: Standing::Waiting { due, lane: Lane(lane) } }
}

/// A store and edges that answer at once, each lane as it is told; what they saw.
struct World<'a> {
    agenda: Agenda,
    now: Tick,
    answer: &'a dyn Fn(Lane, &Attempt) -> Option<Answer>,
    /// When which task was attempted.
    attempts: Vec<(Tick, TaskId)>,
    settled: usize,
    batches: usize,
}

impl<'a> World<'a> {
    fn new(lanes: &[LaneLimits], answer: &'a dyn Fn(Lane, &Attempt) -> Option<Answer>) -> Self {
        let agenda = agenda(lanes);
        Self { agenda, now: 0, answer, attempts: Vec::new(), settled: 0, batches: 0 }
    }

    fn run_until(&mut self, end: Tick) {
        loop {
            while let Some(output) = self.agenda.poll_output() {
                self.take(output);
            }
            match self.agenda.poll_timeout() {
                Some(at) if at <= end => {
                    assert!(at > 0, "woken for nothing");
                    self.now = self.now.max(at);
                    self.agenda.handle_timeout(self.now);
                }
                _ => return,
            }
        }
    }

    fn take(&mut self, output: Output) {
        self.batches += 1;
        match output {
            Output::Claim { lane, claims } => {
                let answer = claims.iter().map(|claim| granted(claim.task.0)).collect();
                self.agenda.handle_claimed(self.now, lane, &claims, Ok(answer));
            }
            Output::Attempt { lane, attempts } => {
                self.attempts.extend(attempts.iter().map(|it| (self.now, it.task)));
                let answer = |it: &Attempt| Some((it.task, it.ticket, (self.answer)(lane, it)?));
                let answers: Vec<_> = attempts.iter().filter_map(answer).collect();
                self.agenda.handle_answered(self.now, answers);
            }
            Output::Settle { settlements } => {
                self.settled += settlements.len();
                let settled = |it: &Settlement| Settled { task: it.task, pending: None };
                let answer = settlements.iter().map(settled).collect();
                self.agenda.handle_settled(self.now, &settlements, Ok(answer));
            }
        }
    }
}

fn done(_: Lane, _: &Attempt) -> Option<Answer> {
    Some(Answer::Done(String::new()))
}

#[test]
fn a_herd_goes_out_in_the_order_of_deadlines_by_the_thousand() {
    const TASKS: u128 = 50_000;
    let due = |task: u128| 5_000 - (task % 500) as Tick;
    let mut world = World::new(&[BUS], &done);
    world.agenda.handle_news(0, (0..TASKS).map(|task| in_lane(0, task, due(task))));
    world.now = 5_000;
    world.run_until(5_000);
    assert!(world.attempts.iter().map(|(_, task)| due(task.0)).is_sorted());
    assert_eq!((world.attempts.len(), world.settled, world.agenda.len()), (50_000, 50_000, 0));
    assert!(world.batches <= 3 * 50 + 10, "{} batches", world.batches);
}

#[test]
fn what_is_overdue_in_several_shards_is_begun_in_order_once_all_of_it_is_known() {
    let mut world = World::new(&[EDGE], &done);
    world.now = 60_000;
    world.agenda.hold(true);
    for shard in [3, 1, 2] {
        let of_shard =
            (0..1_000).map(|nth| in_lane(0, (nth << 8) | shard, (nth * 16 + shard) as Tick));
        world.agenda.handle_news(60_000, of_shard);
        world.run_until(60_000);
        assert_eq!(world.attempts.len(), 0);
    }
    world.agenda.hold(false);
    world.run_until(70_000);
    let due = |task: TaskId| (task.0 >> 8) * 16 + (task.0 & 0xff);
    assert!(world.attempts.iter().map(|(_, task)| due(*task)).is_sorted());
    assert_eq!(world.attempts.len(), 3_000);
}

#[test]
fn an_edge_gets_no_more_than_its_pace_and_the_rest_in_order_later() {
    let mut world = World::new(&[EDGE], &done);
    world.agenda.handle_news(0, (0..10_000).map(|task| in_lane(0, task, 1_000)));
    world.run_until(60_000);
    let last = world.attempts.last().unwrap().0;
    assert!((5_980..=6_000).contains(&last), "10,000 at 2,000/s ended at {last}");
    for from in (1_000..6_000).step_by(100) {
        let within = world.attempts.iter().filter(|it| (from..from + 100).contains(&it.0)).count();
        assert!(within <= 221, "{within} from {from} ms on");
    }
    assert!(world.attempts.iter().map(|(_, task)| task.0).is_sorted());
}

#[test]
fn an_edge_that_never_answers_holds_64_and_delays_no_other_lane() {
    let dead = |lane: Lane, it: &Attempt| (lane != Lane(1)).then(|| done(lane, it)).flatten();
    let mut world = World::new(&[BUS, EDGE, EDGE], &dead);
    let tasks = (0..3_000).map(|task| in_lane((task % 3) as u16, task, 1_000 + task as Tick));
    world.agenda.handle_news(0, tasks);
    world.run_until(60_000);
    let of = |lane| world.attempts.iter().filter(move |(_, task)| task.0 % 3 == lane);
    assert_eq!([0, 1, 2].map(|lane| of(lane).count()), [1_000, 64, 1_000]);
    let late = |(at, task): &(Tick, TaskId)| at - (1_000 + task.0 as Tick);
    assert!(of(0).chain(of(2)).all(|it| late(it) == 0));
}

#[test]
fn tasks_that_get_no_answer_leave_half_of_the_lane_to_others() {
    let deaf = |_: Lane, it: &Attempt| match it.task.0 < 1_000 {
        true if it.attempt > 1 => None, // It hangs from the second time on.
        true => Some(lost()),
        false => done(Lane(0), it),
    };
    let mut world = World::new(&[EDGE], &deaf);
    world.agenda.handle_news(0, (0..1_000).map(|task| in_lane(0, task, 1_000)));
    world.agenda.handle_news(0, (1_000..2_000).map(|task| in_lane(0, task, 8_000 + task as Tick)));
    world.run_until(60_000);
    let hanging = world.attempts.iter().filter(|it| it.1.0 < 1_000).count();
    assert_eq!(hanging, 1_000 + 32);
    assert_eq!(world.settled, 1_000);
}

#[test]
fn while_an_edge_is_away_the_most_stay_where_they_can_be_cancelled() {
    const TASKS: usize = 20_000;
    let away = |_: Lane, _: &Attempt| Some(lost());
    let mut world = World::new(&[EDGE], &away);
    world.agenda.handle_news(0, (0..TASKS as u128).map(|task| in_lane(0, task, 1_000)));
    world.run_until(60_000);
    let firing = TASKS - world.agenda.waiting.len();
    assert!((4_096..=4_096 + 64).contains(&firing), "{firing} are firing");
    let attempts = world.attempts.len();
    assert!((50_000..=70_000).contains(&attempts), "{attempts} attempts in a minute");
}

#[test]
fn settlements_let_a_herd_pass_first_but_are_bounded() {
    const TASKS: u128 = 450_000;
    let mut agenda = agenda(&[BUS]);
    agenda.handle_news(0, (0..TASKS).map(|task| in_lane(0, task, 1_000)));
    agenda.handle_timeout(1_000);
    // Claims are answered only when the next ones are there, as by a store that is busy.
    let (mut claims, mut attempted, mut settled, mut unsettled) = (VecDeque::new(), 0, 0, 0usize);
    while settled < TASKS as usize {
        while let Some(output) = agenda.poll_output() {
            match output {
                Output::Claim { lane, claims: batch } => claims.push_back((lane, batch)),
                Output::Attempt { attempts, .. } => {
                    attempted += attempts.len();
                    let done = || Answer::Done(String::new());
                    let answers = attempts.iter().map(|it| (it.task, it.ticket, done()));
                    agenda.handle_answered(1_000, answers);
                }
                Output::Settle { settlements } => {
                    let last = TASKS as usize - attempted < CLAIMS_PER_BATCH;
                    assert!(last || unsettled >= 390_000, "{attempted}");
                    settled += settlements.len();
                    let ended = |it: &Settlement| Settled { task: it.task, pending: None };
                    let answer = settlements.iter().map(ended).collect();
                    agenda.handle_settled(1_000, &settlements, Ok(answer));
                }
            }
            unsettled = attempted - settled;
            assert!(unsettled <= UNSETTLED_MAX + 16_384);
        }
        if let Some((lane, batch)) = claims.pop_front() {
            let answer = batch.iter().map(|claim| granted(claim.task.0)).collect();
            agenda.handle_claimed(1_000, lane, &batch, Ok(answer));
        } else {
            agenda.handle_timeout(1_000);
        }
    }
    assert_eq!((attempted, agenda.len()), (TASKS as usize, 0));
}
