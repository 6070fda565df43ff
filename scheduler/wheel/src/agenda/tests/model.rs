//! An agenda in a world in which anything may fail, come late, come twice or change hands at any
//! step: a modelled store with fences, a modelled sip-edge that does each effect once, and two
//! owners of which only one holds a shard.

use super::*;
use crate::task::Event;
use crate::{Next, State};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// Shards in use.
const SHARDS_USED: u8 = 2;
const OWNERS: usize = 2;
/// News that wait may be this many; older ones are lost with the connection they waited for.
const NEWS_MAX: usize = 64;

/// A step of the world around the agendas.
#[derive(Clone, Debug)]
enum Step {
    /// A client adds a task, due so many ms from now, that repeats so often in all.
    Add(u64, u32),
    Cancel(usize),
    /// To so many ms from now.
    Move(usize, u64),
    Pause(usize),
    Resume(usize),
    /// The call of the n-th task is over.
    EndCall(usize),
    /// The n-th piece of news reaches its agenda; it may come again.
    News(usize, bool),
    /// The n-th outstanding step is taken, and answered this way.
    Take(usize, Fate),
    /// The n-th answer that is on its way arrives.
    Arrive(usize),
    /// Time passes for one owner or for both; a stopped one notices nothing.
    Pass(u64, usize),
    /// An owner is killed and starts again.
    Crash(usize),
    /// The shard gets another owner, who reads it; the one before hears of it at once or never.
    TakeOver(u8, bool),
    /// The owner of a shard ends what it has begun there.
    Release(u8),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    /// Done and answered.
    Ok,
    /// Not done; the agenda hears of it.
    Fails,
    /// Done, but the agenda hears that it failed.
    AnswerLost,
    /// Done, and the process is killed before it hears.
    Dies,
}

/// A row of the store.
#[derive(Clone, Debug)]
struct Row {
    state: State,
    revision: i64,
    due: Tick,
    occurrence: u32,
    repeat: Option<Repeat>,
    cancel_requested: bool,
    remaining: Tick,
    /// Told to a client that cancelled: the occurrence that would not happen, or the one that would.
    cancelled: Option<u32>,
    too_late: Option<u32>,
    /// When each occurrence was due.
    dues: BTreeMap<u32, Tick>,
}

enum Answered {
    Claim(Lane, Vec<Claim>, Result<Vec<Granted>, StoreFailed>),
    Attempt(TaskId, Ticket, Answer),
    Settle(Vec<Settlement>, Result<Vec<Settled>, StoreFailed>),
}

/// A process: what it knows, and what of it is on the way.
struct Owner {
    agenda: Agenda,
    now: Tick,
    news: VecDeque<News>,
    steps: VecDeque<Output>,
    answers: VecDeque<Answered>,
}

struct World {
    now: Tick,
    rows: BTreeMap<TaskId, Row>,
    /// By shard: fence and owner.
    leases: BTreeMap<u8, (Fence, usize)>,
    /// When the effect of an occurrence was asked for, each time.
    effects: BTreeMap<(TaskId, u32), Vec<Tick>>,
    owners: Vec<Owner>,
}

impl Owner {
    fn new(now: Tick) -> Self {
        let agenda = Agenda::new(&[LaneLimits { begun_max: 4, begun_per_s_max: Some(2_000) }; 2]);
        let (news, steps, answers) = (VecDeque::new(), VecDeque::new(), VecDeque::new());
        Self { agenda, now, news, steps, answers }
    }

    fn drain_outputs(&mut self) {
        while let Some(output) = self.agenda.poll_output() {
            self.steps.push_back(output);
        }
    }

    fn hear(&mut self, answer: Answered) {
        let now = self.now;
        match answer {
            Answered::Claim(lane, claims, answer) => {
                self.agenda.handle_claimed(now, lane, &claims, answer);
            }
            Answered::Attempt(task, ticket, answer) => {
                self.agenda.handle_answered(now, [(task, ticket, answer)]);
            }
            Answered::Settle(settlements, answer) => {
                self.agenda.handle_settled(now, &settlements, answer);
            }
        }
    }
}

