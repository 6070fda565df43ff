//! On real databases: races, repetitions, limits, replicas, and a database that does not answer.

use super::*;
use crate::clock::Clock;
use crate::lanes::Lanes;
use crate::leases::{self, Leases, Turn};
use crate::recent::Recent;
use crate::store::Store;
use crate::store::tests::Database;
use futures::stream::{self, StreamExt as _};
use proptest::prelude::*;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;
use wheel::{Effect, Legs, Next, Repeat, Standing, Verdict};

mod model;
mod replicas;

/// A writer that runs in the background, and what it tells.
pub(super) struct Bench {
    pub(super) commits: Commits,
    pub(super) store: Store,
    pub(super) leases: Leases,
    clock: Clock,
    news: mpsc::Receiver<Vec<News>>,
    keeper: tokio::task::AbortHandle,
    /// Ended when dropped, without a word to the database.
    tasks: tokio::task::JoinSet<anyhow::Result<()>>,
}

fn limits() -> Limits {
    Limits {
        tasks_max: 5_000,
        tasks_per_call_max: 3,
        tenant_quota: 4_000,
        tenant_quotas: HashMap::from([("small".to_owned(), 2)]),
    }
}

impl Bench {
    async fn start(database: &Database) -> Self {
        Self::open(database.open().await, limits()).await
    }

    /// One that owns a shard at least.
    async fn open(store: Store, limits: Limits) -> Self {
        let (leases, keeper, mut turns) = leases::open(&store, "http://127.0.0.1:1".to_owned());
        let clock = Clock::start();
        let (commits, writer, news) = super::open(Desk {
            recent: Recent::default(),
            store: store.clone(),
            leases: leases.clone(),
            limits,
            clock,
            lanes: Lanes::new([String::new()]),
            horizon_ms: 3_600_000,
        });
        let mut tasks = tokio::task::JoinSet::new();
        let keeper = tasks.spawn(keeper.run());
        tasks.spawn(writer.run());
        turns.recv().await.unwrap();
        let following = leases.clone();
        tasks.spawn(async move {
            while let Some(turn) = turns.recv().await {
                if let Turn::Leaving(shard) = turn {
                    following.quiet(shard).await; // Nothing is ever in flight.
                }
            }
            Ok(())
        });
        Self { commits, store, leases, clock, news, keeper, tasks }
    }

    /// One that owns all shards, and whose news nobody waits for.
    pub(super) async fn alone(database: &Database) -> Self {
        let mut bench = Self::start(database).await;
        bench.owns(16).await;
        bench.discard_news();
        bench
    }

    async fn owns(&self, shards: usize) {
        let mut changed = self.leases.changed();
        while self.leases.all_held().len() != shards {
            changed.changed().await.unwrap();
        }
    }

    fn discard_news(&mut self) {
        let (_, none) = mpsc::channel(1);
        let mut news = std::mem::replace(&mut self.news, none);
        self.tasks.spawn(async move {
            while news.recv().await.is_some() {}
            Ok(())
        });
    }

    async fn schedule(&self, id: u128, call: &str, key: &str) -> Result<Task, Declined> {
        self.commits.schedule(new(id, call, key)).await.unwrap()
    }

    async fn claim_one(&self, id: u128, revision: i64, again: bool) -> Option<Granted> {
        let fence = self.fence(id);
        let claim = Claim { task: TaskId(id), revision, again, ticket: 0, fence };
        self.commits.claim(vec![claim]).await.unwrap().pop()
    }

    async fn settle_one(&self, id: u128, verdict: Verdict, next: Option<Next>) -> Option<Settled> {
        let settlement = Settlement { fence: self.fence(id), ..settlement(id, 0, verdict, next) };
        self.commits.settle(vec![settlement]).await.unwrap().pop()
    }

    /// The token under which the task's shard is held; -1 if it is not.
    fn fence(&self, id: u128) -> i64 {
        let held = self.leases.all_held();
        held.iter().find(|held| held.shard == TaskId(id).shard()).map_or(-1, |held| held.fence)
    }

    pub(super) async fn get(&self, id: u128) -> Task {
        self.store.get(TaskId(id)).await.unwrap().unwrap()
    }
}