impl World {
    fn new() -> Self {
        let owners = (0..OWNERS).map(|_| Owner::new(0)).collect();
        let (rows, leases, effects) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let mut world = Self { now: 0, rows, leases, effects, owners };
        (0..SHARDS_USED).for_each(|shard| world.lease(shard, usize::from(shard) % OWNERS));
        world
    }

    /// The shard is this owner's from now on, who reads what is there.
    fn lease(&mut self, shard: u8, owner: usize) {
        let fence = self.leases.get(&shard).map_or(1, |(fence, _)| fence + 1);
        self.leases.insert(shard, (fence, owner));
        let it = &mut self.owners[owner];
        it.agenda.drop_shard(shard);
        it.agenda.own_shard(shard, fence);
        let rows = self.rows.iter().filter(|(id, _)| id.shard() == shard);
        it.news.extend(rows.map(|(id, row)| row.news(*id)));
    }

    fn restart(&mut self, owner: usize) {
        self.owners[owner] = Owner::new(self.now);
        let of_owner = self.leases.iter().filter(|(_, (_, holder))| *holder == owner);
        let shards: Vec<u8> = of_owner.map(|(shard, _)| *shard).collect();
        shards.into_iter().for_each(|shard| self.lease(shard, owner));
    }

    /// Whether the task may be written to under this token.
    fn may_write(&self, id: TaskId, fence: Fence) -> bool {
        self.leases[&id.shard()].0 == fence
    }

    /// The compare-and-set.
    fn change(&mut self, id: TaskId, event: Event) -> bool {
        let row = self.rows.get_mut(&id).unwrap();
        let Ok(next) = row.state.next(event) else { return false };
        (row.state, row.revision) = (next, row.revision + 1);
        true
    }

    /// A change by a client: news for who owns the task.
    fn tell(&mut self, id: TaskId) {
        let news = self.rows[&id].news(id);
        let (_, owner) = self.leases[&id.shard()];
        let queue = &mut self.owners[owner].news;
        assert!(queue.len() < NEWS_MAX * 4, "the test adds more than it delivers");
        queue.push_back(news);
    }

    fn nth(&self, nth: usize) -> Option<TaskId> {
        self.rows.keys().nth(nth % self.rows.len().max(1)).copied()
    }

    fn claim(&mut self, claims: &[Claim]) -> Vec<Granted> {
        let mut granted = Vec::new();
        for Claim { task, revision, again, fence, .. } in claims {
            let row = &self.rows[task];
            let firing = *again && row.state == State::Firing;
            let pending = row.state == State::Pending && row.revision == *revision;
            if !self.may_write(*task, *fence) || !(firing || pending) {
                continue;
            }
            if pending {
                self.change(*task, Event::Claimed);
            }
            let row = self.rows.get_mut(task).unwrap();
            row.dues.insert(row.occurrence, row.due);
            granted.push(Granted {
                occurrence: row.occurrence,
                fires_at_unix_ms: row.due as i64,
                repeat: row.repeat,
                ..super::granted(task.0)
            });
        }
        granted
    }

    fn settle(&mut self, settlements: &[Settlement]) -> Vec<Settled> {
        let mut settled = Vec::new();
        for Settlement { task, occurrence, verdict, next, fence, .. } in settlements {
            if !self.may_write(*task, *fence) {
                continue;
            }
            let row = &self.rows[task];
            if row.state == State::Firing && row.occurrence == *occurrence {
                let next = next.filter(|_| !row.cancel_requested);
                let event = next.map_or(Event::Answered(*verdict), |_| Event::Repeated);
                assert!(self.change(*task, event));
                let row = self.rows.get_mut(task).unwrap();
                if let Some(Next { after_ms, .. }) = next {
                    (row.occurrence, row.due) = (row.occurrence + 1, row.due + after_ms);
                }
            }
            // Written now, or by a commit whose answer got lost.
            let row = &self.rows[task];
            if row.state == State::Pending && row.occurrence == *occurrence + 1 {
                settled.push(Settled { task: *task, pending: Some(row.revision) });
            } else if row.state.has_ended() {
                settled.push(Settled { task: *task, pending: None });
            }
        }
        settled
    }

    fn attempt(&mut self, attempt: &Attempt, fate: Fate) -> Answer {
        let asked = self.effects.entry((attempt.task, attempt.occurrence)).or_default();
        let first = asked.is_empty();
        if fate != Fate::Fails {
            asked.push(self.now);
        }
        match (fate, first) {
            (Fate::Ok | Fate::Dies, true) => Answer::Done(said("ended")),
            (Fate::Ok | Fate::Dies, false) => {
                Answer::AlreadyEnded { said: said("over"), by_this_task: true }
            }
            (Fate::Fails | Fate::AnswerLost, _) => lost(),
        }
    }

    /// What a shell, the store and sip-edge do with an output.
    fn take(&mut self, owner: usize, output: Output, fate: Fate) {
        let failed = matches!(fate, Fate::Fails | Fate::AnswerLost);
        match output {
            Output::Claim { lane, claims } => {
                let answer = if fate == Fate::Fails { Vec::new() } else { self.claim(&claims) };
                let answer = if failed { Err(StoreFailed) } else { Ok(answer) };
                self.owners[owner].answers.push_back(Answered::Claim(lane, claims, answer));
            }
            Output::Attempt { attempts, .. } => {
                for attempt in &attempts {
                    let answer = self.attempt(attempt, fate);
                    let answer = Answered::Attempt(attempt.task, attempt.ticket, answer);
                    self.owners[owner].answers.push_back(answer);
                }
            }
            Output::Settle { settlements } => {
                let answer =
                    if fate == Fate::Fails { Vec::new() } else { self.settle(&settlements) };
                let answer = if failed { Err(StoreFailed) } else { Ok(answer) };
                self.owners[owner].answers.push_back(Answered::Settle(settlements, answer));
            }
        }
        if fate == Fate::Dies {
            self.restart(owner);
        }
    }

    fn cancel(&mut self, id: TaskId) {
        if self.change(id, Event::Cancelled) {
            let row = self.rows.get_mut(&id).unwrap();
            row.cancelled = Some(row.occurrence);
            return self.tell(id);
        }
        let row = self.rows.get_mut(&id).unwrap();
        if row.state == State::Firing {
            row.too_late.get_or_insert(row.occurrence);
            row.cancel_requested = true;
        }
    }

    /// The client's part of a step.
    fn ask(&mut self, step: &Step) {
        let id = match step {
            Step::Add(..) => None,
            Step::Cancel(nth)
            | Step::Move(nth, _)
            | Step::Pause(nth)
            | Step::Resume(nth)
            | Step::EndCall(nth) => self.nth(*nth),
            _ => return,
        };
        match (step, id) {
            (Step::Add(ms, times), _) => {
                let nth = self.rows.len() as u128;
                let id = TaskId((nth << 8) | (nth % u128::from(SHARDS_USED)));
                self.rows.insert(id, Row::new(self.now + ms, *times));
                self.tell(id);
            }
            (Step::Cancel(_), Some(id)) => self.cancel(id),
            (Step::Move(_, ms), Some(id)) if self.change(id, Event::Rescheduled) => {
                let row = self.rows.get_mut(&id).unwrap();
                (row.due, row.remaining) = (self.now + ms, *ms);
                self.tell(id);
            }
            (Step::Pause(_), Some(id)) if self.change(id, Event::Paused) => {
                let row = self.rows.get_mut(&id).unwrap();
                row.remaining = row.due.saturating_sub(self.now);
                self.tell(id);
            }
            (Step::Resume(_), Some(id)) if self.change(id, Event::Resumed) => {
                let row = self.rows.get_mut(&id).unwrap();
                row.due = self.now + row.remaining;
                self.tell(id);
            }
            (Step::EndCall(_), Some(id)) if self.change(id, Event::CallEnded) => self.tell(id),
            _ => (),
        }
    }