fn new(id: u128, call: &str, key: &str) -> New {
    New { task: sample(id, call), key: key.to_owned(), due: 7 }
}

fn settlement(id: u128, occurrence: u32, verdict: Verdict, next: Option<Next>) -> Settlement {
    let (task, result) = (TaskId(id), "said".to_owned());
    Settlement { task, occurrence, verdict, late_ms: 3, result, next, ticket: 0, fence: 0 }
}

pub(crate) fn sample(id: u128, call: &str) -> Task {
    Task {
        id: TaskId(id),
        call_id: call.to_owned(),
        state: State::Pending,
        fires_at_unix_ms: boot::unix_ms() + 60_000,
        revision: 1,
        effect: Arc::new(Effect::HangUp {
            call_id: call.to_owned(),
            cause: "ALLOTTED_TIMEOUT".to_owned(),
            legs: Legs::Both,
        }),
        group: "g".to_owned(),
        label: String::new(),
        tenant: String::new(),
        edge: String::new(),
        created_unix_ms: 1,
        ended_unix_ms: 0,
        late_ms: 0,
        result: String::new(),
        repeat: None,
        occurrence: 0,
        missed: 0,
        remaining_ms: 0,
        cancel_requested: false,
        pinned: crate::clock::Pinned::default(),
    }
}

fn me() -> String {
    "me".to_owned()
}