    fn step(&mut self, step: Step) {
        self.ask(&step);
        let leases = self.leases.clone();
        for owner in 0..OWNERS {
            let holds = |shard: &u8| leases[shard].1 == owner;
            self.step_of(owner, &step, holds);
            self.owners[owner].drain_outputs();
        }
    }

    fn step_of(&mut self, owner: usize, step: &Step, holds: impl Fn(&u8) -> bool) {
        let it = &mut self.owners[owner];
        match *step {
            Step::News(nth, again) if !it.news.is_empty() => {
                let news = it.news.remove(nth % it.news.len()).unwrap();
                it.agenda.handle_news(it.now, [news]);
                if again && it.news.len() < NEWS_MAX {
                    it.news.push_back(news);
                }
            }
            Step::Take(nth, fate) if !it.steps.is_empty() => {
                let output = it.steps.remove(nth % it.steps.len()).unwrap();
                self.take(owner, output, fate);
            }
            Step::Arrive(nth) if !it.answers.is_empty() => {
                let answer = it.answers.remove(nth % it.answers.len()).unwrap();
                it.hear(answer);
            }
            Step::Pass(ms, stopped) => {
                self.now += if owner == 0 { ms } else { 0 };
                if stopped != owner {
                    it.now = self.now;
                    it.agenda.handle_timeout(it.now);
                }
            }
            Step::Crash(which) if which == owner => self.restart(owner),
            Step::TakeOver(shard, told) if holds(&shard) => {
                if told {
                    it.agenda.drop_shard(shard);
                }
                self.lease(shard, (owner + 1) % OWNERS);
                self.owners[(owner + 1) % OWNERS].drain_outputs();
            }
            Step::Release(shard) if holds(&shard) => {
                it.agenda.release_shard(shard);
                if it.agenda.shard_in_flight(shard) == 0 {
                    self.lease(shard, (owner + 1) % OWNERS);
                }
            }
            _ => (),
        }
    }

    /// From now on all goes well: each shard has an owner who reads it again, and time passes until
    /// nobody has anything to do.
    fn settle_down(&mut self) {
        for id in self.rows.keys().copied().collect::<Vec<_>>() {
            self.ask_for(id);
        }
        for shard in 0..SHARDS_USED {
            let (_, owner) = self.leases[&shard];
            self.lease(shard, owner);
        }
        for _ in 0..100_000 {
            self.step(Step::News(0, false));
            self.step(Step::Take(0, Fate::Ok));
            self.step(Step::Arrive(0));
            let busy =
                |it: &Owner| !(it.news.is_empty() && it.steps.is_empty() && it.answers.is_empty());
            if self.owners.iter().any(busy) {
                continue;
            }
            let timeouts = self.owners.iter().filter_map(|it| it.agenda.poll_timeout());
            let Some(at) = timeouts.min() else { return };
            self.step(Step::Pass(at.saturating_sub(self.now), OWNERS));
        }
        panic!("it never ends");
    }

    /// What is paused goes on.
    fn ask_for(&mut self, id: TaskId) {
        if self.change(id, Event::Resumed) {
            self.rows.get_mut(&id).unwrap().due = self.now;
            self.tell(id);
        }
    }