fn cancel_all() -> Action {
    Action::End { event: Event::Cancelled, result: me() }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_cancel_and_a_claim_at_once_exactly_one_wins_each_of_a_thousand_times() {
    for database in Database::each() {
        let bench = Bench::alone(&database).await;
        // Half of them are kept in memory, ready to be claimed.
        let all = (0..1_000).map(|id| model::soon_or_not(new(id, &format!("call-{id}"), "")));
        bench.commits.schedule_many(all.collect()).await.unwrap();
        // Both for each, in an order that is random over a short way, 200 at a time.
        let mut order: Vec<_> = (0..2_000u64).map(|nth| (nth + nth * 7_919 % 67, nth)).collect();
        order.sort_unstable();
        let asks = order.into_iter().map(|(_, nth)| {
            let (commits, id) = (bench.commits.clone(), TaskId(u128::from(nth / 2)));
            let fence = bench.fence(id.0);
            tokio::spawn(async move {
                let claim = Claim { task: id, revision: 1, again: false, ticket: 0, fence };
                match nth % 2 {
                    0 => (id, Ok(commits.cancel(id, me()).await.unwrap())),
                    _ => (id, Err(commits.claim(vec![claim]).await.unwrap())),
                }
            })
        });
        let answers: Vec<_> = stream::iter(asks).buffered(200).map(Result::unwrap).collect().await;
        let (mut cancels, mut claims) = (BTreeMap::new(), BTreeMap::new());
        for (id, answer) in answers {
            match answer {
                Ok(cancelled) => drop(cancels.insert(id, cancelled)),
                Err(granted) => drop(claims.insert(id, granted)),
            }
        }
        for (id, cancel) in cancels {
            let state = bench.store.get(id).await.unwrap().unwrap().state;
            match (cancel, claims[&id].len()) {
                (Cancelled::Now(_), 0) => assert_eq!(state, State::Cancelled),
                (Cancelled::TooLate(task), 1) => {
                    assert_eq!((task.state, state), (State::Firing, State::Firing));
                }
                other => panic!("{id}: {other:?}"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_key_is_one_task_however_many_ask_at_once() {
    for database in Database::each() {
        let bench = Bench::alone(&database).await;
        let asks = (0..100).map(|id| {
            let commits = bench.commits.clone();
            tokio::spawn(async move {
                commits.schedule(new(id, "call", "key")).await.unwrap().unwrap().id
            })
        });
        let ids = futures::future::join_all(asks.collect::<Vec<_>>()).await;
        let first = *ids[0].as_ref().unwrap();
        assert!(ids.iter().all(|id| *id.as_ref().unwrap() == first));
        assert_eq!(bench.schedule(200, "other", "key").await, Err(Declined::KeyTaken(first)));
        // Of another tenant, it is another key.
        let mut elsewhere = new(201, "other", "key");
        elsewhere.task.tenant = "t".to_owned();
        let task = bench.commits.schedule(elsewhere).await.unwrap().unwrap();
        assert_eq!(task.id, TaskId(201));
    }
}

#[tokio::test]
async fn who_has_passed_the_writer_sees_what_was_scheduled_before() {
    for database in Database::each() {
        let bench = Bench::alone(&database).await;
        let seen = async {
            bench.commits.pass().await.unwrap();
            bench.store.live_of_calls(&["call", "other"]).await.unwrap()
        };
        // The first is asked first.
        let (scheduled, seen) = tokio::join!(bench.schedule(1, "call", ""), seen);
        scheduled.unwrap();
        assert_eq!(seen, [("call".to_owned(), 1)]);
    }
}

#[tokio::test]
async fn a_known_key_is_answered_also_when_the_limits_are_reached_and_the_task_has_ended() {
    for database in Database::each() {
        let limits = Limits { tasks_max: 1, tasks_per_call_max: 1, ..limits() };
        let bench = Bench::open(database.open().await, limits).await;
        bench.owns(16).await;
        let task = bench.schedule(1, "call", "key").await.unwrap();
        assert_eq!(bench.schedule(2, "call", "key").await.unwrap(), task);
        bench.commits.cancel(task.id, me()).await.unwrap();
        assert_eq!(bench.schedule(3, "call", "key").await.unwrap().state, State::Cancelled);
    }
}

#[tokio::test]
async fn limits_count_what_has_not_ended() {
    for database in Database::each() {
        let limits = Limits { tasks_max: 4, tasks_per_call_max: 3, ..limits() };
        let bench = Bench::open(database.open().await, limits).await;
        bench.owns(16).await;
        for id in 0..3 {
            bench.schedule(id, "call", "").await.unwrap();
        }
        assert_eq!(bench.schedule(3, "call", "").await, Err(Declined::TooManyOfCall { max: 3 }));
        bench.schedule(4, "other", "").await.unwrap();
        assert_eq!(bench.schedule(5, "third", "").await, Err(Declined::TooManyTasks { max: 4 }));
        bench.commits.cancel(TaskId(0), me()).await.unwrap();
        bench.schedule(6, "call", "").await.unwrap();
        assert_eq!(bench.schedule(7, "third", "").await, Err(Declined::TooManyTasks { max: 4 }));
        let scope = Scope::Call("call".to_owned());
        let action = Action::End { event: Event::CallEnded, result: "call ended".to_owned() };
        assert_eq!(bench.commits.sweep(&scope, &action, ShardSet::ALL).await.unwrap(), (3, 0));
        bench.schedule(8, "third", "").await.unwrap();
    }
}

#[tokio::test]
async fn a_tenant_has_its_quota_and_nobody_elses() {
    for database in Database::each() {
        let bench = Bench::alone(&database).await;
        let of_small = |id| {
            let mut it = new(id, &format!("call-{id}"), "");
            it.task.tenant = "small".to_owned();
            it
        };
        let scheduled = bench.commits.schedule_many((0..3).map(of_small).collect()).await.unwrap();
        let declined = Declined::TooManyOfTenant { tenant: "small".to_owned(), max: 2 };
        assert!(matches!(&scheduled[..], [Ok(Ok(_)), Ok(Ok(_)), Ok(Err(it))] if *it == declined));
        bench.schedule(4, "call", "").await.unwrap();
        let scope = Scope::Tenant("small".to_owned());
        assert_eq!(
            bench.commits.sweep(&scope, &cancel_all(), ShardSet::ALL).await.unwrap(),
            (2, 0)
        );
        bench.commits.schedule(of_small(5)).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn every_change_is_logged_once_in_the_order_of_commits() {
    for database in Database::each() {
        let bench = Bench::alone(&database).await;
        let (id, commits) = (TaskId(16), &bench.commits);
        let at = |fires_at_unix_ms| {
            let pinned = crate::clock::Pinned::default();
            To::At { fires_at_unix_ms, due: 99, pinned }
        };
        bench.schedule(16, "call", "").await.unwrap();
        commits.reschedule(id, 1, at(2_000)).await.unwrap().unwrap();
        let wrong = commits.reschedule(id, 1, at(3_000)).await.unwrap();
        assert_eq!(wrong, Err(Unmoved::Revision { got: 1, has: 2 }));
        assert_eq!(bench.claim_one(16, 1, false).await, None);
        assert!(bench.claim_one(16, 2, false).await.is_some());
        assert_eq!(bench.claim_one(16, 2, false).await, None);
        assert!(bench.claim_one(16, 3, true).await.is_some());
        let late = commits.reschedule(id, 0, at(3_000)).await.unwrap();
        assert_eq!(late, Err(Unmoved::WrongState(State::Firing)));
        assert!(bench.settle_one(16, Verdict::Done, None).await.is_some());
        bench.settle_one(16, Verdict::Refused, None).await;
        assert!(matches!(commits.cancel(id, me()).await.unwrap(), Cancelled::TooLate(_)));
        assert_eq!(commits.cancel(TaskId(2), me()).await.unwrap(), Cancelled::NotFound);
        let logged = bench.store.changes(0, 0, 99).await.unwrap().unwrap();
        let states: Vec<_> =
            logged.iter().map(|it| (it.seq, it.task.state, it.task.revision)).collect();
        let expected = [
            (1, State::Pending, 1),
            (2, State::Pending, 2),
            (3, State::Firing, 3),
            (4, State::Fired, 4),
        ];
        assert_eq!(states, expected);
        assert_eq!(logged[3].task, bench.get(16).await);
        let rest = bench.store.changes(0, 2, 99).await.unwrap().unwrap();
        assert_eq!(rest, logged[2..]);
        assert_eq!(bench.store.changes(0, 4, 99).await.unwrap(), Some(Vec::new()));
    }
}

#[tokio::test]
async fn what_is_forgotten_is_gone_with_its_tasks_and_the_numbers_go_on() {
    for database in Database::each() {
        let bench = Bench::alone(&database).await;
        for id in [16, 32, 48] {
            bench.schedule(id, &format!("call-{id}"), "").await.unwrap();
        }
        bench.commits.cancel(TaskId(16), me()).await.unwrap();
        let forget = async |before_unix_ms, told_seq, before_seq| {
            let old = Old { before_unix_ms, told_seq, before_seq };
            bench.commits.forget(0, old, 99).await.unwrap()
        };
        assert_eq!(forget(0, 4, 1).await, 0, "neither old nor too many");
        assert_eq!(forget(i64::MAX, 0, 1).await, 0, "the world was not told yet");
        assert_eq!(forget(i64::MAX, 3, 1).await, 3);
        assert_eq!(forget(0, 3, 5).await, 1, "there are too many, told or not");
        assert_eq!(forget(i64::MAX, 4, 5).await, 0);
        assert_eq!(bench.store.get(TaskId(16)).await.unwrap(), None);
        assert_eq!(bench.get(32).await.state, State::Pending);
        assert_eq!(bench.store.changes(0, 3, 99).await.unwrap(), None);
        bench.commits.cancel(TaskId(32), me()).await.unwrap();
        let on = bench.store.changes(0, 4, 99).await.unwrap().unwrap();
        assert_eq!(on.iter().map(|it| (it.seq, it.task.id.0)).collect::<Vec<_>>(), [(5, 32)]);
    }
}

#[tokio::test]
async fn a_paused_task_keeps_the_time_it_has_left() {
    for database in Database::each() {
        let mut bench = Bench::start(&database).await;
        bench.owns(16).await;
        let (id, commits) = (TaskId(1), bench.commits.clone());
        bench.schedule(1, "call", "").await.unwrap();
        let paused = commits.pause(id).await.unwrap().unwrap();
        assert!((59_000..=60_000).contains(&paused.remaining_ms), "{}", paused.remaining_ms);
        assert_eq!(commits.pause(id).await.unwrap().unwrap(), paused);
        assert_eq!(bench.claim_one(1, paused.revision, false).await, None);
        let later = commits.reschedule(id, 0, To::Later { by_ms: 30_000 }).await.unwrap().unwrap();
        assert_eq!(later.remaining_ms, paused.remaining_ms + 30_000);
        let before = bench.clock.moment();
        let resumed = commits.resume(id).await.unwrap().unwrap();
        let after = bench.clock.moment();
        let due = before.after(later.remaining_ms).0..=after.after(later.remaining_ms).0;
        assert!(due.contains(&resumed.fires_at_unix_ms) && resumed.remaining_ms == 0);
        let earlier = commits.reschedule(id, 0, To::Later { by_ms: -10 }).await.unwrap().unwrap();
        assert_eq!(earlier.fires_at_unix_ms, resumed.fires_at_unix_ms - 10);
        let far = commits.reschedule(id, 0, To::Later { by_ms: i64::MIN }).await.unwrap();
        assert!(matches!(far, Err(Unmoved::OutOfRange { .. })), "{far:?}");
        // The firing loop hears of all of it.
        let mut heard = Vec::new();
        while let Ok(news) = bench.news.try_recv() {
            heard.extend(news.into_iter().map(|it| (it.revision, it.now != Standing::Gone)));
        }
        assert_eq!(heard, [(1, true), (2, false), (4, true), (5, true)]);
    }
}

#[tokio::test]
async fn a_repeating_task_goes_on_until_a_cancel_is_requested() {
    for database in Database::each() {
        let bench = Bench::alone(&database).await;
        let mut asked = new(1, "call", "");
        let every = Repeat { every_ms: 1_000, count: Some(9), until_unix_ms: None };
        asked.task.repeat = Some(every);
        let task = bench.commits.schedule(asked).await.unwrap().unwrap();
        let granted = bench.claim_one(1, 1, false).await.unwrap();
        assert_eq!((granted.occurrence, granted.repeat), (0, Some(every)));
        let next = Some(Next { after_ms: 3_000, missed: 2 });
        let settled = bench.settle_one(1, Verdict::Done, next).await.unwrap();
        assert_eq!(settled.pending, Some(3));
        let again = bench.get(1).await;
        assert_eq!((again.state, again.occurrence, again.missed), (State::Pending, 1, 2));
        assert_eq!(again.fires_at_unix_ms, task.fires_at_unix_ms + 3_000);
        // The answer to this settlement was lost: it is not written twice.
        assert_eq!(bench.settle_one(1, Verdict::Done, next).await.unwrap().pending, Some(3));
        bench.claim_one(1, 3, false).await.unwrap();
        let Cancelled::TooLate(task) = bench.commits.cancel(TaskId(1), me()).await.unwrap() else {
            panic!("it was firing")
        };
        assert!(task.cancel_requested && task.state == State::Firing);
        let settlement =
            Settlement { fence: bench.fence(1), ..settlement(1, 1, Verdict::Done, next) };
        let settled = bench.commits.settle(vec![settlement]).await.unwrap();
        assert_eq!(settled[0].pending, None);
        assert_eq!(bench.get(1).await.state, State::Fired);
    }
}

#[tokio::test]
async fn what_was_asked_for_under_another_token_is_not_written() {
    for database in Database::each() {
        let bench = Bench::alone(&database).await;
        bench.schedule(1, "call", "").await.unwrap();
        let stale = bench.fence(1) - 1;
        let claim = |fence| Claim { task: TaskId(1), revision: 1, again: false, ticket: 0, fence };
        assert!(bench.commits.claim(vec![claim(stale)]).await.unwrap().is_empty());
        assert_eq!(bench.get(1).await.state, State::Pending);

        bench.claim_one(1, 1, false).await.expect("under the token of now it is granted");
        let settle = |fence| Settlement { fence, ..settlement(1, 0, Verdict::Done, None) };
        assert!(bench.commits.settle(vec![settle(stale)]).await.unwrap().is_empty());
        assert_eq!(bench.get(1).await.state, State::Firing);
        bench.settle_one(1, Verdict::Done, None).await.expect("it is firing still");
        assert_eq!(bench.get(1).await.state, State::Fired);
    }
}

#[tokio::test]
async fn a_large_group_is_cancelled_whole() {
    for database in Database::each() {
        let bench = Bench::alone(&database).await;
        let many = 2 * u128::from(ROWS_PER_STATEMENT) + 1;
        let all = (0..many).map(|id| new(id, &format!("call-{id}"), "")).collect();
        bench.commits.schedule_many(all).await.unwrap().into_iter().for_each(|it| {
            drop(it.unwrap().unwrap());
        });
        bench.claim_one(0, 1, false).await.unwrap();
        let scope = Scope::Group("g".to_owned());
        let paused = bench.commits.sweep(&scope, &Action::Pause, ShardSet::ALL).await.unwrap();
        assert_eq!(paused, (many as u32 - 1, 1));
        let resumed = bench.commits.sweep(&scope, &Action::Resume, ShardSet::ALL).await.unwrap();
        assert_eq!(resumed, (many as u32 - 1, 1));
        let ended = bench.commits.sweep(&scope, &cancel_all(), ShardSet::ALL).await.unwrap();
        assert_eq!(ended, (many as u32 - 1, 1));
        assert_eq!(
            bench.commits.sweep(&scope, &cancel_all(), ShardSet::ALL).await.unwrap(),
            (0, 1)
        );
    }
}

#[tokio::test]
async fn a_locked_file_does_nothing_and_says_so_and_goes_on_afterwards() {
    let database = Database::file();
    let bench = Bench::alone(&database).await;
    bench.schedule(1, "call", "").await.unwrap();
    // Another process, e.g. an operator's shell.
    let other = sqlx::SqlitePool::connect(&database.url()).await.unwrap();
    let lock = other.begin_with("BEGIN IMMEDIATE").await.unwrap();
    assert_eq!(bench.commits.schedule(new(2, "call", "")).await, Err(Unwritten::Failed));
    assert_eq!(bench.commits.cancel(TaskId(1), me()).await, Err(Unwritten::Failed));
    assert_eq!(bench.get(1).await.state, State::Pending);
    lock.rollback().await.unwrap();
    assert_eq!(bench.store.get(TaskId(2)).await.unwrap(), None);
    bench.schedule(2, "call", "").await.unwrap();
    assert!(matches!(bench.commits.cancel(TaskId(1), me()).await, Ok(Cancelled::Now(_))));
}

#[tokio::test]
async fn a_full_disk_does_nothing_and_says_so_and_goes_on_afterwards() {
    let database = Database::file();
    let bench = Bench::alone(&database).await;
    bench.schedule(1, "call", "").await.unwrap();
    let Store::Sqlite(file) = &bench.store else { unreachable!() };
    file.limit_pages(Some(0)).await;
    let mut big = new(2, "call", "");
    big.task.label = "x".repeat(1 << 20);
    assert_eq!(bench.commits.schedule(big).await, Err(Unwritten::Failed));
    file.limit_pages(None).await;
    assert_eq!(bench.store.get(TaskId(2)).await.unwrap(), None);
    bench.schedule(2, "call", "").await.unwrap();
}

#[tokio::test]
async fn more_writes_than_may_wait_are_refused_at_once() {
    let store = Database::file().open().await;
    let (leases, _keeper, _turns) = leases::open(&store, String::new());
    let (commits, _stopped, _news) = super::open(Desk {
        recent: Recent::default(),
        store,
        leases,
        limits: limits(),
        clock: Clock::start(),
        lanes: Lanes::new([String::new()]),
        horizon_ms: 1,
    });
    let mut waiting = Vec::new();
    for id in 0..WRITES_WAITING_MAX as u128 {
        let mut ask = Box::pin(commits.cancel(TaskId(id), me()));
        assert!(futures::poll!(&mut ask).is_pending());
        waiting.push(ask);
    }
    assert_eq!(commits.cancel(TaskId(0), me()).await, Err(Unwritten::TooMany));
    drop(waiting);
    let mut big = new(1, "call", "");
    big.task.label = "x".repeat(WAITING_KIB_MAX << 10);
    assert_eq!(commits.schedule(big).await, Err(Unwritten::TooMany));
}