    fn check(&self) {
        let known: BTreeSet<(TaskId, u32)> = self.effects.keys().copied().collect();
        for (id, row) in &self.rows {
            let Row { state, occurrence, cancelled, too_late, .. } = row;
            let happened = |occurrence: &u32| {
                self.effects.get(&(*id, *occurrence)).is_some_and(|asked| !asked.is_empty())
            };
            assert!(state.has_ended(), "{id} is {row:?}");
            assert!((0..*occurrence).all(|it| happened(&it)), "{id} skipped one: {row:?}");
            assert_eq!(*state == State::Fired, happened(occurrence), "{id} {row:?}");
            assert!(!happened(&(occurrence + 1)), "{id} had one too many: {row:?}");
            assert_eq!(*state == State::Cancelled, cancelled.is_some(), "{id} {row:?}");
            assert!(!cancelled.is_some_and(|it| happened(&it)), "{id} lied to its canceller");
            if let Some(too_late) = too_late {
                assert!(happened(too_late) && too_late == occurrence, "{id} {row:?}");
            }
            if let Some(Repeat { count, .. }) = row.repeat {
                assert!(count.is_none_or(|count| *occurrence < count), "{id} {row:?}");
            }
        }
        for ((id, occurrence), asked) in &self.effects {
            let due = self.rows[id].dues[occurrence];
            assert!(asked.iter().all(|at| *at >= due), "{id} due {due} begun {asked:?}");
        }
        assert!(known.iter().all(|(id, _)| self.rows.contains_key(id)));
        for Owner { agenda, .. } in &self.owners {
            assert_eq!((agenda.len(), agenda.in_flight()), (0, 0));
        }
    }
}

impl Row {
    fn new(due: Tick, times: u32) -> Self {
        let repeat = Repeat { every_ms: 50, count: Some(times), until_unix_ms: None };
        Self {
            state: State::Pending,
            revision: 1,
            due,
            occurrence: 0,
            repeat: (times > 1).then_some(repeat),
            cancel_requested: false,
            remaining: 0,
            cancelled: None,
            too_late: None,
            dues: BTreeMap::new(),
        }
    }

    fn news(&self, id: TaskId) -> News {
        let (due, lane) = (self.due, Lane((id.0 >> 8) as u16 % 2));
        let now = match self.state {
            State::Pending => Standing::Waiting { due, lane },
            State::Firing => Standing::Firing { due, lane },
            _ => Standing::Gone,
        };
        News { task: id, revision: self.revision, now }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever is added, moved, paused, cancelled, lost, repeated, delayed, killed or taken over at
    /// whichever step: every task ends; each of its occurrences has its effect once, and never early;
    /// it is cancelled if and only if the effect did not happen, and who cancelled was told so.
    #[test]
    fn every_occurrence_has_its_effect_once_or_is_cancelled(
        steps in prop::collection::vec(step(), 1..150),
    ) {
        let mut world = World::new();
        steps.into_iter().for_each(|step| world.step(step));
        world.settle_down();
        world.check();
    }
}

fn step() -> impl Strategy<Value = Step> {
    let ms = || prop_oneof![0..3u64, 60..70u64, 0..1_000u64];
    let nth = || 0..20usize;
    let shard = || 0..SHARDS_USED;
    let fate = prop_oneof![
        5 => Just(Fate::Ok),
        1 => Just(Fate::Fails),
        1 => Just(Fate::AnswerLost),
        1 => Just(Fate::Dies),
    ];
    prop_oneof![
        3 => (ms(), 1..4u32).prop_map(|(ms, times)| Step::Add(ms, times)),
        2 => nth().prop_map(Step::Cancel),
        1 => (nth(), ms()).prop_map(|(nth, ms)| Step::Move(nth, ms)),
        1 => nth().prop_map(Step::Pause),
        1 => nth().prop_map(Step::Resume),
        1 => nth().prop_map(Step::EndCall),
        6 => (nth(), any::<bool>()).prop_map(|(nth, again)| Step::News(nth, again)),
        8 => (nth(), fate).prop_map(|(nth, fate)| Step::Take(nth, fate)),
        8 => nth().prop_map(Step::Arrive),
        4 => (ms(), 0..6usize).prop_map(|(ms, stopped)| Step::Pass(ms, stopped)),
        1 => (0..OWNERS).prop_map(Step::Crash),
        1 => (shard(), any::<bool>()).prop_map(|(shard, told)| Step::TakeOver(shard, told)),
        1 => shard().prop_map(Step::Release),
    ]
}
